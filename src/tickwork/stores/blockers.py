"""What a queued job waits for, as a store tells it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from datetime import datetime

MAX_HOLDERS = 100
"""So many jobs are named at the most that stand in the way of one."""


@dataclass(frozen=True, slots=True)
class Blocker:
    """One reason why a job does not start although it is due.

    Attributes:
        kind: "limit": as many jobs of its key run as may at once. "rate": as many have started as may in the period.
        key: The key that the job shares with others; "": all jobs of the task share the limit.
        held_by: The ids of jobs that stand before it, 100 at the most: those that run, and those that are next.
        frees_at: When the next job of the key may start, for a rate that is used up (UTC); None: whenever one of
            `held_by` has ended.
    """

    kind: Literal["limit", "rate"]
    key: str
    held_by: tuple[str, ...] = ()
    frees_at: datetime | None = None
