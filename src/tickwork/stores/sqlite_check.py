"""What may be wrong with the file of a SQLite store, and how that is mended: functions of a connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import sql_check as sql
from .sql_batches import STATES
from .sql_check import Finding

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence
    from datetime import datetime


def check(db: sqlite3.Connection, now: datetime) -> list[Finding]:
    """Look for what should not be."""
    return [*_damage(db), *sql.stuck(db, now), *sql.orphans(db, {}), *sql.miscounts(db), *_miscounts(db)]


def _damage(db: sqlite3.Connection) -> Iterator[Finding]:
    for (line,) in db.execute("PRAGMA integrity_check(20)"):
        if line != "ok":
            yield Finding("damaged", line, "restore a backup, or rescue what is left with sqlite3's .recover")


def _miscounts(db: sqlite3.Connection) -> Iterator[Finding]:
    states = db.execute(
        "SELECT NULL, state, count, 0 FROM counts UNION ALL SELECT NULL, state, 0, count(*) FROM jobs GROUP BY state"
    )
    yield from sql.compare(states, lambda _: "jobs", lambda _: _recount)
    yield from sql.compare(_of_batches(db), lambda batch: f"jobs of batch {batch}", lambda _: _recount_batches)


def _of_batches(db: sqlite3.Connection) -> Iterator[tuple[Any, str, int, int]]:
    found = db.execute("SELECT batch, state, count(*) FROM jobs WHERE batch IS NOT NULL GROUP BY batch, state")
    there_are = {(batch, state): count for batch, state, count in found}
    for batch_id, *told in db.execute(f"SELECT id, {', '.join(STATES)} FROM batches"):
        for state, count in zip(STATES, told, strict=True):
            yield batch_id, state, count, there_are.get((batch_id, state), 0)


def _recount(db: sqlite3.Connection) -> None:
    db.execute("UPDATE counts SET count = (SELECT count(*) FROM jobs WHERE jobs.state = counts.state)")


def _recount_batches(db: sqlite3.Connection) -> None:
    counted = (
        f"{state} = (SELECT count(*) FROM jobs WHERE batch = batches.id AND state = '{state}')" for state in STATES
    )
    db.execute(f"UPDATE batches SET {', '.join(counted)}")


def repair(db: sqlite3.Connection, findings: Sequence[Finding]) -> None:
    """Mend what can be mended without a person."""
    for mend in dict.fromkeys(mend for finding in findings for mend in finding.repair):
        mend(db)
