"""What each command does. Each returns the exit status."""

from __future__ import annotations

import sys
from datetime import UTC
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from ..clock import SystemClock
from ..durations import format_seconds
from ..errors import InvalidOption
from ..program import JOB_FAILED, OK
from ..triggers import Cron, upcoming
from ..zones import clock_change, zone_key
from .batches import run_jobs_batch as run_jobs_batch
from .crontab import run_crontab as run_crontab
from .crontab import run_crontab_diff as run_crontab_diff
from .crontab import run_crontab_doctor as run_crontab_doctor
from .crontab import run_crontab_install as run_crontab_install
from .crontab import run_crontab_list as run_crontab_list
from .crontab import run_crontab_sync as run_crontab_sync
from .crontab import run_crontab_uninstall as run_crontab_uninstall
from .fleet import run_health as run_health
from .fleet import run_workers as run_workers
from .history import run_history as run_history
from .history import run_why as run_why
from .jobs import run_jobs as run_jobs
from .jobs import run_jobs_cancel as run_jobs_cancel
from .jobs import run_jobs_delete as run_jobs_delete
from .jobs import run_jobs_retry as run_jobs_retry
from .jobs import run_jobs_show as run_jobs_show
from .map import run_map as run_map
from .output import as_json, log_to_stderr, table
from .preview import run_preview as run_preview
from .queues import run_pause as run_pause
from .queues import run_queues as run_queues
from .queues import run_resume as run_resume
from .running import run_app
from .schtasks import run_schtasks as run_schtasks
from .schtasks import run_schtasks_diff as run_schtasks_diff
from .schtasks import run_schtasks_install as run_schtasks_install
from .schtasks import run_schtasks_list as run_schtasks_list
from .schtasks import run_schtasks_sync as run_schtasks_sync
from .schtasks import run_schtasks_uninstall as run_schtasks_uninstall
from .store import run_store as run_store
from .target import load
from .trigger import run_trigger as run_trigger

if TYPE_CHECKING:
    import argparse
    import asyncio
    from collections.abc import Callable
    from datetime import datetime

    from ..app import App
    from ..schedules import Schedule
    from ..tasks import AnyTask


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
    app.assign(
        role=options.role or ("all" if app.role == "client" else None),  # what a web process does is not for this one
        queues=None if options.queues is None else [name.strip() for name in options.queues.split(",")],
        workers=options.workers,
    )
    if options.until_idle and app.role in ("scheduler", "client"):
        raise InvalidOption(
            "--until-idle", "used where jobs are run", f"role {app.role}", remedy="leave one of them out"
        )

    async def until_idle() -> int:
        await app.wait_idle()
        return JOB_FAILED if app.failed_count else OK

    return run_app(app, work=until_idle if options.until_idle else None, loop_factory=factory)


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
