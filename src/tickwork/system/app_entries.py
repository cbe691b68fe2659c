"""The schedules of an app as entries of a scheduler of the operating system: what each is called, and what it runs.

    python -m tickwork trigger --dir DIR --log FILE --fire-time auto TARGET SCHEDULE

Paths and names only: arguments and secrets stay in the app. What runs then keeps to the policies of the schedule:
overlap, catch_up, grace, max_runs, and start_at and end_at, outside of which it does nothing. Those that take a process
which lives on are refused here, so that none is left out in silence.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING

from ..errors import InvalidEntry, InvalidOption
from ..triggers import Between
from .crontab_text import ID, check_id

if TYPE_CHECKING:
    from ..app import App
    from ..schedules import Schedule
    from ..triggers import Trigger

__all__ = [
    "Wanted",
    "absolute_target",
    "app_id_of",
    "check_app_id",
    "entry_id",
    "here",
    "interpreter",
    "state_folder",
    "wanted_entries",
]

_RESERVED = r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?"  # devices of Windows; ids are the same on all systems
_KEPT = 57  # characters of a name in its id, when it cannot be the id itself; with "-" and 6 digits it has 64


@dataclass(frozen=True, slots=True)
class Wanted:
    """An entry that an app should have.

    Attributes:
        id: What the entry is called.
        name: The name of the schedule.
        task: The name of its task.
        trigger: When it fires, in the zone of the app.
        argv: What it runs.
        refused: Why it cannot be an entry at all; "": nothing is known against it.
    """

    id: str
    name: str
    task: str
    trigger: Trigger
    argv: tuple[str, ...]
    refused: str = ""

    @property
    def about(self) -> str:
        """What the id does not tell: the name of the schedule, or else of its task; "" when it tells both."""
        return next((name for name in (self.name, self.task) if name != self.id), "")


def wanted_entries(app: App, target: str, *, dir: str, log: str | None, python: str) -> list[Wanted]:
    """Return the entries for the schedules of an app, in their order; one that never fires again has none.

    Args:
        app: The app.
        target: What names it on the command line: "billing.jobs:app".
        dir: The folder in which it is imported.
        log: The folder of the logs; None: none.
        python: The interpreter.

    Raises:
        InvalidEntry: Two schedules would get one id.
    """
    found: dict[str, Wanted] = {}
    for schedule in app.schedules.values():
        if _is_over(schedule):
            continue
        id = entry_id(schedule.name)
        if id in found:
            raise InvalidEntry("schedule", schedule.name, f"its id {id!r} is that of {found[id].name!r}; rename one")
        logged = () if log is None else ("--log", _joined(log, f"{id}.log"))
        argv = (
            *(python, "-m", "tickwork", "trigger", "--dir", dir, *logged, "--fire-time", "auto", target),
            schedule.name,
        )
        found[id] = Wanted(id, schedule.name, schedule.task.name, _trigger(schedule), argv, _why_not(schedule))
    return list(found.values())


def _is_over(schedule: Schedule) -> bool:
    try:
        return not schedule.next(1)
    except Exception:  # a trigger of the user's, which cannot be said anyhow
        return False


def _trigger(schedule: Schedule) -> Trigger:
    """Return when a schedule fires, without the bounds that its policies set: what runs keeps to these."""
    trigger, policies = schedule.trigger, schedule.policies
    is_bounded = policies.start_at is not None or policies.end_at is not None
    return trigger.trigger if is_bounded and isinstance(trigger, Between) else trigger


def _why_not(schedule: Schedule) -> str:
    """Return which policy takes a process that lives on, or ""."""
    policies = schedule.policies
    if schedule.name.startswith("-"):
        return "its name would be taken for an option; rename it"
    if policies.after == "end":
        return 'after="end" counts from the end of a run, which only a live app sees; give it times'
    if policies.jitter:
        return "jitter= takes a live app, which draws it; leave it out, and name another minute"
    if policies.first == "now":
        return 'first="now" takes a live app; leave it out, and run it once with `tickwork trigger`'
    return ""


def entry_id(name: str) -> str:
    """Return the id for a name: itself where it can be one, else what is left of it, and a fingerprint of the whole.

    It depends on the name alone, so that it stays when others come and go: `jobs.nightly` stays as it is,
    `jobs.Daily_Report` becomes `jobs.daily_report-8ab3f2`.
    """
    if re.fullmatch(ID, name) and not name.endswith(".") and not re.fullmatch(_RESERVED, name):
        return name
    readable = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._")[:_KEPT].rstrip("-._")
    if re.fullmatch(_RESERVED, readable):
        readable = f"job-{readable}"[:_KEPT]
    digits = sha256(name.encode(errors="surrogatepass")).hexdigest()[:6]
    return f"{readable}-{digits}" if readable else f"job-{digits}"


def app_id_of(target: str) -> str:
    """Return the id of an app that has none: its module, and its name where that is not `app`.

    The folder does not count: another copy of the app is the same app, and is told apart by what the marker says.
    """
    where, colon, name = target.rpartition(":")
    if not colon or not name.isidentifier():  # a colon may belong to a drive
        where, name = target, ""
    module = PureWindowsPath(where).stem if where.endswith(".py") else where
    return entry_id(module if name in ("", "app") else f"{module}.{name}")


def absolute_target(target: object, dir: str) -> str:
    """Return a target whose file, where it is one, is named with its absolute path.

    Raises:
        InvalidOption: It is no text, or empty.
    """
    if not isinstance(target, str) or not target:
        raise InvalidOption("target", 'what `tickwork run` takes, such as "billing.jobs:app"', target)
    where, colon, name = target.rpartition(":")
    if not colon or not name.isidentifier():
        where, colon, name = target, "", ""
    if where.endswith(".py") or os.sep in where or "/" in where:
        return os.path.normpath(os.path.join(dir, where)) + colon + name
    return target


def here(dir: str | os.PathLike[str] | None) -> str:
    """Return the absolute path of a folder; None: that of this process, under the name by which it was entered.

    A link stays a link: `/srv/billing/current` is the same app after the next release.

    Raises:
        InvalidOption: There is no such folder.
    """
    try:
        path = _logical_cwd() if dir is None else os.path.normpath(os.path.join(_logical_cwd(), dir))
    except FileNotFoundError:
        raise InvalidOption("dir", "a folder: the current one has been removed", dir) from None
    if not os.path.isdir(path):
        raise InvalidOption("dir", "a folder", path)
    return path


def _logical_cwd() -> str:
    named, real = os.environ.get("PWD", ""), os.getcwd()
    try:
        return named if os.path.isabs(named) and os.path.samefile(named, real) else real
    except OSError:
        return real


def interpreter(python: str | os.PathLike[str] | None, dir: str) -> str:
    """Return the interpreter that an entry starts; None: this one, in its virtual environment.

    Args:
        python: Its path, as given.
        dir: Where a relative one counts from.

    Raises:
        InvalidOption: None is given, and this process does not know its own.
    """
    found = sys.executable if python is None else os.fspath(python)
    if not found:
        raise InvalidOption("python", "the path of an interpreter: this process does not know its own", python)
    return found if PureWindowsPath(found).is_absolute() else os.path.join(dir, found)


def state_folder(user: str | None = None) -> str:
    """Return where the logs of a user's entries stand, by default.

    Args:
        user: Another user than that of this process (POSIX).
    """
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return str((Path(local) if local else Path.home() / "AppData" / "Local") / "tickwork" / "log")
    if user is not None:
        import pwd

        return os.path.join(pwd.getpwnam(user).pw_dir, ".local", "state", "tickwork", "log")
    from .crontab_lock import default_folder

    return str(default_folder() / "log")


def check_app_id(app_id: object) -> str:
    """Return an app id that is one on all systems.

    Raises:
        InvalidEntry: It is none.
    """
    id = check_id(app_id, "app")
    if entry_id(id) != id:
        raise InvalidEntry("app", id, "Windows could not keep it: it ends with a dot, or is a device")
    return id


def _joined(folder: str, name: str) -> str:
    """Return a path in a folder of the system that the folder is one of: tests plan for Windows elsewhere."""
    separator = "\\" if PureWindowsPath(folder).drive else "/"
    return folder.rstrip("/\\") + separator + name if folder.strip("/\\") else folder + name
