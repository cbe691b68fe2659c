"""A Dask cluster as the place where functions run: a real scheduler and real workers on loopback, killed on the way."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

import tickwork
from parts import need
from runners import functions
from runners.waiting import is_gone
from tickwork import App, Context
from tickwork.errors import (
    ExecutorFailed,
    ExecutorProcessDied,
    InvalidPayload,
    ItemError,
    JobParked,
    NotImportable,
    RemoteError,
)
from tickwork.runners.executor import ExecutorRunner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from concurrent.futures import Executor


@pytest.fixture(scope="module", autouse=True)
def _dask() -> None:
    need("distributed")


pytestmark = pytest.mark.timeout(150)  # a worker that was killed is back in a second or two, on a busy machine in ten


class Cluster:
    """A scheduler and workers of one thread each, whose nannies start another one when one dies."""

    def __init__(self, folder: Path, workers: int) -> None:
        self.file = folder / "scheduler.json"
        self._said = (folder / "said.txt").open("wb")
        self._processes: list[subprocess.Popen[bytes]] = []
        self._start("scheduler", "--host", "127.0.0.1", "--port", "0")
        for _ in range(workers):
            self._start("worker", "--nthreads", "1", "--host", "127.0.0.1")

    def _start(self, program: str, *words: str) -> None:
        command = [sys.executable, "-m", f"distributed.cli.dask_{program}", "--scheduler-file", str(self.file)]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
            "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0",  # Dask tries nothing again: that is up to us
            "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "1s",  # so long it looks for a worker that was killed
        }
        self._processes.append(
            subprocess.Popen(
                [*command, "--no-dashboard", *words], env=environment, stdout=self._said, stderr=self._said
            )
        )

    def kill_scheduler(self) -> None:
        self._processes[0].kill()

    def close(self) -> None:
        found = [psutil.Process(process.pid) for process in self._processes]
        found += [child for process in found for child in process.children(recursive=True)]
        for process in found:
            process.kill()
        for started in self._processes:
            started.wait()
        psutil.wait_procs(found, timeout=30)
        assert all(is_gone(process.pid) for process in found)
        self._said.close()


def connect(cluster: Cluster, *, asynchronous: bool = False) -> Any:
    distributed: Any = import_module("distributed")
    return distributed.Client(
        scheduler_file=str(cluster.file), timeout=30, set_as_default=False, asynchronous=asynchronous
    )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), 2)
    yield cluster
    cluster.close()


@pytest.fixture(scope="module")
def client(cluster: Cluster) -> Iterator[Any]:
    with connect(cluster) as client:
        yield client


@pytest.fixture
def executor(client: Any) -> Any:
    """Return the executor of at least one worker that lives."""
    client.wait_for_workers(1, timeout=60)
    return client.get_executor()


@pytest.fixture
def both(client: Any) -> Any:
    """Return the executor of two workers."""
    client.wait_for_workers(2, timeout=60)
    return client.get_executor()


async def caught_by(runner: ExecutorRunner, fn: Any, *args: Any) -> Exception:
    try:
        value = await runner.run(fn, args)
    except Exception as error:
        return error
    raise AssertionError(f"it returned {value!r}")


async def test_functions_run_in_the_workers(client: Any, both: Executor, tmp_path: Path) -> None:
    runner = ExecutorRunner(both)

    pids = await asyncio.gather(*(runner.run(functions.meet, (str(tmp_path), 2)) for _ in range(2)))

    assert set(pids) == set(client.run(os.getpid).values())
    assert await runner.run(functions.echo, (1,), {"key": "k", "pure": True}) == ((1,), {"key": "k", "pure": True})


def count(path: str) -> None:
    with Path(path).open("a") as file:
        file.write("x")


async def test_calls_that_are_alike_are_run_each(executor: Executor, tmp_path: Path) -> None:
    runner, path = ExecutorRunner(executor), str(tmp_path / "calls")

    await asyncio.gather(*(runner.run(count, (path,)) for _ in range(20)))

    assert Path(path).read_text() == "x" * 20


async def test_what_cannot_travel_is_named_and_not_waited_for_in_vain(
    executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    runner, lock = ExecutorRunner(executor), threading.Lock()

    errors = [
        await caught_by(runner, functions.same, lock),
        await caught_by(runner, functions.return_generator),
        await caught_by(runner, lambda: lock),
        await caught_by(runner, functions.raise_stubborn),
        await caught_by(runner, functions.raise_by_name, "SystemExit"),
    ]

    assert [type(error) for error in errors] == [InvalidPayload] * 2 + [NotImportable] + [RemoteError] * 2
    assert str(errors[1]) == (
        "result of runners.functions.return_generator: a generator cannot be pickled in the process of the executor: "
        "cannot pickle 'generator' object"
    )
    assert str(errors[2]) == (
        "function 'test_what_cannot_travel_is_named_and_not_waited_for_in_vain.<locals>.<lambda>' cannot be imported "
        "by name: nor be sent by value: TypeError: cannot pickle '_thread.lock' object; "
        "define it at the top level of a module that the workers can import"
    )
    assert caplog.records == []


async def test_what_has_no_name_goes_by_value(executor: Executor) -> None:
    @dataclass
    class Point:
        x: int

    class Odd(Exception):
        pass

    def move(point: Point) -> Point:
        if point.x % 2:
            raise Odd(point.x)
        return Point(point.x + 1)

    runner = ExecutorRunner(executor)

    assert await runner.run(move, (Point(2),)) == Point(3)
    error = await caught_by(runner, move, Point(3))
    assert isinstance(error, Odd)
    assert error.args == (3,)
    assert await runner.run(apply, (runner.carried(lambda x: x + 1), 4)) == 5


def apply(fn: Any, value: int) -> int:
    return fn(value)  # type: ignore[no-any-return]


async def test_a_job_that_kills_its_workers_is_named(executor: Executor) -> None:
    error = await caught_by(ExecutorRunner(executor), functions.kill_itself, signal.SIGKILL)

    assert isinstance(error, ExecutorProcessDied)
    assert str(error).startswith("a process of the executor died under 'runners.functions.kill_itself': KilledWorker: ")


def shared_out(number: int) -> tuple[int, int]:
    time.sleep(0.001)
    return number * 2, os.getpid()


async def test_all_results_of_a_batch_arrive_although_a_worker_is_killed_on_the_way(both: Executor) -> None:
    victim = 0
    found: list[tuple[int, int]] = []

    async for outcome in tickwork.amap(shared_out, range(1000), executor=both, workers=4):
        assert outcome.value is not None
        found.append(outcome.value)
        if len(found) == 200:
            victim = found[-1][1]
            os.kill(victim, signal.SIGKILL)

    assert [number for number, _ in found] == list(range(0, 2000, 2))
    assert {pid for _, pid in found} > {victim}
    assert is_gone(victim)


async def test_a_lambda_is_mapped_and_each_failure_belongs_to_its_item(executor: Executor) -> None:
    @dataclass
    class Point:
        x: int

    results = await tickwork.map(lambda x: Point(12 // x), range(4), on_error="collect", executor=executor)

    assert results[1:] == [Point(12), Point(6), Point(4)]
    assert isinstance(results[0], ItemError)
    assert isinstance(results[0].error, ZeroDivisionError)


async def test_the_item_that_kills_workers_is_named_and_the_others_are_done(executor: Executor, tmp_path: Path) -> None:
    folder, items = str(tmp_path), range(1000, 1020)  # each time it is asked for one, it makes another int
    results = await tickwork.map(
        lambda number: fall_at_1002(folder, number),
        items,
        on_error="collect",
        executor=executor,
        chunk_size=5,
        workers=4,
        max_deaths=1,
    )

    assert [entry for entry in results if not isinstance(entry, ItemError)] == [n for n in items if n != 1002]
    error = results[2]
    assert isinstance(error, ItemError)
    assert isinstance(error.error, ExecutorProcessDied)
    assert len(list(tmp_path.iterdir())) == 2  # workers killed: with its neighbours, and alone


def fall_at_1002(folder: str, number: int) -> int:
    if number == 1002:
        (Path(folder) / str(os.getpid())).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


async def test_a_scheduler_that_dies_is_told(tmp_path: Path) -> None:
    cluster = await asyncio.to_thread(Cluster, tmp_path, 0)
    try:
        async with connect(cluster, asynchronous=True) as client:
            waiting = asyncio.create_task(caught_by(ExecutorRunner(client.get_executor()), functions.process_id))
            await asyncio.sleep(0)
            cluster.kill_scheduler()
            error = await waiting
    finally:
        await asyncio.to_thread(cluster.close)

    assert isinstance(error, ExecutorFailed)
    assert str(error) == (
        "the executor did not run 'runners.functions.process_id': it has cancelled the call; "
        "give a new executor if it was shut down or has lost its cluster"
    )


# -- in an app


@tickwork.task(run_in="executor")
def measure(ctx: Context, size: int) -> tuple[int, str, str, int]:
    for done in range(size + 1):
        Context.current().progress(done, size)
    return size, ctx.job_id, Context.current().job_id, os.getpid()


@tickwork.task(run_in="executor")
def fall() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.blocks("Dask's client reads files and looks up names when it is made")
async def test_jobs_of_an_app_run_in_the_workers_with_their_context(cluster: Cluster, client: Any) -> None:
    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        async with connect(cluster, asynchronous=True) as client:
            app.executor = client.get_executor()
            yield

    app = App(tasks=[measure], lifespan=lifespan)

    async with app:
        job = await measure.enqueue(3)
        size, one, other, pid = await job.result()
        progress = (await job.record()).progress

    assert (size, one, other) == (3, job.id, job.id)
    assert pid in client.run(os.getpid).values()
    assert progress is not None
    assert (progress.done, progress.total) == (3, 3)


async def test_a_job_under_which_workers_die_is_parked(executor: Executor) -> None:
    async with App(tasks=[fall], executor=executor, max_deaths=1) as app:
        job = await fall.enqueue()
        with pytest.raises(JobParked):
            await job.result()

    assert app.failed_count == 1


# -- a script


SCRIPT = """
import asyncio, sys
from dataclasses import dataclass
from distributed import Client
from tickwork import App, Context

app = App(block_warn_seconds=None)  # an import, which a busy machine makes long, is nobody's doing here

@dataclass
class Point:
    x: int

@app.task(run_in="executor")
def move(ctx: Context, point: Point) -> Point:
    return Point(point.x + 1)

async def main() -> None:
    client = Client(scheduler_file=sys.argv[1])
    app.executor = client.get_executor()
    async with app:
        print(await (await move.enqueue(Point(1))).result())
    client.close()

if __name__ == "__main__":
    asyncio.run(main())
"""


def test_what_a_script_defines_goes_by_value(cluster: Cluster, client: Any, executor: Any, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-W", "error", "script.py", str(cluster.file)]

    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "Point(x=2)\n", "")
