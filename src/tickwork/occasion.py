"""The fire time that a process was started for: which one that is, and what is to become of it.

cron and Task Scheduler start a process for a fire time and do not say for which. So it is told from the trigger, and
answered as the scheduler of an app would: by the same policies, against the same row of the store. Decisions without
side effects; `fire_here` and the command do what is to be done.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

from .clock import LATE_SECONDS
from .errors import InvalidInstant
from .policies import due, is_too_late, runs_left
from .records import changed
from .stores.base import Firing
from .triggers import newest, read_instant

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .jobs import NewJob
    from .policies import Due, Policies
    from .stores.base import ScheduleRow
    from .triggers import Trigger

LEAD_SECONDS = 1.0
"""By how much a process may be started before its fire time: timers of Windows run out some milliseconds early, and
clocks of two hosts agree to within a second. The job then waits for its fire time."""

PROMPT_SECONDS = 60.0
"""A process that looks at its clock within this long after a fire time was started for it: cron starts what is due in a
minute within its first seconds, and a busy machine needs some more until the app is imported. One that comes later was
held up for long, as by a machine that slept, or was started at another time, as by hand."""

LATE_BECAUSE = "a process was started for it"

_MICROSECOND = timedelta(microseconds=1)
_PROMPT = timedelta(seconds=PROMPT_SECONDS)
_LEAD = timedelta(seconds=LEAD_SECONDS)
_LATE = timedelta(seconds=LATE_SECONDS)
_LOOK_BACK = timedelta(days=400)
"""A yearly schedule has a fire time within; a trigger of the user's is asked about older times only where it must."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Refusal = Literal["answered", "paused", "finished", "unknown"]
"""Why nothing is done about a fire time: it is answered already; the schedule is paused, or has had all its runs; the
fire time passed before anybody knew of the schedule, as it is declared now."""


def newest_fire_time(trigger: Trigger, now: datetime) -> datetime | None:
    """Return the newest fire time (UTC) that has come, or comes within a second; None: none has.

    Raises what the trigger does.
    """
    for after in (now - _LOOK_BACK, _EPOCH):
        if found := newest(trigger, after, now + _LEAD, 1):
            return found[0]
    return None


def read_fire_time(trigger: Trigger, text: str, now: datetime) -> datetime:
    """Return the fire time (UTC) that a text tells: ISO 8601 with an offset.

    Raises:
        InvalidInstant: It cannot be read, is none of the trigger's, or has not come yet.
    """
    try:
        at = read_instant(text, "--fire-time")
    except InvalidInstant:
        expected = '"auto", or ISO 8601 with an offset such as "2026-12-24T18:00:00+01:00"'
        raise InvalidInstant("--fire-time", expected, text) from None
    if at < _EPOCH:
        raise InvalidInstant("--fire-time", "an instant since 1970", text)
    if trigger.next(at - _MICROSECOND) != at:
        before = newest(trigger, at - _LOOK_BACK, at, 1)
        following = trigger.next(at)
        told = [f"before it at {before[0].isoformat()}"] if before else []
        told += [f"after it at {following.isoformat()}"] if following is not None else []
        near = " and ".join(told) or "neither before nor after it"
        raise InvalidInstant("--fire-time", f"a fire time of {trigger!r}", text, remedy=f"it fires {near}")
    if at > now + _LEAD:
        expected = f"a fire time that has come, at {now.isoformat(timespec='seconds')}"
        raise InvalidInstant("--fire-time", expected, text, remedy='start the process then, or pass "auto"')
    return at


def is_late(fire_time: datetime, started_at: datetime) -> bool:
    """Return whether a process that looked at its clock then was hardly started for this fire time when it came."""
    return started_at - fire_time > _PROMPT


def decide(
    trigger: Trigger,
    row: ScheduleRow,
    fire_time: datetime,
    now: datetime,
    policies: Policies,
    *,
    started_at: datetime,
    is_answered: bool,
) -> Due | Refusal:
    """Decide about a fire time, and about those before it that nobody has answered; later ones are left alone.

    Args:
        trigger: The schedule's, within its bounds.
        row: Where the schedule stands.
        fire_time: The one that the process was started for.
        now: The instant of the decision.
        policies: The schedule's.
        started_at: When the process looked at its clock first.
        is_answered: Whether the ledger has a row for it.

    Semantics:
        As in an app that runs (`policies.due`), with one difference: where that notices a fire time within a second, a
        process needs up to a minute to be started, so `catch_up="none"` lets pass what is later than that. And a
        schedule that is new to its store was not made for this process only: what has come less than a minute before
        is run, though the row begins now.
    """
    if is_answered:
        return "answered"
    if row.paused:
        return "paused"
    if runs_left(row, policies) == 0:
        return "finished"
    since = row.watermark
    if fire_time <= since:
        if fire_time > row.declared_at:
            return "answered"  # so long ago that the ledger has forgotten it
        if is_late(fire_time, started_at):
            return "unknown"
        since = fire_time - _MICROSECOND
    found = due(trigger, changed(row, watermark=since), fire_time, policies)
    if found is None:
        raise ValueError(f"{trigger!r} says that {fire_time} is a fire time, and then that it is none")
    lets_pass = policies.catch_up == "none" and is_late(fire_time, started_at)
    return _without_late(found, now, policies, lets_pass=lets_pass)


def _without_late(found: Due, now: datetime, policies: Policies, *, lets_pass: bool) -> Due:
    """Let pass all, or those that come too late by now: `found` was decided as of the fire time."""
    kept = () if lets_pass else tuple(at for at in found.runs if not is_too_late(at, now, policies))
    dropped = found.runs[: len(found.runs) - len(kept)]  # they ascend, and the older one is later
    if not dropped:
        return found
    decided_by = policies.said("catch_up" if lets_pass else "grace")
    if decided_by not in found.decided_by:
        decided_by = ", ".join(filter(None, (found.decided_by, decided_by)))
    return changed(
        found,
        runs=kept,
        missed=None if found.missed is None else found.missed + len(dropped),
        missed_first=found.missed_first or dropped[0],
        missed_last=dropped[-1],
        decided_by=decided_by,
    )


def firings(
    row: ScheduleRow, found: Due, policies: Policies, now: datetime, job: Callable[[datetime], NewJob]
) -> Sequence[Firing]:
    """Return what the store is to be told, in this order and in one call.

    Args:
        row: The row that the decision was made on.
        found: The decision.
        policies: The schedule's.
        now: The instant of the decision.
        job: Makes the job of a fire time.
    """
    made: list[Firing] = []
    for number, at in enumerate(found.runs or (None,)):
        is_first = number == 0  # what was missed lies before it
        made.append(
            Firing(
                schedule=row.name,
                version=row.version + number,  # each firing moves the row on by one
                # Never back: of a schedule that is new here, the fire time lies before the row.
                watermark=max(row.watermark, found.watermark if at is None else at),
                job=None if at is None else job(at),
                overlap=policies.overlap,
                missed_first=found.missed_first if is_first else None,
                missed_last=found.missed_last if is_first else None,
                missed_count=found.missed if is_first else 0,
                decided_by=found.decided_by if is_first else "",
                late_because=LATE_BECAUSE if now - (at or found.watermark) > _LATE else None,
            )
        )
    return made
