"""Which worker processes live: each holds a locked file in a folder beside the database.

The lock is the operating system's, so it is gone at the moment the process is, whatever killed it, and it cannot be
fooled by a process id that was given out again. Whoever can lock the file of another knows that the other is dead.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from .filelock import FileLock, resemble

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class Presence:
    """The locked files of the worker processes of one database, all on this host.

    Args:
        folder: Where they are; it is made where there is none.
        worker: The name of this worker process; it names its file.
        like: The database, whose owner and permissions folder and files get.
    """

    def __init__(self, folder: Path, worker: str, like: Path) -> None:
        self._folder = folder
        self._worker = worker
        self._like = like
        self._mine: FileLock | None = None

    def announce(self) -> bool:
        """Make the file of this process and hold it until `leave` or the end of the process.

        Returns:
            False: a process that lives has this name already.
        """
        try:
            self._folder.mkdir()
        except FileExistsError:
            pass
        else:
            resemble(self._folder, self._like)
        mine = FileLock(self._folder / self._worker, like=self._like)
        if not mine.try_acquire():
            mine.close()
            return False
        self._mine = mine
        return True

    def leave(self) -> None:
        """Remove the file of this process."""
        if self._mine is not None:
            path = self._mine.path
            with suppress(OSError):
                path.unlink()
            self._mine.close()
            self._mine = None
            if os.name == "nt":  # where an open file cannot be removed
                with suppress(OSError):
                    path.unlink()

    def dead(self, workers: Iterable[str]) -> list[str]:
        """Return which of these workers are gone. One whose file is missing has left, or never lived here."""
        return [worker for worker in workers if worker != self._worker and self._is_dead(worker)]

    def forget(self, worker: str) -> None:
        """Remove the file that a dead worker has left."""
        with suppress(OSError):
            (self._folder / worker).unlink()

    def _is_dead(self, worker: str) -> bool:
        path = self._folder / worker
        if not path.exists():
            return True
        try:
            lock = FileLock(path)
        except OSError:  # of another user, say: its lease tells
            return False
        try:
            return lock.try_acquire()
        finally:
            lock.close()
