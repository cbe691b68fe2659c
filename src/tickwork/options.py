"""Checks of options that several parts share: each returns the value or raises `InvalidOption`."""

from __future__ import annotations

from concurrent.futures import Executor
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


def priority(option: str, value: object) -> int:
    """Return a whole number that every store can keep: 32 bits are what PostgreSQL's `integer` has."""
    number = whole(option, value)
    if not -(2**31) <= number < 2**31:
        raise InvalidOption(option, "a whole number from -2,147,483,648 to 2,147,483,647", value)
    return number


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


def as_executor(option: str, value: Any) -> Executor | None:
    """Return an executor, or None where none is given."""
    if value is None or isinstance(value, Executor):
        return value
    remedy = "use client.get_executor()" if hasattr(value, "get_executor") else ""
    raise InvalidOption(option, "a concurrent.futures.Executor", value, remedy=remedy)
