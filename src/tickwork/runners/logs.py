"""The parent's side of logging in children: what a job logs there is handled here, as if it had logged it here."""

from __future__ import annotations

import logging
import pickle
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context

    from . import wire

    LogListener = Callable[[logging.LogRecord], object]

LEVELS_SECONDS = 1.0
"""How old what is known of the levels of loggers may be: to look at 1,000 loggers takes 50 us, which no call should."""


def record_of(frame: wire.Frame) -> logging.LogRecord:
    """Return the log record that a frame carries."""
    return logging.makeLogRecord(pickle.loads(frame.rest))


def handle(record: logging.LogRecord) -> None:
    """Let the logger of the same name handle a record, if its level is enabled here."""
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)


def in_context(context: Context, listener: LogListener) -> LogListener:
    """Return a listener that hears records in these context variables: filters and formatters may ask for them."""
    return lambda record: context.run(listener, record)


class Levels:
    """The levels of this process's loggers, so that children send what would be handled here and nothing else."""

    def __init__(self, time: Callable[[], float]) -> None:
        self._time = time
        self._until = time()
        self._known: dict[str, int] | None = None

    def now(self) -> dict[str, int]:
        """Return the levels by logger, the root as ""; the same object as long as none has changed."""
        if self._known is None or self._time() >= self._until:
            found = _levels()
            if found != self._known:
                self._known = found
            self._until = self._time() + LEVELS_SECONDS
        return self._known


def _levels() -> dict[str, int]:
    loggers = logging.root.manager.loggerDict.copy()
    found = {name: logger.level for name, logger in loggers.items() if isinstance(logger, logging.Logger)}
    return {"": logging.root.level, **{name: level for name, level in found.items() if level}}
