"""Run an app as the last thing that the command does."""

from __future__ import annotations

import sys
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any

from ..program import CUT, leave
from ..program import run as run_program

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..app import App


def run_app(app: App, *, at_end: Callable[[int], None] | None = None, **settings: Any) -> int:
    """Run an app and return the exit status; see `program.run`.

    Args:
        app: The app.
        at_end: Called with the status when it has ended, also where the process does not return from here.
        **settings: Those of `program.run`.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # what jobs print is seen when they print it
    status = run_program(app, is_last=True, **settings)
    if at_end is not None:
        at_end(status)
    if status == CUT:
        leave(status)  # a thread that was left behind must not hold the exit
    return status
