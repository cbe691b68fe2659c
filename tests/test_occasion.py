"""Which fire time a process was started for, and what is decided about it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickwork import At, Cron, Every
from tickwork.errors import InvalidInstant
from tickwork.jobs import NewJob
from tickwork.occasion import LATE_BECAUSE, decide, firings, is_late, newest_fire_time, read_fire_time
from tickwork.policies import Due, Policies
from tickwork.stores.base import ScheduleRow
from tickwork.triggers import Trigger

NIGHTLY = Cron("30 3 * * *")
AT = datetime(2026, 11, 26, 3, 30, tzinfo=UTC)
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)


def row(watermark: datetime = AT - DAY, declared_at: datetime = AT - 30 * DAY, **fields: object) -> ScheduleRow:
    return ScheduleRow(
        name="nightly",
        task="nightly",
        trigger="",
        fingerprint="",
        version=7,
        watermark=watermark,
        declared_at=declared_at,
        **fields,  # type: ignore[arg-type]
    )


KNOWN, PLAIN = row(), Policies()


def fate(
    late: timedelta = SECOND, row: ScheduleRow = KNOWN, policies: Policies = PLAIN, is_answered: bool = False
) -> object:
    return decide(NIGHTLY, row, AT, AT + late, policies, started_at=AT + late, is_answered=is_answered)


# --- which one ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (timedelta(seconds=1), AT),
        (timedelta(0), AT),
        (timedelta(milliseconds=-5), AT),  # Task Scheduler is a little early
        (timedelta(seconds=-1), AT),
        (timedelta(seconds=-1.001), AT - DAY),
        (timedelta(hours=11), AT),
        (DAY - timedelta(seconds=1.001), AT),
        (DAY - timedelta(seconds=1), AT + DAY),
    ],
    ids=str,
)
def test_the_newest_fire_time_is_meant_or_one_that_comes_within_a_second(after: timedelta, expected: datetime) -> None:
    assert newest_fire_time(NIGHTLY, AT + after) == expected


def test_the_newest_fire_time_may_be_years_ago() -> None:
    assert newest_fire_time(Cron("0 0 29 2 *"), AT) == datetime(2024, 2, 29, tzinfo=UTC)
    assert newest_fire_time(At("2001-01-01T00:00Z"), AT) == datetime(2001, 1, 1, tzinfo=UTC)


def test_a_trigger_that_has_not_fired_yet_has_no_newest_fire_time() -> None:
    assert newest_fire_time(At("2027-01-01T00:00Z"), AT) is None


def test_what_clocks_skip_is_fired_when_cron_does_it() -> None:
    berlin = Cron("30 2 * * *", timezone="Europe/Berlin")
    after_the_gap = datetime(2026, 3, 29, 1, tzinfo=UTC)  # 03:00 there, when Debian's cron starts it

    assert newest_fire_time(berlin, after_the_gap + SECOND) == after_the_gap


@given(
    st.timedeltas(timedelta(days=-9_000), timedelta(days=9_000)),
    st.sampled_from(["*/7 * * * *", "0 9 * * mon", "@yearly"]),
)
def test_between_the_newest_fire_time_and_now_there_is_none(distance: timedelta, expression: str) -> None:
    trigger, now = Cron(expression), AT + distance

    found = newest_fire_time(trigger, now)

    assert found is not None
    following = trigger.next(found)
    assert following is not None
    assert found <= now + SECOND < following


def test_a_fire_time_is_read_with_any_offset() -> None:
    assert read_fire_time(NIGHTLY, "2026-11-26T04:30+01:00", AT + SECOND) == AT
    assert read_fire_time(NIGHTLY, "2026-11-26T03:30:00Z", AT - SECOND) == AT


READABLE = '"auto", or ISO 8601 with an offset such as "2026-12-24T18:00:00+01:00"'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "2026-11-26T03:31Z",
            (
                "a fire time of Cron('30 3 * * *'), got '2026-11-26T03:31Z'; it fires before it at "
                "2026-11-26T03:30:00+00:00 and after it at 2026-11-27T03:30:00+00:00"
            ),
        ),
        (
            "2026-11-27T03:30Z",
            (
                "a fire time that has come, at 2026-11-26T03:30:01+00:00, got '2026-11-27T03:30Z'; "
                'start the process then, or pass "auto"'
            ),
        ),
        ("2026-11-26T03:30", f"{READABLE}, got '2026-11-26T03:30'"),
        ("now", f"{READABLE}, got 'now'"),
        ("0001-01-01T00:00Z", "an instant since 1970, got '0001-01-01T00:00Z'"),
    ],
)
def test_a_text_that_is_no_fire_time_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidInstant) as raised:
        read_fire_time(NIGHTLY, text, AT + SECOND)

    assert str(raised.value) == f"--fire-time must be {message}"


# --- what becomes of it ------------------------------------------------------------------------------------------


def test_a_fire_time_that_nobody_has_answered_runs() -> None:
    assert fate() == Due(runs=(AT,), watermark=AT, known=(AT, AT + DAY))


def test_one_that_comes_in_a_moment_runs() -> None:
    assert fate(-SECOND) == fate()


def test_one_that_is_answered_does_not_run_again() -> None:
    assert fate(is_answered=True) == "answered"


def test_one_that_the_ledger_has_forgotten_does_not_run_again() -> None:
    assert fate(row=row(watermark=AT)) == "answered"


def test_a_paused_schedule_runs_nothing() -> None:
    assert fate(row=row(paused=True)) == "paused"


def test_a_schedule_that_has_had_all_its_runs_runs_nothing() -> None:
    assert fate(row=row(runs=3), policies=Policies(max_runs=3)) == "finished"
    assert isinstance(fate(row=row(runs=2), policies=Policies(max_runs=3)), Due)


def test_a_schedule_that_is_new_to_its_store_runs_what_the_process_was_started_for() -> None:
    new = row(watermark=AT + SECOND, declared_at=AT + SECOND)

    assert fate(row=new) == Due(runs=(AT,), watermark=AT, known=(AT, AT + DAY))


def test_a_schedule_that_is_new_to_its_store_makes_up_for_nothing() -> None:
    late = timedelta(seconds=61)
    new = row(watermark=AT + late, declared_at=AT + late)

    assert fate(late, new) == "unknown"
    assert isinstance(fate(timedelta(seconds=60), row(watermark=AT + late, declared_at=AT + late)), Due)


def test_what_was_missed_before_is_told() -> None:
    found = fate(row=row(watermark=AT - 3 * DAY))

    assert found == Due(
        runs=(AT,),
        watermark=AT,
        missed=2,
        missed_first=AT - 2 * DAY,
        missed_last=AT - DAY,
        decided_by='catch_up="latest"',
    )


def test_what_was_missed_before_runs_where_all_is_made_up_for() -> None:
    policies = Policies(catch_up="all", overlap="allow")

    found = fate(row=row(watermark=AT - 3 * DAY), policies=policies)

    assert found == Due(runs=(AT - 2 * DAY, AT - DAY, AT), watermark=AT)


def test_later_fire_times_are_left_to_the_processes_that_are_started_for_them() -> None:
    found = fate(5 * DAY)

    assert isinstance(found, Due)
    assert (found.runs, found.watermark) == ((AT,), AT)


def test_beyond_its_grace_a_fire_time_is_missed() -> None:
    policies = Policies(grace=300.0)

    assert isinstance(fate(timedelta(seconds=300), policies=policies), Due)
    assert fate(timedelta(seconds=301), policies=policies) == Due(
        runs=(),
        watermark=AT,
        missed=1,
        missed_first=AT,
        missed_last=AT,
        decided_by='grace="5m"',
        known=(AT, AT + DAY),
    )


def test_grace_lets_pass_what_all_would_make_up_for() -> None:
    policies = Policies(catch_up="all", overlap="allow", grace=1.5 * 86_400)

    found = fate(timedelta(hours=1), row(watermark=AT - 3 * DAY), policies)

    assert found == Due(
        runs=(AT - DAY, AT),
        watermark=AT,
        missed=1,
        missed_first=AT - 2 * DAY,
        missed_last=AT - 2 * DAY,
        decided_by='max_catch_up=100, grace="1d12h"',
    )


def test_nothing_is_made_up_for_where_that_is_said_and_a_minute_is_no_delay() -> None:
    policies = Policies(catch_up="none")

    assert isinstance(found := fate(timedelta(seconds=60), policies=policies), Due)
    assert found.runs == (AT,)
    assert isinstance(found := fate(timedelta(seconds=61), policies=policies), Due)
    assert (found.runs, found.missed, found.decided_by) == ((), 1, 'catch_up="none"')


def test_what_the_process_has_waited_for_is_no_reason_to_let_its_fire_time_pass_except_for_grace() -> None:
    def after_an_hour(policies: Policies) -> object:
        return decide(
            *(NIGHTLY, KNOWN, AT, AT + timedelta(hours=1), policies), started_at=AT + SECOND, is_answered=False
        )

    assert after_an_hour(Policies(catch_up="none")) == fate()
    assert isinstance(found := after_an_hour(Policies(grace=600.0)), Due)
    assert found.runs == ()


def test_a_trigger_that_contradicts_itself_is_refused() -> None:
    class Odd(Trigger):
        def next(self, after: datetime) -> datetime | None:
            return None

        @property
        def fingerprint(self) -> str:
            return "odd"

    with pytest.raises(ValueError, match="is a fire time, and then that it is none"):
        decide(Odd(), row(), AT, AT, Policies(), started_at=AT, is_answered=False)


def test_a_minute_after_its_fire_time_a_process_was_started_for_something_else() -> None:
    assert not is_late(AT, AT + timedelta(seconds=60))
    assert is_late(AT, AT + timedelta(seconds=60.001))


# --- what the store is told --------------------------------------------------------------------------------------


def job(fire_time: datetime) -> NewJob:
    return NewJob(id=f"job-{fire_time:%d}", task="nightly", payload="{}", run_at=fire_time, fire_time=fire_time)


def test_each_run_is_told_to_the_store_with_the_version_after_the_last_one() -> None:
    found = Due(runs=(AT - DAY, AT), watermark=AT, missed=1, missed_first=AT - 2 * DAY, missed_last=AT - 2 * DAY)

    told = firings(row(), found, Policies(catch_up="all", overlap="allow"), AT, job)

    assert [(entry.version, entry.watermark, entry.job) for entry in told] == [
        (7, AT - DAY, job(AT - DAY)),
        (8, AT, job(AT)),
    ]
    assert [(entry.missed_count, entry.missed_first) for entry in told] == [(1, AT - 2 * DAY), (0, None)]
    assert [entry.late_because for entry in told] == [LATE_BECAUSE, None]


def test_of_a_new_schedule_the_row_does_not_go_back() -> None:
    (told,) = firings(row(watermark=AT + SECOND), Due(runs=(AT,), watermark=AT), Policies(), AT, job)

    assert (told.watermark, told.job) == (AT + SECOND, job(AT))


def test_what_is_missed_makes_no_job() -> None:
    found = Due(runs=(), watermark=AT, missed=1, missed_first=AT, missed_last=AT, decided_by='grace="5m"')

    (told,) = firings(row(), found, Policies(), AT + timedelta(hours=1), job)

    assert (told.job, told.watermark, told.missed_first, told.decided_by) == (None, AT, AT, 'grace="5m"')
    assert told.late_because == LATE_BECAUSE


def test_every_has_fire_times_of_its_own_grid() -> None:
    assert newest_fire_time(Every("15m"), AT + timedelta(minutes=14)) == AT
