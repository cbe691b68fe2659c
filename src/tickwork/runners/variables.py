"""Context variables that go to child processes: found there by name, as functions are, and set for one call."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Sequence
from contextvars import Context, ContextVar, copy_context
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..errors import InvalidOption, InvalidPayload
from .reference import MAIN_NAMES, Reference, main_module

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Variables", "checked"]


def checked(given: object) -> tuple[ContextVar[Any], ...]:
    """Return the context variables that an option was given.

    Raises:
        InvalidOption: It is no list of context variables, or another process would not find one of them.
    """
    expected = "a list of context variables"
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise InvalidOption("contextvars", expected, given)
    for variable in given:
        if not isinstance(variable, ContextVar):
            raise InvalidOption("contextvars", expected, given)
        _find(variable)
    return tuple(given)


def _find(variable: ContextVar[Any]) -> Reference:
    """Return where a variable stands. It does not know that itself, so modules are looked through, its name first."""
    entries: list[tuple[str, Any]] = list(sys.modules.items())
    entries.sort(key=lambda entry: entry[0] in MAIN_NAMES)  # last: a child would have to import the script for it
    modules = [(name, dict(vars(module))) for name, module in entries if isinstance(module, ModuleType)]
    for name, held in modules:
        if held.get(variable.name) is variable and (place := _place(name)) is not None:
            return Reference(place[0], variable.name, place[1])
    for name, held in modules:
        for attribute, value in held.items():
            if value is variable and (place := _place(name)) is not None:
                return Reference(place[0], attribute, place[1])
    remedy = "a child process finds one by name, so it must stand at the top level of a module"
    raise InvalidOption("contextvars", "context variables of modules", variable, remedy=remedy)


def _place(module: str) -> tuple[str, str | None] | None:
    return main_module() if module in MAIN_NAMES else (module, None)


class Variables:
    """The context variables that go with each call."""

    def __init__(self, variables: Iterable[ContextVar[Any]]) -> None:
        self._found = [(variable, tuple(_find(variable))) for variable in variables]

    def packed(self, name: str, context: Context | None = None) -> bytes | None:
        """Return names and values, pickled; None: none of them is set.

        Args:
            name: The name of the function, for errors.
            context: Whose values; None: those of the caller.

        Raises:
            InvalidPayload: One of the values cannot be pickled; it is named.
        """
        if not self._found:
            return None
        context = copy_context() if context is None else context
        values = [(where, context[variable]) for variable, where in self._found if variable in context]
        try:
            return pickle.dumps(values, 5) if values else None
        except Exception as error:
            raise self._unpicklable(name, context, error) from error

    def _unpicklable(self, name: str, context: Context, error: Exception) -> InvalidPayload:
        for variable, _ in self._found:
            try:
                pickle.dumps(context.get(variable), 5)
            except Exception as reason:
                kind = type(context[variable]).__qualname__
                what = f"context variable {variable.name!r} of {name}"
                return InvalidPayload(what, f"a {kind} cannot be pickled for a child process: {reason}")
        return InvalidPayload(f"context variables of {name}", f"they cannot be pickled for a child process: {error}")
