"""How jobs end in a PostgreSQL store: functions of a link, as in `postgres_verbs`.

Most ends are plain: the job has nothing in common with others, and is not tried again. They are one statement. All
others go through `_write`, and bring about what they must in ledger, schedule, batch and gates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..jobs import JobRecord, JobState
from ..records import changed
from . import postgres_limits as limits
from .base import Lease, after_attempt, after_death, attempt_of, lost_attempt
from .instants import us, us_or_none
from .postgres_common import (
    COLUMNS,
    count,
    hold,
    note_schedule_change,
    touch,
)
from .postgres_link import spread
from .postgres_watch import strike
from .rows import JOB, job_of, utf8
from .sql_attempts import write_attempts
from .sql_schedules import amend, cancelled, job_ended

if TYPE_CHECKING:
    from collections.abc import Collection, Container, Sequence
    from datetime import datetime, timedelta

    from ..jobs import Attempt
    from .base import Finish, FireOutcome
    from .postgres_link import Link


def finish(
    db: Link, now: datetime, finishes: Sequence[Finish], waited: Container[str]
) -> tuple[list[bool], list[JobRecord], bool]:
    """Write the ends of attempts; see `Store.finish`.

    Returns:
        Which ends were taken, the ended jobs among these for whose end somebody waits, and whether another claim may
        find something because of it.
    """
    accepted, ended = _finish_plain(db, now, finishes, waited)
    left = [finish for finish, is_done in zip(finishes, accepted, strict=True) if not is_done]
    if not left:
        return accepted, ended, False
    others, more, frees = _finish_each(db, now, left, waited)
    answers = iter(others)
    return [is_done or next(answers) for is_done in accepted], ended + more, frees


def became_of(db: Link, lease: Lease) -> bool | None:
    """Return whether the end of a job was written; None: the transaction that may do so is still under way.

    False: it was not, and nobody does that any more.
    """
    there = db.one("SELECT 1 FROM jobs WHERE id = %s AND token = %s AND state = 'running'", lease)
    if there is None:
        return db.one("SELECT 1 FROM finished WHERE id = %s AND token = %s", lease) is not None
    free = db.one("SELECT 1 FROM jobs WHERE id = %s AND token = %s FOR UPDATE SKIP LOCKED", lease)
    return None if free is None else False


def _finish_plain(
    db: Link, now: datetime, finishes: Sequence[Finish], waited: Container[str]
) -> tuple[list[bool], list[JobRecord]]:
    """Write the ends of jobs that have nothing in common with others, and are not tried again: most, in one statement.

    Returns:
        Which ends that were, and the ended jobs among these for whose end somebody waits.
    """
    plain = {finish.lease: finish for finish in reversed(finishes) if finish.state.is_finished}
    if not plain:
        return [False] * len(finishes), []
    rows, values = spread(
        "e",
        {
            "id": ("text", [lease.job_id for lease in plain]),
            "token": ("bigint", [lease.token for lease in plain]),
            "state": ("text", [finish.state.value for finish in plain.values()]),
            "attempt": ("int", [finish.attempt for finish in plain.values()]),
            "deaths": ("int", [finish.deaths for finish in plain.values()]),
            "started_at": ("bigint", [us_or_none(finish.started_at) for finish in plain.values()]),
            "result": ("text", [utf8(finish.result) for finish in plain.values()]),
            "error": ("text", [utf8(finish.error) for finish in plain.values()]),
            "run_at": ("bigint", [us_or_none(finish.run_at) for finish in plain.values()]),
        },
    )
    found = db.all(
        _FINISH.format(rows=rows), (*values, us(now), [lease.job_id for lease in plain if lease.job_id in waited])
    )
    done = {(entry[1], entry[15]): entry for entry in found}
    traces = []
    for lease, finish in plain.items():
        if (lease.job_id, lease.token) in done:
            count(db, "running", finish.state)
            if finish.leaves_trace:
                traces.append((lease.job_id, attempt_of(finish, done[lease.job_id, lease.token][-1], now)))
    if traces:
        write_attempts(db, traces)
    seen: set[Lease] = set()
    accepted = []
    for finish in finishes:
        accepted.append(tuple(finish.lease) in done and finish.lease not in seen)
        seen.add(finish.lease)
    return accepted, [job_of(entry) for entry in done.values() if entry[1] in waited]


_OWN = {
    "worker": "NULL",
    "lease_expires_at": "NULL",
    "finished_at": "%s::bigint",
    "run_at": "coalesce(new_run_at, run_at)",
}
_OWN |= {"started_at": "coalesce(new_started_at, started_at)"}
_OWN |= {name: f"new_{name}" for name in ("state", "attempt", "deaths", "result", "error")}
_TOLD = {"payload": "CASE WHEN id = ANY(%b::text[]) THEN payload ELSE '' END"}
_FINISH = f"""
    WITH e AS MATERIALIZED ({{rows}}), gone AS (
        DELETE FROM jobs USING e WHERE jobs.id = e.id AND jobs.token = e.token AND jobs.state = 'running'
            AND schedule IS NULL AND batch IS NULL AND gate1 IS NULL
        RETURNING jobs.*, {
    ", ".join(
        f"e.{name} AS new_{name}" for name in ("state", "attempt", "deaths", "started_at", "result", "error", "run_at")
    )
}
    ), kept AS (
        INSERT INTO finished ({JOB}) SELECT {", ".join(_OWN.get(name, name) for name in COLUMNS)} FROM gone
        RETURNING {JOB}
    )
    SELECT {", ".join(_TOLD.get(name, name) for name in COLUMNS)},
        (SELECT gone.worker FROM gone WHERE gone.id = kept.id) FROM kept
"""


def _finish_each(
    db: Link, now: datetime, finishes: Sequence[Finish], waited: Container[str]
) -> tuple[list[bool], list[JobRecord], bool]:
    """Write the ends of attempts, whatever they bring about."""
    among = [ended.lease.job_id for ended in finishes]
    hold(db, among)
    theirs = "id = ANY(%b::text[]) AND state = 'running'"
    held = db.all(f"SELECT {JOB} FROM jobs WHERE {theirs} ORDER BY seq FOR UPDATE", (among,))
    found = {entry[1]: (entry[0], job_of(entry)) for entry in held}
    accepted: list[bool] = []
    moved: list[tuple[int, Finish, JobRecord, JobRecord]] = []
    traces: list[tuple[str, Attempt]] = []
    for ended in finishes:
        seq, record = found.get(ended.lease.job_id, (0, None))
        accepted.append(record is not None and record.token == ended.lease.token)
        if record is not None and accepted[-1]:
            del found[record.id]  # it ends once
            moved.append((seq, ended, record, after_attempt(record, ended, now)))
            if ended.leaves_trace:
                traces.append((record.id, attempt_of(ended, record.worker, now)))
    if not moved:
        return accepted, [], False
    _write(db, [(seq, before, after) for seq, _, before, after in moved])
    if traces:
        write_attempts(db, traces)
    for _, ended, _, after in moved:
        if after.fire_time is not None:
            amend(db, after.id, after.state, us_or_none(after.started_at), ended.late_because)
        if after.state is JobState.PARKED:
            _note_misfit(db, after.id, ended.misfit)
    ends = [after for *_, after in moved if after.has_ended]
    frees = len(ends) < len(moved) or any(record.gates for record in ends)
    for record in ends:
        frees |= _ended(db, now, record)
    return accepted, [record for record in ends if record.id in waited], frees


def _write(db: Link, moved: Sequence[tuple[int, JobRecord, JobRecord]]) -> None:
    """Write what has become of running or waiting jobs: row, before and after. What is finished moves."""
    ends = _number_ends(db, [after for _, before, after in moved if after.has_ended])
    final = [(seq, after) for seq, _, after in moved if after.state.is_finished]
    others = [(seq, after) for seq, _, after in moved if not after.state.is_finished]
    if final:
        rows, values = spread("e", _changes(final, ends))
        db.execute(
            f"""
            WITH e AS MATERIALIZED ({rows}), gone AS (
                DELETE FROM jobs USING e WHERE jobs.seq = e.seq RETURNING jobs.*, {_NEW}
            )
            INSERT INTO finished ({JOB}, batch_end)
            SELECT {", ".join(_MOVED.get(name, name) for name in COLUMNS)}, coalesce(new_end, batch_end) FROM gone
            """,
            values,
        )
    if others:
        rows, values = spread("e", _changes(others, ends))
        db.execute(
            f"""
            WITH e AS MATERIALIZED ({rows})
            UPDATE jobs SET {", ".join(f"{name} = e.{name}" for name in _CHANGED)}, worker = NULL,
                lease_expires_at = NULL, batch_end = coalesce(e.new_end, jobs.batch_end),
                gate = CASE WHEN e.state = 'queued' AND gate1 IS NOT NULL THEN 1 ELSE 0 END
            FROM e WHERE jobs.seq = e.seq
            """,
            values,
        )
    for seq, before, after in moved:
        count(db, before.state, after.state, after.batch)
        is_back = before.state is JobState.RUNNING and after.state is JobState.QUEUED and before.lost == after.lost
        if is_back and after.gates and before.started_at is after.started_at is None:
            limits.given_back(db, after.task, seq, after.gates)
    touch(db, [after for _, _, after in moved if after.gates])


_CHANGED = ("state", "attempt", "deaths", "lost", "started_at", "finished_at", "result", "error", "run_at")
_NEW = ", ".join(f"e.{name} AS new_{name}" for name in _CHANGED) + ", e.new_end"
_MOVED = {name: f"new_{name}" for name in _CHANGED} | {"worker": "NULL", "lease_expires_at": "NULL"}


def _changes(moved: Sequence[tuple[int, JobRecord]], ends: dict[str, int]) -> dict[str, tuple[str, Sequence[object]]]:
    """Return what jobs become, by columns."""
    return {
        "seq": ("bigint", [seq for seq, _ in moved]),
        "state": ("text", [after.state.value for _, after in moved]),
        "attempt": ("int", [after.attempt for _, after in moved]),
        "deaths": ("int", [after.deaths for _, after in moved]),
        "lost": ("int", [after.lost for _, after in moved]),
        "started_at": ("bigint", [us_or_none(after.started_at) for _, after in moved]),
        "finished_at": ("bigint", [us_or_none(after.finished_at) for _, after in moved]),
        "result": ("text", [utf8(after.result) for _, after in moved]),
        "error": ("text", [utf8(after.error) for _, after in moved]),
        "run_at": ("bigint", [us(after.run_at) for _, after in moved]),
        "new_end": ("bigint", [ends.get(after.id) for _, after in moved]),
    }


def _number_ends(db: Link, ended: Sequence[JobRecord]) -> dict[str, int]:
    """Number the ends of jobs of batches, by their ids."""
    of_batch: dict[str, list[str]] = {}
    for record in ended:
        if record.batch is not None:
            of_batch.setdefault(record.batch, []).append(record.id)
    numbers: dict[str, int] = {}
    for batch, job_ids in sorted(of_batch.items()):
        found = db.one("UPDATE batches SET ends = ends + %s WHERE id = %s RETURNING ends", (len(job_ids), batch))
        if found is not None:
            numbers.update(zip(job_ids, range(found[0] - len(job_ids) + 1, found[0] + 1), strict=True))
    return numbers


def _note_misfit(db: Link, job_id: str, fingerprint: str | None) -> None:
    """Write down which fingerprint has refused the arguments of a parked job; None: it is parked for another reason."""
    if fingerprint is None:
        db.execute("UPDATE jobs SET misfit = NULL WHERE id = %s", (job_id,))
    else:
        db.execute(
            """
            UPDATE jobs SET misfit = coalesce(misfit || ' ', '') || %s::text
            WHERE id = %s AND strpos(coalesce(misfit, ''), %s) = 0
            """,
            (fingerprint, job_id, fingerprint),
        )


def _ended(db: Link, now: datetime, record: JobRecord) -> bool:
    """Write the end of a job where it belongs, ledger and schedule, and return whether a job waited for it."""
    if record.schedule is None:
        return False
    followers = [
        job_id for (job_id,) in db.all("DELETE FROM behind WHERE before_id = %s RETURNING job_id", (record.id,))
    ]
    if followers:
        found = db.all(
            f"""
            UPDATE jobs SET held = held - 1, gate = (gate1 IS NOT NULL AND state = 'queued')::int
            WHERE id = ANY(%b::text[]) RETURNING {JOB}
            """,
            (followers,),
        )
        touch(db, [job_of(entry) for entry in found])
    job_ended(db, now, record.id, record.state, record.schedule, note_schedule_change)
    return bool(followers)


def release(db: Link, now: datetime, lease: Lease) -> bool:
    """Give an unstarted job back, or cancel it where that was asked for; False: it has another owner."""
    hold(db, [lease.job_id])
    found = db.one(
        f"SELECT {JOB} FROM jobs WHERE id = %s AND token = %s AND state = 'running' FOR UPDATE",
        (lease.job_id, lease.token),
    )
    if found is None:
        return False
    record = job_of(found)
    if record.gates and record.started_at is None:
        limits.given_back(db, record.task, found[0], record.gates)
    db.execute(
        """
        UPDATE jobs SET state = 'queued', worker = NULL, lease_expires_at = NULL, started_at = NULL,
            gate = (gate1 IS NOT NULL)::int
        WHERE seq = %s
        """,
        (found[0],),
    )
    count(db, "running", "queued", record.batch)
    touch(db, [record])
    if record.cancel_requested:
        cancel(db, now, lease.job_id)
    return True


def rescue(
    db: Link, now: datetime, dead: Collection[str], overdue: timedelta | None, max_deaths: int
) -> list[JobRecord]:
    """Take away the jobs of dead workers, and those whose lease ended that long ago (None: not those)."""
    theirs = "state = 'running' AND (worker = ANY(%b::text[]) OR lease_expires_at <= %s)"
    values = (list(dead), None if overdue is None else us(now - overdue))
    hold(db, [job_id for (job_id,) in db.all(f"SELECT id FROM jobs WHERE {theirs}", values)])
    found = db.all(f"SELECT {JOB} FROM jobs WHERE {theirs} ORDER BY seq FOR UPDATE SKIP LOCKED", values)
    moved = [(entry[0], record := job_of(entry), _after_death(record, now, max_deaths)) for entry in found]
    if moved:
        _write(db, moved)
        traces = [(before.id, lost_attempt(before, now)) for _, before, _ in moved if before.started_at is not None]
        if traces:
            write_attempts(db, traces)
        db.tally["rescued"] += len(moved)  # their owners may live, and look
    for _, before, after in moved:
        if after.fire_time is not None:
            amend(db, after.id, after.state, us_or_none(before.started_at))
        if after.state is JobState.PARKED:
            _note_misfit(db, after.id, None)
        if after.state is not JobState.QUEUED:
            _ended(db, now, after)
    if dead:
        strike(db, "name = ANY(%b::text[])", list(dead))
    return [after for *_, after in moved]


def _after_death(record: JobRecord, now: datetime, max_deaths: int) -> JobRecord:
    state, deaths, error = after_death(record, max_deaths)
    return changed(
        record,
        state=state,
        deaths=deaths,
        lost=record.lost + 1,
        error=error,
        worker=None,
        lease_expires_at=None,
        finished_at=now if state.is_finished else None,
    )


def cancel(
    db: Link,
    now: datetime,
    job_id: str,
    outcome: FireOutcome = "not_started",
    *,
    seen: JobState | None = None,
) -> JobRecord | None:
    """Cancel a job that waits, mark one that runs; None: there was nothing to cancel."""
    hold(db, [job_id])
    found = db.one(f"SELECT {JOB} FROM jobs WHERE id = %s FOR UPDATE", (job_id,))
    if found is None or seen not in (None, (record := job_of(found)).state):
        return None
    record = job_of(found)
    if record.state is JobState.RUNNING:
        db.execute("UPDATE jobs SET cancel_requested = true WHERE id = %s", (job_id,))
        return changed(record, cancel_requested=True)
    cancelled(db, record, outcome)
    after = changed(record, state=JobState.CANCELLED, finished_at=now)
    _write(db, [(found[0], record, after)])
    db.execute("DELETE FROM behind WHERE job_id = %s", (job_id,))
    if record.state is not JobState.PARKED:
        _ended(db, now, after)
    else:  # its end is written already, all but the last word
        db.execute("UPDATE ledger SET finished_at = %s, state = 'cancelled' WHERE job_id = %s", (us(now), job_id))
    return after
