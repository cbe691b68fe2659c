"""What Debian's daemon starts for a schedule answers its fire times, each once, however often an entry is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from .box import need_box, run_in_box


@pytest.mark.timeout(120)
def test_entries_answer_each_fire_time_once_in_the_environment_of_cron(tmp_path: Path) -> None:
    need_box("crontab", "cron", "faketime")

    told = run_in_box(tmp_path, "trigger")

    for kind in ("memory", "store"):
        ran, log = told[kind]["ran"], told[kind]["log"]
        assert len(ran) == len(set(ran)) >= 1, log
        assert "/box/home/app 1\n" in log
        assert log.count("succeeded took=") == len(ran)
        assert log.count("nothing is run for it now") >= 2
        assert "Traceback" not in log
        assert told[kind]["mode"] == "0o600"
