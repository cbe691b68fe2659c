"""How far a batch has come, and who is told: a bar on a terminal, the log, a job's own progress, or a function.

Whoever runs a batch tells its reporter after each chunk. That is often, so `show` costs next to nothing: each reporter
passes on a few of the tellings a second, by the clock that stands in them, and the last one always.
"""

from __future__ import annotations

import inspect
import logging
import os
import sys
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from ..context import Context
from ..durations import format_about
from ..errors import InvalidOption, NotRunning
from ..runners import child

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["BatchProgress", "Reporter", "reporter", "words"]

logger: logging.Logger = logging.getLogger("tickwork.batch")

LINE_SECONDS = 5.0
"""How often the log is told: a batch of an hour makes 720 lines, and one that hangs is noticed soon."""
CALL_SECONDS = 0.2
"""How often a function is told: people see no more of it, and it may draw."""


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """How far a batch has come.

    Attributes:
        done: How many items have ended; those that failed are among them.
        failed: How many have failed.
        total: How many there are; None: not known, as of a generator.
        seconds: Since the start of the batch.
        known: How many of `done` were not run, since a checkpoint had their results.
    """

    done: int
    failed: int
    total: int | None
    seconds: float
    known: int = 0

    @property
    def rate(self) -> float:
        """Items run in a second, since the start; 0.0 at the start. What a checkpoint knew does not count."""
        return (self.done - self.known) / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """How long the rest will take at this rate; None: nobody knows yet."""
        if self.total is None:
            return None
        left = max(0, self.total - self.done)
        return 0.0 if not left else left / self.rate if self.rate > 0 else None


class Reporter(Protocol):
    """Who is told of a batch."""

    def show(self, progress: BatchProgress) -> None:
        """Take note of how far it has come. It is cheap, never raises, and may pass it on or not."""

    async def close(self, progress: BatchProgress) -> None:
        """Pass on how far it has come in the end, whatever that end was; never raises of itself."""


def reporter(progress: bool | Callable[[BatchProgress], object], name: str) -> Reporter:
    """Return who is told of a batch.

    Args:
        progress: False: nobody. True: inside a job of an app, `Context.progress` of the job. Elsewhere people: by a bar
            where stderr is a terminal and rich is installed, else by a line of the log every five seconds. A function:
            that one, in the thread of the loop, at most five times a second and at the end.
        name: What people call the batch.

    Raises:
        InvalidOption: `progress` is none of these, a coroutine function, or a function that does not take one argument.
    """
    checked = check_progress(progress)
    if checked is False:
        return _Nobody()
    if checked is not True:
        return _Function(checked, name)
    try:
        return _Job(Context.current(), name)
    except NotRunning:
        pass
    if _is_terminal() and not child.is_child():  # the terminal belongs to the parent, whose log gets the lines
        from .bars import bar  # imports rich, in a thread and when there is something to draw

        return bar(name) or _Log(name)
    return _Log(name)


def words(progress: BatchProgress) -> str:
    """Return how far it has come as people read it: "1,200 of 10,000 items, 240/s, 37s left, 3 failed"."""
    total = "" if progress.total is None else f" of {progress.total:,}"
    parts = [f"{progress.done:,}{total} items", f"{number(progress.rate)}/s"]
    left = progress.seconds_left or 0.0
    if left := round(left, 0 if left >= 10 else 1):
        parts.append(f"{format_about(left)} left")
    if progress.known:
        parts.append(f"{progress.known:,} known from the checkpoint")
    if progress.failed:
        parts.append(f"{progress.failed:,} failed")
    return ", ".join(parts)


def number(rate: float) -> str:
    """Return a rate with as many digits as people need."""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


def _is_terminal() -> bool:
    try:
        return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    except ValueError:  # it is closed
        return False


def check_progress(function: Any) -> bool | Callable[[BatchProgress], object]:
    """Return what `progress` gives, when it can be told.

    Raises:
        InvalidOption: See `reporter`.
    """
    if isinstance(function, bool):
        return function
    expected = "True, False or a function that takes a BatchProgress"
    if not callable(function):
        raise InvalidOption("progress", expected, function)
    plain = function
    while isinstance(plain, partial):
        plain = plain.func
    if inspect.iscoroutinefunction(plain) or inspect.iscoroutinefunction(getattr(plain, "__call__", None)):  # noqa: B004
        raise InvalidOption("progress", expected, function, remedy="nobody would await it: make it a plain function")
    try:
        inspect.signature(function).bind(None)
    except TypeError as error:
        raise InvalidOption("progress", expected, function, remedy=str(error)) from None
    except ValueError:  # written in C, without a signature
        pass
    return function  # type: ignore[no-any-return]


class _Nobody:
    """Tells nobody."""

    def show(self, progress: BatchProgress) -> None:
        pass

    async def close(self, progress: BatchProgress) -> None:
        pass


class _Log:
    """Tells the log, a line every five seconds and one at the end."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._next = LINE_SECONDS

    def show(self, progress: BatchProgress) -> None:
        if progress.seconds >= self._next:
            self._next = progress.seconds + LINE_SECONDS
            logger.info("%s: %s", self._name, words(progress))

    async def close(self, progress: BatchProgress) -> None:
        logger.info("%s: ended after %s: %s", self._name, format_about(progress.seconds), words(progress))


class _Told:
    """Somebody else's code, which may raise: that is told once, and harms nobody."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._has_failed = False

    def _tell(self, call: Callable[[], object]) -> None:
        try:
            answer = call()
        except Exception:
            self._complain("failed; the batch goes on, and this is told once", exc_info=True)
            return
        if inspect.iscoroutine(answer):
            answer.close()
            self._complain("returned a coroutine, which nobody awaits; make it a plain function", exc_info=False)

    def _complain(self, what: str, *, exc_info: bool) -> None:
        if not self._has_failed:
            self._has_failed = True
            logger.error("%s: who is told of the progress %s", self._name, what, exc_info=exc_info)


class _Function(_Told):
    """Calls a function, five times a second at most, and at the end."""

    def __init__(self, function: Callable[[BatchProgress], object], name: str) -> None:
        super().__init__(name)
        self._function = function
        self._next = 0.0

    def show(self, progress: BatchProgress) -> None:
        if progress.seconds >= self._next:
            self._next = progress.seconds + CALL_SECONDS
            self._tell(partial(self._function, progress))

    async def close(self, progress: BatchProgress) -> None:
        self._tell(partial(self._function, progress))


class _Job(_Told):
    """Tells the job that the batch runs in; the job decides how often its store hears of it."""

    def __init__(self, context: Context, name: str) -> None:
        super().__init__(name)
        self._context = context

    def show(self, progress: BatchProgress) -> None:
        message = f"{progress.failed:,} failed" if progress.failed else None
        self._tell(partial(self._context.progress, progress.done, progress.total, message))

    async def close(self, progress: BatchProgress) -> None:
        self.show(progress)
