"""What people ask of a memory store: pure functions of its jobs."""

from __future__ import annotations

from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

from ..jobs import JobState
from ..records import changed
from .views import MAX_AHEAD, Page, QueueRow, cursor_of, place_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

    from ..jobs import JobRecord
    from .views import JobQuery

MINUTE = timedelta(minutes=1)
_COUNTED: dict[JobState, str] = {state: str(state) for state in (JobState.QUEUED, JobState.SCHEDULED, JobState.RUNNING)}


def page(newest_first: Iterable[JobRecord], places: Mapping[str, int], query: JobQuery) -> Page:
    """Return some jobs; see `Store.page`."""
    before = None if query.after is None else place_of(query.after)
    wanted = (job for job in newest_first if (before is None or places[job.id] < before) and query.wants(job))
    found = list(islice(wanted, query.limit + 1))
    has_more = len(found) > query.limit
    found = found[: query.limit]
    return Page(found, cursor_of(places[found[-1].id]) if has_more else None)


def ahead(
    jobs: Iterable[JobRecord], places: Mapping[str, int], job: JobRecord, is_ready: Callable[[JobRecord], bool]
) -> int:
    """Return how many of the jobs that could be claimed have their turn before one."""
    turn = -job.priority, places[job.id]
    before = (
        other
        for other in jobs
        if other.state is JobState.QUEUED and (-other.priority, places[other.id]) < turn and is_ready(other)
    )
    return sum(1 for _ in islice(before, MAX_AHEAD))


def queues(jobs: Iterable[JobRecord], paused: Mapping[str, datetime], now: datetime, keep: int) -> list[QueueRow]:
    """Return how the queues stand; see `Store.queues`.

    Args:
        jobs: All jobs.
        paused: Since when queues are paused.
        now: The instant of the question.
        keep: How many finished jobs the store keeps.
    """
    rows: dict[str, dict[str, Any]] = {name: {"paused_at": at} for name, at in paused.items()}
    ended: dict[str, int] = {}
    finished_count, first = 0, now
    for job in jobs:
        if job.finished_at is not None:
            finished_count, first = finished_count + 1, min(first, job.finished_at)
            if job.finished_at > now - MINUTE:
                ended[job.queue] = ended.get(job.queue, 0) + 1
        elif (counted := _COUNTED.get(job.state)) is not None:
            row = rows.setdefault(job.queue, {})
            row[counted] = row.get(counted, 0) + 1
            if job.state is JobState.QUEUED:
                row["oldest_due_at"] = min(row.get("oldest_due_at", job.run_at), job.run_at)
    # A store that has ended all it keeps within the minute has forgotten more: as many in the same measure, say.
    span = (now - first) / MINUTE if finished_count >= keep and now - MINUTE < first < now else 1.0
    for name, count in ended.items():
        rows.setdefault(name, {})["per_minute"] = count / span
    return [QueueRow(name=name, **rows[name]) for name in sorted(rows)]


def reopened(job: JobRecord, now: datetime) -> JobRecord:
    """Return a job that a person has run again, as if it had never run."""
    return job.moved(
        JobState.QUEUED,
        attempt=0,
        deaths=0,
        run_at=now,
        start_by=None,
        started_at=None,
        finished_at=None,
        result=None,
        progress=None,
        cancel_requested=False,
    )


def unparked(job: JobRecord) -> JobRecord:
    """Return a job whose arguments fit a task again."""
    return changed(job, state=JobState.QUEUED, error=None, start_by=None)
