"""Records: small immutable values, made by the million, of many classes.

A frozen dataclass sets every field through `object.__setattr__`: 3.4 us for the 22 fields of a job, 8 us for a copy
with `dataclasses.replace`, and a scheduled job takes a dozen records from fire time to end. `record` therefore makes
classes that only the type checker freezes: 1 us for either.

A dataclass writes and compiles six methods for each class, a millisecond in all, and an app that is imported has forty.
Of a record only `__init__` is written; the others are the same functions for all.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeVar, dataclass_transform

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["changed", "copier", "fill", "record"]

R = TypeVar("R")
C = TypeVar("C")

fill: Callable[[Any, str, Any], None] = object.__setattr__
"""Sets a field of a record that nobody else has seen yet: `fill(record, "name", value)`."""

_copiers: dict[tuple[Any, ...], Callable[..., Any]] = {}
"""By class and the names of the fields that change: as many as there are calls of `changed` in the code."""


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def record(cls: type[C]) -> type[C]:
    """Make a record class: slots, keyword-only fields, equal and hashed by value; frozen to the type checker."""
    made = dataclass(slots=True, kw_only=True, eq=False, repr=False)(cls)
    for name, method in (("__repr__", _repr), ("__eq__", _equals), ("__hash__", _hash)):
        if name not in cls.__dict__:
            setattr(made, name, method)
    return made


def _repr(self: Any) -> str:
    shown = (f"{entry.name}={getattr(self, entry.name)!r}" for entry in fields(self) if entry.repr)
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _equals(self: Any, other: Any) -> Any:
    if other.__class__ is not self.__class__:
        return NotImplemented
    return all(getattr(self, entry.name) == getattr(other, entry.name) for entry in fields(self))


def _hash(self: Any) -> int:
    return hash(tuple(getattr(self, entry.name) for entry in fields(self)))


def changed(record: R, **changes: Any) -> R:
    """Return a copy of a record with some fields changed.

    Args:
        record: An instance of a record class.
        **changes: New values by field.

    Raises:
        AttributeError: It has no such field.
    """
    try:
        copy = _copiers[record.__class__, *changes]
    except KeyError:
        copy = _make_copier(record.__class__, *changes)
    made: R = copy(record, *changes.values())
    return made


def copier(cls: type[R], *names: str) -> Callable[..., R]:
    """Return what copies a record with other values for these fields, which it is called with after the record.

    Where a copy is made for every job: a third of the time that `changed` takes. It takes a millisecond to make, which
    no import should. The record may be of a class that `cls` derives from, when the names are all that it lacks.
    """
    return _copiers.get((cls, *names)) or _make_copier(cls, *names)


def _make_copier(cls: type, *names: str) -> Callable[..., Any]:
    """Return a function that copies an instance with new values for these fields; a loop takes twice as long."""
    known: dict[str, Any] = {"cls": cls, "new": object.__new__}
    kept = [entry.name for entry in fields(cls)]
    for name in names:
        if name not in kept:
            raise AttributeError(f"{cls.__qualname__} has no field {name!r}")
    lines = [f"    made.{name} = {name if name in names else f'record.{name}'}" for name in kept]
    exec(
        "\n".join([f"def copy({', '.join(('record', *names))}):", "    made = new(cls)", *lines, "    return made"]),
        known,
    )
    copy: Callable[..., Any] = known["copy"]
    return _copiers.setdefault((cls, *names), copy)
