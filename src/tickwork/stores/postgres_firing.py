"""How schedules fire in a PostgreSQL store: functions of a link, as in `postgres_verbs`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .base import Fired
from .instants import us_or_none
from .postgres_common import (
    UNFINISHED,
    hold,
    lock_of_schedule,
    note_schedule_change,
)
from .postgres_ends import cancel
from .postgres_intake import insert
from .rows import JOB, ROW, job_of, schedule_of
from .sql_schedules import JobVerbs, Sight, is_stale, look, minds
from .sql_schedules import change_schedule as change_by
from .sql_schedules import fire as fire_by

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from ..jobs import JobRecord
    from .base import Firing, ScheduleChange, ScheduleRow
    from .postgres_link import Link


def fire(db: Link, now: datetime, firing: Firing) -> Fired:
    """Answer fire times of a schedule; see `Store.fire`."""
    return fire_all(db, now, [firing])[0]


def fire_all(db: Link, now: datetime, firings: Sequence[Firing]) -> list[Fired]:
    """Answer fire times of several schedules.

    What the firings go by is asked for all at once. Of many processes that fire at one moment, those that come too late
    find out by a single question, and take no locks.
    """
    verbs = JobVerbs(unfinished, cancel, insert)
    rows = _rows_of(db, firings)
    in_time = [firing for firing in firings if not _is_late(firing, rows.get(firing.schedule))]
    if not in_time:
        return [Fired(outcome=None, row=rows.get(firing.schedule)) for firing in firings]
    hold(db, [], {firing.schedule for firing in in_time})
    sights = _sights(db, in_time)
    answers: list[Fired] = []
    seen: set[str] = set()
    for firing in firings:
        is_known = firing.schedule in sights and firing.schedule not in seen
        sight = sights[firing.schedule] if is_known else look(db, firing, verbs)
        seen.add(firing.schedule)
        answers.append(fire_by(db, now, firing, sight, verbs))
    return answers


def _is_late(firing: Firing, row: ScheduleRow | None) -> bool:
    return row is None or is_stale(firing, row)


def _rows_of(db: Link, firings: Sequence[Firing]) -> dict[str, ScheduleRow]:
    names = list({firing.schedule for firing in firings})
    found = db.all(f"SELECT {ROW} FROM schedules WHERE name = ANY(%b::text[])", (names,))
    return {entry[0]: schedule_of(entry) for entry in found}


def _sights(db: Link, firings: Sequence[Firing]) -> dict[str, Sight]:
    """Return what the first firing of each schedule goes by."""
    rows = _rows_of(db, firings)
    first = {firing.schedule: firing for firing in reversed(firings) if firing.schedule in rows}
    theirs = {name: firing.job.fire_time for name, firing in first.items() if firing.job is not None}
    known: dict[str, list[JobRecord]] = {name: [] for name in first}
    answered: set[str] = set()
    if minding := [name for name in theirs if minds(first[name])]:
        found = db.all(
            f"SELECT {JOB} FROM jobs WHERE schedule = ANY(%b::text[]) AND {UNFINISHED} ORDER BY seq", (minding,)
        )
        for entry in found:
            known[entry[7]].append(job_of(entry))
    if theirs:
        names, times = list(theirs), [us_or_none(fire_time) for fire_time in theirs.values()]
        answered = {
            name
            for (name,) in db.all(
                """
                SELECT schedule FROM ledger
                JOIN unnest(%b::text[], %b::bigint[]) AS t (name, at) ON schedule = t.name AND first = t.at
                """,
                (names, times),
            )
        }
    return {
        name: Sight(rows[name], known[name], firing.version is not None and name in answered)
        for name, firing in first.items()
    }


def unfinished(db: Link, name: str) -> list[JobRecord]:
    """Return the jobs of a schedule that wait or run."""
    found = db.all(f"SELECT {JOB} FROM jobs WHERE schedule = %s AND {UNFINISHED} ORDER BY seq", (name,))
    return [job_of(entry) for entry in found]


def change_schedule(db: Link, now: datetime, change: ScheduleChange) -> ScheduleRow | None:
    """Apply a change; see `Store.set_schedule`."""
    db.lock([lock_of_schedule(change.name)])
    return change_by(db, now, change, note_schedule_change)
