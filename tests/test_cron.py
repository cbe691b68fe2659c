from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar
from zoneinfo import ZoneInfo, available_timezones

import pytest
from croniter import croniter
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cron_oracle import Oracle
from tickwork import zones
from tickwork.cron_expression import _MAX_WINDOWS, Plan, _parse, fire_after, parse
from tickwork.errors import InvalidCron, InvalidOption
from tickwork.triggers import Cron, DstRule, upcoming

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
NEW_YORK = "America/New_York"
SECOND = timedelta(seconds=1)
MICROSECOND = timedelta(microseconds=1)


def at(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def fires(expression: str, after: str, n: int, zone: str = "UTC", dst: DstRule = "cron") -> list[str]:
    trigger = Cron(expression, timezone=zone, dst=dst)
    return [f"{moment:%Y-%m-%d %H:%M}" for moment in upcoming(trigger, at(after), n)]


# --- clock changes, as Debian's cron does (times in UTC) ---------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("30 2 * * *", ["2026-03-08 07:00", "2026-03-09 06:30"]),
        ("0,30 2 * * *", ["2026-03-08 07:00", "2026-03-09 06:00"]),
        ("0 2,3 * * *", ["2026-03-08 07:00", "2026-03-09 06:00"]),
        ("30 0-23 * * *", ["2026-03-08 06:30", "2026-03-08 07:00", "2026-03-08 07:30"]),
        ("59 1 * * *", ["2026-03-08 06:59", "2026-03-09 05:59"]),
        ("0 3 * * *", ["2026-03-08 07:00", "2026-03-09 07:00"]),
    ],
)
def test_a_fixed_time_swallowed_by_a_gap_runs_once_right_after_it(expression: str, expected: list[str]) -> None:
    assert fires(expression, "2026-03-08 06:20", len(expected), NEW_YORK) == expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("*/15 2 * * *", ["2026-03-09 06:00", "2026-03-09 06:15"]),
        ("* 2 * * *", ["2026-03-09 06:00", "2026-03-09 06:01"]),
        ("0 */2 * * *", ["2026-03-08 08:00", "2026-03-08 10:00"]),
        ("30 * * * *", ["2026-03-08 06:30", "2026-03-08 07:30"]),
        ("*/30 * * * *", ["2026-03-08 06:30", "2026-03-08 07:00", "2026-03-08 07:30"]),
    ],
)
def test_a_wildcard_job_gets_no_invented_run_after_a_gap(expression: str, expected: list[str]) -> None:
    assert fires(expression, "2026-03-08 06:20", len(expected), NEW_YORK) == expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("30 1 * * *", ["2026-11-01 05:30", "2026-11-02 06:30"]),
        ("0 1,2 * * *", ["2026-11-01 05:00", "2026-11-01 07:00"]),
        ("30 0-23 * * *", ["2026-11-01 04:30", "2026-11-01 05:30", "2026-11-01 07:30"]),
    ],
)
def test_a_fixed_time_in_a_repeated_hour_runs_in_the_first_pass_only(expression: str, expected: list[str]) -> None:
    assert fires(expression, "2026-11-01 04:10", len(expected), NEW_YORK) == expected


def test_the_parts_are_the_values_of_the_fields() -> None:
    parts = Cron("15,45 9-10 1,L feb,aug *").parts
    assert [sorted(values) for values in parts[:5]] == [[0], [15, 45], [9, 10], [2, 8], [0, 1]]
    assert sorted(parts.weekdays) == list(range(7))
    assert (len(parts.near_days), len(parts.nth_weekdays), parts.is_either, parts.years) == (0, 0, False, None)
    assert Cron("0 0 * * 5#2,1L").parts.nth_weekdays == {(5, 2), (1, "l")}
    assert Cron("0 0 15W * *").parts.near_days == {15}
    assert Cron("0 0 13 * 5").parts.is_either
    assert Cron("30 0 0 1 1 * 2030", seconds="first").parts.years == (2030,)
    assert Cron("30 0 0 1 1 * 2030", seconds="first").parts.seconds == {30}


def test_a_wildcard_job_runs_in_both_passes_of_a_repeated_hour() -> None:
    assert fires("*/30 * * * *", "2026-11-01 04:50", 4, NEW_YORK) == [
        "2026-11-01 05:00",
        "2026-11-01 05:30",
        "2026-11-01 06:00",
        "2026-11-01 06:30",
    ]


@pytest.mark.parametrize("expression", ["*/10 1 1 11 *", "*/10 1 1 11 * 0 2026"])
def test_the_second_pass_is_not_jumped_over_when_the_next_date_is_far(expression: str) -> None:
    trigger = Cron(expression, timezone=NEW_YORK, seconds="last" if "2026" in expression else None)

    assert trigger.next(at("2026-11-01T05:55")) == at("2026-11-01T06:00")


def test_asked_from_inside_the_second_pass_a_fixed_time_is_tomorrow() -> None:
    assert fires("30 1 * * *", "2026-11-01 06:10", 1, NEW_YORK) == ["2026-11-02 06:30"]


def test_a_midnight_that_a_gap_swallows_runs_at_one() -> None:
    assert fires("0 0 * * *", "2018-11-03 12:00", 2, "America/Sao_Paulo") == [
        "2018-11-04 03:00",
        "2018-11-05 02:00",
    ]


def test_a_skipped_day_is_a_correction_and_replays_nothing() -> None:
    assert fires("30 2 * * *", "2011-12-29 06:00", 2, "Pacific/Apia") == [
        "2011-12-29 12:30",
        "2011-12-30 12:30",  # 31 December on the wall: the 30th never was
    ]


@pytest.mark.parametrize("zone", [NEW_YORK, "US/Pacific", "Europe/Berlin"])
@pytest.mark.parametrize("year", [2025, 2026])
def test_no_midnight_is_lost_around_a_clock_change(zone: str, year: int) -> None:
    found = upcoming(Cron("0 0 * * *", timezone=zone), at(f"{year}-01-01T12:00"), 360)

    days = [moment.astimezone(ZoneInfo(zone)) for moment in found]
    assert all(day.hour == 0 for day in days)
    assert all(later.date() - day.date() == timedelta(days=1) for day, later in pairwise(days))


def test_a_shift_of_thirty_minutes_loses_nothing() -> None:
    # Lord Howe goes back from 02:00+11 to 01:30+10:30 at 15:00Z
    assert fires("*/10 * * * *", "2026-04-04 14:35", 5, "Australia/Lord_Howe") == [
        "2026-04-04 14:40",
        "2026-04-04 14:50",
        "2026-04-04 15:00",
        "2026-04-04 15:10",
        "2026-04-04 15:20",
    ]
    assert fires("45 * * * *", "2026-04-04 14:40", 3, "Australia/Lord_Howe") == [
        "2026-04-04 14:45",
        "2026-04-04 15:15",
        "2026-04-04 16:15",
    ]
    assert fires("45 1 * * *", "2026-04-04 14:40", 2, "Australia/Lord_Howe") == [
        "2026-04-04 14:45",
        "2026-04-05 15:15",
    ]


def test_a_shift_of_two_hours_repeats_both_hours_for_wildcards_only() -> None:
    # Troll goes back from 03:00+02 to 01:00+00 at 01:00Z
    assert fires("0 * * * *", "2025-10-25 22:30", 5, "Antarctica/Troll") == [
        "2025-10-25 23:00",
        "2025-10-26 00:00",
        "2025-10-26 01:00",
        "2025-10-26 02:00",
        "2025-10-26 03:00",
    ]
    assert fires("0 1,2,3 * * *", "2025-10-25 22:30", 3, "Antarctica/Troll") == [
        "2025-10-25 23:00",
        "2025-10-26 00:00",
        "2025-10-26 03:00",
    ]
    assert fires("0 1,2,3 * * *", "2025-03-30 00:30", 2, "Antarctica/Troll") == [
        "2025-03-30 01:00",  # 01:00 to 03:00 are swallowed: once, at 03:00+02
        "2025-03-30 23:00",
    ]


def test_a_move_back_of_exactly_three_hours_is_still_a_repeat() -> None:
    # Casey went from +11 to +8 at 2010-03-04T15:00Z: 02:00 back to 23:00 of the day before
    assert fires("30 23 * * *", "2010-03-04 12:00", 2, "Antarctica/Casey") == [
        "2010-03-04 12:30",
        "2010-03-05 15:30",
    ]


def test_a_move_forward_of_exactly_three_hours_replays_nothing() -> None:
    # Casey went from +8 to +11 at 2009-10-17T18:00Z: 02:00 to 05:00
    assert fires("30 3 * * *", "2009-10-17 12:00", 1, "Antarctica/Casey") == ["2009-10-18 16:30"]


@pytest.mark.parametrize(
    ("dst", "gap", "repeat"),
    [
        ("cron", ["2026-03-08 07:00"], ["2026-11-01 05:30"]),
        ("skip", [], ["2026-11-01 05:30"]),
        ("both", ["2026-03-08 07:00"], ["2026-11-01 05:30", "2026-11-01 06:30"]),
    ],
)
def test_the_dst_option_chooses_for_a_fixed_time(dst: DstRule, gap: list[str], repeat: list[str]) -> None:
    in_gap = [text for text in fires("30 2 * * *", "2026-03-08 05:00", 2, NEW_YORK, dst) if "03-08" in text]
    in_repeat = [text for text in fires("30 1 * * *", "2026-11-01 04:50", 3, NEW_YORK, dst) if "11-01" in text]

    assert in_gap == gap
    assert in_repeat == repeat


def test_the_dst_option_holds_for_wildcards_too() -> None:
    assert fires("*/30 * * * *", "2026-11-01 05:20", 2, NEW_YORK, "skip") == [
        "2026-11-01 05:30",
        "2026-11-01 07:00",
    ]
    assert fires("*/15 2 * * *", "2026-03-08 05:20", 1, NEW_YORK, "both") == ["2026-03-08 07:00"]


# --- what the fields mean ----------------------------------------------------------------------------------


def test_both_day_fields_restricted_match_either() -> None:
    assert fires("0 0 13 * 5", "2026-11-01", 4) == [
        "2026-11-06 00:00",
        "2026-11-13 00:00",
        "2026-11-20 00:00",
        "2026-11-27 00:00",
    ]
    assert fires("0 0 15 * 1#1", "2026-11-03", 2) == ["2026-11-15 00:00", "2026-12-07 00:00"]
    assert fires("0 0 L * L5", "2026-11-03", 2) == ["2026-11-27 00:00", "2026-11-30 00:00"]
    assert fires("0 0 15W * 1", "2026-11-10", 2) == ["2026-11-16 00:00", "2026-11-23 00:00"]


def test_a_day_field_that_begins_with_a_star_restricts_nothing() -> None:
    assert fires("0 0 */2 * 1", "2026-11-01", 2) == ["2026-11-09 00:00", "2026-11-23 00:00"]
    assert fires("0 0 13 * */5", "2026-01-01", 2) == ["2026-02-13 00:00", "2026-03-13 00:00"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("5-5 * * * *", "5 * * * *"),  # croniter: every minute
        ("10-10/5 * * * *", "10 * * * *"),
        ("0 0 * * 7-7", "0 0 * * 0"),  # croniter: every day
        ("0 0 * * 7-0", "0 0 * * 0"),
        ("0 0 * * 0-7", "0 0 * * *"),
        ("0 0 * * 5-7", "0 0 * * 0,5,6"),
        ("0 0 * * 1-7/2", "0 0 * * 0,1,3,5"),
        ("0 22-6/3 * * *", "0 1,4,22 * * *"),  # croniter: 2 5 22
        ("0 0 1 oct-apr/2 *", "0 0 1 2,4,10,12 *"),  # croniter: 3 10 12
        ("0 22-2 * * *", "0 0,1,2,22,23 * * *"),
        ("0 0 * * fri-mon", "0 0 * * 0,1,5,6"),
        ("59/15 * * * *", "59 * * * *"),
        ("5/20 * * * *", "5,25,45 * * * *"),
        ("0 0 * * 1/3", "0 0 * * 1,4"),
        ("0 0 * * 5L", "0 0 * * L5"),
        ("0 0 * * friL", "0 0 * * L5"),
        ("0 0 * * 7L", "0 0 * * L0"),
        ("0 0 W15 * *", "0 0 15W * *"),
        ("0 0 ? * MON", "0 0 * * 1"),
        ("0 0 1-31 * 1", "0 0 * * *"),  # restricted by crontab(5)'s letter: either, so every day
        ("  0\t0 * JAN-Mar *\n", "0 0 * 1,2,3 *"),
        ("*/90 * * * *", "0 * * * *"),
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
        ("@monthly", "0 0 1 * *"),
        ("@weekly", "0 0 * * 0"),
        ("@daily", "0 0 * * *"),
        (" @Midnight ", "0 0 * * *"),
        ("@hourly", "0 * * * *"),
    ],
)
def test_two_spellings_of_one_meaning(one: str, other: str) -> None:
    assert parse(one).canonical == parse(other).canonical


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("0 0 2-31,L * *", "0 0 * * *"),
        ("0 0 15 * 1", "0 0 */15 * 1"),
        ("0 0 * * 1#1", "0 0 * * 1"),
        ("0 0 15W * *", "0 0 15 * *"),
        ("0 0 31 * *", "0 0 L * *"),
        ("0 1 * * *", "1 0 * * *"),
    ],
)
def test_two_spellings_of_two_meanings(one: str, other: str) -> None:
    assert parse(one).canonical != parse(other).canonical


def test_the_last_day_and_the_nearest_weekday_stay_in_their_month() -> None:
    assert fires("0 0 L * *", "2024-01-31 12:00", 2) == ["2024-02-29 00:00", "2024-03-31 00:00"]
    assert fires("0 0 1W 8 *", "2026-01-01", 1) == ["2026-08-03 00:00"]  # the 1st is a Saturday
    assert fires("0 0 31W 5 *", "2026-01-01", 1) == ["2026-05-29 00:00"]  # the 31st is a Sunday
    assert fires("0 0 31W 4 *", "2026-01-01", 1) == ["2026-04-30 00:00"]
    assert fires("0 0 1,L * *", "2026-01-01 12:00", 2) == ["2026-01-31 00:00", "2026-02-01 00:00"]


def test_a_leap_day_is_found_across_a_century_without_one() -> None:
    assert fires("0 0 29 2 *", "2096-03-01", 1) == ["2104-02-29 00:00"]


def test_a_rare_day_is_found_forty_years_ahead() -> None:
    # 29 February on a Sunday, after the century without a leap day
    assert fires("0 0 29 2 */7", "2088-03-01", 1) == ["2128-02-29 00:00"]


def test_a_year_list_ends() -> None:
    trigger = Cron("0 0 1 1 * 0 2030,2099", seconds="last")

    assert [found.year for found in upcoming(trigger, at("2026-01-01"), 5)] == [2030, 2099]


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
def test_a_year_list_in_the_past_is_finished(zone: str) -> None:
    assert Cron("0 0 1 1 * 0 2020", seconds="last", timezone=zone).next(at("2026-01-01")) is None


def test_a_starred_year_has_no_end() -> None:
    assert Cron("0 0 1 1 * 0 *", seconds="last").next(at("2150-06-01")) == at("2151-01-01")


def test_seconds_stand_first_or_last_as_told() -> None:
    first = Cron("15 30 2 * * *", seconds="first")
    last = Cron("30 2 * * * 15", seconds="last")

    assert first.next(at("2026-01-01")) == last.next(at("2026-01-01")) == at("2026-01-01T02:30:15")
    assert first.fingerprint == last.fingerprint


def test_an_alias_is_complete_with_any_order_of_seconds() -> None:
    assert Cron("@daily", seconds="first").fingerprint == Cron("@daily").fingerprint


def test_the_second_after_is_exact_to_the_microsecond() -> None:
    trigger = Cron("* * * * * *", seconds="last")

    assert trigger.next(at("2026-01-01T00:00:00.999999")) == at("2026-01-01T00:00:01")
    assert trigger.next(at("2026-01-01T00:00:01")) == at("2026-01-01T00:00:02")
    assert trigger.next(at("2026-01-01T00:00:01.000001")) == at("2026-01-01T00:00:02")


def test_steps_larger_than_their_range_are_taken_with_a_warning() -> None:
    assert parse("*/90 * 5/40 * *").warnings == (
        "'*/90' in the minute field means only 0: the step is larger than the range",
        "'5/40' in the day field means only 5: the step is larger than the range",
    )
    assert parse("*/59 */1 * * *").warnings == ()


# --- H -----------------------------------------------------------------------------------------------------


def test_h_is_fixed_by_the_name_and_differs_between_names() -> None:
    plans = {name: parse("H H * * *", name=name).canonical for name in ("a.b", "a.c", "other")}

    assert len(set(plans.values())) == 3
    assert parse("H H * * *", name="a.b").canonical == plans["a.b"]


@pytest.mark.parametrize("number", range(200))
def test_h_stays_in_its_range(number: int) -> None:
    plan = parse("H(10-20) H(5-6) H H(3-4) H", name=f"task{number}")

    found = upcoming_walls(plan, at("2025-01-01"), 1)[0]
    assert 10 <= found.minute <= 20
    assert found.hour in (5, 6)


def upcoming_walls(plan: Plan, after: datetime, n: int) -> list[datetime]:
    walls = []
    for _ in range(n):
        found = plan.first_after(after)
        assert found is not None
        walls.append(after := found)
    return walls


def test_h_in_the_day_field_is_a_day_that_every_month_has() -> None:
    for number in range(300):
        months = [wall.month for wall in upcoming_walls(parse("0 0 H * *", name=str(number)), at("2025-01-01"), 14)]
        assert len(set(months)) >= 12


def test_h_with_a_step_keeps_the_step() -> None:
    minutes = [wall.minute for wall in upcoming_walls(parse("H/15 * * * *", name="x"), at("2025-01-01"), 4)]

    assert [later - minute for minute, later in pairwise(minutes)] == [15, 15, 15]


def test_h_hashes_alike_in_both_orders_of_seconds() -> None:
    first, last = parse("H H H * * *", "first", "x"), parse("H H * * * H", "last", "x")

    assert first.canonical == last.canonical


def test_an_alias_means_the_same_with_a_name() -> None:
    assert parse("@daily", name="x").canonical == parse("@daily").canonical


# --- refusals ----------------------------------------------------------------------------------------------

SAY_WHERE = 'say where the second stands, seconds="first" (Quartz, Spring) or seconds="last" (croniter)'
WRITE_NTH = 'write one weekday and 1 to 5, as in "5#2", or a list of such'
WRITE_H = 'is malformed or in a list; write "H", "H/n", "H(a-b)" or "H(a-b)/n" alone'
ALIASES = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"]


@pytest.mark.parametrize(
    ("expression", "field", "reason"),
    [
        ("", None, "it is empty"),
        ("   ", None, "it is empty"),
        ("* * * *", None, "it needs 5 fields (minute hour day month weekday), got 4"),
        ("* * * * * * * *", None, "it needs 5 fields (minute hour day month weekday), got 8"),
        (
            "0 0 5 * * *",
            None,
            f"6 fields: {SAY_WHERE}",
        ),
        ("61 * * * *", "minute", "61 is not in 0-59"),
        ("* 24 * * *", "hour", "24 is not in 0-23"),
        ("* * 0 * *", "day", "0 is not in 1-31"),
        ("* * 32 * *", "day", "32 is not in 1-31"),
        ("* * * 0 *", "month", "0 is not in 1-12"),
        ("* * * 13 *", "month", "13 is not in 1-12"),
        ("* * * * 8", "weekday", "8 is not in 0-7"),
        ("5-61 * * * *", "minute", "61 is not in 0-59"),
        ("*/0 * * * *", "minute", "in '*/0' the step is 0; it must be at least 1"),
        ("*/ * * * *", "minute", "'*/' needs one whole number after the /"),
        ("*/2/3 * * * *", "minute", "'*/2/3' needs one whole number after the /"),
        ("*/2.5 * * * *", None, "a step must be a whole number"),
        ("*5 * * * *", "minute", "'*5' is malformed; write \"*\" or \"*/n\""),
        ("** * * * *", "minute", "'**' is malformed; write \"*\" or \"*/n\""),
        ("5- * * * *", "minute", "'5-' is a range without an end"),
        ("5-/2 * * * *", "minute", "'5-/2' is a range without an end"),
        ("-5 * * * *", "minute", "'-5' is no range; negative numbers do not exist here"),
        ("5--7 * * * *", "minute", "'5--7' is no range; negative numbers do not exist here"),
        ("1,,2 * * * *", "minute", "an item of the list is empty"),
        ("1, * * * *", "minute", "an item of the list is empty"),
        ("mon * * * *", "minute", "'mon' is a weekday and stands in the minute field"),
        ("* * * mon *", "month", "'mon' is a weekday and stands in the month field"),
        ("* * * * jul", "weekday", "'jul' is a month and stands in the weekday field"),
        ("* * * * monday", "weekday", "names have three letters: write 'mon' instead of 'monday'"),
        ("* * * january *", "month", "names have three letters: write 'jan' instead of 'january'"),
        ("* * * * mno", "weekday", "unknown name 'mno'; did you mean 'mon'?"),
        ("five * * * *", "minute", "'five' is not a number"),
        ("* * * * 1#0", "weekday", "in '1#0' the number after # must be 1 to 5"),
        ("* * * * 1#6", "weekday", "in '1#6' the number after # must be 1 to 5"),
        ("* * * * mon-fri#1", "weekday", f"'mon-fri#1' is malformed; {WRITE_NTH}"),
        ("* * * * 1,5#2", "weekday", "'1,5#2' mixes plain weekdays with # or L; use two expressions"),
        ("* * * * L", "weekday", '"L" needs a weekday here: "L5" is the last Friday'),
        ("1#2 * * * *", "minute", '"#" has a meaning in the weekday field only, as in "5#2"'),
        ("* * 1,15W * *", "day", "'15w' must stand alone, not in a list"),
        ("* * 0W * *", "day", "0 is not in 1-31"),
        ("* * LW * *", "day", "'LW' is not supported in the day field"),
        ("* * L-3 * *", "day", "'L-3' is not supported in the day field"),
        ("* * 15-L * *", "day", "'15-l' is not supported; write '15-31'"),
        ("* L * * *", "hour", "'L' is not supported in the hour field"),
        ("? * * * *", "minute", '"?" has a meaning in the day and weekday fields only'),
        ("* * ?,1 * *", "day", '"?" must stand alone'),
        ("H * * * *", "minute", 'H needs a seed: pass name="..."'),
        ("R * * * *", "minute", "R draws anew in each process, so that replicas disagree; use H"),
        ("~ * * * *", None, '"~" draws anew in each process; use H(a-b), which is fixed by the name'),
        ("0 0 * * \u0661", None, "'\u0661' is not an ASCII character"),
        ("0 0 * *\u00a0*", None, "'\\xa0' is not an ASCII character"),
        ("0 0 *\n* *", None, "'\\n' is not part of cron's syntax"),
        ("0 0 * * \0", None, "'\\x00' is not part of cron's syntax"),
        ('"0 0 * * *"', None, "quotes are not part of an expression"),
        ("0 5 * * * # daily", None, "comments are not part of an expression"),
        (
            "CRON_TZ=Asia/Seoul 0 5 * * *",
            None,
            "settings such as CRON_TZ= are not part of an expression; use timezone=",
        ),
        ("@reboot", None, '"@reboot" is not a time; use first="now" or the app\'s on_start'),
        ("@every 5m", None, 'use Every("5m") or @every("5m") for elapsed time'),
        ("@dayly", None, "unknown alias; did you mean '@daily'?"),
        ("@", None, f"unknown alias; known: {', '.join(ALIASES)}"),
        ("9999999 * * * *", "minute", "'9999999' has more than 6 digits"),
        ("*/9999999 * * * *", "minute", "the step '9999999' has more than 6 digits"),
        ("0 0 30 2 *", "day", "no such date ever comes: day '30', month '2', weekday '*'"),
        ("0 0 31 apr,jun *", "day", "no such date ever comes: day '31', month 'apr,jun', weekday '*'"),
        ("0 0 */31 2 2#2", "day", "no such date ever comes: day '*/31', month '2', weekday '2#2'"),
    ],
)  # fmt: skip
def test_a_bad_expression_is_refused_with_field_and_reason(expression: str, field: str | None, reason: str) -> None:
    with pytest.raises(InvalidCron) as caught:
        parse(expression)

    assert (caught.value.field, caught.value.reason) == (field, reason)
    assert caught.value.expression == expression


@pytest.mark.parametrize(
    ("expression", "field", "reason"),
    [
        ("0 0 * * * *", None, None),
        ("0 0 5 * *", None, "seconds='first' needs 6 or 7 fields, got 5"),
        ("60 0 0 * * *", "second", "60 is not in 0-59"),
        ("0 0 0 1 1 ? 1969", "year", "1969 is not in 1970-2099"),
        ("0 0 0 1 1 ? 2030-2028", "year", "the range '2030-2028' runs backwards"),
        ("0 0 0 29 2 ? 2026", "day", "no such date ever comes: day '29', month '2', weekday '?' in 2026"),
        ("0 0 0 1 1 ? H", "year", "H draws no year"),
    ],
)
def test_a_bad_expression_with_seconds_is_refused(expression: str, field: str | None, reason: str | None) -> None:
    if reason is None:
        parse(expression, "first")
        return

    with pytest.raises(InvalidCron) as caught:
        parse(expression, "first")

    assert (caught.value.field, caught.value.reason) == (field, reason)


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("H(5-5) * * * *", "in 'h(5-5)' the range must ascend"),
        ("H(0-60) * * * *", "60 is not in 0-59"),
        ("H/0 * * * *", "in 'h/0' the step is 0; it must be at least 1"),
        ("H( * * * *", f"'h(' {WRITE_H}"),
        ("H,5 * * * *", f"'h' {WRITE_H}"),
    ],
)  # fmt: skip
def test_a_bad_h_is_refused(expression: str, reason: str) -> None:
    with pytest.raises(InvalidCron) as caught:
        parse(expression, name="x")

    assert (caught.value.field, caught.value.reason) == ("minute", reason)


@pytest.mark.parametrize("expression", [None, 5, b"* * * * *", ["*"], object(), 1.5, True])
def test_what_is_no_text_is_refused_as_an_expression(expression: object) -> None:
    with pytest.raises(InvalidCron) as caught:
        parse(expression)

    assert caught.value.reason == f"it must be a text, not {type(expression).__name__}"


@pytest.mark.parametrize(
    "expression",
    ["1" * 5_000 + " * * * *", "1," * 100_000 + "1 * * * *", "\0" * 5_000, "* " * 3_000, "\ud800" * 5],
)
def test_hostile_sizes_are_refused_with_a_short_message(expression: str) -> None:
    with pytest.raises(InvalidCron) as caught:
        parse(expression)

    assert len(str(caught.value)) < 300


def test_the_message_of_a_refused_expression() -> None:
    with pytest.raises(InvalidCron) as caught:
        parse("61 * * * *")

    assert str(caught.value) == "invalid cron expression '61 * * * *' (field 'minute'): 61 is not in 0-59"


def test_a_refusal_travels_between_processes() -> None:
    with pytest.raises(InvalidCron) as caught:
        parse("61 * * * *")

    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.field) == (str(caught.value), "minute")


def test_an_unknown_place_of_the_second_is_refused() -> None:
    with pytest.raises(InvalidOption) as caught:
        parse("* * * * * *", "middle")

    assert str(caught.value) == 'seconds must be "first", "last" or None, got \'middle\''


def test_a_name_that_is_no_text_is_refused() -> None:
    with pytest.raises(InvalidOption) as caught:
        parse("H * * * *", name=5)  # type: ignore[arg-type]

    assert str(caught.value) == "name must be a text or None, got 5"


def test_whatever_croniter_raises_becomes_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AttributeError

    monkeypatch.setattr("croniter.croniter", refuse)

    with pytest.raises(InvalidCron) as caught:
        parse("17 4 9 * *")
    assert caught.value.reason == "AttributeError"


def test_equal_expressions_share_one_plan() -> None:
    assert parse("5 4 * * *") is parse("5 4 * * *")
    assert parse("5 4 * * *", name="a") is parse("5 4 * * *", name="b")


# --- properties --------------------------------------------------------------------------------------------

LIMITS = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 7), (0, 59)]
NAMES = {
    3: ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
    4: ["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
}
STEPS = st.sampled_from([1, 2, 3, 5, 7, 10, 15, 20, 40, 90])


def values(index: int) -> st.SearchStrategy[str]:
    numbers = st.integers(*LIMITS[index]).map(str)
    return numbers | st.sampled_from(NAMES[index]) if index in NAMES else numbers


def items(index: int, *, portable: bool) -> st.SearchStrategy[str]:
    value = values(index)
    ranges = st.tuples(value, value).map("-".join)
    if portable:  # what croniter and tickwork read alike: no a-a, no stepped wraps
        pairs = st.tuples(st.integers(*LIMITS[index]), st.integers(*LIMITS[index]))
        ranges = pairs.filter(lambda pair: pair[0] < pair[1] and pair != (0, 7)).map(lambda p: f"{p[0]}-{p[1]}")
    return st.one_of(
        value,
        ranges,
        st.tuples(ranges if not portable or index != 4 else value, STEPS).map(lambda p: f"{p[0]}/{p[1]}"),
        STEPS.map(lambda step: f"*/{step}"),
    )


def fields(index: int, *, portable: bool = False) -> st.SearchStrategy[str]:
    plain = st.lists(items(index, portable=portable), min_size=1, max_size=3).map(",".join)
    choices = [st.just("*"), st.just("*"), plain]
    if not portable and index == 2:
        choices.append(st.sampled_from(["L", "L,15", "15W", "W1", "31W", "30w", "?"]))
    if not portable and index == 4:
        choices.append(st.sampled_from(["1#1", "5#5", "L5", "6L", "7L", "mon#2", "friL", "0#1,3#2", "?"]))
    return st.one_of(choices)


def expressions(size: int = 5, *, portable: bool = False) -> st.SearchStrategy[str]:
    return st.tuples(*(fields(index, portable=portable) for index in range(size))).map(" ".join)


# A zone and an instant near one of its changes, each with a trait of its own.
EDGES = [
    (NEW_YORK, "2026-03-08T07:00"),
    (NEW_YORK, "2026-11-01T06:00"),
    ("Europe/Berlin", "2025-03-30T01:00"),
    ("Europe/Berlin", "2025-10-26T01:00"),
    ("Australia/Lord_Howe", "2026-04-04T15:00"),
    ("Australia/Lord_Howe", "2019-10-05T15:30"),
    ("Antarctica/Troll", "2025-10-26T01:00"),
    ("Antarctica/Troll", "2026-03-29T01:00"),
    ("America/Sao_Paulo", "2018-11-04T03:00"),
    ("Africa/Cairo", "2009-04-23T22:00"),
    ("Atlantic/Azores", "2023-03-26T01:00"),
    ("Pacific/Apia", "2011-12-30T10:00"),
    ("Antarctica/Casey", "2010-03-04T15:00"),
    ("Antarctica/Casey", "2009-10-17T18:00"),
    ("America/Caracas", "2016-05-01T07:00"),
    ("Africa/Casablanca", "2016-06-05T02:00"),
    ("Asia/Gaza", "2040-10-20T00:00"),
    ("UTC", "2024-02-28T12:00"),
]
MOMENTS = st.builds(
    lambda edge, minutes, micro: (edge[0], at(edge[1]) + timedelta(minutes=minutes, microseconds=micro)),
    st.sampled_from(EDGES),
    st.integers(-240, 240) | st.integers(-3_000, 3_000),
    st.sampled_from([0, 0, 1, 30_000_000, 59_999_999]),
)
RULES: st.SearchStrategy[DstRule] = st.sampled_from(["cron", "cron", "skip", "both"])
SLOW_CHECKS = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]


def wall_times(first: int, last: int) -> st.SearchStrategy[datetime]:
    return st.datetimes(datetime.fromisoformat(f"{first}-01-01"), datetime.fromisoformat(f"{last}-01-01"))


def make(expression: str, zone: str = "UTC", dst: DstRule = "cron") -> Cron | None:
    """Return the trigger, or None when the dates never come, which the oracle must confirm."""
    size = len(expression.split())
    try:
        return Cron(expression, timezone=zone, dst=dst, seconds="last" if size > 5 else None)
    except InvalidCron as error:
        if "no such date ever comes" not in error.reason or Oracle(expression).ever_matches():
            raise
        return None


def attempt(declare: Callable[[], T]) -> tuple[T | None, str]:
    try:
        return declare(), ""
    except InvalidCron as error:
        return None, error.reason


def check_against_oracle(expression: str, moment: tuple[str, datetime], dst: DstRule, *, days: int, n: int) -> None:
    zone, after = moment
    trigger = make(expression, zone, dst)
    if trigger is None:
        return
    oracle = Oracle(expression)
    for _ in range(n):
        expected = oracle.next_after(after, zone, dst, days=days)
        found = trigger.next(after)
        if expected is None:  # not within the days that the oracle looked at
            assert found is None or found - after > timedelta(days=days - 2)
            return
        assert found == expected
        after = found


@pytest.mark.one_python
@settings(max_examples=150, deadline=None, suppress_health_check=SLOW_CHECKS)
@given(expressions() | expressions(6), MOMENTS, RULES)
@example("30 2 * * *", (NEW_YORK, at("2026-03-08T06:59:59")), "cron")
@example("0 0 29 2 *", ("Pacific/Apia", at("2011-12-30T10:00")), "cron")
def test_around_clock_changes_it_agrees_with_the_minute_by_minute_evaluator(
    expression: str, moment: tuple[str, datetime], dst: DstRule
) -> None:
    check_against_oracle(expression, moment, dst, days=15, n=4)


@pytest.mark.slow
@pytest.mark.timeout(600)
@settings(max_examples=500, deadline=None, suppress_health_check=SLOW_CHECKS)
@given(expressions() | expressions(6), MOMENTS, RULES)
def test_it_agrees_with_the_minute_by_minute_evaluator_for_years(
    expression: str, moment: tuple[str, datetime], dst: DstRule
) -> None:
    check_against_oracle(expression, moment, dst, days=1_200, n=6)


@pytest.mark.one_python
@settings(max_examples=60, deadline=None, suppress_health_check=SLOW_CHECKS)
@given(
    st.tuples(fields(2), fields(3), fields(4)),
    st.sampled_from([edge[0] for edge in EDGES]),
    wall_times(1973, 2090),
)
def test_over_decades_it_agrees_with_the_minute_by_minute_evaluator(
    days: tuple[str, str, str], zone: str, after: datetime
) -> None:
    check_against_oracle(f"30 1 {' '.join(days)}", (zone, after.replace(tzinfo=UTC)), "cron", days=4_000, n=2)


@pytest.mark.one_python
@settings(max_examples=150, deadline=None, suppress_health_check=SLOW_CHECKS)
@given(expressions(portable=True), wall_times(1975, 2060))
def test_in_utc_it_agrees_with_croniter(expression: str, start: datetime) -> None:
    trigger = make(expression)
    if trigger is None:
        return
    double = croniter(expression, start, implement_cron_bug=True)
    days = [(text, double.expanded[index]) for index, text in enumerate(expression.split()) if index in (2, 4)]
    if any(found == ["*"] and not text.startswith("*") for text, found in days):
        return  # croniter takes "0/1" for a star, which decides whether a day field restricts
    after = start.replace(tzinfo=UTC)
    for _ in range(5):
        found = trigger.next(after)
        assert found == double.get_next(datetime).replace(tzinfo=UTC)
        assert found is not None
        after = found


@pytest.mark.one_python
@settings(max_examples=150, deadline=None, suppress_health_check=SLOW_CHECKS)
@given(expressions() | expressions(6), MOMENTS, RULES)
def test_fire_times_ascend_and_the_set_does_not_depend_on_where_one_asks(
    expression: str, moment: tuple[str, datetime], dst: DstRule
) -> None:
    zone, after = moment
    trigger = make(expression, zone, dst)
    if trigger is None:
        return
    found = upcoming(trigger, after, 8)

    for earlier, later in pairwise([after, *found]):
        assert later > earlier
        assert trigger.next(later - MICROSECOND) == later
        assert trigger.next(earlier + (later - earlier) / 2) == later
    for moment_ in found:
        assert (moment_.tzinfo, moment_.microsecond) == (UTC, 0)


@pytest.mark.one_python
@settings(max_examples=100, deadline=None, suppress_health_check=SLOW_CHECKS)
@given(expressions(), MOMENTS)
def test_the_answer_does_not_depend_on_what_was_asked_before(expression: str, moment: tuple[str, datetime]) -> None:
    zone, after = moment
    trigger = make(expression, zone)
    if trigger is None:
        return
    warm = trigger.next(after)

    fresh_zone = zones.Zone(zone, ZoneInfo(zone))
    _parse.cache_clear()
    assert fire_after(parse(expression), fresh_zone, after) == warm


@settings(max_examples=300, deadline=None, suppress_health_check=SLOW_CHECKS)
@given(st.text(max_size=40) | st.text("0123456789*/,-?#lwhrLWHRmonjan()@ \t", max_size=30))
def test_any_text_is_an_expression_or_refused_with_a_reason(text: str) -> None:
    for seconds in (None, "first", "last"):
        plan, reason = attempt(lambda: parse(text, seconds, "name"))  # noqa: B023 - called at once
        assert (plan is None) == bool(reason)
        assert plan is None or plan.first_date(2000, 1, 1)[1] <= 51 * 13


@settings(max_examples=300, deadline=None, suppress_health_check=SLOW_CHECKS)
@given(expressions(), st.integers(0, 60), st.text("0123456789*/,-?#lwhrmonjan()~ ", max_size=3), st.booleans())
def test_a_mutated_expression_is_read_or_refused_with_a_reason(
    expression: str, position: int, text: str, replaces: bool
) -> None:
    mutated = expression[:position] + text + expression[position + (len(text) if replaces else 0) :]

    trigger, reason = attempt(lambda: Cron(mutated, timezone="Europe/Berlin", name="name"))

    assert (trigger is None) == bool(reason)
    if trigger is not None:
        found = trigger.next(at("2026-10-24"))
        assert found is None or found > at("2026-10-24")


class CountingZone(zones.Zone):
    """Counts the windows looked at."""

    __slots__ = ("looks",)
    looks: int

    def at(self, instant: datetime) -> zones.Window:
        self.looks += 1
        return super().at(instant)


def count_looks(expression: str, zone: CountingZone, after: datetime, dst: str) -> tuple[datetime | None, int]:
    zone.looks = 0
    return fire_after(parse(expression), zone, after, dst), zone.looks


@pytest.mark.one_python
@settings(max_examples=200, deadline=None, suppress_health_check=SLOW_CHECKS)
@given(expressions(), MOMENTS, RULES)
def test_every_search_is_bounded_in_steps(expression: str, moment: tuple[str, datetime], dst: DstRule) -> None:
    key, after = moment
    if make(expression, key, dst) is None:
        return

    _, looks = count_looks(expression, CountingZone(key, ZoneInfo(key)), after, dst)

    assert looks <= _MAX_WINDOWS + 1


def test_a_time_that_lies_in_a_gap_each_time_ends_the_search() -> None:
    # 02:30 on the second Sunday of March: the very gap of New York
    trigger = Cron("30 2 * 3 0#2", timezone=NEW_YORK, dst="skip")

    assert trigger.next(at("2026-01-01")) is None


def test_a_search_that_never_ends_otherwise_is_cut_off() -> None:
    zone = CountingZone(NEW_YORK, ZoneInfo(NEW_YORK))

    found, looks = count_looks("30 2 * 3 0#2", zone, at("2026-01-01"), "skip")

    assert found is None
    assert looks == _MAX_WINDOWS + 1


@pytest.mark.parametrize(
    ("expression", "bound"),
    [("* * * * *", 2), ("30 2 * * *", 2), ("0 0 1 1 *", 3), ("0 0 29 2 *", 3), ("0 0 29 2 */7", 3)],
)
def test_a_search_looks_at_few_windows(expression: str, bound: int) -> None:
    zone, after = CountingZone("Europe/Berlin", ZoneInfo("Europe/Berlin")), at("1980-01-01")
    for _ in range(50):
        found, looks = count_looks(expression, zone, after, "cron")
        assert looks <= bound
        assert found is not None
        after = found


@pytest.mark.parametrize("text", ["0001-01-01", "1900-01-01", "1969-12-31T23:59:59"])
def test_any_instant_of_the_past_can_be_asked(text: str) -> None:
    found = Cron("0 * * * *", timezone="Europe/Berlin").next(at(text))

    assert found is not None
    assert found > at(text)


@pytest.mark.parametrize("text", ["9989-12-31T23:59:59.999999", "9995-01-01", "9999-12-31T23:59:59.999999"])
def test_at_the_end_of_time_there_is_none_and_no_overflow(text: str) -> None:
    found = Cron("0 0 1 1 *", timezone="Pacific/Kiritimati").next(at(text))

    assert found is None


# --- zones -------------------------------------------------------------------------------------------------


def test_a_zone_forgets_what_it_found_without_changing_its_answers() -> None:
    trigger = Cron("0 0 1 1,7 *", timezone="Europe/Berlin")

    first = upcoming(trigger, at("1900-01-01"), 10)
    upcoming(trigger, at("1910-01-01"), 1_300)

    assert upcoming(trigger, at("1900-01-01"), 10) == first


def check_windows(key: str, first: int, last: int) -> None:
    zone = zones.Zone(key, ZoneInfo(key))
    instant, end = at(f"{first}-01-01"), at(f"{last}-01-01")
    while instant < end:
        window = zone.at(instant)
        before, at_edge = window.hi - SECOND, window.hi.astimezone(zone.info).utcoffset()
        assert window.lo <= instant < window.hi
        assert instant.astimezone(zone.info).utcoffset() == window.offset
        assert before.astimezone(zone.info).utcoffset() == window.offset
        assert at_edge == zone.at(window.hi).offset
        assert zone.at(window.hi).shift == at_edge - window.offset
        instant = window.hi


@pytest.mark.parametrize("key", sorted({edge[0] for edge in EDGES} | {"Asia/Tokyo", "Asia/Seoul"}))
def test_windows_tile_time_with_the_offsets_of_zoneinfo(key: str) -> None:
    check_windows(key, 1970, 2060)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_windows_of_every_zone_tile_time() -> None:
    for key in sorted(available_timezones()):
        if key not in ("localtime", "posixrules"):
            check_windows(key, 1900, 2060)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_fixed_time_and_a_wildcard_job_agree_with_the_evaluator_at_every_change_of_every_zone() -> None:
    seen: set[tuple[datetime, timedelta | None, timedelta | None]] = set()
    for key in sorted(available_timezones()):
        if key in ("localtime", "posixrules"):
            continue
        info = ZoneInfo(key)
        zone = zones.Zone(key, info)
        instant = at("2005-01-01")
        while instant < at("2027-01-01"):
            instant = zone.at(instant).hi
            change = (
                instant,
                (instant - timedelta(seconds=1)).astimezone(info).utcoffset(),
                instant.astimezone(info).utcoffset(),
            )
            if zone.at(instant).shift == timedelta(0) or change in seen:
                continue
            seen.add(change)  # many zones change together, and from the same offset to the same
            for expression in ("17,30 0-3 * * *", "*/20 1,2,23 * * *"):
                oracle, trigger, after = Oracle(expression), Cron(expression, timezone=key), instant
                after -= timedelta(hours=5)
                while after < instant + timedelta(hours=5):
                    found = trigger.next(after)
                    assert found == oracle.next_after(after, key), (key, expression, after)
                    assert found is not None
                    after = found
