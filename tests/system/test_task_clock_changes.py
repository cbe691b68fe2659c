"""Triggers of Task Scheduler on the days on which clocks change: exact, or refused."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickwork import Cron
from tickwork.errors import UnsupportedSchedule
from tickwork.system.clock_changes import find_changes
from tickwork.system.task_model import CalendarTrigger, TimeTrigger
from tickwork.system.task_triggers import to_task_triggers

from .task_starts import instant_of, instants_on
from .test_task_triggers import EXACT, values

DAY = timedelta(days=1)
ZONES = (
    *("Europe/Berlin", "America/New_York", "Europe/London", "America/Havana", "America/Santiago", "Africa/Cairo"),
    *("Africa/Casablanca", "Asia/Beirut", "Australia/Lord_Howe", "America/Nuuk", "Atlantic/Azores", "Asia/Seoul"),
)


def change_days(key: str) -> list[date]:
    """Return the days of three years on which clocks change, found without the code under test."""
    zone = ZoneInfo(key)
    days = [date(2026, 1, 1) + DAY * number for number in range(3 * 365)]
    noons = [datetime.combine(day, time(12), zone).utcoffset() for day in days]
    return [day for day, before, after in zip(days[1:], noons, noons[1:], strict=False) if before != after]


DAYS = {key: change_days(key) or [date(2026, 3, 29)] for key in ZONES}


def expected(trigger: Cron, day: date, zone: ZoneInfo) -> list[datetime]:
    """Return the fire times on a day of the zone."""
    moment, end = (instant_of(datetime.combine(at, time()), zone) for at in (day, day + DAY))
    found, following = [], trigger.next(moment - timedelta(microseconds=1))
    while following is not None and following < end:
        found.append(following)
        following = trigger.next(following)
    return found


def check(expression: str, key: str, days: list[date]) -> int:
    """Hold each start around changes of clocks against the evaluator; return how many days: 0 where it is refused."""
    trigger = Cron(expression, timezone=key)
    try:
        triggers = to_task_triggers(trigger, timezone=key)
    except UnsupportedSchedule:
        return 0
    zone = ZoneInfo(key)
    for changed in days:
        around = (changed - DAY, changed, changed + DAY)  # what is skipped at 23:30 starts on the day after
        starts = [start for day in around for start in instants_on(triggers, day, zone)]
        assert starts == [at for day in around for at in expected(trigger, day, zone)], (expression, key, changed)
    return len(days)


@pytest.mark.parametrize("key", ZONES)
def test_what_is_not_refused_is_exact_on_each_day_on_which_clocks_change(key: str) -> None:
    exact = [expression for expression in EXACT if check(expression, key, DAYS[key])]

    assert {"* * * * *", "*/5 * * * *", "*/20 9-17 * * 1-5", "30 3 * * *", "0 0 1 1 *"} <= set(exact)


@given(
    fields=st.tuples(values(0, 59), values(0, 23), st.just("*"), values(1, 12), values(0, 6)),
    key=st.sampled_from(ZONES),
    number=st.integers(0, 5),
)
def test_random_expressions_are_exact_or_refused(fields: tuple[str, ...], key: str, number: int) -> None:
    check(" ".join(fields), key, [DAYS[key][number % len(DAYS[key])]])


@pytest.mark.parametrize(
    ("expression", "key", "count"),
    [
        ("0 0,12 * * *", "Europe/Berlin", 2),  # one repetition over the change would be off by the hour
        ("0 0,12 * * *", "Asia/Seoul", 1),
        ("*/20 0-1,3-6 * * mon-fri", "Europe/Berlin", 2),  # clocks change on Sundays
        ("0,20,40 0-1,4-6 * * *", "Europe/Berlin", 2),  # cut where they do
        ("30 2 * * *", "Europe/Berlin", 1),
        ("0 2,4,6 * * *", "Europe/Berlin", 2),
        ("*/20 3-6 * * *", "Europe/Berlin", 1),
        ("*/20 0-6 * * *", "Asia/Seoul", 1),
        ("*/20 0-6 * * mon-fri", "Europe/Berlin", 1),
        ("*/20 0-6 * 5-9 *", "Europe/Berlin", 1),
        ("0 */2 1-24 * *", "Europe/Berlin", 1),  # never in the last week of a month
    ],
)
def test_times_are_cut_only_where_clocks_change(expression: str, key: str, count: int) -> None:
    assert len(to_task_triggers(Cron(expression, timezone=key), timezone=key)) == count
    assert check(expression, key, DAYS[key])


BETWEEN = "in Europe/Berlin clocks change between 02:00 and 03:00"
REMEDY = "name times that keep clear of that, or let the app run it"
THROUGH = f"{BETWEEN}, through which it follows the wall clock, and a task cannot; {REMEDY}"
AT_ONCE = f"{BETWEEN}, after which several of its times would come at once; {REMEDY}"


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("*/20 0-6 * * *", THROUGH),
        ("0 */2 * * *", THROUGH),
        ("* 2 * * 0", THROUGH),
        ("15,45 2 * * *", AT_ONCE),
        ("0 2,3 * * *", AT_ONCE),
        ("0 0-23 * * *", AT_ONCE),
    ],
)
def test_what_runs_through_a_change_of_clocks_is_refused(expression: str, reason: str) -> None:
    with pytest.raises(UnsupportedSchedule) as caught:
        to_task_triggers(Cron(expression, timezone="Europe/Berlin"), timezone="Europe/Berlin")
    assert caught.value.reason == reason


def test_where_the_zone_is_not_known_clocks_may_change_at_night() -> None:
    assert len(to_task_triggers(Cron("*/20 4-20 * * *"))) == 1
    assert len(to_task_triggers(Cron("30 2 * * *"))) == 1
    with pytest.raises(UnsupportedSchedule) as caught:
        to_task_triggers(Cron("*/20 0-6 * * *"))
    assert caught.value.reason == (
        "clocks may change between 00:00 and 00:30, through which it follows the wall clock, and a task cannot; say the"
        ' zone of the machine, where they may change at another time: timezone="Europe/Berlin"'
    )


def test_whole_days_without_end_follow_the_wall_clock_by_themselves() -> None:
    (hourly,) = to_task_triggers(Cron("0 * * * *", timezone="Europe/Berlin"), timezone="Europe/Berlin")
    assert isinstance(hourly, TimeTrigger)
    (fixed,) = to_task_triggers(Cron("0 4-20 * * *", timezone="Europe/Berlin"), timezone="Europe/Berlin")
    assert isinstance(fixed, CalendarTrigger)


def test_changes_are_those_of_the_zone() -> None:
    found = find_changes("Europe/Berlin")
    assert [(change.day, change.start, change.end, change.is_gap) for change in found[:2]] == [
        (date(2026, 3, 29), 120, 180, True),
        (date(2026, 10, 25), 120, 180, False),
    ]
    assert len(found) == 80
    assert find_changes("UTC") == ()
    assert [(change.start, change.end) for change in find_changes("America/Santiago")[:2]] == [(1380, 1440), (0, 60)]
    assert {change.day for change in find_changes(None)} == {None}
    assert datetime(2026, 3, 29, 1, tzinfo=UTC) == instant_of(datetime(2026, 3, 29, 2, 30), ZoneInfo("Europe/Berlin"))  # noqa: DTZ001
