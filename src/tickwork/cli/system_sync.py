"""`diff`, `install`, `sync` and `uninstall` of `tickwork crontab` and `tickwork schtasks`, which are alike."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from ..errors import InvalidOption, nearest
from ..program import JOB_FAILED, OK
from .output import as_json, lines

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from ..app import App
    from ..system.app_sync import AppSync
    from ..system.sync import Plan

VERBS = ("diff", "install", "sync", "uninstall", "list")

DIFFERENT = JOB_FAILED
"""The exit status of a difference: 1, that of diff(1)."""

_SUMMARIES = {
    "diff": "Compare the schedules of an app with {where}; exit 0: the same, 1: different, 2: an error.",
    "install": "Put the schedules of an app into {where}; nothing is removed.",
    "sync": "Bring {where} in step with an app: also remove its entries that it no longer has.",
    "uninstall": "Remove all entries of an app from {where}.",
}


def add_sync(add: Callable[..., argparse.ArgumentParser], name: str, where: str) -> list[argparse.ArgumentParser]:
    """Add the four commands to the parser, with the options that both schedulers have, and return them."""
    commands = []
    for verb, summary in _SUMMARIES.items():
        command = add(f"{name} {verb}", summary.format(where=where), needs_target=False)
        is_removal = verb == "uninstall"
        command.add_argument(
            "target",
            metavar="TARGET",
            nargs="?" if is_removal else None,
            help="module:app, module, or path/file.py" + ("; needless with --app-id" if is_removal else ""),
        )
        command.add_argument("--app-id", metavar="ID", help="by which its entries are known (the module of TARGET)")
        command.add_argument("--dir", metavar="DIR", help="where TARGET is imported, and runs (the current folder)")
        command.add_argument("--force", action="store_true", help="what was edited by hand, or is another folder's")
        command.add_argument("--json", action="store_true", help="as JSON")
        if verb != "diff":
            command.add_argument("--dry-run", action="store_true", help="only say what would be done")
        if not is_removal:
            command.add_argument(
                "--log", metavar="DIR", help="the folder of the logs, or none (log/APP in the state folder of tickwork)"
            )
            command.add_argument("--python", metavar="FILE", help="the interpreter (this one)")
            command.add_argument(
                "--skip-unsupported", action="store_true", help="leave out schedules that cannot be said exactly"
            )
        commands.append(command)
    return commands


def add_verbs(add: Callable[..., argparse.ArgumentParser], name: str, verbs: Sequence[str]) -> None:
    """Add the word that the commands begin with, for whoever asks what may follow."""
    word = add(name, f"One of `{name} {f'`, `{name} '.join(verbs)}`.", needs_target=False)
    word.add_argument("verb", metavar="COMMAND", nargs="*", help=", ".join(verbs))


def run_verbs(options: argparse.Namespace, verbs: Sequence[str]) -> int:
    """Say what may follow."""
    given = options.verb[0] if options.verb else None
    near = None if given is None else nearest(given, list(verbs))
    remedy = "" if near is None else f"did you mean {near!r}?"
    raise InvalidOption(f"the word after `{options.command}`", f"one of {', '.join(verbs)}", given, remedy=remedy)


def run_sync(options: argparse.Namespace, scheduler: AppSync) -> int:
    """Do what one of the four commands says, and return the exit status."""
    verb = options.command.rpartition(" ")[2]
    app, target, folder = _load(options)

    async def work() -> Plan:
        plan = await _planned(options, scheduler, verb, app, target, folder)
        if options.json:
            as_json(plan.as_data())
        else:
            lines(plan.lines())
        if verb != "diff":
            plan.check()
            if not options.dry_run:
                await scheduler.apply(plan)
        return plan

    plan = asyncio.run(work())
    if verb == "diff":
        return OK if plan.is_equal else DIFFERENT
    if not options.json and not options.dry_run:
        lines([f"changed {plan.where}" if plan.changes else "nothing to do"])
    return DIFFERENT if plan.is_left else OK


def app_id(options: argparse.Namespace) -> str | None:
    """Return the id of the app that is meant, or None where none is."""
    if options.app_id is not None or options.target is None:
        return options.app_id  # type: ignore[no-any-return]
    from ..system.app_entries import app_id_of

    return app_id_of(_load(options)[1])


def _load(options: argparse.Namespace) -> tuple[App | None, str, str | None]:
    """Import the target in its folder; return the app, its exact target, and the folder where one is known."""
    from ..system.app_entries import here
    from .target import load_exact

    if options.target is None:
        if options.app_id is None:
            raise InvalidOption("TARGET", "given, unless --app-id is", None)
        return None, "", None if options.dir is None else here(options.dir)
    folder = here(options.dir)
    try:
        os.chdir(folder)
    except OSError as error:
        raise InvalidOption("--dir", "a folder that can be entered", folder, remedy=error.strerror or "") from None
    app, target = load_exact(options.target, folder=folder, show_traceback=options.verbose)
    return app, target, folder


async def _planned(
    options: argparse.Namespace, scheduler: AppSync, verb: str, app: App | None, target: str, folder: str | None
) -> Plan:
    from ..system.app_entries import absolute_target, app_id_of

    if verb == "uninstall":
        known = app_id_of(target) if options.app_id is None else options.app_id
        exact = absolute_target(target, folder or "") if target else ""
        return await scheduler.plan_removal(known, target=exact, dir=folder, force=options.force)
    assert app is not None
    return await scheduler.plan(
        app,
        target,
        app_id=options.app_id,
        dir=folder,
        log=True if options.log is None else False if options.log == "none" else options.log,
        python=options.python,
        remove=verb != "install",
        force=options.force,
        skip_unsupported=options.skip_unsupported,
    )
