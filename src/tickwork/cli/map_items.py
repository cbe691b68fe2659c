"""Where the items of `tickwork map` come from: files, lines of text or of JSON, a list of failed items."""

from __future__ import annotations

import os
import stat
from contextlib import aclosing
from contextvars import copy_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..batch.dead import dead_items, item_plan
from ..batch.file_place import Files
from ..errors import InvalidOption, InvalidPayload
from ..payloads.hints import Compiler
from ..payloads.plan import as_misfit, brief
from ..payloads.plan import load as load_json
from ..runners.thread import ThreadRunner

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

    from ..payloads.plan import Plan

PART_BYTES = 1 << 20
"""What is read at a time, off the loop; of a pipe what is there."""
SMALL_BYTES = 8 << 20
"""A file of lines up to this size is read and checked as a whole, before work begins."""
STDIN = "-"


# -- files ------------------------------------------------------------------------------------------------------------


class FoundFiles(Files):
    """The files that some patterns mean, one pattern after the other.

    Args:
        words: Shell patterns, or names of files.
        own: Files that the command itself writes: they are passed over.

    Attributes:
        unreadable: As in `Files`.
        barren: The patterns that meant no file, when all have been walked.

    Raises:
        InvalidOption: A word means no file, is no pattern, or the folder where it begins is not there.
    """

    def __init__(self, words: Sequence[str] = (), own: Sequence[str] = ()) -> None:
        self.unreadable: dict[Path, OSError] = {}
        self.barren: list[str] = []
        self._own = {os.path.abspath(path) for path in own}
        self._parts = [(word, _part(word)) for word in words]

    async def paths(self) -> AsyncGenerator[Path, None]:
        """Yield the paths of all of them, readable or not."""
        for word, part in self._parts:
            is_barren = True
            async with aclosing(self._walk(part)) as found:
                async for path in found:
                    if not self._is_own(path):
                        is_barren = False
                        yield path
            if is_barren:
                self.barren.append(word)

    async def _walk(self, part: Path | Files) -> AsyncGenerator[Path, None]:
        if not isinstance(part, Files):
            yield part
            return
        files: Files = part
        files.unreadable = self.unreadable
        async for path in files.paths():
            yield path

    def _is_own(self, path: Path) -> bool:
        return os.path.abspath(path) in self._own


def _part(word: str) -> Path | Files:
    """Return the file that a word names, or the files that it means."""
    text = os.path.expanduser(word)  # a shell leaves alone what stands in quotes
    expected = 'a file, or a pattern such as "data/**/*.csv"'
    if not text or "\0" in text:
        raise InvalidOption("--files", expected, word)
    if os.path.isdir(text):
        inside = os.path.join(word, "**")
        raise InvalidOption("--files", expected, word, remedy=f'it is a folder: "{inside}" means all files in it')
    if os.path.lexists(text):  # before it is taken for a pattern: the shell may have found "report [1].csv"
        return Path(text)
    parts = Path(text).parts
    first = next((place for place, part in enumerate(parts) if any(sign in part for sign in "*?[")), None)
    if first is None:
        raise InvalidOption("--files", expected, word, remedy="there is no such file")
    folder, pattern = Path(*parts[:first]), "/".join(parts[first:])
    try:
        os.scandir(folder).close()
    except OSError as error:
        raise InvalidOption("--files", expected, word, remedy=f"{folder}: {error.strerror}") from None
    try:
        return Files(str(folder), pattern, recursive=first < len(parts) - 1 or pattern == "**")
    except InvalidOption as error:
        said = str(error).removeprefix(f"pattern must be {error.expected}, got {error.got!r}; ")
        raise InvalidOption("--files", expected, word, remedy=said) from None


# -- lines ------------------------------------------------------------------------------------------------------------


async def items_in_lines(path: str, option: str, plan: Plan) -> list[Any] | AsyncIterator[Any]:
    """Return the items of a file with one in each line; empty lines are none. Close what is no list.

    Args:
        path: The file; "-": standard input.
        option: "--items": each line is JSON. "--lines": each line is the text of an item.
        plan: How an item is read.

    Raises:
        InvalidOption: The file cannot be read.
        InvalidPayload: A line of a small file is none of these, or does not fit.
    """
    try:
        fd = os.dup(0) if path == STDIN else os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        status = os.fstat(fd)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidOption(option, 'a file that can be read, or "-"', path, remedy=reason) from None
    read = _json_item if option == "--items" else _text_item
    name = "standard input" if path == STDIN else path
    items = _items(fd, name, lambda line: read(line, plan))
    if stat.S_ISREG(status.st_mode) and status.st_size <= SMALL_BYTES:
        return [item async for item in items]
    return items


async def _items(fd: int, name: str, read: Callable[[str], Any]) -> AsyncGenerator[Any, None]:
    number = 0
    async with aclosing(_lines(fd, name)) as lines:
        async for line in lines:
            number += 1
            where = f"{name}, line {number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r")
            except UnicodeDecodeError as error:
                reason = f"byte {error.start + 1} is not UTF-8: {error.reason}"
                raise InvalidPayload(where, reason) from None
            if not text.strip():
                continue
            try:
                item = read(text)
            except Exception as error:  # the classes of hints may raise anything
                misfit = as_misfit(error)
                raise InvalidPayload(f"{where}{misfit.where and f', item{misfit.where}'}", misfit.reason) from error
            yield item


def _json_item(line: str, plan: Plan) -> Any:
    return plan.decode(load_json(line), 0)


def _text_item(line: str, plan: Plan) -> Any:
    try:
        return plan.decode(line, 0)
    except Exception as error:
        misfit = as_misfit(error)
        misfit.reason += "; with --lines an item is text, and --items reads JSON"
        raise misfit from error


async def _lines(fd: int, name: str) -> AsyncGenerator[bytes, None]:
    """Yield the lines without their ends, as soon as they are there. Closes the file.

    The thread reads from the system itself: one that hangs in a buffered reader of Python's makes the exit fail.
    """
    threads = ThreadRunner()
    begun: list[bytes] = []
    future = None
    try:
        while True:
            future = threads.start(copy_context(), os.read, (fd, PART_BYTES), {})
            data, error = await future
            if isinstance(error, OSError):
                raise InvalidPayload(name, f"it cannot be read: {error.strerror}") from error
            if error is not None:
                raise error
            if not data:
                break
            first, *rest = data.split(b"\n")
            begun.append(first)
            if rest:
                yield b"".join(begun)
                begun = [rest.pop()]
                for line in rest:
                    yield line
        if last := b"".join(begun):
            yield last
    finally:
        threads.close()
        if future is None or (future.done() and not future.cancelled()):
            os.close(fd)  # else a thread waits in it


# -- any of them ------------------------------------------------------------------------------------------------------


async def failed_items(path: str, fn: Any, *, are_paths: bool) -> list[Any]:
    """Return the items that an earlier call has listed.

    Raises:
        InvalidOption: The list cannot be read.
        InvalidPayload: It is none, or an item of it cannot be had.
    """
    try:
        items = await dead_items(path, fn)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InvalidOption("--dead-items", "a file that --dead has written", path, remedy=reason) from None
    if not are_paths:
        return items
    for item in items:
        if not isinstance(item, str | Path):
            raise InvalidPayload(path, f"expected paths, since --read is there, got {brief(item)}")
    return [Path(item) for item in items]


def plan_to_read(fn: Any, *, are_paths: bool) -> Plan:
    """Return how items are read from JSON: by the hint of the function's first parameter, or as paths."""
    return Compiler(plan_to_read).annotation(Path) if are_paths else item_plan(fn)
