"""What the watcher of a PostgreSQL store looks for, and writes down about processes: functions of a link."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from .instants import at_or_none, us
from .postgres_common import (
    UNFINISHED,
)
from .sql_batches import STATES

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from .postgres_link import Link
    from .views import Vitals


def cancels_asked(db: Link, worker: str) -> list[str]:
    """Return the jobs that a worker runs and somebody wants cancelled."""
    found = db.all("SELECT id FROM jobs WHERE worker = %s AND state = 'running' AND cancel_requested", (worker,))
    return [job_id for (job_id,) in found]


def leases_held(db: Link, worker: str) -> dict[str, int]:
    """Return the jobs that a worker has, each with the token of its lease."""
    found = db.all("SELECT id, token FROM jobs WHERE worker = %s AND state = 'running'", (worker,))
    return dict(found)


def ended_among(db: Link, job_ids: Collection[str]) -> list[str]:
    """Return those of these jobs that are finished, parked or gone."""
    if not job_ids:
        return []
    found = db.all(f"SELECT id FROM jobs WHERE id = ANY(%b::text[]) AND {UNFINISHED}", (list(job_ids),))
    return list(set(job_ids).difference(job_id for (job_id,) in found))


def next_claim(db: Link) -> tuple[bool, datetime | None]:
    """Return whether any job may be ready for some worker, and when the next is due, or its rate lets it start."""
    # In the order of the index, or all that waits at gates may be looked at before one is found that does not.
    is_ready, due, opens_at = db.all(
        """
        SELECT (
                SELECT seq FROM jobs WHERE state = 'queued' AND held = 0 AND gate = 0
                ORDER BY priority DESC, seq LIMIT 1
            ) IS NOT NULL OR EXISTS (SELECT 1 FROM gates WHERE opens_at = 0),
            (SELECT min(run_at) FROM jobs WHERE state = 'scheduled'),
            (SELECT min(opens_at) FROM gates WHERE waits AND opens_at IS NOT NULL)
        """
    )[0]
    return bool(is_ready), at_or_none(min((at for at in (due, opens_at) if at is not None), default=None))


def news(db: Link) -> tuple[int, int, int, int]:
    """Return three numbers that change when anything does, when a schedule does, and when jobs were taken away.

    The fourth is how many rows transactions of users have left; see `postgres_joint`.
    """
    found = db.all(
        """
        SELECT coalesce(sum(mark), 0)::bigint, coalesce(sum(changes), 0)::bigint, coalesce(sum(rescued), 0)::bigint,
            count(*) FILTER (WHERE starts_with(name, '@'))
        FROM shards
        """
    )
    marks, changes, rescued, left = found[0]
    return marks, changes, rescued, left


def other_workers(db: Link, worker: str) -> list[str]:
    """Return the names of the other workers: those registered, and those that have jobs in hand."""
    found = db.all(
        """
        SELECT name FROM workers WHERE name <> %s
        UNION SELECT worker FROM jobs WHERE state = 'running' AND worker <> %s
        """,
        (worker, worker),
    )
    return [name for (name,) in found]


def has_overdue(db: Link, before: datetime) -> bool:
    """Return whether the lease of any job ended before an instant."""
    return bool(
        db.all("SELECT EXISTS (SELECT 1 FROM jobs WHERE state = 'running' AND lease_expires_at <= %s)", (us(before),))[
            0
        ][0]
    )


def renew(db: Link, now: datetime, worker: str, lease_seconds: float) -> bool:
    """Make all leases of a worker last from now, and its place on the list; a job that just ends is stepped over.

    No sign of life: its loop may be stuck, and has a while for that. The list comes first, as in the writer's
    transactions: one that has changed it and ends a job would wait for this, and this for it.

    Returns:
        False: it is not on the list.
    """
    until = us(now + timedelta(seconds=lease_seconds))
    done = db.execute("UPDATE workers SET lives_until = %s WHERE name = %s", (until, worker))
    db.execute(
        """
        WITH mine AS MATERIALIZED (
            SELECT seq FROM jobs WHERE worker = %s AND state = 'running' FOR UPDATE SKIP LOCKED
        )
        UPDATE jobs SET lease_expires_at = %s FROM mine WHERE jobs.seq = mine.seq
        """,
        (worker, until),
    )
    return done.rowcount > 0


def beat(db: Link, now: datetime, worker: str, vitals: Vitals | None, lease_seconds: float) -> None:
    """Record that a worker lives, and how it does."""
    told = None if vitals is None else vitals.to_json()
    db.execute(
        """
        UPDATE workers SET beat_at = %s, lives_until = greatest(lives_until, %s), vitals = coalesce(%s, vitals)
        WHERE name = %s
        """,
        (us(now), us(now + timedelta(seconds=lease_seconds)), told, worker),
    )


def leave(db: Link, worker: str) -> None:
    """Take a worker off the list."""
    db.execute("DELETE FROM workers WHERE name = %s", (worker,))


def strike(db: Link, test: str, value: object) -> None:
    """Take workers off the list that are gone; one that another process strikes off at the moment is stepped over.

    Else two processes could wait for each other that come upon the same workers in another order.
    """
    db.execute(
        f"DELETE FROM workers WHERE name IN (SELECT name FROM workers WHERE {test} FOR UPDATE SKIP LOCKED)", (value,)
    )


_SUMMED = ("mark", "rescued", "changes", *STATES)


def merge_shards(db: Link, now: datetime, names: Sequence[str]) -> None:
    """Add rows of `shards`, of whose links nothing more comes, to the row of all such."""
    sums = ", ".join(f"sum({name})" for name in _SUMMED)
    added = ", ".join(f"{name} = s.{name} + excluded.{name}" for name in _SUMMED)
    db.execute(
        f"""
        WITH gone AS (DELETE FROM shards WHERE name = ANY(%b::text[]) RETURNING *)
        INSERT INTO shards AS s (name, touched_at, {", ".join(_SUMMED)})
        SELECT '', %s, {sums} FROM gone HAVING count(*) > 0
        ON CONFLICT (name) DO UPDATE SET touched_at = excluded.touched_at, {added}
        """,
        (list(names), us(now)),
    )


def forget_processes(db: Link, now: datetime, before: datetime) -> None:
    """Forget processes that have not been heard of since an instant, all but what they have counted."""
    old = db.all("SELECT name FROM shards WHERE touched_at < %s AND name <> '' FOR UPDATE SKIP LOCKED", (us(before),))
    if old:
        merge_shards(db, now, [name for (name,) in old])
    strike(
        db,
        "lives_until < %s AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.worker = workers.name AND state = 'running')",
        us(before),
    )
