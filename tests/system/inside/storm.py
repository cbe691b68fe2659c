"""Writers that are killed, and changes that are cancelled, at random moments: what is left of the crontab?"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from tickwork.system import CronEntry, Crontab

from .tools import HalfPast, crontab, install, tell

OLD = b"# precious\n" + b"0 0 * * * true\n" * 20
SPOOL = Path("/var/spool/cron/crontabs")


def entry(number: int) -> CronEntry:
    return CronEntry("new", f"{number % 60} {number // 60 % 24} * * *", ["/bin/true", "x" * 800])


async def kept_busy() -> None:
    tab = Crontab(clock=HalfPast())
    number = 0
    tell("begun")
    while True:
        number += 1
        await tab.add(entry(number), replace=True)


def kill_storm(rounds: int) -> dict[str, int]:
    """Kill a writer that changes the crontab all the time."""
    ends = {"whole": 0, "lost": 0}
    for _ in range(rounds):
        writer = subprocess.Popen([sys.executable, "-B", "-m", __spec__.name, "busy"], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(random.random() * 0.06)
        writer.kill()
        writer.wait()
        writer.stdout.close()
        there = asyncio.run(Crontab().table())  # nothing that its markers do not balance in
        ends["whole" if there.render().endswith(OLD) else "lost"] += 1
    asyncio.run(Crontab(clock=HalfPast()).add(entry(0), replace=True))  # the lock is free
    return ends


async def cancel_storm(rounds: int) -> dict[str, int]:
    tab = Crontab(clock=HalfPast())
    ends = {"old": 0, "new": 0, "other": 0}
    await tab.add(entry(0), replace=True)
    before, span = crontab(), 0.06
    for number in range(1, rounds + 1):
        task = asyncio.create_task(tab.add(entry(number), replace=True))
        await asyncio.sleep(random.random() * span)
        task.cancel()
        await asyncio.wait([task])
        after = crontab()
        is_new = f"{number % 60} {number // 60 % 24} * * * /bin/true".encode() in after
        end = "new" if is_new and after.endswith(OLD) else "old" if after == before else "other"
        ends[end] += 1
        before, span = after, span * (1.3 if end == "old" else 0.8)  # so that on any machine both come about
    return ends


def main() -> None:
    if sys.argv[1] == "busy":
        asyncio.run(kept_busy())
    install(OLD)
    rounds = int(sys.argv[2])
    ends = kill_storm(rounds) if sys.argv[1] == "kill" else asyncio.run(cancel_storm(rounds))
    time.sleep(0.1)
    state = Path.home() / ".local/state/tickwork"
    left = {
        "spool": sorted(os.listdir(SPOOL)),
        "backups": len(list(state.glob("*.bak"))),
        "modes": sorted({oct(path.stat().st_mode & 0o777) for path in [state, *state.glob("*.bak")]}),
        "files": len(list(state.iterdir())),
    }
    tell({**ends, **left})


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    main()
