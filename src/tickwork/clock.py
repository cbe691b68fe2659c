"""The clock: what time it is, and a timer. The only module that reads the time.

Everything that needs an instant or a timer is given a `Clock`, so that a test can turn it. `SystemClock` is the
real one: wall time from the operating system, timers from the running event loop.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

MAX_SLEEP_SECONDS = 30.0
"""The longest uninterrupted sleep on the real clock: the loop's timers run on the monotonic clock, which neither
sees a corrected wall clock nor (on Linux) the hours of a suspend. Half a minute is the most that such a jump can
delay a start, and two wake-ups a minute are not measurable as load."""

JUMP_SECONDS = 1.0
"""A difference between wall and monotonic clock that is a jump and not the slewing of a time daemon: those move
by 0.5 ms a second at the most, 15 ms in the longest sleep."""

AHEAD_SECONDS = 0.1
"""Time enough to prepare a thousand runs, also on a busy machine: that takes 20 ms of processor time, and would make
the last of them begin so much later if it were done when they are due."""

LATE_SECONDS = 1.0
"""A start that is later than this is worth an explanation, and so is a loop that was held for this long."""


class Timer(Protocol):
    """A pending call that can be called off."""

    def cancel(self) -> None:
        """Call it off; no effect once it has run."""


class Clock(ABC):
    """Wall time, a monotonic reading and timers, from one source."""

    max_sleep_seconds: float = MAX_SLEEP_SECONDS
    ahead_seconds: float = 0.0
    """How long before a fire time it is decided what becomes of it; 0: not before it has come, where time stands still
    meanwhile."""

    @abstractmethod
    def now(self) -> datetime:
        """Return the wall time: aware, UTC."""

    @abstractmethod
    def monotonic(self) -> float:
        """Return seconds that never go back, from an arbitrary zero."""

    @abstractmethod
    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Timer:
        """Call `callback(*args)` on the running loop after `delay` seconds."""

    def call_at(self, when: datetime, callback: Callable[..., object], *args: Any) -> Timer:
        """Call `callback(*args)` on the running loop when the wall clock shows `when`, or earlier.

        Timers of a loop do not follow a wall clock that is set, so the call may come early: after
        `max_sleep_seconds`, or when the clock jumps. Whoever is called looks at `now()` and asks again.
        """
        delay = (when - self.now()).total_seconds()
        return self.call_later(max(0.0, min(delay, self.max_sleep_seconds)), callback, *args)

    def jump(self) -> float:
        """Return by how many seconds the wall clock left the monotonic one since the last call, 0.0 if it did not.

        Positive: forwards, as after a suspend. Differences under a second are none.
        """
        return 0.0


class SystemClock(Clock):
    """The real clock."""

    ahead_seconds = AHEAD_SECONDS

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def now(self) -> datetime:
        """Return the operating system's time."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return `time.monotonic()`."""
        return time.monotonic()

    def cpu_seconds(self) -> float:
        """Return the processor time that all threads of this process have used."""
        return time.process_time()

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Timer:
        """Set a timer of the running event loop."""
        return asyncio.get_running_loop().call_later(delay, callback, *args)

    def jump(self) -> float:
        """Compare wall and monotonic clock with the last call."""
        offset = time.time() - time.monotonic()
        moved, self._offset = offset - self._offset, offset
        return moved if abs(moved) >= JUMP_SECONDS else 0.0


# --- virtual time and what happens outside of the loop ---------------------------------------------------------


class Outside:
    """How much is under way outside of a loop whose time is virtual. The time stands still meanwhile."""

    __slots__ = ("clock", "count")

    def __init__(self, clock: Clock) -> None:
        self.clock: Clock = clock
        self.count: int = 0

    def __enter__(self) -> None:
        self.count += 1

    def __exit__(self, *_: object) -> None:
        self.count -= 1


virtual_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, Outside] = WeakKeyDictionary()
"""The loops whose time is virtual: none, except in tests."""

_NOTHING = nullcontext()


def outside() -> AbstractContextManager[None]:
    """Return a context manager around the wait for a thread, a process or a connection.

    Real time passes there. A virtual clock cannot know how much, so it does not move on until the block is left.
    """
    if not virtual_loops:
        return _NOTHING
    return virtual_loops.get(asyncio.get_running_loop(), _NOTHING)


def running_clock() -> Clock:
    """Return the clock of the running loop: the real one, or the virtual one that a test has given it."""
    found = virtual_loops.get(asyncio.get_running_loop())
    return SystemClock() if found is None else found.clock
