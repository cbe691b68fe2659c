"""An app's schedules in Task Scheduler, through the stand-in for schtasks.exe: in Python, and by the command."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from cli.command import Ended, tickwork
from tickwork import App, Cron, Every
from tickwork.errors import ForeignEntry, InvalidEntry, PlanRefused, SchedulerConflict, SchedulerDenied
from tickwork.system import ScheduledTask, Schtasks
from tickwork.system.sync import Plan

from .test_schtasks import PROGRAM, Machine, machine

__all__ = ["machine"]

THROUGH = "clocks change between 02:00 and 03:00, through which it follows the wall clock, and a task cannot"
PYTHON = r"C:\Python\python.exe"
TARGET = "billing.jobs:app"


def app_of(**schedules: str) -> App:
    app = App(timezone="Europe/Berlin")
    for name, expression in schedules.items():
        app.cron(expression, name=name)(lambda: None)
    return app


async def planned(st: Schtasks, app: App, **options: Any) -> Plan:
    settings: dict[str, Any] = {"app_id": "billing", "log": False, "python": PYTHON, **options}
    return await st.plan(app, TARGET, **settings)


@pytest.fixture
def st(machine: Machine) -> Schtasks:
    return machine.schtasks(timezone="Europe/Berlin")


async def test_the_schedules_of_an_app_become_tasks_in_its_folder_and_a_second_time_nothing_is_done(
    machine: Machine, st: Schtasks, tmp_path: Path
) -> None:
    app = app_of(report="30 3 * * mon-fri", Mail="*/20 9-17 * * *")

    plan = await planned(st, app, log=tmp_path / "logs", dir=tmp_path)
    assert str(plan) == (
        "+ report       mon-fri 03:30\n"
        "+ mail-07ed6c  daily 09:00, every 20m for 8h40m  Mail\n"
        "2 to add, 0 to change, 0 to remove, 0 unchanged, 0 other tasks untouched"
    )
    await st.apply(plan)
    again = await planned(st, app, log=tmp_path / "logs", dir=tmp_path)
    calls = len(machine.calls("/create"))
    await st.apply(again)

    assert again.is_equal
    assert len(machine.calls("/create")) == calls == 2
    entry = await st.get(r"billing\report")
    assert (entry.app, entry.dir, entry.target) == ("billing", str(tmp_path), TARGET)
    assert entry.definition is not None
    assert (entry.definition.command, entry.definition.instances) == (PYTHON, "Parallel")
    assert entry.definition.arguments == (
        f"-m tickwork trigger --dir {tmp_path} --log {tmp_path}/logs/report.log --fire-time auto {TARGET} report"
    )
    assert (tmp_path / "logs").is_dir()
    assert machine.is_clean


async def test_sync_changes_and_removes_install_only_changes(st: Schtasks) -> None:
    await st.create(ScheduledTask("stranger", [PYTHON], when="0 5 * * *"))
    await st.apply(await planned(st, app_of(a="0 4 * * *", b="0 4 * * *")))

    install = await planned(st, app_of(a="0 5 * * *"), remove=False)
    assert install.lines() == [
        "~ a  daily 04:00 -> daily 05:00",
        ". b  daily 04:00  (no longer in the app)",
        "0 to add, 1 to change, 0 to remove, 0 unchanged, 1 no longer in the app, 1 other task untouched",
    ]
    await st.apply(install)
    await st.apply(await planned(st, app_of(a="0 5 * * *")))
    assert [entry.name for entry in await st.list()] == [r"billing\a", "stranger"]

    removal = await st.plan_removal("billing")
    assert removal.lines()[0] == "- a  daily 05:00"
    await st.apply(removal)
    assert [entry.name for entry in await st.list()] == ["stranger"]


async def test_what_was_changed_by_hand_is_left_unless_forced(machine: Machine, st: Schtasks) -> None:
    app = app_of(a="0 4 * * *", b="0 5 * * *")
    await st.apply(await planned(st, app))
    machine.change(r"billing\a", "T04:00:00", "T04:30:00")

    plan = await planned(st, app)
    assert plan.lines()[0] == "! a  daily 04:30  (edited by hand)"
    await st.apply(plan)
    assert (await st.get(r"billing\a")).is_edited
    assert (await st.plan_removal("billing")).counts["remove"] == 1

    forced = await planned(st, app, force=True)
    assert forced.lines()[0] == "~ a  daily 04:30 -> daily 04:00  (edited by hand)"
    await st.apply(forced)
    assert not (await st.get(r"billing\a")).is_edited


async def test_a_task_that_was_switched_off_stays_so_when_it_is_changed(machine: Machine, st: Schtasks) -> None:
    await st.apply(await planned(st, app_of(a="0 4 * * *")))
    machine.change(r"billing\a", "<Enabled>true</Enabled>", "<Enabled>false</Enabled>")

    same = await planned(st, app_of(a="0 4 * * *"))
    assert same.lines()[0] == "= a  daily 04:00  (switched off)"
    assert same.is_equal
    await st.apply(await planned(st, app_of(a="0 5 * * *")))

    assert not (await st.get(r"billing\a")).is_enabled


async def test_what_somebody_else_has_made_under_the_name_is_never_touched(machine: Machine, st: Schtasks) -> None:
    await st.apply(await planned(st, app_of(a="0 4 * * *", b="0 4 * * *")))
    machine.change(r"billing\a", "tickwork v1 app=billing", "mine")
    await st.delete(r"billing\b")
    await st.create(ScheduledTask(r"billing\b", [PYTHON], when="0 5 * * *", app="other"))

    plan = await planned(st, app_of(a="0 5 * * *", b="0 4 * * *"), force=True)

    assert plan.lines()[:2] == [
        "! a  daily 04:00  (not made by tickwork)",
        "! b  daily 05:00  (belongs to the app 'other')",
    ]
    await st.apply(plan)
    assert plan.is_left
    assert (await st.get(r"billing\b")).app == "other"


async def test_the_same_app_of_another_folder_is_refused_unless_forced(st: Schtasks, tmp_path: Path) -> None:
    odd = tmp_path / "a folder \u2603 100%"
    odd.mkdir()
    await st.apply(await planned(st, app_of(a="0 4 * * *"), dir=odd))

    other = await planned(st, app_of(a="0 4 * * *"), dir=tmp_path)
    with pytest.raises(ForeignEntry) as caught:
        await st.apply(other)
    assert caught.value.reason == f"is an app in {str(odd)!r} there, and this one is in {str(tmp_path)!r}"
    assert (await st.get(r"billing\a")).description.isascii()
    with pytest.raises(ForeignEntry):
        await st.apply(await st.plan_removal("billing", dir=tmp_path))

    await st.apply(await planned(st, app_of(a="0 4 * * *"), dir=tmp_path, force=True))
    assert (await planned(st, app_of(a="0 4 * * *"), dir=tmp_path)).is_equal


async def test_what_cannot_be_said_is_refused_or_skipped(machine: Machine, st: Schtasks) -> None:
    app = app_of(a="0 4 * * *", b="0 0 13 * 5", c="*/20 0-6 * * *")
    app.schedule(Every("90s"), name="d")(lambda: None)
    app.schedule(Cron("0 4 * * *", timezone="Asia/Seoul"), name="e")(lambda: None)
    app.cron("0 4 * * *", name="50% and 60%")(lambda: None)

    plan = await planned(st, app)
    with pytest.raises(PlanRefused):
        await st.apply(plan)
    assert not machine.calls("/create")
    assert [(step.id, step.reason.partition(";")[0]) for step in plan.steps if step.kind == "refused"] == [
        ("b", "on a day that matches both as a day of the month and as a weekday it would start twice"),
        ("c", f"in Europe/Berlin {THROUGH}"),
        ("d", "it repeats after whole minutes, from 1 on"),
        ("e", "it reads the machine's clock, which is in Europe/Berlin"),
        (plan.steps[-1].id, "Task Scheduler replaces what stands between two %, and there is no way around"),
    ]
    await st.apply(await planned(st, app, skip_unsupported=True))
    assert [entry.name for entry in await st.list()] == [r"billing\a"]


async def test_an_app_needs_the_zone_of_the_machine(machine: Machine) -> None:
    plan = await planned(machine.schtasks(), app_of(a="0 4 * * *"))

    assert plan.steps[0].reason == (
        'the zone of this machine is not known; say so if it is this one: timezone="Europe/Berlin" (--timezone)'
    )


async def test_where_the_zone_is_not_told_nothing_is_removed(machine: Machine, st: Schtasks) -> None:
    app = app_of(a="0 4 * * *")
    await st.apply(await planned(st, app))

    plan = await planned(machine.schtasks(), app, skip_unsupported=True)

    assert [step.kind for step in plan.steps] == ["refused", "kept"]


async def test_tasks_that_were_changed_since_the_plan_are_left(st: Schtasks) -> None:
    plan = await planned(st, app_of(a="0 4 * * *"))
    await st.apply(await planned(st, app_of(a="0 5 * * *")))

    with pytest.raises(SchedulerConflict, match="the entries of the app 'billing' in the folder .tickwork of Task"):
        await st.apply(plan)


async def test_a_failure_half_way_is_made_up_for_by_the_next_sync(machine: Machine, st: Schtasks) -> None:
    await st.apply(await planned(st, app_of(a="0 4 * * *", b="0 4 * * *")))
    with pytest.raises(SchedulerDenied):
        denied = machine.schtasks(timezone="Europe/Berlin", deny="/delete")
        await denied.apply(await planned(denied, app_of(c="0 4 * * *")))

    await st.apply(await planned(st, app_of(c="0 4 * * *")))
    assert [entry.name for entry in await st.list()] == [r"billing\c"]


async def test_an_interpreter_that_windows_could_not_find_is_refused(st: Schtasks) -> None:
    with pytest.raises(
        InvalidEntry, match="^program '.*python.exe' cannot be part of an entry: it must be a full path"
    ):
        await planned(st, app_of(a="0 4 * * *"), python="python.exe")


async def test_an_app_id_that_windows_could_not_keep_is_refused(st: Schtasks) -> None:
    with pytest.raises(InvalidEntry, match="^app 'nul' cannot be part of an entry: Windows could not keep it"):
        await planned(st, App(), app_id="nul")


# --- the command ---------------------------------------------------------------------------------------------------


@pytest.fixture
def command(tmp_path: Path) -> Any:
    """Return the command on a machine where schtasks.exe is the stand-in, found under its full name on PATH."""
    programs, tasks, folder = tmp_path / "bin", tmp_path / "kept", tmp_path / "app"
    for made in (programs, tasks, folder):
        made.mkdir()
    program = programs / r"C:\Windows\System32\schtasks.exe"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E {PROGRAM} {tasks} -- "$@"\n')
    program.chmod(0o755)
    (folder / "my_jobs.py").write_text(
        "from tickwork import App\napp = App(timezone='Europe/Berlin')\n"
        "@app.cron('30 3 * * mon-fri')\ndef report(): ...\n"
    )

    def run(*words: str) -> Ended:
        env = {"PATH": f"{programs}:{os.environ['PATH']}"}
        return tickwork("schtasks", *words, cwd=folder, env=env)

    return run


@pytest.mark.skipif(sys.platform == "win32", reason="the real program stands there")
def test_diff_sync_list_and_uninstall_by_the_command(command: Any) -> None:
    options = ("my_jobs.py", "--python", PYTHON, "--timezone", "Europe/Berlin", "--log", "none")

    before = command("diff", *options)
    synced = command("sync", *options)
    after = command("diff", *options, "--json")
    listed = command("list", "my_jobs.py", "--json")
    table = command("list", "--app-id", "my_jobs")
    gone = command("uninstall", "my_jobs.py")

    added = (
        "+ my_jobs.report  mon-fri 03:30\n1 to add, 0 to change, 0 to remove, 0 unchanged, 0 other tasks untouched\n"
    )
    assert (before.status, before.out, before.err) == (1, added, "")
    assert (synced.status, synced.out) == (0, f"{added}changed the folder \\tickwork of Task Scheduler\n")
    assert (after.status, json.loads(after.out)["equal"]) == (0, True)
    assert json.loads(listed.out) == [
        {
            "path": r"\tickwork\my_jobs\my_jobs.report",
            "id": "my_jobs.report",
            "app": "my_jobs",
            "schedule": "mon-fri 03:30",
            "edited": False,
            "enabled": True,
        }
    ]
    assert re.split(r"  +", table.out.splitlines()[1]) == [
        r"\tickwork\my_jobs\my_jobs.report",
        "my_jobs",
        "as made",
        "mon-fri 03:30",
    ]
    assert (gone.status, gone.out.splitlines()[0]) == (0, "- my_jobs.report  mon-fri 03:30")
    assert command("list", "--json").out == "[]\n"


@pytest.mark.skipif(sys.platform == "win32", reason="the real program stands there")
def test_a_command_without_the_zone_of_the_machine_says_which_option_is_missing(command: Any) -> None:
    refused = command("sync", "my_jobs.py", "--python", PYTHON)

    assert refused.status == 2
    assert 'timezone="Europe/Berlin" (--timezone)' in refused.err
