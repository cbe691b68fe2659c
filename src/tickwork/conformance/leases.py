"""A claim is for a time: it is renewed, lost with its worker, and given back."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from ..errors import IllegalMove
from ..jobs import JobState, Progress
from ..policies import MAX_DEATHS
from ..stores.base import Finish, Lease
from .kit import HandClock, StoreChecks, ending, ids, lease, new_job

if TYPE_CHECKING:
    from ..stores.base import Store


class LeaseChecks(StoreChecks):
    """A claim is for a time: it is renewed, lost with its worker, and given back."""

    async def test_a_late_owner_is_refused_and_changes_nothing(self, store: Store, clock: HandClock) -> None:
        await store.enqueue([new_job(clock)])
        early = await self.claim_one(store)
        clock.advance(61)
        (rescued,) = await store.rescue()
        late = await self.claim_one(store)
        assert (rescued.state, late.token > early.token) == (JobState.QUEUED, True)

        told = Progress(done=9, updated_at=clock.now())
        for other in (lease(early), Lease(early.id, late.token + 1), Lease("nobody", late.token)):
            end = Finish(lease=other, state=JobState.FAILED, attempt=9, deaths=9, result="9", error="9")
            assert await store.finish([end]) == [False]
            assert await store.extend([other], 600) == [False]
            assert await store.release([other]) == [False]
            assert not await store.progress(other, started_at=clock.now(), progress=told)
            assert await store.job(late.id) == late
        assert await store.finish([ending(late, result="1")]) == [True]
        for state in (JobState.SUCCEEDED, JobState.SCHEDULED):
            assert await store.finish([ending(late, state, result="2")]) == [False]
        ended = await store.job(late.id)
        assert (ended.state, ended.result, ended.attempt) == (JobState.SUCCEEDED, "1", 1)
        assert (ended.finished_at, ended.worker, ended.lease_expires_at) == (clock.now(), None, None)

    async def test_in_one_call_each_end_stands_for_itself(self, store: Store, clock: HandClock) -> None:
        await store.enqueue([new_job(clock) for _ in range(2)])
        one, two = await self.claim(store)
        late = Finish(lease=Lease(one.id, one.token + 7), state=JobState.FAILED, attempt=1)

        assert await store.finish([late, ending(two), ending(one), ending(one)]) == [False, True, True, False]
        assert (await store.counts())[JobState.SUCCEEDED] == 2

    async def test_an_end_that_is_none_is_refused_with_all_others(self, store: Store, clock: HandClock) -> None:
        await store.enqueue([new_job(clock) for _ in range(2)])
        one, two = await self.claim(store)

        with pytest.raises(IllegalMove, match=f"^job {two.id} is running and cannot become running$"):
            await store.finish([ending(one), ending(two, JobState.RUNNING)])
        assert await store.job(one.id) == one

    async def test_an_extended_lease_is_not_rescued(self, store: Store, clock: HandClock) -> None:
        await store.enqueue([new_job(clock)])
        record = await self.claim_one(store)
        assert record.lease_expires_at == clock.now() + timedelta(seconds=60)
        clock.advance(50)
        assert await store.rescue() == []
        assert await store.extend([lease(record)], 60) == [True]
        clock.advance(59)
        assert await store.rescue() == []
        clock.advance(1)
        assert ids(await store.rescue()) == [record.id]

    async def test_what_a_job_tells_of_its_progress_is_kept_until_it_is_claimed_again(
        self, store: Store, clock: HandClock
    ) -> None:
        await store.enqueue([new_job(clock)])
        record = await self.claim_one(store)
        assert record.progress is None
        began, told = clock.now(), Progress(done=0.5, total=3, message="\u00e9\ud800", updated_at=clock.now())
        assert await store.progress(lease(record), started_at=began, progress=told)
        assert ((await store.job(record.id)).started_at, (await store.job(record.id)).progress) == (began, told)
        clock.advance(1)
        assert await store.progress(lease(record), started_at=clock.now())
        assert (await store.job(record.id)).progress == told
        newer = Progress(done=2**63 - 1, updated_at=clock.now())
        assert await store.progress(lease(record), progress=newer)
        assert ((await store.job(record.id)).started_at, (await store.job(record.id)).progress) == (clock.now(), newer)

        await store.finish([ending(record, JobState.QUEUED)])
        assert (await store.job(record.id)).progress == newer
        again = await self.claim_one(store)
        assert again.progress is None
        await store.progress(lease(again), progress=told)
        await store.finish([ending(again)])
        assert (await store.job(record.id)).progress == told
        assert not await store.progress(lease(again), progress=newer)

    async def test_only_a_job_that_had_begun_counts_the_death_of_its_worker(
        self, store: Store, clock: HandClock
    ) -> None:
        await store.enqueue([new_job(clock)])
        for _ in range(MAX_DEATHS + 1):
            await self.claim(store)
            clock.advance(60)
            (record,) = await store.rescue()
            assert (record.state, record.deaths, record.attempt) == (JobState.QUEUED, 0, 0)
            assert (record.worker, record.lease_expires_at) == (None, None)

        for deaths in range(1, MAX_DEATHS + 1):
            claimed = await self.claim_one(store)
            assert claimed.started_at is None
            assert await store.progress(lease(claimed), started_at=clock.now())
            assert (await store.job(claimed.id)).started_at == clock.now()
            clock.advance(60)
            (record,) = await store.rescue()
            assert (record.deaths, record.attempt) == (deaths, 0)
        assert record.state is JobState.PARKED
        assert "3 worker processes died while it ran" in (record.error or "")
        assert record.finished_at is None
        assert await self.claim(store) == []
        assert await store.rescue() == []

    async def test_a_job_that_may_run_once_has_failed_when_its_worker_died(
        self, store: Store, clock: HandClock
    ) -> None:
        await store.enqueue([new_job(clock, is_once=True)])
        await self.claim(store)
        clock.advance(60)
        (record,) = await store.rescue()

        assert (record.state, record.finished_at) == (JobState.FAILED, clock.now())
        assert f"worker {self.worker} died with it, and it may run at most once" in (record.error or "")

    async def test_a_rescued_job_that_was_to_be_cancelled_is(self, store: Store, clock: HandClock) -> None:
        await store.enqueue([new_job(clock)])
        record = await self.claim_one(store)
        await store.cancel([record.id])
        clock.advance(60)

        assert [entry.state for entry in await store.rescue()] == [JobState.CANCELLED]
        assert (await store.job(record.id)).finished_at == clock.now()

    async def test_a_released_job_is_claimed_again_with_no_attempt_used(self, store: Store, clock: HandClock) -> None:
        await store.enqueue([new_job(clock)])
        record = await self.claim_one(store)
        assert await store.release([lease(record)]) == [True]
        back = await store.job(record.id)
        assert (back.state, back.worker, back.lease_expires_at) == (JobState.QUEUED, None, None)
        clock.advance(600)
        assert await store.rescue() == []

        again = await self.claim_one(store)
        assert (again.id, again.attempt, again.deaths) == (record.id, 0, 0)
        assert again.token > record.token

    async def test_a_released_job_that_was_to_be_cancelled_is(self, store: Store, clock: HandClock) -> None:
        await store.enqueue([new_job(clock)])
        record = await self.claim_one(store)
        waiting = asyncio.ensure_future(store.wait_finished(record.id))
        await self.settle(store)
        await store.cancel([record.id])
        assert await store.release([lease(record)]) == [True]

        ended = await self.soon(waiting)
        assert (ended.state, ended.finished_at) == (JobState.CANCELLED, clock.now())
        assert await self.claim(store) == []

    async def test_a_retry_waits_for_its_time_and_keeps_what_is_known(self, store: Store, clock: HandClock) -> None:
        await store.enqueue([new_job(clock)])
        record = await self.claim_one(store)
        at = clock.now() + timedelta(seconds=30)
        started_at = clock.now()
        end = ending(record, JobState.SCHEDULED, run_at=at, error='{"e": 1}', started_at=started_at)
        assert await store.finish([end]) == [True]

        waiting = await store.job(record.id)
        assert (waiting.state, waiting.attempt, waiting.error) == (JobState.SCHEDULED, 1, '{"e": 1}')
        assert (waiting.run_at, waiting.finished_at, waiting.started_at) == (at, None, started_at)
        assert await self.claim(store) == []
        clock.advance(30)
        again = await self.claim_one(store)
        assert (again.attempt, again.started_at, again.error) == (1, None, '{"e": 1}')
        await store.finish([ending(again, result="1")])
        assert ((await store.job(record.id)).attempt, (await store.job(record.id)).error) == (2, None)

    async def test_a_retry_of_what_was_to_be_cancelled_is_cancelled(self, store: Store, clock: HandClock) -> None:
        await store.enqueue([new_job(clock)])
        record = await self.claim_one(store)
        await store.cancel([record.id])
        assert await store.finish([ending(record, JobState.SCHEDULED, run_at=clock.now())]) == [True]

        ended = await store.job(record.id)
        assert (ended.state, ended.finished_at) == (JobState.CANCELLED, clock.now())
