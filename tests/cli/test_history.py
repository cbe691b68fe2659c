"""`tickwork history` and `tickwork why`, on the file that a run has left."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from .command import tickwork

if TYPE_CHECKING:
    from pathlib import Path

APP = """
from tickwork import App

app = App("sqlite:///jobs.db", timezone="Asia/Seoul")

@app.every("1h", first="now", name="reports.hourly")
async def hourly() -> None: ...

@app.every("1000d", first="now", name="broken")
async def broken() -> None:
    raise ValueError("no data")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "jobs.py").write_text(APP)
    assert tickwork("run", "jobs.py", "--until-idle", cwd=tmp_path).status == 1
    return tmp_path


def test_history_shows_what_became_of_the_fire_times(folder: Path) -> None:
    ended = tickwork("history", "jobs.py", "hourly", cwd=folder)

    assert (ended.status, ended.err) == (0, "")
    head, row = ended.out.splitlines()
    assert head.split("  ")[0] == "due (Asia/Seoul)"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d [\d:]{8} \+0900  succeeded +[\d:]{8} +\S+ +\w{20}  -", row)


def test_history_as_json_has_the_attributes_of_an_answer(folder: Path) -> None:
    ended = tickwork("history", "jobs.py", "broken", "--json", cwd=folder)

    (row,) = json.loads(ended.out)
    assert (row["schedule"], row["outcome"], row["state"], row["count"]) == ("broken", "ran", "failed", 1)
    assert row["first"] == row["last"] == row["wanted_at"]
    assert row["first"] < row["started_at"] < row["finished_at"]


def test_why_says_it_in_a_sentence(folder: Path) -> None:
    (row,) = json.loads(tickwork("history", "jobs.py", "broken", "--json", cwd=folder).out)

    ended = tickwork("why", "jobs.py", "broken", row["first"], cwd=folder)
    assert ended.status == 0
    assert re.fullmatch(
        r"broken, [\d: .-]+ \+0900: ran as job \w{20}, started at [\d:.]+; "
        r"it failed at [\d:.]+ after \w+(\.\w+)?: ValueError: no data\n",
        ended.out,
    )
    asked = json.loads(tickwork("why", "jobs.py", "broken", row["first"], "--json", cwd=folder).out)
    assert asked["answer"] == row
    ended = tickwork("why", "jobs.py", "hourly", "2020-01-01T03:00", cwd=folder)
    assert re.fullmatch(
        r"reports\.hourly, 2020-01-01 03:00:00 \+0900: did not run: "
        r"the schedule was declared with this trigger at [\d: .-]+ \+0900\n",
        ended.out,
    )


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("history", "jobs.py", "hourli"), "no schedule named 'hourli'; known: broken, reports.hourly"),
        (
            ("history", "jobs.py", "reports.hourli"),
            "no schedule named 'reports.hourli'; did you mean 'reports.hourly'?",
        ),
        (
            ("why", "jobs.py", "hourly", "noon"),
            """when must be a time such as "03:00", "2026-03-29T03:00" or "2026-03-29T03:00+02:00", got 'noon'""",
        ),
    ],
)
def test_what_cannot_be_found_is_said(folder: Path, words: tuple[str, ...], error: str) -> None:
    ended = tickwork(*words, cwd=folder)

    assert (ended.status, ended.out, ended.err) == (2, "", f"tickwork: {error}\n")


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text(APP)

    ended = tickwork("history", "jobs.py", "hourly", cwd=tmp_path)

    assert (ended.status, ended.out, ended.err) == (
        2,
        "",
        (
            f"tickwork: store {tmp_path}/jobs.db: there is no such file; "
            "the app has not run yet, or was started in another folder\n"
        ),
    )
    assert not (tmp_path / "jobs.db").exists()


@pytest.mark.parametrize("words", [("history",), ("why", "03:00")])
def test_what_is_in_the_memory_of_another_process_cannot_be_asked(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "jobs.py").write_text(APP.replace('"sqlite:///jobs.db", ', ""))

    ended = tickwork(words[0], "jobs.py", "broken", *words[1:], cwd=tmp_path)

    assert (ended.status, ended.out) == (2, "")
    assert ended.err == (
        "tickwork: this app keeps its jobs and its ledger in memory, inside of the process that runs it: ask there, "
        'with await app.schedules["name"].why("03:00"), or let the app keep them: App("sqlite:///jobs.db")\n'
    )
