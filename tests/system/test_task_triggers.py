"""Triggers of tickwork as triggers of Task Scheduler: each start proved against the evaluator, day by day."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickwork import At, Cron, Every
from tickwork.errors import UnknownTimezone, UnsupportedSchedule
from tickwork.system.progressions import cover
from tickwork.system.task_model import ANCHOR, ByDay, ByMonth, ByMonthWeekday, ByWeek, CalendarTrigger, TimeTrigger
from tickwork.system.task_triggers import to_task_triggers
from tickwork.triggers import Between, Trigger, parse_every

from .task_starts import first_start_on, starts_on

DAY = timedelta(days=1)
FIRST, YEARS_END = date(2026, 1, 1), date(2029, 1, 1)
EXACT = {
    "* * * * *": 1,
    "*/5 * * * *": 1,
    "*/7 * * * *": 9,
    "*/13 * * * *": 5,
    "*/45 * * * *": 2,
    "7-59/11 * * * *": 5,
    "0 * * * *": 1,
    "17 * * * *": 1,
    "0,30 * * * *": 1,
    "1,2,3,5,8,13,21,34,55 * * * *": 9,
    "0 */2 * * *": 1,
    "0 */5 * * *": 1,
    "*/20 9-17 * * *": 1,
    "*/20 9-17 * * 1-5": 1,
    "* * * * 1": 1,
    "30 22-2 * * *": 2,
    "30 3 * * *": 1,
    "0 3 * * 1": 1,
    "0 3 * * mon-fri": 1,
    "0 22 * * 7": 1,
    "0 0 * * sat-sun": 1,
    "0 0 1 * *": 1,
    "0 0 1,15 * *": 1,
    "0 0 31 * *": 1,
    "0 0 29 2 *": 1,
    "0 0 1 1 *": 1,
    "@yearly": 1,
    "0 0 1 */3 *": 1,
    "0 0 * jan,jul *": 1,
    "0 0 * 1-6 mon": 1,
    "0 0 */2 * *": 1,
    "0 0 * * */2": 1,
    "0 0 1-31 * 1": 1,
    "0 0 1 * 0-6": 1,
    "0 0 1 * */1": 1,
    "0 0 ? * mon": 1,
    "0 0 L * *": 1,
    "0 0 1,L * *": 1,
    "0 0 28-31,L 2,4,5 *": 1,
    "0 0 * * 5L": 1,
    "0 0 * * 1#2": 1,
    "0 6 * 3 1#1,1#2,4#1,5L": 3,
    "0 6 * * 5#4,5#5": 1,
    "0 6 * * 5#5,5L": 1,
    "15,45 8,12,18 * * 0,6": 3,
    "5,17,41 1,2,9,14,20 * * *": 7,
    "*/7 */5 * * *": 5,
    "1,4,9,16,25,36,49 0,1,4,9,16 * * *": 15,
    "2,3,5,7,11,13,17,19,23,29,31,37,41,43,47,53,59 2,3,5,7,11,13,17,19,23 * * *": 45,
}


def expected(trigger: Trigger, day: date) -> list[datetime]:
    """Return the fire times on a day of UTC, naive."""
    moment = datetime(day.year, day.month, day.day, tzinfo=UTC)
    end, found = moment + DAY, []
    following = trigger.next(moment - timedelta(microseconds=1))
    while following is not None and following < end:
        found.append(following.replace(tzinfo=None))
        following = trigger.next(following)
    return found


def first_on(trigger: Trigger, day: date) -> datetime | None:
    moment = datetime(day.year, day.month, day.day, tzinfo=UTC)
    found = trigger.next(moment - timedelta(microseconds=1))
    return found.replace(tzinfo=None) if found is not None and found < moment + DAY else None


def days(step: int = 1) -> list[date]:
    return [FIRST + DAY * number for number in range(0, (YEARS_END - FIRST).days, step)]


@pytest.mark.parametrize("expression", EXACT)
def test_every_day_of_three_years_begins_as_the_evaluator_says(expression: str) -> None:
    trigger = Cron(expression)
    triggers = to_task_triggers(trigger, timezone="UTC")
    is_busy = len(trigger.parts.hours) * len(trigger.parts.minutes) > 30

    assert len(triggers) == EXACT[expression]
    for day in days():
        if not is_busy or (day.day % 10 == 1 and day.month % 4 == 1):
            assert starts_on(triggers, day) == expected(trigger, day), day
        else:
            assert first_on(trigger, day) == first_start_on(triggers, day), day


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("expression", EXACT)
def test_every_start_of_three_years_is_one_of_the_evaluator(expression: str) -> None:
    trigger = Cron(expression)
    triggers = to_task_triggers(trigger, timezone="UTC")
    for day in days():
        assert starts_on(triggers, day) == expected(trigger, day), day


def values(low: int, high: int) -> st.SearchStrategy[str]:
    one = st.integers(low, high)
    listed = st.lists(one, min_size=1, max_size=4).map(lambda found: ",".join(map(str, sorted(set(found)))))
    steps = st.integers(1, high).map(lambda step: f"*/{step}")
    ranges = st.tuples(one, one).map(lambda pair: f"{min(pair)}-{max(pair)}")
    return st.one_of(st.just("*"), listed, steps, ranges)


@given(
    fields=st.tuples(values(0, 59), values(0, 23), values(1, 31), values(1, 12), values(0, 6)),
    offset=st.integers(0, 1_000),
)
def test_whatever_is_not_refused_is_exact(fields: tuple[str, ...], offset: int) -> None:
    try:
        trigger = Cron(" ".join(fields))
    except ValueError:
        return  # "30 2": a day that never comes
    try:
        triggers = to_task_triggers(trigger, timezone="UTC")
    except UnsupportedSchedule:
        return
    assert 1 <= len(triggers) <= 48
    for number in range(40):
        day = FIRST + DAY * (offset + number)
        assert first_on(trigger, day) == first_start_on(triggers, day)
    assert starts_on(triggers, day) == expected(trigger, day)


@given(minutes=st.sets(st.integers(0, 1439), min_size=1, max_size=60))
def test_progressions_hold_each_minute_once(minutes: set[int]) -> None:
    found = [minute for progression in cover(minutes) for minute in progression.minutes]
    assert sorted(found) == sorted(minutes)


def test_no_step_of_the_minute_field_takes_more_than_nine() -> None:
    assert max(len(to_task_triggers(Cron(f"*/{step} * * * *"))) for step in range(1, 60)) == 9


# --- what it looks like -----------------------------------------------------------------------------------


def test_what_repeats_round_the_clock_repeats_without_end() -> None:
    (trigger,) = to_task_triggers(Cron("*/20 * * * *"))
    assert isinstance(trigger, TimeTrigger)
    assert trigger.start == ANCHOR
    assert trigger.repetition is not None
    assert (trigger.repetition.interval_seconds, trigger.repetition.duration_seconds) == (1_200, None)


def test_hours_that_would_slip_when_clocks_change_begin_anew_each_day() -> None:
    (trigger,) = to_task_triggers(Cron("0 */2 * * *"), timezone="UTC")
    assert isinstance(trigger, CalendarTrigger)
    assert trigger.repetition is not None
    assert (trigger.repetition.interval_seconds, trigger.repetition.duration_seconds) == (7_200, 22 * 3_600 + 30)


def test_where_clocks_move_by_half_an_hour_an_hour_does_not_stay_on_its_minutes() -> None:
    assert isinstance(to_task_triggers(Cron("0 * * * *"), timezone="Europe/Berlin")[0], TimeTrigger)
    with pytest.raises(UnsupportedSchedule, match="clocks change between 02:00 and 02:30, through which"):
        to_task_triggers(Cron("0 * * * *"), timezone="Australia/Lord_Howe")
    assert isinstance(to_task_triggers(Cron("*/30 * * * *"), timezone="Australia/Lord_Howe")[0], TimeTrigger)


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("0 0 * * *", ByDay()),
        ("0 0 * * 1,3", ByWeek((1, 3))),
        ("0 0 1,L * *", ByMonth((1, "last"))),
        ("0 0 31,L 7 *", ByMonth(("last",), (7,))),
        ("0 0 * * 1#2", ByMonthWeekday((2,), (1,))),
        ("0 0 * 3 5L", ByMonthWeekday(("last",), (5,), (3,))),
        ("0 0 * 3 5", ByMonthWeekday((1, 2, 3, 4, "last"), (5,), (3,))),
        ("0 0 * 3 *", ByMonth(tuple(range(1, 32)), (3,))),
    ],
)
def test_days_are_named_in_the_simplest_way(expression: str, found: object) -> None:
    (trigger,) = to_task_triggers(Cron(expression))
    assert isinstance(trigger, CalendarTrigger)
    assert trigger.days == found


def test_times_with_seconds_and_several_of_them_are_exact() -> None:
    trigger = parse_every("monday", at=["09:00", "10:30:15"])
    triggers = to_task_triggers(trigger)
    assert [found.start.time().isoformat() for found in triggers] == ["09:00:00", "10:30:15"]
    for day in days(7)[:20]:
        for number in range(7):
            assert starts_on(triggers, day + DAY * number) == expected(trigger, day + DAY * number)


def test_weekdays_that_share_their_times_are_one_trigger() -> None:
    trigger = Cron("0 9,12 * * 1") | Cron("0 9,12 * * 4") | Cron("30 9 * * 5")
    triggers = to_task_triggers(trigger)
    assert len(triggers) == 2
    for day in days()[:60]:
        assert starts_on(triggers, day) == expected(trigger, day)


def test_a_union_that_never_meets_is_exact() -> None:
    trigger = Cron("0 9 1 * *") | Cron("0 10 * * 5") | Cron("0 9 * 3 *").in_timezone("UTC")
    with pytest.raises(UnsupportedSchedule, match="two of its parts may name one day"):
        to_task_triggers(trigger, timezone="UTC")
    trigger = Cron("0 9 1 * *") | Cron("0 10 * * 5") | Cron("0 9 15 3 *") | Cron("0 10 1 * *")
    with pytest.raises(UnsupportedSchedule, match="two of its parts may name one day"):
        to_task_triggers(trigger)
    trigger = Cron("0 9 1 2 *") | Cron("0 10 * * 5") | Cron("0 9 15 3 *")
    triggers = to_task_triggers(trigger)
    for day in days()[:800]:
        assert starts_on(triggers, day) == expected(trigger, day)


@pytest.mark.parametrize("period", ["1m", "5m", "7m", "90m", "5h", "1d", "31d"])
def test_elapsed_time_keeps_its_grid(period: str) -> None:
    anchor = datetime(2020, 5, 3, 1, 2, 3, tzinfo=UTC)
    for trigger in (Every(period), Every(period, anchor=anchor)):
        triggers = to_task_triggers(trigger)
        assert triggers[0].start.tzinfo is UTC
        for day in days(61):
            assert starts_on(triggers, day) == expected(trigger, day)


def test_an_instant_starts_once() -> None:
    trigger = At("2026-12-24T18:00:05+01:00")
    (found,) = to_task_triggers(trigger, now=datetime(2026, 12, 24, 17, tzinfo=UTC))
    assert found == TimeTrigger(datetime(2026, 12, 24, 17, 0, 5, tzinfo=UTC))
    assert len(to_task_triggers(trigger | At("2027-01-01T00:00:00Z"))) == 2


def test_the_same_schedule_makes_the_same_triggers() -> None:
    assert to_task_triggers(Cron("0 9,17 * * mon,tue")) == to_task_triggers(Cron("0 17,9 * * 1-2"))


# --- what is refused --------------------------------------------------------------------------------------

TWICE = "on a day that matches both as a day of the month and as a weekday it would start twice; split it"
BOTH = "it takes a day of the month or a weekday, not both at once; let the function look at the other"
DAILY = Cron("0 5 * * *")


class Odd(Trigger):
    def next(self, after: datetime) -> datetime | None:
        return None

    @property
    def fingerprint(self) -> str:
        return "odd"


@pytest.mark.parametrize(
    ("trigger", "reason"),
    [
        (Cron("0 0 13 * 5"), TWICE),
        (Cron("0 0 1 * */2"), BOTH),
        (Cron("0 0 */2 * 1"), BOTH),
        (Cron("0 0 */2 * */2"), BOTH),
        (Cron("0 0 13 * 5#2"), TWICE),
        (Cron("0 0 L * 5"), TWICE),
        (Cron("0 0 15W * *"), "it knows no nearest weekday (W)"),
        (
            Cron("0 0 * * 1#5"),
            "it knows the first to the fourth and the last weekday of a month, and no fifth",
        ),
        (
            Cron("*/30 * * * * *", seconds="first"),
            "it repeats after whole minutes, from 1 on; name one second",
        ),
        (Cron("0 0 0 1 1 * 2030", seconds="first"), "it knows no years"),
        (
            Cron("2,3,5,7,11,13,17,19,23,29,31,37,41,43,47,53,59 0,1,4,7,8,9,10,12,13,16,20,22 * * *"),
            "that takes 57 triggers, and a task has 48 at most; split it",
        ),
        (Every("90s"), "it repeats after whole minutes, from 1 on"),
        (Every("10s"), "it repeats after whole minutes, from 1 on"),
        (Every("32d"), "it repeats after 31 days at most; use a day of the month"),
        (
            Every("5m", anchor=datetime(2026, 1, 1, 0, 0, 0, 5, tzinfo=UTC)),
            "it starts at whole seconds; give an anchor without a fraction",
        ),
        (At("2026-01-01T00:00:00.5Z"), "it starts at whole seconds"),
        (At("2026-01-01T00:00:00Z"), "that instant has passed"),
        (
            Every("5m") | DAILY,
            "a union of elapsed time with something else may start it twice; make a task of each part",
        ),
        (DAILY.exclude(["2026-12-25"]), "it knows no exceptions; let the function look at the day, and do nothing"),
        (
            Between(DAILY, start_at="2026-12-25T00:00:00Z"),
            "a trigger that repeats cannot begin or end in the middle; create and delete the task at these times",
        ),
        (Odd(), "only Cron, Every and At can be translated"),
        (
            Cron("0 5 * * *", timezone="Asia/Seoul"),
            "it reads the machine's clock, which is in Europe/Berlin; let the app run to have another zone",
        ),
        (
            Cron("0 5 * * *", dst="both"),
            "it has a rule of its own for the nights on which clocks change; leave dst= out",
        ),
    ],
)
def test_what_cannot_be_said_is_refused_with_the_reason(trigger: Trigger, reason: str) -> None:
    with pytest.raises(UnsupportedSchedule) as caught:
        to_task_triggers(trigger, timezone="Europe/Berlin", now=datetime(2026, 2, 1, tzinfo=UTC))
    assert caught.value.reason == reason
    assert caught.value.schedule is trigger
    assert isinstance(caught.value, ValueError)


def test_a_refusal_reads_as_a_sentence() -> None:
    with pytest.raises(UnsupportedSchedule) as caught:
        to_task_triggers(Every("90s"))
    assert str(caught.value) == (
        "Task Scheduler cannot say Every('1m30s') exactly: it repeats after whole minutes, from 1 on"
    )


def test_a_zone_is_read_on_the_machine_that_is_in_it() -> None:
    berlin = Cron("0 5 * * *", timezone="Europe/Berlin")
    assert to_task_triggers(berlin, timezone="Europe/Berlin") == to_task_triggers(Cron("0 5 * * *"))
    with pytest.raises(UnsupportedSchedule) as caught:
        to_task_triggers(berlin)
    assert caught.value.reason == (
        'the zone of this machine is not known; say so if it is this one: timezone="Europe/Berlin" (--timezone)'
    )
    with pytest.raises(UnknownTimezone):
        to_task_triggers(Cron("0 5 * * *"), timezone="Europe/Berlni")


def test_too_many_instants_are_refused() -> None:
    trigger: Trigger = At(datetime(2027, 1, 1, tzinfo=UTC))
    for number in range(48):
        trigger = trigger | At(datetime(2027, 1, 2, 0, number, tzinfo=UTC))
    with pytest.raises(UnsupportedSchedule, match="that takes 49 triggers, and a task has 48 at most; split it"):
        to_task_triggers(trigger)
