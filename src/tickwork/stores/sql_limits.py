"""What limits and rates do in a database: see `sqlite_limits` and `postgres_limits`.

In the SQL that SQLite and PostgreSQL both understand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ..limits import is_rate, key_of
from .blockers import MAX_HOLDERS, Blocker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from ..limits import Limits

MAX_GATES = 500
"""So many gates are looked at in one go, some ten milliseconds. There are more only when thousands of keys change at
once; the rest follows at the next claim, which comes at once."""
MAX_PASS = 10_000
"""So many jobs pass a gate in one go, when its limit is lifted."""

_DECLARE = """
    INSERT INTO limits (task, at_once, starts, per) VALUES (?, ?, ?, ?)
    ON CONFLICT (task) DO UPDATE SET at_once = excluded.at_once, starts = excluded.starts, per = excluded.per
"""


class GateSql(NamedTuple):
    """The statements about one gate, `:gate` of `:task`; each part of them is one look into an index in this order."""

    counts: str
    waiting: str
    passed: str
    let_pass: str
    turn_back: str
    holders: str


def gate_sql(at1: str, at2: str) -> GateSql:
    """Return the statements of a database, where these are the jobs that have the gate as their first and second."""
    counts = f"""
        SELECT (SELECT count(*) FROM {at1} AND state = 'running')
            + (SELECT count(*) FROM {at2} AND state = 'running'),
            (SELECT count(*) FROM {at1} AND state = 'queued' AND gate IN (0, 2))
            + (SELECT count(*) FROM {at2} AND state = 'queued' AND gate = 0)
    """
    waiting = f"""
        SELECT * FROM (
            SELECT priority, seq FROM {at1} AND state = 'queued' AND gate = 1 AND held = 0
            ORDER BY priority DESC, seq LIMIT :limit
        ) AS part
        UNION ALL
        SELECT * FROM (
            SELECT priority, seq FROM {at2} AND state = 'queued' AND gate = 2 AND held = 0
            ORDER BY priority DESC, seq LIMIT :limit
        ) AS part
        ORDER BY priority DESC, seq LIMIT :limit
    """
    passed = f"""
        SELECT * FROM (
            SELECT priority, seq FROM {at1} AND state = 'queued' AND gate = 0
            ORDER BY priority, seq DESC LIMIT :limit
        ) AS part
        UNION ALL
        SELECT * FROM (
            SELECT priority, seq FROM {at1} AND state = 'queued' AND gate = 2
            ORDER BY priority, seq DESC LIMIT :limit
        ) AS part
        UNION ALL
        SELECT * FROM (
            SELECT priority, seq FROM {at2} AND state = 'queued' AND gate = 0
            ORDER BY priority, seq DESC LIMIT :limit
        ) AS part
        ORDER BY priority, seq DESC LIMIT :limit
    """
    let_pass = f"""
        UPDATE jobs SET gate = CASE WHEN gate = 1 AND gate2 IS NOT NULL THEN 2 ELSE 0 END
        WHERE seq IN (SELECT seq FROM ({waiting}) AS wanted) AND state = 'queued'
        RETURNING CASE WHEN gate = 2 THEN gate2 END
    """
    turn_back = f"""
        UPDATE jobs SET gate = CASE WHEN gate1 = :gate THEN 1 ELSE 2 END
        WHERE seq IN (SELECT seq FROM ({passed}) AS wanted) AND state = 'queued'
        RETURNING CASE WHEN gate = 1 THEN gate2 END
    """
    holders = f"""
        SELECT id FROM {at1} AND state = 'running'
        UNION ALL SELECT id FROM {at2} AND state = 'running'
        UNION ALL SELECT id FROM {at1} AND state = 'queued' AND gate IN (0, 2)
        UNION ALL SELECT id FROM {at2} AND state = 'queued' AND gate = 0
        LIMIT {MAX_HOLDERS}
    """
    return GateSql(counts, waiting, passed, let_pass, turn_back, holders)


def declare(db: Any, limits: Mapping[str, Limits], before: Callable[[str], object] = lambda task: None) -> None:
    """Let limits hold for tasks from now on; see `Store.set_limits`. `before` is called with a task that changes."""
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
        before(task)
        if row == (None, None, None):
            db.execute("DELETE FROM limits WHERE task = ?", (task,))
        else:
            db.execute(_DECLARE, (task, *row))
        db.execute("UPDATE gates SET opens_at = 0 WHERE task = ?", (task,))


DUE = f"""
    SELECT * FROM (SELECT task, gate FROM gates WHERE opens_at <= ? LIMIT {MAX_GATES}) AS part
    UNION ALL SELECT * FROM (SELECT task, gate FROM starts WHERE at > ? LIMIT {MAX_GATES}) AS part
"""
"""Gates that are to be looked at, task and gate, at a time that is given twice. Starts that lie in the future tell of a
clock that was set back."""


def due(db: Any, now: int) -> list[tuple[str, str]]:
    """Return gates that are to be looked at: task and gate."""
    found: list[tuple[str, str]] = db.execute(DUE, (now, now)).fetchall()
    return found


def settle(
    db: Any,
    sql: GateSql,
    now: int,
    gates: Iterable[tuple[str, str]],
    may_look: Callable[[str, str], bool] = lambda task, gate: True,
) -> None:
    """Let jobs pass gates that have room, and back those that have passed too many.

    Args:
        db: The connection.
        sql: Its statements.
        now: Microseconds since the epoch.
        gates: Which: task and gate.
        may_look: Returns whether a gate is free: one at which another process looks just then is passed over.
    """
    numbers: dict[str, tuple[int | None, int | None, int | None]] = {}
    todo = list(dict.fromkeys(gates))
    while todo:
        task, gate = todo.pop()
        if not may_look(task, gate):
            continue
        if task not in numbers:
            numbers[task] = _numbers(db, task)
        todo += [(task, behind) for behind in Gate(db, sql, now, task, gate, *numbers[task]).settle()]


def _numbers(db: Any, task: str) -> tuple[int | None, int | None, int | None]:
    found: tuple[int | None, int | None, int | None] | None
    found = db.execute("SELECT at_once, starts, per FROM limits WHERE task = ?", (task,)).fetchone()
    return found or (None, None, None)


def starts_of(entries: Sequence[tuple[str, int, Sequence[str | None]]], now: int) -> list[tuple[str, str, int, int]]:
    """Return the starts of claimed jobs that count against rates: task, gate, when, and row of the job."""
    return [
        (task, gate, now, seq) for task, seq, gates in entries for gate in gates if gate is not None and is_rate(gate)
    ]


class Gate:
    """One gate of a task, while it is looked at."""

    __slots__ = ("at_once", "db", "names", "now", "per", "sql", "starts")

    def __init__(
        self,
        db: Any,
        sql: GateSql,
        now: int,
        task: str,
        gate: str,
        at_once: int | None,
        starts: int | None,
        per: int | None,
    ) -> None:
        self.db: Any = db
        self.sql: GateSql = sql
        self.now: int = now
        self.names: dict[str, str] = {"task": task, "gate": gate}
        if is_rate(gate):
            at_once = None
        else:
            starts = per = None
        self.at_once: int | None = at_once
        self.starts: int | None = starts
        self.per: int | None = per

    def settle(self) -> set[str]:
        """Let jobs pass, forwards or back, and return the gates behind this one that have to be looked at, too."""
        running, passed = self.db.execute(self.sql.counts, self.names).fetchone()
        room, started, opens_at = self._room(running)
        behind: set[str] = set()
        free = MAX_PASS if room is None else room - passed
        if free > 0:
            passed += self._move(self.sql.let_pass, free, behind)
        elif free < 0:
            passed -= self._move(self.sql.turn_back, -free, behind)
        waiting = self._first(self.sql.waiting)
        while waiting is not None and room is not None and (last := self._first(self.sql.passed)) is not None:
            if (-waiting[0], waiting[1]) > (-last[0], last[1]):
                break
            self._move(self.sql.turn_back, 1, behind)
            self._move(self.sql.let_pass, 1, behind)
            waiting = self._first(self.sql.waiting)
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
        held_by = tuple(job_id for (job_id,) in self.db.execute(self.sql.holders, self.names))
        if self.starts is None or self.per is None:
            return Blocker("rate" if is_rate(gate) else "limit", key_of(gate), held_by)
        count, oldest = self.db.execute(
            "SELECT count(*), min(at) FROM starts WHERE task = :task AND gate = :gate AND at > :before",
            {**self.names, "before": self.now - self.per},
        ).fetchone()
        is_closed = count >= self.starts
        return Blocker("rate", key_of(gate), held_by, at(min(oldest, self.now) + self.per) if is_closed else None)


def blocker(db: Any, sql: GateSql, now: int, job_id: str, at: Callable[[int], datetime]) -> Blocker | None:
    """Return the limit or the rate that a queued job waits for; None: for none."""
    found = db.execute("SELECT task, state, gate, gate1, gate2 FROM jobs WHERE id = ?", (job_id,)).fetchone()
    if found is None or found[1] != "queued" or not found[2]:
        return None
    task, _, gate, *gates = found
    return Gate(db, sql, now, task, gates[gate - 1], *_numbers(db, task)).blocker(at)
