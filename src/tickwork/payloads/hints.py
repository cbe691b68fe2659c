"""From hints to plans."""

from __future__ import annotations

import builtins
import contextlib
import dataclasses
import enum
import functools
import inspect
import sys
import types
import typing
from collections import abc
from typing import Any

from . import containers, values
from .plan import Plan, class_name
from .secrets import is_marked

# Since Python 3.14 annotations are evaluated when somebody asks; a name that only type checkers know must not raise.
_LAZY: dict[str, Any] = {}
if sys.version_info >= (3, 14):
    import annotationlib

    _LAZY = {"format": annotationlib.Format.FORWARDREF}

# What an abstract hint accepts: each concrete type comes back as it went in.
_ABSTRACT: dict[Any, tuple[Any, ...]] = {
    abc.Sequence: (list, tuple),
    abc.Iterable: (list, tuple, set, frozenset),
    abc.Set: (set, frozenset),
    abc.Mapping: (dict,),
}
_WRAPPERS = (typing.Annotated, typing.Required, typing.NotRequired, typing.Final)


def signature_of(fn: abc.Callable[..., Any]) -> inspect.Signature:
    """Return the signature; some functions written in C have none, and take anything."""
    try:
        return inspect.signature(fn, **{f"annotation_{key}": value for key, value in _LAZY.items()})
    except (ValueError, TypeError):
        return inspect.signature(lambda *args, **kwargs: None)


def secret_parameters(fn: abc.Callable[..., Any], names: abc.Iterable[str]) -> set[str]:
    """Return those of these parameters whose hint, or a part of it, is marked `Secret`; what cannot be read is not."""
    parameters, found = signature_of(fn).parameters, set()
    for name in names:
        compiler = Compiler(fn)  # each has its own: one would look at a class once
        with contextlib.suppress(Exception):  # classes in hints may do anything when they are looked at
            compiler.annotation(parameters[name].annotation)
        if compiler.has_secrets:
            found.add(name)
    return found


class Compiler:
    """Turns the hints of one function into plans.

    Attributes:
        details: What a fingerprint counts of the classes met.
        has_secrets: Whether a mark of `Secret` was met.
    """

    def __init__(self, fn: abc.Callable[..., Any]) -> None:
        self.details: list[str] = []
        self.has_secrets: bool = False
        self._names = _names_of(fn)
        self._plans: dict[Any, Plan] = {}

    def annotation(self, annotation: Any) -> Plan:
        """Return the plan of an annotation, which may be or hold text; of an awaitable, what awaiting gives."""
        if annotation is inspect.Parameter.empty:
            return containers.ANY
        hint = _resolve(annotation, self._names)
        awaitable = typing.get_origin(hint) in (abc.Coroutine, abc.Awaitable)
        return self._compile(typing.get_args(hint)[-1] if awaitable else hint)

    def _compile(self, hint: Any) -> Plan:
        cls, args = typing.get_origin(hint) or hint, typing.get_args(hint)
        if hint is None:
            return values.PLAIN[type(None)]
        if isinstance(hint, Plan):
            return hint
        if hint is Any or hint is object:
            return containers.ANY
        if cls in _WRAPPERS:
            plan = self._compile(args[0])
            if not is_marked(getattr(hint, "__metadata__", ())):
                return plan
            self.has_secrets = True
            return containers.secret(plan)
        if cls is typing.Union or cls is types.UnionType:
            return self._union(args)
        if cls is typing.Literal:
            return values.literal(args)
        if isinstance(hint, typing.NewType):
            return self._compile(hint.__supertype__)
        if isinstance(hint, typing.TypeVar):
            return self._union(hint.__constraints__ or (_resolve(hint.__bound__ or Any, self._names),))
        if type(cls).__name__ == "TypeAliasType":
            return self._once(cls, cls.__name__, lambda: self._compile(_resolve(cls.__value__, self._names)))
        if cls in _ABSTRACT:
            given = args or ((str, Any) if cls is abc.Mapping else (Any,))
            return self._union(tuple(one[(*given, ...) if one is tuple else given] for one in _ABSTRACT[cls]))
        if cls is dict:
            return containers.dict_of(*map(self._compile, args or (str, Any)))
        if cls is tuple and args and args[-1] is not Ellipsis:
            return containers.tuple_of([self._compile(arg) for arg in args])
        if cls in (list, tuple, set, frozenset):
            return containers.series(cls, self._compile(args[0] if args else Any))
        if isinstance(cls, type):
            return values.PLAIN.get(cls) or self._once(cls, class_name(cls), lambda: self._class(cls))
        return values.unsupported(str(hint).replace("typing.", ""))

    def _union(self, args: tuple[Any, ...]) -> Plan:
        members = [self._compile(arg) for arg in args if arg is not type(None)]
        plan = members[0] if len(members) == 1 else containers.union(members)
        return plan if len(members) == len(args) else containers.optional(plan)

    def _once(self, key: Any, name: str, build: abc.Callable[[], Plan]) -> Plan:
        """Classes are remembered, because they may contain themselves."""
        if key not in self._plans:
            built: Plan
            cls = key if isinstance(key, type) else None
            self._plans[key] = Plan(
                name,
                lambda v, depth: built.encode(v, depth),
                lambda v, depth: built.decode(v, depth),
                cls,
                hide=lambda v, depth: containers.hidden(built)(v, depth),
            )
            self._plans[key] = built = build()
            self.details.append(built.detail)
        return self._plans[key]

    def _class(self, cls: Any) -> Plan:
        if issubclass(cls, enum.Enum):
            return values.members(cls)
        if dataclasses.is_dataclass(cls) or _is_named_tuple(cls) or typing.is_typeddict(cls):
            return self._record(cls)
        if hasattr(cls, "model_validate_json") and hasattr(cls, "model_dump"):
            return values.pydantic(cls)
        if hasattr(cls, "__struct_fields__") and "msgspec" in sys.modules:
            return values.msgspec(cls)
        return values.well_known(cls) or values.unsupported(class_name(cls))

    def _record(self, cls: Any) -> Plan:
        hints: dict[str, Any] = {}
        for base in reversed(cls.__mro__):
            names = {**vars(base), cls.__name__: cls, **self._names, **_names_of(base)}
            annotations = inspect.get_annotations(base, **_LAZY)
            hints |= {label: _resolve(annotation, names) for label, annotation in annotations.items()}
        if any(isinstance(hint, dataclasses.InitVar) for hint in hints.values()):
            return values.unsupported(class_name(cls), "an InitVar cannot be read back: make it a field")
        needed = _fields_of(cls, hints)
        fields = {label: self._compile(hints.get(label, Any)) for label in needed}
        return containers.record(cls, fields, [label for label in needed if needed[label]])


def _fields_of(cls: Any, hints: dict[str, Any]) -> dict[str, bool]:
    """The fields that travel, and whether each must be there. What the class computes itself is left out."""
    if typing.is_typeddict(cls):  # postponed annotations hide NotRequired from the class itself
        optional = {label for label in hints if typing.get_origin(hints[label]) is typing.NotRequired}
        return {label: label in cls.__required_keys__ - optional for label in hints}
    if _is_named_tuple(cls):
        return {label: label not in cls._field_defaults for label in cls._fields}
    missing = dataclasses.MISSING
    fields = [field for field in dataclasses.fields(cls) if field.init]
    return {field.name: field.default is missing and field.default_factory is missing for field in fields}


def _is_named_tuple(cls: type) -> bool:
    return issubclass(cls, tuple) and hasattr(cls, "_field_defaults")


def _resolve(annotation: Any, names: dict[str, Any]) -> Any:
    """The hint behind an annotation, which may be or hold text; a plan like that of Any where a name is unknown."""
    if isinstance(annotation, type) and typing.get_origin(annotation) is None:
        return annotation

    def holder() -> None: ...

    holder.__annotations__ = {"hint": annotation}
    try:
        return typing.get_type_hints(holder, names, include_extras=True)["hint"]
    except Exception:  # evaluating a text may raise anything
        return dataclasses.replace(containers.ANY, name=str(getattr(annotation, "__forward_arg__", annotation)))


def _names_of(holder: Any) -> dict[str, Any]:
    """The global names, and those of enclosing functions, that the hints of a callable or a class may use."""
    while isinstance(holder, functools.partial):
        holder = holder.func
    holder = inspect.unwrap(holder)
    module = sys.modules.get(getattr(holder, "__module__", None) or "")
    names = dict(getattr(holder, "__globals__", None) or vars(module or builtins))
    with contextlib.suppress(TypeError, ValueError):  # it is no function, or a name is not assigned yet
        names |= inspect.getclosurevars(holder).nonlocals
    return names
