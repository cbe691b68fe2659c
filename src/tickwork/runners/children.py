"""One child process as its parent sees it: its connection, its one call, its end.

Two events end a child, in any order: the process exits (a pidfd, or a thread where there is none) and the
connection is lost. When both have happened, it is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
import sys
import threading
from typing import TYPE_CHECKING, Any

from ..errors import ProcessDied
from . import wire
from .calls import load
from .logs import handle, record_of
from .lookout import Lookout

if TYPE_CHECKING:
    from collections.abc import Callable

    from .launch import Process
    from .logs import LogListener

    Listener = Callable[[str, Any], None]

# How long a child that should end (its socket is closed) may take for its exit handlers before it is killed,
# in seconds. An interpreter without handlers needs 10 ms.
CLOSE_SECONDS = 1.0

# How long the notes and log records of one child are handled before all else on the loop has a turn, in seconds: time
# for about fifty. What waits, waits in the socket, and then the child does: nothing grows.
TURN_SECONDS = 0.001


_NUMBERS = struct.Struct("qq")


class NotSent(Exception):
    """The child was gone before it had read the whole call, so that the function cannot have started."""


class Child(asyncio.BufferedProtocol):
    """One child process as its parent sees it: its connection, its one call, its end."""

    def __init__(self, process: Process, on_gone: Callable[[Child], None]) -> None:
        self.pid: int = process.popen.pid
        self.exit_code: int | None = None
        self.has_exited: bool = False
        self.used_up: bool = False  # it said that it should get no further job
        self.describe: str = "nothing yet"
        self.levels: dict[str, int] | None = None  # those that it was told
        self._loop = asyncio.get_running_loop()
        self.gone: asyncio.Future[None] = self._loop.create_future()
        self._process, self._on_gone = process, on_gone
        self._position: tuple[int, int] | None = None
        self._transport: asyncio.Transport | None = None
        self._is_lost = False  # the connection has ended
        self._is_behind = False  # there are frames that have arrived and wait for the loop's next turn
        self._deadline: asyncio.TimerHandle | None = None
        self._reply: asyncio.Future[wire.Frame] | None = None
        self._on_message: Listener | None = None
        self._on_log: LogListener = handle
        self._paused: asyncio.Future[None] | None = None
        self._lookout = Lookout()
        self._receiver = wire.Receiver((wire.RESULT, wire.FAILURE, wire.NOTE, wire.LOG))
        self._watch()

    @property
    def position(self) -> tuple[int, int] | None:
        """The two numbers that are shared with the child, the last ones when it has died; None: it shares none."""
        if self._process.position is not None and not self.gone.done():
            self._position = _NUMBERS.unpack_from(self._process.position)
        return self._position

    def set_position(self, first: int, second: int) -> None:
        """Set the two numbers, before a call."""
        if self._process.position is not None:
            _NUMBERS.pack_into(self._process.position, 0, first, second)

    def is_usable(self) -> bool:
        """Tell whether it can take a call: no event has told of its end."""
        transport = self._transport
        return transport is not None and not transport.is_closing() and not self.has_exited

    def is_alive(self) -> bool:
        """Ask the system whether it lives: it may have died, and no event has told of it yet. That costs a call."""
        return self._process.popen.poll() is None

    def is_busy(self) -> bool:
        """Tell whether it is starting or has a call that is not answered."""
        return self._transport is None or (self._reply is not None and not self._reply.done())

    async def ask(
        self,
        frame: list[wire.Piece],
        name: str,
        on_message: Listener | None = None,
        on_log: LogListener = handle,
    ) -> wire.Frame:
        """Send a frame and return its answer; whoever leaves before the answer came leaves a killed child.

        Raises:
            NotSent: The connection was lost before the child had read the whole frame.
            ProcessDied: The child ended without an answer.
            Exception: What `fail` was given.
        """
        transport = self._transport
        assert transport is not None
        self.describe, self._on_message, self._on_log = name, on_message, on_log
        reply: asyncio.Future[wire.Frame] = self._loop.create_future()
        self._reply = reply
        try:
            for piece in frame:
                transport.write(piece)
                if self._paused is not None:
                    await self._paused
                if transport.is_closing():
                    self.fail(NotSent())
                    break
            if self._lookout.is_due() and self._lookout.look(self._has_answered) and self._lookout.is_turn_of_others():
                await asyncio.sleep(0)
            return await reply
        except BaseException:
            if not reply.done() or reply.cancelled() or reply.exception() is not None:
                self.kill()
            raise
        finally:
            self._reply = self._on_message = None
            self._on_log = handle

    async def death(self, name: str) -> ProcessDied:
        """Wait until it is gone, and return the error that tells of it."""
        await self.gone
        return ProcessDied(name, self.pid, self.exit_code)

    def fail(self, error: Exception) -> None:
        """Let the call that is under way, if there is one, end with `error`."""
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(error)

    def close(self) -> None:
        """Let it end by itself; it is killed when it takes longer than CLOSE_SECONDS."""
        if self._transport is not None:
            self._transport.close()

    def kill(self) -> None:
        """End it now."""
        with contextlib.suppress(OSError):
            self._process.popen.kill()
        if self._transport is not None and not self._loop.is_closed():
            self._transport.abort()

    # -- the process

    def _watch(self) -> None:
        if sys.platform == "linux":
            with contextlib.suppress(OSError):  # old kernels and some sandboxes refuse
                descriptor = os.pidfd_open(self.pid)
                self._loop.add_reader(descriptor, self._on_pidfd, descriptor)
                return
        threading.Thread(target=self._wait, name="tickwork-wait-process", daemon=True).start()

    def _on_pidfd(self, descriptor: int) -> None:
        self._loop.remove_reader(descriptor)
        os.close(descriptor)
        self._on_exit()

    def _wait(self) -> None:
        self._process.popen.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed; nobody is left to be told
            self._loop.call_soon_threadsafe(self._on_exit)

    def _on_exit(self) -> None:
        self.exit_code = self._process.popen.wait()  # it has ended: this only collects the status
        self.has_exited = True
        self._settle()

    def _settle(self) -> None:
        """After one of the two ends: wait for the other, but not for long. After both: be gone."""
        if self.gone.done():
            return
        if not (self.has_exited and self._is_lost):
            # Exited, but connected: an answer may still be unread, or a process that the job made holds the
            # socket. Lost, but running: exit handlers, or a job that has closed what is not its own.
            if self._deadline is None:
                self._deadline = self._loop.call_later(CLOSE_SECONDS, self.kill)
            return
        if self._deadline is not None:
            self._deadline.cancel()
        os.close(self._process.lifeline)
        if self._process.position is not None:
            self._position = self.position
            self._process.position.close()
        self.gone.set_result(None)
        self.fail(ProcessDied(self.describe, self.pid, self.exit_code))
        self._on_gone(self)

    # -- the connection

    async def connect(self) -> None:
        """Hand the socket to the loop."""
        sock = self._process.sock
        try:
            sock.setblocking(False)
            await self._loop.create_connection(lambda: self, sock=sock)
        except BaseException:
            sock.close()
            self.connection_lost(None)
            raise

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: frames can be sent."""
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        """Note one of the two ends."""
        self._is_lost = True
        self.resume_writing()
        # It was closed before all was sent, or before all was read (the kernel tells by a reset): as a child reads
        # the whole call before it starts the function, this one has not started.
        if isinstance(exc, BrokenPipeError | ConnectionResetError):
            self.fail(NotSent())
        self._settle()

    def pause_writing(self) -> None:
        """Let `ask` wait: the child reads more slowly than it sends."""
        self._paused = self._loop.create_future()

    def resume_writing(self) -> None:
        """Let `ask` go on."""
        if self._paused is not None and not self._paused.done():
            self._paused.set_result(None)
        self._paused = None

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next bytes belong."""
        return self._receiver.space()

    def buffer_updated(self, nbytes: int) -> None:
        """Take in what has arrived."""
        if not self._take(nbytes) and self._transport is not None:
            self._is_behind = True
            self._transport.pause_reading()

    def _has_answered(self) -> bool:
        """Take in what has arrived, without waiting for the loop, and tell whether the call has ended."""
        if not self._is_behind:
            try:
                got = self._process.sock.recv_into(self._receiver.space())
            except ConnectionResetError:
                got = 0
                self.fail(NotSent())  # the kernel tells of it once: the transport will only see an end
            except OSError:
                got = 0  # nothing yet; or the end, of which the transport tells
            if got:
                self.buffer_updated(got)
        return self._reply is None or self._reply.done()

    def _go_on(self) -> None:
        transport = self._transport
        if transport is not None and not transport.is_closing() and self._take(0):
            self._is_behind = False
            transport.resume_reading()

    def _take(self, nbytes: int) -> bool:
        """Take in frames for some time; return whether all are, else it goes on in the loop's next turn."""
        until = 0.0
        try:
            frame = self._receiver.add(nbytes)
            while frame is not None:
                self._received(frame)
                if frame.kind in (wire.NOTE, wire.LOG):
                    now = self._loop.time()
                    if not until:
                        until = now + TURN_SECONDS
                    elif now >= until:
                        self._loop.call_soon(self._go_on)
                        return False
                frame = self._receiver.add(0)
        except ValueError:
            self.kill()  # something else has written to the socket
        return True

    def _received(self, answer: wire.Frame) -> None:
        if answer.kind == wire.NOTE:
            self._deliver(answer)
        elif answer.kind == wire.LOG:
            self._log(answer)
        elif self._reply is None:
            self.kill()  # an answer that nobody asked for: its state is unknown
        elif not self._reply.done():
            self.used_up = bool(answer.flags & wire.USED_UP)
            self._reply.set_result(answer)

    def _deliver(self, note: wire.Frame) -> None:
        if self._on_message is None:
            return  # from a thread that a job has left behind
        try:
            kind, value = load(note)
            self._on_message(kind, value)
        except Exception as error:
            self._loop.call_exception_handler(
                {"message": f"a note of {self.describe!r} could not be delivered", "exception": error}
            )

    def _log(self, frame: wire.Frame) -> None:
        try:
            self._on_log(record_of(frame))
        except Exception as error:  # a filter or a handler of the user's that raises
            self._loop.call_exception_handler(
                {"message": f"a log record of {self.describe!r} could not be handled", "exception": error}
            )
