"""What a person does with the file of a SQLite store: measure it, check it, copy it, move its jobs elsewhere.

Functions of a connection, like the verbs. `copy` and `integrity` only read, and need no transaction of the store.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from ..errors import StoreUnavailable
from .instants import at_or_none, us
from .sql_batches import STATES
from .sqlite_verbs import UNFINISHED, counts, moved_to

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

STUCK = timedelta(seconds=60)
"""A lease that has been over for so long should have been taken away by any worker that lives."""

LEFT_BEHIND = frozenset({"workers", "counts", "meta", "moved", "gates", "starts"})
"""Tables that tell about a file itself, not about its jobs; the rows of gates, which jobs bring with them; and what
rates have counted, which begin anew elsewhere."""

CHUNK = 2_000
"""So many rows are moved in one transaction."""


@dataclass(frozen=True, slots=True)
class StoreStats:
    """How large a store is, and what is in it.

    Attributes:
        jobs: How many jobs there are in each state.
        oldest_queued: When the job was due that has been queued for the longest; None: none is. In UTC.
        schedules: How many schedules it knows.
        ledger: How many rows tell of their fire times.
        workers: The worker processes that are at it, or have died without a word.
        bytes: The size of the file and of what is not yet written into it.
        free_bytes: How much of that is empty and will be used again.
        version: Of its tables.
        moved_to: Where its jobs were moved; None: nowhere.
    """

    jobs: dict[str, int]
    oldest_queued: datetime | None
    schedules: int
    ledger: int
    workers: list[str]
    bytes: int
    free_bytes: int
    version: int
    moved_to: str | None


@dataclass(frozen=True, slots=True)
class Finding:
    """Something in a store that should not be.

    Attributes:
        rule: What kind of thing: "damaged", "stuck lease", "orphaned", "miscounted".
        text: What it is, with the ids.
        remedy: What to do.
        repair: Statements that mend it; none: a person or a worker must.
    """

    rule: str
    text: str
    remedy: str
    repair: Sequence[str] = ()


def stats(db: sqlite3.Connection, path: Path) -> StoreStats:
    """Measure a store."""

    def one(query: str) -> Any:
        return db.execute(query).fetchone()[0]

    page = one("PRAGMA page_size")
    return StoreStats(
        jobs={str(state): count for state, count in counts(db).items()},
        oldest_queued=at_or_none(one("SELECT min(run_at) FROM jobs WHERE state = 'queued'")),
        schedules=one("SELECT count(*) FROM schedules"),
        ledger=one("SELECT count(*) FROM ledger"),
        workers=[name for (name,) in db.execute("SELECT name FROM workers ORDER BY name")],
        bytes=sum(file.stat().st_size for file in (path, path.with_name(f"{path.name}-wal")) if file.exists()),
        free_bytes=page * one("PRAGMA freelist_count"),
        version=one("PRAGMA user_version"),
        moved_to=moved_to(db),
    )


# -- check ----------------------------------------------------------------------------------------------------------


def check(db: sqlite3.Connection, now: datetime) -> list[Finding]:
    """Look for what should not be."""
    return [*_damage(db), *_stuck(db, now), *_orphans(db), *_miscounts(db)]


def _damage(db: sqlite3.Connection) -> Iterator[Finding]:
    for (line,) in db.execute("PRAGMA integrity_check(20)"):
        if line != "ok":
            yield Finding("damaged", line, "restore a backup, or rescue what is left with sqlite3's .recover")


def _stuck(db: sqlite3.Connection, now: datetime) -> Iterator[Finding]:
    found = db.execute(
        """
        SELECT id, task, worker FROM jobs WHERE state = 'running' AND (lease_expires_at < ? OR worker IS NULL)
        ORDER BY seq LIMIT 100
        """,
        (us(now - STUCK),),
    )
    for job_id, task, worker in found:
        yield Finding(
            "stuck lease",
            f"job {job_id} ({task}) is running in worker {worker}, whose lease is over",
            "start a worker on this store: it takes such jobs away, and they run again",
        )


_ORPHANS = {
    "waiting rows of jobs that are gone": "behind WHERE job_id NOT IN (SELECT id FROM jobs)",
    "waiting rows for jobs that have ended": f"""behind WHERE before_id NOT IN
        (SELECT id FROM jobs WHERE {UNFINISHED})""",
}


def _orphans(db: sqlite3.Connection) -> Iterator[Finding]:
    for what, rows in _ORPHANS.items():
        (count,) = db.execute(f"SELECT count(*) FROM {rows}").fetchone()
        if count:
            yield Finding("orphaned", f"{count} {what}", "--repair removes them", (f"DELETE FROM {rows}", _HELD))


_HELD = """UPDATE jobs SET held = (SELECT count(*) FROM behind WHERE job_id = jobs.id)
    WHERE state IN ('queued', 'scheduled') AND held <> (SELECT count(*) FROM behind WHERE job_id = jobs.id)"""
_RECOUNT = "UPDATE counts SET count = (SELECT count(*) FROM jobs WHERE jobs.state = counts.state)"

_RECOUNT_BATCHES = "UPDATE batches SET " + ", ".join(
    f"{state} = (SELECT count(*) FROM jobs WHERE batch = batches.id AND state = '{state}')" for state in STATES
)


def _miscounts(db: sqlite3.Connection) -> Iterator[Finding]:
    found = db.execute(
        """
        SELECT id, held, (SELECT count(*) FROM behind WHERE job_id = jobs.id) AS there FROM jobs
        WHERE state IN ('queued', 'scheduled') AND held <> there ORDER BY seq LIMIT 100
        """
    )
    for job_id, held, there in found:
        text = f"job {job_id} waits for {held} others, and {there} are there"
        yield Finding("miscounted", text, "--repair counts anew", (_HELD,))
    there_are = dict(db.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall())
    for state, count in counts(db).items():
        if count != (there := there_are.get(state, 0)):
            text = f"{count} jobs are said to be {state}, and {there} are"
            yield Finding("miscounted", text, "--repair counts anew", (_RECOUNT,))
    yield from _miscounted_batches(db)


def _miscounted_batches(db: sqlite3.Connection) -> Iterator[Finding]:
    found = db.execute("SELECT batch, state, count(*) FROM jobs WHERE batch IS NOT NULL GROUP BY batch, state")
    there_are = {(batch, state): count for batch, state, count in found}
    for batch_id, *told in db.execute(f"SELECT id, {', '.join(STATES)} FROM batches"):
        for state, count in zip(STATES, told, strict=True):
            if count != (there := there_are.get((batch_id, state), 0)):
                text = f"{count} jobs of batch {batch_id} are said to be {state}, and {there} are"
                yield Finding("miscounted", text, "--repair counts anew", (_RECOUNT_BATCHES,))


def repair(db: sqlite3.Connection, findings: Sequence[Finding]) -> None:
    """Mend what can be mended without a person."""
    for statement in dict.fromkeys(statement for finding in findings for statement in finding.repair):
        db.execute(statement)


# -- backup ---------------------------------------------------------------------------------------------------------


def copy(path: Path, destination: Path) -> int:
    """Write a copy of a store as it stands at one moment, while others work on it, and return its size in bytes.

    Raises:
        StoreUnavailable: The destination exists, or cannot be written.
    """
    if destination.exists():
        raise StoreUnavailable(str(destination), "there is a file already", "name another, or move it away")
    beside = destination.with_name(f".{destination.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        source, target = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True), sqlite3.connect(beside)
        try:
            source.backup(target)  # in one step, so that it is of one moment; in WAL mode writers go on meanwhile
            target.execute("PRAGMA journal_mode = DELETE")  # one file, whole
            target.execute("DELETE FROM workers")  # they work on the other one
            target.commit()
        finally:
            source.close()
            target.close()
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        os.link(beside, destination)  # a rename would replace what has come there meanwhile
    except FileExistsError:
        raise StoreUnavailable(str(destination), "there is a file already", "name another, or move it away") from None
    except (OSError, sqlite3.Error) as error:
        raise StoreUnavailable(str(destination), str(error), "see that its folder is there and has room") from error
    finally:
        with suppress(FileNotFoundError):
            beside.unlink()
    return destination.stat().st_size


# -- moving house ---------------------------------------------------------------------------------------------------


def close_down(db: sqlite3.Connection, target: str) -> None:
    """Let nothing begin here any more: what is asked for is refused, with the place where it went."""
    db.execute("INSERT OR REPLACE INTO moved VALUES (1, ?)", (target,))


def open_up(db: sqlite3.Connection) -> None:
    """Undo `close_down`."""
    db.execute("DELETE FROM moved")


def running(db: sqlite3.Connection) -> list[tuple[str, str]]:
    """Return the jobs under way, each with its worker."""
    return db.execute("SELECT id, worker FROM jobs WHERE state = 'running' ORDER BY seq").fetchall()


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows of a table.

    Attributes:
        table: Its name.
        columns: Their names, but for the one that only numbers the rows of this file, and what is counted anew.
        rows: Their values.
        last: The key of the last row, to go on after it; None: there is no more.
    """

    table: str
    columns: list[str]
    rows: list[tuple[Any, ...]]
    last: tuple[Any, ...] | None


def tables(db: sqlite3.Connection) -> list[str]:
    """Return the tables that are moved."""
    found = db.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    return sorted({name for (name,) in found} - LEFT_BEHIND)


def part(db: sqlite3.Connection, table: str, after: tuple[Any, ...] | None) -> Part:
    """Read the next rows of a table, in the order of its key: rows that go meanwhile hide no others."""
    described = db.execute(f"PRAGMA table_info({table})").fetchall()
    counted = {"seq", *STATES} if table == "batches" else {"seq"}  # triggers count what comes in there
    columns = [name for _, name, *_ in described if name not in counted]
    keys = [name for place, name in sorted((place, name) for _, name, _, _, _, place in described) if place]
    where = "" if after is None else f"WHERE ({', '.join(keys)}) > ({', '.join('?' * len(keys))})"
    query = f"SELECT {', '.join(keys + columns)} FROM {table} {where} ORDER BY {', '.join(keys)} LIMIT ?"
    found = db.execute(query, (*(after or ()), CHUNK)).fetchall()
    rows = [row[len(keys) :] for row in found]
    return Part(table, columns, rows, found[-1][: len(keys)] if len(found) == CHUNK else None)


def take_in(db: sqlite3.Connection, moved: Part) -> tuple[int, list[str]]:
    """Write rows that are not there yet.

    Returns:
        How many were not, and the jobs for which there is no place: another has their key.
    """
    marks = ", ".join("?" * len(moved.columns))
    into = f"INSERT INTO {moved.table} ({', '.join(moved.columns)}) VALUES ({marks}) ON CONFLICT DO NOTHING"
    written = sum(db.execute(into, row).rowcount for row in moved.rows)
    if moved.table != "jobs":
        return written, []
    place = moved.columns.index("id")
    ids = [row[place] for row in moved.rows]
    return written, [i for i in ids if db.execute("SELECT 1 FROM jobs WHERE id = ?", (i,)).fetchone() is None]
