"""`tickwork trigger`: run a task once, here; with `--fire-time`, what cron or Task Scheduler start for a schedule."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..errors import InvalidOption, InvalidPayload, JobCancelled, JobError, JobFailed, ResultExpired, TickworkError
from ..program import JOB_FAILED, OK, USAGE

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from ..handle import Job
    from ..tasks import AnyTask

logger: logging.Logger = logging.getLogger("tickwork.trigger")


def add_trigger(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    trigger = add("trigger", "Run a task once, here and now, and print its result as JSON; or answer a fire time.")
    trigger.add_argument("name", metavar="NAME", help="a task or schedule; its last part will do where it is unique")
    trigger.add_argument("--args", metavar="JSON", help="a list of arguments, or an object of named ones ([])")
    trigger.add_argument(
        "--fire-time",
        metavar="WHEN",
        help='answer a fire time of a schedule, as its app would: "auto", the newest one, or ISO 8601 with an offset',
    )
    trigger.add_argument("--dir", metavar="FOLDER", help="work in this folder, and find the target there")
    trigger.add_argument("--log", metavar="FILE", help="append all output to this file")
    trigger.add_argument(
        "--state",
        metavar="FOLDER",
        help="with --fire-time, of an app in memory: where it is kept who runs (~/.local/state/tickwork)",
    )


def run_trigger(options: argparse.Namespace) -> int:
    """Run a task once, here; or answer a fire time."""
    from .output import log_to_stderr

    if options.fire_time is not None and options.args is not None:
        raise InvalidOption("--args", "left out with --fire-time", options.args, remedy="the schedule has them")
    if options.fire_time is None and options.state is not None:
        raise InvalidOption("--state", "left out without --fire-time", options.state, remedy="nobody is told who runs")
    folder = os.path.abspath(options.dir or ".")
    if options.log is not None:
        from .log_file import print_into

        print_into(os.path.join(folder, options.log))
    log_to_stderr(verbose=options.verbose)
    try:
        if options.dir is not None:
            _enter(folder)
        if options.fire_time is None:
            return _run_task(options)
        from .fire_time import run_fire_time

        return run_fire_time(options, folder)
    except TickworkError as error:
        if options.log is None:
            raise
        logger.error("%s", error)  # with the time; nobody else would see it
        return USAGE


def _enter(folder: str) -> None:
    """Work in a folder as if the command had been started there, where Python finds modules, too."""
    before = None
    with suppress(OSError):  # it may have been removed
        before = os.getcwd()
    try:
        os.chdir(folder)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidOption("--dir", "a folder that can be entered", folder, remedy=reason) from None
    if sys.path[:1] in ([before], [""]):
        sys.path[0] = os.getcwd()


def _run_task(options: argparse.Namespace) -> int:
    from .names import task_to_run
    from .running import run_app
    from .target import load

    app = load(options.target, show_traceback=options.verbose or options.log is not None)
    task = task_to_run(app, options.name)
    # What does not fit is said before anything starts.
    args, kwargs = _arguments(task, "[]" if options.args is None else options.args)

    async def once() -> int:
        job = await app.enqueue_here(task, args, kwargs)
        return await end_of(job, task, show=True)

    return run_app(app, work=once, alone=True)


async def end_of(job: Job[Any], task: AnyTask, *, show: bool, stays: bool = False) -> int:
    """Wait for the end of a job, say what went wrong, and return the exit status.

    Args:
        job: The job.
        task: Its task.
        show: Print its result as JSON.
        stays: When this process is stopped before, the job stays where the next one finds it.
    """
    try:
        value = await job.result()
    except (InvalidPayload, ResultExpired):
        return OK  # it succeeded; that its result cannot be shown has been logged
    except JobError as error:
        if stays and isinstance(error, JobCancelled) and error.reason:
            logger.warning("job %s has not ended; an app that runs, or the next start, takes it over", job.id)
            return JOB_FAILED
        cause = error.__cause__ if isinstance(error, JobFailed) else None
        if isinstance(error, JobFailed) and task.codec.has_secrets:  # which the store's text does not show
            logger.error("%s\n%s", error, error.traceback.rstrip())
        else:
            logger.error("%s", error, exc_info=cause)
        return JOB_FAILED
    if show:
        print(task.codec.encode_result(value))
    return OK


def _arguments(task: AnyTask, text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Read arguments by the hints of the task: a path, a date or a dataclass is written as its JSON."""
    import json

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
    import inspect

    try:
        parameters = list(inspect.signature(task.fn).parameters.values())[task.wants_context :]
    except (TypeError, ValueError):  # one that tells nothing of its parameters
        return []
    return [entry.name for entry in parameters if entry.kind in (entry.POSITIONAL_ONLY, entry.POSITIONAL_OR_KEYWORD)]
