"""`tickwork crontab doctor`, with and without a daemon, and what it leaves."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

from .tools import FAST, crontab, daemon, install, tell, wait_for


def ask(*words: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-B", "-m", "tickwork", "crontab", *words], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


def end_in_the_middle(number: signal.Signals) -> tuple[int, bytes]:
    """End a doctor while its entry waits to run, and return its exit status and what it has left."""
    with daemon("cron", "-f"):
        words = [sys.executable, "-B", "-m", "tickwork", "crontab", "doctor", "--wait", "10m"]
        examining = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert wait_for(lambda: b"tickwork-doctor-" in crontab(), 20)
        examining.send_signal(number)
        return examining.wait(20), crontab()


def main() -> None:
    install(b"0 0 * * * true\n")
    without = ask("doctor")
    with daemon(*FAST):
        time.sleep(1)  # Debian's daemon never loads a crontab of the second in which it starts
        fine = ask("doctor")
        late = ask("doctor", "--wait", "1ms")
        nobody = ask("doctor", "--user", "nobody")
    left = crontab().decode()
    interrupted = end_in_the_middle(signal.SIGINT)[1].decode()
    killed = end_in_the_middle(signal.SIGKILL)[1].decode()
    with daemon(*FAST):
        time.sleep(1)  # Debian's daemon never loads a crontab of the second in which it starts
        ask("doctor")
    after = crontab().decode()
    ends = {"interrupted": interrupted, "killed": killed, "after": after}
    tell({**ends, "without": without, "fine": fine, "late": late, "nobody": nobody, "left": left})


main()
