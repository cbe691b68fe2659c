"""What is said to a child in a call, and what its answer means here: a value or an error."""

from __future__ import annotations

import contextlib
import inspect
import io
import pickle
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import InvalidOption, InvalidPayload, NotImportable, RemoteError, RemoteTraceback
from . import wire
from .child import Told
from .reference import main_module, reference, task_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# What became of a call that did not come to its function, or not back from it, by the stage where it ended.
_LOST_PAYLOADS = {
    "arguments": "they cannot be unpickled in the {place}: {kind}: {message}",
    "context variables": "they cannot be set in the {place}: {kind}: {message}",
    "result": "a {kind} cannot be pickled in the {place}: {message}",
}

CHILD = "child process"
"""Where a call has been, in messages."""


def look_up(fn: Callable[..., Any]) -> tuple[tuple[Any, ...], str]:
    """Return where a child finds a function, and its name for messages."""
    name = task_name(fn)
    where = reference(fn)
    plain = getattr(fn, "fn", fn)
    if inspect.iscoroutinefunction(plain) or inspect.isasyncgenfunction(plain):
        raise InvalidOption("function", "a plain function", name, remedy="async ones run in the loop")
    return tuple(where), name


def encode_call(
    name: str,
    where: tuple[Any, ...],
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
    context: dict[str, Any] | None,
    variables: bytes | None = None,
    *,
    listening: bool,
) -> list[wire.Piece]:
    """Return the frame of a call. `variables` are those of `Variables.packed`.

    Raises:
        InvalidPayload: Something cannot be pickled; it is named.
    """
    args, kwargs = tuple(args), dict(kwargs or {})
    encode = wire.encode_small if wire.is_small(args) and wire.is_small(kwargs.values()) else wire.encode
    try:
        return encode(wire.CALL, (where, args, kwargs, context, variables, listening))
    except Exception as error:
        raise unpicklable(name, (args, kwargs, context), error, partial(wire.encode, wire.CALL)) from error


def unpicklable(
    name: str,
    payload: tuple[tuple[Any, ...], dict[str, Any], dict[str, Any] | None],
    error: Exception,
    encode: Callable[[Any], object],
    place: str = CHILD,
) -> InvalidPayload:
    """Return the error that names what cannot be pickled of a call.

    Args:
        name: The function's.
        payload: Its positional and keyword arguments, and the context that goes with them.
        error: What pickling all of it has raised.
        encode: What pickles; it is tried with each.
        place: Where they were to go.
    """
    what, value, cause = _culprit(*payload, encode) or ("arguments", payload[0], error)
    reason = f"a {type(value).__qualname__} cannot be pickled for a {place}: {cause}"
    return InvalidPayload(f"{what} of {name}", reason)


def _culprit(
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    context: dict[str, Any] | None,
    encode: Callable[[Any], object],
) -> tuple[str, Any, Exception] | None:
    """Return what cannot be pickled even alone, and why: its place, the value, the error."""
    entries = [(f"argument {number}", value) for number, value in enumerate(args, 1)]
    entries += [(f"argument {key!r}", value) for key, value in kwargs.items()]
    for what, value in [*entries, ("context", context)]:
        try:
            encode(value)
        except Exception as error:
            return what, value, error
    return None


def outcome(answer: wire.Frame, fn: object, name: str, place: str = CHILD) -> Any:
    """Return the value that an answer carries, or raise its error. `place` is what messages call where it was."""
    if answer.kind != wire.FAILURE:
        try:
            return load(answer)
        except Exception as failure:
            reason = f"it cannot be unpickled: {type(failure).__qualname__}: {failure}"
            raise InvalidPayload(f"result of {name}", reason) from failure
    stage, kind, message, text, pickled = load(answer)
    error = (
        lost_payload(stage, name, kind, message, place)
        if stage in _LOST_PAYLOADS
        else raised(name, Told(kind, message, text, pickled), answer.flags)
    )
    if stage == "import":
        error = not_imported(fn, Told(kind, message, text, pickled), place)
    raise error from RemoteTraceback(text)


def not_imported(fn: object, told: Told, place: str = CHILD) -> NotImportable:
    """Return the error of a function that its child could not import."""
    error = _original(told.pickled, wire.MAIN_LOADED)
    if isinstance(error, NotImportable):
        return error
    remedy = "its module must be importable in a fresh interpreter"
    return NotImportable(fn, f"its {place} got {told.kind}: {told.message}", remedy=remedy)


def lost_payload(stage: str, name: str, kind: str, message: str, place: str = CHILD) -> Exception:
    """Return the error of arguments or a result that did not come through."""
    reason = _LOST_PAYLOADS[stage].format(kind=kind, message=message, place=place)
    return InvalidPayload(f"{stage} of {name}", reason)


def raised(name: str, told: Told, flags: int = wire.MAIN_LOADED) -> Exception:
    """Return what a function raised in a child: the exception itself, or one that tells of it."""
    return _original(told.pickled, flags) or RemoteError(name, told.kind, told.message, told.text)


def load_beside(body: bytes, buffers: Sequence[memoryview]) -> Any:
    """Return a value that was pickled by a function in a child, with the buffers that it sent beside it."""
    return _loads(body, wire.MAIN_LOADED, buffers)


def load(frame: wire.Frame) -> Any:
    """Return the value that a frame carries."""
    body, buffers = frame.split()
    return _loads(body, frame.flags, buffers)


def _loads(body: memoryview | bytes, flags: int, buffers: Sequence[memoryview] = ()) -> Any:
    if flags & wire.MAIN_LOADED:
        # BytesIO copies what is no `bytes`, which for a large result would hold the loop as long as unpickling does.
        file = io.BytesIO(body) if len(body) < wire.MAPPED_BYTES else _View(memoryview(body))
        return _MainUnpickler(file, buffers=buffers).load()
    return pickle.loads(body, buffers=buffers)


class _View:
    """A file over memory, for the unpickler, which copies what it reads to where it belongs."""

    def __init__(self, view: memoryview) -> None:
        self._view, self._at = view, 0

    def read(self, size: int) -> bytes:
        """Return the next bytes."""
        start, self._at = self._at, self._at + size
        return bytes(self._view[start : self._at])

    def readinto(self, target: memoryview) -> int:
        """Fill memory with the next bytes, and return how many there were."""
        source = self._view[self._at : self._at + len(target)]
        target[: len(source)] = source
        self._at += len(source)
        return len(source)

    def readline(self) -> bytes:
        """Return the next bytes up to a line's end; no pickle of protocol 5 has one."""
        end = self._at
        while end < len(self._view) and self._view[end] != ord("\n"):
            end += 1
        return self.read(end + 1 - self._at)


class _MainUnpickler(pickle.Unpickler):
    """Finds what the child knows under the script's own name where it is in this process: in `__main__`."""

    def find_class(self, module: str, name: str) -> Any:
        return find_in_main(super().find_class, module, name)


def find_in_main(find: Callable[[str, str], Any], module: str, name: str) -> Any:
    """Return what `find` finds, in `__main__` for what a child knows under the script's own name."""
    known = main_module()
    if known is not None and known[0] == module:
        with contextlib.suppress(AttributeError):
            return find("__main__", name)
    return find(module, name)


def _original(pickled: Any, flags: int) -> Exception | None:
    """Return the exception of the child, or None where it cannot be had or must not be raised here.

    SystemExit and KeyboardInterrupt would end this process, CancelledError would look like a cancellation,
    and a coroutine cannot raise StopIteration.
    """
    try:
        error = _loads(pickled, flags)
    except Exception:  # it also is None where the child could not pickle it
        return None
    if not isinstance(error, Exception) or isinstance(error, StopIteration | StopAsyncIteration):
        return None
    return error
