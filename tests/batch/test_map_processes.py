"""Batches in child processes: real ones, which hang, die and are killed."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

import tickwork
from tickwork import App, ItemError, Pool, Processes, Retry
from tickwork.batch.options import BatchOptions
from tickwork.batch.outcomes import Piece
from tickwork.batch.places import Ended, Place
from tickwork.batch.process_place import ProcessPlace
from tickwork.batch.run import Batch
from tickwork.errors import InvalidPayload, NotImportable, ProcessDied, RemoteError
from tickwork.runners import wire
from tickwork.runners.children import Child
from tickwork.runners.process import ProcessRunner

from . import functions


async def collected(fn: Callable[[Any], Any], items: Any = range(20), **options: Any) -> tuple[list[Any], ItemError]:
    """Run a batch of which one item fails, and return the other results and its error."""
    results = await tickwork.map(fn, items, run_in="process", on_error="collect", **{"workers": 2, **options})
    (error,) = [result for result in results if isinstance(result, ItemError)]
    return [result for result in results if result is not error], error


def all_but_7(count: int = 20) -> list[int]:
    return [number for number in range(count) if number != 7]


# --- where they run ----------------------------------------------------------------------------------------------


async def test_items_run_in_as_many_processes_as_there_are_workers(tmp_path: Path) -> None:
    items = [(str(tmp_path), number) for number in range(6)]
    batch = asyncio.ensure_future(tickwork.map(functions.until_told, items, run_in="process", workers=2, chunk_size=1))
    at_once = set(await began(tmp_path, 2))
    (tmp_path / "go").touch()
    await batch

    assert len(at_once) == 2
    assert os.getpid() not in at_once
    assert set(await began(tmp_path, 6)) == at_once


async def test_a_batch_on_a_pool_uses_its_processes_and_leaves_them_warm() -> None:
    async with Pool(processes=2) as pool:
        first = set(await tickwork.map(functions.process_id, range(50), run_in="process", pool=pool))
        second = set(await tickwork.map(functions.process_id, range(50), run_in="process", pool=pool))

        assert len(first | second) <= 2
        assert first <= {child.pid for child in psutil.Process().children()}


async def test_a_batch_on_an_app_uses_its_processes_and_leaves_them_warm(tmp_path: Path) -> None:
    async def used(folder: Path) -> set[int]:
        folder.mkdir()
        items = [(str(folder), number) for number in range(2)]
        batch = asyncio.ensure_future(tickwork.map(functions.until_told, items, pool=app, chunk_size=1))
        pids = await began(folder, 2)
        (folder / "go").touch()
        await batch
        return set(pids)

    app = App(processes=2)
    async with app:
        first = await used(tmp_path / "first")
        second = await used(tmp_path / "second")
        pids = set(app.processes().pids)

    assert first == second == pids
    assert len(pids) == 2


async def test_a_batch_has_the_processes_that_it_is_given() -> None:
    found = await tickwork.map(
        functions.process_and_name, range(50), processes=Processes(3, initializer=functions.name_this, max_jobs=10)
    )

    assert {name for _, name in found} == {"named"}
    assert len({pid for pid, _ in found}) <= 3
    assert len(await tickwork.map(functions.same, range(3), processes=1)) == 3


async def test_a_batch_uses_no_more_of_its_processes_than_it_has_workers() -> None:
    assert len(set(await tickwork.map(functions.process_id, range(50), processes=Processes(3), workers=1))) == 1


async def test_the_chunk_that_lies_ready_is_sent_before_the_one_that_came_back_is_unpacked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []
    monkeypatch.setattr(functions, "unpickled", told)

    class Telling(ProcessRunner):
        async def send(self, frame: list[wire.Piece], name: str, on_child: Callable[[Child], None]) -> wire.Frame:
            def tell(child: Child) -> None:
                told.append("sent")
                on_child(child)

            return await super().send(frame, name, tell)

    place = ProcessPlace(functions.noting, 1, None, Telling(1), is_owner=True)
    await asyncio.gather(place.run([0], 10.0, 0), place.run([1], 10.0, 1))
    await place.aclose()

    assert told == ["sent", "sent", "unpacked", "unpacked"]


async def test_a_batch_on_a_pool_uses_no_more_processes_than_it_has_workers(tmp_path: Path) -> None:
    async with Pool(processes=3) as pool:
        await pool.processes().warm()
        items = [(str(tmp_path), number) for number in range(4)]
        batch = asyncio.ensure_future(
            tickwork.map(functions.until_told, items, run_in="process", pool=pool, workers=1, chunk_size=1)
        )
        await began(tmp_path, 1)
        await pool.submit(functions.process_id, 1)  # time enough for another one to begin
        assert len(list(tmp_path.glob("began-*"))) == 1
        (tmp_path / "go").touch()

        assert await batch == [0, 1, 2, 3]


async def test_a_child_that_prints_does_not_disturb_the_results(capfd: pytest.CaptureFixture[str]) -> None:
    assert await tickwork.map(functions.speak, range(50), run_in="process", workers=2) == list(range(50))
    assert sorted(capfd.readouterr().out.splitlines()) == sorted(f"item {number}" for number in range(50))


async def test_a_map_inside_of_a_process_of_a_map() -> None:
    results = await tickwork.map(functions.nested, range(1, 4), run_in="process", workers=2)

    assert results == [[0], [0, 2], [0, 2, 4]]


# --- time is up --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_size", [1, 20])
async def test_an_item_that_hangs_has_failed_and_all_others_are_right(chunk_size: int, tmp_path: Path) -> None:
    items = [(str(tmp_path), number) for number in range(20)]

    rest, error = await collected(functions.hangs_at_7, items, timeout=1, chunk_size=chunk_size, workers=1)

    assert rest == all_but_7()
    assert (error.index, error.attempts) == (7, 1)
    assert isinstance(error.error, TimeoutError)
    assert str(error.error) == "it ran longer than its timeout of 1 s"
    # What stood before it in its chunk had not come back, and runs again; what stood behind it had not begun.
    again = 2 if chunk_size == 20 else 1
    assert [functions.runs_of(tmp_path, number) for number in range(20)] == [again] * 7 + [1] * 13


async def test_a_chunk_may_take_longer_than_an_item() -> None:
    results = await tickwork.map(
        functions.work_10_ms, range(120), run_in="process", workers=1, chunk_size=120, timeout=1
    )

    assert results == list(range(120))


async def test_an_item_that_keeps_the_interpreter_is_killed() -> None:
    rest, error = await collected(functions.holds_the_interpreter_at_7, timeout=1, chunk_size=10)

    assert rest == all_but_7()
    assert error.index == 7
    assert isinstance(error.error, TimeoutError)


async def test_an_item_that_hung_is_tried_again(tmp_path: Path) -> None:
    items = [(str(tmp_path), number) for number in range(10)]

    results = await tickwork.map(
        functions.hangs_once_at_7, items, run_in="process", workers=1, timeout=1, retry=Retry(2, delay=0)
    )

    assert results == list(range(10))


# --- processes that die ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fn", "how"),
    [
        (functions.exits_at_7, "with exit status 3"),
        (functions.kills_itself_at_7, "by signal 9"),
        (functions.crashes_at_7, "by signal 11"),
    ],
    ids=["exit", "kill", "crash"],
)
@pytest.mark.parametrize("chunk_size", ["auto", 20])
async def test_an_item_that_kills_its_process_has_failed_and_all_others_are_right(
    fn: Callable[[int], int], how: str, chunk_size: Any
) -> None:
    rest, error = await collected(fn, chunk_size=chunk_size, max_deaths=2)

    assert rest == all_but_7()
    assert (error.index, error.attempts) == (7, 2)
    assert isinstance(error.error, ProcessDied)
    assert str(error) == (
        f"item 7 (7, tried 2 times) failed: ProcessDied: process {error.error.pid} ended {how}"
        f" while it ran 'batch.functions.{fn.__name__}'"
    )


async def test_an_item_has_failed_when_as_many_processes_died_under_it_as_it_may_have(tmp_path: Path) -> None:
    items = [(str(tmp_path), number) for number in range(10)]

    results = await tickwork.map(functions.exits_twice, items, run_in="process", workers=1, max_deaths=3)

    assert results == list(range(10))
    assert functions.runs_of(tmp_path, 7) == 3


async def test_a_death_is_no_attempt(tmp_path: Path) -> None:
    items = [(str(tmp_path), number) for number in range(10)]

    results = await tickwork.map(
        functions.exits_twice, items, run_in="process", workers=1, max_deaths=3, retry=Retry(2, delay=0)
    )

    assert results == list(range(10))


@pytest.mark.slow
async def test_children_that_are_killed_at_random_cost_no_result(tmp_path: Path) -> None:
    items = [(str(tmp_path), number) for number in range(10_000)]
    batch = asyncio.ensure_future(tickwork.map(functions.tell_pid, items, run_in="process", workers=2))

    killed = await kill_at_random(batch, child_pids_of(tmp_path), 8)

    assert await batch == list(range(10_000))
    assert killed >= 5


def child_pids_of(folder: Path) -> Callable[[], list[int]]:
    return lambda: [pid for path in folder.glob("pid-*") if not is_gone(pid := int(path.name.removeprefix("pid-")))]


async def kill_at_random(batch: asyncio.Future[Any], working: Callable[[], list[int]], most: int) -> int:
    """Kill children that work, one after the other, and return how many it were."""
    random_one, killed = random.Random(7), 0
    while not batch.done() and killed < most:
        await asyncio.wait([batch], timeout=random_one.uniform(0.005, 0.05))
        if pids := working():
            with suppress(ProcessLookupError):
                os.kill(random_one.choice(pids), signal.SIGKILL)
                killed += 1
    return killed


async def test_children_that_are_killed_before_their_first_item_cost_no_result(wait_until: Any) -> None:
    batch = asyncio.ensure_future(tickwork.map(functions.work_10_ms, range(40), run_in="process", workers=2))
    await wait_until(lambda: psutil.Process().children())
    psutil.Process().children()[0].kill()

    assert await batch == list(range(40))


async def test_an_error_of_a_dead_process_that_the_function_raises_is_no_death() -> None:
    runs: list[int] = []

    async def run(number: int) -> None:
        runs.append(number)
        raise ProcessDied("something else", 1, 1)

    (error,) = await tickwork.map(run, [1], on_error="collect")

    assert isinstance(error, ItemError)
    assert (runs, error.attempts) == ([1], 1)


# --- what does not pickle ----------------------------------------------------------------------------------------


async def test_an_item_that_cannot_be_pickled_is_named() -> None:
    items: list[Any] = list(range(20))
    items[7] = functions.NoPickle()

    rest, error = await collected(functions.same, items, chunk_size=10)

    assert rest == all_but_7()
    assert error.index == 7
    assert isinstance(error.error, InvalidPayload)
    assert str(error.error) == (
        "item of batch.functions.same: a NoPickle cannot be pickled for a child process: not today"
    )


async def test_an_item_that_cannot_be_unpickled_is_named() -> None:
    items: list[Any] = list(range(20))
    items[7] = functions.NoUnpickle()

    rest, error = await collected(functions.same, items, chunk_size=10)

    assert rest == all_but_7()
    assert error.index == 7
    assert isinstance(error.error, InvalidPayload)
    assert str(error.error) == (
        "item of batch.functions.same: it cannot be unpickled in the child process: ValueError: unreadable"
    )


class Counted(Place):
    """Counts the chunks that go to another place."""

    def __init__(self, place: Place) -> None:
        self.lanes, self._place, self.chunks = place.lanes, place, 0

    async def run(self, items: Sequence[Any], seconds: float, first: int) -> Ended:
        self.chunks += 1
        return await self._place.run(items, seconds, first)

    async def aclose(self) -> None:
        await self._place.aclose()


@pytest.mark.parametrize("kind", [functions.NoPickle, functions.NoUnpickle])
async def test_an_item_that_does_not_travel_makes_few_others_travel_alone(kind: Callable[[], Any]) -> None:
    items: list[Any] = list(range(1_024))
    items[700] = kind()
    told: dict[int, Any] = {}
    places: list[Counted] = []

    def wrap(place: Place) -> Place:
        places.append(Counted(place))
        return places[0]

    async def on_piece(piece: Piece) -> None:
        told.update((piece.first + at, piece.errors.get(at, value)) for at, value in enumerate(piece.values))

    options: BatchOptions = {"run_in": "process", "workers": 1, "chunk_size": 1_024}
    await Batch(functions.same, items, "collect", options, wrap=wrap).run(on_piece)

    assert isinstance(told.pop(700), ItemError)
    assert told == {number: number for number in range(1_024) if number != 700}
    assert places[0].chunks == 1 + 2 * 10  # halves, ten times


async def test_an_item_that_kills_the_process_that_unpickles_it_has_failed() -> None:
    items: list[Any] = list(range(20))
    items[7] = functions.DeadlyUnpickle()

    rest, error = await collected(functions.same, items, chunk_size=10, max_deaths=2)

    assert rest == all_but_7()
    assert error.index == 7
    assert isinstance(error.error, ProcessDied)
    assert error.error.exit_code == 5


async def test_a_result_that_cannot_be_pickled_is_named() -> None:
    rest, error = await collected(functions.no_pickle_at_7, chunk_size=10)

    assert rest == all_but_7()
    assert error.index == 7
    assert isinstance(error.error, InvalidPayload)
    assert str(error.error) == (
        "result of batch.functions.no_pickle_at_7: a NoPickle cannot be pickled in the child process: not today"
    )


async def test_a_result_that_cannot_be_unpickled_is_named() -> None:
    rest, error = await collected(functions.no_unpickle_at_7, chunk_size=10)

    assert rest == all_but_7()
    assert error.index == 7
    assert isinstance(error.error, InvalidPayload)
    assert str(error.error) == (
        "result of batch.functions.no_unpickle_at_7: it cannot be unpickled: ValueError: unreadable"
    )


async def test_a_result_that_cannot_be_unpickled_makes_no_item_run_twice(tmp_path: Path) -> None:
    items = [(str(tmp_path), number) for number in range(20)]

    rest, error = await collected(functions.counted_no_unpickle_at_7, items, chunk_size=20, workers=1)

    assert rest == [[number] for number in all_but_7()]
    assert (error.index, error.attempts) == (7, 1)
    assert [functions.runs_of(tmp_path, number) for number in range(20)] == [1] * 20


async def test_an_error_that_cannot_be_unpickled_is_told_of() -> None:
    rest, error = await collected(functions.stubborn_at_7, chunk_size=10)

    assert rest == all_but_7()
    assert isinstance(error.error, RemoteError)
    assert str(error) == (
        "item 7 (7) failed: RemoteError: 'batch.functions.stubborn_at_7' raised batch.functions.Stubborn"
        " in its process: 7: does not come back"
    )
    assert 'raise Stubborn(7, "does not come back")' in error.traceback


async def test_an_error_that_cannot_be_pickled_is_told_of() -> None:
    rest, error = await collected(functions.local_error_at_7, chunk_size=10)

    assert rest == all_but_7()
    assert isinstance(error.error, RemoteError)
    assert str(error.error).endswith("local_error_at_7.<locals>.Local in its process: nobody else knows this class")


async def test_what_cannot_be_pickled_is_not_tried_again() -> None:
    _, error = await collected(functions.no_pickle_at_7, retry=Retry(5, delay=3_600))

    assert error.attempts == 1


INNER = (
    "function 'outer.<locals>.inner' cannot be imported by name: it is defined inside another function; "
    "define it at the top level of a module"
)


def outer() -> Callable[[int], int]:
    def inner(number: int) -> int:
        return number

    return inner


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (
            lambda number: number,
            "function '<lambda>' cannot be imported by name: it is a lambda; define it at the top level of a module",
        ),
        (outer(), INNER),
    ],
    ids=["lambda", "inner"],
)
async def test_a_function_that_has_no_name_is_refused_before_anything_begins(
    fn: Callable[[int], int], message: str
) -> None:
    taken = iter([1, 2])
    with pytest.raises(NotImportable) as caught:
        await tickwork.map(fn, taken, run_in="process")
    with pytest.raises(NotImportable) as also_caught:
        tickwork.amap(fn, taken, run_in="process")

    assert str(caught.value) == str(also_caught.value) == message
    assert list(taken) == [1, 2]


async def test_a_function_that_its_process_cannot_import_ends_the_batch_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vanishing.py").write_text("def run(number):\n    return number\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import vanishing  # type: ignore[import-not-found]

    (tmp_path / "vanishing.py").write_text("raise LookupError('no licence')\n")
    with pytest.raises(NotImportable) as caught:
        await tickwork.map(vanishing.run, range(10_000), run_in="process", on_error="collect")

    assert str(caught.value) == (
        "function 'vanishing.run' cannot be imported by name: its child process got LookupError: no licence;"
        " its module must be importable in a fresh interpreter"
    )
    monkeypatch.delitem(sys.modules, "vanishing")


# --- a program of its own ----------------------------------------------------------------------------------------

SCRIPT = """
    import asyncio, os, sys, time
    import tickwork

    def work(number):
        with open(f"pid-{os.getpid()}", "w"):
            pass
        time.sleep(0.01)
        return number

    async def main():
        await tickwork.map(work, range(100_000), run_in="process", workers=2)

    if __name__ == "__main__":
        asyncio.run(main())
"""


@pytest.fixture
def program(tmp_path: Path) -> Any:
    """A script that runs a batch, in a process group of its own."""
    (tmp_path / "batch_script.py").write_text(textwrap.dedent(SCRIPT))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    started = subprocess.Popen(
        [sys.executable, "batch_script.py"],
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    yield started
    with suppress(ProcessLookupError):
        os.killpg(started.pid, signal.SIGKILL)
    started.communicate()


def child_pids(folder: Path) -> list[int]:
    return [int(path.name.removeprefix("pid-")) for path in folder.glob("pid-*")]


def is_gone(pid: int) -> bool:
    """Tell whether a process runs no more; a dead orphan may stay a zombie where PID 1 collects none."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_ctrl_c_ends_a_batch_with_its_processes(
    program: subprocess.Popen[str], tmp_path: Path, wait_until: Any
) -> None:
    await wait_until(lambda: len(child_pids(tmp_path)) == 2)

    os.killpg(program.pid, signal.SIGINT)  # as a terminal does it: to all of them
    _, errors = await asyncio.to_thread(program.communicate, timeout=30)

    assert program.returncode == -signal.SIGINT
    assert errors.endswith("KeyboardInterrupt\n")
    assert errors.count("Traceback") <= 2  # one, with the cancellation that it came from
    assert all(is_gone(pid) for pid in child_pids(tmp_path))


async def test_the_processes_of_a_killed_program_end(
    program: subprocess.Popen[str], tmp_path: Path, wait_until: Any
) -> None:
    await wait_until(lambda: len(child_pids(tmp_path)) == 2)

    program.kill()

    await wait_until(lambda: all(is_gone(pid) for pid in child_pids(tmp_path)))


async def began(folder: Path, count: int) -> list[int]:
    """Wait until so many items have begun, and return the process ids."""
    deadline = asyncio.get_running_loop().time() + 30
    while len(found := [text for path in folder.glob("began-*") if (text := path.read_text())]) < count:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.005)
    return [int(text) for text in found]


async def test_a_nested_batch_ends_with_its_process(tmp_path: Path, wait_until: Any) -> None:
    batch = asyncio.ensure_future(tickwork.map(functions.nested_that_waits, [str(tmp_path)], run_in="process"))
    pids = await began(tmp_path, 2)

    batch.cancel()
    await asyncio.wait([batch])

    await wait_until(lambda: all(is_gone(pid) for pid in pids))


async def test_a_runner_that_is_closed_meanwhile_ends_the_batch(tmp_path: Path) -> None:
    pool = Pool(processes=1)
    async with pool:
        items = [(str(tmp_path), number) for number in range(10)]
        batch = asyncio.ensure_future(tickwork.map(functions.until_told, items, run_in="process", pool=pool))
        await began(tmp_path, 1)
    with pytest.raises(tickwork.TickworkError) as caught:
        await batch

    assert str(caught.value) == "the process runner was closed while it ran 'batch.functions.until_told'"
