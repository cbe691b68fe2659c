"""The rules of `tickwork check` that need nothing but the declarations: what will not do what was meant.

    findings = check(app.tasks.values(), app.schedules.values(), now)

Each rule looks at one schedule or task and knows nothing of the others, so that one that raises spoils no other.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

from ..durations import format_seconds
from ..errors import NotImportable
from ..runners.calls import look_up
from ..workers import is_async
from .clock_changes import YEAR, clock_changes
from .findings import Finding, in_two

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ..policies import OverlapPolicy, Policies
    from ..tasks import AnyTask
    from ..triggers import Trigger

MAX_FIRE_TIMES = 1_000
"""So many fire times of the next year are looked at for the shortest gap: three years of a daily job, and 17 hours of
one that runs every minute, whose gaps are all alike."""

SHORTEST_GRACE = 0.1
"""Seconds by which an idle loop on a busy machine may well be late. A grace of 0 misses every fire time."""

MAX_SHOWN = 200
"""Characters of a trigger: a union of a thousand parts is not read by anybody."""

_LATE: dict[OverlapPolicy, str] = {
    "skip": "that is then skipped",
    "queue": "that then waits",
    "replace": "that cancels the run before its timeout",
}


class Scheduled(Protocol):
    """A schedule, as the rules see it; `tickwork.schedules.Schedule` is one."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def task(self) -> AnyTask:
        """Its task."""

    @property
    def trigger(self) -> Trigger:
        """When it fires."""

    @property
    def policies(self) -> Policies:
        """How it treats its fire times."""


def check(tasks: Iterable[AnyTask], schedules: Iterable[Scheduled], now: datetime) -> list[Finding]:
    """Return what is found in the declarations, in their order; no process is started.

    Args:
        tasks: The tasks.
        schedules: The schedules, in the zones in which they run.
        now: The instant from which a year is looked ahead; an aware datetime.
    """
    found = [finding for schedule in schedules for finding in _of_schedule(schedule, now.astimezone(UTC))]
    for task in tasks:
        finding = _unfit_for_executor(task) or unfit_for_process(task)
        found += [] if finding is None else [finding]
    return found


def apart(seen: str, target: str) -> Finding:
    """Return the finding of an app that shares nothing with those of other workers.

    Args:
        seen: What shows that there are several, see `tickwork.siblings`.
        target: The app, as it was named.
    """
    message = f"it keeps its jobs in memory, and {seen}: each worker fires every schedule and knows its own jobs only"
    return Finding("several-workers", target, message, "give the schedules to one process, `tickwork run` say")


def no_executor(tasks: Iterable[AnyTask], target: str) -> Finding | None:
    """Return the finding of an app without an executor and without a lifespan that could set one.

    Args:
        tasks: Its tasks.
        target: The app, as it was named.
    """
    wanting = sorted(task.name for task in tasks if task.options_.run_in == "executor")
    if not wanting:
        return None
    message = f'it has no executor for run_in="executor" of {", ".join(wanting)}, and does not start'
    return Finding("executor-missing", target, message, "use App(executor=...), or set app.executor in the lifespan")


def _unfit_for_executor(task: AnyTask) -> Finding | None:
    if task.options_.run_in != "executor" or not is_async(task.fn):
        return None
    message = 'it is a coroutine function, and run_in="executor" takes plain ones'
    return Finding("executor-coroutine", task.name, message, "write `def`, or leave out run_in")


def runs_in_process(task: AnyTask) -> bool:
    """Return whether the jobs of a task run in a child process."""
    return task.options_.run_in == "process"


def unfit_for_process(task: AnyTask) -> Finding | None:
    """Return why a task can run in no child process, as far as this process can tell."""
    if not runs_in_process(task):
        return None
    if is_async(task.fn):
        message = 'it is a coroutine function, and run_in="process" takes plain ones'
        return Finding("process-coroutine", task.name, message, "write `def`, or leave out run_in")
    try:
        look_up(task)
    except NotImportable as error:
        return Finding("process-import", task.name, *in_two(error))
    return None


@dataclass(frozen=True, slots=True)
class _Ahead:
    """What a trigger tells of itself.

    Attributes:
        times: The first fire times of the year to come.
        ends: Whether there is none at all, in no year.
        warnings: Its own.
        text: Its `repr`.
        changes: What clock changes do to it.
    """

    times: list[datetime]
    ends: bool
    warnings: tuple[str, ...]
    text: str
    changes: list[str]


def _of_schedule(schedule: Scheduled, now: datetime) -> Iterator[Finding]:
    try:
        ahead = _look_ahead(schedule.trigger, now)
    except Exception as error:  # a trigger of the user's own may do anything
        message = f"its trigger raised {_said(error)}"
        yield Finding("broken-trigger", schedule.name, message, "correct its `next`; the schedule cannot run")
        return
    for rule in _RULES:
        yield from rule(schedule, ahead, now)


def _look_ahead(trigger: Trigger, now: datetime) -> _Ahead:
    text = repr(trigger)
    shown = text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."
    first = trigger.next(now)
    times = [] if first is None else _fire_times(trigger, first, now)
    return _Ahead(times, first is None, tuple(trigger.warnings), shown, clock_changes(trigger, now))


def _fire_times(trigger: Trigger, first: datetime, now: datetime) -> list[datetime]:
    """Return fire times within a year, at most `MAX_FIRE_TIMES`."""
    times: list[datetime] = []
    found: Any = first  # what a trigger says is not always what it promises
    last = now
    while found is not None and len(times) < MAX_FIRE_TIMES:
        if not isinstance(found, datetime) or found.utcoffset() is None:
            raise TypeError(f"{found!r} is no aware datetime")
        if found <= last:
            raise ValueError(f"{found} comes after {last}")
        if found - now > YEAR:
            break
        times.append(found)
        last, found = found, trigger.next(found)
    return times


def _said(error: Exception) -> str:
    try:
        return " ".join(repr(error).split())
    except Exception:
        return f"a {type(error).__name__} whose text cannot be had"


# --- the rules --------------------------------------------------------------------------------------------


def _never_fires(schedule: Scheduled, ahead: _Ahead, now: datetime) -> Iterator[Finding]:
    if ahead.ends and schedule.policies.first != "now":
        message = f"{ahead.text} has no fire time after {now:%Y-%m-%d %H:%M:%S} UTC"
        yield Finding("never-fires", schedule.name, message, "remove the schedule, or give it a time to come")


def _trigger_warning(schedule: Scheduled, ahead: _Ahead, _now: datetime) -> Iterator[Finding]:
    remedy = 'write out the values that are meant, or use every("...") for elapsed time'
    for warning in ahead.warnings:
        yield Finding("trigger-warning", schedule.name, warning, remedy)


def _clock_change(schedule: Scheduled, ahead: _Ahead, _now: datetime) -> Iterator[Finding]:
    if ahead.changes:
        remedy = 'choose another hour or timezone="UTC", or decide with dst="skip" or dst="both"'
        yield Finding("clock-change", schedule.name, "; ".join(ahead.changes), remedy)


def _long_timeout(schedule: Scheduled, ahead: _Ahead, _now: datetime) -> Iterator[Finding]:
    timeout, overlap = schedule.task.options_.timeout, schedule.policies.overlap
    gap = _shortest_gap(ahead.times)
    if timeout is None or overlap == "allow" or _comes_after_end(schedule) or gap is None or timeout <= gap.seconds:
        return
    message = f"a run may take {format_seconds(timeout)}, and {gap} the next is due, {_LATE[overlap]}"
    remedy = f'timeout="{format_seconds(gap.seconds)}" at the most, a longer period, or overlap="allow"'
    yield Finding("long-timeout", schedule.name, message, remedy)


def _long_jitter(schedule: Scheduled, ahead: _Ahead, _now: datetime) -> Iterator[Finding]:
    jitter, gap = schedule.policies.jitter, _shortest_gap(ahead.times)
    if gap is not None and jitter > gap.seconds and not _comes_after_end(schedule):
        message = f"a start may be put off by {format_seconds(jitter)}, and {gap} the next is due: it is cut to that"
        remedy = f'jitter="{format_seconds(gap.seconds)}" at the most, or a longer period'
        yield Finding("long-jitter", schedule.name, message, remedy)


def _comes_after_end(schedule: Scheduled) -> bool:
    """Return whether its fire times follow from the ends of its jobs, so that none comes while one runs."""
    return schedule.policies.after == "end"


def _short_grace(schedule: Scheduled, _ahead: _Ahead, _now: datetime) -> Iterator[Finding]:
    grace = schedule.policies.grace
    if grace is not None and grace < SHORTEST_GRACE:
        message = f"a start later than {format_seconds(grace)} is missed, and an idle loop may be later than that"
        yield Finding("short-grace", schedule.name, message, 'grace="1s" at the least, or none')


_RULES: tuple[Callable[[Any, _Ahead, datetime], Iterator[Finding]], ...] = (
    _never_fires,
    _trigger_warning,
    _clock_change,
    _long_timeout,
    _long_jitter,
    _short_grace,
)


@dataclass(frozen=True, slots=True)
class _Gap:
    first: datetime
    second: datetime

    @property
    def seconds(self) -> float:
        return (self.second - self.first) / timedelta(seconds=1)

    def __str__(self) -> str:
        first, second = self.first.astimezone(UTC), self.second.astimezone(UTC)
        until = f"{second:%H:%M:%S}" if first.date() == second.date() else f"{second:%Y-%m-%d %H:%M:%S}"
        return f"{format_seconds(self.seconds)} later ({first:%Y-%m-%d %H:%M:%S} and {until} UTC)"


def _shortest_gap(times: list[datetime]) -> _Gap | None:
    """Return the shortest gap between fire times; None where there are not two."""
    return min((_Gap(*pair) for pair in pairwise(times)), key=lambda gap: gap.seconds, default=None)
