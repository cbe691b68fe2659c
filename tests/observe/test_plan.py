"""What a plan says about the schedules of a window: fire times, collisions, clock changes, runs."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tickwork import App, At, Cron, Every
from tickwork.errors import InvalidDuration, InvalidInstant, InvalidOption, UnknownSchedule, UnknownTimezone
from tickwork.observe import Collision, Lane, Peak, Plan, Planned, Touched, as_data, preview
from tickwork.policies import Policies
from tickwork.triggers import Trigger

from .triggers import Answers, Steps

BERLIN = ZoneInfo("Europe/Berlin")
START = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
NAIVE = START.replace(tzinfo=None)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def plan_of(*triggers: Trigger, days: float = 1, start: datetime = START, **settings: Any) -> Plan:
    """Return the plan of schedules named a, b, c..."""
    policies = settings.pop("policies", Policies())
    planned = [Planned(chr(97 + number), trigger, policies) for number, trigger in enumerate(triggers)]
    return preview(planned, start, start + timedelta(days=days), **settings)


def lane_of(trigger: Trigger, **settings: Any) -> Lane:
    return plan_of(trigger, **settings).lanes[0]


# -- fire times -------------------------------------------------------------------------------------------------------


def test_window_holds_its_beginning_and_not_its_end() -> None:
    lane = lane_of(Cron("0 0 * * *"))

    assert lane.starts == (START,)
    assert (lane.count, lane.following) == (1, START + DAY)


def test_schedules_of_an_app_keep_their_order_names_and_policies() -> None:
    app = App(timezone="Europe/Berlin")
    app.cron("0 5 * * *", name="b", overlap="queue", jitter="5m")(lambda: None)
    app.every("1h", name="a")(lambda: None)

    plan = preview(app.schedules, START, START + DAY, timezone=app.timezone)

    assert [(lane.name, lane.when, lane.overlap, lane.jitter, lane.count) for lane in plan.lanes] == [
        ("b", "0 5 * * *", "queue", 300.0, 1),
        ("a", "every 1h", "skip", 0.0, 24),
    ]
    assert plan.lanes[0].starts == (at("2026-03-01T04:00"),)


def test_no_schedules_make_an_empty_plan() -> None:
    plan = preview([], START, START + DAY)

    assert (plan.lanes, plan.count, plan.collisions, plan.peak) == ((), 0, (), None)


@pytest.mark.parametrize(
    ("trigger", "when"),
    [
        (Every("90s"), "every 1m30s"),
        (Cron("0 5 * * *"), "0 5 * * *"),
        (Cron("0 5 * * *", timezone="UTC"), "0 5 * * *"),
        (Cron("0 5 * * *", timezone="Asia/Seoul"), "0 5 * * * Asia/Seoul"),
        (At("2026-03-01T12:00Z"), "at 2026-03-01 12:00:00 +0000"),
        (Every("1h") | Cron("5 5 * * *"), "every 1h or 5 5 * * *"),
        (Every("1h").exclude([date(2026, 3, 2)]), "Exclusion(Every('1h'), dates=['2026-03-02'])"),
    ],
)
def test_lane_says_when_it_fires_as_people_read_it(trigger: Trigger, when: str) -> None:
    assert lane_of(trigger).when == when


periods = st.one_of(st.integers(1, 200_000), st.floats(0.5, 5_000)).map(lambda seconds: timedelta(seconds=seconds))
windows = st.tuples(
    st.integers(0, 365 * 86_400_000).map(lambda number: START + timedelta(milliseconds=number)),
    st.one_of(st.integers(1, 7_200), st.integers(1, 40 * 86_400)).map(lambda seconds: timedelta(seconds=seconds)),
)


@settings(max_examples=150, deadline=None)
@given(window=windows, period=periods, key=st.sampled_from(["UTC", "Europe/Berlin", "Australia/Lord_Howe"]))
def test_every_fire_time_is_counted_once_in_the_bucket_that_holds_it(
    window: tuple[datetime, timedelta], period: timedelta, key: str
) -> None:
    start, length = window
    plan = preview([Planned("a", Every(period))], start, start + length, timezone=key)
    lane = plan.lanes[0]

    assert (plan.edges[0], plan.edges[-1]) == (start, start + length)
    assert list(plan.edges) == sorted(set(plan.edges))
    assert len(plan.edges) <= 401
    assert len(lane.counts) == len(plan.edges) - 1
    every = Every(period)
    first = every.next(start - timedelta(microseconds=1))
    assert first is not None
    step = timedelta(seconds=every.period_seconds)
    expected = max(0, -((first - (start + length)) // step))
    assert sum(lane.counts) == lane.count == expected
    assert not lane.is_estimated
    if expected <= 10_000:
        assert lane.starts == tuple(first + number * step for number in range(expected))
        for number, count in enumerate(lane.counts):
            assert count == sum(plan.edges[number] <= at < plan.edges[number + 1] for at in lane.starts)


@settings(max_examples=60, deadline=None)
@given(
    expression=st.sampled_from(["0 2 * * *", "30 2 * * *", "*/15 * * * *", "7 1-4 * * sun", "0 0 1 * *", "* 2 * * *"]),
    key=st.sampled_from(["UTC", "Europe/Berlin", "Australia/Lord_Howe", "America/New_York"]),
    first=st.dates(date(2026, 1, 1), date(2026, 12, 31)),
    days=st.integers(1, 60),
)
def test_lane_of_an_expression_has_what_its_trigger_tells(expression: str, key: str, first: date, days: int) -> None:
    trigger = Cron(expression, timezone=key)
    start = datetime(first.year, first.month, first.day, tzinfo=UTC)
    plan = preview([Planned("a", trigger)], start, start + days * DAY, timezone=key)

    found, moment = [], trigger.next(start - timedelta(microseconds=1))
    while moment is not None and moment < start + days * DAY:
        found.append(moment)
        moment = trigger.next(moment)
    assert list(plan.lanes[0].starts) == found
    assert sum(plan.lanes[0].counts) == plan.count == len(found)


def test_what_fires_too_often_is_counted_and_not_kept() -> None:
    lane = lane_of(Every("1ms"), days=365)

    assert (lane.count, lane.starts, lane.is_estimated) == (365 * 86_400_000, (), False)
    assert sum(lane.counts) == lane.count


def test_unknown_trigger_that_fires_too_often_is_estimated() -> None:
    lane = lane_of(Steps(timedelta(seconds=7), START), days=7)

    assert lane.is_estimated
    assert lane.starts == ()
    assert lane.count == 86_400


def test_estimate_sees_the_hours_without_fire_times() -> None:
    plan = plan_of(Cron("* * 9-16 * * mon-fri", seconds="first"), days=28)
    lane = plan.lanes[0]

    assert lane.is_estimated
    assert lane.count == 20 * 8 * 3600
    for edge, count in zip(plan.edges, lane.counts, strict=False):  # a bucket has two hours
        assert bool(count) == (8 <= edge.hour < 17 and edge.weekday() < 5)


# -- triggers that do what they must not ------------------------------------------------------------------------------


def refuse(after: datetime) -> None:
    raise ValueError("no idea")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (refuse, "ValueError: no idea"),
        (lambda after: after, "ValueError: its next() says that 2026-03-01 23:59:59.999999+00:00 comes after "),
        (lambda after: NAIVE, "TypeError: its next() returned datetime.datetime(2026, 3, 1, 0, 0), "),
        (lambda after: "soon", "TypeError: its next() returned 'soon', and not an aware datetime"),
    ],
)
def test_trigger_that_errs_has_its_error_and_spoils_no_other_lane(answer: Any, error: str) -> None:
    broken, well = plan_of(Answers(answer), Every("1h")).lanes

    assert broken.error is not None
    assert broken.error.startswith(error)
    assert (broken.count, broken.starts) == (0, ())
    assert (well.count, well.error) == (24, None)


def test_trigger_that_takes_too_long_is_given_up() -> None:
    class Late:
        """A clock by which a second passes whenever it is read."""

        seconds = 0.0

        def monotonic(self) -> float:
            self.seconds += 1
            return self.seconds

    late: Any = Late()
    lane = lane_of(Cron("0 * * * *"), clock=late)

    assert lane.error == "TimeoutError: it was given up after 20 s: its next() is too slow"


def test_answers_in_another_zone_are_told_in_utc() -> None:
    lane = lane_of(Answers(lambda after: (after + timedelta(hours=6)).astimezone(BERLIN)))

    assert [moment.tzinfo for moment in lane.starts] == [UTC] * len(lane.starts)
    assert lane.count == 4


# -- starting together ------------------------------------------------------------------------------------------------


def test_schedules_that_start_in_the_same_minute_collide() -> None:
    plan = plan_of(Cron("0 3 * * *"), Cron("0,30 3 * * *"), Every("1h", anchor=at("2026-01-01T00:00:20")), days=2)

    assert plan.collisions == (Collision(at("2026-03-01T03:00"), ("a", "b", "c"), 2),)
    assert plan.collision_count == 2
    assert sorted(plan.crowds)[-3:] == [0, 3, 3]


def test_the_most_together_come_first_and_equal_groups_are_one() -> None:
    plan = plan_of(Cron("0 * * * *"), Cron("0 4 * * *"), Cron("0 4,5 * * *"))

    assert plan.collisions == (
        Collision(at("2026-03-01T04:00"), ("a", "b", "c"), 1),
        Collision(at("2026-03-01T05:00"), ("a", "c"), 1),
    )


def test_schedule_collides_with_itself_never() -> None:
    assert plan_of(Every("40s"), days=0.01).collision_count == 0


@pytest.mark.parametrize(
    ("trigger", "policies", "days"),
    [
        (Every("1m"), Policies(), 1),
        (Every("2m"), Policies(), 1),
        (Every("1h"), Policies(jitter=60), 1),
        (Every("30m"), Policies(), 300),
    ],
)
def test_what_starts_all_the_time_or_is_spread_counts_among_no_collisions(
    trigger: Trigger, policies: Policies, days: int
) -> None:
    planned = [Planned("a", trigger, policies), Planned("b", Cron("0 3 * * *"))]
    plan = preview(planned, START, START + days * DAY)

    assert [lane.is_background for lane in plan.lanes] == [True, False]
    assert plan.collision_count == 0


# -- clock changes ----------------------------------------------------------------------------------------------------


def test_fire_times_that_the_gap_moves_are_marked() -> None:
    start = datetime(2026, 3, 29, tzinfo=BERLIN)
    plan = plan_of(Cron("30 2 * * *", timezone="Europe/Berlin"), Every("1h"), start=start, timezone="Europe/Berlin")

    assert plan.lanes[0].touched == (Touched(at("2026-03-29T01:00"), "after the gap 02:00-03:00"),)
    assert plan.lanes[1].touched == ()  # elapsed time does not look at a clock
    change = plan.changes[0]
    assert (change.at, change.shift, change.before, change.after) == (at("2026-03-29T01:00"), 3600, "02:00", "03:00")


def test_both_passes_of_a_repeated_hour_are_marked() -> None:
    start = datetime(2026, 10, 25, tzinfo=BERLIN)
    plan = plan_of(Cron("*/30 * * * *", timezone="Europe/Berlin"), start=start, timezone="Europe/Berlin")

    first, second = "first pass of 02:00-03:00", "second pass of 02:00-03:00"
    assert plan.lanes[0].touched == (
        Touched(at("2026-10-25T00:00"), first),
        Touched(at("2026-10-25T00:30"), first),
        Touched(at("2026-10-25T01:00"), second),
        Touched(at("2026-10-25T01:30"), second),
    )
    assert [(change.shift, change.before, change.after) for change in plan.changes] == [(-3600, "03:00", "02:00")]


def test_window_that_begins_amid_a_repeated_hour_has_what_is_left_of_it() -> None:
    start = at("2026-10-25T00:30")
    lane = lane_of(Cron("*/30 * * * *", timezone="Europe/Berlin"), start=start, days=1 / 24, timezone="Europe/Berlin")

    assert [mark.at for mark in lane.touched] == [start, start + timedelta(minutes=30)]


def test_lane_is_marked_by_its_own_zone() -> None:
    plan = plan_of(Cron("30 2 * * *", timezone="Europe/Berlin"), start=at("2026-03-29T00:00"))

    assert plan.changes == ()
    assert (plan.lanes[0].timezone, len(plan.lanes[0].touched)) == ("Europe/Berlin", 1)


def test_buckets_of_a_year_are_days_of_the_calendar() -> None:
    start, end = datetime(2026, 1, 1, tzinfo=BERLIN), datetime(2027, 1, 1, tzinfo=BERLIN)
    plan = preview([Planned("a", Cron("0 0 * * *", timezone="Europe/Berlin"))], start, end, timezone="Europe/Berlin")

    assert plan.lanes[0].counts == (1,) * 365


# -- runs -------------------------------------------------------------------------------------------------------------


def test_runs_longer_than_the_gap_make_fire_times_skipped() -> None:
    lane = lane_of(Cron("*/30 * * * *"), durations={"a": "40m"})

    assert (lane.dropped_count, lane.count) == (24, 48)
    assert lane.dropped[0] == at("2026-03-01T00:30")
    assert lane.runs[:2] == (
        (START, at("2026-03-01T00:40")),
        (at("2026-03-01T01:00"), at("2026-03-01T01:40")),
    )


@pytest.mark.parametrize(
    ("overlap", "runs", "dropped"),
    [
        ("skip", [(0, 50), (60, 110), (120, 170)], 4),
        ("queue", [(0, 50), (50, 100), (100, 150), (150, 200)], 3),
        ("replace", [(0, 20), (20, 40), (40, 60), (60, 80), (80, 100), (100, 120), (120, 170)], 0),
        ("allow", [(start, start + 50) for start in range(0, 140, 20)], 0),
    ],
)
def test_runs_follow_the_overlap_policy(overlap: Any, runs: list[tuple[int, int]], dropped: int) -> None:
    policies = Policies(overlap=overlap)
    lane = lane_of(Every("20m"), days=121 / 1440, policies=policies, durations={"a": "50m"})

    minutes = [((a - START).total_seconds() / 60, (b - START).total_seconds() / 60) for a, b in lane.runs]
    assert minutes == runs
    assert lane.dropped_count == dropped


def test_a_run_that_ends_when_the_next_is_due_skips_nothing() -> None:
    assert lane_of(Every("1h"), durations={"a": 3600}).dropped_count == 0


def test_skipped_fire_times_are_estimated_where_they_are_not_kept() -> None:
    lane = lane_of(Every("1s"), durations={"a": "2.5s"})

    assert (lane.count, lane.dropped_count, lane.dropped) == (86_400, 57_600, ())


def test_peak_is_the_most_runs_at_a_time() -> None:
    plan = plan_of(
        Cron("0 3 * * *"), Cron("30 3 * * *"), Cron("0 4 * * *"), Every("1h"), durations={"a": "1h", "b": "1h", "c": 60}
    )

    assert plan.peak == Peak(2, at("2026-03-01T03:30"))  # the first ends when the third begins


def test_what_runs_too_often_to_be_rehearsed_counts_as_always_running() -> None:
    plan = plan_of(Every("1s"), Cron("0 3 * * *"), durations={"a": 1, "b": 60})

    assert plan.peak == Peak(2, at("2026-03-01T03:00"))


def test_duration_is_found_by_the_last_part_of_a_name() -> None:
    planned = [Planned("shop.clean", Every("1h")), Planned("clean.shop", Every("1h"))]

    plan = preview(planned, START, START + DAY, durations={"clean": timedelta(minutes=1)})

    assert [lane.duration for lane in plan.lanes] == [60, None]


# -- what is refused --------------------------------------------------------------------------------------------------


def test_schedules_of_one_name_share_its_duration() -> None:
    plan = preview([Planned("a", Every("1h")), Planned("a", Every("2h"))], START, START + DAY, durations={"a": 60})

    assert [lane.duration for lane in plan.lanes] == [60, 60]


def test_durations_for_no_schedule_or_several_are_refused() -> None:
    planned = [Planned("one.clean", Every("1h")), Planned("two.clean", Every("1h"))]

    with pytest.raises(UnknownSchedule, match=r"^no schedule named 'one.clear'; did you mean 'one.clean'\?$"):
        preview(planned, START, START + DAY, durations={"one.clear": 1})
    message = "durations must be of one schedule each, got 'clean'; several are named so: one.clean, two.clean"
    with pytest.raises(InvalidOption, match=f"^{message}$"):
        preview(planned, START, START + DAY, durations={"clean": 1})
    with pytest.raises(InvalidDuration, match="^duration of one.clean must be a duration such as"):
        preview(planned, START, START + DAY, durations={"one.clean": "long"})


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        (NAIVE, START, "start must be an aware datetime, got datetime.datetime(2026, 3, 1, 0, 0)"),
        (START, "tomorrow", "end must be an aware datetime, got 'tomorrow'"),
        (
            START,
            START,
            f"end must be later than {START.isoformat()}, by 3660 days at the most, got '2026-03-01T00:00:00+00:00'",
        ),
        (
            START,
            START + 3_661 * DAY,
            f"end must be later than {START.isoformat()}, by 3660 days at the most, got '2036-03-09T00:00:00+00:00'",
        ),
        (
            datetime.min.replace(tzinfo=UTC),
            START,
            "start must be between the years 4 and 9989, got '0001-01-01 00:00:00+00:00'",
        ),
    ],
)
def test_window_that_is_none_is_refused(start: Any, end: Any, message: str) -> None:
    with pytest.raises(InvalidInstant) as refused:
        preview([], start, end)
    assert str(refused.value) == message


def test_unknown_zone_is_refused() -> None:
    with pytest.raises(UnknownTimezone):
        preview([], START, START + DAY, timezone="Europe/Berlni")


# -- as data ----------------------------------------------------------------------------------------------------------


def test_plan_as_data_is_json_with_the_names_of_the_attributes() -> None:
    plan = plan_of(Cron("30 2 * * *", timezone="Europe/Berlin"), Cron("0 1 * * *"), start=at("2026-03-29T00:00"))

    data = json.loads(json.dumps(as_data(plan)))

    assert set(data) == set(Plan.__slots__)
    assert set(data["lanes"][0]) == set(Lane.__slots__)
    assert data["lanes"][0]["starts"] == ["2026-03-29T01:00:00Z"]
    assert data["lanes"][0]["touched"] == [{"at": "2026-03-29T01:00:00Z", "change": "after the gap 02:00-03:00"}]
    assert data["collisions"] == [{"at": "2026-03-29T01:00:00Z", "names": ["a", "b"], "count": 1}]
