"""What the scripts in a box share."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

import psutil

from tickwork.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Iterator


class HalfPast(SystemClock):
    """The real clock, but for the second: always far from those in which cron is blind.

    For boxes without a daemon, and with one whose minutes are not those of this clock.
    """

    def now(self) -> datetime:
        return super().now().replace(second=30)


@contextmanager
def daemon(*words: str) -> Iterator[None]:
    """Run a cron daemon; `words` come before and are such as faketime."""
    process = subprocess.Popen([*words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


FAST = ("faketime", "-f", "+0 x30", "cron", "-f")
"""Debian's daemon, with minutes of two seconds."""


def wait_for(condition: Callable[[], object], seconds: float) -> bool:
    """Return whether it came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def has_ended(pid: int) -> bool:
    """Tell whether a process has ended, also where nobody has asked for its status yet."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def runs(word: str) -> bool:
    """Tell whether a process lives that has been given this word, or one that contains it."""
    for process in psutil.process_iter():
        try:
            if any(word in said for said in process.cmdline()):
                return True
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return False


def crontab() -> bytes:
    """Return what is there, as the program says it."""
    return subprocess.run(["crontab", "-l"], capture_output=True, check=False).stdout


def install(content: bytes) -> None:
    """Write it as a stranger would."""
    subprocess.run(["crontab", "-"], input=content, check=True)


def tell(value: object) -> None:
    """Hand a value to the test."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()
