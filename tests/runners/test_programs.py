"""The process pool inside whole programs: their main module, their output, their signals, their end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest

from . import functions
from .waiting import is_gone, wait_until


def write_script(folder: Path, body: str, name: str = "script.py") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    head = "import asyncio, os, signal, sys, time\nfrom tickwork.runners.process import ProcessRunner\n"
    path.write_text(head + textwrap.dedent(body))
    return path


def run_program(*command: str | Path, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=45, cwd=folder, check=False
    )


MAIN_SCRIPT = """
    class Point:
        def __init__(self, x):
            self.x = x

    class Boom(Exception):
        pass

    print("imported as", __name__, flush=True)

    def move(point):
        assert type(point) is Point
        return Point(point.x + 1)

    def boom():
        raise Boom("from the script")

    def big(point):
        return [bytes(100_000), bytes(2_000_000), point]

    async def main():
        runner = ProcessRunner(1)
        moved = await runner.run(move, (Point(1),))
        assert type(moved) is Point and moved.x == 2, moved
        try:
            await runner.run(boom)
        except Boom as error:
            assert "in boom" in str(error.__cause__)
        assert type((await runner.run(big, (moved,)))[2]) is Point
        await runner.aclose()
        runner = ProcessRunner(1)
        assert type((await runner.run(max, ([Point(1)],)))) is Point
        await runner.aclose()

    if __name__ == "__main__":
        asyncio.run(main())
        print("done")
"""


def test_functions_and_classes_of_a_script(tmp_path: Path) -> None:
    script = write_script(tmp_path / "elsewhere", MAIN_SCRIPT)

    done = run_program(script, folder=tmp_path)

    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines == ["imported as __main__", "imported as script", "imported as script", "done"]


def test_functions_and_classes_of_a_module_run_by_name(tmp_path: Path) -> None:
    write_script(tmp_path, MAIN_SCRIPT, "package/program.py")
    (tmp_path / "package" / "__init__.py").touch()

    done = run_program("-m", "package.program", folder=tmp_path)

    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "imported as __main__",
        "imported as package.program",
        "imported as package.program",
        "done",
    ]


def test_functions_of_an_interactive_session_are_refused() -> None:
    code = "from tickwork.runners.reference import *\ndef f(): pass\nprint(task_name(f)); reference(f)"

    done = run_program("-c", code)

    assert done.stdout == "__main__.f\n"
    assert "it is defined in an interactive session or by python -c" in done.stderr


@pytest.mark.parametrize(
    ("name", "reason"),
    [("two.words.py", "which should be NAME.py"), ("random.py", "has the name of a standard module")],
)
def test_scripts_that_cannot_be_imported_are_refused(tmp_path: Path, name: str, reason: str) -> None:
    path = tmp_path / name
    path.write_text(
        "def f(): pass\nfrom tickwork.runners.reference import reference\n"
        "try: reference(f)\nexcept Exception as error: print(error)"
    )

    done = run_program(path)

    assert reason in done.stdout


def test_a_script_without_guard_is_told_what_to_do(tmp_path: Path) -> None:
    script = write_script(
        tmp_path,
        """
        def f(): pass
        async def main():
            runner = ProcessRunner(1)
            try:
                await runner.run(f)
            finally:
                await runner.aclose()
        asyncio.run(main())
        """,
    )

    done = run_program(script)

    assert done.returncode == 1
    assert "put what the script does under `if __name__ == '__main__':`" in done.stderr.splitlines()[-1]


def test_prints_of_a_child_reach_the_output(tmp_path: Path) -> None:
    script = write_script(
        tmp_path,
        """
        def speak():
            print("to stdout", end="")
            sys.stderr.write("to stderr")
        async def main():
            runner = ProcessRunner(1)
            await runner.run(speak)
            os.write(1, b", then the parent")
            await runner.aclose()
        if __name__ == "__main__":
            asyncio.run(main())
        """,
    )

    done = run_program(script)

    assert (done.stdout, done.stderr) == ("to stdout, then the parent", "to stderr")


@pytest.mark.parametrize("end", ["return", "raise LookupError", "os.kill(os.getpid(), 9)"])
def test_nothing_outlives_a_parent_that_never_closed(tmp_path: Path, end: str) -> None:
    script = write_script(
        tmp_path,
        f"""
        import ctypes
        def hold(path):
            open(path, "w").close()
            ctypes.PyDLL(None).sleep(60)
        def loop(path):
            open(path, "w").close()
            while True: pass
        async def main():
            runner = ProcessRunner(3)
            await runner.warm()
            jobs = [asyncio.create_task(runner.run(fn, (fn.__name__,))) for fn in (hold, loop)]
            while not (os.path.exists("hold") and os.path.exists("loop")):
                await asyncio.sleep(0.01)
            print(*runner.pids, flush=True)
            {end}
        if __name__ == "__main__":
            asyncio.run(main())
        """,
    )

    done = run_program("-W", "ignore", script, folder=tmp_path)

    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 3
    asyncio.run(wait_until(lambda: all(map(is_gone, pids))))
    assert done.returncode == {"return": 0, "raise LookupError": 1}.get(end, -9)
    assert "Exception ignored" not in done.stderr


def test_signals_to_the_group_are_the_parents_affair(tmp_path: Path) -> None:
    script = write_script(
        tmp_path,
        """
        def wait():
            open("running", "w").close()
            while not os.path.exists("go"):
                time.sleep(0.005)
            return os.getpid()
        async def main():
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, print, number.name)
            runner = ProcessRunner(2)
            await runner.warm()
            print(*sorted(runner.pids))
            print(await runner.run(wait))
            print(*sorted(runner.pids))
            await runner.aclose()
        if __name__ == "__main__":
            asyncio.run(main())
        """,
    )
    program = subprocess.Popen(
        [sys.executable, "-u", script],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        start_new_session=True,
    )
    assert program.stdout is not None
    with program, program.stdout:
        before = program.stdout.readline()
        functions.until_there(tmp_path / "running")
        for name in ("SIGINT", "SIGTERM"):
            os.killpg(program.pid, getattr(signal, name))
            assert program.stdout.readline() == f"{name}\n"
        (tmp_path / "go").touch()
        assert program.stdout.readline().strip() in before.split()
        assert program.stdout.readline() == before
        assert program.wait(30) == 0


def test_signals_to_the_group_during_a_start(tmp_path: Path) -> None:
    script = write_script(
        tmp_path,
        """
        async def main():
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, lambda: None)
            print("ready", flush=True)
            runner = ProcessRunner(8)
            await runner.warm()
            print(len(runner.pids), flush=True)
            await asyncio.to_thread(sys.stdin.read)
            await runner.aclose()
        if __name__ == "__main__":
            asyncio.run(main())
        """,
    )
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    program = subprocess.Popen([sys.executable, script], **pipes, start_new_session=True)
    assert program.stdin is not None
    assert program.stdout is not None
    with program, program.stdout:
        assert program.stdout.readline() == "ready\n"
        stopped = threading.Event()

        def pester() -> None:
            while not stopped.wait(0.001):
                os.killpg(program.pid, signal.SIGINT)

        thread = threading.Thread(target=pester)
        thread.start()
        try:
            assert program.stdout.readline() == "8\n"
        finally:
            stopped.set()
            thread.join()
            program.stdin.close()  # the last signal has been sent: now it may end
        assert program.wait(30) == 0
