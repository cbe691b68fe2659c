"""What nobody is to see: arguments marked `Annotated[str, Secret]`, and names that look like secrets."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from .plan import HIDDEN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Secret", "hidden_texts", "hide_by_name", "is_marked", "looks_secret", "without"]


class Secret:
    """Marks a hint whose values nobody is to see: `token: Annotated[str, Secret]`.

    Such an argument is `***` in messages, logs, `app.jobs` and the commands. The job gets the value, and so the store
    holds it: whoever may read the file can read it there. Where that is too much, pass the name of the secret, and let
    the task look it up.
    """

    __slots__ = ()


_NAMES = re.compile(
    r"pass(?:word|wd|phrase|code)|secret|token|credential|authori[sz]ation|cookie|(?:api|access|private|signing)_?-?key",
    re.IGNORECASE,
)
_SHORTEST = 4
"""A shorter text would be found in half of all messages, and is hardly a secret."""


def is_marked(metadata: Iterable[Any]) -> bool:
    """Return whether `Secret` is among the metadata of an `Annotated` hint."""
    return any(mark is Secret or isinstance(mark, Secret) for mark in metadata)


def hidden_texts(raw: Any, shown: Any) -> Iterator[str]:
    """Yield the texts in JSON data that are hidden in what people see of it."""
    if shown == HIDDEN and type(raw) is not dict and type(raw) is not list:
        if type(raw) is str:
            yield raw
        return
    inside = raw.values() if type(raw) is dict else raw if type(raw) is list else ()
    seen = shown.values() if type(shown) is dict else shown if type(shown) is list else [HIDDEN] * len(inside)
    if shown != raw:
        for item, see in zip(inside, seen, strict=True):
            yield from hidden_texts(item, see)


def looks_secret(name: str) -> bool:
    """Return whether a name, such as "password", "token" or "api_key", says that its value is a secret."""
    return _NAMES.search(name) is not None


def hide_by_name(data: Any) -> Any:
    """Return JSON data in which the values under names such as "password", "token" and "api_key" are hidden."""
    if isinstance(data, dict):
        return {key: HIDDEN if looks_secret(key) else hide_by_name(value) for key, value in data.items()}
    return [hide_by_name(item) for item in data] if isinstance(data, list) else data


def without(text: str, values: Iterable[str]) -> str:
    """Return a text without these values, however `repr` or JSON writes them.

    Those of less than four characters are left in it. Of a value of several lines, each line is hidden, too.
    """
    values = [value for value in values if len(value) >= _SHORTEST]
    forms = {form for value in values for part in _parts(value) for form in _forms(part)}
    for form in sorted(forms, key=len, reverse=True):  # one may be a part of another
        text = text.replace(form, HIDDEN)
    inner = {line.strip(_INDENT) for value in values for line in value.split("\n")[1:-1]}
    if not inner:
        return text
    return "\n".join(HIDDEN if _is_one_of(line.strip(_INDENT), inner) else line for line in text.split("\n"))


_INDENT = " |"
"""What the traceback of a group of exceptions puts before each line of a message."""


def _is_one_of(line: str, hidden: set[str]) -> bool:
    return len(line) >= _SHORTEST and line in hidden


def _parts(value: str) -> set[str]:
    """Return a value, and its first and its last line, which other words may stand beside."""
    lines = value.split("\n")
    return {part for part in (value, lines[0], lines[-1]) if len(part) >= _SHORTEST}


def _forms(part: str) -> Iterator[str]:
    """Yield a text as a message may show it: as it is, in a repr or in JSON."""
    yield part
    if part.isalnum() and part.isascii():  # nothing in it is ever escaped
        return
    for write in (repr, ascii):
        yield write(part)[1:-1]
        yield write('"' + part)[2:-1]  # in a text with both quotes, one of them is escaped
    yield json.dumps(part)[1:-1]
    yield json.dumps(part, ensure_ascii=False)[1:-1]
