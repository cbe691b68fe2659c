"""Values of which some cannot be unpickled: all the others, without running an item again.

The values of a chunk come as one pickle, which is by far the fastest. When it does not load, it is read once more,
slowly, by an unpickler that goes on where something raises: what that would have made is noted as broken, or something
that stands for it is. In the end a value has failed when something broken is part of it.
"""

from __future__ import annotations

import gc
import io
import pickle
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from ..runners.calls import find_in_main

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_ENDS = (type, ModuleType, FunctionType, BuiltinFunctionType, str, bytes, int, float, type(None))
"""What is part of many values, or has no parts: nothing of a pickle hides below it."""


class _StandIn:
    """Stands where something could not be made."""


def salvage(body: bytes, buffers: Sequence[memoryview]) -> tuple[list[Any], list[tuple[int, Exception]]]:
    """Return the values of a pickled list, None for those that cannot be unpickled; and why, each with its place.

    Raises:
        Exception: The pickle is damaged, so that no value can be had.
    """
    unpickler = _Salvager(io.BytesIO(body), buffers=buffers)
    values: list[Any] = unpickler.load()
    failures: list[tuple[int, Exception]] = []
    sound: set[int] = set()
    for place, value in enumerate(values):
        error = _first_broken(value, unpickler.broken, sound)
        if error is not None:
            failures.append((place, error))
    for place, _ in failures:
        values[place] = None
    return values, failures


def _first_broken(value: Any, broken: dict[int, tuple[Any, Exception]], sound: set[int]) -> Exception | None:
    """Return why a part of a value is broken; None: none is, and all of them are `sound`."""
    seen: set[int] = set()
    todo = [value]
    while todo:
        part = todo.pop()
        key = id(part)
        if key in broken:
            return broken[key][1]
        # Not isinstance: it asks for `__class__`, which may be a property that raises.
        if key not in seen and key not in sound and not issubclass(type(part), _ENDS):
            seen.add(key)
            todo += gc.get_referents(part)
    sound |= seen
    return None


_Unpickler: Any = vars(pickle)["_Unpickler"]
"""The one that is written in Python: it has a function for each opcode."""


class _Salvager(_Unpickler):  # type: ignore[misc]
    """Reads on where something raises.

    Attributes:
        broken: What could not be made, or not filled, with the reason, by `id`.
    """

    def __init__(self, file: io.BytesIO, *, buffers: Sequence[memoryview]) -> None:
        super().__init__(file, buffers=buffers)
        self.broken: dict[int, tuple[Any, Exception]] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return what a name stands for."""
        return find_in_main(super().find_class, module, name)

    def _note(self, entry: Any, error: Exception) -> None:
        self.broken.setdefault(id(entry), (entry, error))

    def _reason(self, parts: Sequence[Any], error: Exception) -> Exception:
        """Return what is behind an error: when a part was broken before, that."""
        for part in parts:
            for entry in (part, *part) if type(part) is tuple else (part,):
                if id(entry) in self.broken:
                    return self.broken[id(entry)][1]
        return error


def _making(opcode: bytes, count: int | None) -> Callable[[_Salvager], None]:
    """Return what handles an opcode that makes something of the `count` last entries; None: of those since a mark."""
    handle = _Unpickler.dispatch[opcode[0]]

    def guarded(self: _Salvager) -> None:
        depth = len(self.metastack[-1]) if count is None else len(self.stack) - count
        parts = list(self.stack) if count is None else self.stack[depth:]
        try:
            handle(self)
        except Exception as error:
            stand_in = _StandIn()
            self._note(stand_in, self._reason(parts, error))
            self.stack[depth:] = [stand_in]

    return guarded


def _filling(opcode: bytes) -> Callable[[_Salvager], None]:
    """Return what handles an opcode that puts something into what lies below: that stays, full or not."""
    handle = _Unpickler.dispatch[opcode[0]]

    def guarded(self: _Salvager) -> None:
        try:
            handle(self)
        except Exception as error:
            self._note(self.stack[-1], error)

    return guarded


_Salvager.dispatch = {
    **_Unpickler.dispatch,
    **{
        opcode[0]: _making(opcode, count)
        for opcode, count in (
            (pickle.STACK_GLOBAL, 2),
            (pickle.REDUCE, 2),
            (pickle.NEWOBJ, 2),
            (pickle.NEWOBJ_EX, 3),
            (pickle.FROZENSET, None),
        )
    },
    **{
        opcode[0]: _filling(opcode)
        for opcode in (
            pickle.APPEND,
            pickle.APPENDS,
            pickle.SETITEM,
            pickle.SETITEMS,
            pickle.ADDITEMS,
            pickle.BUILD,
        )
    },
}
