"""Buckets and axes: what a person would choose, by the wall clock of a zone."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tickwork.observe.grid import cells, edges, make_axis, unit_of
from tickwork.zones import get_zone

KEYS = ["UTC", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kathmandu", "America/New_York", "Pacific/Apia"]
starts = st.integers(0, 24 * 365 * 86_400).map(lambda n: datetime(2011, 1, 1, tzinfo=UTC) + timedelta(seconds=n))
lengths = st.one_of(st.integers(1, 100_000), st.integers(1, 3_660 * 86_400)).map(lambda n: timedelta(seconds=n))


def labels_of(start: str, end: str, key: str, room: float) -> tuple[list[str], list[str]]:
    zone = get_zone(key)
    first, last = (datetime.fromisoformat(text).replace(tzinfo=zone.info).astimezone(UTC) for text in (start, end))
    axis = make_axis(first, last, zone, lambda letters: room / (letters + 2))
    return [group.texts[0] for group in axis.groups], [label.text for label in axis.labels]


@settings(max_examples=200, deadline=None)
@given(start=starts, length=lengths, key=st.sampled_from(KEYS), most=st.integers(3, 400))
def test_buckets_fill_the_window_and_are_not_too_many(start: datetime, length: timedelta, key: str, most: int) -> None:
    found = edges(start, start + length, get_zone(key), most)

    assert (found[0], found[-1]) == (start, start + length)
    assert list(found) == sorted(set(found))
    assert len(found) - 1 <= most


@settings(max_examples=200, deadline=None)
@given(start=starts, length=lengths, key=st.sampled_from(KEYS), most=st.integers(12, 200))
def test_cells_hold_every_bucket_once(start: datetime, length: timedelta, key: str, most: int) -> None:
    zone = get_zone(key)
    fine = edges(start, start + length, zone, 400)

    coarse, held = cells(fine, zone, most)

    assert [number for part in held for number in part] == list(range(len(fine) - 1))
    assert len(held) == len(coarse) - 1 <= most


@settings(max_examples=200, deadline=None)
@given(start=starts, length=lengths, key=st.sampled_from(KEYS), room=st.integers(20, 300))
def test_labels_lie_in_the_window_and_there_is_room_for_them(
    start: datetime, length: timedelta, key: str, room: int
) -> None:
    axis = make_axis(start, start + length, get_zone(key), lambda letters: room / (letters + 2))

    moments = [label.at for label in axis.labels]
    assert moments == sorted(moments)
    assert all(start <= moment < start + length for moment in moments)
    assert (axis.groups[0].start, axis.groups[-1].end) == (start, start + length)
    longest = max((len(label.text) for label in axis.labels), default=0)
    # A window that begins just at a label has one more, and a day may have 25 hours.
    assert len(moments) <= room / (longest + 2) + 2 or longest == 3


@pytest.mark.parametrize(
    ("start", "end", "groups", "labels"),
    [
        ("2026-05-01 10:00", "2026-05-01 11:00", ["Friday 01 May 2026"], [f"10:{m:02}" for m in range(0, 60, 10)]),
        ("2026-05-01", "2026-05-02", ["Friday 01 May 2026"], [f"{hour:02}:00" for hour in range(0, 24, 3)]),
        (
            "2026-04-28",
            "2026-05-05",
            ["April 2026", "May 2026"],
            ["28", "29", "30", "01", "02", "03", "04"],
        ),
        (
            "2026-01-01",
            "2027-01-01",
            ["2026"],
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"],
        ),
    ],
)
def test_axis_fits_its_window(start: str, end: str, groups: list[str], labels: list[str]) -> None:
    assert labels_of(start, end, "Europe/Berlin", 66) == (groups, labels)


def test_axis_leaves_out_what_clocks_never_show_and_repeats_what_they_show_twice() -> None:
    _, spring = labels_of("2026-03-29 00:00", "2026-03-29 05:00", "Europe/Berlin", 66)
    _, autumn = labels_of("2026-10-25 00:00", "2026-10-25 05:00", "Europe/Berlin", 80)

    assert spring == ["00:00", "00:30", "01:00", "01:30", "03:00", "03:30", "04:00", "04:30"]
    assert autumn == ["00:00", "01:00", "02:00", "02:00", "03:00", "04:00"]


def test_a_day_without_midnight_begins_at_its_first_moment() -> None:
    zone = ZoneInfo("America/Havana")  # on 8 March 2026 the clocks go from 00:00 to 01:00
    start, end = datetime(2026, 2, 1, tzinfo=zone).astimezone(UTC), datetime(2026, 4, 1, tzinfo=zone).astimezone(UTC)

    found = edges(start, end, get_zone("America/Havana"), 61)

    assert unit_of(found) == timedelta(days=1)
    assert sum(edge.astimezone(zone).date() == date(2026, 3, 8) for edge in found) == 1
