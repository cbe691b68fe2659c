"""What is saved of values that do not unpickle: all that have no broken part, each as it was."""

from __future__ import annotations

import pickle
import sys
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickwork.batch.salvage import salvage

from .functions import NoUnpickle


@dataclass
class Point:
    x: Any
    y: Any = None


@dataclass(frozen=True, slots=True)
class Frozen:
    x: Any


class NoState:
    """Its state is refused, when it is there already."""

    def __getstate__(self) -> dict[str, int]:
        return {"x": 1}

    def __setstate__(self, state: dict[str, int]) -> None:
        raise LookupError("no state")


class NoKeys(dict[str, int]):
    def __setitem__(self, key: str, value: int) -> None:
        raise LookupError("no keys")


class NoHash:
    """It has a hash while it has its number, which comes too late when it is unpickled into a set."""

    def __init__(self) -> None:
        self.number = 1

    def __reduce__(self) -> tuple[Any, ...]:
        return NoHash.__new__, (NoHash,)

    def __hash__(self) -> int:
        return hash(self.number)


class Named:
    """It asks to be called by its name, and has one that is taken by nobody."""

    __slots__ = ()

    def __new__(cls, *args: Any) -> Named:
        if not args:
            raise TypeError("a name is needed")
        return super().__new__(cls)

    def __reduce_ex__(self, _protocol: Any) -> Any:
        import copyreg

        return copyreg.__newobj__, (Named,)  # type: ignore[attr-defined]


def saved(values: list[Any]) -> tuple[list[Any], list[tuple[int, str]]]:
    """Return the values, and what became of the others, from a pickle that does not load as a whole."""
    buffers: list[pickle.PickleBuffer] = []
    body = pickle.dumps(values, 5, buffer_callback=buffers.append)
    views = [buffer.raw() for buffer in buffers]
    with pytest.raises((ValueError, LookupError, AttributeError, TypeError)):
        pickle.loads(body, buffers=views)
    found, failures = salvage(body, views)
    return found, [(place, str(error)) for place, error in failures]


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (NoUnpickle(), "unreadable"),
        ([1, [NoUnpickle()]], "unreadable"),
        ({"key": (NoUnpickle(), 2)}, "unreadable"),
        ({NoUnpickle(): 1}, "unreadable"),
        (Point(1, NoUnpickle()), "unreadable"),
        (Frozen((NoUnpickle(),)), "unreadable"),
        (deque([NoUnpickle()]), "unreadable"),
        ({frozenset({NoUnpickle()})}, "unreadable"),
        (NoState(), "no state"),
        (Point([NoState()]), "no state"),
        (NoKeys(a=1), "no keys"),
        ({NoHash()}, "'NoHash' object has no attribute 'number'"),
        (frozenset({NoHash()}), "'NoHash' object has no attribute 'number'"),
        (Named("me"), "a name is needed"),
    ],
)
def test_only_the_value_with_a_broken_part_is_lost(broken: Any, reason: str) -> None:
    now = datetime.now(UTC)
    before, after = [1, Point(1, now), Frozen("a"), b"x"], [Point({"k": [2]}, now), Frozen((1, 2)), {3, 4}, None, now]

    values, failures = saved([*before, broken, *after])

    assert values == [*before, None, *after]
    assert failures == [(4, reason)]


def test_what_shares_a_broken_part_is_lost_and_what_shares_a_sound_one_is_not() -> None:
    broken, sound, state = NoUnpickle(), [1, 2], NoState()
    holder = [broken]

    values, failures = saved([(sound, holder), sound, holder, broken, Point(sound), state, Point(1, state)])

    assert values == [None, [1, 2], None, None, Point([1, 2]), None, None]
    assert [place for place, _ in failures] == [0, 2, 3, 5, 6]
    assert values[1] is values[4].x


def test_a_class_that_is_not_here_costs_its_own_instances() -> None:
    module = ModuleType("gone_by_now")
    exec("class Gone:\n    pass", vars(module))
    sys.modules["gone_by_now"] = module
    gone = [module.Gone(), module.Gone()]
    buffers: list[pickle.PickleBuffer] = []
    body = pickle.dumps([1, gone[0], Point(2), gone[1], [gone[1]]], 5, buffer_callback=buffers.append)
    del sys.modules["gone_by_now"]

    values, failures = salvage(body, [])

    assert values == [1, None, Point(2), None, None]
    assert [(place, str(error)) for place, error in failures] == [
        (place, "No module named 'gone_by_now'") for place in (1, 3, 4)
    ]


def test_buffers_belong_to_their_values() -> None:
    large = [bytearray([number]) * 100 for number in range(3)]
    values, failures = saved([pickle.PickleBuffer(large[0]), [pickle.PickleBuffer(large[1]), NoUnpickle()], large[2]])

    assert bytes(values[0]) == large[0]
    assert values[1] is None
    assert values[2] == large[2]
    assert failures == [(1, "unreadable")]


def test_a_value_that_holds_itself_is_looked_through_once() -> None:
    ring: list[Any] = [1]
    ring.append(ring)

    values, failures = saved([ring, NoUnpickle()])

    assert values[0][1] is values[0]
    assert failures == [(1, "unreadable")]


def test_a_damaged_pickle_gives_nothing() -> None:
    with pytest.raises(pickle.UnpicklingError, match="pickle exhausted before end of frame"):
        salvage(pickle.dumps([b"x" * 100], 5)[:-50], [])


LEAVES = st.integers() | st.text(max_size=3) | st.none() | st.floats(allow_nan=False) | st.just(NoUnpickle)
TREES: st.SearchStrategy[Any] = st.recursive(
    LEAVES,
    lambda part: (
        st.lists(part, max_size=3)
        | st.tuples(part, part)
        | st.dictionaries(st.text(max_size=2), part, max_size=3)
        | st.builds(Point, part, part)
        | st.builds(Frozen, part)
        | st.builds(deque, st.lists(part, max_size=2))
    ),
    max_leaves=8,
)


@given(st.lists(TREES, max_size=24))
def test_whatever_the_values_are_each_is_as_it_was_or_lost(trees: list[Any]) -> None:
    values, failures = salvage(pickle.dumps([planted(tree) for tree in trees], 5), [])

    lost = {place for place, _ in failures}
    assert lost == {place for place, tree in enumerate(trees) if has_broken(tree)}
    assert values == [None if place in lost else tree for place, tree in enumerate(trees)]


def planted(tree: Any) -> Any:
    """Return a tree with an instance wherever the class stands, which compares well."""
    match tree:
        case type():
            return tree()
        case Point(x, y):
            return Point(planted(x), planted(y))
        case Frozen(x):
            return Frozen(planted(x))
        case deque() | list() | tuple():
            return type(tree)(map(planted, tree))
        case dict():
            return {key: planted(value) for key, value in tree.items()}
    return tree


def has_broken(tree: Any) -> bool:
    match tree:
        case type():
            return True
        case Point(x, y):
            return has_broken(x) or has_broken(y)
        case Frozen(x):
            return has_broken(x)
        case deque() | list() | tuple():
            return any(map(has_broken, tree))
        case dict():
            return any(map(has_broken, tree.values()))
    return False
