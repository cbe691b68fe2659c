"""What `tickwork map` writes: a line of JSON for each item, into a file that is whole at the end, or onto stdout."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from contextlib import contextmanager, suppress
from contextvars import copy_context
from functools import partial
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from ..batch.checkpoint import result_codec
from ..batch.dead import dump_any, item_plan, item_text
from ..errors import InvalidOption
from ..payloads import type_and_message
from ..runners.thread import ThreadRunner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Self

    from ..batch.outcomes import ItemOutcome

MOST_BYTES = 1 << 16
"""So much is gathered before it is written at once."""
WRITE_SECONDS = 0.2
"""What has been gathered is written so often: people who look at the file see no delay."""
LAST_SECONDS = 1.0
"""How long the last lines may take when the command was told to end: a pipe that nobody reads takes none."""
STDOUT = "-"


class Lines:
    """Makes the line of an outcome.

    Args:
        fn: The function: items stand there by the hint of its first parameter, results by its return hint. Paths are
            plain text.
        keeps_results: False: the result of every item is null.
    """

    def __init__(self, fn: Callable[..., Any], *, keeps_results: bool) -> None:
        self._plan = item_plan(fn)
        self._codec = result_codec(fn) if keeps_results else None

    def line(self, outcome: ItemOutcome[Any, Any]) -> bytes:
        """Return the line of an outcome.

        Raises:
            InvalidPayload: JSON cannot carry the result.
        """
        item = outcome.item
        text = f'"item":{dump_any(str(item))}' if isinstance(item, PurePath) else item_text(self._plan, item)[0]
        if outcome.error is not None:
            kind, message = type_and_message(outcome.error.error)
            end = f'"error":{dump_any({"type": kind, "message": message})}'
        else:
            end = f'"result":{"null" if self._codec is None else self._codec.encode(outcome.value)}'
        return f'{{"index":{outcome.index},{text},{end}}}\n'.encode()


@contextmanager
def stdout_kept() -> Iterator[int]:
    """Keep stdout for the results: what functions print goes to stderr meanwhile, that of child processes too.

    Raises:
        InvalidOption: There is no stdout.
    """
    try:
        fd = os.dup(1)
    except OSError as error:
        raise InvalidOption("--out", "a file, where there is no stdout", STDOUT, remedy=error.strerror or "") from None
    try:
        sys.stdout.flush()
        try:
            os.dup2(2, 1)
        except OSError:  # there is no stderr
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), 1)
        yield fd
    finally:
        os.close(fd)


class Sink:
    """Takes lines, and writes them in a thread. `async with` it; what is not finished is kept as far as it is.

    A plain file is written beside its place, as NAME.part, and put there by `finish`: so NAME is whole or not there,
    and an older one stays until then.

    Args:
        name: The file.
        fd: Open already: stdout.

    Raises:
        InvalidOption: The file cannot be written.
    """

    def __init__(self, name: str, fd: int | None = None) -> None:
        self.part: str | None = None
        """Where the lines are until the end; None: where they belong."""
        self._is_new = False
        self._name = os.path.realpath(name)  # a link stays a link
        if fd is None:
            try:
                fd = self._open(name)
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or str(error)
                raise InvalidOption("--out", "a file that can be written", name, remedy=reason) from None
        self._fd = fd
        self._threads = ThreadRunner()
        self._lines: list[bytes] = []
        self._size = 0
        self._has_begun = self._is_broken = self._is_in_place = False
        self._writing: asyncio.Future[Any] | None = None
        self._turn = asyncio.Lock()
        self._error: OSError | None = None

    def _open(self, name: str) -> int:
        path = Path(name)
        if not name:
            raise FileNotFoundError(0, "it has no name")
        if path.exists() and not path.is_file() and not path.is_dir():  # a pipe or a device
            return os.open(name, os.O_WRONLY)
        if path.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        self.part = f"{name}.part"
        self._is_new = not os.path.lexists(self.part)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
        return os.open(self.part, flags, 0o666)

    async def __aenter__(self) -> Self:
        self._ticker = asyncio.create_task(self._tick(asyncio.current_task()), name="tickwork-map-lines")
        return self

    async def put(self, line: bytes) -> None:
        """Take a line, and wait where many are there.

        Raises:
            OSError: The disk is full, say, or nobody reads any more.
        """
        self._lines.append(line)
        self._size += len(line)
        if self._size >= MOST_BYTES:
            await self._flush()

    async def finish(self) -> None:
        """Write the last lines, and put the file into its place.

        Raises:
            OSError: It cannot be written.
        """
        await self._flush()
        if self.part is not None:
            await self._in_thread(self._put_in_place, self.part)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ticker.cancel()
        await asyncio.wait([self._ticker])
        with suppress(TimeoutError, OSError):
            async with asyncio.timeout(LAST_SECONDS):
                if self._writing is not None:
                    await asyncio.wait([self._writing])
                if self._lines and not self._is_broken:
                    await self._flush()
        self._threads.close()
        if self._writing is not None and not self._writing.done():
            return  # a thread is stuck in the file
        if self.part is not None and not self._is_in_place:
            os.close(self._fd)
            if self._is_new and not self._has_begun:
                with suppress(OSError):
                    os.unlink(self.part)

    async def _tick(self, owner: asyncio.Task[Any] | None) -> None:
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            if self._lines:
                try:
                    await self._flush()
                except OSError as error:
                    self._error = error
                    assert owner is not None
                    owner.cancel()  # it may wait for an item for hours; see `failure`
                    return

    @property
    def failure(self) -> OSError | None:
        """Why it has cancelled its owner, if it has."""
        return self._error

    async def _flush(self) -> None:
        async with self._turn:
            lines, self._lines, self._size = self._lines, [], 0
            if not self._is_broken:
                await self._in_thread(self._write, b"".join(lines))

    async def _in_thread(self, call: Callable[..., None], *args: Any) -> None:
        self._writing = self._threads.start(copy_context(), partial(call, *args), (), {})
        _, error = await asyncio.shield(self._writing)
        if error is not None:
            self._is_broken = True
            raise error

    # -- in the thread ----------------------------------------------------------------------------------------------

    def _write(self, data: bytes) -> None:
        if not self._has_begun:
            self._has_begun = True
            if self.part is not None:
                os.ftruncate(self._fd, 0)  # not before: what an earlier call has left may be all there is
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    def _put_in_place(self, part: str) -> None:
        os.fsync(self._fd)
        os.close(self._fd)  # Windows moves no open file
        self._is_in_place = True
        if os.path.exists(self._name):
            with suppress(OSError):
                shutil.copymode(self._name, part)
        os.replace(part, self._name)
