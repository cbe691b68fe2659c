"""Schedules and their ledger in the SQL that SQLite and PostgreSQL both understand.

Functions of a connection, each a part of somebody's transaction. Who calls them sees to it that nobody else changes the
schedule at the same time: SQLite has one writer, and PostgreSQL a lock for each schedule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import UnknownSchedule
from ..jobs import JobState
from ..policies import grace_of, overlap
from .base import Answer, Declare, Fired, Pause, Remove
from .instants import us, us_or_none
from .rows import ANSWER, ROW, answer_of_row, schedule_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from datetime import datetime

    from ..jobs import JobRecord, NewJob
    from ..policies import Overlap
    from .base import FireOutcome, Firing, ScheduleChange, ScheduleRow


class JobVerbs(NamedTuple):
    """What a firing does with jobs, in the SQL of one database.

    Attributes:
        unfinished: Returns the jobs of a schedule that wait or run, in the order of their arrival.
        cancel: Cancels one that waits, marks one that runs.
        insert: Takes a job in, behind others that must end first.
    """

    unfinished: Callable[[Any, str], list[JobRecord]]
    cancel: Callable[[Any, datetime, str], object]
    insert: Callable[..., JobRecord]


class Sight(NamedTuple):
    """What a firing goes by, as it stands in the database.

    Attributes:
        row: The row of its schedule; None: there is none.
        unfinished: The jobs of the schedule that wait or run, in the order of their arrival.
        is_answered: Whether the ledger has a row for its fire time.
    """

    row: ScheduleRow | None
    unfinished: Sequence[JobRecord] = ()
    is_answered: bool = False


def look(db: Any, firing: Firing, verbs: JobVerbs) -> Sight:
    """Return what one firing goes by."""
    row = schedule(db, firing.schedule)
    if firing.job is None or row is None or is_stale(firing, row):
        return Sight(row)
    is_answered = firing.version is not None and _is_answered(db, row.name, firing.job.fire_time)
    return Sight(row, verbs.unfinished(db, row.name) if minds(firing) and not is_answered else [], is_answered)


def minds(firing: Firing) -> bool:
    """Return whether a firing goes by the jobs that are there. Where each may run beside all others, they pile up."""
    return firing.overlap != "allow"


def is_stale(firing: Firing, row: ScheduleRow) -> bool:
    """Return whether a decision was made on a row that has changed since."""
    return firing.version is not None and (row.version != firing.version or row.paused)


def fire(db: Any, now: datetime, firing: Firing, sight: Sight, verbs: JobVerbs) -> Fired:
    """Answer fire times of a schedule; see `Store.fire`."""
    row = sight.row
    if row is None or is_stale(firing, row):
        return Fired(outcome=None, row=row)
    verdict = None if firing.job is None or sight.is_answered else overlap(firing.overlap, sight.unfinished)
    if firing.version is not None:
        row = _move(db, firing, runs=verdict is not None and verdict.outcome == "ran")
        if sight.is_answered:
            return Fired(outcome=None, row=schedule_of(_next_after(db, now, row)))
    if firing.missed_first is not None:
        answer = Answer(
            schedule=row.name,
            first=firing.missed_first,
            last=firing.missed_last or firing.missed_first,
            count=firing.missed_count,
            outcome="missed",
            answered_at=now,
            decided_by=firing.decided_by,
            late_because=firing.late_because,
        )
        write_answer(db, answer)
    if firing.job is None or verdict is None:
        return Fired(outcome="missed", row=row)
    record = _act(db, now, firing.job, verdict, verbs)
    if firing.job.fire_time is not None:
        answer = Answer(
            schedule=row.name,
            first=firing.job.fire_time,
            last=firing.job.fire_time,
            count=1,
            outcome=verdict.outcome,
            answered_at=now,
            job_id=None if record is None else record.id,
            blocked_by=verdict.blocked_by,
            decided_by="" if record is not None else f'overlap="{firing.overlap}"',
            late_because=firing.late_because,
            wanted_at=None if record is None else record.run_at,
        )
        write_answer(db, answer)
    running = tuple(entry.id for entry in sight.unfinished if entry.id in verdict.cancel and entry.id in verdict.behind)
    return Fired(outcome=verdict.outcome, row=row, job=record, blocked_by=verdict.blocked_by, cancelled=running)


def _act(db: Any, now: datetime, job: NewJob, verdict: Overlap, verbs: JobVerbs) -> JobRecord | None:
    """Cancel what is in the way of a job, and take it in, where the overlap says so."""
    for job_id in verdict.cancel:
        verbs.cancel(db, now, job_id)
    return verbs.insert(db, now, job, verdict.behind) if verdict.outcome == "ran" else None


def _move(db: Any, firing: Firing, *, runs: bool) -> ScheduleRow:
    """Move the watermark of a schedule."""
    assert firing.watermark is not None
    found = db.execute(
        f"""
        UPDATE schedules SET version = version + 1, watermark = ?, next_at = ?, runs = runs + ? WHERE name = ?
        RETURNING {ROW}
        """,
        (us(firing.watermark), us_or_none(firing.next_at), int(runs), firing.schedule),
    ).fetchone()
    return schedule_of(found)


def _is_answered(db: Any, name: str, fire_time: datetime | None) -> bool:
    found = db.execute("SELECT 1 FROM ledger WHERE schedule = ? AND first = ?", (name, us_or_none(fire_time)))
    return found.fetchone() is not None


def _next_after(db: Any, now: datetime, row: ScheduleRow) -> tuple[Any, ...]:
    """Give a schedule that goes by the ends of its jobs another fire time, though no job was made."""
    found: tuple[Any, ...] = db.execute(
        f"""
        UPDATE schedules SET next_at = ? + CAST(round(after_seconds * 1000000) AS BIGINT) WHERE name = ?
        RETURNING {ROW}
        """,
        (us(now), row.name),
    ).fetchone()
    return found


def write_answer(db: Any, answer: Answer) -> None:
    """Write a row of the ledger, or join it to the last one."""
    found = None
    if answer.outcome in ("missed", "paused"):  # the others share no row
        found = db.execute(
            f"SELECT seq, {ANSWER} FROM ledger WHERE schedule = ? ORDER BY seq DESC LIMIT 1", (answer.schedule,)
        ).fetchone()
    if found is not None and (last := answer_of_row(found[1:])).shares_row_with(answer):
        joined = last.joined(answer)
        db.execute(
            "UPDATE ledger SET last = ?, count = ?, answered_at = ?, late_because = ? WHERE seq = ?",
            (us(joined.last), joined.count, us(joined.answered_at), joined.late_because, found[0]),
        )
        return
    db.execute(
        f"INSERT INTO ledger ({ANSWER}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (schedule, first) DO NOTHING",
        (
            answer.schedule,
            us(answer.first),
            us(answer.last),
            answer.count,
            answer.outcome,
            us(answer.answered_at),
            answer.job_id,
            answer.blocked_by,
            answer.decided_by,
            answer.late_because,
            us_or_none(answer.wanted_at),
            us_or_none(answer.started_at),
            us_or_none(answer.finished_at),
            answer.state,
        ),
    )


def schedule(db: Any, name: str) -> ScheduleRow | None:
    """Return the row of a schedule, or None."""
    found = db.execute(f"SELECT {ROW} FROM schedules WHERE name = ?", (name,)).fetchone()
    return None if found is None else schedule_of(found)


def schedules(db: Any, names: Collection[str] | None) -> list[ScheduleRow]:
    """Return the rows of schedules; see `Store.schedules`."""
    if names is None:
        return [schedule_of(found) for found in db.execute(f"SELECT {ROW} FROM schedules ORDER BY name")]
    return [row for name in sorted(names) if (row := schedule(db, name)) is not None]


def change_schedule(db: Any, now: datetime, change: ScheduleChange, note: Callable[[Any], None]) -> ScheduleRow | None:
    """Apply a change; see `Store.set_schedule`."""
    row = schedule(db, change.name)
    match change:
        case Remove():
            db.execute("DELETE FROM schedules WHERE name = ?", (change.name,))
            db.execute("DELETE FROM ledger WHERE schedule = ?", (change.name,))
            note(db)
            return None
        case Pause():
            if row is None:
                known = [name for (name,) in db.execute("SELECT name FROM schedules")]
                raise UnknownSchedule(change.name, known)
            return row if row.paused == change.paused else _pause(db, now, change, row, note)
        case Declare():
            if row is not None and row.fingerprint == change.fingerprint and row.task == change.task:
                return row
            return _declare(db, now, change, row, note)


def _pause(db: Any, now: datetime, change: Pause, row: ScheduleRow, note: Callable[[Any], None]) -> ScheduleRow:
    watermark = row.watermark if change.paused else max(row.watermark, change.watermark or now)
    next_at = row.next_at if change.paused or row.next_at is None else change.next_at
    found = db.execute(
        f"""
        UPDATE schedules SET paused = ?, version = version + 1, watermark = ?, next_at = ? WHERE name = ?
        RETURNING {ROW}
        """,
        (change.paused, us(watermark), us_or_none(next_at), row.name),
    ).fetchone()
    if not change.paused and change.passed_first is not None:
        answer = Answer(
            schedule=row.name,
            first=change.passed_first,
            last=change.passed_last or change.passed_first,
            count=change.passed_count,
            outcome="paused",
            answered_at=now,
        )
        write_answer(db, answer)
    note(db)
    return schedule_of(found)


def _declare(
    db: Any, now: datetime, change: Declare, row: ScheduleRow | None, note: Callable[[Any], None]
) -> ScheduleRow:
    # Never back: a clock that was set back must not bring fire times a second time.
    watermark = now if row is None else max(row.watermark, now)
    found = db.execute(
        f"""
        INSERT INTO schedules (name, task, trigger, fingerprint, version, watermark, declared_at, after_seconds,
            next_at)
        VALUES (?, ?, ?, ?, 1, ?, ?, ?, ?)
        ON CONFLICT (name) DO UPDATE SET task = excluded.task, trigger = excluded.trigger,
            fingerprint = excluded.fingerprint, version = schedules.version + 1, watermark = excluded.watermark,
            declared_at = excluded.declared_at, after_seconds = excluded.after_seconds, next_at = excluded.next_at
        RETURNING {ROW}
        """,
        (
            change.name,
            change.task,
            change.trigger,
            change.fingerprint,
            us(watermark),
            us(now),
            change.after_seconds,
            us_or_none(change.next_at),
        ),
    ).fetchone()
    note(db)
    return schedule_of(found)


def amend(db: Any, job_id: str, state: str, started_at: int | None, late_because: str | None = None) -> None:
    """Write into the ledger how the first start of a job went, or that there was none."""
    db.execute(
        """
        UPDATE ledger SET started_at = ?, late_because = coalesce(?, late_because),
            outcome = CASE WHEN ? THEN 'not_started' ELSE outcome END
        WHERE job_id = ? AND started_at IS NULL
        """,
        (started_at, late_because, started_at is None and state == JobState.CANCELLED, job_id),
    )


def ledger(db: Any, name: str, limit: int, at: datetime | None) -> list[Answer]:
    """Return rows of the ledger, the newest first; see `Store.ledger`."""
    if at is None:
        found = db.execute(f"SELECT {ANSWER} FROM ledger WHERE schedule = ? ORDER BY seq DESC LIMIT ?", (name, limit))
    else:
        found = db.execute(
            f"SELECT {ANSWER} FROM ledger WHERE schedule = ? AND first <= ? AND last >= ? ORDER BY first DESC LIMIT ?",
            (name, us(at), us(at), limit),
        )
    return [answer_of_row(entry) for entry in found]


def answer_of(db: Any, name: str, job_id: str) -> Answer | None:
    """Return the row of the ledger that made a job, or None."""
    found = db.execute(f"SELECT {ANSWER} FROM ledger WHERE job_id = ? AND schedule = ?", (job_id, name)).fetchone()
    return None if found is None else answer_of_row(found)


def job_ended(db: Any, now: datetime, job_id: str, state: JobState, name: str, note: Callable[[Any], None]) -> None:
    """Write the end of a job of a schedule into the ledger and into the row of the schedule."""
    db.execute("UPDATE ledger SET finished_at = ?, state = ? WHERE job_id = ?", (us(now), state.value, job_id))
    if state is JobState.SUCCEEDED:
        db.execute("UPDATE schedules SET succeeded_at = ? WHERE name = ?", (us(now), name))
    moved = db.execute(
        """
        UPDATE schedules SET version = version + 1, next_at = ? + CAST(round(after_seconds * 1000000) AS BIGINT)
        WHERE name = ? AND after_seconds IS NOT NULL AND next_at IS NULL
        """,
        (us(now), name),
    ).rowcount
    if moved:
        note(db)


def cancelled(db: Any, job: JobRecord, outcome: FireOutcome) -> None:
    """Write into the ledger that a job was cancelled before it had begun, if it had not."""
    if job.fire_time is not None and not job.attempt and not job.deaths:
        decided_by = grace_of(job) if outcome == "missed" else ""
        db.execute("UPDATE ledger SET outcome = ?, decided_by = ? WHERE job_id = ?", (outcome, decided_by, job.id))


def reopen(db: Any, job_id: str) -> None:
    """Let the row of the ledger say that its job is unfinished again."""
    db.execute(
        """
        UPDATE ledger SET finished_at = NULL, state = NULL, started_at = NULL,
            decided_by = CASE WHEN outcome IN ('not_started', 'missed') THEN '' ELSE decided_by END,
            outcome = CASE WHEN outcome IN ('not_started', 'missed') THEN 'ran' ELSE outcome END
        WHERE job_id = ?
        """,
        (job_id,),
    )
