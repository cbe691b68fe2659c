"""Where the chunks of a batch run: on the loop, in threads, in child processes.

A place takes a chunk and returns what became of its first items. The rest comes back: time was up, or one item ended
the chunk, because its time was up or because its process died.
"""

from __future__ import annotations

import asyncio
import pickle
from abc import ABC, abstractmethod
from contextvars import copy_context
from dataclasses import dataclass, field
from inspect import iscoroutine
from typing import TYPE_CHECKING, Any

from ..clock import outside
from ..elapsed import elapsed
from ..errors import InvalidPayload, ProcessDied, RemoteTraceback
from ..runners.calls import encode_call, load_beside, look_up, lost_payload, not_imported, outcome, raised
from ..runners.thread import ThreadRunner
from ..shield import is_meant_for_us
from .chunks import LOOP_SECONDS
from .work import BEFORE, Ran, run_chunk, run_items

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..runners.children import Child
    from ..runners.process import ProcessRunner
    from ..runners.wire import Frame


@dataclass(slots=True)
class Ended:
    """What became of a chunk.

    Attributes:
        values: Of its first items, in their order; None where the function raised.
        failures: What it raised there, each with the place of its item.
        seconds: How long these took where they ran.
        loop_seconds: How long packing and unpacking held the loop.
        culprit: The place of the item that ended the chunk, and the error; what stands before it and has no value
            must run again.
        is_unclear: Some item ended the chunk, and it is not known which: each must run alone.
    """

    values: list[Any] = field(default_factory=list)
    failures: list[tuple[int, BaseException]] = field(default_factory=list)
    seconds: float = 0.0
    loop_seconds: float = 0.0
    culprit: tuple[int, Exception] | None = None
    is_unclear: bool = False


class Place(ABC):
    """Where the chunks of one batch run.

    Attributes:
        lanes: How many chunks it wants to have at a time.
    """

    lanes: int

    @abstractmethod
    async def run(self, items: Sequence[Any], seconds: float) -> Ended:
        """Run items one after the other until `seconds` are over, at least one.

        Cancelled, it stops what can be stopped: a thread goes on to the end of the item it is at.
        """

    async def aclose(self) -> None:  # noqa: B027 - most have nothing to close
        """End what it has started."""


class LoopPlace(Place):
    """Runs coroutine functions, each lane one item at a time; plain functions too, for who insists."""

    def __init__(self, fn: Callable[[Any], Any], workers: int, timeout: float | None) -> None:
        self.lanes: int = workers
        self._fn, self._timeout = fn, timeout

    async def run(self, items: Sequence[Any], seconds: float) -> Ended:
        """See `Place.run`."""
        ended = Ended()
        began = turned = elapsed()
        for place, item in enumerate(items):
            try:
                ended.values.append(await self._call(item))
            except BaseException as error:
                if is_meant_for_us(error):
                    raise
                ended.failures.append((place, error))
                ended.values.append(None)
            now = elapsed()
            if now - began >= seconds:
                break
            if now - turned >= LOOP_SECONDS:  # items that never wait must not keep the others from running
                await asyncio.sleep(0)
                turned = elapsed()
        ended.seconds = elapsed() - began
        await asyncio.sleep(0)
        return ended

    async def _call(self, item: Any) -> Any:
        if self._timeout is None:
            value = self._fn(item)
            return await value if iscoroutine(value) else value
        try:
            async with asyncio.timeout(self._timeout) as scope:
                value = self._fn(item)
                return await value if iscoroutine(value) else value
        except TimeoutError:
            if scope.expired():
                raise overran(self._timeout) from None
            raise


class ThreadPlace(Place):
    """Runs plain functions in threads. One that overran keeps its thread, and so its place, until it returns."""

    def __init__(self, fn: Callable[[Any], Any], workers: int, timeout: float | None) -> None:
        self.lanes: int = workers
        self._fn, self._timeout = fn, timeout
        self._threads = ThreadRunner()
        self._free = asyncio.Semaphore(workers)

    async def run(self, items: Sequence[Any], seconds: float) -> Ended:
        """See `Place.run`."""
        await self._free.acquire()
        todo, ran, position = list(items), Ran([], [], 0.0), [BEFORE, 0]
        work = (self._fn, todo, seconds, ran, position, self._timeout is not None)
        future = self._threads.start(copy_context(), run_items, work, {})
        future.add_done_callback(lambda _: self._free.release())
        try:
            with outside():
                while not (await asyncio.wait([future], timeout=self._left(position)))[0]:
                    place = position[0]
                    if place != BEFORE and self._left(position) == 0:
                        todo.clear()  # the thread begins no other item
                        return Ended(ran.values[:place], ran.failures[:], culprit=(place, overran(self._timeout)))
        except BaseException:
            todo.clear()
            raise
        (values, failures, took), error = future.result()
        if error is not None:
            raise error
        return Ended(values, failures, took)

    def _left(self, position: list[int]) -> float | None:
        """Return how many seconds the item under way has left, 0.0 if none; None: it has all the time."""
        return None if self._timeout is None else _left(self._timeout, position[0], position[1])

    async def aclose(self) -> None:
        """End the threads, those that are at an item when it returns."""
        self._threads.close()


class ProcessPlace(Place):
    """Runs plain functions in child processes. It packs a chunk in advance for each child, which so need not wait.

    Args:
        fn: The function, which is found by name.
        workers: How many children there are.
        timeout: Seconds for an item; None: no limit.
        runner: The process pool.
        is_owner: It was made for this batch, and is closed with it.
    """

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

    async def run(self, items: Sequence[Any], seconds: float) -> Ended:
        """See `Place.run`."""
        began = elapsed()
        args = (self._where, items, seconds, self._timeout is not None)
        try:
            frame = encode_call(self._name, self._chunk_where, args, None, None, listening=False)
        except InvalidPayload:
            return self._unpacked(items)
        packed = elapsed() - began
        watch = _Watch(self._timeout)
        try:
            with outside():
                answer = await watch.over(self._runner.send(frame, self._name, watch.begin))
        except ProcessDied as died:
            return self._died(items, watch, died)
        del frame
        if answer is None:
            return Ended(culprit=(watch.overran_at, overran(self._timeout)))
        arrived = elapsed()
        ended = self._unpack(answer, items)
        ended.loop_seconds = packed + elapsed() - arrived
        return ended

    def _unpacked(self, items: Sequence[Any]) -> Ended:
        """Return the end of a chunk of which some item cannot be pickled."""
        if len(items) > 1:
            return Ended(is_unclear=True)
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

    def _unpack(self, answer: Frame, items: Sequence[Any]) -> Ended:
        try:
            body, buffers, told, seconds = outcome(answer, run_chunk, self._name)
        except Exception as error:  # the items did not come through
            return Ended([None], [(0, error)]) if len(items) == 1 else Ended(is_unclear=True)
        if body is None:
            raise not_imported(self._name, told) from RemoteTraceback(told.text)
        failures: list[tuple[int, BaseException]] = []
        for place, entry, is_result in told:
            problem = (
                lost_payload("result", self._name, entry.kind, entry.message)
                if is_result
                else raised(self._name, entry)
            )
            problem.__cause__ = RemoteTraceback(entry.text)
            failures.append((place, problem))
        try:
            values = load_beside(body, buffers)
        except Exception as error:
            if len(items) > 1:
                return Ended(is_unclear=True)
            reason = f"it cannot be unpickled: {type(error).__qualname__}: {error}"
            return Ended([None], [(0, InvalidPayload(f"result of {self._name}", reason))])
        return Ended(values, failures, seconds)

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
        """Note which child has the chunk."""
        self._child = child
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
            async with asyncio.timeout(None) as self._scope:
                return await call  # type: ignore[no-any-return]
        except TimeoutError:
            return None
        finally:
            if self._timer is not None:
                self._timer.cancel()

    def _look(self) -> None:
        assert self._timeout is not None
        assert self._child is not None
        assert self._scope is not None
        loop = asyncio.get_running_loop()
        position = self._child.position or (BEFORE, 0)
        left = _left(self._timeout, *position)
        if left == 0.0:
            self.overran_at = position[0]
            self._scope.reschedule(loop.time())
        else:
            self._timer = loop.call_later(left, self._look)


def _left(timeout: float, place: int, began_ns: int) -> float:
    """Return how many seconds an item has left; one that has not begun has all."""
    return timeout if place == BEFORE else max(0.0, timeout - (elapsed() - began_ns / 1e9))


def overran(timeout: float | None) -> TimeoutError:
    """Return the error of an item that took too long."""
    return TimeoutError(f"it ran longer than its timeout of {timeout:g} s")
