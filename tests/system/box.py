"""A box in which tests use a real cron: see box.sh. Where a machine cannot have one, they are skipped, and say why."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from parts import lacking

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def need_box(*programs: str) -> None:
    """Go on where programs are installed and namespaces can be made."""
    if sys.platform != "linux":
        pytest.skip("a private spool of cron takes the namespaces of Linux")
    for program in programs:
        if shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None:
            lacking(f"{program} is not installed")
    if os.geteuid() != 0:
        lacking("a private spool of cron takes root")
    tried = subprocess.run(
        [
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--mount-proc",
            "--propagation",
            "private",
            "mount",
            "-t",
            "tmpfs",
            "none",
            "/run",
        ],
        capture_output=True,
        check=False,
    )
    if tried.returncode != 0:
        lacking(f"no namespaces can be made here: {tried.stderr.decode(errors='replace').strip()}")
    if not Path("/var/spool/cron/crontabs").is_dir():
        lacking("/var/spool/cron/crontabs of Debian's cron is missing")


def run_in_box(folder: Path, script: str, *words: str, timeout: float = 280, env: dict[str, str] | None = None) -> Any:
    """Run a script of tests/system/inside in a box, and return the JSON that it prints last."""
    done = subprocess.run(
        [HERE / "box.sh", folder / "box", sys.executable, "-B", "-m", f"system.inside.{script}", *words],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=timeout,
        env={
            **os.environ,
            "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}",
            "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
            **(env or {}),
        },
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout.decode()}\n{done.stderr.decode()}"
    return json.loads(done.stdout.decode().splitlines()[-1])
