"""Entries that answer the fire times of two apps, each of them there twice, under a real daemon with short minutes."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

from tickwork.system import CronEntry, Crontab

from .tools import FAST, HalfPast, daemon, runs, tell, wait_for

HOME = Path.home()
APP = """
import os
from tickwork import App, Context

app = App({url})

@app.cron("* * * * *", name="minutely 100%")
async def minutely(ctx: Context):
    with open("{kind}.ran", "a") as file:
        file.write(f"{{ctx.fire_time.isoformat()}}\\n")
    print("cwd", os.getcwd())
"""
APPS = {"memory": "", "store": '"sqlite:///jobs.db"'}


async def fill(tab: Crontab, folder: Path) -> None:
    for kind, url in APPS.items():
        (folder / f"{kind}.py").write_text(APP.format(url=url, kind=kind))
        for number in range(2):
            # cron hands no environment down, so it is said here where the package of these tests is.
            program = ["/usr/bin/env", f"PYTHONPATH={os.environ['PYTHONPATH']}", sys.executable, "-m", "tickwork"]
            words = ["trigger", "--dir", str(folder), "--log", str(folder / f"{kind}.log"), "--fire-time", "auto"]
            argv = [*program, *words, f"{kind}:app", "minutely 100%"]
            await tab.add(CronEntry(f"{kind}-{number}", "* * * * *", argv))


def count(path: Path, text: str) -> int:
    return path.read_text().count(text) if path.exists() else 0


def main() -> None:
    folder = HOME / "app 1"
    folder.mkdir()
    asyncio.run(fill(Crontab(clock=HalfPast()), folder))
    time.sleep(1.2)  # Debian's daemon never loads a crontab of the second in which it starts
    with daemon(*FAST):
        logs = [folder / f"{kind}.log" for kind in APPS]
        wait_for(lambda: all(count(log, "nothing is run for it now") >= 2 for log in logs), 30)
    wait_for(lambda: not runs("--fire-time"), 30)  # a minute may just have begun another one
    tell(
        {
            kind: {
                "ran": (folder / f"{kind}.ran").read_text().split(),
                "log": (folder / f"{kind}.log").read_text(),
                "mode": oct((folder / f"{kind}.log").stat().st_mode & 0o777),
            }
            for kind in APPS
        }
    )


main()
