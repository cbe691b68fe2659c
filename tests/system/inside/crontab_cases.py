"""`Crontab` on the real program: run by pytest in a box, see tests/system/test_crontab.py."""

from __future__ import annotations

import asyncio
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tickwork import Cron, Every
from tickwork.clock import SystemClock
from tickwork.errors import (
    CrontabCorrupt,
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
    UnsupportedSchedule,
)
from tickwork.stores.filelock import FileLock
from tickwork.system import CronEntry, Crontab, Owner

from .tools import HalfPast, crontab, has_ended, install, wait_for

assert os.environ["HOME"].endswith("/box/home"), "these run in a box only: see tests/system/box.sh"

STATE = Path.home() / ".local" / "state" / "tickwork"
STRANGER = b"# mine\nA=b\n0 0 * * * true \xff\n"
JOB = CronEntry("job", "*/5 * * * *", ["/bin/true"])


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    subprocess.run(["crontab", "-r"], capture_output=True, check=False)
    yield
    for path in STATE.glob("*.bak"):
        path.unlink()


@pytest.fixture
def tab() -> Crontab:
    return Crontab(clock=HalfPast())


def program(folder: Path, text: str) -> Path:
    """Make a program that stands in front of the real one."""
    path = folder / "wrapper"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def shown(*words: str) -> tuple[int, bytes]:
    done = subprocess.run(["crontab", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return done.returncode, done.stdout


# --- what stands there ---------------------------------------------------------------------------------------------


async def test_where_there_is_no_crontab_there_are_no_jobs(tab: Crontab) -> None:
    assert await tab.list() == []
    with pytest.raises(EntryNotFound) as caught:
        await tab.get("job")
    assert str(caught.value) == "there is no entry 'job' in the crontab of root; known: none"


async def test_an_added_entry_is_found_by_its_exact_id(tab: Crontab) -> None:
    install(STRANGER)

    added = await tab.add(JOB)

    assert (added.id, added.schedule, added.command) == ("job", "*/5 * * * *", "/bin/true")
    assert await tab.get("job") == added
    assert [line.id for line in await tab.list()] == ["job", None]
    with pytest.raises(EntryNotFound) as caught:
        await tab.remove("jo")
    assert str(caught.value) == "there is no entry 'jo' in the crontab of root; did you mean 'job'?"


async def test_adding_and_removing_leaves_every_byte_of_others(tab: Crontab) -> None:
    install(STRANGER)
    await tab.add(JOB)
    await tab.add(CronEntry("other", "0 0 * * *", ["/bin/true"]))
    await tab.remove("job")
    removed = await tab.remove("other")

    assert removed.command == "/bin/true"
    assert crontab() == STRANGER


async def test_the_last_entry_of_all_takes_the_crontab_with_it(tab: Crontab) -> None:
    await tab.add(JOB)
    await tab.remove("job")

    assert shown("-l") == (1, b"no crontab for root\n")


async def test_an_id_that_is_taken_is_replaced_only_when_asked(tab: Crontab) -> None:
    await tab.add(JOB)
    changed = CronEntry("job", "0 0 * * *", ["/bin/true"])

    with pytest.raises(EntryExists) as caught:
        await tab.add(changed)
    await tab.add(changed, replace=True)

    assert str(caught.value) == (
        "there is an entry 'job' in the crontab of root already; pass replace=True to replace it"
    )
    assert [line.schedule for line in await tab.list()] == ["0 0 * * *"]


async def test_an_entry_that_was_edited_by_hand_is_left_unless_forced(tab: Crontab) -> None:
    await tab.add(JOB)
    install(crontab().replace(b"*/5", b"*/9"))

    for change in (tab.remove("job"), tab.add(JOB, replace=True)):
        with pytest.raises(ForeignEntry) as caught:
            await change
        assert str(caught.value) == (
            "entry 'job' was edited by hand; line 3 is '*/9 * * * * /bin/true'; see whether the edit is still wanted,"
            " and pass force=True"
        )
    await tab.remove("job", force=True)
    assert await tab.list() == []


async def test_apps_have_blocks_of_their_own_and_one_of_another_folder_is_foreign(tab: Crontab) -> None:
    await tab.add(JOB, owner=Owner("billing", "/srv/a"))
    await tab.add(JOB, owner=Owner("other", "/srv/a"))

    with pytest.raises(ForeignEntry) as caught:
        await tab.add(JOB, replace=True, owner=Owner("billing", "/srv/b"))
    await tab.remove("job", app="billing")

    assert str(caught.value) == (
        "entry 'job' belongs to the app 'billing' of '/srv/a', not of '/srv/b'; give one of them another app id, or"
        " pass force=True"
    )
    assert [(line.app, line.id) for line in await tab.list()] == [("other", "job")]


async def test_a_pattern_removes_from_everybody_and_only_tells_unless_told(tab: Crontab) -> None:
    install(STRANGER + b"5 5 * * * /bin/false\n")
    await tab.add(JOB)

    told = await tab.remove_matching(r"/bin/(true|false)$")
    assert [line.raw for line in told] == [b"*/5 * * * * /bin/true", b"5 5 * * * /bin/false"]
    assert len(await tab.list()) == 3

    assert await tab.remove_matching(r"/bin/(true|false)$", dry_run=False) == told
    assert crontab() == STRANGER


@pytest.mark.parametrize("pattern", ["", "(", b"x", None])
async def test_a_pattern_that_is_none_or_matches_all_is_refused(tab: Crontab, pattern: object) -> None:
    with pytest.raises(InvalidEntry, match="^pattern "):
        await tab.remove_matching(pattern, dry_run=False)  # type: ignore[arg-type]


async def test_markers_that_do_not_balance_leave_the_file_as_it_is(tab: Crontab) -> None:
    install(b"# >>> tickwork v1 >>>\n")

    with pytest.raises(CrontabCorrupt):
        await tab.add(JOB)

    assert crontab() == b"# >>> tickwork v1 >>>\n"


async def test_a_carriage_return_that_debian_shows_as_text_is_not_written_back(tab: Crontab) -> None:
    install(b"0 0 * * * true\r\n")

    with pytest.raises(CrontabCorrupt) as caught:
        await tab.add(JOB)

    assert str(caught.value) == (
        r"line 1 of the crontab: it ends in \r, as Debian shows a carriage return, which would be written back as two"
        " characters; put it right with `crontab -e`, nothing was changed"
    )


# --- schedules and files -------------------------------------------------------------------------------------------


async def test_triggers_are_said_in_the_zone_of_the_machine(tab: Crontab) -> None:
    await tab.add(CronEntry("a", Every("15m"), ["/bin/true"]))
    with pytest.raises(UnsupportedSchedule, match="^a crontab cannot say Every\\('7m'\\) exactly"):
        await tab.add(CronEntry("b", Every("7m"), ["/bin/true"]))
    with pytest.raises(UnsupportedSchedule, match="it is meant in Pacific/Apia"):
        await tab.add(CronEntry("c", Cron("0 5 * * *", timezone="Pacific/Apia"), ["/bin/true"]))

    assert [(line.id, line.schedule) for line in await tab.list()] == [("a", "*/15 * * * *")]


async def test_a_script_runs_in_this_environment_with_absolute_paths(
    tab: Crontab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "job.py").touch()
    monkeypatch.chdir(tmp_path)

    line = await tab.create_python("job.py", ["--day", "1 2"], "job.log", schedule="@daily", id="job")

    assert line.command == f"{sys.executable} {tmp_path}/job.py --day '1 2' >>{tmp_path}/job.log 2>&1"
    assert stat.S_IMODE((tmp_path / "job.log").stat().st_mode) == 0o600


async def test_arguments_that_are_one_text_are_refused_and_so_is_what_is_no_entry(tab: Crontab) -> None:
    with pytest.raises(InvalidEntry) as caught:
        await tab.create_python(__file__, "--all", schedule="@daily", id="job")
    with pytest.raises(InvalidOption) as other:
        await tab.add("0 0 * * * true")  # type: ignore[arg-type]

    assert str(caught.value) == (
        "args '--all' cannot be part of an entry: it must be a list of the arguments, one by one"
    )
    assert str(other.value) == "entry must be a CronEntry, got '0 0 * * * true'"


async def test_a_script_that_is_not_there_is_refused(tab: Crontab, tmp_path: Path) -> None:
    with pytest.raises(InvalidEntry, match="^script '.*no.py' cannot be part of an entry: there is no such file$"):
        await tab.create_python(tmp_path / "no.py", schedule="@daily", id="job")


async def test_root_does_not_run_what_everybody_may_write(tab: Crontab, tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.touch()
    script.chmod(0o666)

    with pytest.raises(InvalidEntry, match="everybody may write .*job.py, and so say what runs as somebody else"):
        await tab.create_python(script, schedule="@daily", id="job")


async def test_a_log_that_cannot_be_written_is_refused(tab: Crontab, tmp_path: Path) -> None:
    with pytest.raises(InvalidEntry, match="it cannot be written, so that the job would not start: No such file"):
        await tab.add(CronEntry("job", "@daily", ["/bin/true"], tmp_path / "no" / "log"))

    assert await tab.list() == []


# --- other users ---------------------------------------------------------------------------------------------------


async def test_root_uses_the_crontab_of_another_user() -> None:
    tab = Crontab("nobody", clock=HalfPast())
    await tab.add(JOB)

    assert crontab() == b""
    assert b"*/5 * * * * /bin/true\n" in shown("-u", "nobody", "-l")[1]
    await tab.remove("job")


@pytest.mark.parametrize("user", ["-r", "nobody-like-this", "a\nb", "", 3])
def test_a_user_that_is_none_is_refused(user: str) -> None:
    with pytest.raises(InvalidEntry, match="^user "):
        Crontab(user)


def test_another_user_needs_root() -> None:
    code = (
        "from tickwork.system import Crontab; import os; os.setuid(65534)\n"
        "try: Crontab('daemon')\nexcept PermissionError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "not allowed: to use the crontab of 'daemon': this is 'nobody'; only root may; use sudo\n"


# --- what goes wrong -----------------------------------------------------------------------------------------------


async def test_a_program_that_is_missing_is_named(tab: Crontab) -> None:
    with pytest.raises(SchedulerNotFound) as caught:
        await Crontab(command=["/no/crontab"]).list()

    assert str(caught.value) == (
        "there is no program '/no/crontab'; install it, or name it with its path: command=(...)"
    )


async def test_a_user_whom_cron_does_not_allow_is_told_so() -> None:
    Path("/etc/cron.allow").write_text("somebody\n")
    command = ["setpriv", "--reuid", "nobody", "--clear-groups", "crontab"]
    try:
        with pytest.raises(SchedulerDenied, match="(?s)^not allowed: to read .*: You .*; see cron.allow"):
            await Crontab(command=command).list()
    finally:
        Path("/etc/cron.allow").unlink()


async def test_a_failure_that_is_not_the_lack_of_a_crontab_is_no_empty_crontab(tmp_path: Path) -> None:
    install(STRANGER)
    failing = program(tmp_path, 'if [ "$1" = -l ]; then echo boom >&2; exit 1; fi; exec crontab "$@"')

    with pytest.raises(SchedulerCommandFailed) as caught:
        await Crontab(command=[str(failing)], clock=HalfPast()).add(JOB)

    assert str(caught.value) == f"'{failing} -l' ended with exit status 1: boom"
    assert crontab() == STRANGER


async def test_a_program_that_hangs_is_killed_with_what_it_has_started(tmp_path: Path) -> None:
    hanging = program(tmp_path, "sleep 1000 & echo $! >child; wait")
    os.chdir(tmp_path)

    with pytest.raises(SchedulerTimedOut) as caught:
        await Crontab(command=[str(hanging)], timeout=2).list()

    assert str(caught.value) == (
        f"'{hanging} -l' took longer than 2 s; see what holds it up, or pass a longer timeout="
    )
    child = int((tmp_path / "child").read_text())
    assert wait_for(lambda: has_ended(child), 30)


async def test_a_cancelled_read_ends_its_program_at_once(tmp_path: Path) -> None:
    hanging = program(tmp_path, "exec sleep 1000")
    reading = asyncio.create_task(Crontab(command=[str(hanging)], timeout=900).list())
    await asyncio.sleep(0.1)

    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(reading, 30)


async def test_a_cancelled_write_goes_on_to_its_end(tmp_path: Path, wait_until: Any) -> None:
    begun = tmp_path / "begun"
    slow = program(tmp_path, f'if [ "$1" = - ]; then touch {begun}; sleep 0.3; fi; exec crontab "$@"')
    adding = asyncio.create_task(Crontab(command=[str(slow)], clock=HalfPast()).add(JOB))
    await wait_until(begun.exists)

    adding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await adding

    assert b"# tickwork id=job " in crontab()


async def test_a_stranger_who_writes_in_between_loses_nothing(tmp_path: Path) -> None:
    once = tmp_path / "once"
    theirs = "echo '1 1 * * * theirs' | crontab -"
    late = program(tmp_path, f'crontab "$@"; if [ "$1" = - ] && [ ! -e {once} ]; then touch {once}; {theirs}; fi')

    await Crontab(command=[str(late)], clock=HalfPast()).add(JOB)

    assert b"# tickwork id=job " in crontab()
    assert crontab().endswith(b"1 1 * * * theirs\n")


async def test_a_stranger_who_keeps_writing_is_a_conflict(tmp_path: Path) -> None:
    theirs = "echo '1 1 * * * theirs' | crontab -"
    late = program(tmp_path, f'crontab "$@"; if [ "$1" = - ]; then {theirs}; fi')

    with pytest.raises(SchedulerConflict) as caught:
        await Crontab(command=[str(late)], clock=HalfPast()).add(JOB)

    assert str(caught.value) == (
        "the crontab of root was changed by another program in each of 3 attempts; end that program; the last versions"
        f" are in {STATE}"
    )


async def test_a_lock_that_is_held_is_waited_for_and_given_up(tab: Crontab) -> None:
    await tab.add(JOB)
    lock = FileLock(STATE / "crontab-root.lock")
    assert lock.try_acquire()
    try:
        with pytest.raises(SchedulerTimedOut, match="^the wait for the lock of the crontab took longer than 0.1 s;"):
            await Crontab(clock=HalfPast(), timeout=0.1).remove("job")
        removing = asyncio.create_task(tab.remove("job"))
        await asyncio.sleep(0.1)
        assert not removing.done()
    finally:
        lock.close()
    await removing


async def test_a_write_waits_for_the_seconds_in_which_cron_looks_to_pass(tab: Crontab) -> None:
    class Blind(SystemClock):
        waits = 0

        def now(self) -> datetime:
            return super().now().replace(second=59 if self.waits == 0 else 4, microsecond=800_000)

        def call_later(self, delay: float, callback: Any, *args: Any) -> Any:
            waited.append(delay)
            self.waits += 1
            return asyncio.get_running_loop().call_soon(callback, *args)

    waited: list[float] = []
    await Crontab(clock=Blind()).add(JOB)

    assert waited == [pytest.approx(4.2)]


# --- backups -------------------------------------------------------------------------------------------------------


async def test_the_last_five_versions_are_kept_for_their_owner_only(tab: Crontab) -> None:
    versions = []
    for number in range(8):
        install(STRANGER + b"# %d\n" % number)
        versions.append(crontab())
        await tab.add(JOB, replace=True)

    kept = sorted(STATE.glob("crontab-root.*.bak"))
    assert sorted(path.read_bytes() for path in kept) == sorted(versions[3:])
    assert {stat.S_IMODE(path.stat().st_mode) for path in kept} == {0o600}
    assert all(re.fullmatch(r"crontab-root\.\d{8}T\d{6}\.\d{6}Z\.bak", path.name) for path in kept)


async def test_a_change_that_changes_nothing_writes_nothing(tab: Crontab) -> None:
    await tab.add(JOB)
    written = Path("/var/spool/cron/crontabs/root").stat().st_mtime_ns

    await tab.add(JOB, replace=True)

    assert Path("/var/spool/cron/crontabs/root").stat().st_mtime_ns == written
    assert list(STATE.glob("*.bak")) == []


async def test_a_state_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    os.chown(folder, 65534, 65534)

    with pytest.raises(SchedulerDenied, match="it is somebody else's, or no folder; give the account a home"):
        await Crontab(state=folder, clock=HalfPast()).add(JOB)
