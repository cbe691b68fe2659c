"""How long something takes, measured where no clock can be given: in child processes and threads.

Only for durations, and for limits of work that runs outside of the loop. What falls due, and when, is `clock.py`'s.
"""

from __future__ import annotations

from time import monotonic as elapsed
from time import monotonic_ns as elapsed_ns

__all__ = ["elapsed", "elapsed_ns"]
