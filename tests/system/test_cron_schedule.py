"""What stands in a crontab fires exactly when tickwork would; anything else is refused with the reason."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tickwork import At, Cron, Every, Trigger
from tickwork.errors import InvalidCron, UnsupportedSchedule
from tickwork.system import cron_fields
from tickwork.triggers import upcoming

START = datetime(2026, 1, 1, tzinfo=UTC)
GIVEN_BOTH = "with both day fields given and one of them a `*/n`, Vixie cron asks for both and busybox for either"
MEANT = "it is meant in UTC, and cron follows the clock of the machine,"
MOVES = "elapsed time moves along the wall clock when clocks change, as they do in Europe/Berlin"
FOR_A_DAY = "write cron text for a time of day, or let the app run it"
ZONES = ["UTC", "Europe/Berlin", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe", "America/New_York"]


@pytest.mark.parametrize(
    ("schedule", "fields"),
    [
        ("30 3 * * mon-fri", "30 3 * * 1-5"),
        ("  0\t0  1 JAN,jul *\n", "0 0 1 1,7 *"),
        ("@daily", "0 0 * * *"),
        ("@Yearly", "0 0 1 1 *"),
        ("*/7 */1 * * *", "*/7 * * * *"),
        ("0 0 * * 5-7", "0 0 * * 0,5,6"),
        ("0-59 0 * * *", "0-59 0 * * *"),
        ("1-10/3 * * * *", "1,4,7,10 * * * *"),
        ("0 0 13 * 5", "0 0 13 * 5"),
        ("59 23 31 12 7", "59 23 31 12 0"),
    ],
)
def test_cron_text_becomes_numbers_lists_ranges_and_steps_of_a_star(schedule: str, fields: str) -> None:
    assert cron_fields(schedule) == fields


@pytest.mark.parametrize(
    ("schedule", "reason"),
    [
        ("5/10 * * * *", "'5/10' in the minute field: cron daemons differ about it; write 5-59/10"),
        (
            "0 22-2 * * *",
            "'22-2' in the hour field: a range that runs backwards never fires under Debian's cron; write 0-2,22,23",
        ),
        (
            "0 0 * * sat-sun",
            "'sat-sun' in the weekday field: a range that runs backwards never fires under Debian's cron; write 0,6",
        ),
        ("*/70 * * * *", "'*/70' in the minute field: the step is larger than the field; write 0"),
        ("*,5 * * * *", "'*,5' in the minute field: write the numbers"),
        ("0 0 L * *", "'l' in the day field: cron daemons do not know it, or each reads it in its own way"),
        ("0 0 15W * *", "'15w' in the day field: cron daemons do not know it, or each reads it in its own way"),
        ("0 0 * * 1#2", "'1#2' in the weekday field: cron daemons do not know it, or each reads it in its own way"),
        ("0 0 ? * 1", "'?' in the day field: cron daemons do not know it, or each reads it in its own way"),
        (
            "0 0 */2 * 5",
            f"{GIVEN_BOTH}; write the days of '*/2' as numbers",
        ),
    ],
)
def test_what_daemons_read_in_another_way_is_refused(schedule: str, reason: str) -> None:
    with pytest.raises(UnsupportedSchedule) as caught:
        cron_fields(schedule)

    assert str(caught.value) == f"a crontab cannot say {schedule!r} exactly: {reason}"


@pytest.mark.parametrize(
    "schedule", ["", "61 * * * *", "* * * *", "* * * * * *", "@reboot", "0~9 * * * *", "0 0 30 2 *", None, 5]
)
def test_what_is_no_cron_expression_is_refused_as_one(schedule: object) -> None:
    with pytest.raises(InvalidCron):
        cron_fields(schedule)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("trigger", "zone", "fields"),
    [
        (Cron("0 5 * * *", timezone="Europe/Berlin"), "Europe/Berlin", "0 5 * * *"),
        (Cron("0 5 * * *"), "Etc/UTC", "0 5 * * *"),
        (Cron("0 5 * * *", timezone="Asia/Calcutta"), "Asia/Kolkata", "0 5 * * *"),
        (Every("1m"), "Europe/Berlin", "* * * * *"),
        (Every("5m"), "Europe/Berlin", "*/5 * * * *"),
        (
            Every("5m", anchor=START + timedelta(minutes=2)),
            "Europe/Berlin",
            "2,7,12,17,22,27,32,37,42,47,52,57 * * * *",
        ),
        (Every("30m"), "Asia/Kathmandu", "15,45 * * * *"),
        (Every("1h"), "Asia/Kolkata", "30 * * * *"),
        (Every("6h"), "UTC", "0 */6 * * *"),
        (Every("1d"), "Asia/Kolkata", "30 5 * * *"),
        (Every("7d"), "UTC", "0 0 * * 4"),
        (Every("7d", anchor=datetime(2026, 11, 22, 23, 30, tzinfo=UTC)), "Asia/Kolkata", "0 5 * * 1"),
    ],
)
def test_a_trigger_becomes_text_where_it_can_be_said_exactly(trigger: Trigger, zone: str, fields: str) -> None:
    assert cron_fields(trigger, zone) == fields


@pytest.mark.parametrize(
    ("trigger", "zone", "reason"),
    [
        (
            Cron("0 5 * * *"),
            "Europe/Berlin",
            f"{MEANT} which is Europe/Berlin; declare it with that zone, or its app",
        ),
        (
            Cron("0 5 * * *", timezone="UTC"),
            None,
            f"{MEANT} of which the zone is unknown; declare it with that zone, or its app",
        ),
        (Cron("H 5 * * *", name="x"), "UTC", "H is drawn by tickwork; write the number that it stands for"),
        (Cron("0 0 5 * * *", seconds="first"), "UTC", "a crontab has five fields, without seconds and years"),
        (
            Cron("0 2 * * *", timezone="Europe/Berlin", dst="both"),
            "Europe/Berlin",
            'dst="both" is not what cron does; leave it at "cron"',
        ),
        (Every("90s"), "UTC", "cron starts jobs on whole minutes only"),
        (Every("1m", anchor=START + timedelta(seconds=30)), "UTC", "cron starts jobs on whole minutes only"),
        (
            Every("7m"),
            "UTC",
            f"no hour, day or week holds a whole number of it; {FOR_A_DAY}",
        ),
        (
            Every("5h"),
            "UTC",
            f"no hour, day or week holds a whole number of it; {FOR_A_DAY}",
        ),
        (Every("8m"), "UTC", "its minutes differ from hour to hour; give each its own entry"),
        (Every("90m"), "UTC", "its minutes differ from hour to hour; give each its own entry"),
        (
            Every("1d"),
            "Europe/Berlin",
            f"{MOVES}; {FOR_A_DAY}",
        ),
        (Every("5m"), None, "the zone of the machine is unknown; write cron text instead"),
        (At(START), "UTC", "a crontab has no years, so it would come again; let the app run it"),
        (Every("1h") | Every("1d"), "UTC", "it is several schedules; give each part its own entry"),
        (
            Every("1h").exclude(["2026-12-25"]),
            "UTC",
            "a crontab has no exceptions; let the job itself look at the date",
        ),
    ],
)
def test_a_trigger_that_cannot_be_said_is_refused(trigger: Trigger, zone: str | None, reason: str) -> None:
    with pytest.raises(UnsupportedSchedule) as caught:
        cron_fields(trigger, zone)

    assert str(caught.value).endswith(f" exactly: {reason}")


@given(
    st.integers(1, 90) | st.integers(1, 96).map(lambda quarter: quarter * 15) | st.just(10_080),
    st.integers(0, 20_000),
    st.sampled_from(ZONES),
    st.integers(0, 1_500_000),
)
@settings(deadline=None, max_examples=100)
def test_an_interval_that_is_not_refused_fires_at_the_same_instants(
    period: int, offset: int, zone: str, minute: int
) -> None:
    grid = Every(timedelta(minutes=period), anchor=START + timedelta(minutes=offset))
    try:
        fields = cron_fields(grid, zone)
    except UnsupportedSchedule:
        return

    start = START + timedelta(minutes=minute)
    assert list(upcoming(Cron(fields, timezone=zone), start, 200)) == list(upcoming(grid, start, 200))


@pytest.mark.parametrize("zone", ZONES)
def test_the_intervals_that_divide_an_hour_are_said_in_zones_of_whole_hours(zone: str) -> None:
    said = []
    for minutes in itertools.chain(range(1, 61), range(120, 1_441, 60)):
        try:
            cron_fields(Every(timedelta(minutes=minutes)), zone)
        except UnsupportedSchedule:
            continue
        said.append(minutes)

    hour = [1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30, 60]
    day = [120, 180, 240, 360, 480, 720, 1_440]
    wanted = {"UTC": hour + day, "Asia/Kolkata": hour + day, "Asia/Kathmandu": hour + day}
    half = [minutes for minutes in hour if 30 % minutes == 0]  # Lord Howe changes its clock by half an hour
    assert said == (half if zone == "Australia/Lord_Howe" else wanted.get(zone, hour))
