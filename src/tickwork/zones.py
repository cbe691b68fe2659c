"""Time zones as stretches of constant offset.

A zone's clock is a row of windows: inside one, wall time is UTC plus a constant, so a search for a fire time
is plain arithmetic; only at the edge between two windows does daylight saving need thought. `zoneinfo` does
not show its edges, so they are found by asking for the offset every three days (the shortest stretch in the
zone database since 1900 is nearly four) and by bisection between two answers that differ. The three-day grid
is fixed, so what is found never depends on where a search began.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from datetime import UTC, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING

from .errors import InvalidInstant, InvalidOption, UnknownTimezone, nearest

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

__all__ = ["FIRST", "LAST", "Window", "Zone", "clock_change", "end_of_gap", "get_zone", "resolve_wall", "zone_key"]

# Outside these years an offset could carry a datetime over its own limits.
FIRST = datetime(3, 1, 1, tzinfo=UTC)
LAST = datetime(9990, 1, 1, tzinfo=UTC)

# Clock changes as large as this are corrections of the calendar, not daylight saving (cron(8) of Debian).
CORRECTION = timedelta(hours=3)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
_ZERO = timedelta(0)
_STEP = timedelta(days=3)
_STEPS = 128  # a block of 384 days holds a year's changes; it costs about 0.1 ms, once
_BLOCK = _STEP * _STEPS
_MAX_BLOCKS = 512  # five centuries, then the zone forgets and begins anew
_KEY = r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*"


class Window:
    """A stretch of instants [lo, hi) in which a zone keeps one offset from UTC.

    Attributes:
        lo: The first instant, aware UTC.
        hi: The first instant after it. Offsets on both sides of an edge may be equal.
        offset: Wall time minus UTC.
        shift: How far the wall clock was moved at `lo`: positive for a gap, negative for a repeat.
        repeat_end: Where `lo` moved the clock back by at most three hours: the wall time, labelled UTC,
            until which this window repeats times that the one before it had; else the earliest datetime.
    """

    __slots__ = ("hi", "lo", "offset", "repeat_end", "shift")
    lo: datetime
    hi: datetime
    offset: timedelta
    shift: timedelta

    def __init__(self, lo: datetime, hi: datetime, offset: timedelta, shift: timedelta) -> None:
        self.lo, self.hi, self.offset, self.shift = lo, hi, offset, shift
        self.repeat_end: datetime = _NEVER if shift >= _ZERO or -shift > CORRECTION else lo + offset - shift


_NEVER = datetime.min.replace(tzinfo=UTC)


class Zone:
    """A zone of the IANA database, with its windows found so far.

    Attributes:
        key: The IANA key.
        info: The `ZoneInfo`.
        last: The window used last: the first guess of the next search. A hint, safe between threads.
    """

    __slots__ = ("_blocks", "info", "key", "last")
    key: str
    info: ZoneInfo
    last: Window

    def __init__(self, key: str, info: ZoneInfo) -> None:
        self.key, self.info = key, info
        self._blocks: dict[int, tuple[list[datetime], list[Window]]] = {}
        if key == "UTC":
            self.last = Window(FIRST, LAST, _ZERO, _ZERO)
        else:
            self.last = Window(FIRST, FIRST, _ZERO, _ZERO)

    def at(self, instant: datetime) -> Window:
        """Return the window that holds an instant (aware UTC, from `FIRST` to a year after `LAST`)."""
        last = self.last
        if last.lo <= instant < last.hi:
            return last
        number = (instant - _EPOCH) // _BLOCK
        block = self._blocks.get(number)
        if block is None:
            block = self._find_windows(_EPOCH + number * _BLOCK)
            if len(self._blocks) >= _MAX_BLOCKS:
                self._blocks = {}
            self._blocks[number] = block
        edges, windows = block
        self.last = window = windows[bisect_right(edges, instant) - 1]
        return window

    def _offset(self, instant: datetime) -> timedelta:
        return instant.astimezone(self.info).utcoffset() or _ZERO

    def _find_windows(self, start: datetime) -> tuple[list[datetime], list[Window]]:
        before, offset = self._offset(start - _SECOND), self._offset(start)
        edges = [(start, offset)]
        point = start
        for _ in range(_STEPS):
            following = point + _STEP
            # The block's last point belongs to the next block, whose start looks one second back.
            there = self._offset(following if following < start + _BLOCK else following - _SECOND)
            if there != offset:
                edges.append((self._find_edge(point, following, offset), there))
                offset = there
            point = following
        windows = []
        for number, (lo, offset) in enumerate(edges):
            hi = edges[number + 1][0] if number + 1 < len(edges) else start + _BLOCK
            windows.append(Window(lo, hi, offset, offset - before))
            before = offset
        return [lo for lo, _ in edges], windows

    def _find_edge(self, lo: datetime, hi: datetime, offset: timedelta) -> datetime:
        """Return the first whole second in (lo, hi] with another offset than `lo` has."""
        while hi - lo > _SECOND:
            middle = lo + (hi - lo) // _SECOND // 2 * _SECOND
            if self._offset(middle) == offset:
                lo = middle
            else:
                hi = middle
        return hi


_zones: dict[str, Zone] = {}  # bounded by the zone database: about 600 keys


def zone_key(value: object, option: str = "timezone") -> str:
    """Return the IANA key of a zone given as a key or a `ZoneInfo`, after making sure that it exists.

    Raises:
        UnknownTimezone: The zone database has no such key; the nearest one is suggested.
        InvalidOption: The value is no key, or a fixed offset, which would not follow clock changes.
    """
    if isinstance(value, str):
        return get_zone(value).key
    if value is UTC:
        return "UTC"
    key = getattr(value, "key", None)
    if isinstance(value, tzinfo) and isinstance(key, str):
        return get_zone(key).key
    remedy = "a fixed offset does not follow clock changes" if isinstance(value, tzinfo) else ""
    raise InvalidOption(option, 'an IANA key such as "Asia/Seoul"', value, remedy=remedy)


def get_zone(key: str) -> Zone:
    """Return the zone with an IANA key; it is kept for the life of the process.

    Raises:
        UnknownTimezone: The zone database has no such key; the nearest one is suggested.
    """
    zone = _zones.get(key)
    if zone is None:
        zone = _zones.setdefault(key, Zone(key, _load(key)))
    return zone


def _load(key: str) -> ZoneInfo:
    from zoneinfo import ZoneInfo, available_timezones  # 10 ms that `import tickwork` should not pay

    # "localtime" and "posixrules" are files of one machine: another replica would disagree.
    if len(key) <= 100 and re.fullmatch(_KEY, key) and key not in ("localtime", "posixrules"):
        try:
            return ZoneInfo(key)
        except (KeyError, ValueError, OSError):  # a folder ("Europe") is an OSError
            pass
    raise UnknownTimezone(key, nearest(key[:100], sorted(available_timezones())))


def resolve_wall(wall: datetime, key: str, option: str = "when") -> datetime:
    """Return the instant, aware UTC, at which a zone's clocks show a naive wall time.

    Where clocks show it twice, the first time is meant, unless `wall.fold` is 1.

    Raises:
        InvalidInstant: Clocks never show it: it lies in a gap.
    """
    zone = get_zone(key)
    if not FIRST.year < wall.year < LAST.year:
        raise InvalidInstant(option, f"a time between the years {FIRST.year + 1} and {LAST.year - 1}", wall)
    instant = wall.replace(tzinfo=zone.info).astimezone(UTC)
    if instant.astimezone(zone.info).replace(tzinfo=None) == wall.replace(fold=0):
        return instant
    after = zone.at(end_of_gap(wall, key))
    before = (after.lo + after.offset - after.shift).replace(tzinfo=None)
    raise InvalidInstant(
        option,
        f"a time that exists in {key}",
        str(wall),
        remedy=f"clocks there go from {before} straight to {before + after.shift}",
    )


def end_of_gap(wall: datetime, key: str) -> datetime:
    """Return the first instant, aware UTC, after the gap of a zone's clocks in which a naive wall time lies."""
    zone = get_zone(key)
    # Python reads a time in a gap with the offset before it (PEP 495), which leads past the edge.
    after = zone.at(wall.replace(tzinfo=zone.info).astimezone(UTC))
    return after.lo if after.shift > _ZERO else after.hi


def clock_change(instant: datetime, key: str) -> str | None:
    """Say how a change of a zone's clocks touches an instant (aware UTC), or return None.

    Returns:
        "after the gap 02:00-03:00" for the first instant after a gap, to which the times in it are moved;
        "first pass of 02:00-03:00" and "second pass of 02:00-03:00" where the clocks show a time twice.
    """
    zone = get_zone(key)
    window = zone.at(instant)
    wall = instant + window.offset
    if window.shift > _ZERO and instant == window.lo:
        return f"after the gap {_span(wall - window.shift, wall)}"
    if wall < window.repeat_end:
        return f"second pass of {_span(window.lo + window.offset, window.repeat_end)}"
    following = zone.at(window.hi)
    again = window.hi + following.offset  # what the clocks show when they have been moved
    if following.repeat_end > again and wall >= again:
        return f"first pass of {_span(again, following.repeat_end)}"
    return None


def _span(begin: datetime, end: datetime) -> str:
    days = "" if begin.date() == end.date() or end - begin < timedelta(days=1) else "%Y-%m-%d "
    return f"{begin:{days}%H:%M}-{end:{days}%H:%M}"
