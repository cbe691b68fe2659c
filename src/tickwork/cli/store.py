"""`tickwork store`: measure, check, prune, copy, migrate and move the file or schema of an app's jobs."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import asdict
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..clock import SystemClock
from ..durations import format_about, seconds
from ..errors import InvalidTarget, UnknownTask
from ..program import OK
from .output import as_json, lines, table
from .store_migrate import add_migrate, migrate
from .store_target import opened, store_of
from .target import app_of, load

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from datetime import datetime

    from ..app import App
    from ..stores.postgres_upkeep import SchemaStats
    from ..stores.sqlite_upkeep import StoreStats
    from ..tasks import AnyTask

    Arguments = tuple[tuple[Any, ...], dict[str, Any]]

FOUND = 1
PART = 1_000
"""So many saved jobs are enqueued in one transaction."""
STORE = 'an app (module:app, module, path/file.py), or a URL: "sqlite:///jobs.db", "postgresql://..."'


def add_store(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    command = add(
        "store",
        "Measure, check, prune, copy and move the file or the schema in which jobs are kept.",
        needs_target=False,
    )
    actions = command.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, summary: str) -> argparse.ArgumentParser:
        parser = actions.add_parser(name, help=summary, description=summary)
        parser.add_argument("store", metavar="STORE", help=STORE)
        parser.add_argument("--json", action="store_true", help="as JSON")
        return parser

    add_migrate(action)
    action("stats", "Show how large it is, and what is in it.")
    check = action("check", "Look for damage, stuck leases, orphaned rows and wrong counts; exit 1 when there are any.")
    check.add_argument("--repair", action="store_true", help="mend what needs no person, then look again")
    action("prune", "Forget now what the app's retention no longer keeps.")
    backup = action("backup", "Write a copy of a file as it stands at this moment, also while apps work on it.")
    backup.add_argument("destination", metavar="FILE", help="the copy; never over a file that is there")
    move = action("move", "Move all jobs, schedules and ledgers into another store, and close the old one down.")
    move.add_argument("to", metavar="TO", help=STORE.replace("an app", "likewise: an app"))
    saved = action("load", "Enqueue the jobs of a file that `Pool.save` has written, and remove the file.")
    saved.add_argument("file", metavar="FILE", help="the saved pool; its functions must be tasks of the app")
    move.add_argument("--wait", default="60s", metavar="LENGTH", help="how long to wait for jobs that run (60s)")


def run_store(options: argparse.Namespace) -> int:
    """Do what the second word says."""
    status: int = asyncio.run(globals()[f"_{options.action}"](options))
    return status


async def _stats(options: argparse.Namespace) -> int:
    found = await _measured(options.store, verbose=options.verbose)
    if options.json:
        oldest = None if found.oldest_queued is None else found.oldest_queued.isoformat()
        as_json(asdict(found) | {"oldest_queued": oldest})
    else:
        table(("what", "how much"), _rows(found, SystemClock().now()))
    return OK


async def _measured(word: str, *, verbose: bool) -> StoreStats | SchemaStats:
    from ..stores import upkeep
    from ..stores.sqlite import SQLiteStore

    store = store_of(app_of(word, show_traceback=verbose), word)
    if not isinstance(store, SQLiteStore):
        return await asyncio.to_thread(store.stats)
    await store.open()
    try:
        return await upkeep.stats(store)
    finally:
        await store.close()


def _rows(found: StoreStats | SchemaStats, now: datetime) -> list[list[str]]:
    free, moved_to = getattr(found, "free_bytes", None), getattr(found, "moved_to", None)  # of a file
    rows = [[f"jobs {state}", f"{count:,}"] for state, count in found.jobs.items()]
    if found.oldest_queued is not None:
        rows.append(["oldest queued", f"due {format_about((now - found.oldest_queued).total_seconds())} ago"])
    rows += [
        ["schedules", f"{found.schedules:,}"],
        ["ledger rows", f"{found.ledger:,}"],
        ["workers", ", ".join(found.workers) or "none"],
        ["size", f"{found.bytes / 1e6:,.1f} MB" + (f", {free / 1e6:,.1f} MB of it free" if free is not None else "")],
        *([f"size of {name}", f"{size / 1e6:,.1f} MB"] for name, size in getattr(found, "tables", {}).items()),
        ["version of the tables", str(found.version)],
    ]
    if moved_to is not None:
        rows.append(["moved to", moved_to])
    return rows


async def _migrate(options: argparse.Namespace) -> int:
    return await migrate(options)


async def _check(options: argparse.Namespace) -> int:
    from ..stores import upkeep

    store = store_of(app_of(options.store, show_traceback=options.verbose), options.store)
    findings = upkeep.check_version(await asyncio.to_thread(store.plan_migration))  # before opening it changes that
    if not findings:
        async with opened(options.store, verbose=options.verbose) as store:
            findings = await upkeep.check(store, store.now(), repair=options.repair)
    if options.json:
        as_json([{"rule": found.rule, "text": found.text, "remedy": found.remedy} for found in findings])
    elif findings:
        table(("rule", "what", "remedy"), [[found.rule, found.text, found.remedy] for found in findings])
    else:
        lines(["the store is sound"])
    return FOUND if findings else OK


async def _prune(options: argparse.Namespace) -> int:
    async with opened(options.store, verbose=options.verbose) as store:
        gone = await store.prune()
    _tell(options, {"forgotten": gone}, f"forgot {gone:,} jobs and rows of ledgers")
    return OK


async def _backup(options: argparse.Namespace) -> int:
    from ..stores import upkeep
    from ..stores.sqlite import SQLiteStore

    store = store_of(app_of(options.store, show_traceback=options.verbose), options.store)
    if not isinstance(store, SQLiteStore):
        raise InvalidTarget(
            options.store, f"its jobs are in PostgreSQL, which has its own tools: {store.target.dump_command}"
        )
    await store.open()
    try:
        size = await upkeep.backup(store, Path(options.destination))
    finally:
        await store.close()
    _tell(options, {"file": options.destination, "bytes": size}, f"wrote {options.destination}, {size / 1e6:,.1f} MB")
    return OK


async def _move(options: argparse.Namespace) -> int:
    from ..stores import upkeep

    wait = seconds(options.wait, "--wait", allow_zero=True)
    async with (
        opened(options.store, verbose=options.verbose) as source,
        opened(options.to, makes=True, verbose=options.verbose) as target,
    ):
        moved = await upkeep.move(source, target, wait_seconds=wait)
    told = ", ".join(f"{count:,} rows of {name}" for name, count in sorted(moved.rows.items()) if count)
    _tell(options, {"moved": dict(moved.rows), "left": list(moved.left)}, f"moved {told or 'nothing'}")
    if moved.left:
        print(f"tickwork: no place for {', '.join(moved.left)}: other jobs there have their keys", file=sys.stderr)
        return FOUND
    return OK


async def _load(options: argparse.Namespace) -> int:
    from ..shield import to_its_end
    from ..snapshot import Snapshot
    from ..tasks import EnqueueOptions

    app = load(options.store, show_traceback=options.verbose)
    file = Snapshot(options.file)
    size = min(PART, app.max_queued)
    async with app.client():
        claimed, entries = await file.claim()
        taken = 0
        try:
            calls = _calls(app, entries)
            for task, same in groupby(calls, key=itemgetter(0)):
                some = list(same)
                for first in range(0, len(some), size):
                    part = some[first : first + size]
                    await app.enqueue_calls(task, [call for _, call, _ in part], EnqueueOptions(), wait=True)
                    taken += len(part)
        except BaseException:
            if taken:  # some are in the store: they must not be loaded again
                await to_its_end(file.write([entry for _, _, entry in calls[taken:]], kept=False))
                await to_its_end(claimed.remove())
            else:
                await to_its_end(claimed.give_back(file))
            raise
        await claimed.remove()
    _tell(options, {"enqueued": len(entries)}, f"enqueued {len(entries):,} jobs")
    return OK


def _tell(options: argparse.Namespace, found: dict[str, Any], text: str) -> None:
    """Say what was done, as JSON or in words."""
    if options.json:
        as_json(found)
    else:
        lines([text])


def _calls(app: App, entries: list[Any]) -> list[tuple[AnyTask, Arguments, Any]]:
    """Return task, arguments and entry of each saved job, those of a task together; all are looked at first."""
    from ..snapshot import call_of

    tasks = {id(fn): task for task in app.tasks.values() for fn in (task, task.fn)}
    found = []
    for entry in entries:
        call = call_of(entry)
        task = tasks.get(id(call.fn))
        if task is None:
            name = getattr(call.fn, "__qualname__", repr(call.fn))
            raise UnknownTask(name, known=list(app.tasks), remedy="make the function a task of the app: @app.task")
        found.append((task, (call.args, call.kwargs), entry))
    return sorted(found, key=lambda saved: saved[0].name)
