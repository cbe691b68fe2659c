"""Locks of the operating system on files: held by an open file, gone with the process, however that ends.

`flock` on POSIX, `msvcrt.locking` on Windows. Both belong to the open file, so that two stores in one process do not
free each other's (as `fcntl` locks would be), and both are let go by the kernel when the last process that has the file
open is gone. Files are opened without inheritance: a child that the process starts does not keep a lock alive.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class FileLock:
    """A file that one open file at a time can hold.

    Args:
        path: The file; it is made where there is none, and stays.
    """

    def __init__(self, path: Path) -> None:
        self.path: Path = path
        self._fd: int | None = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)

    def try_acquire(self) -> bool:
        """Take the lock if nobody holds it, and return whether this does now."""
        assert self._fd is not None
        try:
            _lock(self._fd)
        except OSError:
            return False
        return True

    def release(self) -> None:
        """Let go of it."""
        if self._fd is not None:
            _unlock(self._fd)

    def close(self) -> None:
        """Let go of the lock and of the file. A second call does nothing."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


if sys.platform == "win32":
    import msvcrt

    def _lock(fd: int) -> None:
        os.lseek(fd, 0, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)

    def _unlock(fd: int) -> None:
        os.lseek(fd, 0, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_UN)
