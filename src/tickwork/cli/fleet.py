"""`tickwork workers` and `health`: the processes that share the app's store, and whether all is well."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from ..clock import SystemClock
from ..durations import format_about, format_seconds, seconds
from ..errors import StoreUnavailable
from ..program import JOB_FAILED, OK, leave
from .jobs import age
from .output import as_json, lines, table
from .target import load

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from ..health import Health
    from ..stores.views import WorkerRow

MIB = 2**20


def add_fleet(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the commands."""
    workers = add("workers", "List the worker processes that live, on all hosts, and how they do.")
    health = add("health", "Say whether all is well: exit status 0, or 1 with what is wrong.")
    health.add_argument(
        "--max-wait", metavar="DURATION", help="also ask that jobs begin within this time of being due, such as 10m"
    )
    health.add_argument(
        "--timeout", metavar="DURATION", default="10s", help="how long the store has for its answer (10s)"
    )
    for command in (workers, health):
        command.add_argument("--json", action="store_true", help="as JSON")


def run_workers(options: argparse.Namespace) -> int:
    """List the worker processes."""
    app = load(options.target, show_traceback=options.verbose)

    async def read() -> list[WorkerRow]:
        async with app.looking("await app.jobs.workers()"):
            return await app.jobs.workers()

    workers = asyncio.run(read())
    if options.json:
        as_json([_as_data(worker) for worker in workers])
        return OK
    now = SystemClock().now()
    columns = ("worker", "host", "pid", "version", "schedules", "queues", "running", "memory", "loop lag", "up", "told")
    table(columns, [_shown(worker, age(worker.started_at, now), age(worker.beat_at, now)) for worker in workers])
    return OK


def _shown(worker: WorkerRow, up: str, told: str) -> tuple[str, ...]:
    vitals = worker.vitals
    return (
        worker.name,
        worker.host or "-",
        str(worker.pid),
        worker.version or "-",
        "-" if vitals is None or vitals.scheduler_age is None else "fires",
        "-" if not worker.tasks else "all" if worker.queues is None else ", ".join(worker.queues),
        "-" if vitals is None else f"{vitals.running:,}",
        "-" if vitals is None or vitals.rss_bytes is None else f"{vitals.rss_bytes / MIB:,.0f} MiB",
        "-" if vitals is None or vitals.lag_seconds is None else format_about(vitals.lag_seconds),
        up,
        f"{told} ago",
    )


def _as_data(worker: WorkerRow) -> dict[str, Any]:
    """Return a worker process as JSON: the attributes of `WorkerRow`, instants as ISO 8601 in UTC."""
    return {
        "name": worker.name,
        "host": worker.host,
        "pid": worker.pid,
        "version": worker.version,
        "started_at": worker.started_at.isoformat(),
        "beat_at": worker.beat_at.isoformat(),
        "tasks": sorted(worker.tasks),
        "queues": None if worker.queues is None else list(worker.queues),
        "vitals": None if worker.vitals is None else asdict(worker.vitals),
    }


def run_health(options: argparse.Namespace) -> int:
    """Say whether all is well."""
    app = load(options.target, show_traceback=options.verbose)
    limit = seconds(options.timeout, "--timeout")

    async def read() -> Health:
        async with app.looking("await app.health()"):
            return await app.health(max_wait=options.max_wait)

    async def read_in_time() -> Health:
        reading = asyncio.ensure_future(read())
        await asyncio.wait({reading}, timeout=limit)
        if not reading.done():  # a thread waits for the server, and nothing calls it back
            said = f"the store has not answered within {format_seconds(limit)}"
            leave(JOB_FAILED, partial(_say_health, options, [said]))
        return await reading

    try:
        health = asyncio.run(read_in_time())
    except StoreUnavailable as error:
        return _say_health(options, [str(error)])
    return _say_health(options, health.problems, oldest=health.oldest_due_seconds, live=len(health.workers or ()))


def _say_health(
    options: argparse.Namespace, problems: list[str], *, oldest: float | None = None, live: int | None = None
) -> int:
    """Print what is wrong, or that all is well, and return the exit status."""
    if options.json:
        as_json({"ok": not problems, "problems": problems, "workers": live, "oldest_due_seconds": oldest})
    elif problems:
        lines(problems)
    else:
        lines([f"all is well: {live} worker process{'' if live == 1 else 'es'}"])
    return JOB_FAILED if problems else OK
