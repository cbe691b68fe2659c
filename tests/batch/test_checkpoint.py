from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tickwork import task
from tickwork.batch.checkpoint import Checkpoint, Stored, result_codec
from tickwork.batch.fingerprint import fingerprint
from tickwork.errors import CheckpointMismatch, CheckpointUnavailable, InvalidOption, InvalidPayload, NotRunning

PARTS: dict[str, Any] = {"function": "m.square", "version": None, "keeps_results": True, "total": None}


@asynccontextmanager
async def opened(path: Path, **parts: Any) -> AsyncIterator[Checkpoint]:
    checkpoint = await Checkpoint.open(path, **{**PARTS, **parts})
    try:
        yield checkpoint
    finally:
        await checkpoint.aclose()


def rows(*items: tuple[int, object, str | None]) -> Sequence[tuple[int, bytes, str | None]]:
    return [(place, fingerprint(item), result) for place, item, result in items]


async def known(checkpoint: Checkpoint, start: int, items: Sequence[object]) -> list[Stored | None]:
    """Return what is stored of each item, however many look-ups that takes."""
    found: list[Stored | None] = []
    while len(found) < len(items):
        part = await checkpoint.look_up(start + len(found), items[len(found) :])
        assert part
        found += [entry if isinstance(entry, Stored) else None for entry in part]
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.db"


async def test_what_was_recorded_is_found_by_the_next_call(path: Path) -> None:
    async with opened(path, total=4) as checkpoint:
        assert await known(checkpoint, 0, ["a", "b", "c", "d"]) == [None] * 4
        await checkpoint.record(rows((0, "a", '"A"'), (2, "c", "null")))
        await checkpoint.record([])

    async with opened(path, total=4) as checkpoint:
        assert await known(checkpoint, 0, ["a", "b"]) == [Stored('"A"'), None]
        assert await known(checkpoint, 2, ["c", "d"]) == [Stored("null"), None]
        assert await known(checkpoint, 4, []) == []
        await checkpoint.record(rows((0, "a", '"B"')))
        assert await known(checkpoint, 0, ["a"]) == [Stored('"B"')]
    assert [found.name for found in path.parent.iterdir()] == ["run.db"]


async def test_without_results_it_is_known_that_an_item_is_done(path: Path) -> None:
    async with opened(path, keeps_results=False) as checkpoint:
        await checkpoint.record(rows((0, "a", None)))
        assert await known(checkpoint, 0, ["a", "b"]) == [Stored(None), None]


async def test_records_of_many_callers_are_all_kept(path: Path) -> None:
    async with opened(path) as checkpoint:
        await asyncio.gather(*(checkpoint.record(rows((n, n, str(n)))) for n in range(500)))
    async with opened(path) as checkpoint:
        assert await known(checkpoint, 0, range(501)) == [*(Stored(str(n)) for n in range(500)), None]


# --- another batch ---------------------------------------------------------------------------------------------------


async def mismatch(path: Path, **parts: Any) -> str:
    with pytest.raises(CheckpointMismatch) as refused:
        await Checkpoint.open(path, **{**PARTS, **parts})
    head = f"checkpoint {path} is that of another batch: "
    tail = "; name another file, or remove this one to start from nothing"
    message = str(refused.value)
    assert message == head + refused.value.difference + tail
    return refused.value.difference


async def test_a_file_of_another_function_version_or_way_with_results_is_refused(path: Path) -> None:
    async with opened(path, version="2", total=10) as checkpoint:
        await checkpoint.record(rows((9, 9, "9")))
    content = path.read_bytes()

    assert await mismatch(path, function="m.cube", version="2") == "its function is 'm.square', and not 'm.cube'"
    assert await mismatch(path, version="3") == "its version is '2', and not '3'"
    assert await mismatch(path) == "its version is '2', and not None"
    assert (
        await mismatch(path, version="2", keeps_results=False)
        == "its results are kept, and those of this call are not kept"
    )
    assert await mismatch(path, version="2", total=1_000) == "it has 10 items, and not 1,000"
    assert path.read_bytes() == content
    async with opened(path, version="2", total=None) as checkpoint:
        assert await known(checkpoint, 9, [9]) == [Stored("9")]


async def test_a_list_that_is_shorter_than_what_was_recorded_is_refused(path: Path) -> None:
    async with opened(path) as checkpoint:
        await checkpoint.record(rows((4, 4, "16")))
    assert await mismatch(path, total=4) == "it has at least 5 items, and not 4"
    async with opened(path, total=5):
        pass
    assert await mismatch(path, total=6) == "it has 5 items, and not 6"


async def test_a_source_that_ends_elsewhere_than_before_is_refused(path: Path) -> None:
    async with opened(path) as checkpoint:
        await checkpoint.record(rows((4, 4, "16")))
        with pytest.raises(CheckpointMismatch, match="it has at least 5 items, and not 4"):
            await checkpoint.finish(4)
        await checkpoint.finish(6)
        await checkpoint.finish(6)
        with pytest.raises(CheckpointMismatch, match="it has 6 items, and not 7"):
            await checkpoint.finish(7)
    assert await mismatch(path, total=5) == "it has 6 items, and not 5"


async def test_another_item_at_a_recorded_place_is_refused(path: Path) -> None:
    async with opened(path) as checkpoint:
        await checkpoint.record(rows((6, "g", "1")))
        with pytest.raises(CheckpointMismatch) as refused:
            await known(checkpoint, 5, ["g", "f"])
        assert refused.value.difference == "its item 6 is another one than 'f'"
        assert await known(checkpoint, 5, ["f", "g"]) == [None, Stored("1")]


async def test_an_item_that_cannot_be_told_from_others_is_refused_before_it_is_run(path: Path) -> None:
    async with opened(path) as checkpoint:
        with pytest.raises(InvalidPayload, match=r"^item 8\[0\]: a checkpoint cannot tell one object from another"):
            await known(checkpoint, 7, [1, [object()]])


async def test_one_who_is_refused_spoils_nothing_for_others(path: Path) -> None:
    async with opened(path) as checkpoint:
        await checkpoint.record(rows((0, "a", "1")))
        answers = await asyncio.gather(
            checkpoint.record(rows((1, "b", "2"))),
            known(checkpoint, 0, ["z"]),
            checkpoint.record(rows((2, "c", "\ud800"))),
            known(checkpoint, 0, ["a", "b", "c"]),
            return_exceptions=True,
        )
    assert [type(answer) for answer in answers] == [type(None), CheckpointMismatch, UnicodeEncodeError, list]
    assert answers[3] == [Stored("1"), Stored("2"), None]


# --- the file --------------------------------------------------------------------------------------------------------


async def unavailable(path: Path) -> str:
    with pytest.raises(CheckpointUnavailable) as refused:
        await Checkpoint.open(path, **PARTS)
    message = str(refused.value)
    assert message.startswith(f"checkpoint {path}: ")
    return message.removeprefix(f"checkpoint {path}: ")


async def test_a_file_that_is_no_checkpoint_is_refused_and_left_as_it_is(path: Path) -> None:
    path.write_text("name;age\nAda;36\n" * 100)
    content = path.read_bytes()
    assert await unavailable(path) == "file is not a database; it is something else: name another file"
    assert path.read_bytes() == content

    path.unlink()
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE t (n)")
    database.close()
    content = path.read_bytes()
    assert await unavailable(path) == "it is a database of something else; name another file"
    assert path.read_bytes() == content


async def test_a_file_of_a_later_version_is_refused(path: Path) -> None:
    async with opened(path):
        pass
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 2")
    database.close()
    assert await unavailable(path) == (
        "it was written by a later tickwork (format 2, this one knows 1); go on with that one, or name another file"
    )


async def test_an_empty_file_becomes_a_checkpoint(path: Path) -> None:
    path.touch()
    async with opened(path) as checkpoint:
        assert await known(checkpoint, 0, ["a"]) == [None]


async def test_a_file_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    remedy = "unable to open database file; make its folder, or let this user write there"
    assert await unavailable(tmp_path / "missing" / "run.db") == remedy
    assert await unavailable(tmp_path) == remedy


@pytest.mark.parametrize("name", ["", b"run.db", None, 7, "a\0b"])
async def test_what_is_no_path_is_refused(name: Any) -> None:
    with pytest.raises(InvalidOption) as refused:
        await Checkpoint.open(name, **PARTS)
    assert str(refused.value) == f"checkpoint must be the path of a file, got {name!r}"


async def test_a_version_is_a_text(path: Path) -> None:
    with pytest.raises(InvalidOption) as refused:
        await Checkpoint.open(path, **{**PARTS, "version": 2})
    assert str(refused.value) == "version must be a printable, non-empty text, got 2"
    assert not path.exists()


IN_USE = "database is locked; another process works on it: wait for its end, or name another file"


async def test_the_same_process_opens_it_once(path: Path) -> None:
    async with opened(path) as checkpoint:
        assert await unavailable(path) == IN_USE
        await checkpoint.record(rows((0, 0, "0")))
    async with opened(path) as checkpoint:
        assert await known(checkpoint, 0, [0]) == [Stored("0")]


HOLDER = """
import asyncio, sys
from tickwork.batch.checkpoint import Checkpoint
from tickwork.batch.fingerprint import fingerprint

async def main():
    checkpoint = await Checkpoint.open(sys.argv[1], function="m.square", version=None, keeps_results=True, total=None)
    for number in range(10**9):
        await checkpoint.record([(number, fingerprint(number), str(number))])
        print(number, flush=True)

asyncio.run(main())
"""


async def test_a_killed_process_lets_go_of_it_and_loses_nothing_of_what_it_was_told(path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(path)]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"0\n"
    assert await unavailable(path) == IN_USE
    process.kill()
    told = 1 + (await process.stdout.read()).count(b"\n")
    assert await process.wait() == -9

    async with opened(path) as checkpoint:
        found = await known(checkpoint, 0, range(told + 10))
    assert found[:told] == [Stored(str(number)) for number in range(told)]
    assert found[told + 1 :] == [None] * 9


async def test_a_call_that_is_cancelled_is_done_wholly_or_not_at_all(path: Path) -> None:
    async with opened(path) as checkpoint:
        entered, go_on = threading.Event(), threading.Event()

        def hold(_db: sqlite3.Connection) -> None:
            entered.set()
            assert go_on.wait(10)

        holding = asyncio.create_task(checkpoint._committer.run(hold))
        await asyncio.to_thread(entered.wait, 10)
        begun = asyncio.create_task(checkpoint.record(rows((0, 0, "0"), (1, 1, "1"))))
        await asyncio.sleep(0)
        begun.cancel()
        with pytest.raises(asyncio.CancelledError):
            await begun
        go_on.set()
        await holding
        assert await known(checkpoint, 0, [0, 1]) == [None, None]


async def test_an_open_that_is_cancelled_leaves_nothing_open(path: Path) -> None:
    opening = asyncio.create_task(Checkpoint.open(path, **PARTS))
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    async with opened(path):
        pass


async def test_a_full_disk_loses_nothing_that_was_recorded(path: Path) -> None:
    async with opened(path) as checkpoint:
        await checkpoint.record(rows((0, 0, "0")))
        await checkpoint._committer.run(lambda db: db.execute("PRAGMA max_page_count = 8").fetchall())
        with pytest.raises(CheckpointUnavailable) as full:
            await checkpoint.record(rows(*((number, number, "x" * 1000) for number in range(1, 1000))))
        assert str(full.value) == (
            f"checkpoint {path}: database or disk is full; make room and call again: what was recorded is kept"
        )
        assert await known(checkpoint, 0, [0, 1]) == [Stored("0"), None]
    async with opened(path) as checkpoint:
        assert await known(checkpoint, 0, [0, 1]) == [Stored("0"), None]


@pytest.mark.skipif(os.name == "nt", reason="an open file cannot be removed there")
@pytest.mark.parametrize("is_replaced", [False, True])
async def test_nothing_is_written_into_a_file_that_is_no_longer_there(path: Path, is_replaced: bool) -> None:
    async with opened(path) as checkpoint:
        path.unlink()
        if is_replaced:
            path.touch()
        with pytest.raises(CheckpointUnavailable) as gone:
            await checkpoint.record(rows((0, 0, "0")))
        assert str(gone.value) == (
            f"checkpoint {path}: it was removed or replaced while it was open; "
            "put it back, or call again to start from nothing"
        )


async def test_a_damaged_file_is_told(path: Path) -> None:
    async with opened(path) as checkpoint:
        await checkpoint.record(rows(*((number, number, "x" * 100) for number in range(1000))))
    content = path.read_bytes()
    path.write_bytes(content[:8192] + b"\xff" * (len(content) - 8192))
    with pytest.raises(CheckpointUnavailable, match="malformed; it is damaged: remove it to start from nothing$"):
        async with opened(path) as checkpoint:
            await known(checkpoint, 0, range(1000))


async def test_a_closed_one_takes_nothing(path: Path) -> None:
    async with opened(path) as checkpoint:
        pass
    await checkpoint.aclose()
    with pytest.raises(NotRunning):
        await known(checkpoint, 0, [1])


# --- results ---------------------------------------------------------------------------------------------------------


def days(text: str) -> list[date]:
    return [date.fromisoformat(text)]


async def count(text: str) -> int:
    return len(text)


def anything(text: str): ...  # type: ignore[no-untyped-def]


def opaque(text: str) -> sqlite3.Connection:
    return sqlite3.connect(text)


def test_results_travel_by_the_return_hint() -> None:
    codec = result_codec(days)
    assert codec.encode([date(2026, 5, 1)]) == '["2026-05-01"]'
    assert codec.decode('["2026-05-01"]') == [date(2026, 5, 1)]
    assert result_codec(count).encode(3) == "3"
    assert result_codec(task()(count)).encode(3) == "3"
    assert result_codec(anything).decode(result_codec(anything).encode({"a": (1, None)})) == {"a": (1, None)}
    assert result_codec(anything).encode(None) == "null"


@pytest.mark.parametrize(
    ("function", "value", "message"),
    [
        (count, "3", "result of batch.test_checkpoint.count: expected int, got str '3'"),
        (days, [3], "result of batch.test_checkpoint.days[0]: expected date, got int 3"),
        (
            opaque,
            object(),
            (
                "result of batch.test_checkpoint.opaque: JSON cannot carry its hint Connection; "
                "make it a dataclass, NamedTuple, TypedDict or Enum, or pass an id and load it in the task"
            ),
        ),
    ],
)
def test_a_result_that_json_cannot_carry_is_refused_with_the_remedy(function: Any, value: Any, message: str) -> None:
    with pytest.raises(InvalidPayload) as refused:
        result_codec(function).encode(value)
    assert str(refused.value) == f'{message}; or keep no results in the checkpoint: results="discard"'


def test_a_result_from_before_a_change_of_the_hint_is_refused() -> None:
    with pytest.raises(InvalidPayload) as refused:
        result_codec(count).decode('"3"')
    assert str(refused.value) == (
        "result of batch.test_checkpoint.count: expected int, got str '3'; "
        "the checkpoint is from before the hint was changed: remove it, or name another"
    )
