"""A schedule -> the five fields of a crontab line that every cron daemon reads alike, or a refusal with the reason.

What comes out holds numbers, lists, ranges, `*` and `*/n` only. It is read again by tickwork's own parser, and must
mean the same wall times and follow clock changes in the same way. Nothing is approximated.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from ..cron_expression import parse
from ..errors import InvalidCron, UnsupportedSchedule
from ..triggers import At, Cron, Every, Exclusion, Trigger, Union
from ..zones import get_zone

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["cron_fields"]

_NAMES = ("minute", "hour", "day", "month", "weekday")
_LIMITS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_WORDS: tuple[dict[str, int], ...] = (
    {},
    {},
    {},
    {name: number for number, name in enumerate(_MONTHS, 1)},
    {name: number for number, name in enumerate(_WEEKDAYS)},
)
_ITEM = r"([0-9]+|[a-z]+)(?:-([0-9]+|[a-z]+))?(?:/([0-9]+))?"
_STAR = r"\*(?:/([0-9]+))?"
_ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_WHERE = "a crontab"
_MINUTE, _HOUR, _DAY, _WEEK = 60, 3_600, 86_400, 604_800  # seconds
_YEARS_LOOKED_AT = 40  # a zone that has kept to a grid for so long, by its present rules, keeps to it


def cron_fields(schedule: str | Trigger, zone: str | None = None) -> str:
    """Return the five fields for a schedule, with one space between.

    Args:
        schedule: The text of five fields or an alias such as "@daily", read on the wall clock of the machine as cron
            does; or a `Cron` or an `Every`.
        zone: The IANA key of the machine's zone, for triggers; None: unknown.

    Raises:
        InvalidCron: The text is no cron expression.
        UnsupportedSchedule: Daemons would run it at other times than tickwork, or do not know it.
    """
    if isinstance(schedule, Every):
        return _of_every(schedule, zone)
    if isinstance(schedule, Cron):
        _check_cron(schedule, zone)
        return _of_text(schedule.expression, schedule)
    if isinstance(schedule, Trigger):
        raise UnsupportedSchedule(schedule, _WHERE, _why_not(schedule))
    parse(schedule)  # refuses what is no text and no expression, with the field and the reason
    return _of_text(schedule, schedule)


# --- cron text ----------------------------------------------------------------------------------------------------


def _of_text(text: str, given: str | Trigger) -> str:
    lowered = text.strip(" \t\r\n").lower()
    fields = re.split(r"[ \t]+", _ALIASES.get(lowered, lowered))
    result = " ".join(_field(index, field, given) for index, field in enumerate(fields))
    day, weekday = result.split(" ")[2::2]
    if "*" not in (day, weekday) and "*" in day + weekday:
        reason = (
            "with both day fields given and one of them a `*/n`, Vixie cron asks for both and busybox for either;"
            f" write the days of '{day if '*' in day else weekday}' as numbers"
        )
        raise UnsupportedSchedule(given, _WHERE, reason)
    meant, said = parse(text), parse(result)
    if (meant.canonical, meant.is_wildcard) != (said.canonical, said.is_wildcard):
        raise UnsupportedSchedule(given, _WHERE, f"{result!r} would be nearest, and is something else")
    return result


def _field(index: int, text: str, given: str | Trigger) -> str:
    low, high = _LIMITS[index]
    if star := re.fullmatch(_STAR, text):
        step = int(star[1] or 1)
        if step > high - low:
            raise _refused(index, text, given, f"the step is larger than the field; write {low}")
        return "*" if step == 1 else f"*/{step}"
    if text.startswith("*"):
        raise _refused(index, text, given, "write the numbers")
    values: set[int] = set()
    for item in text.split(","):
        values |= _values(index, item, given)
    if index == 4:
        values = {value % 7 for value in values}
    return _show(values)


def _values(index: int, item: str, given: str | Trigger) -> set[int]:
    parts = re.fullmatch(_ITEM, item)
    if parts is None or any(word.isalpha() and word not in _WORDS[index] for word in parts.groups() if word):
        raise _refused(index, item, given, "cron daemons do not know it, or each reads it in its own way")
    low, high = (None if word is None else _number(index, word) for word in parts.groups()[:2])
    assert low is not None
    if high is None:
        if parts[3] is not None:
            remedy = f"{low}-{_LIMITS[index][1] - (index == 4)}/{parts[3]}"
            raise _refused(index, item, given, f"cron daemons differ about it; write {remedy}")
        return {low}
    if low > high:
        end = _LIMITS[index][1] - (index == 4)
        wrapped = {*range(low, end + 1, 1), *range(_LIMITS[index][0], high + 1)}
        remedy = "" if parts[3] else f"; write {_show(wrapped)}"
        raise _refused(index, item, given, "a range that runs backwards never fires under Debian's cron" + remedy)
    return set(range(low, high + 1, int(parts[3] or 1)))


def _number(index: int, word: str) -> int:
    return _WORDS[index][word] if word in _WORDS[index] else int(word)


def _refused(index: int, item: str, given: str | Trigger, reason: str) -> UnsupportedSchedule:
    return UnsupportedSchedule(given, _WHERE, f"{item!r} in the {_NAMES[index]} field: {reason}")


def _show(values: Iterable[int]) -> str:
    """Return numbers as a list, with runs of three and more as ranges."""
    runs: list[list[int]] = []
    for value in sorted(values):
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs)


# --- triggers -----------------------------------------------------------------------------------------------------


def _check_cron(trigger: Cron, zone: str | None) -> None:
    if trigger.is_hashed:
        raise UnsupportedSchedule(trigger, _WHERE, "H is drawn by tickwork; write the number that it stands for")
    try:
        parse(trigger.expression)
    except InvalidCron as error:  # seconds and years, which only `seconds=` admits
        raise UnsupportedSchedule(trigger, _WHERE, "a crontab has five fields, without seconds and years") from error
    wanted = trigger.timezone or "UTC"
    if zone is None or not _is_same_zone(wanted, zone):
        shown = "of which the zone is unknown" if zone is None else f"which is {zone}"
        reason = f"it is meant in {wanted}, and cron follows the clock of the machine, {shown}"
        raise UnsupportedSchedule(trigger, _WHERE, f"{reason}; declare it with that zone, or its app")
    if trigger.dst != "cron" and len(set(_offsets(zone))) > 1:
        raise UnsupportedSchedule(trigger, _WHERE, f'dst="{trigger.dst}" is not what cron does; leave it at "cron"')


def _of_every(trigger: Every, zone: str | None) -> str:
    second = timedelta(seconds=1)
    period, rest = divmod(timedelta(seconds=trigger.period_seconds), second)
    first = trigger.next(datetime(1970, 1, 1, tzinfo=UTC) - timedelta(microseconds=1))
    assert first is not None
    start = first - datetime(1970, 1, 1, tzinfo=UTC)  # where the grid lies, less than a period
    if rest or period % _MINUTE or start % timedelta(minutes=1):
        raise UnsupportedSchedule(trigger, _WHERE, "cron starts jobs on whole minutes only")
    begin = int(start / second)
    if zone is None:
        raise UnsupportedSchedule(trigger, _WHERE, "the zone of the machine is unknown; write cron text instead")
    offsets = {offset % period for offset in _offsets(zone)}
    is_whole = _HOUR % period == 0 or _DAY % period == 0 or period == _WEEK
    if not is_whole or len(offsets) > 1:
        reason = _uneven(zone) if is_whole else "no hour, day or week holds a whole number of it"
        raise UnsupportedSchedule(
            trigger, _WHERE, f"{reason}; write cron text for a time of day, or let the app run it"
        )
    begin = (begin + offsets.pop()) % period
    return _grid(trigger, period, begin)


def _uneven(zone: str) -> str:
    return f"elapsed time moves along the wall clock when clocks change, as they do in {zone}"


def _grid(trigger: Every, period: int, begin: int) -> str:
    """Return the fields of a grid of wall time: `begin` seconds after midnight (of Thursday), each `period` seconds."""
    if _HOUR % period == 0:
        minutes = range(begin // _MINUTE, 60, period // _MINUTE)
        return f"{_progression(minutes, 60)} * * * *"
    minute, hour = begin % _HOUR // _MINUTE, begin // _HOUR
    if period % _HOUR:
        raise UnsupportedSchedule(trigger, _WHERE, "its minutes differ from hour to hour; give each its own entry")
    if period < _DAY:
        return f"{minute} {_progression(range(hour, 24, period // _HOUR), 24)} * * *"
    if period == _DAY:
        return f"{minute} {hour} * * *"
    return f"{minute} {hour % 24} * * {(4 + hour // 24) % 7}"  # the epoch was a Thursday


def _progression(values: range, size: int) -> str:
    if values.start == 0 and values.step < size:
        return "*" if values.step == 1 else f"*/{values.step}"
    return _show(values)


def _is_same_zone(one: str, other: str) -> bool:
    return one == other or _changes(one) == _changes(other)


def _changes(key: str) -> list[tuple[datetime, timedelta]]:
    """Return when a zone's offset changes, and to what, over some decades."""
    zone, instant, found = get_zone(key), datetime(2020, 1, 1, tzinfo=UTC), list[tuple[datetime, timedelta]]()
    while instant.year < 2020 + _YEARS_LOOKED_AT:
        window = zone.at(instant)
        if not found or found[-1][1] != window.offset:
            found.append((window.lo if found else instant, window.offset))
        instant = window.hi
    return found


def _offsets(key: str) -> list[int]:
    return [int(offset / timedelta(seconds=1)) for _, offset in _changes(key)]


def _why_not(trigger: Trigger) -> str:
    if isinstance(trigger, At):
        return "a crontab has no years, so it would come again; let the app run it"
    if isinstance(trigger, Union):
        return "it is several schedules; give each part its own entry"
    if isinstance(trigger, Exclusion):
        return "a crontab has no exceptions; let the job itself look at the date"
    return f"a crontab knows cron text only, not a {type(trigger).__name__}"
