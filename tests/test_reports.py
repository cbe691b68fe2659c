"""Progress that jobs tell: seen while they run and after their end, from any place, without a write for each call."""

from __future__ import annotations

import asyncio
import pickle
import threading
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from fleet import Fleet
from tickwork import App, Context, JobRecord, Progress
from tickwork.clock import SystemClock
from tickwork.conformance import HandClock
from tickwork.errors import InvalidOption, JobFailed, NotRunning
from tickwork.reports import Reports, progress_of
from tickwork.stores.sqlite import SQLiteStore

WaitUntil = Callable[..., Awaitable[None]]


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str | None:
    return f"sqlite:///{tmp_path}/jobs.db" if request.param == "sqlite" else None


def told(progress: Progress | None) -> tuple[float, float | None, str | None] | None:
    return None if progress is None else (progress.done, progress.total, progress.message)


async def first_progress(ask: Callable[[], Awaitable[JobRecord]]) -> Progress:
    """Return the progress that a job has told first."""
    while (progress := (await ask()).progress) is None:
        await asyncio.to_thread(time.sleep, 0.005)
    return progress


# --- in an app -------------------------------------------------------------------------------------------------------


async def test_what_a_job_tells_is_in_its_record_at_once_and_stays_there(url: str | None) -> None:
    app, half, go = App(url), asyncio.Event(), asyncio.Event()

    @app.task()
    async def copy(ctx: Context) -> None:
        ctx.progress(1, 4, "first")
        half.set()
        await go.wait()
        ctx.progress(3)

    async with app:
        job = await copy.enqueue()
        await half.wait()
        before = datetime.now(UTC)
        running = (await job.record()).progress
        go.set()
        await job
        ended = (await job.record()).progress

    assert told(running) == (1, 4, "first")
    assert running is not None
    assert running.updated_at <= before
    assert told(ended) == (3, None, None)
    assert ended is not None
    assert ended.updated_at >= before


async def test_another_process_sees_it_while_the_job_runs(tmp_path: Path) -> None:
    app, go = App(f"sqlite:///{tmp_path}/jobs.db"), asyncio.Event()

    @app.task()
    async def copy(ctx: Context) -> None:
        ctx.progress(1, 4, "\u00e9\U0001f600\ud800")
        await go.wait()

    async with app:
        job = await copy.enqueue()
        other = SQLiteStore(tmp_path / "jobs.db", SystemClock())
        await other.open()
        seen = await first_progress(lambda: other.job(job.id))
        await other.close()
        go.set()
        await job

    assert told(seen) == (1, 4, "\u00e9\U0001f600\ud800")


async def test_a_thread_and_a_process_tell_it_too(url: str | None, tmp_path: Path) -> None:
    app = App(url, tasks=[in_thread, in_process, without_parameter], processes=1)
    async with app:
        for task in (in_thread, in_process, without_parameter):
            (tmp_path / task.name).touch()
            job = await task.enqueue(tmp_path / task.name)
            seen = await first_progress(job.record)
            assert told(seen) == (1, 2, "begun")
            await asyncio.to_thread((tmp_path / task.name).unlink)
            await job

            assert told((await job.record()).progress) == (999, 1000, None)


def _until_gone(path: Path, context: Context) -> None:
    context.progress(1, 2, "begun")
    pause = threading.Event()
    while path.exists():
        pause.wait(0.005)
    for number in range(1000):
        context.progress(number, 1000)


app_ = App()


@app_.task(name="in-thread")
def in_thread(ctx: Context, path: Path) -> None:
    _until_gone(path, ctx)


@app_.task(name="in-process", run_in="process")
def in_process(ctx: Context, path: Path) -> None:
    _until_gone(path, ctx)


@app_.task(name="without-parameter", run_in="process")
def without_parameter(path: Path) -> None:
    _until_gone(path, Context.current())


@app_.task(run_in="process")
def leave_a_thread_behind(ctx: Context, name: str) -> str:
    def late() -> None:
        _pause.wait()
        _pause.clear()
        ctx.progress(666, message=name)

    thread = threading.Thread(target=late, daemon=True)
    _left.append(thread)
    thread.start()
    ctx.progress(1, message=name)
    return name


@app_.task(run_in="process")
def meet_a_thread(ctx: Context) -> None:
    _pause.set()
    _left[0].join()
    threading.Event().wait(0.3)  # its note has been sent


_pause = threading.Event()
_left: list[threading.Thread] = []


async def test_what_a_left_thread_tells_counts_for_no_other_job() -> None:
    app = App(tasks=[leave_a_thread_behind, meet_a_thread], processes=1)
    async with app:
        first = await leave_a_thread_behind.enqueue("first")
        await first
        second = await meet_a_thread.enqueue()
        await second

        assert told((await first.record()).progress) == (1, None, "first")
        assert (await second.record()).progress is None


async def test_a_further_attempt_begins_without_progress_and_a_failed_one_keeps_it() -> None:
    app, seen = App(), []

    @app.task(retry=2)
    async def work(ctx: Context) -> None:
        seen.append(told((await job.record()).progress))
        ctx.progress(ctx.attempt)
        raise ValueError("no")

    async with app.testing(raise_errors=False) as t:
        job = await app.enqueue(work)
        await t.advance("1h")
        with pytest.raises(JobFailed):
            await job

        assert seen == [None, None]
        assert told((await job.record()).progress) == (2, None, None)


async def test_what_is_told_last_is_kept_also_when_something_is_just_being_written(url: str | None) -> None:
    app = App(url, workers=100)

    @app.task()
    async def work(ctx: Context, number: int) -> None:
        ctx.progress(1)
        await asyncio.sleep(0.25 + number / 4000)  # the first reports are written then, and the ends come meanwhile
        ctx.progress(2)

    async with app:
        jobs = await work.enqueue_many([(number,) for number in range(100)])
        for job in jobs:
            await job
        records = [await job.record() for job in jobs]

    assert {told(record.progress) for record in records} == {(2, None, None)}


PROGRAM = """
app = App("sqlite:///jobs.db")

@app.task(name="work")
async def work(ctx: Context):
    for number in range(50_000):
        ctx.progress(number, 50_000)
        if number % 100 == 0:
            await asyncio.sleep(0)
    say("half")
    await wait_for("go")
"""


def test_progress_of_a_job_in_another_process_comes_in_time(tmp_path: Path) -> None:
    with Fleet(tmp_path, PROGRAM) as fleet:
        (job_id,) = fleet.enqueue("work")
        fleet.start()
        fleet.wait_said("half")
        fleet.wait_until(lambda: told(fleet.job(job_id).progress) == (49_999, 50_000, None), "the progress")
        fleet.touch("go")
        fleet.wait_states(succeeded=1)

        assert told(fleet.job(job_id).progress) == (49_999, 50_000, None)


# --- how often it is written ---------------------------------------------------------------------------------------


async def test_however_much_is_told_the_store_is_asked_four_times_a_second() -> None:
    clock, due = HandClock(), []
    reports = Reports(clock, lambda: due.append([context.take() for context in reports.take()]))
    one, two = (Context(job_id=name, task="t") for name in ("one", "two"))
    for context in (one, two):
        context.listen(reports.tell, clock.now)
    for number in range(16):
        one.progress(number)
        two.progress(number, 16)
        clock.advance(1 / 16)
    reports.close()

    assert [[said[0] for said in some if said is not None] for some in due] == [[3, 3], [7, 7], [11, 11], [15, 15]]


async def test_what_a_thread_tells_is_heard_on_the_loop_and_nothing_of_it_is_lost(wait_until: WaitUntil) -> None:
    taken: list[float] = []
    reports = Reports(SystemClock(), lambda: None)
    context = Context(job_id="one", task="t")
    context.listen(reports.tell, SystemClock().now)

    def work() -> None:
        for number in range(20_000):
            context.progress(number)

    thread = threading.Thread(target=work)
    thread.start()

    def newest() -> bool:
        for heard in reports.take():
            said = heard.take()
            taken.append(said[0] if said is not None else -1)
        return bool(taken) and taken[-1] == 19_999

    await wait_until(newest)
    thread.join()
    reports.close()

    assert taken == sorted(taken)


# --- what may be told ------------------------------------------------------------------------------------------------


class Step(IntEnum):
    HALF = 5


@pytest.mark.parametrize(
    ("given", "kept"),
    [(0, 0), (2**63 - 1, 2**63 - 1), (0.5, 0.5), (Fraction(1, 4), 0.25), (Decimal("1.5"), 1.5), (Step.HALF, 5)],
)
def test_numbers_of_all_kinds_are_kept_as_plain_ones(given: Any, kept: float) -> None:
    context = Context(job_id="j", task="t")
    context.listen(lambda context: None, lambda: datetime(2026, 1, 1, tzinfo=UTC))
    context.progress(given, given)
    progress = progress_of(context)

    assert progress is not None
    assert (type(progress.done), progress.done, progress.total) == (type(kept), kept, kept)
    assert Progress.from_json(progress.to_json()) == progress


@pytest.mark.parametrize("value", [-1, 2**63, float("nan"), float("inf"), -0.5, True, "7", b"7", None, [1], 10**400])
def test_what_is_no_amount_is_refused(value: Any) -> None:
    context = Context(job_id="j", task="t")
    for option, amounts in (("done", [value]), ("total", [1, value])):
        if amounts == [1, None]:
            continue
        with pytest.raises(InvalidOption) as refused:
            context.progress(*amounts)
        assert str(refused.value) == str(InvalidOption(option, "a number from 0 to 2**63", value))
    with pytest.raises(InvalidOption) as no_text:
        context.progress(1, message=7)  # type: ignore[arg-type]
    assert str(no_text.value) == "message must be a text, got 7"


def test_a_long_message_is_cut() -> None:
    context = Context(job_id="j", task="t")
    context.progress(1, message="x" * 501)
    said = context.take()

    assert said is not None
    assert said[2] == "x" * 499 + "\u2026"


def test_outside_of_an_app_it_does_nothing_and_a_stray_copy_says_so() -> None:
    context = Context(job_id="j", task="t")
    context.progress(1)
    copy: Context = pickle.loads(pickle.dumps(context))
    with pytest.raises(NotRunning) as refused:
        copy.progress(1)

    assert str(refused.value) == "progress of a job cannot be told here: its app knows nothing of this process"
