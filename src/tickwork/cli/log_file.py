"""`--log FILE`: all that a run prints goes into a file, also what its child processes and C code print."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from ..errors import InvalidOption

if TYPE_CHECKING:
    from collections.abc import Callable


def print_into(path: str) -> None:
    """Append standard output and error of this process, and of those it starts, to a file.

    One that is made is readable by its owner only; cron's umask would let everybody read it. When it cannot be written
    later, as on a full disk, the run goes on, and the standard error of before hears of it: cron mails that.

    Raises:
        InvalidOption: It cannot be opened.
    """
    # A pipe that nobody reads would hold the open for ever without O_NONBLOCK.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
    try:
        log = os.open(path, flags, 0o600)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidOption("--log", "a file that can be written", path, remedy=f"{reason}; nothing was run") from None
    if hasattr(os, "set_blocking"):
        os.set_blocking(log, True)
    complain = _complaint(path)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with suppress(OSError, ValueError):
                stream.flush()
    for standard in (1, 2):
        os.dup2(log, standard)
    if log > 2:
        os.close(log)
    sys.stdout, sys.stderr = _text(1, complain), _text(2, complain)


def _text(descriptor: int, complain: Callable[[OSError], None]) -> io.TextIOWrapper:
    raw = _Tolerant(descriptor, complain)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),  # type: ignore[type-var]  # all that it asks for is there
        encoding="utf-8",
        errors="backslashreplace",
        newline="\n",
        line_buffering=True,
    )


def _complaint(path: str) -> Callable[[OSError], None]:
    """Return what to call when the log cannot be written; only the first call says so."""
    try:
        before: int | None = os.dup(2)
    except OSError:  # there is none, as under pythonw.exe
        before = None

    def complain(error: OSError) -> None:
        nonlocal before
        if before is None:
            return
        text = (
            f"tickwork: the log {path!r} cannot be written: {error.strerror or error}; the run goes on, and what it "
            "prints is lost\n"
        )
        with suppress(OSError):
            os.write(before, text.encode(errors="backslashreplace"))
        os.close(before)
        before = None

    return complain


class _Tolerant(io.RawIOBase):
    """A file that takes whatever is written: a job must not fail because its log is full."""

    def __init__(self, descriptor: int, complain: Callable[[OSError], None]) -> None:
        self._descriptor = descriptor
        self._complain = complain

    def fileno(self) -> int:
        return self._descriptor

    def writable(self) -> bool:
        return True

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        try:
            return os.write(self._descriptor, data)
        except OSError as error:
            self._complain(error)
            return len(data)
