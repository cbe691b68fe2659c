"""How `task.map` enqueues items as the jobs of a batch: part by part, in bounded memory.

Each part is one transaction of the store, with how many items the batch has by then and a digest of them all. So the
same items can go into a batch again, after a crash or from two processes at once: what is there is compared, what is
missing is enqueued, and other items are refused. Whoever feeds a batch says at least every 20 seconds that it lives;
when it has not for a minute, those who wait for the batch are told.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterable, Iterable
from contextlib import suppress
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from .batch.chunks import LOOP_SECONDS
from .batch.sources import TEXT_REMEDY, take_some
from .elapsed import elapsed
from .errors import InvalidOption, UnknownBatch, WrongBatch
from .records import changed
from .shield import is_meant_for_us, to_its_end
from .stores.batches import BatchPart

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .app import App
    from .job_batch import JobBatch
    from .jobs import NewJob
    from .stores.batches import BatchRow
    from .tasks import AnyTask, EnqueueOptions

logger: logging.Logger = logging.getLogger("tickwork.jobs")

PART_COUNT = 500
"""Items of one transaction, which share a flush of the disk."""
FLUSH_SECONDS = 0.1
"""So long items of a slow iterable wait for others before they are enqueued."""
FEED_SECONDS = 60.0
"""For so long a batch that is not complete is believed to be fed, since the last word of it."""
BEAT_SECONDS = FEED_SECONDS / 3

Call = tuple[tuple[Any, ...], dict[str, Any]]


class Feed:
    """Enqueues items as the jobs of one batch.

    Args:
        app: The started app.
        task: The task of the jobs.
        options: What `task.options(...)` says.
        batch: The batch; it is made with the first part.
        call_of: Makes the arguments of a job of an item.
    """

    def __init__(
        self, app: App, task: AnyTask, options: EnqueueOptions, batch: JobBatch[Any], call_of: Callable[[Any], Call]
    ) -> None:
        self._app, self._task, self._options, self._batch, self._call_of = app, task, options, batch, call_of
        self._size = min(PART_COUNT, app.max_queued)
        self._row: BatchRow | None = None
        self._count = 0  # items that were looked at, and are in the batch
        self._digest = ""
        key = options.key or task.options_.key
        if key is not None:
            remedy = "a batch is known by its id and its items by their place; enqueue_many goes by keys"
            raise InvalidOption("key", "left out where items are mapped", key, remedy=remedy)

    async def take(self, items: Iterable[Any] | AsyncIterable[Any], *, may_be_there: bool) -> None:
        """Enqueue all items, and complete the batch.

        Args:
            items: The items.
            may_be_there: Whether the batch may have been begun before.
        """
        if isinstance(items, str | bytes):
            raise InvalidOption("items", "a list, an iterator, or an async one", items, remedy=TEXT_REMEDY)
        if not isinstance(items, Iterable | AsyncIterable):
            raise InvalidOption("items", "a list, an iterator, or an async one", items)
        if may_be_there:
            await self._find()
        try:
            if isinstance(items, AsyncIterable):
                await self._take_as_they_come(items)
            else:
                await self._take_all(items)
        except WrongBatch:
            raise
        except BaseException as error:
            await self._leave_off(error)
            raise

    async def _find(self) -> None:
        with suppress(UnknownBatch):
            self._row = await self._app._store_now().batch(self._batch.id)
        if self._row is None:
            return
        if self._row.task not in (self._task.name, *self._task.aliases):
            raise WrongBatch(self._batch.id, f"is of task {self._row.task!r}", "give another id")

    async def _take_all(self, items: Iterable[Any]) -> None:
        iterator = iter(items)
        part: list[Any] = []
        began = elapsed()
        while True:
            try:  # one more than its size says whether a part is the last
                has_more = take_some(iterator, part, self._size + 1 - len(part), elapsed() + LOOP_SECONDS)
            except BaseException:  # what came before it was given
                await self._add(part, is_last=False)
                raise
            if has_more and len(part) <= self._size and elapsed() - began < FLUSH_SECONDS:
                await asyncio.sleep(0)  # an iterator that is slow must not hold the loop
                continue
            await self._add(part[: self._size], is_last=not has_more)
            if not has_more:
                return
            del part[: self._size]
            began = elapsed()

    async def _take_as_they_come(self, items: AsyncIterable[Any]) -> None:
        pull = _Pull(items, self._size)
        try:
            is_last = False
            while not is_last:
                part, is_last = await pull.take()
                if part or is_last:
                    await self._add(part, is_last=is_last)
                else:
                    await self._beat()
        finally:
            await pull.aclose()

    # -- parts ------------------------------------------------------------------------------------------------------

    async def _add(self, items: Sequence[Any], *, is_last: bool) -> None:
        """Let the batch have these items, which come behind those that were looked at before."""
        jobs: list[NewJob] = []
        refusal: Exception | None = None
        turned = elapsed()
        for index, item in enumerate(items, self._count):
            try:
                jobs.append(self._job(item, index))
            except Exception as error:  # what came before it was given
                refusal, is_last = error, False
                break
            if elapsed() - turned >= LOOP_SECONDS:  # encoding large ones must not hold the loop
                await asyncio.sleep(0)
                turned = elapsed()
        if jobs or is_last:
            await self._add_jobs(jobs, is_last=is_last)
        if refusal is not None:
            raise refusal

    async def _add_jobs(self, jobs: Sequence[NewJob], *, is_last: bool) -> None:
        after = self._count + len(jobs)
        digest = self._digest_of(jobs)
        while not self._has(jobs, after, digest, is_last=is_last):
            there = 0 if self._row is None else self._row.size - self._count
            part = BatchPart(
                batch=self._batch.id,
                task=self._task.name if self._row is None else self._row.task,
                first=self._count + there,
                digest=digest,
                is_last=is_last,
                feed_seconds=FEED_SECONDS,
            )
            self._row = await self._fed(part, jobs[there:])
        if self._row is not None and self._row.size > after:
            await asyncio.sleep(0)  # nothing was asked of the store
        self._count, self._digest = after, digest

    def _job(self, item: Any, index: int) -> NewJob:
        args, kwargs = self._call_of(item)
        job = self._app._new_job(self._task, args, kwargs, self._options)
        return changed(job, batch=self._batch.id, batch_index=index)

    def _digest_of(self, jobs: Sequence[NewJob]) -> str:
        """Return the digest of all items up to the last of these; payloads are the same text in every process."""
        digest = self._digest
        for job in jobs:
            text = digest + job.payload
            digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        return digest

    def _has(self, jobs: Sequence[NewJob], after: int, digest: str, *, is_last: bool) -> bool:
        """Return whether the batch has these items, and is complete where they are the last; refuse what never fits."""
        row = self._row
        if row is None:
            return False
        if row.size < self._count:
            raise WrongBatch(row.id, "was forgotten and begun anew meanwhile", "give another id")
        has_all = row.size >= after
        if row.size <= after and row.digest != self._digest_of(jobs[: row.size - self._count]):
            raise WrongBatch(row.id, f"has other items among its first {row.size:,}", "give another id")
        if row.size > after and is_last:
            raise WrongBatch(row.id, f"has {row.size:,} items, and these are {after:,}", "give another id")
        if row.cancelled_at is not None and (is_last or not has_all):
            raise WrongBatch(row.id, f"was cancelled when it had {row.size:,} items", "give another id")
        if row.completed_at is not None and not has_all:
            raise WrongBatch(row.id, f"is complete with {row.size:,} items, and these are more", "give another id")
        return has_all and (not is_last or not row.is_open)

    async def _fed(self, part: BatchPart, jobs: Sequence[NewJob]) -> BatchRow:
        """Hand a part to the store; while that waits for room, say that more is to come."""
        store = self._app._store_now()
        self._app._expect_taking(self._task)
        # A job that waits for room may wait for itself: the worker that could make room is its own.
        feeding = asyncio.ensure_future(store.feed_batch(part, jobs, wait=not self._app._is_inside()))
        try:
            while not (await asyncio.wait([feeding], timeout=BEAT_SECONDS))[0]:
                await self._beat()
        except BaseException:
            feeding.cancel()
            await asyncio.wait([feeding])
            if not feeding.cancelled():
                feeding.exception()  # it is seen
            with suppress(Exception):  # the store has taken all of the part or none: only the batch says which
                self._row = await to_its_end(store.batch(part.batch))
            raise
        return feeding.result()

    async def _beat(self, feed_seconds: float = FEED_SECONDS) -> None:
        """Say that more is to come within so many seconds."""
        row = self._row
        if row is not None and row.is_open:
            part = BatchPart(
                batch=row.id,
                task=row.task,
                first=row.size,
                digest=row.digest,
                is_last=False,
                feed_seconds=feed_seconds,
            )
            self._row = await self._app._store_now().feed_batch(part, [])

    async def _leave_off(self, error: BaseException) -> None:
        """Say that no more comes from here, and what can be done about it."""
        with suppress(Exception):
            await to_its_end(self._beat(0.0))
        row = self._row
        if row is None or not row.is_open:
            return
        told = (
            f"batch {row.id!r} has {row.size:,} items and is not complete: go on with the same items, "
            f"await task.map(items, id={row.id!r}), or cancel it, await (await app.jobs.batch({row.id!r})).cancel()"
        )
        if is_meant_for_us(error):
            logger.warning("map of %s was cancelled: %s", self._task.name, told)
        else:
            error.add_note(told)


class _Pull:
    """Pulls items out of an async iterable, in one task of its own, no more ahead than one part.

    Args:
        items: The iterable.
        size: How many items a part has.
    """

    def __init__(self, items: AsyncIterable[Any], size: int) -> None:
        self._items, self._size = items, size
        self._found: deque[Any] = deque()
        self._news, self._room = asyncio.Event(), asyncio.Event()
        self._pulling = asyncio.ensure_future(self._pull())

    async def _pull(self) -> None:
        iterator = aiter(self._items)
        turned = elapsed()
        try:
            async for item in iterator:
                self._found.append(item)
                if len(self._found) == 1 or len(self._found) >= self._size:
                    self._news.set()
                while len(self._found) >= self._size:
                    self._room.clear()
                    await self._room.wait()
                if elapsed() - turned >= LOOP_SECONDS:  # an iterator that never waits must not hold the loop
                    await asyncio.sleep(0)
                    turned = elapsed()
        finally:
            self._news.set()
            if hasattr(iterator, "aclose"):
                await iterator.aclose()

    async def take(self) -> tuple[list[Any], bool]:
        """Return the next items, and whether there are no more; none, when none came for a while.

        Raises:
            Exception: What the iterable raises, after the items before it.
        """
        if not self._found:
            await self._wait(BEAT_SECONDS)
        if self._found and len(self._found) < self._size:
            await self._wait(FLUSH_SECONDS)
        found = [self._found.popleft() for _ in range(min(self._size, len(self._found)))]
        self._room.set()
        is_last = self._pulling.done() and not self._found
        if is_last and not found:
            self._pulling.result()
        return found, is_last and not self._has_failed()

    async def _wait(self, timeout: float) -> None:
        """Wait for news, for so long at the most."""
        if not self._pulling.done():
            self._news.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._news.wait()

    def _has_failed(self) -> bool:
        return self._pulling.cancelled() or self._pulling.exception() is not None

    async def aclose(self) -> None:
        """End the task, and with it the iterable."""
        self._pulling.cancel()
        await asyncio.wait([self._pulling])
        if not self._pulling.cancelled():
            self._pulling.exception()  # it is seen
