"""Progress bars on a terminal, drawn by rich in a thread of their own.

All batches of a process share one display, with a bar each: two displays on one terminal would tear each other. What
has ended moves up as a line that stays.

The thread is there because a terminal can be stopped (Ctrl-S), which must stop people's view and not the loop, and
because importing rich takes longer than a loop may be held. It draws ten times a second while there are bars.
"""

from __future__ import annotations

import logging
import sys
import threading
from contextvars import copy_context
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ..clock import outside
from ..runners.thread import ThreadRunner
from .progress import BatchProgress, words

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

logger: logging.Logger = logging.getLogger("tickwork.batch")

DRAW_SECONDS = 0.1
CLOSE_SECONDS = 1.0
"""How long the end of a batch waits for its last state to be drawn: much longer than that takes, unless the terminal
is stopped."""


class Bar:
    """One batch on the display."""

    def __init__(self, name: str) -> None:
        self.name: str = name
        self.progress: BatchProgress = BatchProgress(0, 0, None, 0.0)
        self.is_over: bool = False
        self.drawn: threading.Event = threading.Event()
        """Set when its last state is on the terminal, or nothing more will be."""

    def show(self, progress: BatchProgress) -> None:
        """Leave it for the thread, which looks at it ten times a second."""
        self.progress = progress

    async def close(self, progress: BatchProgress) -> None:
        """Let the last state be drawn, and wait for that: what the program prints next stands below it.

        Cancelled, it is drawn all the same, and nobody waits for it.
        """
        self.progress, self.is_over = progress, True
        _display.wake()
        threads = ThreadRunner()  # the display's own thread cannot tell when to give up while it is held
        drawn = threads.start(copy_context(), self.drawn.wait, (CLOSE_SECONDS,), {})
        threads.close()
        with outside():
            await drawn


class _Display:
    """The bars of this process, and the thread that draws them, which lives as long as there are any."""

    def __init__(self) -> None:
        self._bars: list[Bar] = []
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._turn = threading.Lock()
        """A thread that is just clearing the display lets the next one wait."""

    def add(self, bar: Bar) -> None:
        with self._lock:
            self._bars.append(bar)
            if len(self._bars) == 1:
                threading.Thread(target=self._serve, name="tickwork-bars", daemon=True).start()

    def wake(self) -> None:
        self._woken.set()

    def _serve(self) -> None:
        try:
            with self._turn:
                self._draw()
        except Exception as error:  # the terminal is gone, say
            logger.warning("the progress bars cannot be drawn any more: %r", error)
            with self._lock:
                left, self._bars = self._bars, []
            for bar in left:
                bar.drawn.set()

    def _draw(self) -> None:
        drawing = _drawing()
        tasks: dict[Bar, TaskID] = {}
        over: list[Bar] = []
        drawing.start()
        try:
            while True:
                with self._lock:
                    bars = list(self._bars)
                for bar in bars:
                    is_over = bar.is_over  # before its state is read: what is over has its last state
                    _update(drawing, tasks, bar)
                    if is_over:
                        over.append(bar)
                        _leave_above(drawing, tasks.pop(bar))
                drawing.refresh()
                if over and self._drop(over):
                    return
                self._woken.wait(DRAW_SECONDS)
                self._woken.clear()
        finally:
            drawing.stop()
            for bar in over:
                bar.drawn.set()

    def _drop(self, over: list[Bar]) -> bool:
        """Forget bars whose batches are over, and return whether none is left."""
        with self._lock:
            self._bars = [bar for bar in self._bars if bar not in over]
            if not self._bars:
                return True  # they are told when the display has been cleared
        for bar in over:
            bar.drawn.set()
        over.clear()
        return False


_display = _Display()


def bar(name: str) -> Bar | None:
    """Return a new bar on the display; None: rich is not installed."""
    if find_spec("rich") is None:
        return None
    made = Bar(name)
    _display.add(made)
    return made


def _drawing() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    # What jobs print moves above the bars, but never from a stdout that goes elsewhere onto the terminal.
    to_terminal = sys.stdout is not None and sys.stdout.isatty()
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[words]}", markup=False),
        console=Console(stderr=True),
        auto_refresh=False,
        transient=True,
        redirect_stdout=to_terminal,
    )


def _update(drawing: Progress, tasks: dict[Bar, TaskID], bar: Bar) -> None:
    state = bar.progress
    total = state.done if state.total is None and bar.is_over else state.total  # a bar that moves no more
    fields: dict[str, Any] = {"total": total, "completed": state.done, "words": words(state)}
    if bar in tasks:
        drawing.update(tasks[bar], **fields)
    else:
        tasks[bar] = drawing.add_task(bar.name, **fields)


def _leave_above(drawing: Progress, task: TaskID) -> None:
    """Print a bar for good, above those that go on."""
    ended = drawing.make_tasks_table([entry for entry in drawing.tasks if entry.id == task])
    drawing.remove_task(task)
    drawing.console.print(ended)
