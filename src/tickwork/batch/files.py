"""Find the files of a folder and read them, without holding the loop.

The walk is a plain generator. A thread draws a part of it at a time, and the next part only when somebody wants it: so
the walk is never far ahead of whoever uses it, however large the tree.

The order is that of the paths as text, with "/" between the names, the same on each run and machine: so a folder comes
before the files whose names begin with its name and something greater than "/". Names of one folder must all be known
before the first can be handed out. They are sorted in runs while they are read, and the runs are merged as they are
needed: to sort a million names at once would keep the interpreter, and so the loop, from everything else for a second.
"""

from __future__ import annotations

import os
import stat
from contextvars import copy_context
from dataclasses import dataclass
from heapq import merge
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

from ..clock import outside
from ..errors import InvalidOption, NotText
from ..options import one_of
from ..runners.thread import ThreadRunner
from .patterns import Pattern

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from .patterns import Place

__all__ = ["Unreadable", "check_directory", "find_files", "read_file"]

PART_FILES = 256
PART_FOLDERS = 32
"""What the thread hands out at a time: so many files, or what it has found in so many folders. Both take milliseconds
on a local disk, so that the first file is there soon, a cancelled walk stops soon, and the way to the thread and back
(0.1 ms) does not count."""
RUN_NAMES = 4_096
"""So many names are sorted at once, in a millisecond or two."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A folder that cannot be looked into, or a link that leads nowhere.

    Attributes:
        path: Where it is.
        error: What the system says.
    """

    path: Path
    error: OSError


def find_files(
    directory: str | os.PathLike[str], pattern: str = "*", *, recursive: bool = True
) -> AsyncGenerator[Path | Unreadable, None]:
    """Find the regular files of a folder, in the order of their paths as text.

    A thread walks, and no further ahead than a few hundred files. Who leaves early closes the generator (`aclose`).

    Args:
        directory: The folder. What is found begins with it, so it is relative where that is.
        pattern: What names look like: "*.csv". With a "/", what the path below the directory looks like:
            "2026/**/*.csv". `*`, `?` and `[...]` are those of a shell, and `*` also finds names that begin with a dot.
        recursive: Look into the folders below as well.

    Returns:
        Files; and in their place folders that cannot be looked into, and links that match and lead nowhere.

    Semantics:
        Links to files and folders are followed. One that leads back to a folder above it is not: its files are found
        there. A folder to which several links lead is walked at the first of them, and where it really is: folders full
        of links to each other would else have more ways through them than anybody can walk. Pipes, sockets and devices
        are passed over. What appears or goes while the walk is under way may be found or not.

    Raises:
        InvalidOption: Directory or pattern is none.
        FileNotFoundError: There is no such directory. This and the next two come with the first step.
        NotADirectoryError: It is none.
        PermissionError: It cannot be read.
    """
    wanted = Pattern(pattern, recursive=recursive)
    try:
        top: object = os.fspath(directory)
        if not isinstance(top, str) or "\0" in top or not top:
            raise TypeError
    except TypeError:
        raise InvalidOption("directory", "a path", directory) from None
    return _stream(_walk(top, wanted))


async def check_directory(directory: str | os.PathLike[str]) -> None:
    """Refuse a directory of which nothing could be found, as the first step of `find_files` does; off the loop.

    Raises:
        FileNotFoundError: There is no such directory.
        NotADirectoryError: It is none.
        PermissionError: It cannot be read.
    """
    import aiofiles.os  # only who walks pays for it

    with outside():
        await aiofiles.os.wrap(_open_and_close)(os.fspath(directory))


def _open_and_close(path: str) -> None:
    with os.scandir(path):
        pass


async def _stream(walk: Iterator[Path | Unreadable | None]) -> AsyncGenerator[Path | Unreadable, None]:
    threads = ThreadRunner()
    try:
        is_over = False
        while not is_over:
            with outside():
                found, error = await threads.start(copy_context(), _part, (walk,), {})
            if error is not None:
                raise error
            part, is_over = found
            for entry in part:
                yield entry
    finally:
        threads.close()  # a thread in the middle of a part ends after it; nobody waits for a disk that does not answer


def _part(walk: Iterator[Path | Unreadable | None]) -> tuple[list[Path | Unreadable], bool]:
    """Go on with the walk, and return what was found and whether that was the last of it."""
    found: list[Path | Unreadable] = []
    folders = 0
    for entry in walk:
        if entry is None:
            folders += 1
        else:
            found.append(entry)
        if len(found) >= PART_FILES or folders >= PART_FOLDERS:
            return found, False
    return found, True


Inode = tuple[int, int]


@dataclass(slots=True)
class _Folder:
    """A folder that is being walked.

    Attributes:
        path: Where it is.
        prefix: The same with a separator at its end.
        inode: Which folder it is, by whatever name.
        place: Where it stands in the pattern.
        is_linked: Whether a link led here.
        names: What is in it and is wanted; folders have a "/" at their end.
        broken: The links among the names that lead nowhere.
    """

    path: str
    prefix: str
    inode: Inode
    place: Place
    is_linked: bool
    names: Iterator[str]
    broken: dict[str, OSError]


def _walk(top: str, pattern: Pattern) -> Iterator[Path | Unreadable | None]:
    """Yield what is found, and None after each folder that was read.

    Raises:
        OSError: The folder at the top cannot be read.
    """
    first = _look(top, pattern.start)
    _read(first, pattern)
    way, above = [first], {first.inode}
    linked: set[tuple[Inode, Place]] = set()
    yield None
    while way:
        folder = way[-1]
        name = next(folder.names, None)
        if name is None:
            above.discard(way.pop().inode)
        elif name in folder.broken:
            yield Unreadable(Path(folder.prefix + name), folder.broken.pop(name))
        elif not name.endswith("/"):
            yield Path(folder.prefix + name)
        else:
            path = folder.prefix + name[:-1]
            try:
                inner = _look(path, pattern.enter(folder.place, name[:-1]), folder)
                key = (inner.inode, inner.place)
                if inner.inode not in above and not (inner.is_linked and key in linked):
                    _read(inner, pattern)
                    way.append(inner)
                    above.add(inner.inode)
                    if inner.is_linked:
                        linked.add(key)
            except OSError as error:
                yield Unreadable(Path(path), error)
            yield None


def _look(path: str, place: Place, around: _Folder | None = None) -> _Folder:
    """Return a folder, not yet read; below one to which a link led, that link led here, too.

    Raises:
        OSError: It is not there.
    """
    status = os.stat(path)
    inode = (status.st_dev, status.st_ino)
    is_linked = around is not None and (around.is_linked or os.path.islink(path))
    return _Folder(path, os.path.join(path, ""), inode, place, is_linked, iter(()), {})


def _read(folder: _Folder, pattern: Pattern) -> None:
    """Give a folder its names, in order.

    Raises:
        OSError: It cannot be read, or is no folder.
    """
    runs: list[list[str]] = []
    run: list[str] = []
    with os.scandir(folder.path) as entries:
        for entry in entries:
            name = _wanted(entry, pattern, folder.place, folder.broken)
            if name is not None:
                run.append(name)
                if len(run) >= RUN_NAMES:
                    runs.append(sorted(run))
                    run = []
    runs.append(sorted(run))
    folder.names = iter(runs[0]) if len(runs) == 1 else merge(*runs)


def _wanted(entry: os.DirEntry[str], pattern: Pattern, place: Place, broken: dict[str, OSError]) -> str | None:
    """Return the name of a file that matches, or that of a folder in which one may, with a "/".

    What an entry is, the folder itself knows on most systems: only links must be looked up.
    """
    name = entry.name
    is_match = pattern.matches(place, name)
    try:
        if entry.is_symlink():
            mode = os.stat(entry.path).st_mode
            is_folder, is_file = stat.S_ISDIR(mode), stat.S_ISREG(mode)
        else:
            is_folder, is_file = entry.is_dir(follow_symlinks=False), entry.is_file(follow_symlinks=False)
    except OSError as error:
        if not is_match:  # a link to a folder, perhaps, but nobody has asked for it
            return None
        broken[name] = error
        return name
    if is_folder:
        return f"{name}/" if pattern.enter(place, name) else None
    return name if is_match and is_file else None


@overload
async def read_file(path: str | os.PathLike[str], how: Literal["bytes"]) -> bytes: ...


@overload
async def read_file(path: str | os.PathLike[str], how: Literal["text"]) -> str: ...


async def read_file(path: str | os.PathLike[str], how: Literal["bytes", "text"]) -> bytes | str:
    r"""Return what a file holds, read off the loop.

    Args:
        path: The file.
        how: "bytes", or "text": UTF-8, whose line ends "\r\n" and "\r" become "\n", as everywhere in Python.

    Raises:
        InvalidOption: `how` is something else.
        NotText: The file is not UTF-8; names the file and the byte.
        OSError: It cannot be read.
    """
    import aiofiles  # only who reads pays for it

    one_of("read", how, ("bytes", "text"))
    with outside():
        if how == "bytes":
            async with aiofiles.open(path, "rb") as binary:
                return await binary.read()
        try:
            async with aiofiles.open(path, encoding="utf-8") as text:  # decoded in the thread as well
                return await text.read()
        except UnicodeDecodeError as error:
            raise NotText(os.fspath(path), error.start, error.object[error.start], error.reason) from None
