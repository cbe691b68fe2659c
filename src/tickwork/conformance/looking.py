"""Jobs are cancelled, waited for and looked at; queues are paused, and workers told of."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from .._version import __version__
from ..errors import InvalidOption, UnknownJob
from ..jobs import Attempt, JobState, Outcome, Progress
from ..stores.views import MAX_ATTEMPTS, JobQuery, QueueRow, Standing, Vitals
from .kit import MAX_QUEUED, START, HandClock, StoreChecks, declare, ending, ids, lease, new_job

if TYPE_CHECKING:
    from ..stores.base import Store


class LookChecks(StoreChecks):
    """Jobs are cancelled, waited for and looked at; queues are paused, and workers told of."""

    async def test_cancelling_ends_what_waits_and_marks_what_runs(self, store: Store, clock: HandClock) -> None:
        await store.enqueue([running := new_job(clock), parked := new_job(clock)])
        record, other = await self.claim(store)
        await store.finish([ending(other, JobState.PARKED)])
        await store.enqueue([queued := new_job(clock), later := new_job(clock, delay=60)])

        asked = [running.id, queued.id, later.id, parked.id, "nobody"]
        cancelled = await store.cancel(asked)

        assert [entry and (entry.state, entry.cancel_requested) for entry in cancelled] == [
            (JobState.RUNNING, True),
            (JobState.CANCELLED, False),
            (JobState.CANCELLED, False),
            (JobState.CANCELLED, False),
            None,
        ]
        assert [entry and entry.finished_at for entry in cancelled[1:4]] == [clock.now()] * 3
        clock.advance(60)
        assert await store.extend([lease(record)], 60) == [True]
        assert await self.claim(store) == []
        assert await store.finish([ending(record, JobState.CANCELLED)]) == [True]
        assert await store.cancel(asked) == [None] * 5

    @pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.PARKED])
    async def test_waiting_for_a_job_ends_when_it_is_finished_or_parked(
        self, store: Store, clock: HandClock, state: JobState
    ) -> None:
        await store.enqueue([new_job(clock)])
        record = await self.claim_one(store)
        waiting = [asyncio.ensure_future(store.wait_finished(record.id)) for _ in range(3)]
        await self.settle(store)
        waiting[0].cancel()
        await asyncio.wait(waiting[:1])
        await store.finish([ending(record, state)])

        assert [(await self.soon(entry)).state for entry in waiting[1:]] == [state, state]
        assert (await self.soon(store.wait_finished(record.id))).state is state
        with pytest.raises(UnknownJob, match="no job 'nobody' in the store"):
            await store.wait_finished("nobody")

    async def test_waiting_for_a_job_ends_when_it_is_cancelled_before_it_began(
        self, store: Store, clock: HandClock
    ) -> None:
        await store.enqueue([job := new_job(clock)])
        waiting = asyncio.ensure_future(store.wait_finished(job.id))
        await self.settle(store)
        await store.cancel([job.id])

        assert (await self.soon(waiting)).state is JobState.CANCELLED

    async def test_jobs_are_listed_the_newest_first_and_counted(self, store: Store, clock: HandClock) -> None:
        jobs = [new_job(clock, delay=600 if number == 3 else 0) for number in range(4)]
        await store.enqueue(jobs)
        await self.claim(store, limit=1)
        await store.set_schedule([declare()])
        fired = await self.fire(store, clock, 1)
        assert fired.job is not None

        assert ids(await store.jobs()) == [fired.job.id, *[job.id for job in reversed(jobs)]]
        assert ids(await store.jobs(limit=2)) == [fired.job.id, jobs[3].id]
        assert ids(await store.jobs(state=JobState.RUNNING)) == [jobs[0].id]
        assert ids(await store.jobs(state=JobState.QUEUED, limit=1)) == [fired.job.id]
        assert ids(await store.jobs(schedule="s")) == [fired.job.id]
        assert await store.jobs(schedule="s", state=JobState.RUNNING) == []
        counts = await store.counts()
        assert set(counts) == set(JobState)
        assert {state: count for state, count in counts.items() if count} == {
            JobState.QUEUED: 3,
            JobState.SCHEDULED: 1,
            JobState.RUNNING: 1,
        }

    async def test_pages_follow_each_other_whatever_comes_and_goes_meanwhile(
        self, store: Store, clock: HandClock
    ) -> None:
        jobs = [new_job(clock) for _ in range(7)]
        await store.enqueue(jobs)
        first = await store.page(JobQuery(limit=3))
        await store.enqueue([new_job(clock)])
        await store.delete([jobs[4].id, jobs[3].id, jobs[2].id])
        assert first.next is not None
        second = await store.page(JobQuery(limit=1, after=first.next))
        assert second.next is not None
        third = await store.page(JobQuery(limit=1, after=second.next))

        assert ids(first.jobs) == [jobs[6].id, jobs[5].id, jobs[4].id]
        assert (ids(second.jobs), ids(third.jobs), third.next) == ([jobs[1].id], [jobs[0].id], None)
        for cursor in ("", "x", "-1", "1" * 99, " 1", "0x1"):
            with pytest.raises(InvalidOption) as refused:
                await store.page(JobQuery(after=cursor))
            assert str(refused.value) == f"after must be the `next` of another page, got {cursor!r}"

    async def test_a_page_holds_what_is_asked_for_only(self, store: Store, clock: HandClock) -> None:
        mail = new_job(clock, "mail", queue="out")
        later = new_job(clock, "mail", delay=60)
        other = new_job(clock, queue="out", priority=9)
        await store.enqueue([mail, later, other])
        await store.set_schedule([declare()])
        fired = await self.fire(store, clock, 1)
        assert fired.job is not None
        await self.claim_one(store, limit=1)

        async def found(**options: Any) -> list[str]:
            pages, after = [], None
            while True:
                page = await store.page(JobQuery(limit=1, after=after, **options))
                pages += ids(page.jobs)
                after = page.next
                if after is None:
                    break
            assert pages == ids((await store.page(JobQuery(**options))).jobs)
            return pages

        assert await found() == [fired.job.id, other.id, later.id, mail.id]
        assert await found(queue="out") == [other.id, mail.id]
        assert await found(tasks=("mail",)) == [later.id, mail.id]
        assert await found(tasks=("mail", "t")) == [fired.job.id, other.id, later.id, mail.id]
        assert await found(tasks=("mail",), queue="out") == [mail.id]
        assert await found(states=(JobState.RUNNING,)) == [other.id]
        assert await found(states=(JobState.QUEUED, JobState.SCHEDULED), queue="out") == [mail.id]
        assert await found(states=(JobState.FAILED,)) == await found(tasks=("nobody",)) == []
        assert await found(schedule="s") == [fired.job.id]
        assert await found(schedule="s", states=(JobState.RUNNING,)) == await found(schedule="s", queue="out") == []

    @pytest.mark.parametrize("state", [JobState.FAILED, JobState.CANCELLED, JobState.PARKED])
    async def test_a_job_that_is_retried_begins_anew(self, store: Store, clock: HandClock, state: JobState) -> None:
        await store.enqueue([new_job(clock, start_by=clock.now() + timedelta(seconds=30))])
        record = await self.claim_one(store)
        await store.progress(lease(record), started_at=clock.now(), progress=Progress(done=1, updated_at=clock.now()))
        await store.cancel([record.id])
        await store.finish([ending(record, state, attempt=5, deaths=2, error='{"e": 1}', started_at=clock.now())])
        clock.advance(60)
        waiting = asyncio.ensure_future(store.wait_claimable())
        await self.settle(store)
        (again,) = await store.retry([record.id])
        await self.soon(waiting)

        assert again == await store.job(record.id)
        assert again is not None
        assert (again.state, again.attempt, again.deaths, again.error) == (JobState.QUEUED, 0, 0, '{"e": 1}')
        assert (again.run_at, again.started_at, again.finished_at) == (clock.now(), None, None)
        assert (again.cancel_requested, again.progress, again.start_by) == (False, None, None)
        claimed = await self.claim_one(store)
        assert (claimed.id, claimed.attempt, claimed.token > record.token) == (record.id, 0, True)
        await store.finish([ending(claimed)])
        assert (await store.job(record.id)).state is JobState.SUCCEEDED
        assert sum((await store.counts()).values()) == 1

    async def test_a_retried_job_keeps_nothing_of_the_time_it_waited_for(self, store: Store, clock: HandClock) -> None:
        await store.enqueue([job := new_job(clock, delay=5)])
        await store.cancel([job.id])
        await store.retry([job.id])
        record = await self.claim_one(store)
        later = clock.now() + timedelta(seconds=60)
        await store.finish([ending(record, JobState.SCHEDULED, run_at=later)])
        clock.advance(10)

        assert await self.claim(store) == []
        assert (await store.job(job.id)).state is JobState.SCHEDULED
        clock.advance(50)
        assert ids(await self.claim(store)) == [job.id]

    async def test_only_what_has_ended_without_success_can_be_retried(self, store: Store, clock: HandClock) -> None:
        jobs = [new_job(clock, priority=2 - number) for number in range(3)]
        await store.enqueue(jobs)
        done, running = await self.claim(store, limit=2)
        await store.finish([ending(done)])

        assert await store.retry([*(job.id for job in jobs), "nobody"]) == [None] * 4
        assert (await store.job(running.id)).state is JobState.RUNNING

    async def test_of_two_who_act_on_what_they_saw_one_does(self, store: Store, clock: HandClock) -> None:
        await store.enqueue([new_job(clock)])
        record = await self.claim_one(store)
        await store.finish([ending(record, JobState.PARKED)])
        retried, cancelled = await asyncio.gather(
            store.retry([record.id], seen=JobState.PARKED), store.cancel([record.id], seen=JobState.PARKED)
        )

        assert [entry and entry.state for entry in (*retried, *cancelled)] == [JobState.QUEUED, None]
        assert await store.retry([record.id], seen=JobState.PARKED) == [None]
        twice = await asyncio.gather(*[store.cancel([record.id], seen=JobState.QUEUED) for _ in range(2)])
        assert [entry and entry.state for (entry,) in twice] == [JobState.CANCELLED, None]

    async def test_the_ledger_tells_of_a_job_that_is_retried(self, store: Store, clock: HandClock) -> None:
        await store.set_schedule([declare()])
        first = await self.fire(store, clock, 1)
        assert first.job is not None
        await store.cancel([first.job.id])
        cancelled = await self.newest(store)
        await store.retry([first.job.id])
        again = await self.newest(store)

        assert (cancelled.outcome, cancelled.state) == ("not_started", JobState.CANCELLED)
        assert (again.outcome, again.state, again.finished_at, again.decided_by) == ("ran", None, None, "")
        assert (await self.fire(store, clock, 2)).outcome == "skipped"
        record = await self.claim_one(store)
        await store.finish([ending(record, JobState.FAILED, started_at=clock.now())])
        assert (await store.ledger("s"))[1].state is JobState.FAILED
        clock.advance(1)
        await store.retry([record.id])
        second = await self.claim_one(store)
        await store.finish([ending(second, started_at=clock.now())])
        ran = (await store.ledger("s"))[1]
        assert (ran.outcome, ran.state, ran.started_at, ran.finished_at) == (
            "ran",
            JobState.SUCCEEDED,
            clock.now(),
            clock.now(),
        )
        assert (await self.fire(store, clock, 3)).outcome == "ran"

    async def test_what_does_not_run_can_be_deleted(self, store: Store, clock: HandClock) -> None:
        await store.set_schedule([declare()])
        jobs = [new_job(clock, priority=3 - number) for number in range(4)]
        await store.enqueue([*jobs, later := new_job(clock, delay=600)])
        done, parked, running = await self.claim(store, limit=3)
        failed = ending(parked, JobState.PARKED, outcome=Outcome.FAILED)
        await store.finish([ending(done), failed])
        fired = await self.fire(store, clock, 1, overlap="queue")
        behind = await self.fire(store, clock, 2, overlap="queue")
        assert fired.job is not None
        assert behind.outcome == "merged"
        waiting = asyncio.ensure_future(store.wait_finished(later.id))
        await self.settle(store)
        asked = [done.id, parked.id, running.id, jobs[3].id, later.id, fired.job.id, "nobody"]
        deleted = await store.delete(asked)

        assert [entry and entry.state for entry in deleted] == [
            JobState.SUCCEEDED,
            JobState.PARKED,
            None,
            JobState.QUEUED,
            JobState.SCHEDULED,
            JobState.QUEUED,
            None,
        ]
        assert ids(await store.jobs()) == [running.id]
        assert await store.attempts(parked.id) == []
        assert sum((await store.counts()).values()) == 1
        with suppress(UnknownJob):  # of a file, that is all that another process can know
            assert (await self.soon(waiting)).state is JobState.CANCELLED
        assert [(row.outcome, row.state) for row in (await store.ledger("s"))[1:]] == [
            ("not_started", JobState.CANCELLED)
        ]
        assert (await self.fire(store, clock, 3)).outcome == "ran"
        await store.enqueue([new_job(clock) for _ in range(MAX_QUEUED - 1)], wait=False)  # their room is free

    async def test_attempts_that_did_not_succeed_are_kept_and_no_other(self, store: Store, clock: HandClock) -> None:
        await store.enqueue([job := new_job(clock)])
        outcomes = [Outcome.FAILED, Outcome.TIMED_OUT, Outcome.LOST, None, Outcome.SUCCEEDED]
        states = [JobState.QUEUED] * 4 + [JobState.SUCCEEDED]
        for number, (outcome, state) in enumerate(zip(outcomes, states, strict=True), 1):
            record = await self.claim_one(store)
            started_at = clock.now()
            clock.advance(1)
            attempt = record.attempt + (outcome not in (Outcome.LOST, None))
            end = ending(record, state, attempt=attempt, error=str(number), outcome=outcome, started_at=started_at)
            await store.finish([end])

        start = START
        assert await store.attempts(job.id) == [
            Attempt(
                number=number,
                started_at=start + timedelta(seconds=number - 1),
                ended_at=start + timedelta(seconds=number),
                outcome=outcome,
                worker=self.worker,
                error=str(number),
            )
            for number, outcome in ((1, Outcome.FAILED), (2, Outcome.TIMED_OUT), (3, Outcome.LOST))
        ]
        assert await store.attempts("nobody") == []

    async def test_the_newest_attempts_are_kept(self, store: Store, clock: HandClock) -> None:
        await store.enqueue([job := new_job(clock)])
        for _ in range(MAX_ATTEMPTS + 3):
            record = await self.claim_one(store)
            await store.finish([ending(record, JobState.QUEUED, outcome=Outcome.FAILED)])

        kept = await store.attempts(job.id)
        assert [attempt.number for attempt in kept] == list(range(4, MAX_ATTEMPTS + 4))

    async def test_the_death_of_a_worker_is_an_attempt_of_what_had_begun(self, store: Store, clock: HandClock) -> None:
        await store.enqueue([job := new_job(clock)])
        record = await self.claim_one(store)
        clock.advance(61)
        await store.rescue()
        assert await store.attempts(job.id) == []
        record = await self.claim_one(store)
        began = clock.now()
        await store.progress(lease(record), started_at=began)
        clock.advance(61)
        await store.rescue()

        (attempt,) = await store.attempts(job.id)
        assert (attempt.number, attempt.started_at, attempt.ended_at) == (1, began, clock.now())
        assert (attempt.outcome, attempt.worker) == (Outcome.LOST, self.worker)
        assert f"worker {self.worker} died while it ran" in (attempt.error or "")

    async def test_nobody_claims_from_a_paused_queue(self, store: Store, clock: HandClock) -> None:
        mail, other = new_job(clock, queue="mail", priority=5), new_job(clock)
        await store.enqueue([mail, other])
        assert await store.set_queue("mail", paused=True)
        assert not await store.set_queue("mail", paused=True)
        assert ids(await self.claim(store)) == [other.id]
        assert await self.claim(store, queues={"mail"}) == []
        waiting = asyncio.ensure_future(store.wait_claimable())
        await self.settle(store)
        assert await store.set_queue("mail", paused=False)
        assert not await store.set_queue("mail", paused=False)
        await self.soon(waiting)

        assert ids(await self.claim(store)) == [mail.id]

    async def test_queues_are_told_by_name(self, store: Store, clock: HandClock) -> None:
        assert await store.queues() == []
        late = new_job(clock, queue="mail", run_at=clock.now() - timedelta(seconds=5))
        await store.enqueue([new_job(clock, queue="mail"), late, new_job(clock, queue="mail", delay=99)])
        await store.enqueue([new_job(clock, priority=1), new_job(clock, priority=1)])
        done, running = await self.claim(store, limit=2)
        clock.advance(10)
        await store.finish([ending(done)])
        await store.set_queue("empty", paused=True)

        default, empty, mail = await store.queues()
        assert default == QueueRow(name="default", running=1, per_minute=1.0)
        assert empty == QueueRow(name="empty", paused_at=clock.now())
        assert mail == QueueRow(name="mail", queued=2, scheduled=1, oldest_due_at=late.run_at)
        clock.advance(60)
        assert (await store.queues())[0].per_minute == 0.0
        await store.finish([ending(running)])
        assert [row.name for row in await store.queues()] == ["default", "empty", "mail"]

    async def test_what_stands_in_the_way_of_a_job_is_told(self, store: Store, clock: HandClock) -> None:
        first, second = new_job(clock, priority=1), new_job(clock, queue="mail")
        await store.enqueue([second, first, other := new_job(clock)])
        await store.set_queue("mail", paused=True)
        paused_at = clock.now()
        await store.set_schedule([declare()])
        await self.fire(store, clock, 1, overlap="queue")
        running = (await store.jobs(schedule="s"))[0]
        await store.enqueue([last := new_job(clock)])
        behind = await self.fire(store, clock, 2, overlap="queue")
        assert behind.outcome == "merged"

        one = await store.standing(second.id)
        assert (one.job, one.behind, one.queue_paused_at, one.ahead) == (
            await store.job(second.id),
            (),
            paused_at,
            1,
        )
        assert [(await store.standing(job.id)).ahead for job in (first, other, last)] == [0, 1, 3]
        assert (await store.standing(other.id)).queue_paused_at is None
        assert await store.paused_queues() == {"mail": paused_at}
        while running.state is not JobState.RUNNING:
            await self.claim(store, limit=1)
            running = await store.job(running.id)
        await store.extend([lease(running)], 600)
        held = await self.fire(store, clock, 3, overlap="queue")
        assert held.job is not None
        assert (await store.standing(held.job.id)).behind == (running.id,)
        assert await store.standing(running.id) == Standing(job=await store.job(running.id))
        with pytest.raises(UnknownJob):
            await store.standing("nobody")

    async def test_misfits_are_queued_again_by_a_worker_with_another_fingerprint(
        self, store: Store, clock: HandClock
    ) -> None:
        await store.set_schedule([declare()])
        await store.enqueue([poison := new_job(clock, priority=1)])
        fired = await self.fire(store, clock, 1, job={"start_by": clock.now() + timedelta(seconds=90)})
        assert fired.job is not None
        dead, record = await self.claim(store)
        await store.finish([ending(dead, JobState.PARKED)])
        await store.finish([ending(record, JobState.PARKED, attempt=0, error='{"e": 1}', misfit="one")])
        assert await store.register(self.worker, {"t": "one", "other": "two"}) == []
        assert await store.register(self.worker, {}) == []
        clock.advance(100)
        (again,) = await store.register(self.worker, {"t": "two"})

        assert (again.id, again.state, again.attempt, again.error) == (record.id, JobState.QUEUED, 0, None)
        assert (await self.newest(store)).state is None
        second = await self.claim_one(store)
        await store.finish([ending(second, JobState.PARKED, attempt=0, misfit="two")])
        for refused in ("one", "two"):
            assert await store.register(self.worker, {"t": refused}) == []
        assert ids(await store.register(self.worker, {"t": "three"})) == [record.id]
        third = await self.claim_one(store)
        await store.finish([ending(third, JobState.PARKED, deaths=3)])  # for another reason
        assert await store.register(self.worker, {"t": "four"}) == []
        assert (await store.job(poison.id)).state is JobState.PARKED

    async def test_workers_are_told_with_the_tasks_that_they_know(self, store: Store, clock: HandClock) -> None:
        await store.register(self.worker, {"t": "one", "\u00fc": ""})

        (row,) = await store.workers()
        assert (row.name, row.pid, dict(row.tasks)) == (self.worker, os.getpid(), {"t": "one", "\u00fc": ""})
        assert (row.started_at, row.beat_at) == (clock.now(), clock.now())
        assert (row.version, row.queues, row.vitals) == (__version__, None, None)

    async def test_workers_are_told_with_how_they_do(self, store: Store, clock: HandClock) -> None:
        await store.register(self.worker, {"t": ""}, queues={"mail", "default"})
        clock.advance(7)
        vitals = Vitals(running=3, rss_bytes=2**40, lag_seconds=0.25, scheduler_age=1.5, max_scheduler_age=None)
        await store.beat(self.worker, vitals)

        (row,) = await store.workers()
        assert (row.queues, row.vitals, row.beat_at) == (("default", "mail"), vitals, clock.now())
        clock.advance(7)
        await store.beat(self.worker)
        (row,) = await store.workers()
        assert (row.vitals, row.beat_at) == (vitals, clock.now())

    async def test_pruning_forgets_nothing_that_is_unfinished(self, store: Store, clock: HandClock) -> None:
        jobs = [new_job(clock) for _ in range(4)]
        await store.enqueue(jobs)
        done, parked, _ = await self.claim(store, limit=3)
        await store.finish([ending(done, result="1"), ending(parked, JobState.PARKED)])
        await store.set_schedule([declare()])
        fired = await self.fire(store, clock, 1)
        assert fired.job is not None
        await store.cancel([fired.job.id])
        assert await store.prune() == 0
        assert (await store.job(done.id)).result == "1"
        if self.forget_seconds is None:
            return
        clock.advance(self.forget_seconds)

        assert await store.prune() == 3  # two jobs, and a row of the ledger
        assert await store.prune() == 0
        assert ids(await store.jobs()) == [job.id for job in reversed(jobs[1:])]
        assert await store.ledger("s") == []
        with pytest.raises(UnknownJob):
            await store.job(done.id)
        assert sum((await store.counts()).values()) == 3
