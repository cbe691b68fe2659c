"""Times of day and weekdays as people write them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date, time
from typing import TYPE_CHECKING, Any

from ..errors import InvalidOption

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["as_tuple", "read_day", "read_times", "read_weekdays"]

_TIME = r"([01]?[0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9]))?"
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FULL_WEEKDAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")


def read_times(at: object) -> list[time]:
    """Return times of day in order, given as one or several texts "HH:MM[:SS]" or times.

    Raises:
        InvalidOption: One of them is none, or there is none.
    """
    given: Iterable[Any] = at if isinstance(at, Iterable) and not isinstance(at, str) else [at]
    times = sorted({_time(moment) for moment in given})
    if not times:
        raise InvalidOption("at", "at least one time", at)
    return times


def _time(moment: object) -> time:
    found = moment
    if isinstance(moment, str) and (written := re.fullmatch(_TIME, moment.strip())):
        found = time(int(written[1]), int(written[2]), int(written[3] or 0))
    if not isinstance(found, time) or found.tzinfo is not None or found.microsecond:
        raise InvalidOption("at", 'a time such as "05:00" or "05:00:30" without a zone', moment)
    return found


def read_weekdays(days: str | Sequence[str]) -> tuple[int, ...]:
    """Return weekdays as numbers, ascending, 0 is Sunday, given as one or several names in full or in three letters.

    Raises:
        InvalidOption: One of them is none.
    """
    listed = [days] if isinstance(days, str) else list(days)
    return tuple(sorted({_weekday(day) for day in listed}))


def _weekday(day: object) -> int:
    name = day.strip().lower() if isinstance(day, str) else ""
    for names in (_WEEKDAYS, _FULL_WEEKDAYS):
        if name in names:
            return names.index(name)
    raise InvalidOption("days", 'weekdays such as "mon" or "friday"', day)


def read_day(day: object, option: str) -> date:
    """Return a day given as a date, a datetime (its day as written) or "YYYY-MM-DD".

    Raises:
        InvalidOption: It is none.
    """
    try:
        found = date.fromisoformat(day) if isinstance(day, str) else day
    except ValueError:
        found = None
    if not isinstance(found, date):
        raise InvalidOption(option, 'a date or "YYYY-MM-DD"', day)
    return date(found.year, found.month, found.day)


def as_tuple(value: Any) -> tuple[Any, ...]:
    """Return the values of a collection, or a single one."""
    return tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else (value,)
