"""The schedules of an app in a real crontab: run by pytest in a box, see tests/system/test_crontab_sync.py."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tickwork import App
from tickwork.errors import (
    CrontabCorrupt,
    ForeignEntry,
    InvalidEntry,
    InvalidOption,
    PlanRefused,
    SchedulerConflict,
)
from tickwork.system import CronEntry, Crontab
from tickwork.system.app_entries import entry_id

from .tools import HalfPast, crontab, install

assert os.environ["HOME"].endswith("/box/home"), "these run in a box only: see tests/system/box.sh"

STATE = Path.home() / ".local" / "state" / "tickwork"
STRANGER = b"# mine\nA=b\n0 0 * * * true \xff\n"
SPOOL = Path("/var/spool/cron/crontabs/root")
ZONE = "Etc/UTC"
NO_DAEMON = (
    "no cron daemon runs, so that no entry will; start it: `systemctl enable --now cron` (or crond), `service cron"
    " start`; in a container, run `cron -f`"
)
SOURCE = """\
from tickwork import App

app = App(timezone="Etc/UTC")

@app.cron("30 3 * * mon-fri")
def report():
    print("reported")

@app.cron("0 * * * *", name="at %% the hour")
def Daily_Report(): ...
"""


@pytest.fixture(autouse=True)
def _clean() -> None:
    subprocess.run(["crontab", "-r"], capture_output=True, check=False)
    Path("/etc/localtime").unlink(missing_ok=True)
    Path("/etc/localtime").symlink_to("/usr/share/zoneinfo/Etc/UTC")


@pytest.fixture
def tab() -> Crontab:
    return Crontab(clock=HalfPast())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "my_jobs.py").write_text(SOURCE)
    monkeypatch.chdir(folder)
    return folder


def job() -> None: ...


def app_of(**schedules: str) -> App:
    app = App(timezone=ZONE)
    for name, expression in schedules.items():
        app.cron(expression, name=name)(lambda: None)
    return app


@dataclass
class Ended:
    status: int
    out: str
    err: str


def tickwork(*words: str, cwd: Path) -> Ended:
    done = subprocess.run(
        [sys.executable, "-B", "-m", "tickwork", "crontab", *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


# --- the command ---------------------------------------------------------------------------------------------------


def test_diff_sync_list_and_uninstall_of_an_app_in_a_file(folder: Path) -> None:
    install(STRANGER)
    line = (
        f"{sys.executable} -m tickwork trigger --dir {folder} --log {STATE}/log/my_jobs/my_jobs.report.log"
        f" --fire-time auto {folder}/my_jobs.py:app my_jobs.report"
    )

    before = tickwork("diff", "my_jobs.py", cwd=folder)
    dry = tickwork("sync", "my_jobs.py", "--dry-run", cwd=folder)
    assert crontab() == STRANGER
    synced = tickwork("sync", "my_jobs.py", cwd=folder)
    there = crontab()
    again = tickwork("sync", "my_jobs.py", cwd=folder)
    after = tickwork("diff", "my_jobs.py:app", cwd=folder)
    listed = tickwork("list", "my_jobs.py", "--json", cwd=folder)
    written = SPOOL.stat().st_mtime_ns

    plan = (
        "+ my_jobs.report      30 3 * * 1-5\n"
        "+ at-the-hour-05e7d1  0 * * * *  at %% the hour\n"
        "2 to add, 0 to change, 0 to remove, 0 unchanged, 3 other lines untouched\n"
    )
    assert (before.status, before.out, before.err) == (1, plan, "")
    assert (dry.status, dry.out) == (0, plan)
    assert (synced.status, synced.out, synced.err) == (0, f"{plan}changed the crontab of root\n", f"{NO_DAEMON}\n")
    assert there.endswith(b"# <<< tickwork app=my_jobs <<<\n" + STRANGER)
    assert f"\n30 3 * * 1-5 {line}\n".encode() in there
    assert b"my_jobs.py:app 'at '\"$(printf '\\045')\"''" in there
    same = "0 to add, 0 to change, 0 to remove, 2 unchanged, 3 other lines untouched\n"
    assert (again.status, again.out, again.err) == (0, f"{same}nothing to do\n", f"{NO_DAEMON}\n")
    assert (after.status, after.out) == (0, same)
    assert [(entry["id"], entry["app"], entry["edited"]) for entry in json.loads(listed.out)] == [
        ("my_jobs.report", "my_jobs", False),
        ("at-the-hour-05e7d1", "my_jobs", False),
    ]
    assert SPOOL.stat().st_mtime_ns == written
    assert stat.S_IMODE((STATE / "log" / "my_jobs").stat().st_mode) == 0o700

    gone = tickwork("uninstall", "my_jobs.py", cwd=folder)
    assert (gone.status, gone.out.splitlines()[-2:]) == (
        0,
        ["0 to add, 0 to change, 2 to remove, 0 unchanged, 3 other lines untouched", "changed the crontab of root"],
    )
    assert crontab() == STRANGER


def test_what_was_edited_by_hand_is_left_and_ends_with_one(folder: Path) -> None:
    tickwork("install", "my_jobs.py", cwd=folder)
    install(crontab().replace(b"30 3 * * 1-5", b"31 3 * * 1-5"))
    edited = crontab()

    left = tickwork("sync", "my_jobs.py", cwd=folder)
    assert (left.status, left.out.splitlines()[0]) == (1, "! my_jobs.report  31 3 * * 1-5  (edited by hand)")
    assert tickwork("diff", "my_jobs.py", cwd=folder).status == 1
    assert tickwork("uninstall", "my_jobs.py", "--dry-run", cwd=folder).status == 1
    assert crontab() == edited

    forced = tickwork("sync", "my_jobs.py", "--force", cwd=folder)
    assert (forced.status, forced.out.splitlines()[0]) == (
        0,
        "~ my_jobs.report  31 3 * * 1-5 -> 30 3 * * 1-5  (edited by hand)",
    )


def test_install_leaves_what_the_app_no_longer_has_and_sync_removes_it(folder: Path) -> None:
    tickwork("sync", "my_jobs.py", cwd=folder)
    (folder / "my_jobs.py").write_text(SOURCE.replace("30 3 * * mon-fri", "0 5 * * *").replace("at %% the", "another"))

    installed = tickwork("install", "my_jobs.py", cwd=folder)
    assert installed.out.splitlines()[:-2] == [
        "~ my_jobs.report       30 3 * * 1-5 -> 0 5 * * *",
        f"+ {entry_id('another hour')}  0 * * * *  another hour",
        ". at-the-hour-05e7d1   0 * * * *  (no longer in the app)",
    ]
    synced = tickwork("sync", "my_jobs.py", cwd=folder)
    assert synced.out.splitlines()[0] == "- at-the-hour-05e7d1  0 * * * *  (no longer in the app)"
    assert crontab().count(b"# tickwork id=") == 2


def test_what_cannot_be_said_stops_everything_unless_it_is_skipped(folder: Path) -> None:
    (folder / "my_jobs.py").write_text(SOURCE + '\n@app.every("90s")\ndef tick(): ...\n')

    refused = tickwork("sync", "my_jobs.py", cwd=folder)
    assert refused.status == 2
    assert "x my_jobs.tick        Every('1m30s')  refused: cron starts jobs on whole minutes only\n" in refused.out
    assert refused.err == (
        "tickwork: the crontab of root cannot have all of them, and nothing was changed: my_jobs.tick (cron starts jobs"
        " on whole minutes only); leave them out with skip_unsupported=True (--skip-unsupported), and let the app run"
        " them\n"
    )
    assert crontab() == b""

    assert tickwork("sync", "my_jobs.py", "--skip-unsupported", cwd=folder).status == 0
    assert tickwork("diff", "my_jobs.py", cwd=folder).status == 1
    assert tickwork("diff", "my_jobs.py", "--skip-unsupported", cwd=folder).status == 0


def test_the_same_app_of_another_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    tickwork("sync", "my_jobs.py", cwd=folder)
    before = crontab()

    other = tickwork("sync", str(folder / "my_jobs.py"), cwd=tmp_path)
    assert other.status == 2
    assert other.err == (
        f"tickwork: entry 'my_jobs' is an app in {str(folder)!r} there, and this one is in {str(tmp_path)!r}; give one"
        " of them another app id (--app-id), or pass force=True (--force) where the app has moved\n"
    )
    assert crontab() == before
    assert tickwork("uninstall", str(folder / "my_jobs.py"), cwd=tmp_path).status == 2
    assert tickwork("sync", "my_jobs.py", "--dir", str(folder), cwd=tmp_path).out.endswith("nothing to do\n")
    assert tickwork("sync", str(folder / "my_jobs.py"), "--force", cwd=tmp_path).status == 0
    assert f"dir={tmp_path} >>>".encode() in crontab()


def test_an_app_that_is_gone_is_uninstalled_by_its_id(folder: Path) -> None:
    install(STRANGER)
    tickwork("sync", "my_jobs.py", "--app-id", "billing", "--log", "none", cwd=folder)
    assert b" --log " not in crontab()
    (folder / "my_jobs.py").unlink()

    assert tickwork("uninstall", cwd=folder).err == "tickwork: TARGET must be given, unless --app-id is, got None\n"
    assert tickwork("uninstall", "my_jobs.py", cwd=folder).status == 2
    assert tickwork("uninstall", "--app-id", "billing", cwd=Path("/")).status == 0
    assert crontab() == STRANGER


def test_errors_end_with_two_and_differences_with_one(folder: Path) -> None:
    assert tickwork("diff", "no_such_module", cwd=folder).status == 2
    assert tickwork("diff", "my_jobs.py", "--dir", "/nowhere", cwd=folder).status == 2
    assert tickwork("diff", "my_jobs.py", "--app-id", "A B", cwd=folder).status == 2
    assert tickwork("diff", cwd=folder).status == 2
    install(b"# >>> tickwork app=my_jobs v1 >>>\n")
    corrupt = tickwork("diff", "my_jobs.py", cwd=folder)
    assert corrupt.status == 2
    assert corrupt.err == (
        "tickwork: line 1 of the crontab: a block of tickwork begins here and does not end; put it right with"
        " `crontab -e`, nothing was changed\n"
    )


def test_a_link_to_the_newest_release_stays_a_link(folder: Path, tmp_path: Path) -> None:
    current = tmp_path / "current"
    current.symlink_to(folder)
    words = f"cd {current} && {sys.executable} -B -m tickwork crontab sync my_jobs.py"
    subprocess.run(["sh", "-c", words], check=True, capture_output=True)
    assert f" target={current}/my_jobs.py:app dir={current} >>>".encode() in crontab()

    current.unlink()
    current.symlink_to(shutil.copytree(folder, tmp_path / "next"))
    again = subprocess.run(["sh", "-c", words], check=True, capture_output=True, text=True)
    assert again.stdout.endswith("\nnothing to do\n")


def test_what_may_follow_is_told_to_whoever_asks(folder: Path) -> None:
    assert tickwork("--help", cwd=folder).status == 0
    assert tickwork(cwd=folder).err == (
        "tickwork: the word after `crontab` must be one of diff, install, sync, uninstall, list, doctor, got None\n"
    )
    assert tickwork("snyc", "my_jobs.py", cwd=folder).err.endswith(", got 'snyc'; did you mean 'sync'?\n")


def test_a_plan_as_json_is_one_document(folder: Path) -> None:
    told = json.loads(tickwork("sync", "my_jobs.py", "--json", cwd=folder).out)

    assert (told["app"], told["target"], told["dir"]) == ("my_jobs", f"{folder}/my_jobs.py:app", str(folder))
    assert [step["step"] for step in told["steps"]] == ["add", "add"]
    assert json.loads(tickwork("diff", "my_jobs.py", "--json", cwd=folder).out)["equal"] is True


def test_root_puts_the_schedules_into_the_crontab_of_another_user(folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "home of somebody"
    home.mkdir()
    os.chown(home, 65534, 65534)
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if parent.stat().st_mode & 0o007 == 0:
            parent.chmod(0o755)
    lines = Path("/etc/passwd").read_text()
    old = f":{pwd.getpwnam('nobody').pw_dir}:"
    Path("/etc/passwd").write_text(
        "".join(
            line.replace(old, f":{home}:") if line.startswith("nobody:") else line for line in lines.splitlines(True)
        )
    )
    try:
        done = tickwork("sync", "my_jobs.py", "--user", "nobody", cwd=folder)
        there = subprocess.run(["crontab", "-u", "nobody", "-l"], capture_output=True, check=False).stdout.decode()
        tickwork("uninstall", "my_jobs.py", "--user", "nobody", cwd=folder)
    finally:
        Path("/etc/passwd").write_text(lines)

    assert (done.status, done.err, crontab()) == (0, f"{NO_DAEMON}\n", b"")
    logs = home / ".local" / "state" / "tickwork" / "log" / "my_jobs"
    assert f" --log '{logs}/my_jobs.report.log' " in there
    assert (logs.stat().st_uid, stat.S_IMODE(logs.stat().st_mode)) == (65534, 0o700)


def test_a_folder_that_everybody_may_write_is_refused_for_root(folder: Path) -> None:
    folder.chmod(0o1777)

    refused = tickwork("sync", "my_jobs.py", cwd=folder)

    assert refused.status == 2
    assert refused.err.startswith("tickwork: dir '/")
    assert refused.err.endswith(
        "/app' cannot be part of an entry: everybody may write there, and so say what runs as somebody else; take that"
        " right away\n"
    )


def test_a_log_folder_that_cannot_be_made_changes_nothing(folder: Path) -> None:
    refused = tickwork("sync", "my_jobs.py", "--log", "my_jobs.py/log", cwd=folder)

    assert refused.status == 2
    assert refused.err.endswith(
        "/app/my_jobs.py/log' cannot be part of an entry: the folder cannot be made: Not a directory\n"
    )
    assert crontab() == b""


# --- in Python -----------------------------------------------------------------------------------------------------


async def test_a_plan_is_made_shown_and_carried_out(tab: Crontab, folder: Path) -> None:
    app = app_of(report="30 3 * * *")

    plan = await tab.plan(app, "billing.jobs:app", log=folder / "logs")
    assert str(plan).startswith("+ report  30 3 * * *\n1 to add, ")
    await tab.apply(plan)

    (line,) = await tab.list()
    assert (line.id, line.app, line.schedule) == ("report", "billing.jobs", "30 3 * * *")
    assert (folder / "logs").is_dir()
    assert (await tab.plan(app, "billing.jobs:app", log=folder / "logs")).is_equal
    await tab.apply(await tab.plan_removal("billing.jobs"))
    assert await tab.list() == []


async def test_a_crontab_that_was_changed_since_the_plan_is_left(tab: Crontab, folder: Path) -> None:
    plan = await tab.plan(app_of(a="0 4 * * *", b="0 5 * * *"), "jobs", log=False)
    await tab.apply(await tab.plan(app_of(a="0 6 * * *"), "jobs", log=False))
    there = crontab()

    with pytest.raises(SchedulerConflict) as caught:
        await tab.apply(plan)

    assert str(caught.value) == (
        "the entries of the app 'jobs' in the crontab of root have changed since the plan was made; make it again;"
        " nothing was changed"
    )
    assert crontab() == there


async def test_a_plan_that_somebody_else_has_carried_out_is_done(tab: Crontab, folder: Path) -> None:
    one, other = [await tab.plan(app_of(a="0 4 * * *"), "jobs", log=False) for _ in range(2)]

    await tab.apply(one)
    there = crontab()
    await tab.apply(other)

    assert crontab() == there


async def test_what_others_change_meanwhile_stays(tab: Crontab, folder: Path) -> None:
    plan = await tab.plan(app_of(a="0 4 * * *"), "jobs", log=False)
    install(STRANGER)

    await tab.apply(plan)

    assert crontab().endswith(STRANGER)
    assert [line.id for line in await tab.list()] == ["a", None]


async def test_many_syncs_at_once_lose_nothing(folder: Path) -> None:
    install(STRANGER)
    apps = {f"app{number}": app_of(a="0 4 * * *", b="0 5 * * *") for number in range(8)}

    async def bring(app_id: str, app: App) -> None:
        tab = Crontab(clock=HalfPast(), timeout=30)
        await tab.apply(await tab.plan(app, "jobs", app_id=app_id, log=False))

    await asyncio.gather(*(bring(app_id, app) for app_id, app in apps.items()))

    table = await Crontab().table()
    assert {app: table.ids(app) for app in apps} == {app: ["a", "b"] for app in apps}
    assert crontab().endswith(STRANGER)


async def test_two_apps_under_one_id_do_not_remove_each_other(tab: Crontab, folder: Path) -> None:
    await tab.apply(await tab.plan(app_of(a="0 4 * * *"), "jobs:one", app_id="jobs", log=False))

    plan = await tab.plan(app_of(b="0 4 * * *"), "jobs:two", app_id="jobs", log=False)

    with pytest.raises(ForeignEntry, match="entry 'jobs' is 'jobs:one' there, and this one is 'jobs:two'; give one"):
        await tab.apply(plan)
    assert (await tab.table()).ids("jobs") == ["a"]


async def test_an_app_whose_schedules_all_go_leaves_no_block(tab: Crontab, folder: Path) -> None:
    install(STRANGER)
    await tab.apply(await tab.plan(app_of(a="0 4 * * *"), "jobs", log=False))
    await tab.apply(await tab.plan(App(), "jobs", log=False))

    assert crontab() == STRANGER
    await tab.apply(await tab.plan(App(), "jobs", log=False))
    assert crontab() == STRANGER


async def test_times_without_a_zone_are_those_of_the_app_and_refused_elsewhere(tab: Crontab, folder: Path) -> None:
    Path("/etc/localtime").unlink()
    Path("/etc/localtime").symlink_to("/usr/share/zoneinfo/Europe/Berlin")
    app = App()
    app.cron("0 4 * * *", name="a")(job)
    berlin = App(timezone="Europe/Berlin")
    berlin.cron("0 4 * * *", name="a")(lambda: None)

    with pytest.raises(PlanRefused) as caught:
        await tab.apply(await tab.plan(app, "jobs", log=False))
    await tab.apply(await tab.plan(berlin, "jobs", log=False))

    assert caught.value.refused == {
        "a": "it is meant in UTC, and cron follows the clock of the machine, which is Europe/Berlin; declare it with"
        " that zone, or its app"
    }


async def test_what_cannot_stand_in_a_line_is_refused_by_name(tab: Crontab, folder: Path) -> None:
    app = App(timezone=ZONE)
    app.cron("0 4 * * *", name="x" * 900)(job)
    app.cron("0 4 * * *", name="it's 50% \\ #1")(lambda: None)

    plan = await tab.plan(app, "jobs", log=False)

    assert [step.kind for step in plan.steps] == ["add", "refused"]
    assert plan.steps[1].reason.startswith("with its quotes it has ")


async def test_options_that_are_none_are_refused(tab: Crontab, folder: Path) -> None:
    app = app_of(a="0 4 * * *")
    each: list[tuple[str, Any]] = [("remove", 1), ("force", None), ("skip_unsupported", "yes"), ("log", "")]
    for option, value in [*each, ("dir", "/nowhere")]:
        with pytest.raises(InvalidOption):
            await tab.plan(app, "jobs", **{option: value})
    with pytest.raises(InvalidEntry, match="^python '/no/python' cannot be part of an entry: there is no such file$"):
        await tab.plan(app, "jobs", python="/no/python")
    with pytest.raises(InvalidEntry, match="^python '.*my_jobs.py' cannot .*: it is not executable$"):
        await tab.plan(app, "jobs", python="my_jobs.py")
    plan = await tab.plan(app, "jobs", log=False)
    with pytest.raises(InvalidOption, match="^plan must be one that was made for the crontab of nobody, got 'the cron"):
        await Crontab("nobody").apply(plan)


async def test_markers_that_do_not_balance_stop_a_plan(tab: Crontab, folder: Path) -> None:
    install(b"# <<< tickwork app=jobs <<<\n")

    with pytest.raises(CrontabCorrupt):
        await tab.plan(app_of(a="0 4 * * *"), "jobs", log=False)


async def test_it_is_said_once_that_no_daemon_runs(tab: Crontab, caplog: Any) -> None:
    await tab.add(CronEntry("a", "0 4 * * *", ["/bin/true"]))
    await tab.add(CronEntry("b", "0 4 * * *", ["/bin/true"]))

    assert [record.getMessage() for record in caplog.records if record.name == "tickwork.system"] == [NO_DAEMON]


async def test_a_daemon_whose_process_is_hidden_is_known_by_its_pid_file(tab: Crontab, caplog: Any) -> None:
    from tickwork.system.cron_daemon import may_lack_daemon

    assert await asyncio.to_thread(may_lack_daemon)
    for content in ("not a pid", "99999999999999999999", "0", "-1", str(os.getpid())):
        Path("/run/crond.pid").write_text(content)
        assert await asyncio.to_thread(may_lack_daemon)
    Path("/run/crond.pid").unlink()
