"""How a program around an app ends: real processes, real signals, and whatever may hold them up."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import threading
import time
from contextlib import ExitStack
from textwrap import dedent, indent
from typing import TYPE_CHECKING

import pytest

import tickwork.program  # noqa: F401  # here, because an import inside a loop blocks it
from cli.command import Running
from parts import need
from tickwork import App
from tickwork.errors import NotRunning

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX"),
    pytest.mark.timeout(120),  # up to a dozen processes start in one test, and some wait three seconds at their end
]

HEAD = """
import asyncio, os, signal, sys, threading, time
from tickwork import App

app = App(drain_seconds={drain}, cancel_seconds=0.2)
"""

FAR_BELOW_THE_DRAIN = 15.0
"""A drain of a minute that has not been hurried would be noticed, and a busy machine is not."""


def job(body: str, *, kind: str = "async def", options: str = "") -> str:
    """Return a job that starts with the app and says so."""
    lines = indent(dedent(body), "    ")
    return f'\n@app.every("1000d", first="now"{options})\n{kind} work():\n    print("began", flush=True)\n{lines}\n'


def write(folder: Path, text: str, drain: float = 0.2) -> None:
    (folder / "jobs.py").write_text(HEAD.replace("{drain}", str(drain)) + text)


def start(folder: Path, text: str, *words: str, drain: float = 0.2) -> Running:
    write(folder, text, drain)
    return Running("-m", "tickwork", "run", *words, "jobs.py", cwd=folder)


def expect_no_error(err: str) -> None:
    """Expect that no signal has made an error: the stacks of a forced exit may name one in the code that they show.

    Python 3.13 may say that it ignored a signal, which is right.
    """
    assert re.findall("^(?:KeyboardInterrupt|RuntimeError).*", err, re.MULTILINE) == []


# -- a drain that succeeds --------------------------------------------------------------------------------------------

SHORT = {
    "coroutine": job("await asyncio.sleep(0.5)\nprint('finished')"),
    "thread": job("time.sleep(0.5)\nprint('finished')", kind="def"),
    "process": job("time.sleep(0.5)\nprint('finished')", kind="def", options=", run_in='process'"),
}


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        ("coroutine", signal.SIGINT),
        ("coroutine", signal.SIGTERM),
        ("thread", signal.SIGINT),
        ("process", signal.SIGTERM),
    ],
)
def test_signal_lets_running_jobs_finish(tmp_path: Path, kind: str, number: signal.Signals) -> None:
    with start(tmp_path, SHORT[kind], drain=60) as running:
        running.wait_for("began")
        running.send(number)
        ended = running.ended()
        running.wait_alone()

    assert ended.status == 0
    assert ended.out == "began\nfinished\n"
    assert f"{number.name}: draining; once more to stop now" in ended.err
    assert "stopped: 0 unstarted jobs given back, 0 cut" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_to_the_whole_group_leaves_the_children_to_the_program(tmp_path: Path, number: signal.Signals) -> None:
    with start(tmp_path, SHORT["process"], drain=60) as running:
        running.wait_for("began")
        running.send_group(number)
        ended = running.ended()
        running.wait_alone()

    assert (ended.status, ended.out) == (0, "began\nfinished\n")


def test_signal_on_uvloop_drains_too(tmp_path: Path) -> None:
    need("uvloop")
    with start(tmp_path, SHORT["coroutine"], "--uvloop", drain=60) as running:
        running.wait_for("began")
        running.send(signal.SIGTERM)
        ended = running.ended()

    assert (ended.status, ended.out) == (0, "began\nfinished\n")


@pytest.mark.parametrize("words", [[], ["--uvloop"]])
def test_signal_that_another_thread_receives_wakes_the_loop(tmp_path: Path, words: list[str]) -> None:
    if words:
        need("uvloop")
    body = """
        def tell():
            time.sleep(0.3)
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
            time.sleep(3600)
        threading.Thread(target=tell, daemon=True).start()
    """
    with start(tmp_path, job(body), *words) as running:
        ended = running.ended(within=FAR_BELOW_THE_DRAIN)

    assert ended.status == 0


def test_jobs_that_have_not_begun_are_given_back(tmp_path: Path) -> None:
    text = """
app = App(workers=1, drain_seconds=60)

@app.on_start
async def begin():
    for _ in range(3):
        await work.enqueue()

@app.task()
async def work():
    print("began", flush=True)
    while app.is_running:
        await asyncio.sleep(0.01)
    for _ in range(1_000):  # turns of the loop, in which the others are given back
        await asyncio.sleep(0)
"""
    with start(tmp_path, text) as running:
        running.wait_for("began")
        running.send(signal.SIGTERM)
        ended = running.ended()

    assert (ended.status, ended.out) == (0, "began\n")
    assert "stopped: 2 unstarted jobs given back, 0 cut" in ended.err or "stopped: 1 unstarted" in ended.err


# -- what does not end by itself --------------------------------------------------------------------------------------

IGNORES = """
while True:
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        pass
"""
STUCK_TASK = """
async def stuck():
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass
task = asyncio.create_task(stuck())
"""
STUCK = {
    "ignores its cancellation": job(IGNORES),
    "ignores everything": job(IGNORES.replace("asyncio.CancelledError", "BaseException")),
    "sleeps": job("await asyncio.sleep(3600)"),
    "thread": job("time.sleep(3600)", kind="def"),
    "process": job("time.sleep(3600)", kind="def", options=", run_in='process'"),
    "thread of its own": job("await asyncio.to_thread(time.sleep, 3600)"),
    "task of its own": job(STUCK_TASK + "await task"),
    "spins": job("while True: pass"),
    "locks": job("lock = threading.Lock()\nlock.acquire()\nlock.acquire()"),
}


@pytest.fixture(scope="module")
def stuck(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Running]]:
    """All kinds at once, each told to end: they mostly wait, and one after the other would take half a minute."""
    with ExitStack() as stack:
        started = {
            kind: stack.enter_context(start(tmp_path_factory.mktemp("stuck"), text)) for kind, text in STUCK.items()
        }
        for running in started.values():
            running.wait_for("began")
            running.send(signal.SIGTERM)
        yield started


@pytest.mark.parametrize("kind", STUCK)
def test_job_that_does_not_end_is_cut_and_named(stuck: dict[str, Running], kind: str) -> None:
    ended = stuck[kind].ended()
    stuck[kind].wait_alone()

    assert ended.status == 4
    assert "cut: jobs.work job=" in ended.err


def test_loop_that_is_held_up_is_left_with_the_place_that_holds_it(tmp_path: Path) -> None:
    with start(tmp_path, job("time.sleep(3600)")) as running:
        running.wait_for("began")
        running.send(signal.SIGTERM)
        ended = running.ended()

    assert "CRITICAL the loop does not end, so it is left; cut: jobs.work job=" in ended.err
    assert 'jobs.py", line 10, in work\n    time.sleep(3600)' in ended.err


def test_stuck_task_of_a_finished_job_is_named(tmp_path: Path) -> None:
    with start(tmp_path, job("global task\n" + STUCK_TASK)) as running:
        running.wait_for("succeeded")
        running.send(signal.SIGTERM)
        ended = running.ended()

    assert ended.status == 4
    assert "left behind, because they ignore their cancellation: task work.<locals>.stuck" in ended.err


def test_stuck_thread_of_a_finished_job_does_not_hold_the_exit(tmp_path: Path) -> None:
    with start(tmp_path, job("asyncio.get_running_loop().run_in_executor(None, time.sleep, 3600)")) as running:
        running.wait_for("succeeded")
        running.send(signal.SIGTERM)
        ended = running.ended()

    assert ended.status == 4
    assert "CRITICAL left behind: threads that do not end" in ended.err


def test_thread_that_ends_soon_is_waited_for(tmp_path: Path) -> None:
    body = "threading.Thread(target=lambda: (time.sleep(0.7), print('thread finished'))).start()"
    with start(tmp_path, job(body)) as running:
        running.wait_for("succeeded")
        running.send(signal.SIGTERM)
        ended = running.ended()

    assert (ended.status, ended.out) == (0, "began\nthread finished\n")


@pytest.mark.slow
def test_output_that_nobody_reads_does_not_hold_the_exit(tmp_path: Path) -> None:
    # The main thread waits for ever for room in the pipe, with the lock of the log in its hands.
    body = """
        import logging
        with open("began", "w"):
            pass
        while True:
            logging.getLogger("jobs").warning("x" * 10_000)
    """
    reader, writer = os.pipe()
    write(tmp_path, job(body))
    with Running("-m", "tickwork", "run", "jobs.py", cwd=tmp_path, stderr=writer) as running:
        os.close(writer)
        running.wait_until((tmp_path / "began").exists, "the start of the job")
        running.send(signal.SIGTERM)
        ended = running.ended()
    os.close(reader)

    assert ended.status == 4


# -- more than one signal ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sleeps", "ignores its cancellation", "thread", "process"])
def test_second_signal_means_now(tmp_path: Path, kind: str) -> None:
    with start(tmp_path, STUCK[kind], drain=60) as running:
        running.wait_for("began")
        running.send(signal.SIGINT)
        running.wait_for("draining")
        running.send(signal.SIGINT)
        ended = running.ended(within=FAR_BELOW_THE_DRAIN)
        running.wait_alone()

    assert ended.status == 4
    assert "cut: jobs.work job=" in ended.err


def test_third_signal_does_not_wait_at_all(tmp_path: Path) -> None:
    with start(tmp_path, "\napp.cancel_seconds = 60\n" + job("time.sleep(3600)"), drain=60) as running:
        running.wait_for("began")
        while running.process.poll() is None:  # how many are heard, nobody knows: two at the same moment are one
            running.send(signal.SIGTERM)
            time.sleep(0.01)
        ended = running.ended()

    assert ended.status == 4
    assert "cut: jobs.work job=" in ended.err


def test_signals_in_quick_succession_end_it_too(tmp_path: Path) -> None:
    with start(tmp_path, SHORT["coroutine"], drain=60) as running:
        running.wait_for("began")
        while running.process.poll() is None:
            running.send(signal.SIGTERM)
            running.send(signal.SIGINT)
        ended = running.ended()

    assert ended.status == 4
    expect_no_error(ended.err)


def test_signal_after_the_end_changes_nothing(tmp_path: Path) -> None:
    text = job("print('done')") + "import atexit\natexit.register(time.sleep, 0.5)\n"
    with start(tmp_path, text) as running:
        running.wait_for("succeeded")
        running.send(signal.SIGTERM)
        running.wait_for("stopped: ")
        while running.process.poll() is None:
            running.send(signal.SIGTERM)
            running.send(signal.SIGINT)
            time.sleep(0.01)
        ended = running.ended()

    assert ended.status in (0, 4)  # 4: it came while the loop was being closed, and hurried that
    expect_no_error(ended.err)


# -- early signals ----------------------------------------------------------------------------------------------------


ON_START = """
@app.on_start
async def begin():
    print("began", flush=True)
    await asyncio.sleep(3600)
"""
LIFESPAN = """
async def resources(app):
    print("began", flush=True)
    await asyncio.sleep(3600)
    yield

app = App(lifespan=resources, drain_seconds=60)
"""


@pytest.mark.parametrize("body", [ON_START, LIFESPAN], ids=["on_start", "lifespan"])
def test_signal_during_the_start_ends_it(tmp_path: Path, body: str) -> None:
    with start(tmp_path, body, drain=60) as running:
        running.wait_for("began")
        running.send(signal.SIGTERM)
        ended = running.ended(within=FAR_BELOW_THE_DRAIN)

    assert ended.status == 0
    assert "Traceback" not in ended.err


@pytest.mark.slow
def test_signal_during_a_start_that_blocks_ends_it_by_force(tmp_path: Path) -> None:
    body = "\n@app.on_start\ndef begin():\n    print('began', flush=True)\n    time.sleep(3600)\n"
    with start(tmp_path, body) as running:
        running.wait_for("began")
        running.send(signal.SIGTERM)
        ended = running.ended()

    assert ended.status == 4
    assert "cut: no job: something else holds it" in ended.err
    assert "in begin\n" in ended.err


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_signal_while_the_target_is_imported_ends_at_once(tmp_path: Path, number: int, status: int) -> None:
    with start(tmp_path, "print('began', flush=True)\ntime.sleep(3600)") as running:
        running.wait_for("began")
        running.send(signal.Signals(number))
        ended = running.ended()

    assert ended.status == status
    assert "Traceback" not in ended.err


def test_signal_in_the_first_moments_ends_it_without_a_word_too_much(tmp_path: Path) -> None:
    write(tmp_path, job("await asyncio.sleep(0.1)"), drain=60)
    with ExitStack() as stack:
        started = []
        for delay in range(0, 600, 50):
            (folder := tmp_path / str(delay)).mkdir()
            words = ("-m", "tickwork", "run", "../jobs.py")
            started.append(stack.enter_context(Running(*words, cwd=folder)))
            time.sleep(delay / 1000)  # not a race that is hidden, but the one that is looked for
            started[-1].send(signal.SIGTERM)

        for running in started:
            ended = running.ended()
            running.wait_alone()
            assert ended.status in (0, -signal.SIGTERM)
            assert "Traceback" not in ended.err


# -- app.run() --------------------------------------------------------------------------------------------------------


def test_app_run_drains_returns_the_status_and_puts_the_handlers_back(tmp_path: Path) -> None:
    text = (
        SHORT["coroutine"]
        + """
before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
status = app.run()
assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
for thread in threading.enumerate():
    if thread.name.startswith("tickwork"):
        thread.join(10)  # nobody waits for the watchdog's to end
        assert not thread.is_alive(), thread
print("status", status)
"""
    )
    write(tmp_path, text, drain=60)
    with Running("jobs.py", cwd=tmp_path) as running:
        running.wait_for("began")
        running.send(signal.SIGTERM)
        ended = running.ended()

    assert ended.out == "began\nfinished\nstatus 0\n", ended.err


@pytest.mark.slow
def test_app_run_with_a_stuck_thread_of_the_users_ends_with_the_interpreter(tmp_path: Path) -> None:
    write(tmp_path, STUCK["thread of its own"] + "\nstatus = app.run()\nprint('status', status)\nsys.exit(status)\n")
    with Running("jobs.py", cwd=tmp_path) as running:
        running.wait_for("began")
        running.send(signal.SIGTERM)
        ended = running.ended()

    assert (ended.status, ended.out) == (4, "began\nstatus 4\n")


def test_app_run_may_be_called_again(tmp_path: Path) -> None:
    text = job("os.kill(os.getpid(), signal.SIGTERM)") + "print(app.run(), app.run())"
    write(tmp_path, text, drain=60)
    with Running("jobs.py", cwd=tmp_path) as running:
        ended = running.ended()

    assert ended.out == "began\nbegan\n0 0\n", ended.err


async def test_app_run_inside_a_loop_is_refused() -> None:
    with pytest.raises(NotRunning, match="makes a loop of its own, and one is running here"):
        App().run()


def test_app_run_outside_of_the_main_thread_is_refused() -> None:
    raised: list[BaseException] = []

    def call() -> None:
        try:
            App().run()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()

    assert isinstance(raised[0], NotRunning)
    assert "needs the main thread" in str(raised[0])


def test_plain_asyncio_run_does_not_hang_on_a_job_that_ignores_cancellation(tmp_path: Path) -> None:
    for kind in ("ignores its cancellation", "ignores everything", "thread"):
        text = """
async def main():
    async with app:
        while not app.running:
            await asyncio.sleep(0.01)
    print("stopped")
asyncio.run(main())
"""
        write(tmp_path, STUCK[kind] + text, drain=2)
        with Running("jobs.py", cwd=tmp_path) as running:
            ended = running.ended()

        assert (ended.status, ended.out) == (0, "began\nstopped\n"), ended.err


async def test_cancelled_stop_hurries_and_leaves_nothing() -> None:
    app = App(drain_seconds=60, cancel_seconds=60)
    began = asyncio.Event()
    told: list[str] = []

    @app.task(name="long")
    async def long() -> None:
        began.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            told.append("cancelled")
            raise

    await app.start()
    await long.enqueue()
    await began.wait()
    stop = asyncio.ensure_future(app.stop())
    await asyncio.sleep(0)

    stop.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(15):
            await stop

    assert told == ["cancelled"]
    assert not app.is_running
    assert app.running == []
