"""Start the process of a child: a fresh interpreter, a socket to speak through, and its lifeline."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from concurrent.futures import Future
from typing import NamedTuple


class Process(NamedTuple):
    """A process that was started, and this end of what joins it."""

    popen: subprocess.Popen[bytes]
    sock: socket.socket
    lifeline: int


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


if sys.platform != "win32":

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
            descriptors = (child_sock.fileno(), child_lifeline)
            popen = subprocess.Popen(_command(f"main{descriptors}"), pass_fds=descriptors)
            ours.pop_all()
        return Process(popen, sock, lifeline)

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
