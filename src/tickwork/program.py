"""An app as a program: a loop of its own, signals, an exit that cannot hang, an exit status.

The first SIGINT or SIGTERM drains, the second means now, the third does not wait at all. The handler runs in the main
thread between two instructions, so it is heard also while a job blocks the loop. A loop that stays blocked is left by
force when the time for draining has passed: a thread, the guard, waits for that and names what held it.

Whatever a signal handler touches must be safe to touch in the middle of anything: it puts into a `SimpleQueue` and
calls `call_soon_threadsafe`, and takes no lock. Starting a thread there could wait for ever for a lock that the
interrupted code holds.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import signal
import socket
import sys
import threading
import traceback
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from .errors import NotRunning, TickworkError
from .shield import is_meant_for_us

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from .app import App, Stopped

logger: logging.Logger = logging.getLogger("tickwork.program")

OK, JOB_FAILED, USAGE, START_FAILED, CUT = range(5)
"""Exit statuses: clean; a job failed; wrong usage; the start failed; jobs had to be cut, or the app died."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)

LAST_SECONDS = 3.0
"""Beyond all limits of the drain: the time that closing takes. Some hundredths; a worker, a child process
and a task that do not end take a second each."""

WORDS_SECONDS = 1.0
"""How long the last words may take: a pipe that nobody reads blocks them, and the exit must not wait for it."""


def run(
    app: App,
    *,
    work: Callable[[], Coroutine[Any, Any, int]] | None = None,
    alone: bool = False,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    is_last: bool = False,
) -> int:
    """Run an app until a signal, or until `work` is done, and return the exit status.

    Args:
        app: The app.
        work: Called when the app has started; its status is the program's. None: only a signal ends it.
        alone: Fire no schedules, and leave the jobs of others to others; see `App.start`.
        loop_factory: Makes the loop; None: asyncio's own.
        is_last: The process has nothing else to do: signals that come afterwards are ignored.

    Raises:
        NotRunning: This is not the main thread, which alone hears signals, or a loop runs in it already.
    """
    program = Program(app, work=work, alone=alone, is_last=is_last)
    return program.run(loop_factory or asyncio.new_event_loop)


class Program:
    """One run of an app in the main thread; see `run`."""

    def __init__(
        self, app: App, *, work: Callable[[], Coroutine[Any, Any, int]] | None, alone: bool, is_last: bool
    ) -> None:
        self._app = app
        self._work = work
        self._alone = alone
        self._is_last = is_last
        self._signals = 0
        self._stop: asyncio.Event
        self._loop: asyncio.AbstractEventLoop
        self._limits: SimpleQueue[float | None] = SimpleQueue()

    def run(self, loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> int:
        """Run it and return the exit status."""
        _check_place()
        self._stop = asyncio.Event()
        loop = self._loop = loop_factory()
        guard = threading.Thread(target=self._watch, name="tickwork-guard", daemon=True)
        guard.start()
        before = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        try:
            asyncio.set_event_loop(loop)
            status = loop.run_until_complete(self._main())
        finally:
            stuck = _close(loop)
            asyncio.set_event_loop(None)
            for number, handler in before.items():
                signal.signal(number, signal.SIG_IGN if self._is_last else handler or signal.SIG_DFL)
            self._limits.put(None)
            guard.join(WORDS_SECONDS)
        if stuck:
            logger.warning("left behind, because they ignore their cancellation: %s", ", ".join(stuck))
            status = CUT
        _bound_exit()
        return status

    async def _main(self) -> int:
        with woken_by_signals(self._loop):
            if (failure := await self._start()) is not None:
                return failure
            return await self._until_stopped()

    async def _start(self) -> int | None:
        """Start the app, and return the status of the program where that is its end."""
        part = False if self._alone else None  # as the role of this process says
        start = asyncio.ensure_future(self._app.start(schedules=part, claims=part))
        stop = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({start, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not start.done():
            start.cancel()
        try:
            await start
        except asyncio.CancelledError as error:
            if self._stop.is_set() or is_meant_for_us(error):
                return OK
            logger.critical("the app could not start: it was cancelled by its own lifespan or on_start", exc_info=True)
            return START_FAILED
        except TickworkError as error:  # says all there is to say
            logger.critical("the app could not start: %s", error)
            return START_FAILED
        except BaseException as error:
            if is_meant_for_us(error):
                raise
            logger.critical("the app could not start", exc_info=True)
            return START_FAILED
        return None

    async def _until_stopped(self) -> int:
        app = self._app
        stop, died = asyncio.ensure_future(self._stop.wait()), asyncio.ensure_future(app.wait_failed())
        work = asyncio.ensure_future(self._until_signal() if self._work is None else self._work())
        await asyncio.wait({stop, died, work}, return_when=asyncio.FIRST_COMPLETED)
        has_died = died.done()
        try:
            stopped: Stopped = await app.stop(0.0 if self._signals > 1 else None)
        except BaseException as error:
            if is_meant_for_us(error):
                raise
            logger.exception("the app could not stop cleanly")
            return CUT
        # Work that waited for a job has heard of its end by now, and needs a moment to say so.
        await asyncio.wait({work}, timeout=WORDS_SECONDS)
        for task in (stop, died, work):
            task.cancel()
        await asyncio.wait({stop, died, work}, timeout=WORDS_SECONDS)
        if stopped.cut or has_died:
            return CUT
        return work.result() if work.done() and not work.cancelled() else OK

    async def _until_signal(self) -> int:
        await self._stop.wait()
        return OK

    # -- signals ----------------------------------------------------------------------------------------------------

    def _on_signal(self, number: int, _frame: object) -> None:
        self._signals += 1
        if self._signals > 3:
            return  # all has been asked for; a flood of signals must not nest this handler without end
        app = self._app
        if self._signals == 1:
            self._limits.put(app.drain_seconds + app.cancel_seconds + LAST_SECONDS)
            self._soon(self._begin_stop, signal.Signals(number).name)
        else:
            self._limits.put(app.cancel_seconds + LAST_SECONDS if self._signals == 2 else 0.0)
            self._soon(app.hurry)

    def _soon(self, call: Callable[..., None], *args: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: what the signal asks for has happened
            self._loop.call_soon_threadsafe(call, *args)

    def _begin_stop(self, name: str) -> None:
        logger.info("%s: draining; once more to stop now", name)
        self._stop.set()

    # -- the guard, a thread ----------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """See to it that the program ends within the last limit put, whatever holds the loop; None: it has ended."""
        limit = self._limits.get()
        while limit is not None:
            try:
                limit = self._limits.get(timeout=limit)
            except Empty:
                leave(CUT, self._accuse)

    def _accuse(self) -> None:
        logger.critical(
            "the loop does not end, so it is left; cut: %s\n%s",
            ", ".join(self._app.running) or "no job: something else holds it",
            _stacks(),
        )


def leave(status: int, last_words: Callable[[], object] | None = None) -> None:
    """End the process now, without waiting for threads; what was printed and logged is kept.

    Args:
        status: The exit status.
        last_words: Says why. It runs in a thread and may take no longer than `WORDS_SECONDS`.
    """

    def speak() -> None:
        if last_words is not None:
            last_words()
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        logging.shutdown()

    speaker = threading.Thread(target=speak, name="tickwork-last-words", daemon=True)
    try:
        speaker.start()
    except RuntimeError:  # an interpreter that is ending starts no threads; this one of C's it does start
        with open(os.devnull, "w") as nowhere:
            faulthandler.dump_traceback_later(WORDS_SECONDS, exit=True, file=nowhere)
            speak()
    else:
        speaker.join(WORDS_SECONDS)
    os._exit(status)


def _check_place() -> None:
    if threading.current_thread() is not threading.main_thread():
        raise NotRunning("app.run() needs the main thread, which alone hears signals; use `async with app` here")
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise NotRunning("app.run() makes a loop of its own, and one is running here; use `async with app`")


@contextmanager
def woken_by_signals(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Let a signal wake the loop also when the system delivers it to another thread than the main one.

    The handler runs in the main thread, which may just sleep in a call that only its own signals interrupt.
    """
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.setblocking(False)
        writer.setblocking(False)
        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        if before != -1:  # uvloop, and the loop of Windows, do it by themselves
            signal.set_wakeup_fd(before)
            yield
            return
        loop.add_reader(reader, reader.recv, 4096)
        try:
            yield
        finally:
            signal.set_wakeup_fd(-1)
            loop.remove_reader(reader)


def _close(loop: asyncio.AbstractEventLoop) -> list[str]:
    """Close a loop within bounds, and return what did not end.

    `asyncio.run` waits for ever for a task or a thread that does not end.
    """
    stuck: list[str] = []
    try:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            _, pending = loop.run_until_complete(asyncio.wait(tasks, timeout=1.0))
            stuck = [_describe(task) for task in pending if not task.get_name().startswith("tickwork-")]
        loop.run_until_complete(asyncio.wait_for(loop.shutdown_asyncgens(), 1.0))
    except TimeoutError:
        stuck.append("an async generator")
    finally:
        loop.close()
    return stuck


def _describe(task: asyncio.Task[Any]) -> str:
    return f"task {getattr(task.get_coro(), '__qualname__', None) or task.get_name()}"


def _bound_exit() -> None:
    """Let threads of the user's that do not end hold the exit of the interpreter for a moment only."""
    me = threading.current_thread()
    if not any(thread is not me and not thread.daemon for thread in threading.enumerate()):
        return
    is_exiting = threading.Event()

    def watch() -> None:
        is_exiting.wait()
        for thread in threading.enumerate():
            if not thread.daemon and thread is not me:
                thread.join(LAST_SECONDS)
                if thread.is_alive():
                    leave(CUT, lambda: logger.critical("left behind: threads that do not end\n%s", _stacks()))

    threading.Thread(target=watch, name="tickwork-exit", daemon=True).start()
    # `atexit` comes too late: the interpreter waits for threads before it. What concurrent.futures uses is not public.
    threading._register_atexit(is_exiting.set)  # type: ignore[attr-defined]


def _stacks() -> str:
    """Return where the main thread and those that may be busy with a job are."""
    frames = sys._current_frames()
    told = []
    for thread in threading.enumerate():
        frame = frames.get(thread.ident or 0)
        if frame is not None and thread.name not in ("tickwork-guard", "tickwork-last-words", "tickwork-exit"):
            told.append(f"{thread.name}:\n{''.join(traceback.format_stack(frame))}".rstrip())
    return "\n".join(told)
