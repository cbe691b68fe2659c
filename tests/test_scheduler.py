"""The scheduler on virtual time: what fires when, and what becomes of it."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tickwork import App, At, Context, Cron, Every, JobState, Trigger
from tickwork.errors import DuplicateName, UnknownSchedule
from tickwork.stores.memory import MemoryStore
from tickwork.testing import VirtualClock, VirtualLoop, virtual_loop_factory

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from tickwork.stores.base import Answer, Fired, Firing, ScheduleChange, ScheduleRow, Store
    from tickwork.testing import Testing

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def anyio_backend(virtual_backend: Any) -> Any:
    return virtual_backend


def after(**elapsed: float) -> datetime:
    return START + timedelta(**elapsed)


def rows(history: Sequence[Answer]) -> list[tuple[str, datetime, datetime, int | None]]:
    return [(answer.outcome, answer.first, answer.last, answer.count) for answer in reversed(history)]


class CountingStore(MemoryStore):
    """A memory store that remembers what it was asked to declare and to fire, and that can be out of order at times."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.calls: list[list[str]] = []
        self.declared: list[list[str]] = []
        self.broken_calls = 0

    async def fire(self, firings: Sequence[Firing]) -> list[Fired]:
        self.calls.append([firing.schedule for firing in firings])
        if self.broken_calls:
            self.broken_calls -= 1
            raise OSError("the disk is full")
        return await super().fire(firings)

    async def set_schedule(self, changes: Sequence[ScheduleChange]) -> list[ScheduleRow | None]:
        self.declared.append([change.name for change in changes])
        return await super().set_schedule(changes)


class CountingApp(App):
    counting: CountingStore

    def _make_store(self) -> Store:
        self.counting = CountingStore(self._clock)
        return self.counting


class Failing(Trigger):
    """Every ten seconds, unless it is told to raise or to give something else."""

    def __init__(self) -> None:
        self.instead: Callable[[datetime], datetime | None] | None = None

    def next(self, after: datetime) -> datetime | None:
        return Every("10s").next(after) if self.instead is None else self.instead(after)

    @property
    def fingerprint(self) -> str:
        return "failing"


# --- exact instants ----------------------------------------------------------------------------------------------


async def test_a_job_sees_exactly_its_fire_time() -> None:
    app = App()
    seen: list[datetime] = []

    @app.every("7.000001s", name="odd")
    @app.cron("*/5 * * * *", name="cron")
    @app.at("2026-01-01T00:12:34.567891Z", name="once")
    async def work() -> None:
        seen.append(t.now)

    async with app.testing() as t:
        await t.advance("1h")

        assert seen == sorted([*t.fires("odd"), *t.fires("cron"), *t.fires("once")])
        assert t.fires("cron") == [after(minutes=5 * n) for n in range(1, 13)]
        assert t.fires("once") == [datetime(2026, 1, 1, 0, 12, 34, 567891, tzinfo=UTC)]
        assert len(t.fires("odd")) in (514, 515)
        assert t.now == after(hours=1)


async def test_a_job_that_takes_time_does_not_shift_the_next_ones() -> None:
    app = App()
    seen: list[float] = []

    @app.every("0.2s")
    async def work() -> None:
        seen.append((t.now - START).total_seconds())
        await asyncio.sleep(0.02)

    async with app.testing() as t:
        await t.advance("4s")

        assert seen == [round(0.2 * n, 1) for n in range(1, 21)]


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        ("2026-03-28", ["2026-03-28 02:30:00+01:00", "2026-03-29 03:00:00+02:00", "2026-03-30 02:30:00+02:00"]),
        ("2026-10-24", ["2026-10-24 02:30:00+02:00", "2026-10-25 02:30:00+02:00", "2026-10-26 02:30:00+01:00"]),
    ],
)
async def test_a_daily_job_runs_once_on_each_day_of_a_clock_change(day: str, expected: list[str]) -> None:
    app = App(timezone="Europe/Berlin")
    seen: list[str] = []

    @app.cron("30 2 * * *", name="daily")
    async def daily() -> None:
        seen.append(str(t.now))

    async with app.testing(start=day) as t:
        await t.advance_to(datetime.combine(date.fromisoformat(day) + timedelta(days=3), datetime.min.time()))

        assert [str(at) for at in t.fires("daily")] == expected
        assert seen == expected


async def test_an_hour_with_nothing_due_wakes_nobody() -> None:
    app = App()

    @app.cron("0 0 * * *", name="midnight")
    async def midnight() -> None: ...

    async with app.testing() as t:
        await t.advance("23h59m59s")

        assert t.clock.wake_count == 0
        await t.advance("1s")
        assert t.clock.wake_count == 1
        assert t.fires("midnight") == [after(days=1)]


async def test_an_app_without_schedules_sleeps() -> None:
    app = App()

    async with app.testing() as t:
        await t.advance("365d")

        assert t.clock.wake_count == 0


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_year_of_twenty_hourly_schedules() -> None:
    app = App()
    for number in range(20):

        @app.every("1h", name=f"hourly-{number}")
        async def work() -> None: ...

    async def year() -> None:
        async with app.testing() as t:
            await t.advance("365d")

            assert t.clock.wake_count == 365 * 24
            assert {len(t.fires(name)) for name in app.schedules} == {365 * 24}

    with asyncio.Runner(loop_factory=virtual_loop_factory, debug=False) as runner:  # in debug mode: five times as long
        runner.run(year())


# --- one call of the store, and a store in trouble -----------------------------------------------------------------


async def test_all_that_is_due_at_once_is_fired_in_one_call() -> None:
    app = CountingApp()
    for name in ("a", "b", "c"):

        @app.every("10s", name=name)
        async def work() -> None: ...

    @app.every("15s", name="d")
    async def other() -> None: ...

    async with app.testing() as t:
        await t.advance("30s")

        assert [sorted(call) for call in app.counting.calls] == [
            ["a", "b", "c"],
            ["d"],
            ["a", "b", "c"],
            ["a", "b", "c", "d"],
        ]


async def test_all_schedules_are_declared_in_one_call_at_the_start() -> None:
    app = CountingApp()
    for name in ("a", "b", "c"):

        @app.every("10s", name=name)
        async def work() -> None: ...

    async with app.testing() as t:
        assert app.counting.declared == [["a", "b", "c"]]
        await app.schedules.add(app.tasks["a"], Every("5s"), name="d")
        assert app.counting.declared == [["a", "b", "c"], ["d"]]
        await t.advance("10s")

        assert [len(t.fires(name)) for name in app.schedules] == [1, 1, 1, 2]


async def test_fire_times_wait_while_the_store_raises(caplog: pytest.LogCaptureFixture) -> None:
    app = CountingApp()
    seen: list[tuple[datetime, datetime]] = []

    @app.every("10s", name="poll")
    async def poll(ctx: Context) -> None:
        assert ctx.fire_time is not None
        seen.append((ctx.fire_time, t.now))

    async with app.testing() as t:
        app.counting.broken_calls = 3
        await t.advance("25s")

        assert seen == [(after(seconds=10), after(seconds=13)), (after(seconds=20), after(seconds=20))]
        assert len(app.counting.calls) == 5
        failures = [r.message for r in caplog.records if r.levelno == logging.ERROR]
        assert failures == ["the store failed to take 1 fire times; trying again"] * 3


async def test_a_store_that_raises_does_not_delay_a_new_schedule_for_long() -> None:
    app = CountingApp()

    @app.every("10s", name="poll")
    async def poll() -> None: ...

    async with app.testing() as t:
        app.counting.broken_calls = 1
        await t.advance("10s")
        await app.schedules.add(app.tasks["poll"], Every("100ms"), name="fast")
        await t.advance("1s")

        assert t.fires("poll") == [after(seconds=10)]
        assert t.fires("fast") == [after(seconds=11)]
        assert [answer.outcome for answer in await app.schedules["fast"].history()] == ["ran", "missed"]


# --- one schedule is in trouble --------------------------------------------------------------------------------


def boom(_: datetime) -> datetime:
    raise ZeroDivisionError("no such day")


@pytest.mark.parametrize(
    ("instead", "reason"),
    [
        (boom, "ZeroDivisionError"),
        (lambda moment: moment, "ValueError"),
        (lambda moment: moment.replace(tzinfo=None), "TypeError"),
        (lambda _: "tomorrow", "TypeError"),
    ],
)
async def test_a_trigger_that_raises_stops_its_own_schedule_until_it_is_resumed(
    instead: Callable[[datetime], Any], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()
    trigger = Failing()

    @app.schedule(trigger, name="bad")
    @app.every("10s", name="good")
    async def work() -> None: ...

    async with app.testing() as t:
        await t.advance("10s")
        trigger.instead = instead
        await t.advance("20s")

        # The next fire time was known when it broke; what follows it is not.
        bad = app.schedules["bad"]
        assert type(bad.error).__name__ == reason
        assert t.fires("bad") in ([after(seconds=10)], [after(seconds=10), after(seconds=20)])
        assert t.fires("good") == [after(seconds=10 * n) for n in (1, 2, 3)]
        assert "the trigger of schedule bad raised, so it stops; resume() tries it again" in caplog.messages

        trigger.instead = None
        await t.advance("5s")
        await bad.resume()
        assert bad.error is None
        await t.advance("5s")
        assert t.fires("bad")[-1] == after(seconds=40)


async def test_resuming_while_the_trigger_raises_leaves_it_paused_and_loses_nothing() -> None:
    app, trigger = App(), Failing()

    @app.schedule(trigger, name="bad")
    async def work() -> None: ...

    async with app.testing() as t:
        bad = app.schedules["bad"]
        await bad.pause()
        await t.advance("25s")
        trigger.instead = boom
        assert await bad.history() == []
        assert not await bad.resume()
        assert (bad.is_paused, type(bad.error)) == (True, ZeroDivisionError)
        trigger.instead = None
        await t.advance("10s")
        assert await bad.resume()
        assert (bad.is_paused, bad.error) == (False, None)
        await t.advance("5s")

        assert rows(await bad.history()) == [
            ("paused", after(seconds=10), after(seconds=30), 3),
            ("ran", after(seconds=40), after(seconds=40), 1),
        ]


async def test_what_passed_while_a_trigger_raised_is_caught_up_by_policy() -> None:
    app, trigger = App(), Failing()

    @app.schedule(trigger, name="bad")
    async def work() -> None: ...

    async with app.testing() as t:
        trigger.instead = boom
        await t.advance("45s")
        trigger.instead = None
        await app.schedules["bad"].resume()
        await t.advance("5s")

        assert rows(await app.schedules["bad"].history()) == [
            ("missed", after(seconds=10), after(seconds=30), 3),
            ("ran", after(seconds=40), after(seconds=40), 1),
            ("ran", after(seconds=50), after(seconds=50), 1),
        ]


# --- overlap -----------------------------------------------------------------------------------------------------


async def test_a_fire_time_is_skipped_while_the_last_job_runs(caplog: pytest.LogCaptureFixture) -> None:
    app = App()

    @app.every("10s", name="poll")
    async def poll() -> None:
        await asyncio.sleep(25)

    async with app.testing() as t:
        await t.advance("40s")

        assert t.fires("poll") == [after(seconds=10), after(seconds=40)]
        first = t.jobs[0].id
        assert [(a.outcome, a.job_id or a.blocked_by) for a in await app.schedules["poll"].history()][1:] == [
            ("skipped", first),
            ("skipped", first),
            ("ran", first),
        ]
        assert f"schedule poll skipped: its last job {first} is not finished" in caplog.messages


async def test_overlap_allow_runs_them_side_by_side() -> None:
    app = App()
    running = 0
    most = 0

    @app.every("10s", name="poll", overlap="allow")
    async def poll() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(25)
        running -= 1

    async with app.testing() as t:
        await t.advance("60s")

        assert t.fires("poll") == [after(seconds=10 * n) for n in range(1, 7)]
        assert most == 3


# --- by hand -----------------------------------------------------------------------------------------------------


async def test_a_paused_schedule_lets_fire_times_pass_and_goes_on_from_now() -> None:
    app = App()

    @app.every("10s", name="poll")
    async def poll() -> None: ...

    async with app.testing() as t:
        await t.advance("10s")
        await app.schedules["poll"].pause()
        woken = t.clock.wake_count
        paused = app.schedules["poll"].is_paused
        await t.advance("1h")

        assert t.clock.wake_count == woken  # a schedule that is paused and overdue does not wake anybody
        await app.schedules["poll"].resume()
        assert (paused, app.schedules["poll"].is_paused) == (True, False)
        await t.advance("10s")
        assert t.fires("poll") == [after(seconds=10), after(seconds=3620)]


async def test_pausing_twice_and_resuming_what_runs_changes_nothing() -> None:
    app = App()

    @app.every("10s", name="poll")
    async def poll() -> None: ...

    async with app.testing() as t:
        await t.advance("5s")
        await app.schedules["poll"].resume()
        await t.advance("5s")
        await app.schedules["poll"].pause()
        await app.schedules["poll"].pause()
        await t.advance("10s")

        assert t.fires("poll") == [after(seconds=10)]


async def test_a_job_that_has_ended_a_moment_ago_is_in_nobodys_way() -> None:
    app = App(workers=1)
    answers: list[object] = []

    @app.every("1h", name="poll")
    async def poll() -> None: ...

    @app.task()
    async def again() -> None:
        answers.append(await app.schedules["poll"].run_now())

    async with app.testing() as t:
        await app.schedules["poll"].run_now()
        await app.enqueue(again)
        await t.advance(0)

        assert [job.task for job in t.jobs] == [app.tasks["poll"].name, again.name, app.tasks["poll"].name]
        assert answers
        assert None not in answers  # what "skip" would have made of it


async def test_an_end_that_is_being_written_is_written_once(caplog: pytest.LogCaptureFixture) -> None:
    app = App(workers=2)

    @app.every("1h", name="poll", overlap="allow")
    async def poll(ctx: Context) -> None:
        ctx.progress(1)

    @app.task()
    async def again() -> None:
        for _ in range(50):
            await app.schedules["poll"].run_now()
            await asyncio.sleep(0)

    async with app.testing() as t:
        await app.enqueue(again)
        await t.advance(0)

        assert {job.state for job in t.jobs} == {JobState.SUCCEEDED}
        assert len(t.jobs) == 51
    assert caplog.messages == []


async def test_jobs_begin_in_their_order_while_others_have_their_turns() -> None:
    app, turns = App(workers=3), list[int]()
    begun: list[int] = []

    @app.task()
    async def work(number: int) -> None:
        begun.append(number)

    async def look() -> None:
        while len(begun) < 1000:
            turns.append(len(begun))
            await asyncio.sleep(0)

    async with app.testing() as t:
        for number in range(1000):
            await app.enqueue(work, number)
        looking = asyncio.ensure_future(look())
        await t.advance(0)
        await looking

    assert begun == list(range(1000))
    assert len(set(turns)) > 10


async def test_run_now_makes_a_job_beside_the_fire_times(caplog: pytest.LogCaptureFixture) -> None:
    app = App()

    @app.every("10s", name="poll")
    async def poll() -> int:
        await asyncio.sleep(3)
        return 7

    async with app.testing() as t:
        await t.advance("1s")
        job = await app.schedules["poll"].run_now()
        assert job is not None
        assert await app.schedules["poll"].run_now() is None
        assert caplog.messages[-1] == f"schedule poll not run: its last job {job.id} is not finished"
        await t.advance("9s")

        assert await job == 7
        assert (await job.record()).fire_time is None
        assert t.fires("poll") == [after(seconds=10)]


async def test_schedules_come_and_go_while_the_app_runs() -> None:
    app = App()

    @app.every("10s", name="poll")
    async def poll() -> None: ...

    async with app.testing() as t:
        task = app.tasks["poll"]
        await t.advance("15s")
        added = await app.schedules.add(task, Every("4s"), name="more")
        with pytest.raises(DuplicateName):
            await app.schedules.add(task, Every("4s"), name="more")
        await t.advance("9s")
        assert added.next() == [after(seconds=28)]
        assert t.fires("more") == [after(seconds=16), after(seconds=20), after(seconds=24)]

        await app.schedules.remove("more")
        assert list(app.schedules) == ["poll"]
        with pytest.raises(UnknownSchedule):
            await app.schedules.remove("more")
        await t.advance("6s")
        assert [job.schedule for job in t.jobs if job.run_at > after(seconds=24)] == ["poll"]

        again = await app.schedules.add(task, Every("5s"), name="more", first="now")
        await t.advance("5s")
        assert t.fires("more") == [after(seconds=30), after(seconds=35)]
        assert again.next(2) == [after(seconds=40), after(seconds=45)]


async def test_next_tells_the_coming_fire_times() -> None:
    app = App(timezone="Asia/Seoul")

    @app.cron("0 9 * * mon-fri", name="work")
    @app.at("2026-01-02T00:00Z", name="once")
    async def work() -> None: ...

    async with app.testing(tz="UTC") as t:
        assert app.schedules["work"].next(3) == [after(days=1), after(days=4), after(days=5)]
        assert app.schedules["once"].next(3) == [after(days=1)]
        await t.advance("1d")
        assert app.schedules["once"].next() == []


async def test_first_now_runs_at_the_start_and_then_on_the_grid() -> None:
    app = App()

    @app.every("1h", name="poll", first="now")
    async def poll() -> None: ...

    async with app.testing(start="2026-01-01T00:20") as t:
        await t.advance("1h")

        assert t.fires("poll") == [after(minutes=20), after(minutes=60)]


async def test_first_now_does_not_run_after_the_end() -> None:
    app = App()

    @app.every("1h", name="poll", first="now", end_at="2025-12-31T00:00Z")
    async def poll() -> None: ...

    async with app.testing() as t:
        await t.advance("2h")

        assert t.jobs == []


async def test_a_pause_of_a_finished_schedule_answers_nothing() -> None:
    app = App()

    @app.every("10s", name="poll", max_runs=1)
    async def poll() -> None: ...

    async with app.testing() as t:
        poll_ = app.schedules["poll"]
        await t.advance("15s")
        await poll_.pause()
        await t.advance("20s")
        assert len(await poll_.history()) == 1
        await poll_.resume()
        await t.advance("20s")

        assert rows(await poll_.history()) == [("ran", after(seconds=10), after(seconds=10), 1)]


async def test_an_instant_in_the_past_never_runs_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    app = App()

    @app.at("2025-12-31T23:00Z", name="late")
    async def late() -> None: ...

    async with app.testing() as t:
        await t.advance("1d")

        assert t.jobs == []
        assert (
            "schedule late will not run: At('2025-12-31T23:00:00+00:00') has no fire time after now" in caplog.messages
        )


# --- lateness and clocks that jump -----------------------------------------------------------------------------


def announced(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.message.startswith("the clock")]


async def poll_after(disturb: Callable[[Testing], None]) -> tuple[list[datetime], list[Any], list[datetime]]:
    """Run a schedule of every minute, with a disturbance after ten and a half."""
    app = App()
    seen: list[datetime] = []

    @app.every("1m", name="poll")
    async def poll() -> None:
        seen.append(t.now)

    async with app.testing() as t:
        await t.advance("10m30s")
        disturb(t)
        await t.advance("1m")
        return t.fires("poll"), rows(await app.schedules["poll"].history())[10:], seen[10:]


MISSED = [
    ("missed", after(minutes=11), after(minutes=69), 59),
    ("ran", after(minutes=70), after(minutes=70), 1),
    ("ran", after(minutes=71), after(minutes=71), 1),
]


async def test_after_a_blocked_hour_the_latest_fire_time_runs_once(caplog: pytest.LogCaptureFixture) -> None:
    fires, history, seen = await poll_after(lambda t: t.clock.block("1h"))

    assert fires[10:] == [after(minutes=70), after(minutes=71)]
    assert history == MISSED
    assert seen == [after(minutes=70, seconds=30), after(minutes=71)]
    assert announced(caplog) == []
    assert (
        "schedule poll: 59 fire times passed while nothing could run, from 2026-01-01T00:11:00+00:00 on; "
        "the latest, 2026-01-01T01:10:00+00:00, runs now" in caplog.messages
    )


async def test_after_an_hour_asleep_the_latest_fire_time_runs_once(caplog: pytest.LogCaptureFixture) -> None:
    _, history, seen = await poll_after(lambda t: t.clock.suspend("1h"))

    assert history == MISSED
    assert seen == [after(minutes=70, seconds=30), after(minutes=71)]
    assert announced(caplog) == ["the clock went forwards by 1h, set or asleep; what fell due is answered now"]


async def test_after_a_jump_forwards_nothing_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    _, history, _ = await poll_after(lambda t: t.clock.jump_wall(3600))

    assert history == MISSED
    assert len(announced(caplog)) == 1


async def test_after_a_jump_back_nothing_runs_twice(caplog: pytest.LogCaptureFixture) -> None:
    app = App()

    @app.every("1m", name="poll")
    async def poll() -> None: ...

    async with app.testing() as t:
        await t.advance("10m30s")
        t.clock.jump_wall(-300)
        assert t.now == after(minutes=5, seconds=30)
        await t.advance("5m")
        assert len(t.fires("poll")) == 10
        await t.advance("1m")

        assert t.fires("poll") == [after(minutes=n) for n in range(1, 12)]
        assert t.now == after(minutes=11, seconds=30)
        (said,) = announced(caplog)
        assert said == (
            "the clock was set back by 5m; no fire time is answered twice, so schedules go on when it has come "
            "as far again"
        )


async def test_small_corrections_of_the_clock_are_not_worth_a_word(caplog: pytest.LogCaptureFixture) -> None:
    fires, _, _ = await poll_after(lambda t: t.clock.jump_wall(-0.25))

    assert fires == [after(minutes=n) for n in range(1, 12)]
    assert announced(caplog) == []


async def test_a_clock_that_jumps_while_nothing_is_planned_is_not_worth_a_word_either(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = App()

    @app.task(name="work")
    async def work() -> None: ...

    async with app.testing() as t:
        await t.advance("1s")
        t.clock.jump_wall(3600)
        await app.schedules.add(app.tasks["work"], Every("1m"), name="poll")
        await t.advance("1m")

        assert t.fires("poll") == [after(minutes=61)]
        assert announced(caplog) == []


@pytest.mark.parametrize("jump", [3600, -3600])
async def test_a_delayed_job_follows_the_wall_clock(jump: int) -> None:
    app = App()

    @app.task(name="later")
    async def later() -> datetime:
        return t.now

    async with app.testing() as t:
        job = await app.tasks["later"].options(delay="2h").enqueue()
        t.clock.jump_wall(jump)
        await t.advance(timedelta(hours=2, seconds=-jump - 1))
        assert (await job.record()).state is JobState.SCHEDULED
        await t.advance("1s")

        assert await job == after(hours=2)


async def test_a_cron_job_and_an_hour_repeated_by_hand() -> None:
    app = App()

    @app.schedule(Cron("30 * * * *") | At("2026-01-01T01:45Z"), name="union")
    async def union() -> None: ...

    async with app.testing() as t:
        await t.advance("2h")
        t.clock.jump_wall(-3600)
        await t.advance("2h")

        assert t.fires("union") == [after(hours=0.5), after(hours=1.5), after(hours=1.75), after(hours=2.5)]


# --- other loops, other speeds -----------------------------------------------------------------------------------


async def test_a_schedule_as_fast_as_the_loop_leaves_turns_to_others() -> None:
    app = App()

    @app.every("1ms", name="fast", overlap="allow")
    async def fast() -> None: ...

    async with app.testing() as t:
        await t.advance("250ms")

        assert len(t.fires("fast")) == 250


async def test_resuming_asks_a_trigger_anew_also_one_that_was_finished() -> None:
    app, trigger = App(), Failing()
    trigger.instead = At("2026-01-01T00:01:00Z").next

    @app.schedule(trigger, name="once")
    async def once() -> None: ...

    def raises(after: datetime) -> datetime | None:
        raise SystemExit(1)

    async with app.testing() as t:
        await t.advance("2m")
        assert t.fires("once") == [after(minutes=1)]
        trigger.instead = raises
        await app.schedules["once"].resume()

        assert isinstance(app.schedules["once"].error, SystemExit)


# --- ahead of a fire time, on a clock that tells to ------------------------------------------------------------------


class AheadClock(VirtualClock):
    ahead_seconds = 0.03


class Asked(Trigger):
    """Every ten seconds; notes when it is asked, and raises while it is told to."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.asked: list[datetime] = []
        self.error: Exception | None = None

    def next(self, after: datetime) -> datetime | None:
        self.asked.append(self.clock.now())
        if self.error is not None:
            raise self.error
        return Every("10s").next(after)

    @property
    def fingerprint(self) -> str:
        return "asked"


def run_ahead(act: Callable[[App, Asked, list[datetime]], Coroutine[Any, Any, None]]) -> None:
    """Call `act` some milliseconds before the second fire time of a schedule "s", whose jobs note when they begin."""
    clock = AheadClock(autojump=True)

    async def run() -> None:
        app = App(clock=clock)
        trigger, begun = Asked(clock), list[datetime]()

        @app.schedule(trigger, name="s")
        async def work() -> None:
            begun.append(clock.now())

        async with app:
            await asyncio.sleep(19.98)
            await act(app, trigger, begun)

    with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner:
        runner.run(run())


def test_what_falls_due_is_decided_a_moment_before_and_fired_when_the_time_has_come() -> None:
    async def act(app: App, trigger: Asked, begun: list[datetime]) -> None:
        assert trigger.asked[-1] == after(seconds=19.97)
        asked = len(trigger.asked)
        await asyncio.sleep(5)
        assert len(trigger.asked) == asked
        assert begun == [after(seconds=10), after(seconds=20)]
        assert rows(await app.schedules["s"].history()) == [("ran", at, at, 1) for at in begun]

    run_ahead(act)


def test_a_trigger_that_raises_ahead_of_a_fire_time_is_told_when_that_has_come(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def act(app: App, trigger: Asked, begun: list[datetime]) -> None:
        await asyncio.sleep(9.97)
        trigger.error = ValueError("no")
        asked = len(trigger.asked)
        await asyncio.sleep(0.04)
        assert len(trigger.asked) == asked + 1
        assert not caplog.records
        trigger.error = None
        await asyncio.sleep(0.02)
        assert begun[-1] == after(seconds=30)
        await asyncio.sleep(9.9)
        trigger.error = ValueError("no")
        await asyncio.sleep(0.2)
        assert [record.message for record in caplog.records] == [
            "the trigger of schedule s raised, so it stops; resume() tries it again"
        ]

    run_ahead(act)


def test_what_changes_after_it_was_decided_counts() -> None:
    async def pause(app: App, trigger: Asked, begun: list[datetime]) -> None:
        await app.schedules["s"].pause()
        await asyncio.sleep(0.01)
        await app.schedules["s"].resume()
        await asyncio.sleep(15)
        assert begun == [after(seconds=10), after(seconds=20), after(seconds=30)]

    async def stay_paused(app: App, trigger: Asked, begun: list[datetime]) -> None:
        await app.schedules["s"].pause()
        await asyncio.sleep(15)
        assert begun == [after(seconds=10)]

    async def remove(app: App, trigger: Asked, begun: list[datetime]) -> None:
        await app.schedules.remove("s")
        await asyncio.sleep(15)
        assert begun == [after(seconds=10)]

    for act in (pause, stay_paused, remove):
        run_ahead(act)


def test_a_decision_ahead_that_came_too_late_is_made_anew() -> None:
    async def act(app: App, trigger: Asked, begun: list[datetime]) -> None:
        trigger.clock.jump_wall(35)
        await asyncio.sleep(0.1)
        assert rows(await app.schedules["s"].history()) == [
            ("ran", after(seconds=10), after(seconds=10), 1),
            ("missed", after(seconds=20), after(seconds=40), 3),
            ("ran", after(seconds=50), after(seconds=50), 1),
        ]

    run_ahead(act)


def test_a_job_that_begins_after_it_was_decided_is_in_the_way() -> None:
    clock = AheadClock(autojump=True)

    async def run() -> None:
        app = App(clock=clock)

        @app.every("10s", name="held")
        async def hold() -> None:
            await asyncio.sleep(5)

        async with app:
            await asyncio.sleep(19.98)
            await app.schedules["held"].run_now()
            await asyncio.sleep(1)
            assert rows(await app.schedules["held"].history()) == [
                ("ran", after(seconds=10), after(seconds=10), 1),
                ("skipped", after(seconds=20), after(seconds=20), 1),
            ]

    with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner:
        runner.run(run())


def test_what_was_ready_says_when_it_came_true() -> None:
    async def act(app: App, trigger: Asked, begun: list[datetime]) -> None:
        trigger.clock.jump_wall(-5)
        await asyncio.sleep(1)
        assert begun == [after(seconds=10)]
        await asyncio.sleep(5)
        answer = (await app.schedules["s"].history(1))[0]
        assert answer.job_id is not None
        record = await (await app.job(answer.job_id)).record()
        assert begun[1:] == [answer.first] == [answer.answered_at] == [record.enqueued_at] == [after(seconds=20)]

    run_ahead(act)


def test_what_is_ready_when_the_app_stops_does_not_begin() -> None:
    async def act(app: App, trigger: Asked, begun: list[datetime]) -> None:
        await app.stop()
        await asyncio.sleep(15)
        assert begun == [after(seconds=10)]

    run_ahead(act)


def test_no_more_jobs_run_at_once_than_there_are_workers_however_many_were_ready() -> None:
    clock = AheadClock(autojump=True)
    running, most, ended = 0, 0, 0

    async def run() -> None:
        app = App(clock=clock, workers=3)

        @app.task()
        async def work() -> None:
            nonlocal running, most, ended
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.01)
            running -= 1
            ended += 1

        for number in range(100):
            app.schedule(Every("10s"), name=f"s{number}")(work)
        async with app:
            await asyncio.sleep(15)

    with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner:
        runner.run(run())
    assert (most, ended) == (3, 100)
