"""`tickwork jobs batch`: how far batches in the file of an app are, also while it runs; and what is done with one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..clock import SystemClock
from ..errors import InvalidOption
from ..program import OK
from .jobs import age
from .output import as_json, lines, table
from .target import load

if TYPE_CHECKING:
    import argparse

    from ..app import App
    from ..job_batch import BatchCounts

INSTEAD = "await app.jobs.batches(), or await batch.counts()"


def run_jobs_batch(options: argparse.Namespace) -> int:
    """Show how far batches are, or change one."""
    action = "--cancel" if options.cancel else "--retry-failed" if options.retry_failed else None
    if action is not None and options.id is None:
        raise InvalidOption("ID", f"given with {action}", None)
    app = load(options.target, show_traceback=options.verbose)
    if options.id is None:
        return _list(app, options)

    async def read() -> tuple[int, BatchCounts]:
        async with app.looking(INSTEAD):
            batch = await app.jobs.batch(options.id)
            count = (
                await batch.cancel() if options.cancel else await batch.retry_failed() if options.retry_failed else 0
            )
            return count, await batch.counts()

    count, counts = asyncio.run(read())
    word = "cancelled" if options.cancel else "retried"
    if options.json:
        as_json(counts.to_data() if action is None else {word: count, "batch": counts.to_data()})
        return OK
    if action is not None:
        jobs = "1 job is" if count == 1 else f"{count:,} jobs are"
        lines([f"{jobs} {'cancelled, or told to end' if options.cancel else 'queued again'}"])
    lines([f"batch {counts.id} of {counts.task}: {counts}"])
    return OK


def _list(app: App, options: argparse.Namespace) -> int:
    async def read() -> list[BatchCounts]:
        async with app.looking(INSTEAD):
            return await app.jobs.batches(limit=options.limit)

    batches = asyncio.run(read())
    if options.json:
        as_json([counts.to_data() for counts in batches])
        return OK
    now = SystemClock().now()
    table(
        ("batch", "task", "enqueued", "how far"),
        [(counts.id, counts.task, f"{age(counts.created_at, now)} ago", str(counts)) for counts in batches],
    )
    return OK
