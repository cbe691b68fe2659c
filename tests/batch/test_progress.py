from __future__ import annotations

import asyncio
import functools
import logging
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tickwork import App, Context
from tickwork.batch import bars
from tickwork.batch.progress import BatchProgress, Reporter, reporter, words
from tickwork.errors import InvalidOption

POSIX = pytest.mark.skipif(os.name != "posix", reason="pseudo terminals are POSIX's")


def at(seconds: float, done: int = 0, failed: int = 0, total: int | None = 100) -> BatchProgress:
    return BatchProgress(done, failed, total, seconds)


async def run(told: Reporter, *states: BatchProgress) -> None:
    for state in states[:-1]:
        told.show(state)
    await told.close(states[-1])


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "tickwork.batch")
    return caplog


# --- the figures -------------------------------------------------------------------------------------------------


def test_rate_and_time_left_are_averages_since_the_start() -> None:
    assert (at(4, done=20).rate, at(4, done=20).seconds_left) == (5.0, 16.0)


def test_what_a_checkpoint_knew_makes_no_rate() -> None:
    state = BatchProgress(done=60, failed=0, total=100, seconds=2, known=50)
    assert (state.rate, state.seconds_left) == (5.0, 8.0)


def test_the_time_left_is_unknown_without_a_total_and_before_the_first_item() -> None:
    assert at(5, done=10, total=None).seconds_left is None
    assert at(5).seconds_left is None
    assert at(0.0).seconds_left is None


@pytest.mark.parametrize("state", [at(0.0, total=0), at(3, done=100), at(3, done=101)])
def test_nothing_is_left_at_the_end(state: BatchProgress) -> None:
    assert state.seconds_left == 0.0


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (at(5, done=1_200, failed=3, total=10_080), "1,200 of 10,080 items, 240/s, 37s left, 3 failed"),
        (at(8, done=2, total=None), "2 items, 0.25/s"),
        (at(0.0, total=0), "0 of 0 items, 0/s"),
        (at(1, done=99), "99 of 100 items, 99/s"),
        (BatchProgress(9, 0, 10, 2, known=3), "9 of 10 items, 3/s, 0.3s left, 3 known from the checkpoint"),
    ],
)
def test_people_read_it_in_one_line(state: BatchProgress, text: str) -> None:
    assert words(state) == text


# --- nobody, the log, a function -----------------------------------------------------------------------------------


async def test_nothing_is_told_when_nothing_is_asked_for(
    log: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    await run(reporter(False, "squares"), at(0.1, done=1), at(60, done=100))
    assert (log.messages, capfd.readouterr()) == ([], ("", ""))


async def test_the_log_gets_a_line_every_five_seconds_and_one_at_the_end(log: pytest.LogCaptureFixture) -> None:
    await run(reporter(True, "squares"), *(at(second / 10, done=second) for second in range(121)), at(12.1, done=121))
    assert log.messages == [
        "squares: 50 of 100 items, 10/s, 5s left",
        "squares: 100 of 100 items, 10/s",
        "squares: ended after 12.1s: 121 of 100 items, 10/s",
    ]


async def test_a_function_is_told_some_times_a_second_and_of_the_last_state_in_any_case() -> None:
    told: list[BatchProgress] = []
    states = [at(number / 64, done=number) for number in range(64)]
    await run(reporter(told.append, "squares"), *states)
    assert [state.done for state in told] == [0, 13, 26, 39, 52, 63]
    assert told[-1] is states[-1]


async def test_what_a_function_raises_is_told_once_and_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    calls: list[int] = []

    def fail(progress: BatchProgress) -> None:
        calls.append(progress.done)
        raise KeyError("mine")

    await run(reporter(fail, "squares"), at(0, done=1), at(1, done=2), at(2, done=3))
    assert calls == [1, 2, 3]
    message = "squares: who is told of the progress failed; the batch goes on, and this is told once"
    assert caplog.messages == [message]
    assert "KeyError: 'mine'" in caplog.text


async def test_a_coroutine_that_a_plain_function_returns_is_told_and_not_left_unawaited(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def later() -> None: ...

    await run(reporter(lambda progress: later(), "squares"), at(0), at(1))
    message = "squares: who is told of the progress returned a coroutine, which nobody awaits; make it a plain function"
    assert caplog.messages == [message]


class Asynchronous:
    async def __call__(self, progress: BatchProgress) -> None: ...


async def asynchronous(progress: BatchProgress, _more: int = 0) -> None: ...


@pytest.mark.parametrize("function", [asynchronous, functools.partial(asynchronous, _more=1), Asynchronous()])
def test_an_asynchronous_function_is_refused(function: Any) -> None:
    with pytest.raises(InvalidOption) as refused:
        reporter(function, "squares")
    assert str(refused.value) == (
        f"progress must be True, False or a function that takes a BatchProgress, got {function!r}; "
        "nobody would await it: make it a plain function"
    )


@pytest.mark.parametrize("value", ["yes", None, 1, 0])
def test_anything_else_is_refused(value: Any) -> None:
    with pytest.raises(InvalidOption) as refused:
        reporter(value, "squares")
    assert str(refused.value) == (
        f"progress must be True, False or a function that takes a BatchProgress, got {value!r}"
    )


def test_a_function_that_takes_no_argument_is_refused() -> None:
    def take_none() -> None: ...

    with pytest.raises(InvalidOption, match="a BatchProgress, got .*take_none.*; too many positional arguments$"):
        reporter(take_none, "squares")  # type: ignore[arg-type]


# --- inside a job --------------------------------------------------------------------------------------------------


async def test_a_job_of_an_app_shows_the_progress_of_its_batch(log: pytest.LogCaptureFixture) -> None:
    app = App()

    @app.task()
    async def work() -> None:
        await run(reporter(True, "squares"), at(0, done=1), at(9, done=40, failed=2))

    async with app:
        job = await work.enqueue()
        await job
        progress = (await job.record()).progress
    assert progress is not None
    assert (progress.done, progress.total, progress.message) == (40, 100, "2 failed")
    assert log.messages == []


def in_child() -> str:
    logged = []
    handler = logging.Handler()
    handler.emit = lambda record: logged.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("tickwork.batch").addHandler(handler)
    logging.getLogger("tickwork.batch").setLevel(logging.INFO)
    sys.stderr.isatty = lambda: True  # type: ignore[method-assign]
    asyncio.run(run(reporter(True, "squares"), at(0), at(6, done=6)))
    return repr(logged)


async def test_a_child_process_of_a_pool_leaves_the_terminal_to_its_parent() -> None:
    from tickwork import Pool

    async with Pool(workers=1, run_in="process") as pool:
        logged = await (await pool.submit(in_child))
    assert logged == "['squares: ended after 6s: 6 of 100 items, 1/s, 1m34s left']"


def job_in_child() -> None:
    asyncio.run(run(reporter(True, "squares"), at(0, done=1), at(9, done=40)))


async def test_so_does_a_job_in_a_process_of_its_own() -> None:
    app = App()
    task = app.task(run_in="process")(job_in_child)
    async with app:
        job = await task.enqueue()
        await job
        progress = (await job.record()).progress
    assert progress is not None
    assert (progress.done, progress.total, progress.message) == (40, 100, None)


def test_a_copy_of_a_context_that_cannot_tell_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(_: Context) -> None:
        raise OSError("the parent is gone")

    async def main() -> None:
        context = Context(job_id="1", task="t")
        context.listen(refuse)
        context.activate()
        await run(reporter(True, "squares"), at(0, done=1), at(9, done=40))

    asyncio.run(main())
    assert caplog.messages == ["squares: who is told of the progress failed; the batch goes on, and this is told once"]


# --- a terminal ----------------------------------------------------------------------------------------------------


UNTIL = """
import asyncio, contextlib, sys, termios, time
from tickwork.batch import bars
from tickwork.batch.progress import BatchProgress, reporter
written, write = [], sys.stderr.write
sys.stderr.write = lambda text: (written.append(text), write(text))[1]

def until(text):
    while text not in "".join(written):
        time.sleep(0.002)

@contextlib.contextmanager
def stopped():
    termios.tcflow(2, termios.TCOOFF)  # as by Ctrl-S
    try:
        yield
    finally:
        termios.tcflow(2, termios.TCOON)

def close(told, *state):
    asyncio.run(told.close(BatchProgress(*state)))
"""


def on_terminal(program: str, *, stdout_to: Path | None = None) -> str:
    """Run a program on a terminal of 100 columns, and return what arrives there."""
    import pty

    ours, theirs = pty.openpty()
    program = UNTIL + textwrap.dedent(program)
    environment = {**os.environ, "COLUMNS": "100", "TERM": "xterm", "NO_COLOR": "1"}
    stdout = theirs if stdout_to is None else os.open(stdout_to, os.O_WRONLY | os.O_CREAT)
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=theirs, stdout=stdout, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        if stdout_to is not None:
            os.close(stdout)
        shown = b""
        try:
            while got := os.read(ours, 65536):
                shown += got
        except OSError:  # how Linux says that the other side is closed
            pass
        assert process.wait(30) == 0
    os.close(ours)
    return shown.decode()


def screen(shown: str) -> list[str]:
    """Return the lines that are to be seen in the end."""
    rows, row, column = [""], 0, 0
    for piece in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", shown):
        if piece == "\r":
            column = 0
        elif piece == "\n":
            row, column = row + 1, 0
            rows += [""] * (row + 1 - len(rows))
        elif piece.endswith("A") and piece[0] == "\x1b":
            row -= int(piece[2:-1] or 1)
        elif piece == "\x1b[2K":
            rows[row] = ""
        elif piece[0] != "\x1b":
            rows[row] = rows[row][:column].ljust(column) + piece + rows[row][column + len(piece) :]
            column += len(piece)
    return "\n".join(line.rstrip() for line in rows).rstrip().split("\n")


@POSIX
def test_a_terminal_gets_a_bar_that_stays_with_its_last_state() -> None:
    shown = on_terminal(
        """
        told = reporter(True, "[red]squares")
        told.show(BatchProgress(10, 0, 100, 1.0))
        until("10 of 100")
        print("from a job")
        close(told, 100, 2, 100, 10.0)
        print("after it")
        """
    )
    assert "10 of 100 items, 10/s, 9s left" in shown
    lines = screen(shown)
    assert lines[0] == "from a job", shown
    assert lines[1].startswith("[red]squares ━━━")
    assert lines[1].endswith("━ 100 of 100 items, 10/s, 2 failed")
    assert lines[2:] == ["after it"]


@POSIX
def test_a_terminal_that_is_stopped_holds_the_end_of_its_batch_and_not_the_loop() -> None:
    shown = on_terminal(
        """
        bars.CLOSE_SECONDS = 10

        async def main():
            told = reporter(True, "squares")
            until("0 items")
            with stopped():
                closing = asyncio.ensure_future(told.close(BatchProgress(100, 0, 100, 10.0)))
                for _ in range(100):
                    await asyncio.sleep(0)
                assert not told.drawn.is_set() and not closing.done()
            await closing
            assert told.drawn.is_set()

        asyncio.run(main())
        """
    )
    assert screen(shown)[0].endswith("━ 100 of 100 items, 10/s")


@POSIX
def test_a_batch_does_not_wait_for_ever_for_a_terminal_that_is_stopped() -> None:
    shown = on_terminal(
        """
        bars.CLOSE_SECONDS = 0.05
        told = reporter(True, "squares")
        until("0 items")
        with stopped():
            close(told, 100, 0, 100, 10.0)
            assert not told.drawn.is_set()
        assert told.drawn.wait(10)
        """
    )
    assert screen(shown)[0].endswith("━ 100 of 100 items, 10/s")


@POSIX
def test_whoever_is_cancelled_does_not_wait_for_a_terminal_that_is_stopped() -> None:
    shown = on_terminal(
        """
        bars.CLOSE_SECONDS = 10

        async def main():
            told = reporter(True, "squares")
            until("0 items")
            with stopped():
                closing = asyncio.ensure_future(told.close(BatchProgress(7, 0, 100, 1.0)))
                await asyncio.sleep(0)
                closing.cancel()
                await asyncio.wait([closing])
                assert closing.cancelled() and not told.drawn.is_set()
            assert told.drawn.wait(10)

        asyncio.run(main())
        """
    )
    assert screen(shown)[0].endswith(" 7 of 100 items, 7/s, 13s left")


@POSIX
def test_two_batches_at_once_have_two_bars_on_one_display() -> None:
    shown = on_terminal(
        """
        one, two = reporter(True, "one"), reporter(True, "two")
        one.show(BatchProgress(1, 0, 2, 1.0))
        two.show(BatchProgress(5, 0, None, 1.0))
        until("5 items")
        close(one, 2, 0, 2, 2.0)
        three = reporter(True, "three")
        close(two, 6, 0, None, 3.0)
        close(three, 0, 0, 0, 0.0)
        four = reporter(True, "four")
        close(four, 4, 0, 4, 2.0)
        """
    )
    assert [(line.split()[0], line.rpartition("━ ")[2]) for line in screen(shown)] == [
        ("one", "2 of 2 items, 1/s"),
        ("two", "6 items, 2/s"),
        ("three", "0 of 0 items, 0/s"),
        ("four", "4 of 4 items, 2/s"),
    ]


@POSIX
def test_what_goes_to_a_file_is_not_drawn_into_the_terminal(tmp_path: Path) -> None:
    shown = on_terminal(
        """
        told = reporter(True, "squares")
        until("0 items")
        print("a result")
        close(told, 1, 0, 1, 1.0)
        """,
        stdout_to=tmp_path / "out",
    )
    assert "a result" not in shown
    assert (tmp_path / "out").read_text() == "a result\n"


@POSIX
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("import sys; sys.modules['rich'] = None", "rich is not installed"),
        ("import os; os.environ['TERM'] = 'dumb'", "the terminal cannot move its cursor"),
        ("import sys; sys.stderr.close()", "nobody is there"),
        ("import sys; sys.stderr = None", "nobody is there"),
    ],
)
def test_without_rich_or_a_terminal_the_log_is_told(change: str, reason: str, tmp_path: Path) -> None:
    on_terminal(
        f"""
        import logging
        logging.basicConfig(filename={str(tmp_path / "log")!r}, level=logging.INFO, format="%(message)s")
        {change}
        told = reporter(True, "squares")
        close(told, 1, 0, 1, 1.0)
        assert not [name for name in sys.modules if name.startswith("rich.")]
        """
    )
    assert (tmp_path / "log").read_text() == "squares: ended after 1s: 1 of 1 items, 1/s\n", reason


def test_rich_is_not_imported_where_no_bar_is_drawn() -> None:
    program = """
import asyncio, sys
from tickwork.batch.progress import BatchProgress, reporter
for way in (False, True, print):
    asyncio.run(reporter(way, "squares").close(BatchProgress(1, 0, 1, 1.0)))
assert not [name for name in sys.modules if name.startswith("rich")]
"""
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


@POSIX
async def test_a_terminal_that_is_gone_ends_the_bars_and_not_the_batch(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Gone:
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

        def flush(self) -> None: ...

        def fileno(self) -> int:
            return 2

    monkeypatch.setattr(sys, "stderr", Gone())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(bars, "CLOSE_SECONDS", 30)  # the first import of rich may take longer than the end of a batch
    told = reporter(True, "squares")
    assert isinstance(told, bars.Bar)
    await told.close(at(1, done=1))
    assert told.drawn.is_set()
    assert caplog.messages == ["the progress bars cannot be drawn any more: OSError(5, 'Input/output error')"]
