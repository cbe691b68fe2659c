"""The child's side of the process runner, and the frames that both sides speak.

A child is a fresh interpreter with one loop: read a call, run it, answer. It imports as little as it can
(no asyncio, nothing else of tickwork), because its start is a cost that users wait for.

A frame is a head of 16 bytes, the sizes of the buffers, the buffers, and one pickle:

    kind u8 | flags u8 | 2 unused | count u32 | size u64 || count x u64 | buffer ... | pickle

`size` counts what follows the head. Large contiguous buffers (numpy arrays) travel beside the pickle, each at
a multiple of 16 bytes, and are used where they were received. There is one call in flight; what a child
sends before its answer are notes. A child leaves

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
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .reference import MAIN_NAMES, Reference, import_main, resolve

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

HEAD = struct.Struct("<BBxxIQ")

# Kinds: the first two go down to the child, the others come up.
START, CALL, READY, RESULT, FAILURE, NOTE = range(1, 7)

# Flags of an answer: the child has loaded the parent's main module; it should get no further job.
MAIN_LOADED, USED_UP = 1, 2

# What fits is received without an allocation. The kernel's socket buffers (208 KiB on Linux) bound what one
# read can bring; a quarter of that holds nearly every call.
BUFFER_BYTES = 1 << 16

# From this size on, memory for a frame is mapped. A bytearray is filled with zeros, which for 50 MB stops the
# loop for as long as the kernel needs to find the pages; a mapping finds each page when data arrives for it.
MAPPED_BYTES = 1 << 20

# Numpy wants its data aligned; malloc gives no more than this.
ALIGNMENT = 16

Piece = bytes | bytearray | memoryview


class _Sink:
    """A file for the pickler that keeps large bytes objects as they are, uncopied."""

    __slots__ = ("write",)

    def __init__(self, write: Callable[[Any], None]) -> None:
        self.write = write


def encode(kind: int, value: Any, flags: int = 0) -> list[Piece]:
    """Return the frame that carries `value`, in pieces to be sent in this order.

    Large pieces are the caller's own memory: it must not change before it is sent.

    Raises:
        Exception: Whatever pickling `value` raises.
    """
    parts: list[Piece] = []
    buffers: list[memoryview] = []

    def keep(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < BUFFER_BYTES:
            return True  # True: into the pickle, where a small one costs less
        buffers.append(raw)
        return False

    pickle.Pickler(_Sink(parts.append), 5, buffer_callback=keep).dump(value)
    if not buffers and len(parts) == 1:
        return [HEAD.pack(kind, flags, 0, len(parts[0])) + parts[0]]
    table = struct.pack(f"<{len(buffers)}Q", *map(len, buffers))
    pieces: list[Piece] = [table, _padding(table)]
    for buffer in buffers:
        pieces += [buffer, _padding(buffer)]
    pieces += parts
    return _joined([HEAD.pack(kind, flags, len(buffers), sum(map(len, pieces))), *pieces])


def decode(rest: memoryview | bytes, count: int) -> tuple[memoryview | bytes, list[memoryview]]:
    """Split what follows a head into the pickle and its buffers, as views of `rest`."""
    if not count:
        return rest, []
    view = memoryview(rest)
    table = view[: 8 * count]
    position = 8 * count + len(_padding(table))
    buffers = []
    for size in struct.unpack(f"<{count}Q", table):
        buffers.append(view[position : position + size])
        position += size + -size % ALIGNMENT
    return view[position:], buffers


def memory(size: int) -> memoryview:
    """Return memory for a frame of `size` bytes, head included; it is freed with its last view."""
    if size < MAPPED_BYTES:
        return memoryview(bytearray(size))
    import mmap

    if sys.platform != "win32":
        return memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    else:
        return memoryview(mmap.mmap(-1, size))


def _padding(piece: Piece) -> bytes:
    return bytes(-len(piece) % ALIGNMENT)


def _joined(pieces: list[Piece]) -> list[Piece]:
    """Join neighbours that are small: a write costs more than a short copy."""
    joined: list[Piece] = []
    small: list[Piece] = []
    for piece in pieces:
        if len(piece) < BUFFER_BYTES:
            small.append(piece)
            continue
        joined += [b"".join(small), piece]
        small = []
    return [piece for piece in [*joined, b"".join(small)] if len(piece)]


class _Job:
    """What the running job may ask for."""

    def __init__(self, context: dict[str, Any] | None, listening: bool) -> None:
        self.context, self.listening = context, listening


class _Channel:
    """The child's end of the socket: blocking reads by one thread, writes by any."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._writing = threading.Lock()  # notes may come from threads of the job
        self._small = bytearray(BUFFER_BYTES)

    def receive(self) -> tuple[int, int, memoryview] | None:
        """Return kind, buffer count and rest of the next frame, or None when the parent has closed.

        A short rest is a view of the receive buffer, valid until the next call.
        """
        target = memoryview(self._small)
        filled, end = 0, HEAD.size
        while filled < end:
            # Only one frame is ever under way, so reading beyond the head takes nothing from the next one.
            got = self._read(target[filled:])
            if not got:
                return None
            filled += got
        kind, _, count, size = HEAD.unpack_from(target)
        end += size
        if end > len(target):
            whole = memory(end)
            whole[:filled] = target[:filled]
            target = whole
        while filled < end:
            got = self._read(target[filled:end])
            if not got:
                return None
            filled += got
        return kind, count, target[HEAD.size : end]

    def _read(self, target: memoryview) -> int:
        try:
            return self.sock.recv_into(target)
        except OSError:
            return 0  # a parent that died with unread data resets the connection: closed as well

    def send(self, pieces: list[Piece]) -> None:
        """Send a frame.

        Raises:
            OSError: The parent is gone.
        """
        with self._writing:
            for piece in pieces:
                self.sock.sendall(piece)


class _Child:
    """One child process: what it was started with, and its loop."""

    def __init__(self, channel: _Channel) -> None:
        self.channel = channel
        self.job: _Job | None = None
        self.importing_main = False
        self._main: tuple[str, str | None] | None = None
        self._main_loaded = False
        self._max_jobs: int | None = None
        self._max_memory: int | None = None
        self._jobs = 0
        self._functions: dict[Reference, Callable[..., Any]] = {}

    def serve(self) -> None:
        """Answer frames until the parent closes the socket."""
        while (frame := self.channel.receive()) is not None:
            kind, count, rest = frame
            answer = self._start(rest) if kind == START else self._call(rest, count)
            for stream in (sys.stdout, sys.stderr):
                # No stream, a closed one or a broken pipe: the job's result still counts.
                with suppress(AttributeError, OSError, ValueError):
                    stream.flush()  # what a job has printed stands before its result
            try:
                self.channel.send(answer)
            except OSError:
                return  # the parent is gone
            del answer  # memory of the last job is not kept through the idle time

    def main_attribute(self, name: str) -> Any:
        """Look up what a pickle of the parent calls `__main__.name`; imports that module when needed."""
        if self._main is None or name.startswith("__"):
            raise AttributeError(f"module '__main__' has no attribute {name!r}")
        return getattr(self._import_main(), name)

    def _import_main(self) -> Any:
        assert self._main is not None
        self.importing_main = True
        try:
            module = import_main(*self._main)
            self._main_loaded = True
            return module
        finally:
            self.importing_main = False

    def _start(self, rest: memoryview) -> list[Piece]:
        path, self._main, initializer, self._max_jobs, self._max_memory = pickle.loads(rest)
        sys.path[:] = path
        try:
            if initializer is not None:
                self._function(Reference(*initializer))()
        except BaseException as error:
            return _failure("initializer", error)
        return encode(READY, None)

    def _call(self, rest: memoryview, count: int) -> list[Piece]:
        self._jobs += 1
        stage = "arguments"
        try:
            body, buffers = decode(rest, count)
            where, args, kwargs, context, listening = pickle.loads(body, buffers=buffers)
            del body, buffers
            rest.release()  # a large frame is not kept while the job runs
            stage = "import"
            function = self._function(Reference(*where))
            stage = "call"
            self.job = _Job(context, listening)
            try:
                result = function(*args, **kwargs)
            finally:
                self.job = None
            del args, kwargs
            stage = "result"
            return encode(RESULT, result, self._flags())
        except BaseException as error:
            kind = _class_name(type(result)) if stage == "result" else ""
            # SystemExit and KeyboardInterrupt too: how a function ends is its job's affair, not the child's.
            return _failure(stage, error, self._flags(), kind)

    def _function(self, where: Reference) -> Callable[..., Any]:
        function = self._functions.get(where)
        if function is None:
            if (where.module, where.path) == self._main:
                self._import_main()
            function = self._functions[where] = resolve(where)
        return function

    def _flags(self) -> int:
        flags = 0
        if self._main_loaded:
            flags |= MAIN_LOADED
        if self._is_used_up():
            flags |= USED_UP
        return flags

    def _is_used_up(self) -> bool:
        if self._max_jobs is not None and self._jobs >= self._max_jobs:
            return True
        return self._max_memory is not None and _memory() > self._max_memory


_child: _Child | None = None


def current_context() -> dict[str, Any] | None:
    """Return the context that was given to the running job, or None outside of a job or without one."""
    job = _child.job if _child is not None else None
    return job.context if job is not None else None


def notify(kind: str, value: Any) -> None:
    """Send a note to whoever awaits the running job; without a listener nothing is sent.

    Any thread of the job may call it. Notes arrive in order, all of them before the result. What a left-over
    thread sends after the end of its job is dropped, or counts for the next job of the same child.

    Raises:
        Exception: Whatever pickling `value` raises.
        OSError: The parent is gone.
    """
    if _child is not None and _child.job is not None and _child.job.listening:
        _child.channel.send(encode(NOTE, (kind, value)))


def is_importing_main() -> bool:
    """Tell whether this is a child that is just importing its parent's script."""
    return _child is not None and _child.importing_main


def main(socket_fd: int, lifeline: int) -> None:
    """Serve the parent on the other end of the two descriptors, until it closes the socket."""
    sock = socket.socket(fileno=socket_fd)
    sock.set_inheritable(False)
    os.set_inheritable(lifeline, False)
    _run(sock, lifeline)


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


def _run(sock: socket.socket, lifeline: int) -> None:
    global _child
    _ignore_signals()
    _follow(lifeline)
    child = _child = _Child(_Channel(sock))
    _stand_in_for_main(child)
    _keep_forks_apart(sock, lifeline)
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


def _failure(stage: str, error: BaseException, flags: int = 0, kind: str = "") -> list[Piece]:
    """Return the frame that tells of an error: always as text, and as the exception where it can be pickled.

    `kind` is the class name to report, by default that of the error; for a result, that of the result.
    """
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
    return encode(FAILURE, (stage, kind or _class_name(type(error)), message, text, pickled), flags)


def _class_name(kind: type) -> str:
    prefix = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return prefix + kind.__qualname__
