"""`tickwork check`: its exit status and what it prints, on real targets."""

from __future__ import annotations

import json
import re
from pathlib import Path
from textwrap import dedent

import pytest

from .command import Running, tickwork

ROOT = Path(__file__).parents[2]
HEAD = "from tickwork import App\n\napp = App()\n"
CHANGE = (
    "jobs.nightly: 2026-10-25: 02:30 comes twice in Europe/Berlin, runs in the first pass only; "
    "2027-03-28: 02:30 does not exist in Europe/Berlin, runs once at 03:00; "
    'choose another hour or timezone="UTC", or decide with dst="skip" or dst="both"'
)
TIMEOUT = (
    "jobs.poll: a run may take 10m, and 5m later (2026-07-01 00:05:00 and 00:10:00 UTC) the next is due, "
    'that is then skipped; timeout="5m" at the most, a longer period, or overlap="allow"'
)


def write(folder: Path, text: str, head: str = HEAD) -> None:
    (folder / "jobs.py").write_text(head + dedent(text))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with an app of two findings."""
    write(
        tmp_path,
        """
        @app.cron("30 2 * * *", timezone="Europe/Berlin")
        async def nightly() -> None: ...

        @app.every("5m", timeout="10m")
        async def poll() -> None: ...
        """,
    )
    return tmp_path


AS_OF = ("--as-of", "2026-07-01")


def test_findings_are_lines_on_stdout_and_status_1(folder: Path) -> None:
    ended = tickwork("check", "jobs.py", *AS_OF, cwd=folder)

    assert (ended.status, ended.err) == (1, "")
    assert ended.out == f"clock-change  {CHANGE}\nlong-timeout  {TIMEOUT}\n"


def test_findings_are_a_list_in_json(folder: Path) -> None:
    ended = tickwork("check", "jobs.py", "--json", *AS_OF, cwd=folder)

    assert (ended.status, ended.err) == (1, "")
    found = json.loads(ended.out)
    assert [sorted(finding) for finding in found] == [["about", "message", "remedy", "rule"]] * 2
    lines = ["{about}: {message}; {remedy}".format(**finding) for finding in found]
    assert lines == [CHANGE, TIMEOUT]
    assert [finding["rule"] for finding in found] == ["clock-change", "long-timeout"]


def test_rules_are_left_out_together_or_one_by_one(folder: Path) -> None:
    together = tickwork("check", "jobs.py", "--ignore", "clock-change", "long-timeout", cwd=folder)
    one_by_one = tickwork("check", "--ignore=clock-change", "--ignore=long-timeout", "jobs.py", cwd=folder)

    assert (together.status, together.out) == (0, "no findings: 2 tasks, 2 schedules\n")
    assert (one_by_one.status, one_by_one.out) == (0, together.out)


def test_no_finding_is_an_empty_list_in_json(tmp_path: Path) -> None:
    write(tmp_path, "")

    ended = tickwork("check", "jobs.py", "--json", cwd=tmp_path)

    assert (ended.status, ended.out, ended.err) == (0, "[]\n", "")


def test_an_app_without_tasks_is_clean_whatever_is_beside_it(tmp_path: Path) -> None:
    write(tmp_path, "")

    ended = tickwork("check", "jobs.py", cwd=tmp_path, env={"WEB_CONCURRENCY": "4"})

    assert (ended.status, ended.out) == (0, "no findings: 0 tasks, 0 schedules\n")


def test_several_workers_are_found(folder: Path) -> None:
    ignored = ("--ignore", "clock-change", "long-timeout")
    ended = tickwork("check", "jobs.py", *ignored, cwd=folder, env={"WEB_CONCURRENCY": "4"})

    assert ended.status == 1
    assert ended.out == (
        "several-workers  jobs.py: it keeps its jobs in memory, and WEB_CONCURRENCY=4: each worker fires every "
        "schedule and knows its own jobs only; give the schedules to one process, `tickwork run` say\n"
    )


REFUSED = {
    "@app.task(name='jobs.poll')": (
        "duplicate-name  jobs.poll: two tasks are named 'jobs.poll' (jobs.py, line 8); "
        'give one of them another: name="..."'
    ),
    "@app.cron('0 5 * * *', timezone='Europe/Berlni')": (
        "unknown-timezone  jobs.py, line 8: timezone must be an IANA key such as \"Asia/Seoul\", got 'Europe/Berlni'; "
        "did you mean 'Europe/Berlin'?"
    ),
    "@app.cron('0 5 30 2 *')": (
        "invalid-cron  jobs.py, line 8: invalid cron expression '0 5 30 2 *' (field 'day'): no such date ever comes: "
        "day '30', month '2', weekday '*'; try it with `tickwork next --cron`"
    ),
    "@app.every('-5s')": (
        'invalid-option  jobs.py, line 8: period must be a duration such as "30s", "1h30m", a number of seconds or a '
        "timedelta, got '-5s'; it must not be negative"
    ),
    "@app.task(run_in='cloud')": (
        "invalid-option  jobs.py, line 8: run_in must be one of None, 'loop', 'thread', 'process', 'executor', "
        "got 'cloud'; correct it"
    ),
    "app.task(run_in='process')(lambda: 1)\n": (
        "process-import  jobs.py, line 8: function '<lambda>' cannot be imported by name: it is a lambda or defined "
        "inside another function; define it at the top level of a module"
    ),
}


@pytest.mark.parametrize(("declaration", "line"), REFUSED.items(), ids=REFUSED.keys())
def test_what_is_refused_at_the_import_is_a_finding(tmp_path: Path, declaration: str, line: str) -> None:
    write(tmp_path, f"\n@app.every('1h')\nasync def poll() -> None: ...\n\n{declaration}\ndef wrong() -> None: ...\n")

    ended = tickwork("check", "jobs.py", cwd=tmp_path)

    assert (ended.status, ended.err) == (1, "")
    assert ended.out == line + "\n"


def test_a_file_elsewhere_is_named_by_its_path(tmp_path: Path) -> None:
    write(tmp_path, "app.cron('61 * * * *')")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    ended = tickwork("check", "../jobs.py", cwd=elsewhere)

    assert ended.status == 1
    assert ended.out.startswith(f"invalid-cron  {tmp_path / 'jobs.py'}, line 4: ")


def refused(folder: Path, *words: str) -> str:
    """Return the line that is said of a mistake; the status must be 2 and stdout empty."""
    ended = tickwork("check", *words, cwd=folder)
    assert (ended.status, ended.out) == (2, ""), ended
    return ended.err.rstrip("\n")


def test_an_unknown_rule_is_refused_with_a_suggestion(folder: Path) -> None:
    said = refused(folder, "jobs.py", "--ignore", "clock-chance")

    assert re.fullmatch(
        r"tickwork: --ignore must be one of duplicate-name, .*, waiting-misfit, got 'clock-chance'; "
        r"did you mean 'clock-change'\?",
        said,
    )


@pytest.mark.parametrize("when", ["tomorrow", "2026-13-01", "10000-01-01", ""])
def test_an_instant_that_cannot_be_read_is_refused(folder: Path, when: str) -> None:
    said = refused(folder, "jobs.py", "--as-of", when)

    expected = 'an ISO 8601 text such as "2026-12-24T18:00:00+01:00"'
    assert said == f"tickwork: --as-of must be {expected}, got {when!r}"


def test_an_instant_without_an_offset_is_one_of_the_apps_zone(tmp_path: Path) -> None:
    write(
        tmp_path,
        """
        app = App(timezone="Asia/Seoul")

        @app.at("2026-01-01T00:00:00+00:00")
        async def once() -> None: ...
        """,
    )

    assert tickwork("check", "jobs.py", "--as-of", "2026-01-01T08:59", cwd=tmp_path).status == 0
    assert tickwork("check", "jobs.py", "--as-of", "2026-01-01T08:59Z", cwd=tmp_path).status == 1
    ended = tickwork("check", "jobs.py", "--as-of", "2026-01-01T09:01", cwd=tmp_path)
    assert "has no fire time after 2026-01-01 00:01:00 UTC" in ended.out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def broken(:", "SyntaxError: invalid syntax ({folder}/jobs.py, line 1)"),
        ("import absent", "ModuleNotFoundError: No module named 'absent' ({folder}/jobs.py, line 1)"),
        ("raise ValueError", "ValueError ({folder}/jobs.py, line 1)"),
        ("x = 1", "no tickwork.App in it; make one at its top level: app = App()"),
    ],
)
def test_any_other_failure_of_the_import_stays_one(tmp_path: Path, text: str, said: str) -> None:
    write(tmp_path, text, head="")

    line = refused(tmp_path, "jobs.py")
    assert line == f"tickwork: cannot use target 'jobs.py': {said.replace('{folder}', str(tmp_path))}"


def test_a_refusal_cannot_be_ignored(tmp_path: Path) -> None:
    write(tmp_path, "app.cron('61 * * * *')")

    said = refused(tmp_path, "jobs.py", "--ignore", "invalid-cron")
    assert said.startswith("tickwork: cannot use target 'jobs.py': InvalidCron: ")


def test_what_a_child_process_cannot_import_is_found(tmp_path: Path) -> None:
    write(
        tmp_path,
        """
        import os

        print("imported")
        if os.environ.get("PARENT") == str(os.getpid()) or "PARENT" not in os.environ:
            os.environ["PARENT"] = str(os.getpid())

            @app.task(run_in="process")
            def only_in_the_parent() -> None: ...

        @app.cron("*/90 * * * *", run_in="process")
        def everywhere() -> None:
            raise AssertionError("called")
        """,
    )

    ended = tickwork("check", "jobs.py", "--json", "--ignore", "trigger-warning", cwd=tmp_path)

    assert ended.status == 1
    assert ended.err == "imported\n"  # by the child; its words are not mixed into the list
    printed, _, listed = ended.out.partition("\n")
    assert printed == "imported"
    assert json.loads(listed) == [
        {
            "rule": "process-import",
            "about": "jobs.only_in_the_parent",
            "message": "function 'jobs:only_in_the_parent' cannot be imported by name: "
            "module 'jobs' has no attribute 'only_in_the_parent'",
            "remedy": "define it at the top level of a module",
        }
    ]


def test_names_of_any_alphabet_are_shown(tmp_path: Path) -> None:
    write(tmp_path, "@app.every('5m', timeout='10m', name='매일')\nasync def poll() -> None: ...\n")

    assert "long-timeout  매일: " in tickwork("check", "jobs.py", cwd=tmp_path, env={"PYTHONIOENCODING": "utf-8"}).out
    assert "\\ub9e4" in tickwork("check", "jobs.py", cwd=tmp_path, env={"PYTHONIOENCODING": "ascii"}).out


@pytest.mark.parametrize("target", ["housekeeping.py", "web.py:app"])
def test_the_examples_are_clean(tmp_path: Path, target: str) -> None:
    ended = tickwork("check", str(ROOT / "examples" / target), cwd=tmp_path)

    assert (ended.status, ended.err) == (0, "")
    assert re.fullmatch(r"no findings: \d tasks, \d schedules\n", ended.out)


def test_the_finding_in_the_documentation_is_what_is_printed(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "apps.md").read_text(encoding="utf-8")
    section = page.partition("\n## Checked before it runs\n")[2]
    code, shown = (
        re.findall(rf"^```{language}\n(.*?)^```$", section, re.M | re.S)[0] for language in ("python", "text")
    )
    (tmp_path / "nightly.py").write_text(code)

    ended = tickwork("check", "nightly.py", *AS_OF, cwd=tmp_path)

    assert ended.out.split() == shown.split()


OLD = """
import asyncio
from tickwork import App

app = App("sqlite:///jobs.db")

@app.task(name="mail.send")
async def send(to: str) -> None: ...

@app.task(name="mail.sort")
async def sort(box: str) -> None: ...

@app.task(name="report")
async def report(day: str = "today") -> None: ...

async def main():
    async with app.client():
        for to in ("ann", "bob"):
            print((await send.enqueue(to)).id)
        print((await sort.enqueue("in")).id)
        await report.options(delay="1h").enqueue("monday")

if __name__ == "__main__":
    asyncio.run(main())
"""
NEW = """
from tickwork import App

app = App("sqlite:///jobs.db")

@app.task(name="mail.send")
async def send(to: str, subject: str) -> None: ...

@app.task(name="mail.sorted")
async def sort(box: str) -> None: ...

@app.task(name="report")
async def report(day: str = "today", length: int = 1) -> None: ...
"""


def test_what_waits_in_the_file_of_older_code_is_held_against_the_new(tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text(OLD)
    with Running("jobs.py", cwd=tmp_path) as running:
        first, _, gone = running.ended().out.split()
    before = tickwork("check", "jobs.py", cwd=tmp_path)
    (tmp_path / "jobs.py").write_text(NEW)
    after = tickwork("check", "jobs.py", cwd=tmp_path)
    in_json = tickwork("check", "jobs.py", "--json", "--ignore", "waiting-unknown", cwd=tmp_path)
    ignored = tickwork("check", "jobs.py", "--ignore", "waiting-unknown", "waiting-misfit", cwd=tmp_path)

    assert (before.status, before.out, before.err) == (0, "no findings: 3 tasks, 0 schedules\n", "")
    assert (after.status, after.err) == (1, "")
    unknown, misfit = after.out.splitlines()
    assert unknown == (
        f"waiting-unknown  mail.sort: 1 job waits, the oldest is {gone}, and the app has no such task; "
        "if 'mail.sorted' is its new name, give that aliases=[\"mail.sort\"]; else cancel them with "
        "`tickwork jobs cancel`, or keep the task until they have run"
    )
    assert misfit == (
        f"waiting-misfit   mail.send: 2 jobs wait, the oldest is {first}; its arguments do not fit: "
        "mail.send(subject): is missing in the payload; the signature is (to: str, subject: str); give what is new a "
        "default, take what is gone by **kwargs, or let them run before the deployment"
    )
    assert in_json.status == 1
    assert [(finding["rule"], finding["about"]) for finding in json.loads(in_json.out)] == [
        ("waiting-misfit", "mail.send")
    ]
    assert (ignored.status, ignored.out) == (0, "no findings: 3 tasks, 0 schedules\n")
