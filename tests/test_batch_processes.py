"""Batches of several processes on one file: who enqueues dies, who runs dies, and who waits is a third one."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

from fleet import Fleet
from tickwork.jobs import JobState

pytestmark = [pytest.mark.skipif(sys.platform == "win32", reason="needs signals"), pytest.mark.one_python]

COUNT = 1_400

PROGRAM = f"""
app = App("sqlite:///jobs.db", workers=4, max_queued=2_000)
COUNT = {COUNT}

@app.task(name="double")
async def double(number: int) -> int:
    say("double", number)
    await asyncio.sleep(0.002)
    return 2 * number

async def numbers():
    for number in range(COUNT):
        if number == 700 and "HALT" in os.environ:
            say("halted")
            await asyncio.sleep(60)
        yield number
"""

ENQUEUE = """
import asyncio
from jobs import app, double, numbers, say

async def main():
    async with app.client():
        batch = await double.map(numbers(), id="all")
        say("enqueued", (await batch.counts()).total)

asyncio.run(main())
"""

WAIT = """
import asyncio
from jobs import app, say
from tickwork.errors import UnknownBatch

async def main():
    async with app.client():
        while True:
            try:
                batch = await app.jobs.batch("all")
            except UnknownBatch:
                await asyncio.sleep(0.02)
            else:
                break
        say("found")
        ends = 0
        async for outcome in batch.outcomes(ordered=False):
            ends += outcome.error is None
        say("ends", ends)
        say("counts", str(await batch.wait()).replace(" ", "_"))
        say("sum", sum(await batch))

asyncio.run(main())
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "enqueue.py").write_text(ENQUEUE)
    (tmp_path / "wait.py").write_text(WAIT)
    return tmp_path


def expect_all(fleet: Fleet) -> None:
    """Expect that a process that waited has heard of every end, and that each item is in the batch once."""
    fleet.wait_said("sum", within=30)
    assert fleet.said("ends") == [str(COUNT)]
    assert fleet.said("counts") == [f"{COUNT:,}_of_{COUNT:,}_have_ended:_{COUNT:,}_succeeded"]
    assert fleet.said("sum") == [str(sum(2 * number for number in range(COUNT)))]
    counts = fleet.ask(lambda store: store.counts())
    assert counts[JobState.SUCCEEDED] == sum(counts.values()) == COUNT
    assert fleet.ask(lambda store: store.batch("all")).is_over


@pytest.mark.timeout(120)
def test_whoever_enqueues_is_killed_and_the_next_goes_on(folder: Path) -> None:
    with Fleet(folder, PROGRAM) as fleet:
        dies = fleet.start("enqueue.py", env={"HALT": "1"})
        fleet.start("wait.py")
        fleet.start()
        fleet.wait_said("halted", within=30)
        fleet.wait_until(lambda: _size(fleet) >= 700, "what came before to be enqueued", 30)
        fleet.kill(dies)
        row = fleet.ask(lambda store: store.batch("all"))
        assert (row.size, row.is_open, row.is_over) == (700, True, False)
        fleet.wait_until(lambda: len(fleet.lines("double")) >= 700, "the jobs that are there", 30)
        assert fleet.said("ends") == []  # it is not over: more may come

        fleet.start("enqueue.py")
        fleet.wait_said("enqueued", within=30)
        expect_all(fleet)
        assert Counter(fleet.said("double")) == Counter(str(number) for number in range(COUNT))


@pytest.mark.timeout(120)
def test_whoever_enqueues_is_killed_at_any_moment_and_each_item_is_there_once(folder: Path) -> None:
    with Fleet(folder, PROGRAM) as fleet:
        for size in (1, 300, 900):
            dies = fleet.start("enqueue.py")
            fleet.wait_until(lambda size=size: _size(fleet) >= size, f"{size} items", 30)  # type: ignore[misc]
            fleet.kill(dies)
            row = fleet.ask(lambda store: store.batch("all"))
            jobs = fleet.ask(lambda store: store.batch_jobs("all", limit=10_000))
            assert [job.batch_index for job in jobs] == list(range(row.size))
        fleet.start("enqueue.py")
        fleet.wait_said("enqueued", within=30)
        jobs = fleet.ask(lambda store: store.batch_jobs("all", limit=10_000))
        assert [job.batch_index for job in jobs] == list(range(COUNT))
        assert [job.payload for job in jobs] == [f'{{"number":{number}}}' for number in range(COUNT)]


def _size(fleet: Fleet) -> int:
    rows = fleet.ask(lambda store: store.batches())
    return rows[0].size if rows else 0


@pytest.mark.timeout(120)
def test_workers_are_killed_and_the_batch_ends_elsewhere(folder: Path) -> None:
    with Fleet(folder, PROGRAM) as fleet:
        fleet.start("enqueue.py")
        fleet.start("wait.py")
        first = fleet.start()
        fleet.start()
        for times in (100, 400):
            fleet.wait_until(lambda times=times: len(fleet.lines("double")) >= times, "jobs", 30)  # type: ignore[misc]
            fleet.kill(first)
            first = fleet.start()
        expect_all(fleet)
        assert {int(number) for number in fleet.said("double")} == set(range(COUNT))
