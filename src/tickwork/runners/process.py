"""Run functions in a pool of child processes that can be killed one by one.

    run ── encode ──► idle child ── frame ──► child.py ── frame ──► outcome: value or error
             │             ▲                      │
             │         started on demand          ├ dies, is killed: ProcessDied, this one call only
      refused here:        │                      └ used up (max_jobs, max_memory): closed after its answer
      nothing was sent  launch.py

A child is a fresh interpreter, joined by a socket (frames, see wire.py) and a lifeline pipe whose closing
tells it that this process is dead. Here is decided which child runs what, and when one is started or ended;
children.py is one child and its one call at a time. Everything happens in one event loop; only the start of
a process, which blocks, is done in a short-lived daemon thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections import deque
from contextvars import copy_context
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ..errors import InvalidOption, NotRunning, ProcessDied, ProcessNotStarted, RemoteError
from . import wire
from .calls import encode_call, look_up, outcome
from .child import is_importing_main
from .children import CLOSE_SECONDS, Child, NotSent
from .launch import launch
from .logs import Levels, handle, in_context
from .reference import main_module, reference
from .variables import Variables

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextvars import Context, ContextVar

    from .children import Listener
    from .logs import LogListener

__all__ = ["ProcessRunner"]

logger: logging.Logger = logging.getLogger("tickwork.runners")

# After SIGKILL nothing of a process runs any more; only the kernel can still hold it, waiting for a device.
# `aclose` does not wait for such a one longer than this, in seconds.
KILL_SECONDS = 5.0

# Verified functions are remembered; a program has far fewer, unless it makes them.
MAX_KNOWN = 1_000


# So many children in a row, beyond one in each place, may die while they start before somebody is told: one that the
# kernel's killer or a person has hit is replaced without a word, and an initializer that ends its process is found out.
SPARE_STARTS = 2


class ProcessRunner:
    """A pool of child processes for plain functions that are found by import name.

    Children are started when needed, up to `max_processes`, and stay warm. They are fresh interpreters with
    this process's `sys.path`, environment, working directory, stdin, stdout and stderr. They ignore SIGINT
    and SIGTERM, and end at once when this process does, however it ends.

    It belongs to the event loop of its first call; other loops and threads may not use it.

    Args:
        max_processes: The most processes at a time, from 1.
        initializer: A function without arguments, found by import name, that each child calls once before
            its first job. When it raises, so does the `run` that waited for the child.
        max_jobs: A child is replaced after so many jobs; None: never.
        max_memory: A child is replaced when a job leaves it with more bytes resident; None: never.
        contextvars: Context variables, found by import name, that go with each call.

    Raises:
        InvalidOption: A number is out of range, or a context variable is not found by name.
        NotImportable: The initializer cannot be found by name.
    """

    def __init__(
        self,
        max_processes: int,
        *,
        initializer: Callable[[], object] | None = None,
        max_jobs: int | None = None,
        max_memory: int | None = None,
        contextvars: Sequence[ContextVar[Any]] = (),
    ) -> None:
        _check_count("max_processes", max_processes)
        for option, value in (("max_jobs", max_jobs), ("max_memory", max_memory)):
            if value is not None:
                _check_count(option, value)
        self.max_processes = max_processes
        self._initializer = None if initializer is None else reference(initializer)
        self._max_jobs, self._max_memory = max_jobs, max_memory
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._idle: list[Child] = []  # the last used comes last, and is used first: its caches are warm
        self._children: set[Child] = set()  # each until it is gone
        self._slots = 0  # children, and processes that a thread is just starting
        self._starting: set[asyncio.Task[None]] = set()
        self._died_at_start = 0  # in a row
        # Not bounded here: each entry is a caller that waits in `run`, and whoever calls bounds those.
        self._waiting: deque[asyncio.Future[Child]] = deque()
        self._levels: Levels | None = None
        self._variables = Variables(contextvars)
        self._look_up = lru_cache(MAX_KNOWN)(look_up)

    @property
    def pids(self) -> list[int]:
        """The process ids of the living children, in no order."""
        return [child.pid for child in self._children if not child.has_exited]

    async def run(
        self,
        fn: Callable[..., Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        describe: str | None = None,
        context: dict[str, Any] | None = None,
        on_message: Listener | None = None,
        on_log: LogListener | None = None,
        variables: Context | None = None,
    ) -> Any:
        """Call `fn(*args, **kwargs)` in a child process and return what it returns.

        Waits for a free child, first come, first served. Large arguments are sent from where they are: they
        must not change while this runs.

        Cancellation kills the child that runs the function, and only that one; the function gets no chance to
        clean up. Cancelled while waiting for a child, nothing has happened.

        Args:
            fn: A plain function (or a task, which stands for its function) at the top level of a module.
            args: The positional arguments; anything that can be pickled.
            kwargs: The keyword arguments.
            describe: The name for error messages; by default "module.qualname".
            context: What `child.current_context()` returns in the function.
            on_message: Called in the loop for each `child.notify(kind, value)` of the function, in order,
                before `run` returns. What it raises goes to the loop's exception handler.
            on_log: Called likewise with each record that the function logs; None: the logger of the same name handles
                it, in the context variables of the caller.
            variables: Where the context variables that go with each call have their values; None: the caller's.

        Raises:
            NotImportable: The name of `fn` does not lead to it, here or in the child.
            InvalidOption: `fn` is an async function.
            InvalidPayload: An argument or the result cannot be pickled or unpickled; an argument that cannot
                be pickled is found out before anything is sent.
            ProcessDied: The child ended before it answered; the function may have done its work or a part.
            ProcessNotStarted: The initializer raised, or the child ended before it could be given the call.
            RemoteError: The function raised something that cannot be raised here.
            NotRunning: The runner is closed, or belongs to another event loop.
            Exception: What the function raises, with the traceback of the child as `__cause__`.
        """
        self._check_usable()
        try:
            where, name = self._look_up(fn)
        except TypeError:  # not hashable, so no function: this tells what it is
            where, name = look_up(fn)
        name = describe or name
        packed = self._variables.packed(name, variables)
        frame = encode_call(name, where, args, kwargs, context, packed, listening=on_message is not None)
        answer = await self._ask(frame, name, on_message, on_log or in_context(copy_context(), handle))
        del frame
        return outcome(answer, fn, name)

    def variables(self, name: str) -> bytes | None:
        """Return the context variables that go with a call of a function of this name, for `encode_call`.

        Raises:
            InvalidPayload: One of them cannot be pickled.
        """
        return self._variables.packed(name)

    async def send(self, frame: list[wire.Piece], name: str, on_child: Callable[[Child], None]) -> wire.Frame:
        """Send the frame of a call to a child and return its answer; see `run`, which does all of it.

        Args:
            frame: Made by `encode_call`.
            name: The name for error messages.
            on_child: Called with the child that is about to run it.
        """
        self._check_usable()
        return await self._ask(frame, name, None, in_context(copy_context(), handle), on_child)

    async def _ask(
        self,
        frame: list[wire.Piece],
        name: str,
        on_message: Listener | None,
        on_log: LogListener,
        on_child: Callable[[Child], None] | None = None,
    ) -> wire.Frame:
        in_vain = 0
        while True:
            child = await self._acquire()
            while in_vain and not child.is_alive():
                child = await self._acquire()
            try:
                if on_child is not None:
                    on_child(child)
                return await child.ask(self._with_levels(child, frame), name, on_message, on_log)
            except NotSent:  # an idle child had just died, and so may all others have; the one after them is new
                in_vain += 1
                if in_vain > self.max_processes:
                    raise await child.death(name) from None
            finally:
                self._offer(child)

    def _with_levels(self, child: Child, frame: list[wire.Piece]) -> list[wire.Piece]:
        """Return the frame, after another that tells the child of its parent's log levels where they have changed."""
        if self._levels is None:
            self._levels = Levels(asyncio.get_running_loop().time)
        levels = self._levels.now()
        if child.levels is levels:
            return frame
        child.levels = levels
        return [*wire.encode(wire.LEVELS, levels), *frame]

    async def warm(self, count: int | None = None) -> None:
        """Start children until there are `count`, at most `max_processes` (None: so many), and wait for them.

        Raises:
            ProcessNotStarted: A child ended while it started, or its initializer raised.
        """
        self._check_usable()
        wanted = self.max_processes if count is None else min(count, self.max_processes)
        waits = [self._wait_for_child() for _ in range(wanted - self._slots)]
        found = await asyncio.gather(*waits, return_exceptions=True)
        for entry in found:
            if isinstance(entry, Child):
                self._offer(entry)
        for entry in found:
            if isinstance(entry, BaseException):
                raise entry

    async def aclose(self) -> None:
        """End all children and wait until they are gone. May be called again, and by several at a time.

        It does not wait for jobs: those still running are killed, and their `run` raises NotRunning. Idle
        children have a second for their exit handlers. Cancelled, it kills what is left and returns at once.
        """
        if self._loop is None:
            self._closed = True
            return
        self._check_loop()
        self._close(lambda child: child.close())
        try:
            await self._wait_until_gone(CLOSE_SECONDS + KILL_SECONDS)
        except BaseException:
            self.close_nowait()
            raise

    def close_nowait(self) -> None:
        """Kill all children without waiting, for an emergency exit; a loop that still turns tidies up."""
        self._close(lambda child: child.kill())

    def _close(self, end: Callable[[Child], None]) -> None:
        self._closed = True
        self._idle.clear()
        for child in list(self._children):
            if child.is_busy():
                child.fail(NotRunning(f"the process runner was closed while it ran {child.describe!r}"))
                child.kill()
            else:
                end(child)
        while (waiter := self._next_waiter()) is not None:
            waiter.set_exception(NotRunning("the process runner was closed while this job waited for a child"))

    async def _wait_until_gone(self, timeout: float) -> None:
        while waits := {*self._starting, *(child.gone for child in self._children)}:
            _, pending = await asyncio.wait(waits, timeout=timeout)
            if pending:
                logger.warning("%d child processes do not end although they were killed", len(pending))
                return

    def _check_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise NotRunning("this process runner belongs to another event loop; make one for each loop")

    def _check_usable(self) -> None:
        self._check_loop()
        if self._closed:
            raise NotRunning("the process runner is closed; make a new one")
        if is_importing_main():
            raise NotRunning(
                "a child process runs the script again while importing it;"
                " put what the script does under `if __name__ == '__main__':`"
            )

    async def _acquire(self) -> Child:
        while True:
            child = self._idle.pop() if self._idle else await self._wait_for_child()
            if child.is_usable():
                return child

    async def _wait_for_child(self) -> Child:
        self._check_usable()  # it may have been closed since the call began
        waiter: asyncio.Future[Child] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self._fill()
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.cancelled():
                with contextlib.suppress(ValueError):
                    self._waiting.remove(waiter)
            elif waiter.exception() is None:  # a child came at the same moment
                self._offer(waiter.result())
            raise

    def _offer(self, child: Child) -> None:
        """Give a child that has nothing to do to whoever waits longest, or keep it warm."""
        if not child.is_usable():
            return  # its end is under way, and `_forget` fills the place
        if self._closed or child.used_up:
            child.close()
            return
        if (waiter := self._next_waiter()) is not None:
            waiter.set_result(child)
        else:
            self._idle.append(child)

    def _next_waiter(self) -> asyncio.Future[Child] | None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                return waiter
        return None

    def _fill(self) -> None:
        """Start processes for those who wait, as far as there is room."""
        while not self._closed and len(self._waiting) > len(self._starting) and self._slots < self.max_processes:
            self._slots += 1
            task = asyncio.get_running_loop().create_task(self._start(), name="tickwork-start-process")
            self._starting.add(task)
            task.add_done_callback(self._starting.discard)

    async def _start(self) -> None:
        """Start a child and offer it; an error goes to whoever waits longest."""
        task = asyncio.current_task()
        assert task is not None
        try:
            child = await self._started_child()
        except Exception as error:
            self._starting.discard(task)
            if self._may_try_again(error):
                pass  # `_fill` does, for those who wait
            elif (waiter := self._next_waiter()) is not None:
                waiter.set_exception(error)
            elif not self._closed:
                logger.warning("a child process could not be started: %s", error, exc_info=error)
            self._fill()
        else:
            self._starting.discard(task)
            self._died_at_start = 0
            self._offer(child)

    def _may_try_again(self, error: Exception) -> bool:
        """Tell whether a start that failed may be tried again: the process has died, and not too many before it."""
        if not isinstance(error.__cause__, ProcessDied):
            return False
        self._died_at_start += 1
        return self._died_at_start < self.max_processes + SPARE_STARTS

    async def _started_child(self) -> Child:
        try:
            process = await launch()
        except BaseException:
            self._slots -= 1
            raise
        child = Child(process, self._forget)
        self._children.add(child)
        try:
            await child.connect()
            if self._closed:
                raise NotRunning("the process runner was closed")
            await self._greet(child)
        except BaseException:
            child.kill()
            raise
        return child

    async def _greet(self, child: Child) -> None:
        path = [entry or os.getcwd() for entry in sys.path]
        where = self._initializer and tuple(self._initializer)
        initializer = None if self._initializer is None else str(self._initializer)
        name = initializer or "its start"
        settings = (path, main_module(), where, self._max_jobs, self._max_memory)
        try:
            try:
                frame = self._with_levels(child, wire.encode(wire.START, settings))
                answer = await child.ask(frame, name)
            except NotSent:
                raise await child.death(name) from None
            outcome(answer, name, name)
        except ProcessDied as error:
            raise ProcessNotStarted(initializer, str(error)) from error
        except NotRunning:
            raise  # it was closed meanwhile
        except Exception as error:
            raise ProcessNotStarted(initializer, f"its initializer {name!r} raised {_in_words(error)}") from error

    def _forget(self, child: Child) -> None:
        self._children.discard(child)
        if child in self._idle:
            self._idle.remove(child)
        self._slots -= 1
        self._fill()


def _in_words(error: Exception) -> str:
    """Return class and text of what a function raised in a child, as they were there."""
    if isinstance(error, RemoteError):
        return f"{error.error_type}: {error.error_message}"
    try:
        return f"{type(error).__qualname__}: {error}"
    except Exception:
        return type(error).__qualname__


def _check_count(option: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidOption(option, "a whole number from 1", value)
