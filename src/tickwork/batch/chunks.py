"""How many items go together: pure arithmetic.

An item that travels alone pays for the way; items that travel together wait for each other, and the last chunk of a
batch keeps one worker busy while the others have nothing to do. So a chunk should take a fixed, short time, however
long an item takes, and become shorter towards the end.
"""

from __future__ import annotations

from math import ceil

TARGET_SECONDS = 0.02
"""How long a chunk should take where it runs. The way there and back costs some 0.3 ms: one and a half percent."""

LOOP_SECONDS = 0.003
"""How long packing and unpacking of one chunk may hold the loop, which others want too."""

LEAST_SECONDS = 0.002
"""Towards the end chunks become shorter, but not shorter than this: the way would cost more than the waiting."""

LIMIT_SECONDS = 0.1
"""A chunk stops after this long, and gives back what it has not begun: its items took longer than those before."""

GROWTH = 64
"""By how much a chunk may be larger than the largest so far: what the first items took need not hold for all."""

MAX_ITEMS = 10_000
"""The most items of a chunk: what a batch keeps in memory depends on it."""


class Sizer:
    """Tells the size of the next chunk, and learns from those that have ended.

    Args:
        lanes: How many chunks are under way at a time.
        fixed: A size that the caller wants; None: it is found.
        total: How many items there are; None: that is not known.
    """

    def __init__(self, lanes: int, fixed: int | None, total: int | None) -> None:
        self._lanes, self._fixed, self._total = lanes, fixed, total
        self._largest = 0  # that has ended
        self._each = 0.0  # seconds an item, where it runs
        self._loop_each = 0.0  # seconds an item, on the loop

    @property
    def limit_seconds(self) -> float:
        """After how long a chunk stops."""
        return LIMIT_SECONDS if self._fixed is None else float("inf")

    def size(self, taken: int) -> int:
        """Return how many items the next chunk has, at least 1, after `taken` were taken from the source."""
        if self._fixed is not None:
            return self._fixed
        if not self._largest:
            return 1
        size = min(_fitting(TARGET_SECONDS, self._each), _fitting(LOOP_SECONDS, self._loop_each))
        size = min(size, self._largest * GROWTH)
        if self._total is not None:
            fair = ceil((self._total - taken) / (2 * self._lanes))
            size = min(size, max(fair, _fitting(LEAST_SECONDS, self._each)))
        return max(1, size)

    def learn(self, count: int, seconds: float, loop_seconds: float) -> None:
        """Take in what a chunk of `count` items took where it ran, and on the loop."""
        weight = 1.0 if not self._largest else 0.5
        self._each += weight * (seconds / count - self._each)
        self._loop_each += weight * (loop_seconds / count - self._loop_each)
        self._largest = max(self._largest, count)


def _fitting(seconds: float, each: float) -> int:
    """Return how many items of `each` seconds fit into `seconds`, at most MAX_ITEMS."""
    return MAX_ITEMS if each * MAX_ITEMS <= seconds else int(seconds / each)
