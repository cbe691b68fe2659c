"""The frames between a process and its children.

A frame is a head of 16 bytes, the sizes of the buffers, the buffers, and one pickle:

    kind u8 | flags u8 | 2 unused | count u32 | size u64 || count x u64 | buffer ... | pickle

`size` counts what follows the head. Large contiguous buffers (numpy arrays) travel beside the pickle, each at
a multiple of 16 bytes, and are used where they were received. There is one call in flight; what a child
sends before its answer are notes and log records.

A child loads this module while somebody waits for its start: it imports as little as child.py does.
"""

from __future__ import annotations

import pickle
import struct
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

HEAD = struct.Struct("<BBxxIQ")

# Kinds: the first three go down to the child, the others come up. LEVELS, those of the parent's loggers, has no answer.
START, CALL, LEVELS, RESULT, FAILURE, NOTE, LOG = range(1, 8)

# Flags of an answer: the child has loaded the parent's main module; it should get no further job.
MAIN_LOADED, USED_UP = 1, 2

# What fits is received without an allocation. The kernel's socket buffers (208 KiB on Linux) bound what one
# read can bring; a quarter of that holds nearly every call.
BUFFER_BYTES = 1 << 16

# What a transport cannot send at once it copies; a slice bounds the copy. The kernel takes about 200 KiB at a time.
SLICE_BYTES = 1 << 18

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


_PLAIN = frozenset((type(None), bool, int, float))


def is_small(values: Iterable[Any]) -> bool:
    """Tell at a glance whether values are small and plain; most calls have none but such, and most results are one."""
    for value in values:
        kind = type(value)
        if kind not in _PLAIN and not ((kind is str or kind is bytes) and len(value) < BUFFER_BYTES):
            return False
    return True


def encode_small(kind: int, value: Any, flags: int = 0) -> list[Piece]:
    """Return the frame that carries `value`, as `encode` does, in a third of its time; what is large is copied.

    Raises:
        Exception: Whatever pickling `value` raises.
    """
    body = pickle.dumps(value, 5)
    return [HEAD.pack(kind, flags, 0, len(body)) + body]


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
    if not buffers and len(parts) == 1:  # most frames: the pickler has gathered all that is small
        return [HEAD.pack(kind, flags, 0, len(parts[0])) + parts[0]]
    table = struct.pack(f"<{len(buffers)}Q", *map(len, buffers))
    pieces: list[Piece] = []
    beside: list[Piece] = [table, *buffers]
    for piece in beside:
        pieces += [piece, bytes(-len(piece) % ALIGNMENT)]
    pieces += parts
    return _joined([HEAD.pack(kind, flags, len(buffers), sum(map(len, pieces))), *pieces])


def _joined(pieces: list[Piece]) -> list[Piece]:
    """Join neighbours that are small, because a write costs more than a short copy, and slice what is large."""
    joined: list[Piece] = []
    small: list[Piece] = []
    for piece in pieces:
        if len(piece) < BUFFER_BYTES:
            small.append(piece)
        else:
            view = memoryview(piece)
            joined += [b"".join(small), *(view[at : at + SLICE_BYTES] for at in range(0, len(view), SLICE_BYTES))]
            small = []
    return [piece for piece in [*joined, b"".join(small)] if len(piece)]


class Frame(NamedTuple):
    """A frame as it was received: its head without the size, and what followed."""

    kind: int
    flags: int
    buffers: int
    rest: memoryview | bytes

    def split(self) -> tuple[memoryview | bytes, list[memoryview]]:
        """Return the pickle and its buffers, as views of `rest`."""
        if not self.buffers:
            return self.rest, []
        view = memoryview(self.rest)
        buffers = []
        position = 8 * self.buffers
        for size in struct.unpack_from(f"<{self.buffers}Q", view):
            position += -position % ALIGNMENT
            buffers.append(view[position : position + size])
            position += size
        return view[position + -position % ALIGNMENT :], buffers


class Receiver:
    """Puts frames together from bytes; large ones stay in the memory where they arrived."""

    def __init__(self, kinds: Collection[int]) -> None:
        self._kinds = kinds
        self._small = self._target = memoryview(bytearray(BUFFER_BYTES))
        self._filled = 0

    def space(self) -> memoryview:
        """Return where the next bytes belong; after they are there, `add` says how many."""
        return self._target[self._filled :]

    def add(self, count: int) -> Frame | None:
        """Count in what has arrived and return the next frame, or None when it is not whole yet.

        After a frame there may be another one: `add(0)` until None.

        Raises:
            ValueError: What has arrived is no frame of the expected kinds.
        """
        self._filled += count
        if self._filled < HEAD.size:
            return None
        kind, flags, buffers, size = HEAD.unpack_from(self._target)
        if kind not in self._kinds:
            raise ValueError(f"no frame begins with {kind}")
        end = HEAD.size + size
        if end > len(self._target):
            whole = _memory(end)
            whole[: self._filled] = self._target[: self._filled]
            self._target = whole
        if self._filled < end:
            return None
        if self._target is self._small:
            rest: memoryview | bytes = self._small[HEAD.size : end].tobytes()
            self._filled -= end
            if self._filled:
                self._small[: self._filled] = self._small[end : end + self._filled]
        else:
            rest = self._target[HEAD.size :]
            self._target, self._filled = self._small, 0
        return Frame(kind, flags, buffers, rest)


def _memory(size: int) -> memoryview:
    """Return memory for a frame, head included; it is freed with its last view."""
    if size < MAPPED_BYTES:
        return memoryview(bytearray(size))
    import mmap

    if sys.platform != "win32":
        return memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    else:
        return memoryview(mmap.mmap(-1, size))
