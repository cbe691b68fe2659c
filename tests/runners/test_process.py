"""The process pool: real processes, real signals, no mocks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import re
import signal
import sys
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tickwork.errors import (
    InvalidOption,
    InvalidPayload,
    NotImportable,
    NotRunning,
    ProcessDied,
    ProcessNotStarted,
    RemoteError,
    RemoteTraceback,
)
from tickwork.runners import child
from tickwork.runners.lookout import Lookout
from tickwork.runners.process import ProcessRunner

from . import functions
from .waiting import is_gone, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable


async def pid_in(path: Path) -> int:
    await wait_until(lambda: path.exists() and path.read_text())
    return int(path.read_text())


def open_descriptors() -> list[str]:
    """Return what is open, without /dev/null: libuv keeps one for good, once it has opened a stream."""
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the listing's own
            found.append(f"{descriptor} {os.readlink(f'/proc/self/fd/{descriptor}')}")
    return sorted(entry for entry in found if not entry.endswith("/dev/null"))


def until_closed(pid: int) -> None:
    """Wait, without a turn of the loop, until the last thread of a killed process has closed its end of the socket."""
    process = psutil.Process(pid)
    while process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1:
        time.sleep(0.001)


# -- values


async def test_a_function_runs_in_another_process(runner: ProcessRunner) -> None:
    pid = await runner.run(functions.process_id)

    assert pid != os.getpid()
    assert runner.pids == [pid]


async def test_arguments_and_result_are_carried(runner: ProcessRunner) -> None:
    result = await runner.run(functions.echo, (1, "two", b"three"), {"four": [4.0], "fn": functions.same})

    assert result == ((1, "two", b"three"), {"four": [4.0], "fn": functions.same})


async def test_an_idle_child_is_used_again(runner: ProcessRunner) -> None:
    pids = [await runner.run(functions.process_id) for _ in range(5)]

    assert len(set(pids)) == 1


async def test_as_many_run_at_once_as_there_may_be_processes(tmp_path: Path) -> None:
    runner = ProcessRunner(3)

    pids = await asyncio.gather(*(runner.run(functions.meet, (str(tmp_path), 3)) for _ in range(9)))

    assert len(set(pids)) == 3
    assert sorted(runner.pids) == sorted(set(pids))
    await runner.aclose()


async def test_who_waits_is_served_in_order(tmp_path: Path) -> None:
    runner = ProcessRunner(1)
    order: list[int] = []

    async def one(number: int) -> None:
        await runner.run(functions.same, (number,))
        order.append(number)

    await asyncio.gather(*(one(number) for number in range(20)))

    assert order == list(range(20))
    await runner.aclose()


async def test_warm_starts_children_before_they_are_needed() -> None:
    runner = ProcessRunner(2)

    await runner.warm()
    await runner.warm(1)

    assert len(runner.pids) == 2
    assert await runner.run(functions.process_id) in runner.pids
    await runner.aclose()


async def test_a_child_has_the_path_and_the_folder_of_its_parent(
    runner: ProcessRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))

    path, folder = await runner.run(functions.path_and_folder)

    assert path == [entry or os.getcwd() for entry in sys.path]
    assert folder == os.getcwd()


async def test_a_child_imports_no_asyncio_and_nothing_else_of_tickwork(runner: ProcessRunner) -> None:
    found = await runner.run(eval, ("sorted(__import__('sys').modules)",))

    assert [name for name in found if name.split(".")[0] in ("asyncio", "concurrent", "tickwork")] == [
        "tickwork",
        "tickwork._version",
        "tickwork.elapsed",
        "tickwork.runners",
        "tickwork.runners.at_import",
        "tickwork.runners.child",
        "tickwork.runners.reference",
        "tickwork.runners.wire",
    ]


async def test_a_large_payload_does_not_hold_the_loop(runner: ProcessRunner) -> None:
    data = os.urandom(1 << 20) * 50
    gaps: list[float] = []

    async def tick() -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0)
            gaps.append(time.perf_counter() - last)
            last = time.perf_counter()

    ticking = asyncio.create_task(tick())
    result = await runner.run(functions.same, (data,))
    ticking.cancel()

    assert result == data
    assert len(gaps) > 100
    assert max(gaps) < 10  # 0.03 s is usual: the copy out of the frame; a loaded machine takes its time


async def test_buffers_travel_beside_the_pickle_aligned_and_writable(runner: ProcessRunner) -> None:
    blocks = [functions.Block(bytearray(200_001)), functions.Block(b"x" * 99_999), functions.Block(bytearray(5))]
    blocks.append(functions.Block(bytearray(1_000_000)))

    sizes, writable, addresses = await runner.run(functions.look_at, (blocks,))

    assert sizes == [200_001, 99_999, 5, 1_000_000]
    assert writable == [True, False, True, True]
    assert [addresses[0], addresses[2]] == [0, 0]


async def test_buffers_come_back(runner: ProcessRunner) -> None:
    block = await runner.run(functions.upper, (functions.Block(b"abc" * 100_000),))

    assert bytes(block.data) == b"ABC" * 100_000


# -- errors


async def test_an_error_is_raised_as_what_it_was_with_the_lines_of_the_child(runner: ProcessRunner) -> None:
    with pytest.raises(functions.Custom, match="code 5") as caught:
        await runner.run(functions.raise_custom, (5,))

    assert caught.value.code == 5
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert "in raise_custom\n    raise Custom(code)\n" in str(caught.value.__cause__)
    assert "child.py" not in str(caught.value.__cause__)


async def test_the_traceback_of_the_child_shows_the_causes_too(runner: ProcessRunner) -> None:
    with pytest.raises(ValueError, match="second") as caught:
        await runner.run(functions.raise_chained)

    assert "KeyError: 'first'" in str(caught.value.__cause__)


@pytest.mark.parametrize(
    ("fn", "kind", "message"),
    [
        (functions.raise_stubborn, "Stubborn", "7: does not come back"),
        (functions.raise_local, "raise_local.<locals>.Local", "nobody else knows this class"),
    ],
)
async def test_an_error_that_cannot_be_carried_over_is_told(
    runner: ProcessRunner, fn: Callable[[], None], kind: str, message: str
) -> None:
    name = f"{functions.__name__}.{fn.__name__}"
    kind = f"{functions.__name__}.{kind}"

    with pytest.raises(RemoteError) as caught:
        await runner.run(fn)

    assert str(caught.value) == f"{name!r} raised {kind} in its process: {message}"
    assert (caught.value.error_type, caught.value.error_message) == (kind, message)
    assert f"in {fn.__name__}" in caught.value.traceback
    assert pickle.loads(pickle.dumps(caught.value)).traceback == caught.value.traceback


async def test_an_error_without_words_is_raised_all_the_same(runner: ProcessRunner) -> None:
    with pytest.raises(functions.Mute):
        await runner.run(functions.raise_mute)


@pytest.mark.parametrize(
    "name", ["SystemExit", "KeyboardInterrupt", "GeneratorExit", "StopIteration", "CancelledError"]
)
async def test_what_would_mean_something_else_here_is_an_ordinary_failure(runner: ProcessRunner, name: str) -> None:
    pid = await runner.run(functions.process_id)

    with pytest.raises(RemoteError, match=f"raised (asyncio.exceptions.)?{name} in its process"):
        await runner.run(functions.raise_by_name, (name,))

    assert await runner.run(functions.process_id) == pid


async def test_an_argument_that_cannot_be_pickled_is_named(runner: ProcessRunner) -> None:
    name = f"{functions.__name__}.echo"

    with pytest.raises(InvalidPayload, match=f"^argument 2 of {name}: a generator cannot be pickled for a child"):
        await runner.run(functions.echo, (1, functions.return_generator()))
    with pytest.raises(InvalidPayload, match=f"^argument 'key' of {name}: a function cannot be pickled for"):
        await runner.run(functions.echo, (1,), {"key": lambda: None})
    with pytest.raises(InvalidPayload, match=f"^context of {name}: a dict cannot be pickled for a child"):
        await runner.run(functions.echo, context={"lock": threading.Lock()})

    assert runner.pids == []


async def test_a_result_that_cannot_be_pickled_is_told(runner: ProcessRunner) -> None:
    name = f"{functions.__name__}.return_generator"

    with pytest.raises(
        InvalidPayload, match=f"^result of {name}: a generator cannot be pickled in the child process: cannot"
    ):
        await runner.run(functions.return_generator)


async def test_arguments_that_do_not_unpickle_are_told(runner: ProcessRunner) -> None:
    name = f"{functions.__name__}.same"

    with pytest.raises(InvalidPayload) as caught:
        await runner.run(functions.same, (functions.Unreadable(),))

    assert str(caught.value) == (
        f"arguments of {name}: they cannot be unpickled in the child process: ValueError: unreadable"
    )


async def test_a_result_that_does_not_unpickle_is_told(runner: ProcessRunner) -> None:
    name = f"{functions.__name__}.Unreadable"

    with pytest.raises(InvalidPayload) as caught:
        await runner.run(functions.Unreadable)

    assert str(caught.value) == f"result of {name}: it cannot be unpickled: ValueError: unreadable"


async def test_a_module_that_only_the_parent_has_is_told(
    runner: ProcessRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("made_by_hand")
    exec("def fn(): pass", vars(module))
    monkeypatch.setitem(sys.modules, "made_by_hand", module)

    with pytest.raises(NotImportable) as caught:
        await runner.run(module.fn)

    assert str(caught.value) == (
        "function 'fn' cannot be imported by name: its child process got ModuleNotFoundError:"
        " No module named 'made_by_hand'; its module must be importable in a fresh interpreter"
    )


async def test_an_async_function_is_refused(runner: ProcessRunner) -> None:
    with pytest.raises(InvalidOption) as caught:
        await runner.run(functions.coroutine_function)

    assert str(caught.value) == (
        f"function must be a plain function, got '{functions.__name__}.coroutine_function'; async ones run in the loop"
    )


@pytest.mark.parametrize("value", [0, -1, True, 1.5, "2"])
def test_options_that_are_out_of_range_are_refused(value: Any) -> None:
    with pytest.raises(InvalidOption, match="^max_processes must be a whole number from 1, got"):
        ProcessRunner(value)
    with pytest.raises(InvalidOption, match="^max_jobs must be a whole number from 1, got"):
        ProcessRunner(1, max_jobs=value)
    with pytest.raises(InvalidOption, match="^max_memory must be a whole number from 1, got"):
        ProcessRunner(1, max_memory=value)


# -- death


@pytest.mark.parametrize(
    ("fn", "args", "exit_code", "how"),
    [
        (functions.exit_with, (0,), 0, "with exit status 0"),
        (functions.exit_with, (5,), 5, "with exit status 5"),
        (functions.kill_itself, (signal.SIGKILL,), -9, "by signal 9"),
        (functions.kill_itself, (signal.SIGSEGV,), -11, "by signal 11"),
        (functions.read_null, (), -11, "by signal 11"),
    ],
)
async def test_a_child_that_dies_under_a_job_is_told_and_replaced(
    runner: ProcessRunner, fn: Callable[..., None], args: tuple[Any, ...], exit_code: int, how: str
) -> None:
    pid = await runner.run(functions.process_id)

    with pytest.raises(ProcessDied) as caught:
        await runner.run(fn, args)

    assert (caught.value.pid, caught.value.exit_code) == (pid, exit_code)
    assert str(caught.value) == f"process {pid} ended {how} while it ran '{functions.__name__}.{fn.__name__}'"
    assert await runner.run(functions.process_id) != pid


async def test_the_name_for_messages_can_be_given(runner: ProcessRunner) -> None:
    with pytest.raises(ProcessDied, match="while it ran 'job 12'"):
        await runner.run(functions.exit_with, (1,), describe="job 12")


async def test_a_death_costs_only_the_one_job(runner: ProcessRunner, tmp_path: Path) -> None:
    go = tmp_path / "go"
    other = asyncio.create_task(runner.run(functions.wait_for, (str(go),)))

    with pytest.raises(ProcessDied):
        await runner.run(functions.kill_itself, (signal.SIGKILL,))
    go.touch()

    assert await other in runner.pids


async def test_an_idle_child_that_died_is_replaced(runner: ProcessRunner) -> None:
    pid = await runner.run(functions.process_id)

    os.kill(pid, signal.SIGKILL)
    await wait_until(lambda: runner.pids == [])

    assert await runner.run(functions.process_id) != pid


async def test_a_death_of_which_the_loop_has_not_heard_yet_costs_no_job(runner: ProcessRunner) -> None:
    pid = await runner.run(functions.process_id)
    os.kill(pid, signal.SIGKILL)
    while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.001)  # the loop must not turn meanwhile

    assert await runner.run(functions.process_id) != pid


async def test_when_all_idle_children_died_at_once_no_job_is_lost(tmp_path: Path) -> None:
    async with contextlib.aclosing(ProcessRunner(3)) as runner:
        pids = await asyncio.gather(*(runner.run(functions.meet, (str(tmp_path), 3)) for _ in range(3)))
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for pid in pids:
            while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.001)  # the loop must not turn meanwhile

        found = await asyncio.gather(*(runner.run(functions.process_id) for _ in range(3)))

    assert not set(found) & set(pids)


async def test_a_call_that_could_not_be_sent_goes_to_another_child(runner: ProcessRunner, tmp_path: Path) -> None:
    go, done = tmp_path / "go", tmp_path / "done"
    pid = await runner.run(functions.disconnect_later, (str(go), str(done)))
    go.touch()
    functions.until_there(done)  # the loop must not turn meanwhile

    assert await runner.run(functions.process_id) != pid


async def test_a_call_that_was_not_read_goes_to_another_child(runner: ProcessRunner) -> None:
    pid = await runner.run(functions.process_id)
    os.kill(pid, signal.SIGSTOP)
    call = asyncio.create_task(runner.run(functions.process_id))
    await wait_until(lambda: runner.pids == [pid])
    for _ in range(10):
        await asyncio.sleep(0)  # so that it is sent

    os.kill(pid, signal.SIGKILL)

    assert await call != pid


@pytest.mark.blocks("the look for the answer does, here for longer")
async def test_a_call_that_was_not_read_goes_to_another_child_when_the_look_for_its_answer_finds_that_out(
    runner: ProcessRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = await runner.run(functions.process_id)
    os.kill(pid, signal.SIGSTOP)
    answers: list[bool] = []

    def look(self: Lookout, is_there: Callable[[], bool]) -> bool:
        if not answers:
            assert not is_there()
            os.kill(pid, signal.SIGKILL)
            until_closed(pid)
            answers.append(is_there())
        return answers[-1]

    monkeypatch.setattr(Lookout, "is_due", lambda self: True)
    monkeypatch.setattr(Lookout, "look", look)

    assert await runner.run(functions.process_id) != pid
    assert answers[:1] == [True]


async def test_a_call_goes_on_to_another_child_however_many_have_just_died(runner: ProcessRunner) -> None:
    await runner.warm()
    last = await runner.run(functions.process_id)  # the next call is given to it
    (other,) = {*runner.pids} - {last}
    os.kill(other, signal.SIGSTOP)
    os.kill(last, signal.SIGKILL)
    until_closed(last)
    call = asyncio.create_task(runner.run(functions.process_id))
    for _ in range(10):
        await asyncio.sleep(0)  # so that it is sent to the one that seems to live

    os.kill(other, signal.SIGKILL)

    assert await call not in (last, other)


async def test_a_large_call_that_could_not_be_sent_goes_to_another_child(runner: ProcessRunner, tmp_path: Path) -> None:
    go, done = tmp_path / "go", tmp_path / "done"
    await runner.run(functions.disconnect_later, (str(go), str(done)))
    go.touch()
    functions.until_there(done)

    assert await runner.run(len, (bytes(10_000_000),)) == 10_000_000


async def test_a_child_that_hangs_up_is_killed(runner: ProcessRunner) -> None:
    with pytest.raises(ProcessDied, match="by signal 9 while"):
        await runner.run(functions.close_what_is_not_its_own)


async def test_a_child_that_writes_rubbish_is_killed(runner: ProcessRunner) -> None:
    with pytest.raises(ProcessDied, match="by signal 9 while"):
        await runner.run(functions.write_rubbish)


async def test_a_death_is_noticed_when_another_process_holds_the_socket(runner: ProcessRunner, tmp_path: Path) -> None:
    path = tmp_path / "pid"

    with pytest.raises(ProcessDied, match="with exit status 3 while"):
        await runner.run(functions.exit_while_another_holds_the_socket, (str(path),))

    os.kill(int(path.read_text()), signal.SIGKILL)


async def test_a_death_is_noticed_without_pidfd(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_pid: int) -> int:
        raise OSError

    monkeypatch.setattr(os, "pidfd_open", refuse, raising=False)
    runner = ProcessRunner(1)

    with pytest.raises(ProcessDied, match="with exit status 4 while"):
        await runner.run(functions.exit_with, (4,))

    assert await runner.run(functions.same, (1,)) == 1
    await runner.aclose()


# -- cancellation


async def test_cancellation_kills_the_one_child_and_no_other(runner: ProcessRunner, tmp_path: Path) -> None:
    go = tmp_path / "go"
    other = asyncio.create_task(runner.run(functions.wait_for, (str(go),)))
    task = asyncio.create_task(runner.run(functions.hold, (str(tmp_path / "pid"),)))
    pid = await pid_in(tmp_path / "pid")

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    await wait_until(lambda: not psutil.pid_exists(pid))
    go.touch()
    survivor = await other
    assert runner.pids == [survivor]
    assert await runner.run(functions.process_id) == survivor


async def test_a_timeout_kills_the_child(runner: ProcessRunner, tmp_path: Path) -> None:
    pid = await runner.run(functions.process_id)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await runner.run(functions.hold_the_interpreter, (str(tmp_path / "pid"),))

    await wait_until(lambda: not psutil.pid_exists(pid))
    assert await runner.run(functions.process_id) != pid


async def test_cancellation_while_waiting_leaves_nothing_behind(tmp_path: Path) -> None:
    runner = ProcessRunner(1)
    go = tmp_path / "go"
    running = asyncio.create_task(runner.run(functions.wait_for, (str(go),)))
    await wait_until(lambda: runner.pids)
    waiting = asyncio.create_task(runner.run(functions.hold, (str(tmp_path / "pid"),)))
    await asyncio.sleep(0)

    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    go.touch()

    pid = await running
    assert await runner.run(functions.process_id) == pid
    assert not (tmp_path / "pid").exists()
    await runner.aclose()


@pytest.mark.timeout(300)  # forty starts
async def test_cancellation_at_any_moment_of_a_start_leaks_no_child() -> None:
    before = open_descriptors()

    for turns in range(40):
        runner = ProcessRunner(1)
        task = asyncio.create_task(runner.run(functions.process_id))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        if turns % 2:
            assert await runner.run(functions.same, (1,)) == 1
        await runner.aclose()
        assert psutil.Process().children() == []

    assert open_descriptors() == before


async def test_cancellation_at_any_moment_of_a_call_leaves_a_working_runner(runner: ProcessRunner) -> None:
    await runner.warm()

    for turns in range(20):
        task = asyncio.create_task(runner.run(functions.same, (bytes(turns * 30_000),)))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert await runner.run(functions.same, (turns,)) == turns


# -- recycling


async def test_a_child_is_replaced_after_max_jobs() -> None:
    runner = ProcessRunner(1, max_jobs=3)

    pids = [await runner.run(functions.process_id) for _ in range(7)]

    assert pids[0] == pids[2] != pids[3] == pids[5] != pids[6]
    await runner.aclose()


async def test_a_child_that_has_grown_is_replaced_between_jobs() -> None:
    runner = ProcessRunner(1, max_memory=200 << 20)

    first = await runner.run(functions.grow, (1 << 20,))
    assert await runner.run(functions.grow, (300 << 20,)) == first

    assert await runner.run(functions.process_id) != first
    await runner.aclose()


# -- start


async def test_the_initializer_runs_once_in_each_child() -> None:
    runner = ProcessRunner(1, initializer=functions.initialize)

    assert await runner.run(functions.initialized) == ["initialized"]
    assert await runner.run(functions.initialized) == ["initialized"]
    await runner.aclose()


async def test_an_initializer_that_fails_is_told_to_each_who_waits() -> None:
    runner = ProcessRunner(1, initializer=functions.fail_to_initialize)

    results = await asyncio.gather(*(runner.run(functions.process_id) for _ in range(3)), return_exceptions=True)

    assert [type(error) for error in results] == [ProcessNotStarted] * 3
    name = f"{functions.__name__}:fail_to_initialize"
    assert {str(error) for error in results} == {
        f"a child process could not be started for the job: its initializer {name!r} raised LookupError: no licence"
    }
    assert [type(error.__cause__) for error in results if isinstance(error, Exception)] == [LookupError] * 3
    await runner.aclose()


async def test_a_child_that_dies_while_it_starts_is_told() -> None:
    runner = ProcessRunner(1, initializer=functions.exit_at_start)

    with pytest.raises(ProcessNotStarted) as caught:
        await runner.warm()

    assert re.sub(r"process \d+", "process N", str(caught.value)) == (
        "a child process could not be started for the job: process N ended with exit status 9"
        f" while it ran '{functions.__name__}:exit_at_start'"
    )
    assert caught.value.initializer == f"{functions.__name__}:exit_at_start"
    assert isinstance(caught.value.__cause__, ProcessDied)
    await runner.aclose()


async def test_a_child_that_is_killed_while_it_starts_is_replaced_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = ProcessRunner(1, initializer=functions.wait_at_first)
    monkeypatch.setenv("TICKWORK_TEST_FOLDER", str(tmp_path))
    try:
        job = asyncio.create_task(runner.run(functions.process_id))
        first = await pid_in(tmp_path / "first")
        os.kill(first, signal.SIGKILL)

        assert await job != first
    finally:
        await runner.aclose()


# -- context and notes


async def test_the_context_is_there_for_one_job(runner: ProcessRunner) -> None:
    assert await runner.run(functions.context, context={"job": 1}) == {"job": 1}
    assert await runner.run(functions.context) is None
    assert child.current_context() is None


async def test_notes_arrive_in_order_before_the_result(runner: ProcessRunner) -> None:
    notes: list[tuple[str, Any]] = []
    values = ("a", 2, b"x" * 300_000, None)

    result = await runner.run(functions.tell, values, on_message=lambda kind, value: notes.append((kind, value)))

    assert result == "told"
    assert notes == [("value", value) for value in values]


async def test_notes_may_come_from_threads(runner: ProcessRunner) -> None:
    notes: list[Any] = []

    await runner.run(functions.tell_from_thread, (1,), on_message=lambda _, value: notes.append(value))

    assert notes == [1]


async def test_without_a_listener_notes_go_nowhere(runner: ProcessRunner) -> None:
    assert await runner.run(functions.tell, (1, 2)) == "told"
    child.notify("value", "outside of a job")


async def test_a_listener_that_fails_does_not_fail_the_job(runner: ProcessRunner) -> None:
    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, report: reports.append(report))

    def listen(_kind: str, _value: Any) -> None:
        raise ValueError("deaf")

    assert await runner.run(functions.tell, (1,), on_message=listen) == "told"
    assert [str(report["exception"]) for report in reports] == ["deaf"]


# -- what jobs start


async def test_programs_that_a_job_starts_can_be_terminated(runner: ProcessRunner) -> None:
    assert await runner.run(functions.terminate_a_program) == -signal.SIGTERM


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
async def test_forks_of_a_job_can_be_terminated(runner: ProcessRunner) -> None:
    assert await runner.run(functions.terminate_a_fork) == signal.SIGTERM
    assert await runner.run(functions.same, (1,)) == 1


# -- the end


async def test_close_leaves_no_process_and_no_descriptor(tmp_path: Path) -> None:
    before = open_descriptors()
    runner = ProcessRunner(3)
    await runner.warm(2)
    pids = runner.pids
    busy = asyncio.create_task(runner.run(functions.hold, (str(tmp_path / "pid"),)))
    pid = await pid_in(tmp_path / "pid")

    await runner.aclose()

    assert runner.pids == []
    assert not any(map(psutil.pid_exists, [*pids, pid]))
    assert open_descriptors() == before
    with pytest.raises(NotRunning, match="was closed while it ran .*hold"):
        await busy


async def test_close_fails_those_who_wait(tmp_path: Path) -> None:
    runner = ProcessRunner(1)
    tasks = [asyncio.create_task(runner.run(functions.hold, (str(tmp_path / "pid"),))) for _ in range(3)]
    await pid_in(tmp_path / "pid")

    await runner.aclose()

    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [NotRunning] * 3


async def test_close_ends_a_call_that_is_still_being_sent(runner: ProcessRunner) -> None:
    pid = await runner.run(functions.process_id)
    os.kill(pid, signal.SIGSTOP)
    call = asyncio.create_task(runner.run(len, (bytes(10_000_000),)))
    for _ in range(10):
        await asyncio.sleep(0)

    await runner.aclose()

    with pytest.raises(NotRunning, match="was closed while it ran 'builtins.len'"):
        await call


async def test_close_ends_a_call_that_was_about_to_be_sent_again(runner: ProcessRunner, tmp_path: Path) -> None:
    go, done = tmp_path / "go", tmp_path / "done"
    await runner.run(functions.disconnect_later, (str(go), str(done)))
    go.touch()
    functions.until_there(done)
    call = asyncio.create_task(runner.run(functions.process_id))
    await asyncio.sleep(0)

    runner.close_nowait()

    with pytest.raises(NotRunning):
        await call


@pytest.mark.parametrize("turns", [0, 1, 2, 5, 10, 20])
async def test_close_during_a_start(turns: int) -> None:
    before = open_descriptors()
    runner = ProcessRunner(2)
    task = asyncio.create_task(runner.run(functions.process_id))
    for _ in range(turns):
        await asyncio.sleep(0)

    await runner.aclose()

    with pytest.raises(NotRunning):
        await task
    assert open_descriptors() == before


async def test_close_may_be_called_again_and_before_any_start(tmp_path: Path) -> None:
    unused = ProcessRunner(1)
    await unused.aclose()
    runner = ProcessRunner(1)
    await runner.warm()

    await asyncio.gather(runner.aclose(), runner.aclose())
    await runner.aclose()

    for closed in (runner, unused):
        with pytest.raises(NotRunning, match="the process runner is closed; make a new one"):
            await closed.run(functions.process_id)


async def test_close_nowait_kills_at_once(tmp_path: Path) -> None:
    runner = ProcessRunner(2)
    await runner.warm()
    pids = runner.pids
    busy = asyncio.create_task(runner.run(functions.hold_the_interpreter, (str(tmp_path / "pid"),)))
    await pid_in(tmp_path / "pid")

    runner.close_nowait()
    while not all(map(is_gone, pids)):
        time.sleep(0.001)  # the loop must not be needed for it

    with pytest.raises(NotRunning):
        await busy
    await runner.aclose()
    assert not any(map(psutil.pid_exists, pids))


async def test_another_loop_is_refused(runner: ProcessRunner) -> None:
    await runner.warm(1)

    async def elsewhere() -> None:
        await runner.run(functions.process_id)

    with pytest.raises(NotRunning, match="belongs to another event loop; make one for each loop"):
        await asyncio.to_thread(asyncio.run, elsewhere())
