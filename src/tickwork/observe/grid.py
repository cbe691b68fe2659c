"""A window of time cut into buckets, and the labels of its axis, both by the wall clock of a zone.

Up to an hour, steps are elapsed time: a repeated hour of the wall clock is there twice, as it is in life. Longer steps
follow the wall clock, so that a bucket of a day is a day of the calendar, with its 23 or 25 hours.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..zones import Zone

__all__ = ["Axis", "Group", "Label", "cells", "edges", "make_axis"]

_SECOND: Final = timedelta(seconds=1)
_MINUTE: Final = timedelta(minutes=1)
_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)

UNITS: Final = (
    *(number * _SECOND for number in (1, 5, 10, 15, 30)),
    *(number * _MINUTE for number in (1, 5, 10, 15, 30)),
    *(number * _HOUR for number in (1, 2, 3, 6, 12)),
    *(number * _DAY for number in (1, 7, 28)),
)
"""The lengths a bucket may have: those that a person would choose."""

_ORIGIN: Final = datetime(1970, 1, 5, tzinfo=UTC)  # a Monday, so that a bucket of seven days is a week


def edges(start: datetime, end: datetime, zone: Zone, most: int, *, unit: timedelta = _SECOND) -> tuple[datetime, ...]:
    """Return where buckets begin, and last the end of the window: ascending, from `start` to `end`.

    Args:
        start: Aware UTC.
        end: Aware UTC, later than `start`.
        zone: By whose wall clock they are cut.
        most: How many buckets there may be, at least 3.
        unit: Only multiples of this length are chosen.
    """
    # A window that begins amid a bucket has one more.
    chosen = next(
        (step for step in UNITS if not step % unit and (end - start) / step <= most - 2),
        UNITS[-1] * max(1, -((start - end) // (UNITS[-1] * (most - 2)))),
    )
    inside = [edge for edge in _steps(start, end, zone, chosen) if start < edge < end]
    return (start, *inside, end)


def unit_of(found: tuple[datetime, ...]) -> timedelta:
    """Return how long the buckets between these edges are, most of them."""
    if len(found) < 4:
        return max(later - earlier for earlier, later in pairwise(found))
    # Those at the edges are cut off, and one in the middle may have a clock change in it.
    lengths = sorted(later - earlier for earlier, later in pairwise(found))
    return lengths[len(lengths) // 2]


def cells(found: tuple[datetime, ...], zone: Zone, most: int) -> tuple[tuple[datetime, ...], list[range]]:
    """Return at most so many coarser buckets, and which of the finer ones each of them holds."""
    if len(found) - 1 <= most:
        return found, [range(number, number + 1) for number in range(len(found) - 1)]
    coarse = edges(found[0], found[-1], zone, max(3, most), unit=unit_of(found))
    held: list[range] = []
    begin = 0
    for edge in coarse[1:]:
        stop = begin
        while stop < len(found) - 1 and found[stop] < edge:
            stop += 1
        held.append(range(begin, stop))
        begin = stop
    return coarse, held


def _steps(start: datetime, end: datetime, zone: Zone, step: timedelta) -> Iterator[datetime]:
    """Yield multiples of a step from just before `start` to `end`, in order."""
    offset = zone.at(start).offset
    wall = _ORIGIN + (start + offset - _ORIGIN) // step * step
    last = None
    while True:
        instant = wall - offset if step <= _HOUR else _instant_of(wall, zone)
        if instant >= end:
            return
        # A time of day that clocks never show is left out, but a day begins also where it has no midnight.
        if (last is None or instant > last) and (step <= _HOUR or step >= _DAY or _wall(instant, zone) == wall):
            yield instant
            last = instant
        wall += step


def _instant_of(wall: datetime, zone: Zone) -> datetime:
    """Return when the clocks of a zone show a wall time (labelled UTC) for the first time, or the end of its gap."""
    instant = wall.replace(tzinfo=zone.info).astimezone(UTC)
    # Python reads a time in a gap with the offset before it (PEP 495), which leads past the edge.
    return instant if _wall(instant, zone) == wall else zone.at(instant).lo


# --- the axis ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Label:
    """A mark of the axis: an instant (UTC) and its text, such as "06:00" or "14"."""

    at: datetime
    text: str


@dataclass(frozen=True, slots=True)
class Group:
    """What several labels have in common, such as a day: a stretch [start, end) with texts, the longest first."""

    start: datetime
    end: datetime
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis of two rows: groups above, labels below."""

    groups: tuple[Group, ...]
    labels: tuple[Label, ...]


def make_axis(start: datetime, end: datetime, zone: Zone, room: Callable[[int], float]) -> Axis:
    """Return an axis with labels as there is room: times below days, days below months, or months below years.

    Args:
        start: Aware UTC.
        end: Aware UTC.
        zone: By whose wall clock it is labelled.
        room: Tells how many labels of so many letters there is room for.
    """
    span = end - start
    steps = (*UNITS[:15], 1 * _DAY, 2 * _DAY, 7 * _DAY)
    step = next((step for step in steps if span / step <= room(8 if step < _MINUTE else 5 if step < _DAY else 2)), None)
    if step is None:
        months = next((number for number in (1, 2, 3, 6) if span / (30 * _DAY * number) <= room(3)), 12)
        labels = [Label(at, f"{_wall(at, zone):%b}") for at in _months(start, end, zone, months)]
        years = list(_months(start, end, zone, 12))
        return Axis(_groups(start, end, zone, years, ("%Y",)), _inside(labels, start, end))
    if step < _DAY:
        text = "%H:%M:%S" if step < _MINUTE else "%H:%M"
        days = list(_steps(start, end, zone, _DAY))
        groups = _groups(start, end, zone, days, ("%A %d %B %Y", "%a %d %b", "%d"))
    else:
        text = "%d"
        groups = _groups(start, end, zone, list(_months(start, end, zone, 1)), ("%B %Y", "%b %Y", "%b"))
    labels = [Label(at, f"{_wall(at, zone):{text}}") for at in _steps(start, end, zone, step)]
    return Axis(groups, _inside(labels, start, end))


def _inside(labels: list[Label], start: datetime, end: datetime) -> tuple[Label, ...]:
    return tuple(label for label in labels if start <= label.at < end)


def _groups(
    start: datetime, end: datetime, zone: Zone, begins: list[datetime], texts: tuple[str, ...]
) -> tuple[Group, ...]:
    inside = [start, *(at for at in begins if start < at < end), end]
    return tuple(
        Group(begin, stop, tuple(f"{_wall(begin, zone):{text}}" for text in texts)) for begin, stop in pairwise(inside)
    )


def _months(start: datetime, end: datetime, zone: Zone, step: int) -> Iterator[datetime]:
    wall = _wall(start, zone)
    month = (wall.year * 12 + wall.month - 1) // step * step
    while True:
        instant = _instant_of(datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC), zone)
        if instant >= end:
            return
        yield instant
        month += step


def _wall(instant: datetime, zone: Zone) -> datetime:
    """Return what the clocks show, labelled UTC."""
    return instant + zone.at(instant).offset
