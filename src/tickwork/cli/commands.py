"""What each command does. Each returns the exit status."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from datetime import UTC
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from ..durations import format_seconds
from ..errors import InvalidOption, InvalidTarget, JobError, UnknownTask
from ..program import JOB_FAILED, OK, START_FAILED, leave
from ..program import run as run_program
from ..zones import zone_key
from .output import as_json, log_to_stderr, table
from .target import load

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from datetime import datetime

    from ..app import App, Schedule
    from ..tasks import AnyTask


def run_run(options: argparse.Namespace) -> int:
    """Run the app."""
    log_to_stderr(verbose=options.verbose)
    factory = _uvloop() if options.uvloop else None
    if options.reload:
        from .reload import run_reloading

        return run_reloading(options)
    app = load(options.target, show_traceback=options.verbose)
    status = run_program(app, until_idle=options.until_idle, loop_factory=factory)
    if status:
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
    app = load(options.target, show_traceback=options.verbose)
    zone = ZoneInfo(app.timezone if options.tz is None else zone_key(options.tz, "--tz"))
    times = sorted(
        ((at, schedule.name) for schedule in app.schedules.values() for at in schedule.next(options.n)),
        key=lambda row: row[0],
    )
    if options.json:
        as_json([{"schedule": name, "at": at.astimezone(zone).isoformat(), "utc": _utc(at)} for at, name in times])
        return OK
    rows = [(f"{at.astimezone(zone):%a %Y-%m-%d %H:%M:%S %z}", _utc(at), name) for at, name in times]
    table((str(zone), "UTC", "schedule"), rows)
    return OK


def run_trigger(options: argparse.Namespace) -> int:
    """Run a task once, here."""
    log_to_stderr(verbose=options.verbose)
    app = load(options.target, show_traceback=options.verbose)
    task = _find(app, options.name)
    args, kwargs = _arguments(options.args)
    task.codec.encode(args, kwargs)  # what does not fit is said before anything starts
    status = asyncio.run(_trigger(app, task, args, kwargs))
    sys.stdout.flush()
    return status


async def _trigger(app: App, task: AnyTask, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    try:
        await app.start(schedules=False)
    except Exception:
        logging.getLogger("tickwork.program").exception("the app could not start")
        return START_FAILED
    try:
        job = await app.enqueue(task, *args, **kwargs)
        try:
            value = await job.result()
        except JobError as error:
            cause = error.__cause__
            logging.getLogger("tickwork.program").error("%s", error, exc_info=cause)
            return JOB_FAILED
        print(task.codec.encode_result(value))
        return OK
    finally:
        await app.stop()


def _find(app: App, name: str) -> AnyTask:
    """Return the task of this name, of the schedule of this name, or the only one whose last part it is."""
    tasks = app.tasks
    if name in tasks:
        return tasks[name]
    if name in app.schedules:
        made: AnyTask = app.schedules[name].task
        return made
    ending: list[AnyTask] = [task for task in tasks.values() if task.name.endswith(f".{name}")]
    if len(ending) == 1:
        return ending[0]
    if ending:
        names = ", ".join(task.name for task in ending)
        raise UnknownTask(name, remedy=f"several end so: {names}")
    raise UnknownTask(name, known=list(tasks), remedy=f"the app has {', '.join(tasks) or 'no tasks'}")


def _arguments(text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    try:
        given = json.loads(text)
    except ValueError as error:
        raise InvalidTarget(text, f"--args is not JSON: {error}") from None
    if isinstance(given, list):
        return tuple(given), {}
    if isinstance(given, dict):
        return (), given
    raise InvalidOption("--args", "a JSON list of arguments or an object of named ones", text)


def _place(task: AnyTask) -> str:
    from ..workers import place_of

    place = place_of(task.fn, task.options_.run_in)
    return "loop" if place == "call" else place


def _first(schedule: Schedule) -> str | None:
    times = schedule.next(1)
    return _utc(times[0]) if times else None


def _utc(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
