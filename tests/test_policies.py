from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tickwork import App, At, Context, Cron, Every
from tickwork.errors import InvalidDuration, InvalidOption
from tickwork.policies import Policies, due, following, wanted_at
from tickwork.stores.base import ScheduleRow
from tickwork.testing import Testing

START = datetime(2026, 1, 1, tzinfo=UTC)


def after(**parts: float) -> datetime:
    return START + timedelta(**parts)


def row(**changes: Any) -> ScheduleRow:
    """Return where a schedule stands that was declared at the start."""
    given = {"version": 1, "watermark": START, "declared_at": START, **changes}
    return ScheduleRow(name="s", task="t", trigger="", fingerprint="", **given)


@pytest.fixture
def anyio_backend(virtual_backend: Any) -> Any:
    return virtual_backend


# -- the decisions ------------------------------------------------------------------------------------------

HOURLY = Every("1h")


@pytest.mark.parametrize("catch_up", ["latest", "none", "all"])
def test_a_fire_time_noticed_at_once_runs_whatever_the_policy(catch_up: Any) -> None:
    policies = Policies(catch_up=catch_up, overlap="allow")
    found = due(HOURLY, row(), after(hours=1, seconds=0.9), policies)

    assert found is not None
    assert (found.runs, found.missed) == ((after(hours=1),), 0)
    assert due(HOURLY, row(), after(minutes=59), policies) is None


def test_latest_runs_the_newest_and_counts_the_rest() -> None:
    found = due(HOURLY, row(), after(hours=5, minutes=30), Policies())

    assert found is not None
    assert found.runs == (after(hours=5),)
    assert (found.missed, found.missed_first, found.missed_last) == (4, after(hours=1), after(hours=4))
    assert found.watermark == after(hours=5)


def test_none_runs_nothing_late() -> None:
    found = due(HOURLY, row(), after(hours=5, minutes=30), Policies(catch_up="none"))

    assert found is not None
    assert found.runs == ()
    assert (found.missed, found.missed_first, found.missed_last) == (5, after(hours=1), after(hours=5))
    assert found.watermark == after(hours=5)


def test_all_runs_the_newest_up_to_the_limit_in_their_order() -> None:
    policies = Policies(catch_up="all", max_catch_up=3, overlap="allow")
    found = due(HOURLY, row(), after(hours=5, minutes=30), policies)

    assert found is not None
    assert found.runs == (after(hours=3), after(hours=4), after(hours=5))
    assert (found.missed, found.missed_first, found.missed_last) == (2, after(hours=1), after(hours=2))


def test_grace_lets_pass_what_no_start_could_save() -> None:
    policies = Policies(catch_up="all", overlap="allow", grace=5400, jitter=600)
    found = due(HOURLY, row(), after(hours=5, minutes=30), policies)

    assert found is not None
    assert found.runs == (after(hours=4), after(hours=5))
    assert found.missed == 3
    nothing = due(HOURLY, row(), after(hours=5, minutes=30), Policies(grace=60))
    assert nothing is not None
    assert (nothing.runs, nothing.missed) == ((), 5)


def test_a_year_that_was_missed_is_decided_without_counting_it() -> None:
    found = due(Cron("* * * * *"), row(), after(days=365), Policies())

    assert found is not None
    assert (found.runs, found.missed) == ((after(days=365),), None)
    assert found.missed_last == after(days=364, hours=23, minutes=59)


@pytest.mark.parametrize("draw", [0.0, 0.5, 0.999])
def test_jitter_puts_a_start_off_and_never_to_the_next_fire_time(draw: float) -> None:
    policies = Policies(jitter=30)
    assert wanted_at(START, after(hours=1), policies, draw) == after(seconds=30 * draw)
    assert wanted_at(START, after(seconds=10), policies, draw) == after(seconds=10 * draw)
    assert wanted_at(START, after(seconds=10), policies, draw) < after(seconds=10)
    assert wanted_at(START, None, policies, draw) == after(seconds=30 * draw)
    assert wanted_at(START, after(hours=1), Policies(), draw) == START


def test_jitter_never_reaches_the_next_fire_time_by_rounding() -> None:
    milli = timedelta(milliseconds=1)

    assert wanted_at(START, START + milli, Policies(jitter=30), 0.9999) == START + timedelta(microseconds=999)
    assert wanted_at(START, START + milli, Policies(jitter=30), 0.5) == START + timedelta(microseconds=500)


# -- declared wrongly ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"catch_up": "some"}, InvalidOption, "catch_up must be one of 'latest', 'none', 'all', got 'some'"),
        ({"catch_up": "all"}, InvalidOption, 'add overlap="allow"'),
        ({"max_catch_up": 0}, InvalidOption, "max_catch_up must be a whole number of at least 1, got 0"),
        ({"grace": "-5s"}, InvalidDuration, "grace must be a duration"),
        ({"jitter": "often"}, InvalidDuration, "jitter must be a duration"),
        ({"overlaps": "skip"}, InvalidOption, "got 'overlaps'; did you mean 'overlap'?"),
    ],
)
def test_wrong_and_contradicting_policies_are_refused_when_declared(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    for declare in (App().every, App().cron):
        with pytest.raises(error) as raised:
            declare("0 5 * * *" if declare.__name__ == "cron" else "1h", **options)
        assert message in str(raised.value)


# -- in an app ----------------------------------------------------------------------------------------------


async def run(disturb: Callable[[Testing], None], **policies: Any) -> tuple[list[datetime], list[tuple[Any, ...]]]:
    """Run an hourly schedule that is disturbed after 90 minutes; return the starts and the ledger."""
    app, starts = App(), list[datetime]()

    @app.every("1h", name="work", **policies)
    async def work() -> None:
        starts.append(t.now)

    async with app.testing(start=START) as t:
        await t.advance("1h30m")
        disturb(t)
        await t.advance("1h")
        history = await app.schedules["work"].history()
    return starts, [(row.outcome, row.first, row.last, row.count) for row in reversed(history)]


async def test_catch_up_none_lets_pass_what_was_missed_asleep() -> None:
    starts, ledger = await run(lambda t: t.clock.suspend("4h"), catch_up="none")

    assert starts == [after(hours=1), after(hours=6)]
    assert ledger == [
        ("ran", after(hours=1), after(hours=1), 1),
        ("missed", after(hours=2), after(hours=5), 4),
        ("ran", after(hours=6), after(hours=6), 1),
    ]


async def test_catch_up_all_makes_up_for_what_was_missed_asleep() -> None:
    starts, ledger = await run(lambda t: t.clock.suspend("4h"), catch_up="all", max_catch_up=3, overlap="allow")

    assert starts == [after(hours=1), *[after(hours=5, minutes=30)] * 3, after(hours=6)]
    assert ledger == [
        ("ran", after(hours=1), after(hours=1), 1),
        ("missed", after(hours=2), after(hours=2), 1),
        *(("ran", after(hours=hour), after(hours=hour), 1) for hour in (3, 4, 5, 6)),
    ]


async def test_a_start_beyond_its_grace_is_missed_and_one_within_it_runs_late() -> None:
    within, _ = await run(lambda t: t.clock.suspend("4h"), grace="1h")
    beyond, ledger = await run(lambda t: t.clock.suspend("4h"), grace="10m")

    assert within == [after(hours=1), after(hours=5, minutes=30), after(hours=6)]
    assert beyond == [after(hours=1), after(hours=6)]
    assert ledger[1] == ("missed", after(hours=2), after(hours=5), 4)


async def test_a_job_that_no_worker_takes_within_its_grace_becomes_missed(caplog: pytest.LogCaptureFixture) -> None:
    app, gate, begun = App(workers=1), asyncio.Event(), list[str]()

    @app.task()
    async def block() -> None:
        await gate.wait()

    @app.every("1h", name="work", grace="5m")
    async def work() -> None:
        begun.append("work")

    async with app.testing(start=START) as t:
        for _ in range(3):  # the worker, its buffer and the feeder's hand are full
            await block.enqueue()
        await t.advance("1h10m")
        gate.set()
        await t.drain()
        (answer,) = await app.schedules["work"].history()

        assert begun == []
        assert (answer.outcome, answer.first) == ("missed", after(hours=1))
        await t.advance("50m")
        assert begun == ["work"]
    assert "schedule work missed 2026-01-01 01:00:00+00:00: its job" in caplog.text


async def test_jitter_delays_the_start_and_leaves_the_fire_time_alone() -> None:
    app, starts = App(), list[tuple[datetime, datetime | None]]()

    @app.every("1h", name="work", jitter="10m")
    async def spread(ctx: Context) -> None:
        starts.append((t.now, ctx.fire_time))

    async with app.testing(start=START) as t:
        await t.advance("20h30m")

    assert [fire_time for _, fire_time in starts] == [after(hours=hour) for hour in range(1, 21)]
    delays = [(at - fire_time).total_seconds() for at, fire_time in starts if fire_time is not None]
    assert all(0 <= delay < 600 for delay in delays)
    assert len({round(delay) for delay in delays}) > 10


async def test_policies_hold_for_schedules_added_while_the_app_runs() -> None:
    app = App()

    @app.task()
    async def work() -> None: ...

    async with app.testing(start=START) as t:
        schedule = await app.schedules.add(work, Every("1h"), name="late", catch_up="none", grace="1m")
        await app.schedules.add(work, At(after(hours=2)), name="once")
        t.clock.suspend("5h30m")
        await t.advance("1s")

        assert schedule.policies == Policies(catch_up="none", grace=60)
        assert t.fires("late") == []
        assert t.fires("once") == [after(hours=2)]
        with pytest.raises(InvalidOption, match="did you mean 'grace'"):
            await app.schedules.add(work, Every("1h"), name="other", grase="1m")  # type: ignore[call-arg]


async def test_fire_times_that_pass_while_a_schedule_is_paused_share_one_row() -> None:
    app = App()

    @app.every("1h", name="work")
    async def work() -> None: ...

    async with app.testing(start=START) as t:
        schedule = app.schedules["work"]
        await t.advance("1h30m")
        assert [await schedule.pause(), await schedule.pause()] == [True, False]
        await t.advance("3h")
        assert [await schedule.resume(), await schedule.resume()] == [True, False]
        await t.advance("1h")

        assert [(row.outcome, row.first, row.last, row.count) for row in reversed(await schedule.history())] == [
            ("ran", after(hours=1), after(hours=1), 1),
            ("paused", after(hours=2), after(hours=4), 3),
            ("ran", after(hours=5), after(hours=5), 1),
        ]


# -- overlap ------------------------------------------------------------------------------------------------


async def overlapping(overlap: Any, minutes: int, *, hours: float = 6.5) -> tuple[list[Any], list[Any]]:
    """Run an hourly job that takes `minutes`; return (start, end or "cancelled") in hours, and the ledger."""
    app, runs = App(), list[Any]()

    @app.every("1h", name="work", overlap=overlap)
    async def work() -> None:
        begun = (t.now - START) / timedelta(hours=1)
        try:
            await asyncio.sleep(minutes * 60)
        except asyncio.CancelledError:
            runs.append((begun, "cancelled"))
            raise
        runs.append((begun, (t.now - START) / timedelta(hours=1)))

    async with app.testing(start=START) as t:
        await t.advance(f"{hours}h")
        ledger = [(answer.outcome, answer.first.hour) for answer in reversed(await app.schedules["work"].history())]
        await app.schedules["work"].pause()
        await t.advance("5h")
    return runs, ledger


async def test_queue_keeps_one_waiting_and_merges_later_fire_times_into_it() -> None:
    runs, ledger = await overlapping("queue", 144)

    assert runs[:3] == [(1.0, 3.4), (3.4, 5.8), (5.8, 8.2)]
    # At 1 it runs; 2 waits behind it, 3 merges; 4 waits behind the second, 5 merges; 6 waits behind the third.
    assert ledger == [("ran", 1), ("ran", 2), ("merged", 3), ("ran", 4), ("merged", 5), ("ran", 6)]


async def test_replace_cancels_the_running_job_and_begins_when_it_has_ended() -> None:
    runs, ledger = await overlapping("replace", 90, hours=3.5)

    assert runs == [(1.0, "cancelled"), (2.0, "cancelled"), (3.0, 4.5)]
    assert ledger == [("ran", 1), ("ran", 2), ("ran", 3)]


async def test_a_replacement_waits_until_the_cancelled_job_has_cleaned_up() -> None:
    app, events = App(), list[tuple[str, float]]()

    @app.every("1h", name="work", overlap="replace")
    async def work() -> None:
        events.append(("begin", (t.now - START) / timedelta(hours=1)))
        try:
            await asyncio.sleep(5400)
        finally:
            await asyncio.sleep(1.8)
            events.append(("end", round((t.now - START) / timedelta(hours=1), 4)))

    async with app.testing(start=START) as t:
        await t.advance("2h1m")

        assert events == [("begin", 1.0), ("end", 2.0005), ("begin", 2.0005)]


async def test_a_replaced_job_that_had_not_begun_is_not_started() -> None:
    app, gate = App(workers=1), asyncio.Event()

    @app.task()
    async def block() -> None:
        await gate.wait()

    @app.every("1h", name="work", overlap="replace")
    async def work() -> None: ...

    async with app.testing(start=START) as t:
        for _ in range(3):
            await block.enqueue()
        await t.advance("3h")
        gate.set()
        await t.drain()
        answers = await app.schedules["work"].history()

        assert [(answer.outcome, answer.first.hour) for answer in answers] == [
            ("ran", 3),
            ("not_started", 2),
            ("not_started", 1),
        ]


async def test_a_manual_run_follows_the_overlap() -> None:
    app, gate, ran = App(), asyncio.Event(), list[str]()

    async def body() -> None:
        ran.append("begun")
        await gate.wait()

    app.every("1d", name="skip")(body)
    app.every("1d", name="queue", overlap="queue")(_copy(body))

    async with app.testing(start=START) as t:
        assert await app.schedules["skip"].run_now() is not None
        assert await app.schedules["skip"].run_now() is None
        first = await app.schedules["queue"].run_now()
        await t.advance("1s")
        second = await app.schedules["queue"].run_now()
        third = await app.schedules["queue"].run_now()
        await t.advance("1s")
        assert ran == ["begun", "begun"]
        gate.set()
        await t.drain()

        assert first != second
        assert second == third
        assert ran == ["begun"] * 3


def _copy(body: Callable[..., Any]) -> Callable[..., Any]:
    async def other() -> None:
        await body()

    return other


# -- bounds and counts ----------------------------------------------------------------------------------------


def test_what_is_due_after_the_last_run_that_is_left_comes_after_the_end_of_the_schedule() -> None:
    policies = Policies(catch_up="all", overlap="allow", max_catch_up=3, max_runs=2)
    found = due(HOURLY, row(), after(hours=5, minutes=30), policies)

    assert found is not None
    assert found.runs == (after(hours=3), after(hours=4))
    assert found.watermark == after(hours=4)
    assert (found.missed, found.missed_first, found.missed_last) == (2, after(hours=1), after(hours=2))
    assert found.decided_by == "max_catch_up=3"


def test_a_schedule_that_has_had_its_runs_is_finished() -> None:
    policies = Policies(max_runs=2)

    assert due(HOURLY, row(runs=2), after(hours=5), policies) is None
    assert following(HOURLY, row(runs=2), policies) is None
    assert following(HOURLY, row(runs=1), policies) == after(hours=1)


def test_a_paused_schedule_has_nothing_due() -> None:
    assert due(HOURLY, row(paused=True), after(hours=5), Policies()) is None
    assert following(HOURLY, row(paused=True), Policies()) is None


@pytest.mark.parametrize(
    ("policies", "decided_by"),
    [
        (Policies(), 'catch_up="latest"'),
        (Policies(catch_up="none"), 'catch_up="none"'),
        (Policies(grace=60.0), 'grace="1m"'),
        (Policies(catch_up="all", overlap="allow", max_catch_up=1), "max_catch_up=1"),
        (Policies(catch_up="all", overlap="allow", max_catch_up=3, grace=5400.0), 'max_catch_up=3, grace="1h30m"'),
    ],
)
def test_the_option_that_let_fire_times_pass_is_named(policies: Policies, decided_by: str) -> None:
    found = due(HOURLY, row(), after(hours=5, minutes=30), policies)

    assert found is not None
    assert found.decided_by == decided_by


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"max_catch_up": 5},
            'max_catch_up must be given with catch_up="all", got 5; others make up for one at the most',
        ),
        ({"max_runs": 0}, "max_runs must be a whole number of at least 1, got 0"),
        (
            {"first": "now", "start_at": "2026-01-01T00:00Z"},
            "first must be \"later\" with start_at, got 'now'; nothing may run before start_at",
        ),
        (
            {"start_at": "2026-01-02T00:00Z", "end_at": "2026-01-01T00:00Z"},
            "end_at must be not before start_at=2026-01-02T00:00:00+00:00, got '2026-01-01T00:00:00+00:00'",
        ),
        (
            {"start_at": "2026-01-02T00:00"},
            (
                "start_at must be an instant, got '2026-01-02T00:00'; add an offset "
                '("2026-12-24T18:00:00+01:00", tzinfo=UTC)'
            ),
        ),
        ({"end_at": "soon"}, "end_at must be an ISO 8601 text such as \"2026-12-24T18:00:00+01:00\", got 'soon'"),
    ],
)
def test_bounds_that_make_no_sense_are_refused_when_declared(options: Any, message: str) -> None:
    with pytest.raises(InvalidOption) as raised:
        App().every("1h", **options)

    assert str(raised.value) == message


async def test_nothing_is_due_outside_of_its_bounds() -> None:
    app = App()

    @app.every("1h", start_at=after(hours=2), end_at="2026-01-01T04:00:00Z", name="bounded")
    async def bounded() -> None: ...

    async with app.testing() as t:
        await t.advance("1d")

        assert t.fires("bounded") == [after(hours=2), after(hours=3), after(hours=4)]
        assert app.schedules["bounded"].next() == []


async def test_max_runs_counts_jobs_and_neither_skipped_nor_manual_ones() -> None:
    app = App()

    @app.every("1h", max_runs=3, name="few")
    async def few() -> None:
        await asyncio.sleep(5400)

    async with app.testing() as t:
        await t.advance("150m")
        assert t.fires("few") == [after(hours=1)]
        await app.schedules["few"].run_now()
        await t.advance("1d")

        outcomes = [answer.outcome for answer in reversed(await app.schedules["few"].history())]
        assert outcomes.count("ran") == 3
        assert len(t.jobs) == 4
        assert outcomes[-1] == "ran"
        assert app.schedules["few"].next_at is None
