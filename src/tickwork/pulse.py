"""The pulse of a worker process: every few seconds it tells the store that it lives, and how it does."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from .shield import is_meant_for_us

if TYPE_CHECKING:
    from collections.abc import Callable

    from .clock import Clock
    from .stores.base import Store
    from .stores.views import Vitals

logger: logging.Logger = logging.getLogger("tickwork.app")

PULSE_SECONDS = 5.0
"""How often: seldom enough that the write costs nothing, often enough for a person who looks."""


async def pulse(store: Store, worker: str, clock: Clock, vitals: Callable[[], Vitals]) -> None:
    """Tell the store, for ever. What it raises, whoever claims and finishes meets too, and says.

    Args:
        store: Where it is told.
        worker: The name of this process.
        clock: Measures by how much the loop wakes this up too late.
        vitals: Returns the rest.
    """
    pause = 0.0
    while True:
        before = clock.monotonic()
        await asyncio.sleep(pause)
        lag = max(0.0, clock.monotonic() - before - pause)
        pause = PULSE_SECONDS
        try:
            # Reading a file of the system's blocks for some microseconds, importing psutil for some milliseconds.
            rss = await asyncio.to_thread(_rss_bytes)
            await store.beat(worker, replace(vitals(), rss_bytes=rss, lag_seconds=lag))
        except BaseException as error:
            if is_meant_for_us(error):
                raise
            logger.debug("the store did not take the pulse: %r", error)


def _rss_bytes() -> int | None:
    """Return how much memory this process holds; None where the system does not tell."""
    import psutil

    try:
        return int(psutil.Process().memory_info().rss)
    except psutil.Error:
        return None
