"""Fire times are answered once, and stand in the ledger."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from ..errors import QueueFull
from ..jobs import JobState
from .kit import MAX_QUEUED, START, HandClock, StoreChecks, declare, ending, firing, ids, lease, new_job

if TYPE_CHECKING:
    from ..stores.base import Store


class FiringChecks(StoreChecks):
    """Fire times are answered once, and stand in the ledger."""

    # -- fire times --------------------------------------------------------------------------------------------------

    async def test_a_fire_time_makes_one_job(self, store: Store, clock: HandClock) -> None:
        (row,) = await store.set_schedule([declare()])
        assert row is not None
        assert (row.version, row.watermark, row.declared_at, row.runs) == (1, START, START, 0)
        clock.advance(60)
        one, two = await store.fire([firing(clock, 1), firing(clock, 1)])

        assert one.outcome == "ran"
        assert one.row == two.row == await self.row(store)
        assert (two.outcome, two.job) == (None, None)
        assert two.row is not None
        assert (two.row.version, two.row.watermark, two.row.runs) == (2, clock.now(), 1)
        assert await store.jobs() == [one.job]
        assert one.job is not None
        assert (one.job.schedule, one.job.fire_time) == ("s", clock.now())

    async def test_of_many_who_fire_at_once_one_does(self, store: Store, clock: HandClock) -> None:
        await store.set_schedule([declare()])
        clock.advance(60)
        fired = await asyncio.gather(*[store.fire([firing(clock, 1)]) for _ in range(8)])

        assert sorted(str(entry.outcome) for (entry,) in fired) == ["None"] * 7 + ["ran"]
        assert len(await store.jobs()) == len(await store.ledger("s")) == 1

    async def test_a_fire_time_that_comes_again_makes_no_second_job(self, store: Store, clock: HandClock) -> None:
        await store.set_schedule([declare(after_seconds=60.0, next_at=START)])
        fired = await self.fire(store, clock, 1, overlap="allow")
        fire_time = clock.now()
        again = await self.fire(store, clock, 2, overlap="allow", fire_time=fire_time)

        assert (fired.outcome, again.outcome, again.job) == ("ran", None, None)
        assert again.row == await self.row(store)
        assert again.row is not None
        assert (again.row.version, again.row.runs) == (3, 1)
        assert again.row.next_at == clock.now() + timedelta(seconds=60)
        assert len(await store.jobs()) == len(await store.ledger("s")) == 1
        before = await store.ledger("s")
        passed = await self.fire(store, clock, 3, job=None, missed_first=fire_time, missed_count=1)
        assert (passed.outcome, await store.ledger("s")) == ("missed", before)

    async def test_skip_holds_while_a_job_of_the_schedule_is_unfinished(self, store: Store, clock: HandClock) -> None:
        await store.set_schedule([declare(), declare("other")])
        first = await self.fire(store, clock, 1)
        second = await self.fire(store, clock, 2)
        manual = await self.fire(store, clock, None)
        other = await self.fire(store, clock, 1, schedule="other")
        allowed = await self.fire(store, clock, 3, overlap="allow")
        assert first.job is not None

        assert (second.outcome, second.blocked_by, second.job) == ("skipped", first.job.id, None)
        assert (manual.outcome, manual.row) == ("skipped", second.row)
        assert (other.outcome, allowed.outcome) == ("ran", "ran")
        record = (await self.claim(store))[0]
        assert record.id == first.job.id
        assert (await self.fire(store, clock, 4)).outcome == "skipped"
        retry = ending(record, JobState.SCHEDULED, run_at=clock.now() + timedelta(days=1))
        await store.finish([retry])
        assert (await self.fire(store, clock, 5)).outcome == "skipped"
        await store.cancel(ids(await store.jobs(schedule="s")))
        await store.finish([ending(entry, JobState.FAILED) for entry in await store.jobs(state=JobState.RUNNING)])
        assert (await self.fire(store, clock, 6)).outcome == "ran"

    async def test_queue_lets_one_job_wait_for_the_end_of_the_last(self, store: Store, clock: HandClock) -> None:
        await store.set_schedule([declare()])
        await self.fire(store, clock, 1, overlap="queue")
        first = await self.claim_one(store)
        second = await self.fire(store, clock, 2, overlap="queue")
        third = await self.fire(store, clock, 3, overlap="queue")
        assert second.job is not None

        assert (second.outcome, second.job.state) == ("ran", JobState.QUEUED)
        assert (third.outcome, third.blocked_by) == ("merged", second.job.id)
        answer = await self.newest(store)
        assert (answer.outcome, answer.blocked_by, answer.decided_by) == (
            "merged",
            second.job.id,
            'overlap="queue"',
        )
        assert await self.claim(store) == []
        await store.extend([lease(first)], 600)
        await store.finish([ending(first, JobState.SCHEDULED, run_at=clock.now())])  # a retry is not its end
        again = await self.claim_one(store)
        assert again.id == first.id
        waiting = asyncio.ensure_future(store.wait_claimable())
        await self.settle(store)
        await store.finish([ending(again, JobState.FAILED)])
        await self.soon(waiting)
        assert ids(await self.claim(store)) == [second.job.id]

    @pytest.mark.parametrize("end", ["cancelled", "rescued", "parked"])
    async def test_whatever_ends_the_last_job_lets_the_next_begin(
        self, store: Store, clock: HandClock, end: str
    ) -> None:
        await store.set_schedule([declare()])
        await self.fire(store, clock, 1, overlap="queue", job={"is_once": end == "rescued"})
        first = await self.claim_one(store)
        second = await self.fire(store, clock, 2, overlap="queue")
        assert second.job is not None
        match end:
            case "cancelled":
                await store.cancel([first.id])
                await store.release([lease(first)])
            case "rescued":
                await store.rescue()
            case "parked":
                await store.finish([ending(first, JobState.PARKED)])

        assert ids(await self.claim(store)) == [second.job.id]

    async def test_replace_cancels_the_last_and_waits_for_its_end(self, store: Store, clock: HandClock) -> None:
        await store.set_schedule([declare()])
        await self.fire(store, clock, 1)
        running = await self.claim_one(store, lease_seconds=600.0)
        waiting = await self.fire(store, clock, 2, overlap="queue")
        assert waiting.job is not None
        told = asyncio.ensure_future(store.wait_finished(waiting.job.id))
        await self.settle(store)
        new = await self.fire(store, clock, 3, overlap="replace")
        assert new.job is not None

        assert (new.outcome, new.cancelled) == ("ran", (running.id,))
        assert (await store.job(running.id)).cancel_requested
        assert (await self.soon(told)).state is JobState.CANCELLED
        assert await self.claim(store) == []
        await store.finish([ending(running, JobState.CANCELLED, started_at=clock.now())])
        assert ids(await self.claim(store)) == [new.job.id]
        assert [answer.outcome for answer in await store.ledger("s")] == ["ran", "not_started", "ran"]

    async def test_fired_jobs_do_not_wait_for_room(self, store: Store, clock: HandClock) -> None:
        await store.enqueue([new_job(clock) for _ in range(MAX_QUEUED)])
        await store.set_schedule([declare()])

        assert (await self.fire(store, clock, 1)).outcome == "ran"
        with pytest.raises(QueueFull):
            await store.enqueue([new_job(clock)], wait=False)

    async def test_a_manual_job_moves_no_watermark(self, store: Store, clock: HandClock) -> None:
        (row,) = await store.set_schedule([declare()])
        manual = await self.fire(store, clock, None)

        assert (manual.outcome, manual.row) == ("ran", row)
        assert await store.ledger("s") == []

    async def test_after_end_the_end_of_a_job_sets_the_next_fire_time(self, store: Store, clock: HandClock) -> None:
        await store.set_schedule([declare(after_seconds=90.5, next_at=START + timedelta(seconds=60))])
        fired = await self.fire(store, clock, 1)
        assert fired.row is not None
        assert (fired.row.next_at, fired.row.after_seconds) == (None, 90.5)
        clock.advance(10)
        record = await self.claim_one(store)
        await store.finish([ending(record, JobState.SCHEDULED, run_at=clock.now())])
        assert (await self.row(store)).next_at is None
        record = await self.claim_one(store)
        await store.finish([ending(record, JobState.FAILED)])

        row = await self.row(store)
        assert (row.version, row.next_at) == (3, clock.now() + timedelta(seconds=90.5))
        assert row.succeeded_at is None
        manual = await self.fire(store, clock, None)
        assert manual.job is not None
        await store.finish([ending(await self.claim_one(store))])
        assert await self.row(store) == replace(row, succeeded_at=clock.now())

    async def test_after_end_a_fire_time_let_pass_names_the_next(self, store: Store, clock: HandClock) -> None:
        await store.set_schedule([declare(after_seconds=60.0, next_at=START + timedelta(seconds=60))])
        next_at = START + timedelta(hours=1)
        passed = START + timedelta(seconds=60)
        fired = await self.fire(store, clock, 1, job=None, missed_first=passed, missed_count=1, next_at=next_at)

        assert (fired.outcome, fired.job) == ("missed", None)
        assert (await self.row(store)).next_at == next_at

    async def test_a_start_that_comes_too_late_is_missed(self, store: Store, clock: HandClock) -> None:
        await store.set_schedule([declare()])
        start_by = START + timedelta(seconds=65)
        fired = await self.fire(store, clock, 1, job={"start_by": start_by})
        assert fired.job is not None
        told = asyncio.ensure_future(store.wait_finished(fired.job.id))
        await self.settle(store)
        clock.advance(5)
        assert (await store.job(fired.job.id)).state is JobState.QUEUED
        clock.advance(0.001)
        await store.enqueue([job := new_job(clock)])

        due, late = await self.claim(store, limit=1)
        assert (due.id, late.id, late.state) == (job.id, fired.job.id, JobState.CANCELLED)
        assert (await self.soon(told)).state is JobState.CANCELLED
        answer = await self.newest(store)
        assert (answer.outcome, answer.decided_by, answer.state) == ("missed", 'grace="5s"', JobState.CANCELLED)
        assert answer.started_at is None

    @pytest.mark.parametrize("way", ["in time", "retried", "died"])
    async def test_grace_is_about_the_first_start_only(self, store: Store, clock: HandClock, way: str) -> None:
        await store.set_schedule([declare()])
        await self.fire(store, clock, 1, job={"start_by": START + timedelta(seconds=60)})
        record = await self.claim_one(store)
        if way != "in time":
            await store.progress(lease(record), started_at=clock.now())
            clock.advance(60)
        if way == "retried":
            await store.finish([ending(record, JobState.SCHEDULED, run_at=clock.now(), started_at=clock.now())])
        elif way == "died":
            await store.rescue()
        if way != "in time":
            record = await self.claim_one(store)

        assert record.state is JobState.RUNNING

    # -- the ledger --------------------------------------------------------------------------------------------------

    async def test_the_ledger_has_one_answer_for_each_fire_time(self, store: Store, clock: HandClock) -> None:
        await store.set_schedule([declare()])
        clock.advance(120)
        first, last = START + timedelta(seconds=60), START + timedelta(seconds=120)
        fired = await self.fire(
            store, clock, 1, missed_first=first, missed_last=last, missed_count=2, decided_by="d", late_because="asleep"
        )
        ran_at = clock.now()
        await self.fire(store, clock, 2, late_because="busy")
        assert fired.job is not None

        answers = await store.ledger("s")
        assert [(entry.outcome, entry.count, entry.first, entry.last) for entry in answers] == [
            ("skipped", 1, clock.now(), clock.now()),
            ("ran", 1, ran_at, ran_at),
            ("missed", 2, first, last),
        ]
        assert [entry.answered_at for entry in answers] == [clock.now(), ran_at, ran_at]
        assert [entry.job_id for entry in answers] == [None, fired.job.id, None]
        assert [entry.blocked_by for entry in answers] == [fired.job.id, None, None]
        assert [entry.decided_by for entry in answers] == ['overlap="skip"', "", "d"]
        assert [entry.late_because for entry in answers] == ["busy", "asleep", "asleep"]
        assert [entry.wanted_at for entry in answers] == [None, ran_at, None]
        assert answers[1] == await store.answer_of("s", fired.job.id)
        assert await store.answer_of("s", "nobody") is None
        assert await store.answer_of("other", fired.job.id) is None
        assert await store.ledger("other") == []
        assert await store.ledger("s", limit=1) == answers[:1]
        assert await store.ledger("s", at=ran_at) == answers[1:2]
        assert await store.ledger("s", at=first + timedelta(seconds=7)) == answers[2:]
        assert await store.ledger("s", at=last + timedelta(microseconds=1)) == []

    async def test_what_passes_one_after_the_other_shares_a_row(self, store: Store, clock: HandClock) -> None:
        await store.set_schedule([declare()])
        for version, count, decided_by in ((1, 1, "a"), (2, 4, "a"), (3, 1, "b"), (4, None, "b")):
            clock.advance(1)
            missed = {"missed_first": clock.now() + timedelta(seconds=59), "missed_count": count}
            because = "asleep" if version < 4 else "busy"
            await self.fire(store, clock, version, job=None, decided_by=decided_by, late_because=because, **missed)

        rows = await store.ledger("s")
        assert [(entry.count, entry.decided_by) for entry in rows] == [(None, "b"), (5, "a")]
        assert [entry.late_because for entry in rows] == [None, "asleep"]
        assert [(entry.last - entry.first).total_seconds() for entry in rows] == [61, 61]
        assert rows[0].answered_at == clock.now()
        assert (await self.row(store)).watermark == clock.now()

    async def test_the_ledger_tells_how_a_run_went(self, store: Store, clock: HandClock) -> None:
        await store.set_schedule([declare()])
        await self.fire(store, clock, 1, late_because="asleep")
        record = await self.claim_one(store)
        clock.advance(1)
        began = clock.now()
        await store.progress(lease(record), started_at=began)
        assert (await self.newest(store)).state is None
        at = clock.now() + timedelta(seconds=5)
        await store.finish([ending(record, JobState.SCHEDULED, started_at=began, late_because="busy", run_at=at)])
        answer = await self.newest(store)
        assert (answer.started_at, answer.late_because, answer.state) == (began, "busy", None)
        clock.advance(5)
        record = await self.claim_one(store)
        await store.finish([ending(record, started_at=clock.now(), late_because="again")])

        answer = await self.newest(store)
        assert (answer.outcome, answer.started_at, answer.late_because) == ("ran", began, "busy")
        assert (answer.finished_at, answer.state) == (clock.now(), JobState.SUCCEEDED)
        assert (await self.row(store)).succeeded_at == clock.now()

    @pytest.mark.parametrize("way", ["waiting", "claimed", "released", "retried", "died"])
    async def test_the_ledger_tells_whether_a_cancelled_job_had_begun(
        self, store: Store, clock: HandClock, way: str
    ) -> None:
        await store.set_schedule([declare()])
        fired = await self.fire(store, clock, 1)
        assert fired.job is not None
        began = None
        if way != "waiting":
            record = await self.claim_one(store)
        if way in ("retried", "died"):
            began = clock.now()
            await store.progress(lease(record), started_at=began)
        if way == "retried":
            await store.finish([ending(record, JobState.SCHEDULED, run_at=clock.now(), started_at=began)])
        if way == "died":
            clock.advance(60)
            await store.rescue()
        await store.cancel([fired.job.id])
        if way == "claimed":
            await store.finish([ending(record, JobState.CANCELLED)])
        if way == "released":
            await store.release([lease(record)])

        answer = await self.newest(store)
        assert answer.outcome == ("ran" if began else "not_started")
        assert (answer.started_at, answer.state, answer.decided_by) == (began, JobState.CANCELLED, "")
        assert answer.finished_at == clock.now()

    async def test_the_last_word_about_a_parked_job_is_in_the_ledger(self, store: Store, clock: HandClock) -> None:
        await store.set_schedule([declare()])
        await self.fire(store, clock, 1)
        record = await self.claim_one(store)
        await store.finish([ending(record, JobState.PARKED, started_at=clock.now())])
        assert (await self.newest(store)).state is JobState.PARKED
        assert (await self.fire(store, clock, 2)).outcome == "ran"
        await store.cancel([record.id])

        (answer,) = await store.ledger("s", at=record.fire_time)
        assert (answer.outcome, answer.state, answer.finished_at) == ("ran", JobState.CANCELLED, clock.now())
