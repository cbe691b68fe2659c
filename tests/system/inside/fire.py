"""Entries of all kinds under a real daemon: do they run, with which arguments, and what is in the log?"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path

from tickwork.system import CronEntry, Crontab

from .tools import FAST, HalfPast, daemon, runs, tell, wait_for

HOME = Path.home()
NASTY: list[list[str]] = json.loads(sys.argv[1])  # so many entries
STRANGER = b"# mine\nSHELL=/bin/false\nPATH=/nowhere\n* * * * * /bin/true  # \xff\xfe\n\tA = b\n"


async def fill(tab: Crontab) -> None:
    dump = HOME / "it's 100% #1\\dump.py"  # a path that is as nasty
    dump.write_text(
        "import json, os, sys\n"
        "with open(sys.argv[1] + '.part', 'w') as file:\n"
        "    json.dump([sys.argv[2:], sys.stdin.read()], file)\n"
        "os.replace(sys.argv[1] + '.part', sys.argv[1])\n"
    )
    talk = HOME / "talk.py"
    talk.write_text("import os, sys\nprint('out', os.getcwd(), sys.prefix)\nsys.stderr.write('err\\n')\n")
    for number, words in enumerate(NASTY):
        program = [sys.executable, str(dump), str(HOME / f"got-{number}")]
        await tab.add(CronEntry(f"nasty-{number}", "* * * * *", [*program, *words]))
    await tab.create_python(talk, log=HOME / "logs 100%" / "it's.log", schedule="*/1 * * * *", id="talk")


def got() -> list[object]:
    found = [HOME / f"got-{number}" for number in range(len(NASTY))]
    return [json.loads(path.read_text()) if path.exists() else None for path in found]


DAEMONS = {
    "fast": FAST,
    "cron": ("cron", "-f"),
    "cronie": ("crond", "-n"),
    "busybox": ("busybox", "crond", "-f", "-c", "/var/spool/cron/crontabs"),
}
BUSYBOX = ("busybox", "crontab", "-c", "/var/spool/cron/crontabs")


def main(kind: str) -> None:
    command = BUSYBOX if kind == "busybox" else ("crontab",)
    tab = Crontab(command=command, clock=HalfPast() if kind == "fast" else None)
    (HOME / "logs 100%").mkdir()
    log = HOME / "logs 100%" / "it's.log"
    subprocess.run([*command, "-"], input=STRANGER, check=True)
    if kind == "fast":
        asyncio.run(fill(tab))
        time.sleep(1.2)  # Debian's daemon never loads a crontab of the second in which it starts
    with daemon(*DAEMONS[kind]):
        if kind != "fast":
            time.sleep(1.2)  # the same, the other way round
            asyncio.run(fill(tab))  # it takes notice
        there = subprocess.run([*command, "-l"], stdout=subprocess.PIPE, check=True).stdout
        wait_for(lambda: log.stat().st_size and all(got()), 15 if kind == "fast" else 75)
        answer = {
            "kept": there.endswith(STRANGER),
            "got": got(),
            "log": log.read_text(),
            "mode": oct(log.stat().st_mode & 0o777),
            "prefix": sys.prefix,
        }
        if kind == "fast":
            answer |= change(tab, log)
    tell(answer)


def change(tab: Crontab, log: Path) -> dict[str, bool]:
    """Change the crontab while the daemon runs, and say whether it takes notice."""
    late, later = HOME / "late", HOME / "later"
    asyncio.run(tab.remove("talk"))
    asyncio.run(tab.add(CronEntry("late", "* * * * *", ["/usr/bin/touch", late])))
    has_noticed = wait_for(late.exists, 10) and wait_for(lambda: not runs("talk.py"), 30)
    before = log.read_text()
    asyncio.run(tab.add(CronEntry("later", "* * * * *", ["/usr/bin/touch", later])))
    has_gone_on = wait_for(later.exists, 10)  # so that another minute has come, in which the removed one would have run
    return {"late": has_noticed and has_gone_on, "stopped": before == log.read_text()}


main(sys.argv[2])
