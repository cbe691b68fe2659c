from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tickwork.clock import Clock, Timer
from tickwork.errors import IllegalMove, QueueFull, UnknownJob, UnknownSchedule
from tickwork.jobs import MOVES, JobRecord, JobState, NewJob, new_id
from tickwork.stores.base import Declare, Finish, Firing, Lease, Pause, Remove
from tickwork.stores.memory import KEEP, MemoryStore

START = datetime(2026, 1, 1, tzinfo=UTC)


class HandClock(Clock):
    """A clock that stands where it is put; its timers fire when it passes them."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.timers: list[tuple[float, Callable[..., object]]] = []

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Timer:
        entry = (self.seconds + delay, callback)
        self.timers.append(entry)

        class Handle:
            def cancel(_self) -> None:
                if entry in self.timers:
                    self.timers.remove(entry)

        return Handle()

    def advance(self, seconds: float) -> None:
        self.seconds += seconds
        for entry in sorted(self.timers, key=lambda entry: entry[0]):
            if entry[0] <= self.seconds and entry in self.timers:
                self.timers.remove(entry)
                entry[1]()


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def store(clock: HandClock) -> MemoryStore:
    return MemoryStore(clock, max_queued=10)


def job(clock: Clock, task: str = "t", **options: Any) -> NewJob:
    options.setdefault("run_at", clock.now())
    return NewJob(id=new_id(clock.now()), task=task, payload="{}", **options)


async def claim(store: MemoryStore, limit: int = 10, **options: Any) -> list[JobRecord]:
    return await store.claim(worker="w", tasks=options.pop("tasks", {"t"}), limit=limit, **options)


def finish(record: JobRecord, state: JobState = JobState.SUCCEEDED, **options: Any) -> Finish:
    return Finish(lease=Lease(record.id, record.token), state=state, attempt=record.attempt + 1, **options)


# -- jobs ---------------------------------------------------------------------------------------------------


async def test_jobs_are_claimed_by_priority_then_in_order_of_arrival(store: MemoryStore, clock: HandClock) -> None:
    jobs = [job(clock), job(clock, priority=5), job(clock), job(clock, priority=5), job(clock, priority=-1)]
    await store.enqueue(jobs)

    claimed = await claim(store)

    assert [record.id for record in claimed] == [jobs[index].id for index in (1, 3, 0, 2, 4)]
    assert all(record.state is JobState.RUNNING for record in claimed)
    tokens = [record.token for record in claimed]
    assert tokens == sorted(set(tokens))


async def test_a_claim_takes_only_what_it_knows_asks_for_and_has_room_for(store: MemoryStore, clock: HandClock) -> None:
    known, other, elsewhere = job(clock), job(clock, "unknown"), job(clock, queue="mail")
    await store.enqueue([other, known, elsewhere])

    assert [record.id for record in await claim(store, queues={"default"})] == [known.id]
    assert await claim(store, limit=0) == []
    assert [record.id for record in await claim(store)] == [elsewhere.id]
    assert (await store.job(other.id)).state is JobState.QUEUED
    assert [record.id for record in await claim(store, tasks={"unknown"})] == [other.id]


async def test_a_job_for_later_is_scheduled_and_wakes_the_waiting_when_due(
    store: MemoryStore, clock: HandClock
) -> None:
    later = job(clock, run_at=clock.now() + timedelta(seconds=60))
    await store.enqueue([later])
    assert (await store.job(later.id)).state is JobState.SCHEDULED
    assert await claim(store) == []
    waiting = asyncio.ensure_future(store.wait_claimable())
    await asyncio.sleep(0)
    for _ in range(3):
        clock.advance(20)
        await asyncio.sleep(0)
    await waiting

    assert [record.id for record in await claim(store)] == [later.id]


async def test_a_full_store_makes_producers_wait_in_their_order(store: MemoryStore, clock: HandClock) -> None:
    await store.enqueue([job(clock) for _ in range(10)])
    with pytest.raises(QueueFull) as full:
        await store.enqueue([job(clock)], wait=False)
    assert str(full.value) == (
        "the store is full (10 entries); await enqueue(...) to wait for room, or raise max_queued"
    )
    with pytest.raises(QueueFull, match="11 jobs at once never fit"):
        await store.enqueue([job(clock) for _ in range(11)])
    first, second = job(clock), job(clock)
    producers = [asyncio.ensure_future(store.enqueue([new])) for new in (first, second)]
    await asyncio.sleep(0)
    await claim(store, limit=1)
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert [producer.done() for producer in producers] == [True, False]
    await claim(store, limit=1)
    await producers[1]
    assert (await store.job(second.id)).state is JobState.QUEUED


async def test_a_cancelled_producer_has_enqueued_nothing_and_hands_its_turn_on(
    store: MemoryStore, clock: HandClock
) -> None:
    await store.enqueue([job(clock) for _ in range(10)])
    cancelled, patient = job(clock), job(clock)
    first = asyncio.ensure_future(store.enqueue([cancelled]))
    second = asyncio.ensure_future(store.enqueue([patient]))
    await asyncio.sleep(0)
    await claim(store, limit=1)
    first.cancel()  # its turn has come, and it does not take it
    await asyncio.wait([first])
    await second

    with pytest.raises(UnknownJob):
        await store.job(cancelled.id)
    assert (await store.job(patient.id)).state is JobState.QUEUED


async def test_a_late_owner_is_refused_and_told(store: MemoryStore, clock: HandClock) -> None:
    await store.enqueue([job(clock)])
    (early,) = await claim(store, lease_seconds=60)
    clock.advance(61)
    (rescued,) = await store.rescue()
    assert (rescued.state, rescued.deaths, rescued.attempt) == (JobState.QUEUED, 1, 0)
    (late,) = await claim(store, lease_seconds=60)

    stale = Lease(early.id, early.token)
    assert await store.finish([finish(early)]) == [False]
    assert await store.extend([stale], 60) == [False]
    assert await store.release([stale]) == [False]
    assert not await store.progress(stale, started_at=clock.now())
    assert await store.finish([finish(late, result="1")]) == [True]
    assert await store.finish([finish(late)]) == [False]
    assert (await store.job(late.id)).result == "1"


async def test_an_extended_lease_is_not_rescued(store: MemoryStore, clock: HandClock) -> None:
    await store.enqueue([job(clock)])
    (record,) = await claim(store, lease_seconds=60)
    clock.advance(50)
    assert await store.extend([Lease(record.id, record.token)], 60) == [True]
    clock.advance(50)

    assert await store.rescue() == []


async def test_the_third_death_parks_the_job(store: MemoryStore, clock: HandClock) -> None:
    await store.enqueue([job(clock)])
    for _ in range(3):
        await claim(store, lease_seconds=1)
        clock.advance(2)
        (record,) = await store.rescue()

    assert (record.state, record.deaths) == (JobState.PARKED, 3)


async def test_a_released_job_is_claimed_again_with_no_attempt_used(store: MemoryStore, clock: HandClock) -> None:
    await store.enqueue([job(clock)])
    (record,) = await claim(store)
    assert await store.release([Lease(record.id, record.token)]) == [True]

    (again,) = await claim(store)
    assert (again.id, again.attempt) == (record.id, 0)
    assert again.token > record.token


async def test_cancelling_ends_what_waits_and_marks_what_runs(store: MemoryStore, clock: HandClock) -> None:
    running, waiting = job(clock), job(clock)
    await store.enqueue([running])
    (record,) = await claim(store)
    await store.enqueue([waiting])

    one, two, three = await store.cancel([running.id, waiting.id, "nobody"])

    assert one is not None
    assert (one.state, one.cancel_requested) == (JobState.RUNNING, True)
    assert two is not None
    assert two.state is JobState.CANCELLED
    assert three is None
    assert await claim(store) == []
    assert await store.finish([finish(record, JobState.CANCELLED)]) == [True]
    assert await store.cancel([running.id, waiting.id]) == [None, None]


async def test_waiting_for_a_job_ends_when_it_is_finished_or_parked(store: MemoryStore, clock: HandClock) -> None:
    for state in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.PARKED):
        await store.enqueue([job(clock)])
        (record,) = await claim(store)
        waiting = asyncio.ensure_future(store.wait_finished(record.id))
        await asyncio.sleep(0)
        await store.finish([finish(record, state)])

        assert (await waiting).state is state
    with pytest.raises(UnknownJob, match="no job 'nobody' in the store"):
        await store.wait_finished("nobody")


async def test_finished_jobs_are_kept_up_to_a_bound(clock: HandClock) -> None:
    store = MemoryStore(clock, max_queued=2 * KEEP)
    await store.enqueue([job(clock) for _ in range(KEEP + 5)])
    await store.finish([finish(record) for record in await claim(store, limit=2 * KEEP)])

    assert (await store.counts())[JobState.SUCCEEDED] == KEEP
    assert len(await store.jobs(limit=2 * KEEP)) == KEEP


async def test_jobs_are_listed_the_newest_first(store: MemoryStore, clock: HandClock) -> None:
    jobs = [job(clock) for _ in range(4)]
    await store.enqueue(jobs)
    await claim(store, limit=1)

    assert [record.id for record in await store.jobs()] == [new.id for new in reversed(jobs)]
    assert [record.id for record in await store.jobs(state=JobState.RUNNING)] == [jobs[0].id]
    assert len(await store.jobs(limit=2)) == 2


# -- schedules ----------------------------------------------------------------------------------------------


def declare(fingerprint: str = "f") -> Declare:
    return Declare(name="s", task="t", trigger="Every('1m')", fingerprint=fingerprint)


def firing(clock: Clock, version: int | None, **options: Any) -> Firing:
    fire_time = options.pop("fire_time", clock.now())
    return Firing(
        schedule="s",
        version=version,
        watermark=None if version is None else fire_time,
        job=job(clock, schedule="s", fire_time=fire_time if version is not None else None),
        overlap=options.pop("overlap", "skip"),
        **options,
    )


async def test_a_fire_time_is_accepted_once(store: MemoryStore, clock: HandClock) -> None:
    (row,) = await store.set_schedule([declare()])
    assert row is not None
    assert (row.version, row.watermark) == (1, START)
    clock.advance(60)
    one, two = await store.fire([firing(clock, 1), firing(clock, 1)])

    assert one.outcome == "ran"
    assert two.outcome is None
    assert two.row is not None
    assert (two.row.version, two.row.watermark) == (2, clock.now())
    assert len(await store.jobs()) == 1


async def test_skip_holds_while_a_job_of_the_schedule_is_unfinished(store: MemoryStore, clock: HandClock) -> None:
    await store.set_schedule([declare()])
    (first,) = await store.fire([firing(clock, 1)])
    clock.advance(60)
    (second,) = await store.fire([firing(clock, 2)])
    (manual,) = await store.fire([firing(clock, None)])
    (allowed,) = await store.fire([firing(clock, 3, overlap="allow")])

    assert first.job is not None
    assert (second.outcome, second.blocked_by) == ("skipped", first.job.id)
    assert (manual.outcome, manual.row) == ("skipped", second.row)
    assert allowed.outcome == "ran"


async def test_a_manual_job_moves_no_watermark(store: MemoryStore, clock: HandClock) -> None:
    (row,) = await store.set_schedule([declare()])
    (manual,) = await store.fire([firing(clock, None)])

    assert manual.outcome == "ran"
    assert manual.row == row
    assert await store.ledger("s") == []


async def test_the_ledger_has_one_answer_for_each_fire_time(store: MemoryStore, clock: HandClock) -> None:
    await store.set_schedule([declare()])
    clock.advance(180)
    missed_first = START + timedelta(seconds=60)
    (fired,) = await store.fire([firing(clock, 1, missed_first=missed_first, missed_count=2)])
    clock.advance(60)
    await store.fire([firing(clock, 2)])

    answers = await store.ledger("s")
    assert [(answer.outcome, answer.count, answer.first) for answer in answers] == [
        ("skipped", 1, clock.now()),
        ("ran", 1, START + timedelta(seconds=180)),
        ("missed", 2, missed_first),
    ]
    assert fired.job is not None
    assert [answer.job_id for answer in answers] == [None, fired.job.id, None]
    assert [answer.blocked_by for answer in answers] == [fired.job.id, None, None]
    assert [answer.decided_by for answer in answers] == ['overlap="skip"', "", ""]


async def test_a_changed_trigger_starts_from_now_and_an_equal_one_goes_on(store: MemoryStore, clock: HandClock) -> None:
    (row,) = await store.set_schedule([declare()])
    clock.advance(90)
    (same,) = await store.set_schedule([declare()])
    (changed,) = await store.set_schedule([declare("other")])

    assert same == row
    assert changed is not None
    assert (changed.version, changed.watermark) == (2, clock.now())


async def test_a_paused_schedule_takes_no_firing_and_resumes_from_now(store: MemoryStore, clock: HandClock) -> None:
    await store.set_schedule([declare()])
    (paused,) = await store.set_schedule([Pause(name="s", paused=True)])
    assert paused is not None
    clock.advance(60)
    (fired,) = await store.fire([firing(clock, paused.version)])
    (resumed,) = await store.set_schedule([Pause(name="s", paused=False)])

    assert fired.outcome is None
    assert resumed is not None
    assert (resumed.paused, resumed.watermark) == (False, clock.now())
    with pytest.raises(UnknownSchedule):
        await store.set_schedule([Pause(name="other", paused=True)])


async def test_a_clock_set_back_moves_no_watermark_back(store: MemoryStore, clock: HandClock) -> None:
    await store.set_schedule([declare()])
    clock.advance(60)
    (fired,) = await store.fire([firing(clock, 1)])
    assert fired.row is not None
    clock.seconds -= 3600
    await store.set_schedule([Pause(name="s", paused=True)])
    (resumed,) = await store.set_schedule([Pause(name="s", paused=False)])
    (changed,) = await store.set_schedule([declare("other")])

    assert resumed is not None
    assert changed is not None
    assert resumed.watermark == changed.watermark == fired.row.watermark


async def test_a_removed_schedule_takes_no_firing(store: MemoryStore, clock: HandClock) -> None:
    await store.set_schedule([declare()])
    assert await store.set_schedule([Remove(name="s")]) == [None]

    (fired,) = await store.fire([firing(clock, 1)])
    assert (fired.outcome, fired.row) == (None, None)


# -- states -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", JobState)
def test_only_the_moves_of_the_table_are_possible(state: JobState) -> None:
    record = JobRecord(id="x", task="t", payload="{}", run_at=START, state=state, enqueued_at=START)
    for wanted in JobState:
        if wanted in MOVES[state]:
            assert record.moved(wanted).state is wanted
        else:
            with pytest.raises(IllegalMove, match=f"^job x is {state} and cannot become {wanted}$"):
                record.moved(wanted)


def test_ids_sort_by_time_and_do_not_repeat() -> None:
    ids = [new_id(START + timedelta(milliseconds=number // 10)) for number in range(1000)]

    assert len(set(ids)) == 1000
    assert [entry[:9] for entry in ids] == sorted(entry[:9] for entry in ids)
    assert {len(entry) for entry in ids} == {20}


async def test_cancelled_delays_leave_nothing_behind(clock: HandClock) -> None:
    store = MemoryStore(clock, max_queued=1000, keep=10)
    for _ in range(10):
        jobs = [job(clock, run_at=clock.now() + timedelta(days=1)) for _ in range(100)]
        await store.enqueue(jobs)
        await store.cancel([entry.id for entry in jobs])

    assert len(store._later) <= 130
    assert len(store._jobs) <= 11
