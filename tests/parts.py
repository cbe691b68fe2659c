"""Parts that a machine may lack: without one its tests are skipped, and in CI they fail."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import pytest


def lacking(reason: str) -> NoReturn:
    """Skip the test with the reason; in CI, which brings or installs every part, fail."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason}: in CI that is a failure")
    pytest.skip(reason)


def need(module: str) -> None:
    """Go on where a module is installed."""
    if find_spec(module) is None:
        lacking(f"{module} is not installed")


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Mount a disk of a size such as "1500k", which a test can fill."""
    folder.mkdir()
    if shutil.which("mount") is None:
        lacking("mount is missing; .ci/packages installs it")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        lacking("only root may mount a small disk, and not everywhere")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
