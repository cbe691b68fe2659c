"""Checks of options that several parts share: each returns the value or raises `InvalidOption`."""

from __future__ import annotations

from typing import Any

from .errors import InvalidOption


def positive(option: str, value: object) -> int:
    """Return a count of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidOption(option, "a whole number of at least 1", value)
    return value


def whole(option: str, value: object) -> int:
    """Return a whole number."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidOption(option, "a whole number", value)
    return value


def text(option: str, value: object) -> str:
    """Return a printable text that is not blank."""
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise InvalidOption(option, "a printable, non-empty text", value)
    return value


def one_of(option: str, value: Any, allowed: tuple[Any, ...]) -> Any:
    """Return one of the allowed values."""
    if value not in allowed:
        raise InvalidOption(option, "one of " + ", ".join(map(repr, allowed)), value)
    return value
