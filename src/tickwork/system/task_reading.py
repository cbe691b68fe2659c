"""What `schtasks` prints, as definitions of tasks.

Elements are taken in any order, and a task as what it is: one with something that tickwork never writes (a trigger at
logon, two actions, an end of its time) has no definition of ours, and is told by its path and its description alone.
"""

from __future__ import annotations

import codecs
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from ..errors import TickworkError
from .task_model import (
    ByDay,
    ByMonth,
    ByMonthWeekday,
    ByWeek,
    CalendarTrigger,
    Days,
    Definition,
    Last,
    Repetition,
    TaskTrigger,
    TimeTrigger,
)
from .task_xml import MONTHS, WEEKDAYS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from xml.etree.ElementTree import Element

__all__ = ["Unreadable", "decode", "read", "read_all"]

_DURATION: Final = r"P(?:([0-9]+)D)?(?:T(?:([0-9]+)H)?(?:([0-9]+)M)?(?:([0-9]+)S)?)?"
_TRUE: Final = ("true", "1")
_LEFT_ALONE: Final = {  # settings that tickwork leaves at their defaults: another value is somebody's own
    "AllowHardTerminate": True,
    "RunOnlyIfNetworkAvailable": False,
    "RunOnlyIfIdle": False,
    "WakeToRun": False,
}


class Unreadable(ValueError):
    """What was read is not the XML of a task; the reason is the message."""


def decode(data: bytes, codec: str = "utf-8") -> str:
    """Return what `schtasks` printed as a text.

    Args:
        data: UTF-16 with or without its mark, UTF-8 with its mark, or bytes in another code page.
        codec: The code page; what it does not know is replaced.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors="replace")
    if data.startswith(codecs.BOM_UTF8):
        return data.decode("utf-8-sig", errors="replace")
    if b"\0" in data:
        return data.decode("utf-16-le", errors="replace")
    return data.decode(codec, errors="replace")


def read_all(text: str) -> list[tuple[str | None, Element]]:
    r"""Return the tasks in what `schtasks /query /xml` prints for one task or for all.

    Returns:
        For each the path that stands before it or in it (`\folder\name`), or None, and its element.

    Raises:
        Unreadable: It is not XML, or holds something else.
    """
    root = _parse(text)
    if _tag(root) == "Task":
        return [(_path_of(root), root)]
    if _tag(root) != "Tasks":
        raise Unreadable(f"the XML holds {_tag(root)!r} and no tasks")
    found: list[tuple[str | None, Element]] = []
    path = None
    for child in root:
        if not _is_element(child):  # a comment tells the path of the task after it
            path = (child.text or "").strip() or None
        elif _tag(child) == "Task":
            found.append((path or _path_of(child), child))
            path = None
    return found


def _parse(text: str) -> Element:
    from xml.etree.ElementTree import ParseError, TreeBuilder, XMLParser

    # The declaration names the encoding of bytes that are a text by now.
    body = re.sub(r"^\ufeff?\s*<\?xml[^>]*\?>", "", text).strip()
    if not body:
        raise Unreadable("there is no XML in it")
    if "<!DOCTYPE" in body[:1_000] or "<!ENTITY" in body:
        raise Unreadable("the XML declares a document type, which no task does")
    parser = XMLParser(target=TreeBuilder(insert_comments=True))
    try:
        parser.feed(body)
        root: Element = parser.close()
    except ParseError as error:
        raise Unreadable(f"the XML cannot be read: {error}") from error
    return root


def _path_of(task: Element) -> str | None:
    return _text(task, "RegistrationInfo", "URI") or None


def read(task: Element) -> tuple[str, bool, Definition | None]:
    """Return the description of a task, whether it is enabled, and its definition.

    Returns:
        None as the definition where the task holds something that tickwork never writes.
    """
    description = _text(task, "RegistrationInfo", "Description")
    is_enabled = _is_true(_text(task, "Settings", "Enabled"), default=True)
    try:
        definition: Definition | None = _definition(task)
    except (ValueError, LookupError, OverflowError, TickworkError):
        definition = None
    return description, is_enabled, definition


def _definition(task: Element) -> Definition:
    settings, actions = _child(task, "Settings"), _children(task, "Actions")
    if [_tag(action) for action in actions] != ["Exec"]:
        raise Unreadable("it has not one program to start")
    for name, value in _LEFT_ALONE.items():
        if _is_true(_text(settings, name), default=value) != value:
            raise Unreadable(f"{name} is {not value}")
    batteries = {
        _is_true(_text(settings, name), default=True)
        for name in ("DisallowStartIfOnBatteries", "StopIfGoingOnBatteries")
    }
    (is_kept_off_batteries,) = batteries  # two answers: somebody's own
    return Definition(
        tuple(_read_trigger(trigger) for trigger in _children(task, "Triggers")),
        _text(actions[0], "Command"),
        _text(actions[0], "Arguments"),
        _text(actions[0], "WorkingDirectory") or None,
        _text(settings, "MultipleInstancesPolicy") or "IgnoreNew",
        _read_duration(_text(settings, "ExecutionTimeLimit") or "PT72H"),
        _is_true(_text(settings, "StartWhenAvailable"), default=False),
        not is_kept_off_batteries,
        _text(task, "Principals", "Principal", "LogonType") or "InteractiveToken",
        _text(task, "Principals", "Principal", "RunLevel") or "LeastPrivilege",
    )


def _read_trigger(trigger: Element) -> TaskTrigger:
    parts = {_tag(child): child for child in _elements(trigger)}
    if not _is_true(_text(trigger, "Enabled"), default=True):
        raise Unreadable("a trigger is switched off")
    start = _read_instant(_text(trigger, "StartBoundary"))
    repetition = _read_repetition(parts["Repetition"]) if "Repetition" in parts else None
    rest = [name for name in parts if name not in ("Enabled", "StartBoundary", "Repetition")]
    if _tag(trigger) == "TimeTrigger" and not rest:
        return TimeTrigger(start, repetition)
    if _tag(trigger) == "CalendarTrigger" and len(rest) == 1:
        return CalendarTrigger(start, _read_days(parts[rest[0]]), repetition)
    raise Unreadable(f"a trigger holds {', '.join(rest) or _tag(trigger)}")


def _read_days(schedule: Element) -> Days:
    match _tag(schedule):
        case "ScheduleByDay":
            return ByDay(int(_text(schedule, "DaysInterval") or 1))
        case "ScheduleByWeek":
            return ByWeek(_read_named(schedule, "DaysOfWeek", WEEKDAYS), int(_text(schedule, "WeeksInterval") or 1))
        case "ScheduleByMonth":
            months = _read_named(schedule, "Months", ("", *MONTHS))
            return ByMonth(_read_listed(schedule, "DaysOfMonth"), months)
        case "ScheduleByMonthDayOfWeek":
            return ByMonthWeekday(
                _read_listed(schedule, "Weeks"),
                _read_named(schedule, "DaysOfWeek", WEEKDAYS),
                _read_named(schedule, "Months", ("", *MONTHS)),
            )
    raise Unreadable(f"a trigger holds {_tag(schedule)}")


def _read_named(schedule: Element, outer: str, names: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(sorted(names.index(_tag(child)) for child in _children(schedule, outer)))


def _read_listed(schedule: Element, outer: str) -> tuple[int | Last, ...]:
    values = [(child.text or "").strip() for child in _children(schedule, outer)]
    numbers: list[int | Last] = sorted(int(value) for value in values if value != "Last")
    return tuple([*numbers, "last"] if "Last" in values else numbers)


def _read_repetition(repetition: Element) -> Repetition | None:
    if _is_true(_text(repetition, "StopAtDurationEnd"), default=False):
        raise Unreadable("a repetition stops its task")
    duration = _text(repetition, "Duration")
    return Repetition(_read_duration(_text(repetition, "Interval")), _read_duration(duration) if duration else None)


def _read_duration(text: str) -> int:
    found = re.fullmatch(_DURATION, text)
    if found is None or text.endswith(("P", "T")):
        raise Unreadable(f"{text!r} is no duration of days, hours, minutes and seconds")
    return sum(int(value or 0) * unit for value, unit in zip(found.groups(), (86_400, 3_600, 60, 1), strict=True))


def _read_instant(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo is None else moment.astimezone(UTC)


# --- elements ---------------------------------------------------------------------------------------------


def _tag(element: Element) -> str:
    return element.tag.rpartition("}")[2]


def _child(element: Element, *names: str) -> Element | None:
    found: Element | None = element
    for name in names:
        if found is not None:
            found = next((child for child in _elements(found) if _tag(child) == name), None)
    return found


def _children(element: Element, name: str) -> list[Element]:
    found = _child(element, name)
    return [] if found is None else list(_elements(found))


def _elements(element: Element) -> Iterator[Element]:
    return (child for child in element if _is_element(child))


def _is_element(node: Element) -> bool:
    tag: object = node.tag  # of a comment it is a function
    return isinstance(tag, str)


def _text(element: Element | None, *names: str) -> str:
    found = None if element is None else _child(element, *names)
    return "" if found is None else (found.text or "").strip()


def _is_true(text: str, *, default: bool) -> bool:
    return text.lower() in _TRUE if text else default
