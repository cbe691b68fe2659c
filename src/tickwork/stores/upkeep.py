"""What a person does with a SQLite store, also while apps work on it: measure, check, copy, and move to another one."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ..clock import outside
from ..errors import StoreUnavailable
from ..shield import to_its_end
from . import sqlite_upkeep as upkeep
from .sqlite_verbs import moved_to, note_schedule_change

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from .sqlite import SQLiteStore
    from .sqlite_upkeep import Finding, StoreStats

WAIT_SECONDS = 60.0
"""How long a move waits for jobs that run."""


@dataclass(frozen=True, slots=True)
class Moved:
    """What a move did.

    Attributes:
        rows: How many rows of each table were written; what was there already is not counted.
        left: Jobs that could not be taken in, because another one there has their key.
    """

    rows: dict[str, int]
    left: list[str]


async def stats(store: SQLiteStore) -> StoreStats:
    """Return how large a store is, and what is in it."""
    return await store.run(partial(upkeep.stats, path=store.path))


async def check(store: SQLiteStore, now: datetime, *, repair: bool = False) -> list[Finding]:
    """Return what should not be in a store; with `repair`, mend what needs no person, and return what is left."""
    found = await store.run(partial(upkeep.check, now=now))
    if not repair or not any(finding.repair for finding in found):
        return found
    await store.run(partial(upkeep.repair, findings=found))
    return await store.run(partial(upkeep.check, now=now))


async def backup(store: SQLiteStore, destination: Path) -> int:
    """Write a copy of a store as it stands at one moment, while others work on it; return its size in bytes.

    Raises:
        StoreUnavailable: There is a file of that name already, or it cannot be written.
    """
    with outside():
        return await asyncio.to_thread(upkeep.copy, store.path, destination)


async def move(source: SQLiteStore, target: SQLiteStore, *, wait_seconds: float = WAIT_SECONDS) -> Moved:
    """Move all jobs, schedules and ledgers into another store; the old one then refuses to begin anything.

    Ids stay, and what is there already is left alone. A move that is cut off while it copies leaves the old one closed,
    so that nothing runs in both, and can be done again.

    Args:
        source: From where; opened.
        target: Where to; opened.
        wait_seconds: How long to wait for the end of jobs that run.

    Raises:
        StoreUnavailable: Both are one file, the jobs of the target were moved elsewhere themselves, or jobs still run
            after that time: then nothing was moved, and the old one is open.
    """
    if await asyncio.to_thread(source.path.samefile, target.path):
        raise StoreUnavailable(str(source.path), "it cannot be moved into itself", "name another file")
    if (elsewhere := await target.run(moved_to)) is not None:
        reason = f"its own jobs were moved to {elsewhere}"
        raise StoreUnavailable(str(target.path), reason, "name that, or a new file")
    await source.run(partial(upkeep.close_down, target=f"sqlite:///{target.path}"))
    try:
        await _wait_idle(source, wait_seconds)
    except BaseException:
        await to_its_end(source.run(upkeep.open_up))
        raise
    # From here on it stays closed, whatever happens: some jobs are in both.
    moved = await _copied(source, target)
    await target.run(note_schedule_change)
    return moved


async def _copied(source: SQLiteStore, target: SQLiteStore) -> Moved:
    written: dict[str, int] = {}
    left: list[str] = []
    for table in await source.run(upkeep.tables):
        last, has_more = None, True
        while has_more:
            part = await source.run(partial(upkeep.part, table=table, after=last))
            count, refused = await target.run(partial(upkeep.take_in, moved=part))
            written[table] = written.get(table, 0) + count
            left += refused
            last, has_more = part.last, part.last is not None
    return Moved(written, left)


async def _wait_idle(store: SQLiteStore, seconds: float) -> None:
    """Wait until no job runs; those of dead workers are taken away from them."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while True:
        await store.rescue()
        running = await store.run(upkeep.running)
        if not running:
            return
        if loop.time() >= until:
            told = ", ".join(f"{job_id} in worker {worker}" for job_id, worker in running[:20])
            reason = f"{len(running)} jobs still run: {told}"
            raise StoreUnavailable(str(store.path), reason, "stop those workers, or wait for longer")
        await asyncio.sleep(0.1)
