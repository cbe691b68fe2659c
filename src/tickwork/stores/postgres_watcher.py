"""A thread that looks at a database: soon when another process hints at something, and in any case now and then.

A hint is a NOTIFY, and no more than a hint: it may be lost. It is sent at most so often, in a transaction of its own,
for each takes a lock of the whole database at its end. Where nobody in this process waits for what others do, a hint
can wait a little, too: else each of many busy processes would look after each step of all the others.
"""

from __future__ import annotations

import asyncio
import logging
import math
import selectors
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import psycopg

from ..clock import outside
from ..errors import StoreUnavailable
from ..shield import to_its_end

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..clock import Clock
    from .postgres_link import Link

logger: logging.Logger = logging.getLogger("tickwork.stores")

HINT_SECONDS = 0.02
"""Hints at new work come no closer than this: a worker that waits gets its job within some milliseconds, and a burst of
ten thousand jobs is one hint in fifty a second."""
CALM_HINT_SECONDS = 0.1
"""The same of hints at anything else, such as ends of jobs: for each, the server wakes all that listen."""
CALM_SECONDS = 0.1
"""After so long a hint is followed, though nobody waits: cancellations and changes of schedules must be heard of."""
TROUBLE_SECONDS = 1.0
"""How soon the thread looks again after that has failed."""


class Watcher:
    """A thread with a connection of its own.

    Args:
        link: Its connection.
        channel: Where hints come and go; None: there are none.
        look: Called in the thread, again and again; returns how many seconds it may sleep.
        is_awaited: Whether anybody in this process waits for what others do. Who begins to, calls `awaited`.
        clock: Tells when hints may be sent.
    """

    def __init__(
        self,
        link: Link,
        *,
        channel: str | None,
        look: Callable[[], float],
        is_awaited: Callable[[], bool],
        clock: Clock,
    ) -> None:
        self._link = link
        self._channel = channel
        self._look = look
        self._is_awaited = is_awaited
        self._is_put_off = False
        """Whether a hint has come that was not followed yet."""
        self._is_hinted = False
        """Whether one has come since the last look began, and was not put off."""
        self._clock = clock
        self._listens_on: psycopg.Connection[tuple[object, ...]] | None = None
        self._has_news = self._is_work = False
        """Whether there is something to hint at, and whether at work."""
        self._hinted_mono = -math.inf
        self._is_closing = False
        self._wake_lock = threading.Lock()
        self._is_awake = False
        self._bell: tuple[socket.socket, socket.socket] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Future[None] | None = None

    def open(self) -> None:
        """Start the thread."""
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        self._is_closing = self._is_awake = self._has_news = self._is_work = False
        self._bell = socket.socketpair()
        for end in self._bell:
            end.setblocking(False)
        threading.Thread(target=self._work, name="tickwork-postgres-watcher", daemon=True).start()

    async def aclose(self) -> None:
        """End the thread. A second call does nothing."""
        if self._ended is None:
            return
        self._is_closing = True
        self._ring()
        with outside():
            await to_its_end(self._ended)
        self._ended = None

    def hint(self, *, is_work: bool) -> None:
        """Let other processes know soon that something has happened; may be called in any thread.

        Args:
            is_work: There may be something to claim. Else it can wait a little longer, if the last hint is young.
        """
        if self._channel is not None and not (self._has_news and self._is_work >= is_work):
            self._is_work |= is_work
            self._has_news = True
            self._ring()

    def awaited(self) -> None:
        """Hear that somebody begins to wait for what others do: a hint that was put off is followed now."""
        if self._is_put_off:
            self._ring()

    def _ring(self) -> None:
        """Wake the thread."""
        with self._wake_lock:
            if self._bell is not None and not self._is_awake:
                self._is_awake = True
                with suppress(OSError):
                    self._bell[0].send(b"!")

    # -- the thread -------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        is_troubled = False
        while not self._is_closing:
            try:
                self._listen()
                self._is_put_off = self._is_hinted = False
                pause, is_troubled = self._look(), False
                self._tell_news()
            except Exception as error:
                if not is_troubled:  # once is enough, however long it lasts
                    is_expected = isinstance(error, StoreUnavailable | psycopg.Error)
                    trace = None if is_expected else error
                    logger.error("the store failed to look around; it goes on trying: %s", error, exc_info=trace)
                pause, is_troubled = TROUBLE_SECONDS, True
            self._wait(pause)
        self._link.disconnect()
        with self._wake_lock:
            assert self._bell is not None
            for end in self._bell:
                end.close()
            self._bell = None
        assert self._loop is not None
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(_settle, self._ended)

    def _listen(self) -> None:
        if self._channel is None:
            return
        with self._link.asking():
            self._link.connect()
            connection = self._link.connection
            if connection is not None and connection is not self._listens_on:
                connection.add_notify_handler(self._hear)
                connection.execute(f"LISTEN {self._channel}")
                self._listens_on = connection

    def _hear(self, hint: psycopg.Notify) -> None:
        """Hear a hint that has come while the connection was used for something else."""
        self._is_hinted |= hint.pid != self._link.pid

    def _tell_news(self) -> None:
        """Send a hint, when there is news and the last one is not too young."""
        if self._has_news and self._link.connection is not None and self._hint_pause() <= 0:
            self._has_news = self._is_work = False
            self._hinted_mono = self._clock.monotonic()
            with self._link.asking():
                self._link.connection.execute(f"NOTIFY {self._channel}")

    def _hint_pause(self) -> float:
        apart = HINT_SECONDS if self._is_work else CALM_HINT_SECONDS
        return self._hinted_mono + apart - self._clock.monotonic()

    def _wait(self, seconds: float) -> None:
        """Wait until something may have happened; send the hints of this process meanwhile."""
        now = self._clock.monotonic()
        until, calm = now + seconds, now + CALM_SECONDS
        while not (self._is_closing or (self._is_put_off and self._is_awaited())):
            pause = until - self._clock.monotonic()
            if self._has_news and self._listens_on is not None and self._listens_on is self._link.connection:
                try:
                    self._tell_news()
                except psycopg.Error:
                    return  # the look finds out
                if self._has_news:
                    pause = min(pause, self._hint_pause())
            if pause <= 0:
                return
            if self._is_hinted or self._sleep(pause):
                self._is_hinted = False
                if self._listens_on is None or self._listens_on.closed:
                    return
                self._is_put_off = True  # before anybody is asked: who begins to wait asks for it after that
                until = min(until, calm)

    def _sleep(self, seconds: float) -> bool:
        """Sleep, and return whether another process has hinted at something, or the connection has ended."""
        assert self._bell is not None
        connection = self._listens_on if self._channel is not None else None
        is_open = connection is not None and not connection.closed and connection is self._link.connection
        with selectors.DefaultSelector() as selector:
            selector.register(self._bell[1], selectors.EVENT_READ)
            if is_open and connection is not None:
                selector.register(connection.fileno(), selectors.EVENT_READ)
            ready = {key.fileobj for key, _ in selector.select(seconds)}
        if self._bell[1] in ready:
            with self._wake_lock:
                self._is_awake = False
                with suppress(OSError):
                    self._bell[1].recv(64)
        if not is_open or connection is None or connection.fileno() not in ready:
            return False
        return _has_hint(connection, self._link.pid)


def _has_hint(connection: psycopg.Connection[tuple[object, ...]], own_pid: int) -> bool:
    """Return whether what came is the hint of another process, or the end of the connection."""
    try:
        connection.pgconn.consume_input()
    except psycopg.Error:
        return True
    has_hint = False
    while (told := connection.pgconn.notifies()) is not None:
        has_hint |= told.be_pid != own_pid
    return has_hint or connection.closed


def _settle(ended: asyncio.Future[None] | None) -> None:
    if ended is not None and not ended.done():
        ended.set_result(None)
