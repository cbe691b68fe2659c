"""`tickwork crontab`: an app's schedules in a crontab, what stands there, and whether it runs."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING

from ..program import JOB_FAILED, OK
from .output import as_json, lines, table
from .system_sync import VERBS, add_sync, add_verbs, app_id, run_sync, run_verbs

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable


def add_crontab(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the commands to the parser. `crontab doctor` is one word here."""
    add_verbs(add, "crontab", (*VERBS, "doctor"))
    commands = add_sync(add, "crontab", "a crontab")
    listing = add(
        "crontab list", "List the jobs in a crontab, ours and everybody else's; or those of an app.", needs_target=False
    )
    listing.add_argument("target", metavar="TARGET", nargs="?", help="an app: only its entries")
    listing.add_argument("--app-id", metavar="ID", help="the same by its id")
    listing.add_argument("--dir", metavar="DIR", help="where TARGET is imported (the current folder)")
    doctor = add("crontab doctor", "Say whether a cron daemon runs, and prove that an entry does.", needs_target=False)
    doctor.add_argument("--no-probe", action="store_true", help="write no entry to see whether it runs")
    doctor.add_argument(
        "--wait", default="75s", metavar="TIME", help="how long to wait for the entry (75s; cron looks once a minute)"
    )
    for command in (*commands, listing, doctor):
        command.add_argument("--user", metavar="NAME", help="whose crontab; another one than yours needs root (yours)")
    for command in (listing, doctor):
        command.add_argument("--json", action="store_true", help="as JSON")


def run_crontab(options: argparse.Namespace) -> int:
    """Say which commands there are."""
    return run_verbs(options, (*VERBS, "doctor"))


def run_crontab_diff(options: argparse.Namespace) -> int:
    """Compare an app with a crontab."""
    return _sync(options)


def run_crontab_install(options: argparse.Namespace) -> int:
    """Put an app's schedules into a crontab."""
    return _sync(options)


def run_crontab_sync(options: argparse.Namespace) -> int:
    """Bring a crontab in step with an app."""
    return _sync(options)


def run_crontab_uninstall(options: argparse.Namespace) -> int:
    """Take an app's entries out of a crontab."""
    return _sync(options)


def _sync(options: argparse.Namespace) -> int:
    from ..system import Crontab

    return run_sync(options, Crontab(options.user))


def run_crontab_list(options: argparse.Namespace) -> int:
    """List the jobs in a crontab."""
    from ..system import Crontab

    tab, app = Crontab(options.user), app_id(options)
    found = [line for line in asyncio.run(tab.list()) if app is None or (line.is_managed and line.app == app)]
    if options.json:
        as_json(
            [
                {
                    "line": line.line_no,
                    "id": line.id,
                    "app": line.app,
                    "schedule": line.schedule,
                    "command": line.command.encode(errors="backslashreplace").decode(),
                    "edited": line.is_edited,
                }
                for line in found
            ]
        )
        return OK
    rows = [
        (
            str(line.line_no),
            (line.id or "-") + (" (edited by hand)" if line.is_edited else ""),
            line.app or "-",
            line.schedule or "?",
            line.command.encode(errors="backslashreplace").decode(),
        )
        for line in found
    ]
    table(("line", "id", "app", "schedule", "command"), rows)
    return OK


def run_crontab_doctor(options: argparse.Namespace) -> int:
    """Examine a crontab and its daemon."""
    from ..system import Crontab, doctor

    report = asyncio.run(doctor(Crontab(options.user), probe=not options.no_probe, timeout=options.wait))
    if options.json:
        as_json({**asdict(report), "ok": report.is_ok})
    else:
        lines(map(str, report.checks))
    return OK if report.is_ok else JOB_FAILED
