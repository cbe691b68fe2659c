"""The server's time is known here within half of what an answer takes, and the closest reading is kept."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tickwork.conformance import START, HandClock
from tickwork.stores.instants import us
from tickwork.stores.postgres_time import ServerTime

AHEAD = timedelta(seconds=2)


def reading(clock: HandClock, error: float, took: float) -> tuple[int, float, float]:
    """Return what a server says that is two seconds ahead, when the answer takes so long and is wrong by so much."""
    return us(clock.now() + AHEAD + timedelta(seconds=error)), clock.seconds - took / 2, clock.seconds + took / 2


def test_until_the_server_has_told_it_the_time_is_that_of_the_host() -> None:
    clock = HandClock()

    assert ServerTime(clock, is_own=False).now() == START


def test_the_time_is_the_servers_and_goes_on_between_two_answers() -> None:
    clock = HandClock()
    time = ServerTime(clock, is_own=False)
    time.hear(*reading(clock, 0.0, 0.01))
    clock.seconds += 100

    assert time.now() == clock.now() + AHEAD
    assert time.us() == us(clock.now() + AHEAD)


def test_of_two_answers_the_faster_counts() -> None:
    clock = HandClock()
    time = ServerTime(clock, is_own=False)
    time.hear(*reading(clock, 0.0, 0.01))
    time.hear(*reading(clock, 0.4, 1.0))
    assert time.now() == clock.now() + AHEAD

    time.hear(*reading(clock, 0.001, 0.002))
    assert (time.now() - clock.now() - AHEAD).total_seconds() == pytest.approx(0.001, abs=1e-5)


def test_a_clock_of_the_server_that_is_set_is_followed_however_long_the_answer_took() -> None:
    clock = HandClock()
    time = ServerTime(clock, is_own=False)
    time.hear(*reading(clock, 0.0, 0.01))
    time.hear(*reading(clock, 60.0, 1.0))

    assert (time.now() - clock.now() - AHEAD).total_seconds() == pytest.approx(60.0, abs=1e-5)


def test_an_old_answer_gives_way_to_a_slower_one() -> None:
    clock = HandClock()
    time = ServerTime(clock, is_own=False)
    time.hear(*reading(clock, 0.0, 0.01))
    clock.seconds += 600
    time.hear(*reading(clock, 0.05, 0.1))

    assert (time.now() - clock.now() - AHEAD).total_seconds() == pytest.approx(0.05, abs=1e-5)


def test_a_test_that_turns_its_clock_is_not_disturbed() -> None:
    clock = HandClock()
    time = ServerTime(clock, is_own=True)
    time.hear(*reading(clock, 0.0, 0.01))

    assert time.now() == START
