"""`map`, `amap`: a function over many items, in parallel, without losing their order, an error or a result.

sizes = await tickwork.map(measure, paths, run_in="process")
async for outcome in tickwork.amap(fetch, urls, workers=50): ...
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from ..clock import running_clock
from ..errors import InvalidOption
from ..runners.reference import task_name
from ..shield import to_its_end
from .chunks import Sizer
from .engine import Engine, Rules
from .options import BatchOptions, OnError, Plan, plan_of
from .outcomes import ItemOutcome, Piece
from .places import LoopPlace, Place, ProcessPlace, ThreadPlace
from .progress import BatchProgress, reporter
from .sources import source_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Iterable
    from types import TracebackType
    from typing import Self, Unpack

    from ..errors import ItemError

T = TypeVar("T")
R = TypeVar("R")

logger: logging.Logger = logging.getLogger("tickwork.batch")

WINDOW_CHUNKS = 4
"""How many chunks for each lane `amap` may have taken and not handed out: one slow item holds up those behind it only
when that many have ended."""


@overload
async def map(
    fn: Callable[[T], Coroutine[Any, Any, R]],
    items: Iterable[T] | AsyncIterable[T],
    *,
    on_error: Literal["raise", "skip"] = "raise",
    **options: Unpack[BatchOptions],
) -> list[R]: ...
@overload
async def map(
    fn: Callable[[T], Coroutine[Any, Any, R]],
    items: Iterable[T] | AsyncIterable[T],
    *,
    on_error: Literal["collect"],
    **options: Unpack[BatchOptions],
) -> list[R | ItemError]: ...
@overload
async def map(
    fn: Callable[[T], R],
    items: Iterable[T] | AsyncIterable[T],
    *,
    on_error: Literal["raise", "skip"] = "raise",
    **options: Unpack[BatchOptions],
) -> list[R]: ...
@overload
async def map(
    fn: Callable[[T], R],
    items: Iterable[T] | AsyncIterable[T],
    *,
    on_error: Literal["collect"],
    **options: Unpack[BatchOptions],
) -> list[R | ItemError]: ...
async def map(
    fn: Callable[[Any], Any],
    items: Iterable[Any] | AsyncIterable[Any],
    *,
    on_error: OnError = "raise",
    **options: Unpack[BatchOptions],
) -> list[Any]:
    """Call a function with each item, in parallel, and return the results in the order of the items.

    An item runs again when the process that ran its chunk dies or is killed before the results have come back; so an
    item may run twice, and one that has come back does not.

    Args:
        fn: Takes one item. A plain function runs in a thread, unless `run_in` says otherwise.
        items: A list, any iterable, or an async one; taken as they are needed.
        on_error: What becomes of an item that fails for good. "raise": what it raised is raised here, and the rest is
            cancelled. "collect": an `ItemError` stands in its place. "skip": it is left out, and the log says so.
        **options: See `BatchOptions`.

    Raises:
        InvalidOption: An option is wrong.
        NotImportable: The function is for a process, which cannot import it.
        Exception: What the function raised, with a note that names the item; what `items` raises, after what was taken
            from it has ended.

    Cancelling it ends what it has started: child processes are killed, a thread ends when its item does. No result is
    kept.
    """
    batch = Batch(fn, items, on_error, options)
    pieces: list[Piece] = []

    async def keep(piece: Piece) -> None:
        pieces.append(piece)
        if piece.errors and on_error == "raise":
            raise next(iter(piece.errors.values())).original()

    await batch.run(keep)
    pieces.sort(key=lambda piece: piece.first)
    results: list[Any] = []
    for piece in pieces:
        results += _results(piece, on_error)
    return results


def _results(piece: Piece, on_error: OnError) -> list[Any]:
    if not piece.errors:
        return piece.values
    if on_error == "skip":
        return [value for place, value in enumerate(piece.values) if place not in piece.errors]
    return [piece.errors.get(place, value) for place, value in enumerate(piece.values)]


@overload
def amap(
    fn: Callable[[T], Coroutine[Any, Any, R]],
    items: Iterable[T] | AsyncIterable[T],
    *,
    ordered: bool = True,
    on_error: OnError = "raise",
    **options: Unpack[BatchOptions],
) -> Outcomes[T, R]: ...
@overload
def amap(
    fn: Callable[[T], R],
    items: Iterable[T] | AsyncIterable[T],
    *,
    ordered: bool = True,
    on_error: OnError = "raise",
    **options: Unpack[BatchOptions],
) -> Outcomes[T, R]: ...
def amap(
    fn: Callable[[Any], Any],
    items: Iterable[Any] | AsyncIterable[Any],
    *,
    ordered: bool = True,
    on_error: OnError = "raise",
    **options: Unpack[BatchOptions],
) -> Outcomes[Any, Any]:
    """Call a function with each item, in parallel, and hand out what becomes of them while the others run.

        async for outcome in tickwork.amap(fetch, urls):
            print(outcome.item, outcome.value)

    Only a bounded number of items is taken in advance, so `items` may be endless. Leaving the loop early cancels what
    is under way; `async with amap(...) as outcomes` waits until it has ended.

    Args:
        fn: As in `map`.
        items: Likewise.
        ordered: In the order of the items; False: as they end.
        on_error: "raise": what an item raised is raised at its turn, and the rest is cancelled. "collect": its outcome
            has an `error`. "skip": it is left out, and the log says so.
        **options: See `BatchOptions`.

    Raises:
        InvalidOption: An option is wrong.
        NotImportable: The function is for a process, which cannot import it.
    """
    return Outcomes(Batch(fn, items, on_error, options), ordered=ordered)


class Outcomes(Generic[T, R]):
    """The outcomes of a batch, to be iterated over once, by one task; made by `amap`."""

    def __init__(self, batch: Batch, *, ordered: bool) -> None:
        if not isinstance(ordered, bool):
            raise InvalidOption("ordered", "True or False", ordered)
        self._batch, self._ordered = batch, ordered
        self._inbox = _Inbox()
        self._task: asyncio.Task[None] | None = None
        self._is_over = False
        self._ready: deque[ItemOutcome[T, R]] = deque()
        self._next = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ItemOutcome[T, R]:
        """Return the next outcome. Cancelled, it ends the whole batch first."""
        while not self._ready:
            try:
                await self._more()
            except BaseException:
                await self.aclose()
                raise
        outcome = self._ready.popleft()
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
            self._unpack(pieces.pop(key))
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

    def _unpack(self, piece: Piece) -> None:
        first, items, values, errors = piece
        self._next = first + len(values)
        for place, (item, value) in enumerate(zip(items, values, strict=True)):
            error = errors.get(place)
            if error is None or self._batch.plan.on_error != "skip":
                self._ready.append(ItemOutcome(first + place, item, value, error))
        self._batch.told(len(values))

    async def aclose(self) -> None:
        """Cancel what is under way, and wait until it has ended. May be called again."""
        self._is_over = True
        self._ready.clear()
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
            task.cancel()  # the loop over it was left


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


class Batch:
    """One call of `map` or `amap`: its checked options, its items, and how far it is.

    Args:
        fn: The function.
        items: The items.
        on_error: What becomes of one that fails.
        options: The rest.
        wrap: Is given the place where the items run, and returns another one around it.

    Raises:
        InvalidOption: An option is wrong.
        NotImportable: The function is for a process, which cannot import it.
    """

    def __init__(
        self,
        fn: Callable[[Any], Any],
        items: Any,
        on_error: OnError,
        options: BatchOptions,
        *,
        wrap: Callable[[Place], Place] | None = None,
    ) -> None:
        self.plan: Plan = plan_of(fn, on_error, options)
        self._source = source_of(items)
        self._name = task_name(fn)
        self._wrap = wrap
        self._engine: Engine
        self._done = self._failed = 0
        self._first_error: ItemError | None = None

    async def run(self, on_piece: Callable[[Piece], Awaitable[None]], window_chunks: int | None = None) -> None:
        """Run the items, and hand over each piece of results. See `Engine`."""
        plan, clock = self.plan, running_clock()
        report = reporter(plan.progress, self._name)
        began = clock.monotonic()

        def progress() -> BatchProgress:
            return BatchProgress(self._done, self._failed, self._source.total, clock.monotonic() - began)

        async def tell(piece: Piece) -> None:
            self._count(piece)
            report.show(progress())
            await on_piece(piece)

        place = self._place()
        if self._wrap is not None:
            place = self._wrap(place)
        self._engine = Engine(
            self._source,
            place,
            Sizer(place.lanes, plan.chunk_size, self._source.total),
            Rules(plan.retry, plan.retry_on, plan.max_deaths),
            tell,
            window_chunks=window_chunks,
        )
        try:
            await self._engine.run()
        finally:
            report.close(progress())
            self._tell_skipped()

    def told(self, count: int) -> None:
        """Hear that the next `count` results have been taken: there is room for others."""
        self._engine.told(count)

    def _place(self) -> Place:
        plan = self.plan
        if plan.place == "process":
            from ..runners.process import ProcessRunner  # most programs never start a process

            runner = ProcessRunner(plan.workers) if plan.pool is None else plan.pool.processes()
            return ProcessPlace(plan.fn, plan.workers, plan.timeout, runner, is_owner=plan.pool is None)
        if plan.place == "thread":
            return ThreadPlace(plan.fn, plan.workers, plan.timeout)
        return LoopPlace(plan.fn, plan.workers, plan.timeout)

    def _count(self, piece: Piece) -> None:
        self._done += len(piece.values)
        self._failed += len(piece.errors)
        if piece.errors and self._first_error is None:
            self._first_error = next(iter(piece.errors.values()))

    def _tell_skipped(self) -> None:
        if self._first_error is not None and self.plan.on_error == "skip":
            logger.warning(
                "%s: %d of %d items failed and were left out; the first: %s",
                self._name,
                self._failed,
                self._done,
                self._first_error,
                exc_info=self._first_error.error,
            )
