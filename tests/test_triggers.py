from __future__ import annotations

import os
import pickle
import subprocess
import sys
from datetime import UTC, date, datetime, time, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tickwork.errors import InvalidDuration, InvalidInstant, InvalidOption, UnknownTimezone
from tickwork.triggers import (
    At,
    Cron,
    Every,
    Exclusion,
    Trigger,
    Union,
    latest,
    newest,
    parse_every,
    upcoming,
)

SECOND = timedelta(seconds=1)
MICROSECOND = timedelta(microseconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def at(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def texts(found: list[datetime]) -> list[str]:
    return [f"{moment:%Y-%m-%d %H:%M:%S}" for moment in found]


TRIGGERS: list[Trigger] = [
    Every("90s"),
    Every("1h", anchor=at("2026-01-01T00:10:00")),
    Cron("0 5 * * mon-fri"),
    Cron("30 0 5 * * *", seconds="first", timezone="Asia/Seoul", dst="both"),
    Cron("H H * * *", name="reports.daily"),
    At("2026-12-24T18:00:00+01:00"),
    At("2026-12-24T18:00:00", timezone="Europe/Berlin"),
    Every("1h") | Cron("30 2 * * *", timezone="Europe/Berlin"),
    Cron("0 9 * * *", timezone="Europe/Berlin").exclude(["2026-12-25"]),
    Every("1h").exclude(Every("2h")),
    Every("1h").exclude([date(2026, 1, 1)]).in_timezone("Asia/Seoul"),
]


# --- what all triggers share --------------------------------------------------------------------------------


@pytest.mark.parametrize("trigger", TRIGGERS, ids=repr)
def test_a_trigger_is_a_value(trigger: Trigger) -> None:
    copy = pickle.loads(pickle.dumps(trigger))

    assert copy == trigger
    assert hash(copy) == hash(trigger)
    assert repr(copy) == repr(trigger)
    assert copy.fingerprint == trigger.fingerprint
    assert copy.next(at("2026-03-01")) == trigger.next(at("2026-03-01"))
    assert trigger != object()
    assert len(set(TRIGGERS)) == len(TRIGGERS)


@pytest.mark.parametrize("trigger", [trigger for trigger in TRIGGERS if "|" not in repr(trigger)], ids=repr)
def test_a_repr_makes_an_equal_trigger(trigger: Trigger) -> None:
    names = {"Every": Every, "Cron": Cron, "At": At, "Exclusion": Exclusion, "datetime": sys.modules["datetime"]}

    assert eval(repr(trigger), names) == trigger


@pytest.mark.parametrize("trigger", TRIGGERS, ids=repr)
def test_the_next_fire_time_is_later_aware_and_in_utc(trigger: Trigger) -> None:
    after = at("2026-03-01T00:00:00")
    for found in upcoming(trigger, after, 20):
        assert found > after
        assert found.tzinfo is UTC
        assert trigger.next(found - MICROSECOND) == found
        after = found


@pytest.mark.parametrize("trigger", TRIGGERS, ids=repr)
def test_the_zone_of_the_instant_given_does_not_matter(trigger: Trigger) -> None:
    after = at("2026-03-01T00:00:00")

    assert trigger.next(after.astimezone(ZoneInfo("Asia/Kathmandu"))) == trigger.next(after)


@pytest.mark.parametrize("trigger", TRIGGERS, ids=repr)
def test_a_naive_instant_is_refused_with_the_remedy(trigger: Trigger) -> None:
    with pytest.raises(InvalidInstant) as caught:
        trigger.next(datetime.fromisoformat("2026-03-01"))

    assert str(caught.value) == (
        "after must be an aware datetime, got datetime.datetime(2026, 3, 1, 0, 0);"
        " pass datetime.now(UTC), or add tzinfo=..."
    )


@pytest.mark.parametrize("trigger", TRIGGERS, ids=repr)
@pytest.mark.parametrize("wrong", [None, 5.0, "2026-03-01T00:00:00+00:00", date.fromisoformat("2026-03-01")])
def test_what_is_no_datetime_is_refused(trigger: Trigger, wrong: Any) -> None:
    with pytest.raises(InvalidInstant):
        trigger.next(wrong)


@pytest.mark.parametrize("trigger", TRIGGERS, ids=repr)
def test_the_ends_of_time_are_no_accident(trigger: Trigger) -> None:
    last = datetime.max.replace(tzinfo=UTC)

    assert trigger.next(last) is None
    assert trigger.next(datetime.min.replace(tzinfo=UTC)) is not None
    with pytest.raises(InvalidInstant, match="a time that has a date in UTC"):
        trigger.next(datetime.max.replace(tzinfo=timezone(timedelta(hours=-5))))


def test_importing_triggers_is_cheap() -> None:
    program = (
        "import sys, tickwork.triggers;"
        " print(*sorted({'croniter', 'zoneinfo', 'difflib', 'dateutil', 'hashlib', 'dataclasses'}"
        " & sys.modules.keys()))"
    )

    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    # asyncio, which errors.py needs, may bring some of them along on some versions of Python.
    base = subprocess.run(
        [sys.executable, "-c", program.replace("tickwork.triggers", "asyncio")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(result.stdout.split()) <= set(base.stdout.split())


class _Tuesdays(Trigger):
    @property
    def fingerprint(self) -> str:
        return "tuesdays"

    def next(self, after: datetime) -> datetime | None:
        return Cron("0 0 * * tue").next(after)


def test_a_trigger_of_ones_own_needs_next_and_a_fingerprint() -> None:
    assert _Tuesdays() == _Tuesdays()
    assert repr(_Tuesdays()) == "<_Tuesdays tuesdays>"
    assert _Tuesdays().in_timezone("Asia/Seoul") == _Tuesdays()
    assert (_Tuesdays() | Cron("0 0 * * wed")).next(at("2026-11-23")) == at("2026-11-24")
    assert _Tuesdays().exclude(["2026-11-24"]).next(at("2026-11-23")) == at("2026-12-01")
    assert pickle.loads(pickle.dumps(_Tuesdays())) == _Tuesdays()


# --- Every -------------------------------------------------------------------------------------------------


def test_every_stands_on_a_grid_from_the_epoch() -> None:
    assert texts(upcoming(Every("7s"), EPOCH, 2)) == ["1970-01-01 00:00:07", "1970-01-01 00:00:14"]
    assert Every("1h").next(at("2026-11-23T10:20:30")) == at("2026-11-23T11:00:00")
    assert Every("1d").next(at("2026-11-23T10:20:30")) == at("2026-11-24T00:00:00")


def test_an_anchor_moves_the_grid_in_both_directions() -> None:
    trigger = Every("1h", anchor=at("2026-11-23T10:20:30.000001"))

    assert trigger.next(at("2026-11-23T10:20:30")) == at("2026-11-23T10:20:30.000001")
    assert trigger.next(at("2020-01-01")) == at("2020-01-01T00:20:30.000001")


def test_a_grid_point_is_not_later_than_itself() -> None:
    assert Every(1).next(at("2026-01-01")) == at("2026-01-01T00:00:01")


def test_before_the_epoch_the_grid_goes_on() -> None:
    assert Every("1h").next(at("1969-12-31T22:30:00")) == at("1969-12-31T23:00:00")


@given(
    st.integers(1_000, 10**13),
    st.datetimes(min_value=datetime.fromisoformat("0002-01-01"), max_value=datetime.fromisoformat("9000-01-01")),
)
@settings(deadline=None)
def test_every_is_exact_in_microseconds(period: int, start: datetime) -> None:
    trigger, after = Every(timedelta(microseconds=period)), start.replace(tzinfo=UTC)

    found = trigger.next(after)

    assert found is not None
    assert timedelta(0) < found - after <= timedelta(microseconds=period)
    assert (found - EPOCH) // MICROSECOND % period == 0
    assert trigger.next(found) == found + timedelta(microseconds=period)


def test_the_smallest_period_is_a_millisecond() -> None:
    assert Every("1ms").period_seconds == 0.001
    with pytest.raises(InvalidDuration) as caught:
        Every("999us")
    assert (caught.value.option, caught.value.reason) == ("period", "the smallest value is 1ms")


def test_a_naive_anchor_is_refused() -> None:
    with pytest.raises(InvalidInstant) as caught:
        Every("1h", anchor=datetime.fromisoformat("2026-01-01"))

    assert caught.value.option == "anchor"


def test_equal_periods_are_equal_however_written() -> None:
    assert Every("90s") == Every("1m30s") == Every(90) == Every(timedelta(seconds=90))
    assert Every("90s") != Every("91s")
    assert repr(Every(90)) == "Every('1m30s')"


def test_anchors_on_one_grid_have_one_fingerprint() -> None:
    assert Every("1h", anchor=at("2026-01-01")).fingerprint == Every("1h").fingerprint
    assert Every("1h", anchor=at("2026-01-01T00:01")).fingerprint != Every("1h").fingerprint


# --- Cron --------------------------------------------------------------------------------------------------


def test_a_fingerprint_changes_exactly_with_the_meaning() -> None:
    base = Cron("0 5 * * mon", timezone="Europe/Berlin").fingerprint

    same = [Cron("0 5 * * 1", timezone="Europe/Berlin"), Cron("0 5 ? * MON", timezone="Europe/Berlin")]
    other = [
        Cron("0 5 * * 1"),
        Cron("0 5 * * 1", timezone="Europe/Paris"),
        Cron("0 5 * * 2", timezone="Europe/Berlin"),
        Cron("1 5 * * 1", timezone="Europe/Berlin"),
        Cron("0 5 * 1 1", timezone="Europe/Berlin"),
        Cron("0 5 1 * 1", timezone="Europe/Berlin"),
        Cron("0 5 */2 * 1", timezone="Europe/Berlin"),
        Cron("0 5 * * 1", timezone="Europe/Berlin", dst="both"),
        Cron("0 5 * * 1 0 2030", timezone="Europe/Berlin", seconds="last"),
        Cron("0 5 * * 1#1", timezone="Europe/Berlin"),
        Cron("0 5 * * 1L", timezone="Europe/Berlin"),
    ]
    assert [trigger.fingerprint for trigger in same] == [base, base]
    assert len({trigger.fingerprint for trigger in other} | {base}) == len(other) + 1


def test_the_rule_for_clock_changes_is_part_of_the_fingerprint_only_where_clocks_change() -> None:
    assert Cron("0 5 * * *", dst="both").fingerprint == Cron("0 5 * * *", dst="skip").fingerprint
    assert (
        Cron("30 * * * *", timezone="Europe/Berlin").fingerprint
        != Cron("30 0-23 * * *", timezone="Europe/Berlin").fingerprint
    )


def test_a_fingerprint_is_the_same_in_another_process() -> None:
    program = (
        "from tickwork.triggers import *;"
        " print((Cron('0 5 * * 1#1,2#2', timezone='Asia/Seoul') | Every('7s')).exclude(['2026-12-25'])"
        ".fingerprint)"
    )

    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2", "3")
    }

    assert len(outputs) == 1


def test_a_long_fingerprint_is_shortened_and_still_differs() -> None:
    days = [date(2026, 1, 1) + timedelta(days=n) for n in range(300)]
    one, other = Cron("0 5 * * *").exclude(days), Cron("0 5 * * *").exclude(days[1:])

    assert len(one.fingerprint) < 200
    assert one.fingerprint != other.fingerprint


def test_a_cron_without_a_zone_is_in_utc_and_takes_the_zone_of_the_app() -> None:
    trigger = Cron("0 5 * * *", dst="skip", name="x")
    seoul = trigger.in_timezone("Asia/Seoul")

    assert trigger.next(at("2026-01-01")) == at("2026-01-01T05:00")
    assert (trigger.timezone, seoul.timezone) == (None, "Asia/Seoul")
    assert seoul.dst == "skip"
    assert seoul.next(at("2026-01-01")) == at("2026-01-01T20:00")
    assert seoul == Cron("0 5 * * *", dst="skip", name="x", timezone="Asia/Seoul")


def test_a_cron_with_a_zone_keeps_it() -> None:
    trigger = Cron("0 5 * * *", timezone="Europe/Berlin")

    assert trigger.in_timezone("Asia/Seoul") is trigger


def test_a_zone_may_be_a_key_or_a_zoneinfo() -> None:
    assert Cron("0 5 * * *", timezone=ZoneInfo("Asia/Seoul")) == Cron("0 5 * * *", timezone="Asia/Seoul")
    assert Cron("0 5 * * *", timezone=UTC).timezone == "UTC"  # type: ignore[arg-type]  # it is unambiguous


@pytest.mark.parametrize(
    ("key", "suggestion"),
    [
        ("Europe/Berlni", "Europe/Berlin"),
        ("Seoul", "Asia/Seoul"),
        ("europe", None),
        ("", None),
        ("../etc/passwd", None),
        ("/etc/localtime", None),
        ("localtime", None),
        ("Europe/Berlin\0", "Europe/Berlin"),
        ("\ud800", None),
        ("x" * 10_000, None),
    ],
)
def test_an_unknown_zone_is_refused_with_the_nearest_one(key: str, suggestion: str | None) -> None:
    with pytest.raises(UnknownTimezone) as caught:
        Cron("0 5 * * *", timezone=key)

    assert caught.value.suggestion == suggestion or suggestion is None


def test_the_message_for_an_unknown_zone() -> None:
    with pytest.raises(UnknownTimezone) as caught:
        Cron("0 5 * * *").in_timezone("Europe/Berlni")

    assert str(caught.value) == (
        "timezone must be an IANA key such as \"Asia/Seoul\", got 'Europe/Berlni'; did you mean 'Europe/Berlin'?"
    )


def test_a_fixed_offset_is_refused_with_the_reason() -> None:
    with pytest.raises(InvalidOption) as caught:
        Cron("0 5 * * *", timezone=timezone(timedelta(hours=9)))  # type: ignore[arg-type]

    assert str(caught.value).endswith("a fixed offset does not follow clock changes")


@pytest.mark.parametrize("wrong", [5, b"UTC", object()])
def test_what_is_no_zone_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidOption):
        Cron("0 5 * * *", timezone=wrong)


def test_an_unknown_dst_rule_is_refused() -> None:
    with pytest.raises(InvalidOption) as caught:
        Cron("0 5 * * *", dst="both ways")  # type: ignore[arg-type]

    assert str(caught.value) == 'dst must be "cron", "skip" or "both", got \'both ways\''


def test_warnings_are_shown_by_the_trigger_and_what_is_made_of_it() -> None:
    cron = Cron("*/90 * * * *")
    expected = ("'*/90' in the minute field means only 0: the step is larger than the range",)

    assert cron.warnings == (cron | Every(5)).warnings == cron.exclude(["2026-01-01"]).warnings == expected
    assert Every(5).warnings == ()


# --- At ----------------------------------------------------------------------------------------------------


def test_at_fires_once() -> None:
    trigger = At("2026-12-24T18:00:00.5+01:00")

    assert trigger.when == at("2026-12-24T17:00:00.500000")
    assert upcoming(trigger, at("2026-01-01"), 5) == [trigger.when]
    assert trigger.next(trigger.when - MICROSECOND) == trigger.when
    assert trigger.next(trigger.when) is None


def test_at_takes_a_datetime_a_text_and_a_zone() -> None:
    instant = at("2026-12-24T17:00:00")

    assert At(instant).when == instant
    assert At("2026-12-24T17:00:00Z").when == instant
    assert At(" 2026-12-24 18:00 ", timezone="Europe/Berlin").when == instant
    assert At(datetime.fromisoformat("2026-12-24T18:00"), timezone="Europe/Berlin").when == instant
    assert At("2026-12-24T17:00:00Z", timezone="Europe/Berlin").when == instant


@pytest.mark.parametrize("when", ["2026-12-24T18:00:00", datetime.fromisoformat("2026-12-24T18:00:00")])
def test_at_without_an_offset_is_refused_with_the_remedy(when: Any) -> None:
    with pytest.raises(InvalidInstant) as caught:
        At(when)

    assert str(caught.value).endswith('add an offset ("2026-12-24T18:00:00+01:00", tzinfo=UTC) or pass timezone="..."')


@pytest.mark.parametrize("when", ["tomorrow", "", "2026-13-01T00:00Z", None, 5, date.fromisoformat("2026-12-24")])
def test_at_refuses_what_is_no_instant(when: Any) -> None:
    with pytest.raises(InvalidInstant):
        At(when, timezone="UTC")


@pytest.mark.parametrize(
    ("when", "zone", "gap"),
    [
        ("2026-03-29T02:30", "Europe/Berlin", "2026-03-29 02:00:00 straight to 2026-03-29 03:00:00"),
        ("2026-03-29T02:00", "Europe/Berlin", "2026-03-29 02:00:00 straight to 2026-03-29 03:00:00"),
        ("2026-03-08T02:59:59", "America/New_York", "2026-03-08 02:00:00 straight to 2026-03-08 03:00:00"),
        ("2011-12-30T12:00", "Pacific/Apia", "2011-12-30 00:00:00 straight to 2011-12-31 00:00:00"),
        ("2026-10-04T02:10", "Australia/Lord_Howe", "2026-10-04 02:00:00 straight to 2026-10-04 02:30:00"),
    ],
)
def test_at_a_time_that_does_not_exist_names_the_gap(when: str, zone: str, gap: str) -> None:
    with pytest.raises(InvalidInstant) as caught:
        At(when, timezone=zone)

    assert str(caught.value) == (
        f"when must be a time that exists in {zone}, got {str(datetime.fromisoformat(when))!r};"
        f" clocks there go from {gap}"
    )


def test_at_a_time_that_does_not_exist_is_refused_with_either_fold() -> None:
    gap = datetime.fromisoformat("2026-03-29T02:30").replace(fold=1)

    with pytest.raises(InvalidInstant, match="from 2026-03-29 02:00:00 straight to 2026-03-29 03:00:00"):
        At(gap, timezone="Europe/Berlin")


@pytest.mark.parametrize("when", ["0001-01-01T00:00", "9999-12-31T23:00"])
def test_at_the_ends_of_time_is_refused(when: str) -> None:
    with pytest.raises(InvalidInstant, match="a time between the years 4 and 9989"):
        At(when, timezone="Europe/Berlin")


def test_at_a_time_shown_twice_means_the_first_unless_fold_says_otherwise() -> None:
    twice = datetime.fromisoformat("2026-10-25T02:30")

    assert At("2026-10-25T02:30", timezone="Europe/Berlin").when == at("2026-10-25T00:30")
    assert At(twice.replace(fold=1), timezone="Europe/Berlin").when == at("2026-10-25T01:30")


# --- union -------------------------------------------------------------------------------------------------


def test_a_union_fires_once_where_its_parts_meet() -> None:
    trigger = Every("20s") | Every("30s")

    assert texts(upcoming(trigger, EPOCH, 5)) == [
        "1970-01-01 00:00:20",
        "1970-01-01 00:00:30",
        "1970-01-01 00:00:40",
        "1970-01-01 00:01:00",
        "1970-01-01 00:01:20",
    ]


def test_a_union_goes_on_when_a_part_is_finished() -> None:
    trigger = At(EPOCH + SECOND) | At(EPOCH + 3 * SECOND)

    assert upcoming(trigger, EPOCH, 5) == [EPOCH + SECOND, EPOCH + 3 * SECOND]


def test_a_union_is_flat_without_doubles_and_in_any_order() -> None:
    one, two, three = Every(1), Every(2), Cron("0 0 * * *")

    assert (one | two | three).triggers == (one, two, three)  # type: ignore[attr-defined]
    assert one | two | one == two | one
    assert hash(one | two) == hash(two | one)
    assert ((one | two) | three).fingerprint == (three | (two | one)).fingerprint


def test_a_union_takes_triggers_only() -> None:
    with pytest.raises(TypeError):
        Every(1) | "5s"
    with pytest.raises(InvalidOption):
        Union(Every(1), "5s")  # type: ignore[arg-type]
    with pytest.raises(InvalidOption):
        Union()


def test_a_union_gives_the_zone_to_the_parts_without_one() -> None:
    trigger = Cron("0 5 * * *") | Cron("0 6 * * *", timezone="Europe/Berlin") | Every(5)

    assert trigger.in_timezone("Asia/Seoul") == (
        Cron("0 5 * * *", timezone="Asia/Seoul") | Cron("0 6 * * *", timezone="Europe/Berlin") | Every(5)
    )


# --- exclusion ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("day", ["2026-12-25", date(2026, 12, 25), datetime.fromisoformat("2026-12-25T13:00:00")])
def test_excluded_dates_are_days_of_the_triggers_zone(day: Any) -> None:
    trigger = Cron("0 0,23 * * *", timezone="Asia/Seoul").exclude([day])

    assert texts(upcoming(trigger, at("2026-12-24T10:00"), 3)) == [
        "2026-12-24 14:00:00",  # the 24th, 23:00 in Seoul
        "2026-12-25 15:00:00",  # the 26th, 00:00
        "2026-12-26 14:00:00",
    ]


def test_a_single_date_may_stand_alone() -> None:
    assert Cron("0 0 * * *").exclude("2026-12-25") == Cron("0 0 * * *").exclude(["2026-12-25"])
    assert Cron("0 0 * * *").exclude(date(2026, 12, 25)) == Cron("0 0 * * *").exclude(["2026-12-25"])


def test_excluded_dates_take_the_zone_of_the_app() -> None:
    trigger = Every("12h").exclude(["2026-12-25"]).in_timezone("Asia/Seoul")

    assert texts(upcoming(trigger, at("2026-12-24T10:00"), 2)) == ["2026-12-24 12:00:00", "2026-12-26 00:00:00"]
    assert trigger.timezone == "Asia/Seoul"
    assert trigger.in_timezone("Europe/Berlin") == trigger


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Pacific/Apia", "Australia/Lord_Howe"])
@pytest.mark.parametrize("start", ["2026-03-07", "2026-03-28", "2026-10-24", "2011-12-28", "2026-04-03"])
def test_excluded_dates_agree_with_the_calendar_around_clock_changes(zone: str, start: str) -> None:
    days = {date.fromisoformat(start) + timedelta(days=n) for n in (1, 3, 4)}
    plain, excluding = Every("10m"), Every("10m").exclude(days).in_timezone(zone)

    expected = [
        found for found in upcoming(plain, at(start), 6 * 24 * 8) if found.astimezone(ZoneInfo(zone)).date() not in days
    ]

    assert upcoming(excluding, at(start), len(expected)) == expected


def test_an_excluded_day_costs_a_handful_of_steps_even_for_a_dense_trigger() -> None:
    calls = []

    class Counting(Every):
        def next(self, after: datetime) -> datetime | None:
            calls.append(after)
            return super().next(after)

    days = [date(2026, 1, 1) + timedelta(days=n) for n in range(100)]

    assert Counting("1ms").exclude(days).next(at("2025-12-31T23:59:59.999")) == at("2026-04-11")
    assert len(calls) <= 250


def test_a_trigger_can_be_excluded() -> None:
    trigger = Every("1h").exclude(Cron("0 1-4 * * *"))

    assert texts(upcoming(trigger, at("2026-01-01T00:30"), 2)) == ["2026-01-01 05:00:00", "2026-01-01 06:00:00"]


def test_exclusions_can_be_nested() -> None:
    trigger = Cron("0 9 * * *").exclude(["2026-12-25"]).exclude(Cron("0 9 * * sun"))

    assert texts(upcoming(trigger, at("2026-12-24T10:00"), 2)) == ["2026-12-26 09:00:00", "2026-12-28 09:00:00"]


def test_a_trigger_does_not_exclude_itself() -> None:
    with pytest.raises(InvalidOption):
        Cron("0 5 * * mon").exclude(Cron("0 5 * * 1"))


def test_a_trigger_that_excludes_all_of_itself_is_finished_and_does_not_hang() -> None:
    assert Every("2s").exclude(Every("1s")).next(EPOCH) is None


def test_the_dates_of_a_union_across_zones_are_ambiguous() -> None:
    union = Cron("0 5 * * *", timezone="Asia/Seoul") | Cron("0 5 * * *", timezone="Europe/Berlin")

    with pytest.raises(InvalidOption) as caught:
        union.exclude(["2026-12-25"])
    assert "exclude the dates from each part, then join them" in str(caught.value)


def test_the_dates_of_a_union_in_one_zone_are_of_that_zone() -> None:
    union = Cron("0 5 * * *", timezone="Asia/Seoul") | Every("1h") | At("2026-12-24T00:00Z")

    assert union.exclude(["2026-12-25"]).timezone == "Asia/Seoul"


@pytest.mark.parametrize("wrong", ["christmas", "2026-12", 5, None])
def test_what_is_no_date_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidInstant) as caught:
        Every(5).exclude([wrong])
    assert caught.value.option == "exclude"

    with pytest.raises(InvalidInstant):
        Every(5).exclude(wrong)


def test_a_fingerprint_knows_what_is_excluded() -> None:
    base = Cron("0 5 * * *")
    variants = [
        base,
        base.exclude(["2026-12-25"]),
        base.exclude(["2026-12-26"]),
        base.exclude(Cron("0 5 * * 1")),
        base.exclude(["2026-12-25"]).in_timezone("Asia/Seoul"),
    ]

    assert len({variant.fingerprint for variant in variants}) == len(variants)


# --- every("monday", at="09:30") ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("period", "at_", "expected"),
    [
        ("30s", None, Every(30)),
        (timedelta(minutes=5), None, Every(300)),
        (0.5, None, Every("500ms")),
        ("second", None, Every(1)),
        ("minute", None, Every(60)),
        ("hour", None, Every(3600)),
        ("day", "05:00", Cron("0 5 * * *")),
        ("Day", "5:07", Cron("7 5 * * *")),
        ("day", "05:00:30", Cron("30 0 5 * * *", seconds="first")),
        ("day", time(5, 30), Cron("30 5 * * *")),
        ("day", time(5, 30, 15), Cron("15 30 5 * * *", seconds="first")),
        ("day", ["09:00"], Cron("0 9 * * *")),
        ("day", ["09:00", "9:00"], Cron("0 9 * * *")),
        ("day", ["09:00", "17:30"], Cron("0 9 * * *") | Cron("30 17 * * *")),
        ("monday", "09:30", Cron("30 9 * * 1")),
        ("mon", "09:30", Cron("30 9 * * 1")),
        (" SUNDAY ", "00:00", Cron("0 0 * * 0")),
        ("hour", ":15", Cron("15 * * * *")),
        ("hour", [":15", ":45"], Cron("15 * * * *") | Cron("45 * * * *")),
        ("hour", ":15:30", Cron("30 15 * * * *", seconds="first")),
    ],
)
def test_every_reads_a_period_or_a_day(period: Any, at_: Any, expected: Trigger) -> None:
    assert parse_every(period, at=at_) == expected


def test_every_day_is_in_the_zone_given() -> None:
    assert parse_every("day", at="05:00", timezone="Asia/Seoul") == Cron("0 5 * * *", timezone="Asia/Seoul")


@pytest.mark.parametrize(
    ("period", "options", "message"),
    [
        (
            "day",
            {},
            (
                "at must be given with every('day'), got None; pass at=\"00:00\" for midnight,"
                ' or every("24h") for elapsed time'
            ),
        ),
        (
            "monday",
            {},
            "at must be given with every('monday'), got None; pass at=\"00:00\" for midnight",
        ),
        (
            "week",
            {},
            (
                "period must be a duration, a weekday or a day, got 'week'; name the weekday, as in"
                ' every("monday", at="00:00"), or write "7d" for elapsed time'
            ),
        ),
        (
            "month",
            {"at": "05:00"},
            "period must be a duration, a weekday or a day, got 'month'; use a cron expression such as \"0 0 1 * *\"",
        ),
        (
            "mondya",
            {"at": "05:00"},
            "period must be a duration, a weekday or a day, got 'mondya'; did you mean 'monday'?",
        ),
        (
            "30s",
            {"at": "05:00"},
            (
                "at must be left out for a period of elapsed time, got '05:00';"
                ' use every("day", at=...) or every("monday", at=...), or Every(..., anchor=...)'
            ),
        ),
        (
            "30s",
            {"timezone": "Asia/Seoul"},
            "timezone must be left out for a period of elapsed time, got 'Asia/Seoul'; it knows no wall clock",
        ),
        ("day", {"at": "24:00"}, 'at must be a time such as "05:00" or "05:00:30", got \'24:00\''),
        ("day", {"at": "05:60"}, 'at must be a time such as "05:00" or "05:00:30", got \'05:60\''),
        ("day", {"at": "9am"}, 'at must be a time such as "05:00" or "05:00:30", got \'9am\''),
        ("day", {"at": 5}, 'at must be a time such as "05:00" or "05:00:30", got 5'),
        ("day", {"at": [5]}, 'at must be a time such as "05:00" or "05:00:30", got 5'),
        ("day", {"at": []}, "at must be at least one time, got []"),
        ("day", {"at": "\u0665:00"}, 'at must be a time such as "05:00" or "05:00:30", got \'\u0665:00\''),
        ("hour", {"at": "05:15"}, "at must be a minute such as \":15\", got '05:15'"),
        ("hour", {"at": ":60"}, "at must be a minute such as \":15\", got ':60'"),
        (
            "day",
            {"at": time(5, tzinfo=UTC)},
            (
                "at must be a time of whole seconds without a zone, got"
                " datetime.time(5, 0, tzinfo=datetime.timezone.utc); use timezone="
            ),
        ),
    ],
)
def test_every_refuses_with_the_remedy(period: Any, options: Any, message: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        parse_every(period, **options)

    assert str(caught.value) == message


@pytest.mark.parametrize("period", ["5 parsecs", None, True, -5, "", "0s"])
def test_every_refuses_what_is_no_period(period: Any) -> None:
    with pytest.raises(InvalidDuration):
        parse_every(period)


# --- looking ahead and back --------------------------------------------------------------------------------


def test_upcoming_ends_with_the_trigger() -> None:
    assert upcoming(At(EPOCH + SECOND), EPOCH, 3) == [EPOCH + SECOND]
    assert upcoming(Every(1), EPOCH, 0) == []


def test_nothing_between_two_instants() -> None:
    assert latest(Every("1h"), at("2026-01-01T00:00"), at("2026-01-01T00:59")) == (None, None, 0)
    assert latest(At("2020-01-01T00:00Z"), at("2026-01-01"), at("2027-01-01")) == (None, None, 0)
    assert latest(Every("1h"), at("2026-01-02"), at("2026-01-01")) == (None, None, 0)
    assert newest(Every("1h"), at("2026-01-01T00:00"), at("2026-01-01T00:59"), 5) == []


def test_the_interval_is_open_at_its_start_and_closed_at_its_end() -> None:
    assert latest(Every("1h"), at("2026-01-01T00:00"), at("2026-01-01T02:00")) == (
        at("2026-01-01T01:00"),
        at("2026-01-01T02:00"),
        2,
    )


def test_every_counts_a_century_in_closed_form() -> None:
    first, last, count = latest(Every("1ms"), at("1970-01-01"), at("2070-01-01"))

    assert (first, last) == (at("1970-01-01T00:00:00.001"), at("2070-01-01"))
    assert count == (at("2070-01-01") - EPOCH) // timedelta(milliseconds=1)


def test_more_than_the_limit_is_not_counted() -> None:
    trigger = Cron("* * * * *")

    assert latest(trigger, at("2026-01-01"), at("2026-01-01T00:10"), limit=10)[2] == 10
    assert latest(trigger, at("2026-01-01"), at("2026-01-01T00:11"), limit=10)[2] is None


class _Counting(Cron):
    calls = 0

    def next(self, after: datetime) -> datetime | None:
        type(self).calls += 1
        return super().next(after)


@pytest.mark.parametrize("expression", ["* * * * *", "0 5 * * *", "* * 1 1 *", "*/5 9-17 * * mon-fri"])
@pytest.mark.parametrize("now", ["2026-12-31T23:59:30", "2026-01-02T00:00:00", "2027-07-01T12:00:00"])
def test_the_latest_of_a_year_takes_a_bounded_number_of_steps(expression: str, now: str) -> None:
    trigger = _Counting(expression)
    _Counting.calls = 0

    first, last, _ = latest(trigger, at("2025-06-01"), at(now), limit=0)

    assert _Counting.calls <= 90
    assert first == Cron(expression).next(at("2025-06-01"))
    assert last is not None
    assert last <= at(now)
    following = Cron(expression).next(last)
    assert following is not None
    assert following > at(now)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(TRIGGERS),
    st.integers(0, 400 * 86_400),
    st.integers(0, 3 * 86_400) | st.integers(0, 300),
    st.integers(0, 5),
)
def test_latest_and_newest_agree_with_walking(trigger: Trigger, start: int, length: int, n: int) -> None:
    after = at("2026-01-01") + timedelta(seconds=start, microseconds=length)
    now = after + timedelta(seconds=length)
    walked = []
    moment = trigger.next(after)
    while moment is not None and moment <= now:
        walked.append(moment)
        moment = trigger.next(moment)

    first, last, count = latest(trigger, after, now, limit=10_000)

    assert (first, last) == ((walked[0], walked[-1]) if walked else (None, None))
    assert count == len(walked)
    assert newest(trigger, after, now, n) == (walked[-n:] if n else [])


def test_a_name_counts_only_where_the_expression_asks_for_it() -> None:
    assert Cron("0 5 * * thu", name="a") == Cron("0 5 * * thu", name="b")
    assert repr(Cron("0 5 * * *", name="a")) == "Cron('0 5 * * *')"
    assert Cron("H 5 * * *", name="a") != Cron("H 5 * * *", name="b")
    assert repr(Cron("H/20 5 * * *", name="a")) == "Cron('H/20 5 * * *', name='a')"


@pytest.mark.parametrize(
    "trigger",
    [
        Cron("0 5 * * mon-fri"),
        Cron("30 0 5 * * *", seconds="first", dst="both"),
        Cron("H H * * *", name="reports.daily"),
        Cron("0 5 * * *", dst="skip"),
    ],
    ids=repr,
)
def test_a_cron_in_another_zone_is_the_one_declared_there(trigger: Cron) -> None:
    positional, named = trigger._arguments()
    declared = Cron(*positional, **named, timezone="Asia/Seoul")
    moved = trigger.in_timezone("Asia/Seoul")

    assert moved == declared
    assert repr(moved) == repr(declared)
    assert moved.fingerprint == declared.fingerprint
    assert moved.dst == declared.dst
    assert moved.is_hashed == declared.is_hashed
    assert moved.next(EPOCH) == declared.next(EPOCH)
    assert pickle.loads(pickle.dumps(moved)) == declared
