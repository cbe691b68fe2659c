"""Where the chunks of a batch run: on the loop, in threads, in child processes.

A place takes a chunk and returns what became of its first items. The rest comes back: time was up, or one item ended
the chunk, because its time was up or because its process died.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from contextvars import copy_context
from dataclasses import dataclass, field
from inspect import iscoroutine
from typing import TYPE_CHECKING, Any

from ..clock import outside, running_clock
from ..elapsed import elapsed
from ..runners.reference import task_name
from ..runners.thread import ThreadRunner
from ..shield import is_meant_for_us
from .chunks import LOOP_SECONDS, NEAR, Lengths
from .work import BEFORE, Ran, run_items

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Sequence


logger: logging.Logger = logging.getLogger("tickwork.batch")


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
        is_refused: Some item could not travel, and it is not known which; so none has run. Half of them go next.
        is_final: Another attempt would not help against these failures.
    """

    values: list[Any] = field(default_factory=list)
    failures: list[tuple[int, BaseException]] = field(default_factory=list)
    seconds: float = 0.0
    loop_seconds: float = 0.0
    culprit: tuple[int, Exception] | None = None
    is_unclear: bool = False
    is_refused: bool = False
    is_final: bool = False


class Place(ABC):
    """Where the chunks of one batch run.

    Attributes:
        lanes: How many chunks it wants to have at a time.
        lengths: How long these should be.
    """

    lanes: int
    lengths: Lengths = NEAR

    @abstractmethod
    async def run(self, items: Sequence[Any], seconds: float, first: int) -> Ended:
        """Run items one after the other until `seconds` are over, at least one. `first` is the index of the first.

        Cancelled, it stops what can be stopped: a thread goes on to the end of the item it is at.
        """

    async def aclose(self) -> None:  # noqa: B027 - most have nothing to close
        """End what it has started."""


class LoopPlace(Place):
    """Runs coroutine functions, each lane one item at a time; plain functions too, for who insists."""

    def __init__(self, fn: Callable[[Any], Any], workers: int, timeout: float | None) -> None:
        self.lanes: int = workers
        self._fn, self._timeout = fn, timeout
        self._monotonic = running_clock().monotonic  # virtual where the loop is: items that wait take long there too
        self._turn_seconds = LOOP_SECONDS / workers  # they all have their turn before anything else has one

    async def run(self, items: Sequence[Any], seconds: float, first: int) -> Ended:
        """See `Place.run`."""
        ended = Ended()
        monotonic, task = self._monotonic, asyncio.current_task()
        at = began = monotonic()
        turned, longest = elapsed(), 0.0
        assert task is not None
        for place, item in enumerate(items):
            try:
                call = _Call(self._fn, item)
                ended.values.append(await (call if self._timeout is None else _within(self._timeout, call)))
            except BaseException as error:
                if is_meant_for_us(error):
                    raise
                ended.failures.append((place, _without_frames(error, 2 if self._timeout is None else 3)))
                ended.values.append(None)
            if task.cancelling():
                raise asyncio.CancelledError  # which the function has kept to itself, and was meant for the batch
            before, at = at, monotonic()
            if at - before > longest:
                longest = at - before
            if at - began >= seconds:
                break
            if elapsed() - turned >= self._turn_seconds:  # items that never wait must not keep the others from running
                await asyncio.sleep(0)
                turned, at = elapsed(), monotonic()
        # As if all had waited for as long as that one: those behind it could have run beside it.
        ended.seconds = longest * len(ended.values)
        await asyncio.sleep(0)
        return ended


class _Call:
    """A call of the function with one item; awaited, it runs in context variables of its own, as a task would."""

    __slots__ = ("_fn", "_item")

    def __init__(self, fn: Callable[[Any], Any], item: Any) -> None:
        self._fn, self._item = fn, item

    def __await__(self) -> Generator[Any, Any, Any]:
        context = copy_context()
        value = context.run(self._fn, self._item)
        if not iscoroutine(value):
            return value
        step: Callable[[Any], Any] = value.send
        sent: Any = None
        while True:
            try:
                yielded = context.run(step, sent)
            except StopIteration as stop:
                return stop.value
            try:
                step, sent = value.send, (yield yielded)
            except GeneratorExit:
                context.run(value.close)
                raise
            except BaseException as error:
                step, sent = value.throw, error


async def _within(timeout: float | None, call: Awaitable[Any]) -> Any:
    """Await a call of the function, for so many seconds.

    Raises:
        TimeoutError: It took longer.
        BaseException: What the function raises.
    """
    if timeout is None:
        return await call
    try:
        async with asyncio.timeout(timeout) as scope:
            return await call
    except TimeoutError:
        if scope.expired():
            raise overran(timeout) from None
        raise


def _without_frames(error: BaseException, count: int) -> BaseException:
    """Take our own frames off the top of a traceback: an error must not keep its whole chunk alive."""
    traceback = error.__traceback__
    for _ in range(count):
        traceback = None if traceback is None else traceback.tb_next
    return error.with_traceback(traceback)


class ThreadPlace(Place):
    """Runs plain functions in threads. One that overran keeps its thread, and so its place, until it returns.

    A function that turns out to make coroutines (a lambda around a coroutine function does) has them run on the loop.
    """

    def __init__(self, fn: Callable[[Any], Any], workers: int, timeout: float | None) -> None:
        self.lanes: int = workers
        self._fn, self._timeout = fn, timeout
        self._threads = ThreadRunner()
        self._free = asyncio.Semaphore(workers)
        self._stuck: set[asyncio.Future[Any]] = set()

    async def run(self, items: Sequence[Any], seconds: float, first: int) -> Ended:
        """See `Place.run`."""
        await self._free.acquire()
        began = elapsed()
        todo, ran, position = list(items), Ran([], [], 0.0), [BEFORE, 0]
        work = (self._fn, todo, seconds, ran, position, self._timeout is not None)
        future = self._threads.start(copy_context(), run_items, work, {})
        future.add_done_callback(self._returned)
        try:
            with outside():
                place = await self._watch(future, todo, position)
        except BaseException:
            todo.clear()
            future.add_done_callback(lambda _: _close(ran.values))
            raise
        if place is None:
            (values, failures, took), error = future.result()
            if error is not None:
                raise error
            ended = Ended(values, failures, took)
        else:
            failures = [failure for failure in ran.failures if failure[0] < place]  # that one may end at this moment
            took = position[1] / 1e9 - began
            ended = Ended(ran.values[:place], failures, took, culprit=(place, overran(self._timeout)))
            self._overran(future)
            future.add_done_callback(lambda _: _close(ran.values[place:]))
        ended.failures = [(place, _without_frames(error, 1)) for place, error in ended.failures]
        if any(map(iscoroutine, ended.values)):
            await self._await_values(ended, seconds)
        return ended

    def _returned(self, future: asyncio.Future[Any]) -> None:
        self._stuck.discard(future)
        self._free.release()

    def _overran(self, future: asyncio.Future[Any]) -> None:
        """Note that a thread runs on; tell when there is no other."""
        if not future.done():
            self._stuck.add(future)
        if len(self._stuck) == self.lanes:
            logger.warning(
                "%s: all %d threads are at items that ran longer than their timeout of %g s and cannot be stopped; the "
                "batch goes on when one returns",
                task_name(self._fn),
                self.lanes,
                self._timeout,
            )

    async def _watch(self, future: asyncio.Future[Any], todo: list[Any], position: list[int]) -> int | None:
        """Wait until the thread is through, and return None; or until an item had its time, and return its place."""
        while not (await asyncio.wait([future], timeout=self._left(position)))[0]:
            place = position[0]
            if place != BEFORE and self._left(position) == 0.0:
                todo.clear()  # the thread begins no other item
                if position[0] == place:  # else it has just begun the next one
                    return place
        return None

    def _left(self, position: list[int]) -> float | None:
        """Return how many seconds the item under way has left, 0.0 if none; None: it has all the time."""
        return None if self._timeout is None else left(self._timeout, position[0], position[1])

    async def _await_values(self, ended: Ended, seconds: float) -> None:
        """Put the results of coroutines where the function has made some. What is too late for that comes back."""
        values, began, task = ended.values, elapsed(), asyncio.current_task()
        try:
            for place, value in enumerate(values):
                if not iscoroutine(value):
                    continue
                if elapsed() - began >= seconds:
                    _cut(ended, place)
                    break
                try:
                    values[place] = await _within(self._timeout, value)
                except BaseException as error:
                    if is_meant_for_us(error):
                        raise
                    values[place] = None
                    ended.failures.append((place, _without_frames(error, 2)))
                if task is not None and task.cancelling():
                    raise asyncio.CancelledError  # see `LoopPlace.run`
            ended.failures.sort(key=lambda failure: failure[0])
            ended.seconds += elapsed() - began
        except BaseException:
            _cut(ended, 0)
            raise

    async def aclose(self) -> None:
        """End the threads, those that are at an item when it returns."""
        self._threads.close()


def _cut(ended: Ended, place: int) -> None:
    """Let a chunk end before a place: what was called from there on must be called again."""
    _close(ended.values[place:])
    del ended.values[place:]
    ended.failures = [failure for failure in ended.failures if failure[0] < place]


def _close(values: list[Any]) -> None:
    """Close the coroutines among results that nobody will await."""
    for value in values:
        if iscoroutine(value):
            value.close()


def left(timeout: float, place: int, began_ns: int) -> float:
    """Return how many seconds an item has left; one that has not begun has all."""
    return timeout if place == BEFORE else max(0.0, timeout - (elapsed() - began_ns / 1e9))


def overran(timeout: float | None) -> TimeoutError:
    """Return the error of an item that took too long."""
    return TimeoutError(f"it ran longer than its timeout of {timeout:g} s")
