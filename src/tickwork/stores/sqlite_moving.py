"""How the jobs of a SQLite store move house: functions of a connection, like the verbs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from . import sql_moving as sql
from .sql_moving import running as running
from .sqlite_verbs import moved_to as moved_to
from .sqlite_verbs import note_schedule_change as note_schedule_change

if TYPE_CHECKING:
    import sqlite3

    from .sql_moving import Part


def place(db: sqlite3.Connection) -> tuple[Any, ...]:
    """Return what tells the file from all others, by whatever name it is opened."""
    path = next(path for _, name, path in db.execute("PRAGMA database_list") if name == "main")
    status = os.stat(path)
    return "file", status.st_dev, status.st_ino


def close_down(db: sqlite3.Connection, target: str) -> None:
    """Let nothing begin here any more: what is asked for is refused, with the place where it went."""
    db.execute("INSERT OR REPLACE INTO moved VALUES (1, ?)", (target,))


def open_up(db: sqlite3.Connection) -> None:
    """Undo `close_down`."""
    db.execute("DELETE FROM moved")


def part(db: sqlite3.Connection, table: str, after: tuple[Any, ...] | None) -> Part:
    """Read the next rows of a table; see `sql_moving.read`."""
    return sql.read(db, table, after)


def take_in(db: sqlite3.Connection, moved: Part) -> tuple[int, list[str]]:
    """Write rows that are not there yet.

    Returns:
        How many were not, and the jobs for which there is no place: another has their key.
    """
    columns = sql.TABLES[moved.table].columns  # triggers count what comes in
    marks = ", ".join("?" * len(columns))
    into = f"INSERT INTO {moved.table} ({', '.join(columns)}) VALUES ({marks}) ON CONFLICT DO NOTHING"
    written = sum(db.execute(into, row).rowcount for row in moved.rows)
    if moved.table != "jobs":
        return written, []
    ids = moved.column("id")
    left = [i for i in ids if db.execute("SELECT 1 FROM jobs WHERE id = ?", (i,)).fetchone() is None]
    sql.forget(db, left)
    return written, left
