"""When a failed attempt is followed by another: a value without side effects."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from .durations import seconds
from .errors import InvalidOption, TickworkError
from .options import positive

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

MAX_DELAY = 3_600.0
"""Seconds between two attempts at the most unless told: longer outages are for a person, who should see tries go on."""


class RetryAfter(TickworkError):
    """Raised inside a job: try it again after this long, if its task's `retry` leaves an attempt.

    Attributes:
        seconds: How long to wait.
    """

    seconds: float

    def __init__(self, wait: float | str | timedelta) -> None:
        self.seconds = seconds(wait, "wait", allow_zero=True)
        super().__init__(f"to be tried again after {self.seconds:g} s")


class GiveUp(TickworkError):
    """Raised inside a job: further attempts would not help, so it has failed now, whatever its task's `retry`."""


@dataclass(frozen=True, slots=True, init=False)
class Retry:
    """How often a job is tried, and how long it waits between: `Retry(5)`, `Retry(10, delay="30s", factor=1)`.

    Attributes:
        attempts: Attempts in all, the first included.
        delay: Seconds between the first and the second.
        factor: By how much each wait is longer than the last; at least 1.
        max_delay: The longest wait, in seconds.
        jitter: Which part of a wait is random, from 0 to 1: the wait lies between (1 - jitter) and 1 times its length.
            It keeps jobs that failed together from coming back together.

    Raises:
        InvalidOption: A value out of its range.
    """

    attempts: int
    delay: float
    factor: float
    max_delay: float
    jitter: float

    def __init__(
        self,
        attempts: int,
        *,
        delay: float | str | timedelta = 1.0,
        factor: float = 2.0,
        max_delay: float | str | timedelta = MAX_DELAY,
        jitter: float = 0.5,
    ) -> None:
        put = object.__setattr__
        put(self, "attempts", positive("attempts", attempts))
        put(self, "delay", seconds(delay, "delay", allow_zero=True))
        put(self, "factor", _between("factor", factor, 1, 1_000))
        put(self, "max_delay", seconds(max_delay, "max_delay", allow_zero=True))
        put(self, "jitter", _between("jitter", jitter, 0, 1))

    def wait_after(self, attempt: int, draw: float) -> float:
        """Return how many seconds to wait after an attempt that failed.

        Args:
            attempt: Which it was, counted from 1.
            draw: A random number in [0, 1).
        """
        doublings = min(attempt - 1, 1_000)  # beyond any limit, and within what a float can hold
        try:
            wait = self.delay * self.factor**doublings
        except OverflowError:
            wait = self.max_delay
        return min(wait, self.max_delay) * (1.0 - self.jitter * draw)


def next_attempt_at(
    retry: Retry | None,
    retry_on: Sequence[type[BaseException]],
    error: BaseException,
    attempt: int,
    now: datetime,
    draw: float,
) -> datetime | None:
    """Return when the next attempt is due, or None when the job has failed.

    Args:
        retry: The task's; None: one attempt.
        retry_on: The classes of exceptions that another attempt may help against.
        error: What ended the attempt.
        attempt: Which it was, counted from 1.
        now: When it ended.
        draw: A random number in [0, 1).
    """
    if retry is None or attempt >= retry.attempts or isinstance(error, GiveUp):
        return None
    if isinstance(error, RetryAfter):
        return now + timedelta(seconds=error.seconds)
    if not isinstance(error, tuple(retry_on)):
        return None
    return now + timedelta(seconds=retry.wait_after(attempt, draw))


def retry_of(given: object) -> Retry | None:
    """Return the `retry` that an option gives: one, a number of attempts, or None.

    Raises:
        InvalidOption: It is none of these.
    """
    if given is None or isinstance(given, Retry):
        return given
    return Retry(positive("retry", given))


def exceptions_of(given: Any) -> tuple[type[BaseException], ...]:
    """Return the classes that `retry_on` gives: one, or several.

    Raises:
        InvalidOption: Something else than classes of exceptions is among them.
    """
    classes = tuple(given) if isinstance(given, list | tuple) else (given,)
    if not classes or not all(isinstance(entry, type) and issubclass(entry, BaseException) for entry in classes):
        raise InvalidOption("retry_on", "an exception class, or several", given)
    return classes


def _between(option: str, value: Any, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise InvalidOption(option, f"a number from {low} to {high}", value)
    return float(value)
