"""Arguments and results as JSON, typed by the function's hints.

A `Codec` belongs to one task. It binds the arguments as a call would, stores them by name, and gives them
back as they went in: `charge(7, day=date(2026, 5, 1))` travels as `{"order":7,"day":"2026-05-01"}`. Items of
`*args` stand under `"*"`, further keywords under `"**"`. Nothing is pickled; no name in a text is imported.

What the text looks like, by hint:

- Objects (dataclass, NamedTuple, TypedDict, pydantic, msgspec) are JSON objects; fields with `init=False` are
  left to the class, which computes them again; an enum is its value, or its
  name where a value is not JSON; sets are sorted lists; bytes are base64; a datetime in a ZoneInfo keeps its
  zone, as in RFC 9557: `2026-05-01T09:00:00+09:00[Asia/Seoul]`; a timedelta is `P1DT2.5S`.
- A dict whose keys travel as text is an object; any other is a list of pairs.
- Without a hint, or with `Any`: plain JSON as it is, well-known types as `{"$": "datetime", "v": "..."}`. A
  dict that holds the key "$", or keys that are not text, is itself wrapped so.
- A union takes the first member of exactly the value's type, else the first that accepts the value. Of the
  members that share a JSON kind (text, number, list, object), one travels bare: those that travel unchanged
  (str, int, ...) come first, then the order of the union. The others are wrapped: in `str | date` a date is
  `{"$": "date", "v": "2026-05-01"}`. So `X | None` looks like `X`, and a member can be added at the end.

Each hint is compiled once, at the first use, into an encoder and a decoder (`_Plan`).
"""

from __future__ import annotations

import binascii
import dataclasses
import enum
import functools
import inspect
import json
import math
import os
import re
import sys
import types
import typing
from collections import abc
from datetime import date, datetime, time, timedelta, timezone
from typing import TYPE_CHECKING, Any, NoReturn

from tickwork.errors import InvalidPayload, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = ["Codec", "ErrorInfo", "describe_exception"]

_MAX_DEPTH = 100
"""Containers within containers: beyond any sensible argument, below Python's recursion limit of 1,000."""

_DEEP = f"nested deeper than {_MAX_DEPTH} levels, or holding itself; pass an id or a flat list"
_CARRY = "make it a dataclass, NamedTuple, TypedDict or Enum, or pass an id and load it in the task"
_HINT = "annotate it with a dataclass, NamedTuple, TypedDict or Enum, or pass an id and load it in the task"

# Beyond this an int travels as hexadecimal text: Python may refuse decimal text from 640 digits on
# (sys.set_int_max_str_digits), and 2,000 bits are 603 digits.
_BIG = 1 << 2000

_TAG, _VALUE = "$", "v"
_NONE = type(None)
_EMPTY = inspect.Parameter.empty
_Kind = inspect.Parameter
_T = typing.TypeVar("_T")
_FLOATS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


# --- The face ---------------------------------------------------------------------------------------------


class Codec:
    """Turn the arguments and the result of one function into JSON text and back.

    Building one only reads the signature; hints are resolved at the first use, so that a forward reference
    may name a class that is defined later. A codec may be used from several threads.
    """

    __slots__ = ("_fn", "_shape", "_skip_first", "name")

    def __init__(self, fn: Callable[..., Any], *, name: str, skip_first: bool = False) -> None:
        """Read nothing yet.

        Args:
            fn: Any callable. One whose signature cannot be read takes whatever JSON can carry.
            name: The task's name, for messages.
            skip_first: Leave out the first parameter, which somebody else fills in.
        """
        self.name: str = name
        self._fn = fn
        self._skip_first = skip_first
        self._shape: _Shape | None = None

    def encode(self, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None) -> str:
        """Return the arguments as compact JSON text, bound by name; defaults that were not passed stay out.

        The text can always be written as UTF-8.

        Raises:
            InvalidPayload: The arguments do not fit the signature, or a value does not fit its hint or
                cannot be carried; the message names the parameter.
        """
        shape = self._shape or self._build()
        data: dict[str, Any] = {}
        label = ""
        try:
            for param, value in zip(shape.positional, args, strict=False):
                label = param.name
                data[label] = param.plan.encode(value, 0)
            if len(args) > len(shape.positional):
                extra = args[len(shape.positional) :]
                label = shape.extra_label
                data["*"] = self._encode_extra(shape, extra, len(args))
            if kwargs:
                rest: dict[str, Any] = {}
                for label, value in kwargs.items():
                    named = shape.keywords.get(label)
                    if named is None:
                        rest[label] = self._encode_rest(shape, label, value)
                    elif label in data:
                        raise _Misfit(f"is given twice; the signature is {shape.text}")
                    else:
                        data[label] = named.plan.encode(value, 0)
                if rest:
                    data["**"] = rest
            for label in shape.required:
                if label not in data:
                    raise _Misfit(f"is missing; the signature is {shape.text}")
        except _Misfit as misfit:
            raise self._refuse(label, misfit) from None
        except RecursionError:
            raise self._refuse(label, _Misfit(_DEEP)) from None
        return self._dump_arguments(data)

    def decode(self, text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return positional and keyword arguments that call the function as it is today.

        A parameter with a default may be missing; a name that the function no longer has goes to its
        `**kwargs`, if there are any.

        Raises:
            InvalidPayload: The text is no JSON object, or does not fit today's signature.
        """
        shape = self._shape or self._build()
        data = _load(text, self.name)
        if type(data) is not dict:
            raise InvalidPayload(self.name, f"the payload must be a JSON object, got {_got(data)}")
        label = ""
        try:
            extra = data.pop("*", None)
            rest = data.pop("**", None)
            others = self._merge_rest(shape, data, rest) if rest else {}
            args: list[Any] = []
            kwargs: dict[str, Any] = {}
            gap = False
            for param in shape.positional:
                label = param.name
                if label in data:
                    value = param.plan.decode(data.pop(label))
                    if gap:
                        kwargs[label] = value
                    else:
                        args.append(value)
                elif not param.has_default:
                    raise _Misfit(f"is missing in the payload; the signature is {shape.text}")
                elif extra or param.positional_only:
                    args.append(param.default)  # what follows must stand in its place
                else:
                    gap = True
            for param in shape.keyword_only:
                label = param.name
                if label in data:
                    kwargs[label] = param.plan.decode(data.pop(label))
                elif not param.has_default:
                    raise _Misfit(f"is missing in the payload; the signature is {shape.text}")
            for label, raw in (*data.items(), *others.items()):
                if shape.rest is None:
                    raise _Misfit(f"is in the payload, but not in the signature {shape.text}")
                kwargs[label] = shape.rest.decode(raw)
            if extra:
                label = shape.extra_label
                args += self._decode_extra(shape, extra)
        except _Misfit as misfit:
            raise self._refuse(label, misfit) from None
        except RecursionError:
            raise self._refuse(label, _Misfit(_DEEP)) from None
        return tuple(args), kwargs

    def encode_result(self, value: Any) -> str:
        """Return what the function returned as compact JSON text, by its return hint.

        Raises:
            InvalidPayload: The value does not fit the hint or cannot be carried.
        """
        shape = self._shape or self._build()
        try:
            return _dump(shape.result.encode(value, 0))
        except _Misfit as misfit:
            where, reason = f"result of {self.name}{misfit.where}", misfit.reason
        except RecursionError:
            where, reason = f"result of {self.name}", _DEEP
        raise InvalidPayload(where, reason)

    def decode_result(self, text: str) -> Any:
        """Return what `encode_result` was given.

        Raises:
            InvalidPayload: The text is no JSON, or does not fit today's return hint.
        """
        shape = self._shape or self._build()
        where = f"result of {self.name}"
        data = _load(text, where)
        try:
            return shape.result.decode(data)
        except _Misfit as misfit:
            where, reason = where + misfit.where, misfit.reason
        except RecursionError:
            reason = _DEEP
        raise InvalidPayload(where, reason)

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that change with the signature, the hints, or a field of a class there.

        The same in every process and Python version; names of modules and values of defaults do not count.
        """
        from hashlib import sha256  # OpenSSL is slow to load, and only the start of a worker asks

        shape = self._shape or self._build()
        return sha256(shape.describe().encode("utf-8", "backslashreplace")).hexdigest()[:16]

    @property
    def signature(self) -> str:
        """The signature as messages show it, such as `(order: int, day: date | None = None)`."""
        return (self._shape or self._build()).text

    def __repr__(self) -> str:
        return f"<Codec {self.name}>"

    # Private: the rarer paths of a call.

    def _build(self) -> _Shape:
        try:
            self._shape = shape = _Shape(self._fn, self._skip_first)
        except _EndlessHint:
            raise InvalidPayload(self.name, "its hints grow without end; name a simpler type") from None
        return shape

    def _refuse(self, label: str, misfit: _Misfit) -> InvalidPayload:
        where = f"{self.name}({label}{misfit.where})" if label else self.name
        return InvalidPayload(where, misfit.reason)

    def _encode_extra(self, shape: _Shape, extra: tuple[Any, ...], count: int) -> list[Any]:
        if shape.extra is None:
            limit = len(shape.positional)
            raise _Misfit(
                f"takes at most {limit} positional argument{'' if limit == 1 else 's'}, got {count};"
                f" the signature is {shape.text}"
            )
        return _encode_items(extra, shape.extra.encode, 1)

    def _decode_extra(self, shape: _Shape, extra: Any) -> list[Any]:
        if shape.extra is None:
            raise _Misfit(f"the payload holds more positional arguments than the signature {shape.text} takes")
        if type(extra) is not list:
            raise _Misfit(f"expected a list, got {_got(extra)}")
        return _decode_items(extra, shape.extra.decode)

    def _encode_rest(self, shape: _Shape, label: str, value: Any) -> Any:
        if shape.rest is not None:
            return shape.rest.encode(value, 1)
        if any(param.name == label for param in shape.positional):
            raise _Misfit(f"cannot be passed by keyword; the signature is {shape.text}")
        near = nearest(label, list(shape.keywords))
        hint = f"did you mean {near!r}? " if near else ""
        raise _Misfit(f"is no parameter; {hint}the signature is {shape.text}")

    def _merge_rest(self, shape: _Shape, data: dict[str, Any], rest: Any) -> dict[str, Any]:
        """Keywords that had no parameter when they were stored may have one today; return the others."""
        if type(rest) is not dict:
            raise _Misfit(f"the payload's '**' must be an object, got {_got(rest)}")
        others: dict[str, Any] = {}
        for label, raw in rest.items():
            if label not in shape.keywords:
                others[label] = raw
            elif label in data:
                raise InvalidPayload(f"{self.name}({label})", "is twice in the payload")
            else:
                data[label] = raw
        return others

    def _dump_arguments(self, data: dict[str, Any]) -> str:
        try:
            return _dump(data)
        except _Misfit as misfit:  # only a refusal pays for finding out which argument it is
            label = next((label for label, raw in data.items() if _dump_fails(raw)), "")
            raise self._refuse(label, misfit) from None


# --- Errors as data ---------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class ErrorInfo:
    """An exception as text, for a store and for people; every text can be written as UTF-8.

    Attributes:
        type: The qualified name of the class, without "builtins.".
        message: What `str(error)` gave, or what kept it from giving anything.
        notes: The texts of `add_note`, in order.
        traceback: The formatted traceback with its causes; what is too long lacks its middle.
    """

    type: str
    message: str
    notes: tuple[str, ...] = ()
    traceback: str = ""

    def to_json(self) -> str:
        """Return the four texts as a JSON object."""
        return _dump(
            {
                "type": self.type,
                "message": self.message,
                "notes": list(self.notes),
                "traceback": self.traceback,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> ErrorInfo:
        """Return what `to_json` wrote.

        Raises:
            InvalidPayload: The text is something else.
        """
        data = _load(text, "error")
        if type(data) is not dict:
            raise InvalidPayload("error", f"expected a JSON object, got {_got(data)}")
        notes = data.get("notes", [])
        texts = [data.get("type"), data.get("message"), data.get("traceback", "")]
        if type(notes) is not list or not all(type(entry) is str for entry in [*texts, *notes]):
            raise InvalidPayload("error", "expected the texts type, message and traceback, and a list notes")
        return cls(texts[0], texts[1], tuple(notes), texts[2])


def describe_exception(exc: BaseException, *, limit: int = 64_000) -> ErrorInfo:
    """Return the exception as text; never raises, whatever the exception's own methods do.

    Reads the source files in the traceback, as every formatted traceback does.

    Args:
        exc: Any exception.
        limit: The most characters for the traceback, and for the message and the notes together an eighth
            of it each; at least 1,000. What is longer loses its middle.
    """
    limit = max(limit, 1_000)
    part = limit // 8
    kind = _guarded(lambda: _qualified(type(exc)), "Exception")
    message = _guarded(lambda: str(exc), "<str() of this error failed>")
    return ErrorInfo(
        _cut(kind, part),
        _cut(message, part),
        _guarded(lambda: _notes(exc, part), ()),
        _guarded(lambda: _cut(_format_traceback(exc), limit), ""),
    )


def _guarded(read: Callable[[], _T], fallback: _T) -> _T:
    try:
        return read()
    except BaseException:  # an exception's own __str__ may raise anything; the traceback module does the same
        return fallback


def _format_traceback(exc: BaseException) -> str:
    import traceback

    return "".join(traceback.format_exception(exc))


def _notes(exc: BaseException, limit: int) -> tuple[str, ...]:
    notes = getattr(exc, "__notes__", ())
    kept: list[str] = []
    for note in notes if isinstance(notes, (list, tuple)) else ():
        text = _cut(_guarded(functools.partial(str, note), "<str() of this note failed>"), limit)
        limit -= len(text)
        if limit < 0:
            kept.append("... further notes left out ...")
            break
        kept.append(text)
    return tuple(kept)


def _cut(text: str, limit: int) -> str:
    """Return at most `limit` characters that UTF-8 can write; what is too long loses its middle."""
    if len(text) > limit:
        mark = f"\n... {len(text) - limit} characters left out ...\n"
        half = (limit - len(mark)) // 2
        text = text[:half] + mark + text[-half:]
    return text.encode("utf-8", "backslashreplace").decode()


# --- The signature ----------------------------------------------------------------------------------------


class _Param:
    """One named parameter and how its value travels."""

    __slots__ = ("default", "has_default", "name", "plan", "positional_only")

    def __init__(self, param: inspect.Parameter, plan: _Plan) -> None:
        self.name = param.name
        self.plan = plan
        self.default = param.default
        self.has_default = param.default is not _EMPTY
        self.positional_only = param.kind is param.POSITIONAL_ONLY


class _Shape:
    """A signature with its hints resolved and compiled."""

    __slots__ = (
        "_described",
        "extra",
        "extra_label",
        "keyword_only",
        "keywords",
        "positional",
        "required",
        "rest",
        "result",
        "text",
    )

    def __init__(self, fn: Callable[..., Any], skip_first: bool) -> None:
        signature = _signature(fn)
        params = list(signature.parameters.values())
        if skip_first and params and params[0].kind in (_Kind.POSITIONAL_ONLY, _Kind.POSITIONAL_OR_KEYWORD):
            del params[0]
        compiler = _Compiler(*_namespaces(fn))
        self.positional: list[_Param] = []
        self.keyword_only: list[_Param] = []
        self.extra: _Plan | None = None
        self.extra_label = ""
        self.rest: _Plan | None = None
        self._described: list[tuple[str, _Plan]] = []
        shown: list[inspect.Parameter] = []
        for param in params:
            plan = compiler.annotation(param.annotation)
            if param.default is None and _NONE not in plan.kinds:
                plan = _union([plan, _none_plan()])  # `limit: int = None` is a common way to write int | None
            if param.kind is _Kind.VAR_POSITIONAL:
                self.extra, self.extra_label = plan, param.name
            elif param.kind is _Kind.VAR_KEYWORD:
                self.rest = plan
            elif param.kind is _Kind.KEYWORD_ONLY:
                self.keyword_only.append(_Param(param, plan))
            else:
                self.positional.append(_Param(param, plan))
            default = "=" if param.default is not _EMPTY else ""
            self._described.append((f"{param.kind.name} {param.name}{default}", plan))
            shown.append(
                param.replace(
                    annotation=_EMPTY if param.annotation is _EMPTY else _Shown(plan.name),
                    default=_EMPTY if param.default is _EMPTY else _Shown(_brief(param.default)),
                )
            )
        self.result = compiler.result(signature.return_annotation)
        self._described.append(("return", self.result))
        self.text = str(inspect.Signature(shown))
        named = [*self.positional, *self.keyword_only]
        self.required = [param.name for param in named if not param.has_default]
        self.keywords = {param.name: param for param in named if not param.positional_only}

    def describe(self) -> str:
        seen: set[int] = set()
        return ";".join(f"{label}:{plan.describe(seen)}" for label, plan in self._described)


class _Shown:
    """Text that stands for itself where a signature is formatted."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _signature(fn: Callable[..., Any]) -> inspect.Signature:
    try:
        if sys.version_info >= (3, 14):
            import annotationlib

            return inspect.signature(fn, annotation_format=annotationlib.Format.FORWARDREF)
        return inspect.signature(fn)
    except (ValueError, TypeError):  # some functions written in C have none
        any_arguments = [
            inspect.Parameter("args", _Kind.VAR_POSITIONAL),
            inspect.Parameter("kwargs", _Kind.VAR_KEYWORD),
        ]
        return inspect.Signature(any_arguments)


def _namespaces(fn: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The global names, and the names of enclosing functions and of type parameters, that hints may use."""
    fn = inspect.unwrap(fn)
    while isinstance(fn, functools.partial):
        fn = inspect.unwrap(fn.func)
    fn = getattr(fn, "__func__", fn)
    if isinstance(fn, type):
        fn = vars(fn).get("__init__", fn)
    elif not hasattr(fn, "__globals__"):
        fn = vars(type(fn)).get("__call__", fn)
    local: dict[str, Any] = {}
    code = getattr(fn, "__code__", None)
    for name, cell in zip(getattr(code, "co_freevars", ()), getattr(fn, "__closure__", None) or (), strict=False):
        try:
            local[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    local.update((param.__name__, param) for param in getattr(fn, "__type_params__", ()))
    return getattr(fn, "__globals__", {}), local


# --- Plans ------------------------------------------------------------------------------------------------


class _Misfit(Exception):
    """A value that a plan refuses; the path to it grows on the way out."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.path: list[str] = []  # from the value outwards

    @property
    def where(self) -> str:
        path = self.path[::-1]
        if len(path) > 8:
            path = [*path[:4], "...", *path[-2:]]
        return "".join(path)


class _Plan:
    """How the values of one hint travel.

    Attributes:
        name: The hint as messages show it.
        encode: Value and depth to JSON data.
        decode: JSON data to value.
        types: The exact types of its values, as far as they are known: a union looks here first.
        kinds: The Python types of the JSON data that `encode` usually gives; a union relies on nothing else.
        same: Those of `kinds` in which the data is the value itself.
        bulk: Whether every one of many values, or of many data, may stay as it is; None: ask one by one.
        detail: What else the fingerprint counts.
        parts: Labelled plans inside it.
    """

    __slots__ = ("bulk", "decode", "detail", "encode", "kinds", "name", "parts", "same", "types")

    def __init__(
        self,
        name: str,
        *,
        kinds: Iterable[type],
        types: Iterable[type] = (),
        same: Iterable[type] = (),
        encode: Callable[[Any, int], Any] | None = None,
        decode: Callable[[Any], Any] | None = None,
        bulk: Callable[[Sequence[Any]], bool] | None = None,
        detail: str = "",
        parts: Iterable[tuple[str, _Plan]] = (),
    ) -> None:
        self.name = name
        self.kinds, self.types, self.same = frozenset(kinds), frozenset(types), frozenset(same)
        self.encode: Callable[[Any, int], Any] = encode or self._encode_later
        self.decode: Callable[[Any], Any] = decode or self._decode_later
        self.bulk = bulk
        self.detail = detail
        self.parts = list(parts)

    # A class that contains itself meets its own plan before that is finished.

    def _encode_later(self, value: Any, depth: int) -> Any:
        return self.encode(value, depth)

    def _decode_later(self, raw: Any) -> Any:
        return self.decode(raw)

    def describe(self, seen: set[int]) -> str:
        if id(self) in seen:
            return self.name
        seen.add(id(self))
        inner = ",".join(f"{label}:{part.describe(seen)}" for label, part in self.parts)
        return f"{self.name}{self.detail}({inner})"


def _expected(name: str, value: Any) -> _Misfit:
    return _Misfit(f"expected {name}, got {_got(value)}")


def _encode_items(values: Iterable[Any], encode: Callable[[Any, int], Any], depth: int) -> list[Any]:
    out: list[Any] = []
    try:
        for value in values:
            out.append(encode(value, depth))  # noqa: PERF401 - its length tells which item was refused
    except _Misfit as misfit:
        misfit.path.append(f"[{len(out)}]")
        raise
    return out


def _decode_items(raws: Iterable[Any], decode: Callable[[Any], Any]) -> list[Any]:
    out: list[Any] = []
    try:
        for raw in raws:
            out.append(decode(raw))  # noqa: PERF401 - as above
    except _Misfit as misfit:
        misfit.path.append(f"[{len(out)}]")
        raise
    return out


# Scalars.


def _plain_plan(cls: type, name: str) -> _Plan:
    """None, bool and str: the value is the data."""

    def check(value: Any, _depth: int = 0) -> Any:
        if not isinstance(value, cls):
            raise _expected(name, value)
        return value

    return _Plan(name, types=[cls], kinds=[cls], same=[cls], encode=check, decode=check, bulk=_only(cls))


def _none_plan() -> _Plan:
    return _plain_plan(_NONE, "None")


def _int_plan() -> _Plan:
    def encode(value: Any, _depth: int) -> Any:
        if not isinstance(value, int):
            raise _expected("int", value)
        return value if -_BIG < value < _BIG else hex(value)

    def decode(raw: Any) -> Any:
        if isinstance(raw, int):
            return raw
        if type(raw) is str and raw.lstrip("-").startswith("0x"):
            return _attempt("int", raw, lambda text: int(text, 16))
        raise _expected("int", raw)

    small = _only(int, bool)
    return _Plan(
        "int",
        types={int},
        kinds={int, bool},
        same={int, bool},
        encode=encode,
        decode=decode,
        bulk=lambda values: small(values) and (not values or (min(values) > -_BIG and max(values) < _BIG)),
    )


def _float_plan() -> _Plan:
    def encode(value: Any, _depth: int) -> Any:
        if isinstance(value, float):
            return value if math.isfinite(value) else str(float(value))
        if isinstance(value, int) and -_BIG < value < _BIG:  # an int where a float is asked for stays an int
            return value
        raise _expected("float", value)

    def decode(raw: Any) -> Any:
        if isinstance(raw, (float, int)):
            return raw
        if type(raw) is str and raw in _FLOATS:
            return _FLOATS[raw]
        raise _expected("float", raw)

    floats = _only(float)
    return _Plan(
        "float",
        types={float},
        kinds={float, int, bool},
        same={float, int, bool},
        encode=encode,
        decode=decode,
        bulk=lambda values: floats(values) and all(map(math.isfinite, values)),
    )


def _only(*allowed: type) -> Callable[[Sequence[Any]], bool]:
    holds = frozenset(allowed).issuperset
    return lambda values: holds(map(type, values))


def _attempt(name: str, raw: Any, read: Callable[[Any], Any]) -> Any:
    try:
        return read(raw)
    except (ValueError, ArithmeticError, LookupError, TypeError):
        raise _expected(name, raw) from None


def _text(
    cls: type,
    write: Callable[[Any], str],
    read: Callable[[str], Any],
    *,
    values: type | None = None,
    but_not: type | tuple[type, ...] = (),
    hint: type | None = None,
) -> _Plan:
    """The plan of a type that has an exact text: `values` is the type its values have, where that differs."""
    name = _class_name(hint or cls)
    accepted = values or cls

    def encode(value: Any, _depth: int) -> Any:
        if not isinstance(value, accepted) or isinstance(value, but_not):
            raise _expected(name, value)
        return write(value)

    def decode(raw: Any) -> Any:
        if type(raw) is not str:
            raise _expected(name, raw)
        return _attempt(name, raw, read)

    return _Plan(name, types={accepted}, kinds={str}, encode=encode, decode=decode)


def _write_datetime(value: datetime) -> str:
    text = datetime.isoformat(value)
    key = _zone_key(value.tzinfo)
    return f"{text}[{key}]" if key else text


def _read_datetime(text: str) -> datetime:
    if not text.endswith("]"):
        return datetime.fromisoformat(text)
    stamp, _, key = text[:-1].partition("[")
    moment, zone = datetime.fromisoformat(stamp), _zone(key)
    # The wall clock first: a time in a gap is kept. Where the zone's rules have changed, the instant counts.
    for fold in (0, 1):
        local = moment.replace(tzinfo=zone, fold=fold)
        if moment.tzinfo is None or local.utcoffset() == moment.utcoffset():
            return local
    return moment.astimezone(zone)


def _write_time(value: time) -> str:
    text = time.isoformat(value)
    key = _zone_key(value.tzinfo)
    return f"{text}[{key}]" if key else text


def _read_time(text: str) -> time:
    if not text.endswith("]"):
        return time.fromisoformat(text)
    stamp, _, key = text[:-1].partition("[")
    return time.fromisoformat(stamp).replace(tzinfo=_zone(key))


def _zone_key(zone: Any) -> str | None:
    if zone is None or type(zone) is timezone:
        return None
    zoneinfo = sys.modules.get("zoneinfo")
    known = zoneinfo is not None and isinstance(zone, zoneinfo.ZoneInfo)
    return zone.key if known else None


def _zone(key: str) -> Any:
    from zoneinfo import ZoneInfo

    return ZoneInfo(key)


def _write_zone(value: Any) -> str:
    if not value.key:
        raise _Misfit("cannot carry a ZoneInfo without a key; make it with ZoneInfo(key)")
    return str(value.key)


def _write_timedelta(value: timedelta) -> str:
    fraction = f".{value.microseconds:06}" if value.microseconds else ""
    return f"P{value.days}DT{value.seconds}{fraction}S"


def _read_timedelta(text: str) -> timedelta:
    found = re.fullmatch(r"P(-?\d+)DT(\d+)(?:\.(\d{6}))?S", text)
    if found is None:
        raise ValueError(text)
    return timedelta(int(found[1]), int(found[2]), int(found[3] or 0))


def _write_bytes(value: Any) -> str:
    return binascii.b2a_base64(value, newline=False).decode()


def _read_bytes(text: str) -> bytes:
    return binascii.a2b_base64(text, strict_mode=True)


# Classes whose `str()` is exact and whose constructor reads it, by name: what is not imported costs nothing.
_BY_STR = frozenset(
    {
        "decimal.Decimal",
        "uuid.UUID",
        "fractions.Fraction",
        *(f"ipaddress.IPv{v}{kind}" for v in (4, 6) for kind in ("Address", "Network", "Interface")),
    }
)


def _well_known(cls: type) -> _Plan | None:
    """The plan of a standard class that travels as text."""
    if cls is datetime:
        return _text(cls, _write_datetime, _read_datetime)
    if cls is date:
        return _text(cls, date.isoformat, date.fromisoformat, but_not=datetime)
    if cls is time:
        return _text(cls, _write_time, _read_time)
    if cls is timedelta:
        return _text(cls, _write_timedelta, _read_timedelta)
    if cls is bytes:
        return _text(cls, _write_bytes, _read_bytes)
    if cls is bytearray:
        return _text(cls, _write_bytes, lambda text: bytearray(_read_bytes(text)))
    if _qualified(cls) in _BY_STR:
        return _text(cls, str, cls)
    if cls.__name__ == "ZoneInfo" and cls.__module__.startswith("zoneinfo"):
        return _text(cls, _write_zone, cls)
    if issubclass(cls, os.PathLike):
        from pathlib import Path, PurePath

        if cls is os.PathLike:
            return _text(Path, str, Path, values=type(Path()), hint=cls)
        if issubclass(cls, PurePath) and cls.__module__.startswith("pathlib"):
            values = type(cls()) if cls in (Path, PurePath) else cls
            return _text(cls, str, cls, values=values)
    return None


def _subclass_plan(cls: type, base: type) -> _Plan:
    """A class of one's own over str, int or float, such as `class UserId(str)`."""
    name = _class_name(cls)

    def encode(value: Any, depth: int) -> Any:
        if type(value) is not cls:
            raise _expected(name, value)
        return inner.encode(base(value), depth)

    def decode(raw: Any) -> Any:
        return _construct(name, cls, inner.decode(raw))

    inner = _SCALARS[base]()
    return _Plan(name, types={cls}, kinds=inner.kinds, encode=encode, decode=decode)


def _construct(name: str, cls: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    try:
        return cls(*args, **kwargs)
    except Exception as error:  # the user's constructor may raise anything
        raise _Misfit(f"{name} refused its values: {type(error).__name__}: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    errors = getattr(error, "errors", None)
    if callable(errors):  # pydantic: the first of several, without its link to a web page
        first = errors()[0]
        where = ".".join(map(str, first["loc"]))
        return f"{where}: {first['msg']}" if where else str(first["msg"])
    return _cut(str(error), 200)


def _enum_plan(cls: type[enum.Enum]) -> _Plan:
    name = _class_name(cls)
    members = list(cls.__members__.values())
    by_value = all(_is_plain(member._value_) for member in members)
    raws = [member._value_ if by_value else member.name for member in members]
    kinds = {type(raw) for raw in raws}
    found = {(type(raw), raw): member for raw, member in zip(raws, members, strict=True)}
    flag = issubclass(cls, enum.Flag)

    def encode(value: Any, _depth: int) -> Any:
        if type(value) is not cls:
            raise _expected(name, value)
        return value._value_ if by_value else value.name

    def decode(raw: Any) -> Any:
        kind = type(raw)
        if kind in kinds:
            member = found.get((kind, raw))
            if member is not None:
                return member
            if flag:  # a combination
                return _attempt(name, raw, cls)
        raise _expected(f"{name} ({_listed(raws)})", raw)

    return _Plan(name, types={cls}, kinds=kinds, encode=encode, decode=decode, detail=repr(raws))


def _is_plain(value: Any) -> bool:
    kind = type(value)
    if kind is int:
        return bool(-_BIG < value < _BIG)
    return kind is str or kind is bool or kind is _NONE or (kind is float and math.isfinite(value))


def _listed(values: Sequence[Any]) -> str:
    shown = ", ".join(_brief(value) for value in values[:8])
    return shown + (", ..." if len(values) > 8 else "")


def _literal_plan(values: tuple[Any, ...]) -> _Plan:
    name = f"Literal[{', '.join(_brief(value) for value in values)}]"
    raws: dict[tuple[type, Any], Any] = {}
    found: dict[tuple[type, Any], Any] = {}
    for value in sorted(values, key=lambda value: not _is_plain(value)):  # stable: the plain ones keep their text
        raw = value
        if isinstance(value, enum.Enum):
            raw = f"{type(value).__name__}.{value.name}"
        elif isinstance(value, bytes):
            raw = _write_bytes(value)
        elif not _is_plain(value):
            raw = hex(value)
        while (type(raw), raw) in found:
            raw = f"{raw}'"
        raws[type(value), value] = raw
        found[type(raw), raw] = value
    kinds = {kind for kind, _ in found}

    def encode(value: Any, _depth: int) -> Any:
        kind = type(value)
        if kind not in accepted or (kind, value) not in raws:
            raise _expected(name, value)
        return raws[kind, value]

    def decode(raw: Any) -> Any:
        kind = type(raw)
        if kind not in kinds or (kind, raw) not in found:
            raise _expected(name, raw)
        return found[kind, raw]

    accepted = frozenset(map(type, values))
    same = kinds if all(_is_plain(value) for value in values) else ()
    return _Plan(name, types=accepted, kinds=kinds, same=same, encode=encode, decode=decode)


# Containers.


def _series_plan(cls: Any, item: _Plan) -> _Plan:
    """A list, a set, a frozenset, or a tuple of any length."""
    name = f"{cls.__name__}[{item.name}{', ...' if cls is tuple else ''}]"
    encode_item, decode_item = item.encode, item.decode
    bulk = item.bulk if cls is list else None
    is_set = issubclass(cls, abc.Set)

    def encode(value: Any, depth: int) -> Any:
        if not isinstance(value, cls):
            raise _expected(name, value)
        if bulk is not None and bulk(value):
            return value
        if depth >= _MAX_DEPTH:
            raise _Misfit(_DEEP)
        raws = _encode_items(value, encode_item, depth + 1)
        return _in_order(raws) if is_set else raws

    def decode(raw: Any) -> Any:
        if type(raw) is not list:
            raise _expected(name, raw)
        if bulk is not None and bulk(raw):
            return raw
        values = _decode_items(raw, decode_item)
        return values if cls is list else _attempt(name, values, cls)  # some items cannot be hashed

    return _Plan(name, types={cls}, kinds={list}, encode=encode, decode=decode, parts=[("item", item)])


def _in_order(raws: list[Any]) -> list[Any]:
    """Equal sets get equal texts, in every process."""
    try:
        return sorted(raws)
    except TypeError:
        return sorted(raws, key=_ENCODE)


def _tuple_plan(items: list[_Plan]) -> _Plan:
    name = f"tuple[{', '.join(item.name for item in items) or '()'}]"

    def encode(value: Any, depth: int) -> Any:
        if not isinstance(value, tuple):
            raise _expected(name, value)
        if depth >= _MAX_DEPTH:
            raise _Misfit(_DEEP)
        if len(value) != len(items):
            raise _Misfit(f"expected {name}, got {len(value)} items")
        pairs = zip(items, value, strict=True)
        return _encode_items(pairs, lambda pair, depth: pair[0].encode(pair[1], depth), depth + 1)

    def decode(raw: Any) -> Any:
        if type(raw) is not list:
            raise _expected(name, raw)
        if len(raw) != len(items):
            raise _Misfit(f"expected {name}, got {len(raw)} items")
        return tuple(_decode_items(zip(items, raw, strict=True), lambda pair: pair[0].decode(pair[1])))

    parts = [(str(index), item) for index, item in enumerate(items)]
    return _Plan(name, types={tuple}, kinds={list}, encode=encode, decode=decode, parts=parts)


def _dict_plan(key: _Plan, value: _Plan) -> _Plan:
    name = f"dict[{key.name}, {value.name}]"
    parts = [("key", key), ("value", value)]
    scalar = key.bulk is not None
    is_int = scalar and key.kinds == {int, bool}
    if key.kinds != {str} and not is_int:
        return _pairs_plan(name, key, value, parts)
    encode_key, decode_key = key.encode, key.decode
    encode_value, decode_value = value.encode, value.decode

    def write_key(entry: Any) -> str:
        raw = encode_key(entry, 0)
        return raw if isinstance(raw, str) else str(int(raw))

    def read_int(raw: str) -> Any:
        return _attempt("int", raw, lambda text: int(text, 16 if "x" in text else 10))

    def encode(mapping: Any, depth: int) -> Any:
        if not isinstance(mapping, dict):
            raise _expected(name, mapping)
        if depth >= _MAX_DEPTH:
            raise _Misfit(_DEEP)
        return _encode_object(mapping, write_key, encode_value, depth + 1)

    def decode(raw: Any) -> Any:
        return _decode_object(raw, decode_value, read_key, name)

    read_key = read_int if is_int else None if scalar else decode_key
    return _Plan(name, types={dict}, kinds={dict}, encode=encode, decode=decode, parts=parts)


def _same_key(key: str) -> str:
    return key


def _encode_object(
    values: dict[Any, Any],
    write_key: Callable[[Any], str],
    encode: Callable[[Any, int], Any],
    depth: int,
) -> dict[str, Any]:
    out: dict[str, Any] = {}
    key: Any = None
    try:
        for key, value in values.items():
            out[write_key(key)] = encode(value, depth)
    except _Misfit as misfit:
        misfit.path.append(f"[{_brief(key)}]")
        raise
    return out


def _decode_object(
    raw: Any,
    decode: Callable[[Any], Any],
    read_key: Callable[[str], Any] | None = None,
    name: str = "an object",
) -> dict[Any, Any]:
    if type(raw) is not dict:
        raise _expected(name, raw)
    out: dict[Any, Any] = {}
    key = ""
    try:
        for key, value in raw.items():
            out[key if read_key is None else read_key(key)] = decode(value)
    except _Misfit as misfit:
        misfit.path.append(f"[{_brief(key)}]")
        raise
    return out


def _pairs_plan(name: str, key: _Plan, value: _Plan, parts: list[tuple[str, _Plan]]) -> _Plan:
    """A dict whose keys have no text of their own: [[key, value], ...]."""
    pair = _tuple_plan([key, value])

    def encode(mapping: Any, depth: int) -> Any:
        if not isinstance(mapping, dict):
            raise _expected(name, mapping)
        if depth >= _MAX_DEPTH:
            raise _Misfit(_DEEP)
        return _encode_items(mapping.items(), pair.encode, depth)

    def decode(raw: Any) -> Any:
        if type(raw) is not list:
            raise _expected(name, raw)
        return _attempt(name, _decode_items(raw, pair.decode), dict)

    return _Plan(name, types={dict}, kinds={list}, encode=encode, decode=decode, parts=parts)


# Objects.


class _Field(typing.NamedTuple):
    name: str
    plan: _Plan
    required: bool


def _fill_object(plan: _Plan, cls: type, fields: list[_Field], *, is_dict: bool = False) -> None:
    """Give a dataclass, NamedTuple or TypedDict its encoder and decoder."""
    name = plan.name
    writers = [(field.name, field.plan.encode) for field in fields]
    readers = [(field.name, field.plan.decode) for field in fields]
    required = [field.name for field in fields if field.required]
    known = frozenset(field.name for field in fields)
    is_value = dict if is_dict else cls

    def encode(value: Any, depth: int) -> Any:
        if type(value) is not is_value:
            if isinstance(value, is_value):
                raise _Misfit(f"expected exactly {name}, got {_got(value)}; name it in the hint: {name} | ...")
            raise _expected(name, value)
        if depth >= _MAX_DEPTH:
            raise _Misfit(_DEEP)
        out: dict[str, Any] = {}
        label = ""
        try:
            for label, write in writers:
                out[label] = write(getattr(value, label), depth + 1)
        except _Misfit as misfit:
            misfit.path.append(f".{label}")
            raise
        except AttributeError:
            raise _Misfit(f"{name} has no value for its field {label!r}") from None
        return out

    def encode_dict(value: Any, depth: int) -> Any:
        if not isinstance(value, dict):
            raise _expected(name, value)
        if depth >= _MAX_DEPTH:
            raise _Misfit(_DEEP)
        check(value)
        out: dict[str, Any] = {}
        label = ""
        try:
            for label, write in writers:
                if label in value:
                    out[label] = write(value[label], depth + 1)
        except _Misfit as misfit:
            misfit.path.append(f"[{label!r}]")
            raise
        return out

    def check(raw: dict[Any, Any]) -> None:
        for label in required:
            if label not in raw:
                raise _Misfit(f"{name} needs {label!r}")
        for label in raw:
            if label not in known:
                raise _Misfit(f"{name} has no field {_brief(label)}")

    def decode(raw: Any) -> Any:
        if type(raw) is not dict:
            raise _expected(name, raw)
        values: dict[str, Any] = {}
        label = ""
        try:
            for label, read in readers:
                if label in raw:
                    values[label] = read(raw[label])
        except _Misfit as misfit:
            misfit.path.append(f"[{label!r}]" if is_dict else f".{label}")
            raise
        if len(values) != len(raw) or len(values) != len(readers):
            check(raw)
        return values if is_dict else _construct(name, cls, **values)

    plan.encode, plan.decode = (encode_dict if is_dict else encode), decode
    plan.parts = [(field.name + ("" if field.required else "="), field.plan) for field in fields]


def _pydantic_plan(cls: Any) -> _Plan:
    name = _class_name(cls)

    def encode(value: Any, _depth: int) -> Any:
        if type(value) is not cls:
            raise _expected(name, value)
        try:
            return value.model_dump(mode="json", by_alias=True, round_trip=True)
        except Exception as error:
            raise _Misfit(f"{name} cannot be dumped: {type(error).__name__}: {_cut(str(error), 200)}") from None

    def decode(raw: Any) -> Any:
        if type(raw) is not dict and not hasattr(cls, "root"):
            raise _expected(name, raw)
        # Through text, because pydantic's rules for JSON read dates and sets in strict models too.
        return _construct(name, cls.model_validate_json, _dump(raw))

    detail = repr(sorted(map(str, getattr(cls, "model_fields", ()))))
    return _Plan(name, types={cls}, kinds=_ALL, encode=encode, decode=decode, detail=detail)


def _msgspec_plan(cls: Any) -> _Plan:
    name = _class_name(cls)
    msgspec: Any = sys.modules["msgspec"]  # a Struct class exists, so it is imported

    def encode(value: Any, _depth: int) -> Any:
        if type(value) is not cls:
            raise _expected(name, value)
        try:
            return msgspec.to_builtins(value, str_keys=True)
        except Exception as error:
            raise _Misfit(f"{name} cannot be dumped: {type(error).__name__}: {_cut(str(error), 200)}") from None

    def decode(raw: Any) -> Any:
        return _construct(name, msgspec.convert, raw, cls, str_keys=True)

    detail = repr(cls.__struct_fields__)
    return _Plan(name, types={cls}, kinds=_ALL, encode=encode, decode=decode, detail=detail)


# Unions, Any, and what cannot be carried.

_ALL: frozenset[type] = frozenset({_NONE, bool, int, float, str, list, dict})


def _kind(raw: Any) -> type:
    kind = type(raw)
    if kind in _ALL:
        return kind
    return next(known for known in (int, float, str, list, dict) if isinstance(raw, known))


def _union(members: list[_Plan], name: str = "") -> _Plan:
    if len(members) == 1:
        return members[0]
    name = name or " | ".join(member.name for member in members)
    others = [member for member in members if member.kinds != {_NONE}]
    optional = len(others) == 1 and _NONE not in others[0].kinds
    plan = _optional(name, others[0]) if optional else _tagged_union(name, members)
    plan.types = _joined(member.types for member in members)
    plan.kinds = _joined(member.kinds for member in members)
    if not optional:
        plan.kinds |= {dict}
    plan.parts = [(str(index), member) for index, member in enumerate(members)]
    return plan


def _joined(sets: Iterable[frozenset[type]]) -> frozenset[type]:
    return frozenset(entry for each in sets for entry in each)


def _optional(name: str, member: _Plan) -> _Plan:
    encode_member, decode_member = member.encode, member.decode

    def encode(value: Any, depth: int) -> Any:
        if value is None:
            return None
        try:
            return encode_member(value, depth)
        except _Misfit:
            if member.types and not isinstance(value, tuple(member.types)):
                raise _expected(name, value) from None  # so that the message says that None is possible
            raise

    def decode(raw: Any) -> Any:
        return None if raw is None else decode_member(raw)

    return _Plan(name, kinds=(), same=member.same | {_NONE}, encode=encode, decode=decode)


def _tagged_union(name: str, members: list[_Plan]) -> _Plan:
    tags = _tags(members)
    by_tag = {tag: member for member, tag in zip(members, tags, strict=True)}
    owners: dict[type, list[_Plan]] = {}
    for kind in _ALL:
        unchanged = [member for member in members if kind in member.same]
        owners[kind] = unchanged or [member for member in members if kind in member.kinds][:1]

    def encode(value: Any, depth: int) -> Any:
        cls = type(value)
        exact = [index for index, member in enumerate(members) if cls in member.types]
        rest = [index for index in range(len(members)) if index not in exact]
        reason: _Misfit | None = None
        for index in (*exact, *rest):
            member = members[index]
            try:
                raw = member.encode(value, depth)
            except _Misfit as misfit:
                if exact == [index] or not member.types:
                    reason = misfit  # it tells more than "no member fits"
                continue
            kind = _kind(raw)
            if member in owners[kind] and not (kind is dict and _TAG in raw):
                return raw
            return {_TAG: tags[index], _VALUE: raw}
        raise reason or _expected(name, value)

    def decode(raw: Any) -> Any:
        kind = type(raw)
        if kind is dict and _TAG in raw:
            tag = raw[_TAG]
            member = by_tag.get(tag) if type(tag) is str else None
            if member is None or len(raw) != 2 or _VALUE not in raw:
                raise _Misfit(f"expected {name}, got the tag {_brief(tag)}")
            return member.decode(raw[_VALUE])
        possible = owners[kind]
        for member in possible:
            try:
                return member.decode(raw)
            except _Misfit:
                if len(possible) == 1:
                    raise
        raise _expected(name, raw)

    same = _joined(member.same for member in members)
    return _Plan(name, kinds=(), same=same, encode=encode, decode=decode)


def _tags(members: list[_Plan]) -> list[str]:
    tags: list[str] = []
    for member in members:
        tag = member.name
        while tag in tags:  # two classes of one name
            tag += "'"
        tags.append(tag)
    return tags


# What a value without a hint is wrapped as: tag -> module and class. Only these are ever looked up.
_TAGGED = {
    "datetime": ("datetime", "datetime"),
    "date": ("datetime", "date"),
    "time": ("datetime", "time"),
    "timedelta": ("datetime", "timedelta"),
    "bytes": ("builtins", "bytes"),
    "bytearray": ("builtins", "bytearray"),
    "decimal": ("decimal", "Decimal"),
    "uuid": ("uuid", "UUID"),
    "path": ("pathlib", "Path"),
    "posixpath": ("pathlib", "PurePosixPath"),
    "windowspath": ("pathlib", "PureWindowsPath"),
    "zoneinfo": ("zoneinfo", "ZoneInfo"),
}
_SERIES = {"tuple": tuple, "set": set, "frozenset": frozenset}


class _AnyPlan(_Plan):
    """Values without a hint: plain JSON as it is, well-known types with a tag.

    With `unresolved`, the text of a hint that could not be resolved, nothing gets a tag: the hint would have
    given another text, and may do so tomorrow.
    """

    __slots__ = ("_by_tag", "_by_type", "_unresolved")

    def __init__(self, name: str = "Any", *, unresolved: str | None = None) -> None:
        plain = {_NONE, bool, int, float, str}
        super().__init__(
            name,
            kinds=_ALL,
            same=plain,
            encode=self._encode,
            decode=self._decode,
            detail="?" if unresolved else "",
        )
        self._unresolved = unresolved
        self._by_type: dict[type, tuple[str, _Plan]] = {}
        self._by_tag: dict[str, _Plan] = {}

    def _encode(self, value: Any, depth: int) -> Any:
        cls = type(value)
        if cls is str or cls is bool or value is None:
            return value
        if cls is int:
            return value if -_BIG < value < _BIG else {_TAG: "int", _VALUE: hex(value)}
        if cls is float:
            if math.isfinite(value):
                return value
            raise _Misfit(f"cannot carry the float {value} without a hint; annotate it with float")
        if cls is list or cls is dict or cls is tuple or cls is set or cls is frozenset:
            if depth >= _MAX_DEPTH:
                raise _Misfit(_DEEP)
            if cls is list:
                return _encode_items(value, self._encode, depth + 1)
            if cls is dict:
                return self._encode_dict(value, depth + 1)
            self._allow(cls)
            raws = _encode_items(value, self._encode, depth + 1)
            return {_TAG: cls.__name__, _VALUE: raws if cls is tuple else _in_order(raws)}
        tag, plan = self._by_type.get(cls) or self._learn(cls)
        return {_TAG: tag, _VALUE: plan.encode(value, depth)}

    def _encode_dict(self, value: dict[Any, Any], depth: int) -> Any:
        if all(type(key) is str for key in value):
            out = _encode_object(value, _same_key, self._encode, depth)
            return {_TAG: "dict", _VALUE: out} if _TAG in out else out
        if self._unresolved is not None:
            self._refuse("dict with keys that are not text")
        return {_TAG: "items", _VALUE: [_encode_items(pair, self._encode, depth) for pair in value.items()]}

    def _decode(self, raw: Any) -> Any:
        cls = type(raw)
        if cls is list:
            return _decode_items(raw, self._decode)
        if cls is not dict:
            return raw
        if _TAG not in raw:
            return _decode_object(raw, self._decode)
        tag = raw[_TAG]
        if type(tag) is not str or len(raw) != 2 or _VALUE not in raw:
            raise _Misfit(f"a tag must be a text beside a value, got {_got(tag)}")
        return self._decode_tag(tag, raw[_VALUE])

    def _decode_tag(self, tag: str, raw: Any) -> Any:
        if tag == "dict":
            return _decode_object(raw, self._decode)
        if tag == "int":
            return _attempt("int", raw, lambda text: int(text, 16))
        if tag == "items" or tag in _SERIES:
            if type(raw) is not list:
                raise _expected(tag, raw)
            values = _decode_items(raw, self._decode)
            return _attempt(tag, values, dict if tag == "items" else _SERIES[tag])
        plan = self._by_tag.get(tag)
        if plan is None:
            if tag not in _TAGGED:
                raise _Misfit(f"unknown tag {_brief(tag)}")
            plan = self._by_tag[tag] = _tagged_plan(tag)
        return plan.decode(raw)

    def _learn(self, cls: type) -> tuple[str, _Plan]:
        for tag, (module, name) in _TAGGED.items():
            known = getattr(sys.modules.get(module), name, None)
            if known is cls or (tag == "path" and known is not None and issubclass(cls, known)):
                self._allow(cls)
                found = self._by_type[cls] = (tag, _tagged_plan(tag))
                return found
        self._refuse(_class_name(cls))

    def _allow(self, cls: type) -> None:
        if self._unresolved is not None:
            self._refuse(_class_name(cls))

    def _refuse(self, what: str) -> NoReturn:
        if self._unresolved is not None:
            raise _Misfit(
                f"cannot carry {_a(what)}, because its hint {self._unresolved} cannot be resolved;"
                " import the name where the function is defined, and not only for type checkers"
            )
        raise _Misfit(f"cannot carry {_a(what)} without a hint; {_HINT}")


def _tagged_plan(tag: str) -> _Plan:
    from importlib import import_module

    module, name = _TAGGED[tag]
    plan = _well_known(getattr(import_module(module), name))
    assert plan is not None
    return plan


def _unsupported_plan(name: str, cls: type | None = None, reason: str = "") -> _Plan:
    """A hint that JSON cannot carry: every value is refused, and a default can still be used."""

    def encode(value: Any, _depth: int) -> Any:
        what = _class_name(type(value))
        raise _Misfit(f"cannot carry {_a(what)}{'' if what == name else f' as {name}'}; {reason or _CARRY}")

    def decode(raw: Any) -> Any:
        raise _expected(name, raw)

    return _Plan(name, types=[cls] if cls else (), kinds=(), encode=encode, decode=decode)


# --- From hints to plans ----------------------------------------------------------------------------------


class _EndlessHint(Exception):
    """A class that holds itself with ever new arguments."""


class _Unresolved:
    """What stands for a hint that names something unknown."""

    def __init__(self, annotation: Any) -> None:
        text = annotation.__forward_arg__ if isinstance(annotation, typing.ForwardRef) else annotation
        self.text = text if isinstance(text, str) else repr(text)


# What an abstract hint accepts: each concrete type comes back as it went in.
_ABSTRACT: dict[Any, tuple[type, ...]] = {
    abc.Sequence: (list, tuple),
    abc.MutableSequence: (list,),
    abc.Iterable: (list, tuple, set, frozenset),
    abc.Collection: (list, tuple, set, frozenset),
    abc.Container: (list, tuple, set, frozenset),
    abc.Set: (set, frozenset),
    abc.MutableSet: (set,),
    abc.Mapping: (dict,),
    abc.MutableMapping: (dict,),
}
_WRAPPERS = frozenset({"Annotated", "Required", "NotRequired", "ReadOnly", "Final", "ClassVar"})


class _Compiler:
    """Turns hints into plans; classes are remembered, because they may contain themselves."""

    def __init__(self, global_names: dict[str, Any], local_names: dict[str, Any]) -> None:
        self._globals, self._locals = global_names, local_names
        self._named: dict[Any, _Plan] = {}
        self._any = _AnyPlan()
        self._open = 0  # classes within classes, at the moment

    def annotation(self, annotation: Any) -> _Plan:
        if annotation is _EMPTY:
            return self._any
        return self.compile(_resolve(annotation, self._globals, self._locals))

    def result(self, annotation: Any) -> _Plan:
        """The plan of a return hint; of `Awaitable[int]` and coroutines, what awaiting gives."""
        hint = Any if annotation is _EMPTY else _resolve(annotation, self._globals, self._locals)
        while (origin := typing.get_origin(hint)) in (abc.Coroutine, abc.Awaitable) or hint in (
            abc.Coroutine,
            abc.Awaitable,
        ):
            args = typing.get_args(hint)
            hint = args[-1] if origin is not None and args else Any
        if hint is typing.NoReturn or hint is typing.Never:
            hint = None
        return self.compile(hint)

    def compile(self, hint: Any) -> _Plan:
        if hint is Any or hint is object:
            return self._any
        if hint is None or hint is _NONE:
            return _none_plan()
        if isinstance(hint, (str, typing.ForwardRef)):
            hint = _resolve(hint, self._globals, self._locals)
        if isinstance(hint, _Unresolved):
            return _AnyPlan(hint.text, unresolved=hint.text)
        origin = typing.get_origin(hint)
        if origin is None:
            return self._bare(hint)
        args = typing.get_args(hint)
        if getattr(origin, "_name", getattr(origin, "__name__", "")) in _WRAPPERS:
            return self.compile(args[0])
        if origin is typing.Union or origin is types.UnionType:
            return _union([self.compile(arg) for arg in args])
        if origin is typing.Literal:
            return _literal_plan(args)
        if _is_alias(origin):
            return self._alias(origin, args)
        return self._class(hint, origin, args)

    def _bare(self, hint: Any) -> _Plan:
        if isinstance(hint, typing.TypeVar):
            if hint.__constraints__:
                return _union([self.compile(one) for one in hint.__constraints__])
            return self._any if hint.__bound__ is None else self.compile(hint.__bound__)
        if hasattr(hint, "__supertype__"):  # NewType
            return self.compile(hint.__supertype__)
        if _is_alias(hint):
            return self._alias(hint, ())
        if hint is typing.LiteralString:
            return _plain_plan(str, "str")
        if isinstance(hint, type):
            return self._class(hint, hint, ())
        return _unsupported_plan(repr(hint).replace("typing.", ""))

    def _alias(self, alias: Any, args: tuple[Any, ...]) -> _Plan:
        key = (alias, repr(args))
        plan = self._named.get(key)
        if plan is None:
            self._named[key] = plan = _Plan(alias.__name__, kinds=_ALL)
            self._enter()
            value = _substitute(alias.__value__, dict(zip(alias.__type_params__, args, strict=False)))
            inner = self.compile(value)
            self._open -= 1
            plan.encode, plan.decode, plan.bulk = inner.encode, inner.decode, inner.bulk
            plan.types, plan.kinds, plan.same = inner.types, inner.kinds, inner.same
            plan.parts = [("value", inner)]
        return plan

    def _class(self, hint: Any, cls: Any, args: tuple[Any, ...]) -> _Plan:
        if scalar := _SCALARS.get(cls):
            return scalar()
        if cls in _CONTAINERS:
            return self._container(cls, args)
        if cls in _ABSTRACT:
            concrete = [self._container(one, (*args, ...) if one is tuple and args else args) for one in _ABSTRACT[cls]]
            shown = f"[{', '.join(self.compile(arg).name for arg in args)}]" if args else ""
            return _union(concrete, f"{cls.__name__}{shown}")
        if not isinstance(cls, type):
            return _unsupported_plan(repr(hint).replace("typing.", ""))
        if issubclass(cls, enum.Enum) and cls.__members__:
            return _enum_plan(cls)
        if hasattr(cls, "__dataclass_fields__") or _is_named_tuple(cls) or _is_typed_dict(cls):
            return self._object(cls, args)
        if hasattr(cls, "model_validate_json") and hasattr(cls, "model_dump"):
            return _pydantic_plan(hint)
        if hasattr(cls, "__struct_fields__") and "msgspec" in sys.modules:
            return _msgspec_plan(cls)
        if known := _well_known(cls):
            return known
        for base in (str, int, float):
            if issubclass(cls, base) and not issubclass(cls, enum.Enum):
                return _subclass_plan(cls, base)
        return _unsupported_plan(_class_name(cls) if hint is cls else repr(hint), cls)

    def _container(self, cls: type, args: tuple[Any, ...]) -> _Plan:
        if cls is dict:
            if not args:
                return _any_dict_plan(self._any)
            return _dict_plan(self.compile(args[0]), self.compile(args[1]))
        if cls is not tuple or not args or args[-1] is Ellipsis:
            return _series_plan(cls, self.compile(args[0]) if args else self._any)
        return _tuple_plan([self.compile(arg) for arg in args])

    def _object(self, cls: Any, args: tuple[Any, ...]) -> _Plan:
        key = (cls, repr(args))  # by their text, because some hints cannot be hashed
        plan = self._named.get(key)
        if plan is not None:
            return plan
        is_dict = _is_typed_dict(cls)
        plan = _Plan(_class_name(cls), kinds={dict}, types={dict if is_dict else cls})
        self._named[key] = plan
        hints = _class_hints(cls, self._locals)
        given = dict(zip(getattr(cls, "__parameters__", ()), args, strict=False))
        fields: list[_Field] = []
        self._enter()
        for name, required in _fields(cls, hints):
            field_hint = _substitute(hints.get(name, Any), given)
            if isinstance(field_hint, dataclasses.InitVar):
                reason = f"its InitVar {name!r} cannot be read back; give it a default or make it a field"
                refusing = _unsupported_plan(plan.name, cls, reason)
                plan.encode, plan.decode = refusing.encode, refusing.decode
                break
            fields.append(_Field(name, self.compile(field_hint), required))
        else:
            _fill_object(plan, cls, fields, is_dict=is_dict)
        self._open -= 1
        return plan

    def _enter(self) -> None:
        self._open += 1
        if self._open > _MAX_DEPTH // 2:  # a generic class may hold itself with ever longer arguments
            raise _EndlessHint


_SCALARS: dict[Any, Callable[[], _Plan]] = {
    bool: lambda: _plain_plan(bool, "bool"),
    int: _int_plan,
    float: _float_plan,
    str: lambda: _plain_plan(str, "str"),
}
_CONTAINERS = frozenset({list, dict, set, frozenset, tuple})


def _fields(cls: Any, hints: dict[str, Any]) -> list[tuple[str, bool]]:
    """The fields that travel, and whether each must be there. What the class computes itself is left out."""
    if _is_typed_dict(cls):
        required = cls.__required_keys__
        return [(name, _says_required(hint, name in required)) for name, hint in hints.items()]
    if _is_named_tuple(cls):
        return [(name, name not in cls._field_defaults) for name in cls._fields]
    missing = dataclasses.MISSING
    found = [
        (field.name, field.default is missing and field.default_factory is missing)
        for field in dataclasses.fields(cls)
        if field.init
    ]
    for name, hint in hints.items():
        if isinstance(hint, dataclasses.InitVar) and not hasattr(cls, name):
            found.append((name, True))
    return found


def _says_required(hint: Any, otherwise: bool) -> bool:
    """Postponed annotations hide Required and NotRequired from the class itself."""
    while (origin := typing.get_origin(hint)) is not None:
        name = getattr(origin, "_name", getattr(origin, "__name__", ""))
        if name in ("Required", "NotRequired"):
            return bool(name == "Required")
        if name not in _WRAPPERS:
            break
        hint = typing.get_args(hint)[0]
    return otherwise


def _is_named_tuple(cls: type) -> bool:
    return issubclass(cls, tuple) and hasattr(cls, "_fields") and hasattr(cls, "_field_defaults")


def _is_typed_dict(cls: type) -> bool:
    return issubclass(cls, dict) and hasattr(cls, "__required_keys__")


def _is_alias(hint: Any) -> bool:
    """Whether it was made by a `type X = ...` statement."""
    return type(hint).__name__ == "TypeAliasType" and hasattr(hint, "__value__")


def _any_dict_plan(inner: _AnyPlan) -> _Plan:
    """A bare `dict`: keys and values of any kind."""

    def encode(value: Any, depth: int) -> Any:
        if type(value) is not dict:
            raise _expected("dict", value)
        return inner.encode(value, depth)

    def decode(raw: Any) -> Any:
        value = inner.decode(raw)
        if type(value) is not dict:
            raise _expected("dict", raw)
        return value

    return _Plan("dict", types={dict}, kinds={dict}, encode=encode, decode=decode)


def _substitute(hint: Any, given: dict[Any, Any]) -> Any:
    """Fill in the type parameters of a generic class or alias; those not given are Any."""
    if isinstance(hint, typing.TypeVar):
        return given.get(hint, hint)
    parameters = getattr(hint, "__parameters__", ())
    if not given or not parameters or isinstance(hint, type):
        return hint
    return hint[tuple(given.get(parameter, Any) for parameter in parameters)]


def _resolve(annotation: Any, global_names: dict[str, Any], local_names: dict[str, Any]) -> Any:
    """The hint behind an annotation, which may be or hold text; `_Unresolved` where a name is unknown."""
    if isinstance(annotation, type) and typing.get_origin(annotation) is None:
        return annotation

    def holder() -> None: ...

    holder.__annotations__ = {"hint": annotation}
    try:
        return typing.get_type_hints(holder, global_names, local_names, include_extras=True)["hint"]
    except Exception:  # evaluating a text may raise anything
        return _Unresolved(annotation)


def _class_hints(cls: Any, local_names: dict[str, Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls, include_extras=True)
    except Exception:  # as above; then field by field, so that one bad name spoils one field
        hints: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        names = {**local_names, cls.__name__: cls, **vars(base)}
        module = vars(sys.modules[base.__module__]) if base.__module__ in sys.modules else {}
        for name, annotation in _annotations(base).items():
            hints[name] = _resolve(annotation, module, names)
    return hints


def _annotations(cls: type) -> dict[str, Any]:
    if sys.version_info >= (3, 14):
        import annotationlib

        return annotationlib.get_annotations(cls, format=annotationlib.Format.FORWARDREF)
    return inspect.get_annotations(cls)


# --- Text -------------------------------------------------------------------------------------------------

_ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False).encode
_ENCODE_ASCII = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False).encode


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)


def _dump(data: Any) -> str:
    """Compact JSON that UTF-8 can write: lone surrogates, as in the names of odd files, are escaped."""
    try:
        text = _ENCODE(data)
    except (ValueError, TypeError):  # from the dump of a model: this library's own plans refuse earlier
        raise _Misfit("holds what JSON cannot write, such as nan or an infinity; its model should convert it") from None
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        if re.search("[\ud800-\udbff][\udc00-\udfff]", text):
            raise _Misfit(
                "holds two surrogates in a row, which would come back as one character; carry it as bytes"
            ) from None
        return _ENCODE_ASCII(data)
    return text


def _dump_fails(data: Any) -> bool:
    try:
        _dump(data)
    except _Misfit:
        return True
    return False


def _load(text: str, where: str) -> Any:
    try:
        data, end = _DECODER.raw_decode(text)
        return data if end == len(text) else _DECODER.decode(text)
    except RecursionError:
        raise InvalidPayload(where, _DEEP) from None
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidPayload(where, f"the payload is no JSON text: {error}") from None


# Types whose repr says something short and holds no address.
_SHOWN = frozenset({bool, int, float, str, bytes, date, datetime, time, timedelta})


def _got(value: Any) -> str:
    """The type and, for scalars, the value."""
    if value is None:
        return "None"
    name = _class_name(type(value))
    return f"{name} {_brief(value)}" if type(value) in _SHOWN else name


def _brief(value: Any) -> str:
    """A repr of at most some 100 characters, of any object."""
    if type(value) in (str, bytes) and len(value) > 48:
        return f"{value[:48]!r}..."
    if isinstance(value, enum.Enum):
        return f"{_class_name(type(value))}.{value.name}"
    if type(value) is int and not -_BIG < value < _BIG:
        return f"of {value.bit_length()} bits"
    text = _guarded(lambda: repr(value), "...")
    return text if len(text) <= 100 else text[:97] + "..."


def _class_name(cls: type) -> str:
    return cls.__qualname__.rpartition("<locals>.")[2]


def _qualified(cls: type) -> str:
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def _a(noun: str) -> str:
    return f"{'an' if noun[0].lower() in 'aeio' else 'a'} {noun}"
