"""`async for tick in Cron("*/5 * * * *")`: the fire times of a trigger, each when it has come.

    async for tick in Every("30s"):
        await poll()
        if tick.missed:
            ...  # the last round took longer than the period

A loop for scripts: no app, no store, no jobs. The body is the job, so it never overlaps itself. Fire times that pass
while the body runs, or while the machine sleeps, are not made up for one by one: the latest of them comes at once,
and says how many it stands for.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .clock import running_clock
from .triggers import latest

if TYPE_CHECKING:
    from datetime import datetime
    from typing import Self

    from .clock import Clock
    from .triggers import Trigger


@dataclass(frozen=True, slots=True)
class Tick:
    """A fire time that has come.

    Attributes:
        fire_time: The instant at which it was due (aware, UTC).
        late_by: Seconds between that instant and now.
        missed: How many earlier fire times it stands for; None: too many to count.
    """

    fire_time: datetime
    late_by: float
    missed: int | None


class Ticks:
    """The fire times of a trigger after now, one by one. What `async for` over a trigger iterates.

    Cancelling the wait loses nothing: the next wait goes on from the last tick.

    Args:
        trigger: Any trigger.
        clock: Tells the time; None: the real one, or the virtual one of the loop it runs on.
    """

    def __init__(self, trigger: Trigger, clock: Clock | None = None) -> None:
        self._trigger = trigger
        self._clock = clock
        self._answered: datetime | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Tick:
        clock = self._clock = self._clock or running_clock()
        if self._answered is None:
            self._answered = clock.now()
        while True:
            now = clock.now()
            _, fire_time, count = latest(self._trigger, self._answered, now)
            if fire_time is not None:
                # A body that never waits must not hold the loop, however late it is.
                await asyncio.sleep(0)
                self._answered = fire_time  # not before: a cancelled wait must find it again
                late_by = (clock.now() - fire_time).total_seconds()
                return Tick(fire_time, late_by, None if count is None else count - 1)
            following = self._trigger.next(self._answered)
            if following is None:
                raise StopAsyncIteration
            await _sleep_until(following, clock)


async def _sleep_until(when: datetime, clock: Clock) -> None:
    """Sleep until about `when`: the caller looks again, since the clock may be set meanwhile."""
    woken = asyncio.Event()
    timer = clock.call_at(when, woken.set)
    try:
        await woken.wait()
    finally:
        timer.cancel()
