"""What runs a chunk of items where the function runs: item by item, in a child process, a thread or an executor.

A child process loads this module: it imports as little as `runners/child.py` does.
"""

from __future__ import annotations

import pickle
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, NamedTuple

from ..elapsed import elapsed, elapsed_ns
from ..runners import child
from ..runners.child import Told, told_of

if TYPE_CHECKING:
    from collections.abc import Callable, MutableSequence, Sequence

BEFORE = -1
"""The position before the first item."""


class Ran(NamedTuple):
    """What became of the items of a chunk that were run, in their order. Fewer than the chunk has: time was up.

    Attributes:
        values: What the function returned; None where it raised.
        failures: What it raised, each with the place of its item.
        seconds: How long they took.
    """

    values: list[Any]
    failures: list[tuple[int, BaseException]]
    seconds: float


def run_items(
    fn: Callable[[Any], Any],
    items: Sequence[Any],
    seconds: float,
    ran: Ran,
    position: MutableSequence[int] | memoryview[int] | None = None,
    is_timed: bool = False,
) -> Ran:
    """Call a function with one item after the other, until `seconds` are over; at least one is run.

    Args:
        fn: Takes one item.
        items: The chunk.
        seconds: After so many no further item is begun.
        ran: Empty; what is added to it is there for others to see as the work goes on.
        position: Where it stands is written there: the place of the item under way, and with `is_timed` when it began,
            in nanoseconds.
        is_timed: See above. A reader must look at the first number first: the second is written before it.
    """
    values, failures, _ = ran
    began = elapsed()
    until = began + seconds
    for place, item in enumerate(items):
        if position is not None:
            if is_timed:
                position[1] = elapsed_ns()
            position[0] = place
        try:
            values.append(copy_context().run(fn, item))  # what it sets there is not the next one's affair
        except BaseException as error:  # SystemExit too: how a function ends is its item's affair
            failures.append((place, error))
            values.append(None)
        if elapsed() >= until:
            break
    return Ran(values, failures, elapsed() - began)


def run_chunk(
    where: tuple[Any, ...], items: Sequence[Any], seconds: float, is_timed: bool
) -> tuple[bytes | None, list[Any], list[tuple[int, Told, bool]] | Told, float]:
    """Run a chunk in a child process; see `run_items`.

    Returns:
        The values, pickled here, so that one that cannot be is found by its place; the large buffers that go beside
        them; the failures, each with whether it is the result that could not be pickled; the seconds. Instead of the
        values None, and what the import of the function raised, when it did.
    """
    try:
        fn = child.function(where)
    except BaseException as error:
        return None, [], told_of(error), 0.0
    position = child.position()
    ran = run_items(fn, items, seconds, Ran([], [], 0.0), position, is_timed)
    if position is not None:
        position[0] = BEFORE  # what kills the process from here on is no item's call
    failures = [(place, told_of(error), False) for place, error in ran.failures]
    buffers: list[pickle.PickleBuffer] = []

    def dumps(value: Any) -> bytes:
        buffers.clear()
        return pickle.dumps(value, 5, buffer_callback=buffers.append)

    body = _pickled(ran.values, failures, dumps)
    return body, buffers, failures, ran.seconds


def run_away(
    fn: Callable[[Any], Any], items: Sequence[Any], seconds: float
) -> Ran | tuple[bytes, list[tuple[int, Told, bool]], float]:
    """Run a chunk in an executor; see `run_items`.

    Returns:
        Where it has travelled: the values, pickled; the failures, each with whether it is the result that could not be
        pickled; the seconds.
    """
    ran = run_items(fn, items, seconds, Ran([], [], 0.0))
    away = child.away()
    if away is None:
        return ran
    failures = [(place, away.told_of(error), False) for place, error in ran.failures]
    return _pickled(ran.values, failures, away.dumps), failures, ran.seconds


def _pickled(values: list[Any], failures: list[tuple[int, Told, bool]], dumps: Callable[[Any], bytes]) -> bytes:
    """Return the values pickled, without those that cannot be: they are among the failures then."""
    try:
        return dumps(values)
    except Exception:
        for place, value in enumerate(values):
            try:
                dumps(value)
            except Exception as error:
                told = told_of(error)
                name = type(value).__qualname__
                failures.append((place, told._replace(kind=name, pickled=None), True))
                values[place] = None
        failures.sort(key=lambda failure: failure[0])
        return dumps(values)
