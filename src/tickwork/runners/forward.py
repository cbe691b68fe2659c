"""The child's side of logging: what a job logs is handled in the parent, by the logger of the same name.

Loaded in a child when something there has imported `logging`, and only then: a function that logs nothing pays nothing.

The handler hangs on a logger of its own above the root. There it hears every record that reaches the root, and takes
up no place: `logging.basicConfig(level=...)` finds a root without handlers and does what it always does, whenever it is
called. As soon as the root has a handler, the user's own configuration is in force, and nothing is sent to the parent.
Only `basicConfig()` without options does nothing: `logging.warning` and its like call it for a root without handlers.
"""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any

from . import child

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_DEPTH = 5
"""How deep values of records may be nested to be sent as they are: deeper than people log, and an end for a list that
holds itself."""

_PLAIN = frozenset((type(None), bool, int, float, complex, str, bytes))
_NAMES = frozenset(("datetime.datetime", "datetime.date", "datetime.time", "datetime.timedelta", "decimal.Decimal"))
_NAMES |= frozenset(("uuid.UUID", "pathlib.PosixPath", "pathlib.WindowsPath", "pathlib._local.PosixPath"))

_formatter = logging.Formatter()
_levels: Mapping[str, int] = {}
"""The levels of the parent that were set here last, by logger; "" is the root."""


class _Forward(logging.Handler):
    """Sends records to the parent while a call is under way; else they go to stderr, as logging does itself."""

    def emit(self, record: logging.LogRecord) -> None:
        if logging.root.handlers:
            return  # what the user has set up here has handled it
        try:
            if child.is_in_call():
                child.send_record(_state(record))
                return
        except OSError:
            return  # the parent is gone: so is this process, in a moment
        except Exception:
            self.handleError(record)
            return
        last = logging.lastResort
        if last is not None and record.levelno >= last.level:
            last.handle(record)


def install() -> None:
    """Begin to forward."""
    above = logging.Logger("the parent process")
    above.addHandler(_Forward())
    logging.root.parent = above
    set_up = logging.basicConfig

    @functools.wraps(set_up)
    def set_up_if_meant(**options: Any) -> None:
        if options:
            set_up(**options)

    logging.basicConfig = set_up_if_meant


def set_levels(levels: Mapping[str, int]) -> None:
    """Give loggers the levels of the parent, where those have changed; not where the user has set up logging."""
    global _levels
    if logging.root.handlers:
        return
    before, _levels = _levels, levels
    for name in {**before, **levels}:
        if before.get(name) != levels.get(name):
            logging.getLogger(name or None).setLevel(levels.get(name, logging.NOTSET))


def _state(record: logging.LogRecord) -> dict[str, Any]:
    """Return what makes the record anew in the parent, of plain values only: nothing there can fail to unpickle."""
    state = dict(vars(record))
    args = state["args"]
    if (args and not _is_plain(args)) or type(state["msg"]) is not str:
        state["msg"], state["args"] = record.getMessage(), None
    if record.exc_info and not record.exc_text:
        state["exc_text"] = _formatter.formatException(record.exc_info)
    state["exc_info"] = None
    if state["processName"] == "MainProcess":
        state["processName"] = "tickwork-process"  # else the parent's lines and those of its children look alike
    for name, value in state.items():
        if not _is_plain(value):
            state[name] = str(value)
    return state


def _is_plain(value: Any, depth: int = 0) -> bool:
    kind = type(value)
    if kind in _PLAIN:
        return True
    if depth > MAX_DEPTH:
        return False
    if kind in (tuple, list, set, frozenset):
        return all(_is_plain(entry, depth + 1) for entry in value)
    if kind is dict:
        return all(_is_plain(key, depth + 1) and _is_plain(entry, depth + 1) for key, entry in value.items())
    if f"{kind.__module__}.{kind.__qualname__}" not in _NAMES:
        return False
    zone = getattr(value, "tzinfo", None)
    return zone is None or type(zone).__module__ in ("datetime", "zoneinfo")
