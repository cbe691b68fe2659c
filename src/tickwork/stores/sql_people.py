"""Queues and workers in the SQL that SQLite and PostgreSQL both understand; see `sqlite_people`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .._version import __version__
from .instants import at, us
from .views import Vitals, WorkerRow

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime


def set_queue(db: Any, now: datetime, name: str, *, paused: bool) -> bool:
    """Pause or resume a queue; see `Store.set_queue`."""
    if paused:
        return bool(db.execute("INSERT INTO queues VALUES (?, ?) ON CONFLICT DO NOTHING", (name, us(now))).rowcount)
    return bool(db.execute("DELETE FROM queues WHERE name = ?", (name,)).rowcount)


def paused_queues(db: Any) -> dict[str, datetime]:
    """Return the queues that are paused, by name; see `Store.paused_queues`."""
    return {name: at(paused_at) for name, paused_at in db.execute("SELECT name, paused_at FROM queues ORDER BY name")}


def write_tasks(db: Any, now: datetime, worker: str, tasks: Mapping[str, str], queues: Collection[str] | None) -> None:
    """Record which tasks a worker knows, and from which queues it claims."""
    claims_from = None if queues is None else json.dumps(sorted(queues))
    db.execute(
        "UPDATE workers SET tasks = ?, queues = ?, version = ?, beat_at = ? WHERE name = ?",
        (json.dumps(dict(tasks)), claims_from, __version__, us(now), worker),
    )


def workers(db: Any) -> list[WorkerRow]:
    """Return the workers that are registered, in the order of their start, whether they live or not."""
    found = db.execute(
        """
        SELECT name, host, pid, started_at, beat_at, tasks, version, queues, vitals FROM workers
        ORDER BY started_at, name
        """
    )
    return [
        WorkerRow(
            name=name,
            host=host,
            pid=pid,
            started_at=at(started_at),
            beat_at=at(beat_at),
            tasks=json.loads(tasks),
            version=version,
            queues=None if queues is None else tuple(json.loads(queues)),
            vitals=None if vitals is None else Vitals.from_json(vitals),
        )
        for name, host, pid, started_at, beat_at, tasks, version, queues, vitals in found
    ]
