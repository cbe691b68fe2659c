"""Many programs that change one crontab at the same time, with a stranger's lines in it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

from tickwork.system import CronEntry, Crontab

from .tools import HalfPast, install, tell

WRITERS, ADDS = 4, 25
STRANGER = b"# a stranger's\n0 0 * * * true \xff\n"


async def write(writer: str) -> None:
    tab = Crontab(clock=HalfPast(), timeout=60)
    for number in range(ADDS):
        await tab.add(CronEntry(f"w{writer}-{number}", "0 0 * * *", ["/bin/true"]))


def main() -> None:
    if len(sys.argv) > 1:
        asyncio.run(write(sys.argv[1]))
        return
    install(STRANGER)
    begun = time.monotonic()
    writers = [subprocess.Popen([sys.executable, "-B", "-m", __spec__.name, str(writer)]) for writer in range(WRITERS)]
    statuses = [writer.wait() for writer in writers]
    took = time.monotonic() - begun
    there = asyncio.run(Crontab().table())
    wanted = {f"w{writer}-{number}" for writer in range(WRITERS) for number in range(ADDS)}
    lost = sorted(wanted - set(there.ids()))
    tell({"statuses": statuses, "lost": lost, "kept": there.render().endswith(STRANGER), "took": took})


main()
