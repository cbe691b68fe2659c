"""How much a process takes in advance: nothing that another could run meanwhile, and enough for short jobs."""

from __future__ import annotations

import pytest

from tickwork.prefetch import Prefetch


def test_nothing_is_taken_in_advance_before_anything_is_known() -> None:
    assert Prefetch(20, 100.0).allowed(0, 100.0) == 0


@pytest.mark.parametrize(
    ("a_second", "expected"), [(2, 0), (19, 0), (20, 1), (100, 5), (390, 19), (400, 20), (100_000, 20)]
)
def test_it_is_what_the_workers_begin_in_a_moment_and_no_more_than_there_are(a_second: int, expected: int) -> None:
    prefetch = Prefetch(20, 7.0)

    assert [prefetch.allowed(a_second * second, 7.0 + second) for second in (1, 2, 3)] == [expected] * 3


def test_twenty_long_jobs_that_end_together_are_not_taken_for_short_ones() -> None:
    prefetch = Prefetch(20, 0.0)
    assert prefetch.allowed(1, 60.0) == 0

    assert prefetch.allowed(20, 60.002) == 1


def test_short_jobs_are_noticed_before_the_first_window_is_over_and_forgotten_after_the_next() -> None:
    prefetch = Prefetch(20, 0.0)
    assert prefetch.allowed(200, 0.1) == 20
    assert prefetch.allowed(400, 0.6) == 20  # the window ends, and the rate with it goes on
    assert prefetch.allowed(400, 0.7) == 20

    assert prefetch.allowed(400, 1.2) == 0
