"""Run functions in a pool of child processes that can be killed one by one.

    run ── encode ──► idle child ── frame ──► child.py ── frame ──► decode ──► value or error
             │             ▲                      │
             │         started on demand          ├ dies, is killed: ProcessDied, this one call only
      refused here:        │                      └ used up (max_jobs, max_memory): closed after its answer
      nothing was sent  _Child.start

A child is a fresh interpreter, joined by a socket (frames, see child.py) and a lifeline pipe whose closing
tells it that this process is dead. It has one call at a time. Two events end it here, in any order: the
process exits (a pidfd, or a thread where there is none) and the connection is lost; when both have happened,
it is gone and its place is free. Everything here happens in one event loop; only the start of a process,
which blocks, is done in a short-lived daemon thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import io
import logging
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import InvalidOption, InvalidPayload, NotImportable, NotRunning, ProcessDied, TickworkError
from . import child as wire
from .reference import Reference, main_module, reference, task_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .child import Piece

__all__ = ["ProcessRunner", "RemoteError", "RemoteTraceback"]

logger: logging.Logger = logging.getLogger("tickwork.runners")

# How long a child that should end (its socket is closed) may take for its exit handlers before it is killed,
# in seconds. An interpreter without handlers needs 10 ms.
CLOSE_SECONDS = 1.0

# After SIGKILL nothing of a process runs any more; only the kernel can still hold it, waiting for a device.
# `aclose` does not wait for such a one longer than this, in seconds.
KILL_SECONDS = 5.0

# A large piece is handed to the transport in slices: what the kernel does not take at once is copied, and a
# slice bounds the copy. The kernel takes about 200 KiB at a time.
SLICE_BYTES = 1 << 18

# Verified functions are remembered; a program has far fewer, unless it makes them.
MAX_KNOWN = 1_000


class RemoteTraceback(Exception):
    """The traceback of a child process as text; the `__cause__` of what it raised."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        """Return the text set apart, as it stands inside another traceback."""
        return f'\n"""\n{self.text}"""'


class RemoteError(TickworkError):
    """A function raised something in its child process that cannot be raised here.

    Its exception cannot be pickled, does not unpickle, or means something else where it would arrive
    (SystemExit, KeyboardInterrupt, asyncio.CancelledError, StopIteration).

    Attributes:
        function: What was running.
        error_type: The qualified name of the exception's class.
        error_message: Its text.
        traceback: The formatted traceback, as text.
    """

    function: str
    error_type: str
    error_message: str

    def __init__(self, function: str, error_type: str, error_message: str, traceback: str) -> None:
        self.function, self.error_type, self.error_message = function, error_type, error_message
        self.traceback = traceback
        super().__init__(f"{function!r} raised {error_type} in its process: {error_message}")


class _NotSent(Exception):
    """The child was gone before it had read the whole call, so that the function cannot have started."""


class _Known(NamedTuple):
    """What was found out about a function: its reference, its name for messages."""

    reference: Reference
    name: str


class _Answer(NamedTuple):
    """A frame from a child: its head without the size, and what followed."""

    kind: int
    flags: int
    buffers: int
    rest: memoryview | bytes


class ProcessRunner:
    """A pool of child processes for plain functions that are found by import name.

    Children are started when needed, up to `max_processes`, and stay warm. They are fresh interpreters with
    this process's `sys.path`, environment, working directory, stdin, stdout and stderr. They ignore SIGINT
    and SIGTERM, and end at once when this process does, however it ends.

    It belongs to the event loop of its first call; other loops and threads may not use it.

    Args:
        max_processes: The most processes at a time, from 1.
        initializer: A function without arguments, found by import name, that each child calls once before
            its first job. What it raises is raised by the `run` that waited for the child.
        max_jobs: A child is replaced after so many jobs; None: never.
        max_memory: A child is replaced when a job leaves it with more bytes resident; None: never.

    Raises:
        InvalidOption: A number is out of range.
        NotImportable: The initializer cannot be found by name.
    """

    def __init__(
        self,
        max_processes: int,
        *,
        initializer: Callable[[], object] | None = None,
        max_jobs: int | None = None,
        max_memory: int | None = None,
    ) -> None:
        _check_count("max_processes", max_processes)
        for option, value in (("max_jobs", max_jobs), ("max_memory", max_memory)):
            if value is not None:
                _check_count(option, value)
        self.max_processes = max_processes
        self._initializer = None if initializer is None else reference(initializer)
        self._max_jobs, self._max_memory = max_jobs, max_memory
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._idle: list[_Child] = []  # the last used comes last, and is used first: its caches are warm
        self._children: set[_Child] = set()  # each until it is gone
        self._slots = 0  # children, and processes that a thread is just starting
        self._starting: set[asyncio.Task[None]] = set()
        # Not bounded here: each entry is a caller that waits in `run`, and whoever calls bounds those.
        self._waiting: deque[asyncio.Future[_Child]] = deque()
        self._known: dict[Any, _Known] = {}

    @property
    def pids(self) -> list[int]:
        """The process ids of the living children, in no order."""
        return [child.pid for child in self._children if not child.has_exited]

    async def run(
        self,
        fn: Callable[..., Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        describe: str | None = None,
        context: dict[str, Any] | None = None,
        on_message: Callable[[str, Any], None] | None = None,
    ) -> Any:
        """Call `fn(*args, **kwargs)` in a child process and return what it returns.

        Waits for a free child, first come, first served. Large arguments are sent from where they are: they
        must not change while this runs.

        Cancellation kills the child that runs the function, and only that one; the function gets no chance to
        clean up. Cancelled while waiting for a child, nothing has happened.

        Args:
            fn: A plain function (or a task, which stands for its function) at the top level of a module.
            args: The positional arguments; anything that can be pickled.
            kwargs: The keyword arguments.
            describe: The name for error messages; by default "module.qualname".
            context: What `child.current_context()` returns in the function.
            on_message: Called in the loop for each `child.notify(kind, value)` of the function, in order,
                before `run` returns. What it raises goes to the loop's exception handler.

        Raises:
            NotImportable: The name of `fn` does not lead to it, here or in the child.
            InvalidOption: `fn` is an async function.
            InvalidPayload: An argument or the result cannot be pickled or unpickled; an argument that cannot
                be pickled is found out before anything is sent.
            ProcessDied: The child ended before it answered; the function may have done its work or a part.
            RemoteError: The function raised something that cannot be raised here.
            NotRunning: The runner is closed, or belongs to another event loop.
            Exception: What the function raises, with the traceback of the child as `__cause__`.
        """
        self._check_usable()
        known = self._look_up(fn)
        name = describe or known.name
        frame = _encode_call(name, known.reference, args, kwargs, context, listening=on_message is not None)
        try:
            answer = await self._ask(frame, name, on_message)
        except _NotSent:  # an idle child had just died; the next one is checked again, or new
            answer = await self._ask(frame, name, on_message, again=True)
        del frame
        return _outcome(answer, fn, name)

    async def warm(self, count: int | None = None) -> None:
        """Start children until there are `count`, at most `max_processes` (None: so many), and wait for them.

        Raises:
            ProcessDied: A child ended while it started.
            Exception: What the initializer raises.
        """
        self._check_usable()
        wanted = self.max_processes if count is None else min(count, self.max_processes)
        waits = [self._wait_for_child() for _ in range(wanted - self._slots)]
        found = await asyncio.gather(*waits, return_exceptions=True)
        errors = [entry for entry in found if isinstance(entry, BaseException)]
        for entry in found:
            if isinstance(entry, _Child):
                self._offer(entry)
        if errors:
            raise errors[0]

    async def aclose(self) -> None:
        """End all children and wait until they are gone. May be called again, and by several at a time.

        It does not wait for jobs: those still running are killed, and their `run` raises NotRunning. Idle
        children have a second for their exit handlers. Cancelled, it kills what is left and returns at once.
        """
        if self._loop is None:
            self._closed = True
            return
        self._check_loop()
        self._close(lambda child: child.close())
        try:
            await self._wait_until_gone(CLOSE_SECONDS + KILL_SECONDS)
        except BaseException:
            self.close_nowait()
            raise

    def close_nowait(self) -> None:
        """Kill all children without waiting, for an emergency exit; a loop that still turns tidies up."""
        self._close(lambda child: child.kill())

    def _close(self, end: Callable[[_Child], None]) -> None:
        self._closed = True
        self._idle.clear()
        for child in list(self._children):
            if child.is_busy():
                child.fail(NotRunning(f"the process runner was closed while it ran {child.describe!r}"))
                child.kill()
            else:
                end(child)
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_exception(NotRunning("the process runner was closed while this job waited for a child"))

    async def _wait_until_gone(self, timeout: float) -> None:
        waits: set[asyncio.Future[None]] = {child.gone for child in self._children}
        waits |= self._starting
        while waits:
            _, pending = await asyncio.wait(waits, timeout=timeout)
            if pending:
                logger.warning("%d child processes do not end although they were killed", len(pending))
                return
            waits = {child.gone for child in self._children}

    def _check_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise NotRunning("this process runner belongs to another event loop; make one for each loop")

    def _check_usable(self) -> None:
        self._check_loop()
        if self._closed:
            raise NotRunning("the process runner is closed; make a new one")
        if wire.is_importing_main():
            raise NotRunning(
                "a child process runs the script again while importing it;"
                " put what the script does under `if __name__ == '__main__':`"
            )

    def _look_up(self, fn: Callable[..., Any]) -> _Known:
        try:
            known = self._known.get(fn)
        except TypeError:  # not hashable, so no function: `reference` tells what it is
            known = None
        if known is None:
            known = _Known(reference(fn), task_name(fn))
            plain = getattr(fn, "fn", fn)
            if inspect.iscoroutinefunction(plain) or inspect.isasyncgenfunction(plain):
                raise InvalidOption("function", "a plain function", known.name, remedy="async ones run in the loop")
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[fn] = known
        return known

    async def _ask(
        self,
        frame: list[Piece],
        name: str,
        on_message: Callable[[str, Any], None] | None,
        *,
        again: bool = False,
    ) -> _Answer:
        child = await self._acquire()
        try:
            return await child.ask(frame, name, on_message)
        except _NotSent:
            if again:
                raise await child.death(name) from None
            raise
        finally:
            self._offer(child)

    async def _acquire(self) -> _Child:
        while True:
            while self._idle:
                child = self._idle.pop()
                if child.is_usable():
                    return child
            child = await self._wait_for_child()
            if child.is_usable():
                return child

    async def _wait_for_child(self) -> _Child:
        waiter: asyncio.Future[_Child] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self._fill()
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.cancelled():
                with contextlib.suppress(ValueError):
                    self._waiting.remove(waiter)
            elif waiter.exception() is None:  # a child came at the same moment
                self._offer(waiter.result())
            raise

    def _offer(self, child: _Child) -> None:
        """Give a child that has nothing to do to whoever waits longest, or keep it warm."""
        if not child.is_usable():
            return  # its end is under way, and `_forget` fills the place
        if self._closed or child.used_up:
            child.close()
            return
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(child)
                return
        self._idle.append(child)

    def _fill(self) -> None:
        """Start processes for those who wait, as far as there is room."""
        while not self._closed and len(self._waiting) > len(self._starting) and self._slots < self.max_processes:
            self._slots += 1
            task = asyncio.get_running_loop().create_task(self._start(), name="tickwork-start-process")
            self._starting.add(task)
            task.add_done_callback(self._starting.discard)

    async def _start(self) -> None:
        """Start a child and offer it; an error goes to whoever waits longest."""
        task = asyncio.current_task()
        assert task is not None
        try:
            child = await self._started_child()
        except Exception as error:
            self._starting.discard(task)
            self._report(error)
            self._fill()
        else:
            self._starting.discard(task)
            self._offer(child)

    def _report(self, error: Exception) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_exception(error)
                return
        if not self._closed:
            logger.warning("a child process could not be started: %s", error, exc_info=error)

    async def _started_child(self) -> _Child:
        loop = asyncio.get_running_loop()
        started: Future[_Process] = Future()
        try:
            threading.Thread(target=_start_process, args=(started,), name="tickwork-start-process", daemon=True).start()
            process = await asyncio.wrap_future(started)
        except BaseException:
            started.add_done_callback(_discard)
            self._slots -= 1
            raise
        child = _Child(loop, process, self._forget)
        self._children.add(child)
        try:
            await child.connect()
            if self._closed:
                raise NotRunning("the process runner was closed")
            await self._greet(child)
        except BaseException:
            child.kill()
            raise
        return child

    async def _greet(self, child: _Child) -> None:
        path = [entry or os.getcwd() for entry in sys.path]
        initializer = None if self._initializer is None else tuple(self._initializer)
        name = "the start of a child process" if self._initializer is None else str(self._initializer)
        settings = (path, main_module(), initializer, self._max_jobs, self._max_memory)
        try:
            answer = await child.ask(wire.encode(wire.START, settings), name)
        except _NotSent:
            raise await child.death(name) from None
        if answer.kind == wire.FAILURE:
            _outcome(answer, name, name)

    def _forget(self, child: _Child) -> None:
        self._children.discard(child)
        if child in self._idle:
            self._idle.remove(child)
        self._slots -= 1
        self._fill()


class _Process(NamedTuple):
    """What the starting thread hands over to the loop."""

    popen: subprocess.Popen[bytes]
    sock: socket.socket
    lifeline: int


class _Child(asyncio.BufferedProtocol):
    """One child process as its parent sees it: its connection, its one call, its end."""

    def __init__(self, loop: asyncio.AbstractEventLoop, process: _Process, on_gone: Callable[[_Child], None]) -> None:
        self.pid = process.popen.pid
        self.exit_code: int | None = None
        self.has_exited = False
        self.used_up = False  # it said that it should get no further job
        self.describe = "nothing yet"
        self.gone: asyncio.Future[None] = loop.create_future()
        self._loop, self._process, self._on_gone = loop, process, on_gone
        self._transport: asyncio.Transport | None = None
        self._is_lost = False  # the connection has ended
        self._is_ending = False  # it was told to end, by close or kill
        self._deadline: asyncio.TimerHandle | None = None
        self._reply: asyncio.Future[_Answer] | None = None
        self._on_message: Callable[[str, Any], None] | None = None
        self._paused: asyncio.Future[None] | None = None
        self._small = memoryview(bytearray(wire.BUFFER_BYTES))
        self._target = self._small  # or the memory of a frame that is larger
        self._filled = 0
        self._watch()

    def is_usable(self) -> bool:
        """Tell whether it can take a call; also notices a death of which no event has told yet."""
        return not (
            self._is_ending
            or self._is_lost
            or self._transport is None
            or self._transport.is_closing()
            or self._process.popen.poll() is not None
        )

    def is_busy(self) -> bool:
        """Tell whether it is starting or has a call that is not answered."""
        return self._transport is None or (self._reply is not None and not self._reply.done())

    async def ask(self, frame: list[Piece], name: str, on_message: Callable[[str, Any], None] | None = None) -> _Answer:
        """Send a frame and return its answer; whoever leaves before the answer came leaves a killed child.

        Raises:
            _NotSent: The connection was lost before the child had read the whole frame.
            ProcessDied: The child ended without an answer.
        """
        transport = self._transport
        assert transport is not None
        self.describe, self._on_message = name, on_message
        reply: asyncio.Future[_Answer] = self._loop.create_future()
        self._reply = reply
        try:
            if len(frame) == 1 and len(frame[0]) <= SLICE_BYTES:
                transport.write(frame[0])
                if transport.is_closing():
                    raise _NotSent
            else:
                await self._send_large(transport, frame)
            return await reply
        except BaseException:
            if not reply.done() or reply.cancelled() or reply.exception() is not None:
                self.kill()
            raise
        finally:
            self._reply = self._on_message = None

    async def _send_large(self, transport: asyncio.Transport, frame: list[Piece]) -> None:
        for piece in frame:
            view = memoryview(piece)
            for start in range(0, len(view), SLICE_BYTES):
                transport.write(view[start : start + SLICE_BYTES])
                if self._paused is not None:
                    await self._paused
                if transport.is_closing():
                    raise _NotSent

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
        self._is_ending = True
        if self._transport is not None:
            self._transport.close()

    def kill(self) -> None:
        """End it now."""
        self._is_ending = True
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
        self.gone.set_result(None)
        self.fail(ProcessDied(self.describe, self.pid, self.exit_code))
        self._on_gone(self)

    # -- the connection

    async def connect(self) -> None:
        """Hand the socket to the loop."""
        sock = self._process.sock
        try:
            sock.setblocking(False)
            if sys.platform != "win32":
                await self._loop.create_unix_connection(lambda: self, sock=sock)
            else:
                await self._loop.create_connection(lambda: self, sock=sock)
        except BaseException:
            sock.close()
            self.connection_lost(None)
            raise

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True
        self.resume_writing()
        # It was closed before all was sent, or before all was read (the kernel tells by a reset): as a child reads
        # the whole call before it starts the function, this one has not started.
        if isinstance(exc, BrokenPipeError | ConnectionResetError):
            self.fail(_NotSent())
        self._settle()

    def pause_writing(self) -> None:
        self._paused = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._paused is not None and not self._paused.done():
            self._paused.set_result(None)
        self._paused = None

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._target[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        while self._filled >= wire.HEAD.size:
            kind, flags, count, size = wire.HEAD.unpack_from(self._target)
            if not wire.READY <= kind <= wire.NOTE:
                self.kill()  # something else has written to the socket
                return
            end = wire.HEAD.size + size
            if end > len(self._target):
                whole = wire.memory(end)
                whole[: self._filled] = self._target[: self._filled]
                self._target = whole
            if self._filled < end:
                return
            self._received(_Answer(kind, flags, count, self._take(end)))

    def _take(self, end: int) -> memoryview | bytes:
        """Return the frame that ends at `end` without its head, and make room for the next."""
        if self._target is not self._small:
            rest: memoryview | bytes = self._target[wire.HEAD.size :]
            self._target = self._small
            self._filled = 0
            return rest
        rest = bytes(self._small[wire.HEAD.size : end])
        left = self._filled - end
        if left:
            self._small[:left] = bytes(self._small[end : self._filled])
        self._filled = left
        return rest

    def _received(self, answer: _Answer) -> None:
        if answer.kind == wire.NOTE:
            self._deliver(answer)
        elif self._reply is None:
            self.kill()  # an answer that nobody asked for: its state is unknown
        elif not self._reply.done():
            self.used_up = bool(answer.flags & wire.USED_UP)
            self._reply.set_result(answer)

    def _deliver(self, note: _Answer) -> None:
        if self._on_message is None:
            return  # from a thread that a job has left behind
        try:
            kind, value = _load(note)
            self._on_message(kind, value)
        except Exception as error:
            self._loop.call_exception_handler(
                {"message": f"a note of {self.describe!r} could not be delivered", "exception": error}
            )


def _start_process(started: Future[_Process]) -> None:
    if not started.set_running_or_notify_cancel():
        return
    try:
        started.set_result(_open_process())
    except BaseException as error:
        started.set_exception(error)


def _discard(started: Future[_Process]) -> None:
    """End a process that was started for nobody: who wanted it was cancelled meanwhile."""
    if started.cancelled() or started.exception() is not None:
        return
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

    def _open_process() -> _Process:
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
        return _Process(popen, sock, lifeline)

else:

    def _open_process() -> _Process:
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
        return _Process(popen, sock, lifeline)


def _check_count(option: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidOption(option, "a whole number from 1", value)


def _encode_call(
    name: str,
    where: Reference,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
    context: dict[str, Any] | None,
    *,
    listening: bool,
) -> list[Piece]:
    args, kwargs = tuple(args), dict(kwargs or {})
    try:
        return wire.encode(wire.CALL, (tuple(where), args, kwargs, context, listening))
    except Exception as error:
        _name_the_culprit(name, args, kwargs, context)
        raise InvalidPayload(f"arguments of {name}", _unpicklable(args, error)) from error


def _name_the_culprit(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], context: dict[str, Any] | None) -> None:
    entries = [(f"argument {number}", value) for number, value in enumerate(args, 1)]
    entries += [(f"argument {key!r}", value) for key, value in kwargs.items()]
    for where, value in [*entries, ("context", context)]:
        try:
            wire.encode(wire.CALL, value)
        except Exception as error:
            raise InvalidPayload(f"{where} of {name}", _unpicklable(value, error)) from error


def _unpicklable(value: object, error: Exception) -> str:
    return f"a {type(value).__qualname__} cannot be pickled for a child process: {error}"


class _MainUnpickler(pickle.Unpickler):
    """Finds what the child knows under the script's own name where it is in this process: in `__main__`."""

    def find_class(self, module: str, name: str) -> Any:
        known = main_module()
        if known is not None and known[0] == module:
            with contextlib.suppress(AttributeError):
                return super().find_class("__main__", name)
        return super().find_class(module, name)


def _load(answer: _Answer) -> Any:
    body, buffers = wire.decode(answer.rest, answer.buffers)
    return _loads(body, answer.flags, buffers)


def _loads(body: memoryview | bytes, flags: int, buffers: Sequence[memoryview] = ()) -> Any:
    if flags & wire.MAIN_LOADED:
        return _MainUnpickler(io.BytesIO(body), buffers=buffers).load()
    return pickle.loads(body, buffers=buffers)


def _outcome(answer: _Answer, fn: object, name: str) -> Any:
    """Return the value that an answer carries, or raise its error."""
    if answer.kind == wire.RESULT:
        try:
            return _load(answer)
        except Exception as failure:
            reason = f"it cannot be unpickled: {type(failure).__qualname__}: {failure}"
            raise InvalidPayload(f"result of {name}", reason) from failure
    stage, kind, message, text, pickled = _load(answer)
    cause = RemoteTraceback(text)
    if stage == "arguments":
        reason = f"they cannot be unpickled in the child process: {kind}: {message}"
        raise InvalidPayload(f"arguments of {name}", reason) from cause
    if stage == "result":
        reason = f"a {kind} cannot be pickled in the child process: {message}"
        raise InvalidPayload(f"result of {name}", reason) from cause
    error: Exception = _original(pickled, answer.flags) or RemoteError(name, kind, message, text)
    if stage == "import" and not isinstance(error, NotImportable):
        error = NotImportable(fn, f"its child process got {kind}: {message}")
    if stage == "initializer":
        error.add_note(f"raised by {name!r}, the initializer of the process runner")
    raise error from cause


def _original(pickled: bytes | None, flags: int) -> Exception | None:
    """Return the exception of the child, or None where it cannot be had or must not be raised here.

    SystemExit and KeyboardInterrupt would end this process, CancelledError would look like a cancellation,
    and a coroutine cannot raise StopIteration.
    """
    if pickled is None:
        return None
    try:
        error = _loads(pickled, flags)
    except Exception:
        return None
    if not isinstance(error, Exception) or isinstance(error, StopIteration | StopAsyncIteration):
        return None
    return error
