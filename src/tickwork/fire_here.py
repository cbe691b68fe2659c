"""Answer a fire time in the process that was started for it, and run its job here: `tickwork trigger --fire-time`.

Against the store this is what the scheduler of a running app does: the same decision, the same compare-and-set on the
row of the schedule, the same row in the ledger. So an app that runs and any number of processes that cron starts fire
each fire time once between them.

Where only such processes exist, nobody else looks after what one of them left behind when it was killed or stopped: the
next one of the same schedule takes it over.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from .errors import StoreUnavailable
from .jobs import JobState
from .occasion import firings
from .scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from .app import App
    from .handle import Job
    from .occasion import Refusal
    from .policies import Due
    from .stores.base import Fired, FireOutcome, Firing, ScheduleRow

logger: logging.Logger = logging.getLogger("tickwork.scheduler")

MAX_TRIES = 50
"""How often a decision is made anew because another process has changed the row meanwhile: each time somebody has got
somewhere, and the fire time that is asked for is answered the first time one of them meant it."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a fire time.

    Attributes:
        outcome: What the store says, or why it was not asked.
        jobs: The jobs that were made; with `catch_up="all"`, also of fire times before.
        blocked_by: The unfinished job that made it skip, or into which it merged.
    """

    outcome: FireOutcome | Refusal
    jobs: Sequence[Job[Any]] = ()
    blocked_by: str | None = None


async def fire_here(
    app: App, name: str, fire_time: datetime, decide: Callable[[ScheduleRow, bool, datetime], Due | Refusal]
) -> Fate:
    """Answer a fire time, and claim the jobs that it makes before another process can.

    Args:
        app: Started, without schedules.
        name: The schedule.
        fire_time: The one to be answered.
        decide: Called with the schedule's row, with whether the ledger has an answer, and with the time.

    Raises:
        StoreUnavailable: Others change the schedule all the time.
        Exception: What the trigger raises.
    """
    store, dispatcher, entry = app._store_now(), app._dispatcher, app._entries[name]
    assert dispatcher is not None
    scheduler = Scheduler(store, app._clock, dispatcher.cancel_here, events=app._events, random=app._random)
    for _ in range(MAX_TRIES):
        now = app._clock.now()
        declare = scheduler._declare(entry, now)
        if declare is None:
            assert entry.broken is not None
            raise entry.broken
        (row,) = await store.set_schedule([declare])
        assert row is not None
        decided = decide(row, bool(await store.ledger(name, limit=1, at=fire_time)), now)
        if isinstance(decided, str):
            return Fate(decided)
        asked = firings(row, decided, entry.policies, now, partial(scheduler._job, entry, now=now))
        job_ids = [firing.job.id for firing in asked if firing.job is not None]
        # What is asked of a store in the same turn of the loop is one transaction, or the next best thing.
        fired, _ = await asyncio.gather(store.fire(asked), dispatcher.claim_now(job_ids))
        if any(answer.outcome is not None for answer in fired):
            for firing, answer in zip(asked, fired, strict=True):
                scheduler._take(entry, firing, answer)
            return _fate(app, asked, fired)
    reason = f"other processes changed the schedule {name!r} {MAX_TRIES} times while this one tried"
    raise StoreUnavailable(str(app.path or "of the app"), reason, "see which of them have another version of the app")


def _fate(app: App, asked: Sequence[Firing], fired: Sequence[Fired]) -> Fate:
    jobs = [app._handle(answer.job.id, answer.job.task) for answer in fired if answer.job is not None]
    last = [answer for answer in fired if answer.outcome is not None][-1]
    assert last.outcome is not None
    return Fate(last.outcome, jobs, last.blocked_by)


async def take_over(app: App, name: str) -> list[Job[Any]]:
    """Claim what is due of a schedule's jobs and runs nowhere, where no app runs that would; return what this got.

    Jobs of dead processes are among them, those that were given back, and those that failed in a process that was
    stopped before it could try again.
    """
    store, dispatcher, task = app._store_now(), app._dispatcher, app._entries[name].task
    assert dispatcher is not None
    if not store.capabilities.multi_process:
        return []
    await store.rescue()
    workers = [worker for worker in await store.workers() if task.name in worker.tasks]
    now = app._clock.now()
    left = [
        record
        for state in (JobState.QUEUED, JobState.SCHEDULED)
        for record in await store.jobs(state=state, schedule=name)
        if record.run_at <= now and not any(worker.claims_from(record.queue) for worker in workers)
    ]
    got = set(await dispatcher.claim_now([record.id for record in left]))
    for record in left:
        if record.id in got:
            due = "by hand" if record.fire_time is None else record.fire_time.isoformat()
            logger.warning(
                "job %s of schedule %s (%s) was left unfinished, and nobody runs it: taken over", record.id, name, due
            )
    return [app._handle(record.id, record.task) for record in left if record.id in got]
