r"""Words -> the command of a crontab line, such that each arrives as it is: cron and /bin/sh both read the line.

    it's 100%   ->   'it'"'"'s 100'"$(printf '\045')"''

The shell is quietened by single quotes, inside which nothing has a meaning. cron knows nothing of quotes: Debian's and
cronie's take `%` for a newline, Debian's halves backslashes, busybox's cuts a line at `#`. So none of these stands in a
line at all; `printf` makes each of them, from its octal code, when the job runs.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from ..errors import InvalidEntry

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["MAX_COMMAND_BYTES", "check_length", "check_text", "quote", "quote_all"]

MAX_COMMAND_BYTES = 998
"""The longest command that Debian's cron takes: what is longer, its `crontab` refuses as a bad command."""

_PLAIN = re.compile(r"[A-Za-z0-9_@+:,./-]+")  # no "=": `A=b` in front of a command sets a variable
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")  # all but the tab, which single quotes carry
_HIDDEN = {
    "'": "'\"'\"'",
    "\\": "'\"$(printf '\\134')\"'",
    "%": "'\"$(printf '\\045')\"'",
    "#": "'\"$(printf '\\043')\"'",
}
# A backslash hides `%` and is itself halved, so that a printf with one in its argument would meet both. `\134` is safe:
# a single backslash in front of a digit stays.


def quote(word: str, part: str = "argument") -> str:
    """Return a word as it stands in the command of a crontab line.

    Args:
        word: Any text; bytes that are no UTF-8 as `os.fsdecode` gives them.
        part: What it is, for the error.

    Raises:
        InvalidEntry: It holds a control character other than a tab, or is no text that can be encoded.
    """
    check_text(word, part)
    if _PLAIN.fullmatch(word):
        return word
    return "'" + "".join(_HIDDEN.get(character, character) for character in word) + "'"


def quote_all(words: Sequence[str], part: str = "argument") -> str:
    """Return several words, with spaces between."""
    return " ".join(quote(word, part) for word in words)


def check_text(word: object, part: str) -> None:
    """Refuse what cannot stand in a line.

    Raises:
        InvalidEntry: It is no text, holds a control character other than a tab, or cannot be encoded.
    """
    if not isinstance(word, str):
        raise InvalidEntry(part, word, f"it must be a text, not {type(word).__name__}")
    if control := _CONTROL.search(word):
        reason = f"it holds the control character {control[0]!r}, which would end or change the line; pass it in a file"
        raise InvalidEntry(part, word, reason)
    try:
        os.fsencode(word)
    except UnicodeEncodeError as error:
        raise InvalidEntry(part, word, f"it cannot be encoded as {error.encoding}: {error.reason}") from None


def check_length(command: bytes) -> None:
    """Refuse a command that not every cron takes.

    Raises:
        InvalidEntry: It has more than 998 bytes.
    """
    if len(command) > MAX_COMMAND_BYTES:
        text = os.fsdecode(command)
        reason = (
            f"with its quotes it has {len(command)} bytes, and Debian's cron takes {MAX_COMMAND_BYTES};"
            " put its arguments into a file or a script"
        )
        raise InvalidEntry("command", text, reason)
