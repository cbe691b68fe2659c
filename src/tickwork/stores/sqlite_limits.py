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

from ..limits import is_rate, key_of
from .blockers import MAX_HOLDERS, Blocker

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from ..limits import Limits

MAX_GATES = 500
"""So many gates are looked at in one go, some ten milliseconds. There are more only when thousands of keys change at
once; the rest follows at the next claim, which comes at once."""
MAX_PASS = 10_000
"""So many jobs pass a gate in one go, when its limit is lifted."""

_AT = "jobs INDEXED BY jobs_at_{column} WHERE task = :task AND {column} = :gate AND finished_at IS NULL"
_AT1, _AT2 = _AT.format(column="gate1"), _AT.format(column="gate2")
"""Jobs that have the gate as their first, or as their second."""

_COUNTS = f"""
    SELECT (SELECT count(*) FROM {_AT1} AND state = 'running')
        + (SELECT count(*) FROM {_AT2} AND state = 'running'),
        (SELECT count(*) FROM {_AT1} AND state = 'queued' AND gate IN (0, 2))
        + (SELECT count(*) FROM {_AT2} AND state = 'queued' AND gate = 0)
"""
# Each part is one look into an index, which is in this order.
_WAITING = f"""
    SELECT * FROM (
        SELECT priority, seq FROM {_AT1} AND state = 'queued' AND gate = 1 AND held = 0
        ORDER BY priority DESC, seq LIMIT :limit
    )
    UNION ALL
    SELECT * FROM (
        SELECT priority, seq FROM {_AT2} AND state = 'queued' AND gate = 2 AND held = 0
        ORDER BY priority DESC, seq LIMIT :limit
    )
    ORDER BY priority DESC, seq LIMIT :limit
"""
_PASSED = f"""
    SELECT * FROM (
        SELECT priority, seq FROM {_AT1} AND state = 'queued' AND gate = 0
        ORDER BY priority, seq DESC LIMIT :limit
    )
    UNION ALL
    SELECT * FROM (
        SELECT priority, seq FROM {_AT1} AND state = 'queued' AND gate = 2
        ORDER BY priority, seq DESC LIMIT :limit
    )
    UNION ALL
    SELECT * FROM (
        SELECT priority, seq FROM {_AT2} AND state = 'queued' AND gate = 0
        ORDER BY priority, seq DESC LIMIT :limit
    )
    ORDER BY priority, seq DESC LIMIT :limit
"""
_PASS = f"""
    UPDATE jobs SET gate = iif(gate = 1 AND gate2 IS NOT NULL, 2, 0)
    WHERE seq IN (SELECT seq FROM ({_WAITING})) RETURNING iif(gate = 2, gate2, NULL)
"""
_TURN_BACK = f"""
    UPDATE jobs SET gate = iif(gate1 = :gate, 1, 2)
    WHERE seq IN (SELECT seq FROM ({_PASSED})) RETURNING iif(gate = 1, gate2, NULL)
"""
_HOLDERS = f"""
    SELECT id FROM {_AT1} AND state = 'running'
    UNION ALL SELECT id FROM {_AT2} AND state = 'running'
    UNION ALL SELECT id FROM {_AT1} AND state = 'queued' AND gate IN (0, 2)
    UNION ALL SELECT id FROM {_AT2} AND state = 'queued' AND gate = 0
    LIMIT {MAX_HOLDERS}
"""


def declare(db: sqlite3.Connection, limits: Mapping[str, Limits]) -> None:
    """Let limits hold for tasks from now on; see `Store.set_limits`."""
    known = {task: tuple(row) for task, *row in db.execute("SELECT task, at_once, starts, per FROM limits")}
    for task, wanted in limits.items():
        limit, rate = wanted.limit, wanted.rate
        row = (
            None if limit is None else limit.at_once,
            None if rate is None else rate.starts,
            None if rate is None else round(rate.per * 1_000_000),
        )
        if known.get(task, (None, None, None)) == row:
            continue
        if row == (None, None, None):
            db.execute("DELETE FROM limits WHERE task = ?", (task,))
        else:
            db.execute("INSERT OR REPLACE INTO limits VALUES (?, ?, ?, ?)", (task, *row))
        db.execute("UPDATE gates SET opens_at = 0 WHERE task = ?", (task,))


DUE = f"""
    SELECT * FROM (SELECT task, gate FROM gates WHERE opens_at <= ? LIMIT {MAX_GATES})
    UNION ALL SELECT * FROM (SELECT task, gate FROM starts WHERE at > ? LIMIT {MAX_GATES})
"""
"""Gates that are to be looked at, task and gate, at a time that is given twice. Starts that lie in the future tell of a
clock that was set back."""


def due(db: sqlite3.Connection, now: int) -> list[tuple[str, str]]:
    """Return gates that are to be looked at: task and gate."""
    return db.execute(DUE, (now, now)).fetchall()


def settle(db: sqlite3.Connection, now: int, gates: Iterable[tuple[str, str]]) -> None:
    """Let jobs pass gates that have room, and back those that have passed too many.

    Args:
        db: The connection.
        now: Microseconds since the epoch.
        gates: Which: task and gate.
    """
    numbers: dict[str, tuple[int | None, int | None, int | None]] = {}
    todo = list(dict.fromkeys(gates))
    while todo:
        task, gate = todo.pop()
        if task not in numbers:
            found = db.execute("SELECT at_once, starts, per FROM limits WHERE task = ?", (task,)).fetchone()
            numbers[task] = found or (None, None, None)
        todo += [(task, behind) for behind in _Gate(db, now, task, gate, *numbers[task]).settle()]


def claimed(db: sqlite3.Connection, now: int, entries: Sequence[tuple[str, int, str, str | None]]) -> None:
    """Count the starts of claimed jobs against their rates.

    Args:
        db: The connection.
        now: Microseconds since the epoch.
        entries: Of each job that has gates: task, row, first and second gate.
    """
    starts = [
        (task, gate, now, seq) for task, seq, *gates in entries for gate in gates if gate is not None and is_rate(gate)
    ]
    if starts:
        db.executemany("INSERT INTO starts (task, gate, at, job) VALUES (?, ?, ?, ?)", starts)
        settle(db, now, [(task, gate) for task, gate, _, _ in starts])


class _Gate:
    """One gate of a task, while it is looked at."""

    __slots__ = ("at_once", "db", "names", "now", "per", "starts")

    def __init__(
        self,
        db: sqlite3.Connection,
        now: int,
        task: str,
        gate: str,
        at_once: int | None,
        starts: int | None,
        per: int | None,
    ) -> None:
        self.db = db
        self.now = now
        self.names = {"task": task, "gate": gate}
        if is_rate(gate):
            at_once = None
        else:
            starts = per = None
        self.at_once = at_once
        self.starts = starts
        self.per = per

    def settle(self) -> set[str]:
        """Let jobs pass, forwards or back, and return the gates behind this one that have to be looked at, too."""
        running, passed = self.db.execute(_COUNTS, self.names).fetchone()
        room, started, opens_at = self._room(running)
        behind: set[str] = set()
        free = MAX_PASS if room is None else room - passed
        if free > 0:
            passed += self._move(_PASS, free, behind)
        elif free < 0:
            passed -= self._move(_TURN_BACK, -free, behind)
        waiting = self._first(_WAITING)
        while waiting is not None and room is not None and (last := self._first(_PASSED)) is not None:
            if (-waiting[0], waiting[1]) > (-last[0], last[1]):
                break
            self._move(_TURN_BACK, 1, behind)
            self._move(_PASS, 1, behind)
            waiting = self._first(_WAITING)
        if room is None and waiting is not None:
            opens_at = 0  # too many for one go
        self._write(opens_at, waits=waiting is not None, is_used=bool(running or passed or started))
        return behind

    def _room(self, running: int) -> tuple[int | None, int, int | None]:
        """Return how many jobs may have passed (None: any number), starts that count, and when the next no longer will.

        The starts are those of a rate's period. What no longer counts is forgotten; what lies in the future, since the
        clock was set back, has started now.
        """
        if self.at_once is not None:
            return max(0, self.at_once - running), 0, None
        if self.starts is None or self.per is None:
            self.db.execute("DELETE FROM starts WHERE task = :task AND gate = :gate", self.names)
            return None, 0, None
        names = {**self.names, "now": self.now, "before": self.now - self.per}
        self.db.execute("DELETE FROM starts WHERE task = :task AND gate = :gate AND at <= :before", names)
        self.db.execute("UPDATE starts SET at = :now WHERE task = :task AND gate = :gate AND at > :now", names)
        count, oldest = self.db.execute(
            "SELECT count(*), min(at) FROM starts WHERE task = :task AND gate = :gate", names
        ).fetchone()
        return max(0, self.starts - count), count, None if oldest is None else oldest + self.per

    def _move(self, statement: str, count: int, behind: set[str]) -> int:
        moved = self.db.execute(statement, {**self.names, "limit": count}).fetchall()
        behind.update(gate for (gate,) in moved if gate is not None)
        return len(moved)

    def _first(self, statement: str) -> tuple[int, int] | None:
        found: tuple[int, int] | None = self.db.execute(statement, {**self.names, "limit": 1}).fetchone()
        return found

    def _write(self, opens_at: int | None, *, waits: bool, is_used: bool) -> None:
        if waits or is_used:
            self.db.execute(  # it may have been looked at, found empty and deleted, before a job came to it
                """
                INSERT INTO gates (task, gate, opens_at, waits) VALUES (:task, :gate, :at, :waits)
                ON CONFLICT (task, gate) DO UPDATE SET opens_at = excluded.opens_at, waits = excluded.waits
                """,
                {**self.names, "at": opens_at, "waits": waits},
            )
        else:
            self.db.execute("DELETE FROM gates WHERE task = :task AND gate = :gate", self.names)

    def blocker(self, at: Callable[[int], datetime]) -> Blocker:
        """Return what this gate tells a job that waits at it."""
        gate = self.names["gate"]
        held_by = tuple(job_id for (job_id,) in self.db.execute(_HOLDERS, self.names))
        if self.starts is None or self.per is None:
            return Blocker("rate" if is_rate(gate) else "limit", key_of(gate), held_by)
        count, oldest = self.db.execute(
            "SELECT count(*), min(at) FROM starts WHERE task = :task AND gate = :gate AND at > :before",
            {**self.names, "before": self.now - self.per},
        ).fetchone()
        is_closed = count >= self.starts
        return Blocker("rate", key_of(gate), held_by, at(min(oldest, self.now) + self.per) if is_closed else None)


def blocker(db: sqlite3.Connection, now: int, job_id: str, at: Callable[[int], datetime]) -> Blocker | None:
    """Return the limit or the rate that a queued job waits for; None: for none."""
    found = db.execute("SELECT task, state, gate, gate1, gate2 FROM jobs WHERE id = ?", (job_id,)).fetchone()
    if found is None or found[1] != "queued" or not found[2]:
        return None
    task, _, gate, *gates = found
    numbers = db.execute("SELECT at_once, starts, per FROM limits WHERE task = ?", (task,)).fetchone()
    return _Gate(db, now, task, gates[gate - 1], *(numbers or (None, None, None))).blocker(at)
