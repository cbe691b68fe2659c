"""How a thread that computes leaves the loop its turns.

The interpreter runs one thread at a time, and takes the turn away from one only after 5 ms. The loop gives its turn up
at each call of the system, and would wait so long for the next one at each of them: several times in one step of a
task. So a thread that computes stops on its own, often and briefly.
"""

from __future__ import annotations

from time import sleep

from ..elapsed import elapsed

__all__ = ["Pace"]

WORK_SECONDS = 0.001
"""How long a thread computes in one go."""
PAUSE_SECONDS = 0.00005
"""How long it stops, at least: it must be asleep, or it would have the next turn as well."""


class Pace:
    """Lets a thread that computes stop in time."""

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until = elapsed() + WORK_SECONDS

    def keep(self) -> None:
        """Stop for a moment, if it is time for that. To be called often: it costs a tenth of a microsecond."""
        if elapsed() >= self._until:
            sleep(PAUSE_SECONDS)
            self._until = elapsed() + WORK_SECONDS
