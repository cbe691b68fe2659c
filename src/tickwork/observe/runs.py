"""What runs when, where it is known how long a run takes: a rehearsal of the overlap policies, without any delay."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..policies import OverlapPolicy

__all__ = ["Rehearsal", "Run", "busiest", "rehearse"]

Run: TypeAlias = tuple[datetime, datetime]
"""When a run begins and ends (UTC)."""


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What becomes of the fire times of a schedule.

    Attributes:
        runs: What runs, in order.
        dropped: The fire times without a run of their own: skipped, or merged into a run that waits.
    """

    runs: tuple[Run, ...] = ()
    dropped: tuple[datetime, ...] = ()


def rehearse(starts: Sequence[datetime], seconds: float, overlap: OverlapPolicy) -> Rehearsal:
    """Say what would run if every run took the same time and began at once, and nothing ran at the beginning."""
    length = timedelta(seconds=seconds)
    runs: list[Run] = []
    dropped: list[datetime] = []
    for at in starts:
        begun, ends = runs[-1] if runs else (at, at)
        if at >= ends or overlap == "allow":
            runs.append((at, at + length))
        elif overlap == "replace":
            runs[-1] = (begun, at)
            runs.append((at, at + length))
        elif overlap == "queue" and begun <= at:
            runs.append((ends, ends + length))
        else:
            dropped.append(at)
    return Rehearsal(tuple(runs), tuple(dropped))


def busiest(runs: Iterable[Run]) -> tuple[int, datetime] | None:
    """Return how many of the runs go on together at the most, and since when first; None: there are no runs."""
    # At one instant, ends come before beginnings: what follows at once does not overlap.
    moves = sorted(move for begin, end in runs if begin < end for move in ((begin, 1), (end, -1)))
    now, best, since = 0, 0, None
    for at, step in moves:
        now += step
        if now > best:
            best, since = now, at
    return None if since is None else (best, since)
