"""The schedules of an app, as people see them: look ahead and back, pause, resume, run now, add, remove."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Unpack

from .errors import InvalidOption, UnknownSchedule
from .options import positive
from .tasks import ScheduleSpec, policies_of
from .triggers import Trigger, upcoming

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from .app import App
    from .handle import Job
    from .policies import Policies
    from .scheduler import Entry
    from .stores.base import Answer
    from .tasks import AnyTask, PolicySettings

logger: logging.Logger = logging.getLogger("tickwork.schedules")


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
    def is_paused(self) -> bool:
        """Whether its fire times are let pass."""
        return self._entry.row is not None and self._entry.row.paused

    @property
    def error(self) -> BaseException | None:
        """What its trigger raised, which has stopped it; None: it is well."""
        return self._entry.broken

    def next(self, n: int = 1) -> list[datetime]:
        """Return the next `n` fire times (UTC), fewer when the trigger ends; a pause is not looked at."""
        return upcoming(self._entry.trigger, self._app._clock.now(), positive("n", n))

    async def pause(self) -> None:
        """Let fire times pass until `resume`. A job under way goes on."""
        await self._app._scheduler_now().pause(self.name, paused=True)

    async def resume(self) -> None:
        """Fire again, from now on: what was due meanwhile is not made up for."""
        await self._app._scheduler_now().pause(self.name, paused=False)

    async def run_now(self) -> Job[Any] | None:
        """Make a job now, beside the fire times, and return it.

        Overlap applies: None when "skip" forbids it; with "queue", the job that waits already, if one does.
        """
        fired = await self._app._scheduler_now().run_now(self.name)
        if fired.outcome == "skipped" or fired.outcome is None:
            logger.warning("schedule %s not run: its last job %s is not finished", self.name, fired.blocked_by)
            return None
        return self._app._handle(fired.blocked_by or (fired.job.id if fired.job else ""), self.task.name)

    async def history(self, limit: int = 100) -> list[Answer]:
        """Return what became of its fire times, the newest first."""
        return await self._app._store_now().ledger(self.name, limit=positive("limit", limit))


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
