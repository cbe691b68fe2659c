"""What stands beside a crontab: the lock of whoever changes it, its last five versions, and the second to change it in.

    ~/.local/state/tickwork/crontab-alice.lock
    ~/.local/state/tickwork/crontab-alice.20261126T154800.123456Z.bak

Two programs that read a crontab, change it and write it back lose each other's changes; cron itself has no lock for
that. This one holds between programs that use tickwork. It is always in the same folder, whatever the environment says:
a job of cron has no XDG_RUNTIME_DIR, and must meet the same lock as a shell that has one.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import tempfile
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..clock import outside
from ..errors import SchedulerDenied, SchedulerTimedOut
from ..shield import to_its_end
from ..stores.filelock import FileLock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime

    from ..clock import Clock

__all__ = ["BACKUPS", "default_folder", "keep_backup", "locked", "open_folder", "seconds_to_wait", "wait"]

BACKUPS = 5
"""How many of the last versions of a crontab are kept."""

_BLIND_FROM, _BLIND_TO = 58.5, 4.0  # seconds of a minute
_POLL_SECONDS = 0.02  # a change takes about 20 ms; with a random part, so that no two wait in step


def default_folder() -> Path:
    """Return the folder for the locks and backups of this user: `~/.local/state/tickwork`, by the account's home."""
    import pwd

    try:
        home = Path(pwd.getpwuid(os.geteuid()).pw_dir)
    except KeyError:  # an account of a container, without a name
        home = Path("/nonexistent")
    if home.is_dir() and os.access(home, os.W_OK):
        return home / ".local" / "state" / "tickwork"
    return Path(tempfile.gettempdir()) / f"tickwork-{os.geteuid()}"


def open_folder(folder: Path) -> Path:
    """Make the folder where it is missing, readable by nobody else, and return it.

    Raises:
        SchedulerDenied: It cannot be made, or is somebody else's.
    """
    remedy = "give the account a home, or pass state= with a folder of its own"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise SchedulerDenied(f"to keep a lock in {str(folder)!r}", error.strerror or str(error), remedy) from None
    if not folder.is_dir() or folder.is_symlink() or status.st_uid != os.geteuid():
        raise SchedulerDenied(f"to keep a lock in {str(folder)!r}", "it is somebody else's, or no folder", remedy)
    if status.st_mode & 0o077:
        folder.chmod(0o700)
    return folder


@asynccontextmanager
async def locked(path: Path, clock: Clock, timeout: float) -> AsyncIterator[int]:
    """Hold the lock in a file, and give its open file. Waiting for it can be cancelled.

    Raises:
        SchedulerTimedOut: Others held it for `timeout` seconds.
    """
    opening = asyncio.ensure_future(asyncio.to_thread(_open_lock, path))
    try:
        with outside():
            lock = await to_its_end(opening)
    except asyncio.CancelledError:
        if opening.done() and not opening.cancelled() and opening.exception() is None:
            opening.result().close()
        raise
    try:
        deadline = clock.monotonic() + timeout
        while not lock.try_acquire():
            if clock.monotonic() >= deadline:
                remedy = f"another program is changing the crontab; `fuser {path}` names it"
                raise SchedulerTimedOut("the wait for the lock of the crontab", timeout, remedy)
            await wait(clock, _POLL_SECONDS * (0.5 + random.random()))
        yield lock.fileno()
    finally:
        lock.close()


def _open_lock(path: Path) -> FileLock:
    try:
        return FileLock(path)
    except OSError as error:
        remedy = "let this user write it, or pass state= with another folder"
        raise SchedulerDenied(f"to open the lock {str(path)!r}", error.strerror or str(error), remedy) from None


async def wait(clock: Clock, seconds: float) -> None:
    """Let time pass on a clock; no time at all for 0."""
    if seconds <= 0:
        return
    woken = asyncio.get_running_loop().create_future()
    timer = clock.call_later(seconds, _wake, woken)
    try:
        await woken
    finally:
        timer.cancel()


def _wake(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)


def seconds_to_wait(now: datetime) -> float:
    """Return for how many seconds no crontab should be written: 0.0, or until four seconds past the minute.

    Semantics:
        Debian's cron compares whole seconds. A crontab that is written in the second in which cron has just looked at
        it (it does at each full minute, for a second or two) is not loaded, not even by the next minute.
    """
    second = now.second + now.microsecond / 1_000_000
    if _BLIND_TO <= second < _BLIND_FROM:
        return 0.0
    return (_BLIND_TO - second) % 60


def keep_backup(folder: Path, name: str, content: bytes, now: datetime) -> Path:
    """Save a version of a crontab, readable by its owner only, and forget all but the last five.

    Raises:
        SchedulerDenied: It could not be written; a full disk, mostly.
    """
    path = folder / f"{name}.{now:%Y%m%dT%H%M%S.%f}Z.bak"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0), 0o600)
        with open(descriptor, "wb") as file:
            file.write(content)
    except OSError as error:
        remedy = "make room there, or pass state= with another folder; nothing was changed"
        raise SchedulerDenied(f"to keep a backup in {str(folder)!r}", error.strerror or str(error), remedy) from None
    pattern = re.compile(re.escape(name) + r"\.[0-9]{8}T[0-9]{6}\.[0-9]{6}Z\.bak")
    others = [entry for entry in folder.iterdir() if pattern.fullmatch(entry.name) and entry != path]
    others.sort(key=lambda entry: entry.stat().st_mtime_ns)
    for old in others[: 1 - BACKUPS]:
        with suppress(FileNotFoundError):
            old.unlink()
    return path
