from __future__ import annotations

import asyncio
import logging
import os
import threading
import types
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import tickwork
from tickwork import App, Context, Cron, Every, JobState, Task
from tickwork.conformance import HandClock
from tickwork.errors import (
    DuplicateName,
    InvalidCron,
    InvalidDuration,
    InvalidOption,
    InvalidPayload,
    JobCancelled,
    JobFailed,
    JobParked,
    JobTimedOut,
    NotImportable,
    NotRunning,
    QueueFull,
    UnknownJob,
    UnknownSchedule,
    UnknownTask,
    UnknownTimezone,
)


@dataclass
class Order:
    number: int
    at: datetime


@dataclass
class Fragile:
    number: int

    def __post_init__(self) -> None:
        if self.number < 0:
            raise ZeroDivisionError("fragile")


@tickwork.task()
async def add(a: int, b: int = 1) -> int:
    return a + b


@tickwork.task()
def stem(path: Path) -> str:
    return path.stem


@tickwork.task()
async def price(order: Order) -> Order:
    return Order(order.number * 2, order.at)


@tickwork.task(run_in="process")
def child(ctx: Context, number: int) -> tuple[int, str, int]:
    return number, ctx.job_id, os.getpid()


@tickwork.task(run_in="process")
def die() -> None:
    os._exit(3)


@tickwork.task()
async def fail(text: str) -> None:
    raise KeyError(text)


@tickwork.task()
async def unstorable() -> object:
    return object()


@tickwork.task(timeout="20ms")
async def slow() -> None:
    await asyncio.sleep(3600)


def make_app(**options: Any) -> App:
    return App(tasks=[add, stem, price, child, die, fail, unstorable, slow], **options)


# -- enqueue and results ------------------------------------------------------------------------------------


async def test_a_job_gives_its_result() -> None:
    async with make_app() as app:
        job = await add.enqueue(40, b=2)

        assert await job.result(timeout=30) == 42
        assert await job == 42
        assert await (await app.enqueue(add, 1)) == 2
        record = await job.record()
        assert (record.state, record.attempt, record.result) == (JobState.SUCCEEDED, 1, "42")
        assert record.started_at is not None
        assert record.finished_at is not None
        assert record.enqueued_at <= record.started_at <= record.finished_at
        assert await app.job(job.id) == job


async def test_arguments_and_results_pass_the_codec_in_memory_too() -> None:
    async with make_app():
        order = Order(4, datetime(2026, 3, 1, tzinfo=UTC))
        result = await (await price.enqueue(order))

        assert result == Order(8, order.at)
        assert await (await stem.enqueue(Path("a/b.png"))) == "b"


async def test_arguments_that_do_not_fit_are_refused_at_enqueue() -> None:
    async with make_app():
        with pytest.raises(InvalidPayload, match=r"add\(a\): expected int, got str"):
            await add.enqueue("one")  # type: ignore[arg-type]
        with pytest.raises(InvalidPayload, match="add"):
            await add.enqueue()  # type: ignore[call-arg]
        assert (await (await add.enqueue(1)).record()).task == add.name


async def test_a_task_is_still_the_plain_function() -> None:
    assert await add(1, 2) == 3
    assert stem(Path("x.txt")) == "x"
    assert add.__qualname__ == "add"
    assert add.name == "tests.test_app.add" or add.name == "test_app.add"
    assert isinstance(add, Task)


async def test_a_failed_job_raises_with_its_original_cause() -> None:
    async with make_app():
        job = await fail.enqueue("lost")
        with pytest.raises(JobFailed) as raised:
            await job.result()

        assert str(raised.value) == f"job {job.id} ({fail.name}) failed: KeyError: 'lost'"
        assert isinstance(raised.value.__cause__, KeyError)
        assert "raise KeyError(text)" in raised.value.traceback
        with pytest.raises(JobFailed) as later:
            await job.result()
        assert later.value.__cause__ is None  # kept by nobody: only the text is stored
        assert later.value.error_type == "KeyError"


async def test_a_failed_job_that_nobody_awaits_is_logged_once_at_error_with_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with make_app() as app:
        job = await fail.enqueue("alone")
        await app.wait_idle()

    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 1
    assert errors[0].exc_info is not None
    assert errors[0].__dict__["job_id"] == job.id
    assert errors[0].__dict__["attempt"] == 1


async def test_a_job_over_its_timeout_fails_with_a_timeout() -> None:
    async with make_app():
        job = await slow.enqueue()
        for _ in range(2):  # the second time from the store
            with pytest.raises(JobTimedOut, match="ran longer than its timeout of 0.02 s"):
                await job.result()
        assert (await job.record()).state is JobState.FAILED


async def test_a_result_that_cannot_be_kept_is_said_to_whoever_asks(caplog: pytest.LogCaptureFixture) -> None:
    async with make_app():
        job = await unstorable.enqueue()
        with pytest.raises(InvalidPayload, match="result of .*unstorable"):
            await job.result()
        assert (await job.record()).state is JobState.SUCCEEDED
    assert "succeeded, but its result cannot be kept" in caplog.text


async def test_waiting_too_long_cancels_nothing() -> None:
    app, gate = App(), asyncio.Event()

    @app.task()
    async def wait() -> str:
        await gate.wait()
        return "done"

    async with app:
        job = await wait.enqueue()
        with pytest.raises(TimeoutError, match=f"^job {job.id} has not ended within 0.01 s; it goes on$"):
            await job.result(timeout=0.01)
        gate.set()
        assert await job.result() == "done"


async def test_an_unknown_job_is_said_to_be_unknown() -> None:
    async with make_app() as app:
        with pytest.raises(UnknownJob, match="no job 'nobody' in the store"):
            await app.job("nobody")


async def test_a_job_for_later_waits_for_its_time() -> None:
    async with make_app() as app:
        delayed = await add.options(delay="1h", priority=3).enqueue(1)
        dated = await add.options(at=datetime(2199, 1, 1, tzinfo=UTC)).enqueue(1)
        soon = await add.options(delay=0.01).enqueue(1)

        assert await soon.result(timeout=30) == 2
        assert (await delayed.record()).state is JobState.SCHEDULED
        assert (await dated.record()).run_at == datetime(2199, 1, 1, tzinfo=UTC)
        await app.wait_idle()


@pytest.mark.parametrize("kept", [False, True])
async def test_who_waits_for_an_idle_app_hears_of_its_stop(tmp_path: Path, kept: bool) -> None:
    app = App(f"sqlite:///{tmp_path}/jobs.db" if kept else None)

    @app.task()
    async def work() -> None: ...

    async with app:
        await app.jobs.pause_queue("default")
        await work.enqueue()
        idle = asyncio.ensure_future(app.wait_idle())
        await asyncio.sleep(0)
        assert not idle.done()
    await asyncio.wait_for(idle, 30)


async def test_enqueue_without_an_app_says_what_to_name() -> None:
    with pytest.raises(NotRunning) as none:
        await add.enqueue(1)
    assert str(none.value) == (
        f"no started app includes task {add.name!r}; say which: app.enqueue(task, ...) with a started app"
    )
    async with make_app() as one, make_app():
        with pytest.raises(NotRunning, match="2 started apps include"):
            await add.enqueue(1)
        assert await (await one.enqueue(add, 1)) == 2


async def test_an_app_refuses_tasks_it_does_not_include() -> None:
    async with App() as app:
        with pytest.raises(UnknownTask, match=f"^no task named {add.name!r} is registered; import its module"):
            await app.enqueue(add, 1)


async def test_enqueue_sync_works_from_threads_and_refuses_the_loop() -> None:
    async with make_app():
        job = await asyncio.to_thread(add.enqueue_sync, 3)
        assert await job.result() == 4
        with pytest.raises(NotRunning, match="would block the app's own loop"):
            add.enqueue_sync(1)


async def test_enqueue_waits_while_the_store_is_full_but_never_inside_a_job() -> None:
    app, gate = App(workers=1, max_queued=1), asyncio.Event()

    @app.task()
    async def wait() -> None:
        await gate.wait()

    @app.task()
    async def flood() -> str:
        try:
            for _ in range(10):
                await wait.enqueue()
        except QueueFull as full:
            return str(full)
        return "never full"

    async with app:
        assert "the store is full (1 entries)" in await (await flood.enqueue())
        with pytest.raises(QueueFull):
            for _ in range(10):  # one runs, one is in the buffer, one is held by the feeder, one is queued
                await wait.enqueue_nowait()
                for _ in range(10):
                    await asyncio.sleep(0)
        producer = asyncio.ensure_future(wait.enqueue())
        await asyncio.sleep(0)
        assert not producer.done()
        gate.set()
        await (await producer)


# -- context ------------------------------------------------------------------------------------------------


async def test_the_context_is_injected_and_found_below() -> None:
    app = App()
    seen: list[Context] = []

    async def below() -> Context:
        await asyncio.sleep(0)
        return Context.current()

    @app.task()
    async def look(ctx: Context, word: str) -> str:
        seen.extend([ctx, await asyncio.ensure_future(below())])
        return word

    @app.task()
    def look_plainly(ctx: Context) -> None:
        seen.extend([ctx, Context.current()])

    async with app:
        job = await look.enqueue("hello")
        assert await job == "hello"
        plain = await look_plainly.enqueue()
        await plain

    assert seen[0] is seen[1]
    assert (seen[0].job_id, seen[0].task, seen[0].attempt) == (job.id, look.name, 1)
    assert seen[2] is seen[3]
    assert seen[2].job_id == plain.id
    with pytest.raises(NotRunning, match="no job is running here"):
        Context.current()


async def test_a_process_gets_the_context_without_the_apps_state() -> None:
    async with make_app():
        job = await child.enqueue(5)
        number, job_id, pid = await job

    assert (number, job_id) == (5, job.id)
    assert pid != os.getpid()


async def test_the_contexts_log_carries_job_task_and_attempt(caplog: pytest.LogCaptureFixture) -> None:
    app = App()

    @app.task()
    async def say(ctx: Context) -> None:
        ctx.log.warning("half way")

    async with app:
        job = await say.enqueue()
        await job

    (record,) = [record for record in caplog.records if record.getMessage() == "half way"]
    assert (record.__dict__["job_id"], record.__dict__["task"], record.__dict__["attempt"]) == (job.id, say.name, 1)


async def test_the_users_lifespan_opens_before_and_closes_after_all_jobs() -> None:
    events: list[str] = []

    @asynccontextmanager
    async def resources(app: App) -> AsyncIterator[str]:
        events.append("open")
        yield "the pool"
        events.append("close")

    app = App(lifespan=resources)

    @app.on_start
    async def started() -> None:
        events.append("started")

    @app.task()
    async def use(ctx: Context) -> str:
        events.append("used")
        return str(ctx.state)

    async with app:
        job = await use.enqueue()
        assert await job == "the pool"
        await use.enqueue()
    assert events == ["open", "started", "used", "used", "close"]


async def test_a_start_that_fails_closes_what_it_opened_and_can_be_tried_again() -> None:
    events: list[str] = []

    async def resources(app: App) -> AsyncIterator[None]:
        events.append("open")
        yield
        events.append("close")

    app = App(lifespan=resources)
    fails = True

    @app.on_start
    def check() -> None:
        if fails:
            raise ConnectionError("no database")

    with pytest.raises(ConnectionError):
        async with app:
            pass
    assert events == ["open", "close"]
    fails = False
    async with app:
        pass
    assert events == ["open", "close"] * 2


async def test_on_error_hears_each_failure_and_its_own_errors_are_contained(caplog: pytest.LogCaptureFixture) -> None:
    app = make_app()
    heard: list[tuple[str, BaseException]] = []

    @app.on_error
    def note(ctx: Context, error: BaseException) -> None:
        heard.append((ctx.job_id, error))

    @app.on_error
    async def broken(ctx: Context, error: BaseException) -> None:
        raise RuntimeError("in the handler")

    async with app:
        job = await fail.enqueue("x")
        with pytest.raises(JobFailed):
            await job
        assert await (await add.enqueue(1)) == 2

    assert [(job_id, type(error)) for job_id, error in heard] == [(job.id, KeyError)]
    assert ".broken raised at JobFailed(" in caplog.text
    assert "RuntimeError: in the handler" in caplog.text


# -- cancel and deaths --------------------------------------------------------------------------------------


async def test_cancelling_a_running_and_a_waiting_job() -> None:
    app, begun = App(workers=1), asyncio.Event()

    @app.task()
    async def wait() -> None:
        begun.set()
        await asyncio.sleep(3600)

    async with app:
        running, later = await wait.enqueue(), await wait.options(delay="1h").enqueue()
        waiting = [await wait.enqueue() for _ in range(3)]
        await begun.wait()

        for job in (running, later, *waiting):
            assert await job.cancel()
        for job in (running, later, *waiting):
            with pytest.raises(JobCancelled):
                await job.result(timeout=30)
            assert (await job.record()).state is JobState.CANCELLED
            assert not await job.cancel()


async def test_a_job_cancelled_in_the_feeders_hand_is_not_given_back_at_the_stop() -> None:
    app, begun = App(workers=1, drain_seconds=0.01), asyncio.Event()

    @app.task()
    async def wait() -> None:
        begun.set()
        await asyncio.sleep(3600)

    async with app:
        jobs = [await wait.enqueue() for _ in range(3)]
        await begun.wait()
        for job in jobs[1:]:
            assert await job.cancel()
        stopped = await app.stop()

    assert stopped.unstarted == 0
    assert stopped.cut == [f"{wait.name} job={jobs[0].id}"]


async def test_types_that_raise_hurt_their_own_job_only() -> None:
    app = App()

    @app.task()
    async def take(value: Fragile) -> int:
        return value.number

    async with app:
        broken = Fragile(1)
        broken.number = -1  # it can be written, and not be read again
        job = await take.enqueue(broken)
        with pytest.raises(JobParked, match="fragile"):
            await job.result(timeout=30)
        assert await (await take.enqueue(Fragile(3))) == 3


async def test_a_job_under_which_three_processes_die_is_parked_and_named() -> None:
    async with make_app(processes=1) as app:
        job = await die.enqueue()
        with pytest.raises(JobParked, match="with exit status 3 while it ran"):
            await job.result(timeout=30)

        record = await job.record()
        assert (record.state, record.deaths, record.attempt) == (JobState.PARKED, 3, 0)
        assert await (await add.enqueue(1)) == 2
        assert app.failed_count == 3


async def test_a_threads_timeout_fails_the_waiter_while_the_thread_runs() -> None:
    app, go = App(), threading.Event()

    @app.task(timeout=0.02)
    def sit() -> None:
        go.wait(10)

    async with app:
        job = await sit.enqueue()
        with pytest.raises(JobTimedOut):
            await job.result(timeout=30)
        assert (await job.record()).state is JobState.RUNNING
        go.set()
        await app.wait_idle()
        assert (await job.record()).state is JobState.FAILED


# -- stopping -----------------------------------------------------------------------------------------------


async def test_a_stop_lets_running_jobs_end_and_gives_unstarted_ones_back() -> None:
    app, begun, ended = App(workers=1), asyncio.Event(), []

    @app.task()
    async def work(number: int) -> None:
        begun.set()
        while app.is_running:  # noqa: ASYNC110 - nothing tells a job of it
            await asyncio.sleep(0)
        for _ in range(1_000):  # turns of the loop, in which the others are given back
            await asyncio.sleep(0)
        ended.append(number)

    await app.start()
    for number in range(5):
        await work.enqueue(number)
    await begun.wait()
    stopped = await app.stop()

    assert ended == [0]
    assert stopped.cut == []
    assert stopped.unstarted in (1, 2)  # the buffer's one, and the one the feeder held
    assert await app.stop() == tickwork.Stopped()


async def test_what_a_stop_has_given_back_is_not_begun_again_when_a_worker_is_free() -> None:
    # On a clock that stands still, the moment in which workers claim for themselves does not pass.
    app, begun, ran = App(workers=1, clock=HandClock()), asyncio.Event(), list[int]()

    @app.task()
    async def work(number: int) -> None:
        ran.append(number)
        begun.set()
        while app.is_running:  # noqa: ASYNC110 - nothing tells a job of it
            await asyncio.sleep(0)
        for _ in range(100):  # turns of the loop, in which the others are given back
            await asyncio.sleep(0)

    await app.start()
    await work.enqueue_many([(number,) for number in range(5)])
    await begun.wait()
    stopped = await app.stop()

    assert ran == [0]
    assert stopped.cut == []


async def test_a_stop_cancels_what_does_not_end_and_names_it() -> None:
    app, begun, cleaned = App(drain_seconds=0.01), asyncio.Event(), []

    @app.task()
    async def linger() -> None:
        begun.set()
        try:
            await asyncio.sleep(3600)
        finally:
            cleaned.append(True)

    await app.start()
    job = await linger.enqueue()
    waiter = asyncio.ensure_future(job.result())
    await begun.wait()
    stopped = await app.stop()

    assert stopped.cut == [f"{linger.name} job={job.id}"]
    assert cleaned == [True]
    with pytest.raises(JobCancelled, match="the app stopped before it had ended"):
        await waiter


async def test_a_cancelled_stop_hurries_and_leaves_nothing_behind() -> None:
    app, begun, closed = App(drain_seconds=3600), asyncio.Event(), []

    async def resources(app: App) -> AsyncIterator[None]:
        yield
        closed.append(True)

    app._user_lifespan = resources

    @app.task()
    async def linger() -> None:
        begun.set()
        await asyncio.sleep(3600)

    await app.start()
    await linger.enqueue()
    await begun.wait()
    stopping = asyncio.ensure_future(app.stop())
    await asyncio.sleep(0)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping

    assert closed == [True]
    assert not app.is_running


async def test_a_second_stop_waits_for_the_first() -> None:
    app, begun = App(), asyncio.Event()

    @app.task()
    async def work() -> None:
        begun.set()
        await asyncio.sleep(0.02)

    await app.start()
    await work.enqueue()
    await begun.wait()
    first, second = await asyncio.gather(app.stop(), app.stop(0.0))

    assert first is second
    assert first.cut == []


async def test_a_drain_ends_when_the_last_job_is_abandoned() -> None:
    app, begun, release = App(drain_seconds=3600, cancel_seconds=0.02), asyncio.Event(), asyncio.Event()

    @app.task(timeout=0.02)
    async def stubborn() -> None:
        while not release.is_set():
            begun.set()
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    await app.start()
    await stubborn.enqueue()
    await begun.wait()
    async with asyncio.timeout(30):
        await app.stop()
    release.set()


async def test_a_stop_during_the_start_waits_for_it_and_stops_then() -> None:
    events: list[str] = []

    async def resources(app: App) -> AsyncIterator[None]:
        await asyncio.sleep(0.01)
        events.append("open")
        yield
        events.append("close")

    app = App(lifespan=resources)
    starting = asyncio.ensure_future(app.start())
    await asyncio.sleep(0)
    await app.stop()
    await starting

    assert events == ["open", "close"]
    assert not app.is_running


async def test_a_stop_takes_a_duration_and_refuses_nonsense() -> None:
    app = make_app()
    async with app:
        with pytest.raises(InvalidDuration, match="drain_seconds"):
            await app.stop("soon")
        assert app.is_running
        await app.stop("30s")


async def test_an_app_that_stops_takes_no_new_jobs_and_says_so() -> None:
    app, begun, ends = make_app(), asyncio.Event(), list[str]()

    @app.task()
    async def follow_up() -> None:
        begun.set()
        while app.is_running:  # noqa: ASYNC110 - nothing tells a job of it
            await asyncio.sleep(0)
        for enqueue in (add.enqueue, lambda number: app.enqueue(add, number)):
            try:
                await enqueue(1)
            except NotRunning as error:
                ends.append(str(error))
        try:
            await app.stop()
        except NotRunning as error:
            ends.append(str(error))

    async with app:
        await follow_up.enqueue()
        await begun.wait()

    refusal = f"the app is stopping: a job of {add.name!r} would not run, and memory keeps it for nobody"
    assert ends == [
        refusal,
        refusal,
        "a job cannot wait for its own app to stop; let it end, or start a task that stops the app",
    ]


async def test_producers_that_wait_for_room_are_told_of_the_stop() -> None:
    app, begun = App(workers=1, max_queued=1, drain_seconds=0.01), asyncio.Event()

    @app.task()
    async def wait() -> None:
        begun.set()
        await asyncio.sleep(3600)

    async def produce() -> None:
        while True:
            await wait.enqueue()

    async with app:
        producer = asyncio.ensure_future(produce())
        await begun.wait()
    with pytest.raises(NotRunning, match=r"stopped while this waited for room|is stopping|no started app"):
        await producer


async def test_an_async_hook_that_ignores_cancellation_does_not_hold_the_stop() -> None:
    app, release = make_app(cancel_seconds=0.02), asyncio.Event()

    @app.on_error
    async def stubborn(ctx: Context, error: BaseException) -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    async with app:
        with pytest.raises(JobFailed):
            await (await fail.enqueue("x"))
    release.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_results_are_kept_while_their_handles_are_held() -> None:
    async with make_app() as app:
        jobs = [await add.enqueue(number) for number in range(2500)]
        await app.wait_idle()
        assert [await job for job in jobs] == list(range(1, 2501))

        forgotten = (await add.enqueue(1)).id
        for _ in range(3):
            for number in range(1000):
                job = await add.enqueue(number)
            await app.wait_idle()
        del job
        with pytest.raises(UnknownJob):
            await app.job(forgotten)


async def test_declaring_a_schedule_on_a_running_app_points_to_the_right_call() -> None:
    app = make_app()
    async with app:
        with pytest.raises(NotRunning, match=r"await app.schedules.add\("):
            app.every("1h", name="late")(unstorable)

    assert "late" not in app.schedules
    assert unstorable.schedules == []


def test_a_refused_include_leaves_nothing_behind() -> None:
    app = App()

    @app.every("1h", name="taken")
    async def first() -> None: ...

    @tickwork.every("1h", name="taken")
    @tickwork.every("1h", name="free")
    async def second() -> None: ...

    with pytest.raises(DuplicateName):
        app.include(second)

    assert list(app.schedules) == ["taken"]
    assert list(app.tasks) == ["taken"]


def test_generators_are_refused() -> None:
    async def generate() -> AsyncIterator[int]:
        yield 1

    def generate_plainly() -> Any:
        yield 1

    for fn in (generate, generate_plainly):
        with pytest.raises(InvalidOption, match="fn must be a function that returns, got .*; nobody would iterate"):
            App().task()(fn)


async def test_an_app_starts_again_after_a_stop_but_not_twice_at_once() -> None:
    app = make_app()
    for _ in range(2):
        async with app:
            assert await (await add.enqueue(1)) == 2
            with pytest.raises(NotRunning, match="has started already"):
                await app.start()
    with pytest.raises(NotRunning, match="the app is not running"):
        await app.enqueue(add, 1)


# -- declarations -------------------------------------------------------------------------------------------


def test_names_must_be_unique() -> None:
    app = App()

    @app.task(name="reports.daily")
    async def one() -> None: ...

    with pytest.raises(DuplicateName) as raised:

        @app.task(name="reports.daily")
        async def other() -> None: ...

    assert str(raised.value) == "two tasks are named 'reports.daily'; give one of them another: name=\"...\""
    with pytest.raises(DuplicateName):

        @app.task(name="other", aliases=["reports.daily"])
        async def aliased() -> None: ...


def test_a_second_schedule_on_a_task_must_be_named() -> None:
    app = App()

    @app.cron("0 12 * * *", name="noon")
    @app.every("1h")
    async def work() -> None: ...

    assert sorted(app.schedules) == ["noon", work.name]
    assert all(schedule.task is work for schedule in app.schedules.values())
    with pytest.raises(DuplicateName, match="two schedules are named"):
        app.every("2h")(work)


def test_include_takes_a_modules_own_tasks() -> None:
    module = types.ModuleType("reports")
    exec(
        "import tickwork\n"
        "from tests_foreign import foreign\n"
        "@tickwork.every('1h')\n"
        "async def hourly(): ...\n"
        "@tickwork.task()\n"
        "def once(): ...\n"
        "def helper(): ...\n",
        _with_foreign(module),
    )
    app = App(tasks=[module])
    app.include(module)

    assert sorted(app.tasks) == ["reports.hourly", "reports.once"]
    assert list(app.schedules) == ["reports.hourly"]
    with pytest.raises(InvalidOption, match="tasks must be modules and tasks"):
        app.include(len)  # type: ignore[arg-type]


def _with_foreign(module: types.ModuleType) -> dict[str, Any]:
    import sys

    foreign = types.ModuleType("tests_foreign")
    sys.modules["tests_foreign"] = foreign
    exec("import tickwork\n@tickwork.task()\nasync def foreign(): ...\n", vars(foreign))
    return vars(module)


@pytest.mark.parametrize(
    ("declare", "error", "message"),
    [
        (lambda app: app.every("5 parsecs"), InvalidDuration, "parsec"),
        (lambda app: app.every("-5s"), InvalidDuration, "-5s"),
        (lambda app: app.every(0), InvalidDuration, "0"),
        (lambda app: app.every("week"), InvalidOption, "week"),
        (lambda app: app.cron("61 * * * *"), InvalidCron, "minute"),
        (lambda app: app.cron("0 5 * *"), InvalidCron, "5"),
        (lambda app: app.cron("0 5 * * *", timezone="Asia/Soul"), UnknownTimezone, "did you mean 'Asia/Seoul'?"),
        (lambda app: app.at(datetime(2026, 1, 1)), InvalidOption, "timezone"),  # noqa: DTZ001
        (
            lambda app: app.every("5s", overlap="maybe"),
            InvalidOption,
            "one of 'skip', 'queue', 'replace', 'allow'",
        ),
        (lambda app: app.every("5s", first="soon"), InvalidOption, "first must be one of 'later', 'now'"),
        (lambda app: app.task(timeout="never"), InvalidDuration, "timeout"),
        (lambda app: app.task(run_in="fork"), InvalidOption, "run_in must be one of"),
        (lambda app: app.task(priority="high"), InvalidOption, "priority must be a whole number, got 'high'"),
        (
            lambda app: app.task(priority=2**31),
            InvalidOption,
            "priority must be a whole number from -2,147,483,648 to 2,147,483,647, got 2147483648",
        ),
        (
            lambda app: App("sqlite:///jobs.db?mode=ro"),
            InvalidOption,
            (
                'url must be "sqlite:///jobs.db" (relative), "sqlite:////var/lib/jobs.db" (absolute) or '
                '"postgresql://...", got '
                "'sqlite:///jobs.db?mode=ro'; leave out what begins with '?': it takes no options"
            ),
        ),
        (lambda app: app.task(queue=""), InvalidOption, "queue must be a printable, non-empty text"),
        (lambda app: app.schedule("1h"), InvalidOption, "trigger must be a trigger such as"),
        (lambda app: app.task()(3), InvalidOption, "fn must be a function, got 3"),
        (lambda app: app.task(run_in="process")(lambda: None), NotImportable, "lambda"),
        (lambda app: App(timezone="Mars/Base"), UnknownTimezone, "timezone"),
        (lambda app: App("redis://"), InvalidOption, "url"),
        (lambda app: App(workers=0), InvalidOption, "workers must be"),
        (lambda app: App(drain_seconds="x"), InvalidDuration, "drain_seconds"),
        (lambda app: app.schedules["x"], UnknownSchedule, "no schedule named 'x'; known: none"),
    ],
)
def test_mistakes_are_refused_when_declared(declare: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as raised:
        declare(App())

    assert message in str(raised.value)


def test_a_nested_function_is_refused_for_a_process() -> None:
    with pytest.raises(NotImportable, match="inside another function"):

        @App().task(run_in="process")
        def nested() -> None: ...


def test_a_scheduled_function_must_be_callable_without_arguments() -> None:
    with pytest.raises(InvalidOption, match="task must be callable without arguments by a schedule"):

        @App().every("5s")
        async def needs(word: str) -> None: ...


def test_a_method_cannot_be_a_task() -> None:
    app = App()

    class Service:
        @app.task()
        async def run(self) -> None: ...

    with pytest.raises(InvalidOption, match="a method cannot be a task; decorate a function"):
        Service().run.enqueue()


def test_the_apps_zone_is_the_default_of_its_schedules() -> None:
    app = App(timezone="Asia/Seoul")

    @app.cron("0 5 * * *")
    async def early() -> None: ...

    @app.every("day", at="05:00", timezone="UTC")
    async def utc() -> None: ...

    assert app.schedules[early.name].next()[0].hour == 20
    assert app.schedules[utc.name].next()[0].hour == 5


def test_next_gives_so_many_times() -> None:
    app = App()

    @app.every("10s")
    async def tick() -> None: ...

    times = app.schedules[tick.name].next(3)
    assert [second - first for first, second in pairwise(times)] == [timedelta(seconds=10)] * 2
    assert app.schedules[tick.name].trigger == Every("10s")
    with pytest.raises(InvalidOption, match="n must be a whole number of at least 1, got 0"):
        app.schedules[tick.name].next(0)


# -- the package --------------------------------------------------------------------------------------------


def test_every_public_name_is_there() -> None:
    for name in tickwork.__all__:
        assert getattr(tickwork, name).__name__ == name or callable(getattr(tickwork, name))
    assert set(tickwork.__all__) == {name for names in tickwork._HOMES.values() for name in names}
    with pytest.raises(AttributeError, match="no attribute 'Scheduler'"):
        tickwork.Scheduler  # noqa: B018


def test_an_h_is_seeded_with_the_name_of_its_schedule() -> None:
    app = App()
    hashed = app.cron("H H * * *")

    def first() -> None: ...

    def second() -> None: ...

    names = [hashed(first).name, hashed(second).name]
    app.cron("H H * * *", name="named")(app.tasks[names[0]])

    found = {name: schedule.trigger for name, schedule in app.schedules.items()}
    assert found == {name: Cron("H H * * *", name=name, timezone="UTC") for name in (*names, "named")}
    assert len({trigger.fingerprint for trigger in found.values()}) == 3


async def test_many_jobs_are_enqueued_in_their_order_or_not_at_all() -> None:
    async with make_app() as app:
        jobs = await add.enqueue_many([(1,), [2, 3], {"a": 4}])
        assert [await job for job in jobs] == [2, 5, 5]
        assert [job.task for job in await add.options(priority=3).enqueue_many([(1,)])] == ["test_app.add"]
        assert await add.enqueue_many([]) == []

        before = await app._store_now().counts()
        with pytest.raises(InvalidPayload, match="expected int, got str"):
            await add.enqueue_many([(1,), ("one",)])
        with pytest.raises(InvalidOption) as raised:
            await add.enqueue_many([1])  # type: ignore[list-item]
        await app.wait_idle()
        assert sum((await app._store_now().counts()).values()) == sum(before.values())

    assert str(raised.value) == (
        "calls must be tuples or lists of positional arguments, or mappings of named ones, got 1; "
        "a single argument is a tuple, too: (value,)"
    )
