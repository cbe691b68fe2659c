"""How many items go together: pure arithmetic.

An item that travels alone pays for the way; items that travel together wait for each other, and the last chunk of a
batch keeps one worker busy while the others have nothing to do. So a chunk should take a fixed, short time, however
long an item takes, and become shorter towards the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long chunks are.

    Attributes:
        target: Seconds that one should take where it runs.
        least: Towards the end chunks become shorter, but not shorter than this: the way would cost more than the wait.
        limit: One stops after so many seconds, and gives back what it has not begun: its items took longer than those
            before.
    """

    target: float
    least: float
    limit: float


NEAR = Lengths(0.02, 0.002, 0.1)
"""On the loop and in threads the way costs next to nothing."""

FAR = Lengths(0.1, 0.01, 0.5)
"""In other processes. The way costs 0.3 ms, but where children keep all processors busy, the parent is woken some 2 ms
after an answer has come, and a child without a next chunk waits for that long."""

LOOP_SECONDS = 0.003
"""How long packing and unpacking of one chunk may hold the loop, which others want too."""

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
        lengths: How long chunks should be.
    """

    def __init__(self, lanes: int, fixed: int | None, total: int | None, lengths: Lengths = NEAR) -> None:
        self._lanes, self._fixed, self._total, self._lengths = lanes, fixed, total, lengths
        self._largest = 0  # that has ended
        self._each = 0.0  # seconds an item, where it runs
        self._loop_each = 0.0  # seconds an item, on the loop

    @property
    def limit_seconds(self) -> float:
        """After how long a chunk stops."""
        return self._lengths.limit if self._fixed is None else float("inf")

    def size(self, taken: int) -> int:
        """Return how many items the next chunk has, at least 1, after `taken` were taken from the source."""
        if self._fixed is not None:
            return self._fixed
        if not self._largest:
            return 1
        size = min(_fitting(self._lengths.target, self._each), _fitting(LOOP_SECONDS, self._loop_each))
        size = min(size, self._largest * GROWTH)
        if self._total is not None:
            fair = ceil((self._total - taken) / (2 * self._lanes))
            size = min(size, max(fair, _fitting(self._lengths.least, self._each)))
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
