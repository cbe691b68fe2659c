"""The child's side of the process runner.

A child is a fresh interpreter with one loop: read a call, run it, answer. It imports as little as it can
(no asyncio, nothing else of tickwork), because its start is a cost that users wait for. It leaves

- when its socket closes: the parent wants no more of it; exit handlers run;
- when its lifeline closes: the parent is dead, and so is the child at once, also in the middle of a job.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import struct
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from contextvars import ContextVar, copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from ..elapsed import elapsed
from . import wire
from .at_import import when_imported
from .reference import MAIN_NAMES, Reference, import_main, resolve, resolve_any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from .away import Notes


NOTE_SECONDS = 0.25
"""How long the notes that may wait do so after others have been sent: people look no oftener, and a job that has a
hundred thousand of them must not send each."""


LOOK_SECONDS = 0.0002
"""As long as calls follow answers within this time, the next one is looked for and not slept for: to be woken up takes
50 us and more where the processor has nothing else to do. A child without calls sleeps."""
CAN_LOOK = hasattr(socket, "MSG_DONTWAIT") and hasattr(os, "sched_yield")


class _Child:
    """One child process: what it was started with, and its loop."""

    def __init__(self, sock: socket.socket) -> None:
        self.context: dict[str, Any] | None = None  # of the running job
        self.is_listening = False  # whether somebody wants its notes
        self.is_importing_main = False
        self.is_in_call = False  # whether the parent waits for an answer
        self._sock = sock
        self._is_hurried = False  # the last call has come soon after an answer
        self._writing = threading.RLock()  # notes may come from threads of the job
        self._is_writing = False
        self._outgoing: deque[list[wire.Piece]] = deque()
        self._receiver = wire.Receiver((wire.START, wire.CALL, wire.LEVELS))
        self._levels: dict[str, int] = {}
        self._is_forwarding = False
        self._main: tuple[str, str | None] | None = None
        self._main_loaded = False
        self._max_jobs: int | None = None
        self._max_memory: int | None = None
        self._jobs = 0
        self._functions: dict[tuple[Any, ...], Callable[..., Any]] = {}  # by reference
        self._variables: dict[Reference, ContextVar[Any]] = {}
        self._notes: deque[Callable[[], None]] = deque()  # that may wait
        self._sending = threading.Lock()
        self._has_notes: threading.Event | None = None
        self.position_fd: int | None = None
        self.position: memoryview | None = None

    def serve(self) -> None:
        """Answer frames until the parent closes the socket."""
        while (frame := self._receive()) is not None:
            if frame.kind == wire.LEVELS:
                self._set_levels(pickle.loads(frame.rest))
                continue
            self.is_in_call = True
            answer = self._start(frame) if frame.kind == wire.START else self._call(frame)
            self.is_in_call = False
            for stream in (sys.stdout, sys.stderr):
                try:
                    stream.flush()  # what a job has printed stands before its result
                except (AttributeError, OSError, ValueError):
                    continue  # no stream, a closed one or a broken pipe: the result still counts
            try:
                self.send(answer)
            except OSError:
                return  # the parent is gone
            del answer  # memory of the last job is not kept through the idle time

    def _receive(self) -> wire.Frame | None:
        """Return the next frame, or None when the parent has closed."""
        if (frame := self._receiver.add(0)) is not None:
            return frame
        try:
            while got := self._read():
                if (frame := self._receiver.add(got)) is not None:
                    return frame
        except OSError:
            return None  # a parent that died with unread data resets the connection: closed as well
        return None

    def _read(self) -> int:
        """Wait for bytes, and return how many have come; 0: the parent has closed.

        Raises:
            OSError: It has died.
        """
        space, began = self._receiver.space(), elapsed()
        if self._is_hurried:
            until = began + LOOK_SECONDS
            while elapsed() < until:
                try:
                    return self._sock.recv_into(space, 0, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    os.sched_yield()
        got = self._sock.recv_into(space)
        self._is_hurried = CAN_LOOK and elapsed() - began < LOOK_SECONDS
        return got

    def send(self, pieces: list[wire.Piece]) -> None:
        """Send a frame.

        Raises:
            OSError: The parent is gone.
        """
        with self._writing:
            self._outgoing.append(pieces)
            # A signal handler or a finalizer that logs may come here while its own thread is writing below: no frame
            # may begin amid another, so the one that writes sends that, too.
            while self._outgoing and not self._is_writing:
                self._is_writing = True
                try:
                    for piece in self._outgoing.popleft():
                        self._sock.sendall(piece)
                finally:
                    self._is_writing = False

    def forward_logs(self) -> None:
        """Begin to send what jobs log to the parent; called when something has imported logging."""
        from . import forward

        self._is_forwarding = True
        forward.install()
        forward.set_levels(self._levels)

    def _set_levels(self, levels: dict[str, int]) -> None:
        self._levels = levels
        if self._is_forwarding:
            from . import forward

            forward.set_levels(levels)

    def main_attribute(self, name: str) -> Any:
        """Look up what a pickle of the parent calls `__main__.name`; imports that module when needed."""
        if self._main is None or name.startswith("__"):
            raise AttributeError(f"module '__main__' has no attribute {name!r}")
        return getattr(self._import_main(), name)

    def _import_main(self) -> Any:
        assert self._main is not None
        self.is_importing_main = True
        try:
            module = import_main(*self._main)
            self._main_loaded = True
            return module
        finally:
            self.is_importing_main = False

    def _start(self, frame: wire.Frame) -> list[wire.Piece]:
        path, self._main, initializer, self._max_jobs, self._max_memory = pickle.loads(frame.rest)
        sys.path[:] = path
        try:
            if initializer is not None:
                self.find(Reference(*initializer))()
        except BaseException as error:
            return _failure("initializer", error)
        return wire.encode(wire.RESULT, None)

    def _call(self, frame: wire.Frame) -> list[wire.Piece]:
        self._jobs += 1
        stage = "arguments"
        try:
            body, buffers = frame.split()
            where, args, kwargs, context, variables, listening = pickle.loads(body, buffers=buffers)
            del body, buffers
            if isinstance(frame.rest, memoryview):
                frame.rest.release()  # a large frame is not kept while the job runs
            stage = "import"
            function = self._functions.get(where)
            if function is None:
                function = self.find(Reference(*where))
            if variables is not None:
                stage = "context variables"
                function = self._with_variables(function, variables)
            stage = "call"
            self.context, self.is_listening = context, listening
            try:
                result = function(*args, **kwargs)
            finally:
                self.send_notes()  # before the result, after which nobody listens
                self.context, self.is_listening = None, False
            del args, kwargs
            stage = "result"
            encode = wire.encode_small if wire.is_small((result,)) else wire.encode
            return encode(wire.RESULT, result, self._flags())
        except BaseException as error:
            kind = _class_name(type(result)) if stage == "result" else ""
            # SystemExit and KeyboardInterrupt too: how a function ends is its job's affair, not the child's.
            return _failure(stage, error, self._flags(), kind)

    def _with_variables(self, function: Callable[..., Any], pickled: bytes) -> Callable[..., Any]:
        """Return the function with context variables of the parent, for one call."""
        context = copy_context()
        for where, value in pickle.loads(pickled):
            found = Reference(*where)
            if found not in self._variables:
                self._variables[found] = resolve_any(found)
            context.run(self._variables[found].set, value)
        return partial(context.run, function)

    def soon(self, send: Callable[[], None]) -> None:
        """Let a thread send a note, after a pause where it has just sent some; the end of the call is the latest."""
        self._notes.append(send)
        if self._has_notes is None:
            self._has_notes = threading.Event()
            threading.Thread(target=self._send_later, name="tickwork-notes", daemon=True).start()
        self._has_notes.set()

    def _send_later(self) -> None:
        assert self._has_notes is not None
        while True:
            self._has_notes.wait()
            self._has_notes.clear()
            self.send_notes()
            time.sleep(NOTE_SECONDS)

    def send_notes(self) -> None:
        """Send the notes that wait. One that another thread is just sending is sent when this returns."""
        if self._has_notes is None:
            return
        with self._sending, suppress(OSError):  # the parent is gone: so is this process, in a moment
            while self._notes:
                self._notes.popleft()()

    def find(self, where: Reference) -> Callable[..., Any]:
        """Return a function, imported at its first use."""
        function = self._functions.get(where)
        if function is None:
            if (where.module, where.path) == self._main:
                self._import_main()
            function = self._functions[where] = resolve(where)
        return function

    def _flags(self) -> int:
        flags = wire.MAIN_LOADED if self._main_loaded else 0
        if self._max_jobs is not None and self._jobs >= self._max_jobs:
            flags |= wire.USED_UP
        if self._max_memory is not None and _memory() > self._max_memory:
            flags |= wire.USED_UP
        return flags


_child: _Child | None = None

# What the running job tells in the process of an executor, which is no child of ours and may run several at once.
_away: ContextVar[Notes | None] = ContextVar("tickwork_away", default=None)


def go_away(notes: Notes) -> None:
    """Let what runs in these context variables be a job in the process of an executor."""
    _away.set(notes)


def away() -> Notes | None:
    """Return what goes back with a job in the process of an executor; None: nothing has travelled to where this is."""
    return _away.get()


def is_child() -> bool:
    """Return whether this process is a child of the process runner."""
    return _child is not None


def current_context() -> dict[str, Any] | None:
    """Return the context that was given to the running job, or None outside of a job or without one."""
    if (notes := _away.get()) is not None:
        return notes.context
    return None if _child is None else _child.context


def notify(kind: str, value: Any) -> None:
    """Send a note to whoever awaits the running job; without a listener nothing is sent.

    In the process of an executor the newest of each kind is sent, with the result.

    Any thread of the job may call it. Notes arrive in order, all of them before the result. What a left-over
    thread sends after the end of its job is dropped, or counts for the next job of the same child.

    Raises:
        Exception: Whatever pickling `value` raises.
        OSError: The parent is gone.
    """
    if (notes := _away.get()) is not None:
        notes.notify(kind, value)
    elif _child is not None and _child.is_listening:
        _child.send(wire.encode(wire.NOTE, (kind, value)))


def is_in_call() -> bool:
    """Tell whether this is a child process whose parent waits for an answer."""
    return _child is not None and _child.is_in_call


def send_record(state: dict[str, Any]) -> None:
    """Send a log record, as the attributes that make it anew.

    Raises:
        OSError: The parent is gone.
    """
    if _child is not None:
        _child.send(wire.encode(wire.LOG, state))


def soon(send: Callable[[], None]) -> bool:
    """Call a function that sends a note, in a moment, in a thread, and before the result of the running job.

    Any thread of the job may call it; it waits for nothing. The function must not raise.

    Returns:
        False: this is no child process, nor a job in the process of an executor.
    """
    if (notes := _away.get()) is not None:
        notes.soon(send)
        return True
    if _child is None:
        return False
    _child.soon(send)
    return True


def position() -> memoryview | None:
    """Return the memory that is shared with the parent: two numbers of 64 bits; None: there is none here.

    What they mean is up to the function and whoever called it.
    """
    if _child is None or _child.position_fd is None:
        return None
    if _child.position is None:
        import mmap  # only batches use it

        with suppress(OSError):  # a job has closed what is not its own
            _child.position = memoryview(mmap.mmap(_child.position_fd, 16)).cast("q")
    return _child.position


def function(where: tuple[Any, ...]) -> Callable[..., Any]:
    """Return the function that the parent's `look_up` has found, imported at its first use."""
    assert _child is not None, "it is called in a child process"
    return _child.find(Reference(*where))


def is_importing_main() -> bool:
    """Tell whether this is a child that is just importing its parent's script."""
    return _child is not None and _child.is_importing_main


def find(where: tuple[Any, ...], pickled: bytes | None = None) -> None:
    """Import the function that a call would run, and call nothing; also unpickle what may be given with it.

    What the import prints goes to stderr: stdout belongs to whoever asks. What it makes tickwork warn of has been said
    where it was imported first.

    Raises:
        NotImportable: The module is there, but the name is not.
        Exception: Whatever the import or the unpickling raises.
    """
    import contextlib  # only `tickwork check` asks
    import logging

    assert _child is not None, "it is called in a child process"
    logging.getLogger("tickwork").addHandler(logging.NullHandler())
    logging.getLogger("tickwork").propagate = False
    with contextlib.redirect_stdout(sys.stderr):
        _child.find(Reference(*where))
        if pickled is not None:
            pickle.loads(pickled)


def main(socket_fd: int, lifeline: int, position: int) -> None:
    """Serve the parent on the other end of the descriptors, until it closes the socket."""
    sock = socket.socket(fileno=socket_fd)
    sock.set_inheritable(False)
    os.set_inheritable(lifeline, False)
    os.set_inheritable(position, False)
    _run(sock, lifeline, position)


if sys.platform == "win32":

    def main_from_stdin() -> None:
        """Serve the parent whose shared socket comes through stdin, which then is the lifeline (untested)."""
        share = b""
        size = struct.calcsize("<I")
        while len(share) < size:
            got = os.read(0, size - len(share))
            if not got:
                return
            share += got
            if len(share) == struct.calcsize("<I"):
                size += struct.unpack("<I", share)[0]
        lifeline = os.dup(0)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        _run(socket.fromshare(share[struct.calcsize("<I") :]), lifeline)


def _run(sock: socket.socket, lifeline: int, position: int | None = None) -> None:
    global _child
    _ignore_signals()
    _follow(lifeline)
    child = _child = _Child(sock)
    child.position_fd = position
    _stand_in_for_main(child)
    _keep_forks_apart(sock, lifeline)
    when_imported("logging", child.forward_logs)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(line_buffering=True)  # lines of several children do not tear each other
    with sock:
        child.serve()


def _ignore_signals() -> None:
    """Leave Ctrl-C and a SIGTERM to the whole group to the parent, which decides when children end.

    Empty handlers and not SIG_IGN: programs that a job starts would inherit that and could not be terminated.
    """

    def ignore(_signal: int, _frame: FrameType | None) -> None:
        pass

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ignore)
    if sys.platform != "win32":  # the parent blocked them while it started this process
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))


def _follow(lifeline: int) -> None:
    """End this process as soon as the parent's end of the lifeline is closed."""

    def wait() -> None:
        try:
            os.read(lifeline, 1)
        finally:
            os._exit(1)

    if sys.platform == "linux":
        # A job that keeps the interpreter lock (a long call into C) would keep the thread from running. The
        # kernel's signal for the closed pipe, SIGIO, ends the process without asking Python.
        import fcntl

        fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    threading.Thread(target=wait, name="tickwork-lifeline", daemon=True).start()


def _stand_in_for_main(child: _Child) -> None:
    """Let unpickling find the classes that the parent's main module defines."""
    module = sys.modules["__main__"]
    for name in MAIN_NAMES:
        sys.modules[name] = module
    vars(module)["__getattr__"] = child.main_attribute


def _keep_forks_apart(sock: socket.socket, lifeline: int) -> None:
    """Let a process that a job forks be nobody's child: it must not hold the socket open or answer on it."""
    if sys.platform != "win32":
        masks: list[set[signal.Signals] | set[int]] = []

        def hold_signals() -> None:  # else one that reaches the fork before `leave` would be ignored
            masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM)))

        def release_signals() -> None:
            signal.pthread_sigmask(signal.SIG_SETMASK, masks.pop())

        def leave() -> None:
            global _child
            if _child is not None:  # in a fork of the fork there is nothing to leave
                _child = None
                sock.close()
                os.close(lifeline)
                for number in (signal.SIGINT, signal.SIGTERM):
                    signal.signal(number, signal.SIG_DFL)
            release_signals()

        os.register_at_fork(before=hold_signals, after_in_parent=release_signals, after_in_child=leave)


def _memory() -> int:
    import psutil  # only where max_memory is set: it costs 15 ms

    return int(psutil.Process().memory_info().rss)


def _failure(stage: str, error: BaseException, flags: int = 0, kind: str = "") -> list[wire.Piece]:
    """Return the frame that tells of an error. `kind` is the class to report, by default the error's; see `stage`."""
    told = told_of(error)
    return wire.encode(wire.FAILURE, (stage, kind or told.kind, told.message, told.text, told.pickled), flags)


class Told(NamedTuple):
    """What is sent of an error: always text, and the exception where it can be pickled.

    Attributes:
        kind: The name of its class.
        message: Its text.
        text: Its traceback.
        pickled: Itself; None: it cannot be pickled.
    """

    kind: str
    message: str
    text: str
    pickled: bytes | None


def told_of(error: BaseException) -> Told:
    """Return what is sent of an error. Its traceback begins below the frame that caught it."""
    import traceback  # only failures pay for it

    frames = error.__traceback__.tb_next if error.__traceback__ is not None else None
    try:
        text = "".join(traceback.format_exception(type(error), error, frames))
        message = str(error)
    except Exception as broken:
        text = message = f"<{type(error).__qualname__} whose text cannot be had: {type(broken).__qualname__}>"
    try:
        pickled = pickle.dumps(error, 5)
    except Exception:
        pickled = None
    return Told(_class_name(type(error)), message, text, pickled)


def _class_name(kind: type) -> str:
    prefix = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return prefix + kind.__qualname__
