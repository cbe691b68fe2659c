from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import logging
import os
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tickwork import Pool, PoolJob
from tickwork.errors import (
    InvalidOption,
    InvalidPayload,
    JobCancelled,
    JobSaved,
    JobTimedOut,
    NotImportable,
    NotRunning,
    ProcessDied,
    QueueFull,
)
from tickwork.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


async def double(number: int) -> int:
    return number * 2


def double_plainly(number: int) -> int:
    return number * 2


async def wait_for(event: asyncio.Event) -> str:
    await event.wait()
    return "waited"


async def fail(text: str) -> None:
    raise ValueError(text)


def die() -> None:
    os._exit(7)


def sit_still(seconds: float) -> None:
    time.sleep(seconds)


def pid() -> int:
    return os.getpid()


class Gate:
    """A coroutine function that says when it began and waits to be let go."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.open = asyncio.Event()

    async def __call__(self) -> str:
        self.begun.set()
        await self.open.wait()
        return "through"


def forget_other_jobs(caplog: pytest.LogCaptureFixture) -> None:
    """Let jobs of other tests, which nobody asked about, say so before this one begins."""
    gc.collect()
    caplog.clear()


# -- results ---------------------------------------------------------------------------------------------


async def test_a_coroutine_function_runs_on_the_loop() -> None:
    async with Pool(2) as pool:
        job = await pool.submit(double, 21)

        assert await job.result() == 42
        assert await job == 42


async def test_a_plain_function_runs_in_a_daemon_thread() -> None:
    async with Pool(2) as pool:
        thread = await (await pool.submit(threading.current_thread))

    assert thread is not threading.current_thread()
    assert thread.daemon
    assert thread.name.startswith("tickwork-thread-")


async def test_run_in_process_runs_in_a_child() -> None:
    async with Pool(2, run_in="process", processes=1) as pool:
        assert await (await pool.submit(pid)) != os.getpid()
        assert await (await pool.submit(double_plainly, 4)) == 8


async def test_run_in_loop_calls_a_plain_function_in_the_loops_thread() -> None:
    async with Pool(1, run_in="loop") as pool:
        assert await (await pool.submit(threading.get_ident)) == threading.get_ident()


async def test_a_plain_function_that_makes_a_coroutine_has_it_run() -> None:
    async with Pool(1) as pool:
        assert await (await pool.submit(lambda: double(4))) == 8


async def test_callable_objects_and_partials_are_told_apart_by_what_they_give() -> None:
    from functools import partial

    gate = Gate()
    gate.open.set()
    async with Pool(1) as pool:
        assert await (await pool.submit(gate)) == "through"
        assert await (await pool.submit(partial(double, 3))) == 6
        assert await (await pool.submit(partial(double_plainly, 3))) == 6


async def test_results_come_to_their_own_jobs_whatever_the_order_of_the_ends() -> None:
    async def later(number: int) -> int:
        for _ in range(10 - number):
            await asyncio.sleep(0)
        return number

    async with Pool(4) as pool:
        jobs = [await pool.submit(later, number) for number in range(10)]

        assert [await job for job in jobs] == list(range(10))


async def test_the_jobs_exception_is_raised_with_its_own_traceback_each_time() -> None:
    async with Pool(1) as pool:
        job = await pool.submit(fail, "no such customer")

        for _ in range(2):
            with pytest.raises(ValueError, match="^no such customer$") as raised:
                await job.result()
            names = [entry.name for entry in raised.traceback]
            assert names[-1] == "fail"
            assert names.count("fail") == 1


@pytest.mark.parametrize("error", [SystemExit(3), RecursionError("deep"), MemoryError("large"), GeneratorExit()])
@pytest.mark.parametrize("run_in", ["loop", "thread"])
async def test_a_job_that_raises_any_exception_fails_alone(error: BaseException, run_in: Any) -> None:
    async def raise_it() -> None:
        raise error

    def raise_plainly() -> None:
        raise error

    async with Pool(1) as pool:
        job = await pool.options(run_in=run_in).submit(raise_it if run_in == "loop" else raise_plainly)
        with pytest.raises(type(error)):
            await job
        assert await (await pool.submit(double, 1)) == 2


async def test_a_failure_that_nobody_asks_for_is_logged_once_with_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    forget_other_jobs(caplog)
    async with Pool(1) as pool:
        await pool.submit(fail, "unseen")
        await pool.join()
        gc.collect()

    records = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [record.getMessage() for record in records] == [
        "<PoolJob 1 fail failed> failed and nobody asked for its result"
    ]
    assert records[0].exc_info is not None


async def test_a_failure_that_was_asked_for_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    forget_other_jobs(caplog)
    async with Pool(1) as pool:
        job = await pool.submit(fail, "seen")
        with pytest.raises(ValueError, match="seen"):
            await job
        del job
        gc.collect()

    assert not [record for record in caplog.records if record.name.startswith("tickwork")]


async def test_waiting_too_long_for_a_result_cancels_nothing() -> None:
    gate = Gate()
    async with Pool(1) as pool:
        job = await pool.submit(gate)
        await gate.begun.wait()
        with pytest.raises(TimeoutError, match=r"^<PoolJob 1 .* running> has not ended within 0\.01 s; it goes on$"):
            await job.result(timeout=0.01)
        gate.open.set()

        assert await job == "through"


async def test_a_job_that_waits_for_itself_is_told_so() -> None:
    jobs: list[PoolJob[Any]] = []

    async def wait_for_me() -> None:
        await jobs[0].result()

    async with Pool(1) as pool:
        jobs.append(await pool.submit(wait_for_me))
        with pytest.raises(NotRunning, match="waits for its own result"):
            await jobs[0]


async def test_an_ended_job_and_an_idle_worker_keep_nothing_alive() -> None:
    class Large:
        pass

    async def take(large: Large) -> Large:
        return large

    async with Pool(2) as pool:
        large = Large()
        gone = weakref.ref(large)
        job = await pool.submit(take, large)
        await job
        plain = await pool.options(run_in="thread").submit(lambda one: one, large)
        await plain
        del large, job, plain
        gc.collect()

        assert gone() is None


# -- context variables -----------------------------------------------------------------------------------


async def test_a_job_sees_the_variables_as_they_were_at_submit() -> None:
    async def look() -> str:
        await asyncio.sleep(0)
        return variable.get()

    async with Pool(1) as pool:
        variable.set("first")
        first = await pool.submit(look)
        plain = await pool.submit(variable.get)
        variable.set("second")

        assert await first == "first"
        assert await plain == "first"


async def test_a_variable_set_in_a_job_stays_in_it() -> None:
    async def change(value: str) -> tuple[str, str]:
        before = variable.get()
        variable.set(value)
        await asyncio.sleep(0)
        return before, variable.get()

    async with Pool(1) as pool:
        jobs = [await pool.submit(change, value) for value in ("a", "b")]

        assert [await job for job in jobs] == [("unset", "a"), ("unset", "b")]
        assert variable.get() == "unset"


# -- the buffer ------------------------------------------------------------------------------------------


async def test_submit_waits_while_the_buffer_is_full_and_submit_nowait_raises() -> None:
    gate = Gate()
    async with Pool(1, buffer=1) as pool:
        running = await pool.submit(gate)
        await gate.begun.wait()
        waiting = await pool.submit(double, 1)
        with pytest.raises(QueueFull) as full:
            pool.submit_nowait(double, 2)
        producer = asyncio.ensure_future(pool.submit(double, 3))
        await asyncio.sleep(0)
        assert not producer.done()
        gate.open.set()

        assert [await running, await waiting, await (await producer)] == ["through", 2, 6]
    assert str(full.value) == ("the pool's buffer is full (1 entries); use `await pool.submit(...)` to wait for room")


async def test_a_cancelled_submit_has_submitted_nothing() -> None:
    gate, ran = Gate(), list[int]()
    async with Pool(1, buffer=1) as pool:
        await pool.submit(gate)
        await gate.begun.wait()
        await pool.submit(double, 1)
        producer = asyncio.ensure_future(pool.submit(ran.append, 1))
        await asyncio.sleep(0)
        producer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await producer
        gate.open.set()
        await pool.join()

        assert pool.stats().done == 2
    assert ran == []


async def test_a_job_that_submits_to_its_own_full_pool_is_refused_instead_of_waiting_for_itself() -> None:
    async def spawn(pool: Pool) -> None:
        for number in range(3):
            await pool.submit(double, number)

    async with Pool(1, buffer=1) as pool:
        with pytest.raises(QueueFull, match="may wait for ever"):
            await (await pool.submit(spawn, pool))


async def test_a_child_task_of_a_job_is_refused_likewise() -> None:
    async def spawn(pool: Pool) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(pool.submit(double, number))

    async with Pool(1, buffer=1) as pool:
        with pytest.raises(ExceptionGroup) as raised:
            await (await pool.submit(spawn, pool))
    assert all(isinstance(error, QueueFull) for error in raised.value.exceptions)


class Nameless:
    """A callable that cannot be described."""

    def __call__(self) -> None:
        raise ValueError("failed")

    def __repr__(self) -> str:
        raise RuntimeError("no name")


async def test_a_function_that_cannot_be_described_fails_like_any_other(tmp_path: Path) -> None:
    async with Blocked() as pool:
        job = await pool.submit(Nameless())
        saved = await pool.save(tmp_path / "jobs.json")
        assert [entry for entry, _ in saved.not_saved] == [job]
        blocked = pool
    with pytest.raises(ValueError, match="failed"):
        await job
    assert blocked.stats().failed == 1


async def test_a_wrapped_coroutine_function_keeps_its_timeout() -> None:
    def wrapper() -> Any:
        return asyncio.sleep(3600)

    async with Pool(1, timeout=0.02) as pool:
        with pytest.raises(JobTimedOut):
            await (await pool.submit(wrapper))
        assert await (await pool.submit(double, 1)) == 2


async def test_jobs_start_in_the_order_of_submission() -> None:
    order: list[int] = []

    async def note(number: int) -> None:
        order.append(number)

    async with Pool(3, buffer=5) as pool:
        for number in range(50):
            await pool.submit(note, number)
        await pool.join()

    assert order == list(range(50))


async def test_jobs_that_never_wait_leave_turns_to_the_loop() -> None:
    ran = most = 0

    async def spin() -> None:
        nonlocal ran
        ran += 1
        end = time.perf_counter() + 0.001
        while time.perf_counter() < end:
            pass

    async def watch() -> None:
        nonlocal most
        while True:
            before = ran
            await asyncio.sleep(0)
            most = max(most, ran - before)

    async with Pool(1, buffer=200) as pool:
        watcher = asyncio.ensure_future(watch())
        for _ in range(200):
            await pool.submit(spin)
        await pool.join()
        watcher.cancel()

    assert ran == 200
    assert 0 < most < 50  # so many between two turns of the loop; half a dozen is usual


# -- cancellation and timeout ----------------------------------------------------------------------------


async def test_cancelling_a_running_job_ends_it_and_spares_its_worker() -> None:
    gate = Gate()
    async with Pool(1) as pool:
        job = await pool.submit(gate)
        await gate.begun.wait()

        assert job.cancel()
        assert not job.cancel()
        with pytest.raises(JobCancelled, match=r"^job 1 \(.*\) was cancelled$"):
            await job
        assert await (await pool.submit(double, 1)) == 2
        assert pool.stats().cancelled == 1


async def test_cancelling_a_waiting_job_frees_its_place() -> None:
    gate = Gate()
    async with Pool(1, buffer=1) as pool:
        await pool.submit(gate)
        await gate.begun.wait()
        waiting = await pool.submit(double, 1)
        producer = asyncio.ensure_future(pool.submit(double, 2))
        await asyncio.sleep(0)

        assert waiting.cancel()
        job = await producer
        with pytest.raises(JobCancelled):
            await waiting
        gate.open.set()
        assert await job == 4


async def test_a_job_that_cancels_itself_and_returns_does_not_hurt_the_next() -> None:
    jobs: list[PoolJob[Any]] = []

    async def cancel_me() -> str:
        jobs[0].cancel()
        return "returned"

    async with Pool(1) as pool:
        jobs.append(await pool.submit(cancel_me))

        assert await jobs[0] == "returned"
        assert await (await pool.submit(double, 1)) == 2


async def test_a_job_that_cancels_its_own_task_costs_the_pool_no_worker() -> None:
    async def cancel_task() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(3600)

    async with Pool(1) as pool:
        for _ in range(3):
            with pytest.raises(JobCancelled):
                await (await pool.submit(cancel_task))
        assert await (await pool.submit(double, 1)) == 2


async def test_a_job_that_suppresses_its_own_cancellation_leaves_none_to_the_next() -> None:
    async def cancel_task() -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            return "suppressed"
        return "never"

    async def fail_in_group() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail("in a group"))

    async with Pool(1) as pool:
        assert await (await pool.submit(cancel_task)) == "suppressed"
        with pytest.raises(ExceptionGroup):
            await (await pool.submit(fail_in_group))


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
async def test_eager_tasks_change_nothing() -> None:
    loop = asyncio.get_running_loop()
    if sys.version_info >= (3, 12):  # said once more, for the type checker
        loop.set_task_factory(asyncio.eager_task_factory)
    try:
        async with Pool(2, cancel_seconds=0.02) as pool:
            gate = Gate()
            job = await pool.submit(gate)
            await gate.begun.wait()
            job.cancel()
            with pytest.raises(JobCancelled):
                await job
            assert [await (await pool.submit(double, number)) for number in range(5)] == [0, 2, 4, 6, 8]
    finally:
        loop.set_task_factory(None)


@pytest.mark.parametrize("body", ["await asyncio.sleep(3600)", "try: await asyncio.sleep(3600)\n    finally: return 1"])
async def test_a_program_that_is_torn_down_amid_jobs_ends(body: str) -> None:
    script = (
        "import asyncio\n"
        "from tickwork import Pool\n"
        "async def job():\n"
        f"    {body}\n"
        "async def main():\n"
        "    pool = await Pool(2).__aenter__()\n"
        "    await pool.submit(job)\n"
        "    await asyncio.sleep(0.01)\n"
        "asyncio.run(main())\n"
        "print('over')\n"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
    out, _ = await asyncio.wait_for(process.communicate(), 30)

    assert (process.returncode, out) == (0, b"over\n")


async def test_a_job_whose_inner_task_is_cancelled_is_cancelled_alone() -> None:
    async def await_cancelled() -> None:
        task = asyncio.ensure_future(asyncio.sleep(3600))
        asyncio.get_running_loop().call_soon(task.cancel)
        await task

    async with Pool(1) as pool:
        with pytest.raises(JobCancelled):
            await (await pool.submit(await_cancelled))
        assert await (await pool.submit(double, 1)) == 2


async def test_a_job_may_clean_up_and_suppress_its_cancellation() -> None:
    gate = Gate()

    async def stubborn() -> str:
        try:
            await gate()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            return "cleaned up"
        return "never"

    async with Pool(1) as pool:
        job = await pool.submit(stubborn)
        await gate.begun.wait()
        job.cancel()

        assert await job == "cleaned up"
        assert await (await pool.submit(double, 1)) == 2


async def test_timeouts_inside_a_job_still_work_after_another_was_cancelled() -> None:
    gate = Gate()

    async def inner() -> str:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(3600)
        except TimeoutError:
            pass
        async with asyncio.TaskGroup() as group:
            task = group.create_task(double(4))
        return f"timed out, then {task.result()}"

    async with Pool(1) as pool:
        job = await pool.submit(gate)
        await gate.begun.wait()
        job.cancel()

        assert await (await pool.submit(inner)) == "timed out, then 8"


async def test_a_timeout_cancels_the_job_and_says_how_long_it_was() -> None:
    cleaned: list[bool] = []

    async def slow() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            cleaned.append(True)

    async with Pool(1, timeout="20ms") as pool:
        job = await pool.submit(slow)
        with pytest.raises(JobTimedOut) as raised:
            await job
        assert str(raised.value).endswith("slow) ran longer than its timeout of 0.02 s")
        assert isinstance(raised.value, TimeoutError)
        assert cleaned == [True]
        assert await (await pool.submit(double, 1)) == 2
        assert pool.stats().failed == 1


async def test_each_job_keeps_its_own_timeout() -> None:
    async def sleep(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "done"

    async with Pool(3) as pool:
        long = await pool.options(timeout=30).submit(sleep, 0.05)
        short = await pool.options(timeout=0.02).submit(sleep, 3600)
        middle = await pool.options(timeout=0.04).submit(sleep, 3600)

        with pytest.raises(JobTimedOut):
            await middle
        with pytest.raises(JobTimedOut):
            await short
        assert await long == "done"


async def test_a_timeout_in_a_thread_fails_the_waiter_now_and_keeps_the_worker_until_the_thread_ends() -> None:
    go, ended = threading.Event(), threading.Event()

    def sit() -> None:
        go.wait(10)
        ended.set()

    async with Pool(1) as pool:
        job = await pool.options(timeout=0.02).submit(sit)
        with pytest.raises(JobTimedOut):
            await job
        following = await pool.submit(double, 1)
        with pytest.raises(TimeoutError):
            await following.result(timeout=0.02)
        assert not ended.is_set()
        go.set()

        assert await following == 2
        assert pool.stats().failed == 1


async def test_a_timeout_in_a_process_kills_the_child() -> None:
    async with Pool(1, run_in="process", processes=1) as pool:
        first = await (await pool.submit(pid))
        with pytest.raises(JobTimedOut):
            await (await pool.options(timeout=0.1, run_in="process").submit(sit_still, 3600))
        assert await (await pool.submit(pid)) != first


async def test_a_job_that_ignores_its_cancellation_is_abandoned_and_its_worker_replaced(
    caplog: pytest.LogCaptureFixture,
) -> None:
    begun = asyncio.Event()

    async def ignore() -> None:
        while True:
            begun.set()
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                pass

    async with Pool(1, cancel_seconds=0.02) as pool:
        job = await pool.submit(ignore)
        await begun.wait()
        job.cancel()
        with pytest.raises(JobCancelled):
            await job
        assert await (await pool.submit(double, 1)) == 2
    assert "ignored its cancellation for 0.02 s and is abandoned" in caplog.text


async def test_a_job_that_waits_for_a_task_which_ignores_cancellation_is_abandoned() -> None:
    release = asyncio.Event()
    begun = asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            begun.set()
            try:
                await release.wait()
            except asyncio.CancelledError:
                pass

    inner: list[asyncio.Task[None]] = []

    async def wait() -> None:
        inner.append(asyncio.ensure_future(stubborn()))
        await inner[0]

    async with Pool(1, cancel_seconds=0.02) as pool:
        job = await pool.submit(wait)
        await begun.wait()
        job.cancel()
        with pytest.raises(JobCancelled):
            await job
        assert await (await pool.submit(double, 1)) == 2
        release.set()
        await inner[0]


async def test_a_child_that_dies_costs_its_job_only() -> None:
    async with Pool(2, run_in="process", processes=1) as pool:
        with pytest.raises(ProcessDied, match="with exit status 7 while it ran 'die'"):
            await (await pool.submit(die))
        assert await (await pool.submit(double_plainly, 2)) == 4


# -- life ------------------------------------------------------------------------------------------------


async def test_leaving_the_block_waits_for_everything() -> None:
    ended: list[int] = []

    async def note(number: int) -> None:
        await asyncio.sleep(0)
        ended.append(number)

    async with Pool(2) as pool:
        for number in range(20):
            await pool.submit(note, number)

    assert sorted(ended) == list(range(20))


async def test_leaving_the_block_with_an_exception_cancels_what_runs_and_what_waits() -> None:
    gate = Gate()
    jobs: list[PoolJob[Any]] = []
    with pytest.raises(KeyError):
        async with Pool(1) as pool:
            jobs.append(await pool.submit(gate))
            await gate.begun.wait()
            jobs.append(await pool.submit(double, 1))
            raise KeyError("given up")

    for job in jobs:
        with pytest.raises(JobCancelled):
            await job


async def test_cancelling_the_block_cancels_its_jobs() -> None:
    gate = Gate()

    async def use() -> None:
        async with Pool(1) as pool:
            await pool.submit(gate)

    task = asyncio.ensure_future(use())
    await gate.begun.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_producer_that_waits_while_the_pool_closes_is_told() -> None:
    gate = Gate()
    producers: list[asyncio.Future[Any]] = []
    with pytest.raises(KeyError):
        async with Pool(1, buffer=1) as pool:
            await pool.submit(gate)
            await gate.begun.wait()
            await pool.submit(double, 1)
            producers.append(asyncio.ensure_future(pool.submit(double, 2)))
            await asyncio.sleep(0)
            raise KeyError("given up")

    with pytest.raises(NotRunning, match="closed while .* waited for room; it will not run"):
        await producers[0]


async def test_join_waits_for_what_is_submitted_and_can_be_cancelled() -> None:
    gate = Gate()
    async with Pool(1) as pool:
        job = await pool.submit(gate)
        joining = asyncio.ensure_future(pool.join())
        await gate.begun.wait()
        joining.cancel()
        with pytest.raises(asyncio.CancelledError):
            await joining
        gate.open.set()
        await pool.join()

        assert job.is_done()


async def test_stats_count_what_happened() -> None:
    gate = Gate()
    async with Pool(2) as pool:
        await (await pool.submit(double, 1))
        failing = await pool.submit(fail, "x")
        with pytest.raises(ValueError, match="x"):
            await failing
        blocked = [await pool.submit(gate) for _ in range(2)]
        await gate.begun.wait()
        await asyncio.sleep(0)
        waiting = await pool.submit(double, 1)
        stats = pool.stats()
        gate.open.set()
        for job in blocked:
            await job
        await waiting

    assert (stats.pending, stats.running, stats.workers) == (1, 2, 2)
    assert (stats.done, stats.failed, stats.cancelled) == (1, 1, 0)
    assert pool.stats().done == 4
    assert pool.stats().busy_seconds > 0


async def test_a_pool_outside_its_block_refuses_jobs() -> None:
    pool = Pool()
    for call in (pool.join, lambda: pool.submit(double, 1)):
        with pytest.raises(NotRunning, match=r"^the pool is not running; use `async with Pool\(...\) as pool`$"):
            await call()
    async with pool:
        pass
    with pytest.raises(NotRunning):
        await pool.submit(double, 1)
    with pytest.raises(NotRunning, match="entered once"):
        await pool.__aenter__()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Pool(0), "workers must be a whole number of at least 1, got 0"),
        (lambda: Pool(True), "workers must be a whole number of at least 1, got True"),
        (lambda: Pool(buffer=-1), "buffer must be a whole number of at least 1, got -1"),
        (lambda: Pool(processes=0), "processes must be a whole number of at least 1 or Processes(...), got 0"),
        (
            lambda: Pool(run_in="fork"),  # type: ignore[arg-type]
            "run_in must be one of None, 'loop', 'thread', 'process', 'executor', got 'fork'",
        ),
    ],
)
def test_options_out_of_range_are_refused(make: Callable[[], Pool], message: str) -> None:
    with pytest.raises(InvalidOption) as raised:
        make()

    assert str(raised.value) == message


async def test_what_is_not_a_function_or_cannot_be_imported_is_refused_at_submit() -> None:
    def nested() -> None: ...

    async with Pool(1) as pool:
        with pytest.raises(InvalidOption, match="^fn must be a function, got 3$"):
            await pool.submit(3)  # type: ignore[call-overload]
        for fn in (nested, lambda: None):
            with pytest.raises(NotImportable, match="cannot be imported by name"):
                await pool.options(run_in="process").submit(fn)


# -- save and load ---------------------------------------------------------------------------------------

kept: list[Any] = []


async def keep(value: Any) -> None:
    kept.append(value)


async def keep_number(number: int) -> None:
    kept.append(number)


class Blocked:
    """A pool of one worker that is busy, so that everything submitted waits."""

    def __init__(self, buffer: int = 100) -> None:
        self.pool = Pool(1, buffer=buffer)
        self.gate = Gate()

    async def __aenter__(self) -> Pool:
        kept.clear()
        await self.pool.__aenter__()
        await self.pool.submit(self.gate)
        await self.gate.begun.wait()
        return self.pool

    async def __aexit__(self, *error: Any) -> None:
        self.gate.open.set()
        await self.pool.__aexit__(*error)


async def test_saved_jobs_leave_the_pool_and_run_where_they_are_loaded(tmp_path: Path) -> None:
    path = tmp_path / "jobs.json"
    async with Blocked() as pool:
        jobs = [await pool.options(timeout=9).submit(keep, value) for value in (1, "two", {"three": [3, None]})]
        waiter = asyncio.ensure_future(jobs[0].result())
        await asyncio.sleep(0)
        saved = await pool.save(path)

        assert saved.jobs == jobs
        assert saved.not_saved == []
        assert len(saved.running) == 1
        assert [job.state for job in jobs] == ["saved"] * 3
        assert pool.stats().pending == 0
        with pytest.raises(JobSaved) as raised:
            await waiter
        assert str(raised.value) == f"job 2 (keep) was saved to {str(path)!r} before it started; Pool.load runs it"
    assert kept == []

    async with Pool(1) as pool:
        loaded = await pool.load(path)
        assert [job.timeout for job in loaded.jobs] == [9, 9, 9]
    assert kept == [1, "two", {"three": [3, None]}]
    assert list(tmp_path.iterdir()) == []


async def test_what_cannot_be_saved_stays_in_its_order_and_runs(tmp_path: Path) -> None:
    async with Blocked() as pool:
        odd = await pool.submit(keep, object())
        even = await pool.submit(keep, 2)
        unnamed = await pool.submit(lambda: kept.append("lambda"))
        saved = await pool.save(tmp_path / "jobs.json")

        assert saved.jobs == [even]
        assert [job for job, _ in saved.not_saved] == [odd, unnamed]
        assert "keep(value)" in saved.not_saved[0][1]
        assert "lambda" in saved.not_saved[1][1]
    assert [type(value) for value in kept] == [object, str]


async def test_a_save_with_keep_is_a_copy_that_may_be_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "jobs.json"
    async with Blocked() as pool:
        job = await pool.submit(keep, 1)
        for _ in range(2):
            saved = await pool.save(path, keep=True)
            assert saved.jobs == [job]
    assert kept == [1]
    assert len(json.loads(path.read_text())["entries"]) == 1


async def test_saved_jobs_are_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "jobs.json"
    async with Blocked() as pool:
        await pool.submit(keep, 1)
        await pool.save(path)
        before = path.read_bytes()
        second = await pool.submit(keep, 2)
        for keep_them in (False, True):
            with pytest.raises(FileExistsError, match="already holds saved jobs; load them first"):
                await pool.save(path, keep=keep_them)

        assert path.read_bytes() == before
        assert second.state == "queued"
    assert kept == [2]


async def test_of_two_saves_to_one_path_at_once_one_is_refused_and_keeps_its_jobs(tmp_path: Path) -> None:
    path = tmp_path / "jobs.json"
    async with Blocked() as one, Pool(1) as other:
        await one.submit(keep, "one")
        gate = Gate()
        await other.submit(gate)
        await gate.begun.wait()
        await other.submit(keep, "other")
        ends = await asyncio.gather(one.save(path), other.save(path), return_exceptions=True)
        gate.open.set()
    async with Pool(1) as pool:
        await pool.load(path)

    assert sorted(type(end).__name__ for end in ends) == ["FileExistsError", "Saved"]
    assert sorted(kept) == ["one", "other"]
    assert list(tmp_path.iterdir()) == []


async def test_a_load_that_cannot_give_the_file_back_says_where_the_jobs_are(tmp_path: Path) -> None:
    path = tmp_path / "jobs.json"
    async with Blocked() as pool:
        await pool.submit(keep, 1)
        await pool.save(path)
    claimed, entries = await Snapshot(path).claim()
    path.write_text("somebody else's")

    with pytest.raises(FileExistsError) as raised:
        await claimed.give_back(Snapshot(path))

    assert str(claimed.path) in str(raised.value)
    assert len(entries) == 1
    assert path.read_text() == "somebody else's"


async def test_a_save_that_fails_puts_every_job_back_in_its_place(tmp_path: Path) -> None:
    async with Blocked() as pool:
        for value in range(3):
            await pool.submit(keep, value)
        with pytest.raises(FileNotFoundError):
            await pool.save(tmp_path / "missing" / "jobs.json")
        await pool.submit(keep, 3)
    assert kept == [0, 1, 2, 3]


async def test_a_failed_save_of_a_full_buffer_keeps_the_order_before_waiting_producers(tmp_path: Path) -> None:
    async with Blocked(buffer=2) as pool:
        for value in range(2):
            await pool.submit(keep, value)
        producer = asyncio.ensure_future(pool.submit(keep, 2))
        await asyncio.sleep(0)
        with pytest.raises(FileNotFoundError):
            await pool.save(tmp_path / "missing" / "jobs.json")
        await producer
    assert kept == [0, 1, 2]


@pytest.mark.parametrize("steps", range(0, 40, 3))
async def test_a_save_cut_off_anywhere_leaves_each_job_in_exactly_one_place(tmp_path: Path, steps: int) -> None:
    path = tmp_path / "jobs.json"
    async with Blocked() as pool:
        for value in range(5):
            await pool.submit(keep, value)
        saving = asyncio.ensure_future(pool.save(path))
        for _ in range(steps):
            await asyncio.sleep(0)
        saving.cancel()
        try:
            await saving
        except asyncio.CancelledError:
            pass
    if path.exists():
        async with Pool(1) as pool:
            await pool.load(path)

    assert sorted(kept) == list(range(5))
    assert list(tmp_path.iterdir()) == []


async def test_entries_that_cannot_be_taken_are_named_and_go_back_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "jobs.json"
    async with Blocked() as pool:
        await pool.submit(keep, 1)
        await pool.submit(keep_number, 2)
        await pool.submit(keep_number, 3)
        await pool.save(path)
    content = json.loads(path.read_text())
    content["entries"][0]["function"]["qualname"] = "gone"
    content["entries"][1]["payload"]["number"] = "two"
    path.write_text(json.dumps(content))

    async with Pool(1) as pool:
        loaded = await pool.load(path)

    assert kept == [3]
    assert len(loaded.jobs) == 1
    (_, gone), (_, misfit) = loaded.not_loaded
    assert "gone" in gone
    assert "keep_number(number): expected int" in misfit
    assert len(json.loads(path.read_text())["entries"]) == 2


async def test_two_loads_of_one_file_take_it_once(tmp_path: Path) -> None:
    path = tmp_path / "jobs.json"
    async with Blocked() as pool:
        await pool.submit(keep, 1)
        await pool.save(path)

    async with Pool(1) as one, Pool(1) as other:
        ends = await asyncio.gather(one.load(path), other.load(path), return_exceptions=True)

    assert sorted(type(end).__name__ for end in ends) == ["FileNotFoundError", "Loaded"]
    assert kept == [1]


async def test_a_load_may_go_beyond_the_buffer_and_comes_first(tmp_path: Path) -> None:
    path = tmp_path / "jobs.json"
    async with Blocked() as pool:
        for value in range(5):
            await pool.submit(keep, value)
        await pool.save(path)

    async with Blocked(buffer=1) as pool:
        await pool.submit(keep, "later")
        await pool.load(path)
    assert kept == [0, 1, 2, 3, 4, "later"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"tickwork": "pool", "version": 99, "entries": []}', "\x00"])
async def test_a_file_that_is_no_saved_pool_is_refused_and_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "jobs.json"
    path.write_text(text)
    async with Pool(1) as pool:
        with pytest.raises(InvalidPayload, match="not a file of a saved pool"):
            await pool.load(path)

    assert path.read_text() == text
    assert list(tmp_path.iterdir()) == [path]


async def test_loading_a_missing_file_names_claims_that_were_left_behind(tmp_path: Path) -> None:
    left = tmp_path / "jobs.json.claimed-1-abcd"
    left.touch()
    async with Pool(1) as pool:
        with pytest.raises(FileNotFoundError) as raised:
            await pool.load(tmp_path / "jobs.json")

    assert str(raised.value) == (
        f"no saved pool at {str(tmp_path / 'jobs.json')!r}; claimed by a load that may have died: {left}"
    )


async def test_a_job_that_is_being_saved_cannot_be_cancelled_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "jobs.json"
    async with Blocked() as pool:
        job = await pool.submit(keep, 1)
        saving = asyncio.ensure_future(pool.save(path))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not job.cancel()
        await saving

        assert job.state == "saved"
