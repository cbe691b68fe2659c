"""STORE on the command line: the file or the schema that an app or a URL names, opened without workers or schedules."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from ..clock import SystemClock
from ..errors import InvalidTarget, StoreUnavailable
from .target import app_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ..app import App
    from ..stores.postgres import PostgresStore
    from ..stores.sqlite import SQLiteStore


def store_of(app: App, word: str, *, makes: bool = False) -> SQLiteStore | PostgresStore:
    """Return the store of an app, not opened; it has no worker.

    Args:
        app: The app.
        word: What named it.
        makes: Whether a file that is not there is to be made.

    Raises:
        InvalidTarget: It keeps its jobs in memory.
        StoreUnavailable: There is no such file.
    """
    if not app.is_durable:
        raise InvalidTarget(word, "this app keeps its jobs in memory, which no other process can reach")
    keep = app.retention
    if app.path is not None:
        from ..stores.sqlite import SQLiteStore

        if not makes and not app.path.exists():
            raise StoreUnavailable(str(app.path), "there is no such file", "see where the app was started")
        return SQLiteStore(
            app.path, SystemClock(), keep_results=keep.results, keep_jobs=keep.jobs, keep_ledger=keep.ledger
        )
    from ..stores.postgres import PostgresStore

    made = app._make_store()
    assert isinstance(made, PostgresStore), made
    return PostgresStore(
        made.target, SystemClock(), keep_results=keep.results, keep_jobs=keep.jobs, keep_ledger=keep.ledger
    )


def name_of(store: SQLiteStore | PostgresStore) -> str:
    """Return what people call a store."""
    from ..stores.sqlite import SQLiteStore

    return store.where if isinstance(store, SQLiteStore) else f"{store.where}, schema {store.target.schema}"


@asynccontextmanager
async def opened(
    word: str, *, makes: bool = False, verbose: bool = False
) -> AsyncIterator[SQLiteStore | PostgresStore]:
    """Open the store that a word names.

    Args:
        word: An app, or a URL.
        makes: Make a file or tables where there are none.
        verbose: Print the traceback of an import that raises.

    Raises:
        InvalidTarget: It names none.
        StoreUnavailable: The store cannot be used, or is not there.
    """
    store = store_of(app_of(word, show_traceback=verbose), word, makes=makes)
    if not makes:
        await _expect_tables(store)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def _expect_tables(store: SQLiteStore | PostgresStore) -> None:
    """Refuse to make a schema where somebody only looks; a file is there already, or was refused."""
    from ..stores.sqlite import SQLiteStore

    if isinstance(store, SQLiteStore):
        return
    if (await asyncio.to_thread(store.plan_migration)).version is None:
        reason = f"there are no tables in its schema {store.target.schema!r}"
        raise StoreUnavailable(store.where, reason, "see what the app's URL says, or start the app: it makes them")
