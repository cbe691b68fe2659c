"""Which worker processes live: each holds a locked file in a folder beside the database.

The lock is the operating system's, so it is gone at the moment the process is, whatever killed it, and it cannot be
fooled by a process id that was given out again. Whoever can lock the file of another knows that the other is dead.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from .filelock import FileLock

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class Presence:
    """The locked files of the worker processes of one database, all on this host.

    Args:
        folder: Where they are.
        worker: The name of this worker process; it names its file.
    """

    def __init__(self, folder: Path, worker: str) -> None:
        self._folder = folder
        self._worker = worker
        self._mine: FileLock | None = None

    def announce(self) -> None:
        """Make the file of this process and hold it until `leave` or the end of the process."""
        self._folder.mkdir(exist_ok=True)
        self._mine = FileLock(self._folder / self._worker)
        self._mine.try_acquire()

    def leave(self) -> None:
        """Remove the file of this process."""
        if self._mine is not None:
            with suppress(OSError):
                self._mine.path.unlink()
            self._mine.close()
            self._mine = None

    def dead(self, workers: Iterable[str]) -> list[str]:
        """Return which of these workers are gone. One whose file is missing has left, or never lived here."""
        return [worker for worker in workers if worker != self._worker and self._is_dead(worker)]

    def forget(self, worker: str) -> None:
        """Remove the file that a dead worker has left."""
        with suppress(OSError):
            (self._folder / worker).unlink()

    def _is_dead(self, worker: str) -> bool:
        if not (self._folder / worker).exists():
            return True
        lock = FileLock(self._folder / worker)
        try:
            return lock.try_acquire()
        finally:
            lock.close()
