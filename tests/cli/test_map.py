"""`tickwork map`: where items come from, what is written, how it ends, and how it goes on."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import subprocess
import sys
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tickwork.batch.options import BatchOptions
from tickwork.cli.map import FLAGS, WORDS
from tickwork.cli.map_items import FoundFiles, items_in_lines, plan_to_read
from tickwork.errors import InvalidOption, InvalidPayload

from .command import DEADLINE, Ended, Running, tickwork

WORK = '''
import asyncio, os, time
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path

import tickwork

@dataclass
class Order:
    number: int
    day: date

def count(path: Path) -> int:
    print("counts", path)
    return len(path.read_text().splitlines())

def count_all(content) -> int:
    return len(content)

def size(content: bytes) -> int:
    return len(content)

def words(text: str) -> list[str]:
    return text.split()

def next_day(order: Order) -> date:
    return order.day.replace(day=order.day.day + 1)

def double(number: int) -> int:
    """Doubles, notes that it ran, and refuses 7."""
    runs = os.open("runs", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(runs, b"%d\\n" % number)
    os.close(runs)
    if number == 7 and not os.path.exists("mended"):
        raise ValueError("not 7")
    return 2 * number

def slowly(number: int) -> int:
    time.sleep(0.01)
    while not os.path.exists(f"allowed-{number // 30}"):
        time.sleep(0.01)
    return double(number)

def until_told(number: int) -> int:
    while number == 0 and not os.path.exists("go"):
        time.sleep(0.005)
    return number

async def upper(text: str) -> str:
    return text.upper()

async def stubborn(text: str) -> None:
    print("began", flush=True)
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            print("kept it", flush=True)

def opaque(text: str):
    return object()

nameless = partial(max, default=object())

@tickwork.task()
def as_task(number: int) -> int:
    return -number

def none() -> None: ...

LIMIT = 3
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "work.py").write_text(WORK)
    inside = tmp_path / "data" / "deep"
    inside.mkdir(parents=True)
    for number in (1, 2, 3):
        (tmp_path / "data" / f"{number}.csv").write_text("row\n" * number)
    (inside / "4.csv").write_text("row\n" * 4)
    (tmp_path / "data" / "notes.txt").write_text("none")
    (tmp_path / "numbers.txt").write_text("".join(f"{number}\n" for number in range(10)))
    return tmp_path


def entries(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def results(text: str) -> list[Any]:
    return [(entry["item"], entry["result"]) for entry in entries(text)]


def given(folder: Path, text: str) -> Any:
    """Return an open file to be the standard input."""
    (folder / "input").write_bytes(text.encode())
    return (folder / "input").open("rb")


def without_log(err: str) -> str:
    return "".join(line for line in err.splitlines(keepends=True) if not re.match(r"\d{4}-\d\d-\d\d ", line))


# --- where items come from -------------------------------------------------------------------------------------------


def test_each_file_that_a_pattern_means_gets_a_line_in_the_order_of_the_paths(folder: Path) -> None:
    ended = tickwork("map", "work:count", "--files", "data/**/*.csv", "--workers", "1", cwd=folder)

    assert (ended.status, ended.out) == (
        0,
        (
            '{"index":0,"item":"data/1.csv","result":1}\n'
            '{"index":1,"item":"data/2.csv","result":2}\n'
            '{"index":2,"item":"data/3.csv","result":3}\n'
            '{"index":3,"item":"data/deep/4.csv","result":4}\n'
        ),
    )
    assert without_log(ended.err) == "".join(f"counts data/{name}.csv\n" for name in (1, 2, 3, "deep/4"))
    assert re.search(r" INFO +work\.count: ended after \S+: 4 items, ", ended.err)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["data/*.csv"], ["data/1.csv", "data/2.csv", "data/3.csv", "data/[1].csv"]),
        (["data/[1].csv", "data/3.csv"], ["data/[1].csv", "data/3.csv"]),
        (["{folder}/data/d*/*"], ["{folder}/data/deep/4.csv"]),
        (["*.py", "data/1.csv"], ["work.py", "data/1.csv"]),
        (["data/deep/**", "data/1.*"], ["data/deep/4.csv", "data/1.csv"]),
        (["~/data/2.*"], ["{folder}/data/2.csv"]),
        (["data/../data/?.txt", "data//deep/*"], ["data/deep/4.csv"]),
    ],
)
def test_a_pattern_means_what_it_means_to_a_shell_and_names_that_are_there_mean_themselves(
    folder: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], found: list[str]
) -> None:
    (folder / "data" / "[1].csv").write_text("")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    files = FoundFiles([word.format(folder=folder) for word in words])

    async def paths() -> list[str]:
        return [str(path) async for path in files.paths()]

    assert asyncio.run(paths()) == [path.format(folder=folder) for path in found]


@pytest.mark.parametrize(("read", "function", "result"), [("bytes", "size", 8), ("text", "words", ["row", "row"])])
def test_with_read_the_function_is_given_what_files_hold(folder: Path, read: str, function: str, result: Any) -> None:
    target = f"work:{function}"
    for words in (["--files", "data/2.*"], ["--lines", "-"]):
        with given(folder, "data/2.csv\n") as stdin:
            ended = tickwork("map", target, "--read", read, "-q", *words, cwd=folder, stdin=stdin)
        assert (ended.status, results(ended.out), ended.err) == (0, [("data/2.csv", result)], "")


def test_items_are_read_by_the_hint_of_the_function_and_results_are_written_by_its_own(folder: Path) -> None:
    orders = '\ufeff{"number":1,"day":"2026-05-01"}\r\n\n{"number":2,"day":"2026-06-01"}'
    with given(folder, orders) as stdin:
        ended = tickwork("map", "work.py:next_day", "--items", "-", "-q", cwd=folder, stdin=stdin)

    assert (ended.status, ended.err) == (0, "")
    assert ended.out.splitlines() == [
        '{"index":0,"item":{"number":1,"day":"2026-05-01"},"result":"2026-05-02"}',
        '{"index":1,"item":{"number":2,"day":"2026-06-01"},"result":"2026-06-02"}',
    ]


def test_lines_are_texts_and_empty_ones_are_no_items(folder: Path) -> None:
    with given(folder, "gr\u00fc\u00df dich\n\n  \n[1]") as stdin:
        ended = tickwork("map", "work:upper", "--lines", "-", "-q", cwd=folder, stdin=stdin)
    assert results(ended.out) == [("gr\u00fc\u00df dich", "GR\u00dcSS DICH"), ("[1]", "[1]")]


def test_a_line_that_comes_runs_before_the_next_one_is_there(folder: Path) -> None:
    command = ["-m", "tickwork", "map", "work:upper", "--lines", "-", "-q"]
    with Running(*command, cwd=folder, stdin=subprocess.PIPE) as running:
        assert running.process.stdin is not None
        for word in ("one", "two"):
            running.process.stdin.write(f"{word}\n".encode())
            running.process.stdin.flush()
            running.wait_for(word.upper())
        running.process.stdin.close()
        assert running.ended().status == 0


def test_a_task_stands_for_its_function_in_processes_too(folder: Path) -> None:
    words = ["--run-in", "process", "--workers", "2"]
    ended = tickwork("map", "work:as_task", "--items", "numbers.txt", *words, "-q", cwd=folder)
    assert (ended.status, [result for _, result in results(ended.out)]) == (0, [-number for number in range(10)])


def test_what_children_print_is_no_result(folder: Path) -> None:
    ended = tickwork("map", "work:count", "--files", "data/1.csv", "--run-in", "process", "-q", cwd=folder)
    assert (results(ended.out), ended.err) == ([("data/1.csv", 1)], "counts data/1.csv\n")


def test_the_size_of_chunks_is_a_number_or_auto(folder: Path) -> None:
    words = ["map", "work:double", "--items", "numbers.txt", "-q", "--chunk-size"]
    assert len(entries(tickwork(*words, "auto", cwd=folder).out)) == 10
    assert tickwork(*words, "Auto", cwd=folder).err.endswith(
        "error: argument --chunk-size: must be a whole number of at least 1, got 'Auto'\n"
    )


# --- what fails ------------------------------------------------------------------------------------------------------


def double(folder: Path, *words: str) -> Ended:
    return tickwork("map", "work:double", "--items", "numbers.txt", "-q", *words, cwd=folder)


FIRST = "the first: item 7 (7) failed: ValueError: not 7\n"


def test_an_item_that_fails_has_a_line_that_says_why_and_the_others_are_there(folder: Path) -> None:
    ended = double(folder)
    assert (ended.status, ended.err) == (1, f"tickwork: 1 of 10 items failed; {FIRST}")
    assert entries(ended.out)[7] == {"index": 7, "item": 7, "error": {"type": "ValueError", "message": "not 7"}}
    assert [entry.get("result") for entry in entries(ended.out)] == [0, 2, 4, 6, 8, 10, 12, None, 16, 18]


def test_an_item_that_fails_is_left_out_or_ends_the_command_where_that_is_wanted(folder: Path) -> None:
    ended = double(folder, "--on-error", "skip")
    assert (ended.status, ended.err) == (1, f"tickwork: 1 of 10 items failed; {FIRST}")
    assert [entry["index"] for entry in entries(ended.out)] == [0, 1, 2, 3, 4, 5, 6, 8, 9]

    ended = double(folder, "--on-error", "raise", "--out", "out", "--workers", "1", "--chunk-size", "1")
    assert ended.status == 1
    first, rest = ended.err.splitlines()
    assert first == "tickwork: item 7 (7) failed: ValueError: not 7"
    assert re.fullmatch(
        r"tickwork: \d+ of 10 items are done, 1 failed; the lines so far are in out\.part; "
        "with --checkpoint FILE the same command would go on from there",
        rest,
    )
    assert [entry["index"] for entry in entries((folder / "out.part").read_text())] == [0, 1, 2, 3, 4, 5, 6]
    assert not (folder / "out").exists()


def test_what_has_failed_is_listed_and_a_second_call_runs_just_that(folder: Path) -> None:
    ended = double(folder, "--dead", "failed.jsonl")
    assert ended.err == f"tickwork: 1 of 10 items failed; run those again with --dead-items failed.jsonl; {FIRST}"

    (folder / "mended").touch()
    ended = tickwork("map", "work:double", "--dead-items", "failed.jsonl", "-q", cwd=folder)
    assert (ended.status, results(ended.out)) == (0, [(7, 14)])


def test_files_that_failed_are_read_again(folder: Path) -> None:
    (folder / "data" / "5.csv").write_bytes(b"ok \xff")
    (folder / "data" / "6.csv").symlink_to("nowhere")
    words = ["--read", "text", "--dead", "failed.jsonl", "-q"]
    ended = tickwork("map", "work:words", "--files", "data/*.csv", *words, cwd=folder)

    assert ended.status == 1
    assert [entry.get("error", {}).get("type") for entry in entries(ended.out)] == [
        *[None] * 3,
        "tickwork.errors.NotText",
        "FileNotFoundError",
    ]
    (folder / "data" / "5.csv").write_text("five")
    (folder / "data" / "nowhere").write_text("six")
    ended = tickwork("map", "work:words", "--dead-items", "failed.jsonl", "--read", "text", "-q", cwd=folder)
    assert (ended.status, sorted(results(ended.out))) == (0, [("data/5.csv", ["five"]), ("data/6.csv", ["six"])])


def test_nothing_to_do_ends_well_and_is_said(folder: Path) -> None:
    (folder / "empty").touch()
    for words, said in [
        (["--items", "empty"], "there are no items"),
        (["--lines", "-"], "there are no items"),
        (["--files", "data/*.csx", "data/1.csv", "data/*.x"], "no file matches 'data/*.csx'"),
        (["--files", "data/*.csx"], "no file matches 'data/*.csx'"),
    ]:
        ended = tickwork("map", "work:count", "-q", *words, "--out", "out", cwd=folder)
        assert (ended.status, without_log(ended.err).replace("counts data/1.csv\n", "").splitlines()[0]) == (
            0,
            f"tickwork: {said}",
        )
        assert (folder / "out").exists()


BAD: dict[str, tuple[list[str], str]] = {
    "no function": (
        ["work", "--lines", "-"],
        "cannot use target 'work': name a function in it, work:function; it has",
    ),
    "no callable": (
        ["work:LIMIT", "--lines", "-"],
        "cannot use target 'work:LIMIT': 'LIMIT' is a int, not a function",
    ),
    "another name": (
        ["work:doubel", "--lines", "-"],
        "cannot use target 'work:doubel': no 'doubel' in it; did you mean 'double'?\n",
    ),
    "no argument": (
        ["work:none", "--lines", "-"],
        "TARGET must be a function of one argument, the item, got <functio",
    ),
    "loop": (
        ["work:upper", "--lines", "-", "--run-in", "process"],
        "function must be a plain function, got 'work.upper'; async ones run in the loop\n",
    ),
    "version": (
        ["work:double", "--lines", "-", "--results-version", "2"],
        "--results-version must be left out where there is no checkpoint, got '2'\n",
    ),
    "no dead list": (
        ["work:double", "--dead-items", "missing"],
        "--dead-items must be a file that --dead has written, got 'missing'; No such file or directory\n",
    ),
    "out nowhere": (
        ["work:double", "--items", "numbers.txt", "--out", "no/out"],
        "--out must be a file that can be written, got 'no/out'; No such file or directory\n",
    ),
    "out is a folder": (
        ["work:double", "--items", "numbers.txt", "--out", "data"],
        "--out must be a file that can be written, got 'data'; it is a folder\n",
    ),
    "one file for two": (
        ["work:double", "--items", "numbers.txt", "--out", "one", "--dead", "./one"],
        "--out must be another file than that of --dead, got 'one'\n",
    ),
    "another item": (["work:words", "--items", "numbers.txt"], "numbers.txt, line 1: expected str, got int 0\n"),
    "no file": (
        ["work:count", "--files", "data/1.csv", "data/9.csv"],
        "--files must be a file, or a pattern such as \"data/**/*.csv\", got 'data/9.csv'; there is no such file\n",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_wrong_use_is_said_in_one_line_before_anything_runs(folder: Path, case: str) -> None:
    words, message = BAD[case]
    ended = tickwork("map", *words, "-q", cwd=folder)

    assert (ended.status, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert ended.err.startswith(f"tickwork: {message}")
    assert not (folder / "runs").exists()
    assert not (folder / "out.part").exists()


BAD_PATTERNS = {
    "": "",
    "data": '; it is a folder: "data/**" means all files in it',
    "data/9.csv": "; there is no such file",
    "date/*.csv": "; date: No such file or directory",
    "*/../*.csv": '; it cannot leave the directory: leave out ".."',
}


@pytest.mark.parametrize("word", BAD_PATTERNS)
def test_what_can_mean_no_file_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(InvalidOption) as refused:
        FoundFiles(["data/1.csv", word])
    expected = '--files must be a file, or a pattern such as "data/**/*.csv"'
    assert str(refused.value) == f"{expected}, got {word!r}{BAD_PATTERNS[word]}"


def number(_item: int) -> None: ...


def word(_item: str) -> None: ...


def deep(_item: dict[str, list[date]]) -> None: ...


BAD_LINES: dict[str, tuple[Any, str, bytes | None, str]] = {
    "no file": (
        number,
        "--items",
        None,
        "--items must be a file that can be read, or \"-\", got 'list'; No such fil",
    ),
    "no json": (number, "--items", b"1\n\ntwo\n", "list, line 3: expected JSON text, got none: "),
    "another type": (word, "--items", b'"a"\n1\n', "list, line 2: expected str, got int 1"),
    "deep in it": (deep, "--items", b'{"a":["May"]}', "list, line 1, item['a'][0]: expected date, got str 'May'"),
    "no number": (
        number,
        "--lines",
        b"1",
        "list, line 1: expected int, got str '1'; with --lines an item is text, and --items reads JSON",
    ),
    "no utf-8": (word, "--lines", b"one\ngr\xfc\n", "list, line 2: byte 3 is not UTF-8: invalid start byte"),
}


@pytest.mark.parametrize("case", BAD_LINES)
async def test_a_small_file_is_checked_as_a_whole_and_the_line_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.chdir(tmp_path)
    fn, option, content, message = BAD_LINES[case]
    if content is not None:
        (tmp_path / "list").write_bytes(content)
    with pytest.raises((InvalidOption, InvalidPayload)) as refused:
        await items_in_lines("list", option, plan_to_read(fn, are_paths=False))
    assert str(refused.value).startswith(message)


async def test_a_folder_is_no_list(tmp_path: Path) -> None:
    items = await items_in_lines(str(tmp_path), "--lines", plan_to_read(word, are_paths=False))
    with pytest.raises(InvalidPayload) as refused:
        [item async for item in items]  # type: ignore[union-attr]
    assert str(refused.value) == f"{tmp_path}: it cannot be read: Is a directory"


def test_a_result_that_json_cannot_carry_ends_it_with_the_remedy(folder: Path) -> None:
    ended = tickwork("map", "work:opaque", "--lines", "numbers.txt", "-q", cwd=folder)
    assert (ended.status, ended.out) == (2, "")
    first, rest = ended.err.splitlines()
    assert first.startswith("tickwork: result of work.opaque: JSON cannot carry a value of type object by itself; ")
    assert first.endswith("; or keep no results in the checkpoint: --discard-results")
    assert re.fullmatch(r"tickwork: \d+ of 10 items are done", rest)


def test_an_item_that_is_wrong_far_down_a_pipe_ends_what_came_before_it(folder: Path) -> None:
    with given(folder, "1\n2\nthree\n4\n") as stdin:
        pipe = subprocess.Popen(["cat"], stdin=stdin, stdout=subprocess.PIPE)
        with pipe:
            ended = tickwork("map", "work:double", "--items", "-", "-q", cwd=folder, stdin=pipe.stdout)
    assert (ended.status, results(ended.out)) == (2, [(1, 2), (2, 4)])
    first, rest = ended.err.splitlines()
    assert first.startswith("tickwork: standard input, line 3: expected JSON text, got none: ")
    assert rest == "tickwork: 2 items are done"


def test_exactly_one_source_of_items_is_named(folder: Path) -> None:
    for words in ([], ["--lines", "numbers.txt", "--files", "work.py"]):
        ended = tickwork("map", "work:double", *words, cwd=folder)
        assert (ended.status, ended.out) == (2, "")
        assert "--files" in ended.err


def test_options_of_map_have_their_flags() -> None:
    known = {*BatchOptions.__annotations__, "fn"}
    assert FLAGS.keys() <= known
    assert all(word not in "".join(FLAGS.values()) for word, _ in WORDS)


# --- the file --------------------------------------------------------------------------------------------------------


def test_the_file_grows_beside_its_place_and_an_older_one_stays_until_it_is_whole(folder: Path) -> None:
    (folder / "out").write_text("older\n")
    (folder / "out").chmod(0o640)
    words = ["--items", "numbers.txt", "--out", "out", "--workers", "2", "--as-completed", "--chunk-size", "1", "-q"]
    with Running("-m", "tickwork", "map", "work:until_told", *words, cwd=folder) as running:
        running.wait_until(lambda: (folder / "out.part").exists(), "out.part")
        running.wait_until(lambda: len((folder / "out.part").read_text().splitlines()) == 9, "nine lines")
        assert (folder / "out").read_text() == "older\n"
        (folder / "go").touch()
        assert running.ended() == Ended(0, "", "")

    assert [index for index, _ in results((folder / "out").read_text())] == [*range(1, 10), 0]
    assert (folder / "out").stat().st_mode & 0o777 == 0o640
    assert not (folder / "out.part").exists()


def test_a_link_stays_a_link_and_a_device_is_written_into(folder: Path) -> None:
    (folder / "link").symlink_to("data/out")
    assert double(folder, "--out", "link").status == 1
    assert (folder / "link").is_symlink()
    assert len(entries((folder / "data" / "out").read_text())) == 10

    ended = double(folder, "--out", "/dev/full")
    assert (ended.status, ended.err.splitlines()) == (
        1,
        [
            "tickwork: /dev/full: No space left on device",
            (
                "tickwork: 10 of 10 items are done, 1 failed; "
                "with --checkpoint FILE the same command would go on from there"
            ),
        ],
    )


def test_what_the_command_writes_is_no_item_of_it(folder: Path) -> None:
    words = ["--out", "data/out", "--checkpoint", "data/run.db", "--dead", "data/failed", "-q"]
    for _ in range(2):
        ended = tickwork("map", "work:size", "--files", "data/*", "--read", "bytes", *words, cwd=folder)
        assert (ended.status, ended.err) == (0, "")
        names = [item for item, _ in results((folder / "data" / "out").read_text())]
        assert names == ["data/1.csv", "data/2.csv", "data/3.csv", "data/notes.txt"]


def test_discarded_results_are_null(folder: Path) -> None:
    for words in ([], ["--checkpoint", "run.db"], ["--checkpoint", "run.db"]):
        ended = tickwork("map", "work:opaque", "--lines", "numbers.txt", "--discard-results", "-q", *words, cwd=folder)
        assert (ended.status, results(ended.out)) == (0, [(str(number), None) for number in range(10)])


def test_who_reads_only_the_first_lines_ends_it_quietly(folder: Path) -> None:
    command = [sys.executable, "-m", "tickwork", "map", "work:upper", "--lines", "-", "-q"]
    endless = subprocess.Popen(["yes", "x" * 1000], stdout=subprocess.PIPE)
    with (
        endless,
        subprocess.Popen(
            command, cwd=folder, stdin=endless.stdout, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["index"] == 0
        process.stdout.close()
        assert process.wait(DEADLINE) == 0
        assert process.stderr.read() == b""
        endless.kill()


# --- going on --------------------------------------------------------------------------------------------------------


def runs(folder: Path) -> list[int]:
    return sorted(map(int, (folder / "runs").read_text().split()))


def allow(folder: Path, *shares: int) -> None:
    """Let items run, 30 for each share, and no others: however late a test stops them, some are left."""
    for share in shares:
        (folder / f"allowed-{share}").touch()


def has_run(folder: Path, count: int) -> bool:
    return (folder / "runs").exists() and len(runs(folder)) >= count


def test_killed_again_and_again_it_goes_on_and_runs_only_what_was_under_way_twice(folder: Path) -> None:
    (folder / "numbers.txt").write_text("".join(f"{number}\n" for number in range(120)))
    words = ["--items", "numbers.txt", "--checkpoint", "run.db", "--out", "out", "-q", "--chunk-size", "2"]
    command = ["-m", "tickwork", "map", "work:slowly", *words, "--run-in", "process", "--workers", "2"]
    kills = 0
    for share, count in enumerate((15, 40, 70)):
        allow(folder, share)
        with Running(*command, cwd=folder) as running:
            running.wait_until(partial(has_run, folder, count), f"{count} runs")
            running.send(signal.SIGKILL)
            running.process.wait(DEADLINE)
            running.wait_alone()
            kills += 1
        assert not (folder / "out").exists()
    allow(folder, 3)
    ended = tickwork(*command[2:], cwd=folder)

    assert (ended.status, ended.err) == (
        1,
        "tickwork: 1 of 120 items failed; the same command runs those again; " + FIRST,
    )
    found = entries((folder / "out").read_text())
    assert [entry["index"] for entry in found] == list(range(120))
    assert [entry.get("result") for entry in found] == [2 * n if n != 7 else None for n in range(120)]
    again = len(runs(folder)) - 120
    failed_again = runs(folder).count(7) - 1
    assert again - failed_again <= kills * 2 * 2 * 2  # children x chunks in flight at each x items
    (folder / "mended").touch()
    before = len(runs(folder))
    ended = tickwork(*command[2:], cwd=folder)
    assert (ended.status, len(runs(folder)) - before) == (0, 1)
    assert entries((folder / "out").read_text())[7] == {"index": 7, "item": 7, "result": 14}


def test_ctrl_c_says_how_many_are_done_and_how_to_go_on(folder: Path) -> None:
    (folder / "numbers.txt").write_text("".join(f"{number}\n" for number in range(8, 108)))
    words = ["--items", "numbers.txt", "--checkpoint", "run.db", "--out", "out", "-q", "--chunk-size", "1"]
    command = ["-m", "tickwork", "map", "work:slowly", *words, "--run-in", "process", "--workers", "2"]
    allow(folder, 0, 1)
    with Running(*command, cwd=folder) as running:
        running.wait_until(partial(has_run, folder, 20), "20 runs")
        running.wait_until(lambda: (folder / "out.part").stat().st_size, "lines")
        running.send_group(signal.SIGINT)
        ended = running.ended()
        running.wait_alone()

    told = re.fullmatch(
        r"tickwork: SIGINT: (\d+) of 100 items are done; the lines so far are in out\.part; "
        r"the same command goes on from there \(run\.db\)\n",
        ended.err,
    )
    assert ended.status == 130
    assert told is not None
    done = int(told[1])
    assert 16 <= done < 100
    so_far = results((folder / "out.part").read_text())
    assert so_far == [(number, 2 * number) for number in range(8, 8 + len(so_far))]
    assert 0 < len(so_far) <= done  # lines are in order: what follows an item that still ran has none yet

    allow(folder, 2, 3)
    ended = tickwork(*command[2:-1], "1", cwd=folder)
    assert (ended.status, ended.err) == (0, "")
    assert results((folder / "out").read_text()) == [(number, 2 * number) for number in range(8, 108)]
    assert len(runs(folder)) <= 100 + 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_does_not_wait_for_a_function_that_does_not_end(folder: Path, number: signal.Signals) -> None:
    command = ["-m", "tickwork", "map", "work:stubborn", "--lines", "numbers.txt", "--workers", "1", "--out", "out"]
    with Running(*command, cwd=folder) as running:
        running.wait_for("began")
        running.send_until(number, "kept it")
        running.send(number)
        assert running.ended().status == 128 + number


def test_another_command_with_the_same_checkpoint_is_refused_and_the_lines_so_far_stay(folder: Path) -> None:
    (folder / "out.part").write_text("so far\n")
    assert double(folder, "--checkpoint", "run.db").status == 1
    ended = tickwork(
        "map", "work:as_task", "--items", "numbers.txt", "--checkpoint", "run.db", "--out", "out", "-q", cwd=folder
    )
    assert (ended.status, ended.err) == (
        2,
        (
            f"tickwork: checkpoint {folder}/run.db is that of another batch: its function is 'work.double', and not "
            "'work.as_task'; name another file, or remove this one to start from nothing\n"
        ),
    )
    assert (folder / "out.part").read_text() == "so far\n"


def test_a_function_whose_name_does_not_tell_what_it_does_needs_a_version(folder: Path) -> None:
    words = ["map", "work:nameless", "--items", "numbers.txt", "--checkpoint", "run.db", "-q"]
    ended = tickwork(*words, cwd=folder)
    assert ended.status == 2
    assert ended.err.startswith(
        "tickwork: TARGET must be a function whose name tells what it does, where there is a checkpoint, got "
    )
    assert ended.err.endswith(
        "; it is a partial with something that a checkpoint cannot tell from others: pass a function of a module, or "
        "--results-version 1, and another text whenever it would return something else\n"
    )
    assert not (folder / "run.db").exists()
    assert tickwork(*words, "--results-version", "1", cwd=folder).status == 1  # max() of one number fails, and was run
    assert (folder / "run.db").exists()


def test_contents_read_in_another_way_are_another_batch(folder: Path) -> None:
    words = ["map", "work:count_all", "--files", "data/*.csv", "--checkpoint", "run.db", "-q"]
    assert tickwork(*words, "--read", "text", cwd=folder).status == 0
    assert tickwork(*words, "--read", "bytes", cwd=folder).err == (
        f"tickwork: checkpoint {folder}/run.db is that of another batch: its function is 'work.count_all, read as "
        "text', and not 'work.count_all, read as bytes'; name another file, or remove this one to start from nothing\n"
    )


# --- on a terminal ---------------------------------------------------------------------------------------------------


def test_a_terminal_shows_a_bar_and_the_results_stay_clean(folder: Path) -> None:
    leader, follower = pty.openpty()
    try:
        command = ["-m", "tickwork", "map", "work:double", "--items", "numbers.txt"]
        with Running(*command, cwd=folder, stderr=follower, env={"TERM": "xterm", "COLUMNS": "120"}) as running:
            status = running.process.wait(DEADLINE)
            out = running.out
        os.close(follower)
        shown = b""
        try:
            while part := os.read(leader, 65536):
                shown += part
        except OSError:  # the end of a terminal
            pass
    finally:
        os.close(leader)
    assert status == 1
    assert len(entries(out)) == 10
    assert b"10 of 10 items" in shown
    assert b"tickwork: 1 of 10 items failed" in shown
