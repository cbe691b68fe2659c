"""Who holds the loop, on the real loop. Where somebody is to be named, the loop is held until that has happened."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cli.command import Running
from conftest import WaitUntil
from tickwork import App, At, events
from tickwork.clock import SystemClock
from tickwork.errors import InvalidDuration
from tickwork.holds import Hold
from tickwork.watchdog import Watchdog

DEADLINE = 30.0
"""Seconds after which something that holds the loop gives up to be named."""


class Said(logging.Handler):
    """The warnings of the watchdog and of late starts."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def all(self, text: str) -> list[str]:
        return [record.getMessage() for record in self.with_text(text)]

    def with_text(self, text: str) -> list[logging.LogRecord]:
        return [record for record in list(self.records) if text in record.getMessage()]


@pytest.fixture
def said() -> Iterator[Said]:
    handler = Said()
    logger = logging.getLogger("tickwork")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def block(condition: Callable[[], object]) -> None:
    """Hold the thread until a condition holds."""
    deadline = time.monotonic() + DEADLINE
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)


def soon(seconds: float = 0.5) -> At:
    return At(datetime.now(UTC) + timedelta(seconds=seconds))


# -- jobs ------------------------------------------------------------------------------------------------------------


@pytest.mark.blocks("a job that holds the loop is what is looked for")
async def test_a_job_that_blocks_is_named_once_each_run_with_its_line(said: Said) -> None:
    app = App()

    @app.task(name="poll")
    async def poll(times: int) -> None:
        before = len(said.all("blocks the loop"))
        block(lambda: len(said.all("blocks the loop")) > before)
        for _ in range(times - 1):
            await asyncio.sleep(0.2)
            time.sleep(0.6)

    async with app:
        first = await poll.enqueue(times=2)
        await first
        second = await poll.enqueue(times=1)
        await second

    found = said.with_text("blocks the loop")
    assert len(found) == 2
    for job, record in zip((first, second), found, strict=True):
        message = record.getMessage()
        assert message.startswith(f"poll job={job.id} blocks the loop: ")
        where = message.partition(" at ")[2]
        assert "test_watchdog.py:" in where
        assert " in block: " in where
        assert {"job_id": job.id, "task": "poll", "attempt": 1}.items() <= vars(record).items()
        assert "in test_a_job_that_blocks_is_named_once_each_run_with_its_line.<locals>.poll" in vars(record)["stack"]
        assert "asyncio" not in vars(record)["stack"]


@pytest.mark.blocks("a job that holds the loop is what is looked for")
async def test_a_plain_function_on_the_loop_is_named(said: Said) -> None:
    app = App()

    @app.task(name="plain", run_in="loop")
    def plain() -> None:
        block(lambda: said.records)

    async with app:
        job = await plain.enqueue()
        await job

    assert said.all("blocks the loop")[0].startswith(f"plain job={job.id} blocks the loop: ")


@pytest.mark.blocks("a job that holds the loop is what is looked for")
async def test_a_coroutine_that_a_plain_function_made_is_named(said: Said) -> None:
    app = App()

    async def inner() -> None:
        block(lambda: said.records)

    @app.task(name="made", run_in="thread")
    def made() -> Any:
        return inner()

    async with app:
        job = await made.enqueue()
        await job

    assert said.all("blocks the loop")[0].startswith(f"made job={job.id} blocks the loop: ")


@pytest.mark.blocks("a task of a job that holds the loop is what is looked for")
async def test_a_task_that_a_job_has_started_is_named_after_the_job(said: Said) -> None:
    app = App()

    async def part() -> None:
        block(lambda: said.records)

    @app.task(name="whole")
    async def whole() -> None:
        await asyncio.gather(part(), asyncio.sleep(0))

    async with app:
        job = await whole.enqueue()
        await job

    (message,) = said.all("blocks the loop")
    if hasattr(asyncio.Task, "get_context") or isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop):
        assert message.startswith(f"whole job={job.id} blocks the loop: ")
    else:  # uvloop on Python 3.11 does not show the context of a task
        assert ".<locals>.part) blocks the loop: " in message
    assert " in block: " in message


@pytest.mark.blocks("the loop is held for less than is told")
async def test_short_blocks_are_not_told(said: Said) -> None:
    app = App(block_warn_seconds=DEADLINE)

    @app.task()
    async def short() -> None:
        for _ in range(3):
            time.sleep(0.3)
            await asyncio.sleep(0)

    async with app:
        await (await short.enqueue())

    assert not said.records


@pytest.mark.blocks("the loop is kept busy, by nobody alone")
@pytest.mark.parametrize("kind", ["tasks", "callbacks"])
async def test_a_busy_loop_is_nobodys_doing(said: Said, wait_until: WaitUntil, kind: str) -> None:
    app = App(block_warn_seconds=1)
    loop = asyncio.get_running_loop()
    if kind == "callbacks" and not isinstance(loop, asyncio.BaseEventLoop):
        kind = "tasks"  # the calls of one function cannot be told apart on uvloop: it does not show their handles
    done: list[int] = []

    def step(number: int) -> None:
        time.sleep(0.1)
        done.append(number)

    async def task(number: int) -> None:
        step(number)

    @app.task()
    async def crowd() -> None:
        if kind == "callbacks":
            for number in range(30):
                loop.call_soon(step, number)
        else:
            await asyncio.gather(*map(task, range(30)))

    async with app:
        dog, now = app._watchdog, SystemClock().monotonic
        assert dog is not None
        begin = now()
        await (await crowd.enqueue())
        await wait_until(lambda: len(done) == 30)
        end = now()
        await wait_until(lambda: dog.covering(begin, end))
        found = dog.covering(begin, end)

    assert not said.records
    assert found is not None
    assert (found.what, found.job_id, found.line) == ("many short steps in turn", None, None)


@pytest.mark.blocks("the loop is held by code that keeps all other threads from running")
@pytest.mark.parametrize("is_awake", [True, False])
async def test_code_that_keeps_the_lock_is_named(said: Said, wait_until: WaitUntil, is_awake: bool) -> None:
    app = App(drain_seconds=0)

    @app.task(name="wait")
    async def wait() -> None:
        await asyncio.Event().wait()

    @app.task(name="add")
    async def add() -> None:
        while not said.records:  # noqa: ASYNC110 there is nothing to wait for: it is to hold the loop
            # About a second in one step of the interpreter. Another thread may get the lock after it, and the watchdog
            # only when the step has ended.
            await asyncio.sleep(0, sum(range(40_000_000)))

    async with app:
        dog = app._watchdog
        assert dog is not None
        if is_awake:
            await wait.enqueue()
            await wait_until(lambda: dog._running == 1)
        else:
            await wait_until(lambda: dog._is_parked)
        job = await add.enqueue()
        await job

    assert said.records[0].getMessage().startswith(f"add job={job.id} blocks the loop: ")
    assert "sum(range(40_000_000))" in said.records[0].getMessage()


@pytest.mark.blocks("the loop is held after the step of a task has ended")
async def test_a_task_is_named_with_its_await_when_its_step_has_ended(
    said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = App(drain_seconds=0)
    loop = asyncio.get_running_loop()
    # Code that is in no file, so that it is nobody's line.
    names: dict[str, Any] = {"call_soon": loop.call_soon, "sleep": time.sleep, "told": said.records}
    source = """def held(*args, **options):
        while not told:
            sleep(0.01)
        return call_soon(*args, **options)"""
    exec(compile(source, "<held>", "exec"), names)

    @app.task(name="go_on")
    async def go_on() -> None:
        monkeypatch.setattr(loop, "call_soon", names["held"])
        await asyncio.sleep(0)  # the loop is told to go on with the task, and is held there
        monkeypatch.undo()

    async with app:
        await (job := await go_on.enqueue())

    record = said.records[0]
    assert record.getMessage().startswith(f"go_on job={job.id} blocks the loop: ")
    assert "await asyncio.sleep(0)  # the loop is told" in record.getMessage()
    stack = record.__dict__["stack"].splitlines()
    assert any(line.endswith("go_on") for line in stack)
    assert stack[-1].endswith(", in held")


def sleep_long() -> None:
    time.sleep(0.8)


@pytest.mark.parametrize("run_in", ["thread", "process"])
async def test_what_runs_elsewhere_holds_nothing(said: Said, run_in: Any) -> None:
    app = App(block_warn_seconds=0.1)
    long = app.task(run_in=run_in)(sleep_long)

    async with app:
        await (await long.enqueue())

    assert not said.all("blocks the loop")


@pytest.mark.blocks("the loop is held while nobody looks")
async def test_nothing_is_told_when_it_is_switched_off(said: Said) -> None:
    app = App(block_warn_seconds=None)

    @app.task()
    async def poll() -> None:
        time.sleep(0.6)

    async with app:
        await (await poll.enqueue())
        assert not [thread for thread in threading.enumerate() if thread.name == "tickwork-watchdog"]

    assert not said.records


@pytest.mark.blocks("the loop is held")
async def test_a_hold_is_an_event_when_it_has_ended(wait_until: WaitUntil) -> None:
    app, heard = App(), []

    @app.on(events.LoopHeld)
    async def hear(event: events.LoopHeld) -> None:
        heard.append(event)

    @app.task(name="poll")
    async def poll() -> None:
        block(lambda: app._watchdog is not None and app._watchdog._holds.present is not None)

    async with app:
        job = await app.enqueue(poll)
        await wait_until(lambda: heard)

    assert [(event.what, event.job_id) for event in heard] == [(f"poll job={job.id}", job.id)]
    assert heard[0].seconds > 0.2
    assert " in block: " in (heard[0].line or "")


# -- fire times ------------------------------------------------------------------------------------------------------


@pytest.mark.blocks("the loop is held when a fire time is due")
async def test_a_late_start_names_what_held_the_loop(said: Said, wait_until: WaitUntil) -> None:
    app = App()

    @app.task(name="nightly")
    async def nightly() -> None: ...

    def hold() -> None:
        block(lambda: said.records)
        time.sleep(2.5)

    async with app:
        await app.schedules.add(nightly, soon())
        asyncio.get_running_loop().call_soon(hold)
        await wait_until(lambda: said.all(" s late: "))
        await wait_until(lambda: said.all("blocked the loop"))
        (answer,) = await app.schedules["nightly"].history()
        why = await app.schedules["nightly"].why(answer.first)

    name = "test_a_late_start_names_what_held_the_loop.<locals>.hold"
    assert said.records[0].getMessage().startswith(f"callback {name} blocks the loop: ")
    (late,) = said.all(" s late: ")
    start, _, reason = late.partition(" s late: ")
    assert start.startswith("nightly job=")
    assert float(start.rpartition(" ")[2]) > 1.0
    assert reason.startswith(f"the loop was held by callback {name} for ")
    assert f"test_watchdog.py:{hold.__code__.co_firstlineno + 2} in {name}: time.sleep(2.5)" in reason
    assert f", in {name}\n    time.sleep(2.5)" in reason
    assert answer.late_because is not None
    assert answer.late_because.startswith(f"the loop was held by callback {name} for ")
    assert f" late because {answer.late_because}" in why.sentence


@pytest.mark.blocks("the loop is held when a fire time is due")
async def test_a_late_start_is_explained_whatever_the_limit_of_warnings(said: Said, wait_until: WaitUntil) -> None:
    app = App(block_warn_seconds="1d")

    @app.task(name="nightly")
    async def nightly() -> None: ...

    async def hold() -> None:
        block(lambda: app._watchdog is not None and app._watchdog._holds.present is not None)
        time.sleep(1.5)

    async with app:
        await app.schedules.add(nightly, soon())
        await asyncio.create_task(hold(), name="web")
        await wait_until(lambda: said.records)

    (late,) = said.records
    assert " s late: the loop was held by task 'web' (" in late.getMessage()


@pytest.mark.blocks("the loop is held when a fire time is due")
async def test_a_callback_without_python_code_is_named(said: Said, wait_until: WaitUntil) -> None:
    app = App()

    @app.task(name="nightly")
    async def nightly() -> None: ...

    async with app:
        await app.schedules.add(nightly, soon(0.1))
        asyncio.get_running_loop().call_soon(time.sleep, 3.0)
        await wait_until(lambda: said.all(" s late: "))

    name = "callback time.sleep" if isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop) else "callback"
    assert said.all(f"{name} blocks the loop: ")
    assert f" s late: the loop was held by {name} for " in said.all(" s late: ")[0]


@pytest.mark.blocks("the loop is held while jobs wait")
async def test_many_late_starts_are_told_once_for_each_task(said: Said, wait_until: WaitUntil) -> None:
    app, ran = App(), []

    @app.task(name="small")
    async def small() -> None:
        ran.append("small")

    @app.task(name="other")
    async def other() -> None:
        ran.append("other")

    @app.task(name="big")
    async def big() -> None:
        for _ in range(3):
            await small.enqueue_nowait()
        await other.enqueue_nowait()
        block(lambda: said.records)
        time.sleep(1.5)

    async with app:
        job = await big.enqueue()
        await wait_until(lambda: len(ran) == 4)

    late = said.all(" s late: ")
    assert [message.partition(" ")[0] for message in late] == ["small", "other"]
    assert all(f"the loop was held by big job={job.id} for " in message for message in late)
    assert [len(message.splitlines()) > 1 for message in late] == [True, False]


@pytest.mark.blocks("the loop is held after a job was enqueued")
async def test_whoever_enqueues_and_blocks_is_named(said: Said, wait_until: WaitUntil) -> None:
    app = App()

    @app.task(name="mail")
    async def mail() -> None: ...

    async def handler() -> None:
        await mail.enqueue()
        block(lambda: said.records)
        time.sleep(1.5)

    async with app:
        await asyncio.create_task(handler(), name="request")
        await wait_until(lambda: said.all(" s late: "))

    assert "the loop was held by task 'request' (test_whoever_enqueues" in said.all(" s late: ")[0]


# -- the life of the thread --------------------------------------------------------------------------------------------


@pytest.mark.blocks("the app stops while the loop is held")
async def test_an_app_stops_while_the_loop_is_held(said: Said, wait_until: WaitUntil) -> None:
    app = App(drain_seconds=0)

    @app.task(name="poll")
    async def poll() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            block(lambda: said.records)

    async with app:
        await poll.enqueue()
        await wait_until(lambda: app.running)

    assert said.all("poll job=")
    assert app._watchdog is None  # that no thread is left is seen by the fixture of all tests


class Watched:
    """A watchdog of its own, on the running loop."""

    def __init__(self, block_warn_seconds: float = 0.05) -> None:
        self.ended: list[Hold] = []
        self.dog = Watchdog(
            asyncio.get_running_loop(),
            block_warn_seconds=block_warn_seconds,
            holder=lambda task, variables: None,
            clock=SystemClock(),
            on_hold=self.ended.append,
        )

    def __enter__(self) -> Watched:
        self.dog.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.dog.close()


async def asleep(dog: Watchdog) -> float:
    """Wait until it sleeps, and return when it last looked at the clock."""
    while True:
        mark = dog._mark
        await asyncio.sleep(0.05)
        if dog._is_parked and dog._mark == mark:
            return mark


async def test_nobody_looks_at_an_idle_loop(wait_until: WaitUntil) -> None:
    with Watched() as watched:
        dog = watched.dog
        await wait_until(lambda: dog._is_parked)
        dog.enter()
        await wait_until(lambda: dog._seen_entered == 1)
        dog.leave()
        await wait_until(lambda: dog._is_parked)
        dog.expect(SystemClock().monotonic() + 3600)
        await wait_until(lambda: dog._sleeps_until < math.inf)
        woke_at = await asleep(dog)
        dog.expect(SystemClock().monotonic() + 7200)
        dog.expect(None)
        await asyncio.sleep(0.3)

        assert dog._is_parked
        assert dog._mark == woke_at


async def test_a_fire_time_that_passes_wakes_it_and_one_that_moves_on_does_not(wait_until: WaitUntil) -> None:
    with Watched() as watched:
        dog, now = watched.dog, SystemClock().monotonic
        await wait_until(lambda: dog._is_parked)
        dog.expect(now() + 0.1)
        dog.expect(now() + 3600)
        await asyncio.sleep(0.6)
        assert dog._due_done is None
        dog.expect(now())
        await wait_until(lambda: dog._due_done is not None)
        woke_at = await asleep(dog)
        await asyncio.sleep(0.3)

        assert dog._mark == woke_at  # the loop was free: that it was due needs no second look


@pytest.mark.blocks("the loop is held")
async def test_the_end_of_a_hold_is_told_on_the_loop(wait_until: WaitUntil) -> None:
    async def rude() -> Hold | None:
        begin = now()
        block(lambda: dog._holds.present)
        return dog.covering(begin, now())

    now = SystemClock().monotonic
    with Watched() as watched:
        dog = watched.dog
        dog.enter()
        await wait_until(lambda: dog._seen_entered == 1)
        found = await asyncio.create_task(rude(), name="rüde")
        await wait_until(lambda: [hold for hold in watched.ended if "rüde" in hold.what])
        dog.leave()

    (ended,) = (hold for hold in watched.ended if "rüde" in hold.what)  # a busy machine holds the loop itself at times
    assert found is not None
    assert ended.what == found.what == f"task 'rüde' ({rude.__qualname__})"
    assert ended.seconds is not None
    assert found.seconds is not None
    assert found.seconds > 0
    assert ended.seconds > 0
    # On a busy machine it begins later for who asks later: in which the process stood still meanwhile is left out.
    assert found.begin_mono <= ended.begin_mono
    assert found.begin_mono + found.seconds <= ended.begin_mono + ended.seconds + 0.01


@pytest.mark.blocks("the loop is held")
async def test_a_handler_that_raises_disturbs_nothing(said: Said) -> None:
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise ZeroDivisionError("broken")

    app = App()

    @app.task(name="poll")
    async def poll(expected: int) -> None:
        block(lambda: len(said.records) == expected)

    broken, logger = Broken(), logging.getLogger("tickwork.watchdog")
    said.setLevel(logging.WARNING)
    logger.addHandler(said)  # asked first
    logger.addHandler(broken)
    try:
        async with app:
            await (await poll.enqueue(1))
            await (await poll.enqueue(2))
    finally:
        logger.removeHandler(broken)
        logger.removeHandler(said)

    assert len(said.all("blocks the loop")) == 2


@pytest.mark.blocks("the loop is held")
async def test_a_handler_that_blocks_holds_up_neither_the_loop_nor_the_stop() -> None:
    class Stuck(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            entered.set()
            free.wait(DEADLINE)

    app, entered, free = App(), threading.Event(), threading.Event()

    @app.task(name="poll")
    async def poll() -> None:
        block(entered.is_set)

    stuck, logger = Stuck(), logging.getLogger("tickwork.watchdog")
    logger.addHandler(stuck)
    try:
        async with app:
            await (await poll.enqueue())
            await (await poll.enqueue())
        assert not free.is_set()
    finally:
        free.set()
        logger.removeHandler(stuck)


def test_a_closed_loop_ends_it() -> None:
    loop = asyncio.new_event_loop()

    async def watch() -> None:
        watched = Watched()
        watched.dog.start()
        watched.dog.enter()

    loop.run_until_complete(watch())
    loop.close()  # that no thread is left is seen by the fixture of all tests


async def test_a_loop_that_does_not_run_is_held_by_nobody(said: Said) -> None:
    def elsewhere() -> None:
        loop = asyncio.new_event_loop()

        async def watch() -> None:
            watched.append(Watched())
            watched[0].dog.start()
            watched[0].dog.enter()

        watched: list[Watched] = []
        loop.run_until_complete(watch())
        dog = watched[0].dog
        block(lambda: dog._seen_entered)
        time.sleep(0.3)
        holds.append(dog._holds.present)
        dog.close()
        loop.close()

    holds: list[Hold | None] = []
    await asyncio.to_thread(elsewhere)

    assert holds == [None]
    assert not said.records


STOPPED = """
import asyncio, logging, time
from tickwork import App

logging.basicConfig(level=logging.WARNING)
app = App(block_warn_seconds=0.5)
go_on = asyncio.Event()

@app.task(name="poll")
async def poll():
    print("began", flush=True)
    asyncio.get_running_loop().add_signal_handler(10, go_on.set)
    while not go_on.is_set():
        await asyncio.sleep(0)
        time.sleep(0.02)  # whenever it is stopped, it is most likely here
        print("turn", flush=True)
    time.sleep(5)

async def main():
    async with app:
        await (await poll.enqueue())

asyncio.run(main())
"""


def test_a_process_that_was_stopped_was_held_by_nobody(tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text(STOPPED)
    with Running("jobs.py", cwd=tmp_path) as running:
        running.wait_for("began")
        for _ in range(3):
            running.wait_for("turn", running.out.count("turn") + 5)
            running.send(signal.SIGSTOP)
            time.sleep(1.0)
            running.send(signal.SIGCONT)
        running.wait_for("turn", running.out.count("turn") + 30)
        assert running.err == ""
        running.send(signal.SIGUSR1)
        ended = running.ended()

    assert ended.status == 0
    assert "blocks the loop: " in ended.err  # and it still looks
    assert "time.sleep(5)" in ended.err


# -- the option --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "it must be more than zero"),
        (0.001, "the smallest value is 10ms"),
        (-1, None),
        (True, None),
        ("soon", None),
        (float("nan"), None),
    ],
)
def test_a_wrong_limit_is_refused(value: Any, said: str | None) -> None:
    with pytest.raises(InvalidDuration, match=r"block_warn_seconds") as refused:
        App(block_warn_seconds=value)
    assert said is None or said in str(refused.value)


def test_a_limit_may_be_a_text_or_a_timedelta() -> None:
    assert App().block_warn_seconds == 0.25
    assert App(block_warn_seconds="50ms").block_warn_seconds == 0.05
    assert App(block_warn_seconds=timedelta(seconds=2)).block_warn_seconds == 2.0
    assert App(block_warn_seconds=None).block_warn_seconds is None


async def test_virtual_time_is_not_watched() -> None:
    app = App()
    async with app.testing():
        assert app._watchdog is None
