"""An app as a program: a loop of its own, signals, an exit that cannot hang, an exit status.

The first SIGINT or SIGTERM drains, the second means now. The handler runs in the main thread between two
instructions, so it is heard also while a job blocks the loop; a loop that stays blocked is left by force when the time
for draining has passed, with the stack of what held it.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import signal
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from .app import App, Stopped

logger = logging.getLogger("tickwork.program")

OK, JOB_FAILED, USAGE, START_FAILED, CUT = range(5)
"""Exit statuses: clean; a job failed; wrong usage; the start failed; jobs had to be cut, or the app died."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)

LAST_SECONDS = 2.0
"""Beyond all limits of the drain: the time that closing takes when nothing is stuck, with a wide margin."""


def run(
    app: App, *, until_idle: bool = False, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
) -> int:
    """Run an app until a signal, or until it is idle, and return the exit status."""
    return Program(app, until_idle=until_idle).run(loop_factory or asyncio.new_event_loop)


class Program:
    """One run of an app in the main thread.

    Args:
        app: The app.
        until_idle: End when no job is queued or running.
    """

    def __init__(self, app: App, *, until_idle: bool = False) -> None:
        self._app = app
        self._until_idle = until_idle
        self._signals = 0
        self._stop: asyncio.Event
        self._loop: asyncio.AbstractEventLoop
        self._guard: threading.Timer | None = None

    def run(self, loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> int:
        """Run it and return the exit status."""
        self._loop = loop = loop_factory()
        self._stop = asyncio.Event()
        before = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        try:
            asyncio.set_event_loop(loop)
            return loop.run_until_complete(self._main())
        finally:
            _close(loop)
            asyncio.set_event_loop(None)
            for number, handler in before.items():
                signal.signal(number, handler)
            if self._guard is not None:
                self._guard.cancel()

    async def _main(self) -> int:
        app = self._app
        try:
            if not await self._unless_stopped(app.start()):
                return OK
        except Exception:
            logger.exception("the app could not start")
            return START_FAILED
        waits: list[Coroutine[Any, Any, Any]] = [self._stop.wait(), app.wait_failed()]
        if self._until_idle:
            waits.append(app.wait_idle())
        tasks = [asyncio.ensure_future(wait) for wait in waits]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        died = tasks[1].done()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        failed = app.failed_count
        try:
            stopped: Stopped = await app.stop(0.0 if self._signals > 1 else None)
        except Exception:
            logger.exception("the app could not stop cleanly")
            return CUT
        if stopped.cut or died:
            return CUT
        return JOB_FAILED if self._until_idle and failed else OK

    async def _unless_stopped(self, starting: Coroutine[Any, Any, None]) -> bool:
        """Await the start, and return whether it came to its end before a signal."""
        start, stop = asyncio.ensure_future(starting), asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({start, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not start.done():
            start.cancel()
            with suppress(asyncio.CancelledError):
                await start
            return False
        start.result()
        return True

    # -- signals ----------------------------------------------------------------------------------------------------

    def _on_signal(self, number: int, _frame: object) -> None:
        self._signals += 1
        app = self._app
        if self._signals == 1:
            self._guard_exit(app.drain_seconds + app.cancel_seconds + LAST_SECONDS)
            self._loop.call_soon_threadsafe(self._begin_stop, signal.Signals(number).name)
        else:
            self._guard_exit(app.cancel_seconds + LAST_SECONDS if self._signals == 2 else 0.0)
            self._loop.call_soon_threadsafe(app.hurry)

    def _begin_stop(self, name: str) -> None:
        logger.info("%s: draining; once more to stop now", name)
        self._stop.set()

    def _guard_exit(self, limit: float) -> None:
        """See to it that the program ends within `limit` seconds, whatever holds the loop."""
        if self._guard is not None:
            self._guard.cancel()
        self._guard = threading.Timer(limit, self._leave, args=(limit,))
        self._guard.daemon = True
        self._guard.start()

    def _leave(self, limit: float) -> None:
        logger.critical("the loop has not ended within %g s; leaving it. What holds it:", limit)
        leave(CUT, show_stacks=True)


def leave(status: int, *, show_stacks: bool = False) -> None:
    """End the process now, without waiting for threads; what was printed and logged is kept."""
    if show_stacks:
        with suppress(Exception):  # a stderr without a file has no place for stacks
            faulthandler.dump_traceback(sys.stderr, all_threads=True)
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    logging.shutdown()
    os._exit(status)


def _close(loop: asyncio.AbstractEventLoop) -> None:
    """Close a loop within bounds: `asyncio.run` waits for ever for a task or thread that does not end."""
    try:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks, timeout=1.0))
        loop.run_until_complete(asyncio.wait_for(loop.shutdown_asyncgens(), 1.0))
    except TimeoutError:
        logger.warning("an async generator did not end")
    finally:
        loop.close()
