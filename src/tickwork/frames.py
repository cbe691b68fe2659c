"""Whose code a frame is, and where: what names a line to a person.

A stack goes through asyncio, a framework and tickwork, but the line to look at is the deepest one that the reader
has written.
"""

from __future__ import annotations

import importlib
import linecache
import os
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from types import GeneratorType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import FrameType

LIBRARY = os.path.dirname(os.path.abspath(__file__)) + os.sep
INSTALLED = tuple(f"{os.sep}{folder}{os.sep}" for folder in ("site-packages", "dist-packages"))

MAX_FRAMES = 30
"""How many frames of a stack are shown, the deepest: enough for a web framework around a handler."""
MAX_TEXT = 200
"""The longest part of a name or of a source line that is shown, in characters."""


class HasFile(Protocol):
    """A place in code: ours, or the FrameSummary of a traceback."""

    @property
    def filename(self) -> str:
        """The path of the file, or a text such as "<string>"."""


Line = TypeVar("Line", bound=HasFile)


@dataclass(frozen=True, slots=True)
class Place:
    """A line of code that was being run."""

    filename: str
    lineno: int
    function: str

    @property
    def source(self) -> str:
        """The text of the line, cut to 200 characters; empty where there is no source. Reads the file."""
        return linecache.getline(self.filename, self.lineno).strip()[:MAX_TEXT]

    def __str__(self) -> str:
        """Return "jobs/poll.py:14 in poll": from the current folder, where the file is below it."""
        return f"{_short(self.filename)}:{self.lineno} in {self.function[:MAX_TEXT]}"


def deepest_own(lines: Sequence[Line]) -> Line | None:
    """Return the last line in code of the user's; else the last one in a file at all; None: there is none.

    The user's is what is neither the standard library, nor installed as a package, nor tickwork.

    Args:
        lines: The outermost first.
    """
    in_files = [line for line in lines if _is_file(line.filename)]
    own = [line for line in in_files if not _is_foreign(line.filename)] or in_files
    return own[-1] if own else None


def _is_file(filename: str) -> bool:
    """Return whether it is a file, and none of ours: no "<string>", no "<frozen importlib._bootstrap>"."""
    return not filename.startswith(("<", LIBRARY)) and filename != importlib.__file__


def _is_foreign(filename: str) -> bool:
    return filename.startswith(_foreign_folders()) or any(folder in filename for folder in INSTALLED)


@cache
def _foreign_folders() -> tuple[str, ...]:
    import sysconfig  # late: needed only where a place is told

    return tuple({sysconfig.get_path(key) + os.sep for key in ("stdlib", "platstdlib", "purelib", "platlib")})


def _short(filename: str) -> str:
    try:
        here = os.getcwd() + os.sep
    except OSError:  # the current folder was removed
        return filename
    return filename.removeprefix(here)


# -- the stack of a running thread ------------------------------------------------------------------------------------


def chain(frame: FrameType | None) -> list[FrameType]:
    """Return a frame and those that called it, the outermost first."""
    frames = []
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    frames.reverse()
    return frames


def depth(frame: FrameType | None) -> int:
    """Return how many frames there are from the outermost to this one."""
    count = 0
    while frame is not None:
        count += 1
        frame = frame.f_back
    return count


def suspended(awaitable: Any) -> list[FrameType]:
    """Return where a coroutine waits: its frame, that of what it awaits, and so on. Empty while it runs.

    A worker drives the coroutine of its job itself; it is found in its variable of that name.
    """
    frames = []
    with suppress(AttributeError):  # at the deepest: what is awaited has no frame
        while awaitable is not None:
            if isinstance(awaitable, GeneratorType):
                frame, is_running, deeper = awaitable.gi_frame, awaitable.gi_running, awaitable.gi_yieldfrom
            else:
                frame, is_running, deeper = awaitable.cr_frame, awaitable.cr_running, awaitable.cr_await
            if frame is None or is_running:
                break
            frames.append(frame)
            if deeper is None and frame.f_code.co_filename.startswith(LIBRARY):
                deeper = frame.f_locals.get("coroutine")
            awaitable = deeper
    return frames


def places(frames: Iterable[FrameType]) -> list[Place]:
    """Return where frames stand. It holds nothing of theirs: who keeps a frame keeps all its variables alive."""
    return [Place(frame.f_code.co_filename, frame.f_lineno or 0, frame.f_code.co_qualname) for frame in frames]


def format_stack(lines: Sequence[Place]) -> str:
    """Return a stack as Python prints it, the deepest 30 frames. Reads the files."""
    shown = lines[-MAX_FRAMES:]
    text = [f"  ... {len(lines) - len(shown)} more"] if len(lines) > len(shown) else []
    for line in shown:
        text.append(f'  File "{line.filename}", line {line.lineno}, in {line.function[:MAX_TEXT]}')
        if source := line.source:
            text.append(f"    {source}")
    return "\n".join(text)
