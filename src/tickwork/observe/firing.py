"""The fire times of a trigger in a window, at a bounded cost: one by one where they are few, else counted.

A trigger is asked with its `next` alone. One that fires too often to be walked is looked at in slices: where a slice
holds more than a few fire times, they are taken to go on at the same pace until the last of it.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain, islice, pairwise
from typing import TYPE_CHECKING, Final

from ..triggers import Every
from ..zones import clock_change

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ..clock import Clock
    from ..triggers import Trigger
    from ..zones import Window, Zone

__all__ = ["MAX_STARTS", "Firing", "Touched", "changes", "fire_times", "touched"]

MAX_STARTS: Final = 10_000
"""So many fire times of a schedule are kept one by one: every hour of a year (8,784) and more, and under a megabyte."""

_MAX_SECONDS: Final = 20.0  # for one trigger; those of tickwork need milliseconds, or a second to be estimated, if idle
_MAX_COUNTED: Final = 50_000  # a tenth of a second or so: every quarter of an hour of a year
_SLICES: Final = 9_000  # an hour each in a year: patterns seldom change within one
_STEPS: Final = 8  # fire times that are looked at in a slice: enough to tell its pace
_MAX_TOUCHED: Final = 500  # more than those of every minute in three repeated hours
_MICROSECOND: Final = timedelta(microseconds=1)
_ZERO: Final = timedelta(0)
_MARGIN: Final = timedelta(days=1)  # farther than any clock change reaches


@dataclass(frozen=True, slots=True)
class Firing:
    """What a trigger does in a window.

    Attributes:
        counts: How many fire times there are in each bucket.
        starts: All fire times (UTC), ascending; empty when there are more than `MAX_STARTS`.
        is_estimated: Whether the counts are an estimate.
        following: The first fire time after the window (UTC); None: there is none.
    """

    counts: tuple[int, ...]
    starts: tuple[datetime, ...]
    is_estimated: bool
    following: datetime | None


@dataclass(frozen=True, slots=True)
class Touched:
    """A fire time that a change of the clocks touches: when (UTC), and how, as `zones.clock_change` says it."""

    at: datetime
    change: str


class _Asked:
    """A trigger whose answers are checked, and that may not take for ever."""

    def __init__(self, trigger: Trigger, clock: Clock) -> None:
        self.trigger, self._clock = trigger, clock
        self._began = clock.monotonic()

    def next(self, after: datetime) -> datetime | None:
        found = self.trigger.next(after)
        if self._clock.monotonic() - self._began > _MAX_SECONDS:
            raise TimeoutError(f"it was given up after {_MAX_SECONDS:g} s: its next() is too slow")
        if found is None:
            return None
        if not isinstance(found, datetime) or found.utcoffset() is None:  # type: ignore[redundant-expr]
            raise TypeError(f"its next() returned {found!r}, and not an aware datetime")
        if found <= after:
            raise ValueError(f"its next() says that {found} comes after {after}")
        return found.astimezone(UTC)

    def within(self, start: datetime, end: datetime, most: int) -> Iterator[datetime]:
        """Yield the fire times in [start, end), at most so many."""
        moment = self.next(start - _MICROSECOND)
        for _ in range(most):
            if moment is None or moment >= end:
                return
            yield moment
            moment = self.next(moment)


def fire_times(trigger: Trigger, edges: Sequence[datetime], clock: Clock) -> Firing:
    """Return the fire times from the first edge until before the last one.

    Args:
        trigger: Any trigger.
        edges: Where buckets begin, and where the last one ends (aware UTC, ascending).
        clock: Tells how long the trigger has taken.

    Raises:
        TimeoutError: The trigger is too slow.
        TypeError: The trigger returned something else than an aware datetime.
        ValueError: The trigger goes back.
        Exception: What the trigger raises.
    """
    asked = _Asked(trigger, clock)
    start, end = edges[0], edges[-1]
    following = asked.next(end - _MICROSECOND)
    if type(trigger) is Every:
        counts = _counts_of_every(asked, edges)
        starts = tuple(asked.within(start, end, MAX_STARTS)) if sum(counts) <= MAX_STARTS else ()
        return Firing(counts, starts, is_estimated=False, following=following)
    found = asked.within(start, end, _MAX_COUNTED + 1)
    starts = tuple(islice(found, MAX_STARTS + 1))
    if len(starts) <= MAX_STARTS:
        return Firing(_sorted_in(starts, edges), starts, is_estimated=False, following=following)
    counts = _sorted_in(chain(starts, found), edges)
    if sum(counts) <= _MAX_COUNTED:
        return Firing(counts, (), is_estimated=False, following=following)
    return Firing(_estimated(asked, edges), (), is_estimated=True, following=following)


def _sorted_in(starts: Iterable[datetime], edges: Sequence[datetime]) -> tuple[int, ...]:
    counts = [0] * (len(edges) - 1)
    for at in starts:
        counts[bisect_right(edges, at) - 1] += 1
    return tuple(counts)


def _counts_of_every(asked: _Asked, edges: Sequence[datetime]) -> tuple[int, ...]:
    """Count the points of a grid without visiting them."""
    first = asked.next(edges[0] - _MICROSECOND)
    second = None if first is None else asked.next(first)
    if first is None or second is None:
        return _sorted_in([first] if first is not None and first < edges[-1] else [], edges)
    period = second - first
    before = [max(0, -((first - edge) // period)) for edge in edges]  # points earlier than each edge
    return tuple(later - earlier for earlier, later in pairwise(before))


def _estimated(asked: _Asked, edges: Sequence[datetime]) -> tuple[int, ...]:
    each = max(1, _SLICES // (len(edges) - 1))
    counts = []
    following = asked.next(edges[0] - _MICROSECOND)
    for begin, end in pairwise(edges):
        count = 0
        for number in range(1, each + 1):
            limit = begin + (end - begin) * number // each
            if following is not None and following < limit:
                more, following = _paced(asked, following, limit)
                count += more
        counts.append(count)
    return tuple(counts)


def _paced(asked: _Asked, first: datetime, end: datetime) -> tuple[int, datetime | None]:
    """Count the fire times in [first, end), and return the one after them.

    A few are visited, and those after them taken to go on at the same pace until the last one, which is looked for.
    """
    known, following = first, asked.next(first)
    for count in range(1, _STEPS):
        if following is None or following >= end:
            return count, following
        known, following = following, asked.next(following)
    gap = (known - first) / (_STEPS - 1)
    last, limit = known, end
    while limit - last > gap:
        # Where the pace is kept, the first look is near the end and finds it; where it stops early, the end is moved.
        look = max(last, limit - 1.5 * gap) if limit == end else last + (limit - last) / 2
        found = asked.next(look)
        if found is None or found >= end:
            if look <= last:
                break
            limit = look
        else:
            last = found
    return _STEPS + round((last - known) / gap), asked.next(end - _MICROSECOND)


# --- clock changes ----------------------------------------------------------------------------------------------------


def changes(zone: Zone, start: datetime, end: datetime) -> list[Window]:
    """Return the stretches of constant offset that begin with a change of the clocks, in [start, end)."""
    found = []
    window = zone.at(start)
    while window.lo < end:
        if window.shift and window.lo >= start:
            found.append(window)
        window = zone.at(window.hi)
    return found


def touched(trigger: Trigger, zone: Zone, start: datetime, end: datetime, clock: Clock) -> tuple[Touched, ...]:
    """Return the fire times in [start, end) that a change of a zone's clocks touches, ascending, at most 500.

    `Every` is touched by none: it does not look at a wall clock.
    """
    if type(trigger) is Every:
        return ()
    asked = _Asked(trigger, clock)
    found: dict[datetime, str] = {}
    for window in changes(zone, start - _MARGIN, end + _MARGIN):
        # A gap touches the first instant after it, a repeated hour all of its two passes.
        reach = max(_ZERO, -window.shift)
        lo, hi = max(start, window.lo - reach), min(end, window.lo + max(reach, _MICROSECOND))
        if lo >= hi:
            continue
        for at in asked.within(lo, hi, _MAX_TOUCHED - len(found)):
            said = clock_change(at, zone.key)
            if said is not None:
                found[at] = said
    return tuple(Touched(at, said) for at, said in sorted(found.items()))
