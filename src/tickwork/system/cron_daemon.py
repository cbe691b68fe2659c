"""Which cron daemons run on this machine."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["NO_DAEMON", "CronDaemon", "find_daemons", "may_lack_daemon"]

_PROGRAMS = {
    "cron": "cron (Vixie's, as in Debian)",
    "crond": "crond (cronie, or one like it)",
    "busybox": "crond of busybox",
    "fcron": "fcron",
    "bcron-sched": "bcron",
}
_PID_FILES = ("/run/crond.pid", "/run/cron.pid", "/var/run/crond.pid", "/var/run/cron.pid")

NO_DAEMON = (
    "no cron daemon runs, so that no entry will; start it: `systemctl enable --now cron` (or crond),"
    " `service cron start`; in a container, run `cron -f`"
)


@dataclass(frozen=True, slots=True)
class CronDaemon:
    """A cron daemon that runs.

    Attributes:
        kind: Which one, in words.
        pid: Its process id.
        user: As whom it runs.
    """

    kind: str
    pid: int
    user: str


def find_daemons() -> tuple[CronDaemon, ...]:
    """Return the cron daemons among the processes that this one can see. It blocks for some milliseconds."""
    import psutil  # 20 ms that only this needs

    found: list[CronDaemon] = []
    for process in psutil.process_iter(["name", "pid", "username", "exe", "cmdline", "status"]):
        seen = process.info
        program = os.path.basename(seen["exe"] or seen["name"] or "")
        words = [os.path.basename(word) for word in (seen["cmdline"] or [])[:2]]
        is_daemon = "crond" in words if program == "busybox" else program in _PROGRAMS
        parent = process.ppid() if is_daemon else 0
        if is_daemon and seen["status"] != psutil.STATUS_ZOMBIE and parent not in [one.pid for one in found]:
            found.append(CronDaemon(_PROGRAMS[program], seen["pid"], seen["username"] or "?"))
    return tuple(found)


def may_lack_daemon() -> bool:
    """Return whether a cron daemon would be seen if one ran, and none is. It blocks for some milliseconds.

    Where processes of others are hidden, the file in which a daemon notes its pid speaks for it. On macOS launchd
    starts one when there is a crontab.
    """
    if sys.platform == "darwin" or find_daemons():
        return False
    import psutil

    for path in _PID_FILES:
        with suppress(OSError, ValueError, OverflowError):
            pid = int(Path(path).read_text(encoding="ascii"))
            if pid > 0 and psutil.pid_exists(pid) and pid not in psutil.pids():
                return False
    return True
