"""Answers that are due at once are looked for, as long as that is worth while."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import time
from collections.abc import Callable
from functools import partial

import psutil
import pytest

from tickwork.runners.lookout import MOST_PASSED_OVER, TURN_SECONDS, Lookout
from tickwork.runners.process import ProcessRunner

from . import functions

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="nobody looks there")


@pytest.fixture(autouse=True)
def two_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})


def never() -> bool:
    return False


def passed_over(lookout: Lookout) -> int:
    """Return how many calls are passed over before the next look."""
    count = 0
    while not lookout.is_due():
        count += 1
    return count


def third_time() -> Callable[[], bool]:
    answers = iter([False, False, True])
    return lambda: next(answers)


def test_looks_in_vain_become_rare() -> None:
    lookout, found = Lookout(), []
    assert lookout.is_due()
    for _ in range(13):
        assert not lookout.look(never)
        found.append(passed_over(lookout))

    assert found == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 1_024, 1_024]
    assert found[-1] == MOST_PASSED_OVER


def test_what_was_found_makes_the_next_call_be_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    lookout = Lookout()
    for _ in range(5):
        lookout.look(never)
        passed_over(lookout)

    with monkeypatch.context() as patient:
        patient.setattr("tickwork.runners.lookout.LOOK_SECONDS", 30.0)
        assert lookout.look(third_time())
    assert lookout.is_due()
    assert not lookout.look(never)
    assert passed_over(lookout) == 1


def test_with_one_processor_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})

    assert not Lookout().is_due()


def test_others_have_a_turn_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = (100.0 + number * TURN_SECONDS / 3.5 for number in itertools.count())
    monkeypatch.setattr("tickwork.runners.lookout.elapsed", partial(next, steps))
    lookout = Lookout()

    turns = [lookout.is_turn_of_others() for _ in range(9)]

    assert turns == [True, False, False, False] * 2 + [True]


async def test_calls_that_follow_each_other_closely_leave_the_loop_its_turns(runner: ProcessRunner) -> None:
    turns, began = 0, time.process_time()

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counter = asyncio.create_task(count())
    assert [await runner.run(functions.same, (number,)) for number in range(1_000)] == list(range(1_000))
    spent = time.process_time() - began
    counter.cancel()

    assert turns > spent / TURN_SECONDS / 20


async def test_children_that_have_nothing_to_do_sleep(runner: ProcessRunner) -> None:
    for number in range(200):
        assert await runner.run(functions.same, (number,)) == number
    (pid,) = runner.pids
    child = psutil.Process(pid)
    before = child.cpu_times()
    await asyncio.sleep(0.5)
    after = child.cpu_times()

    assert after.user + after.system - before.user - before.system <= 0.03
