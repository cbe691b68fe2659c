"""Jobs are enqueued, and claimed in their order by who may have them."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from itertools import cycle
from typing import TYPE_CHECKING

import pytest

from ..errors import DuplicateJob
from ..jobs import JobRecord, JobState, NewJob
from .kit import MAX_QUEUED, HandClock, StoreChecks, declare, ending, firing, ids, lease, new_job

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..stores.base import Store


class ClaimChecks(StoreChecks):
    """Jobs are enqueued, and claimed in their order by who may have them."""

    async def test_a_job_is_kept_as_it_was_given(self, store: Store, clock: HandClock) -> None:
        given = new_job(
            clock,
            payload='{"a": "\u00e9\u4e2d\U0001f600 \\u0000", "n": 123456789012345678901234567890}',
            queue="mail \u00fc",
            priority=-7,
            start_by=clock.now() + timedelta(microseconds=1),
            is_once=True,
        )
        (taken,) = await store.enqueue([given])

        assert taken == await store.job(given.id)
        assert {name: getattr(taken, name) for name in vars(NewJob)["__slots__"]} == {
            name: getattr(given, name) for name in vars(NewJob)["__slots__"]
        }
        assert (taken.state, taken.enqueued_at, taken.attempt, taken.token) == (JobState.QUEUED, clock.now(), 0, 0)

    async def test_a_large_payload_and_a_large_result_come_back_whole(self, store: Store, clock: HandClock) -> None:
        large = '["' + "x\u00fc" * 500_000 + '"]'
        await store.enqueue([new_job(clock, payload=large)])
        record = await self.claim_one(store)
        await store.finish([ending(record, result=large)])

        assert record.payload == large
        assert (await store.job(record.id)).result == large

    async def test_texts_that_are_no_unicode_mean_the_same_when_they_come_back(
        self, store: Store, clock: HandClock
    ) -> None:
        name = "caf\udce9"  # a file name in Latin 1, as Python reads it
        await store.enqueue([new_job(clock, payload=json.dumps([name], ensure_ascii=False))])
        record = await self.claim_one(store)
        await store.finish([ending(record, result=json.dumps(name, ensure_ascii=False))])

        assert json.loads(record.payload) == [name]
        assert json.loads((await store.job(record.id)).result or "") == name

    async def test_jobs_are_claimed_by_priority_then_in_order_of_arrival(self, store: Store, clock: HandClock) -> None:
        jobs = [new_job(clock, priority=priority) for priority in (0, 5, 0, 5, -1)]
        await store.enqueue(jobs)

        claimed = await self.claim(store)

        assert ids(claimed) == [jobs[index].id for index in (1, 3, 0, 2, 4)]
        assert all(record.state is JobState.RUNNING and record.worker == self.worker for record in claimed)
        assert all(record.token > 0 for record in claimed)

    async def test_an_older_job_goes_first_also_when_it_comes_again(self, store: Store, clock: HandClock) -> None:
        later, released, retried = (new_job(clock, delay=delay) for delay in (5, 0, 0))
        await store.enqueue([later, released, retried])
        first, second = await self.claim(store)
        await store.enqueue([young := new_job(clock)])
        clock.advance(1)
        await store.finish([ending(second, JobState.SCHEDULED, run_at=clock.now() + timedelta(seconds=1))])
        await store.release([lease(first)])
        clock.advance(5)

        claims = [await self.claim_one(store, limit=1) for _ in range(4)]
        assert ids(claims) == [later.id, released.id, retried.id, young.id]

    async def test_a_claim_takes_only_what_it_knows_asks_for_and_has_room_for(
        self, store: Store, clock: HandClock
    ) -> None:
        known, other, elsewhere = new_job(clock), new_job(clock, "unknown"), new_job(clock, queue="mail")
        await store.enqueue([other, known, elsewhere])

        assert await self.claim(store, limit=0) == []
        assert await self.claim(store, tasks=set()) == []
        assert await self.claim(store, queues=set()) == []
        assert ids(await self.claim(store, queues={"default"})) == [known.id]
        assert ids(await self.claim(store)) == [elsewhere.id]
        assert (await store.job(other.id)).state is JobState.QUEUED
        assert ids(await self.claim(store, tasks={"unknown", "t"}, limit=1)) == [other.id]

    async def test_a_claim_takes_the_first_of_what_it_may_take_whatever_else_waits(
        self, store: Store, clock: HandClock
    ) -> None:
        places = cycle([(queue, task) for queue in ("a", "b", "c") for task in ("t", "u", "v")])
        asked: list[tuple[set[str], set[str]]] = [
            ({"t"}, {"a", "b", "c"}),
            ({"u", "v", "w"}, {"b"}),
            ({"t", "u", "v"}, {"a", "c"}),
            ({"v"}, {"a", "b", "d"}),
        ]
        left: list[NewJob] = []
        for n in range(24):
            if n == 12:
                await store.set_queue("c", paused=True)
            while len(left) < MAX_QUEUED:
                queue, task = next(places)
                left.append(job := new_job(clock, task, queue=queue, priority=len(left) * 7 % 4))
                await store.enqueue([job])
            (tasks, queues), limit = asked[n % 4], 1 + n % 3
            can_run = [job for job in left if job.task in tasks and job.queue in queues - ({"c"} if n >= 12 else set())]
            first = sorted(can_run, key=lambda job: -job.priority)[:limit]
            assert ids(await self.claim(store, tasks=tasks, queues=queues, limit=limit)) == [job.id for job in first]
            left = [job for job in left if job not in first]

    async def test_a_claim_of_named_jobs_takes_no_others(self, store: Store, clock: HandClock) -> None:
        first, wanted, later, unknown = new_job(clock), new_job(clock), new_job(clock, delay=60), new_job(clock, "u")
        late = new_job(clock, start_by=clock.now() + timedelta(seconds=1))
        await store.enqueue([first, wanted, later, unknown, late])
        clock.advance(2)

        assert await self.claim(store, jobs=set()) == []
        assert ids(await self.claim(store, jobs={wanted.id, later.id, unknown.id, "nobody"})) == [wanted.id]
        assert (await store.job(late.id)).state is JobState.QUEUED
        assert ids(await self.claim(store, jobs={late.id})) == [late.id]
        assert (await store.job(late.id)).state is JobState.CANCELLED
        clock.advance(61)
        assert ids(await self.claim(store, jobs={wanted.id, later.id})) == [later.id]
        assert ids(await self.claim(store)) == [first.id]

    async def test_each_job_goes_to_one_of_many_who_claim_at_once(self, store: Store, clock: HandClock) -> None:
        jobs = [new_job(clock) for _ in range(MAX_QUEUED)]
        await store.enqueue(jobs)

        claims = await asyncio.gather(*[self.claim(store, limit=3) for _ in range(8)])

        claimed = [record.id for records in claims for record in records]
        assert sorted(claimed) == sorted(job.id for job in jobs)

    async def test_a_job_for_later_is_scheduled_and_wakes_who_waits_when_it_is_due(
        self, store: Store, clock: HandClock
    ) -> None:
        later = new_job(clock, delay=60)
        (taken,) = await store.enqueue([later])
        assert taken.state is JobState.SCHEDULED
        assert await self.claim(store) == []
        waiting = asyncio.ensure_future(store.wait_claimable())
        for _ in range(3):  # a timer of a wall clock may ring early; who is woken claims, and waits again
            clock.advance(20)
            await self.settle(store)
            if waiting.done() and not (claimed := await self.claim(store)):
                waiting = asyncio.ensure_future(store.wait_claimable())
        await self.soon(waiting)

        assert ids(claimed or await self.claim(store)) == [later.id]

    async def test_who_is_handed_a_job_hears_of_the_next_one(self, store: Store, clock: HandClock) -> None:
        assert await self.claim(store) == []
        waiting = asyncio.ensure_future(store.wait_claimable())
        await self.settle(store)
        jobs = [new_job(clock) for _ in range(2)]
        for job in jobs:  # the first may be claimed for who waits, and nobody has asked for the second
            await store.enqueue([job])
        await self.soon(waiting)
        claimed = await self.claim(store)
        while len(claimed) < 2:
            await self.soon(asyncio.ensure_future(store.wait_claimable()))
            claimed += await self.claim(store)

        assert ids(claimed) == [job.id for job in jobs]

    async def test_who_asks_for_certain_jobs_leaves_the_wake_up_to_who_takes_any(
        self, store: Store, clock: HandClock
    ) -> None:
        assert await self.claim(store) == []
        await store.enqueue([first := new_job(clock)])
        await self.settle(store)
        for _ in range(2):
            assert await self.claim(store, jobs={"another"}, limit=1) == []
        await self.soon(store.wait_claimable())
        assert ids(await self.claim(store)) == [first.id]

        waiting = asyncio.ensure_future(store.wait_claimable())
        await self.settle(store)
        assert await self.claim(store, jobs={"another"}, limit=1) == []
        await store.enqueue([second := new_job(clock)])
        await self.soon(waiting)
        assert ids(await self.claim(store)) == [second.id]

    async def test_what_was_claimed_for_who_waited_is_lost_to_nobody_when_its_next_claim_is_cancelled(
        self, store: Store, clock: HandClock
    ) -> None:
        assert await self.claim(store) == []
        waiting = asyncio.ensure_future(store.wait_claimable())
        await self.settle(store)
        await store.enqueue([job := new_job(clock)])
        await self.soon(waiting)
        claiming = asyncio.ensure_future(self.claim(store, tasks={"t", "u"}))
        await asyncio.sleep(0)
        claiming.cancel()
        await asyncio.wait([claiming])
        claimed = [] if claiming.cancelled() else claiming.result()

        assert ids(claimed or await self.claim(store)) == [job.id]

    async def test_the_more_urgent_of_jobs_enqueued_in_one_turn_goes_first_whatever_is_asked_in_between(
        self, store: Store, clock: HandClock
    ) -> None:
        assert await self.claim(store, limit=1) == []
        waiting = asyncio.ensure_future(store.wait_claimable(1))
        await self.settle(store)
        early, urgent = new_job(clock), new_job(clock, priority=9)
        await asyncio.gather(store.enqueue([early]), store.beat(self.worker), store.prune(), store.enqueue([urgent]))
        await self.soon(waiting)

        assert ids(await self.claim(store, limit=1)) == [urgent.id]
        assert ids(await self.claim(store, limit=1)) == [early.id]

    async def test_who_asks_for_certain_jobs_again_and_again_waits_in_between(
        self, store: Store, clock: HandClock
    ) -> None:
        async def claims_until_it_waits(jobs: set[str]) -> None:
            while True:  # it may be woken for nothing, but not for ever
                assert await self.claim(store, jobs=jobs) == []
                waiting = asyncio.ensure_future(store.wait_claimable())
                await self.settle(store)
                if waiting.cancel():
                    return

        await store.enqueue([new_job(clock), wanted := new_job(clock, delay=5)])
        await self.soon(claims_until_it_waits({"another"}))
        await self.soon(claims_until_it_waits({"another", wanted.id}))
        clock.advance(6)

        assert ids(await self.claim(store, jobs={"another", wanted.id})) == [wanted.id]

    async def test_whatever_may_be_claimed_wakes_who_waits(self, store: Store, clock: HandClock) -> None:
        async def wakes(act: Callable[[], Awaitable[object]]) -> JobRecord:
            while await self.claim(store):
                pass
            waiting = asyncio.ensure_future(store.wait_claimable())
            await self.settle(store)
            await act()
            await self.soon(waiting)
            return await self.claim_one(store, lease_seconds=1.0)

        record = await wakes(lambda: store.enqueue([new_job(clock)]))
        record = await wakes(lambda: store.release([lease(record)]))
        record = await wakes(lambda: store.finish([ending(record, JobState.QUEUED)]))
        clock.advance(2)
        record = await wakes(store.rescue)
        await store.set_schedule([declare()])
        await wakes(lambda: store.fire([firing(clock, 1)]))

    async def test_an_id_is_taken_once(self, store: Store, clock: HandClock) -> None:
        known, fresh = new_job(clock), new_job(clock)
        await store.enqueue([known])

        with pytest.raises(DuplicateJob) as refused:
            await store.enqueue([fresh, new_job(clock, "other", id=known.id)])
        with pytest.raises(DuplicateJob):
            await store.enqueue([fresh, fresh])

        assert str(refused.value) == f"job {known.id!r} is in the store already; give every new job an id of its own"
        assert ids(await store.jobs()) == [known.id]
        assert (await store.job(known.id)).task == "t"
