"""Transactions of a shared store: ends and the next claim go together, in time, and short jobs leave no mark."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from conftest import WaitUntil
from tickwork import App
from tickwork.gathering import GATHER_SECONDS, Gathering
from tickwork.stores.base import Lease
from tickwork.testing import virtual_loop_factory


@pytest.fixture
def anyio_backend() -> object:
    return "asyncio", {"loop_factory": partial(virtual_loop_factory, autojump=True), "debug": True}


class Gathered:
    """A gathering beside a number of jobs that wait, and the instants at which either side went on."""

    def __init__(self, waiting: int) -> None:
        self.waiting = waiting
        self.loop = asyncio.get_running_loop()
        self.gathering = Gathering(lambda: self.waiting, self.loop.call_later)
        self.began = self.loop.time()
        self.wrote: float | None = None
        self.claimed: float | None = None

    async def write(self, *, is_awaited: bool = False) -> None:
        await self.gathering.let_gather(is_awaited=is_awaited)
        self.wrote = self.loop.time() - self.began

    async def claim(self) -> None:
        await self.gathering.turn()
        self.claimed = self.loop.time() - self.began


async def test_ends_gather_for_a_moment_while_jobs_wait_and_the_claim_goes_with_them() -> None:
    gathered = Gathered(waiting=3)

    await asyncio.gather(gathered.claim(), gathered.write())

    assert gathered.wrote == gathered.claimed == pytest.approx(GATHER_SECONDS)


async def test_nothing_gathers_when_no_job_waits() -> None:
    gathered = Gathered(waiting=0)

    await asyncio.gather(gathered.claim(), gathered.write())

    assert gathered.wrote == gathered.claimed == 0


async def test_nothing_gathers_when_somebody_waits_for_a_result() -> None:
    gathered = Gathered(waiting=3)

    await asyncio.gather(gathered.claim(), gathered.write(is_awaited=True))

    assert gathered.wrote == gathered.claimed == 0


async def test_both_go_when_the_last_job_that_waited_begins() -> None:
    gathered = Gathered(waiting=2)
    both = asyncio.gather(gathered.claim(), gathered.write())
    await asyncio.sleep(GATHER_SECONDS / 4)
    gathered.waiting = 1
    gathered.gathering.began()
    await asyncio.sleep(GATHER_SECONDS / 4)
    assert not both.done()

    gathered.waiting = 0
    gathered.gathering.began()
    await both

    assert gathered.wrote == gathered.claimed == pytest.approx(GATHER_SECONDS / 2)


async def test_a_claim_waits_for_the_next_ends_and_not_for_earlier_ones() -> None:
    gathered = Gathered(waiting=2)
    await gathered.write()

    claim = asyncio.create_task(gathered.claim())
    await asyncio.sleep(1)
    assert gathered.claimed is None
    await gathered.write()
    await claim

    assert gathered.claimed == gathered.wrote


async def test_a_cancelled_write_leaves_no_timer() -> None:
    gathered = Gathered(waiting=1)
    write = asyncio.create_task(gathered.write())
    await asyncio.sleep(0)
    write.cancel()

    with pytest.raises(asyncio.CancelledError):
        await write

    gathered.gathering._is_over.clear()
    await asyncio.sleep(1)
    assert not gathered.gathering._is_over.is_set()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_end_of_a_job_and_the_claim_of_the_next_are_one_transaction(
    tmp_path: Path, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = App(f"sqlite:///{tmp_path / 'jobs.db'}", workers=1)
    go = asyncio.Event()
    done: list[int] = []

    @app.task(name="t")
    async def work(number: int) -> None:
        await go.wait()
        done.append(number)

    async with app:
        await work.enqueue_many([(1,), (2,)])
        await wait_until(lambda: app.running)
        committer: Any = cast("Any", app._store)._committer
        transactions: list[set[str]] = []
        answer = committer._answer

        def spied(connection: Any, batch: list[Any]) -> None:
            transactions.append({request.argument.__qualname__.split(".")[1] for request in batch})
            answer(connection, batch)

        monkeypatch.setattr(committer, "_answer", spied)
        go.set()
        await wait_until(lambda: done == [1, 2])

    first = next(verbs for verbs in transactions if verbs & {"finish", "claim"})
    assert first >= {"finish", "claim"}


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_only_a_job_that_runs_on_is_marked_as_begun(
    tmp_path: Path, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = App(f"sqlite:///{tmp_path / 'jobs.db'}", workers=4)
    go = asyncio.Event()

    @app.task(name="short")
    async def short() -> None: ...

    @app.task(name="long")
    async def long() -> None:
        await go.wait()

    async with app:
        store, marked = app._store, list[str]()
        assert store is not None
        progress = store.progress

        async def spied(lease: Lease, **told: Any) -> bool:
            marked.append(lease.job_id)
            return await progress(lease, **told)

        monkeypatch.setattr(store, "progress", spied)
        job = await long.enqueue()
        shorts = [await short.enqueue() for _ in range(20)]
        await asyncio.gather(*(each.result() for each in shorts))
        await wait_until(lambda: marked)
        record = await job.record()
        go.set()
        await job.result()

    assert record.started_at is not None
    assert marked == [job.id]
