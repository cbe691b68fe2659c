"""What a plan shows, in sentences: for a reader who wants to know what to look at."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from ..durations import format_seconds
from ..zones import get_zone
from .words import common, shorten

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from .plan import Collision, Lane, Plan

__all__ = ["Remark", "dropped_word", "remarks", "listed", "moment", "shown"]

Kind = Literal["error", "together", "clock change", "too long", "peak"]

_YEAR_SHOWN = timedelta(days=300)  # within a shorter window a day and a month are enough


@dataclass(frozen=True, slots=True)
class Remark:
    """Something worth a look: of which kind, when or of whom, and what."""

    kind: Kind
    where: str
    what: str


def remarks(plan: Plan, *, most: int = 3) -> list[Remark]:
    """Return what is worth a look: errors, what starts together, clock changes, runs that are too long, the peak.

    Args:
        plan: The plan.
        most: How many of each kind but errors; the others are counted.
    """
    shared = len(common([lane.name for lane in plan.lanes]))
    found = [Remark("error", lane.name[shared:], lane.error) for lane in plan.lanes if lane.error is not None]
    found += _some([_collision(collision, plan, shared) for collision in plan.collisions], most, "groups")
    found += _some(_clock_changes(plan, shared), most, "changes")
    dropping = [lane for lane in plan.lanes if lane.dropped_count]
    found += _some([Remark("too long", lane.name[shared:], _too_long(lane)) for lane in dropping], most, "schedules")
    if plan.peak is not None:
        runs = "run" if plan.peak.count == 1 else "runs"
        what = f"{plan.peak.count} {runs} at a time, of the schedules whose duration is known"
        found.append(Remark("peak", moment(plan.peak.at, plan), what))
    return found


def _some(found: list[Remark], most: int, of: str) -> list[Remark]:
    rest = len(found) - most
    if rest <= 1:
        return found
    return [*found[:most], Remark(found[0].kind, "", f"and {rest} more {of}")]


def _collision(collision: Collision, plan: Plan, shared: int) -> Remark:
    names = listed([name[shared:] for name in collision.names])
    times = "" if collision.count == 1 else f", in {collision.count:,} minutes"
    return Remark("together", moment(collision.at, plan), f"{len(collision.names)} start{times}: {names}")


def _clock_changes(plan: Plan, shared: int) -> list[Remark]:
    """Return what each change of the clocks touches, all schedules of it in one sentence."""
    names: dict[tuple[str, str, str], dict[str, None]] = {}
    times: dict[tuple[str, str, str], list[datetime]] = {}
    for lane in plan.lanes:
        for mark in lane.touched:
            # Both passes of an hour are one change, and so are all fire times in it.
            key = lane.timezone, f"{mark.at:%Y-%m}", mark.change
            names.setdefault(key, {})[lane.name[shared:]] = None
            times.setdefault(key, []).append(mark.at)
    found = []
    for key in sorted(names, key=lambda key: min(times[key])):
        zone = "" if key[0] == plan.timezone else f" in {key[0]}"
        number = len(times[key])
        count = "" if number == len(names[key]) else f"{number} fire times of "
        said = f"{key[2]}{zone}: {count}{listed(list(names[key]))}"
        found.append(Remark("clock change", moment(min(times[key]), plan), said))
    return found


def _too_long(lane: Lane) -> str:
    word = dropped_word([lane])
    about = "about " if lane.count > len(lane.starts) else ""
    length = format_seconds(lane.duration or 0.0)
    return f"{about}{lane.dropped_count:,} of {lane.count:,} fire times {word}: a run takes {length}"


def dropped_word(lanes: Iterable[Lane]) -> str:
    """Return what becomes of the fire times without a run of their own."""
    words = {"skipped" if lane.overlap == "skip" else "merged" for lane in lanes if lane.dropped_count}
    return " or ".join(sorted(words, reverse=True))


def moment(at: datetime, plan: Plan) -> str:
    """Return an instant as the plan's zone shows it, such as "Sun 29 Mar 03:00"."""
    local = shown(at, plan.timezone)
    year = "" if plan.end - plan.start < _YEAR_SHOWN else " %Y"
    text = "%H:%M:%S" if local.second or local.microsecond else "%H:%M"
    return f"{local:%a %d %b{year} {text}}"


def shown(at: datetime, key: str) -> datetime:
    """Return an instant on the clocks of a zone; at the end of the calendar, where they have no date, in UTC."""
    try:
        return at.astimezone(get_zone(key).info)
    except OverflowError:
        return at


def listed(names: Sequence[str], most: int = 5) -> str:
    """Return names in a row, at most so many."""
    names = [shorten(name, 40) for name in names]
    first = ", ".join(names[:most])
    return ", ".join(names) if len(names) <= most + 1 else f"{first} and {len(names) - most} more"
