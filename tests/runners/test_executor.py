"""Any executor of concurrent.futures: threads, which take everything as it is, and processes, to which it travels."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from multiprocessing import get_context, resource_tracker
from types import ModuleType
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tickwork.errors import (
    ExecutorFailed,
    ExecutorProcessDied,
    InvalidOption,
    InvalidPayload,
    NotImportable,
    ProcessDied,
    RemoteError,
    RemoteTraceback,
)
from tickwork.runners import child
from tickwork.runners.executor import ExecutorRunner

from . import functions
from .waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

colour: ContextVar[str] = ContextVar("colour", default="none")


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


@pytest.fixture
def away() -> Iterator[ExecutorRunner]:
    """Return a runner in a process of its own."""
    runner = ExecutorRunner(ProcessPoolExecutor(1, mp_context=get_context("spawn")))
    yield runner
    runner.executor.shutdown()
    del runner.executor
    gc.collect()  # it ends with calls that block, which a later test would be blamed for


@pytest.fixture(scope="module", autouse=True)
def tracker() -> Iterator[int]:
    """Return the pid of a process of the standard library's own, which outlives its executors."""
    resource_tracker.ensure_running()
    yield resource_tracker._resource_tracker._pid  # type: ignore[attr-defined]
    gc.collect()  # else it would remove semaphores that are still there
    resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def no_child_is_left(tracker: int) -> Iterator[None]:
    yield
    assert [process.pid for process in psutil.Process().children(recursive=True)] == [tracker]


async def caught_by(runner: ExecutorRunner, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Exception:
    """Return what a call raises."""
    try:
        value = await runner.run(fn, args, kwargs)
    except Exception as error:
        return error
    raise AssertionError(f"it returned {value!r}")


# -- threads


async def test_in_a_thread_everything_is_passed_as_it_is(threads: Executor) -> None:
    lock = threading.Lock()

    found = await ExecutorRunner(threads).run(lambda *args, **named: (args, named), (lock,), {"by": lock})

    assert found == ((lock,), {"by": lock})


async def test_in_a_thread_the_function_sees_the_context_variables(threads: Executor) -> None:
    colour.set("red")
    runner = ExecutorRunner(threads)

    errand = runner.start(colour.get, variables=copy_context())

    assert await errand.end == ("red", None)
    assert await runner.run(colour.get) == "none"


async def test_in_a_thread_an_error_is_raised_as_it_is(threads: Executor) -> None:
    raised = KeyError("as it is")

    def fail() -> None:
        raise raised

    assert await caught_by(ExecutorRunner(threads), fail) is raised


@pytest.mark.parametrize(
    "name", ["SystemExit", "KeyboardInterrupt", "GeneratorExit", "StopIteration", "CancelledError"]
)
async def test_what_would_mean_something_else_here_is_told(threads: Executor, name: str) -> None:
    error = await caught_by(ExecutorRunner(threads), functions.raise_by_name, name)

    assert isinstance(error, RemoteError)
    assert error.error_type.rpartition(".")[2] == name
    assert "in raise_by_name" in error.traceback


async def test_an_async_function_is_refused(threads: Executor) -> None:
    error = await caught_by(ExecutorRunner(threads), functions.coroutine_function)

    assert isinstance(error, InvalidOption)
    assert str(error) == (
        "function must be a plain function, got 'runners.functions.coroutine_function'; async ones run in the loop"
    )


async def test_a_call_that_waits_in_the_executor_is_taken_back(threads: Executor) -> None:
    runner, go = ExecutorRunner(threads), threading.Event()
    ran: list[int] = []
    first = asyncio.create_task(runner.run(go.wait))
    second = asyncio.create_task(runner.run(ran.append, (2,)))
    await asyncio.sleep(0)

    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    go.set()
    await first
    await runner.run(ran.append, (3,))

    assert ran == [3]


async def test_a_call_that_runs_is_given_up_and_runs_on(threads: Executor) -> None:
    runner, begun, go, ended = ExecutorRunner(threads), threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go.wait()
        ended.set()

    running = asyncio.create_task(runner.run(work))
    await asyncio.to_thread(begun.wait)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert not ended.is_set()
    go.set()
    await asyncio.to_thread(ended.wait)


async def test_an_executor_that_is_shut_down_is_told(threads: Executor) -> None:
    threads.shutdown()

    error = await caught_by(ExecutorRunner(threads), functions.same, 1)

    assert isinstance(error, ExecutorFailed)
    assert str(error) == (
        "the executor did not run 'runners.functions.same': RuntimeError: cannot schedule new futures after shutdown; "
        "give a new executor"
    )


async def test_an_executor_that_cancels_what_waits_is_told(threads: Executor) -> None:
    runner, begun, go = ExecutorRunner(threads), threading.Event(), threading.Event()

    def hold() -> bool:
        begun.set()
        return go.wait()

    running = asyncio.create_task(runner.run(hold, describe="running"))
    await wait_until(begun.is_set)
    waiting = asyncio.create_task(runner.run(go.wait, describe="waiting"))
    await asyncio.sleep(0)

    threads.shutdown(wait=False, cancel_futures=True)
    go.set()

    assert await running is True
    with pytest.raises(ExecutorFailed) as raised:
        await waiting
    assert str(raised.value) == (
        "the executor did not run 'waiting': it has cancelled the call; "
        "give a new executor if it was shut down or has lost its cluster"
    )


class Deaf(Executor):
    """Gives something else than the call gives."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result("something else")
        return future


async def test_an_executor_that_gives_something_else_is_told() -> None:
    error = await caught_by(ExecutorRunner(Deaf()), functions.same, 1)

    assert str(error) == (
        "the executor did not run 'runners.functions.same': it gave a str for it; give a new executor"
    )


def test_an_end_after_the_loop_is_closed_is_nobodys_affair(threads: Executor) -> None:
    go = threading.Event()

    async def leave() -> Future[Any]:
        errand = ExecutorRunner(threads).start(go.wait)
        return errand._future

    future = asyncio.run(leave())
    go.set()
    threads.shutdown()

    assert future.done()


# -- processes


@pytest.mark.blocks("the first call of a ProcessPoolExecutor starts its processes")
async def test_in_a_process_functions_go_by_reference_and_come_back_with_what_they_gave(away: ExecutorRunner) -> None:
    assert await away.run(functions.process_id) not in (0, os.getpid())
    assert await away.run(functions.echo, (1, b"2"), {"three": [3.0]}) == ((1, b"2"), {"three": [3.0]})
    assert await away.run(functions.tasked, (1,)) == 2  # type: ignore[arg-type]  # a stand-in for a task
    assert await away.run(functions.tasked.fn, (1,)) == 2
    assert await away.run(functions.decorated, (1,)) == 4
    assert await away.run(functions.Machine.built) == "Machine"
    assert await away.run(call, (away.carried(functions.tasked.fn), 1)) == 2
    assert await away.run(call, (away.carried(functions.decorated), 1)) == 4


def call(fn: Callable[[int], int], value: int) -> int:
    assert "Carried" not in type(fn).__name__
    return fn(value)


@pytest.mark.blocks("the first call of a ProcessPoolExecutor starts its processes")
async def test_what_cannot_travel_is_named_and_spoils_nothing(
    away: ExecutorRunner, threads: ThreadPoolExecutor
) -> None:
    lock = threading.Lock()
    gone = ModuleType("gone_elsewhere")
    exec("def fn(): ...", vars(gone))
    sys.modules["gone_elsewhere"] = gone

    errors = [
        await caught_by(away, functions.same, lock),
        await caught_by(away, functions.echo, 1, key=lock),
        await caught_by(away, lambda: 1),
        await caught_by(away, call, ExecutorRunner(threads).carried(lambda value: value), 1),
        await caught_by(away, functions.same, functions.Unreadable()),
        await caught_by(away, functions.return_generator),
        await caught_by(away, gone.fn),
    ]
    del sys.modules["gone_elsewhere"]

    told = """\
argument 1 of runners.functions.same: a lock cannot be pickled for a {place}: cannot pickle '_thread.lock' object
argument 'key' of runners.functions.echo: a lock cannot be pickled for a {place}: cannot pickle '_thread.lock' object
function '{here}.<lambda>' cannot be imported by name: it is a lambda; define it at the top level of a module
function '{here}.<lambda>' cannot be imported by name: it is a lambda; define it at the top level of a module
arguments of runners.functions.same: they cannot be unpickled in the {place}: ValueError: unreadable
result of runners.functions.return_generator: a generator cannot be pickled in the {place}: \
cannot pickle 'generator' object
function 'fn' cannot be imported by name: its {place} got ModuleNotFoundError: No module named 'gone_elsewhere'; \
its module must be importable in a fresh interpreter
"""
    here = "test_what_cannot_travel_is_named_and_spoils_nothing.<locals>"
    assert "".join(f"{error}\n" for error in errors) == told.format(place="process of the executor", here=here)
    assert [type(error) for error in errors[2:]] == [
        NotImportable,
        NotImportable,
        InvalidPayload,
        InvalidPayload,
        NotImportable,
    ]
    assert await away.run(functions.same, (1,)) == 1


@pytest.mark.blocks("the first call of a ProcessPoolExecutor starts its processes")
async def test_what_a_function_raises_in_a_process_comes_back_and_ends_no_process(away: ExecutorRunner) -> None:
    pid = await away.run(functions.process_id)

    custom = await caught_by(away, functions.raise_custom, 5)
    stubborn = await caught_by(away, functions.raise_stubborn)
    local = await caught_by(away, functions.raise_local)
    ends = [await caught_by(away, functions.raise_by_name, name) for name in ("SystemExit", "KeyboardInterrupt")]

    assert isinstance(custom, functions.Custom)
    assert custom.code == 5
    assert isinstance(custom.__cause__, RemoteTraceback)
    assert "in raise_custom\n    raise Custom(code)\n" in str(custom.__cause__)
    assert "away.py" not in str(custom.__cause__)
    assert [type(error) for error in (stubborn, local, *ends)] == [RemoteError] * 4
    assert str(ends[0]) == "'runners.functions.raise_by_name' raised SystemExit in its process: 3"
    assert await away.run(functions.process_id) == pid


def look_around(value: int) -> tuple[dict[str, Any] | None, bool]:
    def send() -> None:
        child.notify("soon", value)

    child.notify("value", value - 1)
    child.notify("value", value)
    assert child.soon(send)
    return child.current_context(), child.away() is not None


@pytest.mark.blocks("the first call of a ProcessPoolExecutor starts its processes")
async def test_a_function_in_a_process_has_its_context_and_its_last_notes_come_with_the_answer(
    away: ExecutorRunner,
) -> None:
    notes: list[tuple[str, Any]] = []
    found = await away.run(look_around, (7,), context={"key": "given"}, on_message=lambda *note: notes.append(note))

    assert found == ({"key": "given"}, True)
    assert notes == [("value", 7), ("soon", 7)]
    assert child.away() is None


@pytest.mark.blocks("the first call of a ProcessPoolExecutor starts its processes")
async def test_a_listener_that_raises_costs_no_result(away: ExecutorRunner) -> None:
    heard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, about: heard.append(about))

    def fail(kind: str, value: Any) -> None:
        raise ZeroDivisionError(kind)

    assert await away.run(functions.tell, (1,), on_message=fail) == "told"
    assert [(about["message"], str(about["exception"])) for about in heard] == [
        ("a note of 'runners.functions.tell' could not be delivered", "value")
    ]


@pytest.mark.blocks("the first call of a ProcessPoolExecutor starts its processes")
async def test_a_death_is_told_with_the_job_and_the_broken_executor_afterwards(away: ExecutorRunner) -> None:
    death = await caught_by(away, functions.exit_with, 5)
    later = await caught_by(away, functions.same, 1)

    assert isinstance(death, ExecutorProcessDied)
    assert isinstance(death, ProcessDied)
    assert (death.function, death.pid, death.exit_code) == ("runners.functions.exit_with", None, None)
    assert str(death).startswith(
        "a process of the executor died under 'runners.functions.exit_with': BrokenProcessPool: "
    )
    assert isinstance(later, ExecutorFailed)
    assert str(later).startswith("the executor did not run 'runners.functions.same': BrokenProcessPool: ")
    assert str(later).endswith("; give a new executor")
