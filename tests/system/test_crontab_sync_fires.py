"""The schedules of an app, put into a crontab by the command, run under Debian's own daemon."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .box import need_box, run_in_box


@pytest.mark.one_python
@pytest.mark.timeout(300)
def test_a_synced_schedule_fires_and_its_output_reaches_its_log(tmp_path: Path) -> None:
    need_box("crontab", "cron", "faketime")

    told = run_in_box(tmp_path, "sync_fire")

    for kind in ("memory", "store"):
        status, out, err = told["synced"][kind]
        assert (status, err.startswith("no cron daemon runs")) == (0, True)
        assert re.fullmatch(r"\+ it-s-100-due-[0-9a-f]{6}  \* \* \* \* \*  it's 100% Due", out.splitlines()[0])
        name, log, mode = told["logs"][kind]
        assert re.fullmatch(r"it-s-100-due-[0-9a-f]{6}\.log", name)
        assert re.search(r"^ran for 20[0-9-]+T[0-9:]+\+00:00$", log, re.M)
        assert "Traceback" not in log
        assert mode == 0o600
    assert told["seen"]
    assert "  succeeded  " in told["history"]
    assert (told["diff"], told["gone"], told["left"]) == ([0, 0], [0, 0], True)
