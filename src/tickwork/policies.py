"""What a schedule does with its fire times, and a job with the end of an attempt: decisions without side effects.

Every function takes `now` and returns what is to be done. The scheduler asks, the store does it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from .jobs import JobState, Outcome
from .options import one_of
from .triggers import latest, newest

if TYPE_CHECKING:
    from datetime import datetime

    from .triggers import Trigger

OverlapPolicy = Literal["skip", "allow"]
FirstPolicy = Literal["later", "now"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """How a schedule treats its fire times.

    Attributes:
        overlap: When the previous job of the schedule is not finished: "skip" the fire time, or "allow" both.
        first: "later": at the trigger's first fire time; "now": also when a store first sees the schedule
            (in memory: at each start).
    """

    overlap: OverlapPolicy = "skip"
    first: FirstPolicy = "later"

    def __post_init__(self) -> None:
        one_of("overlap", self.overlap, get_args(OverlapPolicy))
        one_of("first", self.first, get_args(FirstPolicy))


@dataclass(frozen=True, slots=True)
class Due:
    """The fire times that have come since the watermark: one to run, the rest missed.

    Attributes:
        fire_time: The one to run, the latest.
        first: The earliest of all; equal to `fire_time` when it is the only one.
        missed: How many before `fire_time`; None when there are too many to count.
        missed_last: The newest of those; None when there are none.
    """

    fire_time: datetime
    first: datetime
    missed: int | None
    missed_last: datetime | None = None


def due(trigger: Trigger, watermark: datetime, now: datetime) -> Due | None:
    """Return what is due in (watermark, now], or None. Only the latest of several runs (`catch_up="latest"`)."""
    first, last, count = latest(trigger, watermark, now)
    if first is None or last is None:
        return None
    if count == 1:
        return Due(last, first, 0)
    return Due(last, first, None if count is None else count - 1, newest(trigger, watermark, now, 2)[0])


MAX_DEATHS = 3
"""A job under which this many processes died is parked: one death may be chance (memory, an operator), the third
of the same job is the job's own doing."""


def state_after(outcome: Outcome, deaths: int) -> JobState:
    """Return where a job goes when an attempt has ended.

    Args:
        outcome: How the attempt ended.
        deaths: Processes that died under the job, this attempt included.
    """
    match outcome:
        case Outcome.SUCCEEDED:
            return JobState.SUCCEEDED
        case Outcome.CANCELLED:
            return JobState.CANCELLED
        case Outcome.LOST:
            return JobState.PARKED if deaths >= MAX_DEATHS else JobState.QUEUED
        case _:
            return JobState.FAILED
