"""Triggers of Task Scheduler as short texts, for people: "mon-fri 09:00, every 20m for 8h40m"."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING

from .task_model import ByDay, ByMonth, ByMonthWeekday, ByWeek, TimeTrigger

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from .task_model import Days, Repetition, TaskTrigger

__all__ = ["describe_triggers"]

_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTHS = ("", "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_SHOWN = 2
_SPARE = 60  # seconds: what is added to a duration so that its last start belongs to it is not worth telling


def describe_triggers(triggers: Sequence[TaskTrigger]) -> str:
    """Return what the first triggers are, and how many more there are."""
    texts = [_trigger(trigger) for trigger in triggers[:_SHOWN]]
    more = len(triggers) - _SHOWN
    return "; ".join([*texts, f"{more} more"] if more > 0 else texts)


def _trigger(trigger: TaskTrigger) -> str:
    again = "" if trigger.repetition is None else _repetition(trigger.repetition)
    if isinstance(trigger, TimeTrigger):
        start = f"{trigger.start:%Y-%m-%d} {_time(trigger.start)}{' UTC' if trigger.start.tzinfo is UTC else ''}"
        return f"{again} from {start}" if again else start
    return f"{_days(trigger.days)} {_time(trigger.start)}" + (f", {again}" if again else "")


def _repetition(repetition: Repetition) -> str:
    every = f"every {_length(repetition.interval_seconds)}"
    if repetition.duration_seconds is None:
        return every
    return f"{every} for {_length(repetition.duration_seconds // _SPARE * _SPARE)}"


def _days(days: Days) -> str:
    match days:
        case ByDay(every=every):
            return "daily" if every == 1 else f"every {every} days"
        case ByWeek(weekdays=weekdays, every=every):
            return _named(_WEEKDAYS, weekdays) + ("" if every == 1 else f" of every {every} weeks")
        case ByMonth(days=month_days, months=months):
            which = "daily" if len(month_days) >= 31 else f"day {','.join(map(str, month_days))}"
            return which + _months(months)
        case ByMonthWeekday(weeks=weeks, weekdays=weekdays, months=months):
            which = "" if len(weeks) == 5 else f"{','.join(map(str, weeks))}. "
            return which + _named(_WEEKDAYS, weekdays) + _months(months)


def _months(months: tuple[int, ...]) -> str:
    return "" if len(months) == 12 else f" in {_named(_MONTHS, months)}"


def _named(names: tuple[str, ...], numbers: tuple[int, ...]) -> str:
    ordered = sorted(numbers)
    if len(ordered) > 2 and ordered == list(range(ordered[0], ordered[-1] + 1)):
        return f"{names[ordered[0]]}-{names[ordered[-1]]}"
    return ",".join(names[number] for number in ordered)


def _time(start: datetime) -> str:
    return f"{start:%H:%M:%S}" if start.second else f"{start:%H:%M}"


def _length(seconds: int) -> str:
    parts = ((seconds // 86_400, "d"), (seconds // 3_600 % 24, "h"), (seconds // 60 % 60, "m"), (seconds % 60, "s"))
    return "".join(f"{value}{unit}" for value, unit in parts if value) or "0s"
