"""Whose turn it is: the overlap policy between processes that keep nothing in a store.

    ~/.local/state/tickwork/runs/nightly-5cbb5a8c7d1e0f32.json    the note, see turn_note
                                 nightly-5cbb5a8c7d1e0f32.lock    held while the note is read and written
                                 nightly-5cbb5a8c7d1e0f32.run     held by the process that runs, until it is gone
                                 nightly-5cbb5a8c7d1e0f32.next    held by the one that waits for its turn

The locks are the system's: gone with the process, however it ends. A process takes `.run` or `.next` only while it
holds `.lock`, and writes its id into the note before it lets go of that. So whoever holds `.lock` and finds `.run`
taken reads the id of the process that holds it, and of no other that was given the same id since.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..errors import SchedulerDenied, SchedulerTimedOut
from ..stores.filelock import FileLock
from .turn_note import Holder, Note, read_note, write_note

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from ..clock import Clock
    from ..occasion import Refusal
    from ..policies import Due, OverlapPolicy
    from ..stores.base import ScheduleRow

__all__ = ["Turn", "Turns", "state_folder"]

logger: logging.Logger = logging.getLogger("tickwork.trigger")

LOCK_SECONDS = 10.0
"""How long others may hold the lock of the note: they need a millisecond, unless somebody has stopped one of them."""
MAX_POLL_SECONDS = 1.0
"""How often who waits for its turn looks, in the end: a run that is waited for takes seconds to hours."""

TurnOutcome = Literal["ran", "skipped", "merged", "missed", "replaced"]


def state_folder() -> Path:
    """Return where this user's notes are kept unless told otherwise: beside the locks of crontabs."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home()) / "tickwork" / "runs"
    from .crontab_lock import default_folder, open_folder

    return open_folder(default_folder()) / "runs"


@dataclass(slots=True)
class Turn:
    """What a process may do about its fire time.

    Attributes:
        outcome: "ran": it is this one's turn; else why nothing is to be run.
        due: What was decided, where anything was.
        other: The process that is in the way, or that has answered the fire time before.
        said: What became of it there.
    """

    outcome: TurnOutcome | Refusal
    due: Due | None = None
    other: Holder | None = None
    said: str = ""


class Turns:
    """The locks and the note of one schedule of one app.

    Args:
        folder: Where they are; it is made where it is missing, for this user only.
        target: What tells the app from others.
        schedule: The name of the schedule.
        clock: Tells the time.

    Raises:
        SchedulerDenied: The folder or the files cannot be made.
    """

    def __init__(self, folder: Path, target: str, schedule: str, clock: Clock) -> None:
        _make(folder)
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", schedule)[:40].strip("-.") or "schedule"
        told_apart = sha256(f"{target}\0{schedule}".encode(errors="surrogateescape")).hexdigest()
        stem = f"{name}-{told_apart[:16]}"
        self._schedule = schedule
        self._clock = clock
        self._note = folder / f"{stem}.json"
        try:
            self._lock = FileLock(folder / f"{stem}.lock")
            self._run = FileLock(folder / f"{stem}.run")
            self._next = FileLock(folder / f"{stem}.next")
        except OSError as error:
            raise _denied(folder, error) from None

    def take(
        self,
        fire_time: datetime,
        fingerprint: str,
        overlap: OverlapPolicy,
        decide: Callable[[ScheduleRow, bool, datetime], Due | Refusal],
    ) -> Turn:
        """Answer a fire time, and wait for the turn of this process where it is to have one.

        With "queue", one process waits; with "replace", the one that runs is asked to end, as by SIGTERM, and this one
        waits until it has. What holds the turn is let go of by `leave`, or by the end of the process.

        Args:
            fire_time: The one that this process was started for.
            fingerprint: Of the schedule's trigger.
            overlap: The schedule's policy.
            decide: Called with what is known of the schedule, with whether the fire time is answered, and with the
                time.

        Raises:
            SchedulerTimedOut: Somebody holds the lock of the note for ten seconds.
        """
        with self._held():
            now = self._clock.now()
            note = self._read(fingerprint, now)
            found = decide(note.row(), note.is_answered(fire_time), now)
            if isinstance(found, str):
                self._write(note)  # from now on the schedule is known
                return Turn(found, other=note.last, said=note.said)
            me = Holder(os.getpid(), _place(), now, fire_time)
            turn = self._answer(note, found, overlap, me)
            note.answered, note.said, note.last = found.watermark, turn.outcome, me
            note.runs += len(found.runs) if turn.outcome == "ran" else 0
            self._write(note)
        if turn.outcome == "ran" and overlap in ("queue", "replace") and note.running is not me:
            return self._wait(turn, me, is_next=note.waiting is me, replaces=overlap == "replace")
        return turn

    def _answer(self, note: Note, found: Due, overlap: OverlapPolicy, me: Holder) -> Turn:
        """Decide what becomes of a fire time, and take what is free; the caller writes the note."""
        if not found.runs:
            return Turn("missed", found)
        if overlap == "allow":
            return Turn("ran", found)
        if overlap == "queue" and not _is_free(self._next):  # it goes first, also when the last run has just ended
            return Turn("merged", found, note.waiting)
        if self._run.try_acquire():
            note.running = me
            return Turn("ran", found)
        if overlap == "skip":
            return Turn("skipped", found, note.running)
        if self._next.try_acquire():
            note.waiting = me
        return Turn("ran", found, note.running)

    def _wait(self, turn: Turn, me: Holder, *, is_next: bool, replaces: bool) -> Turn:
        """Wait until nobody runs any more, and take the turn; `is_next` says whether this holds `.next`."""
        if turn.other is not None:
            what = "is asked to end" if replaces else "runs"
            logger.info("schedule %s waits until pid %d has ended, which %s", self._schedule, turn.other.pid, what)
        pause = 0.02
        while True:
            with self._held():
                note = self._read(None, self._clock.now())
                is_next = is_next or self._next.try_acquire()
                if is_next and (note.waiting is None or (note.waiting.pid, note.waiting.since) != (me.pid, me.since)):
                    note.waiting = me  # the note may have been lost
                if is_next and self._run.try_acquire():
                    note.running, note.waiting = me, None
                    self._write(note)
                    self._next.release()
                    return turn
                if replaces:
                    newer = self._end(note.running, self._run, me)
                    if not is_next:
                        newer = self._end(note.waiting, self._next, me) or newer
                    if newer is not None:
                        return Turn("replaced", turn.due, newer)
                self._write(note)
            time.sleep(pause)
            pause = min(pause * 1.5, MAX_POLL_SECONDS)

    def _end(self, other: Holder | None, lock: FileLock, me: Holder) -> Holder | None:
        """Ask the process that holds a lock to end, once; return it instead when it came later than this one."""
        if other is None or other.pid == me.pid:
            return None
        if other.fire_time > me.fire_time:
            return None if _is_free(lock) else other
        if other.is_told:
            return None
        other.is_told = True
        if other.place != me.place:
            logger.warning(
                "pid %d, which is to be replaced, runs in %s, where this process cannot end it: it is waited for",
                other.pid,
                other.place,
            )
            return None
        _terminate(other.pid, lock)
        return None

    def leave(self, said: str) -> None:
        """Say what became of the run, and let the next process have its turn."""
        with suppress(SchedulerTimedOut), self._held():  # the end of the process lets go of it all the same
            note = read_note(self._note)
            if note is not None:
                if note.last is not None and note.last.pid == os.getpid():
                    note.said = said
                if note.running is not None and note.running.pid == os.getpid():
                    note.running = None
                self._write(note)
        for lock in (self._run, self._next, self._lock):
            lock.close()

    # -- the note, under its lock -----------------------------------------------------------------------------------

    @contextmanager
    def _held(self) -> Iterator[None]:
        deadline = self._clock.monotonic() + LOCK_SECONDS
        while not self._lock.try_acquire():
            if self._clock.monotonic() >= deadline:
                remedy = f"`fuser {self._lock.path}` names who holds it"
                raise SchedulerTimedOut(f"the wait for the lock of schedule {self._schedule!r}", LOCK_SECONDS, remedy)
            time.sleep(0.005)
        try:
            yield
        finally:
            self._lock.release()

    def _read(self, fingerprint: str | None, now: datetime) -> Note:
        note = read_note(self._note)
        if note is None:
            return Note(self._schedule, fingerprint or "", now)
        if fingerprint is not None and note.fingerprint != fingerprint:
            note.fingerprint, note.declared_at = fingerprint, now
        return note

    def _write(self, note: Note) -> None:
        write_note(self._note, note)


def _terminate(pid: int, lock: FileLock) -> None:
    """Send SIGTERM to the process that holds a lock, and to no other that may get its id in this moment."""
    try:
        if sys.platform == "linux":
            handle = os.pidfd_open(pid)
            try:
                if not _is_free(lock):  # so it lived when the handle was made
                    signal.pidfd_send_signal(handle, signal.SIGTERM)
            finally:
                os.close(handle)
        elif not _is_free(lock):
            os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        pass  # it has ended by itself
    except OSError as error:
        logger.warning("pid %d, which is to be replaced, cannot be asked to end: %s", pid, error)


def _is_free(lock: FileLock) -> bool:
    """Return whether nobody holds a lock; the caller does not."""
    if not lock.try_acquire():
        return False
    lock.release()
    return True


def _place() -> str:
    """Return a text that is the same for all processes which see this one under its id."""
    namespace = ""
    with suppress(OSError):
        namespace = f" {os.readlink('/proc/self/ns/pid')}"
    return f"{socket.gethostname()}{namespace}"


def _make(folder: Path) -> None:
    if os.name == "posix":
        from .crontab_lock import open_folder

        open_folder(folder)
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _denied(folder, error) from None


def _denied(folder: Path, error: OSError) -> SchedulerDenied:
    remedy = "name another folder with --state"
    return SchedulerDenied(f"to keep a lock in {str(folder)!r}", error.strerror or str(error), remedy)
