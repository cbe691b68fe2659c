"""Batches with a checkpoint, as people run them: killed, cancelled, failing, changed, on a full disk, and gone on."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sqlite3
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import tickwork
from cli.command import DEADLINE, Running
from tickwork import ItemError
from tickwork.batch.checkpoint import LOOK_ITEMS, Checkpoint, Stored
from tickwork.batch.fingerprint import fingerprint
from tickwork.errors import CheckpointMismatch, CheckpointUnavailable, InvalidOption, InvalidPayload, NotRunning

from . import functions

# --- a program that is killed ----------------------------------------------------------------------------------------

COUNT = 240
CHUNK = 3
WORKERS = 2
SHARE = 48
"""So many items run, and no others, for each share that a test has allowed: however late it kills, some are left."""

WORK = f"""
import asyncio, os, time

def may_run(number: int) -> bool:
    return os.path.exists(f"allowed-{{number // {SHARE}}}")

def note(number: int) -> int:
    runs = os.open("runs", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(runs, b"%d\\n" % number)
    os.close(runs)
    return number

def work(number: int) -> int:
    time.sleep(0.004)
    while not may_run(number):
        time.sleep(0.004)
    return 2 * note(number)

async def wait(number: int) -> int:
    await asyncio.sleep(0.004)
    while not may_run(number):
        await asyncio.sleep(0.004)
    return 2 * note(number)

def large(number: int) -> str:
    return str(note(number)) * 2_000
"""

RUN = """
import asyncio, json, sys
import tickwork, work

async def main() -> None:
    fn, run_in, count, workers, chunk = getattr(work, sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:])
    results = await tickwork.map(
        fn, range(count), run_in=run_in, workers=workers, chunk_size=chunk, checkpoint="run.db"
    )
    print(json.dumps(results))

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "work.py").write_text(WORK)
    (tmp_path / "run.py").write_text(RUN)
    return tmp_path


def allow(folder: Path, shares: int) -> None:
    for share in range(shares):
        (folder / f"allowed-{share}").touch()


def runs(folder: Path) -> list[int]:
    path = folder / "runs"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def recorded(folder: Path) -> set[int]:
    """Return the items that the file holds; it is opened as the next call would."""
    with sqlite3.connect(folder / "run.db") as database:
        found = {place for (place,) in database.execute("SELECT place FROM items")}
    database.close()
    return found


def has_run(folder: Path, count: int) -> bool:
    return len(runs(folder)) >= count


PLACES = [
    pytest.param("work", "process", 2 * WORKERS * CHUNK, id="process"),  # two chunks in flight at each child
    pytest.param("work", "thread", WORKERS * CHUNK, id="thread"),
    pytest.param("wait", "loop", WORKERS * CHUNK, id="loop"),
]


@pytest.mark.one_python
@pytest.mark.timeout(120)
@pytest.mark.parametrize(("function", "run_in", "in_flight"), PLACES)
def test_killed_at_random_again_and_again_it_ends_with_every_result_and_repeats_only_what_was_in_flight(
    folder: Path, function: str, run_in: str, in_flight: int
) -> None:
    command = ["run.py", function, run_in, str(COUNT), str(WORKERS), str(CHUNK)]
    known: set[int] = set()
    for kills in range(4):
        allow(folder, kills + 1)
        before = len(runs(folder))
        with Running(*command, cwd=folder) as running:
            # The first line of a session may come late: a kill in the start is a kill as well.
            least = before + random.randint(0, 40)
            running.wait_until(partial(has_run, folder, least), f"{least} runs")
            running.send(signal.SIGKILL)
            running.process.wait(DEADLINE)
            running.wait_alone()
        session = runs(folder)[before:]
        assert not known & set(session), "an item ran again that was recorded"
        if (folder / "run.db").exists() and session:
            known = recorded(folder)
            assert len(set(session) - known) <= in_flight
    allow(folder, COUNT // SHARE)
    before = len(runs(folder))
    with Running(*command, cwd=folder) as running:
        ended = running.ended()

    assert (ended.status, json.loads(ended.out)) == (0, [2 * number for number in range(COUNT)]), ended.err
    assert not known & set(runs(folder)[before:])
    assert set(runs(folder)) == set(range(COUNT))
    assert len(runs(folder)) - COUNT <= 4 * in_flight

    before = len(runs(folder))
    with Running(*command, cwd=folder) as running:
        assert json.loads(running.ended().out) == [2 * number for number in range(COUNT)]
    assert len(runs(folder)) == before


@pytest.mark.parametrize(("function", "run_in", "in_flight"), PLACES)
def test_ctrl_c_in_the_terminal_leaves_a_batch_that_goes_on(
    folder: Path, function: str, run_in: str, in_flight: int
) -> None:
    command = ["run.py", function, run_in, str(COUNT), str(WORKERS), str(CHUNK)]
    allow(folder, 1)
    with Running(*command, cwd=folder) as running:
        running.wait_until(partial(has_run, folder, 30), "30 runs")
        running.send_group(signal.SIGINT)
        ended = running.ended()
        running.wait_alone()
    assert ended.err.endswith("KeyboardInterrupt\n")
    known = recorded(folder)
    assert len(known) >= 30 - in_flight
    before = len(runs(folder))
    assert before - len(known) <= in_flight

    allow(folder, COUNT // SHARE)
    with Running(*command, cwd=folder) as running:
        assert json.loads(running.ended().out) == [2 * number for number in range(COUNT)]
    assert sorted(runs(folder)[before:]) == [number for number in range(COUNT) if number not in known]


def test_two_processes_do_not_work_on_one_batch(folder: Path) -> None:
    command = ["run.py", "work", "process", str(COUNT), "1", "1"]
    allow(folder, 1)
    with Running(*command, cwd=folder) as first:
        first.wait_until(partial(has_run, folder, 1), "the first run")
        with Running(*command, cwd=folder) as second:
            ended = second.ended()
        assert (ended.status, ended.err.splitlines()[-1]) == (
            1,
            (
                f"tickwork.errors.CheckpointUnavailable: checkpoint {folder}/run.db: database is locked; "
                "another process works on it: wait for its end, or name another file"
            ),
        )
        assert first.process.poll() is None
        allow(folder, COUNT // SHARE)
        assert first.ended().status == 0
    assert sorted(runs(folder)) == list(range(COUNT))


LIMIT = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
sys.argv = sys.argv[1:]
exec(open("run.py").read())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
@pytest.mark.parametrize("run_in", ["process", "thread"])
def test_a_full_disk_ends_it_clearly_and_it_goes_on_when_there_is_room(folder: Path, run_in: str) -> None:
    (folder / "limited.py").write_text(LIMIT)
    command = ["large", run_in, "200", "2", "1"]
    with Running("limited.py", "run.py", *command, cwd=folder) as running:
        ended = running.ended()
        running.wait_alone()
    assert (ended.status, ended.err.splitlines()[-1]) == (
        1,
        (
            f"tickwork.errors.CheckpointUnavailable: checkpoint {folder}/run.db: disk I/O error; "
            "see what the system says of the disk, and call again: what was recorded is kept"
        ),
    )
    known, before = recorded(folder), len(runs(folder))
    assert 5 < len(known) < 200

    with Running("run.py", *command, cwd=folder) as running:
        assert json.loads(running.ended().out) == [str(number) * 2_000 for number in range(200)]
    assert sorted(runs(folder)[before:]) == [number for number in range(200) if number not in known]


# --- in one process --------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.db"


class Doubler:
    """A function that knows what it has run, and fails as it is told."""

    def __init__(self) -> None:
        self.ran: list[int] = []
        self.fails: set[int] = set()

    async def double(self, number: int) -> int:
        self.ran.append(number)
        if number in self.fails:
            raise ValueError(f"not {number}")
        return 2 * number

    def double_of(self) -> Any:
        async def double_it(number: int) -> int:
            return await self.double(number)

        return double_it

    def take(self) -> list[int]:
        ran, self.ran = sorted(self.ran), []
        return ran


async def test_what_failed_runs_again_and_nothing_else(path: Path) -> None:
    doubler = Doubler()
    doubler.fails = {3, 50, 99}
    call = partial(tickwork.map, doubler.double, range(100), checkpoint=path, version="1")

    results: list[Any] = await call(on_error="collect")
    assert [entry.index for entry in results if isinstance(entry, ItemError)] == [3, 50, 99]
    assert doubler.take() == list(range(100))

    doubler.fails = {50}
    assert len(await call(on_error="skip")) == 99
    assert doubler.take() == [3, 50, 99]

    with pytest.raises(ValueError, match="not 50"):
        await call()
    assert doubler.take() == [50]

    doubler.fails = set()
    assert await call() == [2 * number for number in range(100)]
    assert doubler.take() == [50]
    assert await call() == [2 * number for number in range(100)]
    assert doubler.take() == []


async def test_a_batch_that_is_ended_by_a_failure_keeps_what_ended_well(path: Path) -> None:
    doubler = Doubler()
    doubler.fails = {20}
    with pytest.raises(ValueError, match="not 20"):
        await tickwork.map(doubler.double, range(100), workers=1, chunk_size=1, checkpoint=path, version="1")
    assert doubler.take() == list(range(21))

    doubler.fails = set()
    assert await tickwork.map(doubler.double, range(100), checkpoint=path, version="1") == [
        2 * number for number in range(100)
    ]
    assert doubler.take() == list(range(20, 100))


async def test_items_that_are_tried_again_are_recorded_once_they_end_well(path: Path) -> None:
    tries: dict[int, int] = {}

    async def third_time(number: int) -> int:
        tries[number] = tries.get(number, 0) + 1
        if tries[number] < 3:
            raise ValueError(number)
        return number

    call = partial(tickwork.map, third_time, range(30), retry=tickwork.Retry(3, delay=0), checkpoint=path, version="1")
    assert await call() == await call() == list(range(30))
    assert set(tries.values()) == {3}


async def changed(path: Path, fn: Callable[[Any], Any], items: Any, **options: Any) -> str:
    """Return what differs, as a call is told, which leaves the file as it is."""
    with pytest.raises(CheckpointMismatch) as refused:
        await tickwork.map(fn, items, checkpoint=path, **options)
    start, end = f"checkpoint {path} is that of another batch: ", "; name another file, or remove this one to start "
    message, end = str(refused.value), f"{end}from nothing"
    assert message.startswith(start)
    assert message.endswith(end)
    return message.removeprefix(start).removesuffix(end)


async def double(number: int) -> int:
    return 2 * number


async def test_another_batch_is_refused_before_anything_runs(path: Path) -> None:
    doubler = Doubler()
    assert await tickwork.map(doubler.double, range(10), checkpoint=path, version="1") == list(range(0, 20, 2))
    doubler.take()
    same = partial(changed, path, version="1")

    name = f"{__name__}.Doubler.double"
    assert await same(double, range(10)) == f"its function is {name!r}, and not {__name__ + '.double'!r}"
    assert await same(doubler.double, range(10), version="2") == "its version is '1', and not '2'"
    ways = "its results are kept, and those of this call are not kept"
    assert await same(doubler.double, range(10), results="discard") == ways
    assert await same(doubler.double, range(9)) == "it has 10 items, and not 9"
    assert await same(doubler.double, range(11)) == "it has 10 items, and not 11"
    assert await same(doubler.double, [*range(9), 10]) == "its item 9 is another one than 10"
    assert await same(doubler.double, [1, 0, *range(2, 10)]) == "its item 0 is another one than 1"
    assert await same(doubler.double, (number for number in range(11))) == "it has 10 items, and this call has more"
    assert await same(doubler.double, (number for number in range(9))) == "it has 10 items, and not 9"
    assert await same(doubler.double, (float(number) for number in range(10))) == "its item 0 is another one than 0.0"
    assert doubler.take() == []
    assert await tickwork.map(doubler.double, range(10), checkpoint=path, version="1") == list(range(0, 20, 2))


def plus(add: Any, number: int) -> Any:
    return number + add if isinstance(add, int) else number


class Multiplier:
    def __init__(self, factor: int) -> None:
        self.factor = factor

    def times(self, number: int) -> int:
        return number * self.factor

    def __call__(self, number: int) -> int:
        return number * self.factor

    @classmethod
    def same(cls, number: int) -> int:
        return number


class Other(Multiplier):
    pass


async def test_a_version_that_is_left_out_differs_from_one_that_is_given(path: Path) -> None:
    assert await tickwork.map(double, range(3), checkpoint=path, version="1") == [0, 2, 4]
    assert await changed(path, double, range(3)) == "its version is '1', and not None"


async def test_a_partial_with_other_arguments_is_another_function(path: Path) -> None:
    assert await tickwork.map(partial(plus, 1), [1, 2, 3], checkpoint=path) == [2, 3, 4]
    assert await tickwork.map(partial(partial(plus), 1), [1, 2, 3], checkpoint=path) == [2, 3, 4]
    name = f"{__name__}.plus"
    one, hundred = (fingerprint(((number,), {})).hex() for number in (1, 100))
    told = await changed(path, partial(plus, 100), [1, 2, 3])
    assert told == f"its function is '{name}, arguments {one}', and not '{name}, arguments {hundred}'"
    others: tuple[Any, ...] = (partial(plus, True), partial(plus_one))
    for other in others:
        with pytest.raises(CheckpointMismatch):
            await tickwork.map(other, [1, 2, 3], checkpoint=path)


def plus_one(number: int) -> int:
    return number + 1


NAMELESS = [
    pytest.param(Multiplier(2).times, "it is a method of an instance of Multiplier", id="method"),
    pytest.param(Multiplier(2), "it is an instance of Multiplier", id="instance"),
    pytest.param(partial(Multiplier(2).times), "it is a method of an instance of Multiplier", id="partial method"),
    pytest.param(lambda number: number * 2, "it is a lambda", id="lambda"),
    pytest.param(
        partial(plus, object()),
        "it is a partial with something that a checkpoint cannot tell from others",
        id="partial",
    ),
]


@pytest.mark.parametrize(("fn", "reason"), NAMELESS)
async def test_a_function_whose_name_does_not_tell_what_it_does_needs_a_version(
    path: Path, fn: Any, reason: str
) -> None:
    with pytest.raises(InvalidOption) as refused:
        tickwork.amap(fn, [1], checkpoint=path)
    assert str(refused.value) == (
        f"fn must be a function whose name tells what it does, where there is a checkpoint, got {fn!r}; {reason}: pass "
        'a function of a module, or version="1", and another text whenever it would return something else'
    )
    assert not path.exists()
    call = partial(tickwork.map, fn, [1], checkpoint=path, version="1")
    assert await call() == await call()
    assert len(await tickwork.map(fn, [1])) == 1  # without a checkpoint nobody asks


async def test_a_nested_function_needs_a_version(path: Path) -> None:
    with pytest.raises(InvalidOption, match="; it is defined inside another function: pass a function of a module, or"):
        await tickwork.map(Doubler().double_of(), [1], checkpoint=path)
    assert not path.exists()


async def test_a_class_method_of_another_class_is_another_function(path: Path) -> None:
    assert await tickwork.map(Multiplier.same, [1], checkpoint=path) == [1]
    name = f"{__name__}.Multiplier.same"
    assert await changed(path, Other.same, [1]) == f"its function is {name!r}, and not '{name}, of {__name__}.Other'"


async def test_functions_that_their_name_tells_need_none(tmp_path: Path) -> None:
    named: tuple[Any, ...] = (Multiplier.same, abs, int.bit_length, Multiplier, tickwork.task()(double))
    for number, fn in enumerate(named):
        assert len(await tickwork.map(fn, [1], checkpoint=tmp_path / str(number), results="discard")) == 1


async def test_files_given_in_another_way_are_another_batch(tmp_path: Path) -> None:
    folder, path = tmp_path / "data", tmp_path / "run.db"
    folder.mkdir()
    (folder / "a").write_text("ä")
    assert list((await tickwork.map_files(folder, kind, read="text", checkpoint=path)).values()) == ["str"]
    ways: tuple[tuple[Any, str], ...] = (("bytes", "kind, read as bytes"), (None, "kind"))
    for read, name in ways:
        with pytest.raises(CheckpointMismatch) as refused:
            await tickwork.map_files(folder, kind, read=read, checkpoint=path)
        assert refused.value.difference == (
            f"its function is '{__name__}.kind, read as text', and not '{__name__}.{name}'"
        )
    assert list((await tickwork.map_files(folder, kind, read="text", checkpoint=path)).values()) == ["str"]


def kind(given: object) -> str:
    return type(given).__name__


class Noted(str):
    """A text that notes who takes its fingerprint."""

    def encode(self, *args: Any) -> bytes:
        noted.append(("fingerprint", threading.current_thread().name))
        return super().encode(*args)


@dataclass
class Pair:
    """A result that notes who encodes and decodes it."""

    number: int

    def __post_init__(self) -> None:
        noted.append(("decode", threading.current_thread().name))

    def __getattribute__(self, name: str) -> Any:
        if name == "number":
            noted.append(("encode", threading.current_thread().name))
        return super().__getattribute__(name)


noted: list[tuple[str, str]] = []


async def pair_of(text: str) -> Pair:
    pair = Pair.__new__(Pair)
    object.__setattr__(pair, "number", len(text))
    return pair


async def test_fingerprints_and_results_are_made_off_the_loop_and_once(path: Path) -> None:
    call = partial(tickwork.map, pair_of, [Noted(str(number)) for number in range(40)], checkpoint=path)
    noted.clear()
    await call()
    assert Counter(noted) == {(what, "tickwork-checkpoint"): 40 for what in ("fingerprint", "encode")}
    noted.clear()
    await call()
    assert Counter(noted) == {(what, "tickwork-checkpoint"): 40 for what in ("fingerprint", "decode")}


async def test_large_items_are_looked_up_a_few_at_a_time(path: Path) -> None:
    items = [bytes(8 << 20)] * 40
    assert await tickwork.map(len, items, checkpoint=path) == [8 << 20] * 40
    checkpoint = await Checkpoint.open(path, function="builtins.len", version=None, keeps_results=True, total=40)
    try:
        assert await checkpoint.look_up(0, items) == [Stored(str(8 << 20))] * LOOK_ITEMS
        with pytest.raises(CheckpointMismatch, match="its item 39 is another one than b''"):
            await checkpoint.look_up(39, [b""])
    finally:
        await checkpoint.aclose()
    assert await tickwork.map(len, items, checkpoint=path) == [8 << 20] * 40


async def test_a_call_that_is_refused_leaves_no_files(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    dead, path, other = tmp_path / "dead", tmp_path / "run.db", tmp_path / "other"
    other.write_text("name;age\n")
    both: dict[str, Any] = {"checkpoint": path, "dead": dead}
    with pytest.raises(InvalidOption, match="^dead must be a new file, or one of failed items"):
        await tickwork.map(double, [1], checkpoint=path, dead=other)
    with pytest.raises(FileNotFoundError, match="no such"):
        await tickwork.map(double, [1], checkpoint=path, dead=tmp_path / "no such" / "dead")
    with pytest.raises(FileNotFoundError, match="missing"):
        await tickwork.map_files(tmp_path / "missing", kind, **both)
    with pytest.raises(NotADirectoryError, match="other"):
        await tickwork.map_files(other, kind, **both)
    with pytest.raises(CheckpointUnavailable):
        await tickwork.map(double, [1], checkpoint=other, dead=dead)
    async with tickwork.Pool(processes=1) as pool:
        pass
    with pytest.raises(NotRunning):
        await tickwork.map(functions.double, [1], run_in="process", pool=pool, **both)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["data", "other"]
    assert other.read_text() == "name;age\n"


async def test_a_list_that_became_shorter_is_refused_where_the_batch_was_cut_off(path: Path) -> None:
    doubler = Doubler()
    doubler.fails = {20}
    numbers = [*range(21)]
    for items in (numbers, iter(numbers)):
        with pytest.raises(ValueError, match="not 20"):
            await tickwork.map(doubler.double, items, checkpoint=path, version="1", workers=1)
        doubler.take()
        shorter = numbers[:10]
        if items is numbers:
            assert await changed(path, doubler.double, shorter, version="1") == "it has 21 items, and not 10"
            path.unlink()
    assert await changed(path, doubler.double, shorter, version="1") == "it has at least 20 items, and not 10"
    assert await changed(path, doubler.double, iter(shorter), version="1") == "it has at least 20 items, and not 10"
    assert doubler.take() == []


async def test_a_result_that_json_cannot_carry_is_refused_and_the_others_are_kept(path: Path) -> None:
    ran: list[int] = []

    async def hinted(number: int) -> int:
        ran.append(number)
        return "seven" if number == 7 and len(ran) < 10 else number  # type: ignore[return-value]

    call = partial(tickwork.map, hinted, range(100), workers=1, chunk_size=10, checkpoint=path, version="1")
    with pytest.raises(InvalidPayload) as refused:
        await call()
    assert str(refused.value) == (
        f"result of {__name__}.{hinted.__qualname__}: expected int, got str 'seven'; "
        'or keep no results in the checkpoint: results="discard"'
    )
    await asyncio.sleep(0)
    first = sorted(ran)
    assert first == list(range(10))

    assert await call() == list(range(100))
    assert sorted(ran[10:]) == [7, *range(10, 100)]


async def test_without_results_an_item_is_none_and_runs_once(path: Path) -> None:
    ran: list[int] = []

    async def opaque(number: int) -> object:
        ran.append(number)
        return object()

    call = partial(tickwork.map, opaque, range(20), checkpoint=path, version="1", results="discard")
    assert await call() == await call() == [None] * 20
    assert sorted(ran) == list(range(20))


async def test_an_item_that_cannot_be_told_from_others_is_refused_before_it_runs(path: Path) -> None:
    ran: list[object] = []

    async def note(item: object) -> None:
        ran.append(item)

    with pytest.raises(InvalidPayload, match=r"^item 2: a checkpoint cannot tell one object from another; pass plain "):
        await tickwork.map(note, [1, 2, object()], checkpoint=path, version="1")
    assert ran == []


async def test_a_function_may_change_its_item(path: Path) -> None:
    async def grow(item: list[int]) -> int:
        item.append(0)
        return len(item)

    assert await tickwork.map(grow, [[], [1]], checkpoint=path, version="1") == [1, 2]
    assert await tickwork.map(grow, [[], [1]], checkpoint=path, version="1") == [1, 2]


# -- amap, files, places


async def test_a_stream_that_was_left_goes_on(path: Path) -> None:
    doubler = Doubler()
    seen: list[tuple[int, int | None]] = []
    async with tickwork.amap(doubler.double, range(5_000), chunk_size=5, checkpoint=path, version="1") as outcomes:
        async for outcome in outcomes:
            seen.append((outcome.item, outcome.value))
            if len(seen) == 100:
                break
    assert seen == [(number, 2 * number) for number in range(100)]
    first = doubler.take()
    assert len(first) < 5_000

    for ordered in (True, False):
        async with tickwork.amap(
            doubler.double, range(5_000), ordered=ordered, checkpoint=path, version="1"
        ) as outcomes:
            seen = [(outcome.item, outcome.value) async for outcome in outcomes]
        assert (seen if ordered else sorted(seen)) == [(number, 2 * number) for number in range(5_000)]
    assert len(first) + len(doubler.take()) <= 5_000 + 20 * 5  # each lane was cut off once


async def test_an_endless_generator_goes_on_where_it_was_left(path: Path) -> None:
    doubler = Doubler()

    async def numbers() -> AsyncIterator[int]:
        number = 0
        while True:
            yield number
            number += 1

    def plain() -> Iterator[int]:
        yield from range(10**9)

    for items, last in ((numbers, 300), (plain, 5_000)):
        async with tickwork.amap(doubler.double, items(), chunk_size=5, checkpoint=path, version="1") as outcomes:
            async for outcome in outcomes:
                assert outcome.value == 2 * outcome.item
                if outcome.index == last:
                    break
    ran = doubler.take()
    assert set(range(5_001)) <= set(ran)
    assert len(ran) - len(set(ran)) <= 20 * 5


async def test_an_error_of_the_items_loses_nothing(path: Path) -> None:
    doubler = Doubler()
    is_broken = True

    def numbers() -> Iterator[int]:
        yield from range(50)
        if is_broken:
            raise OSError("the line is dead")
        yield from range(50, 60)

    with pytest.raises(OSError, match="the line is dead"):
        await tickwork.map(doubler.double, numbers(), checkpoint=path, version="1")
    assert doubler.take() == list(range(50))
    is_broken = False
    assert await tickwork.map(doubler.double, numbers(), checkpoint=path, version="1") == [
        2 * number for number in range(60)
    ]
    assert doubler.take() == list(range(50, 60))


async def test_files_that_were_done_are_not_read_again(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(30):
        (folder / f"{number:02}.txt").write_text("x" * number)
    (folder / "bad.txt").write_bytes(b"\xff")
    ran: list[str] = []

    async def length(text: str) -> int:
        ran.append(text)
        return len(text)

    call = partial(
        tickwork.map_files, folder, length, "*.txt", read="text", checkpoint=tmp_path / "run.db", version="1"
    )
    results: dict[Path, Any] = await call()
    assert [name.name for name, value in results.items() if isinstance(value, ItemError)] == ["bad.txt"]
    (folder / "bad.txt").write_text("good")
    for number in range(30):
        (folder / f"{number:02}.txt").write_text("another content")
    results = await call()
    assert list(results.values()) == [*range(30), 4]
    assert len(ran) == 31

    (folder / "new.txt").write_text("")
    with pytest.raises(CheckpointMismatch, match=r"it has 31 items, and this call has more; name another file"):
        await call()
    assert len(ran) == 31


@pytest.mark.parametrize("run_in", ["thread", "process"])
async def test_threads_and_processes_run_an_item_once(tmp_path: Path, run_in: Any) -> None:
    items = [(str(tmp_path), number) for number in range(60)]
    call = partial(
        tickwork.map, functions.gives_up_or_not, items, run_in=run_in, workers=2, checkpoint=tmp_path / "run"
    )
    results: list[Any] = await call(on_error="collect")
    assert [isinstance(entry, ItemError) for entry in results] == [number % 10 == 7 for number in range(60)]
    results = await call(on_error="collect")
    assert [entry for entry in results if not isinstance(entry, ItemError)] == [n for n in range(60) if n % 10 != 7]
    assert [functions.runs_of(tmp_path, number) for number in range(60)] == [
        2 if number % 10 == 7 else 1 for number in range(60)
    ]


async def test_a_batch_that_is_cancelled_keeps_what_has_ended(path: Path, wait_until: Any) -> None:
    doubler = Doubler()
    gate = asyncio.Event()
    waiting: set[int] = set()

    async def wait(number: int) -> int:
        if number >= 30:
            waiting.add(number)
            await gate.wait()
        return await doubler.double(number)

    call = partial(tickwork.map, wait, range(60), workers=4, chunk_size=1, checkpoint=path, version="1")
    batch = asyncio.create_task(call())
    await wait_until(lambda: len(waiting) == 4)
    batch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await batch
    assert doubler.take() == list(range(30))
    gate.set()
    assert await call() == [2 * number for number in range(60)]
    assert doubler.take() == list(range(30, 60))


async def test_the_same_process_runs_it_once_at_a_time(path: Path) -> None:
    begun, gate = asyncio.Event(), asyncio.Event()

    async def wait(number: int) -> int:
        begun.set()
        await gate.wait()
        return number

    first = asyncio.create_task(tickwork.map(wait, range(3), checkpoint=path, version="1"))
    await begun.wait()
    with pytest.raises(CheckpointUnavailable, match=r": database is locked; another process works on it: "):
        await tickwork.map(wait, range(3), checkpoint=path, version="1")
    gate.set()
    assert await first == [0, 1, 2]


# -- what failed for good


@pytest.mark.parametrize("has_checkpoint", [False, True])
async def test_what_failed_for_good_is_listed_and_a_second_call_runs_just_that(
    tmp_path: Path, has_checkpoint: bool
) -> None:
    doubler = Doubler()
    doubler.fails = {3, 50}
    dead, path = tmp_path / "failed.jsonl", tmp_path / "run.db" if has_checkpoint else None
    version = "1" if has_checkpoint else None
    call = partial(
        tickwork.map, doubler.double, range(100), on_error="skip", dead=dead, checkpoint=path, version=version
    )

    def listed() -> list[int]:
        return sorted(json.loads(line)["index"] for line in dead.read_text().splitlines())

    assert len(await call()) == 98
    assert listed() == [3, 50]
    assert sorted(await tickwork.dead_items(dead, doubler.double)) == [3, 50]

    doubler.fails = {3}
    doubler.take()
    assert len(await call()) == 99
    assert listed() == [3]  # the list is that of the last call, also when most of it was known
    assert doubler.take() == ([3, 50] if has_checkpoint else list(range(100)))

    doubler.fails = set()
    again = await tickwork.dead_items(dead, doubler.double)
    assert await tickwork.map(doubler.double, again, dead=dead) == [6]
    assert (doubler.take(), dead.read_text()) == ([3], "")
