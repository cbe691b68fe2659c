"""What becomes of tables of an older version, told before it is done."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Migration:
    """What opening a store would do to its tables.

    Attributes:
        version: Theirs; None: there are none yet.
        known: The version that this program makes of them.
        statements: What it would run for that; empty: nothing, they can be used as they are.
        begin: What comes before, to begin the transaction.
    """

    version: int | None
    known: int
    statements: tuple[str, ...]
    begin: tuple[str, ...]
