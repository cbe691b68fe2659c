"""Whether an app does what it should: numbers for a readiness probe, and names for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .durations import format_about, format_seconds
from .records import record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from .stores.base import ScheduleRow
    from .stores.views import WorkerRow

QUIET_SECONDS = 30.0
"""A worker process tells every five seconds how it does: one that has missed six of them is stuck, or cut off."""


@record
class Stale:
    """A schedule that has not succeeded as often as expected.

    Attributes:
        schedule: Its name.
        succeeded_at: When a job of it last succeeded (UTC); None: none has since the store knows it.
        since_seconds: Seconds since then, or since the store knows the schedule.
        expect_within: Within how many seconds a success was expected.
        is_paused: Whether it is paused, which may be the reason.
    """

    schedule: str
    succeeded_at: datetime | None
    since_seconds: float
    expect_within: float
    is_paused: bool

    def __str__(self) -> str:
        last = "has not succeeded yet" if self.succeeded_at is None else "has last succeeded"
        since = format_seconds(round(self.since_seconds))
        paused = "; it is paused" if self.is_paused else ""
        return f"{self.schedule} {last}, for {since}; expected within {format_seconds(self.expect_within)}{paused}"


def staleness(name: str, row: ScheduleRow, within: float | None, now: datetime) -> Stale | None:
    """Return in what way a schedule is stale; None: it is not, or nothing is expected of it."""
    since = (now - (row.succeeded_at or row.declared_at)).total_seconds()
    if within is None or since <= within:
        return None
    return Stale(
        schedule=name,
        succeeded_at=row.succeeded_at,
        since_seconds=since,
        expect_within=within,
        is_paused=row.paused,
    )


def quiet_seconds(worker: WorkerRow, now: datetime) -> float:
    """Return for how long a worker process has told nothing."""
    return (now - worker.beat_at).total_seconds()


def fleet_problems(workers: Sequence[WorkerRow], now: datetime, *, has_schedules: bool) -> Iterator[str]:
    """Yield what is wrong with the processes that share a store, each as a sentence.

    Args:
        workers: Those that live.
        now: The instant of the question (UTC).
        has_schedules: Whether the app has schedules, which one of them must fire.
    """
    if not workers:
        yield "no worker process is alive; start one, as with `tickwork run`"
        return
    for worker in workers:
        if (quiet := quiet_seconds(worker, now)) > QUIET_SECONDS:
            yield f"worker {worker} has told nothing for {format_about(round(quiet))}"
    told = [(worker, worker.vitals) for worker in workers if worker.vitals is not None]
    if len(told) == len(workers) and not any(worker.tasks for worker in workers):
        yield "no process runs jobs; start one, as with `tickwork run` or --role worker"
    schedulers = [(worker, vitals) for worker, vitals in told if vitals.scheduler_age is not None]
    if has_schedules and not schedulers and len(told) == len(workers):  # one that has just started may be about to
        yield "no process fires the schedules; start one, as with `tickwork run` or --role scheduler"
    for worker, vitals in schedulers:
        age, most = vitals.scheduler_age or 0.0, vitals.max_scheduler_age
        if most is not None and age > most:
            yield f"the scheduler of worker {worker} had not looked at what is due for {format_about(round(age))}"


@record
class Health:
    """How an app does.

    Attributes:
        scheduler_age: Seconds since the scheduler last looked at what is due; None: no scheduler runs here.
        max_scheduler_age: Up to how many that is well: twice its longest sleep; infinite when nothing is planned.
        stale: Schedules that have not succeeded within their `expect_within`.
        broken: Schedules whose trigger raised.
        died: What a part of the app died of; None: all live.
        store_error: What the store raised when it was last asked; None: it does what it is asked for.
        running: How many attempts are under way here.
        workers: The worker processes that share the store; None: it cannot be shared, or was not reached.
        fleet: What is wrong with them, each as a sentence.
        oldest_due_seconds: For how long the job has been due that has waited longest in a queue which is not paused;
            None: none waits, or nobody asked.
        max_wait_seconds: Up to how long that is well; None: nobody asked.
    """

    scheduler_age: float | None
    max_scheduler_age: float
    stale: tuple[Stale, ...] = ()
    broken: tuple[str, ...] = ()
    died: BaseException | None = None
    store_error: BaseException | None = None
    running: int = 0
    workers: tuple[WorkerRow, ...] | None = None
    fleet: tuple[str, ...] = ()
    oldest_due_seconds: float | None = None
    max_wait_seconds: float | None = None

    @property
    def is_ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    @property
    def problems(self) -> list[str]:
        """What is wrong, each as a sentence."""
        found = []
        if self.died is not None:
            found.append(f"a part of the app died: {self.died!r}")
        if self.store_error is not None:
            found.append(f"the store raised {self.store_error!r}, and is asked again")
        if self.scheduler_age is not None and self.scheduler_age > self.max_scheduler_age:
            found.append(f"the scheduler has not looked at what is due for {format_seconds(round(self.scheduler_age))}")
        found += [f"the trigger of schedule {name} raised, so it has stopped" for name in self.broken]
        found += self.fleet
        oldest, most = self.oldest_due_seconds, self.max_wait_seconds
        if oldest is not None and most is not None and oldest > most:
            waited, limit = format_about(round(oldest)), format_about(most)
            found.append(f"a job has been due for {waited}; expected to begin within {limit}")
        return found + [str(stale) for stale in self.stale]
