"""`map`, `amap`: a function over many items, in parallel, without losing their order, an error or a result.

sizes = await tickwork.map(measure, paths, run_in="process")
async for outcome in tickwork.amap(fetch, urls, workers=50): ...
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from ..clock import running_clock
from ..elapsed import elapsed
from ..errors import InvalidOption, NotRunning
from ..runners.reference import task_name
from ..shield import to_its_end
from .chunks import LOOP_SECONDS, Sizer
from .dead import DeadList
from .engine import Engine, Rules
from .memory import LOOK_UP_ITEMS, Memory
from .options import BatchOptions, OnError, Plan, plan_of
from .outcomes import ItemOutcome, Piece
from .places import LoopPlace, Place, ProcessPlace, ThreadPlace
from .progress import BatchProgress, reporter
from .sources import source_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Iterable, Iterator
    from types import TracebackType
    from typing import Self, Unpack

    from ..clock import Clock
    from ..errors import ItemError
    from .progress import Reporter

T = TypeVar("T")
R = TypeVar("R")

logger: logging.Logger = logging.getLogger("tickwork.batch")

WINDOW_CHUNKS = 4
"""How often, for each lane, `amap` may have taken items that it has not handed out: one slow item holds up those behind
it only when that many chunks have ended."""


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
        pieces.append(piece._replace(items=()))  # nobody asks for them any more, and they may be large
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
        self._memory: Memory | None = None
        self._dead: DeadList | None = None
        # These are there while it runs.
        self._engine: Engine
        self._report: Reporter
        self._on_piece: Callable[[Piece], Awaitable[None]]
        self._clock: Clock
        self._began: float | None = None
        self._done = self._failed = self._known = 0
        self._first_error: ItemError | None = None

    async def run(self, on_piece: Callable[[Piece], Awaitable[None]], window_chunks: int | None = None) -> None:
        """Run the items, and hand over each piece of results. See `Engine`."""
        plan, total = self.plan, self._source.total
        self._on_piece, self._clock = on_piece, running_clock()
        self._began = self._clock.monotonic()
        self._report = reporter(plan.progress, self._name)
        async with AsyncExitStack() as stack:
            stack.callback(self._tell_end)
            if plan.checkpoint is not None:
                self._memory = await Memory.open(plan, total, self._tell_known)
                stack.push_async_callback(_close, self._memory)
            if plan.dead is not None:
                self._dead = await DeadList.open(plan.dead, plan.fn)
                stack.push_async_callback(_close, self._dead)
            place = self._place()
            self._engine = Engine(
                self._source,
                place if self._wrap is None else self._wrap(place),
                Sizer(place.lanes, plan.chunk_size, total),
                Rules(plan.retry, plan.retry_on, plan.max_deaths),
                self._tell_new,
                on_items=None if self._memory is None else self._memory.look_up,
                window_chunks=window_chunks,
                least_take=1 if self._memory is None else LOOK_UP_ITEMS,
            )
            await self._engine.run()
            for record in (self._memory, self._dead):
                if record is not None:
                    await record.finish()

    def told(self, count: int) -> None:
        """Hear that the next `count` results have been taken: there is room for others."""
        self._engine.told(count)

    def _place(self) -> Place:
        plan = self.plan
        if plan.place == "process":
            from ..runners.process import ProcessRunner  # most programs never start a process

            runner = ProcessRunner(plan.workers) if plan.pool is None else plan.pool.processes()
            return ProcessPlace(plan.fn, plan.workers, plan.timeout, runner, is_owner=plan.pool is None)
        if plan.place == "executor":
            from .executor_place import ExecutorPlace  # likewise

            assert plan.executor is not None, "the plan has checked it"
            return ExecutorPlace(plan.fn, plan.workers, plan.timeout, plan.executor)
        if plan.place == "thread":
            return ThreadPlace(plan.fn, plan.workers, plan.timeout)
        return LoopPlace(plan.fn, plan.workers, plan.timeout)

    # -- the way of a piece ------------------------------------------------------------------------------------------

    async def _tell_known(self, piece: Piece) -> None:
        self._known += len(piece.values)
        await self._tell(piece)

    async def _tell_new(self, piece: Piece) -> None:
        if self._dead is not None and piece.errors:
            await self._dead.add(list(piece.errors.values()))
        await self._tell(piece if self._memory is None else await self._memory.record(piece))

    async def _tell(self, piece: Piece) -> None:
        self._done += len(piece.values)
        self._failed += len(piece.errors)
        if piece.errors and self._first_error is None:
            self._first_error = next(iter(piece.errors.values()))
        self._report.show(self.progress)
        await self._on_piece(piece)

    @property
    def progress(self) -> BatchProgress:
        """How far it is, also when it has ended."""
        seconds = 0.0 if self._began is None else self._clock.monotonic() - self._began
        return BatchProgress(self._done, self._failed, self._source.total, seconds, self._known)

    def _tell_end(self) -> None:
        self._report.close(self.progress)
        if self._first_error is not None and self.plan.on_error == "skip":
            logger.warning(
                "%s: %d of %d items failed and were left out; the first: %s",
                self._name,
                self._failed,
                self._done,
                self._first_error,
                exc_info=self._first_error.error,
            )


async def _close(record: Memory | DeadList) -> None:
    await to_its_end(record.aclose())
