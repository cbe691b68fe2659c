"""Keys, and limits and rates for each of them."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from ..errors import QueueFull
from ..jobs import JobRecord, JobState
from ..limits import Limit, Limits, Rate
from ..stores.blockers import Blocker
from .kit import MAX_QUEUED, HandClock, StoreChecks, declare, ending, firing, ids, lease, new_job

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..stores.base import Store


class LimitChecks(StoreChecks):
    """Keys, and limits and rates for each of them."""

    async def limited(self, store: Store, limit: int | None = None, rate: tuple[int, float] | None = None) -> None:
        """Let limits hold for the task `t`: so many at once; so many starts in so many seconds."""
        limits = Limits(None if limit is None else Limit(limit), None if rate is None else Rate(rate[0], per=rate[1]))
        await store.set_limits({"t": limits})

    async def test_while_a_job_with_a_key_is_unfinished_it_stands_for_others(
        self, store: Store, clock: HandClock
    ) -> None:
        first = new_job(clock, key="k")

        async def again() -> str:
            (record,) = await store.enqueue([new_job(clock, key="k", payload='{"other": 1}')])
            return record.id

        assert ids(await store.enqueue([first])) == [first.id]
        assert await again() == first.id
        record = await self.claim_one(store)
        assert await again() == first.id
        assert (record.key, record.payload) == ("k", first.payload)
        await store.finish([ending(record, JobState.SCHEDULED, run_at=clock.now() + timedelta(seconds=5))])
        assert await again() == first.id
        clock.advance(5)
        await store.finish([ending(await self.claim_one(store), JobState.PARKED)])
        assert await again() == first.id
        await store.cancel([first.id])
        assert await again() != first.id
        assert len(await store.jobs()) == 2

    @pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED])
    async def test_a_finished_job_gives_its_key_free(self, store: Store, clock: HandClock, state: JobState) -> None:
        await store.enqueue([first := new_job(clock, key="k")])
        await store.finish([ending(await self.claim_one(store), state)])
        (second,) = await store.enqueue([new_job(clock, key="k")])

        assert second.id != first.id

    @pytest.mark.parametrize("state", [JobState.FAILED, JobState.CANCELLED, JobState.PARKED])
    async def test_a_job_is_not_retried_while_another_has_its_key_and_tells_which(
        self, store: Store, clock: HandClock, state: JobState
    ) -> None:
        await store.enqueue([first := new_job(clock, key="k"), other := new_job(clock)])
        for record in await self.claim(store, limit=2):
            await store.finish([ending(record, state)])

        async def held_by(job_id: str) -> str | None:
            return (await store.standing(job_id)).key_held_by

        assert [await held_by(job.id) for job in (first, other)] == [None, None]
        (second,) = await store.enqueue([new_job(clock, key="k")])
        if state is JobState.PARKED:  # it is unfinished itself
            assert (second.id, await held_by(first.id)) == (first.id, None)
            return
        assert [await held_by(job_id) for job_id in (first.id, other.id, second.id)] == [second.id, None, None]
        assert await store.retry([first.id]) == [None]
        await store.cancel([second.id])
        assert [await held_by(job_id) for job_id in (first.id, second.id)] == [None, None]
        assert [again and again.state for again in await store.retry([first.id])] == [JobState.QUEUED]
        assert [await held_by(job_id) for job_id in (first.id, second.id)] == [None, first.id]

    async def test_jobs_with_one_key_in_one_call_are_one_and_other_tasks_have_their_own(
        self, store: Store, clock: HandClock
    ) -> None:
        jobs = [new_job(clock, task, key=key) for task, key in (("t", "k"), ("u", "k"), ("t", "k"), ("t", None))]
        later = new_job(clock, key="l", delay=60)
        taken = await store.enqueue([*jobs, later, new_job(clock, key="l")])

        assert ids(taken) == [jobs[0].id, jobs[1].id, jobs[0].id, jobs[3].id, later.id, later.id]
        assert taken[4].state is JobState.SCHEDULED
        assert len(await store.jobs()) == 4

    async def test_many_who_enqueue_one_key_at_once_get_one_job(self, store: Store, clock: HandClock) -> None:
        taken = await asyncio.gather(*(store.enqueue([new_job(clock, key="k")]) for _ in range(30)))

        assert len({record.id for (record,) in taken}) == 1
        assert len(await store.jobs()) == 1

    async def test_a_job_that_is_there_needs_no_room(self, store: Store, clock: HandClock) -> None:
        jobs = [new_job(clock, key=str(number)) for number in range(MAX_QUEUED)]
        await store.enqueue(jobs)
        waiting = asyncio.ensure_future(store.enqueue([new_job(clock)]))
        await self.settle(store)

        found = await self.soon(store.enqueue([new_job(clock, key="3"), new_job(clock, key="0")], wait=False))
        assert ids(found) == [jobs[3].id, jobs[0].id]
        with pytest.raises(QueueFull):
            await store.enqueue([new_job(clock, key="3"), new_job(clock, key="new")], wait=False)
        await self.claim(store, limit=1)
        await self.soon(waiting)

    async def test_a_job_that_is_there_needs_no_room_in_a_store_that_fired_jobs_have_overfilled(
        self, store: Store, clock: HandClock
    ) -> None:
        jobs = [new_job(clock, key=str(number)) for number in range(MAX_QUEUED)]
        await store.enqueue(jobs)
        await store.set_schedule([declare()])
        await store.fire([firing(clock, 1)])
        assert (await store.counts())[JobState.QUEUED] == MAX_QUEUED + 1

        assert ids(await store.enqueue([new_job(clock, key="3")], wait=False)) == [jobs[3].id]

    async def test_no_more_jobs_run_at_once_than_their_limit_says(self, store: Store, clock: HandClock) -> None:
        await self.limited(store, 2)
        jobs = [new_job(clock, gates=("limit:a",)) for _ in range(5)]
        await store.enqueue([*jobs, other := new_job(clock, gates=("limit:b",)), free := new_job(clock)])

        first, second, *rest = await self.claim(store)
        assert ids([first, second, *rest]) == [jobs[0].id, jobs[1].id, other.id, free.id]
        assert first.gates == ("limit:a",)
        assert await self.claim(store) == []
        await store.finish([ending(first)])
        assert ids(await self.claim(store)) == [jobs[2].id]
        await store.finish([ending(second, JobState.SCHEDULED, run_at=clock.now() + timedelta(seconds=9))])
        assert ids(await self.claim(store)) == [jobs[3].id]
        clock.advance(10)
        assert await self.claim(store) == []  # the retry waits as well

    async def test_jobs_of_a_full_key_stand_in_nobodys_way(self, store: Store, clock: HandClock) -> None:
        await self.limited(store, 1)
        full = [new_job(clock, gates=("limit:full",), priority=5) for _ in range(6)]
        await store.enqueue(full)
        await store.enqueue([one := new_job(clock, gates=("limit:one",)), two := new_job(clock)])

        assert ids(await self.claim(store, limit=2)) == [full[0].id, one.id]
        assert ids(await self.claim(store, limit=2)) == [two.id]

    @pytest.mark.parametrize("way", ["ended", "parked", "released", "rescued", "cancelled", "lifted", "raised"])
    async def test_whatever_makes_room_under_a_limit_wakes_who_waits(
        self, store: Store, clock: HandClock, way: str
    ) -> None:
        await self.limited(store, 1)
        await store.enqueue([held := new_job(clock, gates=("limit:",)), blocked := new_job(clock, gates=("limit:",))])
        record = await self.claim_one(store, lease_seconds=1.0)
        assert await self.claim(store) == []
        waiting = asyncio.ensure_future(store.wait_claimable())
        await self.settle(store)
        if way == "ended":
            await store.finish([ending(record)])
        elif way == "parked":
            await store.finish([ending(record, JobState.PARKED)])
        elif way == "released":
            await store.release([lease(record)])
        elif way == "rescued":
            clock.advance(2)
            await store.rescue()
        elif way == "cancelled":
            await store.cancel([held.id])
            await store.release([lease(record)])
        elif way == "lifted":
            await self.limited(store)
        else:
            await self.limited(store, 2)
        await self.soon(waiting)

        expected = held.id if way in ("released", "rescued") else blocked.id
        assert ids(await self.claim(store)) == [expected]

    async def test_within_a_key_the_more_urgent_and_then_the_older_job_goes_first(
        self, store: Store, clock: HandClock
    ) -> None:
        await self.limited(store, 1)
        await store.enqueue([old := new_job(clock, gates=("limit:a",)), second := new_job(clock, gates=("limit:a",))])
        record = await self.claim_one(store)
        assert record.id == old.id
        await store.release([lease(record)])
        await store.enqueue([urgent := new_job(clock, gates=("limit:a",), priority=1)])

        order = []
        for _ in range(3):
            record = await self.claim_one(store)
            order.append(record.id)
            await store.finish([ending(record)])
        assert order == [urgent.id, old.id, second.id]

    async def test_no_key_starves_among_many(self, make_store: Callable[[HandClock, int], Store]) -> None:
        clock = HandClock()
        store = make_store(clock, 10_000)
        await store.open()
        await self.limited(store, 1)
        keys = [f"limit:{number}" for number in range(100)]
        await store.enqueue([new_job(clock, gates=("limit:0",)) for _ in range(500)])
        await store.enqueue([new_job(clock, gates=(key,)) for _ in range(3) for key in keys])
        running: list[JobRecord] = []
        order: list[str] = []
        while len(order) < 300:
            running += await self.claim(store, limit=7 - len(running))
            assert len({record.gates for record in running}) == len(running) == 7
            order += [record.gates[0] for record in running[:3]]
            await store.finish([ending(record) for record in running[:3]])
            del running[:3]
        await store.close()

        others = [key for key in order if key != "limit:0"]
        assert others[:99] == keys[1:]  # each once before any comes a second time
        assert others[99:198] == keys[1:]

    async def test_no_more_jobs_start_in_a_period_than_their_rate_says(self, store: Store, clock: HandClock) -> None:
        await self.limited(store, rate=(2, 10.0))
        jobs = [new_job(clock, gates=("rate:a",)) for _ in range(6)]
        await store.enqueue([*jobs, other := new_job(clock, gates=("rate:b",))])

        claimed = await self.claim(store, limit=1)
        clock.advance(4)
        claimed += await self.claim(store)
        assert ids(claimed) == [jobs[0].id, jobs[1].id, other.id]
        await store.finish([ending(record) for record in claimed])  # an end gives no start free
        clock.advance(5)
        assert await self.claim(store) == []
        clock.advance(1)
        assert ids(await self.claim(store)) == [jobs[2].id]
        clock.advance(4)
        assert ids(await self.claim(store)) == [jobs[3].id]
        clock.advance(60)
        assert ids(await self.claim(store)) == [jobs[4].id, jobs[5].id]

    async def test_a_rate_wakes_who_waits_when_it_lets_the_next_job_start(self, store: Store, clock: HandClock) -> None:
        await self.limited(store, rate=(1, 10.0))
        await store.enqueue([new_job(clock, gates=("rate:",)), second := new_job(clock, gates=("rate:",))])
        await self.claim_one(store)
        assert await self.claim(store) == []
        waiting = asyncio.ensure_future(store.wait_claimable())
        await self.settle(store)
        assert not waiting.done()
        claimed: list[JobRecord] = []
        for _ in range(3):  # a timer of a wall clock may ring early; who is woken claims, and waits again
            clock.advance(4)
            await self.settle(store)
            if waiting.done() and not (claimed := await self.claim(store)):
                waiting = asyncio.ensure_future(store.wait_claimable())
        await self.soon(waiting)

        assert ids(claimed or await self.claim(store)) == [second.id]

    async def test_a_start_counts_unless_the_job_is_given_back_before_it_began(
        self, store: Store, clock: HandClock
    ) -> None:
        await self.limited(store, rate=(2, 10.0))
        await store.enqueue([new_job(clock, gates=("rate:",)) for _ in range(4)])
        begun, unstarted = await self.claim(store)
        await store.progress(lease(begun), started_at=clock.now())
        await store.release([lease(begun), lease(unstarted)])

        assert ids(await self.claim(store)) == [begun.id]
        assert await self.claim(store) == []

    async def test_a_clock_set_back_keeps_a_rate_closed_for_one_period_at_the_most(
        self, store: Store, clock: HandClock
    ) -> None:
        await self.limited(store, rate=(1, 10.0))
        await store.enqueue([new_job(clock, gates=("rate:",)) for _ in range(2)])
        await self.claim_one(store)
        clock.seconds -= 3600
        assert await self.claim(store) == []
        clock.advance(10)
        assert len(await self.claim(store)) == 1

    async def test_a_job_must_pass_its_limit_and_its_rate(self, store: Store, clock: HandClock) -> None:
        await self.limited(store, 2, (3, 10.0))
        gates = ("rate:a", "limit:"), ("rate:b", "limit:")
        jobs = [new_job(clock, gates=gates[number // 5]) for number in range(10)]
        await store.enqueue(jobs)

        def next_two(records: list[JobRecord]) -> list[int]:
            return [[job.id for job in jobs].index(record.id) for record in records]

        first = await self.claim(store)
        await store.finish([ending(record) for record in first])
        second = await self.claim(store)
        await store.finish([ending(record) for record in second])
        third = await self.claim(store)
        assert [next_two(records) for records in (first, second, third)] == [[0, 1], [2, 5], [6, 7]]
        await store.finish([ending(record) for record in third])
        assert await self.claim(store) == []
        clock.advance(10)
        assert next_two(await self.claim(store)) == [3, 4]

    async def test_new_limits_hold_for_jobs_that_wait_already(self, store: Store, clock: HandClock) -> None:
        await store.enqueue([new_job(clock, gates=("limit:a",)) for _ in range(6)])
        await self.limited(store, 3)
        await store.set_limits({"other": Limits(Limit(1), None)})
        first = await self.claim(store)
        assert len(first) == 3
        await self.limited(store, 1)
        await store.finish([ending(record) for record in first[:2]])
        assert await self.claim(store) == []
        await store.finish([ending(first[2])])
        assert len(await self.claim(store)) == 1
        await self.limited(store)
        assert len(await self.claim(store)) == 2

    async def test_a_job_that_comes_too_late_at_a_full_key_makes_room(self, store: Store, clock: HandClock) -> None:
        await self.limited(store, 1)
        soon = clock.now() + timedelta(seconds=5)
        await store.enqueue([new_job(clock, gates=("limit:",), start_by=soon), new_job(clock, gates=("limit:",))])
        clock.advance(6)

        taken, late = await self.claim(store)
        assert (taken.state, late.state) == (JobState.RUNNING, JobState.CANCELLED)

    async def test_a_job_says_what_it_waits_for(self, store: Store, clock: HandClock) -> None:
        await self.limited(store, 1, (2, 10.0))
        jobs = [new_job(clock, gates=("limit:a", "rate:")) for _ in range(2)]
        await store.enqueue([*jobs, other := new_job(clock, gates=("limit:b", "rate:"))])
        last = new_job(clock, gates=("limit:c", "rate:"))
        await store.enqueue([last, later := new_job(clock, gates=("limit:a",), delay=5), free := new_job(clock)])
        running = await self.claim(store)
        assert ids(running) == [jobs[0].id, other.id, free.id]

        assert (await store.standing(jobs[1].id)).gate == Blocker("limit", "a", (jobs[0].id,))
        rate = (await store.standing(last.id)).gate
        assert rate is not None
        assert (rate.kind, rate.key, rate.frees_at) == ("rate", "", clock.now() + timedelta(seconds=10))
        assert set(rate.held_by) == {jobs[0].id, other.id}
        for job_id in (jobs[0].id, later.id, free.id):
            assert (await store.standing(job_id)).gate is None
        await store.set_schedule([declare()])
        before = await self.fire(store, clock, 1)
        await self.claim(store)
        behind = await self.fire(store, clock, 2, overlap="queue")
        assert before.job is not None
        assert behind.job is not None
        stands = await store.standing(behind.job.id)
        assert (stands.behind, stands.gate) == ((before.job.id,), None)

    async def test_a_rate_that_jobs_share_lets_the_next_start_while_the_first_still_runs(
        self, store: Store, clock: HandClock
    ) -> None:
        await self.limited(store, 1, (1, 10.0))
        await store.enqueue(
            [first := new_job(clock, gates=("limit:a", "rate:")), second := new_job(clock, gates=("limit:b", "rate:"))]
        )
        assert ids(await self.claim(store)) == [first.id]
        assert await self.claim(store) == []
        clock.advance(10)
        assert ids(await self.claim(store)) == [second.id]
