"""`tickwork trigger --log FILE`: everything goes into the file, whoever prints it, and what goes wrong is said."""

from __future__ import annotations

import os
import re
import stat
import sys
from pathlib import Path

import pytest

from cli.command import Ended
from fleet import Fleet

pytestmark = pytest.mark.timeout(120)

PROGRAM = """
import ctypes, subprocess
from datetime import UTC, datetime, timedelta
from tickwork import Every

app = App()
AT = datetime.fromisoformat(os.environ["AT"])

@app.schedule(Every("1h", anchor=AT), name="chatty")
async def chatty():
    print("from print")
    print("sürprise \\N{SNOWMAN} \\udcff", file=sys.stderr)
    subprocess.run([sys.executable, "-c", "print('from a program')"], check=True)
    if os.name == "posix":
        ctypes.CDLL(None).puts(b"from C")
        ctypes.CDLL(None).fflush(None)

@app.task(name="child", run_in="process")
def child():
    print("from a child process", flush=True)

@app.task(name="fails")
async def fails():
    raise ValueError("no")
"""


def trigger(fleet: Fleet, *words: str) -> Ended:
    """Run the command with a log, of an app whose schedule has just been due."""
    from datetime import UTC, datetime, timedelta

    at = (datetime.now(UTC) - timedelta(seconds=2)).replace(microsecond=0)
    state = ("--state", str(fleet.folder)) if "--fire-time" in words else ()
    where = ("--dir", str(fleet.folder), *state)
    return fleet.start("-m", "tickwork", "trigger", *where, *words, env={"AT": at.isoformat()}).ended()


AUTO = ("--fire-time", "auto", "jobs.py", "chatty")


def test_all_output_goes_into_the_file_whoever_prints_it(tmp_path: Path) -> None:
    with Fleet(tmp_path, PROGRAM) as fleet:
        done = trigger(fleet, "--log", "run.log", *AUTO)

        assert (done.status, done.out, done.err) == (0, "", "")
        log = (tmp_path / "run.log").read_text(encoding="utf-8")
        for line in ("from print", "sürprise \N{SNOWMAN} \\udcff", "from a program"):
            assert f"\n{line}\n" in log
        if os.name == "posix":
            assert "\nfrom C\n" in log


def test_child_processes_print_into_the_file(tmp_path: Path) -> None:
    with Fleet(tmp_path, PROGRAM) as fleet:
        done = trigger(fleet, "--log", "run.log", "jobs.py", "child")

        assert (done.status, done.out, done.err) == (0, "", "")
        assert "\nfrom a child process\n" in (tmp_path / "run.log").read_text()


def test_lines_carry_times_and_runs_are_appended(tmp_path: Path) -> None:
    with Fleet(tmp_path, PROGRAM) as fleet:
        log = tmp_path / "run.log"
        log.write_text("before\n")
        log.chmod(0o640)
        assert trigger(fleet, "--log", str(log), "jobs.py", "fails").status == 1
        assert trigger(fleet, "--log", str(log), *AUTO).status == 0

        text = log.read_text()
        assert text.startswith("before\n")
        assert re.search(
            r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d{4} ERROR +job \S+ \(fails\) failed: ValueError: no$", text, re.M
        )
        assert re.search(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d{4} INFO +end chatty job=\S+ succeeded", text, re.M)
        if os.name == "posix":
            assert stat.S_IMODE(log.stat().st_mode) == 0o640  # as somebody has set it


@pytest.mark.skipif(sys.platform == "win32", reason="has other permissions")
def test_a_file_that_is_made_is_its_owners_only(tmp_path: Path) -> None:
    with Fleet(tmp_path, PROGRAM) as fleet:
        trigger(fleet, "--log", "run.log", *AUTO)

        assert stat.S_IMODE((tmp_path / "run.log").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("program", "words", "told"),
    [
        ("import nothing_of_this_name", AUTO, "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("app = App(", AUTO, "SyntaxError: '(' was never closed"),
        ("raise SystemExit(0)", AUTO, "it ends the program when it is imported: sys.exit(0)"),
        (PROGRAM, ("--fire-time", "auto", "jobs.py", "chatyt"), "no schedule named 'chatyt'; did you mean 'chatty'?"),
        (PROGRAM, ("--fire-time", "soon", "jobs.py", "chatty"), '--fire-time must be "auto", or ISO 8601'),
        (PROGRAM, ("jobs.py", "chatyt"), "no task named 'chatyt' is registered; did you mean 'chatty'?"),
    ],
)
def test_what_keeps_a_run_from_starting_is_in_the_file_with_its_time(
    tmp_path: Path, program: str, words: tuple[str, ...], told: str
) -> None:
    with Fleet(tmp_path, program) as fleet:
        done = trigger(fleet, "--log", "run.log", *words)

        assert (done.status, done.out, done.err) == (2, "", "")
        log = (tmp_path / "run.log").read_text()
        assert re.search(rf"^\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d\S+ ERROR .*{re.escape(told)}", log, re.M), log


def test_the_traceback_of_an_import_is_in_the_file(tmp_path: Path) -> None:
    with Fleet(tmp_path, "def broken():\n    return 1 / 0\n\nbroken()") as fleet:
        trigger(fleet, "--log", "run.log", *AUTO)

        assert "    return 1 / 0\n" in (tmp_path / "run.log").read_text()


def test_a_folder_that_is_missing_is_said_in_a_file_that_is_elsewhere(tmp_path: Path) -> None:
    with Fleet(tmp_path, PROGRAM) as fleet:
        log = tmp_path / "run.log"
        words = ("--dir", str(tmp_path / "gone"), "--log", str(log), *AUTO)
        done = fleet.start("-m", "tickwork", "trigger", *words).ended()

        assert (done.status, done.out, done.err) == (2, "", "")
        assert log.read_text().endswith(
            f"--dir must be a folder that can be entered, got '{tmp_path}/gone'; No such file or directory\n"
        )


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has a disk that is always full")
def test_a_run_goes_on_when_its_log_is_full_and_standard_error_says_so_once(tmp_path: Path) -> None:
    with Fleet(
        tmp_path, PROGRAM.replace("    subprocess.run", '    say("ran")\n    return\n    subprocess.run')
    ) as fleet:
        done = trigger(fleet, "--log", "/dev/full", *AUTO)

        assert (done.status, done.out) == (0, "")
        assert done.err == (
            "tickwork: the log '/dev/full' cannot be written: No space left on device; the run goes on, and what it "
            "prints is lost\n"
        )
        assert len(fleet.lines("ran")) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="has no such pipes")
def test_a_pipe_that_nobody_reads_holds_nobody(tmp_path: Path) -> None:
    with Fleet(tmp_path, PROGRAM) as fleet:
        os.mkfifo(tmp_path / "pipe")
        done = trigger(fleet, "--log", "pipe", *AUTO)

        assert done.status == 2
        assert done.err == (
            f"tickwork: --log must be a file that can be written, got '{tmp_path}/pipe'; No such device or address; "
            "nothing was run\n"
        )


def test_where_nothing_is_open_the_file_is_written_all_the_same(tmp_path: Path) -> None:
    with Fleet(tmp_path, PROGRAM) as fleet:
        (tmp_path / "closed.py").write_text(
            "import os, sys\n"
            "for descriptor in (0, 1, 2):\n    os.close(descriptor)\n"
            "sys.stdin = sys.stdout = sys.stderr = None\n"  # as under pythonw.exe
            "from tickwork.cli import main\n"
            "sys.exit(main(['trigger', '--log', 'run.log', 'jobs.py', 'chatty']))\n"
        )
        done = fleet.start("closed.py", env={"AT": "2026-01-01T00:00Z"}).ended()

        assert done.status == 0
        assert "\nfrom print\n" in (tmp_path / "run.log").read_text()
