"""Whether this process is one of several web workers, as far as it can be seen from inside.

An app in memory shares nothing with the app of another worker: each fires every schedule. Nobody tells a worker that
it has siblings, so this looks at what servers leave to see: their environment and the command lines above and beside.
"""

from __future__ import annotations

import logging
import re
import threading
from pathlib import PurePath
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import psutil

logger: logging.Logger = logging.getLogger("tickwork.app")

SERVERS: Final = ("uvicorn", "gunicorn", "hypercorn", "granian", "fastapi", "uwsgi")
"""Web servers that start workers as processes of their own."""

MAX_DEPTH: Final = 3
"""So many processes upwards: a worker is its server's child, or that of a helper of multiprocessing between the two."""

MAX_WORDS: Final = 8
"""Of a command line, to find its program: Python, some flags of its, `-m`, a name."""


def warn_of_workers(environ: Mapping[str, str], schedules: int) -> None:
    """Log a warning when several web workers are running, each with an app in memory. Looks in a thread of its own.

    Args:
        environ: The environment.
        schedules: How many schedules the app has.
    """

    def look() -> None:
        if (seen := visible_workers(environ)) is not None:
            logger.warning(
                "the app keeps its jobs in memory, and %s: each of them fires every schedule (%d) by itself. Share a "
                'file, App("sqlite:///jobs.db"), and each fire time runs once; or give the schedules to one process',
                seen,
                schedules,
            )

    threading.Thread(target=look, name="tickwork-siblings", daemon=True).start()


def visible_workers(environ: Mapping[str, str], *, process: psutil.Process | None = None) -> str | None:
    """Return what shows that several web workers are running, or None when nothing does.

    It reads the environment and the list of processes. That blocks: some milliseconds, the first time tens of them.
    What cannot be read, as in a sandbox, shows nothing. A server that has just begun may not have started all of its
    workers, unless its command line or the environment tells how many there will be.

    Args:
        environ: The environment, such as `os.environ`.
        process: The process to look from; None: this one.

    Returns:
        Such as "this process and 3 more are workers of uvicorn (pid 17)", or "WEB_CONCURRENCY=4".
    """
    return _among_processes(process) or _in_environment(environ)


def _in_environment(environ: Mapping[str, str]) -> str | None:
    said = environ.get("WEB_CONCURRENCY", "").strip()
    return f"WEB_CONCURRENCY={said}" if said.isascii() and said.isdecimal() and int(said[:9]) > 1 else None


def _among_processes(process: psutil.Process | None) -> str | None:
    import psutil  # 15 ms that an import of tickwork should not pay

    try:
        worker = process or psutil.Process()
        words = worker.cmdline()
        for parent in (above := worker.parents()[:MAX_DEPTH]):
            words_above = parent.cmdline()
            server = _server(words_above)
            if server is not None and _is_worker(words, words_above, server):
                more = max(_declared(words_above), _count_like(worker, above[0])) - 1
                return f"this process and {more} more are workers of {server} (pid {parent.pid})" if more > 0 else None
            if not _is_multiprocessing(words_above):
                break
    except (psutil.Error, OSError):  # gone, or not ours to look at
        pass
    return None


def _is_worker(words: Sequence[str], words_above: Sequence[str], server: str) -> bool:
    """Return whether a child of a server is one of its workers, and not a program that a request has started."""
    return _is_multiprocessing(words) or words == words_above or "".join(words).startswith(f"{server}:")


def _is_multiprocessing(words: Sequence[str]) -> bool:
    return any("multiprocessing" in word for word in words)


def _server(words: Sequence[str]) -> str | None:
    """Return the web server that a command line starts, or None."""
    for before, word in zip(("", *words), words[:MAX_WORDS], strict=False):
        name = PurePath(word.partition(": ")[0]).name.lower().removesuffix(".exe")  # "gunicorn: master [web:app]"
        if name in SERVERS:
            return name
        if not word.startswith("-") and before not in ("-X", "-W") and not name.startswith("python"):
            return None
    return None


def _declared(words: Sequence[str]) -> int:
    """Return how many workers a command line asks for; 0 when it says nothing."""
    line = " ".join(words)
    found = re.search(r" (?:--workers|--processes|-w)[ =]?([0-9]{1,6})(?: |$)", line)
    return 0 if found is None else int(found[1])


def _count_like(worker: psutil.Process, parent: psutil.Process) -> int:
    """Return how many children of a parent were started as this one was, but for numbers: itself included."""
    shape = _shape(worker)
    return sum(_shape(child) == shape for child in parent.children()) if shape else 0


def _shape(process: psutil.Process) -> str:
    import psutil

    try:
        return re.sub("[0-9]+", "", " ".join(process.cmdline()))
    except psutil.Error:  # it has just ended
        return ""
