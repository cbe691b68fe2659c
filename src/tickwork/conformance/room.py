"""So many jobs may wait and no more, whoever is cancelled meanwhile."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from ..errors import NotRunning, QueueFull, UnknownJob
from ..jobs import JobState
from .kit import MAX_QUEUED, PATIENCE_SECONDS, HandClock, StoreChecks, ids, lease, new_job

if TYPE_CHECKING:
    from ..stores.base import Store


class RoomChecks(StoreChecks):
    """So many jobs may wait and no more, whoever is cancelled meanwhile."""

    async def test_a_full_store_takes_all_or_none(self, store: Store, clock: HandClock) -> None:
        await store.enqueue([new_job(clock, delay=(number % 2) * 60) for number in range(8)])

        with pytest.raises(QueueFull) as full:
            await store.enqueue([new_job(clock) for _ in range(3)], wait=False)
        with pytest.raises(QueueFull) as never:
            await store.enqueue([new_job(clock) for _ in range(11)])
        assert await store.enqueue([]) == []
        await store.enqueue([new_job(clock), new_job(clock)], wait=False)

        assert str(full.value) == (
            "the store is full (10 entries); await enqueue(...) to wait for room, or raise max_queued"
        )
        assert str(never.value) == ("the store is full (10 entries); 11 jobs at once never fit; enqueue them in parts")
        assert len(await store.jobs()) == 10

    async def test_producers_wait_for_room_in_their_order(self, store: Store, clock: HandClock) -> None:
        await store.enqueue([new_job(clock) for _ in range(MAX_QUEUED)])
        big, small = [new_job(clock) for _ in range(3)], [new_job(clock)]
        first = asyncio.ensure_future(store.enqueue(big))
        await self.settle(store)
        second = asyncio.ensure_future(store.enqueue(small))
        await self.settle(store)

        await self.claim(store, limit=1)  # room for the small one, whose turn it is not
        await self.settle(store)
        assert (first.done(), second.done()) == (False, False)
        with pytest.raises(QueueFull):
            await store.enqueue([new_job(clock)], wait=False)
        await self.claim(store, limit=2)
        await self.soon(first)
        await self.settle(store)
        assert not second.done()
        await self.claim(store, limit=1)
        await self.soon(second)

    async def test_a_cancelled_job_makes_room(self, store: Store, clock: HandClock) -> None:
        jobs = [new_job(clock, delay=60) for _ in range(MAX_QUEUED)]
        await store.enqueue(jobs)
        producer = asyncio.ensure_future(store.enqueue([new_job(clock)]))
        await self.settle(store)
        await store.cancel([jobs[0].id])

        await self.soon(producer)

    @pytest.mark.parametrize("claims_first", [True, False])
    async def test_a_cancelled_producer_has_enqueued_nothing_and_hands_its_turn_on(
        self, store: Store, clock: HandClock, claims_first: bool
    ) -> None:
        await store.enqueue([new_job(clock) for _ in range(MAX_QUEUED)])
        cancelled, patient = new_job(clock), new_job(clock)
        first = asyncio.ensure_future(store.enqueue([cancelled]))
        await self.settle(store)
        second = asyncio.ensure_future(store.enqueue([patient]))
        await self.settle(store)
        if claims_first:
            await self.claim(store, limit=1)
        first.cancel()
        await asyncio.wait([first])
        if not claims_first:
            await self.claim(store, limit=1)
        if not first.cancelled():
            await self.claim(store, limit=1)
        await self.soon(second)

        if first.cancelled():
            with pytest.raises(UnknownJob):
                await store.job(cancelled.id)
        assert (await store.job(patient.id)).state is JobState.QUEUED

    async def test_a_cancelled_enqueue_has_enqueued_nothing_however_far_it_was(
        self, store: Store, clock: HandClock
    ) -> None:
        for turns in range(12):
            job = new_job(clock)
            task = asyncio.ensure_future(store.enqueue([job]))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task], timeout=PATIENCE_SECONDS)

            assert task.done()
            known = ids(await store.jobs())
            assert (job.id in known) is (not task.cancelled())
            await store.cancel(known)

    async def test_a_cancelled_claim_has_claimed_nothing_however_far_it_was(
        self, store: Store, clock: HandClock
    ) -> None:
        await store.enqueue([new_job(clock)])
        for turns in range(12):
            task = asyncio.ensure_future(self.claim(store))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task], timeout=PATIENCE_SECONDS)

            assert task.done()
            if not task.cancelled():
                await store.release([lease(record) for record in task.result()])
            assert (await store.counts())[JobState.QUEUED] == 1

    async def test_closing_tells_producers_that_wait_for_room(self, store: Store, clock: HandClock) -> None:
        await store.enqueue([new_job(clock) for _ in range(MAX_QUEUED)])
        producers = [asyncio.ensure_future(store.enqueue([new_job(clock)])) for _ in range(2)]
        await self.settle(store)
        await store.close()

        for producer in producers:
            with pytest.raises(NotRunning) as told:
                await self.soon(producer)
            assert str(told.value) == "the app stopped while this waited for room; nothing was enqueued"
        await store.close()
