"""What a move from one store into another takes along, and in which order: SQL that SQLite and PostgreSQL both know.

What jobs need stands there before them, since workers may be at the store already: the pauses of queues, the limits,
the batches that count them, their attempts, what they wait for, and the rows of the ledger that their ends are written
into. A schedule comes last: with its watermark, the scheduler there goes on where this one was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .rows import ANSWER, JOB, ROW
from .sql_batches import STATES

if TYPE_CHECKING:
    from collections.abc import Sequence

CHUNK = 1_000
"""So many rows are moved in one transaction, for which others at the target may have to wait."""

LEFT_BEHIND = frozenset({"workers", "counts", "shards", "meta", "moved", "gates", "starts"})
"""Tables that tell about a store itself, not about its jobs; the rows of gates, which jobs bring with them; and what
rates have counted, which begin anew elsewhere."""
NUMBERS = frozenset({"seq", *STATES})
"""Columns that number the rows of one store, or that are counted anew."""


@dataclass(frozen=True, slots=True)
class Table:
    """What is taken along of a table.

    Attributes:
        key: The columns that tell its rows apart, in whose order they are read.
        columns: Those that are moved.
    """

    key: tuple[str, ...]
    columns: tuple[str, ...]


def _names(columns: str) -> tuple[str, ...]:
    return tuple(name for column in columns.split(",") if (name := column.strip()) not in NUMBERS)


HELD = ("held", "gate", "misfit")
"""Columns of jobs that tell of the way to their next run."""

TABLES = {
    "queues": Table(("name",), ("name", "paused_at")),
    "limits": Table(("task",), ("task", "at_once", "starts", "per")),
    "batches": Table(
        ("id",),
        _names("id, task, created_at, size, digest, feeds_until, completed_at, cancelled_at, ends"),
    ),
    "attempts": Table(
        ("job_id", "place"), _names("job_id, place, number, started_at, ended_at, outcome, worker, error")
    ),
    "behind": Table(("before_id", "job_id"), ("job_id", "before_id")),
    "ledger": Table(("seq",), _names(ANSWER)),
    "jobs": Table(("seq",), (*_names(JOB), "batch_end", *HELD)),
    "schedules": Table(("name",), _names(ROW)),
}


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows of a table.

    Attributes:
        table: Its name.
        rows: Their values, in the order of its columns.
        last: The key of the last row, to go on after it; None: there is no more.
    """

    table: str
    rows: list[tuple[Any, ...]]
    last: tuple[Any, ...] | None

    def column(self, name: str) -> list[Any]:
        """Return the values of a column."""
        place = TABLES[self.table].columns.index(name)
        return [row[place] for row in self.rows]


def read(db: Any, table: str, after: tuple[Any, ...] | None, rows: str | None = None) -> Part:
    """Read the next rows of a table, in the order of its key: rows that go meanwhile hide no others.

    Args:
        db: The connection.
        table: Its name.
        after: The key of the last row that was read; None: from the beginning.
        rows: What holds them; None: a table of that name.
    """
    wanted = TABLES[table]
    keys = ", ".join(wanted.key)
    where = "" if after is None else f"WHERE ({keys}) > ({', '.join('?' * len(wanted.key))})"
    found = db.execute(
        f"SELECT {', '.join(wanted.key + wanted.columns)} FROM {rows or table} {where} ORDER BY {keys} LIMIT ?",
        (*(after or ()), CHUNK),
    ).fetchall()
    count = len(wanted.key)
    return Part(table, [row[count:] for row in found], found[-1][:count] if len(found) == CHUNK else None)


def running(db: Any) -> list[tuple[str, str]]:
    """Return the jobs under way, each with its worker."""
    found: list[tuple[str, str]] = db.execute(
        "SELECT id, worker FROM jobs WHERE state = 'running' ORDER BY seq"
    ).fetchall()
    return found


def forget(db: Any, job_ids: Sequence[str]) -> None:
    """Forget what came before jobs for which there was no place then."""
    for job_id in job_ids:
        db.execute("DELETE FROM attempts WHERE job_id = ?", (job_id,))
        db.execute("DELETE FROM behind WHERE job_id = ?", (job_id,))
