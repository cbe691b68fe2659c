"""Ready-made work for any app: record the system's state, remove old files.

    @app.every("5s")
    async def record() -> None:
        await record_system_status("var/status.log")

    @app.cron("0 3 * * *")
    async def clean() -> None:
        await remove_old_files("var/tmp", prefix="temp_", older_than="7d", dry_run=True)

They are plain coroutine functions: an app of yours decides when they run, and with what.
"""

from __future__ import annotations

import json
import logging
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .clock import SystemClock
from .durations import format_seconds, seconds
from .errors import InvalidOption

if TYPE_CHECKING:
    from datetime import timedelta

    from .clock import Clock

logger: logging.Logger = logging.getLogger("tickwork.recipes")


async def record_system_status(
    path: str | os.PathLike[str], *, disk: str | os.PathLike[str] = "/", clock: Clock | None = None
) -> dict[str, Any]:
    """Append the state of processor, memory and disk to a file, one JSON object a line, and return it.

    Args:
        path: The file; it and its folder are made when they are not there.
        disk: Any path on the disk to look at.
        clock: Tells the time; None: the real one.

    Returns:
        "at" (ISO, UTC), "cpu_percent" (of all processors, since the last call), "load" (1 minute),
        "memory_percent", "memory_available_mb", "disk_percent", "disk_free_gb".
    """
    import aiofiles
    import aiofiles.os
    import anyio
    import anyio.to_thread
    import psutil

    cpu = psutil.cpu_percent()
    if not cpu:  # the first call has nothing to compare with
        await anyio.sleep(0.1)
        cpu = psutil.cpu_percent()
    memory = psutil.virtual_memory()
    usage = await anyio.to_thread.run_sync(psutil.disk_usage, os.fspath(disk))  # a network disk may not answer
    status = {
        "at": (clock or SystemClock()).now().isoformat(timespec="milliseconds"),
        "cpu_percent": cpu,
        "load": round(psutil.getloadavg()[0], 2),
        "memory_percent": memory.percent,
        "memory_available_mb": memory.available // 2**20,
        "disk_percent": usage.percent,
        "disk_free_gb": round(usage.free / 2**30, 1),
    }
    target = Path(path)
    await aiofiles.os.makedirs(target.parent, exist_ok=True)
    async with aiofiles.open(target, "a", encoding="utf-8") as file:
        await file.write(json.dumps(status) + "\n")
    return status


@dataclass(frozen=True, slots=True)
class Removed:
    """What `remove_old_files` did.

    Attributes:
        files: The files that were removed, or would be in a dry run, in order of their paths.
        size: Their bytes.
        failed: Files that could not be removed and folders that could not be read, each with the reason.
        dry_run: Whether everything is still there.
    """

    files: list[str] = field(default_factory=list)
    size: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    dry_run: bool = False


async def remove_old_files(
    directory: str | os.PathLike[str],
    *,
    prefix: str,
    older_than: float | str | timedelta = "7d",
    recursive: bool = False,
    dry_run: bool = False,
    clock: Clock | None = None,
) -> Removed:
    """Remove the files of a directory whose name starts with `prefix` and that have not changed for a while.

    Only plain files are removed: no folders, no links, and nothing that a link leads to.

    Args:
        directory: Where to look.
        prefix: How the names begin; an empty one is refused, since it would mean every file.
        older_than: The least age, by the time of the last change: "7d", seconds, timedelta.
        recursive: Look into the folders below, too.
        dry_run: Say what would go, and remove nothing.
        clock: Tells the time; None: the real one.

    Raises:
        InvalidOption: `prefix` is empty or holds a path separator.
        FileNotFoundError: There is no such directory.
        NotADirectoryError: It is none.
        PermissionError: It cannot be read.
    """
    import anyio.to_thread

    if not prefix or "/" in prefix or os.sep in prefix:
        raise InvalidOption("prefix", "the beginning of file names, at least one character", prefix)
    age = seconds(older_than, "older_than", allow_zero=True)
    before = (clock or SystemClock()).now().timestamp() - age
    # One thread for the whole walk: a hop for each of many small calls would cost more than the calls.
    removed = await anyio.to_thread.run_sync(_remove, Path(directory), prefix, before, recursive, dry_run)
    logger.info(
        "%s %d files (%d bytes) older than %s in %s",
        "would remove" if dry_run else "removed",
        len(removed.files),
        removed.size,
        format_seconds(age),
        directory,
    )
    for path, reason in removed.failed:
        logger.warning("left alone: %s: %s", path, reason)
    return removed


def _remove(directory: Path, prefix: str, before: float, recursive: bool, dry_run: bool) -> Removed:
    files: list[str] = []
    failed: list[tuple[str, str]] = []
    size = 0
    top = os.fspath(directory)
    folders = [top]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as entries:
                found = list(entries)
        except OSError as error:
            if folder == top:
                raise  # a wrong directory is a mistake; a folder below that cannot be read is a fact to report
            failed.append((folder, error.strerror or str(error)))
            continue
        for entry in found:
            try:
                if entry.is_dir(follow_symlinks=False):
                    if recursive:
                        folders.append(entry.path)
                elif entry.name.startswith(prefix) and (freed := _remove_one(entry, before, dry_run)) is not None:
                    files.append(entry.path)
                    size += freed
            except OSError as error:
                failed.append((entry.path, error.strerror or str(error)))
    return Removed(sorted(files), size, sorted(failed), dry_run)


def _remove_one(entry: os.DirEntry[str], before: float, dry_run: bool) -> int | None:
    """Remove a plain file that is old enough, and return how many bytes that freed."""
    found = entry.stat(follow_symlinks=False)
    if not stat.S_ISREG(found.st_mode) or found.st_mtime > before:
        return None
    if not dry_run:
        try:
            os.unlink(entry.path)
        except FileNotFoundError:
            return None  # somebody else was quicker
    return found.st_size
