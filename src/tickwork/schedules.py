"""The schedules of an app, as people see them: look ahead and back, pause, resume, run now, add, remove."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Unpack

from .errors import InvalidOption, UnknownJob, UnknownSchedule
from .explain import MINUTE, Facts, Why, read_time, sought, why
from .options import positive
from .scheduler import passed_in_pause, resumption
from .stores.base import Answer, Pause
from .tasks import ScheduleSpec, policies_of
from .triggers import Trigger, read_instant, upcoming

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from .app import App
    from .handle import Job
    from .jobs import JobRecord
    from .policies import Policies
    from .scheduler import Entry
    from .stores.base import ScheduleRow
    from .tasks import AnyTask, PolicySettings

logger: logging.Logger = logging.getLogger("tickwork.schedules")

RECENT = 1_000
"""Among how many of the newest rows a fire time is looked for that no trigger tells: what memory keeps."""


class Schedule:
    """A schedule of an app: what it will do next, and the means to change that."""

    __slots__ = ("_app", "_entry")

    def __init__(self, app: App, entry: Entry) -> None:
        self._app, self._entry = app, entry

    def __repr__(self) -> str:
        return f"<Schedule {self.name} {self.trigger!r}>"

    @property
    def name(self) -> str:
        """Its name: the task's, unless it was given one."""
        return self._entry.name

    @property
    def task(self) -> AnyTask:
        """The task whose jobs it makes."""
        return self._entry.task

    @property
    def trigger(self) -> Trigger:
        """When it fires."""
        return self._entry.trigger

    @property
    def policies(self) -> Policies:
        """How it treats its fire times."""
        return self._entry.policies

    @property
    def timezone(self) -> str:
        """The zone in which its times are told: its trigger's, or the app's."""
        return self.trigger.timezone or self._app.timezone

    @property
    def is_paused(self) -> bool:
        """Whether its fire times are let pass."""
        return self._entry.row is not None and self._entry.row.paused

    @property
    def error(self) -> BaseException | None:
        """What its trigger raised, which has stopped it; None: it is well."""
        return self._entry.broken

    @property
    def next_at(self) -> datetime | None:
        """The next fire time (UTC); None: paused, finished, broken, or, with `after="end"`, waiting for an end."""
        return self._entry.next_at

    def next(self, n: int = 1) -> list[datetime]:
        """Return the next `n` fire times (UTC), fewer when the trigger ends; a pause is not looked at."""
        return upcoming(self._entry.trigger, self._app._clock.now(), positive("n", n))

    async def pause(self) -> bool:
        """Let fire times pass until `resume`, in all processes that share the store, and return whether that is news.

        A job under way goes on.

        Raises:
            NotRunning: The app is not running.
            UnknownSchedule: No process that fires it has declared it in the store yet.
        """
        return await self._set_paused(True)

    async def resume(self) -> bool:
        """Fire again, from now on, and return whether it was paused. What was due meanwhile is not made up for.

        One whose trigger has raised goes on where that was, and `catch_up` decides about what has passed since. While
        the trigger still raises, the schedule stays as it is; `error` tells.

        Raises:
            NotRunning: The app is not running.
            UnknownSchedule: No process that fires it has declared it in the store yet.
            Exception: What the trigger raises, where this process fires no schedules.
        """
        return await self._set_paused(False)

    async def _set_paused(self, paused: bool) -> bool:
        scheduler, store = self._app._scheduler, self._app._store_now()
        if scheduler is not None:
            was = self.is_paused
            await scheduler.pause(self.name, paused=paused)
            return was is not self.is_paused  # while its trigger raises, it stays as it is
        if not store.capabilities.multi_process:
            self._app._scheduler_now()  # raises: nobody fires it
        row = await self._row()
        if row is not None and row.paused is paused:
            return False
        now = self._app._clock.now()
        await store.set_schedule([Pause(name=self.name, paused=True) if paused else resumption(self._entry, row, now)])
        return True

    async def run_now(self) -> Job[Any] | None:
        """Make a job now, beside the fire times, and return it.

        Overlap applies: None when "skip" forbids it; with "queue", the job that waits already, if one does.
        """
        fired = await self._app._scheduler_now().run_now(self.name)
        if fired.outcome is None:
            logger.warning("schedule %s not run: the store has no such schedule", self.name)
            return None
        if fired.outcome == "skipped":
            logger.warning("schedule %s not run: its last job %s is not finished", self.name, fired.blocked_by)
            return None
        return self._app._handle(fired.blocked_by or (fired.job.id if fired.job else ""), self.task.name)

    async def history(self, limit: int = 100) -> list[Answer]:
        """Return what became of its fire times, the newest first.

        Those that pass while it is paused share the first row until it is resumed.
        """
        answers = await self._app._store_now().ledger(self.name, limit=positive("limit", limit))
        passing = self._passing(await self._row())
        return [passing, *answers][:limit] if passing is not None else answers

    async def _row(self) -> ScheduleRow | None:
        rows = await self._app._store_now().schedules([self.name])
        return rows[0] if rows else None

    def _passing(self, row: ScheduleRow | None) -> Answer | None:
        """Return the row for what has passed in a pause that goes on; None: nothing has."""
        now = self._app._clock.now()
        try:
            first, last, count = passed_in_pause(self.trigger, row, self.policies, now)
        except BaseException as error:  # resuming it tries again, and tells
            if isinstance(error, KeyboardInterrupt):
                raise
            logger.debug("schedule %s: its trigger raised while it was paused", self.name, exc_info=True)
            return None
        if first is None or last is None:
            return None
        return Answer(schedule=self.name, first=first, last=last, count=count, outcome="paused", answered_at=now)

    async def why(self, when: datetime | str) -> Why:
        """Say what became of a fire time, and why: `print(await app.schedules["nightly"].why("03:00"))`.

        Args:
            when: An aware datetime; or a text: "03:00" (the last one), or ISO 8601, read in the schedule's zone unless
                it has an offset; of a time that came twice, the first. One told to the minute means the first fire
                time in that minute.

        Raises:
            InvalidInstant: It cannot be read, or has no zone.
        """
        now, zone = self._app._clock.now(), self.timezone
        at, remark = read_time(when, zone, now) if isinstance(when, str) else (read_instant(when, "when"), "")
        at, answers = await self._sought(at)
        row = await self._row()
        passing = self._passing(row)
        if passing is not None and passing.first <= at <= passing.last:
            answers = [passing]
        found = why(at, await self._facts(answers, row, zone, now))
        return Why(remark + found.sentence, found.answer)

    async def _sought(self, asked: datetime) -> tuple[datetime, list[Answer]]:
        """Return the fire time that is meant, and the row of the ledger for it."""
        store = self._app._store_now()
        at = asked if self.policies.after == "end" else sought(asked, self.trigger)
        answers = await store.ledger(self.name, limit=1, at=at)
        if answers or asked.second or asked.microsecond:
            return at, answers
        # Those of `first="now"` and `after="end"` are on no grid: only the ledger knows them.
        inside = [row for row in await store.ledger(self.name, limit=RECENT) if asked <= row.first < asked + MINUTE]
        return (inside[-1].first, inside[-1:]) if inside else (at, [])

    async def _facts(self, answers: list[Answer], row: ScheduleRow | None, zone: str, now: datetime) -> Facts:
        store = self._app._store_now()
        jobs: dict[str, JobRecord] = {}
        blockers: dict[str, Answer] = {}
        for answer in answers:
            for job_id in (answer.job_id, answer.blocked_by):
                if job_id is not None:
                    with suppress(UnknownJob):  # its retention has passed; the ledger tells enough
                        jobs[job_id] = self._app._overlaid(await store.job(job_id))
            if answer.blocked_by is not None:
                blocker = await store.answer_of(self.name, answer.blocked_by)
                if blocker is not None:
                    blockers[answer.blocked_by] = blocker
        return Facts(
            name=self.name,
            trigger=self.trigger,
            policies=self.policies,
            row=row,
            answers=answers,
            jobs=jobs,
            blockers=blockers,
            is_durable=store.capabilities.durable,
            zone=zone,
            now=now,
        )


class Schedules(Mapping[str, Schedule]):
    """The schedules of an app, by name."""

    def __init__(self, app: App) -> None:
        self._app = app

    def __getitem__(self, name: str) -> Schedule:
        try:
            return Schedule(self._app, self._app._entries[name])
        except KeyError:
            raise UnknownSchedule(name, list(self._app._entries)) from None

    def __contains__(self, name: object) -> bool:
        return name in self._app._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._app._entries)

    def __len__(self) -> int:
        return len(self._app._entries)

    async def add(
        self,
        task: AnyTask,
        trigger: Trigger,
        *,
        name: str | None = None,
        **settings: Unpack[PolicySettings],
    ) -> Schedule:
        """Add a schedule, also while the app runs.

        Args:
            task: A task of the app.
            trigger: When it fires.
            name: Its name; None: the task's.
            **settings: See `PolicySettings`.

        Raises:
            UnknownTask: The app does not include the task.
            DuplicateName: There is a schedule with this name.
        """
        if not isinstance(trigger, Trigger):
            raise InvalidOption("trigger", "a trigger such as Every(...) or Cron(...)", trigger)
        self._app._known(task)
        spec = ScheduleSpec(trigger, name, policies_of(settings))
        entry = self._app._declare(task, spec)
        if self._app._scheduler is not None:
            try:
                await self._app._scheduler.add(entry)
            except BaseException:
                self._app._entries.pop(entry.name, None)
                raise
        return Schedule(self._app, entry)

    async def remove(self, name: str) -> None:
        """Remove a schedule, also while the app runs. Its jobs stay."""
        if name not in self:
            raise UnknownSchedule(name, list(self))
        if self._app._scheduler is not None:
            await self._app._scheduler.remove(name)
        del self._app._entries[name]
