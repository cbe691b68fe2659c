"""Every example runs, as its first lines say, and does what it says."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from cli.command import Ended, Running

if TYPE_CHECKING:
    from collections.abc import Mapping

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_every_example_is_tested_here() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {
        "bookshop.py",
        "housekeeping.py",
        "scan.py",
        "script.py",
        "web.py",
    }


# -- housekeeping -----------------------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a small tree of files to check."""
    for name in ("one.py", "deep/two.py"):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "tree"


def housekeeping(folder: Path, command: str, *words: str, env: Mapping[str, str]) -> Running:
    return Running("-m", "tickwork", command, str(EXAMPLES / "housekeeping.py"), *words, cwd=folder, env=env)


def test_housekeeping_runs_and_ends_cleanly_with_ctrl_c(tmp_path: Path, tree: Path) -> None:
    with housekeeping(tmp_path, "run", env={"HOUSEKEEPING_TREE": str(tree)}) as running:
        running.wait_for("end housekeeping.record_status")
        running.send(signal.SIGINT)
        ended = running.ended()
        running.wait_alone()

    assert ended.status == 0
    assert re.search(r"start housekeeping\.record_status job=\w{20} attempt=1\n", ended.err)
    assert re.search(r"end housekeeping\.record_status job=\w{20} succeeded took=\d\.\d{3}s\n", ended.err)
    assert "Traceback" not in ended.err
    lines = (tmp_path / "var" / "status.log").read_text().splitlines()
    assert sorted(json.loads(lines[0]))[:2] == ["at", "cpu_percent"]


@pytest.mark.parametrize(("dry_run", "said"), [("1", "would remove 1 files"), ("0", "removed 1 files")])
def test_housekeeping_removes_old_files_when_it_may(tmp_path: Path, dry_run: str, said: str) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "temp_new").touch()
    env = {"HOUSEKEEPING_TEMPORARY": str(folder), "HOUSEKEEPING_DRY_RUN": dry_run}

    with housekeeping(tmp_path, "trigger", "clean", env=env) as running:
        ended = running.ended()

    assert ended.status == 0
    assert f"{said} (0 bytes) older than 7d in {folder}" in ended.err
    assert (folder / "temp_example.txt").exists() is (dry_run == "1")
    assert (folder / "temp_new").exists()


@pytest.mark.slow
def test_housekeeping_stays_responsive_while_the_checksum_runs(tmp_path: Path) -> None:
    # The checksum of the standard library takes longer than a second on any machine, and waits here for a pipe.
    tree = tmp_path / "tree"
    tree.mkdir()
    os.mkfifo(tree / "pipe.py")
    env = {"HOUSEKEEPING_TREE": str(tree)}

    with housekeeping(tmp_path, "run", env=env) as running:
        running.wait_for("start housekeeping.checksum")
        running.wait_for("end housekeeping.record_status", times=running.err.count("end housekeeping.record") + 1)
        assert "end housekeeping.checksum" not in running.err
        running.send(signal.SIGINT)
        running.wait_for("draining")
        (tree / "pipe.py").write_text("x")
        ended = running.ended()
        running.wait_alone()

    assert ended.status == 0
    assert re.search(r"end housekeeping\.checksum job=\w{20} succeeded", ended.err)
    assert re.search(r"1 files below .*: sha256 2d711642b726b044 \(process \d+\)\n", ended.out)


def test_housekeeping_checks_a_real_tree_in_a_process(tmp_path: Path, tree: Path) -> None:
    with housekeeping(tmp_path, "trigger", "checksum", env={"HOUSEKEEPING_TREE": str(tree)}) as running:
        ended = running.ended()

    assert ended.status == 0
    assert f"2 files below {tree}: sha256 " in ended.out
    assert f"(process {running.pid})" not in ended.out


def test_housekeeping_has_three_schedules(tmp_path: Path) -> None:
    with housekeeping(tmp_path, "list", "--json", env={"HOUSEKEEPING_CRON": "30 4 * * *"}) as running:
        listed = json.loads(running.ended().out)

    assert [(task["task"], task["run_in"]) for task in listed] == [
        ("housekeeping.record_status", "loop"),
        ("housekeeping.clean", "loop"),
        ("housekeeping.checksum", "process"),
    ]
    assert "'30 4 * * *'" in listed[1]["schedules"][0]["trigger"]


# -- bookshop ---------------------------------------------------------------------------------------------------------


def test_bookshop_has_the_schedules_of_its_picture(tmp_path: Path) -> None:
    # The picture itself is compared in cli/test_preview.py.
    with Running("-m", "tickwork", "list", str(EXAMPLES / "bookshop.py"), "--json", cwd=tmp_path) as running:
        listed = json.loads(running.ended().out)

    picture = (EXAMPLES.parent / "docs" / "preview.svg").read_text(encoding="utf-8")
    names = [schedule["name"] for task in listed for schedule in task["schedules"]]
    assert len(names) == 11
    assert [name for name in names if f"<title>{name}: " not in picture] == []


# -- web --------------------------------------------------------------------------------------------------------------


def ask(url: str, *, method: str = "GET") -> Any:
    with urlopen(Request(url, method=method), timeout=30) as answer:
        return json.load(answer)


def test_web_enqueues_by_a_request_and_tells_the_result(tmp_path: Path) -> None:
    words = ("-m", "uvicorn", "--app-dir", str(EXAMPLES), "--port", "0", "web:web")
    with Running(*words, cwd=tmp_path) as running:
        running.wait_for("Uvicorn running on http")
        found = re.search(r"running on (http://[\d.:]+)", running.err)
        assert found is not None
        address = found[1]

        job = ask(f"{address}/primes?below=100", method="POST")["job"]
        running.wait_until(lambda: ask(f"{address}/jobs/{job}")["state"] == "succeeded", "the end of the job")
        shown = ask(f"{address}/jobs/{job}")
        with pytest.raises(HTTPError) as unknown:
            ask(f"{address}/jobs/nobody")
        running.wait_for("jobs are running")
        running.send(signal.SIGINT)
        ended = running.ended()
        running.wait_alone()

    assert shown == {"state": "succeeded", "result": 25}
    with unknown.value as answer:
        assert answer.code == 404
        assert json.load(answer)["detail"].startswith("no job 'nobody' in the store; ")
    assert "Application shutdown complete" in ended.err
    assert "Traceback" not in ended.err


# -- script -----------------------------------------------------------------------------------------------------------


def script(folder: Path, *words: str) -> Ended:
    with Running(str(EXAMPLES / "script.py"), *words, cwd=folder) as running:
        return running.ended()


def test_script_counts_the_words_of_the_standard_library(tmp_path: Path) -> None:
    ended = script(tmp_path)

    assert (ended.status, ended.err) == (0, "")
    assert re.search(r"^ *[\d,]{7,} words in \d{3} files, 8 at a time$", ended.out, re.MULTILINE)


def test_script_saves_what_it_has_not_begun_and_goes_on_with_it(tmp_path: Path) -> None:
    pipes = [tmp_path / f"pipe{number}" for number in range(8)]
    for pipe in pipes:
        os.mkfifo(pipe)  # whoever reads it waits, so all eight workers are busy
    (tmp_path / "a.txt").write_text("one two three")
    (tmp_path / "b.txt").write_text("four five")

    with Running(str(EXAMPLES / "script.py"), *map(str, pipes), "a.txt", "b.txt", cwd=tmp_path) as running:
        writers = [os.open(pipe, os.O_WRONLY) for pipe in pipes]  # waits for the reader
        running.send_until(signal.SIGINT, "2 saved in ")
        for writer in writers:
            os.close(writer)
        first = running.ended()
    second = script(tmp_path)

    assert first.status == 130
    assert "Traceback" not in first.err
    assert second.out == (
        "2 left from the last time\n       2 b.txt\n       3 a.txt\n       5 words in 2 files, 8 at a time\n"
    )
    assert not (tmp_path / "script.json").exists()


# -- scan -------------------------------------------------------------------------------------------------------------


def scan(folder: Path, *words: str) -> Ended:
    with Running(str(EXAMPLES / "scan.py"), *words, cwd=folder) as running:
        ended = running.ended()
        running.wait_alone()
    return ended


def test_scan_finds_the_longest_functions_and_lists_what_does_not_parse(tmp_path: Path) -> None:
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "one.py").write_text("def short():\n    pass\n")
    (tmp_path / "tree" / "deep" / "two.py").write_text("class A:\n    async def long(self):\n        a\n        b\n")
    (tmp_path / "tree" / "three.py").write_text("def")
    ended = scan(tmp_path, "tree")

    assert ended.status == 0
    assert ended.out.splitlines() == [
        "     2 lines: short in tree/one.py",
        "     3 lines: long in tree/deep/two.py",
        "     2 files",
    ]
    (failed,) = [json.loads(line) for line in (tmp_path / "scan_failed.jsonl").read_text().splitlines()]
    assert failed["item"] == "tree/three.py"
    assert failed["error"]["type"] == "SyntaxError"
    assert not (tmp_path / "scan.db").exists()
