"""`tickwork jobs`, and what it shows, retries, cancels and deletes: jobs in the file of an app, also while it runs."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from ..clock import SystemClock
from ..durations import format_about, format_seconds
from ..errors import InvalidOption, TickworkError
from ..job_info import attempt_data
from ..jobs import JobState
from ..program import OK, USAGE
from ..stores.views import WAITING
from ..zones import zone_key
from .names import task_of_jobs
from .output import as_json, lines, table
from .target import load

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable, Iterator
    from datetime import datetime

    from ..app import App
    from ..explain_job import JobWhy
    from ..job_info import JobInfo, JobPage
    from ..jobs import Attempt
    from ..payloads import ErrorInfo
    from ..stores.views import WorkerRow

MAX_CELL = 100
"""Characters of an error in a table: `jobs show` has the rest."""
MAX_ARGUMENT = 1_000
"""Characters of an argument where a job is shown; `--json` has the rest."""
INSTEAD = "await app.jobs.list(), .get(id) or .why(id)"


def run_jobs(options: argparse.Namespace) -> int:
    """List jobs, the newest first."""
    app = load(options.target, show_traceback=options.verbose)

    async def read() -> tuple[JobPage, set[str], list[WorkerRow]]:
        async with app.looking(INSTEAD):
            page = await app.jobs.list(
                state=options.state,
                task=None if options.task is None else await task_of_jobs(app, options.task),
                queue=options.queue,
                schedule=options.schedule,
                batch=options.batch,
                limit=options.limit,
                after=options.after,
            )
            if options.json or not any(job.state in WAITING for job in page.jobs):
                return page, set(), []
            return page, set(await app._store_now().paused_queues()), await app.jobs.workers()

    page, paused, workers = asyncio.run(read())
    if options.json:
        as_json({"jobs": [job.to_data(traceback=False) for job in page.jobs], "next": page.next})
        return OK
    now = SystemClock().now()
    known = {task for worker in workers for task in worker.tasks} if workers else None
    table(
        ("job", "task", "state", "queue", "enqueued", "tries", "what is known"),
        [
            (
                job.id,
                job.task,
                str(job.state),
                job.queue,
                f"{age(job.enqueued_at, now)} ago",
                str(job.attempt),
                _known(job, now, paused, known) or "-",
            )
            for job in page.jobs
        ],
    )
    if page.next is not None:
        print(f"tickwork: there are more: --after {page.next}", file=sys.stderr)
    return OK


def run_jobs_show(options: argparse.Namespace) -> int:
    """Show all that is known of one job."""
    app = load(options.target, show_traceback=options.verbose)
    key = app.timezone if options.tz is None else zone_key(options.tz, "--tz")

    async def read() -> tuple[JobInfo, list[Attempt], JobWhy]:
        async with app.looking(INSTEAD):
            job = await app.jobs.get(options.id, shows_names=options.show_args)
            return job, await app.jobs.attempts(options.id), await app.jobs.why(options.id)

    job, attempts, why = asyncio.run(read())
    if options.json:
        as_json({"job": job.to_data(), "attempts": [attempt_data(one) for one in attempts], "why": why_data(why)})
    else:
        lines(_shown(job, attempts, why, ZoneInfo(key)))
    return OK


def run_jobs_retry(options: argparse.Namespace) -> int:
    """Have jobs run again."""
    if options.failed == bool(options.ids):
        expected = "given, or --failed for all that have failed" if not options.ids else "left out with --failed"
        raise InvalidOption("ID", expected, " ".join(options.ids))
    if options.task is not None and not options.failed:
        raise InvalidOption("--task", "given with --failed", options.task)
    if not options.failed:
        return _change(options, "is queued again", lambda app: app.jobs.retry)
    app = load(options.target, show_traceback=options.verbose)

    async def retry() -> int:
        async with app.looking(INSTEAD):
            return await app.jobs.retry_failed(None if options.task is None else await task_of_jobs(app, options.task))

    count = asyncio.run(retry())
    if options.json:
        as_json({"retried": count})
    else:
        lines([f"{count} job{' is' if count == 1 else 's are'} queued again"])
    return OK


def run_jobs_cancel(options: argparse.Namespace) -> int:
    """Cancel jobs."""
    return _change(options, "is cancelled", lambda app: app.jobs.cancel)


def run_jobs_delete(options: argparse.Namespace) -> int:
    """Forget jobs."""
    return _change(options, "is deleted", lambda app: app.jobs.delete)


def _change(options: argparse.Namespace, said: str, way: Callable[[App], Callable[[str], Awaitable[JobInfo]]]) -> int:
    """Change each of the jobs that are named; one that refuses keeps none of the others from it."""
    app = load(options.target, show_traceback=options.verbose)

    async def change() -> tuple[list[JobInfo], list[TickworkError]]:
        done, refused = [], []
        async with app.looking(INSTEAD):
            for job_id in options.ids:
                try:
                    done.append(await way(app)(job_id))
                except TickworkError as error:
                    refused.append(error)
        return done, refused

    done, refused = asyncio.run(change())
    if options.json:
        as_json([job.to_data(traceback=False) for job in done])
    else:
        lines(f"job {job.id} of {job.task} {_became(job, said)}" for job in done)
    for error in refused:
        print(f"tickwork: {error}", file=sys.stderr)
    return USAGE if refused else OK


def _became(job: JobInfo, said: str) -> str:
    is_asked = job.state is JobState.RUNNING and job.cancel_requested
    return f"runs on worker {job.worker}, which is told to cancel it" if is_asked else said


# -- one line of the table --------------------------------------------------------------------------------------------


def _known(job: JobInfo, now: datetime, paused: set[str], known: set[str] | None) -> str:
    match job.state:
        case JobState.SCHEDULED if job.run_at > now:
            after = "" if job.error is None else f", after {_brief(job.error)}"
            return f"in {age(now, job.run_at)}{after}"
        case JobState.QUEUED | JobState.SCHEDULED:
            why = "; its queue is paused" if job.queue in paused else ""
            if known is None:
                why = why or "; no worker is alive"
            elif job.task not in known:
                why = why or "; no live worker knows its task"
            return f"due for {age(job.run_at, now)}{why}"
        case JobState.RUNNING:
            since = "claimed" if job.started_at is None else f"for {age(job.started_at, now)}"
            return f"{since} by {job.worker}{_progress(job)}" + ("; to be cancelled" if job.cancel_requested else "")
        case JobState.PARKED:
            return "" if job.error is None else _cut(job.error.message)
    if job.finished_at is None:
        return ""
    error = f": {_brief(job.error)}" if job.error is not None and job.state is JobState.FAILED else ""
    took = f", took {format_about((job.finished_at - job.started_at).total_seconds())}" if job.started_at else ""
    return f"{age(job.finished_at, now)} ago{took}{error}"


def _progress(job: JobInfo) -> str:
    if job.progress is None:
        return ""
    return f", {job.progress.done:g}" + ("" if job.progress.total is None else f" of {job.progress.total:g}")


def _brief(error: ErrorInfo) -> str:
    return _cut(f"{error.type}: {error.message}" if error.message else error.type)


def _cut(text: str) -> str:
    line = (text.splitlines() or [""])[0]
    return line if len(line) <= MAX_CELL else f"{line[: MAX_CELL - 3]}..."


def age(start: datetime, end: datetime) -> str:
    """Return how long it is from one instant to another, in two units at the most: "3d4h", "2h5m", "12s"."""
    seconds = max(0, int((end - start).total_seconds()))
    unit = 3_600 if seconds >= 86_400 else 60 if seconds >= 3_600 else 1
    return format_seconds(seconds - seconds % unit)


# -- one job ----------------------------------------------------------------------------------------------------------


def _shown(job: JobInfo, attempts: list[Attempt], why: JobWhy, zone: ZoneInfo) -> Iterator[str]:
    def at(instant: datetime) -> str:
        return f"{instant.astimezone(zone):%Y-%m-%d %H:%M:%S %z}"

    facts: list[tuple[str, str]] = [("job", job.id), ("task", job.task), ("state", str(job.state))]
    facts += [("queue", job.queue + (f", priority {job.priority}" if job.priority else ""))]
    if job.key is not None:
        facts.append(("key", job.key))
    if job.schedule is not None:
        due = "" if job.fire_time is None else f", due at {at(job.fire_time)}"
        facts.append(("schedule", job.schedule + due))
    if job.batch is not None:
        facts.append(("batch", f"{job.batch}, item {job.batch_index}"))
    facts += [("arguments", line) for line in _arguments(job.arguments) or ["none"]]
    told = [("enqueued", job.enqueued_at), ("to start", job.run_at), ("started", job.started_at)]
    facts += [(word, at(instant)) for word, instant in [*told, ("ended", job.finished_at)] if instant is not None]
    deaths = f", and {job.deaths} deaths of its worker" if job.deaths else ""
    facts.append(("attempts", f"{job.attempt}{deaths}"))
    if job.worker is not None:
        lease = "" if job.lease_expires_at is None else f", until {at(job.lease_expires_at)}"
        facts.append(("lease", f"worker {job.worker}{lease}"))
    if job.progress is not None:
        message = "" if job.progress.message is None else f", {job.progress.message}"
        facts.append(("progress", f"{_progress(job)[2:]}{message} ({at(job.progress.updated_at)})"))
    facts.append(("why", str(why)))
    width = max(len(word) for word, _ in facts)
    before = ""
    for word, value in facts:
        yield f"{'' if word == before else word:{width}}  {value}"
        before = word
    for one in attempts:
        yield from ("", _attempt(one, at), *_indented(one.error_info))
    if job.error is not None and not attempts:
        yield from ("", *_indented(job.error))


def _arguments(arguments: dict[str, Any]) -> list[str]:
    found = []
    for name, value in arguments.items():
        text = json.dumps(value, ensure_ascii=False)
        text = text if len(text) <= MAX_ARGUMENT else f"{text[:MAX_ARGUMENT]}... ({len(text):,} characters)"
        found.append(f"{name} = {text}")
    return found


def _attempt(attempt: Attempt, at: Callable[[datetime], str]) -> str:
    began, took = attempt.started_at or attempt.ended_at, ""
    if attempt.started_at is not None:
        took = f", after {format_about((attempt.ended_at - attempt.started_at).total_seconds())}"
    on = "" if attempt.worker is None else f", on worker {attempt.worker}"
    return f"attempt {attempt.number}, {at(began)}{on}: {str(attempt.outcome).replace('_', ' ')}{took}"


def _indented(error: ErrorInfo | None) -> list[str]:
    if error is None:
        return []
    text = error.traceback or f"{error.type}: {error.message}"
    return [f"    {line}".rstrip() for line in text.splitlines()]


def why_data(why: JobWhy) -> dict[str, Any]:
    """Return why a job does not run as JSON data."""
    until = None if why.until is None else why.until.isoformat()
    return {"sentence": why.sentence, "reason": why.reason, "job_id": why.job_id, "until": until, "by": why.by}
