"""Work that must not be cut off in the middle."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


async def to_its_end(work: Awaitable[T], *, on_cancel: Callable[[], object] | None = None) -> T:
    """Await `work` to its end even when this is cancelled, and raise the cancellation then.

    For what cannot be left half done: a rename under way cannot be called back, and a stop that is cut off leaves
    workers behind. So it is for work that is bounded, or that `on_cancel` makes quick.

    Args:
        work: A coroutine or a future.
        on_cancel: Called at each cancellation.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.done() and task.cancelled():
                continue  # the work cancelled itself
            cancelled = error  # also when the work was done at the same moment
            if on_cancel is not None and not task.done():
                on_cancel()
        except Exception:
            pass
    if cancelled is not None:
        raise cancelled from (None if task.cancelled() else task.exception())
    return task.result()


def is_meant_for_us(error: BaseException) -> bool:
    """Return whether an exception caught around an await ends this task: its cancellation, or Ctrl-C.

    Anything else came from what was awaited, whatever its class: a `CancelledError` that nobody asked for included.
    """
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is None or task.cancelling() > 0
    return isinstance(error, KeyboardInterrupt | GeneratorExit)
