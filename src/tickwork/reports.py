"""What running jobs tell of their progress, on its way to the store: the newest only, and not too often.

A job calls `Context.progress` as often as it likes, in whatever thread it is. The first call sets a timer; when that
rings, the newest is taken of all jobs that have told something, and written together. So the store is asked some times
a second at the most, however many jobs tell however much.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from .jobs import Progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from .clock import Clock, Timer
    from .context import Context

__all__ = ["Reports", "progress_of"]

REPORT_SECONDS = 0.25
"""How long what a job tells may wait for the store: a person does not see it sooner, and four transactions a second
weigh nothing beside those of the jobs themselves."""


class Reports:
    """Hears which jobs have told of progress. It belongs to the running loop.

    Args:
        clock: Tells the time.
        due: Called when what was told should be written: `take` has it.
    """

    def __init__(self, clock: Clock, due: Callable[[], None]) -> None:
        self._clock = clock
        self._due = due
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._told: dict[str, Context] = {}
        self._timer: Timer | None = None

    def tell(self, context: Context) -> None:
        """Hear, in any thread, that a job has told something."""
        if threading.get_ident() == self._thread:
            self._hear(context)
        else:
            with suppress(RuntimeError):  # the loop is closed: nobody writes any more
                self._loop.call_soon_threadsafe(self._hear, context)

    def _hear(self, context: Context) -> None:
        self._told[context.job_id] = context
        if self._timer is None:
            self._timer = self._clock.call_later(REPORT_SECONDS, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._due()

    def take(self) -> list[Context]:
        """Return the jobs that have told something since the last call."""
        told, self._told = list(self._told.values()), {}
        return told

    def close(self) -> None:
        """Set no more timers."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = _NEVER


class _Never:
    def cancel(self) -> None:
        """There is nothing to call off."""


_NEVER = _Never()


def progress_of(context: Context) -> Progress | None:
    """Return what a job has last told, as it is kept; None: nothing."""
    said = context.said
    if said is None:
        return None
    done, total, message, told_at = said
    assert told_at is not None
    return Progress(done=done, total=total, message=message, updated_at=told_at)
