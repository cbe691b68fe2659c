"""The times of day at which clocks change, and which days of a schedule they touch.

A trigger of Task Scheduler that repeats counts elapsed time from its first start of the day. Where clocks change in
between, its later starts are off by the hour. So minutes of a day are cut where clocks change, and what lies in the
midst of a change is let through only where each start stands alone.
"""

from __future__ import annotations

import calendar
from dataclasses import dataclass
from datetime import UTC, date, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

from ..zones import get_zone
from .progressions import DAY_MINUTES
from .task_model import ANCHOR, ByDay, ByMonth, ByWeek

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from .task_model import Days

__all__ = ["ClockChange", "cut", "find_changes", "touching"]

_MINUTE = timedelta(minutes=1)
_YEARS = 40  # a zone that keeps clear of a time for so long, by its present rules, keeps clear of it
_EARLIEST, _LATEST, _USUAL = 21 * 60, 28 * 60, 60
"""In all zones of today clocks change between 21:00 and 04:00, by an hour or less."""


@dataclass(frozen=True, slots=True)
class ClockChange:
    """Times of one day that its clocks skip, or show twice.

    Attributes:
        day: The day; None: any.
        start: The first of these minutes, 0-1439.
        end: The minute after the last one, up to 1440.
        is_gap: Whether they are skipped.
    """

    day: date | None
    start: int
    end: int
    is_gap: bool

    @property
    def text(self) -> str:
        """Between which times, as "02:00 and 03:00"."""
        return " and ".join(f"{minute // 60:02}:{minute % 60:02}" for minute in (self.start, self.end))


@lru_cache(maxsize=64)
def find_changes(timezone: str | None) -> tuple[ClockChange, ...]:
    """Return the changes of clocks in a zone, from the day from which triggers count on, for some decades.

    Args:
        timezone: An IANA key; None: not known, and clocks may change on any day, at any time at which they do anywhere.
    """
    if timezone is None:
        found = [_parts(None, start, _USUAL, is_gap=True) for start in range(_EARLIEST, _LATEST - _USUAL + 1, 30)]
        return tuple(part for parts in found for part in parts)
    zone, instant = get_zone(timezone), ANCHOR.replace(tzinfo=UTC)
    end = instant.replace(year=instant.year + _YEARS)
    changes: list[ClockChange] = []
    while (instant := zone.at(instant).hi) < end:
        window = zone.at(instant)
        if window.shift:
            low = (instant + window.offset - max(window.shift, timedelta(0))).replace(tzinfo=None)
            length = abs(window.shift) // _MINUTE
            changes += _parts(low.date(), low.hour * 60 + low.minute, length, is_gap=window.shift > timedelta(0))
    return tuple(changes)


def _parts(day: date | None, start: int, length: int, *, is_gap: bool) -> list[ClockChange]:
    """Return a change, as two where it runs past midnight."""
    first, rest = divmod(start, DAY_MINUTES)
    day = None if day is None else day + timedelta(days=first)
    end = rest + length
    if end <= DAY_MINUTES:
        return [ClockChange(day, rest, end, is_gap)]
    following = None if day is None else day + timedelta(days=1)
    return [ClockChange(day, rest, DAY_MINUTES, is_gap), ClockChange(following, 0, end - DAY_MINUTES, is_gap)]


def touching(changes: Iterable[ClockChange], days: Days) -> list[ClockChange]:
    """Return the changes on days that are named, one for each time of day."""
    found = [change for change in changes if change.day is None or _is_named(days, change.day)]
    return list({(change.start, change.end, change.is_gap): change for change in found}.values())


def cut(minutes: Collection[int], changes: Sequence[ClockChange]) -> list[set[int]]:
    """Return minutes of a day in parts that no change runs through; each minute within one is a part of its own."""
    within = {minute for change in changes for minute in range(change.start, change.end)}
    parts: list[set[int]] = [set()]
    last = -1
    for minute in sorted(minutes):
        if minute in within or any(last < change.end and change.start <= minute for change in changes):
            parts.append(set())
        parts[-1].add(minute)
        last = minute
    return [part for part in parts if part]


def _is_named(days: Days, day: date) -> bool:
    weekday = day.isoweekday() % 7
    match days:
        case ByDay():
            return (day - ANCHOR.date()).days % days.every == 0
        case ByWeek():
            return weekday in days.weekdays
    length = calendar.monthrange(day.year, day.month)[1]
    if day.month not in days.months:
        return False
    if isinstance(days, ByMonth):
        return day.day in days.days or (day.day == length and "last" in days.days)
    is_last = day.day + 7 > length and "last" in days.weeks
    return weekday in days.weekdays and ((day.day - 1) // 7 + 1 in days.weeks or is_last)
