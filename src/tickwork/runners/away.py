"""What runs in the process of an executor: a call that has arrived there, and how its answer goes back.

The other half, which sends it, is executor.py. Here nothing is left to the executor that it may get wrong: a result or
an exception that cannot be pickled breaks a `ProcessPoolExecutor` and is waited for in vain on a Dask cluster, and a
SystemExit ends a worker there. So the answer is pickled here, and always can be.

Like child.py it is loaded where somebody waits for it, and imports as little.
"""

from __future__ import annotations

import pickle
import sys
from collections import deque
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from . import child, wire
from .child import Told, _class_name, told_of
from .reference import Reference, resolve

if TYPE_CHECKING:
    from collections.abc import Callable

    Where = tuple[Any, ...]


class Answer(NamedTuple):
    """What became of a call.

    Attributes:
        kind: `wire.RESULT` or `wire.FAILURE`.
        body: The pickle that a frame of this kind carries.
        notes: What the function has told: the newest of each kind, pickled.
    """

    kind: int
    body: bytes
    notes: dict[str, bytes]


class Notes:
    """What goes back from where nobody hears of a function before the answer: with that, the newest note of each kind.

    Attributes:
        context: What was given with the call.
        kept: The newest of each kind, pickled.
    """

    def __init__(self, by_value: Callable[[Any], bytes] | None) -> None:
        self.context: dict[str, Any] | None = None
        self.kept: dict[str, bytes] = {}
        self._by_value = by_value
        self._waiting: deque[Callable[[], None]] = deque()

    def dumps(self, value: Any) -> bytes:
        """Return the pickle of what goes back.

        Raises:
            Exception: Whatever pickling `value` raises.
        """
        return dumps(value, self._by_value)

    def told_of(self, error: BaseException) -> Told:
        """Return what goes back of an error; see `child.told_of`."""
        told = told_of(error)
        if told.pickled is None and self._by_value is not None:
            with suppress(Exception):
                told = told._replace(pickled=self._by_value(error))
        return told

    def soon(self, send: Callable[[], None]) -> None:
        """Call a function that sends a note, before the answer."""
        self._waiting.append(send)

    def notify(self, kind: str, value: Any) -> None:
        """Keep a note in the place of an earlier one of its kind."""
        self.kept[kind] = pickle.dumps(value, 5)

    def close(self) -> None:
        """Let all notes be sent that wait."""
        while self._waiting:
            self._waiting.popleft()()


@dataclass(frozen=True, slots=True)
class Arrived:
    """A call of a function in the process of an executor. Calling it calls the function.

    Attributes:
        name: The name of the function. Dask groups by it what it shows.
        where: Where the function is found; see `function`.
        payload: Arguments, keyword arguments and context, pickled.
        is_by_value: Whether what cannot be found by name goes back by value, as it came.
    """

    name: str
    where: Where
    payload: bytes
    is_by_value: bool

    @property
    def __name__(self) -> str:
        return self.name

    def __call__(self) -> Answer:
        """Call the function; never raises."""
        return copy_context().run(self._run)

    def _run(self) -> Answer:
        notes = Notes(_by_value(self.is_by_value))
        stage, result = "arguments", None
        try:
            args, kwargs, notes.context = pickle.loads(self.payload)
            stage = "import"
            called = function(self.where)
            stage = "call"
            child.go_away(notes)
            try:
                result = called(*args, **kwargs)
            finally:
                notes.close()
            stage = "result"
            return Answer(wire.RESULT, notes.dumps(result), notes.kept)
        except BaseException as error:  # SystemExit too: how a function ends is its job's affair, not the worker's
            told = notes.told_of(error)
            if stage == "result":
                told = told._replace(kind=_class_name(type(result)), pickled=None)
            return Answer(wire.FAILURE, pickle.dumps((stage, *told), 5), notes.kept)


@dataclass(frozen=True, slots=True)
class Nothing:
    """Stands for a call that could not be pickled: the executor must not have to deal with that."""

    def __call__(self) -> None:
        """Do nothing."""


def function(where: Where) -> Callable[..., Any]:
    """Return a function by its reference, or from its pickle where that is all there is: `(pickled,)`."""
    if len(where) == 1:
        return pickle.loads(where[0])  # type: ignore[no-any-return]
    return resolve(Reference(*where))


def dumps(value: Any, by_value: Callable[[Any], bytes] | None) -> bytes:
    """Return a pickle; what other processes cannot find by name is taken by value where `by_value` can do that.

    Raises:
        Exception: Whatever pickling `value` raises.
    """
    try:
        pickled = pickle.dumps(value, 5)
    except Exception:
        if by_value is None:
            raise
        return by_value(value)
    # What the script defines is pickled by the name `__main__`, and that is another script elsewhere.
    return by_value(value) if by_value is not None and b"__main__" in pickled else pickled


def _by_value(is_wanted: bool) -> Callable[[Any], bytes] | None:
    cloudpickle = sys.modules.get("cloudpickle") if is_wanted else None
    return None if cloudpickle is None else cloudpickle.dumps
