from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tickwork.durations import format_about, format_microseconds, format_seconds, microseconds, seconds
from tickwork.errors import InvalidDuration


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("30s", 30.0),
        ("1h30m", 5400.0),
        ("1h 30m", 5400.0),
        (" 1H30M ", 5400.0),
        ("500ms", 0.5),
        ("250us", 0.00025),
        ("250\u00b5s", 0.00025),
        ("1.5h", 5400.0),
        ("2d", 172_800.0),
        ("1w", 604_800.0),
        ("2 weeks", 1_209_600.0),
        ("10 minutes 5 seconds", 605.0),
        ("second", 1.0),
        ("minute", 60.0),
        ("hour", 3600.0),
        (30, 30.0),
        (0.25, 0.25),
        (timedelta(minutes=2), 120.0),
    ],
)
def test_a_duration_is_read_as_seconds(given: Any, expected: float) -> None:
    assert seconds(given) == expected


def test_a_number_of_seconds_is_not_rounded() -> None:
    assert seconds(1 / 3) == 1 / 3


def test_a_decimal_text_is_exact_in_microseconds() -> None:
    assert microseconds("0.1s") == 100_000
    assert microseconds("1.000001s") == 1_000_001
    assert microseconds("0.3ms") == 300


def test_a_float_becomes_the_nearest_microsecond() -> None:
    assert microseconds(0.1) == 100_000
    assert microseconds(1 / 3) == 333_333


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("", "it is empty"),
        ("30", "it has no unit; write '30s' for seconds"),
        ("-5s", "it must not be negative"),
        (-1, "it must not be negative"),
        (-0.0000001, "it must not be negative"),
        (timedelta(seconds=-1), "it must not be negative"),
        ("5 parsecs", "unknown unit 'parsecs'; did you mean 'secs'?"),
        ("5q", "unknown unit 'q'; known: us, ms, s, m, h, d, w"),
        ("1h1h", "the unit 'h' is given twice"),
        ("1h-5m", "cannot read '-5m'"),
        ("s", "cannot read 's'"),
        ("0.0000001s", "it is not a whole number of microseconds"),
        ("day", 'write "1d" for that much elapsed time'),
        ("week", 'write "1w" for that much elapsed time'),
        ("month", "a month has no fixed length; use a cron expression"),
        ("2 months", "a month has no fixed length; use a cron expression"),
        ("years", "a year has no fixed length; use a cron expression"),
        (float("nan"), "it must be finite"),
        (float("inf"), "it must be finite"),
        (float("-inf"), "it must be finite"),
        (True, "bool is no duration"),
        (None, "NoneType is no duration"),
        ([], "list is no duration"),
        ("36526d", "the largest value is 36525d"),
        (1e300, "the largest value is 36525d"),
        (10**400, "the largest value is 36525d"),
        (timedelta.max, "the largest value is 36525d"),
        ("0s", "it must be more than zero"),
        (0, "it must be more than zero"),
    ],
)
def test_what_is_no_duration_is_refused_with_the_reason(given: Any, reason: str) -> None:
    with pytest.raises(InvalidDuration) as caught:
        seconds(given, "timeout")

    assert caught.value.option == "timeout"
    assert caught.value.reason == reason


def test_the_message_names_option_value_and_reason() -> None:
    with pytest.raises(InvalidDuration) as caught:
        seconds("5 parsecs", "timeout")

    assert str(caught.value) == (
        'timeout must be a duration such as "30s", "1h30m", a number of seconds or a timedelta,'
        " got '5 parsecs'; unknown unit 'parsecs'; did you mean 'secs'?"
    )


def test_zero_is_allowed_where_it_means_something() -> None:
    assert seconds(0, "delay", allow_zero=True) == 0.0
    assert seconds("0s", "delay", minimum=1.0, allow_zero=True) == 0.0


def test_the_smallest_value_is_named() -> None:
    with pytest.raises(InvalidDuration) as caught:
        seconds("10ms", "lease_seconds", minimum=1.0)

    assert caught.value.reason == "the smallest value is 1s"


def test_the_smallest_period_is_named() -> None:
    with pytest.raises(InvalidDuration) as caught:
        microseconds("10us", "period", minimum=1_000)

    assert caught.value.reason == "the smallest value is 1ms"


def test_a_very_long_text_is_refused_before_it_is_read() -> None:
    with pytest.raises(InvalidDuration) as caught:
        seconds("1" * 1_000_000 + "s")

    assert caught.value.reason == "the text is longer than 100 characters"
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (0, "0s"),
        (5400, "1h30m"),
        (0.25, "0.25s"),
        (0.012, "12ms"),
        (0.0015, "1.5ms"),
        (0.0005, "500us"),
        (1, "1s"),
        (90.5, "1m30.5s"),
        (12.3456789, "12.346s"),
        (604_800, "7d"),
        (90_061, "1d1h1m1s"),
        (-30, "-30s"),
        (float("inf"), "inf"),
    ],
)
def test_a_duration_is_written_as_a_person_would(given: float, expected: str) -> None:
    assert format_seconds(given) == expected


@settings(deadline=None)
@given(st.integers(min_value=1, max_value=36_525 * 86_400_000_000))
def test_text_of_whole_microseconds_is_read_back(micro: int) -> None:
    assert microseconds(format_microseconds(micro)) == micro


@settings(deadline=None)
@given(st.text(max_size=30) | st.from_regex(r"[0-9.]{0,5} ?[a-z]{0,8}[0-9]{0,3}[hms]?", fullmatch=True))
def test_any_text_is_a_duration_or_refused(text: str) -> None:
    try:
        result = seconds(text, allow_zero=True)
    except InvalidDuration:
        return

    assert 0 <= result <= 36_525 * 86_400


@settings(deadline=None)
@given(st.floats() | st.integers() | st.timedeltas())
def test_any_number_is_a_duration_or_refused(value: Any) -> None:
    try:
        result = seconds(value, allow_zero=True)
    except InvalidDuration:
        return

    assert 0 <= result <= 36_525 * 86_400


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0s"), (0.00024, "240us"), (0.0123456, "12ms"), (1.23456, "1.235s"), (59.9, "59.9s"), (3725.4, "1h2m5s")],
)
def test_a_duration_is_told_about_as_exactly_as_it_matters(value: float, text: str) -> None:
    assert format_about(value) == text
