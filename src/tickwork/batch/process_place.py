"""The chunks of a batch in child processes, each watched by the position that it shares with its parent."""

from __future__ import annotations

import asyncio
import pickle
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from ..clock import outside
from ..elapsed import elapsed
from ..errors import InvalidPayload, ProcessDied, RemoteTraceback
from ..runners.calls import encode_call, look_up, not_imported, outcome
from .answers import unpacked
from .chunks import FAR, Lengths
from .pace import Turns
from .places import Ended, Place, left, overran
from .work import BEFORE, run_chunk

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from ..runners.children import Child
    from ..runners.process import ProcessRunner
    from ..runners.wire import Frame


class ProcessPlace(Place):
    """Runs plain functions in child processes. It packs a chunk in advance for each child, which so need not wait.

    Args:
        fn: The function, which is found by name.
        workers: How many children there are.
        timeout: Seconds for an item; None: no limit.
        runner: The process pool.
        is_owner: It was made for this batch, and is closed with it.
    """

    lengths: Lengths = FAR

    def __init__(
        self,
        fn: Callable[[Any], Any],
        workers: int,
        timeout: float | None,
        runner: ProcessRunner,
        *,
        is_owner: bool,
    ) -> None:
        self._where, self._name = look_up(fn)
        self._chunk_where, _ = look_up(run_chunk)
        self.lanes: int = 2 * workers
        self._timeout, self._runner, self._is_owner = timeout, runner, is_owner
        self._turns = Turns()
        # A pool may have more children than this batch is to use.
        self._free: AbstractAsyncContextManager[None] = (
            asyncio.Semaphore(workers) if runner.max_processes > workers else nullcontext()
        )

    async def run(self, items: Sequence[Any], seconds: float, first: int) -> Ended:
        """See `Place.run`."""
        began = elapsed()
        args = (self._where, items, seconds, self._timeout is not None)
        variables = self._runner.variables(self._name)
        try:
            frame = encode_call(self._name, self._chunk_where, args, None, None, variables, listening=False)
        except InvalidPayload:
            return self._unpacked(items)
        packed = elapsed() - began
        watch = _Watch(self._timeout)
        try:
            with outside():
                async with self._free:
                    answer = await watch.over(self._runner.send(frame, self._name, watch.begin))
        except ProcessDied as died:
            return self._died(items, watch, died)
        del frame
        if answer is None:
            return Ended(culprit=(watch.overran_at, overran(self._timeout)))
        await asyncio.sleep(0)  # the chunk that lies ready goes to the child before this one is unpacked
        await self._turns.take()
        arrived = elapsed()
        ended = await self._unpack(answer, items)
        ended.loop_seconds = packed + elapsed() - arrived
        return ended

    def _unpacked(self, items: Sequence[Any]) -> Ended:
        """Return the end of a chunk of which some item cannot be pickled."""
        if len(items) > 1:
            return Ended(is_refused=True)
        try:
            pickle.dumps(items[0], 5, buffer_callback=lambda _: None)
        except Exception as error:
            kind = type(items[0]).__qualname__
            problem: Exception = InvalidPayload(
                f"item of {self._name}", f"a {kind} cannot be pickled for a child process: {error}"
            )
        else:
            problem = InvalidPayload(f"item of {self._name}", "it cannot be pickled for a child process")
        return Ended([None], [(0, problem)])

    def _died(self, items: Sequence[Any], watch: _Watch, died: ProcessDied) -> Ended:
        place = 0 if len(items) == 1 else watch.place
        return Ended(is_unclear=True) if place == BEFORE else Ended(culprit=(place, died))

    async def _unpack(self, answer: Frame, items: Sequence[Any]) -> Ended:
        try:
            body, buffers, told, seconds = outcome(answer, run_chunk, self._name)
        except Exception as error:
            if isinstance(error, InvalidPayload) and error.where.startswith("context variables "):
                raise  # it is no item's fault
            if len(items) > 1:
                is_refused = isinstance(error, InvalidPayload) and error.where.startswith("arguments ")
                return Ended(is_refused=is_refused, is_unclear=not is_refused)
            return Ended([None], [(0, self._lost_item(error) if isinstance(error, InvalidPayload) else error)])
        if body is None:
            raise not_imported(self._name, told) from RemoteTraceback(told.text)
        return await unpacked(self._name, body, buffers, told, seconds, count=len(items))

    def _lost_item(self, error: InvalidPayload) -> InvalidPayload:
        """Return the error of arguments that did not come through, told as the caller knows them: as an item."""
        lost = InvalidPayload(f"item of {self._name}", error.reason.replace("they cannot", "it cannot", 1))
        lost.__cause__ = error.__cause__
        return lost

    async def aclose(self) -> None:
        """End the children, if they are this batch's own."""
        if self._is_owner:
            await self._runner.aclose()


class _Watch:
    """Watches over one chunk in a child: which item it is at, and whether that has had its time."""

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._child: Child | None = None
        self.overran_at = BEFORE
        self._timer: asyncio.TimerHandle | None = None
        self._scope: asyncio.Timeout | None = None

    def begin(self, child: Child) -> None:
        """Note which child has the chunk: another one where the first had died before."""
        self._child = child
        self._end_timer()
        child.set_position(BEFORE, 0)
        if self._timeout is not None:
            self._timer = asyncio.get_running_loop().call_later(self._timeout, self._look)

    @property
    def place(self) -> int:
        """The place of the item that the child is at, or was at last."""
        position = None if self._child is None else self._child.position
        return BEFORE if position is None else position[0]

    async def over(self, call: Any) -> Frame | None:
        """Await the call, and return its answer; None: an item had its time, and the child was killed for it."""
        try:
            async with asyncio.timeout(None) as scope:
                self._scope = scope
                return await call  # type: ignore[no-any-return]
        except TimeoutError:
            if not scope.expired():
                raise
            return None
        finally:
            self._end_timer()

    def _end_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        assert self._timeout is not None
        assert self._child is not None
        assert self._scope is not None
        loop = asyncio.get_running_loop()
        position = self._child.position or (BEFORE, 0)
        rest = left(self._timeout, *position)
        if rest == 0.0:
            self.overran_at = position[0]
            self._scope.reschedule(loop.time())
        else:
            self._timer = loop.call_later(rest, self._look)
