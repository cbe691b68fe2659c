"""What schedulers are known to get wrong: twelve cases, each of which loses, doubles or delays runs somewhere.

`bench/cases.py` runs the same ones against other libraries, and docs/peers.md has the table.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import pytest

from cli.command import Running
from tickwork import App, Every, JobState, Trigger
from tickwork.clock import MAX_SLEEP_SECONDS, Clock
from tickwork.stores.memory import MemoryStore
from tickwork.testing import VirtualClock, VirtualLoop

if TYPE_CHECKING:
    from pathlib import Path

    from tickwork.stores.base import Store

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def anyio_backend(virtual_backend: Any) -> Any:
    return virtual_backend


def after(**elapsed: float) -> datetime:
    return START + timedelta(**elapsed)


# --- days and weekdays ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zone", "change"),
    [
        ("America/New_York", date(2026, 3, 8)),
        ("America/New_York", date(2026, 11, 1)),
        ("Europe/Berlin", date(2025, 3, 30)),
        ("Australia/Lord_Howe", date(2026, 10, 4)),
        ("Antarctica/Troll", date(2025, 3, 30)),
        ("America/Havana", date(2026, 3, 8)),  # at midnight itself: the day begins at 01:00
    ],
)
async def test_a_job_at_midnight_runs_on_each_day_around_a_clock_change(zone: str, change: date) -> None:
    app = App(timezone=zone)
    days: list[date] = []

    @app.cron("0 0 * * *", name="midnight")
    async def midnight() -> None:
        days.append(t.now.date())

    async with app.testing(start=f"{change - timedelta(days=3)}T12:00") as t:
        await t.advance("6d")

        assert days == [change + timedelta(days=n) for n in range(-2, 4)]


async def test_weekday_2_is_a_tuesday_and_7_a_sunday_like_0() -> None:
    app = App()
    for number in range(8):

        @app.cron(f"0 18 * * {number}", name=str(number))
        async def evening() -> None: ...

    async with app.testing() as t:
        await t.advance("7d")

        days = {name: [f"{at:%A %H:%M}" for at in t.fires(name)] for name in app.schedules}
    names = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
    assert days == {str(number): [f"{name} 18:00"] for number, name in enumerate(names)}


# --- a loop that is held up, a clock that is set -------------------------------------------------------------------


async def test_a_single_run_that_falls_due_while_the_loop_is_blocked_runs_late() -> None:
    app = App()
    seen: list[datetime] = []

    @app.at(after(seconds=1).isoformat(), name="once")
    async def once() -> None:
        seen.append(t.now)

    async with app.testing() as t:
        await t.advance("500ms")
        t.clock.block("1.8s")
        await t.advance("1h")

        assert seen == [after(seconds=2.3)]
        assert t.fires("once") == [after(seconds=1)]


async def test_a_loop_blocked_for_several_fire_times_starts_one_job_and_not_a_burst() -> None:
    app = App()
    seen: list[datetime] = []

    @app.cron("* * * * * *", seconds="first", name="tick")
    async def tick() -> None:
        seen.append(t.now)

    async with app.testing() as t:
        await t.advance("1.2s")
        t.clock.block("3.5s")
        await t.advance("1.3s")

        assert seen == [after(seconds=1), after(seconds=4.7), after(seconds=5), after(seconds=6)]
        assert [(answer.outcome, answer.count) for answer in await app.schedules["tick"].history()] == [
            ("ran", 1),
            ("ran", 1),
            ("ran", 1),
            ("missed", 2),
            ("ran", 1),
        ]


class RealTimers(VirtualClock):
    """A clock whose timers know of the wall clock as little as those of the operating system do."""

    max_sleep_seconds = MAX_SLEEP_SECONDS
    call_at = Clock.call_at


def test_a_clock_set_forwards_is_noticed_within_half_a_minute() -> None:
    app = App()
    clock = RealTimers()
    ran_after: list[float] = []

    @app.at(after(hours=1).isoformat())
    async def work() -> None:
        ran_after.append(clock.monotonic())

    async def main() -> None:
        async with app.testing() as t:
            await t.advance("1s")
            clock.jump_wall(3700)
            await t.advance("29s")

    with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner:
        runner.run(main())

    assert ran_after == [30]  # seconds that have passed; an hour would be 3,600


# --- one schedule in trouble ---------------------------------------------------------------------------------------


class Breaking(Trigger):
    """Every second, until it is asked for the nth time."""

    def __init__(self, n: int) -> None:
        self.left = n

    def next(self, after: datetime) -> datetime | None:
        self.left -= 1
        if self.left <= 0:
            raise ZeroDivisionError("no such time")
        return Every("1s").next(after)

    @property
    def fingerprint(self) -> str:
        return "breaking"


@pytest.mark.parametrize("n", range(1, 7))
async def test_a_trigger_that_raises_takes_no_other_schedule_along(n: int) -> None:
    app = App()
    seen: list[datetime] = []

    @app.schedule(Breaking(n), name="breaking")
    async def breaking() -> None: ...

    @app.every("1s", name="healthy")
    async def healthy() -> None:
        seen.append(t.now)

    async with app.testing() as t:
        await t.advance("4.5s")

        assert seen == [after(seconds=second) for second in (1, 2, 3, 4)]
        assert isinstance(app.schedules["breaking"].error, ZeroDivisionError)


class CountingStore(MemoryStore):
    """A memory store that counts what is asked of it."""

    calls = 0

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if not name.startswith("_") and callable(found):
            CountingStore.calls += 1
        return found


class CountingApp(App):
    def _make_store(self) -> Store:
        return CountingStore(self._clock)


async def test_a_schedule_that_is_paused_and_overdue_costs_nothing() -> None:
    app = CountingApp()

    @app.every("1s", name="poll")
    async def poll() -> None: ...

    async with app.testing() as t:
        await t.advance("1s")
        await app.schedules["poll"].pause()
        await t.advance("1s")
        woken, calls = t.clock.wake_count, CountingStore.calls
        await t.advance("1h")

        assert (t.clock.wake_count, CountingStore.calls) == (woken, calls)
        await app.schedules["poll"].resume()
        await t.advance("1s")
        assert CountingStore.calls > calls
        assert t.fires("poll") == [after(seconds=1), after(seconds=3603)]


# --- when a job begins ---------------------------------------------------------------------------------------------


async def test_a_job_with_jitter_begins_at_its_fire_time_plus_the_jitter_drawn() -> None:
    app = App()
    started: list[datetime] = []

    @app.every("30s", jitter="20s", name="poll")
    async def poll() -> None:
        started.append(t.now)

    async with app.testing() as t:
        await t.advance("50m20s")

        jobs = t.jobs
        assert [job.fire_time for job in jobs] == [after(seconds=30 * n) for n in range(1, 101)]
        assert started == [job.run_at for job in jobs]
        jitter = [(job.run_at - job.fire_time).total_seconds() for job in jobs if job.fire_time is not None]
        assert all(0 <= drawn < 20 for drawn in jitter)
        assert min(jitter) < 5  # of a hundred draws: that all are above happens once in 10^12 runs
        assert max(jitter) > 15


async def test_a_job_that_takes_time_does_not_make_its_schedule_drift() -> None:
    app = App()
    started: list[float] = []

    @app.every("200ms")
    async def work() -> None:
        started.append(t.clock.monotonic())
        await asyncio.sleep(0.02)

    async with app.testing() as t:
        await t.advance("4s")

        assert started == [round(0.2 * n, 1) for n in range(1, 21)]


@pytest.mark.parametrize(("overlap", "waiting", "runs"), [("skip", 0, 3), ("queue", 1, 3), ("replace", 1, 13)])
async def test_a_job_slower_than_its_period_piles_up_no_jobs(overlap: Any, waiting: int, runs: int) -> None:
    app = App()
    running = most_running = started = 0

    @app.every("300ms", overlap=overlap)
    async def slow() -> None:
        nonlocal running, most_running, started
        started += 1
        running += 1
        most_running = max(most_running, running)
        try:
            await asyncio.sleep(1.25)
        finally:
            running -= 1

    async with app.testing() as t:
        most_waiting = 0
        for _ in range(40):
            await t.advance("100ms")
            waits = [job for job in t.jobs if job.state in (JobState.SCHEDULED, JobState.QUEUED)]
            most_waiting = max(most_waiting, len(waits))

        assert most_running == 1
        assert most_waiting <= waiting
        assert started == runs


# --- the end, and somebody else's beginning and end: real loops, a real server, a real signal ------------------------


def test_a_coroutine_under_way_at_shutdown_runs_to_its_end_within_the_budget() -> None:
    app = App(drain_seconds=10)
    told: list[str] = []
    began: list[asyncio.Event] = []
    going_down: list[asyncio.Event] = []

    @app.every("1000d", first="now")
    async def work() -> None:
        began[0].set()
        try:
            await going_down[0].wait()
            await asyncio.sleep(0.1)
            told.append("ended")
        except asyncio.CancelledError:
            told.append("cancelled")
            raise

    async def main() -> None:
        began.append(asyncio.Event())
        going_down.append(asyncio.Event())
        await app.start()
        await began[0].wait()
        asyncio.get_running_loop().call_soon(going_down[0].set)  # when the stop below has begun
        stopped = await app.stop()
        assert stopped.cut == []
        told.append("stopped")

    asyncio.run(main(), debug=True)

    assert told == ["ended", "stopped"]


SERVICE = """
import asyncio
from contextlib import asynccontextmanager
from tickwork import App

app = App()
database = None

@app.every("1000d", first="now")
async def work():
    print("work sees", database, flush=True)
    while app.is_running:  # until the stop has begun
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    print("work ends with", database, flush=True)

@asynccontextmanager
async def lifespan(web):
    global database
    database = "open"
    async with app.lifespan(web) as state:
        yield {**state, "pool": "of the service"}
    print("running:", app.is_running, flush=True)
    database = "closed"

async def show(request):
    return JSONResponse({"pool": request.state.pool, "is app": request.state.tickwork is app})
"""
FASTAPI = """
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
web = FastAPI(lifespan=lifespan)

@web.get("/")
async def ask(request: Request):
    return await show(request)
"""
STARLETTE = """
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
web = Starlette(lifespan=lifespan, routes=[Route("/", show)])
"""


@pytest.mark.parametrize("web", [FASTAPI, STARLETTE], ids=["FastAPI", "Starlette"])
def test_a_service_keeps_its_state_and_its_resources_outlast_the_jobs(tmp_path: Path, web: str) -> None:
    (tmp_path / "service.py").write_text(SERVICE + web)

    with Running("-m", "uvicorn", "--no-access-log", "--port", "0", "service:web", cwd=tmp_path) as running:
        running.wait_for("work sees")
        running.wait_for("Uvicorn running on http")
        found = re.search(r"running on (http://[\d.:]+)", running.err)
        assert found is not None
        with urlopen(found[1], timeout=10) as opened:
            answer = json.load(opened)
        running.send(signal.SIGTERM)
        ended = running.ended()

    assert answer == {"pool": "of the service", "is app": True}
    assert ended.out.splitlines() == ["work sees open", "work ends with open", "running: False"]
    assert "Application shutdown complete" in ended.err
