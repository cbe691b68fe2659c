"""`map`, `amap`: a function over many items, in parallel, without losing their order, an error or a result.

sizes = await tickwork.map(measure, paths, run_in="process")
async for outcome in tickwork.amap(fetch, urls, workers=50): ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from .run import Batch
from .stream import Outcomes

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Coroutine, Iterable
    from typing import Unpack

    from ..errors import ItemError
    from .options import BatchOptions, OnError
    from .outcomes import Piece

T = TypeVar("T")
R = TypeVar("R")


@overload
async def map(
    fn: Callable[[T], Coroutine[Any, Any, R]],
    items: Iterable[T] | AsyncIterable[T],
    *,
    on_error: Literal["raise", "skip"] = "raise",
    **options: Unpack[BatchOptions],
) -> list[R]: ...
@overload
async def map(
    fn: Callable[[T], Coroutine[Any, Any, R]],
    items: Iterable[T] | AsyncIterable[T],
    *,
    on_error: Literal["collect"],
    **options: Unpack[BatchOptions],
) -> list[R | ItemError]: ...
@overload
async def map(
    fn: Callable[[T], R],
    items: Iterable[T] | AsyncIterable[T],
    *,
    on_error: Literal["raise", "skip"] = "raise",
    **options: Unpack[BatchOptions],
) -> list[R]: ...
@overload
async def map(
    fn: Callable[[T], R],
    items: Iterable[T] | AsyncIterable[T],
    *,
    on_error: Literal["collect"],
    **options: Unpack[BatchOptions],
) -> list[R | ItemError]: ...
async def map(
    fn: Callable[[Any], Any],
    items: Iterable[Any] | AsyncIterable[Any],
    *,
    on_error: OnError = "raise",
    **options: Unpack[BatchOptions],
) -> list[Any]:
    """Call a function with each item, in parallel, and return the results in the order of the items.

    An item runs again when the process that ran its chunk dies or is killed before the results have come back; so an
    item may run twice, and one that has come back does not.

    Args:
        fn: Takes one item. A plain function runs in a thread, unless `run_in` says otherwise.
        items: A list, any iterable, or an async one; taken as they are needed.
        on_error: What becomes of an item that fails for good. "raise": what it raised is raised here, and the rest is
            cancelled. "collect": an `ItemError` stands in its place. "skip": it is left out, and the log says so.
        **options: See `BatchOptions`.

    Raises:
        InvalidOption: An option is wrong.
        NotImportable: The function is for a process, which cannot import it.
        Exception: What the function raised, with a note that names the item; what `items` raises, after what was taken
            from it has ended.

    Cancelling it ends what it has started: child processes are killed, a thread ends when its item does. No result is
    kept.
    """
    batch = Batch(fn, items, on_error, options)
    pieces: list[Piece] = []

    async def keep(piece: Piece) -> None:
        pieces.append(piece._replace(items=()))  # nobody asks for them any more, and they may be large
        if piece.errors and on_error == "raise":
            raise next(iter(piece.errors.values())).original()

    await batch.run(keep)
    pieces.sort(key=lambda piece: piece.first)
    results: list[Any] = []
    for piece in pieces:
        results += _results(piece, on_error)
    return results


def _results(piece: Piece, on_error: OnError) -> list[Any]:
    if not piece.errors:
        return piece.values
    if on_error == "skip":
        return [value for place, value in enumerate(piece.values) if place not in piece.errors]
    return [piece.errors.get(place, value) for place, value in enumerate(piece.values)]


@overload
def amap(
    fn: Callable[[T], Coroutine[Any, Any, R]],
    items: Iterable[T] | AsyncIterable[T],
    *,
    ordered: bool = True,
    on_error: OnError = "raise",
    **options: Unpack[BatchOptions],
) -> Outcomes[T, R]: ...
@overload
def amap(
    fn: Callable[[T], R],
    items: Iterable[T] | AsyncIterable[T],
    *,
    ordered: bool = True,
    on_error: OnError = "raise",
    **options: Unpack[BatchOptions],
) -> Outcomes[T, R]: ...
def amap(
    fn: Callable[[Any], Any],
    items: Iterable[Any] | AsyncIterable[Any],
    *,
    ordered: bool = True,
    on_error: OnError = "raise",
    **options: Unpack[BatchOptions],
) -> Outcomes[Any, Any]:
    """Call a function with each item, in parallel, and hand out what becomes of them while the others run.

        async for outcome in tickwork.amap(fetch, urls):
            print(outcome.item, outcome.value)

    Only a bounded number of items is taken in advance, so `items` may be endless. Leaving the loop early cancels what
    is under way; `async with amap(...) as outcomes` waits until it has ended.

    Args:
        fn: As in `map`.
        items: Likewise.
        ordered: In the order of the items; False: as they end.
        on_error: "raise": what an item raised is raised at its turn, and the rest is cancelled. "collect": its outcome
            has an `error`. "skip": it is left out, and the log says so.
        **options: See `BatchOptions`.

    Raises:
        InvalidOption: An option is wrong.
        NotImportable: The function is for a process, which cannot import it.
    """
    return Outcomes(Batch(fn, items, on_error, options), ordered=ordered)
