"""Plain functions in daemon threads of our own, so that the loop stays free and exit never hangs.

The threads of `concurrent.futures` are joined when the interpreter ends: one function that never returns keeps the
program alive for ever. These are daemons. Nobody can stop a thread: whoever starts one keeps its slot until it ends.
"""

from __future__ import annotations

import asyncio
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context

Ended = tuple[Any, BaseException | None]
"""What a function gave: its value, or its exception."""


class _Thread:
    """One daemon thread that runs what is put into its inbox, until it is told None."""

    def __init__(self, number: int, returned: Callable[[_Thread], None]) -> None:
        self.inbox: SimpleQueue[tuple[Any, ...] | None] = SimpleQueue()
        self._returned = returned
        threading.Thread(target=self._work, name=f"tickwork-thread-{number}", daemon=True).start()

    def _work(self) -> None:
        while (work := self.inbox.get()) is not None:
            loop, future, context, fn, args, kwargs = work
            value: Any = None
            error: BaseException | None = None
            try:
                value = context.run(fn, *args, **kwargs)
            except BaseException as raised:
                error = raised
            # Whoever takes the result may look at once: this thread, idle by then, keeps neither it nor the arguments.
            handed: list[Ended] = [(value, error)]
            del work, context, fn, args, kwargs, value, error
            try:
                loop.call_soon_threadsafe(self._deliver, future, handed)
            except RuntimeError:
                return  # the loop is closed: nobody waits any more
            del loop, future, handed

    def _deliver(self, future: asyncio.Future[Ended], handed: list[Ended]) -> None:
        self._returned(self)
        ended = handed.pop()
        if not future.done():
            future.set_result(ended)


class ThreadRunner:
    """Threads, started on demand and kept warm. The caller limits how many run: one for each worker."""

    def __init__(self) -> None:
        self._idle: list[_Thread] = []
        self._threads: list[_Thread] = []
        self._closed = False

    def start(
        self, context: Context, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> asyncio.Future[Ended]:
        """Start `fn(*args, **kwargs)` in a thread, with `context` as its context variables.

        Returns:
            A future of (value, exception). Cancelling it does not stop the thread.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Ended] = loop.create_future()
        if self._idle:
            thread = self._idle.pop()
        else:
            thread = _Thread(len(self._threads) + 1, self._release)
            self._threads.append(thread)
        thread.inbox.put((loop, future, context, fn, args, kwargs))
        if self._closed:
            thread.inbox.put(None)
        return future

    def close(self) -> None:
        """End the idle threads now and the busy ones when their function returns, also when no loop runs any more."""
        if not self._closed:
            self._closed = True
            self._idle.clear()
            for thread in self._threads:
                thread.inbox.put(None)

    def _release(self, thread: _Thread) -> None:
        if not self._closed:
            self._idle.append(thread)
