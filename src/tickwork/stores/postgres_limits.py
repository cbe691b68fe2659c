"""Limits and rates in a PostgreSQL store; what they are and how they are kept is told in `sqlite_limits`.

Triggers do not put jobs before their gates here: the verbs do, and `touch` lets the gates be looked at. Processes work
side by side, so whatever changes jobs at a gate, their rows or how many run, holds the lock of the gate until
its transaction ends. Who looks at a gate that another process holds passes it over: it is looked at again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from zlib import crc32

from .postgres_link import LOCKS
from .sql_limits import blocker as blocker_by
from .sql_limits import declare as declare_by
from .sql_limits import due as due
from .sql_limits import gate_sql, starts_of
from .sql_limits import settle as settle_by

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from ..limits import Limits
    from .blockers import Blocker
    from .postgres_link import Link

_AT = "jobs WHERE task = :task AND {column} = :gate"
SQL = gate_sql(_AT.format(column="gate1"), _AT.format(column="gate2"))


def lock_of(task: str, gate: str) -> str:
    """Return the lock of a gate, which it shares with others."""
    return f"gate:{crc32(f'{task} {gate}'.encode()) % LOCKS}"


def declare(db: Link, limits: Mapping[str, Limits]) -> None:
    """Let limits hold for tasks from now on; see `Store.set_limits`."""
    declare_by(db, limits, before=lambda task: _close(db, task))


def _close(db: Link, task: str) -> None:
    """Let all jobs of a task wait before their first gates.

    Else more might have passed than may from now on, and be claimed by those who pass the gate over.
    """
    db.lock(f"gate:{number}" for number in range(LOCKS))
    db.execute(
        "UPDATE jobs SET gate = 1 WHERE task = ? AND gate1 IS NOT NULL AND state = 'queued' AND gate <> 1", (task,)
    )


def touch(db: Link, gates: Iterable[tuple[str, str]]) -> None:
    """Let gates be looked at: task and gate."""
    names = sorted(gates)
    if not names:
        return
    db.lock({lock_of(task, gate) for task, gate in names})
    db.execute(
        """
        INSERT INTO gates (task, gate, opens_at)
        SELECT task, gate, 0 FROM unnest(%b::text[], %b::text[]) AS g (task, gate)
        ON CONFLICT (task, gate) DO UPDATE SET opens_at = 0
        """,
        ([task for task, _ in names], [gate for _, gate in names]),
    )


def settle(db: Link, now: int, gates: Iterable[tuple[str, str]]) -> None:
    """Let jobs pass gates (task and gate) that have room, and back those that have passed too many."""
    settle_by(db, SQL, now, gates, lambda task, gate: db.try_lock(lock_of(task, gate)))


def claimed(db: Link, now: int, entries: Sequence[tuple[str, int, Sequence[str]]]) -> None:
    """Count the starts of claimed jobs against their rates: of each that has gates task, row and gates."""
    db.lock({lock_of(task, gate) for task, _, gates in entries for gate in gates})
    starts = starts_of(entries, now)
    if starts:
        db.executemany("INSERT INTO starts (task, gate, at, job) VALUES (?, ?, ?, ?)", starts)
        settle(db, now, [(task, gate) for task, gate, _, _ in starts])


def given_back(db: Link, task: str, seq: int, gates: Sequence[str]) -> None:
    """Forget the last starts of a job that is given back before it began, as far as was told."""
    for gate in gates:
        db.execute(
            "DELETE FROM starts WHERE n = (SELECT max(n) FROM starts WHERE task = ? AND gate = ? AND job = ?)",
            (task, gate, seq),
        )


def blocker(db: Link, now: int, job_id: str, at: Callable[[int], datetime]) -> Blocker | None:
    """Return the limit or the rate that a queued job waits for; None: for none."""
    return blocker_by(db, SQL, now, job_id, at)
