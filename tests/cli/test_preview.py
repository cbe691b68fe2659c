"""`tickwork preview`: what it reads, what it draws, and where it writes that."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tickwork.cli.preview import read_when, write_whole
from tickwork.errors import InvalidOption
from tickwork.zones import get_zone

from .command import tickwork

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 3, 28, 9, 30, 15, tzinfo=UTC)
BASE = datetime(2026, 3, 28, 23, tzinfo=UTC)  # midnight in Berlin; an hour is missing on the day that begins

JOBS = """
import tickwork
app = tickwork.App(timezone="Europe/Berlin")

@app.cron("30 2 * * *")
def backup(): ...

@app.cron("0 3 * * *", name="jobs.r\u00e9port")
def report(): ...
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "jobs.py").write_text(JOBS, encoding="utf-8")
    return tmp_path


def test_picture_goes_to_stdout_in_the_zone_of_the_app(folder: Path) -> None:
    env = {"PYTHONIOENCODING": "utf-8", "COLUMNS": "70"}
    ended = tickwork("preview", "jobs.py", "--from", "2026-03-29", "--to", "1d", cwd=folder, env=env)

    assert (ended.status, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0] == "2 schedules of jobs, 2 fire times"
    assert lines[1] == "Sun 2026-03-29 00:00 \u2013 Mon 2026-03-30 00:00, Europe/Berlin"
    assert "together      Sun 29 Mar 03:00  2 start: backup, r\u00e9port" in lines
    assert "clock change  Sun 29 Mar 03:00  after the gap 02:00-03:00: backup," in lines
    assert "\x1b" not in ended.out
    assert max(map(len, lines)) <= 70


def test_an_encoding_without_the_signs_gets_ascii(folder: Path) -> None:
    env = {"PYTHONIOENCODING": "ascii"}
    ended = tickwork("preview", "jobs.py", "--from", "2026-03-29", cwd=folder, env=env)

    assert (ended.status, ended.err) == (0, "")
    assert ended.out.isascii()
    assert "r\\xe9port" in ended.out


@pytest.mark.parametrize(("settings", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_a_terminal_gets_colours_unless_it_must_not(folder: Path, settings: dict[str, str], coloured: bool) -> None:
    leader, follower = pty.openpty()
    words = [sys.executable, "-m", "tickwork", "preview", "jobs.py"]
    environment = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "TERM")}
    with subprocess.Popen(words, cwd=folder, stdout=follower, env={**environment, "TERM": "xterm", **settings}) as done:
        os.close(follower)
        drawn = b""
        try:
            while part := os.read(leader, 65_536):
                drawn += part
        except OSError:  # the other end is closed
            pass
    os.close(leader)

    assert done.returncode == 0
    assert (b"\x1b[" in drawn) is coloured


def test_svg_is_written_and_said(folder: Path) -> None:
    ended = tickwork("preview", "jobs.py", "--from", "2026-03-29", "-o", "plan.svg", cwd=folder)

    size = (folder / "plan.svg").stat().st_size
    assert (ended.status, ended.err, ended.out) == (0, "", f"plan.svg: {size:,} bytes\n")
    ElementTree.parse(folder / "plan.svg")
    assert sorted(path.name for path in folder.iterdir() if not path.name.startswith((".out", ".err", "__"))) == [
        "jobs.py",
        "plan.svg",
    ]


def test_svg_goes_to_stdout_for_a_dash(folder: Path) -> None:
    env = {"PYTHONIOENCODING": "utf-8"}
    ended = tickwork("preview", "jobs.py", "-o", "-", cwd=folder, env=env)

    assert ElementTree.fromstring(ended.out).get("class") == "tickwork-plan"


def test_json_is_the_plan(folder: Path) -> None:
    words = ("--from", "2026-03-29", "--duration", "backup=20m", "--tz", "UTC", "--json")
    plan = json.loads(tickwork("preview", "jobs.py", *words, cwd=folder).out)

    assert (plan["start"], plan["end"], plan["timezone"]) == ("2026-03-29T00:00:00Z", "2026-03-30T00:00:00Z", "UTC")
    backup, report = plan["lanes"]
    assert backup["runs"] == [["2026-03-29T01:00:00Z", "2026-03-29T01:20:00Z"]]
    assert (backup["timezone"], report["name"], report["duration"]) == ("Europe/Berlin", "jobs.r\u00e9port", None)


def test_an_app_without_schedules_has_an_empty_plan(folder: Path) -> None:
    (folder / "jobs.py").write_text("import tickwork\napp = tickwork.App()\n")

    ended = tickwork("preview", "jobs.py", cwd=folder)

    assert ended.status == 0
    assert ended.out.startswith("0 schedules, 0 fire times\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--to", "soon"], '--to must be "now", a date, a time such as "2026-03-29T02:00", or a duration such as '),
        (["--to", "5 parsecs"], "--to must be a duration such as "),
        (["--to", "20y"], "--to must be a duration such as "),
        (["--from", "2026-03-29T02:30"], "--from must be a time that exists in Europe/Berlin, got '2026-03-29 02:30"),
        (["--from", "2026-03-29", "--to", "2026-03-28"], "--to must be later than 2026-03-28T23:00:00+00:00, by 3660 "),
        (["--to", "now", "--from", "1d"], "--to must be later than "),
        (["--to", "11y"], "--to must be a duration such as "),
        (["--duration", "backup"], "--duration must be NAME=LENGTH, such as nightly=20m, got 'backup'"),
        (["--duration", "backup=long"], "duration of jobs.backup must be a duration such as "),
        (["--duration", "bakcup=1m"], "no schedule named 'bakcup'; "),
        (["--tz", "Europe/Berlni"], "timezone must be an IANA key such as"),
        (["-o", "no/such/plan.svg"], "-o must be a file that can be written, got 'no/such/plan.svg'; No such file"),
    ],
)
def test_mistakes_end_in_status_2_and_one_line(folder: Path, words: list[str], said: str) -> None:
    ended = tickwork("preview", "jobs.py", *words, cwd=folder)

    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith(f"tickwork: {said}")
    assert ended.err.count("\n") == 1


def test_the_past_can_be_looked_at(folder: Path) -> None:
    ended = tickwork("preview", "jobs.py", "--from=-7d", "--to", "now", "--json", cwd=folder)

    assert ended.status == 0
    assert [lane["count"] for lane in json.loads(ended.out)["lanes"]] == [7, 7]


def test_output_and_json_are_one_or_the_other(folder: Path) -> None:
    ended = tickwork("preview", "jobs.py", "--json", "-o", "plan.svg", cwd=folder)

    assert ended.status == 2
    assert "not allowed with argument" in ended.err


# -- WHEN -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("now", "2026-03-28T09:30:15"),
        ("2026-03-29", "2026-03-28T23:00"),
        ("20260329", "2026-03-28T23:00"),
        ("2026-03-29T12:00", "2026-03-29T10:00"),
        ("2026-03-29 12:00:30", "2026-03-29T10:00:30"),
        ("2026-03-29T12:00Z", "2026-03-29T12:00"),
        ("2026-03-29T12:00+09:00", "2026-03-29T03:00"),
        ("2026-10-25T02:30", "2026-10-25T00:30"),  # the first of two
        ("24h", "2026-03-29T23:00"),
        ("+24h", "2026-03-29T23:00"),
        ("1d", "2026-03-29T22:00"),  # a day of the calendar, with its 23 hours
        ("+1d", "2026-03-29T22:00"),
        ("1w", "2026-04-04T22:00"),
        ("2 weeks", "2026-04-11T22:00"),
        ("-1d", "2026-03-27T23:00"),
        ("-90m", "2026-03-28T21:30"),
        ("1d12h", "2026-03-30T11:00"),
    ],
)
def test_an_instant_is_read_in_the_zone(text: str, instant: str) -> None:
    found = read_when(text, "--to", get_zone("Europe/Berlin"), now=NOW, base=BASE)

    assert found == datetime.fromisoformat(instant).replace(tzinfo=UTC)
    assert found.tzinfo is UTC


def test_a_date_without_midnight_is_its_first_moment() -> None:
    found = read_when("2026-03-08", "--to", get_zone("America/Havana"), now=NOW, base=BASE)

    assert found == datetime(2026, 3, 8, 5, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "tomorrow", "12:00", "2026-13-01", "nan", "1e9", "0001-01-01", "99999999d"])
def test_what_is_no_instant_is_refused(text: str) -> None:
    with pytest.raises(InvalidOption, match="^--to must be ") as refused:
        read_when(text, "--to", get_zone("Asia/Seoul"), now=NOW, base=BASE)

    assert refused.value.option == "--to"


# -- files ------------------------------------------------------------------------------------------------------------


def test_a_file_that_is_replaced_keeps_its_mode_and_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real.svg").write_text("before")
    (tmp_path / "real.svg").chmod(0o640)
    (tmp_path / "link.svg").symlink_to("real.svg")

    assert write_whole(tmp_path / "link.svg", "\u00e9") == 2

    assert (tmp_path / "link.svg").is_symlink()
    assert (tmp_path / "real.svg").read_text(encoding="utf-8") == "\u00e9"
    assert (tmp_path / "real.svg").stat().st_mode & 0o777 == 0o640


def test_a_folder_is_refused_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    (tmp_path / "plan.svg").mkdir()

    with pytest.raises(
        InvalidOption, match="^-o must be a file that can be written, got '.*plan.svg'; Is a directory$"
    ):
        write_whole(tmp_path / "plan.svg", "x")
    assert [path.name for path in tmp_path.iterdir()] == ["plan.svg"]


# -- the picture of the documentation ---------------------------------------------------------------------------------


def test_the_picture_of_the_documentation_is_what_its_command_draws_today(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "time.md").read_text(encoding="utf-8")
    found = re.search(
        r"^\$ tickwork (preview examples/bookshop\.py .*?-o docs/preview\.svg)\n(.*?)$", page, re.M | re.S
    )
    assert found is not None
    words = shlex.split(found[1].replace("\\\n", " "))
    drawn = tmp_path / "preview.svg"

    assert (words[1], words[-1]) == ("examples/bookshop.py", "docs/preview.svg")
    ended = tickwork(words[0], str(ROOT / words[1]), *words[2:-1], str(drawn), cwd=tmp_path)

    assert (ended.status, ended.err) == (0, "")
    assert drawn.read_bytes() == (ROOT / "docs" / "preview.svg").read_bytes(), "run the command of docs/time.md again"
    assert found[2] == f"docs/preview.svg: {drawn.stat().st_size:,} bytes"
