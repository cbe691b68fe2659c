"""Jobs of apps and pools in child processes: what kills one costs that job only, and the options arrive."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import psutil
import pytest

from process_jobs import (
    die_while_making,
    end,
    end_task,
    fail_to_make,
    grow,
    grow_task,
    made_task,
    make,
    memory_task,
    pid,
    pid_and_made,
    pid_task,
    talk_plainly,
    talk_task,
    wait_briefly_task,
    wait_for,
    wait_task,
)
from tickwork import App, JobFilter, Pool, Processes
from tickwork.errors import (
    JobCancelled,
    JobFailed,
    JobParked,
    JobTimedOut,
    ProcessDied,
    ProcessNotStarted,
)
from tickwork.jobs import JobState

WaitUntil = Callable[..., Awaitable[None]]

request_id: ContextVar[str] = ContextVar("request_id", default="none")
logger = logging.getLogger("work")


def make_app(processes: int | Processes = 1, **options: Any) -> App:
    app = App(processes=processes, **options)
    app.include(end_task, memory_task, wait_task, wait_briefly_task, talk_task, pid_task, grow_task, made_task)
    return app


async def running(path: Path) -> int:
    """Wait until `wait_for` runs, and return the process id of its child."""
    async with asyncio.timeout(30):
        while True:
            for found in path.parent.glob(f"{path.name}.*"):
                return int(found.suffix[1:])
            await asyncio.sleep(0.005)


# -- the options


async def test_children_are_replaced_after_max_jobs() -> None:
    async with Pool(1, run_in="process", processes=Processes(1, max_jobs=2)) as pool:
        pids = [await (await pool.submit(pid)) for _ in range(5)]

    assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4]

    async with make_app(Processes(1, max_jobs=2)) as app:
        pids = [await (await app.enqueue(pid_task)) for _ in range(5)]

    assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4]


async def test_children_that_have_grown_are_replaced_between_jobs() -> None:
    async with Pool(1, run_in="process", processes=Processes(1, max_memory="80MB")) as pool:
        pids = [await (await pool.submit(fn)) for fn in (pid, pid, grow, pid)]

    assert pids[0] == pids[1] == pids[2] != pids[3]

    async with make_app(Processes(1, max_memory="80MB")) as app:
        pids = [await (await app.enqueue(task)) for task in (pid_task, pid_task, grow_task, pid_task)]

    assert pids[0] == pids[1] == pids[2] != pids[3]


async def test_the_initializer_runs_once_in_each_child() -> None:
    async with Pool(1, run_in="process", processes=Processes(1, initializer=make, max_jobs=2)) as pool:
        told = [await (await pool.submit(pid_and_made)) for _ in range(3)]

    assert [made for _, made in told] == [["made"]] * 3
    assert len({pid for pid, _ in told}) == 2

    async with make_app(Processes(1, initializer=make)) as app:
        assert [(await (await app.enqueue(made_task)))[1] for _ in range(2)] == [["made"]] * 2


@pytest.mark.parametrize(
    ("initializer", "reason"),
    [
        (fail_to_make, "its initializer 'process_jobs:fail_to_make' raised LookupError: no licence"),
        (die_while_making, "process N ended with exit status 9 while it ran 'process_jobs:die_while_making'"),
    ],
)
async def test_an_initializer_that_fails_is_named_to_each_job_and_no_job_is_blamed(
    initializer: Any, reason: str
) -> None:
    message = f"a child process could not be started for the job: {reason}"

    def without_pid(error: BaseException | None) -> str:
        assert isinstance(error, ProcessNotStarted)
        return " ".join("N" if word.isdigit() and len(word) > 1 else word for word in str(error).split(" "))

    async with Pool(3, run_in="process", processes=Processes(2, initializer=initializer)) as pool:
        jobs = [await pool.submit(pid) for _ in range(3)]
        errors = await asyncio.gather(*jobs, return_exceptions=True)
        assert [without_pid(error) for error in errors if isinstance(error, BaseException)] == [message] * 3

    async with make_app(Processes(1, initializer=initializer)) as app:
        job = await app.enqueue(made_task)
        with pytest.raises(JobFailed) as caught:
            await job.result(timeout=30)
        assert without_pid(caught.value.__cause__) == message
        record = await job.record()
        assert (record.state, record.attempt, record.deaths) == (JobState.FAILED, 2, 0)


# -- deaths


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("segfault", "by signal 11"),
        ("exit", "with exit status 7"),
        ("abort", "by signal 6"),
        ("kill", "by signal 9"),
    ],
)
async def test_a_job_whose_process_dies_is_parked_and_named_and_others_notice_nothing(
    how: str, words: str, tmp_path: Path
) -> None:
    async with make_app(2, max_deaths=2) as app:
        beside = await app.enqueue(wait_task, str(tmp_path / "go"))
        await running(tmp_path / "go")
        job = await app.enqueue(end_task, how)
        with pytest.raises(JobParked, match=f"{words} while it ran 'end job={job.id}'"):
            await job.result(timeout=30)

        record = await job.record()
        assert (record.state, record.deaths, record.attempt) == (JobState.PARKED, 2, 0)
        (tmp_path / "go").touch()
        assert await beside.result(timeout=30) > 0
        record = await beside.record()
        assert (record.attempt, record.deaths) == (1, 0)


@pytest.mark.parametrize("how", ["segfault", "exit", "abort", "kill"])
async def test_in_a_pool_the_job_fails_and_others_notice_nothing(how: str, tmp_path: Path) -> None:
    async with Pool(2, run_in="process", processes=2) as pool:
        beside = await pool.submit(wait_for, str(tmp_path / "go"))
        child = await running(tmp_path / "go")
        job = await pool.submit(end, how)
        with pytest.raises(ProcessDied, match="while it ran 'end'"):
            await job
        assert job.state == "lost"

        (tmp_path / "go").touch()
        assert await beside == child


async def test_memory_that_the_system_refuses_fails_the_job_and_spares_the_child() -> None:
    async with make_app(1) as app:
        job = await app.enqueue(memory_task)
        with pytest.raises(JobFailed, match="failed: MemoryError: "):
            await job.result(timeout=30)
        assert (await job.record()).deaths == 0
        assert await (await app.enqueue(pid_task)) > 0


async def test_a_timeout_and_a_cancel_kill_only_the_child_of_their_job(tmp_path: Path, wait_until: WaitUntil) -> None:
    async with make_app(2) as app:
        await app.processes().warm()
        both = app.processes().pids
        beside = await app.enqueue(wait_task, str(tmp_path / "go"))
        survivor = await running(tmp_path / "go")
        assert await (await app.enqueue(pid_task)) != survivor  # so that the start takes none of the time below

        late = await app.enqueue(wait_briefly_task, str(tmp_path / "late"))
        (first,) = set(both) - {survivor}
        with pytest.raises(JobTimedOut):
            await late.result(timeout=30)
        unwanted = await app.enqueue(wait_task, str(tmp_path / "unwanted"))
        second = await running(tmp_path / "unwanted")
        await unwanted.cancel()
        with pytest.raises(JobCancelled):
            await unwanted.result(timeout=30)

        (tmp_path / "go").touch()
        assert await beside.result(timeout=30) == survivor
        assert len({survivor, first, second}) == 3
        await wait_until(lambda: not psutil.pid_exists(first) and not psutil.pid_exists(second))


# -- logging


@pytest.fixture
def records() -> Iterator[list[logging.LogRecord]]:
    """What the logger "work" and those of jobs get in this process, with all that a JobFilter adds."""
    found: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record)

    handler = Keep()
    loggers = [logging.getLogger(name) for name in ("work", "tickwork.task")]
    for name in loggers:
        name.addHandler(handler)
        name.setLevel(logging.INFO)
    yield found
    for name in loggers:
        name.removeHandler(handler)
        name.setLevel(logging.NOTSET)


def told(record: logging.LogRecord) -> tuple[Any, ...]:
    names = ("job_id", "task", "attempt")
    return record.name, record.getMessage(), *(getattr(record, name, None) for name in names)


async def test_what_a_job_logs_in_a_process_carries_the_job(records: list[logging.LogRecord]) -> None:
    async with make_app() as app:
        job = await app.enqueue(talk_task, "said")
        await job.result(timeout=30)

    assert [told(record) for record in records] == [
        ("tickwork.task.talk", "said by the context", job.id, "talk", 1),
        ("work", "said by a logger", job.id, "talk", 1),
        ("work", "said with its own", "mine", None, None),
    ]


async def test_what_a_pools_job_logs_in_a_process_is_handled_in_the_context_of_its_submit(
    records: list[logging.LogRecord],
) -> None:
    class Adds(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            record.request_id = request_id.get()
            return True

    adds = Adds()
    logger.addFilter(adds)
    logger.addFilter(JobFilter())
    try:
        async with Pool(2, run_in="process", processes=1) as pool:
            for number in (1, 2):
                request_id.set(f"r-{number}")
                await pool.submit(talk_plainly, f"line {number}")
    finally:
        logger.removeFilter(adds)

    assert [(record.getMessage(), vars(record)["request_id"]) for record in records] == [
        ("line 1", "r-1"),
        ("line 2", "r-2"),
    ]


# -- threads


async def test_a_thread_sees_the_variables_of_its_job_and_changes_its_own_only() -> None:
    def use() -> str:
        before = request_id.get()
        request_id.set("changed in the thread")
        return before

    async with Pool(1) as pool:
        request_id.set("r-1")
        first = await (await pool.submit(use))
        request_id.set("r-2")
        second = await (await pool.submit(use))

    assert (first, second, request_id.get()) == ("r-1", "r-2", "r-2")


async def test_there_is_one_thread_for_each_worker_and_no_more() -> None:
    at_once, most, lock, three = 0, 0, threading.Lock(), threading.Barrier(3)
    names: set[str] = set()

    def count() -> None:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
            names.add(threading.current_thread().name)
        three.wait(30)  # nobody goes on before two others have come
        with lock:
            at_once -= 1

    async with Pool(3) as pool:
        for _ in range(30):
            await pool.submit(count)

    assert most == 3
    assert len(names) == 3
