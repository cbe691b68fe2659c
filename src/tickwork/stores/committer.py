"""One thread that owns a database connection, and one transaction for all that ask at the same moment.

What a caller wants done is a function of the connection. The thread takes all that wait, runs them one after the other
between one BEGIN and one COMMIT, and answers them when the commit is on the disk: the flush, which costs more than all
the rest, is paid once (group commit). Neighbours that ask for the same verb share one call of it, so that it may write
all their rows at once. When a function raises, each request is run again in a transaction of its own, so that it spoils
none of the others. When the database itself fails (its disk is full, say), all hear of that at once.

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
from functools import partial
from itertools import chain, groupby
from operator import attrgetter
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..clock import outside
from ..errors import NotRunning, StoreMoved, StoreUnavailable
from ..shield import to_its_end

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

logger: logging.Logger = logging.getLogger("tickwork.stores")

A = TypeVar("A")
C = TypeVar("C")
T = TypeVar("T")

MAX_BATCH = 1_000
"""So many requests share a transaction at the most: enough for any burst, and still milliseconds of work."""


TROUBLE_SECONDS = 1.0
"""How soon the thread looks around again after that has failed."""


class _Process:
    """Which process this is: another one in a forked child. Cheaper to ask than the system."""

    pid: int = os.getpid()


def _forked() -> None:
    _Process.pid = os.getpid()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


class _Request(Generic[C, A, T]):
    """One argument of a verb, and who waits for its value."""

    __slots__ = ("argument", "error", "future", "is_answered", "is_taken", "is_withdrawn", "value", "verb")

    def __init__(self, verb: Callable[[C, list[A]], Sequence[T]], argument: A, future: asyncio.Future[T]) -> None:
        self.verb = verb
        self.argument = argument
        self.future = future
        self.is_taken = False
        self.is_withdrawn = False
        self.is_answered = False
        self.value: T
        self.error: BaseException | None = None

    def settle(self) -> None:
        """Tell who waits, if anybody still does."""
        self.is_answered = True
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.value)


class Committer(Generic[C]):
    """Runs functions in transactions, in a thread of its own.

    Args:
        connect: Opens the connection, in the thread.
        transaction: Runs functions in one transaction: takes the connection and a list of functions, and returns their
            values. It raises with nothing done, or returns with all committed; `StoreUnavailable` when the database
            fails, whatever was asked of it.
        idle: Called in the thread between transactions, with the connection; returns how many seconds it may sleep.
        disconnect: Closes the connection, in the thread.
        name: Names the thread.
    """

    def __init__(
        self,
        *,
        connect: Callable[[], C],
        transaction: Callable[[C, list[Callable[[C], Any]]], list[Any]],
        idle: Callable[[C], float],
        disconnect: Callable[[C], None],
        name: str,
    ) -> None:
        self._connect = connect
        self._transaction = transaction
        self._idle = idle
        self._disconnect = disconnect
        self._name = name
        self._asked: list[tuple[_Request[Any, Any, Any], bool]] = []
        self._waiting: deque[_Request[Any, Any, Any]] = deque()
        self._urgent: deque[_Request[Any, Any, Any]] = deque()
        self._lock = threading.Lock()
        self._bell: SimpleQueue[None] = SimpleQueue()
        """Wakes the thread. Beside a condition, whose lock it would then wait for, it is woken once and not twice."""
        self._ident = 0
        self._news: list[partial[None]] = []
        """What the thread has to say on the loop, beside the answers."""
        self._is_closing = False
        self._is_over = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Future[None] | None = None
        self._pid = 0

    async def open(self, *, on_cancel: Callable[[], object] | None = None) -> None:
        """Start the thread and wait until it has its connection.

        Args:
            on_cancel: Called when the caller is cancelled meanwhile; makes `connect` give up.

        Raises:
            Exception: What `connect` raises.
        """
        self._loop = asyncio.get_running_loop()
        self._pid = _Process.pid
        self._is_closing = self._is_over = False
        self._ended = self._loop.create_future()
        opened: asyncio.Future[None] = self._loop.create_future()
        threading.Thread(target=self._serve, args=(opened,), name=self._name, daemon=True).start()
        with outside():
            await to_its_end(opened, on_cancel=on_cancel)

    @property
    def is_open(self) -> bool:
        """Whether requests are taken."""
        return self._ended is not None and not self._is_closing and not self.is_forked

    @property
    def is_forked(self) -> bool:
        """Whether this process is a forked child of the one that opened it, in which the thread does not exist."""
        return _Process.pid != self._pid

    async def aclose(self) -> None:
        """Do what waits, then end the thread. A second call does nothing, nor does one in a forked child."""
        if self._ended is None or self.is_forked:
            return
        self._hand_over()
        self._is_closing = True
        self._bell.put(None)
        with outside():
            await to_its_end(self._ended)
        self._ended = None

    async def run(
        self,
        work: Callable[[C], T],
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
        return await self.share(_each, work, undo=undo, urgent=urgent)

    async def share(
        self,
        verb: Callable[[C, list[A]], Sequence[T]],
        argument: A,
        *,
        undo: Callable[[T], Awaitable[object]] | None = None,
        urgent: bool = False,
    ) -> T:
        """Run a verb in a transaction and return its value, once that is committed.

        Args:
            verb: Takes the connection and the arguments of all neighbours that ask for the same verb, and returns a
                value for each. It may be called again, when the transaction that it shared failed.
            argument: One of these.
            undo: As in `run`.
            urgent: Likewise.

        Raises:
            Exception: What the verb or the database raises; then nothing of it is done.
        """
        if self._ended is None or self._is_closing or self._loop is None:
            raise NotRunning("the store is closed")
        if self.is_forked:
            raise NotRunning(f"the store was opened by process {self._pid}; a forked child must open its own")
        request: _Request[C, A, T] = _Request(verb, argument, self._loop.create_future())
        if not self._asked:
            # What is asked in the same turn of the loop goes to the thread together, and so into one transaction.
            self._loop.call_soon(self._hand_over)
        self._asked.append((request, urgent))
        try:
            with outside():
                return await request.future
        except asyncio.CancelledError:
            if not self._withdraw(request):
                await self._undo(request, undo)
            raise

    def _hand_over(self) -> None:
        """Give the thread what was asked in this turn of the loop, or refuse it when there is no thread any more."""
        asked, self._asked = self._asked, []
        with self._lock:
            is_over, is_awake = self._is_over, bool(self._urgent or self._waiting)
            if not is_over:
                for request, is_urgent in asked:
                    (self._urgent if is_urgent else self._waiting).append(request)
        if is_over:
            _refuse([request for request, _ in asked])
        elif not is_awake:
            self._bell.put(None)

    async def _undo(self, request: _Request[C, A, T], undo: Callable[[T], Awaitable[object]] | None) -> None:
        """Wait for the end of what has begun, and undo it. What goes wrong there is told, not raised."""
        if not request.is_answered:
            request.future = asyncio.get_running_loop().create_future()
            with outside(), suppress(Exception):
                await _shielded(request.future)
        elif not request.future.cancelled():
            request.future.exception()  # it is seen
        if undo is None or request.error is not None:
            return
        try:
            await _shielded(undo(request.value))
        except Exception:
            logger.exception("a call to the store was cancelled, and what it had done could not be undone")

    def _withdraw(self, request: _Request[Any, Any, Any]) -> bool:
        """Call off what has not begun, and return whether that was so."""
        with self._lock:
            request.is_withdrawn = not request.is_taken
            return request.is_withdrawn

    # -- the thread -------------------------------------------------------------------------------------------------

    def _serve(self, opened: asyncio.Future[None]) -> None:
        self._ident = threading.get_ident()
        try:
            connection = self._connect()
        except BaseException as error:
            self._is_closing = True
            self._tell(_settle, opened, error)
            self._tell(_settle, self._ended, None)
            return
        self._tell(_settle, opened, None)
        try:
            self._work(connection)
        except BaseException as error:
            logger.critical("the thread of the store died; whatever is asked of it fails", exc_info=error)
        finally:
            self._leave(connection)

    def _work(self, connection: C) -> None:
        pause, is_troubled = 0.0, False
        while True:
            batch = self._take(pause)
            if batch:
                self._answer(connection, batch)
            elif self._is_closing:
                return
            try:
                pause, is_troubled = self._idle(connection), False
            except Exception as error:
                if not is_troubled:  # once is enough, however long it lasts
                    trace = None if isinstance(error, StoreUnavailable) else error
                    logger.error("the store failed to look around; it goes on trying: %s", error, exc_info=trace)
                pause, is_troubled = TROUBLE_SECONDS, True
            if self._news:
                self._say([])

    def _leave(self, connection: C) -> None:
        """Close the connection, and tell whoever still waits that nothing comes."""
        try:
            self._disconnect(connection)
        except Exception:
            logger.exception("the store failed to close its connection")
        with self._lock:
            self._is_closing = self._is_over = True
            left = [*self._urgent, *self._waiting]
            self._urgent.clear()
            self._waiting.clear()
        self._tell(_refuse, left)
        self._tell(_settle, self._ended, None)

    def _take(self, pause: float) -> list[_Request[Any, Any, Any]]:
        """Return what waits, the urgent first; wait for it `pause` seconds at the most."""
        is_idle = not self._urgent and not self._waiting and not self._is_closing
        with suppress(Empty):
            self._bell.get(is_idle, pause)
        with self._lock:
            batch: list[_Request[Any, Any, Any]] = []
            for line in (self._urgent, self._waiting):
                while line and len(batch) < MAX_BATCH:
                    request = line.popleft()
                    if not request.is_withdrawn:
                        request.is_taken = True
                        batch.append(request)
            return batch

    def _answer(self, connection: C, batch: list[_Request[Any, Any, Any]]) -> None:
        is_done = self._try(connection, batch)
        if not is_done and len(batch) > 1 and _may_be_one_of(batch[0].error):
            self._try_each(connection, batch)
        self._say(batch)

    def _try_each(self, connection: C, batch: list[_Request[Any, Any, Any]]) -> None:
        """Try requests one by one; once the database fails, the others need not wait for it, too."""
        for number, request in enumerate(batch):
            if not self._try(connection, [request]) and not _may_be_one_of(request.error):
                for left in batch[number + 1 :]:
                    left.error = request.error
                return

    def _try(self, connection: C, batch: list[_Request[Any, Any, Any]]) -> bool:
        try:
            values = chain.from_iterable(self._transaction(connection, _works(batch)))
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

    def _say(self, batch: list[_Request[Any, Any, Any]]) -> None:
        """Wake the loop once for all that is to be said there: that takes longer than most of it."""
        news, self._news = self._news, []
        self._tell(_deliver, news, batch)

    def call_on_loop(self, call: Callable[..., None], *args: Any) -> None:
        """Call a function on the loop, from any thread; from the committer's own, before its next answers are given."""
        if threading.get_ident() == self._ident:
            self._news.append(partial(call, *args))
        else:
            self._tell(call, *args)


def _may_be_one_of(error: BaseException | None) -> bool:
    """Return whether what failed may be the fault of one request, so that the others are tried without it."""
    return isinstance(error, StoreMoved) or not isinstance(error, StoreUnavailable)


def _each(connection: C, works: list[Callable[[C], T]]) -> list[T]:
    """Call functions one after the other: the verb of those that have none of their own."""
    return [work(connection) for work in works]


def _works(batch: list[_Request[C, Any, Any]]) -> list[Callable[[C], Any]]:
    """Return a function for each verb, neighbours that ask for the same one together."""
    return [
        partial(_call, verb, [request.argument for request in requests])
        for verb, requests in groupby(batch, key=attrgetter("verb"))
    ]


def _call(verb: Callable[[C, list[A]], Sequence[T]], arguments: list[A], connection: C) -> Sequence[T]:
    return verb(connection, arguments)


def _settle(future: asyncio.Future[None], error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


def _refuse(requests: list[_Request[Any, Any, Any]]) -> None:
    for request in requests:
        request.error = NotRunning("the store is closed")
        request.settle()


def _deliver(news: list[partial[None]], batch: list[_Request[Any, Any, Any]]) -> None:
    for tell in news:
        try:
            tell()
        except Exception:
            logger.exception("what the thread of the store has found could not be told")
    for request in batch:
        request.settle()


async def _shielded(work: Awaitable[T]) -> T | None:
    """Await work to its end, whatever cancellations come; the caller is about to raise one."""
    try:
        return await to_its_end(work)
    except asyncio.CancelledError:
        return None
