"""Many rows in one statement: half the work of a statement for each row, and the other threads run meanwhile."""

from __future__ import annotations

from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence

T = TypeVar("T")

MOST = 64
"""So many rows are written at once. There is a statement for each power of two up to it, which SQLite keeps prepared;
what is left over are rows of NULL."""


def parts(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield values in parts, each of as many as can be written at once."""
    for first in range(0, len(values), MOST):
        yield values[first : first + MOST]


def in_bulk(
    db: sqlite3.Connection, statement: str, rows: Sequence[tuple[Any, ...]], *given: Any
) -> list[tuple[Any, ...]]:
    """Run a statement for up to `MOST` rows, and return what it returns, in any order.

    Args:
        db: The connection.
        statement: SQL with `{rows}` where it reads them: a table whose columns are `column1`, `column2` and so on. It
            must take no notice of a row that begins with NULL.
        rows: As many values each; the first is never None.
        *given: Values for the parameters before the rows.
    """
    width, count = len(rows[0]), 1 << (len(rows) - 1).bit_length()
    values = [*given, *chain.from_iterable(rows), *[None] * (width * (count - len(rows)))]
    return db.execute(_written(statement, width, count), values).fetchall()


@lru_cache(maxsize=256)
def _written(statement: str, width: int, count: int) -> str:
    row = f"({', '.join('?' * width)})"
    return statement.format(rows=f"(VALUES {', '.join([row] * count)})")
