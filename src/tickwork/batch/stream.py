"""The outcomes of a batch as a stream: who iterates takes at his own pace, and the batch waits for him."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..elapsed import elapsed
from ..errors import InvalidOption, NotRunning
from ..shield import to_its_end
from .chunks import LOOP_SECONDS
from .outcomes import ItemOutcome

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

    from .options import OnError
    from .outcomes import Piece
    from .run import Batch

T = TypeVar("T")
R = TypeVar("R")

WINDOW_CHUNKS = 4
"""How often, for each lane, `amap` may have taken items that it has not handed out: one slow item holds up those behind
it only when that many chunks have ended."""


class Outcomes(Generic[T, R]):
    """The outcomes of a batch, to be iterated over once, by one task; made by `amap`."""

    def __init__(self, batch: Batch, *, ordered: bool) -> None:
        if not isinstance(ordered, bool):
            raise InvalidOption("ordered", "True or False", ordered)
        self._batch, self._ordered = batch, ordered
        self._inbox = _Inbox()
        self._task: asyncio.Task[None] | None = None
        self._is_over = self._is_waiting = False
        self._ready: Iterator[ItemOutcome[T, R]] = iter(())
        self._next = 0
        self._turned = elapsed()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ItemOutcome[T, R]:
        """Return the next outcome. Cancelled, it ends the whole batch first.

        Raises:
            NotRunning: Another task waits for the next outcome.
        """
        if self._is_waiting:
            raise NotRunning("another task iterates over this amap; let one iterate and hand out to the others")
        self._is_waiting = True
        try:
            if elapsed() - self._turned >= LOOP_SECONDS:  # whoever iterates and never waits must not hold the loop
                await asyncio.sleep(0)
                self._turned = elapsed()
            while (outcome := next(self._ready, None)) is None:
                await self._more()
        except BaseException:
            await self.aclose()
            raise
        finally:
            self._is_waiting = False
        if outcome.error is not None and self._batch.plan.on_error == "raise":
            error = outcome.error.original()
            await self.aclose()
            raise error
        return outcome

    async def _more(self) -> None:
        """Take one piece, or wait for the next thing to happen.

        Raises:
            StopAsyncIteration: There are no more.
            BaseException: What ended the batch.
        """
        pieces = self._inbox.pieces
        key = self._next if self._ordered else next(iter(pieces), None)
        if key in pieces:
            piece = pieces.pop(key)
            self._next = piece.first + len(piece.values)
            self._ready = _outcomes(piece, self._batch.plan.on_error)
            self._batch.told(len(piece.values))
            return
        if self._is_over:
            raise StopAsyncIteration
        if self._task is None:
            self._task = asyncio.create_task(self._batch.run(self._inbox.put, WINDOW_CHUNKS), name="tickwork-batch-run")
            self._task.add_done_callback(self._inbox.wake)
        elif self._task.done():
            self._is_over = True
            self._task.result()
            raise StopAsyncIteration
        await self._inbox.wait()
        self._turned = elapsed()

    async def aclose(self) -> None:
        """Cancel what is under way, and wait until it has ended. May be called again."""
        self._is_over = True
        self._ready = iter(())
        self._inbox.pieces.clear()
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await to_its_end(asyncio.wait([self._task]))
        if self._task is not None and not self._task.cancelled():
            self._task.exception()  # it is seen: whoever leaves does not want it

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        task = getattr(self, "_task", None)
        if task is not None and not task.done() and not task.get_loop().is_closed():
            with suppress(RuntimeError):  # the loop has just been closed
                task.get_loop().call_soon_threadsafe(task.cancel)  # it was left; any thread may collect the garbage


def _outcomes(piece: Piece, on_error: OnError) -> Iterator[ItemOutcome[Any, Any]]:
    """Make the outcomes of a piece, each when it is asked for: thousands at once would hold the loop."""
    first, items, values, errors = piece
    for place, (item, value) in enumerate(zip(items, values, strict=True)):
        error = errors.get(place)
        if error is None or on_error != "skip":
            yield ItemOutcome(first + place, item, value, error)


class _Inbox:
    """What a batch has handed over. It knows this and not who iterates, so that leaving the loop ends it."""

    def __init__(self) -> None:
        self.pieces: dict[int | None, Piece] = {}
        self._news = asyncio.Event()

    async def put(self, piece: Piece) -> None:
        self.pieces[piece.first] = piece
        self._news.set()

    def wake(self, _task: object) -> None:
        self._news.set()

    async def wait(self) -> None:
        self._news.clear()
        await self._news.wait()
