"""Start the process of a child: a fresh interpreter, a socket to speak through, its lifeline, and its position.

The position is memory that both share. A child that runs many items in one call writes there which one it is at, for
next to nothing; it can be read when the child has died, and so tells which item killed it.
"""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import Future
from typing import NamedTuple


class Process(NamedTuple):
    """A process that was started, and this end of what joins it."""

    popen: subprocess.Popen[bytes]
    sock: socket.socket
    lifeline: int
    position: mmap.mmap | None = None


async def launch() -> Process:
    """Start a process, in a short-lived thread because that blocks. Cancelled, what was started is ended."""
    started: Future[Process] = Future()
    started.set_running_or_notify_cancel()  # from now on cancelling it has no effect: the thread always delivers

    def start() -> None:
        try:
            started.set_result(_open())
        except BaseException as error:
            started.set_exception(error)

    try:
        threading.Thread(target=start, name="tickwork-start-process", daemon=True).start()
        return await asyncio.wrap_future(started)
    except BaseException:
        started.add_done_callback(_discard)
        raise


def _discard(started: Future[Process]) -> None:
    if started.exception() is None:
        process = started.result()
        process.popen.kill()
        process.sock.close()
        os.close(process.lifeline)
        process.popen.wait()
        if process.position is not None:
            process.position.close()


def _command(start: str, executable: str = sys.executable) -> list[str]:
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    # -P and the order of imports: neither the working directory nor what lies beside this package may hide a
    # standard module while the parent's sys.path is not yet known.
    folder = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    code = (
        "import pickle,signal,socket,struct,sys,threading,typing;"
        f"sys.path.insert(0,{folder!r});from tickwork.runners import child;child.{start}"
    )
    return [executable, *flags, "-P", "-c", code]


POSITION_BYTES = 16
"""Two numbers of 64 bits. What they mean is up to the function that writes them and whoever called it."""


if sys.platform != "win32":

    def _shared() -> int:
        """Return a descriptor of memory that can be mapped here and in the child."""
        if sys.platform == "linux":
            descriptor = os.memfd_create("tickwork-position")
        else:
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        os.ftruncate(descriptor, POSITION_BYTES)
        return descriptor

    def _open() -> Process:
        """Start a child; in a thread of its own, because it blocks and because it changes the signal mask."""
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            sock, child_sock = socket.socketpair()
            ours.callback(sock.close)
            theirs.callback(child_sock.close)
            child_lifeline, lifeline = os.pipe()
            ours.callback(os.close, lifeline)
            theirs.callback(os.close, child_lifeline)
            # The mask is inherited: no Ctrl-C ends the child before it can ignore it.
            signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
            shared = _shared()
            theirs.callback(os.close, shared)
            position = mmap.mmap(shared, POSITION_BYTES)
            ours.callback(position.close)
            descriptors = (child_sock.fileno(), child_lifeline, shared)
            popen = subprocess.Popen(_command(f"main{descriptors}"), pass_fds=descriptors)
            ours.pop_all()
        return Process(popen, sock, lifeline, position)

else:

    def _open() -> Process:
        """Start a child; its socket is sent through its stdin, which then is the lifeline (untested)."""
        environment = {**os.environ, "__PYVENV_LAUNCHER__": sys.executable}
        # A virtual environment's python.exe starts another process; the socket must be shared with that one.
        executable = getattr(sys, "_base_executable", sys.executable)
        popen = subprocess.Popen(_command("main_from_stdin()", executable), stdin=subprocess.PIPE, env=environment)
        sock, child_sock = socket.socketpair()
        assert popen.stdin is not None
        share = child_sock.share(popen.pid)
        popen.stdin.write(struct.pack("<I", len(share)) + share)
        popen.stdin.flush()
        child_sock.close()
        lifeline = os.dup(popen.stdin.fileno())
        popen.stdin.close()
        return Process(popen, sock, lifeline)
