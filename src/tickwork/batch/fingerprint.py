"""What tells one item of a batch from another, in any process and on any day: 16 bytes.

Each value is written as a tag for its type, the length of what follows, and that: so no two values are written alike.
What has no order of its own (dictionaries, sets) is sorted as it is written. Equal means: of the same type and the same
value. 1, 1.0 and True differ, and so do Decimal("1.0") and Decimal("1.00"); a class is known by its qualified name, so
that a module may move, or be run as a script.
"""

from __future__ import annotations

import dataclasses
import enum
import sys
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from hashlib import blake2b
from operator import itemgetter
from pathlib import PurePath
from struct import pack
from typing import TYPE_CHECKING, Any
from uuid import UUID

from ..errors import InvalidPayload
from ..payloads.plan import Misfit, as_misfit, class_name, each, each_field

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["fingerprint", "fingerprints"]

SIZE = 16
"""Bytes: among a billion items two are alike by chance once in 10^20 batches."""

_EMPTY = blake2b(digest_size=SIZE)

Write = Callable[[Any, int], bytes]
"""From a value and its depth to bytes that no other value has."""


def fingerprint(item: object, *, where: str = "item") -> bytes:
    """Return 16 bytes that are the same for equal items, in every process and run, and differ for all others.

    Take it before a function is given the item, which may change it.

    Args:
        item: None, bool, int, float, str, bytes, Decimal, UUID, date, time, datetime, timedelta, path, enum; tuple,
            list, dict, set, frozenset, named tuple, dataclass, pydantic or msgspec model of these. Of a dataclass what
            it compares counts.
        where: What messages call the item.

    Raises:
        InvalidPayload: Something else, or containers too deep; the message says where it is.
    """
    digest = _EMPTY.copy()  # half the price of a new one
    cls: Any = type(item)
    try:
        digest.update((_WRITERS.get(cls) or _writer_of(cls))(item, 0))
    except Exception as error:  # classes of other people may raise anything when they are looked at
        misfit = as_misfit(error)
        raise InvalidPayload(f"{where}{misfit.where}", misfit.reason) from misfit.__cause__
    return digest.digest()


def fingerprints(items: Sequence[object], start: int = 0) -> list[bytes]:
    """Return the fingerprint of each item.

    Args:
        items: The items.
        start: The index of the first one, for messages.

    Raises:
        InvalidPayload: One cannot be told from another; the message has its index.
    """
    found: list[bytes] = []
    try:
        for item in items:
            found.append(fingerprint(item))  # noqa: PERF401  # its length tells which one was refused
    except InvalidPayload:
        fingerprint(items[len(found)], where=f"item {start + len(found)}")
        raise
    return found


def _written(value: Any, depth: int) -> bytes:
    cls: Any = type(value)
    return (_WRITERS.get(cls) or _writer_of(cls))(value, depth)


def _parts(tag: bytes, parts: Iterable[bytes]) -> bytes:
    return tag + b"".join([b"%x:%b" % (len(part), part) for part in parts])


def _dict(value: dict[Any, Any], depth: int) -> bytes:
    keys = each(value, _written, depth + 1)
    held = each(value.values(), _written, depth + 1, value)
    return _parts(b"d", sorted(map(_pair, keys, held)))


def _pair(key: bytes, value: bytes) -> bytes:
    return b"%x:%b%b" % (len(key), key, value)


def _text(value: str) -> bytes:
    return value.encode("utf-8", "surrogatepass")


def _moment(tag: bytes) -> Write:
    def write(value: Any, _depth: int) -> bytes:
        key = getattr(value.tzinfo, "key", None) or ""  # of other zones than ZoneInfo the offset is all that counts
        return _parts(tag, (value.isoformat().encode(), _text(str(key))))

    return write


def _path(value: PurePath, _depth: int) -> bytes:
    return b"p" + _text(str(value))


_WRITERS: dict[type, Write] = {
    type(None): lambda _value, _depth: b"n",
    bool: lambda value, _depth: b"b%d" % value,
    int: lambda value, _depth: b"i%x" % value,  # to base 16: an int has 4,300 decimal digits at the most
    float: lambda value, _depth: b"fnan" if value != value else b"f" + pack(">d", value),
    complex: lambda value, _depth: b"c" + pack(">dd", value.real, value.imag),
    str: lambda value, _depth: b"s" + value.encode("utf-8", "surrogatepass"),
    bytes: lambda value, _depth: b"y" + value,
    bytearray: lambda value, _depth: b"Y" + value,
    tuple: lambda value, depth: _parts(b"t", each(value, _written, depth + 1)),
    list: lambda value, depth: _parts(b"l", each(value, _written, depth + 1)),
    set: lambda value, depth: _parts(b"S", sorted(each(value, _written, depth + 1))),
    frozenset: lambda value, depth: _parts(b"F", sorted(each(value, _written, depth + 1))),
    dict: _dict,
    Decimal: lambda value, _depth: b"D" + str(value).encode(),
    UUID: lambda value, _depth: b"U" + value.bytes,
    datetime: _moment(b"m"),
    time: _moment(b"T"),
    date: lambda value, _depth: b"a" + value.isoformat().encode(),
    timedelta: lambda value, _depth: b"e%d,%d,%d" % (value.days, value.seconds, value.microseconds),
}


@lru_cache(maxsize=256)
def _writer_of(cls: type) -> Write:
    """Return how values of a class are written that is no standard type itself."""
    if issubclass(cls, enum.Flag):  # which may be several members at once, and has no name then
        return _named(cls, lambda value, depth: _written(value.value, depth))
    if issubclass(cls, enum.Enum):
        return _named(cls, lambda value, _depth: _text(value.name))
    if issubclass(cls, PurePath):
        return _path
    if dataclasses.is_dataclass(cls):
        return _fields(cls, [entry.name for entry in dataclasses.fields(cls) if entry.compare])
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return _fields(cls, cls._fields)
    if hasattr(cls, "__struct_fields__") and "msgspec" in sys.modules:
        return _fields(cls, cls.__struct_fields__)
    if hasattr(cls, "model_validate_json") and hasattr(cls, "model_dump"):
        return _named(cls, _pydantic)
    for base in cls.__mro__[1:]:  # a number of numpy, a text or list with methods
        if base in _WRITERS:
            return _named(cls, _WRITERS[base])
    raise Misfit(
        f"a checkpoint cannot tell one {class_name(cls)} from another; pass plain values, a dataclass, NamedTuple or "
        "Enum, or an id that the function looks up, or leave out checkpoint="
    )


def _named(cls: type, write: Write) -> Write:
    """Tell apart what is written alike by the class."""
    name = _text(class_name(cls))
    return lambda value, depth: _parts(b"o", (name, write(value, depth)))


def _fields(cls: type, names: Iterable[str]) -> Write:
    ways = [(name, _written) for name in names]

    def write(value: Any, depth: int) -> bytes:
        held = each_field({name: getattr(value, name) for name, _ in ways}, ways, depth + 1, ".{}")
        return _parts(b"", map(_pair, map(_text, held), held.values()))

    return _named(cls, write)


def _pydantic(value: Any, depth: int) -> bytes:
    held = dict(sorted(value, key=itemgetter(0)))  # with what it was given besides its fields
    ways = [(name, _written) for name in held]
    return _parts(b"", map(_pair, map(_text, held), each_field(held, ways, depth + 1, ".{}").values()))
