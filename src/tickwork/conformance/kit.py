"""What the tests of a store have in common: a clock that they move, short ways to make jobs, and the fixtures."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from ..clock import Clock, Timer
from ..jobs import JobRecord, JobState, NewJob, new_id
from ..stores.base import Declare, Finish, Fired, Firing, Lease
from ..stores.batches import BatchPart, BatchRow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from ..stores.base import Answer, ScheduleRow, Store

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


class StoreChecks:
    """What the tests of a store have in common; a subclass gives the fixture `make_store`.

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
