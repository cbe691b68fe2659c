"""`tickwork run --reload`: a fresh process whenever a Python file changes. For development."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

from ..program import OK
from .target import folder_of

if TYPE_CHECKING:
    import argparse
    from asyncio.subprocess import Process
    from pathlib import Path

logger: logging.Logger = logging.getLogger("tickwork.reload")

LOOK_SECONDS = 0.5
"""How often the files are looked at. Without a package that listens to the file system there is no other way; half a
second is quicker than a hand moves from the editor to the terminal."""

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def run_reloading(options: argparse.Namespace) -> int:
    """Run the command without --reload in a child, drained and started anew with each change."""
    folder = folder_of(options.target)
    command = [sys.executable, "-m", "tickwork", "run", options.target, "--supervised"]
    command += [f"--{name.replace('_', '-')}" for name in ("until_idle", "uvloop", "verbose") if getattr(options, name)]
    command += [f"--{name}={value}" for name in ("role", "queues", "workers") if (value := getattr(options, name))]
    return asyncio.run(_Supervisor(command, folder).run())


def end_with_supervisor() -> None:
    """Let this process drain as soon as the one that supervises it is gone, however it went."""

    def wait() -> None:
        while os.read(0, 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="tickwork-lifeline", daemon=True).start()


class _Supervisor:
    """Keeps one child: starts it, ends it when a file has changed, passes signals on to it.

    The child is a process group of its own. A Ctrl-C reaches the whole group of the terminal; the child would hear it
    twice, from the terminal and from here, and the second one means now.
    """

    def __init__(self, command: list[str], folder: Path) -> None:
        self._command = command
        self._folder = folder
        self._child: Process | None = None
        self._ended = asyncio.Event()

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            try:
                loop.add_signal_handler(number, self._hear)
            except NotImplementedError:  # what loops on Windows raise, which have no handlers of signals
                signal.signal(number, lambda *_: loop.call_soon_threadsafe(self._hear))
        logger.info("watching the Python files below %s", self._folder)
        while True:
            seen = await asyncio.to_thread(_look, self._folder)
            status = await self._run_child(seen)
            if status is not None:
                if self._ended.is_set() or status == OK:
                    return status
                logger.warning("it ended with status %d; waiting for a change", status)
                await self._wait_changed(seen)
                if self._ended.is_set():
                    return status

    async def _run_child(self, seen: dict[str, int]) -> int | None:
        """Run a child until a file has changed, and return None, or until it ends, and return its status."""
        # Outside of the terminal's group, reading from the terminal would stop the child. It gets a pipe, whose end
        # tells it that this process has been killed.
        child = self._child = await asyncio.create_subprocess_exec(
            *self._command, stdin=subprocess.PIPE, **_own_group()
        )
        change = asyncio.ensure_future(self._wait_changed(seen))
        end = asyncio.ensure_future(child.wait())
        try:
            if self._ended.is_set():  # a signal while it was being started
                self._end_child()
            await asyncio.wait({change, end}, return_when=asyncio.FIRST_COMPLETED)
            has_ended = end.done()
            if not has_ended and not self._ended.is_set():
                self._end_child()
            status = await end
            if not has_ended and not self._ended.is_set():
                return None
            return OK if status == -signal.SIGTERM else status  # it was told to end while it was still importing
        finally:
            change.cancel()
            self._child = None
            if child.returncode is None:
                child.kill()

    async def _wait_changed(self, seen: dict[str, int]) -> None:
        """Wait until a file has changed, or until a signal."""
        while not self._ended.is_set():
            now = await asyncio.to_thread(_look, self._folder)
            if now != seen:
                changed = sorted(path for path in {*now, *seen} if now.get(path) != seen.get(path))
                logger.info("changed: %s%s", ", ".join(changed[:3]), " and others" if len(changed) > 3 else "")
                return
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._ended.wait()
            except TimeoutError:
                continue

    def _hear(self) -> None:
        self._ended.set()
        self._end_child()

    def _end_child(self) -> None:
        if self._child is not None and self._child.returncode is None:
            self._child.send_signal(signal.SIGTERM)


def _own_group() -> dict[str, Any]:
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"process_group": 0}


def _look(folder: Path) -> dict[str, int]:
    """Return the time of the last change of each Python file below a folder, hidden folders left out."""
    found = {}
    for where, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "__pycache__"]
        for name in files:
            if name.endswith(".py"):
                path = os.path.join(where, name)
                try:
                    found[path] = os.stat(path).st_mtime_ns
                except OSError:
                    continue  # gone between the two looks
    return found
