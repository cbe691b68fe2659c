"""Shell patterns over names, and over paths below a folder. Pure: it looks at no disk."""

from __future__ import annotations

import fnmatch
import os
import re
from typing import TYPE_CHECKING

from ..errors import InvalidOption

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Pattern", "Place"]

Place = tuple[int, ...]
"""Where in a pattern a folder stands: the positions of its segments that may match the next name; () is none."""

_ANY_FOLDERS = None
"""The segment `**`: any number of folders, none included."""

# As in pathlib: names differ by case unless the system says that they do not.
_FLAGS = re.IGNORECASE if os.name == "nt" else 0


class Pattern:
    """A shell pattern: `*`, `?` and `[...]` within a name, `**` for any number of folders.

    Without a "/" it is about the name of a file, in whatever folder that is. With one it is about the path below the
    folder in which the search begins: "2026/*.csv", "**/raw/*.csv", "logs/**".

    Args:
        text: The pattern.
        recursive: Whether folders below are looked into.

    Raises:
        InvalidOption: It is no text, empty, absolute, leaves the folder, or needs folders below with `recursive=False`.
    """

    def __init__(self, text: str, *, recursive: bool = True) -> None:
        segments = _segments(text)
        if not recursive and ("/" in text or "**" in segments):
            expected = "a pattern of names, since recursive=False looks into no folder below"
            raise InvalidOption("pattern", expected, text, remedy='take out the folders, or recursive=False: "*.csv"')
        if len(segments) == 1 and recursive:
            segments = ["**", *segments]
        self._segments: list[Callable[[str], object] | None] = [
            _ANY_FOLDERS if segment == "**" else re.compile(fnmatch.translate(segment), _FLAGS).match
            for segment in segments
        ]
        if self._segments[-1] is _ANY_FOLDERS:
            self._segments.append(lambda _name: True)  # "logs/**" means the files
        self.start: Place = self._reach({0})

    def enter(self, place: Place, name: str) -> Place:
        """Return where a folder of this name stands, inside of one that stands at `place`; (): no file can match."""
        reached: set[int] = set()
        for position in place:
            matches = self._segments[position]
            if matches is _ANY_FOLDERS:
                reached.add(position)
            elif position < len(self._segments) - 1 and matches(name):
                reached.add(position + 1)
        return self._reach(reached)

    def matches(self, place: Place, name: str) -> bool:
        """Return whether a file of this name, inside of a folder that stands at `place`, is meant."""
        last = self._segments[-1]
        return place[-1:] == (len(self._segments) - 1,) and last is not None and bool(last(name))

    def _reach(self, positions: set[int]) -> Place:
        """Add what follows `**`, which may match no folder at all."""
        for position in sorted(positions):
            while self._segments[position] is _ANY_FOLDERS:
                position += 1
                positions.add(position)
        return tuple(sorted(positions))


def _segments(text: object) -> list[str]:
    expected = 'a shell pattern such as "*.csv" or "data/**/*.csv"'
    if not isinstance(text, str) or not text:
        raise InvalidOption("pattern", expected, text)
    parts = text.replace(os.sep, "/").split("/")
    if not parts[0] or os.path.isabs(text) or os.path.splitdrive(text)[0]:
        raise InvalidOption(
            "pattern", expected, text, remedy="it is relative to the directory: leave out its beginning"
        )
    if ".." in parts:
        raise InvalidOption("pattern", expected, text, remedy='it cannot leave the directory: leave out ".."')
    if not parts[-1] or parts[-1] == ".":
        raise InvalidOption("pattern", expected, text, remedy='it is about files: write "data/*" or "data/**"')
    return [part for part in parts if part not in ("", ".")]
