"""`tickwork next --cron`, and the marks of clock changes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from .command import tickwork


def test_an_expression_is_shown_in_its_zone_and_in_utc(tmp_path: Path) -> None:
    ended = tickwork("next", "--cron", "0 5 * * *", "--tz", "Asia/Seoul", "-n", "3", cwd=tmp_path)

    assert (ended.status, ended.err) == (0, "")
    header, *rows = ended.out.splitlines()
    assert header.split() == ["Asia/Seoul", "UTC", "expression"]
    assert len(rows) == 3
    for row in rows:
        assert " 05:00:00 +0900  " in row
        assert " 20:00:00  0 5 * * *" in row


def test_what_a_clock_change_touches_is_marked(tmp_path: Path) -> None:
    # Every last Sunday of March the clocks of Berlin skip 02:30.
    ended = tickwork("next", "--cron", "30 2 * 3 L0", "--tz", "Europe/Berlin", "-n", "2", "--json", cwd=tmp_path)

    rows = json.loads(ended.out)
    assert [row["clock_change"] for row in rows] == ["after the gap 02:00-03:00"] * 2
    for row in rows:
        at = datetime.fromisoformat(row["at"])
        assert (at.hour, at.minute) == (3, 0)
        assert row["utc"] == at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def test_a_schedule_is_marked_by_its_own_zone(tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text(
        "import tickwork\napp = tickwork.App()\n"
        "@app.cron('30 2 * 10 L0', timezone='Europe/Berlin')\nasync def nightly(): ...\n"
    )
    ended = tickwork("next", "jobs.py", "-n", "1", cwd=tmp_path)

    assert ended.out.splitlines()[1].endswith("jobs.nightly  first pass of 02:00-03:00")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--cron", "61 * * * *"], "(field 'minute')"),
        (["--cron", "0 5 * * *", "--tz", "Asia/Soul"], "did you mean 'Asia/Seoul'?"),
        (["--cron", "0 5 * * *", "jobs.py"], "not allowed with argument"),
        ([], "one of the arguments TARGET --cron is required"),
    ],
)
def test_mistakes_end_in_status_2_and_one_line(tmp_path: Path, words: list[str], message: str) -> None:
    ended = tickwork("next", *words, cwd=tmp_path)

    assert ended.status == 2
    assert message in ended.err.splitlines()[-1]
    assert "Traceback" not in ended.err


def test_a_step_larger_than_its_field_is_said_on_stderr(tmp_path: Path) -> None:
    ended = tickwork("next", "--cron", "*/90 * * * *", "-n", "1", cwd=tmp_path)

    assert ended.status == 0
    assert "*/90" in ended.err
