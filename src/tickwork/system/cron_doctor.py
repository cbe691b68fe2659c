"""Whether entries of a crontab will run: the program, the file, the daemon, and an entry that is seen to fire.

report = await doctor(Crontab())
for check in report.checks: print(check)
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..clock import outside, running_clock
from ..durations import format_about, seconds
from ..errors import EntryNotFound, SystemSchedulerError
from ..shield import to_its_end
from .cron_daemon import NO_DAEMON, CronDaemon, find_daemons
from .cron_entry import CronEntry
from .crontab_lock import wait

if TYPE_CHECKING:
    from ..clock import Clock
    from .crontab import Crontab
    from .crontab_text import Table

__all__ = ["Check", "CrontabReport", "doctor"]

_PROBE = re.compile(r"tickwork-doctor-([0-9]+)")
_POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: "crontab", "daemon", "mail" or "probe".
        state: "ok"; "note", worth knowing; or "problem", entries will not run as they are meant to.
        text: What was seen, and what to do.
    """

    name: str
    state: Literal["ok", "note", "problem"]
    text: str

    def __str__(self) -> str:
        """Return it as a line."""
        return f"{self.state:7}  {self.name}: {self.text}"


@dataclass(frozen=True, slots=True)
class CrontabReport:
    """What `doctor` has seen.

    Attributes:
        checks: What was looked at, in order.
        daemons: The cron daemons that run.
        fired_as: The user as whom the probe ran; None: there was no probe, or it did not run.
        fired_after: How many seconds after it was written; None as above.
    """

    checks: tuple[Check, ...]
    daemons: tuple[CronDaemon, ...]
    fired_as: str | None = None
    fired_after: float | None = None

    @property
    def is_ok(self) -> bool:
        """Whether there is no problem."""
        return all(check.state != "problem" for check in self.checks)


async def doctor(tab: Crontab, *, probe: bool = True, timeout: float | str = 75) -> CrontabReport:
    """Look at what an entry needs to run, and prove with one that it does.

    Args:
        tab: The crontab.
        probe: Whether to write an entry that notes its user in a file, to wait until it has run, and to remove it. It
            is not written where no daemon runs.
        timeout: How long to wait for it: seconds, or "75s". Cron looks once a minute.

    Returns:
        A report; what goes wrong with the crontab is a problem in it, and no exception. When this is cancelled, the
        entry is removed first; one of a doctor that was killed is removed by the next.
    """
    limit = seconds(timeout, "timeout")
    checks = []
    try:
        checks.append(_describe(await tab.table(), tab))
    except SystemSchedulerError as error:
        checks.append(Check("crontab", "problem", str(error)))
    with outside():
        daemons = await asyncio.to_thread(find_daemons)
        checks += [_daemon_check(daemons), *await asyncio.to_thread(_mail_check)]
    if not probe or not daemons or checks[0].state == "problem":
        return CrontabReport(tuple(checks), daemons)
    clock = running_clock()
    begun = clock.monotonic()
    try:
        user = await _probe(tab, clock, begun + limit)
    except SystemSchedulerError as error:
        return CrontabReport((*checks, Check("probe", "problem", str(error))), daemons)
    took = clock.monotonic() - begun
    if user is None:
        where = "the log of the daemon (`journalctl -t CRON`, syslog) may say why"
        reason = f"an entry did not run within {format_about(limit)}; {where}"
        return CrontabReport((*checks, Check("probe", "problem", reason)), daemons)
    checks.append(Check("probe", "ok", f"an entry ran after {format_about(took)}, as {user}"))
    return CrontabReport(tuple(checks), daemons, user, took)


def _describe(table: Table, tab: Crontab) -> Check:
    ours = [line for line in table.lines() if line.is_managed]
    others = len(table.lines()) - len(ours)
    edited = [line.id for line in ours if line.is_edited]
    text = f"{tab.where}: {len(ours)} of tickwork, {others} of others"
    if edited:
        return Check("crontab", "note", f"{text}; edited by hand: {', '.join(map(str, edited))}")
    return Check("crontab", "ok", text)


def _daemon_check(daemons: tuple[CronDaemon, ...]) -> Check:
    if not daemons:
        return Check("daemon", "problem", NO_DAEMON)
    shown = "; ".join(f"{one.kind}, pid {one.pid}, as {one.user}" for one in daemons)
    return Check("daemon", "ok", shown)


def _mail_check() -> list[Check]:
    places = ("/usr/sbin/sendmail", "/usr/lib/sendmail")
    if any(map(os.path.exists, places)):
        return []
    return [Check("mail", "note", "there is no sendmail: what an entry without log= prints is lost")]


async def _probe(tab: Crontab, clock: Clock, deadline: float) -> str | None:
    """Return as whom an entry has run, or None when it has not."""
    with outside():
        folder = await to_its_end(asyncio.to_thread(_make_folder, tab.other_user))
    try:
        for id in (await tab.table()).ids():
            if (found := _PROBE.fullmatch(id)) and not _is_alive(int(found[1])):
                await _forget(tab, id)
        entry = CronEntry(f"tickwork-doctor-{os.getpid()}", "* * * * *", _note_user(folder / "ran"))
        try:
            await tab.add(entry, replace=True, force=True)
            return await _wait_for(folder / "ran", clock, deadline)
        finally:
            await to_its_end(_forget(tab, entry.id))
    finally:
        with outside():
            await to_its_end(asyncio.to_thread(shutil.rmtree, folder, True))


def _note_user(file: Path) -> list[str]:
    return ["/bin/sh", "-c", 'id -un >"$0.part" && mv "$0.part" "$0"', str(file)]


async def _wait_for(file: Path, clock: Clock, deadline: float) -> str | None:
    with outside():
        while not await asyncio.to_thread(file.exists):
            if clock.monotonic() > deadline:
                return None
            await wait(clock, _POLL_SECONDS)
        return (await asyncio.to_thread(file.read_text)).strip()


async def _forget(tab: Crontab, id: str) -> None:
    with suppress(EntryNotFound):
        await tab.remove(id, force=True)


def _make_folder(user: str | None) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="tickwork-doctor-"))
    if user is not None:
        import pwd

        account = pwd.getpwnam(user)
        os.chown(folder, account.pw_uid, account.pw_gid)
    return folder


def _is_alive(pid: int) -> bool:
    import psutil

    return pid == os.getpid() or psutil.pid_exists(pid)
