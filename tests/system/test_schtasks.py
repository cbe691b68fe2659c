"""Tasks made, read, listed, run and deleted, through a stand-in that behaves as schtasks.exe is known to."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any

import pytest

from tickwork import At, Cron, Every
from tickwork.errors import (
    EntryExists,
    EntryNotFound,
    ForeignEntry,
    InvalidEntry,
    InvalidOption,
    SchedulerCommandFailed,
    SchedulerConflict,
    SchedulerDenied,
    SchedulerNotFound,
    SchedulerTimedOut,
    SystemSchedulerError,
    UnknownTimezone,
    UnsupportedSchedule,
)
from tickwork.system import ScheduledTask, Schtasks
from tickwork.system.command import Completed
from tickwork.system.task_codes import failure
from tickwork.system.task_model import (
    ANCHOR,
    ByDay,
    ByMonth,
    ByMonthWeekday,
    ByWeek,
    CalendarTrigger,
    Repetition,
    TimeTrigger,
)
from tickwork.system.task_xml import render

from .stand_in import SAYS
from .task_schema import check

WaitUntil = Callable[[Callable[[], object]], Awaitable[None]]

PROGRAM = Path(__file__).parent / "stand_in.py"
PYTHON = r"C:\Python\python.exe"
ARGV = [PYTHON, "-m", "report", "--day", "a b"]
NIGHTLY = ScheduledTask("report", ARGV, when="30 3 * * *")


class Machine:
    """A machine of Windows: the tasks it has, and how its schtasks.exe behaves."""

    def __init__(self, folder: Path, temporary: Path) -> None:
        self.folder, self.temporary = folder, temporary

    def schtasks(self, *, timeout: float = 10, timezone: str | None = None, **how: str) -> Schtasks:
        options = [part for name, value in how.items() for part in (f"--{name}", value)]
        command = [sys.executable, "-S", "-E", str(PROGRAM), str(self.folder), *options, "--"]
        return Schtasks(command=command, timeout=timeout, timezone=timezone, codec=how.get("codec", "cp437"))

    def file(self, name: str) -> Path:
        return self.folder / f"!tickwork!{name.replace(chr(92), '!')}.task"

    def text(self, name: str) -> str:
        return self.file(name).read_text("utf-8")

    def change(self, name: str, old: str, new: str) -> None:
        assert old in self.text(name)
        self.file(name).write_text(self.text(name).replace(old, new), "utf-8")

    def calls(self, verb: str) -> list[str]:
        return [line for line in (self.folder / "log").read_text("utf-8").splitlines() if f"'{verb}'" in line]

    @property
    def is_clean(self) -> bool:
        return not list(self.temporary.iterdir())


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    folder, temporary = tmp_path / "tasks", tmp_path / "temporary"
    folder.mkdir()
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    return Machine(folder, temporary)


# --- making -----------------------------------------------------------------------------------------------


async def test_a_task_is_made_and_read_back(machine: Machine) -> None:
    st = machine.schtasks()
    assert not await st.exists("report")

    made = await st.create(NIGHTLY)

    assert made == await st.get("report")
    assert (made.path, made.name, made.app) == ("\\tickwork\\report", "report", None)
    assert (made.is_managed, made.is_edited, made.is_enabled) == (True, False, True)
    assert made.description == f"tickwork v1 id=report sha={made.sha}"
    assert made.definition == NIGHTLY.define()
    assert made.definition is not None
    assert made.definition.arguments == '-m report --day "a b"'
    assert await st.exists("report")
    assert await st.list() == (made,)
    assert machine.is_clean


@pytest.mark.parametrize(
    ("codec", "xml"), [("cp437", "mark"), ("cp936", "bare"), ("cp437", "oem"), ("cp866", "oem"), ("cp932", "oem")]
)
async def test_answers_are_read_in_every_code_page_and_form(machine: Machine, codec: str, xml: str) -> None:
    st = machine.schtasks(codec=codec, xml=xml)
    task = ScheduledTask("a", [PYTHON, "Köln 😀 日本"], when="0 0 * * *", directory="C:\\Ünter 雪")

    made = await st.create(task)

    assert (made.is_managed, made.is_edited) == (True, False)
    assert [entry.path for entry in await st.list()] == ["\\tickwork\\a"]
    with pytest.raises(EntryNotFound) as caught:
        await st.get("b")
    assert str(caught.value) == r"there is no entry 'b' in \tickwork; known: a"


async def test_schedules_in_words(machine: Machine) -> None:
    st = machine.schtasks()
    daily = await st.create_daily("a", ARGV, at=["17:00:30", time(9)], every=2, start="2026-03-01", catch_up=True)
    weekly = await st.create_weekly("b", ARGV, days=["friday", "Mon"], at="09:00", every=2, overlap="queue")
    monthly = await st.create_monthly("c", ARGV, days=[1, "last"], at="09:00", months=[1, 7], timeout="2h")
    second = await st.create_monthly("d", ARGV, weeks=[2, "last"], weekdays="mon", at="9:00", logon="s4u")
    every = await st.create_every("e", ARGV, "5m", is_elevated=True, directory="C:\\srv", app="billing")

    nine = ANCHOR.replace(hour=9)
    assert daily.definition is not None
    assert daily.definition.triggers == (
        CalendarTrigger(datetime(2026, 3, 1, 9), ByDay(2)),  # noqa: DTZ001
        CalendarTrigger(datetime(2026, 3, 1, 17, 0, 30), ByDay(2)),  # noqa: DTZ001
    )
    assert daily.definition.catch_up
    assert weekly.definition is not None
    assert weekly.definition.triggers == (CalendarTrigger(nine, ByWeek((1, 5), 2)),)
    assert weekly.definition.instances == "Queue"
    assert monthly.definition is not None
    assert monthly.definition.triggers == (CalendarTrigger(nine, ByMonth((1, "last"), (1, 7))),)
    assert monthly.definition.limit_seconds == 7_200
    assert second.definition is not None
    assert second.definition.triggers == (CalendarTrigger(nine, ByMonthWeekday((2, "last"), (1,))),)
    assert second.definition.logon == "S4U"
    assert every.definition is not None
    assert every.definition.triggers == (TimeTrigger(datetime(2026, 1, 1, tzinfo=UTC), Repetition(300)),)
    assert (every.definition.run_level, every.definition.directory) == ("HighestAvailable", "C:\\srv")
    assert every.app == "billing"
    assert not any(entry.is_edited for entry in await st.list())


@pytest.mark.parametrize(
    "when",
    [Cron("0 9 * * mon"), Every("1h"), At("2999-01-01T00:00:00Z"), "H 3 * * *", [CalendarTrigger(ANCHOR, ByDay())]],
)
async def test_every_kind_of_schedule_makes_a_task(machine: Machine, when: Any) -> None:
    made = await machine.schtasks().create(ScheduledTask("a", ARGV, when=when))
    assert not made.is_edited
    check(render(ScheduledTask("a", ARGV, when=when).define(), description="x"))


async def test_tasks_are_made_from_xml_only_and_without_questions(machine: Machine) -> None:
    st = machine.schtasks()
    await st.create(NIGHTLY)
    await st.create(NIGHTLY, replace=True)
    await st.run("report")
    await st.delete("report")

    first, second = machine.calls("/create")
    assert "'/xml'" in first
    assert "'/f'" not in first
    assert "'/f'" in second
    assert not any(option in first for option in ("/tr", "/sc", "/rp", "/ru"))
    (deleted,) = machine.calls("/delete")
    assert r"['/delete', '/tn', '\\tickwork\\report', '/f', '/hresult']" in deleted
    assert r"['/run', '/tn', '\\tickwork\\report', '/hresult']" in machine.calls("/run")[0]


async def test_names_have_parts(machine: Machine) -> None:
    st = machine.schtasks()
    made = await st.create(ScheduledTask("billing\\report", ARGV, when="@daily", app="billing.jobs:app"))
    assert (made.path, made.name) == ("\\tickwork\\billing\\report", "billing\\report")
    assert (made.app, made.is_managed) == ("billing.jobs:app", True)


async def test_a_long_list_of_arguments_is_not_cut(machine: Machine) -> None:
    argv = [PYTHON, *(f"--option-{number}" for number in range(1_000))]
    made = await machine.schtasks().create(ScheduledTask("a", argv, when="@daily"))
    assert made.definition is not None
    assert made.definition.arguments.split() == argv[1:]


# --- whose task it is -------------------------------------------------------------------------------------


async def test_a_task_that_is_there_is_not_replaced_unasked(machine: Machine) -> None:
    st = machine.schtasks()
    first = await st.create(NIGHTLY)
    with pytest.raises(EntryExists) as caught:
        await st.create(NIGHTLY)
    assert str(caught.value) == (r"there is an entry 'report' in \tickwork already; pass replace=True to replace it")
    later = await st.create(ScheduledTask("report", ARGV, when="30 4 * * *"), replace=True)
    assert later.sha != first.sha
    assert not later.is_edited


@pytest.mark.parametrize(
    "description", ["Nightly report of the accountants", "tickwork v1 id=other sha=0123456789ab", ""]
)
async def test_a_task_of_somebody_else_is_neither_replaced_nor_deleted(machine: Machine, description: str) -> None:
    st = machine.schtasks()
    made = await st.create(NIGHTLY)
    machine.change("report", made.description, description)
    before = machine.text("report")

    entry = await st.get("report")
    assert (entry.is_managed, entry.is_edited, entry.sha) == (False, False, "")
    for how in ({"replace": True}, {"force": True}):
        with pytest.raises(ForeignEntry) as caught:
            await st.create(NIGHTLY, **how)
        assert str(caught.value) == (
            f"entry 'report' was not made by tickwork: it is described as {description!r}; "
            "take another name, or remove it in Task Scheduler"
        )
    with pytest.raises(ForeignEntry):
        await st.delete("report")
    assert machine.text("report") == before


async def test_a_task_that_somebody_changed_is_replaced_only_by_force(machine: Machine) -> None:
    st = machine.schtasks()
    await st.create(NIGHTLY)
    machine.change("report", "03:30:00", "04:45:00")

    assert (await st.get("report")).is_edited
    with pytest.raises(ForeignEntry) as caught:
        await st.create(NIGHTLY, replace=True)
    assert str(caught.value) == ("entry 'report' was changed by somebody; look at it; pass force=True to overwrite it")
    assert not (await st.create(NIGHTLY, force=True)).is_edited
    machine.change("report", "</Triggers>", "<LogonTrigger /></Triggers>")
    entry = await st.get("report")
    assert (entry.is_managed, entry.is_edited, entry.definition) == (True, True, None)
    await st.delete("report")
    assert not await st.exists("report")


async def test_a_task_that_is_switched_off_is_not_changed(machine: Machine) -> None:
    st = machine.schtasks()
    await st.create(NIGHTLY)
    machine.change("report", "<Enabled>true</Enabled>", "<Enabled>false</Enabled>")
    entry = await st.get("report")
    assert (entry.is_enabled, entry.is_edited) == (False, False)


async def test_two_apps_do_not_take_each_others_tasks(machine: Machine) -> None:
    st = machine.schtasks()
    await st.create(ScheduledTask("report", ARGV, when="@daily", app="billing"))
    for app, owner in (("shipping", "the app 'billing'"), (None, "the app 'billing'")):
        with pytest.raises(ForeignEntry) as caught:
            await st.create(ScheduledTask("report", ARGV, when="@daily", app=app), replace=True)
        assert str(caught.value) == f"entry 'report' belongs to {owner}; take another name, or delete it first"


async def test_lists_hold_strangers_only_when_asked(machine: Machine) -> None:
    st = machine.schtasks()
    await st.create(NIGHTLY)
    (machine.folder / "!adobe!update.task").write_text(machine.text("report"), "utf-8")
    (machine.folder / "!tickworks.task").write_text("<Task/>", "utf-8")

    assert [entry.path for entry in await st.list()] == ["\\tickwork\\report"]
    everywhere = await st.list(everywhere=True)
    assert [(entry.path, entry.name, entry.is_managed) for entry in everywhere] == [
        ("\\adobe\\update", "", False),
        ("\\tickwork\\report", "report", True),
        ("\\tickworks", "", False),
    ]


# --- what goes wrong --------------------------------------------------------------------------------------


async def test_what_is_not_there_is_said_with_the_nearest_name(machine: Machine) -> None:
    st = machine.schtasks()
    await st.create(NIGHTLY)
    for call in (st.get, st.delete, st.run):
        with pytest.raises(EntryNotFound) as caught:
            await call("reprot")
        assert str(caught.value) == r"there is no entry 'reprot' in \tickwork; did you mean 'report'?"
        assert isinstance(caught.value, LookupError)


@pytest.mark.parametrize("codec", list(SAYS))
async def test_a_denial_is_known_by_its_number_and_told_in_its_language(machine: Machine, codec: str) -> None:
    st = machine.schtasks(codec=codec, deny="/create")
    with pytest.raises(SchedulerDenied) as caught:
        await st.create(NIGHTLY)
    assert str(caught.value) == (
        f"not allowed: to create the task 'report': {SAYS[codec]}; run as administrator; "
        'a task of one\'s own with logon="interactive" needs no more rights'
    )
    assert machine.is_clean


async def test_no_program_no_answer_and_strange_answers(machine: Machine) -> None:
    with pytest.raises(SchedulerNotFound):
        await Schtasks().list()
    for xml in ("nothing", "junk"):
        with pytest.raises(SchedulerCommandFailed) as caught:
            await machine.schtasks(xml=xml).list()
        assert caught.value.returncode == 0
    with pytest.raises(SchedulerCommandFailed, match="it printed no XML of a task; is this the schtasks.exe"):
        await machine.schtasks(xml="nothing").list()
    with pytest.raises(SchedulerCommandFailed) as caught:
        await machine.schtasks(fail="1").list()
    assert str(caught.value).endswith(f"ended with exit status 1: {SAYS['cp437']}")


NO_SERVICE = "the service of Task Scheduler does not run; start it: sc start Schedule"

SWITCHED_OFF = "the task is switched off; switch it on in Task Scheduler"


def completed(returncode: int) -> Completed:
    return Completed(("schtasks",), returncode, b"", SAYS["cp936"].encode("cp936") + b"\r\n")


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        (0x80070002, EntryNotFound, r"there is no entry 'a' in \tickwork; known: none"),
        (2, EntryNotFound, r"there is no entry 'a' in \tickwork; known: none"),
        (-2147024893, EntryNotFound, r"there is no entry 'a' in \tickwork; known: none"),
        (0x800700B7, EntryExists, r"there is an entry 'a' in \tickwork already; pass replace=True to replace it"),
        (5, SchedulerDenied, None),
        (0x80070005, SchedulerDenied, None),
        (
            0x80041318,
            InvalidEntry,
            f"definition 'a' cannot be part of an entry: Task Scheduler finds a value out of range: {SAYS['cp936']}",
        ),
        (0x8004131D, InvalidEntry, None),
        (
            0x80041315,
            SchedulerCommandFailed,
            f"'schtasks' ended with exit status 2147750677: {NO_SERVICE}: {SAYS['cp936']}",
        ),
        (0x80070569, SchedulerDenied, None),
        (
            0x80041326,
            SchedulerCommandFailed,
            f"'schtasks' ended with exit status 2147750694: {SWITCHED_OFF}: {SAYS['cp936']}",
        ),
        (1, SchedulerCommandFailed, f"'schtasks' ended with exit status 1: {SAYS['cp936']}"),
        (0x80004005, SchedulerCommandFailed, f"'schtasks' ended with exit status 2147500037: {SAYS['cp936']}"),
    ],
)
def test_exit_statuses_become_errors(code: int, kind: type[SystemSchedulerError], message: str | None) -> None:
    error = failure(completed(code), "to create", "a", where="\\tickwork", codec="cp936")
    assert type(error) is kind
    if message is not None:
        assert str(error) == message


@pytest.mark.parametrize(
    ("task", "kind"),
    [
        (ScheduledTask("*", ARGV, when="@daily"), InvalidEntry),
        (ScheduledTask("..\\x", ARGV, when="@daily"), InvalidEntry),
        (ScheduledTask("/f", ARGV, when="@daily"), InvalidEntry),
        (ScheduledTask("a", ["python"], when="@daily"), InvalidEntry),
        (ScheduledTask("a", [PYTHON, "%PATH%"], when="@daily"), InvalidEntry),
        (ScheduledTask("a", ARGV, when="@daily", directory="srv"), InvalidEntry),
        (ScheduledTask("a", ARGV, when="@daily", app="a b"), InvalidEntry),
        (ScheduledTask("a", ARGV, when=[]), InvalidEntry),
        (ScheduledTask("a", ARGV, when=3), InvalidEntry),  # type: ignore[arg-type]
        (ScheduledTask("a", ARGV, when=["@daily"]), InvalidEntry),  # type: ignore[list-item]
        (ScheduledTask("a", ARGV, when=[TimeTrigger(ANCHOR)] * 49), InvalidEntry),
        (ScheduledTask("a", ARGV, when="0 0 13 * 5"), UnsupportedSchedule),
        (ScheduledTask("a", ARGV, when=Every("90s")), UnsupportedSchedule),
        (ScheduledTask("a", ARGV, when=At("2020-01-01T00:00:00Z")), UnsupportedSchedule),
        (ScheduledTask("a", ARGV, when=Cron("@daily", timezone="Asia/Seoul")), UnsupportedSchedule),
        (ScheduledTask("a", ARGV, when="61 * * * *"), InvalidOption),
        (ScheduledTask("a", ARGV, when="@daily", overlap="maybe"), InvalidOption),  # type: ignore[arg-type]
        (ScheduledTask("a", ARGV, when="@daily", logon="password"), InvalidOption),  # type: ignore[arg-type]
        (ScheduledTask("a", ARGV, when="@daily", timeout=-1), InvalidOption),
        (ScheduledTask("a", ARGV, when="@daily", timeout="1.5s"), InvalidOption),
        (ScheduledTask("a", ARGV, when="@daily", catch_up="no"), InvalidOption),  # type: ignore[arg-type]
    ],
)
async def test_bad_input_never_reaches_the_program(
    machine: Machine, task: ScheduledTask, kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        await machine.schtasks().create(task)
    assert not (machine.folder / "log").exists()
    assert machine.is_clean


async def test_bad_words_are_refused(machine: Machine) -> None:
    st = machine.schtasks()
    for at in ("25:00", "0500", "05", "5:60", "", [], 3, time(9, tzinfo=UTC), time(9, 0, 0, 1), [None]):
        with pytest.raises(InvalidOption):
            await st.create_daily("a", ARGV, at=at)  # type: ignore[arg-type]
    with pytest.raises(InvalidOption):
        await st.create_weekly("a", ARGV, days="noday", at="09:00")
    with pytest.raises(InvalidOption):
        await st.create_daily("a", ARGV, at="09:00", start="soon")
    with pytest.raises(InvalidEntry):
        await st.create_weekly("a", ARGV, days=[], at="09:00")
    with pytest.raises(InvalidEntry):
        await st.create_monthly("a", ARGV, days=[32], at="09:00")
    with pytest.raises(InvalidOption) as caught:
        await st.create_monthly("a", ARGV, at="09:00")
    assert str(caught.value) == (
        "days must be given alone, or weeks= and weekdays= instead of it, "
        "got {'days': None, 'weeks': None, 'weekdays': None}"
    )
    with pytest.raises(InvalidOption, match="task must be a ScheduledTask, got 'report'"):
        await st.create("report")  # type: ignore[arg-type]
    for name in ("*", "..", "/f", "", "a:b"):
        for call in (st.get, st.exists, st.delete, st.run):
            with pytest.raises(InvalidEntry):
                await call(name)
    assert not (machine.folder / "log").exists()


def test_bad_options_are_refused() -> None:
    with pytest.raises(InvalidOption):
        Schtasks(command="schtasks")
    with pytest.raises(InvalidOption):
        Schtasks(command=[])
    with pytest.raises(InvalidOption):
        Schtasks(timeout=0)
    with pytest.raises(InvalidOption):
        Schtasks(codec="cp0")
    with pytest.raises(UnknownTimezone):
        Schtasks(timezone="Europe/Berlni")
    with pytest.raises(InvalidEntry):
        Schtasks(folder="tickwork")


# --- time, cancellation, others ---------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["/query", "/create", "/delete", "/run"])
async def test_a_program_that_hangs_is_killed_and_leaves_no_file(machine: Machine, verb: str) -> None:
    if verb in ("/delete", "/run"):
        await machine.schtasks().create(NIGHTLY)
    st = machine.schtasks(timeout=0.5, hold=verb)
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "/query": lambda: st.exists("report"),
        "/create": lambda: st.create(NIGHTLY),
        "/delete": lambda: st.delete("report"),
        "/run": lambda: st.run("report"),
    }
    with pytest.raises(SchedulerTimedOut):
        await calls[verb]()
    assert machine.is_clean


@pytest.mark.parametrize("verb", ["/create", "/delete"])
async def test_a_change_that_is_cancelled_is_made_first(machine: Machine, verb: str, wait_until: WaitUntil) -> None:
    if verb == "/delete":
        await machine.schtasks().create(NIGHTLY)
    st = machine.schtasks(hold=verb)

    async def change() -> None:
        await (st.create(NIGHTLY) if verb == "/create" else st.delete("report"))

    task = asyncio.create_task(change())
    await wait_until((machine.folder / "held").exists)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    (machine.folder / "go").touch()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert machine.file("report").exists() == (verb == "/create")
    assert machine.is_clean


@pytest.mark.parametrize("verb", ["/query", "/create"])
async def test_a_cancelled_change_that_hangs_ends_with_its_own_time(
    machine: Machine, verb: str, wait_until: WaitUntil
) -> None:
    st = machine.schtasks(timeout=4, hold=verb)  # within which a busy machine has begun to run it
    task = asyncio.ensure_future(st.create(NIGHTLY))
    await wait_until((machine.folder / "held").exists)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert machine.is_clean


async def test_cancelling_at_any_moment_leaves_no_file(machine: Machine) -> None:
    st = machine.schtasks()
    for turns in range(12):
        task = asyncio.ensure_future(st.create(NIGHTLY, replace=True))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert machine.is_clean


async def test_no_room_for_the_file_is_said(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(prefix: str) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    with pytest.raises(SchedulerCommandFailed) as caught:
        await machine.schtasks().create(NIGHTLY)
    assert str(caught.value).endswith("did not start: its input cannot be written: [Errno 28] No space left on device")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes of files")
async def test_the_file_is_private(machine: Machine, wait_until: WaitUntil) -> None:
    task = asyncio.ensure_future(machine.schtasks(hold="/create").create(NIGHTLY))
    await wait_until((machine.folder / "held").exists)
    (folder,) = machine.temporary.glob("tickwork-*")
    assert folder.stat().st_mode & 0o077 == 0
    assert (folder / "task.xml").read_bytes().startswith(b"\xff\xfe")
    (machine.folder / "go").touch()
    await task
    assert machine.is_clean


async def test_of_two_who_make_one_task_one_is_told(machine: Machine, wait_until: WaitUntil) -> None:
    late = asyncio.ensure_future(machine.schtasks(hold="/create").create(NIGHTLY))
    await wait_until((machine.folder / "held").exists)
    await machine.schtasks().create(ScheduledTask("report", ARGV, when="@hourly"))
    before = machine.text("report")
    (machine.folder / "go").touch()

    with pytest.raises(EntryExists):
        await late
    assert machine.text("report") == before


async def test_what_is_read_back_must_be_what_was_made(machine: Machine, wait_until: WaitUntil) -> None:
    st = machine.schtasks()
    await st.create(NIGHTLY)
    late = asyncio.ensure_future(machine.schtasks(hold="/create").create(NIGHTLY, replace=True))
    await wait_until((machine.folder / "held").exists)
    # The stand-in is stopped before it has written anything: a file that cannot be replaced stays the stranger's.
    machine.change("report", "03:30:00", "04:45:00")
    (machine.folder / "go").touch()
    assert not (await late).is_edited


async def test_a_stranger_who_is_faster_is_noticed(machine: Machine) -> None:
    class Overwritten(Schtasks):
        async def _send(self, name: str, data: bytes, *, replace: bool) -> Completed:
            done = await super()._send(name, data, replace=replace)
            machine.change("report", "id=report", "id=report2")
            return done

    st = machine.schtasks()
    st.__class__ = Overwritten
    with pytest.raises(SchedulerConflict, match="the task 'report' was made and now is described as 'tickwork v1 id="):
        await st.create(NIGHTLY)


@pytest.mark.slow
def test_processes_that_make_tasks_at_once_lose_none(machine: Machine) -> None:
    program = f"""
import asyncio, sys
from tickwork.system import ScheduledTask, Schtasks
from tickwork.errors import EntryExists
st = Schtasks(command=[sys.executable, "-S", "-E", {str(PROGRAM)!r}, {str(machine.folder)!r}, "--"])
async def main(me):
    won = 0
    for number in range(5):
        await st.create(ScheduledTask(f"own-{{me}}-{{number}}", {ARGV!r}, when="@daily"))
        try:
            await st.create(ScheduledTask(f"shared-{{number}}", {ARGV!r}, when="@daily"))
            won += 1
        except EntryExists:
            pass
    print(won)
asyncio.run(main(sys.argv[1]))
"""
    running = [
        subprocess.Popen([sys.executable, "-c", program, str(me)], stdout=subprocess.PIPE, text=True) for me in range(2)
    ]
    won = [int(process.communicate(timeout=15)[0]) for process in running]
    assert sum(won) == 5
    names = [re.sub(r"^!tickwork!|\.task$", "", file.name) for file in machine.folder.glob("*.task")]
    assert len(names) == 15
