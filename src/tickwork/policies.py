"""What a schedule does with its fire times, and a job with the end of an attempt: decisions without side effects.

Every function takes `now` and returns what is to be done. The scheduler asks, the store does it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, get_args

from .errors import InvalidOption
from .jobs import JobState, Outcome
from .options import one_of, positive
from .triggers import latest, newest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from .jobs import JobRecord
    from .triggers import Trigger

OverlapPolicy = Literal["skip", "queue", "replace", "allow"]
CatchUpPolicy = Literal["latest", "none", "all"]
FirstPolicy = Literal["later", "now"]

PROMPT_SECONDS = 1.0
"""A fire time that is noticed within this long was not missed: a loop is seldom held longer, a machine that slept or a
process that was down nearly always is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """How a schedule treats its fire times.

    Attributes:
        overlap: When the previous job of the schedule is not finished: "skip" the fire time; "queue" one job behind
            it, into which later fire times merge; "replace" it, cancelled, by a new one that begins when it has ended;
            "allow" both.
        catch_up: Which of the fire times that passed while the app was down, blocked or asleep become jobs: the
            "latest", "none", or "all".
        max_catch_up: How many "all" makes at the most: the newest.
        grace: Seconds that a start may be late, counted from the fire time and its jitter; later, it is missed.
            None: no limit.
        jitter: Seconds by which a start is put off at the most, drawn anew for each fire time, and less than the time
            to the next one.
        first: "later": at the trigger's first fire time; "now": also when a store first sees the schedule
            (in memory: at each start).
    """

    overlap: OverlapPolicy = "skip"
    catch_up: CatchUpPolicy = "latest"
    max_catch_up: int = 100
    grace: float | None = None
    jitter: float = 0.0
    first: FirstPolicy = "later"

    def __post_init__(self) -> None:
        one_of("overlap", self.overlap, get_args(OverlapPolicy))
        one_of("catch_up", self.catch_up, get_args(CatchUpPolicy))
        one_of("first", self.first, get_args(FirstPolicy))
        positive("max_catch_up", self.max_catch_up)
        if self.catch_up == "all" and self.overlap != "allow":
            raise InvalidOption(
                "catch_up",
                f'"latest" or "none" with overlap="{self.overlap}"',
                "all",
                remedy='it lets only one of them run; add overlap="allow"',
            )


@dataclass(frozen=True, slots=True)
class Due:
    """What becomes of the fire times that have come since the watermark.

    Attributes:
        runs: Those that become jobs, ascending.
        watermark: The newest of all.
        missed: How many are let pass, all of them before the first run; None: too many to count.
        missed_first: The earliest of those; None when there are none.
        missed_last: The newest of those.
    """

    runs: tuple[datetime, ...]
    watermark: datetime
    missed: int | None = 0
    missed_first: datetime | None = None
    missed_last: datetime | None = None


def due(trigger: Trigger, watermark: datetime, now: datetime, policies: Policies) -> Due | None:
    """Decide about the fire times in (watermark, now]; None when there are none."""
    first, last, count = latest(trigger, watermark, now)
    if first is None or last is None:
        return None
    runs = _runs(trigger, watermark, now, last, policies)
    if len(runs) == count:
        return Due(runs, last)
    missed = None if count is None else count - len(runs)
    # What is not run lies before what is, so the newest of it is found among the few newest of all.
    missed_last = newest(trigger, watermark, now, len(runs) + 1)[0]
    return Due(runs, last, missed, first, missed_last)


def _runs(
    trigger: Trigger, watermark: datetime, now: datetime, last: datetime, policies: Policies
) -> tuple[datetime, ...]:
    """Return the fire times that become jobs, ascending."""
    if policies.catch_up == "all":
        found = tuple(newest(trigger, watermark, now, policies.max_catch_up))
    elif policies.catch_up == "none" and now - last > timedelta(seconds=PROMPT_SECONDS):
        found = ()
    else:
        found = (last,)
    if policies.grace is None:
        return found
    # The exact limit is that of the jitter drawn; here only what no jitter could save is let pass.
    limit = now - timedelta(seconds=policies.grace + policies.jitter)
    return tuple(fire_time for fire_time in found if fire_time >= limit)


def start_at(fire_time: datetime, following: datetime | None, policies: Policies, draw: float) -> datetime:
    """Return when the job of a fire time is to start.

    Args:
        fire_time: The fire time.
        following: The next one; None: there is none.
        policies: The schedule's.
        draw: A random number in [0, 1).
    """
    if not policies.jitter:
        return fire_time
    most = timedelta(seconds=policies.jitter)
    if following is not None:
        most = min(most, following - fire_time)
    return fire_time + most * draw


@dataclass(frozen=True, slots=True)
class Overlap:
    """What becomes of a fire time while other jobs of its schedule are unfinished.

    Attributes:
        outcome: "ran": a job is made; "skipped" and "merged": none.
        blocked_by: The job that made it skip, or into which it merges.
        cancel: The jobs to be cancelled for it.
        behind: The jobs that must have ended before the new one may begin.
    """

    outcome: Literal["ran", "skipped", "merged"] = "ran"
    blocked_by: str | None = None
    cancel: tuple[str, ...] = ()
    behind: tuple[str, ...] = ()


def overlap(policy: OverlapPolicy, unfinished: Sequence[JobRecord]) -> Overlap:
    """Decide about a fire time.

    Args:
        policy: The schedule's.
        unfinished: Its unfinished jobs, the oldest first. One that waits for a retry is unfinished, too.
    """
    if not unfinished or policy == "allow":
        return Overlap()
    if policy == "skip":
        return Overlap("skipped", unfinished[0].id)
    waiting = [job for job in unfinished if job.state is not JobState.RUNNING and not job.attempt]
    if policy == "queue":
        if waiting:
            return Overlap("merged", waiting[0].id)
        return Overlap(behind=tuple(job.id for job in unfinished))
    running = tuple(job.id for job in unfinished if job.state is JobState.RUNNING)
    return Overlap(cancel=tuple(job.id for job in unfinished), behind=running)


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
