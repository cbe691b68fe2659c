"""`tickwork queues`, `pause` and `resume`: how the queues of an app stand, who may claim from them, and what fires."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ..clock import SystemClock
from ..errors import InvalidOption, nearest
from ..program import OK
from .jobs import age
from .names import schedule_named
from .output import as_json, lines, table
from .target import load

if TYPE_CHECKING:
    import argparse

    from ..app import App
    from ..stores.views import QueueRow

INSTEAD = "await app.jobs.queues()"


def run_queues(options: argparse.Namespace) -> int:
    """List the queues."""
    app = load(options.target, show_traceback=options.verbose)

    async def read() -> list[QueueRow]:
        async with app.looking(INSTEAD):
            return await app.jobs.queues()

    queues = asyncio.run(read())
    if options.json:
        as_json([_as_data(queue) for queue in queues])
        return OK
    now = SystemClock().now()
    table(
        ("queue", "queued", "oldest waits", "scheduled", "running", "ended a minute", "paused"),
        [
            (
                queue.name,
                f"{queue.queued:,}",
                "-" if queue.oldest_due_at is None else age(queue.oldest_due_at, now),
                f"{queue.scheduled:,}",
                f"{queue.running:,}",
                f"{queue.per_minute:,.0f}",
                "-" if queue.paused_at is None else f"for {age(queue.paused_at, now)}",
            )
            for queue in queues
        ],
    )
    return OK


def _as_data(queue: QueueRow) -> dict[str, Any]:
    """Return a queue as JSON: the attributes of `QueueRow`, instants as ISO 8601 in UTC."""
    return {key: value.isoformat() if isinstance(value, datetime) else value for key, value in asdict(queue).items()}


def run_pause(options: argparse.Namespace) -> int:
    """Let nobody claim from a queue, or fire a schedule."""
    return _set(options, paused=True)


def run_resume(options: argparse.Namespace) -> int:
    """Let jobs be claimed from a queue again, or a schedule fire."""
    return _set(options, paused=False)


def _set(options: argparse.Namespace, *, paused: bool) -> int:
    app = load(options.target, show_traceback=options.verbose)
    if options.schedule is not None:
        return _set_schedule(app, options.schedule, paused=paused)
    name: str = options.queue

    async def change() -> tuple[bool, QueueRow]:
        async with app.looking("await app.jobs.pause_queue(name) or .resume_queue(name)"):
            queues = {queue.name: queue for queue in await app.jobs.queues()}
            if name not in queues:
                near = nearest(name, list(queues))
                remedy = f"did you mean {near!r}?" if near else ""
                raise InvalidOption(
                    "QUEUE", f"one of {', '.join(queues) or 'none, for there are none'}", name, remedy=remedy
                )
            set_queue = app.jobs.pause_queue if paused else app.jobs.resume_queue
            return await set_queue(name), queues[name]

    is_news, queue = asyncio.run(change())
    word = "paused" if paused else "resumed"
    if not is_news:
        lines([f"queue {name!r} {'is paused already' if paused else 'was not paused'}"])
    else:
        wait = f"{queue.queued:,} job{' waits' if queue.queued == 1 else 's wait'} in it"
        runs = f"; {queue.running:,} in the hands of workers go on" if paused and queue.running else ""
        lines([f"queue {name!r} is {word}: {wait}{runs}"])
    return OK


def _set_schedule(app: App, name: str, *, paused: bool) -> int:
    schedule = schedule_named(app, name)

    async def change() -> bool:
        async with app.looking('await app.schedules["name"].pause() or .resume()'):
            return await (schedule.pause() if paused else schedule.resume())

    if not asyncio.run(change()):
        lines([f"schedule {schedule.name!r} {'is paused already' if paused else 'was not paused'}"])
    else:
        word = "paused: its fire times pass until it is resumed" if paused else "resumed: it fires again from now on"
        lines([f"schedule {schedule.name!r} is {word}"])
    return OK
