"""Which worker processes live: on one machine, whether their process is there; elsewhere, whether they say so in time.

A worker writes down with its process id when the system says that its process began, for ids are given out again, and
what machine it is on. Processes in containers with ids of their own are on machines of their own.
"""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from .._version import __version__
from ..errors import StoreUnavailable
from .instants import us

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from .postgres_link import Link

BORN_SECONDS = 1.0
"""Two readings of one process's birth differ by less."""


@cache
def machine() -> str:
    """Return what is the same for all processes that can look for each other's ids, until the machine starts anew."""
    parts = [platform.node()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def is_gone(pid: int, born_at: float | None) -> bool:
    """Return whether a process on this machine has ended."""
    try:
        process = psutil.Process(pid)
        is_same = born_at is None or abs(process.create_time() - born_at) < BORN_SECONDS
        return not is_same or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:  # of another user, say: its lease tells
        return False


class Presence:
    """The worker processes of a store.

    Args:
        worker: The name of this one.
        where: The store, for people.
    """

    def __init__(self, worker: str, where: str) -> None:
        self._worker = worker
        self._where = where

    def announce(self, db: Link, now: datetime, lives_until: datetime) -> None:
        """Write down that this worker lives.

        Raises:
            StoreUnavailable: A process that lives has this name already.
        """
        born_at = psutil.Process().create_time()
        mine = machine(), os.getpid(), born_at
        done = db.one(
            """
            INSERT INTO workers (name, host, machine, pid, born_at, started_at, beat_at, lives_until, version)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO NOTHING RETURNING true
            """,
            (self._worker, platform.node(), *mine, us(now), us(now), us(lives_until), __version__),
        )
        if done is not None:
            return
        found = db.one(
            "SELECT machine, pid, born_at, lives_until FROM workers WHERE name = ? FOR UPDATE", (self._worker,)
        )
        if found is not None and found[3] > us(now) and not (found[0] == machine() and is_gone(found[1], found[2])):
            reason = f"another process works on it as {self._worker!r}"
            raise StoreUnavailable(self._where, reason, "give every worker a name of its own")
        db.execute(
            """
            UPDATE workers SET host = ?, machine = ?, pid = ?, born_at = ?, started_at = ?, beat_at = ?,
                lives_until = ?, tasks = '{}', version = ?, queues = NULL, vitals = NULL
            WHERE name = ?
            """,
            (platform.node(), *mine, us(now), us(now), us(lives_until), __version__, self._worker),
        )

    def dead(self, db: Link, now: datetime, among: Iterable[str]) -> list[str]:
        """Return which of these workers are gone, or have not said in time that they live."""
        wanted = [name for name in among if name != self._worker]
        if not wanted:
            return []
        found = db.all(
            "SELECT name, machine, pid, born_at, lives_until FROM workers WHERE name = ANY(%b::text[])", (wanted,)
        )
        living = {
            name
            for name, place, pid, born_at, lives_until in found
            if lives_until > us(now) and not (place == machine() and is_gone(pid, born_at))
        }
        return [name for name in wanted if name not in living]

    def gone(self, db: Link, among: Iterable[str]) -> list[str]:
        """Return which of these workers are known to be gone: those of this machine, and those that have left."""
        wanted = [name for name in among if name != self._worker]
        if not wanted:
            return []
        found = db.all("SELECT name, machine, pid, born_at FROM workers WHERE name = ANY(%b::text[])", (wanted,))
        there = {name for name, place, pid, born_at in found if place != machine() or not is_gone(pid, born_at)}
        return [name for name in wanted if name not in there]
