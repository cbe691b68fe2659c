"""Limits and rates in a SQLite store: which of the queued jobs stand before a closed gate, and when it opens.

A job passes its gates one after the other (`tickwork.limits` says what they are). `jobs.gate` tells where it is: 1, it
waits at the first; 2, at the second; 0, it has passed them and may be claimed. A claim looks at these alone, so that
it costs the same however many jobs wait for a key.

At any gate as many queued jobs have passed as the gate has room for, or all there are, and those are the first ones by
priority and arrival. The room is counted, never kept: a limit less the jobs that run, a rate less the starts of its
period. So nothing can leak when a process dies; what its jobs held is free when they are rescued.

Whatever changes a job with gates, by whichever verb, triggers of the schema put it before its first gate and let the
gates be looked at (`gates.opens_at` = 0). `settle` does that, before a claim and after an enqueue: it lets jobs pass,
and turns some back when older or more urgent ones have come meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .sql_limits import DUE, gate_sql, starts_of
from .sql_limits import blocker as blocker_by
from .sql_limits import declare as declare
from .sql_limits import due as due
from .sql_limits import settle as settle_by

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime

    from .blockers import Blocker

__all__ = ["DUE", "blocker", "claimed", "declare", "due", "settle"]

_AT = "jobs INDEXED BY jobs_at_{column} WHERE task = :task AND {column} = :gate AND finished_at IS NULL"
SQL = gate_sql(_AT.format(column="gate1"), _AT.format(column="gate2"))


def settle(db: sqlite3.Connection, now: int, gates: Iterable[tuple[str, str]]) -> None:
    """Let jobs pass gates (task and gate) that have room, and back those that have passed too many."""
    settle_by(db, SQL, now, gates)


def claimed(db: sqlite3.Connection, now: int, entries: Sequence[tuple[str, int, str, str | None]]) -> None:
    """Count the starts of claimed jobs against their rates.

    Args:
        db: The connection.
        now: Microseconds since the epoch.
        entries: Of each job that has gates: task, row, first and second gate.
    """
    starts = starts_of([(task, seq, gates) for task, seq, *gates in entries], now)
    if starts:
        db.executemany("INSERT INTO starts (task, gate, at, job) VALUES (?, ?, ?, ?)", starts)
        settle(db, now, [(task, gate) for task, gate, _, _ in starts])


def blocker(db: sqlite3.Connection, now: int, job_id: str, at: Callable[[int], datetime]) -> Blocker | None:
    """Return the limit or the rate that a queued job waits for; None: for none."""
    return blocker_by(db, SQL, now, job_id, at)
