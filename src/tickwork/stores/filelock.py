"""Locks of the operating system on files: held by an open file, gone with the process, however that ends.

`flock` on POSIX, `msvcrt.locking` on Windows. Both belong to the open file, so that two stores in one process do not
free each other's (as `fcntl` locks would be), and both are let go by the kernel when the last process that has the file
open is gone. So no child may keep it open: a started program does not inherit it, and a forked one closes it at once.
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING
from weakref import WeakSet

if TYPE_CHECKING:
    from pathlib import Path

BUSY = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK}
"""What the systems say when somebody else holds a lock; anything else is a failure."""


class FileLock:
    """A file that one open file at a time can hold.

    Args:
        path: The file; it is made where there is none, and stays.
        like: A file whose owner and permissions a new one gets, so that whoever may write the one may lock the other.

    Raises:
        OSError: The file cannot be made or opened for writing.
    """

    def __init__(self, path: Path, *, like: Path | None = None) -> None:
        self.path: Path = path
        flags = os.O_RDWR | getattr(os, "O_BINARY", 0)
        try:
            self._fd: int | None = os.open(path, flags)
        except FileNotFoundError:
            self._fd = os.open(path, flags | os.O_CREAT, 0o644)
            if like is not None:
                resemble(path, like)
        _open_locks.add(self)

    def try_acquire(self) -> bool:
        """Take the lock if nobody holds it, and return whether this does now.

        Raises:
            OSError: The file system has no such locks.
        """
        assert self._fd is not None
        try:
            _lock(self._fd)
        except OSError as error:
            if error.errno in BUSY:
                return False
            raise
        return True

    def fileno(self) -> int:
        """Return the open file: a program that inherits it holds the lock until it ends."""
        assert self._fd is not None
        return self._fd

    def release(self) -> None:
        """Let go of it."""
        if self._fd is not None:
            _unlock(self._fd)

    def close(self) -> None:
        """Let go of the lock and of the file. A second call does nothing."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
            _open_locks.discard(self)


def resemble(path: Path, like: Path) -> None:
    """Give a new file or folder the owner and permissions of another file, as SQLite does with the files it adds."""
    if os.name != "posix":
        return
    with suppress(OSError):  # it serves its own user at any rate
        model = like.stat()
        mode = model.st_mode & 0o666
        if path.is_dir():
            mode |= (mode & 0o444) >> 2  # who may read a file may enter a folder
        path.chmod(mode)
        if os.geteuid() == 0:
            os.chown(path, model.st_uid, model.st_gid)


_open_locks: WeakSet[FileLock] = WeakSet()


def _close_all() -> None:
    for lock in list(_open_locks):
        lock.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_all)  # closing a copy lets go of nothing in the parent


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
