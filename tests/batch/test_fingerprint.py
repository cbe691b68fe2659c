from __future__ import annotations

import enum
import math
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickwork.batch.fingerprint import fingerprint, fingerprints
from tickwork.errors import InvalidPayload


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Size(enum.IntEnum):
    SMALL = 1


class Mode(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()


class Point(NamedTuple):
    x: int
    y: int


class Place(NamedTuple):
    x: int
    y: int


@dataclass
class Order:
    number: int
    lines: list[str]
    seen: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class Slotted:
    number: int


class Model(pydantic.BaseModel, extra="allow"):
    number: int
    tags: set[str] = set()


class Struct(msgspec.Struct):
    number: int
    tags: set[str]


class Shout(str):
    __slots__ = ()


ALL: list[Any] = [
    None,
    False,
    True,
    0,
    1,
    -1,
    2**64,
    10**5_000,
    0.0,
    -0.0,
    1.0,
    1.5,
    math.nan,
    math.inf,
    1j,
    "",
    "1",
    "s1",
    "\udcff",
    "\u00e9",
    "e\u0301",
    b"",
    b"1",
    bytearray(b"1"),
    Decimal("1.0"),
    Decimal("1.00"),
    UUID(int=1),
    date(2026, 1, 1),
    datetime(2026, 1, 1),  # noqa: DTZ001
    datetime(2026, 1, 1, tzinfo=UTC),
    datetime(2026, 1, 1, tzinfo=ZoneInfo("Africa/Abidjan")),
    datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1))),
    time(1, 2),
    time(1, 2, tzinfo=UTC),
    timedelta(seconds=1),
    timedelta(days=1),
    Path("a"),
    Path("a/b"),
    Colour.RED,
    Colour.BLUE,
    Size.SMALL,
    Mode.READ,
    Mode.READ | Mode.WRITE,
    Mode(0),
    (),
    [],
    {},
    set(),
    frozenset(),
    (1,),
    [1],
    [[1], []],
    [[], [1]],
    ["ab", "c"],
    ["a", "bc"],
    ("a", ("b",)),
    (("a",), "b"),
    {1},
    frozenset({1}),
    {"a": 1},
    {"a": "1"},
    {"a": 1, "b": 2},
    {"b": 1, "a": 2},
    {1: "a"},
    Point(1, 2),
    Place(1, 2),
    (1, 2),
    Order(1, ["a"]),
    Order(1, ["b"]),
    Slotted(1),
    Model(number=1),
    Model(number=1, tags={"a"}),
    Model(number=1, more="b"),  # type: ignore[call-arg]
    Struct(1, set()),
    Struct(1, {"a", "b"}),
    Shout("1"),
]


def test_different_items_have_different_fingerprints() -> None:
    found: dict[bytes, Any] = {}
    for item in ALL:
        key = fingerprint(item)
        assert key not in found, (item, found[key])
        found[key] = item
    assert {len(key) for key in found} == {16}


PROGRAM = f"""
from {__name__} import ALL, fingerprint
print(*(fingerprint(item).hex() for item in ALL))
"""


def test_equal_items_have_equal_fingerprints_in_every_process() -> None:
    for seed in ("1", "2"):
        printed = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        assert printed.split() == [fingerprint(item).hex() for item in ALL]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({"z", "a", "m"}, {"m", "z", "a"}),
        (Order(1, ["a"], seen=1.0), Order(1, ["a"], seen=2.0)),
        (math.nan, -math.nan),
        (Path("a/b"), PurePosixPath("a//b/")),
        (Model(number=1, z=1, a=2), Model(number=1, a=2, z=1)),  # type: ignore[call-arg]
    ],
)
def test_what_has_no_order_has_none(one: object, other: object) -> None:
    assert fingerprint(one) == fingerprint(other)


def test_they_are_the_same_for_ever() -> None:
    """A checkpoint outlives the version of tickwork that wrote it."""
    whole = repr([fingerprint(item).hex() for item in ALL if not isinstance(item, Path)])
    assert fingerprint(whole).hex() == "2db8047451bb68ae6747b3b3e6a7129f"
    assert fingerprint("a").hex() == "d6b69ff861835570f257e5bf6ad25124"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.decimals() | st.datetimes(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=4)
    ),
    max_leaves=10,
)


@given(values, values)
def test_fingerprints_are_equal_exactly_where_items_are(one: Any, other: Any) -> None:
    assert (fingerprint(one) == fingerprint(other)) == (exact(one) == exact(other))


def exact(value: Any) -> Any:
    """A form in which equal means of the same type, too."""
    if isinstance(value, dict):
        return dict, sorted(((exact(key), exact(held)) for key, held in value.items()), key=repr)
    if isinstance(value, list | tuple):
        return type(value), [exact(held) for held in value]
    if isinstance(value, float):
        return float, "nan" if value != value else value.hex()
    return type(value), value.as_tuple() if isinstance(value, Decimal) else value


class Connection:
    pass


class Broken(NamedTuple):
    held: Any


@dataclass
class Raises:
    number: int

    def __getattribute__(self, name: str) -> Any:
        if name == "number":
            raise OSError("not today")
        return object.__getattribute__(self, name)


REMEDY = (
    "a checkpoint cannot tell one {} from another; pass plain values, a dataclass, NamedTuple or Enum, or an id that "
    "the function looks up, or leave out checkpoint="
)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (Connection(), "item: " + REMEDY.format("Connection")),
        (Connection, "item: " + REMEDY.format("type")),
        (Order, "item: " + REMEDY.format("type")),
        (len, "item: " + REMEDY.format("builtin_function_or_method")),
        ([1, {"a": Connection()}], "item[1]['a']: " + REMEDY.format("Connection")),
        (Order(1, [Connection()]), "item.lines[0]: " + REMEDY.format("Connection")),  # type: ignore[list-item]
        (Broken(Connection()), "item.held: " + REMEDY.format("Connection")),
        (iter([]), "item: " + REMEDY.format("list_iterator")),
        (Raises(1), "item: OSError: not today"),
    ],
)
def test_what_cannot_be_told_apart_is_refused_with_its_place(item: object, message: str) -> None:
    for _ in range(2):
        with pytest.raises(InvalidPayload) as refused:
            fingerprint(item)
        assert str(refused.value) == message


def test_what_holds_itself_is_refused() -> None:
    ring: list[Any] = []
    ring.append(ring)
    with pytest.raises(
        InvalidPayload, match="nested deeper than 100 levels, or holding itself; pass an id or a flat list$"
    ):
        fingerprint(ring)
    deep: Any = 1
    for _ in range(99):
        deep = [deep]
    assert len(fingerprint(deep)) == 16


def test_many_are_taken_at_once_and_the_refused_one_is_named() -> None:
    assert fingerprints([1, "a", None], 5) == [fingerprint(1), fingerprint("a"), fingerprint(None)]
    with pytest.raises(InvalidPayload) as refused:
        fingerprints([1, [Connection()], 2], 5)
    assert str(refused.value) == "item 6[0]: " + REMEDY.format("Connection")


def test_a_class_is_known_by_its_name_and_not_by_its_module() -> None:
    def made_elsewhere() -> type:
        @dataclass
        class Slotted:
            number: int

        return Slotted

    assert fingerprint(made_elsewhere()(1)) == fingerprint(Slotted(1))
