"""Entries of all kinds under a real daemon: do they run, with which arguments, and what is in the log?"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

from tickwork.system import CronEntry, Crontab
from tools import FAST, HalfPast, crontab, daemon, install, wait_for

HOME = Path.home()
NASTY = json.loads(sys.argv[1])
STRANGER = b"# mine\nSHELL=/bin/false\nPATH=/nowhere\n* * * * * /bin/true  # \xff\xfe\n\tA = b\n"


async def fill(tab: Crontab) -> None:
    dump = HOME / "it's 100% #1\\dump.py"  # a path that is as nasty
    dump.write_text(
        "import json, sys\n"
        "with open(sys.argv[1], 'w') as file:\n"
        "    json.dump([sys.argv[2:], sys.stdin.read()], file)\n"
    )
    talk = HOME / "talk.py"
    talk.write_text("import os, sys\nprint('out', os.getcwd(), sys.prefix)\nsys.stderr.write('err\\n')\n")
    for number, word in enumerate(NASTY):
        entry = CronEntry(f"nasty-{number}", "* * * * *", [sys.executable, dump, str(HOME / f"got-{number}"), word, "END"])
        await tab.add(entry)
    await tab.create_python(talk, log=HOME / "logs 100%" / "it's.log", schedule="*/1 * * * *", id="talk")


def got() -> dict[str, object]:
    found = {}
    for number in range(len(NASTY)):
        try:
            found[str(number)] = json.loads((HOME / f"got-{number}").read_text())
        except (OSError, ValueError):
            found[str(number)] = None
    return found


def main() -> None:
    tab = Crontab(clock=HalfPast())
    (HOME / "logs 100%").mkdir()
    log = HOME / "logs 100%" / "it's.log"
    install(STRANGER)
    asyncio.run(fill(tab))
    is_kept = crontab().endswith(STRANGER)
    time.sleep(1.2)  # Debian's daemon never loads a crontab of the second in which it starts
    with daemon(*FAST):
        wait_for(lambda: log.stat().st_size and all(got().values()), 15)
        mode = oct(log.stat().st_mode & 0o777)
        shown = log.read_text()
        asyncio.run(tab.remove("talk"))  # while the daemon runs: it takes notice
        time.sleep(3.5)
        before = log.read_text()
        late = HOME / "late"
        asyncio.run(tab.add(CronEntry("late", "* * * * *", ["/usr/bin/touch", late])))
        is_late_seen = wait_for(late.exists, 10)
        after = log.read_text()
    answer = {
        "kept": is_kept,
        "got": got(),
        "log": shown,
        "mode": mode,
        "prefix": sys.prefix,
        "late": is_late_seen,
        "stopped": before == after,
    }
    print(json.dumps(answer))


main()
