from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tickwork.zones import clock_change


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("key", "instant", "said"),
    [
        ("Europe/Berlin", "2026-03-29T00:59:59", None),
        ("Europe/Berlin", "2026-03-29T01:00", "after the gap 02:00-03:00"),
        ("Europe/Berlin", "2026-03-29T01:00:01", None),
        ("Europe/Berlin", "2026-10-24T23:59:59", None),
        ("Europe/Berlin", "2026-10-25T00:00", "first pass of 02:00-03:00"),
        ("Europe/Berlin", "2026-10-25T00:59:59", "first pass of 02:00-03:00"),
        ("Europe/Berlin", "2026-10-25T01:00", "second pass of 02:00-03:00"),
        ("Europe/Berlin", "2026-10-25T01:59:59", "second pass of 02:00-03:00"),
        ("Europe/Berlin", "2026-10-25T02:00", None),
        ("Australia/Lord_Howe", "2026-04-04T15:00", "second pass of 01:30-02:00"),
        ("Australia/Lord_Howe", "2026-10-03T15:30", "after the gap 02:00-02:30"),
        ("Antarctica/Troll", "2026-10-25T01:00", "second pass of 01:00-03:00"),
        ("Pacific/Apia", "2011-12-30T10:00", "after the gap 2011-12-30 00:00-2011-12-31 00:00"),
        ("UTC", "2026-03-29T01:00", None),
    ],
)
def test_an_instant_says_how_a_clock_change_touches_it(key: str, instant: str, said: str | None) -> None:
    assert clock_change(utc(instant), key) == said
