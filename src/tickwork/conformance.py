"""What every store must do, as tests: a class whose subclass names a store, and pytest does the rest.

    from tickwork.testing import StoreConformance

    class TestMyStore(StoreConformance):
        @pytest.fixture
        def make_store(self, tmp_path):
            return lambda clock, max_queued: MyStore(tmp_path / "jobs", clock, max_queued=max_queued)

Time is a clock that the tests move by hand, so a store must ask it and no other, and whatever it does unasked (renew
leases, rescue, prune) must be off. The loop is a real one: threads and sockets are welcome. The tests use only the
verbs of `tickwork.stores.base`; how a store survives a crash of its process, and what it says when its disk is full,
only the store itself can test.
"""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import cycle
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from ._version import __version__
from .clock import Clock, Timer
from .errors import (
    DuplicateJob,
    IllegalMove,
    InvalidOption,
    NotRunning,
    QueueFull,
    UnknownBatch,
    UnknownJob,
    UnknownSchedule,
)
from .jobs import Attempt, JobRecord, JobState, NewJob, Outcome, Progress, new_id
from .limits import Limit, Limits, Rate
from .policies import MAX_DEATHS
from .records import changed
from .stores.base import Declare, Finish, Fired, Firing, Lease, Pause, Remove
from .stores.batches import BatchPart, BatchRow
from .stores.blockers import Blocker
from .stores.views import MAX_ATTEMPTS, JobQuery, QueueRow, Standing, Vitals

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from .stores.base import Answer, ScheduleRow, Store

__all__ = ["HandClock", "StoreConformance"]

T = TypeVar("T")

START = datetime(2026, 1, 1, tzinfo=UTC)
PATIENCE_SECONDS = 30.0
"""What should happen at once may take this long on a machine that is busy."""
MAX_QUEUED = 10


class HandClock(Clock):
    """A clock that stands where it is put; its timers ring when it passes them."""

    def __init__(self) -> None:
        self.seconds: float = 0.0
        self._timers: list[tuple[float, Callable[[], object]]] = []

    def now(self) -> datetime:
        """Return the start and the seconds since."""
        return START + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        """Return the seconds since the start."""
        return self.seconds

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Timer:
        """Set a timer."""
        entry = (self.seconds + delay, lambda: callback(*args))
        self._timers.append(entry)

        class Handle:
            def cancel(_self) -> None:
                if entry in self._timers:
                    self._timers.remove(entry)

        return Handle()

    def advance(self, seconds: float) -> None:
        """Move on, and ring on the way."""
        self.seconds += seconds
        for entry in sorted(self._timers, key=lambda entry: entry[0]):
            if entry[0] <= self.seconds and entry in self._timers:
                self._timers.remove(entry)
                entry[1]()


def new_job(clock: Clock, task: str = "t", **options: Any) -> NewJob:
    """Return a job that is due now, unless `run_at` or `delay` says otherwise."""
    delay = timedelta(seconds=options.pop("delay", 0.0))
    options.setdefault("run_at", clock.now() + delay)
    options.setdefault("payload", "{}")
    return NewJob(id=options.pop("id", None) or new_id(clock.now()), task=task, **options)


def ending(record: JobRecord, state: JobState = JobState.SUCCEEDED, **options: Any) -> Finish:
    """Return the end of the attempt that a claim began."""
    options.setdefault("attempt", record.attempt + 1)
    options.setdefault("deaths", record.deaths)
    return Finish(lease=lease(record), state=state, **options)


def lease(record: JobRecord) -> Lease:
    """Return the right that a claim gave."""
    return Lease(record.id, record.token)


def ids(records: list[JobRecord]) -> list[str]:
    """Return the ids of jobs, in their order."""
    return [record.id for record in records]


def declare(name: str = "s", fingerprint: str = "f", **options: Any) -> Declare:
    """Return the declaration of a schedule."""
    return Declare(name=name, task="t", trigger="Every('1m')", fingerprint=fingerprint, **options)


def firing(clock: Clock, version: int | None, schedule: str = "s", **options: Any) -> Firing:
    """Return the answer to a fire time that is now; a manual job when `version` is None."""
    fire_time = options.pop("fire_time", clock.now()) if version is not None else None
    about = options.pop("job", {})
    options.setdefault("overlap", "skip")
    options.setdefault("watermark", fire_time)
    job = None if about is None else new_job(clock, schedule=schedule, fire_time=fire_time, **about)
    return Firing(schedule=schedule, version=version, job=job, **options)


class StoreConformance:
    """Tests that any store must pass; a subclass gives the fixture `make_store`.

    Attributes:
        worker: The name under which the tests claim; the store must take that worker for a living one.
        forget_seconds: After how long `prune` forgets what is finished; None: not by age.
    """

    pytestmark: pytest.MarkDecorator = pytest.mark.anyio

    worker: str = "worker-1"
    forget_seconds: float | None = None

    @pytest.fixture
    def anyio_backend(self) -> Any:
        """Run on asyncio."""
        return "asyncio"

    @pytest.fixture
    def make_store(self) -> Callable[[HandClock, int], Store]:
        """Return what makes a store that is not open yet, of a clock and a bound."""
        raise NotImplementedError("give the fixture make_store, which returns a function of (clock, max_queued)")

    @pytest.fixture
    def clock(self) -> HandClock:
        """The clock that a test moves."""
        return HandClock()

    @pytest.fixture
    async def store(self, make_store: Callable[[HandClock, int], Store], clock: HandClock) -> AsyncIterator[Store]:
        """A new, open store in which ten jobs may wait."""
        store = make_store(clock, MAX_QUEUED)
        await store.open()
        yield store
        await store.close()

    async def claim(self, store: Store, limit: int = 100, **options: Any) -> list[JobRecord]:
        """Claim jobs of the task `t`, unless `tasks` says otherwise."""
        options.setdefault("tasks", {"t"})
        options.setdefault("lease_seconds", 60.0)
        return await store.claim(worker=self.worker, limit=limit, **options)

    async def claim_one(self, store: Store, **options: Any) -> JobRecord:
        """Claim the one job that there is."""
        (record,) = await self.claim(store, **options)
        return record

    async def soon(self, awaitable: Awaitable[T]) -> T:
        """Await what must happen without further ado."""
        return await asyncio.wait_for(awaitable, PATIENCE_SECONDS)

    async def settle(self, store: Store) -> None:
        """Let what has been asked of the store happen."""
        for _ in range(5):
            await store.counts()
            await asyncio.sleep(0)

    async def fire(self, store: Store, clock: HandClock, version: int | None, **options: Any) -> Fired:
        """Answer one fire time, a minute after the last."""
        clock.advance(60)
        (fired,) = await store.fire([firing(clock, version, **options)])
        return fired

    async def feed(
        self, store: Store, clock: HandClock, first: int = 0, count: int = 0, *, wait: bool = True, **about: Any
    ) -> BatchRow:
        """Let a batch take in so many items more."""
        about = {"batch": "b", "task": "t", "digest": f"of {first + count}", "is_last": False, **about}
        part = BatchPart(first=first, feed_seconds=60.0, **about)
        indexes = range(first, first + count)
        jobs = [new_job(clock, part.task, batch=part.batch, batch_index=index) for index in indexes]
        return await store.feed_batch(part, jobs, wait=wait)

    async def newest(self, store: Store, schedule: str = "s") -> Answer:
        """Return the newest row of the ledger."""
        return (await store.ledger(schedule, limit=1))[0]

    async def row(self, store: Store, schedule: str = "s") -> ScheduleRow:
        """Return the row of a schedule."""
        (row,) = await store.schedules([schedule])
        return row

    # -- enqueue and claim ----------------------------------------------------------------------------------------

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

    # -- room -----------------------------------------------------------------------------------------------------

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

    # -- keys, limits and rates -----------------------------------------------------------------------------------

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

    # -- leases ---------------------------------------------------------------------------------------------------

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

    # -- cancel, wait, look ---------------------------------------------------------------------------------------

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

    # -- batches --------------------------------------------------------------------------------------------------

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

    # -- fire times -----------------------------------------------------------------------------------------------

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

    # -- the ledger -----------------------------------------------------------------------------------------------

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

    # -- schedules ------------------------------------------------------------------------------------------------

    async def test_a_changed_trigger_starts_from_now_and_an_equal_one_goes_on(
        self, store: Store, clock: HandClock
    ) -> None:
        (row,) = await store.set_schedule([declare()])
        fired = await self.fire(store, clock, 1)
        clock.advance(30)
        (same,) = await store.set_schedule([declare()])
        next_at = clock.now() + timedelta(seconds=5)
        (changed,) = await store.set_schedule([declare(fingerprint="g", after_seconds=5.0, next_at=next_at)])
        assert row is not None
        assert changed is not None

        assert same == fired.row
        assert (changed.version, changed.watermark, changed.declared_at) == (3, clock.now(), clock.now())
        assert (changed.runs, changed.fingerprint) == (1, "g")
        assert (changed.after_seconds, changed.next_at) == (5.0, next_at)
        assert (await self.fire(store, clock, 2)).outcome is None  # a process that has the older trigger

    async def test_a_paused_schedule_takes_no_firing_and_resumes_from_now(self, store: Store, clock: HandClock) -> None:
        await store.set_schedule([declare()])
        (paused,) = await store.set_schedule([Pause(name="s", paused=True)])
        (again,) = await store.set_schedule([Pause(name="s", paused=True)])
        assert paused is not None
        assert paused == again
        assert (paused.paused, paused.version, paused.watermark) == (True, 2, START)
        assert (await self.fire(store, clock, 2)).outcome is None
        manual = await self.fire(store, clock, None)
        assert manual.outcome == "ran"
        passed: dict[str, Any] = {
            "passed_first": START + timedelta(seconds=60),
            "passed_last": clock.now(),
            "passed_count": 2,
        }
        (resumed,) = await store.set_schedule([Pause(name="s", paused=False, **passed)])

        assert resumed is not None
        assert (resumed.paused, resumed.version, resumed.watermark) == (False, 3, clock.now())
        answer = await self.newest(store)
        assert (answer.outcome, answer.count, answer.first, answer.last) == (
            "paused",
            2,
            START + timedelta(seconds=60),
            clock.now(),
        )
        assert await store.set_schedule([Pause(name="s", paused=False)]) == [resumed]

    async def test_a_resumed_schedule_goes_on_from_where_the_pause_was_told(
        self, store: Store, clock: HandClock
    ) -> None:
        await store.set_schedule([declare(), Pause(name="s", paused=True)])
        clock.advance(120)
        told = clock.now()
        clock.advance(30)  # the store is asked later than the trigger was
        (resumed,) = await store.set_schedule([Pause(name="s", paused=False, watermark=told)])

        assert resumed is not None
        assert resumed.watermark == told

    async def test_resuming_names_the_next_fire_time_after_end(self, store: Store, clock: HandClock) -> None:
        await store.set_schedule([declare(after_seconds=60.0, next_at=START), Pause(name="s", paused=True)])
        next_at = START + timedelta(hours=1)
        (resumed,) = await store.set_schedule([Pause(name="s", paused=False, next_at=next_at)])

        assert resumed is not None
        assert resumed.next_at == next_at

    async def test_changes_of_schedules_are_made_all_or_none(self, store: Store, clock: HandClock) -> None:
        await store.set_schedule([declare("known")])
        with pytest.raises(UnknownSchedule) as refused:
            await store.set_schedule([declare(), Remove(name="known"), Pause(name="knwon", paused=True)])

        assert str(refused.value).startswith("no schedule named 'knwon'")
        assert [row.name for row in await store.schedules()] == ["known"]

    async def test_schedules_are_listed_by_name(self, store: Store, clock: HandClock) -> None:
        await store.set_schedule([declare("b"), declare("a"), declare("c")])

        assert [row.name for row in await store.schedules()] == ["a", "b", "c"]
        assert [row.name for row in await store.schedules(["c", "x", "a"])] == ["a", "c"]
        assert await store.schedules([]) == []

    async def test_a_clock_set_back_moves_no_watermark_back(self, store: Store, clock: HandClock) -> None:
        await store.set_schedule([declare()])
        fired = await self.fire(store, clock, 1)
        assert fired.row is not None
        clock.seconds -= 3600
        await store.set_schedule([Pause(name="s", paused=True)])
        (resumed,) = await store.set_schedule([Pause(name="s", paused=False)])
        (changed,) = await store.set_schedule([declare(fingerprint="other")])

        assert resumed is not None
        assert changed is not None
        assert resumed.watermark == changed.watermark == fired.row.watermark

    async def test_a_removed_schedule_takes_no_firing_and_its_jobs_stay(self, store: Store, clock: HandClock) -> None:
        await store.set_schedule([declare()])
        fired = await self.fire(store, clock, 1)
        assert fired.job is not None
        assert await store.set_schedule([Remove(name="s"), Remove(name="never")]) == [None, None]

        gone = await self.fire(store, clock, 2)
        assert (gone.outcome, gone.row) == (None, None)
        assert await store.schedules() == []
        assert await store.ledger("s") == []
        record = await self.claim_one(store)
        assert record.id == fired.job.id
        assert await store.finish([ending(record)]) == [True]

    async def test_a_worker_may_say_that_it_lives(self, store: Store, clock: HandClock) -> None:
        await store.beat(self.worker)

    async def test_a_second_close_does_nothing(self, store: Store) -> None:
        await store.close()
        with suppress(NotRunning):
            await store.counts()
        await store.close()
