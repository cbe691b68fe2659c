"""Exceptions as text, for a store and for people."""

from __future__ import annotations

import dataclasses
import traceback
from typing import TYPE_CHECKING, TypeVar

from .codec import Codec
from .secrets import without

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["ErrorInfo", "describe_exception", "first_line", "type_and_message"]

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True, slots=True)
class ErrorInfo:
    """An exception as text, for a store and for people; every text can be written as UTF-8.

    Attributes:
        type: The qualified name of the class, without "builtins.".
        message: What `str(error)` gave, or what kept it from giving anything.
        notes: The texts of `add_note`, in order.
        traceback: The formatted traceback with its causes; what is too long lacks its middle.
    """

    type: str
    message: str
    notes: tuple[str, ...] = ()
    traceback: str = ""

    @property
    def headline(self) -> str:
        """Type and message in one line."""
        return f"{self.type}: {first_line(self.message)}" if self.message else self.type

    def without(self, values: Iterable[str]) -> ErrorInfo:
        """Return it with these texts hidden, wherever they stand."""
        secrets = list(values)
        if not secrets:
            return self
        return ErrorInfo(
            self.type,
            without(self.message, secrets),
            tuple(without(note, secrets) for note in self.notes),
            without(self.traceback, secrets),
        )

    def to_json(self) -> str:
        """Return the four texts as a JSON object."""
        return _CODEC.encode_result(self)

    @classmethod
    def from_json(cls, text: str) -> ErrorInfo:
        """Return what `to_json` wrote.

        Raises:
            InvalidPayload: The text is something else.
        """
        info: ErrorInfo = _CODEC.decode_result(text)
        return info


def describe_exception(exc: BaseException, *, limit: int = 64_000) -> ErrorInfo:
    """Return the exception as text; never raises, whatever the exception's own methods do.

    Reads the source files in the traceback, as every formatted traceback does.

    Args:
        exc: Any exception.
        limit: The most characters for the traceback, and for the message and the notes together (the first
            eight) an eighth of it each; at least 1,000. What is longer loses its middle.
    """
    limit = max(limit, 1_000)
    part = limit // 8
    return ErrorInfo(
        *type_and_message(exc, limit=part),
        _guarded(lambda: tuple(_text(note, part // 8) for note in getattr(exc, "__notes__", ())[:8]), ()),
        _cut(_guarded(lambda: "".join(traceback.format_exception(exc)), ""), limit),
    )


def type_and_message(exc: BaseException, *, limit: int = 8_000) -> tuple[str, str]:
    """Return the first two texts of `describe_exception`, which cost much less than the traceback."""
    return _cut(_guarded(lambda: _qualified(type(exc)), "Exception"), limit), _text(exc, limit)


def first_line(text: str) -> str:
    """Return the first line of a text, with a mark where there are more."""
    lines = text.splitlines() or [""]
    return lines[0] + (" ..." if len(lines) > 1 else "")


_CODEC = Codec(describe_exception, name="describe_exception")


def _guarded(read: Callable[[], _T], fallback: _T) -> _T:
    try:
        return read()
    except BaseException:  # an exception's own __str__ may raise anything; the traceback module does the same
        return fallback


def _qualified(cls: type) -> str:
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def _text(value: object, limit: int) -> str:
    return _cut(_guarded(lambda: str(value), "<its str() failed>"), limit)


def _cut(text: str, limit: int) -> str:
    """Return at most `limit` characters that UTF-8 can write; what is too long loses its middle."""
    if len(text) > limit:
        mark = f"\n... {len(text) - limit} characters left out ...\n"
        half = (limit - len(mark)) // 2
        text = text[:half] + mark + text[-half:]
    return text.encode("utf-8", "backslashreplace").decode()
