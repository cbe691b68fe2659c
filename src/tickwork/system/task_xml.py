"""Definitions of tasks as the XML of Task Scheduler, in the order of its schema.

Every default that would surprise is said the other way: tasks that do not start on batteries, that are stopped when the
plug is drawn, and that are killed after three days.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import replace
from datetime import UTC
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from .task_model import (
    ByDay,
    ByMonth,
    ByMonthWeekday,
    ByWeek,
    Days,
    Definition,
    TaskTrigger,
    TimeTrigger,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["MONTHS", "WEEKDAYS", "encode", "fingerprint", "render"]

NAMESPACE: Final = "http://schemas.microsoft.com/windows/2004/02/mit/task"
WEEKDAYS: Final = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
MONTHS: Final = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)


def encode(text: str) -> bytes:
    """Return the bytes of a file that `schtasks /create /xml` takes: UTF-16, little-endian, with its mark."""
    return codecs.BOM_UTF16_LE + text.encode("utf-16-le")


def render(definition: Definition, *, description: str, is_enabled: bool = True) -> str:
    """Return the XML of a task, with the order, the ranges and the limits of Task Scheduler's schema.

    Args:
        definition: What it does and when.
        description: Stands in the list of tasks; whose task it is, is told there.
        is_enabled: Whether it starts when it is due.
    """
    lines = [
        '<?xml version="1.0" encoding="UTF-16"?>',
        f'<Task version="1.3" xmlns="{NAMESPACE}">',
        "  <RegistrationInfo>",
        f"    <Description>{_escape(description)}</Description>",
        "  </RegistrationInfo>",
        "  <Triggers>",
        *(f"    {_trigger(trigger)}" for trigger in definition.triggers),
        "  </Triggers>",
        "  <Principals>",
        '    <Principal id="Author">',
        f"      <LogonType>{definition.logon}</LogonType>",
        f"      <RunLevel>{definition.run_level}</RunLevel>",
        "    </Principal>",
        "  </Principals>",
        "  <Settings>",
        *(f"    {line}" for line in _settings(definition, is_enabled)),
        "  </Settings>",
        '  <Actions Context="Author">',
        "    <Exec>",
        *(f"      {line}" for line in _action(definition)),
        "    </Exec>",
        "  </Actions>",
        "</Task>",
        "",
    ]
    return "\r\n".join(lines)


def fingerprint(definition: Definition) -> str:
    """Return twelve characters that tell whether a definition was changed; the same in whatever order it is read.

    Characters beyond ASCII count as one `?` each run of them: the answers of `schtasks` may not hold them.
    """
    ordered = replace(definition, triggers=tuple(sorted(definition.triggers, key=repr)))
    text = re.sub(r"[^\x00-\x7e]+|\?+", "?", render(ordered, description=""))
    return sha256(text.encode()).hexdigest()[:12]


def _settings(definition: Definition, is_enabled: bool) -> Iterator[str]:
    yield f"<MultipleInstancesPolicy>{definition.instances}</MultipleInstancesPolicy>"
    # Both are true unless one says otherwise: a laptop on its battery would leave the job out, or kill it.
    yield f"<DisallowStartIfOnBatteries>{_truth(not definition.on_batteries)}</DisallowStartIfOnBatteries>"
    yield f"<StopIfGoingOnBatteries>{_truth(not definition.on_batteries)}</StopIfGoingOnBatteries>"
    yield f"<StartWhenAvailable>{_truth(definition.catch_up)}</StartWhenAvailable>"
    yield f"<Enabled>{_truth(is_enabled)}</Enabled>"
    # Without it a run is killed after 72 hours.
    yield f"<ExecutionTimeLimit>{_duration(definition.limit_seconds)}</ExecutionTimeLimit>"


def _action(definition: Definition) -> Iterator[str]:
    yield f"<Command>{_escape(definition.command)}</Command>"
    if definition.arguments:
        yield f"<Arguments>{_escape(definition.arguments)}</Arguments>"
    if definition.directory is not None:
        yield f"<WorkingDirectory>{_escape(definition.directory)}</WorkingDirectory>"


def _trigger(trigger: TaskTrigger) -> str:
    start = trigger.start.replace(tzinfo=None).isoformat() + ("Z" if trigger.start.tzinfo is UTC else "")
    inside = f"<StartBoundary>{start}</StartBoundary>"
    if trigger.repetition is not None:
        seconds = trigger.repetition.duration_seconds
        inside += f"<Repetition><Interval>{_duration(trigger.repetition.interval_seconds)}</Interval>"
        inside += "" if seconds is None else f"<Duration>{_duration(seconds)}</Duration>"
        inside += "</Repetition>"
    if isinstance(trigger, TimeTrigger):
        return f"<TimeTrigger>{inside}</TimeTrigger>"
    return f"<CalendarTrigger>{inside}{_days(trigger.days)}</CalendarTrigger>"


def _days(days: Days) -> str:
    match days:
        case ByDay(every=every):
            return f"<ScheduleByDay><DaysInterval>{every}</DaysInterval></ScheduleByDay>"
        case ByWeek(weekdays=weekdays, every=every):
            named = f"<WeeksInterval>{every}</WeeksInterval>{_named('DaysOfWeek', WEEKDAYS, weekdays)}"
            return f"<ScheduleByWeek>{named}</ScheduleByWeek>"
        case ByMonth(days=month_days, months=months):
            named = _listed("DaysOfMonth", "Day", month_days) + _named("Months", ("", *MONTHS), months)
            return f"<ScheduleByMonth>{named}</ScheduleByMonth>"
        case ByMonthWeekday(weeks=weeks, weekdays=weekdays, months=months):
            named = _listed("Weeks", "Week", weeks) + _named("DaysOfWeek", WEEKDAYS, weekdays)
            named += _named("Months", ("", *MONTHS), months)
            return f"<ScheduleByMonthDayOfWeek>{named}</ScheduleByMonthDayOfWeek>"


def _named(outer: str, names: tuple[str, ...], numbers: Iterable[int]) -> str:
    return f"<{outer}>{''.join(f'<{names[number]} />' for number in numbers)}</{outer}>"


def _listed(outer: str, inner: str, values: Iterable[object]) -> str:
    return f"<{outer}>{''.join(f'<{inner}>{str(value).title()}</{inner}>' for value in values)}</{outer}>"


def _duration(seconds: int) -> str:
    """Return an ISO 8601 duration, such as "P1DT2H", "PT20M" and "PT0S"."""
    days, rest = divmod(seconds, 86_400)
    hours, rest = divmod(rest, 3_600)
    minutes, rest = divmod(rest, 60)
    time = "".join(f"{value}{unit}" for value, unit in ((hours, "H"), (minutes, "M"), (rest, "S")) if value)
    date = f"{days}D" if days else ""
    return f"P{date}" + (f"T{time}" if time else "" if date else "T0S")


def _truth(value: bool) -> str:
    return "true" if value else "false"


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
