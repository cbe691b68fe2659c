"""`tickwork history` and `tickwork why`: what became of the fire times of a schedule, read from the app's store."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from ..durations import format_about, format_seconds
from ..errors import InvalidOption
from ..program import OK
from ..zones import zone_key
from .jobs import why_data
from .names import schedule_named
from .output import as_json, lines, table
from .target import load

if TYPE_CHECKING:
    import argparse

    from ..app import App
    from ..explain_job import JobWhy
    from ..stores.base import Answer


def run_history(options: argparse.Namespace) -> int:
    """Show the newest rows of a schedule's ledger."""
    app = load(options.target, show_traceback=options.verbose)
    schedule = schedule_named(app, options.name)

    async def read() -> list[Answer]:
        async with app.looking():
            return await schedule.history(options.n)

    answers = asyncio.run(read())
    if options.json:
        as_json([_as_data(answer) for answer in answers])
        return OK
    key = schedule.timezone if options.tz is None else zone_key(options.tz, "--tz")
    zone = ZoneInfo(key)
    rows = [_row(answer, zone) for answer in answers]
    table((f"due ({key})", "what became of it", "started", "took", "job", "why"), rows)
    return OK


def run_why(options: argparse.Namespace) -> int:
    """Say in a sentence what became of one fire time, or why a job does not run."""
    app = load(options.target, show_traceback=options.verbose)
    if options.time is None:
        return _why_job(app, options)
    schedule = schedule_named(app, options.name)

    async def ask() -> Any:
        async with app.looking():
            return await schedule.why(options.time)

    why = asyncio.run(ask())
    if options.json:
        as_json({"sentence": why.sentence, "answer": None if why.answer is None else _as_data(why.answer)})
    else:
        lines([why.sentence])
    return OK


def _why_job(app: App, options: argparse.Namespace) -> int:
    if options.name in app.schedules:
        expected = "given for a schedule, with the fire time that is meant"
        remedy = f"as in `tickwork why {options.target} {options.name} 03:00`"
        raise InvalidOption("TIME", expected, None, remedy=remedy)

    async def ask() -> JobWhy:
        async with app.looking(f'await app.jobs.why("{options.name}")'):
            return await app.jobs.why(options.name)

    why = asyncio.run(ask())
    if options.json:
        as_json(why_data(why))
    else:
        lines([why.sentence])
    return OK


def _as_data(answer: Answer) -> dict[str, Any]:
    """Return a row as JSON: the attributes of `Answer`, instants as ISO 8601 in UTC."""
    return {key: value.isoformat() if isinstance(value, datetime) else value for key, value in asdict(answer).items()}


def _row(answer: Answer, zone: ZoneInfo) -> list[str]:
    due = f"{answer.first.astimezone(zone):%Y-%m-%d %H:%M:%S %z}"
    if answer.count != 1:
        due += f" and {'many' if answer.count is None else answer.count - 1} more"
    started = took = "-"
    if answer.started_at is not None:
        late = (answer.started_at - (answer.wanted_at or answer.first)).total_seconds()
        started = f"{answer.started_at.astimezone(zone):%H:%M:%S}" + (
            f" ({format_seconds(round(late, 1))} late)" if late > 1 else ""
        )
        if answer.finished_at is not None:
            took = format_about((answer.finished_at - answer.started_at).total_seconds())
    outcome = answer.outcome if answer.outcome != "ran" else str(answer.state or "under way")
    why = "; ".join(filter(None, (answer.decided_by, answer.late_because)))
    return [due, outcome, started, took, answer.job_id or answer.blocked_by or "-", why or "-"]
