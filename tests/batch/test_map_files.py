"""A function over the files of a folder."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import tickwork
from runners.functions import length
from tickwork import ItemError
from tickwork.batch import file_place
from tickwork.errors import InvalidOption, NotText


def name(path: Path) -> str:
    return path.name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part, text in {"a/1.csv": "x", "a/2.csv": "xy", "b/c/3.csv": "xyz", "b/notes.txt": "é", "4.csv": ""}.items():
        path = tmp_path / part
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


async def test_results_come_by_path_in_the_order_of_the_paths(folder: Path) -> None:
    found = await tickwork.map_files(folder, name, "*.csv")

    assert [path.relative_to(folder).as_posix() for path in found] == ["4.csv", "a/1.csv", "a/2.csv", "b/c/3.csv"]
    assert [*found.values()] == ["4.csv", "1.csv", "2.csv", "3.csv"]


async def test_only_the_folder_itself_is_looked_into_when_it_is_not_recursive(folder: Path) -> None:
    assert [*(await tickwork.map_files(folder, name, recursive=False)).values()] == ["4.csv"]


@pytest.mark.parametrize("run_in", ["thread", "process"])
async def test_a_function_is_given_what_the_files_hold(folder: Path, run_in: Any) -> None:
    as_bytes = await tickwork.map_files(folder, length, "*", read="bytes", run_in=run_in, workers=1)
    as_text = await tickwork.map_files(folder, length, "b/**/*", read="text", run_in=run_in, workers=1)

    assert [*as_bytes.values()] == [0, 1, 2, 3, 2]
    assert [*as_text.values()] == [3, 1]


async def test_a_coroutine_function_takes_files_too(folder: Path) -> None:
    async def size(content: bytes) -> int:
        await asyncio.sleep(0)
        return len(content)

    assert sum((await tickwork.map_files(folder, size, read="bytes", on_error="raise")).values()) == 8


async def test_what_cannot_be_read_does_not_stop_the_others(folder: Path) -> None:
    (folder / "a" / "broken.csv").symlink_to("nowhere")
    (folder / "a" / "latin.csv").write_bytes("é".encode("latin-1"))
    found = await tickwork.map_files(folder / "a", length, read="text")

    broken, latin = found[folder / "a" / "broken.csv"], found[folder / "a" / "latin.csv"]
    assert isinstance(broken, ItemError)
    assert isinstance(broken.error, FileNotFoundError)
    assert broken.item == folder / "a" / "broken.csv"
    assert isinstance(latin, ItemError)
    assert isinstance(latin.error, NotText)
    assert [value for value in found.values() if isinstance(value, int)] == [1, 2]


async def test_what_cannot_be_read_is_raised_or_left_out_when_that_is_wanted(folder: Path) -> None:
    (folder / "a" / "broken.csv").symlink_to("nowhere")

    assert [*(await tickwork.map_files(folder / "a", name, on_error="skip")).values()] == ["1.csv", "2.csv"]
    with pytest.raises(FileNotFoundError) as raised:
        await tickwork.map_files(folder / "a", name, on_error="raise")
    assert raised.value.__notes__[0].startswith("raised for item 2 (PosixPath('")


async def test_what_the_walk_could_not_read_is_not_tried_again(folder: Path) -> None:
    (folder / "a" / "broken.csv").symlink_to("nowhere")

    found = await tickwork.map_files(folder / "a", name, retry=tickwork.Retry(5, delay="1h"))

    broken = found[folder / "a" / "broken.csv"]
    assert isinstance(broken, ItemError)
    assert broken.attempts == 1
    assert len(found) == 3


async def test_a_link_back_up_is_not_walked_twice(folder: Path) -> None:
    (folder / "b" / "up").symlink_to("..")

    assert len(await tickwork.map_files(folder, name)) == 5


async def test_few_contents_are_in_memory_at_a_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_place, "MOST_BYTES", 1_000)
    for number in range(200):
        (folder / f"{number}.bin").write_bytes(bytes(600))
    chunks: list[int] = []

    class Watched(file_place.FilePlace):
        async def run(self, items: Any, seconds: float, first: int) -> Any:
            ended = await super().run(items, seconds, first)
            chunks.append(len(ended.values))
            return ended

    monkeypatch.setattr("tickwork.batch.files_api.FilePlace", Watched)
    found = await tickwork.map_files(folder, length, "*.bin", read="bytes")

    assert set(found.values()) == {600}
    assert len(found) == 200
    assert max(chunks) <= 2


async def test_leaving_the_loop_ends_the_walk(folder: Path) -> None:
    async with tickwork.amap_files(folder, name) as outcomes:
        async for outcome in outcomes:
            assert outcome.value == "4.csv"
            break


@pytest.mark.parametrize(
    ("directory", "error"), [("nothing", FileNotFoundError), ("4.csv", NotADirectoryError)], ids=["missing", "a file"]
)
async def test_a_directory_that_is_none_is_refused(folder: Path, directory: str, error: type[OSError]) -> None:
    with pytest.raises(error):
        await tickwork.map_files(folder / directory, name)


async def test_another_way_of_reading_is_refused(folder: Path) -> None:
    with pytest.raises(InvalidOption) as refused:
        await tickwork.map_files(folder, name, read="lines")  # type: ignore[call-overload]
    assert str(refused.value) == "read must be one of None, 'bytes', 'text', got 'lines'"
