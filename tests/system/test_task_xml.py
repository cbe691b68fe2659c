"""The XML of tasks: what is written obeys the schema, and is read back as what it was."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickwork import Cron, Every
from tickwork.errors import InvalidEntry
from tickwork.system.task_model import (
    ANCHOR,
    ByDay,
    ByMonth,
    ByMonthWeekday,
    ByWeek,
    CalendarTrigger,
    Days,
    Definition,
    Repetition,
    TaskTrigger,
    TimeTrigger,
)
from tickwork.system.task_reading import Unreadable, decode, read, read_all
from tickwork.system.task_triggers import to_task_triggers
from tickwork.system.task_xml import encode, fingerprint, render

from .task_schema import check, child, text_of

PYTHON = r"C:\Python\python.exe"
NIGHTLY = CalendarTrigger(ANCHOR.replace(hour=3, minute=30), ByDay())


def definition(*triggers: TaskTrigger, **options: Any) -> Definition:
    return Definition(triggers or (NIGHTLY,), PYTHON, **options)


def read_back(text: str) -> Definition | None:
    ((_, task),) = read_all(text)
    return read(task)[2]


WHOLE = """\
<?xml version="1.0" encoding="UTF-16"?>
<Task version="1.3" xmlns="http://schemas.microsoft.com/windows/2004/02/mit/task">
  <RegistrationInfo>
    <Description>a &lt;b&gt; &amp; c</Description>
  </RegistrationInfo>
  <Triggers>
    <CalendarTrigger><StartBoundary>2026-01-01T09:00:00</StartBoundary><Repetition><Interval>PT20M</Interval>\
<Duration>PT8H40M30S</Duration></Repetition><ScheduleByWeek><WeeksInterval>1</WeeksInterval><DaysOfWeek>\
<Monday /><Friday /></DaysOfWeek></ScheduleByWeek></CalendarTrigger>
    <TimeTrigger><StartBoundary>2026-01-01T00:00:00Z</StartBoundary><Repetition><Interval>P1DT2H</Interval>\
</Repetition></TimeTrigger>
  </Triggers>
  <Principals>
    <Principal id="Author">
      <LogonType>InteractiveToken</LogonType>
      <RunLevel>LeastPrivilege</RunLevel>
    </Principal>
  </Principals>
  <Settings>
    <MultipleInstancesPolicy>IgnoreNew</MultipleInstancesPolicy>
    <DisallowStartIfOnBatteries>false</DisallowStartIfOnBatteries>
    <StopIfGoingOnBatteries>false</StopIfGoingOnBatteries>
    <StartWhenAvailable>false</StartWhenAvailable>
    <Enabled>true</Enabled>
    <ExecutionTimeLimit>PT0S</ExecutionTimeLimit>
  </Settings>
  <Actions Context="Author">
    <Exec>
      <Command>C:\\Python\\python.exe</Command>
      <Arguments>-m tickwork "a &lt; b"</Arguments>
      <WorkingDirectory>C:\\srv</WorkingDirectory>
    </Exec>
  </Actions>
</Task>
"""


def test_a_whole_task() -> None:
    triggers = (
        *to_task_triggers(Cron("*/20 9-17 * * 1,5")),
        *to_task_triggers(Every("26h", anchor=datetime(2026, 1, 1, tzinfo=UTC))),
    )
    whole = definition(*triggers, arguments='-m tickwork "a < b"', directory="C:\\srv")
    text = render(whole, description="a <b> & c")
    assert text.replace("\r\n", "\n") == WHOLE
    assert text.count("\r\n") == text.count("\n")
    check(text)
    assert read_back(text) == whole


def test_the_file_is_utf_16_with_its_mark() -> None:
    data = encode(render(definition(arguments="Köln ☃ 😀"), description="x"))
    assert data[:8] == b"\xff\xfe<\0?\0x\0"
    assert "Köln ☃ 😀" in data.decode("utf-16")


def test_early_years_have_four_digits() -> None:
    assert "<StartBoundary>0999-01-01T00:00:00</StartBoundary>" in render(
        definition(TimeTrigger(ANCHOR.replace(year=999))), description="x"
    )


def test_every_default_that_would_surprise_is_overridden() -> None:
    settings = child(check(render(definition(), description="x")), "Settings")
    assert {name: text_of(settings, name) for name in ("DisallowStartIfOnBatteries", "StopIfGoingOnBatteries")} == {
        "DisallowStartIfOnBatteries": "false",
        "StopIfGoingOnBatteries": "false",
    }
    assert text_of(settings, "ExecutionTimeLimit") == "PT0S"
    assert text_of(settings, "MultipleInstancesPolicy") == "IgnoreNew"


# --- whatever can be made ---------------------------------------------------------------------------------

numbers = st.lists(st.integers(0, 6), min_size=1, unique=True).map(lambda found: tuple(sorted(found)))
months = st.lists(st.integers(1, 12), min_size=1, unique=True).map(lambda found: tuple(sorted(found)))


def some(*values: Any) -> st.SearchStrategy[Any]:
    places = st.sets(st.sampled_from(range(len(values))), min_size=1)
    return places.map(lambda found: tuple(values[place] for place in sorted(found)))


days: st.SearchStrategy[Days] = st.one_of(
    st.builds(ByDay, st.integers(1, 365)),
    st.builds(ByWeek, numbers, st.integers(1, 52)),
    st.builds(ByMonth, some(*range(1, 32), "last"), months),
    st.builds(ByMonthWeekday, some(1, 2, 3, 4, "last"), numbers, months),
)
moments = st.integers(-20_000, 300_000_000).map(lambda minutes: ANCHOR + timedelta(seconds=minutes * 61))
within_a_day = st.integers(60, 40_000).flatmap(
    lambda interval: st.builds(Repetition, st.just(interval), st.integers(interval + 1, 86_400))
)
triggers = st.one_of(
    st.builds(CalendarTrigger, moments, days, st.none() | within_a_day),
    st.builds(TimeTrigger, moments, st.none() | st.builds(Repetition, st.integers(60, 31 * 86_400))),
    st.builds(TimeTrigger, moments.map(lambda moment: moment.replace(tzinfo=UTC)), st.none()),
)
texts = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp", "Zs"), exclude_characters="\ufffe\uffff"))
definitions = st.builds(
    Definition,
    st.lists(triggers, min_size=1, max_size=48).map(tuple),
    st.just(PYTHON),
    texts,
    st.none() | st.just("C:\\srv"),
    st.sampled_from(["IgnoreNew", "Queue", "StopExisting", "Parallel"]),
    st.integers(0, 10**7),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["InteractiveToken", "S4U"]),
    st.sampled_from(["LeastPrivilege", "HighestAvailable"]),
)


@given(made=definitions, is_enabled=st.booleans(), description=texts)
def test_whatever_is_made_obeys_the_schema_and_is_read_back(
    made: Definition, is_enabled: bool, description: str
) -> None:
    text = render(made, description=description, is_enabled=is_enabled)
    check(text)
    ((path, task),) = read_all(decode(encode(text)))
    assert path is None
    assert read(task) == (description, is_enabled, made)
    assert re.fullmatch("[0-9a-f]{12}", fingerprint(made))


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda: Repetition(59), "interval"),
        (lambda: Repetition(31 * 86_400 + 1), "interval"),
        (lambda: Repetition(60, 60), "duration"),
        (lambda: Repetition(True), "interval"),
        (lambda: ByDay(0), "days"),
        (lambda: ByDay(366), "days"),
        (lambda: ByWeek((1,), 53), "weeks"),
        (lambda: ByWeek(()), "weekdays"),
        (lambda: ByWeek((7,)), "weekdays"),
        (lambda: ByWeek((1, 1)), "weekdays"),
        (lambda: ByMonth((32,)), "days"),
        (lambda: ByMonth((0,)), "days"),
        (lambda: ByMonth((True,)), "days"),
        (lambda: ByMonth((1,), (13,)), "months"),
        (lambda: ByMonthWeekday((5,), (1,)), "weeks"),
        (lambda: CalendarTrigger(ANCHOR, ByDay(), Repetition(60)), "repetition"),
        (lambda: CalendarTrigger(ANCHOR, ByDay(), Repetition(60, 86_401)), "repetition"),
        (lambda: CalendarTrigger(ANCHOR.replace(tzinfo=UTC), ByDay()), "start"),
        (lambda: TimeTrigger(ANCHOR + timedelta(microseconds=1)), "start"),
        (lambda: TimeTrigger("2026-01-01"), "start"),  # type: ignore[arg-type]
    ],
)
def test_what_the_schema_has_no_place_for_cannot_be_made(make: Any, part: str) -> None:
    with pytest.raises(InvalidEntry) as caught:
        make()
    assert caught.value.part == part


# --- reading ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["utf-8", "cp437", "cp936"])
def test_answers_are_read_in_every_encoding(codec: str) -> None:
    text = '<?xml version="1.0" encoding="UTF-16"?>\r\n<Tasks>é</Tasks>'
    assert decode(b"\xff\xfe" + text.encode("utf-16-le"), codec) == text
    assert decode(b"\xfe\xff" + text.encode("utf-16-be"), codec) == text
    assert decode(text.encode("utf-16-le"), codec) == text
    assert decode(text.encode("utf-8-sig"), codec) == text
    assert decode(text.encode(codec), codec) == text


def test_all_tasks_come_with_their_paths() -> None:
    one = render(definition(), description="x").split("\n", 1)[1]
    uri = one.replace("</Description>", "</Description><URI>\\tickwork\\b</URI>")
    found = read_all(f"<Tasks>\n<!-- \\tickwork\\a -->\n{one}{uri}{one}</Tasks>")
    assert [path for path, _ in found] == ["\\tickwork\\a", "\\tickwork\\b", None]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there is no XML in it"),
        ('<?xml version="1.0"?>', "there is no XML in it"),
        ("<Tasks><Task>", "the XML cannot be read: no element found: line 1, column 13"),
        ("<html></html>", "the XML holds 'html' and no tasks"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><Tasks>&b;</Tasks>', "the XML declares a document type, which no task does"),
    ],
)
def test_what_is_no_task_is_said(text: str, message: str) -> None:
    with pytest.raises(Unreadable) as caught:
        read_all(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<Interval>PT20M</Interval>", "<Interval>P1M</Interval>"),
        ("<Repetition>", "<Repetition><StopAtDurationEnd>true</StopAtDurationEnd>"),
        ("<TimeTrigger>", "<TimeTrigger><Enabled>false</Enabled>"),
        ("<TimeTrigger>", "<TimeTrigger><EndBoundary>2030-01-01T00:00:00</EndBoundary>"),
        ("<Triggers>", "<Triggers><LogonTrigger />"),
        ("<Monday />", "<Someday />"),
        ("</Exec>", "</Exec><Exec><Command>evil.exe</Command></Exec>"),
        ("<StopIfGoingOnBatteries>false", "<StopIfGoingOnBatteries>true"),
        ("<Settings>", "<Settings><RunOnlyIfIdle>true</RunOnlyIfIdle>"),
        ("2026-01-01T09:00:00", "never"),
    ],
)
def test_what_tickwork_never_writes_has_no_definition(old: str, new: str) -> None:
    assert old in WHOLE
    assert read_back(WHOLE.replace(old, new, 1)) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<TimeTrigger>", "<TimeTrigger><Enabled>true</Enabled>"),
        ("<Settings>", "<Settings><WakeToRun>false</WakeToRun><Priority>7</Priority>"),
        ("<LogonType>", "<UserId>S-1-5-21</UserId><LogonType>"),
        ("<DisallowStartIfOnBatteries>false", "<DisallowStartIfOnBatteries>0"),
        ("</Description>", "</Description><Author>me</Author><Date>2026-01-01T00:00:00</Date>"),
    ],
)
def test_what_windows_adds_changes_nothing(old: str, new: str) -> None:
    assert old in WHOLE
    assert read_back(WHOLE) is not None
    assert read_back(WHOLE.replace(old, new)) == read_back(WHOLE)


def test_a_fingerprint_tells_changes_and_nothing_else() -> None:
    one, other = definition(arguments="Köln"), definition(arguments="K?ln")
    assert fingerprint(one) == fingerprint(other)
    assert fingerprint(one) != fingerprint(definition(arguments="Koln"))
    later = CalendarTrigger(ANCHOR, ByDay())
    assert fingerprint(definition(NIGHTLY, later)) == fingerprint(definition(later, NIGHTLY))
    assert len({fingerprint(definition(**{name: True})) for name in ("catch_up", "on_batteries")}) == 2
