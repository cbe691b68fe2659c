"""`tickwork run --reload`: a fresh process whenever a Python file changes. For development."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from typing import TYPE_CHECKING

from ..program import OK
from .target import folder_of

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

logger = logging.getLogger("tickwork.reload")

LOOK_SECONDS = 0.5
"""How often the files are looked at. Without a package that listens to the file system there is no other way; half a
second is quicker than a hand moves from the editor to the terminal."""


def run_reloading(options: argparse.Namespace) -> int:
    """Run the command without --reload in a child, drained and started anew with each change."""
    command = [sys.executable, "-m", "tickwork", "run", options.target]
    command += [f"--{name.replace('_', '-')}" for name in ("until_idle", "uvloop", "verbose") if getattr(options, name)]
    return asyncio.run(_supervise(command, folder_of(options.target)))


async def _supervise(command: list[str], folder: Path) -> int:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(ended.set))
    while True:
        seen = await asyncio.to_thread(_look, folder)
        child = await asyncio.create_subprocess_exec(*command)
        logger.info("watching the Python files below %s", folder)
        try:
            while not ended.is_set() and child.returncode is None:
                try:
                    async with asyncio.timeout(LOOK_SECONDS):
                        await ended.wait()
                except TimeoutError:
                    now = await asyncio.to_thread(_look, folder)
                    if now != seen:
                        changed = sorted(str(path) for path in dict(now.items() ^ seen.items()))
                        logger.info("changed: %s; starting anew", ", ".join(changed[:3]))
                        break
            if child.returncode is not None and not ended.is_set():
                status = child.returncode
                if status == OK:
                    return OK  # it was idle
                logger.warning("it ended with status %d; waiting for a change", status)
                seen = await asyncio.to_thread(_look, folder)
                while not ended.is_set() and await asyncio.to_thread(_look, folder) == seen:
                    try:
                        async with asyncio.timeout(LOOK_SECONDS):
                            await ended.wait()
                    except TimeoutError:
                        continue
        finally:
            if child.returncode is None:
                child.send_signal(signal.SIGTERM)
            status = await child.wait()
        if ended.is_set():
            return max(status, OK)


def _look(folder: Path) -> dict[Path, int]:
    """Return the time of the last change of each Python file below a folder, hidden folders left out."""
    found = {}
    for path in folder.rglob("*.py"):
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        try:
            found[path] = path.stat().st_mtime_ns
        except OSError:
            continue  # gone between the two looks
    return found
