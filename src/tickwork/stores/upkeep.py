"""What a person does with a store, also while apps work on it: measure, check, copy, and move to another one."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ..clock import outside
from ..errors import StoreUnavailable
from ..shield import to_its_end
from .sql_check import Finding
from .sql_moving import TABLES

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from .durable import DurableStore
    from .migration import Migration
    from .sqlite import SQLiteStore
    from .sqlite_upkeep import StoreStats

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
    """Return how large the file of a store is, and what is in it."""
    from .sqlite_upkeep import stats

    return await store.run(partial(stats, path=store.path))


def check_version(found: Migration) -> list[Finding]:
    """Return what is wrong with the version of tables, which opening the store would change."""
    if found.version is None or found.version >= found.known:
        return []
    text = f"the tables have version {found.version}, and this tickwork makes those of version {found.known}"
    return [Finding("old tables", text, "run `tickwork store migrate`, or start the app; then check again")]


async def check(store: DurableStore, now: datetime, *, repair: bool = False) -> list[Finding]:
    """Return what should not be in a store; with `repair`, mend what needs no person, and return what is left."""
    checks = store.sql.checks
    found: list[Finding] = await store.run(partial(checks.check, now=now))
    if not repair or not any(finding.repair for finding in found):
        return found
    await store.run(partial(checks.repair, findings=found))
    left: list[Finding] = await store.run(partial(checks.check, now=now))
    return left


async def backup(store: SQLiteStore, destination: Path) -> int:
    """Write a copy of a store as it stands at one moment, while others work on it; return its size in bytes.

    Raises:
        StoreUnavailable: There is a file of that name already, or it cannot be written.
    """
    from .sqlite_upkeep import copy

    with outside():
        return await asyncio.to_thread(copy, store.path, destination)


async def move(source: DurableStore, target: DurableStore, *, wait_seconds: float = WAIT_SECONDS) -> Moved:
    """Move all jobs, schedules and ledgers into another store; the old one then refuses to begin anything.

    Ids stay, and what is there already is left alone. A move that is cut off while it copies leaves the old one closed,
    so that nothing runs in both, and can be done again.

    Args:
        source: From where, a file or a schema of PostgreSQL; opened.
        target: Where to, likewise.
        wait_seconds: How long to wait for the end of jobs that run.

    Raises:
        StoreUnavailable: Both are the same, the jobs of the target were moved elsewhere themselves, or those of the
            source were, to another one; or jobs still run after that time: then nothing was moved, and the old one is
            open.
    """
    await _expect_apart(source, target)
    moving = source.sql.moving
    is_resumed = await source.run(moving.moved_to) is not None
    await source.run(partial(moving.close_down, target=target.address))
    try:
        await _wait_idle(source, wait_seconds)
    except BaseException:
        if not is_resumed:  # else some jobs are in both already
            await to_its_end(source.run(moving.open_up))
        raise
    # From here on it stays closed, whatever happens: some jobs are in both.
    moved = await _copied(source, target)
    await target.run(target.sql.moving.note_schedule_change)
    return moved


async def _expect_apart(source: DurableStore, target: DurableStore) -> None:
    here, there = source.sql.moving, target.sql.moving
    if await source.run(here.place) == await target.run(there.place):
        raise StoreUnavailable(source.where, "it cannot be moved into itself", "name another store")
    if (elsewhere := await target.run(there.moved_to)) is not None:
        reason = f"its own jobs were moved to {elsewhere}"
        raise StoreUnavailable(target.where, reason, "name that, or a new store")
    if (elsewhere := await source.run(here.moved_to)) not in (None, target.address):
        reason = f"a move of its jobs to {elsewhere} has begun"
        raise StoreUnavailable(source.where, reason, "name that, to bring it to its end")


async def _copied(source: DurableStore, target: DurableStore) -> Moved:
    written: dict[str, int] = {}
    left: list[str] = []
    for table in TABLES:
        last, has_more = None, True
        while has_more:
            part = await source.run(partial(source.sql.moving.part, table=table, after=last))
            count, refused = await target.run(partial(target.sql.moving.take_in, moved=part))
            written[table] = written.get(table, 0) + count
            left += refused
            last, has_more = part.last, part.last is not None
    return Moved(written, left)


async def _wait_idle(store: DurableStore, seconds: float) -> None:
    """Wait until no job runs; those of dead workers are taken away from them."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while True:
        await store.rescue()
        running = await store.run(store.sql.moving.running)
        if not running:
            return
        if loop.time() >= until:
            told = ", ".join(f"{job_id} in worker {worker}" for job_id, worker in running[:20])
            reason = f"{len(running)} jobs still run: {told}"
            raise StoreUnavailable(store.where, reason, "stop those workers, or wait for longer")
        await asyncio.sleep(0.1)
