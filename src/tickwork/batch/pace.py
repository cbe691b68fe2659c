"""How what computes leaves others their turns: a thread the loop, and the lanes of a batch all else on the loop.

The interpreter runs one thread at a time, and takes the turn away from one only after 5 ms. The loop gives its turn up
at each call of the system, and would wait so long for the next one at each of them: several times in one step of a
task. So a thread that computes stops on its own, often and briefly.
"""

from __future__ import annotations

import asyncio
from time import sleep

from ..elapsed import elapsed

__all__ = ["Pace", "Turns"]

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


class Turns:
    """Gives one task a turn of the loop, and others that come meanwhile later ones.

    What comes back to several lanes at the same moment would else be unpacked without anybody else having a turn.
    """

    __slots__ = ("_is_taken",)

    def __init__(self) -> None:
        self._is_taken = False

    async def take(self) -> None:
        """Wait for a turn that no other has taken; most of the time it is this one."""
        while self._is_taken:  # noqa: ASYNC110 - what is waited for is a turn of the loop
            await asyncio.sleep(0)
        self._is_taken = True
        asyncio.get_running_loop().call_soon(self._end)

    def _end(self) -> None:
        self._is_taken = False
