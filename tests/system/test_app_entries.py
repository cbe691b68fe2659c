"""What the schedules of an app are called as entries, and what they run."""

from __future__ import annotations

import os
import re
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickwork import App, Cron
from tickwork.errors import InvalidEntry, InvalidOption
from tickwork.system.app_entries import (
    absolute_target,
    app_id_of,
    check_app_id,
    entry_id,
    here,
    interpreter,
    wanted_entries,
)
from tickwork.system.crontab_text import ID
from tickwork.system.task_words import check_name
from tickwork.triggers import Trigger


def entries(app: App, log: str | None = "/var/log/billing") -> dict[str, str]:
    found = wanted_entries(app, "billing.jobs:app", dir="/srv/billing", log=log, python="/venv/bin/python")
    return {entry.name: entry.refused for entry in found}


def job() -> None: ...


def test_an_entry_runs_the_trigger_of_the_schedule_with_paths_and_names_only() -> None:
    app = App()
    app.cron("0 4 * * *", name="Daily Report")(job)

    (entry,) = wanted_entries(app, "billing.jobs:app", dir="/srv/billing", log="/var/log/b", python="/venv/bin/python")
    (bare,) = wanted_entries(app, "billing.jobs:app", dir="/srv/billing", log=None, python="/venv/bin/python")

    assert entry.argv == (
        *("/venv/bin/python", "-m", "tickwork", "trigger", "--dir", "/srv/billing"),
        *("--log", f"/var/log/b/{entry.id}.log", "--fire-time", "auto", "billing.jobs:app", "Daily Report"),
    )
    assert bare.argv == (
        *("/venv/bin/python", "-m", "tickwork", "trigger", "--dir", "/srv/billing"),
        *("--fire-time", "auto", "billing.jobs:app", "Daily Report"),
    )
    assert entry.trigger == Cron("0 4 * * *", timezone="UTC")


# --- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("report", "report"),
        ("billing.jobs.report", "billing.jobs.report"),
        ("jobs.Daily_Report", "jobs.daily_report-0ef813"),
        ("Mail:out", "mail-out-5eb87c"),
        ("at night", "at-night-71c3ba"),
        ("mod.make.<locals>.fn", "mod.make.-locals-.fn-0fb9d8"),
        ("\u591c", "job-a51954"),
        ("con", "job-con-1143da"),
        ("nul.txt", "job-nul.txt-7f3cbd"),
        ("ends.", "ends-bd2c5e"),
        ("", "job-e3b0c4"),
    ],
)
def test_a_name_is_its_own_id_where_it_can_be_and_else_stays_readable(name: str, id: str) -> None:
    assert entry_id(name) == id


@given(name=st.text(max_size=200) | st.text("abcdefXYZ.:_- ", max_size=80))
def test_every_name_has_an_id_that_all_systems_take(name: str) -> None:
    id = entry_id(name)

    assert re.fullmatch(ID, id)
    assert check_name(id) == id
    assert entry_id(id) == id


def test_names_that_look_alike_have_ids_of_their_own() -> None:
    alike = ["daily_report", "Daily_Report", "DAILY_REPORT", "Daily-Report", "x" * 70, "x" * 71]

    assert len({entry_id(name) for name in alike}) == len(alike)


def test_a_name_that_is_the_id_of_another_is_refused() -> None:
    app = App()
    app.cron("0 4 * * *", name="Report")(job)
    app.cron("0 5 * * *", name=entry_id("Report"))(lambda: None)

    with pytest.raises(InvalidEntry, match="its id 'report-[0-9a-f]{6}' is that of 'Report'; rename one"):
        entries(app)


@pytest.mark.parametrize(
    ("target", "id"),
    [
        ("billing.jobs:app", "billing.jobs"),
        ("billing.jobs", "billing.jobs"),
        ("billing.jobs:other", "billing.jobs.other"),
        ("/srv/billing/my_jobs.py:app", "my_jobs"),
        ("/elsewhere/my_jobs.py", "my_jobs"),
        (r"C:\srv\my_jobs.py:app", "my_jobs"),
        (r"C:\srv\my_jobs.py", "my_jobs"),
    ],
)
def test_an_app_is_known_by_its_module_and_never_by_its_folder(target: str, id: str) -> None:
    assert app_id_of(target) == id


@pytest.mark.parametrize("id", ["", "A", "a b", "-a", "a" * 65, "../x", "nul", "a."])
def test_an_app_id_that_not_all_systems_take_is_refused(id: str) -> None:
    with pytest.raises(InvalidEntry, match="^app "):
        check_app_id(id)


# --- places --------------------------------------------------------------------------------------------------------


def test_a_file_is_named_with_its_absolute_path_and_a_module_as_it_is() -> None:
    assert absolute_target("jobs.py", "/srv/a") == "/srv/a/jobs.py"
    assert absolute_target("../b/jobs.py:app", "/srv/a") == "/srv/b/jobs.py:app"
    assert absolute_target("/x/jobs.py:app", "/srv/a") == "/x/jobs.py:app"
    assert absolute_target("billing.jobs:app", "/srv/a") == "billing.jobs:app"
    for target in ("", None, 3):
        with pytest.raises(InvalidOption, match="^target must be"):
            absolute_target(target, "/")


def test_a_folder_keeps_the_name_by_which_it_was_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "releases" / "42" / "sub").mkdir(parents=True)
    current = tmp_path / "current"
    current.symlink_to(tmp_path / "releases" / "42")
    monkeypatch.chdir(current)
    monkeypatch.setenv("PWD", str(current))

    assert here(None) == str(current)
    assert here("sub") == str(current / "sub")
    assert here(tmp_path) == str(tmp_path)
    monkeypatch.setenv("PWD", "/nowhere")
    assert here(None) == os.getcwd() == str(tmp_path / "releases" / "42")
    monkeypatch.setenv("PWD", ".")
    assert here(".") == str(tmp_path / "releases" / "42")
    with pytest.raises(InvalidOption, match="^dir must be a folder, got '.*/no'$"):
        here("no")


def test_the_interpreter_is_not_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/srv/current/.venv/bin/python")

    assert interpreter(None, "/srv") == "/srv/current/.venv/bin/python"
    assert interpreter(".venv/bin/python", "/srv/current") == "/srv/current/.venv/bin/python"
    assert interpreter(r"C:\Python\python.exe", "/srv") == r"C:\Python\python.exe"
    monkeypatch.setattr("sys.executable", "")
    with pytest.raises(InvalidOption, match="^python must be the path of an interpreter"):
        interpreter(None, "/srv")


# --- policies ------------------------------------------------------------------------------------------------------


def test_policies_that_one_run_can_keep_are_left_to_it() -> None:
    app = App()
    app.cron("0 4 * * *", overlap="queue", catch_up="none", grace="5m", max_runs=3, expect_within="26h")(job)
    app.cron("0 5 * * *", name="b", start_at="2027-01-01T00:00:00Z", end_at="2028-01-01T00:00:00Z")(lambda: None)
    app.cron("0 6 * * *", name="c", catch_up="all", overlap="allow")(lambda: None)

    assert set(entries(app).values()) == {""}
    wanted = wanted_entries(app, "a:app", dir="/", log=None, python="/p")
    assert wanted[1].trigger == Cron("0 5 * * *", timezone="UTC")  # what runs keeps to its bounds


def test_policies_that_take_a_live_app_are_refused_with_the_reason() -> None:
    app = App()
    app.cron("0 4 * * *", name="jitter", jitter="30s")(job)
    app.every("5m", name="first", first="now")(lambda: None)
    app.every("5m", name="after", after="end")(lambda: None)
    app.every("5m", name="--opt")(lambda: None)

    assert entries(app) == {
        "jitter": "jitter= takes a live app, which draws it; leave it out, and name another minute",
        "first": 'first="now" takes a live app; leave it out, and run it once with `tickwork trigger`',
        "after": 'after="end" counts from the end of a run, which only a live app sees; give it times',
        "--opt": "its name would be taken for an option; rename it",
    }


def test_a_schedule_that_never_fires_again_has_no_entry() -> None:
    class Broken(Trigger):
        fingerprint = "broken"

        def next(self, after: datetime) -> datetime | None:
            raise ValueError("broken")

    app = App()
    app.at("2020-01-01T00:00:00Z", name="past")(job)
    app.at("9000-01-01T00:00:00Z", name="future")(lambda: None)
    app.cron("0 4 * * *", name="ended", end_at="2020-01-01T00:00:00Z")(lambda: None)
    app.schedule(Broken(), name="broken")(lambda: None)

    assert list(entries(app)) == ["future", "broken"]


def test_an_app_without_schedules_has_no_entries() -> None:
    assert entries(App()) == {}
