"""What a chunk has given in another process, as it arrives here."""

from __future__ import annotations

from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from ..clock import outside
from ..errors import InvalidPayload, RemoteTraceback
from ..runners.calls import load_beside, lost_payload, raised
from ..runners.thread import ThreadRunner
from .places import Ended

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..runners.child import Told


async def unpacked(
    name: str,
    body: bytes,
    buffers: Sequence[memoryview],
    told: Sequence[tuple[int, Told, bool]],
    seconds: float,
    *,
    count: int,
    where: str = "child process",
) -> Ended:
    """Return the end of a chunk. It waits only where a value cannot be unpickled.

    Args:
        name: The name of the function.
        body: The values, pickled.
        buffers: What they have sent beside that.
        told: The failures, each with its place and whether it is the result that could not be pickled.
        seconds: How long it took.
        count: How many items the chunk had.
        where: The process it ran in, in words.
    """
    failures: list[tuple[int, BaseException]] = []
    for place, entry, is_result in told:
        problem = lost_payload("result", name, entry.kind, entry.message, where) if is_result else raised(name, entry)
        problem.__cause__ = RemoteTraceback(entry.text)
        failures.append((place, problem))
    try:
        values: list[Any] = load_beside(body, buffers)
    except Exception as error:
        if count == 1:
            return Ended([None], [(0, _lost_result(name, error))])
        saved = await _salvaged(body, buffers)
        if saved is None:
            return Ended(is_unclear=True)
        values, lost = saved
        failures += [(place, _lost_result(name, why)) for place, why in lost]
        failures.sort(key=lambda failure: failure[0])
    return Ended(values, failures, seconds)


async def _salvaged(body: bytes, buffers: Sequence[memoryview]) -> tuple[list[Any], list[tuple[int, Exception]]] | None:
    """Return the values that can be unpickled, and why the others cannot; None: it is no pickle of values.

    In a thread: it takes fifty times as long as to unpickle them at once.
    """
    from .salvage import salvage  # few batches need it

    threads = ThreadRunner()
    try:
        with outside():
            saved, problem = await threads.start(copy_context(), salvage, (body, buffers), {})
    finally:
        threads.close()
    return None if problem is not None else saved


def _lost_result(name: str, error: Exception) -> InvalidPayload:
    return InvalidPayload(f"result of {name}", f"it cannot be unpickled: {type(error).__qualname__}: {error}")
