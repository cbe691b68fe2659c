"""One thread that owns a database connection, and one transaction for all that ask at the same moment.

What a caller wants done is a function of the connection. The thread takes all that wait, runs them one after the other
between one BEGIN and one COMMIT, and answers them when the commit is on the disk: the flush, which costs more than all
the rest, is paid once (group commit). A function that raises is run again in a transaction of its own, so that it
spoils none of the others.

A caller that is cancelled withdraws what has not begun. What has begun is done wholly: the caller is told, and may undo
it, before its cancellation goes on. So a transaction is never left open, and nothing is half done.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..clock import outside
from ..errors import NotRunning
from ..shield import to_its_end

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Awaitable, Callable

logger: logging.Logger = logging.getLogger("tickwork.stores")

T = TypeVar("T")

MAX_BATCH = 1_000
"""So many requests share a transaction at the most: enough for any burst, and still milliseconds of work."""


class _Request(Generic[T]):
    """One function to be run, and who waits for it."""

    __slots__ = ("error", "future", "is_taken", "is_withdrawn", "value", "work")

    def __init__(self, work: Callable[[sqlite3.Connection], T], future: asyncio.Future[T]) -> None:
        self.work = work
        self.future = future
        self.is_taken = False
        self.is_withdrawn = False
        self.value: T
        self.error: BaseException | None = None


class Committer:
    """Runs functions in transactions, in a thread of its own.

    Args:
        connect: Opens the connection, in the thread.
        transaction: Runs functions in one transaction: takes the connection and a list of functions, and returns their
            values. It raises with nothing done, or returns with all committed.
        idle: Called in the thread between transactions, with the connection; returns how many seconds it may sleep.
        name: Names the thread.
    """

    def __init__(
        self,
        *,
        connect: Callable[[], sqlite3.Connection],
        transaction: Callable[[sqlite3.Connection, list[Callable[[sqlite3.Connection], Any]]], list[Any]],
        idle: Callable[[sqlite3.Connection], float],
        name: str,
    ) -> None:
        self._connect = connect
        self._transaction = transaction
        self._idle = idle
        self._name = name
        self._waiting: deque[_Request[Any]] = deque()
        self._urgent: deque[_Request[Any]] = deque()
        self._wake = threading.Condition()
        self._is_closing = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Future[None] | None = None
        self._pid = 0

    async def open(self) -> None:
        """Start the thread and wait until it has its connection.

        Raises:
            Exception: What `connect` raises.
        """
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        self._is_closing = False
        self._ended = self._loop.create_future()
        opened: asyncio.Future[None] = self._loop.create_future()
        threading.Thread(target=self._serve, args=(opened,), name=self._name, daemon=True).start()
        with outside():
            await to_its_end(opened)

    @property
    def is_open(self) -> bool:
        """Whether requests are taken."""
        return self._ended is not None and not self._is_closing

    async def aclose(self) -> None:
        """Do what waits, then end the thread. A second call does nothing."""
        if self._ended is None:
            return
        with self._wake:
            self._is_closing = True
            self._wake.notify()
        with outside():
            await to_its_end(self._ended)
        self._ended = None

    async def run(
        self,
        work: Callable[[sqlite3.Connection], T],
        *,
        undo: Callable[[T], Awaitable[object]] | None = None,
        urgent: bool = False,
    ) -> T:
        """Run a function in a transaction and return its value, once that is committed.

        Args:
            work: Takes the connection. It may be run again, when the transaction that it shared failed.
            undo: Called with the value when the caller was cancelled after the function had begun.
            urgent: Before all that waits.

        Raises:
            Exception: What the function or the database raises; then nothing of it is done.
        """
        if self._ended is None or self._is_closing or self._loop is None:
            raise NotRunning("the store is closed")
        if os.getpid() != self._pid:
            raise NotRunning(f"the store was opened by process {self._pid}; a forked child must open its own")
        request: _Request[T] = _Request(work, self._loop.create_future())
        with self._wake:
            (self._urgent if urgent else self._waiting).append(request)
            self._wake.notify()
        future = request.future
        try:
            with outside():
                return await future
        except asyncio.CancelledError:
            if future.cancelled():
                if self._withdraw(request):
                    raise
                request.future = future = self._loop.create_future()
                with outside(), suppress(Exception):
                    await to_its_end(future)
            if undo is not None and future.exception() is None:
                await to_its_end(undo(future.result()))
            raise

    def _withdraw(self, request: _Request[Any]) -> bool:
        with self._wake:
            request.is_withdrawn = not request.is_taken
            return request.is_withdrawn

    # -- the thread -------------------------------------------------------------------------------------------------

    def _serve(self, opened: asyncio.Future[None]) -> None:
        try:
            connection = self._connect()
        except BaseException as error:
            self._tell(_settle, opened, error)
            self._tell(_settle, self._ended, None)
            return
        self._tell(_settle, opened, None)
        try:
            pause = 0.0
            while True:
                batch = self._take(pause)
                if batch:
                    self._answer(connection, batch)
                elif self._is_closing:
                    return
                try:
                    pause = self._idle(connection)
                except Exception:
                    logger.exception("the store failed to look around; it tries again")
                    pause = 1.0
        finally:
            connection.close()
            self._tell(_settle, self._ended, None)

    def _take(self, pause: float) -> list[_Request[Any]]:
        """Return what waits, the urgent first; wait for it `pause` seconds at the most."""
        with self._wake:
            if not self._urgent and not self._waiting and not self._is_closing:
                self._wake.wait(pause)
            batch: list[_Request[Any]] = []
            for line in (self._urgent, self._waiting):
                while line and len(batch) < MAX_BATCH:
                    request = line.popleft()
                    if not request.is_withdrawn:
                        request.is_taken = True
                        batch.append(request)
            return batch

    def _answer(self, connection: sqlite3.Connection, batch: list[_Request[Any]]) -> None:
        if not self._try(connection, batch) and len(batch) > 1:
            for request in batch:
                self._try(connection, [request])
        self._tell(_deliver, batch)

    def _try(self, connection: sqlite3.Connection, batch: list[_Request[Any]]) -> bool:
        try:
            values = self._transaction(connection, [request.work for request in batch])
        except BaseException as error:
            for request in batch:
                request.error = error
            return False
        for request, value in zip(batch, values, strict=True):
            request.value, request.error = value, None
        return True

    def _tell(self, call: Callable[..., None], *args: Any) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(call, *args)
        except RuntimeError:  # the loop is closed: nobody waits any more
            self._is_closing = True

    def call_on_loop(self, call: Callable[..., None], *args: Any) -> None:
        """Call a function on the loop; for `idle`, which runs in the thread."""
        self._tell(call, *args)


def _settle(future: asyncio.Future[None], error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


def _deliver(batch: list[_Request[Any]]) -> None:
    for request in batch:
        if request.future.done():
            continue
        if request.error is not None:
            request.future.set_exception(request.error)
        else:
            request.future.set_result(request.value)
