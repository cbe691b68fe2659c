"""`tickwork run --reload`: a fresh process for each change, and none left at the end."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from .command import Running

if TYPE_CHECKING:
    from pathlib import Path

JOBS = """
import asyncio, os
from pathlib import Path
from tickwork import App

app = App(drain_seconds=60, cancel_seconds=0.2)

@app.every("1000d", first="now")
async def work():
    print("began", VERSION, os.getpid(), flush=True)
    while not Path("go").exists():
        await asyncio.sleep(0.01)
    print("finished", VERSION, flush=True)
"""


def write(folder: Path, version: int, *, ends: bool = True) -> None:
    """Write a program whose job ends, or only when there is a file `go`."""
    (folder / "jobs.py").write_text(JOBS.replace("VERSION", str(version)))
    if ends:
        (folder / "go").touch()


def reloading(folder: Path, *words: str) -> Running:
    return Running("-m", "tickwork", "run", "--reload", *words, "jobs.py", cwd=folder)


def test_change_drains_and_starts_a_fresh_process(tmp_path: Path) -> None:
    write(tmp_path, 1, ends=False)

    with reloading(tmp_path) as running:
        running.wait_for("began 1")
        write(tmp_path, 22, ends=False)
        running.wait_for("draining")
        (tmp_path / "go").touch()
        running.wait_for("began 22")
        running.wait_for("finished 22")
        running.send(signal.SIGTERM)
        ended = running.ended()
        running.wait_alone()

    lines = [line.split() for line in ended.out.splitlines()]
    assert [line[:2] for line in lines] == [["began", "1"], ["finished", "1"], ["began", "22"], ["finished", "22"]]
    assert lines[0][2] != lines[2][2]
    assert ended.status == 0
    assert f"changed: {tmp_path}/jobs.py\n" in ended.err


def test_new_file_in_a_folder_below_is_a_change_and_a_hidden_one_is_none(tmp_path: Path) -> None:
    write(tmp_path, 1)
    for folder in ("deep", ".hidden"):
        (tmp_path / folder).mkdir()

    with reloading(tmp_path) as running:
        running.wait_for("finished 1")
        (tmp_path / ".hidden" / "no.py").touch()
        (tmp_path / "deep" / "notes.txt").touch()
        (tmp_path / "deep" / "yes.py").touch()
        running.wait_for("finished 1", times=2)
        running.send(signal.SIGINT)
        ended = running.ended()

    assert "changed: " + str(tmp_path / "deep" / "yes.py") + "\n" in ended.err
    assert "no.py" not in ended.err


def test_error_in_the_file_waits_for_the_next_change(tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text("def broken(:")

    with reloading(tmp_path) as running:
        running.wait_for("it ended with status 2; waiting for a change")
        write(tmp_path, 1)
        running.wait_for("finished 1")
        running.send(signal.SIGTERM)
        ended = running.ended()
        running.wait_alone()

    assert ended.status == 0
    assert "SyntaxError: invalid syntax" in ended.err


def test_signal_while_it_waits_for_a_change_ends_with_the_last_status(tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text("def broken(:")

    with reloading(tmp_path) as running:
        running.wait_for("waiting for a change")
        running.send(signal.SIGTERM)
        ended = running.ended()

    assert ended.status == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_drains_the_child_also_when_it_goes_to_the_whole_group(tmp_path: Path, number: signal.Signals) -> None:
    write(tmp_path, 1, ends=False)

    with reloading(tmp_path) as running:
        running.wait_for("began 1")
        running.send_group(number)  # what a terminal does at Ctrl-C
        running.wait_for("draining")
        (tmp_path / "go").touch()
        ended = running.ended()
        running.wait_alone()

    assert ended.status == 0
    assert "finished 1\n" in ended.out


def test_second_signal_means_now(tmp_path: Path) -> None:
    write(tmp_path, 1, ends=False)

    with reloading(tmp_path) as running:
        running.wait_for("began 1")
        running.send(signal.SIGINT)
        running.wait_for("draining")
        running.send(signal.SIGINT)
        ended = running.ended(within=6)
        running.wait_alone()

    assert ended.status == 4
    assert "cut: jobs.work job=" in ended.err


def test_until_idle_ends_the_supervisor_too(tmp_path: Path) -> None:
    write(tmp_path, 1)

    with reloading(tmp_path, "--until-idle") as running:
        ended = running.ended()

    assert ended.status == 0
    assert ended.out.startswith("began 1 ")


def test_child_does_not_outlive_a_killed_supervisor(tmp_path: Path) -> None:
    write(tmp_path, 1)

    with reloading(tmp_path) as running:
        running.wait_for("finished 1")
        os.kill(running.pid, signal.SIGKILL)
        running.process.wait()
        running.wait_alone()
