"""What Task Scheduler's schema asks of the XML of a task, as far as tickwork writes it: order, ranges, limits.

It looks at elements alone and shares nothing with the code that renders them.
"""

from __future__ import annotations

import re
from xml.etree.ElementTree import Element, fromstring

SPACE = "{http://schemas.microsoft.com/windows/2004/02/mit/task}"
WEEKDAYS = {"Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"}
MONTHS = {
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
}
TRIGGER_ORDER = [
    *("Enabled", "StartBoundary", "EndBoundary", "Repetition", "ExecutionTimeLimit", "RandomDelay"),
    *("ScheduleByDay", "ScheduleByWeek", "ScheduleByMonth", "ScheduleByMonthDayOfWeek"),
]
BOOLEANS = {
    "DisallowStartIfOnBatteries",
    "StopIfGoingOnBatteries",
    "StartWhenAvailable",
    "Enabled",
    "AllowHardTerminate",
}


def check(text: str) -> Element:
    """Return the task in a text; an AssertionError says what the schema does not allow."""
    task = fromstring(re.sub(r"^<\?xml[^>]*\?>", "", text))
    assert task.tag == f"{SPACE}Task"
    assert task.get("version") in (None, "1.3")
    names = tags(task)
    assert names == ["RegistrationInfo", "Triggers", "Principals", "Settings", "Actions"]
    check_triggers(child(task, "Triggers"))
    check_settings(child(task, "Settings"))
    check_actions(task)
    return task


def check_triggers(triggers: Element) -> None:
    assert 1 <= len(triggers) <= 48
    for trigger in triggers:
        names = tags(trigger)
        assert name_of(trigger) in ("TimeTrigger", "CalendarTrigger")
        assert names == sorted(set(names), key=TRIGGER_ORDER.index)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ?", text_of(trigger, "StartBoundary"))
        assert (names[-1].startswith("ScheduleBy")) == (name_of(trigger) == "CalendarTrigger")
        if "Repetition" in names:
            check_repetition(child(trigger, "Repetition"))
        if name_of(trigger) == "CalendarTrigger":
            check_schedule(trigger[-1])


def check_repetition(repetition: Element) -> None:
    assert tags(repetition) in (["Interval"], ["Interval", "Duration"])
    interval = seconds(text_of(repetition, "Interval"))
    assert 60 <= interval <= 31 * 86_400
    if len(repetition) == 2:
        assert seconds(text_of(repetition, "Duration")) >= 60
        assert interval < seconds(text_of(repetition, "Duration")) <= 86_400


def check_schedule(schedule: Element) -> None:
    match name_of(schedule):
        case "ScheduleByDay":
            assert tags(schedule) == ["DaysInterval"]
            assert 1 <= int(text_of(schedule, "DaysInterval")) <= 365
        case "ScheduleByWeek":
            assert tags(schedule) == ["WeeksInterval", "DaysOfWeek"]
            assert 1 <= int(text_of(schedule, "WeeksInterval")) <= 52
            check_names(child(schedule, "DaysOfWeek"), WEEKDAYS)
        case "ScheduleByMonth":
            assert tags(schedule) == ["DaysOfMonth", "Months"]
            days = [day.text for day in child(schedule, "DaysOfMonth")]
            assert 1 <= len(days) == len(set(days)) <= 32
            assert set(days) <= {*map(str, range(1, 32)), "Last"}
            check_names(child(schedule, "Months"), MONTHS)
        case "ScheduleByMonthDayOfWeek":
            assert tags(schedule) == ["Weeks", "DaysOfWeek", "Months"]
            weeks = [week.text for week in child(schedule, "Weeks")]
            assert 1 <= len(weeks) == len(set(weeks)) <= 5
            assert set(weeks) <= {"1", "2", "3", "4", "Last"}
            check_names(child(schedule, "DaysOfWeek"), WEEKDAYS)
            check_names(child(schedule, "Months"), MONTHS)
        case other:
            raise AssertionError(other)


def check_names(element: Element, allowed: set[str]) -> None:
    names = tags(element)
    assert 1 <= len(names) == len(set(names))
    assert set(names) <= allowed
    assert not any(item.text for item in element)


def check_settings(settings: Element) -> None:
    names = tags(settings)
    assert len(names) == len(set(names))
    for name in set(names) & BOOLEANS:
        assert text_of(settings, name) in ("true", "false")
    assert text_of(settings, "MultipleInstancesPolicy") in ("Parallel", "Queue", "IgnoreNew", "StopExisting")
    assert seconds(text_of(settings, "ExecutionTimeLimit")) >= 0


def check_actions(task: Element) -> None:
    principals, actions = child(task, "Principals"), child(task, "Actions")
    assert tags(principals) == ["Principal"]
    assert actions.get("Context") == principals[0].get("id")
    assert text_of(principals[0], "LogonType") in ("InteractiveToken", "S4U")
    assert text_of(principals[0], "RunLevel") in ("LeastPrivilege", "HighestAvailable")
    assert tags(actions) == ["Exec"]
    assert set(tags(actions[0])) <= {"Command", "Arguments", "WorkingDirectory"}
    for name in {"Command", "WorkingDirectory"} & set(tags(actions[0])):
        assert 1 <= len(text_of(actions[0], name)) <= 260


def seconds(text: str) -> int:
    found = re.fullmatch(r"P(?=.)(?:(\d+)D)?(?:T(?=.)(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?", text)
    assert found is not None, text
    return sum(int(value or 0) * unit for value, unit in zip(found.groups(), (86_400, 3_600, 60, 1), strict=True))


def name_of(element: Element) -> str:
    assert element.tag.startswith(SPACE)
    return element.tag.removeprefix(SPACE)


def tags(element: Element) -> list[str]:
    return [name_of(item) for item in element]


def child(element: Element, name: str) -> Element:
    found = element.find(SPACE + name)
    assert found is not None, name
    return found


def text_of(element: Element, name: str) -> str:
    return child(element, name).text or ""
