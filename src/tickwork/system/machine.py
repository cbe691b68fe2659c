"""What this machine says about users, files and its zone. All of it blocks for a moment: call it in a thread."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ..errors import InvalidEntry, InvalidOption, SchedulerDenied
from ..zones import zone_key
from .cron_quote import check_text

__all__ = ["check_files", "check_place", "is_root", "machine_zone", "own_name", "prepare_log", "user_name"]


def machine_zone() -> str | None:
    """Return the IANA key of the zone that cron goes by, or None when it cannot be told."""
    candidates = []
    try:
        link = os.path.realpath("/etc/localtime")
        candidates.append(link.partition("/zoneinfo/")[2].removeprefix("posix/").removeprefix("right/"))
        if not os.path.exists("/etc/localtime"):
            candidates.append("UTC")  # what the C library takes then
        candidates.append(Path("/etc/timezone").read_text(encoding="ascii", errors="replace").strip())
    except OSError:
        pass
    for candidate in candidates:
        try:
            return zone_key(candidate)
        except InvalidOption:
            continue
    return None


def check_files(program: str, script: str, *, is_strict: bool) -> None:
    """Refuse a program and a script that are not there; with `is_strict` also what everybody may write.

    Raises:
        InvalidEntry: One of them is so.
    """
    for part, path in (("python", program), ("script", script)):
        if not os.path.isfile(path):
            raise InvalidEntry(part, path, "there is no such file")
        if is_strict and (writable := _writable_by_all(path)):
            reason = f"everybody may write {writable}, and so say what runs as somebody else; take that right away"
            raise InvalidEntry(part, path, reason)


def check_place(program: str, folder: str, *, is_strict: bool) -> None:
    """Refuse an interpreter that is not there; with `is_strict` also one, and a folder, that everybody may write.

    Raises:
        InvalidEntry: One of them is so.
    """
    check_files(program, program, is_strict=is_strict)
    if not os.access(program, os.X_OK):
        raise InvalidEntry("python", program, "it cannot be started: it is not executable")
    if is_strict and os.stat(folder).st_mode & stat.S_IWOTH:  # with the sticky bit, too: a new module is enough
        reason = "everybody may write there, and so say what runs as somebody else; take that right away"
        raise InvalidEntry("dir", folder, reason)


def _writable_by_all(path: str) -> str | None:
    real = os.path.realpath(path)
    if os.stat(real).st_mode & stat.S_IWOTH:
        return real
    folder = os.path.dirname(real)
    mode = os.stat(folder).st_mode
    return folder if mode & stat.S_IWOTH and not mode & stat.S_ISVTX else None


def prepare_log(path: str) -> None:
    """Make a log file, readable by its owner only, unless it is there.

    Raises:
        InvalidEntry: It cannot be written.
    """
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
    except OSError as error:
        reason = f"it cannot be written, so that the job would not start: {error.strerror or error}"
        raise InvalidEntry("log", path, reason) from None


def is_root() -> bool:
    """Return whether this process may use the crontabs of others."""
    return hasattr(os, "geteuid") and os.geteuid() == 0


def own_name() -> str:
    """Return the name of the account of this process."""
    try:
        import pwd

        return pwd.getpwuid(os.geteuid()).pw_name
    except (ImportError, KeyError):  # Windows; an account of a container, without a name
        return f"uid-{os.geteuid()}" if hasattr(os, "geteuid") else "user"


def user_name(user: str | None) -> str:
    """Return the name of the owner, for the lock and for messages."""
    own = own_name()
    if user is None or user == own:
        return own
    check_text(user, "user")
    import pwd

    if user.startswith("-"):
        raise InvalidEntry("user", user, "it would be taken for an option")
    try:
        pwd.getpwnam(user)
    except KeyError:
        raise InvalidEntry("user", user, "there is no such user on this machine") from None
    if not is_root():
        raise SchedulerDenied(f"to use the crontab of {user!r}", f"this is {own!r}", "only root may; use sudo")
    return user
