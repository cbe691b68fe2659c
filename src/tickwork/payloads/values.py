"""The plans of single values: what JSON has itself, standard types with an exact text, enums, literals, models."""

from __future__ import annotations

import binascii
import functools
import math
import operator
import re
import sys
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

from .plan import Misfit, Plan, brief, class_name, dump, expected

if TYPE_CHECKING:
    import enum
    from collections.abc import Callable, Iterable

    from .plan import Way

# What JSON has itself.


def plain(cls: type, name: str) -> Plan:
    """Return the plan of a type whose values are their own JSON data."""

    def check(value: Any, _depth: int) -> Any:
        if not isinstance(value, cls):
            raise expected(name, value)
        return value

    return Plan(name, check, check, cls, is_text=cls is str, is_plain=True)


def _encode_float(value: Any, _depth: int) -> Any:
    if not isinstance(value, (float, int)):  # an int where a float is asked for stays an int
        raise expected("float", value)
    return value if isinstance(value, int) or math.isfinite(value) else str(float(value))


def _decode_float(raw: Any, _depth: int) -> Any:
    if raw in ("nan", "inf", "-inf"):
        return float(raw)
    if not isinstance(raw, (float, int)):
        raise expected("float", raw)
    return raw


PLAIN: dict[Any, Plan] = {
    type(None): plain(type(None), "None"),
    bool: plain(bool, "bool"),
    int: plain(int, "int"),
    str: plain(str, "str"),
    float: Plan("float", _encode_float, _decode_float, float),
}


# Standard types with an exact text.


def _moment(cls: Any) -> tuple[str, Callable[[Any], str], Callable[[str], Any]]:
    """A datetime or a time: its ISO text, and in brackets the key of its ZoneInfo."""

    def write(value: Any) -> str:
        zone = value.tzinfo
        key = zone.key if type(zone).__name__ == "ZoneInfo" else None
        return f"{cls.isoformat(value)}[{key}]" if key else str(cls.isoformat(value))

    def read(text: str) -> Any:
        if not text.endswith("]"):
            return cls.fromisoformat(text)
        from zoneinfo import ZoneInfo

        stamp, _, key = text[:-1].partition("[")
        moment, zone = cls.fromisoformat(stamp), ZoneInfo(key)
        # The wall clock first: a time in a gap is kept. Where the zone's rules have changed, the instant counts.
        for fold in (0, 1):
            local = moment.replace(tzinfo=zone, fold=fold)
            if moment.tzinfo is None or local.utcoffset() == moment.utcoffset():
                return local
        return moment.astimezone(zone)

    return "datetime", write, read


def _write_date(value: date) -> str:
    if isinstance(value, datetime):
        raise expected("date", value)
    return date.isoformat(value)


def _read_timedelta(text: str) -> timedelta:
    parts = re.fullmatch(r"P(-?\d+)DT(\d+)\.(\d{6})S", text)
    if parts is None:
        raise ValueError(text)
    return timedelta(*map(int, parts.groups()))


def _write_zone(value: Any) -> str:
    if not value.key:
        raise Misfit("a ZoneInfo without a key cannot travel; make it with ZoneInfo(key)")
    return str(value.key)


# Name of the class: its module, how to write it, how to read it (None: the class does). No other text names a class.
_TEXTS: dict[str, tuple[str, Callable[[Any], str], Callable[[str], Any] | None]] = {
    "datetime": _moment(datetime),
    "time": _moment(time),
    "date": ("datetime", _write_date, date.fromisoformat),
    "timedelta": (
        "datetime",
        lambda value: f"P{value.days}DT{value.seconds}.{value.microseconds:06}S",
        _read_timedelta,
    ),
    "bytes": (
        "builtins",
        lambda value: binascii.b2a_base64(value, newline=False).decode(),
        lambda text: binascii.a2b_base64(text, strict_mode=True),
    ),
    "Decimal": ("decimal", str, None),
    "UUID": ("uuid", str, None),
    "Path": ("pathlib", str, None),
    "ZoneInfo": ("zoneinfo", _write_zone, None),
}


@functools.lru_cache(maxsize=64)
def text(name: str) -> Plan | None:
    """Return the plan of a standard type by the name of its class."""
    if name not in _TEXTS:
        return None
    from importlib import import_module

    module, write, own_read = _TEXTS[name]
    cls = getattr(import_module(module), name)
    read = own_read or cls

    def encode(value: Any, _depth: int) -> Any:
        if not isinstance(value, cls):
            raise expected(name, value)
        return write(value)

    def decode(raw: Any, _depth: int) -> Any:
        if type(raw) is not str:
            raise expected(name, raw)
        try:
            return read(raw)
        except Exception:  # ValueError, ArithmeticError, LookupError, OSError: each type has its own
            raise expected(name, raw) from None

    return Plan(name, encode, decode, type(cls()) if name == "Path" else cls, is_text=True)


def well_known(cls: type) -> Plan | None:
    """Return the plan of a class if it is one of the standard types with a text."""
    plan = text("Path" if cls.__name__ in ("PosixPath", "WindowsPath") else cls.__name__)
    return plan if plan and plan.cls and issubclass(plan.cls, cls) else None


# Enums and literals.


def _exactly(cls: type, write: Callable[[Any], Any]) -> Way:
    """A subclass would come back as another value."""
    name = class_name(cls)

    def encode(value: Any, _depth: int) -> Any:
        if type(value) is not cls:
            raise expected(name, value)
        return write(value)

    return encode


def members(cls: type[enum.Enum]) -> Plan:
    """Return the plan of an enum."""
    name, found = class_name(cls), cls.__members__
    by_value = all(type(member._value_) in (str, int) for member in found.values())
    write = operator.attrgetter("_value_" if by_value else "_name_")
    read: Callable[[Any], Any] = cls if by_value else cls.__getitem__
    raws = [write(member) for member in found.values()]

    def decode(raw: Any, _depth: int) -> Any:
        try:
            return read(raw)
        except Exception:  # an enum may have its own way to look up a value
            raise expected(f"{name} ({', '.join(map(brief, raws))})", raw) from None

    is_text = all(type(raw) is str for raw in raws)
    return Plan(name, _exactly(cls, write), decode, cls, is_text=is_text, detail=f"{name}: {raws}")


def literal(choices: tuple[Any, ...]) -> Plan:
    """Return the plan of `Literal[...]`; of its members only those that JSON has itself."""
    name = f"Literal[{', '.join(map(brief, choices))}]"
    if not all(type(one) in PLAIN for one in choices):
        return unsupported(name, "name the Enum itself, or use text")

    def check(value: Any, _depth: int) -> Any:
        if not any(type(one) is type(value) and one == value for one in choices):
            raise expected(name, value)
        return value

    return Plan(name, check, check, is_text=all(type(one) is str for one in choices))


# Models of other libraries, which travel by their own rules, and what cannot travel.


def model(cls: Any, write: Callable[[Any], Any], read: Callable[[Any], Any], fields: Iterable[str]) -> Plan:
    """Return the plan of a class of which its library knows how it travels."""
    name = class_name(cls)
    return Plan(name, _exactly(cls, write), lambda raw, _depth: read(raw), cls, detail=f"{name}: {sorted(fields)}")


def pydantic(cls: Any) -> Plan:
    """Return the plan of a pydantic model, by alias."""
    write = functools.partial(cls.model_dump, mode="json", by_alias=True, round_trip=True)
    # Read as text, because pydantic's rules for JSON read dates and sets in strict models too.
    return model(cls, write, lambda raw: cls.model_validate_json(dump(raw)), cls.model_fields)


def msgspec(cls: Any) -> Plan:
    """Return the plan of a msgspec Struct."""
    library: Any = sys.modules["msgspec"]  # a Struct class exists, so it is imported
    write = functools.partial(library.to_builtins, str_keys=True)
    return model(cls, write, lambda raw: library.convert(raw, cls, str_keys=True), cls.__struct_fields__)


CARRY = "make it a dataclass, NamedTuple, TypedDict or Enum, or pass an id and load it in the task"


def unsupported(name: str, remedy: str = CARRY) -> Plan:
    """Return the plan of a hint that JSON cannot carry: every value is refused, and a default can still be used."""

    def refuse(_value: Any, _depth: int) -> Any:
        raise Misfit(f"JSON cannot carry its hint {name}; {remedy}")

    return Plan(name, refuse, refuse)
