"""What a chunk has given in another process, as it arrives here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import InvalidPayload, RemoteTraceback
from ..runners.calls import load_beside, lost_payload, raised
from .places import Ended

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..runners.child import Told


def unpacked(
    name: str,
    body: bytes,
    buffers: Sequence[memoryview],
    told: Sequence[tuple[int, Told, bool]],
    seconds: float,
    *,
    count: int,
    where: str = "child process",
) -> Ended:
    """Return the end of a chunk.

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
        if count > 1:
            return Ended(is_unclear=True)
        reason = f"it cannot be unpickled: {type(error).__qualname__}: {error}"
        return Ended([None], [(0, InvalidPayload(f"result of {name}", reason))])
    return Ended(values, failures, seconds)
