"""Models of all kinds go through a file: enqueued in one process, run in another, the result read in the first."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet import Fleet
from tickwork.payloads import ErrorInfo

PROGRAM = """
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from datetime import time as TimeOfDay
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, TypedDict
from uuid import UUID

import msgspec
from pydantic import BaseModel, Field, field_validator

app = App("sqlite:///jobs.db", workers=4, processes=1)

class Colour(Enum):
    RED = "r"
    GREEN = ("g", 2)

class Size(IntEnum):
    SMALL = 1

class Kind(StrEnum):
    BOOK = "book"

@dataclass(frozen=True)
class Line:
    name: str
    price: Decimal
    colours: frozenset[Colour] = frozenset()

@dataclass
class Order:
    id: UUID
    lines: list[Line]
    at: datetime
    ships: date | None = None
    notes: dict[str, Line] = field(default_factory=dict)
    made: int = field(default=7, init=False)

class Place(NamedTuple):
    shelf: int
    until: TimeOfDay = TimeOfDay(12)

class Extra(TypedDict, total=False):
    kind: Kind
    after: timedelta

class Customer(BaseModel):
    name: Annotated[str, Field(alias="fullName", min_length=1)]
    born: date
    tags: set[int] = set()

    @field_validator("name")
    @classmethod
    def _strip(cls, value: str) -> str:
        return value.strip()

class Parcel(msgspec.Struct, frozen=True, tag=True):
    kg: float
    at: datetime
    parts: tuple[int, ...] = ()

ORDER = Order(
    UUID(int=7), [Line("\\u00e9\\U0001f600", Decimal("1.10"), frozenset({Colour.RED, Colour.GREEN}))],
    datetime(2026, 10, 25, 0, 30, 0, 1, tzinfo=UTC), date(2026, 10, 25), {"a": Line("b", Decimal("-0"))},
)
CUSTOMER = Customer(fullName=" Ann ", born=date(2000, 2, 29), tags={3, 1})
PARCEL = Parcel(kg=0.1, at=datetime(2026, 1, 1, tzinfo=UTC), parts=(1, 2))
CALLS = {
    "dataclass": ORDER,
    "pydantic": CUSTOMER,
    "msgspec": PARCEL,
    "tuple": Place(3),
    "typed": Extra(kind=Kind.BOOK, after=timedelta(microseconds=1)),
    "enums": [Colour.GREEN, Colour.RED],
    "number": Size.SMALL,
    "union": [Line("x", Decimal(1)), None, 3],
    "bytes": b"\\x00\\xff",
    "path": Path("caf\\u00e9"),
    "literal": "b",
    "models": {"ann": CUSTOMER},
}

def told(name, value):
    assert value == CALLS[name], (name, value)
    assert type(value) is type(CALLS[name]), (name, type(value))
    say(name, os.getpid())
    return value

@app.task(name="dataclass")
async def a_dataclass(value: Order) -> Order: return told("dataclass", value)

@app.task(name="pydantic")
async def a_pydantic(value: Customer) -> Customer: return told("pydantic", value)

@app.task(name="msgspec")
def a_msgspec(value: Parcel) -> Parcel: return told("msgspec", value)

@app.task(name="tuple")
async def a_tuple(value: Place) -> Place: return told("tuple", value)

@app.task(name="typed")
async def a_typed(value: Extra) -> Extra: return told("typed", value)

@app.task(name="enums")
async def some_enums(value: list[Colour]) -> list[Colour]: return told("enums", value)

@app.task(name="number", run_in="process")
def a_number(value: Size) -> Size: return told("number", value)

@app.task(name="union")
async def a_union(value: Sequence[Line | int | None]) -> Sequence[Line | int | None]: return told("union", value)

@app.task(name="bytes")
async def some_bytes(value: bytes) -> bytes: return told("bytes", value)

@app.task(name="path")
async def a_path(value: Path) -> Path: return told("path", value)

@app.task(name="literal")
async def a_literal(value: Literal["a", "b"]) -> Literal["a", "b"]: return told("literal", value)

@app.task(name="models", run_in="process")
def some_models(value: dict[str, Customer]) -> dict[str, Customer]: return told("models", value)
"""

CLIENT = """
import asyncio
from jobs import CALLS, app, say

async def main():
    async with app.client():
        jobs = {name: await app.enqueue(app.tasks[name], value) for name, value in CALLS.items()}
        jobs |= {f"{name} by name": await app.enqueue(app.tasks[name], value=value) for name, value in CALLS.items()}
        for name, job in jobs.items():
            value = await job.result(timeout=30)
            wanted = CALLS[name.removesuffix(" by name")]
            assert (value, type(value)) == (wanted, type(wanted)), name
        say("all", len(jobs))

asyncio.run(main())
"""


@pytest.mark.timeout(120)
def test_models_of_all_kinds_arrive_and_come_back_as_they_were(tmp_path: Path) -> None:
    with Fleet(tmp_path, PROGRAM) as fleet:
        (tmp_path / "client.py").write_text(CLIENT)
        worker = fleet.start()
        client = fleet.start("client.py")
        assert client.ended().status == 0, client.err + worker.err

        assert fleet.said("all") == ["24"]
        assert {line.pid for line in fleet.lines("pydantic")} == {worker.pid}
        assert client.pid not in {line.pid for line in fleet.lines() if line.words[0] != "all"}


NEW = """
from dataclasses import dataclass
from pydantic import BaseModel
import msgspec

app = App("sqlite:///jobs.db")

@dataclass
class Line:
    name: str
    price: int

class Customer(BaseModel):
    name: str
    age: int

class Parcel(msgspec.Struct):
    kg: int

@app.task(name="lines")
async def lines(count: int, items: list[Line]) -> None: say("ran")

@app.task(name="customer")
async def customer(who: Customer) -> None: say("ran")

@app.task(name="parcel")
async def parcel(*, sent: Parcel) -> None: say("ran")

@app.task(name="more")
async def more(first: int, second: int) -> None: say("ran")

@app.task(name="fits")
async def fits(first: int, second: int = 2) -> int: return first + second
"""

OLD = """
import asyncio
from dataclasses import dataclass
from tickwork import App, JobParked

app = App("sqlite:///jobs.db")

@app.task(name="lines")
async def lines(count: int, items: list[dict[str, str]]) -> None: ...

@app.task(name="customer")
async def customer(who: dict[str, str]) -> None: ...

@app.task(name="parcel")
async def parcel(*, sent: dict[str, str]) -> None: ...

@app.task(name="more")
async def more(first: int) -> None: ...

@app.task(name="fits")
async def fits(first: int) -> int: ...

async def main():
    async with app.client():
        jobs = [
            await lines.enqueue(1, [{"name": "a", "price": "cheap"}]),
            await customer.enqueue({"name": "Ann"}),
            await parcel.enqueue(sent={"kg": "heavy"}),
            await more.enqueue(1),
        ]
        assert await (await fits.enqueue(40)).result(timeout=30) == 42
        for job in jobs:
            try:
                await job.result(timeout=30)
            except JobParked as error:
                print(error)

asyncio.run(main())
"""


@pytest.mark.timeout(120)
def test_arguments_that_no_longer_fit_park_the_job_and_are_named(tmp_path: Path) -> None:
    with Fleet(tmp_path, NEW) as fleet:
        (tmp_path / "old.py").write_text(OLD)
        fleet.start()
        ended = fleet.start("old.py").ended()
        assert ended.status == 0, ended.err
        fleet.wait_states(parked=4, succeeded=1)

        said = {}
        for line in ended.out.splitlines():
            job, reason = line.removeprefix("job ").split(" is parked: ")
            job_id, name = job.rstrip(")").split(" (")
            error = ErrorInfo.from_json(fleet.job(job_id).error or "")
            assert (error.type, error.message) == ("tickwork.errors.InvalidPayload", reason)
            said[name] = reason
        pydantic = said.pop("customer")
        assert pydantic.startswith("customer(who): ValidationError: 1 validation error for Customer age Field required")
        assert said == {
            "lines": "lines(items[0].price): expected int, got str 'cheap'",
            "parcel": "parcel(sent): ValidationError: Expected `int`, got `str` - at `$.kg`",
            "more": "more(second): is missing in the payload; the signature is (first: int, second: int)",
        }
        assert fleet.said("ran") == []
