"""A store that cannot be used for a while, as the log tells it: when it begins, once a minute, and when it is over.

It is asked again each second. A line for each time would say nothing new and hide what else happens; a traceback would
show our own calls. What a store raises that is not `StoreUnavailable` is a mistake of somebody's, and each is told with
its traceback.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from .durations import format_seconds
from .errors import StoreUnavailable

if TYPE_CHECKING:
    from .clock import Clock

__all__ = ["Outage"]

REMIND_SECONDS = 60.0
"""After so long, who reads the log is told that it goes on."""


class Outage:
    """Tells of one thing that a store is asked for again and again.

    Args:
        logger: Where.
        clock: Tells how long it lasts.
        again: What is said when it is over, such as "the store hands out jobs again".
    """

    def __init__(self, logger: logging.Logger, clock: Clock, again: str) -> None:
        self._logger = logger
        self._clock = clock
        self._again = again
        self._since_mono: float | None = None
        self._told_mono = 0.0

    def tell(self, error: BaseException, text: str, *args: object) -> None:
        """Log what has failed.

        Args:
            error: What the store has raised.
            text: What could not be done, and when it is tried again.
            *args: As for a logger.
        """
        if not isinstance(error, StoreUnavailable):
            self._logger.error(text, *args, exc_info=error)
            return
        mono, level, lasts = self._clock.monotonic(), logging.DEBUG, ""
        if self._since_mono is None:
            self._since_mono, level = mono, logging.ERROR
        elif mono - self._told_mono >= REMIND_SECONDS:
            level, lasts = logging.ERROR, f"for {format_seconds(round(mono - self._since_mono))} now, "
        if level == logging.ERROR:
            self._told_mono = mono
        self._logger.log(level, "%s%s: %s", lasts, text % args, error)

    def over(self) -> None:
        """Hear that it could be done, and tell so where it was told that it could not."""
        if self._since_mono is not None:
            lasted = format_seconds(round(self._clock.monotonic() - self._since_mono, 1))
            self._since_mono = None
            self._logger.warning("%s, after %s", self._again, lasted)
