"""The chunks of a batch in the user's executor: in its threads, its processes, or a cluster's."""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from ..clock import outside
from ..elapsed import elapsed
from ..errors import ExecutorFailed, ExecutorProcessDied, InvalidPayload, NotImportable
from ..runners.executor import PLACE, ExecutorRunner
from ..runners.reference import task_name
from .answers import unpacked
from .chunks import FAR, Lengths
from .pace import Turns
from .places import Ended, Place, overran
from .work import Ran, run_away

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor


class ExecutorPlace(Place):
    """Runs plain functions in an executor, which is not shut down.

    Nobody can look at an item there, nor stop it. With a `timeout` each therefore goes alone, and has it from when it
    is handed over. And when a process dies, every chunk that waited for it gets the same error: only the death under an
    item that had the executor for itself tells that this item is the cause.

    Args:
        fn: The function.
        workers: How many chunks are handed over at a time.
        timeout: Seconds for an item; None: no limit.
        executor: Where they run.
    """

    lengths: Lengths = FAR

    def __init__(self, fn: Callable[[Any], Any], workers: int, timeout: float | None, executor: Executor) -> None:
        self.lanes = workers
        self._runner = ExecutorRunner(executor)
        self._fn, self._name = self._runner.carried(fn), task_name(fn)
        self._timeout = timeout
        self._suspects: set[int] = set()
        """Indices of items that were there when a process died. Not `id`: a range makes its items anew each time."""
        self._gate = asyncio.Lock()
        self._turns = Turns()
        self._under_way = 0
        self._quiet = asyncio.Event()
        self._quiet.set()

    async def run(self, items: Sequence[Any], seconds: float, first: int) -> Ended:
        """See `Place.run`."""
        if len(items) == 1 and first in self._suspects:
            return await self._run_by_itself(items, seconds, first)
        async with self._gate:
            self._under_way += 1
            self._quiet.clear()
        try:
            return await self._run(items, seconds)
        except ExecutorProcessDied:
            self._suspects.update(range(first, first + len(items)))
            return Ended(is_unclear=True)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._quiet.set()

    async def _run_by_itself(self, items: Sequence[Any], seconds: float, first: int) -> Ended:
        """Run a suspect while nothing else of this batch is there."""
        async with self._gate:
            await self._quiet.wait()
            try:
                ended = await self._run(items, seconds)
            except ExecutorProcessDied as died:
                return Ended(culprit=(0, died))
        self._suspects.discard(first)
        return ended

    async def _run(self, items: Sequence[Any], seconds: float) -> Ended:
        todo = list(items if self._timeout is None else items[:1])
        errand = self._runner.start(
            run_away, (self._fn, todo, seconds), describe=self._name, label=self._name, variables=copy_context()
        )
        try:
            with outside():
                async with asyncio.timeout(self._timeout) as scope:
                    ran, error = await errand.end
        except BaseException as stopped:
            errand.cancel()
            todo.clear()  # in a thread of this process no other item is begun
            if isinstance(stopped, TimeoutError) and scope.expired():
                return Ended(culprit=(0, overran(self._timeout)))
            raise
        if error is not None:
            return self._not_run(items[: len(todo)], error)
        if not isinstance(ran, Ran):
            await self._turns.take()
        arrived = elapsed()
        if isinstance(ran, Ran):
            ended = Ended(*ran)
        else:
            body, told, seconds = ran
            ended = await unpacked(self._name, body, (), told, seconds, count=len(todo), where=PLACE)
        # Not what the executor itself needs for a call, however many items that has: a smaller chunk would not help.
        ended.loop_seconds = errand.packing_seconds + elapsed() - arrived
        return ended

    def _not_run(self, items: Sequence[Any], error: BaseException) -> Ended:
        """Return the end of a chunk that did not come back."""
        if isinstance(error, ExecutorProcessDied | ExecutorFailed | NotImportable):
            raise error  # the last two: no other item would fare better
        if len(items) > 1:
            is_refused = isinstance(error, InvalidPayload) and error.where.startswith("argument")
            return Ended(is_refused=is_refused, is_unclear=not is_refused)
        if isinstance(error, InvalidPayload):
            reason = error.reason
            if error.where.startswith("argument "):
                reason = f"a {type(items[0]).__qualname__} cannot be pickled for a {PLACE}: {error.__cause__}"
            error = InvalidPayload(f"item of {self._name}", reason)
        return Ended([None], [(0, error)])
