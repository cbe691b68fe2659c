"""An app and a pool whose functions run in an executor of the user's."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path

import pytest

import tickwork
from tickwork import App, Context, JobCancelled, JobFailed, JobTimedOut, Pool
from tickwork.errors import ExecutorFailed, InvalidOption, NotRunning

colour: ContextVar[str] = ContextVar("colour", default="none")


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1, thread_name_prefix="mine") as executor:
        yield executor


def thread_name() -> str:
    return threading.current_thread().name


@tickwork.task(run_in="executor")
def where(ctx: Context) -> tuple[str, str, str]:
    ctx.progress(1, 2)
    return thread_name(), ctx.job_id, Context.current().job_id


# -- an app


async def test_a_task_runs_in_the_executor_of_its_app_with_its_context(executor: Executor) -> None:
    async with App(tasks=[where], executor=executor):
        job = await where.enqueue()
        name, given, current = await job.result()
        progress = (await job.record()).progress

    assert name == "mine_0"
    assert given == current == job.id
    assert progress is not None
    assert (progress.done, progress.total) == (1, 2)
    assert executor.submit(thread_name).result() == "mine_0"  # it was not shut down


async def test_other_tasks_run_where_they_would_without_an_executor(executor: Executor) -> None:
    app = App(executor=executor)

    @app.task()
    def plain() -> str:
        return thread_name()

    async with app:
        assert (await (await plain.enqueue()).result()).startswith("tickwork-thread-")


async def test_an_app_without_the_executor_of_its_tasks_does_not_start() -> None:
    app = App(tasks=[where])

    with pytest.raises(InvalidOption) as raised:
        await app.start()

    assert str(raised.value) == (
        'executor must be given for run_in="executor" of test_executor.where, got None; '
        "use App(executor=...), or set app.executor in the lifespan"
    )
    assert not app.is_running


async def test_a_lifespan_gives_the_executor_and_ends_it_after_the_jobs() -> None:
    executors: list[ThreadPoolExecutor] = []

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        executors.append(ThreadPoolExecutor(1, thread_name_prefix=f"of-lifespan-{len(executors)}"))
        app.executor = executors[-1]
        yield
        executors[-1].shutdown(wait=False)

    app = App(tasks=[where], lifespan=lifespan)
    names = []
    for _ in range(2):
        async with app:
            names.append((await (await where.enqueue()).result())[0])

    assert names == ["of-lifespan-0_0", "of-lifespan-1_0"]
    assert app.failed_count == 0


async def test_the_executor_cannot_be_changed_while_the_app_runs(executor: Executor) -> None:
    app = App(tasks=[where], executor=executor)
    async with app:
        with pytest.raises(NotRunning, match="^the executor cannot be changed: the app has started$"):
            app.executor = None

    app.executor = None
    assert app.executor is None


def test_what_is_no_executor_is_refused() -> None:
    with pytest.raises(InvalidOption, match="^executor must be a concurrent.futures.Executor, got 3$"):
        App(executor=3)  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="^executor must be a concurrent.futures.Executor, got 'x'$"):
        Pool(executor="x")  # type: ignore[arg-type]


async def test_a_job_that_waits_in_the_executor_is_taken_back_by_its_timeout(executor: ThreadPoolExecutor) -> None:
    app, go = App(executor=executor, workers=2), threading.Event()
    ran: list[int] = []

    @app.task(run_in="executor")
    def hold() -> None:
        go.wait()

    @app.task(run_in="executor", timeout="20ms")
    def late() -> None:
        ran.append(1)

    async with app:
        first = await hold.enqueue()
        waiting = await late.enqueue()
        with pytest.raises(JobTimedOut):
            await waiting.result()
        go.set()
        await first.result()

    assert ran == []


async def test_a_job_that_runs_on_after_its_timeout_keeps_its_worker(executor: Executor) -> None:
    app, go = App(executor=executor, workers=1), threading.Event()

    @app.task(run_in="executor", timeout="1s")  # long enough for a thread to take it up
    def hold() -> None:
        go.wait()

    @app.task()
    async def other() -> str:
        return "ran"

    async with app:
        with pytest.raises(JobTimedOut):
            await (await hold.enqueue()).result()
        job = await other.enqueue()
        assert app.running
        assert (await job.record()).state == "queued"
        go.set()
        assert await job.result() == "ran"


async def test_a_cancelled_job_tells_its_waiter_at_once(executor: Executor) -> None:
    app, begun, go = App(executor=executor), threading.Event(), threading.Event()

    @app.task(run_in="executor")
    def hold() -> None:
        begun.set()
        go.wait()

    async with app:
        job = await hold.enqueue()
        await asyncio.to_thread(begun.wait)
        await job.cancel()
        with pytest.raises(JobCancelled):
            await job.result()
        go.set()


async def test_a_stop_leaves_behind_what_runs_in_the_executor(
    executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    app, begun, go = App(executor=executor, cancel_seconds=0.05), threading.Event(), threading.Event()

    @app.task(run_in="executor")
    def hold() -> None:
        begun.set()
        go.wait()

    await app.start()
    job = await hold.enqueue()
    await asyncio.to_thread(begun.wait)
    stopped = await app.stop(drain_seconds=0)
    go.set()

    assert len(stopped.cut) == 1
    assert (
        f"{hold.name} job={job.id} ignored its cancellation for 0.05 s and is abandoned; its executor may let it run on"
    ) in caplog.messages


async def test_a_job_fails_when_its_executor_is_shut_down(executor: Executor) -> None:
    async with App(tasks=[where], executor=executor):
        executor.shutdown()
        with pytest.raises(JobFailed) as raised:
            await (await where.enqueue()).result()

    assert isinstance(raised.value.__cause__, ExecutorFailed)


async def test_an_app_under_test_runs_its_tasks_in_the_executor(executor: Executor) -> None:
    async with App(tasks=[where], executor=executor).testing() as t:
        job = await where.enqueue()
        await t.drain()
        assert (await job.result())[0] == "mine_0"


# -- a pool


async def test_a_pool_with_an_executor_runs_plain_functions_there(executor: Executor) -> None:
    async def on_loop() -> str:
        return thread_name()

    colour.set("red")
    async with Pool(2, executor=executor) as pool:
        assert await (await pool.submit(thread_name)) == "mine_0"
        assert await pool.submit_nowait(thread_name) == "mine_0"
        assert await (await pool.submit(colour.get)) == "red"
        assert await (await pool.submit(on_loop)) == "MainThread"
        assert (await (await pool.options(run_in="thread").submit(thread_name))).startswith("tickwork-thread-")
        assert await (await pool.options(run_in="executor").submit(thread_name)) == "mine_0"


async def test_a_pool_without_an_executor_refuses_what_is_for_one() -> None:
    message = '^executor must be given for run_in="executor", got None; use Pool\\(executor=...\\)$'
    with pytest.raises(InvalidOption, match=message):
        Pool(run_in="executor")
    async with Pool() as pool:
        with pytest.raises(InvalidOption, match=message):
            await pool.options(run_in="executor").submit(thread_name)


async def test_what_is_saved_for_an_executor_is_loaded_where_there_is_one(executor: Executor, tmp_path: Path) -> None:
    go = threading.Event()
    path = tmp_path / "left.json"
    async with Pool(1, executor=executor) as pool:
        await pool.submit(go.wait)
        left = await pool.submit(thread_name)
        assert len((await pool.save(path)).jobs) == 1
        go.set()
        assert left.state == "saved"
    async with Pool(1) as pool:
        loaded = await pool.load(path)
        assert [reason for _, reason in loaded.not_loaded] == [
            'executor must be given for run_in="executor", got None; use Pool(executor=...)'
        ]
    async with Pool(1, executor=executor) as pool:
        loaded = await pool.load(path)
        assert await loaded.jobs[0] == "mine_0"
