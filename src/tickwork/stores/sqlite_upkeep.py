"""How large the file of a SQLite store is and what is in it, and how it is copied while others work on it."""

from __future__ import annotations

import os
import secrets
import sqlite3
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import StoreUnavailable
from .instants import at_or_none
from .sqlite_verbs import counts, moved_to

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path


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
