"""What TARGET may be, and what is said when it is not."""

from __future__ import annotations

import sys
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from tickwork.cli.target import identity_of, load

from .command import tickwork

if TYPE_CHECKING:
    from pathlib import Path

APP = """
    from tickwork import App

    app = App()

    @app.every("1h")
    async def poll() -> None: ...
"""


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(text))
    return path


@pytest.mark.parametrize(
    "target", ["jobs:app", "jobs", "jobs.py", "jobs.py:app", "./jobs.py", "package.jobs", "package.jobs:app"]
)
def test_target_may_be_a_module_or_a_file_with_or_without_the_name_of_its_app(tmp_path: Path, target: str) -> None:
    write(tmp_path / "jobs.py", APP)
    write(tmp_path / "package" / "__init__.py", "")
    write(tmp_path / "package" / "jobs.py", APP)

    ended = tickwork("list", target, cwd=tmp_path)

    assert (ended.status, ended.err) == (0, "")
    assert "poll" in ended.out


def test_folder_of_a_file_comes_first_on_the_path(tmp_path: Path) -> None:
    write(tmp_path / "other.py", "raise RuntimeError('the wrong one')")
    write(tmp_path / "deep" / "other.py", "PERIOD = '2h'")
    write(
        tmp_path / "deep" / "jobs.py",
        APP.replace('"1h"', "PERIOD").replace("from", "from other import PERIOD\n    from", 1),
    )

    ended = tickwork("list", "deep/jobs.py", cwd=tmp_path)

    assert (ended.status, ended.err) == (0, "")
    assert "jobs.poll" in ended.out
    assert "Every('2h')" in ended.out


def test_two_names_of_one_app_are_one_app(tmp_path: Path) -> None:
    write(tmp_path / "jobs.py", APP + "\n    same = app\n")

    assert tickwork("list", "jobs.py", cwd=tmp_path).status == 0


def refused(tmp_path: Path, *words: str) -> str:
    """Return the one line that is said; it must be one, and the status must be that of a wrong usage."""
    ended = tickwork(*words, cwd=tmp_path)
    assert (ended.status, ended.out) == (2, ""), ended
    assert ended.err.startswith("tickwork: ")
    assert ended.err.count("\n") == 1, ended.err
    return ended.err.removeprefix("tickwork: ").rstrip("\n")


@pytest.mark.parametrize(
    ("target", "text", "said"),
    [
        ("jobs.py", "x = 1", "no tickwork.App in it; make one at its top level: app = App()"),
        (
            "jobs.py",
            "from tickwork import App\nfirst, second = App(), App()",
            "it holds several apps; name one: jobs.py:first, jobs.py:second",
        ),
        ("jobs.py:ap", "from tickwork import App\napp = App()", "no 'ap' in it; did you mean 'app'?"),
        ("jobs.py:zzz", "from tickwork import App\napp = App()", "no 'zzz' in it"),
        ("jobs.py:app", "app = 5", "'app' is a int, not a tickwork.App"),
        ("missing.py", "", "no such file"),
        ("deep/missing.py", "", "no such file"),
        (".", "", "neither a module nor a .py file"),
        ("./", "", "it is a folder; name a file in it"),
        ("jobs.py:", "", "neither a module nor a .py file"),
        ("jobs-app", "", "neither a module nor a .py file"),
        ("my-jobs.py", "", "'my-jobs.py' cannot be imported; rename the file, such as to my_jobs.py"),
        ("./notes.txt", "", "'notes.txt' cannot be imported; rename the file, such as to my_jobs.py"),
        ("nowhere", "", "no module named 'nowhere' in {folder} or on sys.path"),
        ("nowhere.jobs:app", "", "no module named 'nowhere' in {folder} or on sys.path"),
        ("deep/calendar.py", "", "the module name 'calendar' is taken by a standard module; rename the file"),
        ("deep/json.py", "", "the module name 'json' is taken by a standard module; rename the file"),
        ("jobs.py", "def broken(:", "SyntaxError: invalid syntax ({folder}/jobs.py, line 1)"),
        ("jobs.py", "\nx = {}['a']", "KeyError: 'a' ({folder}/jobs.py, line 2)"),
        ("jobs.py", "raise ValueError('two\\nlines')", "ValueError: two lines ({folder}/jobs.py, line 1)"),
        ("jobs.py", "raise ValueError", "ValueError ({folder}/jobs.py, line 1)"),
        ("jobs.py", "import absent", "ModuleNotFoundError: No module named 'absent' ({folder}/jobs.py, line 1)"),
        ("jobs.py", "exit(3)", "it ends the program when it is imported: sys.exit(3) ({folder}/jobs.py, line 1)"),
        ("jobs.py", "import zoneinfo\nzoneinfo.ZoneInfo('A/B')", "ZoneInfoNotFoundError: 'No time zone found with key A/B' ({folder}/jobs.py, line 2)"),  # noqa: E501
    ],
)  # fmt: skip
def test_unusable_target_is_refused_in_one_line(tmp_path: Path, target: str, text: str, said: str) -> None:
    for name in ("jobs.py", "my-jobs.py", "notes.txt", "deep/calendar.py", "deep/json.py"):
        write(tmp_path / name, text)

    line = refused(tmp_path, "list", target)

    assert line == f"cannot use target {target!r}: {said.replace('{folder}', str(tmp_path))}"


@pytest.mark.parametrize(
    ("declaration", "said"),
    [
        ("@app.cron('61 * * * *')", "InvalidCron: invalid cron expression '61 * * * *' (field 'minute')"),
        ("@app.every('5 parsecs')", "InvalidDuration: "),
        ("@app.every('-5s')", "InvalidDuration: "),
        ("@app.cron('0 5 * * *', timezone='Europe/Berlni')", "UnknownTimezone: "),
        ("@app.at('2026-01-01T00:00')", "InvalidInstant: "),
        ("@app.task(run_in='cloud')", "InvalidOption: run_in must be one of None, 'loop', 'thread', 'process'"),
        ("@app.task(name='jobs.poll')", "DuplicateName: two tasks are named 'jobs.poll'"),
    ],
)
def test_wrong_declaration_is_refused_in_one_line_with_its_place(tmp_path: Path, declaration: str, said: str) -> None:
    path = write(tmp_path / "jobs.py", APP + f"\n    {declaration}\n    def wrong() -> None: ...\n")

    line = refused(tmp_path, "run", "jobs.py")

    assert line.startswith(f"cannot use target 'jobs.py': {said}")
    assert line.endswith(f"({path}, line 9)")


def test_lambda_for_a_process_is_refused_in_one_line(tmp_path: Path) -> None:
    path = write(tmp_path / "jobs.py", APP + "\n    app.task(run_in='process')(lambda: 1)\n")

    line = refused(tmp_path, "run", "jobs.py")

    assert "cannot be imported by name: it is a lambda" in line
    assert line.endswith(f"({path}, line 9)")


def test_file_with_the_name_of_an_installed_package_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "deep" / "croniter.py", APP)

    line = refused(tmp_path, "list", "deep/croniter.py")

    assert line.startswith("cannot use target 'deep/croniter.py': the module name 'croniter' is taken by ")
    assert line.endswith("croniter/__init__.py; rename the file")


def test_file_with_the_name_of_a_file_in_the_working_folder_is_used(tmp_path: Path) -> None:
    write(tmp_path / "jobs.py", "raise RuntimeError('the wrong one')")
    write(tmp_path / "deep" / "jobs.py", APP)

    assert tickwork("list", "deep/jobs.py", cwd=tmp_path).status == 0


def test_verbose_shows_the_traceback_of_an_import(tmp_path: Path) -> None:
    write(tmp_path / "jobs.py", "x = {}['a']")

    ended = tickwork("run", "-v", "jobs.py", cwd=tmp_path)

    assert ended.status == 2
    assert "Traceback (most recent call last)" in ended.err


def test_missing_file_is_refused_with_reload_too(tmp_path: Path) -> None:
    assert refused(tmp_path, "run", "--reload", "missing.py") == "cannot use target 'missing.py': no such file"


@pytest.mark.parametrize("target", ["told_apart.py", "told_apart", "told_apart:app", "./told_apart.py:same"])
def test_all_spellings_of_a_target_tell_one_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    (tmp_path / "release").mkdir()
    (tmp_path / "release" / "told_apart.py").write_text("from tickwork import App\napp = same = App()\n")
    (tmp_path / "current").symlink_to("release")
    monkeypatch.chdir(tmp_path / "current")
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.delitem(sys.modules, "told_apart", raising=False)

    app = load(target)

    assert identity_of(target, app, str(tmp_path / "current")) == f"{tmp_path}/current/told_apart:app"
