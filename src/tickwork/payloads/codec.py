"""The codec of one function: its arguments bound by name, its result, its fingerprint."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from ..errors import InvalidPayload
from . import containers
from .hints import Compiler, signature_of
from .plan import HIDDEN, Misfit, Plan, as_misfit, brief, dump, each_field, expected, load
from .secrets import hidden_texts, hide_by_name
from .values import PLAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Codec"]

_EMPTY = inspect.Parameter.empty
_ARGS, _KWARGS = "*", "**"
_LABELS: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: _ARGS, inspect.Parameter.VAR_KEYWORD: _KWARGS}
NOTHING = "{}"
"""The arguments of a call without any: those of every job that a schedule makes."""
NULL = "null"
_KEYWORD = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Codec:
    """Turn the arguments and the result of one function into JSON text and back.

    Building one reads nothing yet: signature and hints are read at the first use, so that a forward reference
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
        if shape.takes_nothing and not args and not kwargs:
            return NOTHING
        try:
            data = each_field(shape.bind(args, kwargs or {}), shape.encoders, 0, "{}")
            try:
                return dump(data)
            except Misfit:  # only a refusal pays for finding out which argument it is
                each_field(data, [(label, dump) for label in data], 0, "{}")
                raise
        except Exception as error:
            raise self._refusal(error) from error.__cause__

    def decode(self, text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return positional and keyword arguments that call the function as it is today.

        A parameter with a default may be missing; a name that the function no longer has goes to its
        `**kwargs`, if there are any.

        Raises:
            InvalidPayload: The text is no JSON object, or does not fit today's signature.
        """
        shape = self._shape or self._build()
        if shape.takes_nothing and text == NOTHING:
            return (), {}
        try:
            data = load(text)
            if type(data) is not dict:
                raise expected("a JSON object", data)
            shape.sort_out(data)
            return shape.unbind(each_field(data, shape.decoders, 0, "{}"))
        except Exception as error:
            raise self._refusal(error) from error.__cause__

    def encode_result(self, value: Any) -> str:
        """Return what the function returned as compact JSON text, by its return hint.

        Raises:
            InvalidPayload: The value does not fit the hint or cannot be carried.
        """
        shape = self._shape or self._build()
        try:
            data = shape.result.encode(value, 0)
            return NULL if data is None else dump(data)
        except Exception as error:
            raise self._result_refusal(error) from error.__cause__

    def decode_result(self, text: str) -> Any:
        """Return what `encode_result` was given.

        Raises:
            InvalidPayload: The text is no JSON, or does not fit today's return hint.
        """
        shape = self._shape or self._build()
        try:
            return shape.result.decode(load(text), 0)
        except Exception as error:
            raise self._result_refusal(error) from error.__cause__

    def show(self, text: str, *, hides_names: bool = True) -> dict[str, Any]:
        """Return stored arguments by name, as JSON data that people may see; never raises.

        What is marked `Secret` is hidden, and so is what an older signature stored under a name that today's does not
        have, where today's has any secret: it may be a former name of that.

        Args:
            text: What `encode` wrote.
            hides_names: Also hide what stands under a name such as "password", "token" or "api_key".
        """
        try:
            data = load(text)
            shape = self._shape or self._build()
        except Exception:  # what cannot be read cannot be told apart, either
            return {HIDDEN: HIDDEN}
        if type(data) is not dict:
            return {HIDDEN: HIDDEN}
        shown = {label: shape.shown(label, raw) for label, raw in data.items()}
        return hide_by_name(shown) if hides_names else shown

    @property
    def has_secrets(self) -> bool:
        """Whether an argument, or a part of one, is marked `Secret`."""
        return (self._shape or self._build()).has_secrets

    def secrets_in(self, text: str) -> list[str]:
        """Return the texts among stored arguments that nobody is to see; never raises."""
        try:
            shape = self._shape or self._build()
            data = load(text) if shape.has_secrets else {}
            return [found for label, raw in data.items() for found in hidden_texts(raw, shape.shown(label, raw))]
        except Exception:
            return []

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that change with the signature, the hints, or a field of a class there.

        The same in every process and Python version; names of modules and values of defaults do not count.
        """
        from hashlib import sha256  # OpenSSL is slow to load, and only the start of a worker asks

        shape = self._shape or self._build()
        return sha256("\n".join(shape.described).encode("utf-8", "backslashreplace")).hexdigest()[:16]

    @property
    def signature(self) -> str:
        """The signature as messages show it, such as `(order: int, day: date | None = None)`."""
        return (self._shape or self._build()).text

    def __repr__(self) -> str:
        return f"<Codec {self.name}>"

    def _build(self) -> _Shape:
        try:
            self._shape = shape = _Shape(self._fn, self._skip_first)
        except Exception as error:  # classes in hints may do anything when they are looked at
            raise self._refusal(error) from error
        return shape

    def _refusal(self, error: Exception) -> InvalidPayload:
        misfit = as_misfit(error)
        return InvalidPayload(f"{self.name}({misfit.where})" if misfit.path else self.name, misfit.reason)

    def _result_refusal(self, error: Exception) -> InvalidPayload:
        misfit = as_misfit(error)
        return InvalidPayload(f"result of {self.name}{misfit.where}", misfit.reason)


class _Shape:
    """A signature with its hints compiled.

    The arguments of a call are the fields of one object: each under its name, `*args` and `**kwargs` under their
    stars.
    """

    def __init__(self, fn: Callable[..., Any], skip_first: bool) -> None:
        signature = signature_of(fn)
        params = list(signature.parameters.values())
        if skip_first and params and params[0].kind in _POSITIONAL:
            del params[0]
        compiler = Compiler(fn)
        plans = {param.name: _plan_of(compiler, param) for param in params}
        self.has_secrets = compiler.has_secrets  # before the result, which hides nothing
        self.result = compiler.annotation(signature.return_annotation)
        self._signature = inspect.Signature(params)
        self._labels = {param.name: _LABELS.get(param.kind, param.name) for param in params}
        self._positional = [param.name for param in params if param.kind in _POSITIONAL]
        self._keywords = {param.name for param in params if param.kind in _KEYWORD}
        self._required = {p.name for p in params if p.default is _EMPTY and p.kind not in _LABELS}
        self._names = None if _LABELS.keys() & {param.kind for param in params} else self._labels.keys()
        """The parameters, where none of them has a star."""
        self.takes_nothing = not self._required
        """Whether it can be called without arguments; then defaults fill what it has."""
        travelling = {self._labels[param.name]: _star(param, plans[param.name]) for param in params}
        self.encoders = [(label, plan.encode) for label, plan in travelling.items()]
        self.decoders = [(label, plan.decode) for label, plan in travelling.items()]
        self._hiders = {label: plan.hide for label, plan in travelling.items()}
        self.text = str(inspect.Signature([_shown(param, plans[param.name]) for param in params]))
        outline = str(inspect.Signature([_shown(param, plans[param.name], "...") for param in params]))
        self.described = [outline, self.result.name, *compiler.details]

    def shown(self, label: str, raw: Any) -> Any:
        """Return what people may see of the raw argument under a label."""
        if label not in self._hiders:
            return HIDDEN if self.has_secrets else raw
        hide = self._hiders[label]
        if hide is None:
            return raw
        try:
            return hide(raw, 0)
        except Exception:  # it does not fit, so its secrets may stand anywhere
            return HIDDEN

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of a call by label."""
        if not kwargs and len(args) == len(self._positional) == len(self._labels):
            return dict(zip(self._positional, args, strict=True))
        bound = dict(zip(self._positional, args, strict=False))
        if len(args) <= len(self._positional) and self._keywords >= kwargs.keys() and not bound.keys() & kwargs.keys():
            bound.update(kwargs)
            if self._required <= bound.keys():
                return bound
        try:  # Python's own words for what is wrong, and its way with stars
            found = self._signature.bind(*args, **kwargs).arguments
            if absent := sorted(self._required - found.keys()):  # Python 3.13.0 overlooks positional-only ones
                raise TypeError(f"missing a required argument: {absent[0]!r}")
        except TypeError as error:
            raise Misfit(f"{error}; the signature is {self.text}") from None
        return {self._labels[name]: value for name, value in found.items()}

    def sort_out(self, data: dict[str, Any]) -> None:
        """Give the raw arguments of an older signature their place in today's."""
        if data.keys() == self._names:
            return
        rest = data.pop(_KWARGS, {})
        if type(rest) is not dict:
            raise expected("an object under '**'", rest)
        for label in self._keywords & rest.keys() - data.keys():
            data[label] = rest.pop(label)  # it was a further keyword, and has a parameter now
        labels = self._labels.values()
        rest |= {label: data.pop(label) for label in list(data) if label not in labels}
        if rest and (_KWARGS not in labels or _ARGS in rest):
            raise Misfit(f"is in the payload, but not in the signature {self.text}", next(iter(rest)))
        if rest:
            data[_KWARGS] = rest

    def unbind(self, values: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return values by label as the arguments of a call."""
        if len(values) == len(self._positional) == len(self._labels):
            return tuple(values.values()), {}
        for name in self._positional + sorted(self._required):
            if name in self._required and name not in values:
                raise Misfit(f"is missing in the payload; the signature is {self.text}", name)
        found = {name: values[label] for name, label in self._labels.items() if label in values}
        bound = inspect.BoundArguments(self._signature, found)
        if _ARGS in values or not self._keywords.issuperset(self._positional):
            bound.apply_defaults()  # what follows a gap must stand in its place
        return bound.args, bound.kwargs


def _plan_of(compiler: Compiler, param: inspect.Parameter) -> Plan:
    plan = compiler.annotation(param.annotation)
    if param.default is None and plan is not containers.ANY and not plan.name.endswith("| None"):
        return containers.optional(plan)  # `limit: int = None` is a common way to write int | None
    return plan


def _star(param: inspect.Parameter, plan: Plan) -> Plan:
    if param.kind is param.VAR_POSITIONAL:
        return containers.series(tuple, plan)
    return containers.dict_of(PLAIN[str], plan) if param.kind is param.VAR_KEYWORD else plan


class _Shown(str):
    """Text that stands for itself where a signature is formatted."""

    __slots__ = ()
    __repr__ = str.__str__


def _shown(param: inspect.Parameter, plan: Plan, default: str = "") -> inspect.Parameter:
    value: Any = _EMPTY
    if param.default is not _EMPTY:
        is_hidden = plan.hide is not None and param.default is not None
        value = _Shown(default or (HIDDEN if is_hidden else brief(param.default)))
    return param.replace(annotation=_EMPTY if plan is containers.ANY else _Shown(plan.name), default=value)
