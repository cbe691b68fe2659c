r"""`schtasks`, the command of Windows' Task Scheduler, awaited.

    st = Schtasks()
    await st.create_daily("report", [sys.executable, r"C:\srv\report.py"], at="03:30")
    await st.create(ScheduledTask("sync", [sys.executable, "-m", "sync"], when=Every("5m")))
    await st.delete("report")

Tasks go in as XML from a private file, never as a command line (`/tr` is cut in silence at 253 characters), and come
back as XML, never as a table (its words are those of the machine's language). Exit statuses are HRESULTs. Whatever is
replaced or deleted is looked at first: a task that tickwork has not made is refused.
"""

from __future__ import annotations

import asyncio
import codecs
import os
import shutil
import sys
import tempfile
from datetime import date, datetime, time
from typing import TYPE_CHECKING, Any, TypeAlias

from ..clock import SystemClock, outside
from ..durations import seconds
from ..errors import (
    EntryExists,
    EntryNotFound,
    ForeignEntry,
    InvalidOption,
    SchedulerCommandFailed,
    SchedulerConflict,
    SystemSchedulerError,
)
from ..shield import to_its_end
from ..triggers import Every
from ..zones import zone_key
from .app_sync import AppSync, Seen, check_unchanged, make_log_folder
from .calendar_words import as_tuple, read_day, read_times, read_weekdays
from .command import Completed, read, write
from .scheduled_task import ScheduledTask, TaskEntry, describe, find_entry
from .task_codes import failure, is_missing
from .task_model import ANCHOR, ByDay, ByMonth, ByMonthWeekday, ByWeek, CalendarTrigger, Days, Last
from .task_reading import Unreadable, decode, read_all
from .task_sync import look
from .task_sync import render as render_wanted
from .task_words import check_folder, check_name, command_line
from .task_xml import encode, render

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from ..clock import Clock
    from .app_entries import Wanted
    from .crontab_text import Owner
    from .sync import Plan, Want

__all__ = ["Schtasks"]

Wants: TypeAlias = "list[Want]"  # inside of a class with a method `list`, the word means that

_NO_XML = "it printed no XML of a task; is this the schtasks.exe of Windows?"


class Schtasks(AppSync):
    r"""The tasks in one folder of Task Scheduler, for the user who runs this.

    Args:
        command: The program and what goes before its arguments; None: schtasks.exe in the system's folder.
        folder: Where its tasks stand, such as `\tickwork`.
        timeout: How long one call of the program may take.
        timezone: The IANA key of the machine's zone. It is needed for crons that name a zone; others are read on the
            machine's clock as they are.
        codec: The code page of the program's texts; None: the console's.
        clock: Tells whether an `At` has passed.

    Raises:
        InvalidEntry: The folder has a name that is not allowed.
        InvalidOption, InvalidDuration, UnknownTimezone: Another option has a value that it cannot have.
    """

    def __init__(
        self,
        *,
        command: Sequence[str] | None = None,
        folder: str = r"\tickwork",
        timeout: str | float | timedelta = 10,
        timezone: str | None = None,
        codec: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        if isinstance(command, str) or (command is not None and not command):
            raise InvalidOption("command", "a list: a program, and what goes before its arguments", command)
        self._command = (_system_program(),) if command is None else tuple(command)
        self._folder = check_folder(folder)
        self._timeout = seconds(timeout, "timeout")
        self._timezone = None if timezone is None else zone_key(timezone)
        self._codec = _known_codec(codec or ("oem" if sys.platform == "win32" else "utf-8"))
        self._clock = clock or SystemClock()

    _noun = "tasks"

    @property
    def where(self) -> str:
        r"""Where its tasks stand, for messages: "the folder \tickwork of Task Scheduler"."""
        return f"the folder {self._folder} of Task Scheduler"

    # --- reading ------------------------------------------------------------------------------------------

    async def list(self, *, everywhere: bool = False) -> tuple[TaskEntry, ...]:
        """Return the tasks in the folder, by path; with `everywhere` all that this user may see.

        Raises:
            SystemSchedulerError: The program is missing, fails, or takes too long.
        """
        completed = await self._query()
        entries = self._entries(completed, None)
        return tuple(sorted((entry for entry in entries if everywhere or entry.name), key=lambda entry: entry.path))

    async def get(self, name: str) -> TaskEntry:
        """Return the task with a name, whoever made it.

        Raises:
            EntryNotFound: There is none.
            InvalidEntry: That is no name.
            SystemSchedulerError: The program is missing, fails, or takes too long.
        """
        entry = await self._find(check_name(name))
        if entry is None:
            raise await self._not_found(name)
        return entry

    async def exists(self, name: str) -> bool:
        """Return whether there is a task with a name, whoever made it; raises as `get` does."""
        return await self._find(check_name(name)) is not None

    # --- changing -----------------------------------------------------------------------------------------

    async def create(self, task: ScheduledTask, *, replace: bool = False, force: bool = False) -> TaskEntry:
        """Make a task, and return it as it is read back.

        A cancellation comes when the program has ended; the file it reads is removed then, as after every failure.

        Args:
            task: The task.
            replace: Whether a task of ours with this name is replaced.
            force: Whether also one that somebody has changed.

        Raises:
            EntryExists: There is one, and it is not to be replaced.
            ForeignEntry: It was made by somebody else, for another app, or changed by somebody.
            InvalidEntry: A part of it cannot be carried exactly.
            UnsupportedSchedule: Its schedule cannot be said exactly.
            SchedulerDenied: This user may not make such a task.
            SchedulerConflict: Somebody else made a task with this name at the same time.
            SystemSchedulerError: The program is missing, fails, or takes too long.
        """
        if not isinstance(task, ScheduledTask):
            raise InvalidOption("task", "a ScheduledTask", task)
        definition = task.define(timezone=self._timezone, now=self._clock.now())
        description = describe(task, definition)
        present = await self._find(task.name)
        if present is not None:
            self._refuse_to_replace(present, task, replace=replace or force, force=force)
        is_enabled = present is None or present.is_enabled  # whoever has switched it off has meant the task
        data = encode(render(definition, description=description, is_enabled=is_enabled))
        completed = await to_its_end(self._send(task.name, data, replace=present is not None))
        if completed.returncode != 0:
            if present is None and await self._find(task.name) is not None:
                raise EntryExists(task.name, self._folder)  # since we looked
            raise self._failure(completed, f"to create the task {task.name!r}", task.name)
        entry = await self._find(task.name)
        if entry is None or entry.description != description:
            there = "is not there" if entry is None else f"is described as {entry.description!r}"
            raise SchedulerConflict(f"the task {task.name!r} was made and now {there}", "look at it, and try again")
        return entry

    async def create_daily(
        self,
        name: str,
        argv: Sequence[str],
        *,
        at: str | time | Sequence[str | time],
        every: int = 1,
        start: date | str | None = None,
        replace: bool = False,
        **options: Any,
    ) -> TaskEntry:
        """Make a task that runs at a time of day, or several, on the machine's clock.

        Args:
            name: As for `ScheduledTask`.
            argv: The full path of a program, and its arguments.
            at: "03:30", "03:30:15", a time, or several of them.
            every: 1: each day; up to 365: so many days apart, counted from `start`.
            start: The first day that counts, as a date or "YYYY-MM-DD"; None: 2026-01-01.
            replace: Whether a task of ours with this name is replaced.
            **options: Those of `ScheduledTask`.

        Raises:
            As `create` does; InvalidOption: `at` is no time of day.
        """
        return await self._create_calendar(name, argv, at, ByDay(every), start, replace, options)

    async def create_weekly(
        self,
        name: str,
        argv: Sequence[str],
        *,
        days: str | Sequence[str],
        at: str | time | Sequence[str | time],
        every: int = 1,
        start: date | str | None = None,
        replace: bool = False,
        **options: Any,
    ) -> TaskEntry:
        """Make a task that runs on some weekdays ("mon", "friday"), each week or up to 52 weeks apart.

        The other arguments are those of `create_daily`; weeks are counted from that of `start`.
        """
        week = ByWeek(read_weekdays(days), every)
        return await self._create_calendar(name, argv, at, week, start, replace, options)

    async def create_monthly(
        self,
        name: str,
        argv: Sequence[str],
        *,
        at: str | time | Sequence[str | time],
        days: int | Last | Sequence[int | Last] | None = None,
        weeks: int | Last | Sequence[int | Last] | None = None,
        weekdays: str | Sequence[str] | None = None,
        months: int | Sequence[int] | None = None,
        replace: bool = False,
        **options: Any,
    ) -> TaskEntry:
        """Make a task that runs on some days of a month.

        Args:
            name: As for `ScheduledTask`.
            argv: The full path of a program, and its arguments.
            at: As for `create_daily`.
            days: 1 to 31 and "last"; or, instead:
            weeks: 1 to 4 and "last", together with
            weekdays: such as "mon".
            months: 1 to 12; None: all.
            replace: Whether a task of ours with this name is replaced.
            **options: Those of `ScheduledTask`.

        Raises:
            As `create` does; InvalidOption: Neither or both kinds of days are given.
        """
        listed = tuple(range(1, 13)) if months is None else as_tuple(months)
        if days is not None and weeks is None and weekdays is None:
            chosen: Days = ByMonth(as_tuple(days), listed)
        elif days is None and weeks is not None and weekdays is not None:
            chosen = ByMonthWeekday(as_tuple(weeks), read_weekdays(weekdays), listed)
        else:
            got = {"days": days, "weeks": weeks, "weekdays": weekdays}
            raise InvalidOption("days", "given alone, or weeks= and weekdays= instead of it", got)
        return await self._create_calendar(name, argv, at, chosen, None, replace, options)

    async def create_every(
        self,
        name: str,
        argv: Sequence[str],
        period: str | float | timedelta,
        *,
        anchor: datetime | None = None,
        replace: bool = False,
        **options: Any,
    ) -> TaskEntry:
        """Make a task that runs after whole minutes of elapsed time again and again, 1 minute to 31 days.

        The grid is that of `Every`: `anchor` lies on it, or the Unix epoch. The other arguments are those of
        `create_daily`.
        """
        task = ScheduledTask(name, argv, Every(period, anchor=anchor), **options)
        return await self.create(task, replace=replace)

    async def delete(self, name: str) -> None:
        """Remove a task that tickwork made, changed by somebody or not.

        Raises:
            EntryNotFound: There is none.
            ForeignEntry: It was made by somebody else.
            SystemSchedulerError: The program is missing, fails, or takes too long.
        """
        entry = await self.get(name)
        if not entry.is_managed:
            raise _foreign(entry)
        await self._change("/delete", name, f"to delete the task {name!r}", "/f")

    async def run(self, name: str) -> None:
        """Start a task now, whoever made it; it is not waited for.

        Raises:
            EntryNotFound: There is none.
            SystemSchedulerError: The program is missing, fails, or takes too long.
        """
        await self._change("/run", check_name(name), f"to run the task {name!r}")

    # --- the schedules of an app ----------------------------------------------------------------------------

    def _render(self, wanted: Sequence[Wanted], owner: Owner) -> Wants:
        return render_wanted(wanted, owner, timezone=self._timezone, now=self._clock.now())

    def _check_place(self, python: str, dir: str) -> None:
        command_line((python,))

    async def _look(self, app_id: str) -> Seen:
        return look(await self.list(), app_id)

    async def _carry_out(self, plan: Plan) -> None:
        app = plan.request.owner.app or ""
        await _in_thread(make_log_folder, plan.request)
        now = check_unchanged(plan, self._planned(plan.request, await self._look(app)))
        tasks = {want.id: want.payload for want in plan.request.wants}
        for step in now.changes:
            if step.kind == "remove":
                await self.delete(rf"{app}\{step.id}")
            else:
                is_there = step.kind == "change"
                await self.create(tasks[step.id], replace=is_there, force=is_there)

    # --- the program --------------------------------------------------------------------------------------

    async def _create_calendar(
        self,
        name: str,
        argv: Sequence[str],
        at: str | time | Sequence[str | time],
        days: Days,
        start: date | str | None,
        replace: bool,
        options: dict[str, Any],
    ) -> TaskEntry:
        first = ANCHOR.date() if start is None else read_day(start, "start")
        when = [CalendarTrigger(datetime.combine(first, moment), days) for moment in read_times(at)]
        return await self.create(ScheduledTask(name, argv, when, **options), replace=replace)

    async def _find(self, name: str) -> TaskEntry | None:
        completed = await self._query("/tn", self._path(name))
        if is_missing(completed):
            return None
        entries = self._entries(completed, self._path(name))
        if len(entries) != 1:
            raise self._unreadable(completed, _NO_XML)
        return entries[0]

    async def _query(self, *chosen: str) -> Completed:
        return await read([*self._command, "/query", *chosen, "/xml", "ONE", "/hresult"], timeout=self._timeout)

    def _entries(self, completed: Completed, path: str | None) -> tuple[TaskEntry, ...]:
        """Return the tasks in an answer; `path` is the one asked for, or None for all."""
        if completed.returncode != 0:
            raise self._failure(completed, "to read tasks", path or self._folder)
        text = decode(completed.stdout, self._codec)
        if not text.strip():
            raise self._unreadable(completed, _NO_XML)
        try:
            found = read_all(text)
        except Unreadable as error:
            raise self._unreadable(completed, str(error)) from error
        return tuple(find_entry(task, path or there or "", self._folder) for there, task in found)

    async def _send(self, name: str, data: bytes, *, replace: bool) -> Completed:
        """Let the program read a definition from a private file, which is gone afterwards."""
        argv = [*self._command, "/create", "/tn", self._path(name)]
        try:
            folder, file = await _in_thread(_keep, data)
        except OSError as error:
            raise SchedulerCommandFailed(tuple(argv), None, note=f"its input cannot be written: {error}") from error
        argv += ["/xml", file, "/hresult"]
        try:
            return await write([*argv, "/f"] if replace else argv, timeout=self._timeout)
        finally:
            await _in_thread(shutil.rmtree, folder, True)

    async def _change(self, verb: str, name: str, action: str, *options: str) -> None:
        argv = [*self._command, verb, "/tn", self._path(name), *options, "/hresult"]
        completed = await write(argv, timeout=self._timeout)
        if is_missing(completed):
            raise await self._not_found(name)
        if completed.returncode != 0:
            raise self._failure(completed, action, name)

    async def _not_found(self, name: str) -> EntryNotFound:
        try:
            known = [entry.name for entry in await self.list()]
        except SystemSchedulerError:
            known = []  # what is wrong with the list is not what was asked
        return EntryNotFound(name, known, self._folder)

    def _path(self, name: str) -> str:
        return f"{self._folder}\\{name}"

    def _failure(self, completed: Completed, action: str, name: str) -> SystemSchedulerError:
        return failure(completed, action, name, where=self._folder, codec=self._codec)

    def _unreadable(self, completed: Completed, note: str) -> SchedulerCommandFailed:
        return SchedulerCommandFailed(
            completed.argv, completed.returncode, completed.stdout, completed.stderr, note=note
        )

    def _refuse_to_replace(self, present: TaskEntry, task: ScheduledTask, *, replace: bool, force: bool) -> None:
        if not present.is_managed:
            raise _foreign(present)
        if not replace:
            raise EntryExists(task.name, self._folder)
        if present.app != task.app:
            owner = "no app" if present.app is None else f"the app {present.app!r}"
            raise ForeignEntry(task.name, f"belongs to {owner}", "take another name, or delete it first")
        if present.is_edited and not force:
            raise ForeignEntry(task.name, "was changed by somebody", "look at it; pass force=True to overwrite it")


def _known_codec(codec: str) -> str:
    try:
        return codecs.lookup(codec).name
    except LookupError:
        raise InvalidOption("codec", 'the name of a code page, such as "cp850"', codec) from None


def _foreign(entry: TaskEntry) -> ForeignEntry:
    reason = f"was not made by tickwork: it is described as {entry.description[:80]!r}"
    return ForeignEntry(entry.name, reason, "take another name, or remove it in Task Scheduler")


async def _in_thread(function: Any, *args: Any) -> Any:
    with outside():
        return await asyncio.to_thread(function, *args)


def _keep(data: bytes) -> tuple[str, str]:
    """Write bytes into a folder that only this user may enter; return the folder and the file."""
    folder = tempfile.mkdtemp(prefix="tickwork-")
    file = os.path.join(folder, "task.xml")
    try:
        with open(file, "xb") as target:
            target.write(data)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder, file


def _system_program() -> str:
    """Return the full path of schtasks.exe: whatever else is on PATH under this name is not it."""
    if sys.platform == "win32":
        import ctypes

        buffer = ctypes.create_unicode_buffer(260)
        ctypes.windll.kernel32.GetSystemDirectoryW(buffer, len(buffer))
        return os.path.join(buffer.value, "schtasks.exe")
    return r"C:\Windows\System32\schtasks.exe"
