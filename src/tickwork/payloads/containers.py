"""The plans of what holds other values: lists, sets, tuples, dicts, objects, unions, and values without a hint."""

from __future__ import annotations

import dataclasses
import math
from collections import abc
from typing import TYPE_CHECKING, Any

from . import values
from .plan import (
    DEEP,
    HIDDEN,
    TAG,
    VALUE,
    Misfit,
    Plan,
    as_misfit,
    brief,
    class_name,
    dump,
    each,
    each_field,
    expected,
    load,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .plan import Way


_SCALAR = tuple(values.PLAIN)


def _only(name: str, kind: Any, way: Way) -> Way:
    """Refuse what is of another kind, then go one level down."""

    def only(value: Any, depth: int) -> Any:
        if not isinstance(value, kind):
            raise expected(name, value)
        return way(value, depth + 1)

    return only


def _hide(_raw: Any, _depth: int) -> Any:
    return HIDDEN


def _show(raw: Any, _depth: int) -> Any:
    return raw


def hidden(plan: Plan) -> Way:
    """Return the way from JSON data to what people may see of it."""
    return plan.hide or _show


def hidden_items(item: Plan) -> Way | None:
    """Return the same for a list of items; None: all may be seen."""
    if item.hide is None:
        return None
    return _only("a list", list, lambda raws, depth: each(raws, hidden(item), depth))


def secret(plan: Plan) -> Plan:
    """Return the plan of a value that nobody is to see: it travels like any other, and no message shows it."""

    def quiet(way: Way) -> Way:
        def walk(value: Any, depth: int) -> Any:
            try:
                return way(value, depth)
            except Exception:  # its text, and that of its causes, may hold the value
                raise Misfit(f"expected {plan.name}, got {HIDDEN}, which is secret") from None

        return walk

    return dataclasses.replace(plan, encode=quiet(plan.encode), decode=quiet(plan.decode), is_plain=False, hide=_hide)


def series(cls: Any, item: Plan) -> Plan:
    """Return the plan of a list, a set, a frozenset, or a tuple of any length."""
    name = f"{cls.__name__}[{item.name}{', ...' if cls is tuple else ''}]"

    same = frozenset({item.cls}).issuperset if item.is_plain else None

    def walk(items: Any, way: Way, depth: int) -> Any:
        # Most items are their own JSON data, and a look at the types spares the walk.
        return items if same is not None and same(map(type, items)) else each(items, way, depth)

    def encode(items: Any, depth: int) -> Any:
        raws = walk(items, item.encode, depth)
        return sorted(raws, key=dump) if is_set else raws  # equal sets get equal texts, in every process

    def decode(raws: Any, depth: int) -> Any:
        items = walk(raws, item.decode, depth)
        return items if cls is list else cls(items)

    is_set = issubclass(cls, abc.Set)
    return Plan(name, _only(name, cls, encode), _only(name, list, decode), cls, hide=hidden_items(item))


def tuple_of(items: Sequence[Plan]) -> Plan:
    """Return the plan of a tuple with a hint for each item."""
    name = f"tuple[{', '.join(item.name for item in items)}]"

    def walk(found: Any, ways: list[Way], depth: int) -> list[Any]:
        if len(found) != len(ways):
            raise Misfit(f"expected {name}, got {len(found)} items")
        return each(zip(ways, found, strict=True), lambda pair, depth: pair[0](pair[1], depth), depth)

    encoders, decoders = [item.encode for item in items], [item.decode for item in items]
    encode = _only(name, tuple, lambda value, depth: walk(value, encoders, depth))
    decode = _only(name, list, lambda raw, depth: tuple(walk(raw, decoders, depth)))
    hide = None
    if any(item.hide for item in items):
        ways = [hidden(item) for item in items]
        hide = _only(name, list, lambda raw, depth: walk(raw, ways, depth))
    return Plan(name, encode, decode, tuple, hide=hide)


def dict_of(key: Plan, value: Plan) -> Plan:
    """Return the plan of a dict: a key that does not travel as text stands as its JSON text."""
    name = f"dict[{key.name}, {value.name}]"
    write: Way = key.encode if key.is_text else lambda entry, depth: dump(key.encode(entry, depth))
    read: Way = key.decode if key.is_text else lambda text, depth: key.decode(load(text), depth)
    encode, decode = _entries(write, value.encode), _entries(read, value.decode)
    hide = None if value.hide is None else _only(name, dict, _entries(_show, value.hide))
    plan = Plan(name, _only(name, dict, encode), _only(name, dict, decode), dict, hide=hide)
    return plan if key.hide is None else secret(plan)  # hidden keys would fall together, and paths show keys


def _entries(key_way: Way, way: Way) -> Way:
    def entries(found: Any, depth: int) -> Any:
        keys = each(found, key_way, depth, found)
        return dict(zip(keys, each(found.values(), way, depth, found), strict=True))

    return entries


def record(cls: type, fields: dict[str, Plan], required: Sequence[str]) -> Plan:
    """Return the plan of a dataclass, NamedTuple or TypedDict: its fields that travel, and those that must be there."""
    name = class_name(cls)
    is_dict = issubclass(cls, dict)
    step = "[{!r}]" if is_dict else ".{}"

    def travel(found: dict[str, Any], ways: list[tuple[str, Way]], depth: int) -> dict[str, Any]:
        out = each_field(found, ways, depth + 1, step)
        if not len(out) == len(found) == len(ways):
            for label in (label for label in required if label not in found):
                raise Misfit(f"{name} needs {label!r}")
            for label in (label for label in found if label not in fields):
                raise Misfit(f"{name} has no field {brief(label)}")
        return out

    def encode(value: Any, depth: int) -> Any:
        if is_dict and isinstance(value, dict):
            return travel(value, encoders, depth)
        if type(value) is not cls:
            raise expected(f"exactly {name}" if not is_dict and isinstance(value, cls) else name, value)
        return travel({label: getattr(value, label) for label in fields}, encoders, depth)

    def decode(raw: Any, depth: int) -> Any:
        if type(raw) is not dict:
            raise expected(name, raw)
        return cls(**travel(raw, decoders, depth))

    encoders = [(label, plan.encode) for label, plan in fields.items()]
    decoders = [(label, plan.decode) for label, plan in fields.items()]
    shown = [f"{label}{'' if label in required else '='}:{plan.name}" for label, plan in fields.items()]
    hide = None
    if any(plan.hide for plan in fields.values()):
        hiders = [(label, hidden(plan)) for label, plan in fields.items()]
        hide = _only(name, dict, lambda raw, depth: travel(raw, hiders, depth))
    return Plan(name, encode, decode, dict if is_dict else cls, detail=f"{name}: {shown}", hide=hide)


def optional(member: Plan) -> Plan:
    """Return the plan of `X | None`."""
    return Plan(
        f"{member.name} | None",
        lambda value, depth: None if value is None else member.encode(value, depth),
        lambda raw, depth: None if raw is None else member.decode(raw, depth),
        member.cls,
        hide=None if member.hide is None else lambda raw, depth: None if raw is None else hidden(member)(raw, depth),
    )


def union(members: Sequence[Plan]) -> Plan:
    """Return the plan of a union without None.

    A value goes to the member of exactly its type, else to the first that takes it. It travels bare if JSON has it
    itself, else with the name of the member.
    """
    name = " | ".join(member.name for member in members)
    tagged: dict[str, Plan] = {}
    for member in members:
        tag = member.name
        while tag in tagged:  # two classes of one name
            tag += "'"
        tagged[tag] = member

    def encode(value: Any, depth: int) -> Any:
        reason = expected(name, value)
        for tag, member in sorted(tagged.items(), key=lambda entry: entry[1].cls is not type(value)):
            try:
                raw = member.encode(value, depth)
            except Exception as error:  # a model's dump may raise anything
                misfit = as_misfit(error)
                if misfit.path or misfit.reason is DEEP or member.cls is type(value):
                    reason = misfit  # it tells more than that no member fits
                if reason.reason is DEEP:
                    break
            else:
                return raw if raw is value and isinstance(raw, _SCALAR) else {TAG: tag, VALUE: raw}
        raise reason

    def decode(raw: Any, depth: int) -> Any:
        if type(raw) is dict and TAG in raw:
            return _tagged(raw, tagged.get, name).decode(raw[VALUE], depth)
        found = []
        for member in members:
            try:
                value = member.decode(raw, depth)
            except Exception:  # the constructor of a member may raise anything
                continue
            if value is raw or type(raw) not in values.PLAIN:
                return value
            found.append(value)
        if not found:
            raise expected(name, raw)
        return found[0]

    # Of what travels bare, nobody can say which member it was.
    return Plan(name, encode, decode, hide=_hide if any(member.hide for member in members) else None)


def _tagged(raw: dict[str, Any], find: Callable[[str], Plan | None], name: str) -> Plan:
    tag = raw[TAG]
    plan = find(tag) if type(tag) is str and VALUE in raw else None
    if plan is None:
        raise Misfit(f"expected {name}, got the tag {brief(tag)}")
    return plan


# Values without a hint: plain JSON as it is, well-known types with a tag.


def _encode_any(value: Any, depth: int) -> Any:
    cls = type(value)
    if cls is str or cls is int or cls is bool or value is None or (cls is float and math.isfinite(value)):
        return value
    if cls is list:
        return each(value, _encode_any, depth + 1)
    if cls is dict and TAG not in value and all(type(key) is str for key in value):
        return dict(zip(value, each(value.values(), _encode_any, depth + 1, value), strict=True))
    tag = cls.__name__
    plan = _TAGGED.get(tag) or values.well_known(cls)
    if plan is None or plan.cls is not cls:
        raise Misfit(f"JSON cannot carry a value of type {class_name(cls)} by itself; {_HINT}")
    return {TAG: tag if tag in _TAGGED else plan.name, VALUE: plan.encode(value, depth)}


def _decode_any(raw: Any, depth: int) -> Any:
    if type(raw) is list:
        return each(raw, _decode_any, depth + 1)
    if type(raw) is not dict:
        return raw
    if TAG not in raw:
        return dict(zip(raw, each(raw.values(), _decode_any, depth + 1, raw), strict=True))
    return _tagged(raw, lambda tag: _TAGGED.get(tag) or values.text(tag), "Any").decode(raw[VALUE], depth)


_HINT = "annotate it with a dataclass, NamedTuple, TypedDict or Enum that is known at run time, or pass an id"
ANY = Plan("Any", _encode_any, _decode_any)
_TAGGED = {cls.__name__: series(cls, ANY) for cls in (tuple, set, frozenset)}
_TAGGED |= {"float": values.PLAIN[float], "dict": dict_of(ANY, ANY)}
