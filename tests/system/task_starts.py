"""When Task Scheduler starts a task, computed from its triggers in the plainest way: what translations are held to.

One day at a time, on clocks that do not change. A duration is taken with its end and without it, and must say the same.
"""

from __future__ import annotations

import calendar
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from tickwork.system.task_model import (
    ByDay,
    ByMonth,
    ByMonthWeekday,
    ByWeek,
    CalendarTrigger,
    Days,
    TaskTrigger,
    TimeTrigger,
)

DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)


def starts_on(triggers: tuple[TaskTrigger, ...], day: date) -> list[datetime]:
    """Return the starts on a day, naive and in order, each as often as there are triggers for it."""
    return sorted(start for trigger in triggers for start in _starts(trigger, day))


def first_start_on(triggers: tuple[TaskTrigger, ...], day: date) -> datetime | None:
    """Return the first start on a day, naive, or None: what `starts_on` begins with."""
    return min((first for trigger in triggers if (first := _first(trigger, day)) is not None), default=None)


def _first(trigger: TaskTrigger, day: date) -> datetime | None:
    if isinstance(trigger, TimeTrigger):
        return next(iter(_elapsed(trigger, datetime.combine(day, time()), most=1)), None)
    if day < trigger.start.date() or not _is_named(trigger.days, trigger, day):
        return None
    return datetime.combine(day, trigger.start.time())


def _starts(trigger: TaskTrigger, day: date) -> list[datetime]:
    midnight = datetime.combine(day, time())
    if isinstance(trigger, TimeTrigger):
        return _elapsed(trigger, midnight)
    if day < trigger.start.date() or not _is_named(trigger.days, trigger, day):
        return []
    first = datetime.combine(day, trigger.start.time())
    if trigger.repetition is None:
        return [first]
    assert trigger.repetition.duration_seconds is not None
    interval, duration = trigger.repetition.interval_seconds, trigger.repetition.duration_seconds
    without_the_end = [first + timedelta(seconds=after) for after in range(0, duration, interval)]
    with_the_end = [first + timedelta(seconds=after) for after in range(0, duration + 1, interval)]
    assert without_the_end == with_the_end
    assert with_the_end[-1].date() == day
    return with_the_end


def _elapsed(trigger: TimeTrigger, midnight: datetime, *, most: int = 1_440) -> list[datetime]:
    start = trigger.start.replace(tzinfo=None)
    if trigger.repetition is None:
        return [start] if midnight <= start < midnight + DAY else []
    assert trigger.repetition.duration_seconds is None
    interval = timedelta(seconds=trigger.repetition.interval_seconds)
    found: list[datetime] = []
    moment = start + max(0, -((start - midnight) // interval)) * interval
    while moment < midnight + DAY and len(found) < most:
        assert moment >= midnight
        found.append(moment)
        moment += interval
    return found


def _is_named(days: Days, trigger: CalendarTrigger, day: date) -> bool:
    weekday = day.isoweekday() % 7
    if isinstance(days, ByDay):
        return (day - trigger.start.date()).days % days.every == 0
    if isinstance(days, ByWeek):
        assert days.every == 1
        return weekday in days.weekdays
    length = calendar.monthrange(day.year, day.month)[1]
    if isinstance(days, ByMonth):
        is_last = day.day == length and "last" in days.days
        return day.month in days.months and (is_last or day.day in days.days)
    assert isinstance(days, ByMonthWeekday)
    is_named = (day.day - 1) // 7 + 1 in days.weeks or ("last" in days.weeks and day.day + 7 > length)
    return day.month in days.months and weekday in days.weekdays and is_named


# --- where clocks change ------------------------------------------------------------------------------------------


def instants_on(triggers: tuple[TaskTrigger, ...], day: date, zone: ZoneInfo) -> list[datetime]:
    """Return the starts on a day in a zone (UTC, in order), each as often as there are triggers for it.

    As Windows documents it: what clocks skip starts when they have, what they show twice starts the first time, and
    repetitions count elapsed time from there.
    """
    begin, end = instant_of(datetime.combine(day, time()), zone), instant_of(datetime.combine(day + DAY, time()), zone)
    found: list[datetime] = []
    for trigger in triggers:
        found += _instants(trigger, day, zone, begin, end)
    return sorted(found)


def _instants(trigger: TaskTrigger, day: date, zone: ZoneInfo, begin: datetime, end: datetime) -> list[datetime]:
    if isinstance(trigger, TimeTrigger):
        start = instant_of(trigger.start, zone)
        assert trigger.repetition is not None
        step = timedelta(seconds=trigger.repetition.interval_seconds)
        moment = start + max(0, -((start - begin) // step)) * step
        return [moment + number * step for number in range((end - moment - SECOND) // step + 1)]
    if not _is_named(trigger.days, trigger, day):
        return []
    first = instant_of(datetime.combine(day, trigger.start.time()), zone)
    if trigger.repetition is None:
        return [first]
    interval, duration = trigger.repetition.interval_seconds, trigger.repetition.duration_seconds
    assert duration is not None
    return [first + timedelta(seconds=after) for after in range(0, duration, interval)]


def instant_of(wall: datetime, zone: ZoneInfo) -> datetime:
    """Return when clocks show a wall time, or have skipped it."""
    found = wall.replace(tzinfo=zone).astimezone(UTC)
    if found.astimezone(zone).replace(tzinfo=None) == wall:
        return found
    low, high = found - DAY, found  # an instant is skipped: the first one at which the later offset holds
    while high - low > SECOND:
        middle = low + (high - low) // SECOND // 2 * SECOND
        if middle.astimezone(zone).utcoffset() == high.astimezone(zone).utcoffset():
            high = middle
        else:
            low = middle
    return high
