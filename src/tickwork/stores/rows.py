"""Jobs, schedules and ledger rows as tuples of a database, whose columns are named and ordered alike in all of them."""

from __future__ import annotations

from typing import Any

from ..jobs import JobRecord, JobState, Progress
from ..records import copier
from .base import Answer, ScheduleRow
from .instants import EPOCH, MICROSECOND, at, at_or_none

_STATES = {str(state): state for state in JobState}

JOB = """seq, id, task, payload, run_at, queue, priority, schedule, fire_time, start_by, is_once, state, enqueued_at,
    attempt, deaths, token, worker, lease_expires_at, started_at, finished_at, result, error, cancel_requested, lost,
    progress, key, gate1, gate2, batch, batch_index"""
ROW = """name, task, trigger, fingerprint, version, watermark, declared_at, paused, runs, after_seconds, next_at,
    succeeded_at"""
ANSWER = """schedule, first, last, count, outcome, answered_at, job_id, blocked_by, decided_by, late_because, wanted_at,
    started_at, finished_at, state"""


def utf8(json: str | None) -> str | None:
    """Return JSON that can be written as UTF-8: what stands for no character is written as JSON's escape of it."""
    return json if json is None or json.isascii() else json.encode("utf-8", "backslashreplace").decode()


_record = copier(
    JobRecord,
    *("id", "task", "payload", "run_at", "queue", "priority", "schedule", "fire_time", "start_by", "is_once", "state"),
    *("enqueued_at", "attempt", "deaths", "token", "worker", "lease_expires_at", "started_at", "finished_at", "result"),
    *("error", "cancel_requested", "lost", "progress", "key", "gates", "batch", "batch_index"),
)
"""Makes a record of all its fields: those of `JOB` after the first, with the gates in one."""


def job_of(found: tuple[Any, ...]) -> JobRecord:
    """Return the job of a row that begins with the columns `JOB`."""
    _, job_id, task, payload, run_at, queue, priority, schedule, fire_time, start_by, is_once, state, *middle = found
    enqueued_at, attempt, deaths, token, worker, leased, started_at, finished_at, result, error, *last = middle
    is_to_be_cancelled, lost, progress, key, gate1, gate2, batch, batch_index, *_ = last
    return _record(
        None,
        job_id,
        task,
        payload,
        EPOCH + run_at * MICROSECOND,  # instants as in `at`, without the calls
        queue,
        priority,
        schedule,
        None if fire_time is None else EPOCH + fire_time * MICROSECOND,
        None if start_by is None else EPOCH + start_by * MICROSECOND,
        is_once == 1,
        _STATES[state],
        EPOCH + enqueued_at * MICROSECOND,
        attempt,
        deaths,
        token,
        worker,
        None if leased is None else EPOCH + leased * MICROSECOND,
        None if started_at is None else EPOCH + started_at * MICROSECOND,
        None if finished_at is None else EPOCH + finished_at * MICROSECOND,
        result,
        error,
        is_to_be_cancelled == 1,
        lost,
        None if progress is None else Progress.from_json(progress),
        key,
        () if gate1 is None else (gate1,) if gate2 is None else (gate1, gate2),
        batch,
        batch_index,
    )


def schedule_of(found: tuple[Any, ...]) -> ScheduleRow:
    """Return the schedule of a row of the columns `ROW`."""
    return ScheduleRow(
        name=found[0],
        task=found[1],
        trigger=found[2],
        fingerprint=found[3],
        version=found[4],
        watermark=at(found[5]),
        declared_at=at(found[6]),
        paused=bool(found[7]),
        runs=found[8],
        after_seconds=found[9],
        next_at=at_or_none(found[10]),
        succeeded_at=at_or_none(found[11]),
    )


def answer_of_row(found: tuple[Any, ...]) -> Answer:
    """Return the answer of a row of the columns `ANSWER`."""
    return Answer(
        schedule=found[0],
        first=at(found[1]),
        last=at(found[2]),
        count=found[3],
        outcome=found[4],
        answered_at=at(found[5]),
        job_id=found[6],
        blocked_by=found[7],
        decided_by=found[8],
        late_because=found[9],
        wanted_at=at_or_none(found[10]),
        started_at=at_or_none(found[11]),
        finished_at=at_or_none(found[12]),
        state=None if found[13] is None else JobState(found[13]),
    )
