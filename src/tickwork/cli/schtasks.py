"""`tickwork schtasks`: an app's schedules in Task Scheduler, and what stands there."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..program import OK
from .output import as_json, table
from .system_sync import VERBS, add_sync, add_verbs, app_id, run_sync, run_verbs

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from ..system import Schtasks, TaskEntry


def add_schtasks(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the commands to the parser. `schtasks list` is one word here."""
    add_verbs(add, "schtasks", VERBS)
    commands = add_sync(add, "schtasks", "Task Scheduler")
    listing = add("schtasks list", "List the tasks in tickwork's folder; or those of an app.", needs_target=False)
    listing.add_argument("target", metavar="TARGET", nargs="?", help="an app: only its tasks")
    listing.add_argument("--app-id", metavar="ID", help="the same by its id")
    listing.add_argument("--dir", metavar="DIR", help="where TARGET is imported (the current folder)")
    listing.add_argument("--json", action="store_true", help="as JSON")
    for command in (*commands, listing):
        command.add_argument("--folder", default="\\tickwork", metavar="NAME", help=r"where tasks stand (\tickwork)")
    for command in commands[:3]:
        command.add_argument(
            "--timezone", metavar="ZONE", help="the zone of this machine: Europe/Berlin; an app's times are said in it"
        )


def run_schtasks(options: argparse.Namespace) -> int:
    """Say which commands there are."""
    return run_verbs(options, VERBS)


def run_schtasks_diff(options: argparse.Namespace) -> int:
    """Compare an app with Task Scheduler."""
    return _sync(options)


def run_schtasks_install(options: argparse.Namespace) -> int:
    """Put an app's schedules into Task Scheduler."""
    return _sync(options)


def run_schtasks_sync(options: argparse.Namespace) -> int:
    """Bring Task Scheduler in step with an app."""
    return _sync(options)


def run_schtasks_uninstall(options: argparse.Namespace) -> int:
    """Take an app's tasks out of Task Scheduler."""
    return _sync(options)


def run_schtasks_list(options: argparse.Namespace) -> int:
    """List the tasks in a folder of Task Scheduler."""
    from ..system.task_text import describe_triggers

    scheduler, app = _open(options), app_id(options)
    found = [entry for entry in asyncio.run(scheduler.list()) if app is None or entry.app == app]
    when = ["?" if entry.definition is None else describe_triggers(entry.definition.triggers) for entry in found]
    if options.json:
        as_json(
            [
                {
                    "path": entry.path,
                    "id": entry.name.rpartition("\\")[2] if entry.is_managed else None,
                    "app": entry.app,
                    "schedule": text,
                    "edited": entry.is_edited,
                    "enabled": entry.is_enabled,
                }
                for entry, text in zip(found, when, strict=True)
            ]
        )
        return OK
    rows = [(entry.path, entry.app or "-", _state(entry), text) for entry, text in zip(found, when, strict=True)]
    table(("task", "app", "state", "starts"), rows)
    return OK


def _state(entry: TaskEntry) -> str:
    if not entry.is_managed:
        return "somebody else's"
    edited = "edited by hand" if entry.is_edited else "as made"
    return edited if entry.is_enabled else f"{edited}, switched off"


def _sync(options: argparse.Namespace) -> int:
    return run_sync(options, _open(options))


def _open(options: argparse.Namespace) -> Schtasks:
    from ..system import Schtasks

    return Schtasks(folder=options.folder, timezone=getattr(options, "timezone", None))
