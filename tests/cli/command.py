"""The real command in a real process, for tests: started, listened to, sent signals, and gone at the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import Self

DEADLINE = 30.0
"""Seconds after which what a test waits for does not come any more: far beyond what a busy machine takes."""

SAVES_A_POOL = """
import asyncio, jobs, tickwork

async def main():
    async with tickwork.Pool(workers=1) as pool:
        for number in range(5):
            await pool.submit(jobs.add, number, number)
        await pool.save("pool.json")

asyncio.run(main())
"""
"""A program that saves what its pool has not begun."""


@dataclass(frozen=True)
class Ended:
    """What a command that has ended left."""

    status: int
    out: str
    err: str


def tickwork(*words: str, cwd: Path, env: Mapping[str, str] | None = None, **options: Any) -> Ended:
    """Run `tickwork ...` to its end."""
    with Running("-m", "tickwork", *words, cwd=cwd, env=env, **options) as running:
        return running.ended()


class Running:
    """A Python process, with its output in files. Leaving the block kills what is left of it and its children."""

    def __init__(self, *words: str, cwd: Path, env: Mapping[str, str] | None = None, **options: Any) -> None:
        settings = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR")}
        self._files = cwd / f".out-{time.monotonic_ns()}", cwd / f".err-{time.monotonic_ns()}"
        with self._files[0].open("wb") as out, self._files[1].open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, *words],
                cwd=cwd,
                env={**settings, **(env or {})},
                **{"stdin": subprocess.DEVNULL, "stdout": out, "stderr": err, **options},
                start_new_session=True,  # so that a signal to the group does not reach the tests
            )
        self.pid = self.process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.family():
            process.kill()
        self.process.wait(DEADLINE)

    @property
    def out(self) -> str:
        return self._files[0].read_text()

    @property
    def err(self) -> str:
        return self._files[1].read_text()

    def wait_for(self, text: str, times: int = 1) -> None:
        """Wait until the text has been printed or logged so many times."""
        self.wait_until(lambda: (self.out + self.err).count(text) >= times, f"{text!r} {times} times")

    def wait_until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + DEADLINE
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"waited in vain for {what}\n--- out\n{self.out}\n--- err\n{self.err}")
            time.sleep(0.01)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def send_until(self, number: signal.Signals, text: str) -> None:
        """Send a signal until a text shows that it was heard.

        The system may hand a signal to any thread. In a plain `asyncio.run`, one that does not go to the main thread
        wakes nobody; the next one does.
        """
        for _ in range(3):
            self.send(number)
            heard = time.monotonic() + DEADLINE / 3
            while time.monotonic() < heard:
                if text in self.out + self.err:
                    return
                time.sleep(0.01)
        self.wait_for(text)

    def send_group(self, number: signal.Signals) -> None:
        os.killpg(self.pid, number)

    def ended(self, within: float = DEADLINE) -> Ended:
        """Wait for the end, and return what it left."""
        try:
            status = self.process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"not ended in {within} s\n--- out\n{self.out}\n--- err\n{self.err}") from None
        return Ended(status, self.out, self.err)

    def family(self) -> list[psutil.Process]:
        """Return the living processes of its session: itself, its children, and what they have left."""
        found = []
        for process in psutil.process_iter():
            try:
                if os.getsid(process.pid) == self.pid and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (ProcessLookupError, psutil.NoSuchProcess):
                continue
        return found

    def wait_alone(self) -> None:
        """Wait until no process of the session is left."""
        self.wait_until(lambda: not self.family(), "the end of all processes")
