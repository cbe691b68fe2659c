"""Who held the event loop, when, and how it is told: the watchdog's findings."""

from __future__ import annotations

import logging
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

logger: logging.Logger = logging.getLogger("tickwork.watchdog")

KEPT = 16
"""How many holds are kept: whoever starts late asks at once, so the last one would nearly do."""

REPEAT_SECONDS = 60.0
"""How long a line that is not a job's stays untold after a warning: a web service may pass it at each request."""

MAX_LINES = 256
"""How many such lines are remembered, the latest."""


class Culprit(Protocol):
    """A job's attempt, as the watchdog sees it."""

    is_block_told: bool
    """Whether a warning has named it: once for each attempt."""

    def describe(self) -> str:
        """Return task and job id."""

    def extra(self) -> dict[str, Any]:
        """Return what log records about it carry."""


@dataclass(frozen=True, slots=True)
class Hold:
    """A time in which something held the loop.

    Attributes:
        what: "jobs.poll job=01m8...", "task 'Task-7' (main.handler)" or "callback main.tick".
        job_id: The id of the job whose code it was; None: no job's.
        line: "jobs.py:14 in poll: time.sleep(3)", the deepest line in code of the user's when it was looked at; None:
            it was in no Python code, or gone when somebody could look.
        stack: The frames above the loop's own, as Python prints them; may be empty.
        begin_mono: The last sign of life of the loop before, on the monotonic clock: up to a fifth of
            `block_warn_seconds` early.
        end_mono: When the loop went on; None: it is still held.
        number: Which one it is: its beginning and its line may still be found to be others.
    """

    what: str
    job_id: str | None
    line: str | None
    stack: str
    begin_mono: float
    end_mono: float | None = None
    number: int = field(default_factory=count().__next__, compare=False)

    @property
    def seconds(self) -> float | None:
        """How long it was; None: it is still held."""
        return None if self.end_mono is None else self.end_mono - self.begin_mono

    @property
    def where(self) -> str:
        """Its line, ready to be put behind a text: " at jobs.py:14 in poll: time.sleep(3)", or nothing."""
        return "" if self.line is None else f" at {self.line}"

    def __str__(self) -> str:
        """Return who, for how long and at which line."""
        return f"{self.what}{'' if self.seconds is None else f' for {self.seconds:.1f} s'}{self.where}"


class Holds:
    """The last holds, and the present one. One thread writes; any thread may ask."""

    def __init__(self) -> None:
        self.present: Hold | None = None
        self._past: deque[Hold] = deque(maxlen=KEPT)

    def end(self, at_mono: float) -> Hold:
        """End the present one."""
        assert self.present is not None
        return self.add(replace(self.present, end_mono=max(at_mono, self.present.begin_mono)))

    def add(self, hold: Hold) -> Hold:
        """Keep one that has ended."""
        self._past.append(hold)
        self.present = None  # after the line above, so that whoever asks in between finds it twice and not nowhere
        return hold

    def covering(self, begin_mono: float, end_mono: float) -> Hold | None:
        """Return what held the loop during a time: the longest of the holds, when together they make up half of it.

        Args:
            begin_mono: The beginning, on the monotonic clock.
            end_mono: The end: a moment at which the loop runs, such as now. The present hold is over by then.
        """
        present = self.present
        found = {hold.number: hold for hold in tuple(self._past)}
        if present is not None:
            found.setdefault(present.number, present)
        inside: list[tuple[float, Hold]] = []
        for hold in found.values():
            until = end_mono if hold.end_mono is None else hold.end_mono
            if (seconds := min(end_mono, until) - max(begin_mono, hold.begin_mono)) > 0:
                inside.append((seconds, hold))
        if sum(seconds for seconds, _ in inside) < (end_mono - begin_mono) / 2:
            return None  # it was late for another reason: all workers were busy, say
        longest = max(inside, key=lambda pair: pair[0])[1]
        return longest if longest.end_mono is not None else replace(longest, end_mono=end_mono)


class Reports:
    """The warnings. A job's attempt is named once, a line of anybody else's once a minute.

    A handler of the user's that raises disturbs nothing: the watchdog goes on.
    """

    def __init__(self, time: Callable[[], float]) -> None:
        self._time = time
        self._told: dict[str, tuple[float, int]] = {}

    def blocks(self, hold: Hold, culprit: Culprit | None) -> bool:
        """Say that something holds the loop, and return whether that was said."""
        more = 0
        if culprit is not None:
            if culprit.is_block_told:
                return False
            culprit.is_block_told = True
        elif (found := self._may_tell(hold.line or hold.what)) is None:
            return False
        else:
            more = found
        seconds = self._time() - hold.begin_mono
        again = f" ({more} more of these since the last warning)" if more else ""
        self._warn(
            "%s blocks the loop: %.2f s so far%s%s", hold.what, seconds, hold.where, again, hold=hold, by=culprit
        )
        return True

    def blocked(self, hold: Hold, culprit: Culprit | None) -> None:
        """Say that the loop goes on after a hold that was told."""
        self._warn("%s blocked the loop for %.2f s%s", hold.what, hold.seconds, hold.where, hold=hold, by=culprit)

    def _may_tell(self, line: str) -> int | None:
        """Return how many were kept quiet at this line since the last warning; None: this one is kept quiet, too."""
        now = self._time()
        told = self._told.pop(line, None)
        if told is not None and now - told[0] < REPEAT_SECONDS:
            self._told[line] = told[0], told[1] + 1
            return None
        while len(self._told) >= MAX_LINES:
            del self._told[next(iter(self._told))]
        self._told[line] = now, 0
        return 0 if told is None else told[1]

    def _warn(self, message: str, *values: object, hold: Hold, by: Culprit | None) -> None:
        with suppress(Exception):
            extra = {} if by is None else by.extra()
            logger.warning(message, *values, extra={**extra, "stack": hold.stack})
