"""How the ends of jobs and the claim that follows them come into one transaction.

A transaction costs a database more than the rows in it, and each process has its own. As long as jobs wait here to
begin, no worker idles: the ends of others may gather for a moment, and the claim of new ones goes with them. Once a
worker has begun the last job that waited, both go at once.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from .clock import Timer

__all__ = ["Gathering"]

GATHER_SECONDS = 0.01
"""For so long ends gather at the most: some commits long, and a fraction of what one takes on a busy database."""


class Gathering:
    """Lets the one who writes ends and the one who claims go at the same moment.

    Args:
        waiting: Returns how many jobs wait here to begin.
        call_later: Sets a timer.
    """

    def __init__(self, waiting: Callable[[], int], call_later: Callable[..., Timer]) -> None:
        self._waiting = waiting
        self._call_later = call_later
        self._is_over = asyncio.Event()
        self._turn = asyncio.Event()

    async def let_gather(self, *, is_awaited: bool) -> None:
        """Let ends gather for a moment, then let the claim go. Called before ends are written.

        Args:
            is_awaited: Whether somebody waits for a result; then nothing gathers.
        """
        if self._waiting() and not is_awaited:
            self._is_over.clear()
            timer = self._call_later(GATHER_SECONDS, self._is_over.set)
            try:
                await self._is_over.wait()
            finally:
                timer.cancel()
        self.go()

    async def turn(self) -> None:
        """Wait until ends are written or nothing waits here any more. Called before a claim."""
        if self._waiting():
            self._turn.clear()
            await self._turn.wait()
        else:
            await asyncio.sleep(0)  # who writes ends comes to it one turn of the loop later

    def began(self) -> None:
        """Hear that a job begins: with the last one that waited, nothing more is waited for."""
        if not self._waiting():
            self.go()

    def go(self) -> None:
        """Let nobody wait any more."""
        self._is_over.set()
        self._turn.set()
