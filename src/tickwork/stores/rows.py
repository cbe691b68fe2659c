"""Jobs, schedules and ledger rows as tuples of a database, whose columns are named and ordered alike in all of them."""

from __future__ import annotations

from typing import Any

from ..jobs import JobRecord, JobState, Progress
from .base import Answer, ScheduleRow
from .instants import at, at_or_none

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


def job_of(found: tuple[Any, ...]) -> JobRecord:
    """Return the job of a row that begins with the columns `JOB`."""
    return JobRecord(
        id=found[1],
        task=found[2],
        payload=found[3],
        run_at=at(found[4]),
        queue=found[5],
        priority=found[6],
        schedule=found[7],
        fire_time=at_or_none(found[8]),
        start_by=at_or_none(found[9]),
        is_once=bool(found[10]),
        state=_STATES[found[11]],
        enqueued_at=at(found[12]),
        attempt=found[13],
        deaths=found[14],
        token=found[15],
        worker=found[16],
        lease_expires_at=at_or_none(found[17]),
        started_at=at_or_none(found[18]),
        finished_at=at_or_none(found[19]),
        result=found[20],
        error=found[21],
        cancel_requested=bool(found[22]),
        lost=found[23],
        progress=None if found[24] is None else Progress.from_json(found[24]),
        key=found[25],
        gates=() if found[26] is None else (found[26],) if found[27] is None else (found[26], found[27]),
        batch=found[28],
        batch_index=found[29],
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
