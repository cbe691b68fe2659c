"""What children log is handled in their parent."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from typing import TYPE_CHECKING, Any

import pytest

from tickwork.errors import NotRunning, ProcessDied
from tickwork.runners.logs import LEVELS_SECONDS, Levels
from tickwork.runners.process import ProcessRunner

from . import functions, talkers
from .waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id")


class Heard(logging.Handler):
    """Keeps records, and in which context they were handled."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.requests: list[str | None] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self.requests.append(request_id.get(None))

    @property
    def lines(self) -> list[str]:
        return [record.getMessage() for record in self.records]


@pytest.fixture
def heard() -> Iterator[Heard]:
    """What the root of this process hears, from WARNING on."""
    handler, before = Heard(), logging.root.level
    logging.root.addHandler(handler)
    logging.root.setLevel(logging.WARNING)
    yield handler
    logging.root.removeHandler(handler)
    logging.root.setLevel(before)


@pytest.fixture
async def one(heard: Heard) -> AsyncIterator[ProcessRunner]:
    runner = ProcessRunner(1)
    yield runner
    await runner.aclose()


async def test_a_record_is_handled_here_as_it_was_made_there(one: ProcessRunner, heard: Heard) -> None:
    pid = await one.run(talkers.say, (logging.WARNING, "%s is %d", "it", 7), {"extra": {"mine": [1, {"a": None}]}})

    (record,) = heard.records
    assert (record.name, record.levelname, record.getMessage()) == ("mine", "WARNING", "it is 7")
    assert (record.msg, record.args) == ("%s is %d", ("it", 7))
    assert (record.filename, record.funcName) == ("talkers.py", "say")
    assert (record.process, record.processName) == (pid, "tickwork-process")
    assert vars(record)["mine"] == [1, {"a": None}]


async def test_records_come_in_order_and_before_the_result(one: ProcessRunner, heard: Heard) -> None:
    await one.run(talkers.say_in_turn, ("",))

    assert heard.lines == ["one", "two", "three"]


async def test_a_record_is_handled_in_the_context_of_the_caller(one: ProcessRunner, heard: Heard) -> None:
    request_id.set("r-1")

    await one.run(talkers.say, (logging.WARNING, "text"))

    assert heard.requests == ["r-1"]


async def test_a_listener_of_ones_own_hears_them_instead(one: ProcessRunner, heard: Heard) -> None:
    told: list[logging.LogRecord] = []

    await one.run(talkers.say, (logging.WARNING, "text"), on_log=told.append)

    assert [record.getMessage() for record in told] == ["text"]
    assert heard.lines == []


async def test_what_a_child_logs_right_before_its_death_is_heard(one: ProcessRunner, heard: Heard) -> None:
    with pytest.raises(ProcessDied):
        await one.run(talkers.say_and_die, ("last words",))

    assert heard.lines == ["last words"]


async def test_values_that_are_not_plain_come_as_text(one: ProcessRunner, heard: Heard) -> None:
    await one.run(talkers.say_things)

    assert heard.lines == ["a thing of 7", "a thing", "[[...]]"]
    first, _, third = map(vars, heard.records)
    assert (first["thing"], first["at"].isoformat()) == ("a thing", "2026-01-01T00:00:00+00:00")
    assert third["kept"] == {"a": [1, (2.5, None)]}


async def test_a_traceback_comes_as_text_and_is_formatted_with_the_line(one: ProcessRunner, heard: Heard) -> None:
    await one.run(talkers.say_an_error)

    (record,) = heard.records
    shown = logging.Formatter("%(message)s").format(record)
    assert shown.startswith("it went badly\nTraceback (most recent call last):\n")
    assert shown.endswith("ValueError: wrong")


async def test_a_line_that_cannot_be_formatted_hurts_no_other(
    one: ProcessRunner, heard: Heard, capfd: pytest.CaptureFixture[str]
) -> None:
    await one.run(talkers.say_badly)

    assert heard.lines == ["next"]
    assert "--- Logging error ---" in capfd.readouterr().err


# -- levels


async def test_children_send_what_would_be_handled_here(one: ProcessRunner, heard: Heard) -> None:
    logging.root.setLevel(logging.INFO)
    logging.getLogger("mine.loud").setLevel(logging.DEBUG)
    logging.getLogger("mine.quiet").setLevel(logging.ERROR)
    try:
        await one.warm()
        for name in ("mine", "mine.loud", "mine.quiet"):
            for level in (logging.DEBUG, logging.INFO, logging.ERROR):
                await one.run(talkers.say_by, (name, level, f"{name} {level}"))

        assert heard.lines == ["mine 20", "mine 40", "mine.loud 10", "mine.loud 20", "mine.loud 40", "mine.quiet 40"]
        expected = [logging.INFO, logging.DEBUG, logging.ERROR, logging.NOTSET]
        assert await one.run(talkers.levels, (None, "mine.loud", "mine.quiet", "mine")) == expected
    finally:
        logging.getLogger("mine.loud").setLevel(logging.NOTSET)
        logging.getLogger("mine.quiet").setLevel(logging.NOTSET)


async def test_a_level_that_changes_reaches_children_that_are_warm(one: ProcessRunner, heard: Heard) -> None:
    await one.run(talkers.say, (logging.INFO, "too low"))

    logging.root.setLevel(logging.INFO)
    one._levels = None  # as if a second had passed
    await one.run(talkers.say, (logging.INFO, "just right"))

    assert heard.lines == ["just right"]


def test_levels_are_looked_up_once_a_second() -> None:
    now = 0.0
    levels = Levels(lambda: now)
    first = levels.now()
    logging.getLogger("mine.new").setLevel(logging.DEBUG)
    try:
        assert levels.now() is first
        now = LEVELS_SECONDS
        assert levels.now() == {**first, "mine.new": logging.DEBUG}
        now *= 2
        assert levels.now() is levels.now()
    finally:
        logging.getLogger("mine.new").setLevel(logging.NOTSET)


async def test_a_record_below_the_level_here_is_dropped(one: ProcessRunner, heard: Heard) -> None:
    logging.root.setLevel(logging.INFO)
    await one.run(functions.same, (1,))
    logging.root.setLevel(logging.WARNING)  # which the child hears of a second later

    await one.run(talkers.say, (logging.INFO, "too low by now"))

    assert heard.lines == []


# -- whose configuration


async def test_a_configuration_of_the_users_in_the_child_wins(heard: Heard, capfd: pytest.CaptureFixture[str]) -> None:
    runner = ProcessRunner(1, initializer=talkers.set_up)

    await runner.run(talkers.say, (logging.DEBUG, "by itself"))
    await runner.aclose()

    assert heard.lines == []
    assert capfd.readouterr().err == "here: by itself\n"


async def test_so_does_one_that_is_made_in_the_middle_of_a_job(
    one: ProcessRunner, heard: Heard, capfd: pytest.CaptureFixture[str]
) -> None:
    await one.run(talkers.say, (logging.WARNING, "before"))
    await one.run(talkers.set_up_and_say, ("by itself",))
    await one.run(talkers.clear)
    await one.run(talkers.say, (logging.WARNING, "after"))

    assert heard.lines == ["before", "after"]
    assert capfd.readouterr().err == "here: by itself\n"


async def test_what_the_initializer_and_imports_log_is_heard(heard: Heard, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "noisy_module.py").write_text(
        "import logging\nlogging.warning('imported')\ndef start(): logging.warning('started')\n"
        "def work(): logging.warning('worked')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import noisy_module  # type: ignore[import-not-found]

    heard.records.clear()
    runner = ProcessRunner(1, initializer=noisy_module.start)
    await runner.run(noisy_module.work)
    await runner.aclose()

    assert heard.lines == ["imported", "started", "worked"]


async def test_logging_that_is_first_imported_in_the_function_is_heard(
    one: ProcessRunner, heard: Heard, tmp_path: Path, monkeypatch: Any
) -> None:
    (tmp_path / "late_module.py").write_text(
        "def work():\n    import logging\n    logging.getLogger('late').warning('at last')\n"
        "def loaded():\n    import sys\n    return 'logging' in sys.modules, len(sys.meta_path)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import late_module  # type: ignore[import-not-found]

    assert (await one.run(late_module.loaded))[0] is False
    finders = (await one.run(late_module.loaded))[1]
    await one.run(late_module.work)

    assert heard.lines == ["at last"]
    assert await one.run(late_module.loaded) == (True, finders - 1)


async def test_what_is_logged_between_calls_goes_to_stderr(
    one: ProcessRunner, heard: Heard, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    go, done = tmp_path / "go", tmp_path / "done"
    await one.run(talkers.say_after_the_call, (str(go), str(done)))
    go.touch()
    functions.until_there(done)

    assert capfd.readouterr().err == "after the call\n"
    assert heard.lines == []


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
async def test_what_a_fork_of_a_job_logs_goes_to_stderr(
    one: ProcessRunner, heard: Heard, capfd: pytest.CaptureFixture[str]
) -> None:
    assert await one.run(talkers.say_in_a_fork) == 0
    assert await one.run(functions.same, (1,)) == 1

    assert capfd.readouterr().err == "from the fork\n"
    assert heard.lines == []


# -- much of it, and trouble


async def test_many_lines_leave_the_loop_its_turns(one: ProcessRunner, heard: Heard) -> None:
    await one.warm()
    turns: list[int] = []

    async def turn() -> None:
        before = 0
        while True:
            await asyncio.sleep(0)
            turns.append(len(heard.records) - before)
            before = len(heard.records)

    turning = asyncio.create_task(turn())
    await one.run(talkers.say_many, (20_000,), on_log=heard.handle)
    turning.cancel()

    assert heard.lines == [f"line {number}" for number in range(20_000)]
    assert max(turns) < 300  # 64 KiB hold 250, when other work is in the way; about 50 is usual, those of a millisecond


async def test_a_slow_handler_makes_the_child_wait_and_nothing_grow(one: ProcessRunner) -> None:
    handled = 0

    def slow(_record: logging.LogRecord) -> None:
        nonlocal handled
        until = time.perf_counter() + 0.002
        while time.perf_counter() < until:
            pass
        handled += 1

    job = asyncio.create_task(one.run(talkers.say_many, (100_000,), on_log=slow))
    await wait_until(lambda: handled >= 50)

    (child,) = one._children
    assert len(child._receiver._target) == len(child._receiver._small)  # 64 KiB, and no more than that is read
    job.cancel()
    await asyncio.wait([job])


async def test_a_handler_that_raises_does_not_fail_the_job(one: ProcessRunner) -> None:
    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, report: reports.append(report))

    def listen(_record: logging.LogRecord) -> None:
        raise ValueError("deaf")

    await one.run(talkers.say, (logging.WARNING, "text"), describe="job 3", on_log=listen)

    assert [(report["message"], str(report["exception"])) for report in reports] == [
        ("a log record of 'job 3' could not be handled", "deaf")
    ]


async def test_signal_handlers_and_finalizers_that_log_amid_a_write_break_nothing(
    one: ProcessRunner, heard: Heard
) -> None:
    await one.run(talkers.say_amid_writing, (2_000,))

    lines = heard.lines
    assert [line for line in lines if line.startswith("x")] == [f"{'x' * 1000} {number}" for number in range(2_000)]
    assert lines.count("alarm") > 10
    assert lines.count("collected") == 1


async def test_closing_in_the_middle_of_many_lines(heard: Heard) -> None:
    runner = ProcessRunner(1)
    job = asyncio.create_task(runner.run(talkers.say_many, (1_000_000,)))
    await wait_until(lambda: heard.records)

    await runner.aclose()

    with pytest.raises(NotRunning):
        await job
    assert runner.pids == []
