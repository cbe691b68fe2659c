"""An app's schedules, installed by the command, under a real daemon with short minutes: do they run, and stop?"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from .tools import FAST, crontab, daemon, install, tell, wait_for

HOME = Path.home()
SOURCE = """
from tickwork import App, Context

app = App({url})

@app.cron("* * * * *", name="it's 100% Due")
async def due(ctx: Context):
    print("ran for", ctx.fire_time.isoformat())
"""
STRANGER = b"# mine\nSHELL=/bin/false\nPATH=/nowhere\n"
APPS = {"memory": "", "store": '"sqlite:///jobs.db"'}


def ask(*words: str, cwd: Path) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-B", "-m", "tickwork", *words], cwd=cwd, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


def interpreter() -> Path:
    """Make an interpreter that knows the package of these tests: cron hands no environment down."""
    path = HOME / "python"
    path.write_text(f'#!/bin/sh\nPYTHONPATH="{os.environ["PYTHONPATH"]}" exec {sys.executable} -B "$@"\n')
    path.chmod(0o755)
    return path


def read_log(kind: str) -> tuple[str, str, int]:
    """Return the name of an app's only log, what is in it, and who may read it."""
    for path in (HOME / ".local/state/tickwork/log" / kind).glob("*"):
        return path.name, path.read_text(), path.stat().st_mode & 0o777
    return "", "", 0


def main() -> None:
    python = str(interpreter())
    install(STRANGER)
    folders = {kind: HOME / f"app {kind}" for kind in APPS}
    synced = {}
    for kind, folder in folders.items():
        folder.mkdir()
        (folder / f"{kind}.py").write_text(SOURCE.format(url=APPS[kind]))
        synced[kind] = ask("crontab", "sync", f"{kind}.py", "--python", python, cwd=folder)
    time.sleep(1.2)  # Debian's daemon never loads a crontab of the second in which it starts
    with daemon(*FAST):
        is_seen = wait_for(lambda: all("ran for" in read_log(kind)[1] for kind in APPS), 30)
    tell(
        {
            "synced": synced,
            "seen": is_seen,
            "logs": {kind: read_log(kind) for kind in APPS},
            "history": ask("history", "store.py", "it's 100% Due", cwd=folders["store"])[1],
            "diff": [ask("crontab", "diff", f"{kind}.py", "--python", python, cwd=folders[kind])[0] for kind in APPS],
            "gone": [ask("crontab", "uninstall", f"{kind}.py", cwd=folders[kind])[0] for kind in APPS],
            "left": crontab() == STRANGER,
        }
    )


main()
