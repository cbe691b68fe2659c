"""Jobs of a batch, which takes its items in part by part."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from ..errors import NotRunning, QueueFull, UnknownBatch
from ..jobs import JobState, Outcome
from ..records import changed
from ..stores.views import JobQuery
from .kit import MAX_QUEUED, START, HandClock, StoreChecks, ending, ids, lease, new_job

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..stores.base import Store


class BatchChecks(StoreChecks):
    """Jobs of a batch, which takes its items in part by part."""

    async def test_a_batch_takes_in_its_items_part_by_part(self, store: Store, clock: HandClock) -> None:
        first = await self.feed(store, clock, 0, 2)
        clock.advance(10)
        second = await self.feed(store, clock, 2, 1, is_last=True)

        assert (first.size, first.digest, first.is_open, first.completed_at) == (2, "of 2", True, None)
        assert (first.created_at, first.feeds_until) == (START, START + timedelta(seconds=60))
        assert (second.size, second.digest, second.is_open, second.completed_at) == (3, "of 3", False, clock.now())
        assert (second.id, second.task, second.created_at) == ("b", "t", START)
        assert second == await store.batch("b") == (await store.batches())[0]
        assert second.counts == {**dict.fromkeys(JobState, 0), JobState.QUEUED: 3}
        jobs = await store.batch_jobs("b")
        assert [(job.batch, job.batch_index, job.state) for job in jobs] == [
            ("b", index, JobState.QUEUED) for index in range(3)
        ]
        assert ids(await self.claim(store)) == ids(jobs)

    async def test_a_batch_takes_nothing_but_what_comes_next(self, store: Store, clock: HandClock) -> None:
        before = await self.feed(store, clock, 0, 2)

        assert await self.feed(store, clock, 0, 1) == before
        assert await self.feed(store, clock, 3, 1) == before
        assert await self.feed(store, clock, 2, 1, task="u") == before
        complete = await self.feed(store, clock, 2, is_last=True)
        assert await self.feed(store, clock, 2, 1) == complete
        with pytest.raises(UnknownBatch, match="no batch 'other' in the store"):
            await self.feed(store, clock, 2, 1, batch="other")

        assert sum((await store.counts()).values()) == 2

    async def test_a_part_without_jobs_says_that_more_come(self, store: Store, clock: HandClock) -> None:
        before = await self.feed(store, clock, 0, 1)
        clock.advance(50)
        after = await self.feed(store, clock, 1)

        assert after == changed(before, feeds_until=clock.now() + timedelta(seconds=60))

    async def test_a_batch_of_nothing_is_over_at_once(self, store: Store, clock: HandClock) -> None:
        row = await self.feed(store, clock, is_last=True)

        assert (row.size, row.is_open, row.is_over, row.unfinished) == (0, False, True, 0)

    async def test_a_cancelled_batch_takes_no_more_and_keeps_its_jobs(self, store: Store, clock: HandClock) -> None:
        await self.feed(store, clock, 0, 2)
        cancelled = await store.cancel_batch("b")

        assert (cancelled.cancelled_at, cancelled.is_open, cancelled.unfinished) == (clock.now(), False, 2)
        assert await self.feed(store, clock, 2, 1) == cancelled
        clock.advance(1)
        assert await store.cancel_batch("b") == cancelled
        await self.feed(store, clock, 0, 1, batch="c", is_last=True)
        assert (await store.cancel_batch("c")).cancelled_at is None
        with pytest.raises(UnknownBatch):
            await store.cancel_batch("other")

    async def test_a_batch_counts_its_jobs_wherever_they_go(self, store: Store, clock: HandClock) -> None:
        await self.feed(store, clock, 0, 6, is_last=True)

        async def counted() -> dict[str, int]:
            counts = (await store.batch("b")).counts
            jobs = await store.batch_jobs("b")
            assert counts == {state: sum(job.state is state for job in jobs) for state in JobState}
            return {str(state): count for state, count in counts.items() if count}

        claimed = await self.claim(store, limit=5)
        assert await counted() == {"queued": 1, "running": 5}
        await store.release([lease(claimed[4])])
        later = clock.now() + timedelta(seconds=10)
        await store.finish(
            [
                ending(claimed[0], result="1"),
                ending(claimed[1], JobState.FAILED, outcome=Outcome.FAILED),
                ending(claimed[2], JobState.PARKED),
                ending(claimed[3], JobState.SCHEDULED, run_at=later, outcome=Outcome.FAILED),
            ]
        )
        assert await counted() == {"succeeded": 1, "failed": 1, "parked": 1, "scheduled": 1, "queued": 2}
        assert not (await store.batch("b")).is_over
        await store.cancel([claimed[2].id, claimed[3].id, claimed[4].id])
        await store.retry([claimed[1].id])
        assert await counted() == {"succeeded": 1, "cancelled": 3, "queued": 2}
        await store.delete([claimed[0].id, claimed[1].id])
        assert await counted() == {"cancelled": 3, "queued": 1}
        await self.claim_one(store, lease_seconds=1)
        clock.advance(100)
        await store.rescue()
        assert await counted() == {"cancelled": 3, "queued": 1}
        record = await self.claim_one(store)
        await store.finish([ending(record)])
        assert await counted() == {"cancelled": 3, "succeeded": 1}
        row = await store.batch("b")
        assert (row.size, row.is_over) == (6, True)

    async def test_the_ends_of_a_batch_come_in_their_order(self, store: Store, clock: HandClock) -> None:
        await self.feed(store, clock, 0, 4, is_last=True)
        claimed = await self.claim(store)
        for index in (2, 0, 3):
            clock.advance(-1)  # the order is not that of the clock
            await store.finish([ending(claimed[index], JobState.FAILED, outcome=Outcome.FAILED)])

        async def ends(**about: Any) -> list[tuple[int, int | None, str]]:
            return [(end, job.batch_index, job.state) for end, job in await store.batch_ends("b", **about)]

        assert await ends() == [(1, 2, "failed"), (2, 0, "failed"), (3, 3, "failed")]
        assert await ends(after=1, limit=1) == [(2, 0, "failed")]
        assert await ends(after=3) == []
        await store.retry([claimed[2].id, claimed[0].id])
        again, _ = await self.claim(store, limit=2)
        await store.finish([ending(again)])
        assert await ends(after=2) == [(3, 3, "failed"), (4, 0, "succeeded")]
        assert (await store.batch("b")).ends == 4
        assert await store.batch_ends("other") == []

    async def test_jobs_of_a_batch_come_in_the_order_of_its_items(self, store: Store, clock: HandClock) -> None:
        await self.feed(store, clock, 0, 5)
        await self.feed(store, clock, 0, 1, batch="c")
        await self.feed(store, clock, 5, 2)
        claimed = await self.claim(store, limit=3)
        await store.finish([ending(claimed[0], JobState.FAILED), ending(claimed[2], JobState.FAILED)])

        async def indexes(**about: Any) -> list[int | None]:
            return [job.batch_index for job in await store.batch_jobs("b", **about)]

        assert await indexes() == [0, 1, 2, 3, 4, 5, 6]
        assert await indexes(first=2, limit=3) == [2, 3, 4]
        assert await indexes(states=[JobState.FAILED]) == [0, 2]
        assert await indexes(states=[JobState.FAILED, JobState.QUEUED], first=1, limit=3) == [2, 3, 4]
        assert await indexes(first=7) == await indexes(first=7, states=[JobState.QUEUED]) == []
        assert await store.batch_jobs("other") == []

    async def test_a_list_of_a_batch_shows_no_other_job(self, store: Store, clock: HandClock) -> None:
        await self.feed(store, clock, 0, 3)
        await store.enqueue([new_job(clock)])
        await self.claim(store, limit=1)

        async def indexes(**about: Any) -> list[int | None]:
            return [job.batch_index for job in (await store.page(JobQuery(batch="b", **about))).jobs]

        assert await indexes() == [2, 1, 0]
        assert await indexes(states=(JobState.QUEUED,)) == [2, 1]
        assert await indexes(tasks=("u",)) == await indexes(queue="x") == await indexes(schedule="s") == []
        page = await store.page(JobQuery(batch="b", limit=2))
        assert [job.batch_index for job in (await store.page(JobQuery(batch="b", after=page.next))).jobs] == [0]
        assert (await store.page(JobQuery(batch="other"))).jobs == []

    async def test_a_part_waits_for_room(self, store: Store, clock: HandClock) -> None:
        await self.feed(store, clock, 0, MAX_QUEUED - 1)
        with pytest.raises(QueueFull):
            await self.feed(store, clock, MAX_QUEUED - 1, 2, wait=False)
        with pytest.raises(QueueFull, match="11 jobs at once never fit"):
            await self.feed(store, clock, MAX_QUEUED - 1, MAX_QUEUED + 1)
        waiting = asyncio.ensure_future(self.feed(store, clock, MAX_QUEUED - 1, 2))
        await self.settle(store)
        assert not waiting.done()
        assert (await store.batch("b")).size == MAX_QUEUED - 1

        await self.claim(store, limit=1)

        assert (await self.soon(waiting)).size == MAX_QUEUED + 1

    async def test_a_cancelled_part_is_in_the_batch_or_not(self, store: Store, clock: HandClock) -> None:
        await self.feed(store, clock, 0, 1)
        feeding = asyncio.ensure_future(self.feed(store, clock, 1, 3))
        await asyncio.sleep(0)
        feeding.cancel()
        await asyncio.wait([feeding])

        row = await store.batch("b")
        assert row.size == len(await store.batch_jobs("b")) == row.counts[JobState.QUEUED]
        assert row.size in (1, 4)

    async def test_who_waits_for_a_batch_hears_when_it_is_so(self, store: Store, clock: HandClock) -> None:
        await self.feed(store, clock, 0, 2)
        over = store.batch_when("b", lambda row: row.is_over)
        grown = store.batch_when("b", lambda row: row.size > 2)
        at_once = await self.soon(store.batch_when("b", lambda row: row.size == 2))
        assert at_once.size == 2

        await self.feed(store, clock, 2, 1, is_last=True)
        assert (await self.soon(grown)).size == 3
        first, second, third = await self.claim(store)
        await store.finish([ending(first), ending(second, JobState.PARKED)])
        await self.settle(store)
        assert not over.done()
        await store.cancel([third.id])
        await store.finish([ending(third, JobState.CANCELLED)])

        assert (await self.soon(over)).ends == 3
        with pytest.raises(UnknownBatch):
            await self.soon(store.batch_when("other", lambda row: True))

    async def test_who_waits_for_a_batch_hears_that_the_store_is_closed(
        self, make_store: Callable[[HandClock, int], Store], clock: HandClock
    ) -> None:
        store = make_store(clock, MAX_QUEUED)
        await store.open()
        await self.feed(store, clock, 0, 1)
        over = store.batch_when("b", lambda row: row.is_over)
        await self.settle(store)
        await store.close()

        with pytest.raises(NotRunning, match="the app stopped before batch 'b' had ended"):
            await self.soon(over)

    async def test_who_begins_to_wait_while_the_store_closes_hears_it(
        self, make_store: Callable[[HandClock, int], Store], clock: HandClock
    ) -> None:
        store = make_store(clock, MAX_QUEUED)
        await store.open()
        await self.feed(store, clock, 0, 1)
        (job,) = await store.batch_jobs("b")
        closing = asyncio.ensure_future(store.close())
        waits: list[asyncio.Future[Any]] = []
        while not closing.done():
            waits += [store.batch_when("b", lambda row: row.is_over), store.finished(job.id)]
            await asyncio.sleep(0)

        assert waits
        for wait in waits:
            with pytest.raises(NotRunning):
                await self.soon(wait)

    async def test_a_batch_is_forgotten_after_its_jobs(self, store: Store, clock: HandClock) -> None:
        await self.feed(store, clock, 0, 2, is_last=True)
        await self.feed(store, clock, 0, 1, batch="parked", is_last=True)
        await self.feed(store, clock, batch="empty", is_last=True)
        ended, left, parked = await self.claim(store)
        await store.finish([ending(ended), ending(parked, JobState.PARKED)])
        await store.prune()
        assert [row.id for row in sorted(await store.batches(), key=lambda row: row.id)] == ["b", "empty", "parked"]
        if self.forget_seconds is None:
            return
        clock.advance(self.forget_seconds)
        await store.prune()
        row = await store.batch("b")
        assert (row.size, row.unfinished, sum(row.counts.values())) == (2, 1, 1)
        with pytest.raises(UnknownBatch):
            await store.batch("empty")
        assert (await store.batch("parked")).counts[JobState.PARKED] == 1

        await store.finish([ending(left)])
        clock.advance(self.forget_seconds)
        await store.prune()

        assert [row.id for row in await store.batches()] == ["parked"]
