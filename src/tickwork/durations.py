"""Read and write durations: "30s", "1h30m", seconds, timedelta.

Texts are read exactly, by whole numbers of microseconds and never through a float, so that "0.1s" as a
period is 100,000 microseconds and stays on its grid for ever.
"""

from __future__ import annotations

import re
from datetime import timedelta

from .errors import InvalidDuration, nearest

__all__ = ["format_microseconds", "format_seconds", "microseconds", "seconds"]

_UNITS = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
}
_LONG = {
    "us": ("\u00b5s", "\u03bcs", "usec", "usecs", "microsecond", "microseconds"),
    "ms": ("msec", "msecs", "millisecond", "milliseconds"),
    "s": ("sec", "secs", "second", "seconds"),
    "m": ("min", "mins", "minute", "minutes"),
    "h": ("hr", "hrs", "hour", "hours"),
    "d": ("day", "days"),
    "w": ("week", "weeks"),
}
_NAMES = {name: unit for unit, names in _LONG.items() for name in (unit, *names)}
_BARE = {"second": "s", "minute": "m", "hour": "h"}
_NO_LENGTH = {
    "month": "a month has no fixed length; use a cron expression",
    "year": "a year has no fixed length; use a cron expression",
}
_MICROSECOND = timedelta(microseconds=1)

# A century: any date of today plus a duration is then still a date (datetime ends in the year 9999), and
# a value in the wrong unit (nanoseconds, say) is found at once.
_MAX = 36_525 * _UNITS["d"]
_MAX_TEXT = 100  # characters; the longest sensible text has about 40

_PART = r"\s*([0-9]+)(?:\.([0-9]+))?\s*([a-z\u00b5\u03bc]+)"


def seconds(
    value: object,
    option: str = "duration",
    *,
    minimum: float = 0.0,
    allow_zero: bool = False,
) -> float:
    """Return a duration in seconds.

    Args:
        value: A text of numbers with units ("30s", "1h30m", "1.5h", "500ms", "2d", "1w"; a bare "second",
            "minute" or "hour" counts as one), a number of seconds, or a timedelta. At most 36,525 days.
        option: The name of the option, for the error.
        minimum: The smallest value allowed, in seconds.
        allow_zero: Whether 0 is allowed.

    Raises:
        InvalidDuration: The value is of another type (bool too), not finite, negative, zero where that is
            not allowed, out of range, or holds an unknown unit.
    """
    exact = value if isinstance(value, (int, float)) else None  # a float stays as given: no rounding
    micro = _read(value, option)
    result = float(exact) if exact is not None else micro / 1_000_000
    if result == 0 and not allow_zero:
        raise InvalidDuration(option, value, "it must be more than zero")
    if result < minimum and not (result == 0 and allow_zero):
        raise InvalidDuration(option, value, f"the smallest value is {format_seconds(minimum)}")
    return result


def microseconds(
    value: object,
    option: str = "duration",
    *,
    minimum: int = 1,
) -> int:
    """Return a duration in whole microseconds, exactly: for periods.

    Args:
        value: As for `seconds`. A float is rounded to the nearest microsecond.
        option: The name of the option, for the error.
        minimum: The smallest value allowed, in microseconds.

    Raises:
        InvalidDuration: As for `seconds`; also a text that is not a whole number of microseconds.
    """
    result = _read(value, option)
    if result < minimum:
        raise InvalidDuration(option, value, f"the smallest value is {format_microseconds(minimum)}")
    return result


def format_seconds(value: float) -> str:
    """Return a duration in seconds as a person would write it: "1h30m", "0.25s", "12ms".

    From one second on it is rounded to whole milliseconds. The text of a value that needs no rounding is
    read back as the same value.
    """
    if value < 0:
        return "-" + format_seconds(-value)
    if value != value or value in (float("inf"),):
        return str(value)
    micro = round(value * 1_000_000)
    return format_microseconds(micro if micro < 1_000_000 else round(micro, -3))


def format_about(value: float) -> str:
    """Return a duration in seconds as a person would tell it.

    To the second from a minute on, else to the millisecond, and below one to the microsecond.
    """
    return format_seconds(round(value, 0 if value >= 60 else 3 if value >= 0.001 else 6))


def format_microseconds(micro: int) -> str:
    """Return whole microseconds as a text that `microseconds` reads back as the same number."""
    if micro == 0:
        return "0s"
    if micro < 1_000:
        return f"{micro}us"
    if micro < 100_000:
        return f"{_decimal(micro, 1_000)}ms"
    text = ""
    for unit in ("d", "h", "m"):
        count, micro = divmod(micro, _UNITS[unit])
        if count:
            text += f"{count}{unit}"
    return text + (f"{_decimal(micro, 1_000_000)}s" if micro else "")


def _decimal(micro: int, scale: int) -> str:
    whole, rest = divmod(micro, scale)
    if not rest:
        return str(whole)
    return f"{whole}.{rest:0{len(str(scale)) - 1}d}".rstrip("0")


def _read(value: object, option: str) -> int:
    """Return microseconds, at least 0 and at most `_MAX`."""
    if isinstance(value, str):
        micro = _read_text(value, option)
    elif isinstance(value, timedelta):
        micro = value // _MICROSECOND
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        if value != value or value in (float("inf"), float("-inf")):
            raise InvalidDuration(option, value, "it must be finite")
        micro = round(value * 1_000_000) if abs(value) <= _MAX else _MAX + 1 if value > 0 else -1
        if value < 0:
            micro = -1
    else:
        raise InvalidDuration(option, value, f"{type(value).__name__} is no duration")
    if micro < 0:
        raise InvalidDuration(option, value, "it must not be negative")
    if micro > _MAX:
        raise InvalidDuration(option, value, "the largest value is 36525d")
    return micro


def _read_text(value: str, option: str) -> int:
    text = value.strip().lower()
    if len(text) > _MAX_TEXT:
        raise InvalidDuration(option, value[:40] + "...", f"the text is longer than {_MAX_TEXT} characters")
    if text in _BARE:
        return _UNITS[_BARE[text]]
    _refuse_common_slips(text, value, option)
    part_of = re.compile(_PART)  # kept by `re`; compiled at the first text, which an import need not pay
    total, position, seen = 0, 0, set()
    while position < len(text):
        part = part_of.match(text, position)
        if part is None:
            raise InvalidDuration(option, value, f"cannot read {text[position:]!r}")
        whole, fraction, name = part[1], part[2] or "", part[3]
        unit = _NAMES.get(name) or _unknown_unit(name, value, option)
        if unit in seen:
            raise InvalidDuration(option, value, f"the unit {name!r} is given twice")
        seen.add(unit)
        micro, rest = divmod(int(whole + fraction) * _UNITS[unit], 10 ** len(fraction))
        if rest:
            raise InvalidDuration(option, value, "it is not a whole number of microseconds")
        total += micro
        position = part.end()
    return total


def _refuse_common_slips(text: str, value: str, option: str) -> None:
    if not text:
        raise InvalidDuration(option, value, "it is empty")
    if text.startswith("-"):
        raise InvalidDuration(option, value, "it must not be negative")
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        raise InvalidDuration(option, value, f"it has no unit; write {text + 's'!r} for seconds")
    if text in ("day", "week"):
        raise InvalidDuration(option, value, f'write "1{text[0]}" for that much elapsed time')
    if text.rstrip("s") in _NO_LENGTH:
        raise InvalidDuration(option, value, _NO_LENGTH[text.rstrip("s")])


def _unknown_unit(name: str, value: str, option: str) -> str:
    if name.rstrip("s") in _NO_LENGTH:
        raise InvalidDuration(option, value, _NO_LENGTH[name.rstrip("s")])
    near = nearest(name, list(_NAMES))
    hint = f"did you mean {near!r}?" if near else f"known: {', '.join(_UNITS)}"
    raise InvalidDuration(option, value, f"unknown unit {name!r}; {hint}")
