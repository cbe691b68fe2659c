"""Triggers of tickwork in the words of Task Scheduler: exactly, or not at all.

    Cron("*/20 9-17 * * mon-fri")  ──►  09:00 each Monday to Friday, again every 20 minutes for 8 hours 40
    Every("5m")                    ──►  from an instant on, every five minutes

    fields ──► groups of days that share their times of day ──► progressions ──► triggers
               (no two groups meet: both would fire)            (at most 48)

A task has up to 48 triggers, and each of them fires on its own: where two name the same minute, the task is started
twice. So the groups that come out of one schedule must not meet, and what has two answers for one day, such as "the
13th or a Friday", is refused.

On the nights on which clocks change a trigger that repeats counts elapsed time. So none repeats through a change: times
are cut there, and refused where a schedule follows the wall clock through it. Those that repeat round the clock do so
without end, and stay on their minutes. See clock_changes.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from ..errors import UnsupportedSchedule
from ..triggers import At, Between, Cron, Every, Exclusion, Trigger, Union
from ..zones import get_zone
from .clock_changes import ClockChange, cut, find_changes, touching
from .progressions import Progression, cover
from .task_model import (
    ANCHOR,
    MAX_TRIGGERS,
    ByDay,
    ByMonth,
    ByMonthWeekday,
    ByWeek,
    CalendarTrigger,
    Days,
    Last,
    Repetition,
    TaskTrigger,
    TimeTrigger,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..cron_expression import Parts

__all__ = ["to_task_triggers"]

_WHERE = "Task Scheduler"
_SECOND = timedelta(seconds=1)
_MAX_PERIOD = timedelta(days=31)
_ALL_MONTHS = frozenset(range(1, 13))
_ALL_DAYS = frozenset(range(1, 32))

# Added to what lies between the first and the last start of a repetition, so that the last one belongs to it whether
# the end of a duration counts or not. Less than the shortest interval.
_SPARE_SECONDS = 30

_Times = dict[tuple[Days, int], dict[int, bool]]
"""For each group of days and second of the minute the minutes of the day, and whether they follow the wall clock
through a change of clocks."""


def to_task_triggers(
    trigger: Trigger, *, timezone: str | None = None, now: datetime | None = None
) -> tuple[TaskTrigger, ...]:
    """Return the triggers that make Task Scheduler start a task at the same times.

    Args:
        trigger: A `Cron`, an `Every`, an `At`, or a union of crons or of instants.
        timezone: The IANA key of the machine's zone; a `Cron` that was declared without one is read in it. None: not
            known, and a `Cron` that names a zone is refused.
        now: The present instant, aware; an `At` that has passed by then is refused. None: it is not looked at.

    Returns:
        1 to 48 triggers, no two of which fire at the same time.

    Raises:
        UnsupportedSchedule: Task Scheduler cannot say it exactly; the reason tells why not.
        UnknownTimezone: There is no such zone.
    """
    parts = trigger.triggers if isinstance(trigger, Union) else (trigger,)
    if all(isinstance(part, Cron) for part in parts):
        times: _Times = defaultdict(dict)
        for part in parts:
            _add_times(times, part, timezone)
        return _calendar_triggers(trigger, times, timezone)
    if all(isinstance(part, At) for part in parts):
        return _at_most(trigger, [_instant_trigger(part, now) for part in parts])
    if isinstance(trigger, Every):
        return (_elapsed_trigger(trigger),)
    raise UnsupportedSchedule(trigger, _WHERE, _why_not(trigger))


def _why_not(trigger: object) -> str:
    if isinstance(trigger, Union):
        return "a union of elapsed time with something else may start it twice; make a task of each part"
    if isinstance(trigger, Exclusion):
        return "it knows no exceptions; let the function look at the day, and do nothing"
    if isinstance(trigger, Between):
        return "a trigger that repeats cannot begin or end in the middle; create and delete the task at these times"
    return "only Cron, Every and At can be translated"


# --- elapsed time and instants ----------------------------------------------------------------------------


def _elapsed_trigger(trigger: Every) -> TimeTrigger:
    period = timedelta(seconds=trigger.period_seconds)
    if period % timedelta(minutes=1):
        raise UnsupportedSchedule(trigger, _WHERE, "it repeats after whole minutes, from 1 on")
    if period > _MAX_PERIOD:
        raise UnsupportedSchedule(trigger, _WHERE, "it repeats after 31 days at most; use a day of the month")
    start = trigger.next(ANCHOR.replace(tzinfo=UTC) - timedelta(microseconds=1))
    if start is None or start.microsecond:
        raise UnsupportedSchedule(trigger, _WHERE, "it starts at whole seconds; give an anchor without a fraction")
    return TimeTrigger(start, Repetition(period // _SECOND))


def _instant_trigger(trigger: Any, now: datetime | None) -> TimeTrigger:
    if trigger.when.microsecond:
        raise UnsupportedSchedule(trigger, _WHERE, "it starts at whole seconds")
    if now is not None and trigger.when <= now:
        raise UnsupportedSchedule(trigger, _WHERE, "that instant has passed")
    return TimeTrigger(trigger.when)


# --- cron: days and times ---------------------------------------------------------------------------------


def _add_times(times: _Times, trigger: Any, timezone: str | None) -> None:
    """Add what one expression names to the minutes of each group of days."""
    _check_zone(trigger, timezone)
    parts: Parts = trigger.parts
    if parts.years is not None:
        raise UnsupportedSchedule(trigger, _WHERE, "it knows no years")
    if len(parts.seconds) > 1:
        raise UnsupportedSchedule(trigger, _WHERE, "it repeats after whole minutes, from 1 on; name one second")
    (second,) = parts.seconds
    minutes = {hour * 60 + minute for hour in parts.hours for minute in parts.minutes}
    for days in _find_days(trigger, parts):
        there = times[days, second]
        there.update({minute: there.get(minute, False) or trigger.follows_wall_clock for minute in minutes})


def _check_zone(trigger: Cron, timezone: str | None) -> None:
    if trigger.timezone is not None and timezone is None:
        known = f'timezone="{trigger.timezone}" (--timezone)'
        reason = f"the zone of this machine is not known; say so if it is this one: {known}"
        raise UnsupportedSchedule(trigger, _WHERE, reason)
    if trigger.timezone is not None and get_zone(trigger.timezone).key != timezone:
        reason = f"it reads the machine's clock, which is in {timezone}; let the app run to have another zone"
        raise UnsupportedSchedule(trigger, _WHERE, reason)
    if trigger.dst != "cron" and timezone != "UTC":
        reason = "it has a rule of its own for the nights on which clocks change; leave dst= out"
        raise UnsupportedSchedule(trigger, _WHERE, reason)


def _find_days(trigger: Cron, parts: Parts) -> list[Days]:
    """Return groups of days, no day in two of them, that are together those of an expression."""
    if parts.near_days:
        raise UnsupportedSchedule(trigger, _WHERE, "it knows no nearest weekday (W)")
    all_days, all_weekdays = parts.month_days >= _ALL_DAYS, len(parts.weekdays) == 7 and not parts.nth_weekdays
    if not all_days and not all_weekdays:
        _refuse_both(trigger, parts)
    # Where one matching field is enough, a field that holds every day is always enough.
    if (all_days and all_weekdays) or (parts.is_either and (all_days or all_weekdays)):
        every_month = parts.months == _ALL_MONTHS
        return [ByDay() if every_month else ByMonth(tuple(range(1, 32)), tuple(sorted(parts.months)))]
    months = tuple(sorted(parts.months))
    if all_weekdays:
        return [ByMonth(_month_days(parts.month_days), months)]
    if parts.nth_weekdays:
        return _nth_weekdays(trigger, parts, months)
    weekdays = tuple(sorted(parts.weekdays))
    if parts.months == _ALL_MONTHS:
        return [ByWeek(weekdays)]
    return [ByMonthWeekday((1, 2, 3, 4, "last"), weekdays, months)]


def _refuse_both(trigger: Cron, parts: Parts) -> NoReturn:
    if parts.is_either:
        reason = "on a day that matches both as a day of the month and as a weekday it would start twice; split it"
    else:
        reason = "it takes a day of the month or a weekday, not both at once; let the function look at the other"
    raise UnsupportedSchedule(trigger, _WHERE, reason)


def _month_days(days: frozenset[int]) -> tuple[int | Last, ...]:
    # The 31st is always the last day: one of both is enough.
    listed: list[int | Last] = [day for day in sorted(days) if day and not (day == 31 and 0 in days)]
    return tuple([*listed, "last"] if 0 in days else listed)


def _nth_weekdays(trigger: Cron, parts: Parts, months: tuple[int, ...]) -> list[Days]:
    numbers: dict[int, set[int | str]] = defaultdict(set)
    for weekday, number in parts.nth_weekdays:
        numbers[weekday].add(number)
    weekdays: dict[tuple[int | Last, ...], list[int]] = defaultdict(list)
    for weekday in sorted(numbers):
        weekdays[_weeks(trigger, numbers[weekday])].append(weekday)
    return [ByMonthWeekday(weeks, tuple(named), months) for weeks, named in weekdays.items()]


def _weeks(trigger: Cron, numbers: set[int | str]) -> tuple[int | Last, ...]:
    """Return which weeks are named; the last one is the fifth, or the fourth where there is no fifth."""
    if 5 in numbers and not numbers & {4, "l"}:
        reason = "it knows the first to the fourth and the last weekday of a month, and no fifth"
        raise UnsupportedSchedule(trigger, _WHERE, reason)
    weeks: list[int | Last] = [number for number in (1, 2, 3, 4) if number in numbers]
    return tuple([*weeks, "last"] if numbers & {5, "l"} else weeks)


# --- cron: triggers ---------------------------------------------------------------------------------------


def _calendar_triggers(trigger: Trigger, times: _Times, timezone: str | None) -> tuple[TaskTrigger, ...]:
    groups = list(_joined(times).items())
    for number, (key, minutes) in enumerate(groups):
        for other, others in groups[number + 1 :]:
            if key[1] == other[1] and minutes.keys() & others.keys() and _may_meet(key[0], other[0]):
                reason = "two of its parts may name one day, on which it would start twice; make a task of each part"
                raise UnsupportedSchedule(trigger, _WHERE, reason)
    changes, shift = find_changes(timezone), _smallest_shift(timezone)
    found = [
        _one_trigger(days, second, progression, is_endless=is_endless)
        for (days, second), minutes in groups
        for progression, is_endless in _progressions(trigger, days, minutes, touching(changes, days), shift, timezone)
    ]
    return _at_most(trigger, found)


def _progressions(
    trigger: Trigger,
    days: Days,
    minutes: dict[int, bool],
    changes: Sequence[ClockChange],
    shift: int,
    timezone: str | None,
) -> list[tuple[Progression, bool]]:
    """Return the minutes of a group of days as progressions, and whether each goes on from day to day without end."""
    # Clocks move by whole steps: what repeats without end stays on the minutes that the schedule names.
    endless = [
        progression
        for progression in cover(minutes)
        if days == ByDay()
        and progression.is_circle
        and shift % progression.step == 0
        and (not changes or all(minutes[minute] for minute in progression.minutes))
    ]
    gone = {minute for progression in endless for minute in progression.minutes}
    rest = {minute: follows for minute, follows in minutes.items() if minute not in gone}
    for change in changes:
        _refuse_in_change(trigger, rest, minutes, change, timezone)
    parts = cut(rest, changes) if changes else [set(rest)]
    found = [(progression, True) for progression in endless]
    found += [(progression, False) for part in parts if part for progression in cover(part)]
    return sorted(found)


def _refuse_in_change(
    trigger: Trigger, rest: dict[int, bool], minutes: dict[int, bool], change: ClockChange, timezone: str | None
) -> None:
    """Refuse times that are not those of the schedule when clocks change."""
    inside = [minute for minute in rest if change.start <= minute < change.end]
    if not inside:
        return
    where = f"in {timezone} clocks change" if timezone else "clocks may change"
    if any(rest[minute] for minute in inside):
        reason = f"{where} between {change.text}, through which it follows the wall clock, and a task cannot"
    elif change.is_gap and sum(change.start <= minute <= change.end for minute in minutes) > 1:
        reason = f"{where} between {change.text}, after which several of its times would come at once"
    else:
        return  # one start, after the gap or in the first pass: as cron does
    known = "name times that keep clear of that, or let the app run it"
    unknown = 'say the zone of the machine, where they may change at another time: timezone="Europe/Berlin"'
    raise UnsupportedSchedule(trigger, _WHERE, f"{reason}; {known if timezone else unknown}")


def _at_most(trigger: Trigger, found: Sequence[TaskTrigger]) -> tuple[TaskTrigger, ...]:
    if len(found) > MAX_TRIGGERS:
        reason = f"that takes {len(found):,} triggers, and a task has {MAX_TRIGGERS} at most; split it"
        raise UnsupportedSchedule(trigger, _WHERE, reason)
    return tuple(found)


def _joined(times: _Times) -> _Times:
    """Make one group of the weekdays that share their times, so that "Monday | Thursday at nine" is one trigger."""
    weekly: dict[tuple[int, frozenset[tuple[int, bool]]], set[int]] = defaultdict(set)
    joined: _Times = {}
    for (days, second), minutes in times.items():
        if isinstance(days, ByWeek):
            weekly[second, frozenset(minutes.items())].update(days.weekdays)
        else:
            joined[days, second] = minutes
    for (second, shared), weekdays in weekly.items():
        days = ByDay() if len(weekdays) == 7 else ByWeek(tuple(sorted(weekdays)))
        there = joined.setdefault((days, second), {})
        there.update({minute: there.get(minute, False) or follows for minute, follows in shared})
    return joined


def _may_meet(days: Days, others: Days) -> bool:
    """Return whether there may be a day that both name."""
    for name in ("weekdays", "months"):
        one, other = getattr(days, name, None), getattr(others, name, None)
        if one is not None and other is not None and not set(one) & set(other):
            return False
    return True


def _one_trigger(days: Days, second: int, progression: Progression, *, is_endless: bool) -> TaskTrigger:
    start = ANCHOR.replace(hour=progression.start // 60, minute=progression.start % 60, second=second)
    if progression.size == 1:
        return CalendarTrigger(start, days)
    interval = progression.step * 60
    if is_endless:
        return TimeTrigger(start, Repetition(interval))
    return CalendarTrigger(start, days, Repetition(interval, (progression.size - 1) * interval + _SPARE_SECONDS))


def _smallest_shift(timezone: str | None) -> int:
    """Return by how many minutes a zone's clocks are moved, at least: 30 on Lord Howe Island, else 60."""
    if timezone is None:
        return 60
    zone, instant = get_zone(timezone), ANCHOR.replace(tzinfo=UTC)
    shift = 60
    for _ in range(6):  # some years, or all that is known
        window = zone.at(instant)
        minutes = abs(window.shift) // timedelta(minutes=1)
        shift = minutes if 0 < minutes < shift else shift
        instant = window.hi
    return shift
