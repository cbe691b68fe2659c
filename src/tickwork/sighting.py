"""A look at the thread of an event loop from another one: who has the loop at this moment."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from .frames import MAX_TEXT, Place, chain, deepest_own, places, suspended

if TYPE_CHECKING:
    from contextvars import Context as Variables

_RUN_HANDLE = asyncio.Handle._run.__code__
_TURN = asyncio.BaseEventLoop._run_once.__code__  # type: ignore[attr-defined]

Token = tuple[int, int, object]
"""Who has a loop, for comparing. Numbers, no references: those would keep a job's variables alive, and let what they
hold be finalized in the wrong thread."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """Who had a loop at one moment.

    Attributes:
        token: Tells it from others.
        task: The task that ran; None: a callback.
        handle: asyncio's handle of it, with the context variables; None on other loops.
        stack: What the loop called, the outermost first, below the await at which the task's step has ended, if it has;
            empty for a callback that is no Python code.
        place: The deepest line in code of the user's, or the deepest one.
    """

    token: Token
    task: asyncio.Task[Any] | None
    handle: Any
    stack: list[Place]
    place: Place | None

    @property
    def variables(self) -> Variables | None:
        """The context variables it ran with, where they can be seen: not on uvloop before Python 3.12."""
        if self.task is not None and sys.version_info >= (3, 12):
            return self.task.get_context()
        found: Variables | None = getattr(self.handle, "_context", None)
        return found

    @property
    def who(self) -> str:
        """Its name: "task 'Task-7' (main.handler)" or "callback main.tick"."""
        if self.task is not None:
            return f"task {self.task.get_name()[:MAX_TEXT]!r} ({_name(self.task.get_coro())})"
        if self.stack:
            return f"callback {self.stack[0].function[:MAX_TEXT]}"
        return "callback" if self.handle is None else f"callback {_name(getattr(self.handle, '_callback', None))}"

    @property
    def line(self) -> str | None:
        """Its line with the text. Reads the file."""
        return None if self.place is None else f"{self.place}: {self.place.source}".removesuffix(": ")


def is_legible(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether the stack shows if a loop is in a callback: asyncio's own is Python code, uvloop is not."""
    return isinstance(loop, asyncio.BaseEventLoop)


def sight(loop: asyncio.AbstractEventLoop, thread_id: int, depth: int, *, is_starved: bool) -> Sighting | None:
    """Return who has a loop; None: nobody. It does not run, waits for events, or waits for the interpreter's lock.

    Args:
        loop: The loop.
        thread_id: The thread in which it runs.
        depth: How many frames are below what it calls, for a loop that is not legible: `frames.depth` of the caller of
            a callback.
        is_starved: Whether something keeps all threads from running: such a loop may wait for the lock, too.
    """
    frames = chain(sys._current_frames().get(thread_id))
    task = asyncio.current_task(loop)
    if not frames or not loop.is_running():
        return None
    handle: Any = None
    above = frames[depth:]
    if is_legible(loop):
        turn = max((number for number, frame in enumerate(frames) if frame.f_code is _TURN), default=None)
        called = [] if turn is None else frames[turn + 1 :]
        if turn is None or (called and called[0].f_code.co_name == "select"):
            return None
        if called and called[0].f_code is _RUN_HANDLE:
            handle, above = called[0].f_locals.get("self"), called[1:]
        else:
            above = frames[turn:]  # between two callbacks, or when it logs in its debug mode
    elif not above and is_starved:
        return None
    # All tasks and handles that the loop has at one moment are there at once, so no two have the same number. A frame's
    # may return, so that calls of one function look like one; where no handle is to be seen, it is all there is.
    first = above[0] if above else frames[-1]
    token = id(task), id(first if handle is None else handle), first.f_code
    # A task's step may have ended, and what is below its await is what the loop does for it.
    stack = places([*suspended(task and task.get_coro()), *above])
    return Sighting(token, task, handle, stack, deepest_own(stack) or (stack[-1] if stack else None))


def _name(thing: object) -> str:
    """Return the name of a function or coroutine."""
    if isinstance(thing, partial):
        thing = thing.func
    try:
        module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    except Exception:  # a `__getattr__` of the user's
        module = name = None
    if not isinstance(name, str):
        name = type(thing).__qualname__
    return (f"{module}.{name}" if isinstance(module, str) else name)[:MAX_TEXT]
