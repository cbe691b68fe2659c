"""Why a job does not run, or how it ended: one answer as a sentence.

Pure: who asks has read the job, what stands in its way, and which workers live.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from .durations import format_about
from .jobs import JobState
from .payloads import ErrorInfo
from .payloads.errors_as_data import first_line
from .records import record
from .zones import get_zone

if TYPE_CHECKING:
    from datetime import datetime

    from .jobs import JobRecord
    from .stores.blockers import Blocker
    from .stores.views import Standing, WorkerRow

__all__ = ["JobFacts", "JobWhy", "Reason", "why_job"]

Reason = Literal[
    "delayed",
    "retry",
    "behind",
    "queue_paused",
    "no_worker",
    "unknown_task",
    "unclaimed_queue",
    "limit",
    "in_line",
    "claimed",
    "running",
    "lost",
    "succeeded",
    "failed",
    "cancelled",
    "parked",
]
"""Why a job does not run now, or that it does. "in_line": it waits for a free worker; "lost": its worker has died."""


@record
class JobWhy:
    """Why a job does not run, or how it ended.

    Attributes:
        sentence: The answer; what `str` gives.
        reason: Its kind, for programs.
        job_id: The job.
        until: When that changes by itself, where that is known (UTC).
        by: What stands in the way: the id of a job, a queue, a task; or the worker that has it.
    """

    sentence: str
    reason: Reason
    job_id: str
    until: datetime | None = None
    by: str | None = None

    def __str__(self) -> str:
        return self.sentence


@record
class JobFacts:
    """What is known about a job.

    Attributes:
        standing: The job, and what stands in its way in the store.
        before: The first of the jobs that must end before it; None: the store does not have it, or there is none.
        workers: The worker processes that live.
        zone: The IANA key of the zone in which times are told.
        now: The instant of the question (UTC).
    """

    standing: Standing
    before: JobRecord | None
    workers: list[WorkerRow]
    zone: str
    now: datetime


def why_job(facts: JobFacts) -> JobWhy:
    """Say why a job does not run, or how it ended."""
    job = facts.standing.job
    told, reason, until, by = _STATES[job.state](facts, job)
    return JobWhy(sentence=f"job {job.id} of {job.task} {told}", reason=reason, job_id=job.id, until=until, by=by)


_Told = tuple[str, Reason, "datetime | None", "str | None"]


# -- it waits -------------------------------------------------------------------------------------------------------


def _scheduled(facts: JobFacts, job: JobRecord) -> _Told:
    if job.run_at <= facts.now:  # the next claim moves it on
        return _queued(facts, job)
    until = f"until {_shown(job.run_at, facts)}, for {_age(facts.now, job.run_at)} more"
    paused = "" if facts.standing.queue_paused_at is None else f"; its queue {job.queue!r} is paused besides"
    if job.attempt:
        error = "" if job.error is None else f", which ended with {ErrorInfo.from_json(job.error).headline}"
        told = f"waits {until}, for its next attempt after the {_ordinal(job.attempt)}{error}{paused}"
        return told, "retry", job.run_at, None
    return f"is delayed {until}{paused}", "delayed", job.run_at, None


def _queued(facts: JobFacts, job: JobRecord) -> _Told:
    standing, since = facts.standing, f"has been due for {_age(job.run_at, facts.now)}"
    if standing.behind:
        return f"{since} and waits behind {_before(facts)}", "behind", None, standing.behind[0]
    if standing.queue_paused_at is not None:
        at = _shown(standing.queue_paused_at, facts)
        told = f"{since} and waits: its queue {job.queue!r} is paused since {at}; resume the queue"
        return told, "queue_paused", None, job.queue
    if not facts.workers:
        return (
            f"{since} and waits: no worker process is alive; start one, as with `tickwork run`",
            "no_worker",
            None,
            None,
        )
    if not any(job.task in worker.tasks for worker in facts.workers):
        live = _listed(facts.workers)
        told = f"{since} and waits: no live worker knows its task ({live}); start one whose app includes {job.task!r}"
        return told, "unknown_task", None, job.task
    if not any(job.task in worker.tasks and worker.claims_from(job.queue) for worker in facts.workers):
        live = _listed(facts.workers)
        told = f"{since} and waits: no live worker that knows its task claims from its queue {job.queue!r} ({live})"
        return f"{told}; start one with --queues {job.queue}", "unclaimed_queue", None, job.queue
    if standing.gate is not None:
        return _at_gate(since, standing.gate, facts)
    return f"{since} and waits for a free worker: {_ahead(standing)} before it", "in_line", None, None


def _at_gate(since: str, gate: Blocker, facts: JobFacts) -> _Told:
    """Say which limit or rate a job waits for."""
    whose = f"of key {gate.key!r}" if gate.key else "of its task"
    first = gate.held_by[0] if gate.held_by else None
    if gate.frees_at is not None:
        told = f"{since} and waits: the {gate.kind} {whose} lets the next job start at {_shown(gate.frees_at, facts)}"
        return told, "limit", gate.frees_at, first
    more = f" and {len(gate.held_by) - 1} more" if len(gate.held_by) > 1 else ""
    held = f", which job {first}{more} hold{'' if more else 's'}" if first else ""
    return f"{since} and waits for the {gate.kind} {whose}{held}", "limit", None, first


def _before(facts: JobFacts) -> str:
    """Return the jobs that must end before it, with what they do."""
    behind, schedule = facts.standing.behind, facts.standing.job.schedule
    doing = "" if facts.before is None else f", which is {facts.before.state}"
    more = f" and {len(behind) - 1} more" if len(behind) > 1 else ""
    return f"job {behind[0]}{doing}{more}: the overlap of schedule {schedule} lets it begin when that has ended"


def _ahead(standing: Standing) -> str:
    count = standing.ahead
    if standing.has_more_ahead:
        return f"{count:,} jobs or more are"
    return "no job is" if not count else f"{count} job{' is' if count == 1 else 's are'}"


def _listed(workers: list[WorkerRow]) -> str:
    names = ", ".join(str(worker) for worker in workers[:3])
    return f"{names} and {len(workers) - 3} more" if len(workers) > 3 else names


# -- it runs --------------------------------------------------------------------------------------------------------


def _running(facts: JobFacts, job: JobRecord) -> _Told:
    worker = next((worker for worker in facts.workers if worker.name == job.worker), None)
    asked = "; its cancellation was asked for" if job.cancel_requested else ""
    if worker is None:
        rescue = "another takes it over within seconds" if facts.workers else "the next one to start takes it over"
        return f"was in the hands of worker {job.worker}, which is gone; {rescue}{asked}", "lost", None, job.worker
    lease = "" if job.lease_expires_at is None else f"; its lease holds until {_shown(job.lease_expires_at, facts)}"
    if job.started_at is None:
        told = f"is claimed by worker {worker}, and has begun there just now or waits for a free place{lease}{asked}"
        return told, "claimed", job.lease_expires_at, job.worker
    told = f"runs on worker {worker} for {_age(job.started_at, facts.now)}, in its {_ordinal(job.attempt + 1)} attempt"
    return f"{told}{_progress(job)}{lease}{asked}", "running", job.lease_expires_at, job.worker


def _progress(job: JobRecord) -> str:
    if job.progress is None:
        return ""
    of = "" if job.progress.total is None else f" of {job.progress.total:g}"
    message = "" if job.progress.message is None else f" ({job.progress.message})"
    return f"; it has told of {job.progress.done:g}{of}{message}"


# -- it has ended ---------------------------------------------------------------------------------------------------


def _succeeded(facts: JobFacts, job: JobRecord) -> _Told:
    return f"succeeded {_end(facts, job)}", "succeeded", None, None


def _failed(facts: JobFacts, job: JobRecord) -> _Told:
    attempts = f", in its {_ordinal(job.attempt)} attempt" if job.attempt else ""
    error = "" if job.error is None else f": {ErrorInfo.from_json(job.error).headline}"
    return f"failed {_end(facts, job)}{attempts}{error}; it runs again when it is retried", "failed", None, None


def _cancelled(facts: JobFacts, job: JobRecord) -> _Told:
    before = "" if job.started_at is not None or job.attempt or job.deaths else " before it began"
    return f"was cancelled {_end(facts, job)}{before}; it runs again when it is retried", "cancelled", None, None


def _parked(facts: JobFacts, job: JobRecord) -> _Told:
    info = None if job.error is None else ErrorInfo.from_json(job.error)
    reason = "nobody knows why" if info is None else first_line(info.message)
    if info is not None and info.type.endswith(".InvalidPayload"):
        remedy = "it runs again when a worker comes whose task takes these arguments, or when it is retried"
    else:
        remedy = "it runs again when it is retried"
    return f"is parked: {reason}; {remedy}", "parked", None, None


def _end(facts: JobFacts, job: JobRecord) -> str:
    if job.finished_at is None:
        return "at a time that is not known"
    took = "" if job.started_at is None else f" after {_span(job.started_at, job.finished_at)}"
    return f"at {_shown(job.finished_at, facts)}{took}"


_STATES = {
    JobState.SCHEDULED: _scheduled,
    JobState.QUEUED: _queued,
    JobState.RUNNING: _running,
    JobState.SUCCEEDED: _succeeded,
    JobState.FAILED: _failed,
    JobState.CANCELLED: _cancelled,
    JobState.PARKED: _parked,
}


def _ordinal(number: int) -> str:
    if 10 < number % 100 < 14:
        return f"{number}th"
    return f"{number}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th') }"


def _age(start: datetime, end: datetime) -> str:
    """Return how long something has gone on; beyond a second nobody reads the milliseconds."""
    seconds = (end - start).total_seconds()
    return format_about(max(0.0, seconds if seconds < 1 else round(seconds)))


def _span(start: datetime, end: datetime) -> str:
    return format_about(max(0.0, (end - start).total_seconds()))


def _shown(at: datetime, facts: JobFacts) -> str:
    """Return an instant as the zone shows it, rounded to seconds."""
    here = (at + timedelta(milliseconds=500)).replace(microsecond=0).astimezone(get_zone(facts.zone).info)
    return f"{here:%Y-%m-%d %H:%M:%S %z}"
