"""What a batch remembers: in front of the engine it looks up what is done, behind it it records what has ended."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from ..errors import InvalidPayload
from ..runners.reference import task_name
from .checkpoint import Checkpoint, result_codec
from .engine import Segment
from .fingerprint import fingerprints
from .outcomes import Piece

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

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
    async def open(cls, plan: Plan, total: int | None, tell: Callable[[Piece], Awaitable[None]]) -> Recall:
        """Open the file of a plan that has one.

        Raises:
            CheckpointMismatch: It is that of another batch.
            CheckpointUnavailable: It cannot be used.
        """
        assert plan.checkpoint is not None
        checkpoint = await Checkpoint.open(
            plan.checkpoint,
            function=task_name(plan.fn),
            version=plan.version,
            keeps_results=plan.results == "json",
            total=total,
        )
        return cls(checkpoint, plan, tell)

    async def look_up(self, segment: Segment) -> list[Segment]:
        """Tell of the items that are done, and return the others."""
        first, items, _ = segment
        self._seen = first + len(items)
        keys = fingerprints(items, first)
        found = await self._checkpoint.look_up(first, items)
        left: list[Segment] = []
        place = 0
        for is_done, group in groupby(found, key=lambda entry: entry is not None):
            entries = list(group)
            part, start, place = items[place : place + len(entries)], place, place + len(entries)
            if is_done:
                values = [self._decode(entry.result) for entry in entries if entry is not None]
                await self._tell(Piece(first + start, part, values, {}))
            else:
                left.append(Segment(first + start, part))
                self._keys.update(enumerate(keys[start:place], first + start))
        return left

    async def record(self, piece: Piece) -> Piece:
        """Record what has ended well; when this returns, no crash can lose it. Returns what is told of it.

        Raises:
            InvalidPayload: A result cannot be kept.
            CheckpointUnavailable: The file cannot be written.
        """
        first, _, values, errors = piece
        finished: list[tuple[int, bytes, str | None]] = []
        refusal: InvalidPayload | None = None
        for index, value in enumerate(values, first):
            key = self._keys.pop(index)
            if index - first not in errors:
                try:
                    finished.append((index, key, None if self._codec is None else self._codec.encode(value)))
                except InvalidPayload as error:
                    refusal = refusal or error
        if finished:
            await self._checkpoint.record(finished)
        if refusal is not None:  # the others are kept, so that they do not run again
            raise refusal
        return piece if self._codec is not None else piece._replace(values=[None] * len(values))

    def _decode(self, result: str | None) -> Any:
        return None if self._codec is None or result is None else self._codec.decode(result)

    async def finish(self) -> None:
        """Note that there were no more items.

        Raises:
            CheckpointMismatch: An earlier call had more.
        """
        await self._checkpoint.finish(self._seen)

    async def aclose(self) -> None:
        """Close the file."""
        await self._checkpoint.aclose()
