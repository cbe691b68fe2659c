"""Run functions in any `concurrent.futures.Executor`: one of the standard library, or a cluster's.

    run ── Errand ──► executor.submit ──► the same thread pool: the function is called as it is
                           │
                           └── pickled ──► Arrived (away.py) in another process ── Answer ──► value or error

An errand finds out by itself whether it travels: an executor that pickles it gets something else in its place, with
the function by reference and the arguments pickled here, so that what cannot be pickled is named and never reaches the
executor. What comes back is pickled there in the same way. An executor of threads pickles nothing, and everything is
passed as it is.

The executor belongs to the user: nothing here shuts it down. `submit` is called in the event loop and must not block;
the end of a call comes by a callback, so that no thread waits for it.
"""

from __future__ import annotations

import asyncio
import pickle
import sys
from concurrent.futures import BrokenExecutor
from contextlib import suppress
from functools import partial
from inspect import isasyncgenfunction, iscoroutinefunction
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from ..elapsed import elapsed
from ..errors import ExecutorFailed, ExecutorProcessDied, InvalidOption, NotImportable, RemoteError
from . import wire
from .away import Answer, Arrived, Nothing, dumps
from .calls import outcome, unpicklable
from .child import told_of
from .reference import MAIN_NAMES, reference, task_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Executor, Future
    from contextvars import Context

    from .away import Where
    from .children import Listener
    from .thread import Ended

__all__ = ["Errand", "ExecutorRunner"]

PLACE = "process of the executor"

NEW_ONE = "give a new executor"


class ExecutorRunner:
    """Runs plain functions in an executor.

    It belongs to no event loop, each call to the one that makes it. Whoever calls limits how many are under way.

    Args:
        executor: Any `concurrent.futures.Executor`. It is not shut down.
    """

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self._can_take_code = _can_take_code(executor)

    async def run(
        self,
        fn: Callable[..., Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        describe: str | None = None,
        context: dict[str, Any] | None = None,
        on_message: Listener | None = None,
    ) -> Any:
        """Call `fn(*args, **kwargs)` in the executor and return what it returns.

        Cancelled, it takes the call back where the executor can do that. A function that runs already is not stopped:
        its result is given up.

        Args:
            fn: A plain function, or a task, which stands for its function. Where it travels, it is found by its name;
                executors with cloudpickle (Dask, loky) also take lambdas, and what the script itself defines.
            args: The positional arguments. Where they travel: anything that can be pickled.
            kwargs: The keyword arguments.
            describe: The name for error messages; by default "module.qualname".
            context: What `child.current_context()` returns in the function, where that has travelled.
            on_message: Called in the loop, when the call has ended, with the newest of each kind that the function has
                told with `child.notify(kind, value)` where it has travelled.

        Raises:
            NotImportable: The name of `fn` does not lead to it, here or there.
            InvalidOption: `fn` is an async function.
            InvalidPayload: An argument or the result cannot be pickled or unpickled.
            ExecutorProcessDied: A process of the executor ended; the function may have done its work or a part.
            ExecutorFailed: The executor takes no calls, or gave this one up.
            RemoteError: The function raised something that cannot be raised here, such as SystemExit.
            Exception: What the function raises; from another process with its traceback there as `__cause__`.
        """
        errand = self.start(fn, args, kwargs, describe=describe, context=context, on_message=on_message)
        try:
            value, error = await errand.end
        except asyncio.CancelledError:
            errand.cancel()
            raise
        if error is not None:
            raise error
        return value

    def start(
        self,
        fn: Callable[..., Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        describe: str | None = None,
        context: dict[str, Any] | None = None,
        on_message: Listener | None = None,
        variables: Context | None = None,
        label: str | None = None,
    ) -> Errand:
        """Start a call, as `run` does. Where the function does not travel, it sees these context variables.

        Dask shows it under the label; by default that is "module.qualname".

        Raises:
            InvalidOption: `fn` is an async function.
            ExecutorFailed: The executor takes no calls.
        """
        errand = Errand(
            fn,
            tuple(args),
            dict(kwargs or {}),
            name=describe or task_name(fn),
            label=label or task_name(fn),
            context=context,
            on_message=on_message,
            variables=variables,
            can_take_code=self._can_take_code,
        )
        try:
            future = self.executor.submit(errand)
        except Exception as error:
            raise _refused(errand.name, error) from error
        errand.follow(future)
        return errand

    def carried(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Return what stands for a function among the arguments of a call: it arrives as the function.

        Raises:
            NotImportable: No name leads to it. Where only pickling it tells that it travels, that raises it.
            InvalidOption: It is an async function.
        """
        fn = _plain(fn)
        if _is_known(self.executor, "process"):
            reference(fn)
        return _Carried(fn, self._can_take_code)


class _Here(NamedTuple):
    """What became of a call that has not travelled."""

    value: Any
    error: BaseException | None


class Errand:
    """One call on its way to an executor, which calls it or pickles it.

    Attributes:
        name: What messages call the function.
        end: What became of it: value and exception. Cancelling it cancels nothing else.
        packing_seconds: How long it took to pickle it; 0 where it has not travelled.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        name: str,
        label: str,
        context: dict[str, Any] | None,
        on_message: Listener | None,
        variables: Context | None,
        can_take_code: bool,
    ) -> None:
        self._fn = _plain(fn)
        self._args, self._kwargs = args, kwargs
        self.name = name
        self.__name__ = label  # Dask groups by it what it shows, and never forgets a group
        self._context, self._on_message, self._variables = context, on_message, variables
        self._can_take_code = can_take_code
        self._refusal: Exception | None = None
        self.packing_seconds: float = 0.0
        self._future: Future[Any]
        self._loop = asyncio.get_running_loop()
        self.end: asyncio.Future[Ended] = self._loop.create_future()

    def cancel(self) -> bool:
        """Take the call back, and return whether the executor says that it will not be waited for.

        False: it runs already, and `end` tells how it ends. A Dask cluster says True in that case too, and lets the
        function run on.
        """
        return self._future.cancel()

    # -- what the executor does with it -----------------------------------------------------------------------------

    def __call__(self) -> _Here:
        """Call the function, in the executor's thread; never raises."""
        run = self._fn if self._variables is None else partial(self._variables.run, self._fn)
        try:
            return _Here(run(*self._args, **self._kwargs), None)
        except BaseException as error:
            return _Here(None, error)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as a call whose parts are pickled already. What cannot be pickled is no affair of the executor's."""
        self._refusal = None
        began = elapsed()
        try:
            where = _where(self._fn, self._can_take_code)
            return Arrived, (self.__name__, where, self._payload(), self._can_take_code)
        except Exception as error:
            self._refusal = error
            return Nothing, ()
        finally:
            self.packing_seconds += elapsed() - began

    def __dask_tokenize__(self) -> str:
        """Be like no other call: to Dask, calls of one function with the same arguments are one call."""
        return uuid4().hex

    def _payload(self) -> bytes:
        payload = (self._args, self._kwargs, self._context)
        by_value = _cloudpickle().dumps if self._can_take_code else None
        try:
            return dumps(payload, by_value)
        except NotImportable:
            raise  # it names a function that is carried
        except Exception as error:
            raise unpicklable(self.name, payload, error, partial(dumps, by_value=by_value), PLACE) from error

    # -- its end ----------------------------------------------------------------------------------------------------

    def follow(self, future: Future[Any]) -> None:
        """Be told of the end by the executor's future."""
        self._future = future
        future.add_done_callback(self._hear)

    def _hear(self, future: Future[Any]) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._deliver, future)

    def _deliver(self, future: Future[Any]) -> None:
        if self.end.done():
            return
        try:
            ended = self._ended(future)
        except BaseException as broken:  # an exception of the user's whose own methods raise, say
            ended = (None, ExecutorFailed(self.name, f"its end cannot be read: {type(broken).__qualname__}", NEW_ONE))
        self.end.set_result(ended)

    def _ended(self, future: Future[Any]) -> Ended:
        if future.cancelled():
            remedy = NEW_ONE + " if it was shut down or has lost its cluster"
            return None, ExecutorFailed(self.name, "it has cancelled the call", remedy)
        if (error := future.exception()) is not None:
            return None, _translated(self.name, error)
        if self._refusal is not None:
            return None, self._refusal
        answer = future.result()
        if isinstance(answer, Answer):
            return self._read(answer)
        if isinstance(answer, _Here):
            return answer.value, _raisable(self.name, answer.error)
        return None, ExecutorFailed(self.name, f"it gave a {type(answer).__qualname__} for it", NEW_ONE)

    def _read(self, answer: Answer) -> Ended:
        if self._on_message is not None:
            for kind, note in answer.notes.items():
                try:
                    self._on_message(kind, pickle.loads(note))
                except Exception as error:
                    about = {"message": f"a note of {self.name!r} could not be delivered", "exception": error}
                    self._loop.call_exception_handler(about)
        try:
            return outcome(wire.Frame(answer.kind, 0, 0, answer.body), self._fn, self.name, PLACE), None
        except Exception as error:
            return None, error


class _Carried:
    """A function among the arguments of a call."""

    def __init__(self, fn: Callable[..., Any], can_take_code: bool) -> None:
        self._fn, self._can_take_code = fn, can_take_code

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._fn(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        from .away import function

        return function, (_where(self._fn, self._can_take_code),)


def _plain(fn: Any) -> Callable[..., Any]:
    """Return the function for which a task stands.

    Raises:
        InvalidOption: It is an async one, or none.
    """
    plain = fn
    while getattr(type(plain), "__tickwork_task__", False):
        plain = plain.fn
    if not callable(plain):
        raise InvalidOption("function", "a plain function", fn)
    if iscoroutinefunction(plain) or isasyncgenfunction(plain):
        raise InvalidOption("function", "a plain function", task_name(plain), remedy="async ones run in the loop")
    return plain  # type: ignore[no-any-return]


def _where(fn: Callable[..., Any], can_take_code: bool) -> Where:
    """Return where a function is found elsewhere; see `away.function`.

    Raises:
        NotImportable: Nowhere, and it cannot go there by value.
    """
    if not can_take_code:
        return tuple(reference(fn))
    if getattr(fn, "__module__", None) not in MAIN_NAMES:  # the script is another one there
        with suppress(NotImportable):
            return tuple(reference(fn))
    try:
        return (_cloudpickle().dumps(fn),)
    except Exception as error:
        remedy = "define it at the top level of a module that the workers can import"
        raise NotImportable(fn, f"nor be sent by value: {type(error).__qualname__}: {error}", remedy=remedy) from error


def _can_take_code(executor: Executor) -> bool:
    """Return whether functions may go to an executor by value: what its workers run is not this program's script.

    The executors of the standard library only pass on names, and their processes know this program's script.
    """
    return "cloudpickle" in sys.modules and not _is_known(executor, "process", "thread", "interpreter")


def _is_known(executor: Executor, *kinds: str) -> bool:
    """Return whether it is one of the standard library's, without importing what nobody uses."""
    modules = {base.__module__ for base in type(executor).__mro__}
    return any(f"concurrent.futures.{kind}" in modules for kind in kinds)


def _cloudpickle() -> Any:
    return sys.modules["cloudpickle"]


def _refused(name: str, error: Exception) -> Exception:
    """Return the error of a call that was not taken. Nothing of it has run."""
    return ExecutorFailed(name, _in_words(error), NEW_ONE)


def _translated(name: str, error: BaseException) -> Exception:
    """Return the error of a call that the executor gave up. What the function raises does not come this way."""
    # Dask's own, by its name, because the module would have to be imported to ask for its class.
    is_death = isinstance(error, BrokenExecutor) or type(error).__name__ == "KilledWorker"
    told = ExecutorProcessDied(name, _in_words(error)) if is_death else ExecutorFailed(name, _in_words(error), NEW_ONE)
    told.__cause__ = error
    return told


def _raisable(name: str, error: BaseException | None) -> Exception | None:
    """Return what a function has raised in a thread, as something that can be raised where it is awaited."""
    if error is None or (isinstance(error, Exception) and not isinstance(error, StopIteration | StopAsyncIteration)):
        return error
    told = told_of(error)
    raised = RemoteError(name, told.kind, told.message, told.text)
    raised.__cause__ = error
    return raised


def _in_words(error: BaseException) -> str:
    try:
        return f"{type(error).__qualname__}: {error}"
    except Exception:
        return type(error).__qualname__
