"""Where the items of a batch come from: a list, an iterator, an async iterator. They are taken as they are needed."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterable, Iterable, Sequence, Sized
from itertools import islice
from typing import TYPE_CHECKING, Any

from ..elapsed import elapsed
from ..errors import InvalidOption
from .chunks import LOOP_SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


TEXT_REMEDY = "for one item give a list of it, [text]; for its characters list(text)"


class Source(ABC):
    """Gives the items of one batch, in their order.

    Attributes:
        total: How many there are; None: that is not known.
    """

    total: int | None = None

    @abstractmethod
    async def take(self, count: int) -> Sequence[Any]:
        """Return the next items, at most `count`; none: there are no more.

        Raises:
            BaseException: What the iterator of the caller raises.
        """

    async def aclose(self) -> None:  # noqa: B027 - most have nothing to close
        """Give up what has not been taken."""


def source_of(items: Any) -> Source:
    """Return the source of whatever a caller has. What can be iterated over in both ways is awaited.

    Raises:
        InvalidOption: Nothing can be taken from it, or it is text, whose characters nobody means.
    """
    if isinstance(items, str | bytes):
        raise InvalidOption("items", "a list, an iterator or an async iterator", items, remedy=TEXT_REMEDY)
    if isinstance(items, list | tuple | range):
        return _Listed(items)
    if isinstance(items, AsyncIterable):
        return _Awaited(items)
    if isinstance(items, Iterable):
        return _Iterated(items)
    raise InvalidOption("items", "a list, an iterator or an async iterator", items)


def take_some(items: Iterator[Any], into: list[Any], count: int, until: float) -> bool:
    """Move up to `count` items, at least one, until a reading of `elapsed()` where the iterator is slow.

    Returns:
        Whether there may be more. What the iterator raises leaves those before it in `into`.
    """
    end, step = len(into) + count, 1
    while len(into) < end:
        wanted, before = min(step, end - len(into)), len(into)
        into.extend(islice(items, wanted))
        if len(into) - before < wanted:
            return False
        if elapsed() >= until:
            break
        step *= 2  # so that the last step takes no longer than those before it together
    return True


class _Listed(Source):
    """Takes slices, which cost nothing. Other sequences are iterated over: not all of them can be sliced."""

    def __init__(self, items: Sequence[Any]) -> None:
        self._items, self._at = items, 0
        self.total = len(items)

    async def take(self, count: int) -> Sequence[Any]:
        taken = self._items[self._at : self._at + count]
        self._at += len(taken)
        return taken


class _Iterated(Source):
    """Takes from an iterator on the loop, a few at a time where it is slow.

    All lanes of a batch may come within one turn of the loop: together they take no longer than one may hold it.
    """

    def __init__(self, items: Iterable[Any]) -> None:
        self.total = len(items) if isinstance(items, Sized) else None
        self._items: Iterator[Any] = iter(items)
        self._error: BaseException | None = None
        self._spent = 0.0  # seconds of taking since the last turn that was given to others

    async def take(self, count: int) -> Sequence[Any]:
        if self._error is not None:
            raise self._error
        if self._spent >= LOOP_SECONDS:
            await asyncio.sleep(0)
            self._spent = 0.0
        taken: list[Any] = []
        began = elapsed()
        try:
            take_some(self._items, taken, count, began + LOOP_SECONDS - self._spent)
        except BaseException as error:
            if not taken:
                raise
            self._error = error  # at its turn: what it gave before is not lost
        self._spent += elapsed() - began
        return taken


class _Awaited(Source):
    """Takes from an async iterator in a task of its own, so that a chunk never waits to become full."""

    def __init__(self, items: AsyncIterable[Any]) -> None:
        self._items: AsyncIterator[Any] = aiter(items)
        self._ready: deque[Any] = deque()
        self._wanted = 1
        self._pump: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._room = asyncio.Event()

    async def take(self, count: int) -> Sequence[Any]:
        self._wanted = count
        self._room.set()
        if self._pump is None:
            self._pump = asyncio.create_task(self._fetch(), name="tickwork-batch-items")
        while not self._ready:
            if self._pump.done():
                self._pump.result()
                return ()
            self._news.clear()
            await self._news.wait()
        taken = [self._ready.popleft() for _ in range(min(count, len(self._ready)))]
        self._room.set()
        return taken

    async def _fetch(self) -> None:
        turned = elapsed()
        try:
            async for item in self._items:
                self._ready.append(item)
                self._news.set()
                while len(self._ready) >= self._wanted:
                    self._room.clear()
                    await self._room.wait()
                if elapsed() - turned >= LOOP_SECONDS:  # an iterator that never waits must not hold the loop
                    await asyncio.sleep(0)
                    turned = elapsed()
        finally:
            try:
                await self._close()
            finally:
                self._news.set()

    async def _close(self) -> None:
        """Let an async generator tidy up, in the task that has iterated over it."""
        if (close := getattr(self._items, "aclose", None)) is not None:
            await close()

    async def aclose(self) -> None:
        """Stop taking, and let an async generator tidy up."""
        if self._pump is None:
            await self._close()
            return
        self._pump.cancel()
        await asyncio.wait([self._pump])
        if not self._pump.cancelled():
            self._pump.exception()  # it is seen: whoever took the items has heard of it, or has left
