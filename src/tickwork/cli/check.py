"""`tickwork check`: the rules of `tickwork.observe`, run on a target, for people and for continuous integration."""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ..clock import SystemClock
from ..errors import InvalidInstant, InvalidOption, InvalidTarget, nearest
from ..observe.check import apart, check, no_executor, runs_in_process
from ..observe.findings import RULES, Finding, refusal
from ..program import JOB_FAILED, OK
from ..siblings import visible_workers
from ..triggers import At
from .output import as_json, lines
from .target import load, place_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from datetime import datetime

    from ..app import App

FOUND = JOB_FAILED
"""The exit status of findings: 1, that of every linter."""


def run_check(options: argparse.Namespace) -> int:
    """Say what is found, and return whether anything is."""
    ignored = frozenset(map(_known, options.ignore))
    logging.getLogger("tickwork").addHandler(logging.NullHandler())  # warnings about triggers are findings here
    try:
        app = load(options.target, show_traceback=options.verbose)
    except InvalidTarget as error:
        refused = _refused(error)
        if refused is None or refused.rule in ignored:  # without an app there is nothing else to look at
            raise
        return _report([refused], "", as_list=options.json)
    found = _look(app, options.target, _as_of(options.as_of, app.timezone))
    counts = f"{len(app.tasks)} tasks, {len(app.schedules)} schedules"
    return _report([finding for finding in found if finding.rule not in ignored], counts, as_list=options.json)


def _look(app: App, target: str, now: datetime) -> list[Finding]:
    tasks = list(app.tasks.values())
    found = check(tasks, app.schedules.values(), now)
    if any(map(runs_in_process, tasks)):
        from ..observe.processes import check_processes

        found += asyncio.run(check_processes(tasks))
    may_get_executor = app.executor is not None or app._user_lifespan is not None
    if not may_get_executor and (finding := no_executor(tasks, target)) is not None:
        found.append(finding)
    if tasks and not app._make_store().capabilities.multi_process and (seen := visible_workers(os.environ)):
        found.append(apart(seen, target))
    if app._path is not None and app._path.exists():
        from ..observe.waiting import check_waiting

        async def look() -> list[Finding]:
            async with app.looking():
                return await check_waiting(app._store_now(), app._names)

        found += asyncio.run(look())
    return found


def _report(found: Sequence[Finding], counts: str, *, as_list: bool) -> int:
    if as_list:
        as_json([asdict(finding) for finding in found])
    elif found:
        width = max(len(finding.rule) for finding in found)
        lines(f"{finding.rule:{width}}  {finding}" for finding in found)
    else:
        lines([f"no findings: {counts}"])
    return FOUND if found else OK


def _refused(error: InvalidTarget) -> Finding | None:
    """Return the finding of a target whose import was stopped by an option that is refused, else None."""
    cause = error.__cause__
    if not isinstance(cause, InvalidOption):
        return None
    file, comma, line = place_of(cause).rpartition(", line ")
    if not comma:
        return refusal(cause, error.target)
    path = Path(file)
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return refusal(cause, f"{shown}, line {line}")


def _known(rule: str) -> str:
    if rule not in RULES:
        near = nearest(rule, list(RULES))
        remedy = f"did you mean {near!r}?" if near else ""
        raise InvalidOption("--ignore", f"one of {', '.join(RULES)}", rule, remedy=remedy)
    return rule


def _as_of(text: str | None, key: str) -> datetime:
    """Read the instant to look ahead from; without an offset it is a wall time of the app's zone."""
    if text is None:
        return SystemClock().now()
    try:
        return At(text, timezone=key).when
    except InvalidInstant as error:
        raise InvalidInstant("--as-of", error.expected, text) from None
