"""`list`, `next`, `trigger` and `run`: what they print, where, and with which exit status."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from datetime import datetime, timedelta
from textwrap import dedent
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest

import tickwork as library
from parts import need

from .command import DEADLINE, Ended, Running, tickwork

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

JOBS = """
import asyncio
import os
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

from tickwork import App, Context, Every, every
from tickwork.triggers import Trigger

app = App(timezone="Asia/Seoul", drain_seconds=5, cancel_seconds=0.2)


@dataclass
class Order:
    number: int
    day: date


@app.cron("0 5 * * *", timeout="1m")
def nightly() -> None: ...


@app.every("1h", name="jobs.often")
async def poll() -> int:
    return 7


@app.task()
async def add(a: int, b: int = 10, *more: int) -> int:
    return a + b + sum(more)


@app.task()
def stem(ctx: Context, path: Path, *, order: Order | None = None) -> dict[str, str]:
    assert ctx.task == "jobs.stem"
    return {"path": path.stem, "type": type(path).__name__, "order": repr(order)}


@app.task(run_in="process")
def pid() -> list[int]:
    return [os.getpid(), os.getppid()]


@app.task()
async def fail() -> None:
    raise ValueError("this is the bug")


@app.task(timeout=0.05)
async def slow() -> None:
    await asyncio.Event().wait()


@app.task()
async def unfit() -> object:
    return object()


@app.task()
async def long() -> str:
    print("began", flush=True)
    await asyncio.sleep(0.3)
    return "finished"


@app.task()
async def ends() -> None:
    raise SystemExit(7)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "jobs.py").write_text(JOBS)
    return tmp_path


def write(folder: Path, text: str) -> None:
    (folder / "jobs.py").write_text(dedent(text))


# -- the command ------------------------------------------------------------------------------------------------------


def test_version_and_help_go_to_stdout(tmp_path: Path) -> None:
    assert tickwork("--version", cwd=tmp_path).out == f"tickwork {library.__version__}\n"
    helped = tickwork("run", "--help", cwd=tmp_path)
    assert (helped.status, helped.err) == (0, "")
    assert "exit status: 0 clean, 1 a job failed or `check` found something, 2 usage or import error" in helped.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["run"], "the following arguments are required: TARGET"),
        (["jump", "jobs"], "invalid choice: 'jump'"),
        (["next", "-n", "0", "jobs"], "argument -n: must be a whole number of at least 1, got '0'"),
        (["next", "-n", "many", "jobs"], "argument -n: must be a whole number of at least 1, got 'many'"),
        (["run", "--fast", "jobs"], "unrecognized arguments: --fast"),
    ],
)
def test_wrong_usage_ends_with_status_2(tmp_path: Path, words: list[str], said: str) -> None:
    ended = tickwork(*words, cwd=tmp_path)

    assert (ended.status, ended.out) == (2, "")
    assert said in ended.err
    assert "Traceback" not in ended.err


# -- list -------------------------------------------------------------------------------------------------------------


def test_list_shows_tasks_with_their_schedules_as_a_table(folder: Path) -> None:
    ended = tickwork("list", "jobs.py", cwd=folder)

    assert (ended.status, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0].split() == ["task", "runs", "in", "timeout", "trigger", "next", "(UTC)"]
    assert lines[1].startswith("jobs.nightly  thread   1m       Cron('0 5 * * *', timezone='Asia/Seoul'")
    assert lines[1].endswith(" 20:00:00")
    assert lines[2].startswith("jobs.often    loop     -        Every('1h')")
    assert lines[5].split() == ["jobs.pid", "process", "-", "-", "-"]


def test_list_as_json_can_be_parsed(folder: Path) -> None:
    listed = json.loads(tickwork("list", "--json", "jobs.py", cwd=folder).out)

    first = listed[0]
    assert first["schedules"][0].pop("next").endswith(" 20:00:00")
    assert first["schedules"][0].pop("trigger").startswith("Cron('0 5 * * *', timezone='Asia/Seoul'")
    assert first == {
        "task": "jobs.nightly",
        "run_in": "thread",
        "timeout": 60.0,
        "schedules": [{"name": "jobs.nightly"}],
    }
    assert listed[2] == {"task": "jobs.add", "run_in": "loop", "timeout": None, "schedules": []}


def test_list_of_an_app_without_tasks_is_an_empty_table(folder: Path) -> None:
    write(folder, "from tickwork import App\napp = App()")

    header = ["task", "runs", "in", "timeout", "trigger", "next", "(UTC)"]
    assert tickwork("list", "jobs.py", cwd=folder).out.split() == header
    assert json.loads(tickwork("list", "--json", "jobs.py", cwd=folder).out) == []
    assert json.loads(tickwork("next", "--json", "jobs.py", cwd=folder).out) == []


def test_trigger_that_raises_hides_no_other_schedule(folder: Path) -> None:
    write(
        folder,
        """
        from tickwork import App
        from tickwork.triggers import Trigger

        class Broken(Trigger):
            def next(self, after):
                raise ValueError("no idea")

            @property
            def fingerprint(self):
                return "broken"

        app = App()

        @app.schedule(Broken())
        def broken(): ...

        @app.every("1h")
        def well(): ...
        """,
    )

    for command in ("list", "next"):
        ended = tickwork(command, "jobs.py", cwd=folder)
        assert ended.status == 0
        assert ended.err == "tickwork: the trigger of schedule jobs.broken raised ValueError('no idea')\n"
        assert "jobs.well" in ended.out


# -- next -------------------------------------------------------------------------------------------------------------


def test_next_shows_fire_times_of_all_schedules_in_order_and_in_the_zone_of_the_app(folder: Path) -> None:
    ended = tickwork("next", "-n", "3", "jobs.py", cwd=folder)

    assert (ended.status, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0].split() == ["Asia/Seoul", "UTC", "schedule"]
    assert len(lines) == 1 + 2 * 3
    nightly = next(line for line in lines if line.endswith("jobs.nightly"))
    assert " 05:00:00 +0900  " in nightly
    assert " 20:00:00  " in nightly


def test_next_as_json_names_zone_and_instant(folder: Path) -> None:
    ended = tickwork("next", "-n", "2", "--tz", "America/New_York", "--json", "jobs.py", cwd=folder)

    found = json.loads(ended.out)
    assert [sorted(entry) for entry in found] == [["at", "clock_change", "schedule", "utc"]] * 4
    at = [datetime.fromisoformat(entry["at"]) for entry in found]
    assert at == sorted(at)
    nightly = [entry for entry in found if entry["schedule"] == "jobs.nightly"]
    first, second = (datetime.fromisoformat(entry["at"]) for entry in nightly)
    assert first.astimezone(ZoneInfo("Asia/Seoul")).strftime("%H:%M:%S") == "05:00:00"
    assert first.utcoffset() == first.replace(tzinfo=ZoneInfo("America/New_York")).utcoffset()
    assert second - first == timedelta(days=1)


def test_unknown_zone_is_refused_with_the_nearest(folder: Path) -> None:
    ended = tickwork("next", "--tz", "Europe/Berlni", "jobs.py", cwd=folder)

    assert (ended.status, ended.out) == (2, "")
    assert ended.err.count("\n") == 1
    assert "did you mean 'Europe/Berlin'?" in ended.err


# -- trigger ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "result"),
    [
        (["jobs.add", "--args", "[1]"], 11),
        (["add", "--args", "[1, 2]"], 3),
        (["add", "--args", "[1, 2, 3, 4]"], 10),
        (["add", "--args", '{"b": 5, "a": 1}'], 6),
        (["jobs.often"], 7),
        (["often"], 7),
        (["nightly"], None),
        (["stem", "--args", '["a/b.txt"]'], {"path": "b", "type": "PosixPath", "order": "None"}),
        (
            ["stem", "--args", '{"path": "b.txt", "order": {"number": 1, "day": "2026-01-02"}}'],
            {"path": "b", "type": "PosixPath", "order": "Order(number=1, day=datetime.date(2026, 1, 2))"},
        ),
    ],
)
def test_trigger_runs_a_task_and_prints_its_result_as_json(folder: Path, words: list[str], result: object) -> None:
    ended = tickwork("trigger", "jobs.py", *words, cwd=folder)

    assert ended.status == 0, ended.err
    assert json.loads(ended.out) == result
    assert "succeeded" in ended.err


def test_trigger_of_a_file_runs_in_a_process_that_finds_the_file(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "jobs.py").write_text(JOBS)

    with Running("-m", "tickwork", "trigger", "deep/jobs.py", "pid", cwd=tmp_path) as running:
        ended = running.ended()

    assert ended.status == 0, ended.err
    child, parent = json.loads(ended.out)
    assert parent == running.pid != child


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ad"], "no task named 'ad' is registered; did you mean 'add'?"),
        (["jobs.ad"], "no task named 'jobs.ad' is registered; did you mean 'jobs.add'?"),
        (["xyzzy"], "no task named 'xyzzy' is registered; the app has jobs.nightly, jobs.often, "),
        (["add", "--args", "{"], "--args must be JSON, got '{'; Expecting property name"),
        (["add", "--args", "5"], "--args must be a JSON list of arguments or an object of named ones, got '5'"),
        (["add"], "jobs.add(a): is missing in the payload; the signature is "),
        (["add", "--args", '["one"]'], "jobs.add(a): "),
        (["add", "--args", '{"a": 1, "c": 2}'], "jobs.add(c): is in the payload, but not in the signature "),
        (["nightly", "--args", "[1]"], "jobs.nightly"),
    ],
)
def test_trigger_refuses_what_does_not_fit_in_one_line(folder: Path, words: list[str], said: str) -> None:
    ended = tickwork("trigger", "jobs.py", *words, cwd=folder)

    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith(f"tickwork: {said}")
    assert ended.err.count("\n") == 1


def test_short_name_that_fits_two_tasks_is_refused_with_both(folder: Path) -> None:
    write(
        folder,
        """
        from tickwork import App
        app = App()
        app.task(name="one.clean")(lambda: 1)
        app.task(name="two.clean")(lambda: 2)
        """,
    )

    ended = tickwork("trigger", "jobs.py", "clean", cwd=folder)

    assert ended.status == 2
    assert ended.err == "tickwork: no task named 'clean' is registered; several end so: one.clean, two.clean\n"


def test_failed_job_ends_trigger_with_status_1_and_its_own_traceback(folder: Path) -> None:
    ended = tickwork("trigger", "jobs.py", "fail", cwd=folder)

    assert (ended.status, ended.out) == (1, "")
    assert ended.err.count("Traceback") == 1
    assert "failed: ValueError: this is the bug" in ended.err
    assert 'raise ValueError("this is the bug")' in ended.err


@pytest.mark.parametrize(
    ("name", "said"), [("slow", "ran longer than its timeout of 0.05 s"), ("ends", "failed: SystemExit: 7")]
)
def test_job_that_runs_out_of_time_or_exits_ends_trigger_with_status_1(folder: Path, name: str, said: str) -> None:
    ended = tickwork("trigger", "jobs.py", name, cwd=folder)

    assert (ended.status, ended.out) == (1, "")
    assert said in ended.err


def test_result_that_json_cannot_carry_is_a_success_with_a_warning(folder: Path) -> None:
    ended = tickwork("trigger", "jobs.py", "unfit", cwd=folder)

    assert (ended.status, ended.out) == (0, "")
    assert "succeeded, but its result cannot be kept" in ended.err
    assert "Traceback" not in ended.err


def test_signal_during_trigger_lets_the_job_finish_and_prints_its_result(folder: Path) -> None:
    with Running("-m", "tickwork", "trigger", "jobs.py", "long", cwd=folder) as running:
        running.wait_for("began")
        running.send(signal.SIGTERM)
        ended = running.ended()

    assert ended.status == 0
    assert ended.out == 'began\n"finished"\n'


def test_trigger_fires_no_schedules(folder: Path) -> None:
    write(
        folder,
        """
        from tickwork import App
        app = App()
        @app.every("1000d", first="now")
        def scheduled(): print("scheduled")
        @app.task()
        def asked(): print("asked")
        """,
    )

    assert tickwork("trigger", "jobs.py", "asked", cwd=folder).out == "asked\nnull\n"


# -- run --------------------------------------------------------------------------------------------------------------


def run_until_idle(folder: Path, body: str) -> Ended:
    write(folder, "from tickwork import App\napp = App()\n" + dedent(body))
    return tickwork("run", "--until-idle", "jobs.py", cwd=folder)


def test_until_idle_ends_when_all_jobs_have_ended(folder: Path) -> None:
    ended = run_until_idle(
        folder,
        """
        @app.every("1000d", first="now")
        async def first():
            await second.enqueue(1)

        @app.task()
        def second(number: int):
            print("second", number)
            if number < 3:
                second.enqueue_sync(number + 1)
        """,
    )

    assert ended.status == 0
    assert ended.out == "second 1\nsecond 2\nsecond 3\n"
    assert "Traceback" not in ended.err


def test_until_idle_of_an_app_with_nothing_to_do_ends_at_once(folder: Path) -> None:
    ended = run_until_idle(folder, "")

    assert ended.status == 0


def test_until_idle_ends_with_status_1_when_a_job_failed(folder: Path) -> None:
    ended = run_until_idle(
        folder,
        """
        @app.every("1000d", first="now")
        async def bad():
            raise ValueError("this is the bug")

        @app.every("1000d", first="now")
        def good():
            print("good")
        """,
    )

    assert ended.status == 1
    assert ended.out == "good\n"
    assert "ValueError: this is the bug" in ended.err


@pytest.mark.parametrize("url", ["None", "'sqlite:///jobs.db'"])
def test_until_idle_waits_for_a_paused_queue_until_a_signal_ends_it(folder: Path, url: str) -> None:
    write(
        folder,
        f"""
from tickwork import App
app = App({url})

@app.task(queue="mail")
async def send(): ...

@app.on_start
async def begin():
    await app.jobs.pause_queue("mail")
    await send.enqueue()
    print("waits")
""",
    )
    with Running("-m", "tickwork", "run", "--until-idle", "jobs.py", cwd=folder) as running:
        running.wait_for("waits")
        running.wait_for("started: 1 tasks")
        running.send(signal.SIGTERM)
        ended = running.ended()

    assert (ended.status, ended.out) == (0, "waits\n")
    assert "stopped: 0 unstarted jobs given back, 0 cut" in ended.err
    assert "the store is closed" not in ended.err


def test_until_idle_runs_what_on_start_enqueues(folder: Path) -> None:
    ended = run_until_idle(
        folder,
        """
        @app.on_start
        async def begin():
            await work.enqueue()

        @app.task()
        async def work():
            print("work")
        """,
    )

    assert (ended.status, ended.out) == (0, "work\n")


NOT_A_MANAGER = "lifespan must be a function that returns an async context manager, got 5"
OPENS = """
async def open(app):
    raise OSError('no disk')
    yield
app = App(lifespan=open)
"""


@pytest.mark.parametrize(
    ("body", "said", "has_traceback"),
    [
        ("@app.on_start\ndef begin(): raise OSError('no disk')", "OSError: no disk", True),
        (OPENS, "OSError: no disk", True),
        ("app = App(lifespan=lambda app: 5)", NOT_A_MANAGER, False),
    ],
)
def test_start_that_fails_ends_with_status_3(folder: Path, body: str, said: str, has_traceback: bool) -> None:
    ended = run_until_idle(folder, body)

    assert (ended.status, ended.out) == (3, "")
    assert "CRITICAL the app could not start" in ended.err
    assert said in ended.err
    assert ("Traceback" in ended.err) is has_traceback


def test_each_job_has_one_line_at_its_start_and_one_at_its_end(folder: Path) -> None:
    ended = run_until_idle(folder, "@app.every('1000d', first='now')\nasync def work(): ...")

    lines = [line.split(maxsplit=3) for line in ended.err.splitlines() if "jobs.work" in line]
    assert [line[3].split(" job=")[0] for line in lines] == ["start jobs.work", "end jobs.work"]
    assert re.search(r" succeeded took=\d+\.\d{3}s$", lines[1][3])
    datetime.strptime(" ".join(lines[0][:2]), "%Y-%m-%d %H:%M:%S%z")


def test_run_on_uvloop(folder: Path) -> None:
    need("uvloop")
    write(
        folder,
        """
        import asyncio
        from tickwork import App
        app = App()
        @app.every("1000d", first="now")
        async def loop(): print(type(asyncio.get_running_loop()).__module__)
        """,
    )

    ended = tickwork("run", "--uvloop", "--until-idle", "jobs.py", cwd=folder)

    assert (ended.status, ended.out) == (0, "uvloop\n")


def test_uvloop_that_is_not_installed_is_a_wrong_usage(folder: Path) -> None:
    ended = tickwork("run", "--uvloop", "jobs.py", cwd=folder, env=hidden(folder, "uvloop"))

    assert ended.status == 2
    assert ended.err == (
        "tickwork: --uvloop must be used with uvloop installed, got 'not installed'; pip install uvloop\n"
    )


# -- terminals, pipes, encodings --------------------------------------------------------------------------------------


def hidden(folder: Path, package: str) -> Mapping[str, str]:
    """Return an environment in which a package seems not to be installed."""
    place = folder / "hidden"
    place.mkdir(exist_ok=True)
    (place / f"{package}.py").write_text("raise ImportError('hidden')")
    return {"PYTHONPATH": str(place)}


def on_terminal(folder: Path, *words: str, env: Mapping[str, str] | None = None) -> str:
    """Return what the command shows on a terminal."""
    ours, theirs = pty.openpty()
    shown = b""
    settings = {"TERM": "xterm-256color", "COLUMNS": "150", **(env or {})}
    with Running("-m", "tickwork", *words, cwd=folder, env=settings, stdout=theirs, stderr=theirs) as running:
        os.close(theirs)
        try:
            while chunk := os.read(ours, 65_536):
                shown += chunk
        except OSError:  # how Linux says that nobody is left at the other end
            pass
        assert running.process.wait(DEADLINE) == 0, shown
    os.close(ours)
    return shown.decode()


def test_table_on_a_terminal_is_drawn_by_rich_in_colour(folder: Path) -> None:
    shown = on_terminal(folder, "list", "jobs.py")

    assert "─" in shown
    assert "\x1b[" in shown
    assert "jobs.nightly" in shown


def test_no_color_is_honoured_in_tables_and_logs(folder: Path) -> None:
    assert "\x1b[3" not in on_terminal(folder, "list", "jobs.py", env={"NO_COLOR": "1"})
    warned = ("trigger", "jobs.py", "unfit")
    assert "\x1b[33m" in on_terminal(folder, *warned)
    assert "\x1b[" not in on_terminal(folder, *warned, env={"NO_COLOR": "1"})


def test_table_on_a_terminal_without_rich_is_plain(folder: Path) -> None:
    shown = on_terminal(folder, "list", "jobs.py", env=hidden(folder, "rich"))

    assert "─" not in shown
    assert "jobs.nightly" in shown


def test_rich_is_not_loaded_for_a_pipe(folder: Path) -> None:
    words = ("-X", "importtime", "-m", "tickwork", "list", "jobs.py")
    loaded = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True, check=True).stderr

    assert "tickwork.cli.output" in loaded
    assert "| rich" not in loaded.replace("|   ", "| ").replace("|  ", "| ")


def test_json_on_a_terminal_is_the_same(folder: Path) -> None:
    assert json.loads(on_terminal(folder, "list", "--json", "jobs.py"))[0]["task"] == "jobs.nightly"


def test_reader_that_goes_away_is_no_error(folder: Path) -> None:
    command = f"{sys.executable} -m tickwork next -n 5000 jobs.py | head -1; echo ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=True)

    header, status = ended.stdout.splitlines()
    assert header.split() == ["Asia/Seoul", "UTC", "schedule"]
    assert (status, ended.stderr) == ("0", "")


def test_stdout_that_is_full_or_closed_is_said_without_a_traceback(folder: Path) -> None:
    command = f"{sys.executable} -m tickwork list jobs.py"
    full = subprocess.run(f"{command} >/dev/full", shell=True, cwd=folder, capture_output=True, text=True, check=False)
    closed = subprocess.run(f"{command} >&-", shell=True, cwd=folder, capture_output=True, text=True, check=False)

    assert (full.returncode, full.stderr) == (1, "tickwork: No space left on device\n")
    assert (closed.returncode, closed.stderr) == (0, "")


def test_names_that_the_encoding_lacks_are_escaped(folder: Path) -> None:
    write(folder, "from tickwork import App\napp = App()\n@app.task(name='größe')\ndef size(): ...")
    ascii_only = {"PYTHONIOENCODING": "ascii"}

    assert "gr\\xf6\\xdfe" in tickwork("list", "jobs.py", cwd=folder, env=ascii_only).out
    assert json.loads(tickwork("list", "--json", "jobs.py", cwd=folder, env=ascii_only).out)[0]["task"] == "größe"
