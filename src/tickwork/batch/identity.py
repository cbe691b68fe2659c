"""Whose results a checkpoint holds: a text for a function, the same in each process and run, that no other one has.

The name of a function tells which code it is. Where that alone does not tell what it returns (the arguments of a
partial, the instance of a method) the rest is part of the text, or the caller says it with a version.
"""

from __future__ import annotations

from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..errors import InvalidOption, InvalidPayload
from ..runners.reference import task_name
from .fingerprint import fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["identity_of"]


def identity_of(fn: Callable[..., Any], version: object, read: str | None = None) -> str:
    """Return the text by which a checkpoint knows a function.

    Args:
        fn: The function or task.
        version: What the caller says of it; None: nothing.
        read: What of its files the function is given: "bytes" or "text"; None: it is given the items themselves.

    Raises:
        InvalidOption: Nothing tells its results from those of another function, and there is no version.
    """
    parts = [task_name(fn)]
    plain, gap = _plain(fn), ""
    if isinstance(plain, partial):  # a partial of a partial is one
        try:
            parts.append(f"arguments {fingerprint((plain.args, plain.keywords)).hex()}")
        except InvalidPayload:
            gap = "it is a partial with something that a checkpoint cannot tell from others"
        plain = _plain(plain.func)
    gap = _gap(plain) or gap
    owner = getattr(plain, "__self__", None)
    if isinstance(owner, type) and not parts[0].startswith(f"{task_name(owner)}."):  # inherited: others have it too
        parts.append(f"of {task_name(owner)}")
    if gap and version is None:
        raise InvalidOption(
            "fn",
            "a function whose name tells what it does, where there is a checkpoint",
            fn,
            remedy=f'{gap}: pass a function of a module, or version="1", and another text whenever it would return '
            "something else",
        )
    if read is not None:
        parts.append(f"read as {read}")
    return ", ".join(parts)


def _plain(fn: Any) -> Any:
    while getattr(type(fn), "__tickwork_task__", False):
        fn = fn.fn
    return fn


def _gap(fn: Any) -> str:
    """Return why the name of a function does not tell what it returns; "": it does."""
    owner = getattr(fn, "__self__", None)
    if owner is not None and not isinstance(owner, type | ModuleType):
        return f"it is a method of an instance of {type(owner).__qualname__}"
    name = getattr(fn, "__qualname__", None) or getattr(fn, "__name__", None)
    if not isinstance(name, str):
        return f"it is an instance of {type(fn).__qualname__}"
    if "<lambda>" in name:
        return "it is a lambda"
    return "it is defined inside another function" if "<locals>" in name else ""
