"""`tickwork crontab`: what stands in a crontab, and whether it runs."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING

from ..program import JOB_FAILED, OK
from .output import as_json, lines, table

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable


def add_crontab(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the commands to the parser. `crontab doctor` is one word here."""
    listing = add("crontab list", "List the jobs in a crontab, ours and everybody else's.", needs_target=False)
    doctor = add("crontab doctor", "Say whether a cron daemon runs, and prove that an entry does.", needs_target=False)
    doctor.add_argument("--no-probe", action="store_true", help="write no entry to see whether it runs")
    doctor.add_argument(
        "--wait", default="75s", metavar="TIME", help="how long to wait for the entry (75s; cron looks once a minute)"
    )
    for command in (listing, doctor):
        command.add_argument("--user", metavar="NAME", help="whose crontab; another one than yours needs root (yours)")
        command.add_argument("--json", action="store_true", help="as JSON")


def run_crontab_list(options: argparse.Namespace) -> int:
    """List the jobs in a crontab."""
    from ..system import Crontab

    found = asyncio.run(Crontab(options.user).list())
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
