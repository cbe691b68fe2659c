from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest

from tickwork.holds import KEPT, MAX_LINES, Hold, Holds, Reports


def hold(begin: float, end: float | None, what: str = "task 'a' (main.a)") -> Hold:
    return Hold(what, None, "main.py:3 in a: work()", "", begin, end)


class Attempt:
    def __init__(self) -> None:
        self.is_block_told = False

    def describe(self) -> str:
        return "jobs.poll job=01"

    def extra(self) -> dict[str, Any]:
        return {"job_id": "01", "task": "jobs.poll", "attempt": 1}


# -- what held the loop ----------------------------------------------------------------------------------------------


def test_the_longest_hold_inside_a_time_covers_it() -> None:
    holds = Holds()
    holds.add(hold(0.0, 10.0, "before, mostly"))
    holds.add(hold(10.5, 12.5, "longest"))
    holds.add(hold(13.0, 14.0, "short"))

    found = holds.covering(9.0, 14.0)

    assert found == hold(10.5, 12.5, "longest")


def test_a_time_that_was_free_for_the_most_part_is_covered_by_nothing() -> None:
    holds = Holds()
    holds.add(hold(10.0, 11.0))

    assert holds.covering(10.0, 12.0) is not None
    assert holds.covering(10.0, 12.1) is None
    assert holds.covering(11.0, 12.0) is None
    assert Holds().covering(0.0, 1.0) is None


def test_short_holds_together_cover_a_time() -> None:
    holds = Holds()
    for begin in (1.0, 2.0, 3.0):
        holds.add(hold(begin, begin + 0.6))

    assert holds.covering(1.0, 4.0) == hold(1.0, 1.6)


def test_the_present_hold_is_over_when_the_loop_asks() -> None:
    holds = Holds()
    holds.present = hold(5.0, None)

    assert holds.covering(6.0, 8.5) == hold(5.0, 8.5)
    assert holds.end(8.25) == hold(5.0, 8.25)
    assert holds.covering(6.0, 8.5) == hold(5.0, 8.25)


def test_a_bounded_number_of_holds_is_kept() -> None:
    holds = Holds()
    for begin in range(2 * KEPT):
        holds.add(hold(begin, begin + 1.0))

    assert holds.covering(0.0, 1.0) is None
    assert holds.covering(KEPT, KEPT + 1.0) is not None


def test_a_hold_says_who_how_long_and_where() -> None:
    assert str(hold(1.0, 4.24)) == "task 'a' (main.a) for 3.2 s at main.py:3 in a: work()"
    assert str(hold(1.0, None)) == "task 'a' (main.a) at main.py:3 in a: work()"
    assert str(replace(hold(1.0, 2.0), line=None)) == "task 'a' (main.a) for 1.0 s"


# -- warnings --------------------------------------------------------------------------------------------------------


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_an_attempt_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    reports, attempt = Reports(Time()), Attempt()

    assert reports.blocks(hold(99.75, None, "jobs.poll job=01"), attempt)
    assert not reports.blocks(hold(99.0, None, "jobs.poll job=01"), attempt)
    assert reports.blocks(hold(99.0, None, "jobs.poll job=02"), Attempt())

    first, second = caplog.records
    assert first.getMessage() == "jobs.poll job=01 blocks the loop: 0.25 s so far at main.py:3 in a: work()"
    assert second.getMessage() == "jobs.poll job=02 blocks the loop: 1.00 s so far at main.py:3 in a: work()"
    assert (first.name, first.levelno) == ("tickwork.watchdog", logging.WARNING)
    assert {name: getattr(first, name) for name in attempt.extra()} == attempt.extra()


def test_any_other_line_is_named_once_a_minute_with_a_count(caplog: pytest.LogCaptureFixture) -> None:
    time = Time()
    reports = Reports(time)

    assert reports.blocks(hold(99.5, None), None)
    assert not reports.blocks(hold(99.5, None, "task 'b' (main.a)"), None)  # the same line
    assert reports.blocks(replace(hold(99.5, None), line="main.py:9 in b"), None)
    time.now += 59.0
    assert not reports.blocks(hold(158.5, None), None)
    time.now += 1.0
    assert reports.blocks(hold(159.5, None), None)

    assert caplog.messages[-1] == (
        "task 'a' (main.a) blocks the loop: 0.50 s so far at main.py:3 in a: work() "
        "(2 more of these since the last warning)"
    )
    assert len(caplog.messages) == 3


def test_a_bounded_number_of_lines_is_remembered() -> None:
    reports = Reports(Time())
    for number in range(MAX_LINES + 1):
        assert reports.blocks(replace(hold(99.0, None), line=f"main.py:{number}"), None)

    assert not reports.blocks(replace(hold(99.0, None), line=f"main.py:{MAX_LINES}"), None)
    assert reports.blocks(replace(hold(99.0, None), line="main.py:0"), None)
