"""The time of the server, as it is known here: all processes go by it, however their hosts' clocks are set."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from .instants import EPOCH

if TYPE_CHECKING:
    from ..clock import Clock

DRIFT = 0.0002
"""By how much the clocks of two hosts part, at the most, per second: a worse reading is better after so long."""


class ServerTime:
    """The time of the server: the monotonic clock of this process, and by how much the server's is ahead of it.

    Each answer of the server tells that within half the time that it took to come; the closest is kept.

    Args:
        clock: The clock of this process.
        is_own: Go by that clock alone: in tests, which turn it.
    """

    def __init__(self, clock: Clock, *, is_own: bool) -> None:
        self._clock = clock
        self.is_own = is_own
        self._heard: tuple[float, float, float] | None = None
        """Seconds by which the server's time is ahead of the monotonic, the error of that, and when it was heard."""

    def hear(self, us: int, sent: float, heard: float) -> None:
        """Take notice of a time that the server told; may be called in any thread.

        Args:
            us: The time, in microseconds since the Unix epoch.
            sent: When it was asked, on the monotonic clock.
            heard: When the answer came.
        """
        error = (heard - sent) / 2
        ahead = us / 1_000_000 - (sent + heard) / 2
        known = self._heard
        if known is not None:
            worst = known[1] + (heard - known[2]) * DRIFT
            if error > worst and abs(ahead - known[0]) <= error + worst:
                return
        self._heard = ahead, error, heard

    def now(self) -> datetime:
        """Return the server's time; may be called in any thread."""
        if self.is_own or self._heard is None:
            return self._clock.now()
        return EPOCH + timedelta(seconds=self._clock.monotonic() + self._heard[0])

    def us(self) -> int:
        """Return the same in microseconds since the Unix epoch."""
        return (self.now() - EPOCH) // timedelta(microseconds=1)
