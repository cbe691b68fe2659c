"""The engine of a batch: items in, pieces of results out.

    source ── segment ──► stock ── chunk ──► lane ── place ──► Ended ──► pieces, each to `on_piece`
                            ▲                                    │
                            └── what was not begun, is tried again, or must run alone

A lane is an asyncio task that takes chunks while there are any. Whatever comes back goes into the stock, before what
is new; so an item is either in the stock, under way in a lane, waiting for its next attempt, or told.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ..clock import running_clock
from ..errors import InvalidPayload, ItemError, ProcessDied
from ..retry import next_attempt_at
from ..shield import is_meant_for_us, to_its_end
from .outcomes import Piece

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ..clock import Timer
    from ..retry import Retry
    from .chunks import Sizer
    from .places import Ended, Place
    from .sources import Source


class Segment(NamedTuple):
    """Items that follow each other and wait for a lane."""

    first: int
    items: Sequence[Any]
    alone: bool = False  # each must run alone: one of them has killed a process


@dataclass(frozen=True, slots=True)
class Rules:
    """When an item has failed for good.

    Attributes:
        retry: How often it is tried; None: once.
        retry_on: What another attempt may help against.
        max_deaths: With so many dead processes it has failed.
    """

    retry: Retry | None
    retry_on: tuple[type[BaseException], ...]
    max_deaths: int


class _Tries:
    """What an item has been through that did not end well at once."""

    __slots__ = ("attempts", "deaths")

    def __init__(self) -> None:
        self.attempts = self.deaths = 0


class Engine:
    """Runs one batch.

    Args:
        source: Where the items come from.
        place: Where they run.
        sizer: Tells how many go together.
        rules: When an item has failed.
        on_items: Awaited with what was taken from the source; returns what of it is to run. None: all of it.
        on_piece: Awaited with each piece of results; what it raises ends the batch.
        window_chunks: How often, for each lane, it may take from the source before somebody is `told` of what it took;
            None: any number of times.
        least_take: How many items are taken from the source at least, where it has them.
    """

    def __init__(
        self,
        source: Source,
        place: Place,
        sizer: Sizer,
        rules: Rules,
        on_piece: Callable[[Piece], Awaitable[None]],
        *,
        on_items: Callable[[Segment], Awaitable[list[Segment]]] | None = None,
        window_chunks: int | None = None,
        least_take: int = 1,
    ) -> None:
        self._source, self._place, self._sizer, self._rules = source, place, sizer, rules
        self._on_items, self._on_piece = on_items, on_piece
        self._window_chunks, self._least_take = window_chunks, least_take
        self._clock = running_clock()
        self._stock: deque[Segment] = deque()
        self._is_taking = False  # by one lane at a time, which does not count as one of `_most_lanes` meanwhile
        self._is_drained = source.total == 0
        self._source_error: BaseException | None = None
        self._lanes: set[asyncio.Task[None]] = set()
        self._timers: set[Timer] = set()
        self._tries: dict[int, _Tries] = {}
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._most_lanes = place.lanes if source.total is None else min(place.lanes, source.total)
        self._taken = self._told = 0
        self._takes: deque[int] = deque()  # up to which item each went of those that nobody has been told of yet

    async def run(self) -> None:
        """Run the batch to its end. Cancelled, or when something raises, it ends what it has started first."""
        try:
            self._spawn()
            await self._ended
        finally:
            await to_its_end(self._tidy())

    def told(self, count: int) -> None:
        """Hear that somebody has been told of `count` items more, so that others may be taken."""
        self._told += count
        while self._takes and self._takes[0] <= self._told:
            self._takes.popleft()
        self._spawn()

    async def _tidy(self) -> None:
        if not self._ended.done():
            self._ended.cancel()
        for timer in self._timers:
            timer.cancel()
        lanes = list(self._lanes)
        for lane in lanes:
            lane.cancel()
        await asyncio.gather(*lanes, return_exceptions=True)
        try:
            await self._place.aclose()
        finally:
            await self._source.aclose()

    # -- lanes ------------------------------------------------------------------------------------------------------

    def _has_work(self) -> bool:
        return not self._ended.done() and (bool(self._stock) or self._may_take())

    def _may_take(self) -> bool:
        if self._is_drained or self._is_taking:
            return False
        return self._window_chunks is None or len(self._takes) < self._window_chunks * self._place.lanes

    def _spawn(self) -> None:
        """Start a lane, if there is work for it, or end the batch. It starts the next one when it has found some."""
        if len(self._lanes) - self._is_taking < self._most_lanes and self._has_work():
            lane = asyncio.create_task(self._lane(), name="tickwork-batch")
            self._lanes.add(lane)
            lane.add_done_callback(self._left)
        if not self._lanes and not self._timers and not self._stock and self._is_drained and not self._ended.done():
            self._end(self._source_error)

    def _left(self, lane: asyncio.Task[None]) -> None:
        self._lanes.discard(lane)
        if self._ended.done():
            if not lane.cancelled():
                lane.exception()
            return
        if lane.cancelled():
            self._end(asyncio.CancelledError())
        elif (error := lane.exception()) is not None:
            self._end(error)
        else:
            self._spawn()

    def _end(self, error: BaseException | None) -> None:
        if error is None:
            self._ended.set_result(None)
        elif isinstance(error, StopIteration | StopAsyncIteration):  # no future takes it, or it would end a loop
            ended = RuntimeError(f"the items raised {type(error).__name__}")
            ended.__cause__ = error
            self._ended.set_exception(ended)
        else:
            self._ended.set_exception(error)

    async def _lane(self) -> None:
        while self._has_work():
            if not self._stock:
                await self._take()
                if len(self._lanes) > self._most_lanes:
                    return  # another runs in its place, since something came back while it waited for the source
                continue
            first, items = self._cut()
            self._spawn()
            ended = await self._place.run(items, self._sizer.limit_seconds, first)
            await self._settle(first, items, ended)
            del items, ended  # they may be large, and the source slow

    def _cut(self) -> tuple[int, Sequence[Any]]:
        first, items, alone = self._stock.popleft()
        size = 1 if alone else self._sizer.size(first)
        if size < len(items):
            self._stock.appendleft(Segment(first + size, items[size:], alone))
            items = items[:size]
        return first, items

    async def _take(self) -> None:
        """Move items from the source into the stock."""
        self._is_taking = True
        try:
            items = await self._from_source()
            if not items:
                self._is_drained = True
                return
            segment = Segment(self._taken, items)
            self._taken += len(items)
            if self._window_chunks is not None:
                self._takes.append(self._taken)
            self._stock.extend([segment] if self._on_items is None else await self._on_items(segment))
        finally:
            self._is_taking = False

    async def _from_source(self) -> Sequence[Any]:
        try:
            return await self._source.take(max(self._sizer.size(self._taken), self._least_take))
        except BaseException as error:
            if is_meant_for_us(error):
                raise
            self._source_error = error
            return ()

    # -- what has ended -----------------------------------------------------------------------------------------------

    async def _settle(self, first: int, items: Sequence[Any], ended: Ended) -> None:
        """Tell of what a chunk has given, and put the rest back."""
        count = len(ended.values)
        if count:
            self._sizer.learn(count, ended.seconds, ended.loop_seconds)
        back: list[Segment] = []
        if ended.is_unclear:
            back.append(Segment(first + count, items[count:], alone=True))
        elif ended.is_refused:
            half = len(items) // 2
            back += [Segment(first, items[:half]), Segment(first + half, items[half:])]
        elif ended.culprit is None:
            back.append(Segment(first + count, items[count:]))
        else:
            place, _ = ended.culprit
            back += [
                Segment(first + count, items[count:place]),
                Segment(first + place + 1, items[place + 1 :]),
            ]
        self._stock.extendleft(segment for segment in reversed(back) if len(segment.items))
        if self._stock:
            self._spawn()
        if ended.culprit is not None:
            place, error = ended.culprit
            has_died = isinstance(error, ProcessDied)
            await self._tell(first + place, [items[place]], [None], [(0, error)], has_died=has_died)
        await self._tell(first, items[:count], ended.values, ended.failures, is_final=ended.is_final)

    async def _tell(
        self,
        first: int,
        items: Sequence[Any],
        values: list[Any],
        failures: list[tuple[int, BaseException]],
        *,
        has_died: bool = False,
        is_final: bool = False,
    ) -> None:
        """Hand out what is final, in pieces around the items that are tried again."""
        if not failures and not self._tries:  # most chunks of most batches
            if values:
                await self._on_piece(Piece(first, items, values, {}))
            return
        begin, errors = 0, {}
        for place, error in failures:
            final = self._judge(first + place, items[place], error, has_died=has_died, is_final=is_final)
            if final is not None:
                errors[place - begin] = final
                continue
            await self._hand_out(first, items, values, begin, place, errors)
            begin, errors = place + 1, {}
        await self._hand_out(first, items, values, begin, len(values), errors)

    async def _hand_out(
        self,
        first: int,
        items: Sequence[Any],
        values: list[Any],
        begin: int,
        end: int,
        errors: dict[int, ItemError],
    ) -> None:
        if begin < end:
            for index in range(first + begin, first + end):
                self._tries.pop(index, None)
            await self._on_piece(Piece(first + begin, items[begin:end], values[begin:end], errors))

    def _judge(
        self, index: int, item: Any, error: BaseException, *, has_died: bool, is_final: bool
    ) -> ItemError | None:
        """Return the error of an item that has failed for good; None: it will be tried again."""
        tries = self._tries.setdefault(index, _Tries())
        if has_died:
            tries.deaths += 1
            if tries.deaths < self._rules.max_deaths:
                self._stock.append(Segment(index, [item], alone=True))
                return None
            return ItemError(index, item, error, tries.attempts + tries.deaths)
        tries.attempts += 1
        now = self._clock.now()
        at = next_attempt_at(self._rules.retry, self._rules.retry_on, error, tries.attempts, now, random.random())
        # What cannot be pickled today cannot be tomorrow.
        if at is None or is_final or isinstance(error, InvalidPayload):
            return ItemError(index, item, error, tries.attempts + tries.deaths)
        self._later(max(0.0, (at - now).total_seconds()), Segment(index, [item]))
        return None

    def _later(self, wait: float, segment: Segment) -> None:
        def put() -> None:
            self._timers.discard(timer)
            self._stock.appendleft(segment)
            self._spawn()

        timer = self._clock.call_later(wait, put)
        self._timers.add(timer)
