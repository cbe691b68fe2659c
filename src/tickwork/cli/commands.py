"""What each command does. Each returns the exit status."""

from __future__ import annotations

import inspect
import json
import logging
import sys
from datetime import UTC
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from ..clock import SystemClock
from ..durations import format_seconds
from ..errors import InvalidOption, InvalidPayload, JobError, JobFailed
from ..program import CUT, JOB_FAILED, OK, leave
from ..program import run as run_program
from ..triggers import Cron, upcoming
from ..zones import clock_change, zone_key
from .batches import run_jobs_batch as run_jobs_batch
from .crontab import run_crontab_diff as run_crontab_diff
from .crontab import run_crontab_doctor as run_crontab_doctor
from .crontab import run_crontab_install as run_crontab_install
from .crontab import run_crontab_list as run_crontab_list
from .crontab import run_crontab_sync as run_crontab_sync
from .crontab import run_crontab_uninstall as run_crontab_uninstall
from .history import run_history as run_history
from .history import run_why as run_why
from .jobs import run_jobs as run_jobs
from .jobs import run_jobs_cancel as run_jobs_cancel
from .jobs import run_jobs_delete as run_jobs_delete
from .jobs import run_jobs_retry as run_jobs_retry
from .jobs import run_jobs_show as run_jobs_show
from .map import run_map as run_map
from .names import task_to_run
from .output import as_json, log_to_stderr, table
from .preview import run_preview as run_preview
from .queues import run_pause as run_pause
from .queues import run_queues as run_queues
from .queues import run_resume as run_resume
from .schtasks import run_schtasks_diff as run_schtasks_diff
from .schtasks import run_schtasks_install as run_schtasks_install
from .schtasks import run_schtasks_list as run_schtasks_list
from .schtasks import run_schtasks_sync as run_schtasks_sync
from .schtasks import run_schtasks_uninstall as run_schtasks_uninstall
from .store import run_store as run_store
from .target import load

if TYPE_CHECKING:
    import argparse
    import asyncio
    from collections.abc import Callable
    from datetime import datetime

    from ..app import App
    from ..schedules import Schedule
    from ..tasks import AnyTask

logger: logging.Logger = logging.getLogger("tickwork.program")


def run_run(options: argparse.Namespace) -> int:
    """Run the app."""
    log_to_stderr(verbose=options.verbose)
    factory = _uvloop() if options.uvloop else None
    if options.reload:
        from .reload import run_reloading

        return run_reloading(options)
    if options.supervised:
        from .reload import end_with_supervisor

        end_with_supervisor()
    app = load(options.target, show_traceback=options.verbose)

    async def until_idle() -> int:
        await app.wait_idle()
        return JOB_FAILED if app.failed_count else OK

    return _run(app, work=until_idle if options.until_idle else None, loop_factory=factory)


def _run(app: App, **settings: Any) -> int:
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # what jobs print is seen when they print it
    status = run_program(app, is_last=True, **settings)
    if status == CUT:
        leave(status)  # a thread that was left behind must not hold the exit
    return status


def _uvloop() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        raise InvalidOption(
            "--uvloop", "used with uvloop installed", "not installed", remedy="pip install uvloop"
        ) from None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def run_list(options: argparse.Namespace) -> int:
    """List tasks and schedules."""
    app = load(options.target, show_traceback=options.verbose)
    if options.json:
        as_json([_described(app, task) for task in app.tasks.values()])
        return OK
    lines = []
    for task in app.tasks.values():
        limit = "-" if task.options_.timeout is None else format_seconds(task.options_.timeout)
        schedules = _schedules_of(app, task)
        if not schedules:
            lines.append((task.name, _place(task), limit, "-", "-"))
        for schedule in schedules:
            shown = repr(schedule.trigger) + ("" if schedule.name == task.name else f" as {schedule.name}")
            lines.append((task.name, _place(task), limit, shown, _first(schedule) or "-"))
    table(("task", "runs in", "timeout", "trigger", "next (UTC)"), lines)
    return OK


def _schedules_of(app: App, task: AnyTask) -> list[Schedule]:
    return [schedule for schedule in app.schedules.values() if schedule.task is task]


def _described(app: App, task: AnyTask) -> dict[str, Any]:
    return {
        "task": task.name,
        "run_in": _place(task),
        "timeout": task.options_.timeout,
        "schedules": [
            {"name": schedule.name, "trigger": repr(schedule.trigger), "next": _first(schedule)}
            for schedule in _schedules_of(app, task)
        ],
    }


def run_next(options: argparse.Namespace) -> int:
    """Show the next fire times."""
    if options.cron is not None:
        key = zone_key(options.tz or "UTC", "--tz")
        trigger = Cron(options.cron, timezone=key, name=options.cron)
        times = [(at, options.cron, key) for at in upcoming(trigger, SystemClock().now(), options.n)]
        for warning in trigger.warnings:
            print(f"tickwork: {warning}", file=sys.stderr)
    else:
        app = load(options.target, show_traceback=options.verbose)
        key = app.timezone if options.tz is None else zone_key(options.tz, "--tz")
        schedules = app.schedules.values()
        times = sorted(
            (at, schedule.name, schedule.trigger.timezone or key)
            for schedule in schedules
            for at in _next(schedule, options.n)
        )
    zone = ZoneInfo(key)
    if options.json:
        as_json(
            [
                {
                    "schedule": name,
                    "at": at.astimezone(zone).isoformat(),
                    "utc": _utc(at),
                    "clock_change": clock_change(at, own),
                }
                for at, name, own in times
            ]
        )
        return OK
    columns = [key, "UTC", "schedule" if options.cron is None else "expression"]
    rows = [[f"{at.astimezone(zone):%a %Y-%m-%d %H:%M:%S %z}", _utc(at), name] for at, name, _ in times]
    marks = [clock_change(at, own) or "" for at, _, own in times]
    if any(marks):
        columns.append("clock change")
        for row, mark in zip(rows, marks, strict=True):
            row.append(mark)
    table(columns, rows)
    return OK


def run_check(options: argparse.Namespace) -> int:
    """Look for what will not do what was meant."""
    from .check import run_check  # it knows the process pool, which the other commands do not need

    return run_check(options)


def run_trigger(options: argparse.Namespace) -> int:
    """Run a task once, here."""
    log_to_stderr(verbose=options.verbose)
    app = load(options.target, show_traceback=options.verbose)
    task = task_to_run(app, options.name)
    args, kwargs = _arguments(task, options.args)  # what does not fit is said before anything starts

    async def once() -> int:
        job = await app.enqueue_here(task, args, kwargs)
        try:
            value = await job.result()
        except InvalidPayload:
            return OK  # it succeeded; that its result cannot be shown has been logged
        except JobError as error:
            cause = error.__cause__ if isinstance(error, JobFailed) else None
            if isinstance(error, JobFailed) and task.codec.has_secrets:  # which the store's text does not show
                logger.error("%s\n%s", error, error.traceback.rstrip())
            else:
                logger.error("%s", error, exc_info=cause)
            return JOB_FAILED
        print(task.codec.encode_result(value))
        return OK

    return _run(app, work=once, alone=True)


def _arguments(task: AnyTask, text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Read arguments by the hints of the task: a path, a date or a dataclass is written as its JSON."""
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidOption("--args", "JSON", text, remedy=str(error)) from None
    if isinstance(given, list):
        names = _positional(task)
        payload: dict[str, Any] = dict(zip(names, given, strict=False))
        if len(given) > len(names):
            payload["*"] = given[len(names) :]
    elif isinstance(given, dict):
        payload = given
    else:
        raise InvalidOption("--args", "a JSON list of arguments or an object of named ones", text)
    return task.codec.decode(json.dumps(payload))


def _positional(task: AnyTask) -> list[str]:
    try:
        parameters = list(inspect.signature(task.fn).parameters.values())[task.wants_context :]
    except (TypeError, ValueError):  # one that tells nothing of its parameters
        return []
    return [entry.name for entry in parameters if entry.kind in (entry.POSITIONAL_ONLY, entry.POSITIONAL_OR_KEYWORD)]


def _place(task: AnyTask) -> str:
    from ..workers import place_of

    place = place_of(task.fn, task.options_.run_in)
    return "loop" if place == "call" else place


def _first(schedule: Schedule) -> str | None:
    times = _next(schedule, 1)
    return _utc(times[0]) if times else None


def _next(schedule: Schedule, count: int) -> list[datetime]:
    """Return the next fire times; a trigger that raises has none, and hides those of no other schedule."""
    try:
        return schedule.next(count)
    except Exception as error:
        print(f"tickwork: the trigger of schedule {schedule.name} raised {error!r}", file=sys.stderr)
        return []


def _utc(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
