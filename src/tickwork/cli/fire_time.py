"""`tickwork trigger --fire-time`: what an entry of a crontab, or a task of Task Scheduler, starts for a schedule.

With a store, the fire time goes through it as in a running app; see `fire_here`. An app in memory has none, so
processes agree by locks and a note in a folder; see `turns`.
"""

from __future__ import annotations

import asyncio
import logging
import shlex
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from ..clock import SystemClock
from ..durations import format_about
from ..errors import InvalidOption, SystemSchedulerError, TickworkError, UnknownJob
from ..fire_here import fire_here, take_over
from ..jobs import JobState
from ..occasion import decide, is_late, newest_fire_time, read_fire_time
from ..program import JOB_FAILED, OK, START_FAILED
from .names import schedule_named
from .running import run_app
from .target import identity_of, load
from .trigger import end_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from datetime import datetime

    from ..app import App
    from ..fire_here import Fate
    from ..handle import Job
    from ..occasion import Refusal
    from ..policies import Due
    from ..schedules import Schedule
    from ..stores.base import ScheduleRow
    from ..system.turn_note import Holder
    from ..system.turns import Turn

logger: logging.Logger = logging.getLogger("tickwork.trigger")

WAITS_SECONDS = 3.0
"""After so long, a job that has not begun is worth a word about what it waits for."""


class _Ended(BaseException):
    """SIGTERM before the app has started."""


def run_fire_time(options: argparse.Namespace, folder: str) -> int:
    """Answer a fire time of a schedule.

    Args:
        options: Of the command.
        folder: The absolute path of the folder in which it works.
    """
    signal.signal(signal.SIGTERM, _raise_ended)  # until the app runs, which has handlers of its own
    started_at = SystemClock().now()  # before the app is imported, which may take its time
    try:
        app = load(options.target, show_traceback=options.verbose or options.log is not None)
        schedule = schedule_named(app, options.name)
        fire_time = _fire_time(schedule, options.fire_time, started_at)
        there = [] if options.dir is None else ["--dir", folder]
        by_hand = shlex.join(["tickwork", "trigger", *there, options.target, options.name])
        run = _Run(app, schedule, fire_time or started_at, started_at, by_hand=by_hand)
        if fire_time is None:
            return run.is_not_due()
        run.note_lateness()
        if app.is_durable:
            return run_app(app, work=run.with_store, alone=True)
        return run.in_memory(options.state, identity_of(options.target, app, folder))
    except _Ended:
        logger.warning("SIGTERM: ended before anything had begun")
        return 128 + signal.SIGTERM
    except SystemSchedulerError as error:  # of the locks
        logger.error("%s", error)
        return START_FAILED
    except TickworkError:
        raise
    except Exception:  # of a trigger of the user's
        logger.exception("the fire time of %s could not be answered", options.name)
        return START_FAILED


def _raise_ended(number: int, frame: object) -> None:
    raise _Ended


def _fire_time(schedule: Schedule, asked: str, now: datetime) -> datetime | None:
    """Return the fire time that is meant; None: none has come.

    Raises:
        InvalidOption: None can be told, or the text is none.
    """
    trigger = schedule.trigger
    if schedule.policies.after == "end":
        remedy = 'each comes a period after the end of the last job (after="end"), so only a running app can fire it'
        raise InvalidOption("NAME", "a schedule whose fire times its trigger tells", schedule.name, remedy=remedy)
    if asked != "auto":
        return read_fire_time(trigger, asked, now)
    return newest_fire_time(trigger, now)


class _Run:
    """One answer to one fire time."""

    def __init__(
        self, app: App, schedule: Schedule, fire_time: datetime, started_at: datetime, *, by_hand: str
    ) -> None:
        self._app = app
        self._schedule = schedule
        self._name = schedule.name
        self._at = fire_time
        self._started_at = started_at
        self._by_hand = by_hand

    # -- what is said before ----------------------------------------------------------------------------------------

    def is_not_due(self) -> int:
        """Say that no fire time has come yet."""
        following = self._schedule.trigger.next(self._started_at)
        then = "it has none" if following is None else f"the first is {self._shown(following)}"
        logger.warning("schedule %s has had no fire time yet, so nothing is run; %s", self._name, then)
        return OK

    def note_lateness(self) -> None:
        """Say which fire time this is for, and when the process was hardly started for it."""
        if is_late(self._at, self._started_at):
            late = format_about((self._started_at - self._at).total_seconds())
            logger.warning(
                "schedule %s: started %s after the fire time %s, for which it may not have been meant",
                *(self._name, late, self._shown(self._at)),
            )
        else:
            logger.info("schedule %s: started for %s", self._name, self._shown(self._at))

    def _decide(self, row: ScheduleRow, is_answered: bool, now: datetime) -> Due | Refusal:
        schedule = self._schedule
        return decide(
            *(schedule.trigger, row, self._at, now, schedule.policies),
            started_at=self._started_at,
            is_answered=is_answered,
        )

    def _shown(self, at: datetime) -> str:
        here = at.astimezone(ZoneInfo(self._schedule.timezone))
        return f"{here:%Y-%m-%d %H:%M:%S}{f'.{here.microsecond:06d}' if here.microsecond else ''} {here:%z}"

    # -- with a store -----------------------------------------------------------------------------------------------

    async def with_store(self) -> int:
        """Answer the fire time through the store, and run what is to be run."""
        try:
            return await self._through_store()
        except Exception:
            logger.exception("the fire time of %s could not be answered", self._name)
            return START_FAILED

    async def _through_store(self) -> int:
        status, is_patient = OK, self._schedule.policies.overlap == "skip"
        if is_patient:  # else what a dead process has left would make this one skip
            status = await self._ends(await take_over(self._app, self._name))
        fate = await fire_here(self._app, self._name, self._at, self._decide)
        await self._tell(fate)
        left = [] if is_patient else await take_over(self._app, self._name)
        return max(status, await self._ends([*fate.jobs, *left]))

    async def _tell(self, fate: Fate) -> None:
        """Say what became of the fire time, where that is no run."""
        if fate.outcome == "ran":
            return
        if fate.blocked_by is not None and (where := await self._whereabouts(fate.blocked_by)):
            logger.info("schedule %s: job %s %s", self._name, fate.blocked_by, where)
        why = await self._schedule.why(self._at)
        where = "" if why.answer is None or why.answer.job_id is None else await self._whereabouts(why.answer.job_id)
        self._say_nothing_run(f"{why}; it {where}" if where else str(why))

    async def _whereabouts(self, job_id: str) -> str:
        """Return where a job runs, or "" where it does not."""
        store = self._app._store_now()
        try:
            record = await store.job(job_id)
        except UnknownJob:
            return ""  # it is no longer kept
        if record.state is not JobState.RUNNING:
            return ""
        rows = {row.name: str(row) for row in await store.workers()}
        since = "" if record.started_at is None else f", since {self._shown(record.started_at)}"
        return f"is running in worker {rows.get(record.worker or '', record.worker)}{since}"

    def _say_nothing_run(self, why: str) -> None:
        logger.info("%s; nothing is run for it now. To run the task all the same: %s", why, self._by_hand)

    async def _ends(self, jobs: Sequence[Job[Any]]) -> int:
        return max(await asyncio.gather(*map(self._end, jobs)), default=OK)

    async def _end(self, job: Job[Any]) -> int:
        end = asyncio.ensure_future(end_of(job, self._schedule.task, show=False, stays=self._app.is_durable))
        try:
            await asyncio.wait({end}, timeout=WAITS_SECONDS)
            if not end.done():
                await self._tell_waiting(job)
            status = await end
        finally:
            end.cancel()
        if status != OK and self._app.is_running:
            with suppress(TickworkError):  # the app begins to stop just now
                answer = await self._app._store_now().answer_of(self._name, job.id)
                if answer is not None and answer.outcome == "missed":
                    return OK  # its grace was over before it could begin
        return status

    async def _tell_waiting(self, job: Job[Any]) -> None:
        record = await job.record()
        if record.state is not JobState.RUNNING and record.started_at is None:
            logger.info("%s", (await self._app.jobs.why(job.id)).sentence)

    # -- in memory --------------------------------------------------------------------------------------------------

    def in_memory(self, state: str | None, identity: str) -> int:
        """Answer the fire time by the note and the locks of the schedule, and run what is to be run."""
        from ..system.turns import Turns, state_folder

        folder = state_folder() if state is None else Path(state).absolute() / "tickwork-runs"
        turns = Turns(folder, identity, self._name, self._app._clock)
        fingerprint, overlap = self._schedule.trigger.fingerprint, self._schedule.policies.overlap
        turn = turns.take(self._at, fingerprint, overlap, self._decide)
        self._tell_missed(turn.due)
        due = turn.due
        if turn.outcome != "ran" or due is None:
            self._say_nothing_run(f"schedule {self._name}, {self._shown(self._at)}: {self._why_not(turn)}")
            return OK

        async def work() -> int:
            fate = await fire_here(self._app, self._name, self._at, lambda row, is_answered, now: due)
            status = await self._ends(fate.jobs)
            await self._app.wait_idle()  # nobody else could run what the job has enqueued
            return max(status, JOB_FAILED if self._app.failed_count else OK)

        return run_app(
            self._app, work=work, alone=True, at_end=lambda status: turns.leave(f"ended with exit status {status}")
        )

    def _tell_missed(self, due: Due | None) -> None:
        """Say which fire times were let pass: there is no ledger that would."""
        if due is not None and due.missed_first is not None:
            first, last = self._shown(due.missed_first), self._shown(due.missed_last or due.missed_first)
            if due.missed == 1:
                logger.warning("schedule %s missed %s; %s decided", self._name, first, due.decided_by)
                return
            count = "many" if due.missed is None else due.missed
            logger.warning(
                "schedule %s missed %s fire times, from %s to %s; %s decided",
                *(self._name, count, first, last, due.decided_by),
            )

    def _why_not(self, turn: Turn) -> str:
        match turn.outcome:
            case "skipped":
                return f"skipped: still running since {self._who(turn.other)}"
            case "merged":
                return f"merged into the run that waits for its turn since {self._who(turn.other)}"
            case "replaced":
                return f"replaced while it waited by the one of {self._who(turn.other)}"
            case "missed":
                return "missed"
            case "finished":
                return f"the schedule is finished ({self._schedule.policies.said('max_runs')})"
            case "unknown":
                return "passed before this schedule was started here for the first time, or with this trigger"
        if turn.other is None:
            return "answered already"
        return f"answered already, or one after it: {turn.said or 'begun'}, by {self._who(turn.other)}"

    def _who(self, other: Holder | None) -> str:
        return "somebody" if other is None else f"{self._shown(other.since)}, pid {other.pid}"
