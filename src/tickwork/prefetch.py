"""How many jobs a process takes from a shared store beyond those that its workers run.

None, when jobs take long: what waits here could run in another process. With short ones the workers would idle during
each claim, so it takes what they are going to begin in the next moment, going by how many have ended lately.
"""

from __future__ import annotations

__all__ = ["Prefetch"]

PREFETCH_SECONDS = 0.05
"""What is taken in advance begins within about this long: some claims, each of which waits for the disk."""
WINDOW_SECONDS = 0.5
"""How long ends are counted for a rate: twenty long jobs that end in the same moment are not a fast stream."""


class Prefetch:
    """Goes by the ends of jobs.

    Args:
        workers: How many jobs run at the same time; as many are taken in advance at the most.
        mono: The present reading of the monotonic clock, in seconds.
    """

    def __init__(self, workers: int, mono: float) -> None:
        self._workers = workers
        self._since_mono = mono
        self._ended = 0
        self._rate = 0.0

    def allowed(self, ended: int, mono: float) -> int:
        """Return how many jobs may wait here.

        Args:
            ended: How many have ended, ever.
            mono: The present reading of the monotonic clock.
        """
        span = mono - self._since_mono
        rate = (ended - self._ended) / max(span, WINDOW_SECONDS)
        if span < WINDOW_SECONDS:  # too short to tell that it has become slower
            rate = max(rate, self._rate)
        else:
            self._rate, self._since_mono, self._ended = rate, mono, ended
        return min(self._workers, int(rate * PREFETCH_SECONDS))
