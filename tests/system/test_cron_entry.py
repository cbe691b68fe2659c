"""An entry is refused when it is made, not when cron meets it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tickwork import Every
from tickwork.errors import InvalidCron, InvalidEntry, UnsupportedSchedule
from tickwork.system import CronEntry


def test_the_line_is_schedule_program_arguments_and_log() -> None:
    entry = CronEntry("a", "@daily", [Path("/bin/echo"), "a b", "%"], "/var/log/it's")

    assert entry.line() == (b"0 0 * * * /bin/echo 'a b' ''\"$(printf '\\045')\"'' >>'/var/log/it'\"'\"'s' 2>&1")


def test_a_trigger_is_said_in_the_zone_given() -> None:
    assert CronEntry("a", Every("1h"), ["/bin/true"]).line("Asia/Kolkata") == b"30 * * * * /bin/true"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "../x"}, "id '../x' cannot be part of an entry: it must be 1 to 64 of a-z,"),
        ({"argv": []}, "argv [] cannot be part of an entry: it must be a list: the program, and its arguments"),
        ({"argv": "/bin/true x"}, "argv '/bin/true x' cannot be part of an entry: it must be a list"),
        ({"argv": ["true"]}, "program 'true' cannot be part of an entry: it must be an absolute path"),
        ({"argv": ["/bin/true", 3]}, "argument 3 cannot be part of an entry: it must be a text, not int"),
        (
            {"argv": ["/bin/true", "a\n* * * * * evil"]},
            "argument 'a\\n* * * * * evil' cannot be part of an entry: it holds",
        ),
        ({"argv": ["/bin/true", "x" * 989]}, "with its quotes it has 999 bytes, and Debian's cron takes 998"),
        ({"log": "a.log"}, "log 'a.log' cannot be part of an entry: it must be an absolute path"),
        ({"log": "/a\nb"}, "log '/a\\nb' cannot be part of an entry: it holds the control character"),
        ({"log": 3}, "log 3 cannot be part of an entry: it must be a text, not int"),
    ],
)
def test_a_part_that_no_line_can_carry_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidEntry) as caught:
        CronEntry(**{"id": "a", "schedule": "@daily", "argv": ["/bin/true"], **change})

    assert message in str(caught.value)


def test_a_schedule_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidCron):
        CronEntry("a", "61 * * * *", ["/bin/true"])
    with pytest.raises(UnsupportedSchedule):
        CronEntry("a", "0 0 L * *", ["/bin/true"])


@pytest.mark.parametrize("schedule", [None, 5, b"* * * * *", ["*"]])
def test_what_is_no_schedule_at_all_is_refused(schedule: Any) -> None:
    with pytest.raises(InvalidCron, match="it must be a text, not"):
        CronEntry("a", schedule, ["/bin/true"])


def test_998_bytes_are_taken() -> None:
    assert len(CronEntry("a", "@daily", ["/bin/true", "x" * 988]).command) == 998
