"""The items of a batch that failed for good: a file with a line of JSON for each, and the way back to the items.

    {"index": 17, "item": "data/17.csv", "error": {"type": "ValueError", "message": "...", "traceback": "..."}}

A line is on its way to the disk whole or not at all, so a kill tears the last one at the most. The item stands there by
the hint of the function's first parameter. One that does not fit the hint stands there by its own type, and `"by":
"value"` says so; one that JSON cannot carry at all is null, and its text stands under "repr".

The file is about one call. What an earlier call has left is moved aside, to the same name with ".old", when the first
item of this call fails or when the call has come to its end: until then it is the best that is known.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..clock import outside
from ..errors import InvalidOption, InvalidPayload, short
from ..payloads import describe_exception
from ..payloads.containers import ANY
from ..payloads.hints import Compiler, signature_of
from ..payloads.plan import Misfit, as_misfit, dump, load
from ..shield import to_its_end

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ..errors import ItemError
    from ..payloads.plan import Plan

__all__ = ["DeadList", "dead_items", "dump_any", "item_plan", "item_text"]

logger: logging.Logger = logging.getLogger("tickwork.batch")

MAX_REPR = 1_000
"""So many characters of the text of an item that JSON cannot carry: enough to know it by."""


class DeadList:
    """The file of one call. Make it with `open`, and close it with `aclose`."""

    def __init__(self, path: str, fn: Callable[..., Any]) -> None:
        self.path: str = path
        self._fn = fn
        self._plan: Plan | None = None
        self._fd: int | None = None
        self._turn = asyncio.Lock()
        self._has_complained = False

    @classmethod
    async def open(cls, path: str | os.PathLike[str], fn: Callable[..., Any]) -> DeadList:
        """Make sure that the file can be written, and leave it as it is for now, or not there.

        Args:
            path: The file.
            fn: The function or task of the batch.

        Raises:
            InvalidOption: `path` is no path, or a file of something else.
            OSError: The file cannot be made or written.
        """
        made = cls(_path(path), fn)
        await _in_thread(made._check)
        return made

    async def add(self, errors: Sequence[ItemError]) -> None:
        """Write a line for each item that failed. Cancelling it leaves no line half written.

        Raises:
            OSError: The disk is full, say. What was written before is kept.
        """
        async with self._turn:
            await _in_thread(self._add, errors)

    async def finish(self) -> None:
        """Note that the call has come to its end: when nothing failed, the list is empty now.

        Raises:
            OSError: The file cannot be written.
        """
        await self.add(())

    async def aclose(self) -> None:
        """Close the file. Without `finish` or a failure it is as it was. A second call does nothing."""
        async with self._turn:
            if self._fd is not None:
                await _in_thread(os.close, self._fd)
                self._fd = None

    # -- in a thread ------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        """Refuse what could not be written to later, or must not be moved away."""
        try:
            with open(self.path, "xb"):  # it can be made, and is when it is wanted: a call that is refused leaves none
                pass
            os.unlink(self.path)
            return
        except FileExistsError:
            pass
        with open(self.path, "ab+") as file:
            file.seek(0)
            first = file.readline(1_000)
        if first and not first.startswith(b'{"index":'):
            raise InvalidOption("dead", "a new file, or one of failed items", self.path, remedy="name another file")

    def _add(self, errors: Sequence[ItemError]) -> None:
        if self._fd is None:
            self._fd = self._begin()
        for error in errors:
            self._write(self._fd, f"{self._line(error)}\n".encode())

    def _begin(self) -> int:
        """Move aside what an earlier call has left, and open the file."""
        try:
            if os.path.getsize(self.path):
                os.replace(self.path, f"{self.path}.old")
        except FileNotFoundError:  # somebody has moved it meanwhile
            pass
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
        return os.open(self.path, flags, 0o666)

    def _write(self, fd: int, line: bytes) -> None:
        end = os.lseek(fd, 0, os.SEEK_END)
        try:
            written = os.write(fd, line)
            while written < len(line):  # the rest tells why
                written += os.write(fd, line[written:])
        except OSError as error:
            with suppress(OSError):  # it is no plain file
                os.ftruncate(fd, end)
            raise OSError(error.errno, error.strerror, self.path) from error

    def _line(self, error: ItemError) -> str:
        told = describe_exception(error.error)
        about = {"type": told.type, "message": told.message, "traceback": told.traceback}
        if self._plan is None:
            self._plan = item_plan(self._fn)
        item, refusal = item_text(self._plan, error.item)
        if refusal:
            self._complain(error.index, refusal)
        return f'{{"index":{error.index},{item},"error":{dump_any(about)}}}'

    def _complain(self, index: int, reason: str) -> None:
        if not self._has_complained:
            self._has_complained = True
            logger.warning(
                "%s: item %d cannot be written as JSON (%s), so its text stands there, and nothing can run it from "
                "there; other items like it are not told",
                self.path,
                index,
                reason,
            )


async def dead_items(path: str | os.PathLike[str], fn: Callable[..., Any], *, strict: bool = True) -> list[Any]:
    """Return the items in a file that `dead=` has written, in the order of its lines, to run just those.

    A last line that a kill has torn is passed over, and the log says so.

    Args:
        path: The file.
        fn: The function or task that is to be given them.
        strict: Refuse a list with an item that JSON could not carry. False: pass over it, and log it.

    Raises:
        InvalidPayload: A line is none of a list of failed items, its item does not fit the function, or could not be
            written there; the message names the line.
        OSError: The file cannot be read.
    """
    items: list[Any] = await _in_thread(_read, _path(path), fn, strict)
    return items


def _read(path: str, fn: Callable[..., Any], strict: bool) -> list[Any]:
    plan = item_plan(fn)
    items: list[Any] = []
    for number, entry in _entries(path):
        where = f"{path}, line {number}"
        if "repr" in entry:
            reason = f"item {entry['index']} could not be written as JSON, only its text is there: {entry['repr']}"
            if strict:
                raise InvalidPayload(where, f"{reason}; run it from your own list, and the others with strict=False")
            logger.warning("%s: passed over: %s", where, reason)
            continue
        try:
            items.append((ANY if entry.get("by") == "value" else plan).decode(entry["item"], 0))
        except Exception as error:
            misfit = as_misfit(error)
            raise InvalidPayload(f"{where}: item {entry['index']}{misfit.where}", misfit.reason) from error
    return items


def _entries(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                entry = load(line.decode())
                if not isinstance(entry, dict) or not {"index", "item", "error"} <= entry.keys():
                    raise Misfit('it needs "index", "item" and "error"')
            except Exception as error:
                if not line.endswith(b"\n"):
                    logger.warning("%s: the last line is torn, and passed over: its writer was killed", path)
                    return
                reason = f"not a line of failed items: {as_misfit(error).reason}"
                raise InvalidPayload(f"{path}, line {number}", reason) from error
            yield number, entry


def item_plan(fn: Any) -> Plan:
    """Return the plan of the first parameter of a function or task."""
    is_task = getattr(type(fn), "__tickwork_task__", False)
    plain = fn.fn if is_task else fn
    params = list(signature_of(plain).parameters.values())[1 if is_task and fn.wants_context else 0 :]
    return Compiler(plain).annotation(params[0].annotation) if params else ANY


def item_text(plan: Plan, item: object) -> tuple[str, str]:
    """Return the part of a line of JSON that is about an item, and why JSON cannot carry it, or ""."""
    refusal = ""
    for way, by in ((plan, ""), (ANY, ',"by":"value"')):
        try:
            return f'"item":{dump_any(way.encode(item, 0))}{by}', ""
        except Exception as refused:  # what is asked of an item may raise anything
            refusal = refusal or as_misfit(refused).reason
    return f'"item":null,"repr":{dump_any(short(item, MAX_REPR))}', refusal


def dump_any(data: Any) -> str:
    """Return compact JSON text, with escapes where UTF-8 cannot write it."""
    try:
        return dump(data)
    except Misfit:  # a name that is no Unicode, which escapes can write
        return json.dumps(data, allow_nan=False, separators=(",", ":"))


def _path(path: object) -> str:
    name: object = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(name, str) or "\0" in name or not name:
        raise InvalidOption("dead", "the path of a file", path)
    return name


async def _in_thread(call: Callable[..., Any], *args: Any) -> Any:
    """Call a function in a thread, to its end whatever comes."""
    import aiofiles.os  # only who fails pays for it

    with outside():
        return await to_its_end(aiofiles.os.wrap(call)(*args))
