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
what is left over are rows of empty texts."""
MANY = 8
"""From so many rows on, what they have in common is looked for: of fewer, there would be too many different statements
to keep."""


def parts(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield values in parts, each of as many as can be written at once."""
    for first in range(0, len(values), MOST):
        yield values[first : first + MOST]


def in_bulk(
    db: sqlite3.Connection, statement: str, rows: Sequence[tuple[Any, ...]], *given: Any
) -> list[tuple[Any, ...]]:
    """Run a statement for up to `MOST` rows, and return what it returns, in any order.

    A value that all rows have in common is bound once. That is most of them, and to bind None, a bool or an enum takes
    ten times as long as a number: Python looks for an adapter of theirs.

    Args:
        db: The connection.
        statement: SQL with `{rows}` where it reads them: a table whose columns are `column1`, `column2` and so on. It
            must take no notice of a row that begins with an empty text.
        rows: As many values each; the first is a text that is not empty.
        *given: Values for the parameters before the rows.
    """
    count, columns = 1 << (len(rows) - 1).bit_length(), list(zip(*rows, strict=True))
    is_many = len(rows) >= MANY
    same = (False, *(is_many and column.count(column[0]) == len(rows) for column in columns[1:]))
    shared = [column[0] for column, is_same in zip(columns, same, strict=True) if is_same]
    own = [column for column, is_same in zip(columns, same, strict=True) if not is_same]
    values = [*given, *chain.from_iterable(zip(*own, strict=True)), *[""] * (len(own) * (count - len(rows))), *shared]
    return db.execute(_written(statement, same, count), values).fetchall()


@lru_cache(maxsize=256)
def _written(statement: str, same: tuple[bool, ...], count: int) -> str:
    """Return the statement for so many rows, some of whose columns are the same in all: those are bound at its end."""
    row = f"({', '.join('?' * same.count(False))})"
    rows = f"VALUES {', '.join([row] * count)}"
    if not any(same):
        return statement.format(rows=f"({rows})")
    places = {False: 0, True: 0}
    columns = []
    for number, is_same in enumerate(same, 1):
        places[is_same] += 1
        columns.append(f"{'shared' if is_same else 'own'}.column{places[is_same]} AS column{number}")
    shared = f"VALUES ({', '.join('?' * places[True])})"
    # CROSS JOIN: in the order of the rows, whatever SQLite would rather do.
    return statement.format(rows=f"(SELECT {', '.join(columns)} FROM ({rows}) AS own CROSS JOIN ({shared}) AS shared)")
