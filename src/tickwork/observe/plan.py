"""The plan of several schedules in a window of time, as a plain value: who starts when, and what to look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from ..policies import OverlapPolicy
    from .firing import Touched
    from .runs import Run

__all__ = ["Change", "Collision", "Lane", "Peak", "Plan"]


@dataclass(frozen=True, slots=True)
class Lane:
    """What one schedule does in the window.

    Attributes:
        name: Its name.
        when: Its trigger as people read it, such as "every 30s" or "0 5 * * mon-fri".
        timezone: The zone by whose clocks it fires.
        overlap: What happens when a run is not finished at the next fire time.
        jitter: Seconds by which a start may be put off.
        duration: Seconds that a run takes; None: not known.
        count: How many fire times there are.
        counts: The same for each bucket of the plan.
        is_estimated: Whether these numbers are an estimate: the fire times were too many to be visited.
        starts: All fire times (UTC), ascending; empty when there are more than 10,000.
        following: The first fire time after the window (UTC); None: there is none.
        touched: The fire times that a change of the clocks touches, at most 500.
        runs: Beginning and end of each run (UTC); empty when the duration is not known.
        dropped_count: How many fire times get no run of their own, because the one before still goes on: skipped,
            or with overlap="queue" merged.
        dropped: Those fire times; empty when `starts` is.
        is_background: Whether collisions do not count it: it starts in every other minute or more often, more than
            10,000 times, or is spread by a jitter of a minute or more.
        error: What its trigger raised; None: it is well. Such a lane has no fire times.
    """

    name: str
    when: str
    timezone: str
    overlap: OverlapPolicy = "skip"
    jitter: float = 0.0
    duration: float | None = None
    count: int = 0
    counts: tuple[int, ...] = ()
    is_estimated: bool = False
    starts: tuple[datetime, ...] = ()
    following: datetime | None = None
    touched: tuple[Touched, ...] = ()
    runs: tuple[Run, ...] = ()
    dropped_count: int = 0
    dropped: tuple[datetime, ...] = ()
    is_background: bool = False
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """A change of the clocks of the plan's zone.

    Attributes:
        at: When (UTC).
        shift: Seconds by which the clocks are moved: forward (a gap) is more than zero, back (a fold) less.
        before: What they would have shown, such as "02:00".
        after: What they show instead.
    """

    at: datetime
    shift: float
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Collision:
    """Schedules that start in the same minute.

    Attributes:
        at: The first minute in which exactly these start: its beginning (UTC).
        names: Their names, in the order of the lanes.
        count: How many such minutes there are.
    """

    at: datetime
    names: tuple[str, ...]
    count: int


@dataclass(frozen=True, slots=True)
class Peak:
    """How many runs are expected to go on together at the most, and since when first (UTC)."""

    count: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Plan:
    """The schedules of an app in a window of time.

    Attributes:
        start: The beginning (UTC).
        end: The end (UTC), which is no part of it.
        timezone: The zone in which it is shown.
        edges: Where buckets begin, and the end: ascending, from `start` to `end`.
        lanes: One for each schedule, in the order given.
        changes: The changes of the zone's clocks.
        collisions: Which schedules start in the same minute: the most together first, at most 100 such groups.
        collision_count: In how many minutes more than one schedule starts.
        crowds: For each bucket, how many schedules start together in its fullest minute; 0: no collision.
        peak: The most runs at a time, of the schedules whose duration is known; None: none is.
    """

    start: datetime
    end: datetime
    timezone: str
    edges: tuple[datetime, ...]
    lanes: tuple[Lane, ...]
    changes: tuple[Change, ...]
    collisions: tuple[Collision, ...]
    collision_count: int
    crowds: tuple[int, ...]
    peak: Peak | None

    @property
    def count(self) -> int:
        """How many fire times there are in all."""
        return sum(lane.count for lane in self.lanes)

    @property
    def is_estimated(self) -> bool:
        """Whether `count` is an estimate."""
        return any(lane.is_estimated for lane in self.lanes)
