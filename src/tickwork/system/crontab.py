"""Crontabs of this machine: read, and changed so that neither a stranger's line nor a change of somebody else is lost.

    under a lock:   read ──► change ──► back up ──► read again ──► write ──► read back and compare
                             (pure)                 (the same?)    (never in the blind seconds of cron)

The last two steps go on to their end when the caller is cancelled. A killed process changes nothing or everything: what
`crontab -` reads is complete before it starts, and the lock stays with it until it has ended.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from ..clock import Clock, outside, running_clock
from ..durations import seconds
from ..errors import (
    CrontabCorrupt,
    EntryExists,
    EntryNotFound,
    ForeignEntry,
    InvalidEntry,
    InvalidOption,
    SchedulerCommandFailed,
    SchedulerConflict,
    SchedulerDenied,
)
from ..shield import to_its_end
from .app_sync import AppSync, Seen, check_unchanged, make_log_folder
from .command import Completed, read, write
from .cron_daemon import NO_DAEMON, may_lack_daemon
from .cron_entry import CronEntry
from .cron_sync import change_table, look, render
from .crontab_lock import default_folder, keep_backup, locked, open_folder, seconds_to_wait, wait
from .crontab_text import NO_APP, CronLine, Owner, Table, check_id
from .machine import check_files, check_place, is_root, machine_zone, own_name, prepare_log, user_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..triggers import Trigger
    from .app_entries import Wanted
    from .sync import Plan, Want

__all__ = ["Crontab"]

logger: logging.Logger = logging.getLogger("tickwork.system")

Wants: TypeAlias = "list[Want]"
Lines: TypeAlias = list[CronLine]  # inside of a class with a method `list`, the word means that

_WRITE_SECONDS = 10.0
"""A write has this long, cancelled or not; Debian's takes 13 ms for the largest crontab it accepts."""

_ATTEMPTS = 3
"""How often a change is made again when a program without the lock was in between."""

_NONE_YET = re.compile(rb"no crontab for |can't open '[^']*': No such file")
_DENIED = re.compile(rb"not allowed|must be privileged|Operation not permitted|[Pp]ermission denied|not authorized")


class Crontab(AppSync):
    """The crontab of a user: jobs of everybody are listed, and those of ours are added and removed by their ids.

    Args:
        user: The owner; None: the user of this process. Another one needs root.
        command: The program, with leading arguments where it needs some: ("busybox", "crontab").
        timeout: The most that reading, or waiting for the lock, may take: seconds, or "10s".
        state: The folder for the lock and the backups; None: `~/.local/state/tickwork`.
        clock: What tells the time; None: that of the running loop.

    Semantics:
        Any number of tasks, threads and processes may use crontabs at the same time: they share a lock. A cancelled
        change has been made as a whole, or not at all.

    Raises:
        InvalidEntry: `user` is no user of this machine.
        SchedulerDenied: `user` is another one, and this is not root.
    """

    def __init__(
        self,
        user: str | None = None,
        command: Sequence[str] = ("crontab",),
        timeout: float | str = 10,
        *,
        state: str | os.PathLike[str] | None = None,
        clock: Clock | None = None,
    ) -> None:
        if isinstance(command, str) or not command:
            raise InvalidOption("command", 'a list of words such as ("crontab",)', command)
        self.user: str | None = user
        self.timeout: float = seconds(timeout, "timeout")
        self._name = user_name(user)
        self._is_other = self._name != own_name()
        self._argv = (*command, *(("-u", self._name) if self._is_other else ()))
        self._state = None if state is None else Path(state)
        self._clock = clock
        self._has_looked = False
        """Whether it has been seen that a daemon runs."""

    _noun = "lines"

    def __repr__(self) -> str:
        return f"Crontab(user={self.user!r})"

    @property
    def where(self) -> str:
        """Whose it is, for messages: "the crontab of alice"."""
        return f"the crontab of {self._name}"

    @property
    def other_user(self) -> str | None:
        """The owner, where that is another one than the user of this process."""
        return self._name if self._is_other else None

    async def list(self) -> Lines:
        """Return all jobs, from the top of the file: ours, and everybody else's.

        Raises:
            CrontabCorrupt: Markers of ours do not balance.
            SchedulerNotFound, SchedulerDenied, SchedulerTimedOut, SchedulerCommandFailed: It could not be read.
        """
        return (await self.table()).lines()

    async def get(self, id: str, *, app: str | None = None) -> CronLine:
        """Return the entry with exactly this id.

        Raises:
            EntryNotFound: There is none.
            Exception: As for `list`.
        """
        table = await self.table()
        found = table.get(check_id(id), app)
        if found is None:
            raise EntryNotFound(id, table.ids(app), self.where)
        return found

    async def add(
        self, entry: CronEntry, replace: bool = False, *, force: bool = False, owner: Owner = NO_APP
    ) -> CronLine:
        """Put an entry into the crontab, and return how it stands there.

        The log file is made where it is missing, readable by its owner only; cron would let everybody read it. Where
        no cron daemon runs, the log says so.

        Args:
            entry: The job.
            replace: Whether it may take the place of the one with its id.
            force: With `replace`: also when that one has been edited by hand, or its block is that of another folder.
            owner: The app in whose block it stands.

        Raises:
            EntryExists: The id is taken, and `replace` is not given.
            ForeignEntry: The one with the id has been edited by hand, or belongs to another folder.
            InvalidEntry: The log cannot be written.
            UnsupportedSchedule: The trigger cannot be said exactly in a crontab of this machine.
            SchedulerConflict: A program without the lock kept changing the crontab.
            Exception: As for `list`.
        """
        if not isinstance(entry, CronEntry):
            raise InvalidOption("entry", "a CronEntry", entry)
        with outside():
            zone = await asyncio.to_thread(machine_zone)
            line = entry.line(zone)
            if entry.log is not None and not self._is_other:
                await asyncio.to_thread(prepare_log, entry.log)

        def change(table: Table) -> Table:
            self._check_owner(table, entry.id, owner, force=force)
            if (there := table.get(entry.id, owner.app)) is not None:
                if not replace:
                    raise EntryExists(entry.id, self.where)
                _check_unedited(there, force=force)
            return table.put(entry.id, line, owner)

        def is_done(table: Table) -> bool:
            there = table.get(entry.id, owner.app)
            return there is not None and there.raw == line and not there.is_edited

        table = await self.edit(change, is_done)
        await self._warn()
        found = table.get(entry.id, owner.app)
        assert found is not None
        return found

    async def create_python(
        self,
        script: str | os.PathLike[str],
        args: Sequence[str | os.PathLike[str]] = (),
        log: str | os.PathLike[str] | None = None,
        *,
        schedule: str | Trigger,
        id: str,
        python: str | os.PathLike[str] | None = None,
        replace: bool = False,
        force: bool = False,
    ) -> CronLine:
        """Let cron run a Python script, and return how the entry stands in the crontab.

        Args:
            script: Its path; a relative one counts from the current folder. The job itself starts in the home folder.
            args: Its arguments; each arrives in `sys.argv` as it is.
            log: What its standard output and error are appended to; a relative path counts from the current folder.
            schedule: As in `CronEntry`.
            id: As in `CronEntry`.
            python: The interpreter; None: this one, in its virtual environment.
            replace: As in `add`.
            force: As in `add`.

        Raises:
            InvalidEntry: There is no such script or interpreter; or everybody may write one of them, and it is to run
                as root or as another user.
            Exception: As for `add`.
        """
        if isinstance(args, str | bytes):
            raise InvalidEntry("args", args, "it must be a list of the arguments, one by one")
        with outside():
            here = await asyncio.to_thread(Path.cwd)
            program, path = str(here / (sys.executable if python is None else python)), str(here / script)
            entry = CronEntry(id, schedule, [program, path, *args], None if log is None else here / log)
            await asyncio.to_thread(check_files, program, path, is_strict=is_root() or self._is_other)
        return await self.add(entry, replace, force=force)

    async def remove(self, id: str, *, app: str | None = None, force: bool = False) -> CronLine:
        """Take the entry with exactly this id out of the crontab, and return what it was.

        Args:
            id: The id.
            app: The app in whose block it stands; None: it was added without one.
            force: Also when it has been edited by hand.

        Raises:
            EntryNotFound: There is none.
            ForeignEntry: It has been edited by hand.
            SchedulerConflict: A program without the lock kept changing the crontab.
            Exception: As for `list`.
        """
        check_id(id)
        was: CronLine | None = None

        def change(table: Table) -> Table:
            nonlocal was
            was = table.get(id, app)
            if was is None:
                raise EntryNotFound(id, table.ids(app), self.where)
            _check_unedited(was, force=force)
            return table.drop(id, app)

        await self.edit(change, lambda table: table.get(id, app) is None)
        assert was is not None
        return was

    async def remove_matching(self, pattern: str | re.Pattern[str], dry_run: bool = True) -> Lines:
        """Take all jobs out whose line holds a pattern, strangers' too, and return them.

        Args:
            pattern: A regular expression, looked for anywhere in the line (`re.search`).
            dry_run: Only return what would be taken out.

        Raises:
            InvalidEntry: The pattern is empty or cannot be read.
            Exception: As for `remove`.
        """
        looked_for = _pattern(pattern)

        def find(table: Table) -> Lines:
            return [line for line in table.lines() if looked_for.search(os.fsdecode(line.raw))]

        if dry_run:
            return find(await self.table())
        found: Lines = []

        def change(table: Table) -> Table:
            found[:] = find(table)
            return table.drop_lines([line.line_no for line in found])

        await self.edit(change, lambda table: not find(table))
        return found

    # --- the schedules of an app -----------------------------------------------------------------------------------

    def _render(self, wanted: Sequence[Wanted], owner: Owner) -> Wants:
        return render(wanted, machine_zone())

    def _check_place(self, python: str, dir: str) -> None:
        check_place(python, dir, is_strict=is_root() or self._is_other)

    async def _look(self, app_id: str) -> Seen:
        return look(await self.table(), app_id)

    async def _carry_out(self, plan: Plan) -> None:
        app = plan.request.owner.app or ""
        with outside():
            await asyncio.to_thread(make_log_folder, plan.request, self.other_user)

        def change(table: Table) -> Table:
            return change_table(table, check_unchanged(plan, self._planned(plan.request, look(table, app))))

        await self.edit(change, lambda table: not self._planned(plan.request, look(table, app)).changes)

    @property
    def _log_user(self) -> str | None:
        return self.other_user

    async def _warn(self) -> None:
        """Say in the log that no cron daemon runs; what is there has been looked at once."""
        if self._has_looked:
            return
        self._has_looked = True
        with outside():
            if await asyncio.to_thread(may_lack_daemon):
                logger.warning("%s", NO_DAEMON)

    # --- reading and writing ---------------------------------------------------------------------------------------

    async def table(self) -> Table:
        """Return the whole crontab; an empty one where there is none.

        Raises:
            Exception: As for `list`.
        """
        return Table(await self._read() or b"")

    async def edit(self, change: Callable[[Table], Table], is_done: Callable[[Table], bool] | None = None) -> Table:
        """Change the crontab as a whole, and return what it is then.

        Args:
            change: Makes the new table of the one that is there. It is called again when somebody else was in between;
                what it raises is raised here, and nothing is changed.
            is_done: Says of a table that it has what was wanted, for the case that another program, without the lock,
                has changed it since.

        Raises:
            SchedulerConflict: A program without the lock kept changing the crontab.
            Exception: As for `list`, and what `change` raises.
        """
        clock = self._clock or running_clock()
        with outside():
            folder = await asyncio.to_thread(lambda: open_folder(self._state or default_folder()))
        path = folder / f"crontab-{self._name}.lock"
        attempts = 0
        while attempts < _ATTEMPTS:
            await wait(clock, seconds_to_wait(clock.now()))  # before the lock, which is not to be held for seconds
            async with locked(path, clock, self.timeout) as holding:
                if seconds_to_wait(clock.now()):
                    continue  # the wait for the lock took that long
                done = await self._edit_once(change, is_done, path, clock, holding)
            if done is not None:
                return done
            attempts += 1
        what = f"{self.where} was changed by another program in each of {_ATTEMPTS} attempts"
        raise SchedulerConflict(what, f"end that program; the last versions are in {folder}")

    async def _edit_once(
        self,
        change: Callable[[Table], Table],
        is_done: Callable[[Table], bool] | None,
        path: Path,
        clock: Clock,
        holding: int,
    ) -> Table | None:
        """Return the table that is there when the change has been made, or None when somebody was in between."""
        before = await self._read()
        table = Table(before or b"")
        _check_readable(table)
        after = change(table)
        content = after.render()
        if content == table.render():
            return after
        with outside():
            if before:
                await asyncio.to_thread(keep_backup, path.parent, path.stem, before, clock.now())
        if await self._read() != before:
            return None

        async def to_the_end() -> bytes:
            await self._write(content, holding)
            return await self._read() or b""

        back = await to_its_end(to_the_end())
        if back == content:
            return after
        there = Table(back)
        return there if is_done is not None and is_done(there) else None

    async def _read(self) -> bytes | None:
        """Return the bytes of the crontab, or None where there is none."""
        done = await read([*self._argv, "-l"], timeout=self.timeout)
        if done.returncode == 0:
            return done.stdout
        if not done.stdout and _NONE_YET.search(done.stderr):
            return None
        raise self._failed(done, f"to read {self.where}")

    async def _write(self, content: bytes, holding: int) -> None:
        if content:
            done = await write([*self._argv, "-"], stdin=content, timeout=_WRITE_SECONDS, holding=[holding])
        else:  # an empty one is not written: `crontab -` could not tell it from one whose writer has died
            done = await write([*self._argv, "-r"], timeout=_WRITE_SECONDS, holding=[holding])
        if done.returncode != 0:
            raise self._failed(done, f"to write {self.where}")

    def _failed(self, done: Completed, action: str) -> SchedulerDenied | SchedulerCommandFailed:
        if _DENIED.search(done.stderr):
            remedy = "see cron.allow and cron.deny, and crontab(1); on macOS give the program Full Disk Access"
            return SchedulerDenied(action, done.complaint, remedy)
        return done.failed()

    def _check_owner(self, table: Table, id: str, owner: Owner, *, force: bool) -> None:
        for there in table.owners:
            if there.app == owner.app and there.dir != owner.dir and not force:
                reason = f"belongs to the app {owner.app!r} of {there.dir or 'no folder'!r}, not of {owner.dir!r}"
                raise ForeignEntry(id, reason, "give one of them another app id, or pass force=True")


def _check_unedited(there: CronLine, *, force: bool) -> None:
    if there.is_edited and not force:
        reason = f"was edited by hand; line {there.line_no} is {os.fsdecode(there.raw)!r}"
        raise ForeignEntry(there.id or "", reason, "see whether the edit is still wanted, and pass force=True")


def _check_readable(table: Table) -> None:
    number = table.hidden_return()
    if number is not None:
        reason = r"it ends in \r, as Debian shows a carriage return, which would be written back as two characters"
        raise CrontabCorrupt(number, reason)


def _pattern(pattern: str | re.Pattern[str]) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except (re.error, TypeError) as error:
        raise InvalidEntry("pattern", pattern, f"it is no regular expression: {error}") from None
    text: object = compiled.pattern
    if not isinstance(text, str) or not text:
        raise InvalidEntry("pattern", pattern, "it must be a text that is not empty: an empty one is in every line")
    return compiled
