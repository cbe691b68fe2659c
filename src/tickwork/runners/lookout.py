"""Looking out for an answer that is due at once, instead of waiting for the loop to be woken by it.

To sleep until an answer comes and to be woken by it takes some 20 us of the processor, and 50 us and more until it has
woken up where it had nothing else to do; a small function has returned by then. So whoever has sent a call looks for
the answer for a moment first, as often as that has been worth while before: what is not found makes it pass over ever
more calls, until one is found again. The loop is not held for longer than it would take to come back to it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ..elapsed import elapsed
from .options import usable_processors

if TYPE_CHECKING:
    from collections.abc import Callable

LOOK_SECONDS = 0.00004
"""How long one look takes."""
MOST_PASSED_OVER = 1_024
"""So many calls are passed over after many looks in vain: these then cost 40 ns a call."""
TURN_SECONDS = 0.001
"""After so long without a turn the loop has one, although the answer is there."""


class Lookout:
    """When to look for answers, by what has become of it."""

    def __init__(self) -> None:
        # With one processor the child would have to wait. Windows has a read under way that must have what comes.
        self._is_of_use = sys.platform != "win32" and usable_processors() > 1
        self._left = 0  # calls to be passed over
        self._next = 1  # so many after the next look in vain
        self._turned = 0.0

    def is_due(self) -> bool:
        """Tell whether to look for the answer of the call that was just sent."""
        if self._left:
            self._left -= 1
            return False
        return self._is_of_use

    def look(self, is_there: Callable[[], bool]) -> bool:
        """Ask again and again, for a moment; return whether it is there."""
        until = elapsed() + LOOK_SECONDS
        while elapsed() < until:
            if is_there():
                self._next = 1
                return True
        self._left = self._next
        self._next = min(2 * self._next, MOST_PASSED_OVER)
        return False

    def is_turn_of_others(self) -> bool:
        """Tell whether it is time for the loop to have a turn, when answers come without one."""
        now = elapsed()
        if now - self._turned < TURN_SECONDS:
            return False
        self._turned = now
        return True
