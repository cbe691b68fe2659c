"""How large a PostgreSQL store is, and what is in it: functions of a link, which only read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .instants import at_or_none
from .postgres_moving import moved_to
from .postgres_verbs import counts

if TYPE_CHECKING:
    from datetime import datetime

    from .postgres_link import Link


@dataclass(frozen=True, slots=True)
class SchemaStats:
    """How large the tables are, and what is in them.

    Attributes:
        jobs: How many jobs there are in each state.
        oldest_queued: When the job was due that has been queued for the longest; None: none is. In UTC.
        schedules: How many schedules are known.
        ledger: How many rows tell of their fire times.
        workers: The worker processes that are at it, or have died without a word.
        bytes: The size of all tables with their indexes, also of what in them is empty and will be used again.
        tables: The same of each table, the largest first.
        version: Of the tables.
        moved_to: Where its jobs were moved; None: nowhere.
    """

    jobs: dict[str, int]
    oldest_queued: datetime | None
    schedules: int
    ledger: int
    workers: list[str]
    bytes: int
    tables: dict[str, int]
    version: int
    moved_to: str | None


def stats(db: Link) -> SchemaStats:
    """Measure a store."""
    schedules, ledger, oldest, version = db.all(
        """
        SELECT (SELECT count(*) FROM schedules), (SELECT count(*) FROM ledger),
            (SELECT min(run_at) FROM jobs WHERE state = 'queued'), (SELECT version FROM meta)
        """
    )[0]
    sizes = db.all(
        """
        SELECT relname, pg_total_relation_size(c.oid) FROM pg_class AS c
        JOIN pg_namespace AS n ON n.oid = relnamespace WHERE nspname = %s AND relkind = 'r' ORDER BY 2 DESC, 1
        """,
        (db.schema,),
    )
    return SchemaStats(
        jobs={str(state): count for state, count in counts(db).items()},
        oldest_queued=at_or_none(oldest),
        schedules=schedules,
        ledger=ledger,
        workers=[name for (name,) in db.all("SELECT name FROM workers ORDER BY name")],
        bytes=sum(size for _, size in sizes),
        tables=dict(sizes),
        version=version,
        moved_to=moved_to(db),
    )
