"""`Crontab` on the real program of Debian: the cases of inside/crontab_cases.py, in a box."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tickwork.system import CronEntry, Crontab

from .box import HERE, need_box


async def test_the_own_crontab_of_this_user_is_changed_and_put_back_where_that_is_asked_for() -> None:
    if not os.environ.get("TICKWORK_TEST_OWN_CRONTAB"):
        pytest.skip("TICKWORK_TEST_OWN_CRONTAB=1 lets it change the crontab of this user, and put it back")
    before = await asyncio.to_thread(subprocess.run, ["crontab", "-l"], stdout=subprocess.PIPE, check=False)
    tab = Crontab()
    try:
        await tab.add(CronEntry("tickwork-test", "0 0 1 1 *", ["/usr/bin/true"]))
        assert (await tab.get("tickwork-test")).command == "/usr/bin/true"
        await tab.remove("tickwork-test")
        after = await asyncio.to_thread(subprocess.run, ["crontab", "-l"], stdout=subprocess.PIPE, check=False)
        assert (after.returncode, after.stdout) == (before.returncode, before.stdout)
    finally:
        if before.returncode == 0:
            await asyncio.to_thread(subprocess.run, ["crontab", "-"], input=before.stdout, check=True)


@pytest.mark.one_python
@pytest.mark.timeout(300)
def test_the_cases_hold_on_the_real_program(tmp_path: Path) -> None:
    need_box("crontab", "setpriv")

    pytest_ = [sys.executable, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'cases'}"]
    done = subprocess.run(
        [str(HERE / "box.sh"), str(tmp_path / "box"), *pytest_, str(HERE / "inside" / "crontab_cases.py")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTEST_ADDOPTS": ""},
        check=False,
    )

    assert done.returncode == 0, done.stdout
