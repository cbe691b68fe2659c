"""What a plan is, and what all plans share: the refusal that knows its path, walks through containers, JSON text."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_DEPTH = 100
"""Containers within containers: beyond any sensible argument, below Python's recursion limit of 1,000."""

DEEP = f"nested deeper than {MAX_DEPTH} levels, or holding itself; pass an id or a flat list"
TAG, VALUE = "$", "v"
HIDDEN = "***"
"""What people see of a secret."""

Way = Callable[[Any, int], Any]
"""From a value and its depth to JSON data, or back."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """How the values of one hint travel.

    Attributes:
        name: The hint as messages show it; the tag where it is wrapped.
        encode: Value and depth to JSON data.
        decode: JSON data and depth to value.
        cls: The exact type of its values, where there is one: a union looks here first.
        is_text: Whether all its JSON data is text, as the keys of an object are.
        is_plain: Whether every value of exactly `cls` is its own JSON data.
        detail: What else a fingerprint counts: the fields or members of a class.
        hide: JSON data and depth to what people may see of it; None: all of it.
    """

    name: str
    encode: Way
    decode: Way
    cls: type | None = None
    is_text: bool = False
    is_plain: bool = False
    detail: str = ""
    hide: Way | None = None


class Misfit(Exception):
    """A value that a plan refuses; the path to it grows on the way out."""

    def __init__(self, reason: str, *path: str) -> None:
        self.reason: str = reason
        self.path: list[str] = list(path)  # from the value outwards

    @property
    def where(self) -> str:
        """The path from the argument to the value; what is too long lacks its middle."""
        path = self.path[::-1]
        return "".join(path if len(path) <= 9 else [*path[:5], "...", *path[-2:]])


def expected(name: str, value: Any) -> Misfit:
    """Return the refusal of a value of another type."""
    shown = f" {brief(value)}" if type(value) in _SHOWN else ""
    return Misfit(f"expected {name}, got {'None' if value is None else class_name(type(value)) + shown}")


# Types whose repr says something short and holds no address.
_SHOWN = frozenset({bool, int, float, str, bytes, date, datetime, time, timedelta})


def as_misfit(error: Exception) -> Misfit:
    """Return any error as a refusal: constructors, models and time zones of other people may raise anything."""
    if isinstance(error, Misfit):
        return error
    text = " ".join(str(error).split())
    misfit = Misfit(DEEP if isinstance(error, RecursionError) else f"{type(error).__name__}: {text[:200]}")
    misfit.__cause__ = error
    return misfit


def _raise_within(step: str, error: Exception) -> NoReturn:
    misfit = as_misfit(error)
    misfit.path.append(step)
    raise misfit


def each(values: Iterable[Any], way: Way, depth: int, keys: Iterable[Any] | None = None) -> list[Any]:
    """Take each value its way; a path shows its key, or else its index."""
    if depth > MAX_DEPTH:
        raise Misfit(DEEP)
    out: list[Any] = []
    try:
        for value in values:
            out.append(way(value, depth))  # noqa: PERF401 - its length tells which one was refused
    except Exception as error:
        _raise_within(f"[{len(out) if keys is None else brief(list(keys)[len(out)])}]", error)
    return out


def each_field(values: dict[str, Any], ways: Iterable[tuple[str, Way]], depth: int, step: str) -> dict[str, Any]:
    """Take each known name that is there its own way; `step` is how a path shows a name."""
    if depth > MAX_DEPTH:
        raise Misfit(DEEP)
    out: dict[str, Any] = {}
    name = ""
    try:
        for name, way in ways:
            if name in values:
                out[name] = way(values[name], depth)
    except Exception as error:
        _raise_within(step.format(name), error)
    return out


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False)


def _parts() -> Callable[[Any, int], Iterable[str]]:
    """Return what writes JSON in parts. The encoder makes one for each text, which takes longer than a short text."""
    try:
        return json.encoder.c_make_encoder(  # type: ignore[attr-defined, no-any-return]
            None, _ENCODER.default, json.encoder.encode_basestring, None, ":", ",", False, False, False
        )
    except (AttributeError, TypeError):  # not CPython's
        return lambda data, _: _ENCODER.iterencode(data)


_PARTS = _parts()


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def dump(data: Any, _depth: int = 0) -> str:
    """Return compact JSON text that UTF-8 can write."""
    try:
        text = "".join(_PARTS(data, 0))
        if not text.isascii():
            text.encode()
    except (ValueError, TypeError) as error:  # a lone surrogate, an int of 4,301 digits, a model's nan
        # What follows json's colon differs between versions of Python.
        reason = str(error) if isinstance(error, UnicodeError) else str(error).partition(":")[0]
        raise Misfit(f"JSON cannot write it ({reason}); pass it as bytes or as another text") from error
    return text


def load(text: str) -> Any:
    """Return the data of a JSON text."""
    try:
        data, end = _DECODER.raw_decode(text)
        if end == len(text):
            return data
    except (ValueError, TypeError):
        pass
    try:
        return _DECODER.decode(text)  # which takes blanks around it, and says what else is there
    except (ValueError, TypeError) as error:
        raise Misfit(f"expected JSON text, got none: {error}") from error


def brief(value: Any) -> str:
    """Return a repr of at most 60 characters, of any object."""
    try:
        text = repr(value)
    except Exception:  # an object's own repr may raise anything, and an int of 4,301 digits refuses
        text = "..."
    return text if len(text) <= 60 else f"{text[:57]}..."


def class_name(cls: type) -> str:
    """Return the name that the source of the class shows."""
    return cls.__qualname__.rpartition("<locals>.")[2]
