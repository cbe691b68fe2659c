"""Tasks as they are to be made, and as they are found."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import quote, unquote

from ..durations import seconds
from ..errors import InvalidEntry, InvalidOption
from ..options import one_of
from ..triggers import Cron, Trigger
from .task_model import MAX_TRIGGERS, CalendarTrigger, Definition, TaskTrigger, TimeTrigger
from .task_reading import read
from .task_triggers import to_task_triggers
from .task_words import check_directory, check_name, command_line
from .task_xml import fingerprint

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta
    from xml.etree.ElementTree import Element

__all__ = ["ScheduledTask", "TaskEntry", "describe", "find_entry"]

_INSTANCES: Final = {"skip": "IgnoreNew", "queue": "Queue", "replace": "StopExisting", "allow": "Parallel"}
_LOGONS: Final = {"interactive": "InteractiveToken", "s4u": "S4U"}
_APP: Final = r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}"
_MARK: Final = rf"tickwork v1(?: app=({_APP}))? id=(\S+) sha=([0-9a-f]{{12}})(?: dir=(\S+))?(?: target=(\S+))?"
_PLAIN: Final = r"\/:.,;()[]{}@+=~!&'"  # what stands in the description as it is, beside letters and digits


@dataclass(frozen=True, slots=True)
class ScheduledTask:
    r"""A task to be made in Task Scheduler.

    Attributes:
        name: Its name in the folder, such as "report" or `billing\report`: parts of a-z, 0-9, `.`, `_`, `-`.
        argv: The full path of a program, and its arguments, as it shall find them. No shell reads them.
        when: A trigger of tickwork, a cron expression, or triggers of Task Scheduler.
        directory: The working directory, a full path; None: that of Task Scheduler, System32.
        overlap: When it is due while it runs: "skip", "queue" (one waits), "replace", "allow".
        timeout: After how long a run is ended; None: never.
        catch_up: Whether a start that was missed because the machine was off is made up for, once.
        logon: "interactive": runs while the user is logged on. "s4u": always, without a password and without the
            user's network; making it takes an administrator, or the right to log on as a batch job.
        is_elevated: Whether it runs with all rights of the user; making it takes an administrator.
        app: Who owns it, where several apps share a machine: letters, digits and `. _ : -`.
        dir: The folder of that app, to tell it from another one of its name; "": not told. Nothing runs in it.
        target: What the task runs of that app, such as "billing.jobs:app"; "": not told.
    """

    name: str
    argv: Sequence[str]
    when: Trigger | str | Sequence[TaskTrigger]
    directory: str | None = None
    overlap: Literal["skip", "queue", "replace", "allow"] = "skip"
    timeout: str | float | timedelta | None = None
    catch_up: bool = False
    logon: Literal["interactive", "s4u"] = "interactive"
    is_elevated: bool = False
    app: str | None = None
    dir: str = ""
    target: str = ""

    def define(self, *, timezone: str | None = None, now: datetime | None = None) -> Definition:
        """Return what Task Scheduler is to keep.

        Args:
            timezone: The IANA key of the machine's zone, as for `to_task_triggers`.
            now: The present instant.

        Raises:
            InvalidEntry: A part cannot be carried exactly.
            UnsupportedSchedule: The schedule cannot be said exactly.
            InvalidOption: An option has a value that it cannot have.
        """
        check_name(self.name)
        _check_app(self.app)
        for option in ("catch_up", "is_elevated"):
            one_of(option, getattr(self, option), (True, False))
        program, arguments = command_line(self.argv)
        return Definition(
            self._triggers(timezone, now),
            program,
            arguments,
            None if self.directory is None else check_directory(self.directory),
            _INSTANCES[one_of("overlap", self.overlap, tuple(_INSTANCES))],
            self._limit_seconds(),
            self.catch_up,
            logon=_LOGONS[one_of("logon", self.logon, tuple(_LOGONS))],
            run_level="HighestAvailable" if self.is_elevated else "LeastPrivilege",
        )

    def _triggers(self, timezone: str | None, now: datetime | None) -> tuple[TaskTrigger, ...]:
        when: Any = Cron(self.when, name=self.name) if isinstance(self.when, str) else self.when
        if isinstance(when, Trigger):
            return to_task_triggers(when, timezone=timezone, now=now)
        given = tuple(when) if isinstance(when, Iterable) else ()
        if not given or not all(isinstance(trigger, TimeTrigger | CalendarTrigger) for trigger in given):
            raise InvalidEntry("schedule", when, "it must be a trigger, a cron expression, or triggers of a task")
        if len(given) > MAX_TRIGGERS:
            raise InvalidEntry("schedule", when, f"it has {len(given)} triggers, and {MAX_TRIGGERS} are allowed")
        return given

    def _limit_seconds(self) -> int:
        limit = 0.0 if self.timeout is None else seconds(self.timeout, "timeout", minimum=1)
        if limit % 1:
            raise InvalidOption("timeout", "whole seconds", self.timeout)
        return int(limit)


def _check_app(app: object) -> None:
    if app is not None and not (isinstance(app, str) and re.fullmatch(_APP, app)):
        raise InvalidEntry("app", app, "it must begin with a letter or digit and go on with these and . _ : -")


@dataclass(frozen=True, slots=True)
class TaskEntry:
    """A task that Task Scheduler has.

    Attributes:
        path: Its folder and name, with the first backslash.
        name: Its name below the folder that was asked for; "" for a task outside of it.
        is_managed: Whether tickwork made it: the description says so, and names this name.
        is_edited: Whether it was made by tickwork and changed by somebody else since. Switched off is not changed.
        is_enabled: Whether it starts when it is due.
        app: Who owns it, or None.
        dir: The folder of that app, or "".
        target: What it runs of that app, or "".
        sha: Twelve characters of the definition it was made with, or "".
        description: As it is.
        definition: What it does and when; None where it holds what tickwork never writes.
    """

    path: str
    name: str
    is_managed: bool
    is_edited: bool
    is_enabled: bool
    app: str | None
    dir: str
    target: str
    sha: str
    description: str
    definition: Definition | None


def describe(task: ScheduledTask, definition: Definition) -> str:
    """Return the description that tells whose task it is: `tickwork v1 app=billing id=report sha=3b1f0c9d2e44`.

    A folder and a target follow where they are told, in ASCII: what is beyond may come back as question marks.
    """
    owner = "" if task.app is None else f" app={task.app}"
    place = "".join(
        f" {key}={quote(value, _PLAIN, errors='surrogatepass')}"
        for key, value in (("dir", task.dir), ("target", task.target))
        if value
    )
    return f"tickwork v1{owner} id={task.name} sha={fingerprint(definition)}{place}"


def find_entry(task: Element, path: str, folder: str) -> TaskEntry:
    """Return what an element of `read_all` tells of the task at a path."""
    description, is_enabled, definition = read(task)
    inside = path.lower().startswith(folder.lower() + "\\")
    name = path[len(folder) + 1 :] if inside else ""
    mark = re.fullmatch(_MARK, description)
    is_managed = mark is not None and mark[2] == name.lower()
    app, sha, place = (
        (mark[1], mark[3], mark.groups("")[3:]) if mark is not None and is_managed else (None, "", ("", ""))
    )
    is_edited = is_managed and (definition is None or fingerprint(definition) != sha)
    folder_of_app, target = (unquote(text, errors="surrogatepass") for text in place)
    return TaskEntry(
        path, name, is_managed, is_edited, is_enabled, app, folder_of_app, target, sha, description, definition
    )
