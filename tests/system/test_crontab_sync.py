"""An app's schedules in the real crontab of Debian: the cases of inside/sync_cases.py, in a box."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .box import HERE, need_box


@pytest.mark.one_python
@pytest.mark.timeout(300)
def test_the_cases_hold_on_the_real_program(tmp_path: Path) -> None:
    need_box("crontab")

    pytest_ = [sys.executable, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'cases'}"]
    done = subprocess.run(
        [str(HERE / "box.sh"), str(tmp_path / "box"), *pytest_, str(HERE / "inside" / "sync_cases.py")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTEST_ADDOPTS": "", "PYTHONPATH": f"{HERE.parents[1] / 'src'}:{HERE.parent}"},
        check=False,
    )

    assert done.returncode == 0, done.stdout
