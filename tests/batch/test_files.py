from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickwork.batch import files
from tickwork.batch.files import PART_FILES, Unreadable, find_files, read_file
from tickwork.errors import InvalidOption, NotText
from tickwork.testing import virtual_loop_factory

WaitUntil = Callable[[Callable[[], object]], Awaitable[None]]

POSIX = pytest.mark.skipif(os.name != "posix", reason="names, links and permissions of POSIX")


def make(top: Path, *names: str) -> None:
    for name in names:
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, encoding="utf-8", errors="surrogateescape")


@contextmanager
def plain_user(folder: Path) -> Iterator[None]:
    """Be nobody, if this is root, who may read everything; in a folder, since paths to it may be root's."""
    folder.chmod(0o755)
    with chdir(folder):
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(user)


async def found(top: str | os.PathLike[str], pattern: str = "*", *, recursive: bool = True) -> list[str]:
    """What is found, as text relative to the top; what is unreadable with its reason."""
    names = []
    async for entry in find_files(top, pattern, recursive=recursive):
        path = entry.path if isinstance(entry, Unreadable) else entry
        name = path.relative_to(top).as_posix()
        names.append(f"{name}: {entry.error.strerror}" if isinstance(entry, Unreadable) else name)
    return names


async def test_files_come_in_the_order_of_their_paths_as_text(tmp_path: Path) -> None:
    make(tmp_path, "b", "a/z", "a/b/c", "a.txt", "a0", "B", "a/b.txt")
    assert await found(tmp_path) == ["B", "a.txt", "a/b.txt", "a/b/c", "a/z", "a0", "b"]


async def test_only_files_that_match_are_found(tmp_path: Path) -> None:
    make(tmp_path, "1.csv", "2.txt", "x/3.csv", "x/y/4.csv", ".5.csv")
    assert await found(tmp_path, "*.csv") == [".5.csv", "1.csv", "x/3.csv", "x/y/4.csv"]
    assert await found(tmp_path, "*.csv", recursive=False) == [".5.csv", "1.csv"]
    assert await found(tmp_path, "x/*.csv") == ["x/3.csv"]
    assert await found(tmp_path, "**/y/*") == ["x/y/4.csv"]
    assert await found(tmp_path, "nothing") == []


@given(st.sets(st.lists(st.sampled_from(["a", "b", "a.", "a0", "-", "B"]), min_size=1, max_size=4).map("/".join)))
def test_any_tree_is_found_whole_and_in_order(tmp_path_factory: pytest.TempPathFactory, names: set[str]) -> None:
    top = tmp_path_factory.mktemp("tree")
    leaves = [name for name in names if not any(other.startswith(f"{name}/") for other in names)]
    make(top, *leaves)
    assert asyncio.run(found(top)) == sorted(leaves)


async def test_paths_begin_with_the_directory_as_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "data/x/1")
    monkeypatch.chdir(tmp_path)
    ways: list[tuple[str | Path, str]] = [
        ("data", "data/x/1"),
        (Path("data"), "data/x/1"),
        ("./data/", "data/x/1"),
        (".", "data/x/1"),
    ]
    for given_as, expected in ways:
        assert [entry async for entry in find_files(given_as)] == [Path(expected)]


@POSIX
async def test_odd_names_are_found_and_can_be_read(tmp_path: Path) -> None:
    odd = ["new\nline", "\udcff\udcfe", "*", "[a]", " ", "\u00e4", "\u0041\u0308", "\\"]
    make(tmp_path, *odd)
    assert await found(tmp_path) == sorted(odd)
    assert await found(tmp_path, "[[]a]") == ["[a]"]
    assert await read_file(tmp_path / "\udcff\udcfe", "bytes") == b"\xff\xfe"


@POSIX
async def test_links_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    make(tmp_path, "real/1", "real/deep/2", "elsewhere/3")
    (tmp_path / "real" / "up").symlink_to(tmp_path)
    (tmp_path / "real" / "deep" / "self").symlink_to(".")
    (tmp_path / "real" / "deep" / "file").symlink_to("../1")
    (tmp_path / "real" / "to").symlink_to("../elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to("../real")
    assert await found(tmp_path) == [
        "elsewhere/3",
        "elsewhere/back/1",
        "elsewhere/back/deep/2",
        "elsewhere/back/deep/file",
        "real/1",
        "real/deep/2",
        "real/deep/file",
        "real/to/3",
    ]


@POSIX
async def test_folders_full_of_links_to_each_other_are_walked_twice_at_most(tmp_path: Path) -> None:
    folders = [f"{number:02}" for number in range(20)]
    make(tmp_path, *(f"{folder}/file" for folder in folders))
    for folder in folders:
        for other in folders:
            if other != folder:
                (tmp_path / folder / f"to {other}").symlink_to(f"../{other}")
    names = await found(tmp_path)
    real = [f"{folder}/file" for folder in folders]
    assert names == sorted(names)
    assert set(real) < set(names)
    linked = [(tmp_path / name).resolve() for name in names if name not in real]
    assert len(set(linked)) == len(linked) == 20


@POSIX
async def test_a_folder_with_several_links_is_walked_for_each_place_in_the_pattern(tmp_path: Path) -> None:
    make(tmp_path, "elsewhere/1")
    (tmp_path / "top").mkdir()
    for name in ("a", "raw", "z"):
        (tmp_path / "top" / name).symlink_to("../elsewhere")
    assert await found(tmp_path / "top", "**/raw/*") == ["raw/1"]
    assert await found(tmp_path / "top") == ["a/1"]


@POSIX
async def test_the_directory_may_be_a_link_or_the_root(tmp_path: Path) -> None:
    make(tmp_path, "real/1", "real/x/2")
    (tmp_path / "link").symlink_to("real")
    assert await found(tmp_path / "link") == ["1", "x/2"]
    walk = find_files("/", "etc/hostname")
    assert [entry async for entry in walk] == [Path("/etc/hostname")] * os.path.isfile("/etc/hostname")


@POSIX
async def test_links_that_lead_nowhere_are_reported_in_their_place(tmp_path: Path) -> None:
    make(tmp_path, "a.csv", "z.csv")
    (tmp_path / "gone.csv").symlink_to("nowhere")
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    (tmp_path / "other.txt").symlink_to("nowhere")
    assert await found(tmp_path, "*.csv") == [
        "a.csv",
        "gone.csv: No such file or directory",
        "loop.csv: Too many levels of symbolic links",
        "z.csv",
    ]


@POSIX
async def test_pipes_sockets_and_folders_are_no_files(tmp_path: Path) -> None:
    make(tmp_path, "file", "folder.csv/inside")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "to pipe").symlink_to("pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    (tmp_path / "linked").symlink_to("folder.csv")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "socket"))
        assert await found(tmp_path) == ["file", "folder.csv/inside", "linked/inside"]
        assert await found(tmp_path, "*.csv") == []


@POSIX
async def test_folders_that_cannot_be_read_are_reported_and_stop_nothing(tmp_path: Path) -> None:
    make(tmp_path, "a", "locked/1", "z")
    (tmp_path / "locked").chmod(0)
    with plain_user(tmp_path):
        assert await found(".") == ["a", "locked: Permission denied", "z"]


@POSIX
async def test_a_folder_that_is_gone_when_its_turn_comes_is_reported(tmp_path: Path) -> None:
    make(tmp_path, *(f"a/{number:04}" for number in range(PART_FILES + 1)), "b/1", "c")
    names: list[Path | Unreadable] = []
    async for entry in find_files(tmp_path):
        if not names:
            (tmp_path / "b" / "1").unlink()
            (tmp_path / "b").rmdir()
        names.append(entry)
    assert len(names) == PART_FILES + 3
    assert isinstance(names[-2], Unreadable)
    assert (names[-2].path, type(names[-2].error)) == (tmp_path / "b", FileNotFoundError)


@POSIX
async def test_a_path_longer_than_the_system_takes_is_reported(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    for _ in range(20):  # 20 * 250 characters
        os.mkdir("d" * 250, dir_fd=folder)
        inner = os.open("d" * 250, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=folder))
    os.close(folder)
    (entry,) = [entry async for entry in find_files(tmp_path)]
    assert isinstance(entry, Unreadable)
    assert entry.error.strerror == "File name too long"


async def test_a_walk_is_not_ahead_of_who_uses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, *(f"{folder:03}/{number}" for folder in range(200) for number in range(10)))
    read: list[str] = []
    real = os.scandir

    def scandir(path: str) -> Any:
        read.append(path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    walk = find_files(tmp_path)
    assert await anext(walk) == tmp_path / "000" / "0"
    assert len(read) <= PART_FILES / 10 + 2
    await walk.aclose()
    assert len(read) <= PART_FILES / 10 + 2


async def test_names_of_a_large_folder_are_in_order(tmp_path: Path) -> None:
    count = 3 * files.RUN_NAMES + 1
    for number in range(count):
        (tmp_path / f"{number * 7919 % count:06}").touch()
    assert await found(tmp_path) == [f"{number:06}" for number in range(count)]


async def test_a_cancelled_walk_waits_for_no_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil
) -> None:
    make(tmp_path, "1")
    answered, asked = threading.Event(), threading.Event()
    real = os.scandir

    def scandir(path: str) -> Any:
        asked.set()
        answered.wait(10)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    task = asyncio.ensure_future(anext(find_files(tmp_path)))
    await asyncio.to_thread(asked.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not answered.is_set()
    answered.set()
    await wait_until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("tickwork-")])


@pytest.mark.parametrize(
    ("name", "kind"), [("missing", FileNotFoundError), ("file", NotADirectoryError), ("file/x", NotADirectoryError)]
)
async def test_a_directory_that_is_none_is_an_error(tmp_path: Path, name: str, kind: type[OSError]) -> None:
    make(tmp_path, "file")
    with pytest.raises(kind) as error:
        await anext(find_files(tmp_path / name))
    assert error.value.filename == str(tmp_path / name)


@POSIX
async def test_a_directory_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0)
    with plain_user(tmp_path), pytest.raises(PermissionError):
        await anext(find_files("locked"))


@pytest.mark.parametrize("directory", ["", "a\0b", b"data", None, 7])
def test_what_is_no_path_is_refused_at_once(directory: Any) -> None:
    with pytest.raises(InvalidOption) as refused:
        find_files(directory)
    assert str(refused.value) == f"directory must be a path, got {directory!r}"


def test_virtual_time_stands_still_while_a_thread_walks(tmp_path: Path) -> None:
    make(tmp_path, "1", "2")

    async def main() -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        waiting = asyncio.create_task(asyncio.sleep(3600))
        assert await found(tmp_path) == ["1", "2"]
        assert await read_file(tmp_path / "1", "text") == "1"
        passed = loop.time() - began
        waiting.cancel()
        return passed

    with asyncio.Runner(loop_factory=virtual_loop_factory) as runner:
        assert runner.run(main()) == 0


# --- reading -------------------------------------------------------------------------------------------------------


async def test_a_file_is_read_as_bytes_or_as_text(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes("\ufeffGr\u00fc\u00dfe\r\n".encode())
    assert await read_file(path, "bytes") == "\ufeffGr\u00fc\u00dfe\r\n".encode()
    assert await read_file(str(path), "text") == "\ufeffGr\u00fc\u00dfe\n"
    path.write_bytes(b"")
    assert (await read_file(path, "bytes"), await read_file(path, "text")) == (b"", "")


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (b"ab\xff", "byte 0xff at position 2 (invalid start byte)"),
        (b"x" * 100_000 + b"\r\n\xe4 ", "byte 0xe4 at position 100002 (invalid continuation byte)"),
        (b"cut \xc3", "byte 0xc3 at position 4 (unexpected end of data)"),
    ],
)
async def test_a_file_that_is_not_utf8_is_named_with_the_byte(tmp_path: Path, content: bytes, where: str) -> None:
    path = tmp_path / "f"
    path.write_bytes(content)
    with pytest.raises(NotText) as error:
        await read_file(path, "text")
    assert str(error.value) == (
        f'file {str(path)!r} is not UTF-8 text: {where}; take read="bytes" and decode it as what it is'
    )


async def test_a_file_that_cannot_be_read_raises_what_the_system_says(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await read_file(tmp_path / "missing", "bytes")
    with pytest.raises(IsADirectoryError):
        await read_file(tmp_path, "text")


async def test_another_way_to_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidOption) as refused:
        await read_file(tmp_path, "json")  # type: ignore[call-overload]
    assert str(refused.value) == "read must be one of 'bytes', 'text', got 'json'"
