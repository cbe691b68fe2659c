"""Virtual time: the clock, the loop on it, and an app under test."""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import logging
import os
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import tickwork
from tickwork import App, Every, JobState, Pool, Retry
from tickwork.errors import (
    InvalidDuration,
    InvalidInstant,
    InvalidOption,
    JobFailed,
    JobTimedOut,
    NotRunning,
    UnknownSchedule,
    UnknownTimezone,
    VirtualTimeError,
)
from tickwork.stores.memory import MemoryStore
from tickwork.testing import VirtualClock, VirtualLoop, outside, virtual_loop_factory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from tickwork.stores.base import Fired, Firing, Store
    from tickwork.testing import Testing

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def anyio_backend(virtual_backend: Any) -> Any:
    return virtual_backend


def virtual_clock() -> VirtualClock:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop.clock


@tickwork.task(name="in_process", run_in="process")
def in_process() -> int:
    time.sleep(0.05)
    return os.getpid()


# --- the loop ----------------------------------------------------------------------------------------------------


async def test_timers_run_in_order_each_at_its_instant() -> None:
    clock = virtual_clock()
    loop = asyncio.get_running_loop()
    seen: list[tuple[str, timedelta]] = []
    begin = clock.now()

    def note(what: str) -> None:
        seen.append((what, clock.now() - begin))

    async def sleeper() -> None:
        await asyncio.sleep(2.5)
        note("sleep")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.25):
                await asyncio.Event().wait()
        note("timeout")
        with anyio.move_on_after(0.25):
            await anyio.sleep_forever()
        note("anyio")

    loop.call_later(3600, note, "hour")
    loop.call_later(0.000001, note, "microsecond")
    loop.call_later(2.7, note, "call_later").cancel()
    task = asyncio.create_task(sleeper())
    await clock.advance("1h")
    await task

    assert seen == [
        ("microsecond", timedelta(microseconds=1)),
        ("sleep", timedelta(seconds=2.5)),
        ("timeout", timedelta(seconds=2.75)),
        ("anyio", timedelta(seconds=3)),
        ("hour", timedelta(hours=1)),
    ]


async def test_time_stands_still_unless_it_is_moved() -> None:
    clock = virtual_clock()
    sleeper = asyncio.create_task(asyncio.sleep(0.001))
    before = clock.now()

    await asyncio.to_thread(time.sleep, 0.02)

    assert not sleeper.done()
    assert clock.now() == before
    await clock.advance(0.001)
    assert sleeper.done()


async def test_the_clock_stays_exact_over_years_of_odd_steps() -> None:
    clock = virtual_clock()
    begin = clock.now()
    step = timedelta(seconds=86_399, microseconds=999_999)
    seen = []

    async def walk() -> None:
        for _ in range(2_000):
            await asyncio.sleep(step.total_seconds())
            seen.append(clock.now())

    task = asyncio.create_task(walk())
    await clock.advance(step * 2_000)

    assert task.done()
    assert seen == [begin + step * n for n in range(1, 2_001)]


async def test_advancing_waits_for_threads() -> None:
    clock = virtual_clock()
    seen: list[str] = []

    async def work() -> None:
        try:
            async with asyncio.timeout(1):
                await asyncio.to_thread(time.sleep, 0.05)
            seen.append("ended")
        except TimeoutError:
            seen.append("timed out")

    task = asyncio.create_task(work())
    await clock.advance("1d")
    await task

    assert seen == ["ended"]


async def test_advancing_waits_for_what_is_said_to_be_outside() -> None:
    clock = virtual_clock()
    begin = clock.now()
    ready = asyncio.Event()
    threading.Timer(0.05, asyncio.get_running_loop().call_soon_threadsafe, [ready.set]).start()

    async def work() -> datetime:
        with outside():
            await ready.wait()
        return clock.now()

    task = asyncio.create_task(work())
    await clock.advance("1d")

    assert await task == begin


async def test_sockets_work_as_ever() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"hello\n")
        assert await reader.read() == b"hello\n"
        writer.close()
        await writer.wait_closed()


async def test_a_cancelled_advance_stops_where_it_is() -> None:
    clock = virtual_clock()
    begin = clock.now()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(10):
            await clock.advance("1h")

    assert clock.now() == begin + timedelta(seconds=10)
    await clock.advance(0)


async def test_two_cannot_move_the_time_at_once() -> None:
    clock = virtual_clock()
    first = asyncio.create_task(clock.advance("1h"))
    await asyncio.sleep(0)

    with pytest.raises(VirtualTimeError) as raised:
        await clock.advance("1h")

    assert str(raised.value) == "the time is being moved already; await one advance() after the other"
    await first


@pytest.mark.parametrize("duration", ["-1s", -1, "soon"])
async def test_time_does_not_go_back(duration: Any) -> None:
    with pytest.raises(InvalidDuration):
        await virtual_clock().advance(duration)


async def test_a_blocked_loop_runs_its_timers_late() -> None:
    clock = virtual_clock()
    begin = clock.now()
    seen: list[datetime] = []
    asyncio.get_running_loop().call_later(1, lambda: seen.append(clock.now()))

    clock.block("1m")
    await clock.advance(0)

    assert seen == [begin + timedelta(minutes=1)]


async def test_a_clock_drives_one_loop() -> None:
    with pytest.raises(InvalidOption):
        VirtualLoop(virtual_clock())


def run(main: Callable[[], Awaitable[Any]], factory: Callable[[], asyncio.AbstractEventLoop]) -> Any:
    async def wrapped() -> Any:
        return await main()

    with asyncio.Runner(loop_factory=factory, debug=True) as runner:
        return runner.run(wrapped())


def test_with_autojump_time_goes_on_by_itself() -> None:
    async def main() -> None:
        clock = virtual_clock()
        began = time.monotonic()
        await asyncio.sleep(3600)
        assert clock.now() == START + timedelta(hours=1)

        async with asyncio.timeout(60):  # a thread is not jumped over
            await asyncio.to_thread(time.sleep, 0.02)
        assert clock.now() == START + timedelta(hours=1)
        assert time.monotonic() - began < 5

    run(main, lambda: virtual_loop_factory(autojump=True))


def test_a_test_that_waits_for_ever_is_told_why(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tickwork.testing.STALL_SECONDS", 0.01)

    busy = "virtual time waits for 1 threads or processes"
    still = "virtual time stands still, and the next timer is due in 1m30s; await advance(), or use autojump"

    def until_told(text: str) -> None:
        deadline = time.monotonic() + 30
        while text not in caplog.messages and time.monotonic() < deadline:
            time.sleep(0.01)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        sleeper = asyncio.create_task(asyncio.sleep(90))
        await asyncio.to_thread(until_told, busy)
        ready = asyncio.Event()

        def release() -> None:
            until_told(still)
            loop.call_soon_threadsafe(ready.set)

        threading.Thread(target=release).start()
        await ready.wait()
        sleeper.cancel()

    run(main, virtual_loop_factory)

    assert busy in caplog.messages
    assert still in caplog.messages


# --- where a block begins and ends -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "tz", "shown"),
    [
        (None, None, "2026-01-01 09:00:00+09:00"),
        (None, "UTC", "2026-01-01 00:00:00+00:00"),
        ("2026-03-29T01:30", "Europe/Berlin", "2026-03-29 01:30:00+01:00"),
        ("2026-03-29", None, "2026-03-29 00:00:00+09:00"),
        ("2026-03-29T01:30+00:00", "Europe/Berlin", "2026-03-29 03:30:00+02:00"),
        (datetime(2026, 3, 29, 12), None, "2026-03-29 12:00:00+09:00"),  # noqa: DTZ001 - that is the point
        (START, "Europe/Berlin", "2026-01-01 01:00:00+01:00"),
    ],
)
async def test_a_block_begins_at_the_given_wall_time(start: Any, tz: str | None, shown: str) -> None:
    app = App(timezone="Asia/Seoul")

    async with app.testing(start, tz=tz) as t:
        assert str(t.now) == shown
        assert t.drives_loop


@pytest.mark.parametrize("start", ["2026-03-29T02:30", "yesterday", 5])
def test_a_time_that_is_none_is_refused(start: Any) -> None:
    with pytest.raises(InvalidInstant):
        App().testing(start, tz="Europe/Berlin")


def test_an_unknown_zone_is_refused() -> None:
    with pytest.raises(UnknownTimezone):
        App().testing(tz="Europe/Berlni")


async def test_the_clock_shows_exactly_where_it_was_moved_to() -> None:
    async with App().testing("2026-03-29", tz="Europe/Berlin") as t:
        await t.advance("1d")
        assert str(t.now) == "2026-03-30 01:00:00+02:00"
        await t.advance_to("2026-03-30T05:00")
        assert str(t.now) == "2026-03-30 05:00:00+02:00"
        await t.advance_to(t.now)
        with pytest.raises(InvalidInstant) as raised:
            await t.advance_to("2026-03-30T04:59")

    assert str(raised.value) == (
        "when must be an instant not before 2026-03-30 05:00:00+02:00, got '2026-03-30T04:59'; "
        "clock.jump_wall() sets the clock back"
    )


async def test_afterwards_the_app_has_its_own_clock_and_can_be_tested_again() -> None:
    app = App()
    clock, hears = app._clock, app._on_attempt_failed

    for _ in range(2):
        async with app.testing() as t:
            assert t.now == START
            assert app._clock is t.clock
            await t.advance("1d")
        assert app._clock is clock
        assert app._on_attempt_failed == hears
        assert not app.is_running


async def test_an_app_that_has_started_cannot_be_tested() -> None:
    async with App() as app:
        with pytest.raises(NotRunning, match=r"app.testing\(\) starts it itself"):
            await app.testing().__aenter__()
        assert app.is_running


async def test_a_start_that_fails_leaves_the_app_as_it_was() -> None:
    app = App()
    clock = app._clock

    @app.on_start
    def broken() -> None:
        raise OSError("no database")

    with pytest.raises(OSError, match="no database"):
        async with app.testing():
            raise AssertionError

    assert app._clock is clock
    assert app._testing is None


async def test_two_apps_share_the_clock_of_the_loop() -> None:
    one, two = App(), App()

    async with one.testing("2026-05-01") as t, two.testing() as u:
        await t.advance("1h")

        assert u.now == t.now == datetime(2026, 5, 1, 1, tzinfo=UTC)
        with pytest.raises(InvalidOption, match="another app is under test"):
            await App().testing("2026-06-01").__aenter__()


async def test_leaving_a_block_gives_running_jobs_their_drain_in_virtual_time() -> None:
    app = App(drain_seconds=10)
    ended: list[str] = []

    @app.task(name="work")
    async def work(seconds: float) -> None:
        try:
            await asyncio.sleep(seconds)
            ended.append("slept")
        except asyncio.CancelledError:
            ended.append(f"cut at {t.now - START}")
            raise

    began = time.monotonic()
    async with app.testing() as t:
        await work.enqueue(9.0)
        await work.enqueue(3600.0)
        await t.advance(0)

    assert ended == ["slept", "cut at 0:00:10"]
    assert time.monotonic() - began < 5


async def test_a_test_that_fails_leaves_at_once_with_its_own_error() -> None:
    app = App()
    ended: list[timedelta] = []

    @app.task(name="work")
    async def work() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(t.now - START)
            raise ValueError("of the job")

    with pytest.raises(AssertionError, match="of the test"):
        async with app.testing() as t:
            await app.enqueue(work)
            await t.advance(0)
            raise AssertionError("of the test")

    assert ended == [timedelta()]


async def test_the_lifespan_of_the_app_is_used() -> None:
    seen: list[str] = []

    async def lifespan(_: App) -> AsyncIterator[str]:
        seen.append("open")
        yield "state"
        seen.append("closed")

    app = App(lifespan=lifespan)
    async with app.testing() as t:
        await t.advance("1h")
    assert seen == ["open", "closed"]


# --- jobs --------------------------------------------------------------------------------------------------------


async def test_jobs_are_listed_as_they_were_made() -> None:
    app = App()

    @app.every("10s", name="poll")
    async def poll() -> None: ...

    @app.task(name="later")
    async def later() -> None: ...

    async with app.testing() as t:
        await app.tasks["later"].options(delay="1h").enqueue()
        await t.advance("20s")

        assert [(job.task, job.state) for job in t.jobs] == [
            ("later", JobState.SCHEDULED),
            ("poll", JobState.SUCCEEDED),
            ("poll", JobState.SUCCEEDED),
        ]
        with pytest.raises(UnknownSchedule):
            t.fires("pol")
    assert len(t.fires("poll")) == 2  # also afterwards


async def test_run_next_returns_what_the_next_job_of_a_schedule_gives() -> None:
    app = App()

    @app.cron("0 5 * * *", name="daily")
    async def daily() -> str:
        await asyncio.sleep(60)
        return str(t.now)

    async with app.testing() as t:
        assert await t.run_next("daily") == "2026-01-01 05:01:00+00:00"
        assert await t.run_next("daily") == "2026-01-02 05:01:00+00:00"
        assert t.now == START + timedelta(days=1, hours=5, minutes=1)
        with pytest.raises(UnknownSchedule):
            await t.run_next("dayly")


async def test_run_next_raises_what_the_job_raises_once() -> None:
    app = App()

    @app.every("1h", name="bad")
    async def bad() -> None:
        raise KeyError("missing")

    async with app.testing() as t:
        for _ in range(2):
            with pytest.raises(KeyError, match="missing"):
                await t.run_next("bad")
        await t.drain()


async def test_run_next_says_why_nothing_ran() -> None:
    app = App()

    @app.every("1h", name="long")
    @app.every("1h", name="paused")
    async def work() -> None:
        await asyncio.sleep(5400)

    async with app.testing() as t:
        await app.schedules["paused"].pause()
        with pytest.raises(VirtualTimeError) as raised:
            await t.run_next("paused")
        assert str(raised.value) == "schedule 'paused' has no next fire time: it is paused, finished or broken"

        await t.advance("1h")
        with pytest.raises(VirtualTimeError) as raised:
            await t.run_next("long")
        assert str(raised.value) == (
            "schedule 'long' made no job at 2026-01-01 02:00:00+00:00: its last one has not ended"
        )
        await t.drain()


async def test_drain_runs_what_is_queued_and_leaves_what_is_for_later() -> None:
    app = App(workers=2)
    done: list[int] = []

    @app.task(name="work")
    async def work(number: int) -> None:
        await asyncio.sleep(10)
        done.append(number)

    async with app.testing() as t:
        for number in range(5):
            await work.enqueue(number)
        later = await app.tasks["work"].options(delay="1h").enqueue(99)
        await t.drain()

        assert sorted(done) == [0, 1, 2, 3, 4]
        assert t.now == START + timedelta(seconds=30)
        assert (await later.record()).state is JobState.SCHEDULED
        await t.drain()
        assert t.now == START + timedelta(seconds=30)


async def test_a_timeout_of_a_job_strikes_in_virtual_time() -> None:
    app = App()

    @app.task(name="slow", timeout="1h")
    async def slow() -> None:
        await asyncio.Event().wait()

    async with app.testing() as t:
        job = await app.tasks["slow"].enqueue()
        await t.advance("59m59s")
        assert (await job.record()).state is JobState.RUNNING
        with pytest.raises(JobTimedOut):
            await t.advance("1s")


async def test_jobs_in_threads_are_not_jumped_over() -> None:
    app = App()

    @app.every("1h", name="threaded", timeout="10s")
    def threaded() -> datetime:
        time.sleep(0.02)
        return t.now

    async with app.testing() as t:
        await t.advance("5h")

        assert [job.state for job in t.jobs] == [JobState.SUCCEEDED] * 5
        assert await t.run_next("threaded") == START + timedelta(hours=6)


async def test_jobs_in_processes_are_not_jumped_over() -> None:
    app = App(tasks=[in_process])

    async with app.testing() as t:
        await app.schedules.add(in_process, Every("1h"), name="p")
        await t.advance("2h")

        assert [job.state for job in t.jobs] == [JobState.SUCCEEDED] * 2
        assert await t.run_next("p") != os.getpid()


async def test_a_pool_is_not_jumped_over_either() -> None:
    async with Pool() as pool:
        job = await pool.options(timeout=1).submit(time.sleep, 0.02)
        await virtual_clock().advance("1h")

        await job


async def test_without_waiting_the_timeout_of_a_thread_strikes() -> None:
    app = App()
    release = threading.Event()

    @app.task(name="stuck", timeout="30s")
    def stuck() -> None:
        release.wait(10)

    async with app.testing() as t:
        job = await app.tasks["stuck"].enqueue()
        waiting = asyncio.create_task(job.result())
        await t.advance("31s", wait=False)
        with pytest.raises(JobTimedOut):
            await waiting
        release.set()


# --- errors ------------------------------------------------------------------------------------------------------


def failing_app() -> App:
    app = App()

    @app.task(name="fail")
    async def fail(text: str) -> None:
        raise ValueError(text)

    return app


async def test_an_error_that_nobody_awaited_is_raised_by_advance_and_drain() -> None:
    app = failing_app()

    async with app.testing() as t:
        fail = app.tasks["fail"]
        job = await fail.enqueue("one")
        with pytest.raises(ValueError, match="one") as raised:
            await t.advance("1h")
        assert raised.value.__notes__ == [f"raised by job {job.id} of task fail"]
        assert t.now == START + timedelta(hours=1)

        await fail.enqueue("two")
        with pytest.raises(ValueError, match="two"):
            await t.drain()
        await t.advance("1h")


async def test_several_errors_are_raised_as_a_group() -> None:
    app = failing_app()

    async with app.testing() as t:
        await app.tasks["fail"].enqueue("one")
        await app.tasks["fail"].enqueue("two")
        with pytest.raises(ExceptionGroup) as raised:
            await t.drain()

    assert [str(error) for error in raised.value.exceptions] == ["one", "two"]


async def test_leaving_the_block_raises_what_is_left() -> None:
    app = failing_app()

    with pytest.raises(ValueError, match="at last"):
        async with app.testing():
            await app.tasks["fail"].enqueue("at last")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
    assert not app.is_running


async def test_an_error_that_the_test_awaits_is_its_own_matter() -> None:
    app = failing_app()

    async with app.testing() as t:
        job = await app.tasks["fail"].enqueue("known")
        with pytest.raises(JobFailed) as raised:
            await job.result()
        assert isinstance(raised.value.__cause__, ValueError)

        job = await app.tasks["fail"].enqueue("known")
        waiting = asyncio.create_task(job.result())
        await t.advance("1h")
        with pytest.raises(JobFailed):
            await waiting


async def test_errors_stay_in_the_jobs_where_that_is_asked_for() -> None:
    app = failing_app()

    async with app.testing(raise_errors=False) as t:
        await app.tasks["fail"].enqueue("kept")
        await t.drain()

        assert [job.state for job in t.jobs] == [JobState.FAILED]


async def test_the_error_of_a_job_that_the_test_has_deleted_is_forgotten_with_it() -> None:
    app = App()

    @app.task(retry=Retry(2, delay="1h"))
    async def bad() -> None:
        raise ValueError

    async with app.testing() as t:
        job = await bad.enqueue()
        await t.advance("1s")
        await app.jobs.delete(job.id)
        await t.advance("2h")
        assert t.jobs == []


async def test_a_cancelled_job_is_no_error() -> None:
    app = App()

    @app.task(name="work")
    async def work() -> None:
        await asyncio.sleep(10)

    async with app.testing() as t:
        job = await app.tasks["work"].enqueue()
        await t.advance("1s")
        assert await job.cancel()
        await t.advance("1s")

        assert [record.state for record in t.jobs] == [JobState.CANCELLED]


async def test_the_end_of_the_scheduler_itself_is_raised() -> None:
    class Forgetful(MemoryStore):
        async def fire(self, firings: Sequence[Firing]) -> list[Fired]:
            return []

    class ForgetfulApp(App):
        def _make_store(self) -> Store:
            return Forgetful(self._clock)

    app = ForgetfulApp()

    @app.every("1m", name="poll")
    async def poll() -> None: ...

    with pytest.raises(ValueError, match="shorter"):
        async with app.testing() as t:
            await t.advance("1m")


t: Testing
"""The block under test, for jobs that are defined outside of it."""


# --- other loops -------------------------------------------------------------------------------------------------


def foreign_loops() -> list[Any]:
    loops: list[Any] = [asyncio.new_event_loop]
    if importlib.util.find_spec("uvloop"):
        import uvloop

        loops.append(uvloop.new_event_loop)
    return loops


@pytest.mark.parametrize("factory", foreign_loops())
def test_under_another_loop_the_timers_of_tickwork_are_virtual(factory: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tickwork.testing")
    app = App(timezone="Europe/Berlin")
    seen: list[datetime] = []

    @app.cron("30 2 * * *", name="daily")
    async def daily() -> int:
        seen.append(t.now)
        await asyncio.sleep(0)
        return 7

    @app.every("12h", name="threaded", timeout="1h")
    def threaded() -> None:
        time.sleep(0.02)

    @app.task(name="slow")
    async def slow() -> None:
        await asyncio.sleep(0.02)

    @app.task(name="stuck", timeout="1h")
    async def stuck() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        global t
        async with app.testing("2026-03-28") as t:
            assert not t.drives_loop
            await t.advance("3d")
            assert t.now == datetime(2026, 3, 30, 23, tzinfo=UTC)
            assert seen == t.fires("daily")
            assert [str(at) for at in seen] == [
                "2026-03-28 02:30:00+01:00",
                "2026-03-29 03:00:00+02:00",
                "2026-03-30 02:30:00+02:00",
            ]
            assert {job.state for job in t.jobs} == {JobState.SUCCEEDED}

            assert await t.run_next("daily") == 7
            await app.tasks["slow"].enqueue()
            await t.drain()
            assert t.jobs[-1].state is JobState.SUCCEEDED
            later = await app.tasks["slow"].options(delay="1h").enqueue()
            t.clock.jump_wall(3600)
            await t.drain()
            await later
            await app.tasks["stuck"].enqueue()
            with pytest.raises(JobTimedOut):
                await t.advance("2h")

    run(main, factory)

    said = [record.message for record in caplog.records if record.name == "tickwork.testing"]
    assert said == ["this loop keeps its own time: only tickwork's timers are virtual; use virtual_loop_factory"]


@pytest.mark.parametrize("factory", foreign_loops())
def test_under_another_loop_a_stuck_job_is_cut_at_the_end(factory: Any) -> None:
    app = App(drain_seconds="50ms", cancel_seconds="50ms")

    @app.task(name="stuck")
    async def stuck() -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                continue

    async def main() -> None:
        async with app.testing() as t:
            await app.tasks["stuck"].enqueue()
            await t.advance("1s")

    run(main, factory)
    assert not app.is_running


# --- test runners, imports, other clocks -------------------------------------------------------------------------


def test_importing_it_does_not_import_a_test_runner() -> None:
    code = "import sys, tickwork.testing; sys.exit(any(name in sys.modules for name in ('pytest', 'anyio', '_pytest')))"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_it_works_under_pytest_asyncio(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        "from tickwork.testing import virtual_loop_factory\n"
        "def pytest_asyncio_loop_factories(config, item):\n"
        "    return {'virtual': virtual_loop_factory}\n"
    )
    (tmp_path / "test_it.py").write_text(
        "import asyncio\n"
        "from tickwork import App\n"
        "from tickwork.testing import Testing\n"
        "app = App()\n"
        "@app.every('1h', name='poll')\n"
        "async def poll() -> None: await asyncio.sleep(60)\n"
        "async def test_it() -> None:\n"
        "    async with app.testing() as t:\n"
        "        assert t.drives_loop\n"
        "        await t.advance('1d')\n"
        "        assert len(t.fires('poll')) == 24\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:anyio", "-o", "asyncio_mode=auto"]
    command += ["-o", "asyncio_default_fixture_loop_scope=function"]
    ended = subprocess.run(
        [*command, "-p", "no:randomly", "--rootdir", str(tmp_path), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )

    assert "1 passed" in ended.stdout, ended.stdout + ended.stderr


READS_TIME = {
    "time": {
        "time",
        "monotonic",
        "perf_counter",
        "process_time",
        "thread_time",
        "clock_gettime",
        "gmtime",
        "localtime",
    },
    "datetime": {"now", "utcnow", "today"},
    "date": {"today"},
}


def readings(source: str) -> list[str]:
    """Return where a module reads the time, as "line: call"."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            if node.attr.removesuffix("_ns") in READS_TIME.get(owner, ()):
                found.append(f"{node.lineno}: {owner}.{node.attr}")
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            names = [alias.name for alias in node.names if alias.name.removesuffix("_ns") in READS_TIME["time"]]
            found += [f"{node.lineno}: from time import {name}" for name in names]
    return found


def test_only_the_clock_reads_the_time() -> None:
    root = Path(tickwork.__file__).parent
    readers = {root / "clock.py", root / "elapsed.py"}  # the latter for durations in threads and child processes
    modules = [path for path in sorted(root.rglob("*.py")) if path not in readers]

    assert {str(path.relative_to(root)): found for path in modules if (found := readings(path.read_text()))} == {}


def test_readings_of_the_time_are_found() -> None:
    source = "import time\nfrom time import monotonic_ns\ntime.perf_counter()\ndt.datetime.now()\ntime.sleep(1)"

    assert readings(source) == ["2: from time import monotonic_ns", "3: time.perf_counter", "4: datetime.now"]
    assert readings((Path(tickwork.__file__).parent / "clock.py").read_text()) != []
