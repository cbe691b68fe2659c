"""Keys of jobs, and what holds for all jobs of a key: how many run at once, how many start in a while.

A key is a text made of the arguments: `"report:{user_id}"`. It has a meaning within one task only. As an idempotency
key it says that two jobs are one; in a `Limit` or a `Rate` it says which jobs share it.

A *gate* is one such limit for one key: "limit:example.org", "rate:example.org". A job has at most two. Of these, it
passes the finer one first, the one whose key names more: all jobs at the finer gate then have the coarser one in
common, so that none of them holds up another which could run.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from string import Formatter
from typing import TYPE_CHECKING, Any

from .durations import seconds
from .errors import InvalidOption, InvalidPayload, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import timedelta

MAX_AT_ONCE = 100_000
"""Beyond that a limit is none: a claim counts what runs under it, job by job."""
MAX_STARTS = 100_000
"""The starts of a rate are kept one by one, a few megabytes for so many."""
MIN_PER = 0.001
"""Seconds: a rate is kept at claims, and these come no closer."""
MAX_KEY = 500
"""Characters of a key: it stands in every index of the store that knows it."""


@dataclass(frozen=True, slots=True, init=False)
class Limit:
    """So many jobs run at once, in all processes together: `Limit(3)`, `Limit(at_once=3, key="{host}")`.

    Attributes:
        at_once: How many at the most.
        key: Jobs with the same key share it: a text with names of parameters in braces; None: all jobs of the task do.

    Raises:
        InvalidOption: A value out of its range.
    """

    at_once: int
    key: str | None

    def __init__(self, at_once: int = 1, *, key: str | None = None) -> None:
        object.__setattr__(self, "at_once", _count("at_once", at_once, MAX_AT_ONCE))
        object.__setattr__(self, "key", _template("key", key))


@dataclass(frozen=True, slots=True, init=False)
class Rate:
    """So many jobs start in any period of this length, in all processes together: `Rate(10, per="1m", key="{host}")`.

    Attributes:
        starts: How many at the most. Attempts count, each by itself.
        per: The length of the period in seconds, at least 0.001.
        key: As in `Limit`.

    Raises:
        InvalidOption: A value out of its range.
    """

    starts: int
    per: float
    key: str | None

    def __init__(self, starts: int, *, per: float | str | timedelta, key: str | None = None) -> None:
        object.__setattr__(self, "starts", _count("starts", starts, MAX_STARTS))
        object.__setattr__(self, "per", seconds(per, "per", minimum=MIN_PER))
        object.__setattr__(self, "key", _template("key", key))


@dataclass(frozen=True, slots=True)
class Limits:
    """What holds for the jobs of a task, as a store is told.

    Attributes:
        limit: How many run at once; None: any number.
        rate: How many start in a while; None: any number.
    """

    limit: Limit | None = None
    rate: Rate | None = None


def limit_gate(key: str) -> str:
    """Return the gate of a key's limit; the key "" stands for all jobs of the task."""
    return f"limit:{key}"


def rate_gate(key: str) -> str:
    """Return the gate of a key's rate."""
    return f"rate:{key}"


def is_rate(gate: str) -> bool:
    """Return whether a gate belongs to a rate; else it belongs to a limit."""
    return gate.startswith("rate:")


def key_of(gate: str) -> str:
    """Return the key of a gate; "" for all jobs of the task."""
    return gate.partition(":")[2]


def as_limit(given: object) -> Limit | None:
    """Return what the option `limit` means: a `Limit`, a number of jobs, or a key of which one job runs at a time."""
    if given is None or isinstance(given, Limit):
        return given
    if isinstance(given, str):
        return Limit(1, key=_template("limit", given))
    if isinstance(given, int) and not isinstance(given, bool):
        return Limit(_count("limit", given, MAX_AT_ONCE))
    raise InvalidOption("limit", 'a Limit such as Limit(at_once=3, key="{host}"), a number, or a key', given)


def as_rate(given: object) -> Rate | None:
    """Return what the option `rate` means."""
    if given is None or isinstance(given, Rate):
        return given
    raise InvalidOption("rate", 'a Rate such as Rate(10, per="1m")', given)


def check_key(given: object) -> str:
    """Return a key that a caller gives as it is."""
    if not isinstance(given, str) or not given.strip():
        raise InvalidOption("key", "a text that is not blank", given)
    if len(given) > MAX_KEY:
        shown = given[:20] + "..."
        raise InvalidOption("key", f"at most {MAX_KEY} characters long", shown, remedy="hash what is longer")
    return _writable(given)


def check_template(option: str, given: object) -> str | None:
    """Return a key with names of parameters in braces, or None."""
    return _template(option, given)


class Labels:
    """What the jobs of one task are labelled with: idempotency key and gates, made of their arguments.

    Args:
        fn: The function whose parameters are named.
        task: The task's name, for messages.
        skip_first: Leave out the first parameter, which somebody else fills in.
        key: The idempotency key; None: none.
        limit: See `Limits`.
        rate: Likewise.

    Raises:
        InvalidOption: A key names what is no parameter, or what is secret; or the keys of limit and rate have no order.
    """

    __slots__ = ("_fn", "_gates", "_has_all_hints", "_key", "_rest", "_signature", "_skips_first", "_wants_values")

    def __init__(
        self,
        fn: Callable[..., Any],
        task: str,
        *,
        skip_first: bool,
        key: str | None,
        limit: Limit | None,
        rate: Rate | None,
    ) -> None:
        try:
            signature = inspect.signature(fn)
        except (TypeError, ValueError):  # some written in C have none that can be read
            signature = inspect.Signature()
        self._fn = fn
        self._signature = signature
        self._skips_first = skip_first
        parameters = list(signature.parameters.values())[skip_first:]
        self._key = None if key is None else _Key("key", key, task, parameters)
        gates: list[tuple[str, _Key]] = []
        if limit is not None:
            gates.append(("limit", _Key("limit", limit.key or "", task, parameters)))
        if rate is not None:
            gates.append(("rate", _Key("rate", rate.key or "", task, parameters)))
        if len(gates) == 2:
            gates = _finer_first(*gates)
        self._gates = gates
        self._wants_values = any(entry.fields for entry in self._keys())
        self._rest = next((entry.name for entry in parameters if entry.kind is entry.VAR_KEYWORD), None)

        self._has_all_hints = False
        """Whether nothing in the hints may be defined later: all of it is when the first job is made."""
        if self._wants_values:
            self._expect_no_secrets()

    def of(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, key: str | None = None
    ) -> tuple[str | None, tuple[str, ...]]:
        """Return the idempotency key of a call, or None, and its gates in the order in which it passes them.

        Args:
            args: Positional arguments, without one that somebody else fills in.
            kwargs: Named ones. They must fit the function.
            key: The key, where the caller gives one; None: the task's.

        Raises:
            InvalidPayload: A key cannot be made of these arguments.
            InvalidOption: A key names what is secret, by a hint that could not be read before.
        """
        if self._wants_values and not self._has_all_hints:
            self._expect_no_secrets()
            self._has_all_hints = True
        values = self._values(args, kwargs) if self._wants_values else {}
        return (
            key or (None if self._key is None else self._key.of(values)),
            tuple(f"{kind}:{label.of(values)}" for kind, label in self._gates),
        )

    def _keys(self) -> list[_Key]:
        return [*([] if self._key is None else [self._key]), *(entry for _, entry in self._gates)]

    def _expect_no_secrets(self) -> None:
        """Refuse keys that name what is secret, or a part of it, since keys are shown."""
        from .payloads.hints import secret_parameters  # only for tasks that have keys
        from .payloads.secrets import looks_secret

        for key in self._keys():
            # What is no parameter is one of the further keywords.
            holders = {name: name if name in self._signature.parameters else self._rest for name in key.names()}
            marked = secret_parameters(self._fn, {holder for holder in holders.values() if holder is not None})
            for name, holder in sorted(holders.items()):
                if holder in marked:
                    raise key.refusal(f"{name} must not be")
            for name in sorted(key.all_names()):
                if looks_secret(name):
                    raise key.refusal(f"by its name {name} must not be")

    def _values(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the arguments by name, with the defaults of those that were not given."""
        bound = self._signature.bind(*(None,) * self._skips_first, *args, **kwargs)
        bound.apply_defaults()
        return bound.arguments if self._rest is None else {**bound.arguments[self._rest], **bound.arguments}


class _Key:
    """A key with names of parameters in braces."""

    __slots__ = ("fields", "option", "task", "text")

    def __init__(self, option: str, text: str, task: str, parameters: list[inspect.Parameter]) -> None:
        self.option = option
        self.text = text
        self.task = task
        self.fields: frozenset[tuple[str, str, str | None]] = frozenset(
            (name, spec or "", conversion) for _, name, spec, conversion in Formatter().parse(text) if name is not None
        )
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            return  # whatever is named may be given
        known = [parameter.name for parameter in parameters]
        for field, _, _ in sorted(self.fields, key=str):
            name = _first_name(field)
            if name not in known:
                raise InvalidOption(option, f"a key that names parameters of {task}", text, remedy=_hint(name, known))

    def names(self) -> set[str]:
        """Return the names of the arguments in it."""
        return {_first_name(field) for field, _, _ in self.fields}

    def all_names(self) -> set[str]:
        """Return all names in it: of arguments, of their attributes and of what they hold."""
        return {name for field, _, _ in self.fields for name in re.split(r"[.\[\]]", field)}

    def refusal(self, reason: str) -> InvalidOption:
        """Return the refusal of a key that would show a secret."""
        return InvalidOption(
            self.option, f"a key without the secrets of {self.task}", self.text, remedy=f"keys are shown, and {reason}"
        )

    def of(self, values: Mapping[str, Any]) -> str:
        """Return the key for these arguments."""
        try:
            made = self.text.format_map(values)
        except Exception as error:  # a missing name, or whatever a value does when it is formatted
            what = f"no argument {error}" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"
            raise InvalidPayload(
                self.task, f"its {self.option} {self.text!r} cannot be made of the arguments: {what}"
            ) from error
        if len(made) > MAX_KEY:
            reason = f"its {self.option} {self.text!r} becomes {len(made)} characters, and {MAX_KEY} is the most"
            raise InvalidPayload(self.task, f"{reason}; name something shorter, such as an id")
        return _writable(made)


def _finer_first(one: tuple[str, _Key], other: tuple[str, _Key]) -> list[tuple[str, _Key]]:
    if one[1].fields >= other[1].fields:
        return [one, other]
    if other[1].fields >= one[1].fields:
        return [other, one]
    raise InvalidOption(
        "rate",
        f"given with a key that names all that limit names, {one[1].text!r}, or a part of it",
        other[1].text,
        remedy="else jobs that may not start would stand before others that may; use one key for both",
    )


def _hint(name: str, known: list[str]) -> str:
    near = nearest(name, known)
    if near:
        return f"did you mean {{{near}}}?"
    if not known:
        return "it has none, so write the key without braces"
    return "it has " + ", ".join(f"{{{entry}}}" for entry in known)


def _first_name(field: str) -> str:
    return re.split(r"[.\[]", field, maxsplit=1)[0]


def _template(option: str, given: object) -> str | None:
    if given is None:
        return None
    expected = 'a text with names of parameters in braces, such as "{host}"'
    if not isinstance(given, str) or not given.strip():
        raise InvalidOption(option, expected, given)
    try:
        parts = list(Formatter().parse(given))
    except ValueError as error:
        raise InvalidOption(option, expected, given, remedy=f"{error}; a brace of the text is written twice") from error
    for _, name, spec, _ in parts:
        if name is not None and not _first_name(name).isidentifier():
            raise InvalidOption(option, expected, given, remedy="each pair of braces holds the name of a parameter")
        if "{" in (spec or ""):
            raise InvalidOption(option, expected, given, remedy="braces within braces have no meaning here")
    if len(given) > MAX_KEY:
        raise InvalidOption(option, f"at most {MAX_KEY} characters long", given[:20] + "...")
    return given


def _writable(key: str) -> str:
    """Return a key that every store can write: what stands for no character, and NUL, are written as escapes."""
    key = key.replace("\0", "\\x00")
    return key if key.isascii() else key.encode("utf-8", "backslashreplace").decode()


def _count(option: str, value: object, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise InvalidOption(option, f"a whole number from 1 to {most:,}", value)
    return value
