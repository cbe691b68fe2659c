"""What became of the items of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..errors import ItemError

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class ItemOutcome(Generic[T, R]):
    """What became of one item.

    Attributes:
        index: The place of the item among all, counted from 0.
        item: The item.
        value: What the function returned; None when it failed.
        error: Why it failed; None when it did not.
    """

    index: int
    item: T
    value: R | None
    error: ItemError | None

    def result(self) -> R:
        """Return the value, or raise what the function raised.

        Raises:
            Exception: What the function raised; `ItemError` where that is no `Exception`.
        """
        if self.error is not None:
            raise self.error.original()
        return self.value  # type: ignore[return-value]


class Piece(NamedTuple):
    """What became of some items that follow each other."""

    first: int
    items: Sequence[Any]
    values: list[Any]
    errors: dict[int, ItemError]  # by the place in the piece
