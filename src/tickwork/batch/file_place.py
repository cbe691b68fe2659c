"""Files as the items of a batch: what cannot be read is an item that has failed, and contents are read on the way."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Literal

from ..elapsed import elapsed
from .files import Unreadable, find_files, read_file
from .places import Ended, Place

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from .chunks import Lengths

MOST_BYTES = 8 << 20
"""How much of contents a chunk carries, unless one file is larger: each lane has one chunk in memory, or two."""


class Files:
    """The files of a folder, as they are found.

    Attributes:
        unreadable: What was found and cannot be read, with the reason.
    """

    def __init__(self, directory: str | os.PathLike[str], pattern: str, *, recursive: bool) -> None:
        self._found = find_files(directory, pattern, recursive=recursive)
        self.unreadable: dict[Path, OSError] = {}

    async def paths(self) -> AsyncIterator[Path]:
        """Yield the paths of all of them, readable or not."""
        async with aclosing(self._found):
            async for entry in self._found:
                if isinstance(entry, Unreadable):
                    self.unreadable[entry.path] = entry.error
                    yield entry.path
                else:
                    yield entry


class FilePlace(Place):
    """Runs a function with paths, or with what the files hold, in another place.

    It runs the first items of a chunk, as far as they can be read and are not too much together; the rest comes back.

    Args:
        place: The other place.
        files: Knows what cannot be read.
        read: What the function is given: "bytes", "text", or None: the path.
    """

    def __init__(self, place: Place, files: Files, read: Literal["bytes", "text"] | None) -> None:
        self.lanes: int = place.lanes
        self.lengths: Lengths = place.lengths
        self._inner, self._files, self._read = place, files, read

    async def run(self, items: Sequence[Path], seconds: float, first: int) -> Ended:
        """See `Place.run`."""
        began = elapsed()
        given: list[Any] = []
        size = 0
        for path in items:
            try:
                content: Any = await self._content(path)
            except (OSError, ValueError) as error:
                if given:
                    break
                is_final = path in self._files.unreadable  # the walk does not come back to it
                return Ended([None], [(0, error)], elapsed() - began, is_final=is_final)
            given.append(content)
            size += 0 if self._read is None else len(content)
            if size >= MOST_BYTES or (self._read is not None and elapsed() - began >= self.lengths.target):
                break
        read_seconds = elapsed() - began
        ended = await self._inner.run(given, seconds, first)
        ended.seconds += read_seconds
        return ended

    async def _content(self, path: Path) -> Any:
        if (error := self._files.unreadable.get(path)) is not None:
            raise error
        return path if self._read is None else await read_file(path, self._read)

    async def aclose(self) -> None:
        """Close the other place."""
        await self._inner.aclose()
