"""`tickwork store migrate`: bring the tables of a store to today's version, or print what would do so."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING

from ..program import OK
from .output import as_json, lines
from .store_target import name_of, store_of
from .target import app_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from ..stores.migration import Migration


def add_migrate(action: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """Add the action to the parser."""
    command = action("migrate", "Bring the tables to the version of this tickwork, as opening them does.")
    command.add_argument("--plan", action="store_true", help="change nothing, print the statements that would")


async def migrate(options: argparse.Namespace) -> int:
    """Do so, or print what would."""
    store = store_of(app_of(options.store, show_traceback=options.verbose), options.store)
    where = name_of(store)
    before = await asyncio.to_thread(store.plan_migration)
    after = before
    if before.statements and not options.plan:
        await store.open()
        await store.close()
        after = await asyncio.to_thread(store.plan_migration)
    if options.json:
        told = {"store": where, "before": before.version, "after": after.version, "known": before.known}
        as_json(told | ({"statements": list(map(inspect.cleandoc, before.statements))} if options.plan else {}))
    elif options.plan:
        lines(_script(where, before))
    elif before.statements:
        lines([f"{where}: there were {_told(before)}, now there are {_told(after)}"])
    else:
        lines([f"{where}: nothing to do, there are {_told(before)}"])
    return OK


def _told(found: Migration) -> str:
    return "no tables" if found.version is None else f"tables of version {found.version}"


def _script(where: str, found: Migration) -> Iterator[str]:
    """Yield what `psql` or `sqlite3` could run, the facts as comments."""
    where = " ".join(where.split())  # a comment ends with its line
    yield f"-- {where}: {_told(found)}; this tickwork makes those of version {found.known}"
    if not found.statements:
        yield "-- nothing to do"
        return
    for statement in (*found.begin, *found.statements, "COMMIT"):
        yield f"{inspect.cleandoc(statement)};"
