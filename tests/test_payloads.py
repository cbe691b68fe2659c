"""Arguments and results come back as they went in, or are refused with a message that names the argument."""

from __future__ import annotations

import dataclasses
import enum
import functools
import io
import json
import os
import struct
import sys
import typing
from collections import abc
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, NamedTuple, NewType, TypedDict, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
import typing_extensions
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, field_serializer

from tickwork.errors import InvalidPayload
from tickwork.payloads import Codec, ErrorInfo, describe_exception

if TYPE_CHECKING:
    from collections.abc import Callable

    from shop import Missing  # type: ignore[import-not-found]

T = TypeVar("T")
UTC = timezone.utc  # noqa: UP017 - the tests compare it with what comes back
ID = UUID("12345678-1234-5678-1234-567812345678")


CARRY = "make it a dataclass, NamedTuple, TypedDict or Enum, or pass an id and load it in the task"
HINT = "by itself; annotate it with a dataclass, NamedTuple, TypedDict or Enum that is known at run time, or pass an id"
UNWRITABLE = "pass it as bytes or as another text"


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Shape(enum.Enum):
    POINT = (0, 0)
    LINE = (0, 1)


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Word(enum.StrEnum):
    YES = "yes"


@dataclasses.dataclass
class Line:
    sku: str
    count: int = 1


@dataclasses.dataclass(frozen=True)
class Order:
    id: UUID
    at: datetime
    lines: list[Line]
    color: Color = Color.RED
    total: int = dataclasses.field(init=False, default=0, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "total", sum(line.count for line in self.lines))


@dataclasses.dataclass
class Special(Line):
    extra: int = 0


@dataclasses.dataclass
class Tree:
    value: int
    children: list[Tree] = dataclasses.field(default_factory=list)
    parent: Tree | None = None


@dataclasses.dataclass
class Box(Generic[T]):
    content: T


class LoopDict(TypedDict):
    loop: Loop


@dataclasses.dataclass
class Loop:
    by_tuple: tuple[Loop] | None = None
    by_set: tuple[Loop, ...] | None = None
    by_name: dict[str, Loop] | None = None
    by_level: dict[Level, Loop] | None = None
    by_dict: LoopDict | None = None


@dataclasses.dataclass
class Picky:
    age: int

    def __post_init__(self) -> None:
        if self.age < 0:
            raise ValueError("an age is not negative")


class Point(NamedTuple):
    x: int
    y: int = 0


class Movie(TypedDict):
    title: str
    year: typing.NotRequired[int]


class Draft(TypedDict, total=False):
    title: typing.Required[str]
    tags: list[str]
    year: Annotated[typing.NotRequired[int], "AD"]


class UserId(str):
    __slots__ = ()


class PathLike(os.PathLike[str]):
    def __fspath__(self) -> str:
        return "a"


class Session:
    """What JSON cannot carry."""


class Customer(BaseModel):
    name: str
    born: date = Field(alias="dateOfBirth")


class Weight(BaseModel):
    kg: float

    @field_serializer("kg")
    def dump_kg(self, kg: float) -> float:
        if kg < 0:
            raise ValueError("no weight is negative")
        return kg


Count = NewType("Count", int)


def codec(hint: Any, *, result: Any = None) -> Codec:
    """A codec for one parameter `value` with that hint."""

    def function(value): ...  # type: ignore[no-untyped-def]

    function.__annotations__ = {"value": hint, "return": result}
    return Codec(function, name="shop.run")


def unhinted() -> Codec:
    def function(value): ...  # type: ignore[no-untyped-def]

    return Codec(function, name="shop.run")


def travel(codec: Codec, value: Any) -> Any:
    text = codec.encode((value,))
    text.encode()  # any store can write it
    args, kwargs = codec.decode(text)
    assert kwargs == {}
    return args[0]


def text_of(codec: Codec, value: Any) -> Any:
    return json.loads(codec.encode((value,)))["value"]


def is_same(left: Any, right: Any) -> bool:
    """Equal, and of equal types all the way down; nan is the same as nan."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float) and left != left:
        return bool(right != right)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(is_same, left, right))
    if isinstance(left, dict):
        return len(left) == len(right) and all(
            any(is_same(key, other) and is_same(left[key], right[other]) for other in right) for key in left
        )
    if isinstance(left, (set, frozenset)):
        return len(left) == len(right) and all(any(is_same(one, other) for other in right) for one in left)
    if dataclasses.is_dataclass(left):
        names = [field.name for field in dataclasses.fields(left)]
        return all(is_same(getattr(left, name), getattr(right, name)) for name in names)
    if isinstance(left, Decimal) and left.is_nan():
        return str(left) == str(right)
    if isinstance(left, (datetime, time)):
        return bool(left == right and str(left.tzinfo) == str(right.tzinfo))
    return bool(left == right)


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(InvalidPayload) as caught:
        call()
    return str(caught.value)


# What the text looks like.


def test_arguments_are_stored_by_name_as_compact_json() -> None:
    def charge(order: int, /, day: date, *notes: str, fast: bool = False, **labels: int) -> None: ...

    codec = Codec(charge, name="shop.charge")

    text = codec.encode((7, date(2026, 5, 1), "a", "b"), {"fast": True, "x": 1})

    assert text == '{"order":7,"day":"2026-05-01","*":["a","b"],"fast":true,"**":{"x":1}}'
    assert codec.decode(text) == ((7, date(2026, 5, 1), "a", "b"), {"fast": True, "x": 1})


def test_defaults_that_were_not_passed_stay_out() -> None:
    def charge(order: int, note: str = "none") -> None: ...

    codec = Codec(charge, name="shop.charge")

    assert codec.encode((7,)) == '{"order":7}'
    assert codec.decode('{"order":7}') == ((7,), {})


TEXTS: list[tuple[Any, Any, Any]] = [
    (datetime, datetime(2026, 5, 1, 9), "2026-05-01T09:00:00"),  # noqa: DTZ001 - naive ones travel too
    (datetime, datetime(2026, 5, 1, 9, tzinfo=UTC), "2026-05-01T09:00:00+00:00"),
    (
        datetime,
        datetime(2026, 5, 1, 9, tzinfo=ZoneInfo("Asia/Seoul")),
        "2026-05-01T09:00:00+09:00[Asia/Seoul]",
    ),
    (time, time(9, 30), "09:30:00"),
    (time, time(9, 30, tzinfo=ZoneInfo("Asia/Seoul")), "09:30:00[Asia/Seoul]"),
    (timedelta, timedelta(days=1, seconds=2.5), "P1DT2.500000S"),
    (timedelta, timedelta(seconds=-1), "P-1DT86399.000000S"),
    (float, float("inf"), "inf"),
    (float, 1, 1),
    (Decimal, Decimal("1.10"), "1.10"),
    (UUID, ID, str(ID)),
    (bytes, b"\x00\xff", "AP8="),
    (ZoneInfo, ZoneInfo("Asia/Seoul"), "Asia/Seoul"),
    (Path, Path("a"), "a"),
    (Color, Color.RED, "red"),
    (Level, Level.HIGH, 2),
    (Shape, Shape.LINE, "LINE"),
    (Access, Access.READ | Access.WRITE, 3),
    (Literal["a", 1, None], 1, 1),
    (set[int], {3, 1, 2}, [1, 2, 3]),
    (frozenset[int | str], frozenset({"a", 1}), ["a", 1]),
    (tuple[int, str], (1, "a"), [1, "a"]),
    (tuple[int, ...], (1, 2), [1, 2]),
    (tuple[()], (), []),
    (dict[int, str], {5: "a", -6: "b"}, {"5": "a", "-6": "b"}),
    (dict[UUID, int], {ID: 1}, {str(ID): 1}),
    (dict[Color, date], {Color.RED: date(2026, 5, 1)}, {"red": "2026-05-01"}),
    (dict[Level, int], {Level.LOW: 1}, {"1": 1}),
    (dict[tuple[int, int], str], {(1, 2): "a"}, {"[1,2]": "a"}),
    (dict[int | str, int], {1: 2, "1": 3}, {"1": 2, '"1"': 3}),
    (dict[bool, str], {True: "a"}, {"true": "a"}),
    (dict[Any, Any], {1: 2, "1": 3}, {"1": 2, '"1"': 3}),
    (dict, {"a": 1}, {"a": 1}),
    (Line, Line("a", 2), {"sku": "a", "count": 2}),
    (Point, Point(1, 2), {"x": 1, "y": 2}),
    (Movie, Movie(title="Solaris"), {"title": "Solaris"}),
    (Draft, Draft(title="a", tags=["b"]), {"title": "a", "tags": ["b"]}),
    (typing.Final[int], 1, 1),
    (Literal[1, 10**700], 10**700, 10**700),
    (list, [(1,)], [{"$": "tuple", "v": [1]}]),
    (TypeVar("LateBound", bound="Line"), Line("a"), {"sku": "a", "count": 1}),
    (Box[date], Box(date(2026, 5, 1)), {"content": {"$": "date", "v": "2026-05-01"}}),
    (Annotated[Count, "positive"], 5, 5),
    (
        Customer,
        Customer(name="Ada", dateOfBirth=date(1815, 12, 10)),
        {"name": "Ada", "dateOfBirth": "1815-12-10"},
    ),
    # Unions: what JSON has itself travels bare.
    (date | None, date(2026, 5, 1), "2026-05-01"),
    (date | None, None, None),
    (str | date, "2026-05-01", "2026-05-01"),
    (str | date, date(2026, 5, 1), {"$": "date", "v": "2026-05-01"}),
    (date | datetime, date(2026, 5, 1), {"$": "date", "v": "2026-05-01"}),
    (date | datetime, datetime(2026, 5, 1, tzinfo=UTC), {"$": "datetime", "v": "2026-05-01T00:00:00+00:00"}),
    (int | date, date(2026, 5, 1), {"$": "date", "v": "2026-05-01"}),
    (str | date, Word.YES, "yes"),
    (Literal["a"] | str, "a", "a"),
    (Literal["a"] | str, "b", "b"),
    (int | float | bool, True, True),
    (int | str, 10**700, 10**700),
    (float | str, float("inf"), {"$": "float", "v": "inf"}),
    (Line | Special, Line("a"), {"$": "Line", "v": {"sku": "a", "count": 1}}),
    (Line | Special, Special("a"), {"$": "Special", "v": {"sku": "a", "count": 1, "extra": 0}}),
    (list[int] | set[int], {1}, {"$": "set[int]", "v": [1]}),
    (dict[str, int] | date, {"$": 1}, {"$": "dict[str, int]", "v": {"$": 1}}),
    (dict[str, int] | None, {"$": 1}, {"$": 1}),
    (abc.Sequence[int], [1], {"$": "list[int]", "v": [1]}),
    (abc.Sequence[int], (1,), {"$": "tuple[int, ...]", "v": [1]}),
    (abc.Mapping[str, int], {"a": 1}, {"a": 1}),
    (abc.Set[int], frozenset({1}), {"$": "frozenset[int]", "v": [1]}),
    (abc.Iterable[int], {1}, {"$": "set[int]", "v": [1]}),
    (Any, datetime(2026, 5, 1, tzinfo=UTC), {"$": "datetime", "v": "2026-05-01T00:00:00+00:00"}),
]


@pytest.mark.parametrize(("hint", "value", "text"), TEXTS)
def test_a_hint_decides_what_the_text_looks_like(hint: Any, value: Any, text: Any) -> None:
    assert text_of(codec(hint), value) == text
    assert travel(codec(hint), value) == value
    assert isinstance(value, Word) or is_same(travel(codec(hint), value), value)


WITHOUT_HINT: list[tuple[Any, Any]] = [
    ({"a": [1, 2.5, None, True, "x"]}, {"a": [1, 2.5, None, True, "x"]}),
    ((1, 2), {"$": "tuple", "v": [1, 2]}),
    ({1, 2}, {"$": "set", "v": [1, 2]}),
    (frozenset({1, "a"}), {"$": "frozenset", "v": ["a", 1]}),
    (date(2026, 5, 1), {"$": "date", "v": "2026-05-01"}),
    (time(9, 30), {"$": "time", "v": "09:30:00"}),
    (timedelta(1), {"$": "timedelta", "v": "P1DT0.000000S"}),
    (ID, {"$": "UUID", "v": str(ID)}),
    (Decimal("1.5"), {"$": "Decimal", "v": "1.5"}),
    (Path("a"), {"$": "Path", "v": "a"}),
    (b"x", {"$": "bytes", "v": "eA=="}),
    (ZoneInfo("Asia/Seoul"), {"$": "ZoneInfo", "v": "Asia/Seoul"}),
    ({"$": "date", "v": "x"}, {"$": "dict", "v": {'"$"': "date", '"v"': "x"}}),
    ({1: "a"}, {"$": "dict", "v": {"1": "a"}}),
    (float("nan"), {"$": "float", "v": "nan"}),
]


@pytest.mark.parametrize(("value", "text"), WITHOUT_HINT)
def test_without_a_hint_a_well_known_type_carries_a_tag(value: Any, text: Any) -> None:
    assert text_of(unhinted(), value) == text
    assert is_same(travel(unhinted(), value), value)


def test_a_dict_with_the_tag_key_comes_back_beside_real_tags() -> None:
    value = {"$": {"$": date(2026, 5, 1)}, "v": [{"$": "dict"}]}

    assert travel(unhinted(), value) == value


# Objects.


def test_nested_dataclasses_come_back_with_what_they_compute() -> None:
    order = Order(ID, datetime(2026, 5, 1, tzinfo=UTC), [Line("a", 2), Line("b")])

    back = travel(codec(Order), order)

    assert back == order
    assert back.total == 3


def test_a_dataclass_may_contain_itself() -> None:
    tree = Tree(1, [Tree(2), Tree(3, [Tree(4)])], Tree(0))

    assert travel(codec(Tree), tree) == tree


def test_a_field_with_a_default_may_be_missing_in_an_older_payload() -> None:
    assert codec(Line).decode('{"value":{"sku":"a"}}') == ((Line("a", 1),), {})


def test_a_generic_class_without_arguments_takes_any_content() -> None:
    assert is_same(travel(codec(Box), Box((1, 2))), Box((1, 2)))


def test_a_typevar_takes_its_constraints_or_its_bound() -> None:
    constrained = TypeVar("constrained", int, str)
    bound = TypeVar("bound", bound=date)

    assert travel(codec(constrained), "a") == "a"
    assert travel(codec(bound), date(2026, 5, 1)) == date(2026, 5, 1)
    assert is_same(travel(codec(T), (1,)), (1,))


def test_a_type_alias_may_contain_itself() -> None:
    make: Any = typing_extensions.TypeAliasType
    Json = make("Json", "dict[str, Json] | list[Json] | int | None")
    run = codec(Json)
    run._fn.__globals__["Json"] = Json
    value: Any = {"a": [1, None, {"b": []}]}

    assert travel(run, value) == value


def test_a_pydantic_model_travels_by_its_own_rules() -> None:
    ada = Customer(name="Ada", dateOfBirth=date(1815, 12, 10))

    assert travel(codec(list[Customer]), [ada]) == [ada]
    assert refusal(lambda: codec(Customer).decode('{"value":{"name":"Ada"}}')).startswith(
        "shop.run(value): ValidationError: 1 validation error for Customer dateOfBirth Field required"
    )


# Times and zones.


@pytest.mark.parametrize("fold", [0, 1])
def test_a_repeated_hour_comes_back_in_its_own_pass(fold: int) -> None:
    moment = datetime(2026, 11, 1, 1, 30, tzinfo=ZoneInfo("America/New_York"), fold=fold)

    back = travel(codec(datetime), moment)

    assert back.fold == fold
    assert back.utcoffset() == moment.utcoffset()


def test_a_wall_time_in_a_gap_is_kept() -> None:
    moment = datetime(2026, 3, 8, 2, 30, tzinfo=ZoneInfo("America/New_York"))

    assert travel(codec(datetime), moment) == moment


def test_the_instant_counts_when_a_zone_has_changed_its_rules() -> None:
    text = '{"value":"2026-05-01T09:00:00+08:00[Asia/Seoul]"}'

    (moment,), _ = codec(datetime).decode(text)

    assert moment == datetime(2026, 5, 1, 10, tzinfo=ZoneInfo("Asia/Seoul"))


# Hints.


def wait_for(value: Later) -> None: ...


EARLY = Codec(wait_for, name="shop.run")


@dataclasses.dataclass
class Later:
    day: date


def test_a_hint_may_name_a_class_that_is_defined_later() -> None:
    assert travel(EARLY, Later(date.min)) == Later(date.min)


def test_a_class_inside_a_function_may_contain_itself() -> None:
    @dataclasses.dataclass
    class Local:
        day: date
        next: Local | None = None

    assert travel(codec(Local), Local(date.min, Local(date.max))) == Local(date.min, Local(date.max))


def test_a_hint_may_name_what_the_enclosing_function_holds() -> None:
    @dataclasses.dataclass
    class Local:
        day: date

    def run(value: Local) -> type:
        return Local

    assert travel(Codec(run, name="shop.run"), Local(date.min)) == Local(date.min)


def test_a_hint_that_cannot_be_resolved_takes_what_travels_without_one() -> None:
    def run(value: Missing) -> None: ...

    codec = Codec(run, name="shop.run")

    assert codec.signature == "(value: Missing)"
    assert travel(codec, {"a": [1, date.min]}) == {"a": [1, date.min]}
    assert (
        refusal(lambda: codec.encode((Line("a"),))) == f"shop.run(value): JSON cannot carry a value of type Line {HINT}"
    )


def test_one_field_that_cannot_be_resolved_leaves_the_others_typed() -> None:
    @dataclasses.dataclass
    class Half:
        day: date
        odd: Missing

    assert travel(codec(Half), Half(date.min, 5)) == Half(date.min, 5)


def test_a_default_of_none_makes_none_acceptable() -> None:
    def run(value: int = None) -> None: ...  # type: ignore[assignment]  # noqa: RUF013

    assert travel(Codec(run, name="shop.run"), None) is None


def test_an_injected_first_parameter_stays_out() -> None:
    def run(ctx: Session, /, value: int) -> None: ...

    codec = Codec(run, name="shop.run", skip_first=True)

    assert codec.encode((5,)) == '{"value":5}'
    assert codec.decode('{"value":5}') == ((5,), {})
    assert codec.signature == "(value: int)"


def test_methods_partials_and_callable_objects_are_read_like_functions() -> None:
    class Shop:
        def charge(self, day: date) -> None: ...

        def __call__(self, day: date) -> None: ...

    def charge(rate: int, day: date) -> None: ...

    for function in (Shop().charge, Shop(), functools.partial(charge, 5), functools.partial(charge, rate=5)):
        codec = Codec(function, name="shop.run")
        day = date(2026, 5, 1)
        assert codec.decode(codec.encode((), {"day": day})) in (((day,), {}), ((), {"day": day}))


def test_a_class_is_read_by_its_constructor() -> None:
    class Report:
        def __init__(self, day: date) -> None: ...

    codec = Codec(Report, name="shop.Report")

    assert repr(codec) == "<Codec shop.Report>"
    assert codec.decode(codec.encode((date.min,))) == ((date.min,), {})


def test_a_name_that_the_enclosing_function_has_not_assigned_yet_is_passed_over() -> None:
    def run(value: int) -> object:
        return later

    codec = Codec(run, name="shop.run")

    assert travel(codec, 5) == 5
    later = object()


def test_a_function_without_a_signature_takes_whatever_json_can_carry() -> None:
    codec = Codec(max, name="shop.max")

    assert codec.decode(codec.encode((1, 2), {"key": None})) == ((1, 2), {"key": None})


# A signature that has changed since.


def charge_today(order: int, new: str = "n", *notes: str, rate: float = 1.0) -> None: ...


TODAY = Codec(charge_today, name="shop.charge")


def test_a_new_parameter_with_a_default_is_no_misfit() -> None:
    assert TODAY.decode('{"order":7}') == ((7,), {})


def test_a_gap_before_further_positional_arguments_is_filled_with_the_default() -> None:
    assert TODAY.decode('{"order":7,"*":["a"]}') == ((7, "n", "a"), {"rate": 1.0})


def test_what_follows_a_gap_is_passed_by_keyword() -> None:
    def run(a: int = 1, b: int = 2) -> None: ...

    assert Codec(run, name="shop.run").decode('{"b":5}') == ((), {"b": 5})


def test_a_positional_only_gap_is_filled_with_the_default() -> None:
    def run(a: int = 1, b: int = 2, /) -> None: ...

    assert Codec(run, name="shop.run").decode('{"b":5}') == ((1, 5), {})


def test_a_keyword_that_became_a_parameter_and_the_other_way_round_still_fit() -> None:
    def run(a: int, **rest: int) -> None: ...

    codec = Codec(run, name="shop.run")

    assert codec.decode('{"**":{"a":1,"b":2}}') == ((1,), {"b": 2})
    assert codec.decode('{"a":1,"b":2}') == ((1,), {"b": 2})


def test_a_keyword_named_like_a_positional_only_parameter_stays_apart() -> None:
    def run(a: int, /, **rest: int) -> None: ...

    codec = Codec(run, name="shop.run")

    assert codec.decode(codec.encode((1,), {"a": 2})) == ((1,), {"a": 2})


DECODE_REFUSALS = [
    ("[", "shop.charge: expected JSON text, got none: Expecting value: line 1 column 2 (char 1)"),
    ("NaN", "shop.charge: expected JSON text, got none: NaN is no JSON"),
    (
        "[" * 100_000,
        "shop.charge: nested deeper than 100 levels, or holding itself; pass an id or a flat list",
    ),
    ("[]", "shop.charge: expected a JSON object, got list"),
    (
        "{}",
        (
            "shop.charge(order): is missing in the payload; the signature is"
            " (order: int, new: str = 'n', *notes: str, rate: float = 1.0)"
        ),
    ),
    (
        '{"order":1,"old":2}',
        (
            "shop.charge(old): is in the payload, but not in the signature"
            " (order: int, new: str = 'n', *notes: str, rate: float = 1.0)"
        ),
    ),
    (
        '{"order":1,"**":{"old":2}}',
        (
            "shop.charge(old): is in the payload, but not in the signature"
            " (order: int, new: str = 'n', *notes: str, rate: float = 1.0)"
        ),
    ),
    ('{"order":"5"}', "shop.charge(order): expected int, got str '5'"),
    ('{"order":1,"*":[1]}', "shop.charge(*[0]): expected str, got int 1"),
    ('{"order":1,"*":5}', "shop.charge(*): expected tuple[str, ...], got int 5"),
    ('{"order":1,"**":5}', "shop.charge: expected an object under '**', got int 5"),
    (
        '{"order":1,"**":{"order":2}}',
        (
            "shop.charge(order): is in the payload, but not in the signature"
            " (order: int, new: str = 'n', *notes: str, rate: float = 1.0)"
        ),
    ),
    ('{"order":1,"rate":"fast"}', "shop.charge(rate): expected float, got str 'fast'"),
]


@pytest.mark.parametrize(("text", "message"), DECODE_REFUSALS)
def test_a_payload_that_does_not_fit_the_signature_is_refused(text: str, message: str) -> None:
    assert refusal(lambda: TODAY.decode(text)) == message


def test_further_positional_arguments_that_nobody_takes_any_more_are_refused() -> None:
    assert refusal(lambda: codec(int).decode('{"value":1,"*":[1]}')) == (
        "shop.run(*): is in the payload, but not in the signature (value: int)"
    )


def test_a_missing_keyword_only_argument_is_refused() -> None:
    def run(*, value: int) -> None: ...

    assert refusal(lambda: Codec(run, name="shop.run").decode("{}")) == (
        "shop.run(value): is missing in the payload; the signature is (*, value: int)"
    )


VALUE_REFUSALS: list[tuple[Any, Any, str]] = [
    (date, "2026-13-01", "shop.run(value): expected date, got str '2026-13-01'"),
    (date, 5, "shop.run(value): expected date, got int 5"),
    (date, "2026-05-01[No/Where]", "shop.run(value): expected date, got str '2026-05-01[No/Where]'"),
    (datetime, "2026-05-01[No/Where]", "shop.run(value): expected datetime, got str '2026-05-01[No/Where]'"),
    (time, "09:00[No/Where]", "shop.run(value): expected time, got str '09:00[No/Where]'"),
    (timedelta, "1s", "shop.run(value): expected timedelta, got str '1s'"),
    (timedelta, "5", "shop.run(value): expected timedelta, got str '5'"),
    (Decimal, "one", "shop.run(value): expected Decimal, got str 'one'"),
    (bytes, "a", "shop.run(value): expected bytes, got str 'a'"),
    (Color, "green", "shop.run(value): expected Color ('red', 'blue'), got str 'green'"),
    (Color, [], "shop.run(value): expected Color ('red', 'blue'), got list"),
    (Access, 64, "shop.run(value): expected Access (1, 2), got int 64"),
    (Literal["a"], "b", "shop.run(value): expected Literal['a'], got str 'b'"),
    (Literal["a"], {}, "shop.run(value): expected Literal['a'], got dict"),
    (list[int], {}, "shop.run(value): expected list[int], got dict"),
    (list[int], [1, "a"], "shop.run(value[1]): expected int, got str 'a'"),
    (set[Any], [[]], "shop.run(value): TypeError: unhashable type: 'list'"),
    (tuple[int, str], [1], "shop.run(value): expected tuple[int, str], got 1 items"),
    (tuple[int, str], [1, 2], "shop.run(value[1]): expected str, got int 2"),
    (tuple[int, str], 1, "shop.run(value): expected tuple[int, str], got int 1"),
    (dict[str, int], [], "shop.run(value): expected dict[str, int], got list"),
    (
        dict[int, int],
        {"a": 1},
        "shop.run(value['a']): expected JSON text, got none: Expecting value: line 1 column 1 (char 0)",
    ),
    (dict[Level, int], [], "shop.run(value): expected dict[Level, int], got list"),
    (dict[Level, int], {"5": 1}, "shop.run(value['5']): expected Level (1, 2), got int 5"),
    (dict, [], "shop.run(value): expected dict[str, Any], got list"),
    (Line, [], "shop.run(value): expected Line, got list"),
    (Line, {}, "shop.run(value): Line needs 'sku'"),
    (Line, {"sku": "a", "size": 1}, "shop.run(value): Line has no field 'size'"),
    (Line, {"sku": "a", "count": "b"}, "shop.run(value.count): expected int, got str 'b'"),
    (Movie, {"title": 1}, "shop.run(value['title']): expected str, got int 1"),
    (Picky, {"age": -1}, "shop.run(value): ValueError: an age is not negative"),
    (Session, 1, f"shop.run(value): JSON cannot carry its hint Session; {CARRY}"),
    (None, 1, "shop.run(value): expected None, got int 1"),
    (str | date, 1, "shop.run(value): expected str | date, got int 1"),
    (int | date, "x", "shop.run(value): expected int | date, got str 'x'"),
    (int | str, [], "shop.run(value): expected int | str, got list"),
    (Literal["a"] | Literal[1] | None, "b", "shop.run(value): expected Literal['a'] | Literal[1], got str 'b'"),
    (str | date, {"$": "time", "v": 1}, "shop.run(value): expected str | date, got the tag 'time'"),
    (Any, {"$": "nonsense", "v": 1}, "shop.run(value): expected Any, got the tag 'nonsense'"),
    (Any, {"$": 1}, "shop.run(value): expected Any, got the tag 1"),
    (Any, {"$": "set", "v": 1}, "shop.run(value): expected set[Any], got int 1"),
    (Any, {"$": "set", "v": [[]]}, "shop.run(value): TypeError: unhashable type: 'list'"),
    (Any, {"$": "dict", "v": 1}, "shop.run(value): expected dict[Any, Any], got int 1"),
    (Any, {"a": {"$": "date", "v": "z"}}, "shop.run(value['a']): expected date, got str 'z'"),
]


@pytest.mark.parametrize(("hint", "data", "message"), VALUE_REFUSALS)
def test_stored_data_that_does_not_fit_the_hint_is_refused(hint: Any, data: Any, message: str) -> None:
    assert refusal(lambda: codec(hint).decode(json.dumps({"value": data}))) == message


# Refused at enqueue.

ENQUEUE_REFUSALS: list[tuple[Any, Any, str]] = [
    (int, "5", "shop.run(value): expected int, got str '5'"),
    (int, 5.0, "shop.run(value): expected int, got float 5.0"),
    (int, None, "shop.run(value): expected int, got None"),
    (int | None, "5", "shop.run(value): expected int, got str '5'"),
    (list[int] | None, ["5"], "shop.run(value[0]): expected int, got str '5'"),
    (int | str, 5.0, "shop.run(value): expected int | str, got float 5.0"),
    (int | list[int], ["5"], "shop.run(value[0]): expected int, got str '5'"),
    (bool, 1, "shop.run(value): expected bool, got int 1"),
    (str, 5, "shop.run(value): expected str, got int 5"),
    (int, "x" * 60, f"shop.run(value): expected int, got str '{'x' * 56}..."),
    (str, 10**700, f"shop.run(value): expected str, got int 1{'0' * 56}..."),
    (float, "1", "shop.run(value): expected float, got str '1'"),
    (datetime, date(2026, 5, 1), "shop.run(value): expected datetime, got date datetime.date(2026, 5, 1)"),
    (Path, "a", "shop.run(value): expected Path, got str 'a'"),
    (list[int], (1,), "shop.run(value): expected list[int], got tuple"),
    (list[list[int]], [[1], [2, "a"]], "shop.run(value[1][1]): expected int, got str 'a'"),
    (tuple[int, str], (1,), "shop.run(value): expected tuple[int, str], got 1 items"),
    (tuple[int, str], [1, ""], "shop.run(value): expected tuple[int, str], got list"),
    (set[int], [1], "shop.run(value): expected set[int], got list"),
    (dict[str, int], [], "shop.run(value): expected dict[str, int], got list"),
    (dict[str, int], {"a": "b"}, "shop.run(value['a']): expected int, got str 'b'"),
    (dict[str, int], {1: 2}, "shop.run(value[1]): expected str, got int 1"),
    (dict[Level, int], [], "shop.run(value): expected dict[Level, int], got list"),
    (dict, [], "shop.run(value): expected dict[str, Any], got list"),
    (Color, "red", "shop.run(value): expected Color, got str 'red'"),
    (Literal["a", "b"], "c", "shop.run(value): expected Literal['a', 'b'], got str 'c'"),
    (Literal["a", "b"], [], "shop.run(value): expected Literal['a', 'b'], got list"),
    (Line, {}, "shop.run(value): expected Line, got dict"),
    (Line, Line("a", "b"), "shop.run(value.count): expected int, got str 'b'"),  # type: ignore[arg-type]
    (
        Line,
        Special("a"),
        "shop.run(value): expected exactly Line, got Special",
    ),
    (Movie, {"year": 1}, "shop.run(value): Movie needs 'title'"),
    (Movie, {"title": "a", "day": 1}, "shop.run(value): Movie has no field 'day'"),
    (Movie, {"title": 1}, "shop.run(value['title']): expected str, got int 1"),
    (Movie, [], "shop.run(value): expected Movie, got list"),
    (Customer, {}, "shop.run(value): expected Customer, got dict"),
    (
        Weight,
        Weight(kg=-1),
        (
            "shop.run(value): PydanticSerializationError: Error calling function `dump_kg`:"
            " ValueError: no weight is negative"
        ),
    ),
    (
        Weight,
        Weight(kg=float("nan")),
        f"shop.run(value): JSON cannot write it (Out of range float values are not JSON compliant); {UNWRITABLE}",
    ),
    (PathLike, PathLike(), f"shop.run(value): JSON cannot carry its hint PathLike; {CARRY}"),
    (typing.Self, True, f"shop.run(value): JSON cannot carry its hint Self; {CARRY}"),
    (typing.TypeGuard[int], True, f"shop.run(value): JSON cannot carry its hint TypeGuard[int]; {CARRY}"),
    (abc.Sequence[str], "abc", "shop.run(value): expected list[str] | tuple[str, ...], got str 'abc'"),
    (Session, Session(), f"shop.run(value): JSON cannot carry its hint Session; {CARRY}"),
    (Session | None, Session(), f"shop.run(value): JSON cannot carry its hint Session; {CARRY}"),
    (Any, Session(), f"shop.run(value): JSON cannot carry a value of type Session {HINT}"),
    (Any, [1, Order], f"shop.run(value[1]): JSON cannot carry a value of type type {HINT}"),
    (Any, Line("a"), f"shop.run(value): JSON cannot carry a value of type Line {HINT}"),
    (Any, Color.RED, f"shop.run(value): JSON cannot carry a value of type Color {HINT}"),
    (Any, UserId("a"), f"shop.run(value): JSON cannot carry a value of type UserId {HINT}"),
    (Any, {"a": {2: Point(1)}}, f"shop.run(value['a'][2]): JSON cannot carry a value of type Point {HINT}"),
]


@pytest.mark.parametrize(("hint", "value", "message"), ENQUEUE_REFUSALS)
def test_an_argument_that_does_not_fit_its_hint_is_refused_by_name(hint: Any, value: Any, message: str) -> None:
    assert refusal(lambda: codec(hint).encode((value,))) == message


def test_a_datetime_is_no_date() -> None:
    moment = datetime(2026, 5, 1, tzinfo=UTC)

    assert refusal(lambda: codec(date).encode((moment,))) == (
        f"shop.run(value): expected date, got datetime {repr(moment)[:57]}..."
    )


def test_a_hint_that_is_no_data_refuses_every_value() -> None:
    assert refusal(lambda: codec(abc.Callable[[int], int]).encode((len,))) == (
        f"shop.run(value): JSON cannot carry its hint Callable; {CARRY}"
    )


def bound(a: int, /, b: str, *, c: bool = False) -> None: ...


BOUND = Codec(bound, name="shop.run")
SIGNATURE = "the signature is (a: int, /, b: str, *, c: bool = False)"

CALL_REFUSALS: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
    ((1,), {}, f"shop.run: missing a required argument: 'b'; {SIGNATURE}"),
    ((1, "b"), {"b": "c"}, f"shop.run: multiple values for argument 'b'; {SIGNATURE}"),
    ((1, "b"), {"d": 1}, f"shop.run: got an unexpected keyword argument 'd'; {SIGNATURE}"),
    ((1, "b", True), {}, f"shop.run: too many positional arguments; {SIGNATURE}"),
]


@pytest.mark.parametrize(("args", "kwargs", "message"), CALL_REFUSALS)
def test_a_call_that_the_function_would_refuse_is_refused(
    args: tuple[Any, ...], kwargs: dict[str, Any], message: str
) -> None:
    assert refusal(lambda: BOUND.encode(args, kwargs)) == message


def test_an_unsupported_hint_with_a_default_leaves_the_default_usable() -> None:
    def run(value: Session | None = None, other: Session = Session()) -> None: ...  # noqa: B008

    codec = Codec(run, name="shop.run")

    assert codec.decode(codec.encode((None,))) == ((None,), {})


def test_an_initvar_is_refused() -> None:
    @dataclasses.dataclass
    class Account:
        name: str
        secret: dataclasses.InitVar[str]

    assert refusal(lambda: codec(Account).encode((Account("a", "b"),))) == (
        "shop.run(value): JSON cannot carry its hint Account; an InitVar cannot be read back: make it a field"
    )


def test_a_field_without_a_value_is_refused() -> None:
    line = Line("a")
    del line.sku

    assert refusal(lambda: codec(Line).encode((line,))) == (
        "shop.run(value): AttributeError: 'Line' object has no attribute 'sku'"
    )


def test_a_zone_without_a_key_is_refused() -> None:
    one_type = struct.pack(">4s16x6llbb4s", b"TZif", 0, 0, 0, 0, 1, 4, 0, 0, 0, b"UTC")
    zone = ZoneInfo.from_file(io.BytesIO(one_type))

    assert refusal(lambda: codec(ZoneInfo).encode((zone,))) == (
        "shop.run(value): a ZoneInfo without a key cannot travel; make it with ZoneInfo(key)"
    )


# Depth, surrogates, numbers.

DEEP = "nested deeper than 100 levels, or holding itself; pass an id or a flat list"


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def test_a_hundred_levels_travel() -> None:
    assert travel(unhinted(), nested(100)) == nested(100)


def test_more_than_a_hundred_levels_are_refused() -> None:
    assert refusal(lambda: unhinted().encode((nested(101),))) == f"shop.run(value[0][0][0][0]...[0][0]): {DEEP}"


@pytest.mark.parametrize("hint", [Any, list[Any], dict, Any | None, Any | int])
def test_a_container_that_holds_itself_is_refused(hint: Any) -> None:
    loop: Any = {} if hint is dict else []
    if isinstance(loop, dict):
        loop["a"] = loop
    else:
        loop.append(loop)

    assert refusal(lambda: codec(hint).encode((loop,))).endswith(DEEP)


def test_an_object_that_holds_itself_is_refused() -> None:
    tree = Tree(1)
    tree.parent = tree

    assert refusal(lambda: codec(Tree).encode((tree,))) == (
        f"shop.run(value.parent.parent.parent.parent....parent.children): {DEEP}"
    )


@pytest.mark.parametrize("field", ["by_tuple", "by_set", "by_name", "by_level", "by_dict"])
@pytest.mark.parametrize("hint", [Loop, list[Loop]])
def test_every_container_counts_its_depth(field: str, hint: Any) -> None:
    loop = Loop()
    inside = {
        "by_tuple": (loop,),
        "by_set": (loop,),
        "by_name": {"a": loop},
        "by_level": {Level.LOW: loop},
        "by_dict": {"loop": loop},
    }
    setattr(loop, field, inside[field])

    assert refusal(lambda: codec(hint).encode((loop if hint is Loop else [loop],))).endswith(DEEP)


def near_the_end_of_the_stack(call: Callable[[], object]) -> str:
    """What the call is refused with when only some 150 frames are left: JSON needs 100 here, the codec 200."""

    def sink(depth: int) -> str:
        return sink(depth - 1) if depth else refusal(call)

    frame, frames = sys._getframe(), 0
    while frame.f_back is not None:
        frame, frames = frame.f_back, frames + 1
    return sink(sys.getrecursionlimit() - frames - 150)


def test_at_the_end_of_the_stack_there_is_a_refusal_and_no_recursion_error() -> None:
    target = unhinted()
    text = target.encode((nested(100),))
    result = target.encode_result(nested(100))

    assert near_the_end_of_the_stack(lambda: target.encode((nested(100),))).endswith(DEEP)
    assert near_the_end_of_the_stack(lambda: target.decode(text)).endswith(DEEP)
    assert near_the_end_of_the_stack(lambda: target.encode_result(nested(100))).endswith(DEEP)
    assert near_the_end_of_the_stack(lambda: target.decode_result(result)).endswith(DEEP)


@pytest.mark.parametrize("value", ["\udce9", "\ud83d\ude00"])
def test_a_lone_surrogate_is_refused(value: str) -> None:
    def run(first: str, second: str) -> None: ...

    message = refusal(lambda: Codec(run, name="shop.run").encode(("a", value)))

    assert message.startswith("shop.run(second): JSON cannot write it ('utf-8' codec can't encode character")
    assert message.endswith(f"surrogates not allowed); {UNWRITABLE}")


@pytest.mark.parametrize("value", [10**4000, -(10**4000), 2**2000, True], ids=range(4))
@pytest.mark.parametrize("hint", [int, Any, int | str, list[int], float | int])
def test_a_large_int_comes_back(hint: Any, value: Any) -> None:
    given: Any = [value] if hint == list[int] else value

    assert is_same(travel(codec(hint), given), given)


@pytest.mark.parametrize("hint", [int, Any, dict[int, int]])
def test_an_int_of_more_digits_than_python_writes_is_refused(hint: Any) -> None:
    value = {10**5000: 1} if hint == dict[int, int] else 10**5000

    assert "JSON cannot write it (Exceeds the limit (4300 digits)" in refusal(lambda: codec(hint).encode((value,)))


def test_a_bool_given_for_an_int_stays_a_bool() -> None:
    assert travel(codec(int), True) is True
    assert is_same(travel(codec(list[int]), [True, 1]), [True, 1])


def test_a_subclass_of_a_standard_type_comes_back_as_an_equal_standard_value() -> None:
    assert is_same(travel(codec(str), Word.YES), "yes")
    assert is_same(travel(codec(int), Level.HIGH), 2)


def test_equal_sets_have_equal_texts() -> None:
    left, right = {"b", "a", "c"}, {"c", "b", "a"}

    assert codec(set[str]).encode((left,)) == codec(set[str]).encode((right,))


# Results.


def test_a_result_travels_by_the_return_hint() -> None:
    target = codec(int, result=dict[str, date])

    assert target.encode_result({"a": date(2026, 5, 1)}) == '{"a":"2026-05-01"}'
    assert target.decode_result('{"a":"2026-05-01"}') == {"a": date(2026, 5, 1)}


@pytest.mark.parametrize(
    "hint", [date, abc.Coroutine[Any, Any, date], abc.Awaitable[date], typing.Awaitable[date], "date"]
)
def test_a_result_hint_says_what_awaiting_gives(hint: Any) -> None:
    assert codec(int, result=hint).encode_result(date(2026, 5, 1)) == '"2026-05-01"'


@pytest.mark.parametrize("hint", [None, "None"])
def test_a_function_that_returns_nothing_has_null_for_a_result(hint: Any) -> None:
    assert codec(int, result=hint).encode_result(None) == "null"
    assert codec(int, result=hint).decode_result("null") is None


def test_a_result_without_a_hint_travels_like_an_argument_without_one() -> None:
    assert unhinted().decode_result(unhinted().encode_result((1, 2))) == (1, 2)


def test_a_result_that_does_not_fit_is_refused() -> None:
    target = codec(int, result=list[int])

    assert refusal(lambda: target.encode_result(["a"])) == "result of shop.run[0]: expected int, got str 'a'"
    assert refusal(lambda: target.decode_result('["a"]')) == "result of shop.run[0]: expected int, got str 'a'"
    assert refusal(lambda: target.decode_result("")) == (
        "result of shop.run: expected JSON text, got none: Expecting value: line 1 column 1 (char 0)"
    )
    assert refusal(lambda: unhinted().encode_result(nested(101))) == (
        f"result of shop.run[0][0][0][0][0]...[0][0]: {DEEP}"
    )


# Fingerprints.


def test_the_fingerprint_is_the_same_for_equal_signatures() -> None:
    assert codec(dict[str, Order]).fingerprint == codec(dict[str, Order]).fingerprint
    assert codec(Tree).fingerprint == codec(Tree).fingerprint
    assert codec(list[int] | None).fingerprint == "47f3e977e2efa65f"  # in every process and version


def test_the_fingerprint_changes_with_a_hint_a_name_a_default_and_a_field() -> None:
    def named(other: int): ...  # type: ignore[no-untyped-def]
    def optional(value: int = 1): ...  # type: ignore[no-untyped-def]

    def make(**fields: Any) -> Any:
        return dataclasses.make_dataclass("Made", fields.items())

    fingerprints = [
        *(codec(hint).fingerprint for hint in (int, str, list[int], int | str, Color, Literal["a"])),
        *(codec(make(**fields)).fingerprint for fields in ({"a": int}, {"a": str}, {"a": int, "b": int})),
        *(Codec(function, name="shop.run").fingerprint for function in (named, optional)),
        codec(int, result=int).fingerprint,
    ]

    assert len(set(fingerprints)) == len(fingerprints)
    assert all(len(fingerprint) == 16 for fingerprint in fingerprints)


# Properties.


def given_or_refused(call: Callable[[], T]) -> T | None:
    """What the call gives, or None where it names the argument that it refuses."""
    try:
        return call()
    except InvalidPayload as error:
        where = error.where
    assert where.startswith("shop.run(value")
    return None


def of(generic: Any, *args: Any) -> Any:
    return generic[args]


def make_class(pairs: list[tuple[Any, st.SearchStrategy[Any]]]) -> tuple[Any, st.SearchStrategy[Any]]:
    names = [f"field{index}" for index in range(len(pairs))]
    made: Any = dataclasses.make_dataclass("Made", [(n, hint) for n, (hint, _) in zip(names, pairs, strict=True)])
    values = {name: values for name, (_, values) in zip(names, pairs, strict=True)}
    return made, st.builds(made, **values)


def text_values() -> st.SearchStrategy[str]:
    return st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(["$", "v", "0x1", "nan"])


ZONES = st.none() | st.just(UTC) | st.sampled_from([ZoneInfo("Asia/Seoul"), ZoneInfo("Europe/Dublin")])
HASHABLE: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (None, st.none()),
    (bool, st.booleans()),
    (int, st.integers() | st.just(10**700)),
    (float, st.floats(allow_nan=False)),
    (str, text_values()),
    (date, st.dates()),
    (datetime, st.datetimes(timezones=ZONES)),
    (time, st.times(timezones=st.none() | st.just(UTC))),
    (timedelta, st.timedeltas()),
    (Decimal, st.decimals(allow_nan=False)),
    (UUID, st.uuids()),
    (bytes, st.binary(max_size=8)),
    (Path, st.sampled_from([Path("a"), Path("/b/c")])),
    (Color, st.sampled_from(Color)),
    (Level, st.sampled_from(Level)),
    (Shape, st.sampled_from(Shape)),
    (Access, st.sampled_from([Access(0), Access.READ, Access.READ | Access.WRITE])),
    (Literal["$", 1, None], st.sampled_from(["$", 1, None])),
    (Point, st.builds(Point, st.integers(), st.integers())),
]
OTHERS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (float, st.floats()),
    (Line, st.builds(Line, text_values(), st.integers())),
    (Movie, st.fixed_dictionaries({"title": text_values()}, optional={"year": st.integers()})),
    (dict[str, int], st.dictionaries(text_values(), st.integers(), max_size=3)),
]


def hashable_hints() -> st.SearchStrategy[tuple[Any, st.SearchStrategy[Any]]]:
    leaves = st.sampled_from(HASHABLE)
    return leaves | st.lists(leaves, max_size=3).map(
        lambda pairs: (of(tuple, *(hint for hint, _ in pairs)), st.tuples(*(values for _, values in pairs)))
    )


def unite(pairs: list[tuple[Any, st.SearchStrategy[Any]]]) -> tuple[Any, st.SearchStrategy[Any]]:
    return of(typing.Union, *(hint for hint, _ in pairs)), st.one_of(*(values for _, values in pairs))


def extend(
    inner: st.SearchStrategy[tuple[Any, st.SearchStrategy[Any]]],
) -> st.SearchStrategy[tuple[Any, st.SearchStrategy[Any]]]:
    keys = hashable_hints()
    return st.one_of(
        inner.map(lambda pair: (of(list, pair[0]), st.lists(pair[1], max_size=3))),
        inner.map(lambda pair: (of(tuple, pair[0], ...), st.lists(pair[1], max_size=3).map(tuple))),
        keys.map(lambda pair: (of(set, pair[0]), st.sets(pair[1], max_size=3))),
        keys.map(lambda pair: (of(frozenset, pair[0]), st.frozensets(pair[1], max_size=3))),
        st.tuples(keys, inner).map(
            lambda pairs: (
                of(dict, pairs[0][0], pairs[1][0]),
                st.dictionaries(pairs[0][1], pairs[1][1], max_size=3),
            )
        ),
        st.lists(inner, min_size=1, max_size=4).map(unite),
        st.lists(inner, min_size=1, max_size=3).map(make_class),
    )


def hints() -> st.SearchStrategy[tuple[Any, st.SearchStrategy[Any]]]:
    return st.recursive(st.sampled_from([*HASHABLE, *OTHERS]), extend, max_leaves=6)


def free_values() -> st.SearchStrategy[Any]:
    scalars = st.one_of(
        *(values for hint, values in HASHABLE if hint not in (Color, Level, Shape, Access, Point, float))
    )
    keys = scalars
    return st.recursive(
        scalars | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.lists(inner, max_size=3).map(tuple),
            st.sets(keys, max_size=3),
            st.frozensets(keys, max_size=3),
            st.dictionaries(text_values(), inner, max_size=3),
            st.dictionaries(keys, inner, max_size=3),
        ),
        max_leaves=8,
    )


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=400)
@given(st.data())
def test_a_value_of_its_hint_comes_back_as_it_went_in(data: st.DataObject) -> None:
    hint, values = data.draw(hints())
    value = data.draw(values)

    assert is_same(travel(codec(hint), value), value)


@settings(deadline=None)
@given(free_values())
@example({"$": "dict", "v": {"$": 1}})
@example([{"$": []}, {("$",): 1}])
def test_a_value_without_a_hint_comes_back_as_it_went_in(value: Any) -> None:
    assert is_same(travel(unhinted(), value), value)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(hints(), free_values())
def test_a_value_that_misses_its_hint_is_refused_or_comes_back_equal(pair: tuple[Any, Any], value: Any) -> None:
    target = codec(pair[0])
    text = given_or_refused(lambda: target.encode((value,)))

    assert text is None or target.decode(text) == ((value,), {})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text_values(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text_values(), inner, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(hints(), JSON)
def test_any_json_text_is_read_or_refused_with_one_error(pair: tuple[Any, Any], data: Any) -> None:
    for target in (codec(pair[0]), unhinted()):
        given_or_refused(lambda: target.decode(json.dumps({"value": data})))  # noqa: B023 - called at once


@settings(deadline=None)
@given(
    st.lists(st.integers(), max_size=4),
    st.dictionaries(st.sampled_from("abcdefg"), st.integers(), max_size=5),
)
def test_a_call_is_accepted_exactly_when_python_accepts_it(args: list[int], kwargs: dict[str, int]) -> None:
    def run(a: int, /, b: int, c: int = 3, *d: int, e: int, f: int = 6, **g: int) -> Any:
        return a, b, c, d, e, f, g

    codec = Codec(run, name="shop.run")
    try:
        expected = run(*args, **kwargs)
    except TypeError:
        refusal(lambda: codec.encode(tuple(args), kwargs))
        return

    args_back, kwargs_back = codec.decode(codec.encode(tuple(args), kwargs))

    assert run(*args_back, **kwargs_back) == expected


# Errors as data.


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def test_an_error_is_described_with_type_message_notes_and_traceback() -> None:
    error = InvalidPayload("shop.run(value)", "expected int, got str '5'")
    error.add_note("while the nightly batch ran")

    info = describe_exception(raised(error))

    assert info.type == "tickwork.errors.InvalidPayload"
    assert info.message == "shop.run(value): expected int, got str '5'"
    assert info.notes == ("while the nightly batch ran",)
    assert info.traceback.startswith("Traceback (most recent call last):\n")
    assert info.traceback.endswith(f"{info.type}: {info.message}\nwhile the nightly batch ran\n")


def test_a_builtin_error_is_named_without_its_module() -> None:
    assert describe_exception(ValueError("x")).type == "ValueError"


def test_an_error_whose_text_raises_is_described_all_the_same() -> None:
    class Broken(Exception):
        def __str__(self) -> str:
            raise SystemExit

    error = raised(Broken())
    error.__notes__ = [Broken(), "fine"]  # type: ignore[list-item]

    info = describe_exception(error)

    assert info.message == "<its str() failed>"
    assert info.notes == ("<its str() failed>", "fine")
    assert "Broken" in info.traceback


def test_notes_that_are_no_list_are_left_out() -> None:
    error = ValueError("x")
    error.__notes__ = 5  # type: ignore[assignment]

    assert describe_exception(error).notes == ()


def test_an_error_whose_attributes_raise_is_described_all_the_same() -> None:
    class Hostile(Exception):
        def __getattribute__(self, name: str) -> Any:
            raise RuntimeError(name)

    assert describe_exception(raised(Hostile("x"))).message == "x"


def test_a_recursion_error_is_described_where_it_was_caught() -> None:
    def deeper() -> None:
        deeper()

    try:
        deeper()
    except RecursionError as error:
        info = describe_exception(error)

    assert info.type == "RecursionError"
    assert "deeper" in info.traceback


def test_a_long_traceback_loses_its_middle() -> None:
    info = describe_exception(raised(ValueError("a" * 5_000 + "z")), limit=2_000)

    assert len(info.traceback) <= 2_000
    assert len(info.message) <= 250
    assert " characters left out ...\n" in info.traceback
    assert info.traceback.startswith("Traceback")
    assert info.traceback.endswith("z\n")


def test_notes_are_bounded_together() -> None:
    error = ValueError("x")
    error.__notes__ = ["n" * 1_000] * 100

    notes = describe_exception(error, limit=8_000).notes

    assert len(notes) == 8
    assert sum(map(len, notes)) <= 1_000


def test_a_description_travels_as_json() -> None:
    info = describe_exception(raised(ValueError("caf\udce9 é")))

    text = info.to_json()

    assert ErrorInfo.from_json(text) == info
    assert info.message == "caf\\udce9 é"
    text.encode()


FOREIGN = [
    ("[]", "result of describe_exception: expected ErrorInfo, got list"),
    ('{"type":1}', "result of describe_exception.type: expected str, got int 1"),
    (
        '{"type":"a","message":"b","notes":[1]}',
        "result of describe_exception.notes[0]: expected str, got int 1",
    ),
]


@pytest.mark.parametrize(("text", "message"), FOREIGN)
def test_a_foreign_description_is_refused(text: str, message: str) -> None:
    assert refusal(lambda: ErrorInfo.from_json(text)) == message


def test_a_msgspec_struct_travels_by_its_own_rules() -> None:
    import msgspec

    Parcel: Any = msgspec.defstruct("Parcel", [("kg", int), ("at", date)])
    parcel = Parcel(1, date.min)

    assert travel(codec(list[Parcel]), [parcel]) == [parcel]
    assert refusal(lambda: codec(Parcel).encode((1,))) == "shop.run(value): expected Parcel, got int 1"
    assert refusal(lambda: codec(Parcel).encode((Parcel(object(), date.min),))) == (
        "shop.run(value): TypeError: Encoding objects of type object is unsupported"
    )
    assert refusal(lambda: codec(Parcel).decode('{"value":{"kg":"a","at":"2026-05-01"}}')) == (
        "shop.run(value): ValidationError: Expected `int`, got `str` - at `$.kg`"
    )


def _star(*args: int, **kwargs: int) -> tuple[Any, ...]:
    return (args, kwargs)


def _defaults(a: int = 1, /, b: int = 2, *, c: int = 3) -> tuple[int, ...]:
    return (a, b, c)


@pytest.mark.parametrize(("fn", "gives"), [(_star, ((), {})), (_defaults, (1, 2, 3)), (lambda: "none", "none")])
def test_a_call_without_arguments_is_an_empty_object_and_back(fn: Any, gives: Any) -> None:
    codec = Codec(fn, name="fn")

    assert codec.encode() == "{}"
    args, kwargs = codec.decode("{}")
    assert fn(*args, **kwargs) == gives
