"""Tables and JSON on stdout, logs on stderr."""

from __future__ import annotations

import json
import logging
import os
import sys
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any

from ..context import JobFilter

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = "") -> None:
    """Print rows: with rich on a terminal where it is installed, else as plain columns."""
    if sys.stdout is not None and sys.stdout.isatty():
        try:
            _rich_table(columns, rows, title)
        except ImportError:
            pass
        else:
            return
    if title:
        print(title)
    _escape_what_cannot_be_shown()
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left")
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in rows:
        drawn.add_row(*map(Text, row))
    Console().print(drawn)  # it honours NO_COLOR itself


def _escape_what_cannot_be_shown() -> None:
    """Let a name that the encoding of stdout lacks be escaped, not refused."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def lines(texts: Iterable[str]) -> None:
    """Print lines."""
    _escape_what_cannot_be_shown()
    for text in texts:
        print(text)


def as_json(value: Any) -> None:
    """Print a value as indented JSON."""
    print(json.dumps(value, indent=2))


OWN = ("tickwork.app", "tickwork.jobs", "tickwork.scheduler", "tickwork.watchdog", "tickwork.workers")
"""The loggers of tickwork whose lines about a job name it."""

COLOURS = {logging.WARNING: "33", logging.ERROR: "31", logging.CRITICAL: "1;31"}


class _Lines(logging.Formatter):
    """One line for each record: local time with its zone, level, text; coloured on a terminal.

    What is written inside a job ends with the job. tickwork's own lines name it already.
    """

    def __init__(self, *, coloured: bool) -> None:
        super().__init__("%(asctime)s %(levelname)-8s %(message)s", "%Y-%m-%d %H:%M:%S%z")
        self._coloured = coloured

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        job_id = getattr(record, "job_id", None)
        if job_id is not None and not record.name.startswith(OWN):
            about = f"[{getattr(record, 'task', '?')} job={job_id} attempt={getattr(record, 'attempt', '?')}]"
            first, newline, rest = line.partition("\n")
            line = f"{first} {about}{newline}{rest}"
        colour = COLOURS.get(record.levelno) if self._coloured else None
        return f"\x1b[{colour}m{line}\x1b[0m" if colour else line


class _ToStderr(logging.StreamHandler[Any]):
    """Writes to what stderr is at the time: a bar stands in for it while it is drawn, so that lines move above it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stderr


def log_to_stderr(*, verbose: bool) -> None:
    """Set up logging for a program that is nothing but a tickwork app."""
    coloured = sys.stderr is not None and sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    handler = _ToStderr()
    handler.setFormatter(_Lines(coloured=coloured))
    handler.addFilter(JobFilter())
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, handlers=[handler])
    logging.getLogger("asyncio").setLevel(logging.INFO if verbose else logging.WARNING)
