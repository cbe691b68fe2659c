"""What a batch remembers: in front of the engine it looks up what is done, behind it it records what has ended."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any, cast

from .checkpoint import Checkpoint, Stored, result_codec
from .engine import Segment
from .outcomes import Piece

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

    from .options import Plan

LOOK_UP_ITEMS = 1_000
"""So many items are looked up together: one at a time a batch that is nearly done would take as long as a new one."""


class Recall:
    """The checkpoint of one batch; made by `open`.

    Args:
        checkpoint: The file.
        plan: Of the batch.
        tell: Awaited with each piece that is known already.
    """

    def __init__(self, checkpoint: Checkpoint, plan: Plan, tell: Callable[[Piece], Awaitable[None]]) -> None:
        self._checkpoint, self._tell = checkpoint, tell
        self._codec = result_codec(plan.fn) if plan.results == "json" else None
        self._keys: dict[int, bytes] = {}  # of what is under way: the function may change its item
        self._seen = 0

    @classmethod
    async def open(
        cls, plan: Plan, identity: str, total: int | None, tell: Callable[[Piece], Awaitable[None]]
    ) -> Recall:
        """Open the file of a plan that has one.

        Args:
            plan: Of the batch.
            identity: Which function it is, as `identity_of` says it.
            total: How many items there are; None: not known.
            tell: Awaited with each piece that is known already.

        Raises:
            CheckpointMismatch: It is that of another batch.
            CheckpointUnavailable: It cannot be used.
        """
        assert plan.checkpoint is not None
        checkpoint = await Checkpoint.open(
            plan.checkpoint,
            function=identity,
            version=plan.version,
            keeps_results=plan.results == "json",
            total=total,
        )
        return cls(checkpoint, plan, tell)

    async def look_up(self, segment: Segment) -> list[Segment]:
        """Tell of the items that are done, and return the others."""
        first, items, _ = segment
        self._seen = first + len(items)
        decode = None if self._codec is None else self._codec.decode
        left: list[Segment] = []
        begin = 0
        while begin < len(items):
            found = await self._checkpoint.look_up(first + begin, items[begin:], decode)
            left += await self._sort_out(first + begin, items[begin : begin + len(found)], found)
            begin += len(found)
        return left

    async def _sort_out(self, first: int, items: Sequence[Any], found: list[Stored | bytes]) -> list[Segment]:
        left: list[Segment] = []
        begin = 0
        for is_done, count in _runs(found):
            entries, part, start = found[begin : begin + count], items[begin : begin + count], first + begin
            begin += count
            if is_done:
                await self._tell(Piece(start, part, [entry.result for entry in cast("list[Stored]", entries)], {}))
            else:
                left.append(Segment(start, part))
                self._keys.update(enumerate(cast("list[bytes]", entries), start))
        return left

    async def record(self, piece: Piece) -> Piece:
        """Record what has ended well; when this returns, no crash can lose it. Returns what is told of it.

        Raises:
            InvalidPayload: A result cannot be kept.
            CheckpointUnavailable: The file cannot be written.
        """
        first, _, values, errors = piece
        if self._codec is None:
            values = [None] * len(values)
        keys = [self._keys.pop(index) for index in range(first, first + len(values))]
        finished: Iterable[tuple[int, bytes, Any]] = zip(range(first, first + len(values)), keys, values, strict=True)
        if errors:
            finished = [row for row in finished if row[0] - first not in errors]
        if len(errors) < len(values):
            await self._checkpoint.record(finished, None if self._codec is None else self._codec.encode)
        return piece._replace(values=values)

    async def finish(self) -> None:
        """Note that there were no more items.

        Raises:
            CheckpointMismatch: An earlier call had more.
        """
        await self._checkpoint.finish(self._seen)

    async def aclose(self) -> None:
        """Close the file."""
        await self._checkpoint.aclose()


def _runs(found: list[Stored | bytes]) -> Iterator[tuple[bool, int]]:
    """Yield how many items that follow each other are done, or are not."""
    if len(kinds := set(map(type, found))) == 1:  # thousands, most of the time
        yield Stored in kinds, len(found)
        return
    for is_done, group in groupby(found, key=lambda entry: isinstance(entry, Stored)):
        yield is_done, sum(1 for _ in group)
