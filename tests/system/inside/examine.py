"""`tickwork crontab doctor`, with and without a daemon, and what it leaves."""

from __future__ import annotations

import subprocess
import sys
import time

from .tools import FAST, crontab, daemon, install, tell


def ask(*words: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-B", "-m", "tickwork", "crontab", *words], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


def main() -> None:
    install(b"0 0 * * * true\n")
    without = ask("doctor")
    with daemon(*FAST):
        time.sleep(1)
        fine = ask("doctor")
        late = ask("doctor", "--wait", "1ms")
        nobody = ask("doctor", "--user", "nobody")
    tell({"without": without, "fine": fine, "late": late, "nobody": nobody, "left": crontab().decode()})


main()
