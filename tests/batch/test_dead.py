from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tickwork import Context, task
from tickwork.batch.dead import DeadList, dead_items
from tickwork.errors import InvalidOption, InvalidPayload, ItemError


@dataclass
class Order:
    number: int
    day: date


def of_order(order: Order) -> None: ...


def of_path(path: Path) -> None: ...


def of_text(text: str) -> None: ...


def of_any(item): ...  # type: ignore[no-untyped-def]


def of_many(*items: int) -> None: ...


def of_connection(connection: sqlite3.Connection) -> None: ...


@task()
async def of_task(ctx: Context, day: date) -> None: ...


def failed(index: int, item: object, message: str = "no") -> ItemError:
    try:
        raise ValueError(message)
    except ValueError as error:
        return ItemError(index, item, error)


@asynccontextmanager
async def opened(path: Path, fn: Callable[..., Any] = of_any) -> AsyncIterator[DeadList]:
    dead = await DeadList.open(path, fn)
    try:
        yield dead
    finally:
        await dead.aclose()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "failed.jsonl"


def entries(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_each_item_that_failed_has_a_line(path: Path) -> None:
    async with opened(path, of_order) as dead:
        await dead.add([failed(3, Order(1, date(2026, 5, 1)), "not\nthis one"), failed(7, Order(2, date(2026, 5, 2)))])
        one, two = entries(path)  # while the batch goes on
        await dead.add([failed(1, Order(3, date(2026, 5, 3)))])
        await dead.finish()

    assert (one["index"], one["item"], list(one)) == (3, {"number": 1, "day": "2026-05-01"}, ["index", "item", "error"])
    assert (one["error"]["type"], one["error"]["message"]) == ("ValueError", "not\nthis one")
    assert "raise ValueError(message)" in one["error"]["traceback"]
    assert [entry["index"] for entry in entries(path)] == [3, 7, 1]
    assert (two["item"]["number"], len(entries(path))) == (2, 3)


@pytest.mark.parametrize(
    ("fn", "items"),
    [
        (of_order, [Order(1, date(2026, 5, 1))]),
        (of_path, [Path("a"), Path("b/c\n"), Path("\udcff")]),
        (of_text, ["", "\u00e9", "\udcff"]),
        (of_any, [1, 1.5, None, "a", date(2026, 5, 1), (1, "a"), {"a": [1]}, b"\x00\xff", Path("a")]),
        (of_many, [1, 2]),
        (of_task, [date(2026, 5, 1)]),
        # what does not fit the hint: paths of files whose text is read, an int in the place of a float
        (of_text, [Path("data/a.csv"), 7, None]),
        (of_path, ["a", date(2026, 5, 1)]),
    ],
)
async def test_items_come_back_as_they_were(path: Path, fn: Callable[..., Any], items: list[Any]) -> None:
    async with opened(path, fn) as dead:
        await dead.add([failed(place, item) for place, item in enumerate(items)])
    found = await dead_items(path, fn)
    assert [(type(item), item) for item in found] == [(type(item), item) for item in items]


async def test_an_item_that_json_cannot_carry_stands_there_as_text_and_is_told(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(path, of_text) as dead:
        await dead.add([failed(0, "a"), failed(1, {1j}), failed(2, 2j)])
    assert [(entry["item"], entry.get("repr")) for entry in entries(path)] == [
        ("a", None),
        (None, "{1j}"),
        (None, "2j"),
    ]
    (message,) = caplog.messages
    assert message == (
        f"{path}: item 1 cannot be written as JSON (expected str, got set), so its text stands there, and nothing can "
        "run it from there; other items like it are not told"
    )
    with pytest.raises(InvalidPayload) as refused:
        await dead_items(path, of_text)
    assert str(refused.value) == (
        f"{path}, line 2: item 1 could not be written as JSON, only its text is there: {{1j}}; "
        "run it from your own list, and the others with strict=False"
    )
    caplog.clear()
    assert await dead_items(path, of_text, strict=False) == ["a"]
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]


async def test_an_item_and_an_error_whose_texts_raise_have_a_line_too(path: Path) -> None:
    class Odd(Exception):
        def __repr__(self) -> str:
            raise OSError("no")

        __str__ = __repr__

    async with opened(path) as dead:
        await dead.add([_bare(0, Odd(), Odd())])
    (entry,) = entries(path)
    assert entry["repr"].startswith("<Odd instance at ")
    assert entry["error"]["message"] == "<its str() failed>"


def _bare(index: int, item: object, error: BaseException) -> ItemError:
    made = failed(index, item)
    made.error = error
    return made


# --- what an earlier call has left -----------------------------------------------------------------------------------


async def test_the_list_of_an_earlier_call_stays_until_something_fails(path: Path) -> None:
    async with opened(path) as dead:
        await dead.add([failed(1, 1)])
    async with opened(path):
        pass  # cancelled, say
    assert await dead_items(path, of_any) == [1]

    async with opened(path) as dead:
        assert await dead_items(path, of_any) == [1]
        await dead.add([failed(2, 2)])
        await dead.add([failed(3, 3)])
    assert await dead_items(path, of_any) == [2, 3]
    assert await dead_items(f"{path}.old", of_any) == [1]


async def test_a_call_in_which_nothing_failed_leaves_an_empty_list(path: Path) -> None:
    async with opened(path) as dead:
        await dead.add([failed(1, 1)])
    async with opened(path) as dead:
        await dead.finish()
        await dead.finish()
    assert path.read_bytes() == b""
    assert await dead_items(path, of_any) == []
    assert await dead_items(f"{path}.old", of_any) == [1]
    async with opened(path) as dead:
        await dead.finish()
    assert await dead_items(f"{path}.old", of_any) == [1]


async def test_a_file_of_something_else_is_refused_and_left_as_it_is(path: Path) -> None:
    path.write_text("name;age\n")
    with pytest.raises(InvalidOption) as refused:
        await DeadList.open(path, of_any)
    assert str(refused.value) == (
        f"dead must be a new file, or one of failed items, got {str(path)!r}; name another file"
    )
    assert path.read_text() == "name;age\n"


async def test_a_file_that_cannot_be_made_is_an_error_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await DeadList.open(tmp_path / "missing" / "failed.jsonl", of_any)
    with pytest.raises(IsADirectoryError):
        await DeadList.open(tmp_path, of_any)


@pytest.mark.parametrize("name", ["", b"failed", None, 7, "a\0b"])
async def test_what_is_no_path_is_refused(name: Any) -> None:
    for call in (DeadList.open(name, of_any), dead_items(name, of_any)):
        with pytest.raises(InvalidOption) as refused:
            await call
        assert str(refused.value) == f"dead must be the path of a file, got {name!r}"


# --- kills and full disks --------------------------------------------------------------------------------------------


async def test_a_torn_last_line_is_told_and_passed_over(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(path) as dead:
        await dead.add([failed(1, 1), failed(2, "\u00e9" * 10)])
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for end in range(first + 1, len(whole) - 1):
        caplog.clear()
        path.write_bytes(whole[:end])
        assert await dead_items(path, of_any) == [1]
        assert caplog.messages == [f"{path}: the last line is torn, and passed over: its writer was killed"]
    caplog.clear()
    path.write_bytes(whole[:-1])
    assert await dead_items(path, of_any) == [1, "\u00e9" * 10]
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("torn", "expected JSON text, got none: Expecting value: line 1 column 1 (char 0)"),
        ("[1]", 'it needs "index", "item" and "error"'),
        ('{"index": 1, "item": 2}', 'it needs "index", "item" and "error"'),
    ],
)
async def test_a_line_of_something_else_is_refused(path: Path, line: str, reason: str) -> None:
    async with opened(path) as dead:
        await dead.add([failed(1, 1)])
    path.write_text(path.read_text() + line + "\n" + path.read_text())
    with pytest.raises(InvalidPayload) as refused:
        await dead_items(path, of_any)
    assert str(refused.value) == f"{path}, line 2: not a line of failed items: {reason}"


async def test_an_item_that_does_not_fit_the_function_is_refused(path: Path) -> None:
    async with opened(path, of_order) as dead:
        await dead.add([failed(5, Order(1, date(2026, 5, 1)))])
    with pytest.raises(InvalidPayload) as refused:
        await dead_items(path, of_text)
    assert str(refused.value) == f"{path}, line 1: item 5: expected str, got dict"


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has a disk that is always full")
async def test_a_full_disk_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "failed.jsonl"
    path.symlink_to("/dev/full")
    dead = DeadList(str(path), of_any)
    with pytest.raises(OSError, match="No space left on device") as full:
        await dead.add([failed(1, 1)])
    await dead.aclose()
    assert (full.value.errno, full.value.filename) == (errno.ENOSPC, str(path))


FULL = """
import asyncio, resource, sys
from tickwork.batch.dead import DeadList, dead_items
from tickwork.errors import ItemError

async def main(path):
    dead = await DeadList.open(path, print)
    await dead.add([ItemError(1, 1, ValueError("no"))])
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    try:
        await dead.add([ItemError(2, "x" * 1000, ValueError("no"))])
    except OSError as error:
        print(error)
    await dead.add([ItemError(3, 3, ValueError("no"))])
    await dead.aclose()
    print(await dead_items(path, print))

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.skipif(os.name != "posix", reason="limits of POSIX")
def test_a_line_for_which_there_is_no_room_is_not_left_half_written(path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", FULL, str(path)], check=True, capture_output=True, text=True)
    assert ended.stdout == f"[Errno 27] File too large: {str(path)!r}\n[1, 3]\n"


async def test_callers_at_once_and_one_that_is_cancelled_write_whole_lines(path: Path) -> None:
    async with opened(path) as dead:
        adding = [asyncio.create_task(dead.add([failed(n, "x" * 10_000)])) for n in range(20)]
        await asyncio.sleep(0)
        adding[0].cancel()
        told = await asyncio.gather(*adding, return_exceptions=True)
    assert [type(answer) for answer in told] == [asyncio.CancelledError] + [type(None)] * 19
    assert sorted(entry["index"] for entry in entries(path)) == list(range(20))


def test_nothing_is_logged_where_all_is_well(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "tickwork")

    async def main() -> None:
        async with opened(path) as dead:
            await dead.add([failed(1, 1)])
        assert await dead_items(path, of_any) == [1]

    asyncio.run(main())
    assert caplog.messages == []
