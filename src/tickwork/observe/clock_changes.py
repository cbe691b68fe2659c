"""What changes of a zone's clocks do to the times of day that a schedule names.

Looked at are cron expressions, also inside unions and exclusions; nothing else reads a wall clock. An expression that
follows the clock hour by hour names no time of day, and one with `dst="skip"` or `dst="both"` has been decided on.
"""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import TYPE_CHECKING

from ..triggers import Between, Cron, Exclusion, Union, newest
from ..zones import FIRST, LAST, Window, get_zone

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from ..triggers import Trigger

YEAR = timedelta(days=365)
MAX_TIMES = 1_000
"""Of one change, so many times are counted: more than the minutes of any daylight saving, fewer than its seconds."""
MAX_NAMED = 3
"""Of those so many are named: a quarter-hourly job has four in an hour, and the first tells where to look."""

_MICROSECOND = timedelta(microseconds=1)
_SHORT = timedelta(days=8)  # a job that did not run for a week does not follow the clock evenly
_ZERO = timedelta(0)


def clock_changes(trigger: Trigger, now: datetime) -> list[str]:
    """Say what clock changes within a year do to a trigger, in the order of time.

    Returns:
        Such as "2027-03-28: 02:30 does not exist in Europe/Berlin, runs once at 03:00".
    """
    touched: dict[tuple[datetime, str, str], set[datetime]] = {}
    for cron, exclusions in _crons(trigger):
        key = cron.timezone
        if key is None or key == "UTC" or cron.dst != "cron" or cron.is_hourly:
            continue
        for before, after in _changes(key, now):
            times, happens = _swallowed(cron, before, after) if after.shift > _ZERO else _shown_twice(cron, after)
            if left := {time for time in times if not any(_is_excluded(time, entry) for entry in exclusions)}:
                touched.setdefault((after.lo, key, happens), set()).update(left)
    return [_sentence(key, happens, sorted(touched[at, key, happens])) for at, key, happens in sorted(touched)]


def _crons(trigger: Trigger, exclusions: tuple[Exclusion, ...] = ()) -> Iterator[tuple[Cron, tuple[Exclusion, ...]]]:
    """Yield the cron expressions of a trigger, each with the exclusions around it."""
    if isinstance(trigger, Cron):
        yield trigger, exclusions
    elif isinstance(trigger, Union):
        for part in trigger.triggers:
            yield from _crons(part, exclusions)
    elif isinstance(trigger, Exclusion):
        yield from _crons(trigger.trigger, (*exclusions, trigger))
    elif isinstance(trigger, Between):
        yield from _crons(trigger.trigger, exclusions)


def _is_excluded(time: datetime, exclusion: Exclusion) -> bool:
    """Return whether a wall time, labelled UTC, is taken out: by its day, or by expressions that name it, too."""
    if time.date() in exclusion.dates:
        return True
    without = () if exclusion.without is None else _crons(exclusion.without)
    return any(cron.on_utc().next(time - _MICROSECOND) == time for cron, _ in without)


def _changes(key: str, now: datetime) -> Iterator[tuple[Window, Window]]:
    """Yield the changes of a zone within a year: the window before and the one after each."""
    zone = get_zone(key)
    now = max(now.astimezone(UTC), FIRST)
    if now > LAST - YEAR:
        return
    before = zone.at(now)
    while before.hi <= now + YEAR:
        after = zone.at(before.hi)
        if after.shift:  # an edge may be one of the search only
            yield before, after
        before = after


def _swallowed(cron: Cron, before: Window, after: Window) -> tuple[list[datetime], str]:
    """Return the wall times that the clocks leave out, and what becomes of them."""
    edge = after.lo
    times = _named(cron, edge + before.offset, edge + after.offset)
    if not times:
        return [], ""
    following = cron.next(edge - _MICROSECOND)
    if not cron.follows_wall_clock:  # a correction of the calendar is no daylight saving, and moves nothing
        return times, f"runs once at {_clock(edge + after.offset, times[0])}" if following == edge else "is left out"
    previous = newest(cron, edge - _SHORT, edge - _MICROSECOND, 1)
    if previous and following is not None and following - previous[0] <= times[0] - (previous[0] + before.offset):
        return [], ""  # no longer than it usually is from one run to the next
    return times, "is left out"


def _shown_twice(cron: Cron, after: Window) -> tuple[list[datetime], str]:
    """Return the wall times that the clocks show twice, and what becomes of them."""
    edge = after.lo
    times = _named(cron, edge + after.offset, edge + after.offset - after.shift)
    if not times:
        return [], ""
    again = times[0] - after.offset
    if cron.next(again - _MICROSECOND) != again:
        return times, "runs in the first pass only"
    previous = newest(cron, edge - _SHORT, edge - _MICROSECOND, 1)
    if previous and cron.follows_wall_clock:
        shown = previous[0] + after.offset - after.shift
        usual = cron.on_utc().next(shown)
        if usual is not None and again - previous[0] >= usual - shown:
            return [], ""
    return times, "runs in both passes"


def _named(cron: Cron, begin: datetime, end: datetime) -> list[datetime]:
    """Return the wall times in [begin, end), labelled UTC, that an expression names: at most `MAX_TIMES`."""
    wall = cron.on_utc()
    found: list[datetime] = []
    time = wall.next(begin - _MICROSECOND)
    while time is not None and time < end and len(found) < MAX_TIMES:
        found.append(time)
        time = wall.next(time)
    return found


def _sentence(key: str, happens: str, times: list[datetime]) -> str:
    first = times[0]
    named = ", ".join(_clock(time, first) for time in times[:MAX_NAMED])
    if len(times) > MAX_NAMED:
        more = len(times) - MAX_NAMED
        named += f" and {more} more" if len(times) < MAX_TIMES else " and many more"
    is_twice = "pass" in happens
    if len(times) == 1:
        return f"{first:%Y-%m-%d}: {named} {'comes twice' if is_twice else 'does not exist'} in {key}, {happens}"
    happens = happens.replace("runs", "run").replace("is left", "are left")
    return f"{first:%Y-%m-%d}: {named} {'come twice' if is_twice else 'do not exist'} in {key}, {happens}"


def _clock(wall: datetime, beside: datetime) -> str:
    """Return a time of day, with its date where that is another than the one beside it."""
    day = "" if wall.date() == beside.date() else "%Y-%m-%d "
    return f"{wall:{day}%H:%M:%S}" if wall.second else f"{wall:{day}%H:%M}"
