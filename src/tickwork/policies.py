"""What a schedule does with its fire times, and a job with the end of an attempt: decisions without side effects.

Every function takes `now` and returns what is to be done. The scheduler asks, the store does it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, get_args

from .durations import format_seconds
from .errors import InvalidOption
from .jobs import JobState, Outcome
from .options import one_of, positive
from .records import record
from .triggers import Every, latest, newest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from .jobs import JobRecord, NewJob
    from .stores.base import ScheduleRow
    from .triggers import Trigger

_MICROSECOND = timedelta(microseconds=1)

OverlapPolicy = Literal["skip", "queue", "replace", "allow"]
CatchUpPolicy = Literal["latest", "none", "all"]
FirstPolicy = Literal["later", "now"]
AfterPolicy = Literal["end"]

PROMPT_SECONDS = 1.0
"""A fire time that is noticed within this long was not missed: a loop is seldom held longer, a machine that slept or a
process that was down nearly always is. A start that is later than this is late, and its reason is looked for."""

MAX_CATCH_UP = 100
"""How many fire times `catch_up="all"` makes up for unless told: more is seldom wanted, and never in one moment."""


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
        after: "end": each fire time comes one period after the end of the last job. None: the trigger's own.
        start_at: The first instant at which the schedule may be due (UTC). None: no bound.
        end_at: The last one. None: no bound.
        max_runs: After this many jobs the schedule is finished; manual ones do not count. None: it never is.
        expect_within: Seconds within which a job of the schedule should succeed again; what `App.health` goes by.
            None: nothing is expected.
    """

    overlap: OverlapPolicy = "skip"
    catch_up: CatchUpPolicy = "latest"
    max_catch_up: int = MAX_CATCH_UP
    grace: float | None = None
    jitter: float = 0.0
    first: FirstPolicy = "later"
    after: AfterPolicy | None = None
    start_at: datetime | None = None
    end_at: datetime | None = None
    max_runs: int | None = None
    expect_within: float | None = None

    def __post_init__(self) -> None:
        one_of("overlap", self.overlap, get_args(OverlapPolicy))
        one_of("catch_up", self.catch_up, get_args(CatchUpPolicy))
        one_of("first", self.first, get_args(FirstPolicy))
        one_of("after", self.after, (*get_args(AfterPolicy), None))
        positive("max_catch_up", self.max_catch_up)
        if self.max_runs is not None:
            positive("max_runs", self.max_runs)
        self._refuse_contradictions()

    def _refuse_contradictions(self) -> None:
        if self.after == "end":
            for option, default in (("overlap", "skip"), ("catch_up", "latest")):
                given = getattr(self, option)
                if given != default:
                    raise InvalidOption(
                        option,
                        'left out with after="end"',
                        given,
                        remedy="a run is due after the last one, never twice",
                    )
        if self.catch_up == "all" and self.overlap != "allow":
            raise InvalidOption(
                "catch_up",
                f'"latest" or "none" with overlap="{self.overlap}"',
                "all",
                remedy='it lets only one of them run; add overlap="allow"',
            )
        if self.max_catch_up != MAX_CATCH_UP and self.catch_up != "all":
            raise InvalidOption(
                "max_catch_up",
                'given with catch_up="all"',
                self.max_catch_up,
                remedy="others make up for one at the most",
            )
        if self.first == "now" and self.start_at is not None:
            raise InvalidOption("first", '"later" with start_at', "now", remedy="nothing may run before start_at")
        if self.start_at is not None and self.end_at is not None and self.end_at < self.start_at:
            raise InvalidOption("end_at", f"not before start_at={self.start_at.isoformat()}", self.end_at.isoformat())

    def said(self, *options: str) -> str:
        """Return options as they are written: `overlap="skip", grace="5m"`."""
        return ", ".join(f"{option}={_written(getattr(self, option))}" for option in options)


def _written(value: object) -> str:
    if isinstance(value, float):
        return f'"{format_seconds(value)}"'
    return f'"{value}"' if isinstance(value, str) else repr(value)


def check_trigger(trigger: Trigger, policies: Policies) -> None:
    """Refuse policies that a trigger cannot follow.

    Raises:
        InvalidOption: `after="end"` with anything but a plain `Every`.
    """
    if policies.after == "end" and (type(trigger) is not Every or trigger.anchor is not None):
        raise InvalidOption(
            "after",
            "left out with this trigger",
            "end",
            remedy=f"it needs a plain period, such as Every('30s'), not {trigger!r}",
        )


def period_after_end(trigger: Trigger, policies: Policies) -> float | None:
    """Return how many seconds after the end of a job the next fire time comes, or None for a trigger's own."""
    return trigger.period_seconds if policies.after == "end" and isinstance(trigger, Every) else None


def first_after_end(trigger: Trigger, policies: Policies, now: datetime) -> datetime | None:
    """Return the first fire time of an `after="end"` schedule that a store sees now; None for any other."""
    period = period_after_end(trigger, policies)
    if period is None:
        return None
    start = now + timedelta(seconds=period)
    return start if policies.start_at is None else max(start, policies.start_at)


def is_due_at_once(row: ScheduleRow, policies: Policies, now: datetime) -> bool:
    """Return whether a schedule that a store has just seen runs now, beside its trigger's fire times."""
    is_new = row.version == 1 and not row.paused
    return policies.first == "now" and is_new and (policies.end_at is None or now <= policies.end_at)


def following(
    trigger: Trigger, row: ScheduleRow, policies: Policies, known: tuple[datetime, datetime | None] | None = None
) -> datetime | None:
    """Return the next fire time of a schedule, or None: it is paused, finished, or waits for the end of its job.

    Args:
        trigger: The schedule's, within its bounds.
        row: Where the store says it stands.
        policies: The schedule's.
        known: A fire time and the next one, which the trigger need not be asked for again.
    """
    if row.paused or runs_left(row, policies) == 0:
        return None
    if policies.after == "end":
        at = row.next_at
        if at is not None and policies.start_at is not None:
            at = max(at, policies.start_at)  # the clock may have been set back since
        return None if at is None or (policies.end_at is not None and at > policies.end_at) else at
    return known[1] if known is not None and known[0] == row.watermark else trigger.next(row.watermark)


def runs_left(row: ScheduleRow, policies: Policies) -> int | None:
    """Return how many jobs the schedule still makes: 0 when it is finished; None: there is no limit."""
    return None if policies.max_runs is None else max(0, policies.max_runs - row.runs)


@record
class Due:
    """What becomes of the fire times that have come since the watermark.

    Attributes:
        runs: Those that become jobs, ascending.
        watermark: The newest of all.
        missed: How many are let pass, all of them before the first run; None: too many to count.
        missed_first: The earliest of those; None when there are none.
        missed_last: The newest of those.
        decided_by: The options that let them pass, as they are written.
        next_at: The next fire time of an `after="end"` schedule that lets this one pass; else None.
        known: The watermark and the fire time after it, where that came to light; None: it did not.
    """

    runs: tuple[datetime, ...]
    watermark: datetime
    missed: int | None = 0
    missed_first: datetime | None = None
    missed_last: datetime | None = None
    decided_by: str = ""
    next_at: datetime | None = None
    known: tuple[datetime, datetime | None] | None = None


def due(
    trigger: Trigger,
    row: ScheduleRow,
    now: datetime,
    policies: Policies,
    known: tuple[datetime, datetime | None] | None = None,
) -> Due | None:
    """Decide about the fire times of a schedule in (watermark, now]; None when there are none.

    Args:
        trigger: The schedule's, within its bounds.
        row: Where the store says it stands.
        now: The instant of the decision.
        policies: The schedule's.
        known: A fire time and the next one, which the trigger need not be asked for again.
    """
    left = runs_left(row, policies)
    if row.paused or left == 0:
        return None
    if policies.after == "end":
        return _due_after_end(trigger, row, now, policies)
    first = known[1] if known is not None and known[0] == row.watermark else trigger.next(row.watermark)
    if first is None or first > now:
        return None
    second = trigger.next(first)
    is_alone = second is None or second > now
    if is_alone and not is_too_late(first, now, policies) and not _is_let_pass(first, now, policies):
        return Due(runs=(first,), watermark=first, known=(first, second))  # what nearly every pass finds
    first, last, count = latest(trigger, row.watermark, now)
    if first is None or last is None:
        return None
    runs, decided_by = _runs(trigger, row.watermark, now, last, policies)
    # What is not run lies before what is, so the newest of it is found among the few newest of all.
    passed = newest(trigger, row.watermark, now, len(runs) + 1)[0] if len(runs) != count else None
    missed = None if count is None else count - len(runs)
    if left is not None and len(runs) > left:
        runs = runs[:left]  # what is due after those comes after the end of the schedule
        last = runs[-1]
    if passed is None:
        return Due(runs=runs, watermark=last)
    return Due(
        runs=runs,
        watermark=last,
        missed=missed,
        missed_first=first,
        missed_last=passed,
        decided_by=policies.said(*decided_by),
    )


def holds_until(found: Due, at: datetime, policies: Policies) -> datetime:
    """Return the instant before which a decision made for `at`, the fire time itself, is right as well."""
    limits = [at + timedelta(seconds=PROMPT_SECONDS)]
    if found.known is not None and found.known[1] is not None:
        limits.append(found.known[1])
    if policies.grace is not None:
        limits.append(at + timedelta(seconds=policies.grace))
    return min(limits)


def _runs(
    trigger: Trigger, watermark: datetime, now: datetime, last: datetime, policies: Policies
) -> tuple[tuple[datetime, ...], tuple[str, ...]]:
    """Return the fire times that become jobs, ascending, and the names of the options that let the others pass."""
    decided_by: tuple[str, ...] = ("catch_up",)
    if policies.catch_up == "all":
        found = tuple(newest(trigger, watermark, now, policies.max_catch_up))
        decided_by = ("max_catch_up",)
    elif _is_let_pass(last, now, policies):
        found = ()
    else:
        found = (last,)
    if policies.grace is None:
        return found, decided_by
    within = tuple(fire_time for fire_time in found if not is_too_late(fire_time, now, policies))
    if len(within) < len(found):
        decided_by = ("grace",) if not within else (*decided_by, "grace")
    return within, decided_by


def _is_let_pass(fire_time: datetime, now: datetime, policies: Policies) -> bool:
    """Return whether a fire time passed unnoticed, and none of those is made up for."""
    return policies.catch_up == "none" and now - fire_time > timedelta(seconds=PROMPT_SECONDS)


def is_too_late(fire_time: datetime, now: datetime, policies: Policies) -> bool:
    """Return whether no jitter could save a fire time from its grace; the exact limit is that of the jitter drawn."""
    return policies.grace is not None and now - fire_time > timedelta(seconds=policies.grace + policies.jitter)


def _due_after_end(trigger: Trigger, row: ScheduleRow, now: datetime, policies: Policies) -> Due | None:
    at = following(trigger, row, policies)
    if at is None or at > now:
        return None
    if not is_too_late(at, now, policies):
        return Due(runs=(at,), watermark=at)
    return Due(
        runs=(),
        watermark=at,
        missed=1,
        missed_first=at,
        missed_last=at,
        decided_by=policies.said("grace"),
        next_at=first_after_end(trigger, policies, now),
    )


def wanted_at(fire_time: datetime, following: datetime | None, policies: Policies, draw: float) -> datetime:
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
    if following is None:
        return fire_time + most * draw
    gap = following - fire_time
    # The product is rounded to whole microseconds, and could so be the gap itself.
    return fire_time + min(min(most, gap) * draw, gap - _MICROSECOND)


def grace_of(job: NewJob) -> str:
    """Return the grace that a job was made with, as it is written."""
    assert job.start_by is not None
    return f"grace={_written((job.start_by - job.run_at).total_seconds())}"


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


_NOTHING_IN_THE_WAY = Overlap()


def overlap(policy: OverlapPolicy, unfinished: Sequence[JobRecord]) -> Overlap:
    """Decide about a fire time.

    Args:
        policy: The schedule's.
        unfinished: Its unfinished jobs, the oldest first. One that waits for a retry is unfinished, too.
    """
    if not unfinished or policy == "allow":
        return _NOTHING_IN_THE_WAY
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
"""A job under which this many processes died is parked, unless an app says otherwise: one death may be chance (memory,
an operator), the third of the same job is the job's own doing."""


def state_after(outcome: Outcome, deaths: int, *, max_deaths: int = MAX_DEATHS, is_once: bool = False) -> JobState:
    """Return where a job goes when an attempt has ended, before its retry is asked.

    Args:
        outcome: How the attempt ended.
        deaths: Processes that died under the job, this attempt included.
        max_deaths: With so many it is parked.
        is_once: Whether it may run at most once.
    """
    match outcome:
        case Outcome.SUCCEEDED:
            return JobState.SUCCEEDED
        case Outcome.CANCELLED:
            return JobState.CANCELLED
        case Outcome.LOST if not is_once:
            return JobState.PARKED if deaths >= max_deaths else JobState.QUEUED
        case _:
            return JobState.FAILED
