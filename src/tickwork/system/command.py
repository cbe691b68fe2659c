"""Run a program of the operating system to its end, with a deadline and without a shell.

    read    killed when the caller is cancelled: nothing has been changed, and nobody wants the answer any more
    write   goes on to its end, or to its own deadline, when the caller is cancelled; the cancellation comes then

The program runs in a session of its own, so that Ctrl-C at a terminal does not reach it half way through a change. Its
input and output are unlinked temporary files and no pipes. A pipe whose writer is killed ends early, and `crontab -`
takes an early end for an empty crontab; and a pipe that a grandchild has inherited never ends at all.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any

from ..clock import outside
from ..errors import SchedulerCommandFailed, SchedulerDenied, SchedulerNotFound, SchedulerTimedOut, SystemSchedulerError
from ..shield import to_its_end

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Completed", "read", "write"]

_MISSING = "install it, or name it with its path: command=(...)"
_SLOW = "see what holds it up, or pass a longer timeout="


@dataclass(frozen=True, slots=True)
class Completed:
    """What a program that has ended left.

    Attributes:
        argv: The program and its arguments.
        returncode: Its exit status; negative: the number of the signal that ended it. On Windows 0 to 2**32 - 1.
        stdout: What it printed.
        stderr: What it complained.
    """

    argv: tuple[str, ...]
    returncode: int
    stdout: bytes
    stderr: bytes

    @property
    def complaint(self) -> str:
        """What it said of its failure, as one text; bytes that are no UTF-8 are replaced."""
        return (self.stderr.strip() or self.stdout.strip()).decode(errors="replace")

    def failed(self) -> SchedulerCommandFailed:
        """Return the error that tells all of it."""
        return SchedulerCommandFailed(self.argv, self.returncode, self.stdout, self.stderr)


async def read(argv: Sequence[str], *, timeout: float) -> Completed:
    """Run a program that changes nothing. It is killed when the caller is cancelled.

    Args:
        argv: The program and its arguments, handed over as they are: there is no shell.
        timeout: Seconds; then it is killed.

    Returns:
        What it left, whatever its exit status.

    Raises:
        SchedulerNotFound: There is no such program.
        SchedulerDenied: It must not be started.
        SchedulerTimedOut: It did not end in time.
        SchedulerCommandFailed: The operating system could not start it, for another reason.
    """
    call = _Call(argv, None, timeout)
    with outside():
        return await to_its_end(asyncio.to_thread(call.run), on_cancel=call.kill)


async def write(
    argv: Sequence[str], *, stdin: bytes | None = None, timeout: float, holding: Sequence[int] = ()
) -> Completed:
    """Run a program that changes something. A cancelled caller waits for its end, and is cancelled then.

    Args:
        argv: The program and its arguments, handed over as they are: there is no shell.
        stdin: What it reads, complete before it starts; None: nothing.
        timeout: Seconds; then it is killed, and what it has done by then is not known.
        holding: Open files that it inherits (POSIX): a lock stays until it has ended, even when this process is killed.

    Returns:
        What it left, whatever its exit status.

    Raises:
        SchedulerNotFound, SchedulerDenied, SchedulerTimedOut, SchedulerCommandFailed: As for `read`.
    """
    call = _Call(argv, stdin, timeout, holding)
    with outside():
        return await to_its_end(asyncio.to_thread(call.run))


class _Call:
    """One run of a program, made in a thread; `kill` may be called from another, also before it has started."""

    def __init__(self, argv: Sequence[str], stdin: bytes | None, timeout: float, holding: Sequence[int] = ()) -> None:
        self.argv, self.stdin, self.timeout, self.holding = tuple(argv), stdin, timeout, holding
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._is_killed = False

    def run(self) -> Completed:
        try:
            return self._run()
        except SystemSchedulerError:
            raise
        except OSError as error:  # no room for the temporary files
            raise SchedulerCommandFailed(self.argv, None, note=f"no temporary files can be written: {error}") from error

    def _run(self) -> Completed:
        with TemporaryFile() as given, TemporaryFile() as out, TemporaryFile() as err:
            if self.stdin is not None:
                given.write(self.stdin)
                given.flush()
                given.seek(0)
            with self._lock:
                if self._is_killed:
                    return Completed(self.argv, -signal.SIGTERM, b"", b"")  # the caller has gone
                process = self._process = self._start(given if self.stdin is not None else subprocess.DEVNULL, out, err)
            try:
                returncode = process.wait(self.timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                process.wait()
                raise SchedulerTimedOut(repr(" ".join(self.argv)), self.timeout, _SLOW) from None
            return Completed(self.argv, returncode, _content(out), _content(err))

    def kill(self) -> None:
        """End the program, and what it has started."""
        with self._lock:
            self._is_killed = True
            process = self._process
            if process is None or process.returncode is not None:
                return
            with suppress(OSError):
                if sys.platform == "win32":
                    process.kill()
                else:
                    os.killpg(process.pid, signal.SIGKILL)  # the leader of its own session, and not yet reaped

    def _start(self, given: IO[bytes] | int, out: IO[bytes], err: IO[bytes]) -> subprocess.Popen[bytes]:
        program = self.argv[0]
        try:
            return subprocess.Popen(
                self.argv,
                stdin=given,
                stdout=out,
                stderr=err,
                env={**os.environ, "LC_ALL": "C"},  # what it says is read by a program
                **_apart(self.holding),
            )
        except (FileNotFoundError, NotADirectoryError):
            raise SchedulerNotFound(program, _MISSING) from None
        except PermissionError as error:
            reason = error.strerror or str(error)
            raise SchedulerDenied(f"to start {program!r}", reason, "let this user execute it") from None
        except (OSError, ValueError) as error:  # ValueError: a NUL in an argument
            raise SchedulerCommandFailed(self.argv, None, note=str(error)) from error


def _apart(holding: Sequence[int]) -> dict[str, Any]:
    """Return what keeps the signals and the window of a terminal away from a program."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    return {"start_new_session": True, "pass_fds": holding}


def _content(file: IO[bytes]) -> bytes:
    file.seek(0)  # the program has moved the position that it shares
    return file.read()
