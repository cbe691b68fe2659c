"""What may be wrong with any store in a database, in the SQL that SQLite and PostgreSQL both understand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from .instants import us
from .sql_batches import STATES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

STUCK = timedelta(seconds=60)
"""A lease that has been over for so long should have been taken away by any worker that lives."""

Repair = Callable[[Any], object]
"""Mends something, given the connection."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something in a store that should not be.

    Attributes:
        rule: What kind of thing: "damaged", "old tables", "stuck lease", "orphaned", "miscounted".
        text: What it is, with the ids.
        remedy: What to do.
        repair: What mends it; none: a person or a worker must.
    """

    rule: str
    text: str
    remedy: str
    repair: tuple[Repair, ...] = ()


def stuck(db: Any, now: datetime) -> Iterator[Finding]:
    """Yield the jobs that are running in the hands of nobody."""
    found = db.execute(
        """
        SELECT id, task, worker FROM jobs WHERE state = 'running' AND (lease_expires_at < ? OR worker IS NULL)
        ORDER BY seq LIMIT 100
        """,
        (us(now - STUCK),),
    )
    for job_id, task, worker in found.fetchall():
        yield Finding(
            "stuck lease",
            f"job {job_id} ({task}) is running in worker {worker}, whose lease is over",
            "start a worker on this store: it takes such jobs away, and they run again",
        )


_BEHIND = {
    "waiting rows of jobs that are gone": """
        behind WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE id = job_id)""",
    "waiting rows for jobs that have ended": """
        behind WHERE NOT EXISTS (
            SELECT 1 FROM jobs WHERE id = before_id AND state IN ('queued', 'scheduled', 'running')
        )""",
}


def orphans(db: Any, others: Mapping[str, str]) -> Iterator[Finding]:
    """Yield rows that belong to nothing.

    Args:
        db: The connection.
        others: Further such rows, beside those of jobs that wait for others: a table and a condition, by what they are.
    """
    for what, rows in (*_BEHIND.items(), *others.items()):
        (count,) = db.execute(f"SELECT count(*) FROM {rows}").fetchone()
        if count:
            yield Finding(
                "orphaned", f"{count} {what}", "--repair removes them", (partial(_delete, rows=rows), recount)
            )


def _delete(db: Any, rows: str) -> None:
    db.execute(f"DELETE FROM {rows}")


_THERE = "(SELECT count(*) FROM behind WHERE job_id = jobs.id)"
_WAITS = "state IN ('queued', 'scheduled')"


def recount(db: Any) -> None:
    """Count anew for how many others each job waits."""
    db.execute(f"UPDATE jobs SET held = {_THERE} WHERE {_WAITS} AND held <> {_THERE}")


def miscounts(db: Any) -> Iterator[Finding]:
    """Yield the jobs that wait for another number of others than there are."""
    found = db.execute(
        f"SELECT id, held, {_THERE} FROM jobs WHERE {_WAITS} AND held <> {_THERE} ORDER BY seq LIMIT 100"
    )
    for job_id, held, there in found.fetchall():
        text = f"job {job_id} waits for {held} others, and {there} are there"
        yield Finding("miscounted", text, "--repair counts anew", (recount,))


def compare(
    rows: Iterable[tuple[Any, str, int, int]], name: Callable[[Any], str], mend: Callable[[Any], Repair]
) -> Iterator[Finding]:
    """Yield where as many jobs as are counted are not there.

    Args:
        rows: What, a state, how many are said to be in it, and how many are; what belongs together is added up.
        name: Returns what such jobs are called, given what.
        mend: Returns what counts them anew.
    """
    sums: dict[Any, dict[str, tuple[int, int]]] = {}
    for what, state, said, there in rows:
        states = sums.setdefault(what, dict.fromkeys(STATES, (0, 0)))
        states[state] = states[state][0] + said, states[state][1] + there
    for what, states in sums.items():
        for state, (said, there) in states.items():
            if said != there:
                text = f"{said} {name(what)} are said to be {state}, and {there} are"
                yield Finding("miscounted", text, "--repair counts anew", (mend(what),))
