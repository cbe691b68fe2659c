"""One call of `map` or `amap`: it puts the parts together, and leads each piece of results past all who want to know.

engine ──► failed items to the list, finished ones to the checkpoint ──► counted, shown ──► whoever has called
what the checkpoint knew already ──► counted, shown ──► whoever has called
"""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from ..clock import running_clock
from ..runners.reference import task_name
from ..shield import to_its_end
from .chunks import Sizer
from .dead import DeadList
from .engine import Engine, Rules
from .identity import identity_of
from .options import BatchOptions, OnError, Plan, plan_of
from .places import LoopPlace, Place, ThreadPlace
from .progress import BatchProgress, reporter
from .recall import LOOK_UP_ITEMS, Recall
from .sources import source_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..clock import Clock
    from ..errors import ItemError
    from .outcomes import Piece
    from .progress import Reporter

logger: logging.Logger = logging.getLogger("tickwork.batch")


class Batch:
    """One call of `map` or `amap`: its checked options, its items, and how far it is.

    Args:
        fn: The function.
        items: The items.
        on_error: What becomes of one that fails.
        options: The rest.
        wrap: Is given the place where the items run, and returns another one around it.
        read: What of its files the function is given; None: it is given the items.
        check: Awaited before anything is opened or begun; what it raises refuses the call, which then leaves nothing.

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
        read: str | None = None,
        check: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.plan: Plan = plan_of(fn, on_error, options)
        self._source = source_of(items)
        self._name = task_name(fn)
        self._identity = "" if self.plan.checkpoint is None else identity_of(fn, self.plan.version, read)
        self._wrap, self._check = wrap, check
        self._recall: Recall | None = None
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
            stack.push_async_callback(self._tell_end)
            if self._check is not None:
                await self._check()
            if plan.pool is not None:
                plan.pool.processes()  # refuses when it is closed
            if plan.dead is not None:
                self._dead = await DeadList.open(plan.dead, plan.fn)
                stack.push_async_callback(_close, self._dead)
            if plan.checkpoint is not None:  # last: what is refused before it leaves no file of this batch
                self._recall = await Recall.open(plan, self._identity, total, self._tell_known)
                stack.push_async_callback(_close, self._recall)
            place = self._place()
            self._engine = Engine(
                self._source,
                place if self._wrap is None else self._wrap(place),
                Sizer(place.lanes, plan.chunk_size, total, place.lengths),
                Rules(plan.retry, plan.retry_on, plan.max_deaths),
                self._tell_new,
                on_items=None if self._recall is None else self._recall.look_up,
                window_chunks=window_chunks,
                least_take=1 if self._recall is None else LOOK_UP_ITEMS,
            )
            await self._engine.run()
            for record in (self._recall, self._dead):
                if record is not None:
                    await record.finish()

    def told(self, count: int) -> None:
        """Hear that the next `count` results have been taken: there is room for others."""
        self._engine.told(count)

    def _place(self) -> Place:
        plan = self.plan
        if plan.place == "process":
            from .process_place import ProcessPlace  # most programs never start a process

            if plan.processes is not None:
                return ProcessPlace(plan.fn, plan.workers, plan.timeout, plan.processes.runner(), is_owner=True)
            assert plan.pool is not None, "the plan has one of them"
            return ProcessPlace(plan.fn, plan.workers, plan.timeout, plan.pool.processes(), is_owner=False)
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
        await self._tell(piece if self._recall is None else await self._recall.record(piece))

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

    async def _tell_end(self) -> None:
        try:
            await self._report.close(self.progress)
        finally:  # cancelled meanwhile, it is told all the same
            self._tell_skipped()

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


async def _close(record: Recall | DeadList) -> None:
    await to_its_end(record.aclose())
