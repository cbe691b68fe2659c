"""The minutes of a day as few arithmetic progressions: each can be one trigger that repeats."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

__all__ = ["DAY_MINUTES", "Progression", "cover"]

DAY_MINUTES = 24 * 60


class Progression(NamedTuple):
    """Some minutes of a day at equal distances.

    Attributes:
        start: The first one, 0-1439.
        step: Minutes between two of them; 0 when there is only one.
        size: How many, at least 1.
    """

    start: int
    step: int
    size: int

    @property
    def is_circle(self) -> bool:
        """Whether it goes on at the same distance from one day to the next."""
        return self.size > 1 and self.step * self.size == DAY_MINUTES

    @property
    def minutes(self) -> range:
        """All of them, ascending."""
        return range(self.start, self.start + self.step * (self.size - 1) + 1, self.step or 1)


def cover(minutes: Collection[int]) -> list[Progression]:
    """Return progressions that hold each minute of a day exactly once, as few as a quick search finds.

    Three ways are tried and the shortest answer is taken: the longest progression from the earliest minute on, again
    and again, over the whole day; over the hours of each minute of the hour; within each hour.

    Args:
        minutes: Minutes of a day, 0-1439.

    Returns:
        Progressions in the order of their first minute.
    """
    by_minute, by_hour = defaultdict(set), defaultdict(set)
    for time in minutes:
        by_minute[time % 60].add(time)
        by_hour[time // 60].add(time)
    ways: tuple[list[Progression], ...] = (
        _peel(set(minutes), range(1, DAY_MINUTES)),
        _each(by_minute.values(), range(60, DAY_MINUTES, 60)),
        _each(by_hour.values(), range(1, 60)),
    )
    fewest = min(ways, key=len)
    return sorted(fewest)


def _each(parts: Iterable[set[int]], steps: range) -> list[Progression]:
    return [progression for part in parts for progression in _peel(part, steps)]


def _peel(left: set[int], steps: range) -> list[Progression]:
    """Take the longest progression that begins at the earliest minute, until nothing is left; empties the set."""
    found = []
    while left:
        start = min(left)
        best = Progression(start, 0, 1)
        for step in steps:
            if start + step * best.size >= DAY_MINUTES:
                break  # a longer one does not fit into the day, neither with this step nor with a larger one
            count = 1
            while start + count * step in left:
                count += 1
            if count > best.size:
                best = Progression(start, step, count)
        found.append(best)
        left.difference_update(best.minutes)
    return found
