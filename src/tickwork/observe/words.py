"""Names made fit for a picture: what they have in common left out, shortened, without what cannot be shown."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["columns", "common", "printable", "shorten"]


def common(names: Sequence[str]) -> str:
    """Return what all names begin with, up to and with a dot: the module they come from; "" for a single name."""
    if len(names) < 2:
        return ""
    first, last = min(names), max(names)
    same = next((number for number, letter in enumerate(first) if last[number : number + 1] != letter), len(first))
    return first[: first.rfind(".", 0, same) + 1]


def printable(text: str) -> str:
    """Return a text on one line, with a replacement character for each that no terminal and no XML may hold."""
    return "".join(
        # The joiner is what emoji of several parts are made with.
        letter if letter.isprintable() or letter == "\u200d" else "\ufffd"
        for letter in " ".join(text.split())
    )


def columns(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    return sum(_columns(letter) for letter in text)


def _columns(letter: str) -> int:
    if unicodedata.combining(letter) or unicodedata.category(letter) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def shorten(text: str, most: float, *, width: Callable[[str], float] = columns, dots: str = "\u2026") -> str:
    """Return a text that is no wider than `most`: its beginning and its end, with dots for what is between.

    Args:
        text: Any text.
        most: How wide it may be.
        width: Measures a text.
        dots: What stands for the rest.
    """
    if width(text) <= most:
        return text
    head, tail, kept = 0, 0, dots
    while head + tail < len(text):
        # The end of a name tells as much as its beginning, and both more than the middle.
        head, tail = (head + 1, tail) if head <= tail else (head, tail + 1)
        longer = text[:head] + dots + text[len(text) - tail :]
        if width(longer) > most:
            break
        kept = longer
    return kept
