"""A plan as lines for a terminal: a lane for each schedule, a cell for each stretch of time.

clean     ▂ ▂ ▂     ▂▂▂   12
report    ▂━━━            1
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Final

from ..durations import format_seconds
from ..zones import get_zone
from .grid import cells, make_axis, unit_of
from .remarks import dropped_word, remarks
from .words import columns, common, printable, shorten

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from .plan import Lane, Plan

__all__ = ["SIGNS", "draw_text"]

_MIN_WIDTH: Final = 40  # columns
_MIN_CELLS: Final = 12
_SENTENCE: Final = 24  # columns a sentence needs beside others
_NAME_SHARE: Final = 0.3  # of the width, for names: the rest is what one wants to see


@dataclass(frozen=True, slots=True)
class _Signs:
    """The characters of a picture."""

    levels: str
    none: str
    run: str
    dropped: str
    change: str
    dots: str


# The height of a cell says how many starts it holds: up to 1, 2, 4, 8, 16, 64, and more.
_STEPS: Final = (1, 2, 4, 8, 16, 64)
_BLOCKS: Final = _Signs("▂▃▄▅▆▇█", "·", "━", "\u00d7", "▲", "…")
SIGNS: Final = f"{_BLOCKS.levels}{_BLOCKS.none}{_BLOCKS.run}{_BLOCKS.dropped}{_BLOCKS.change}{_BLOCKS.dots}\u2013"
"""All characters beyond ASCII of a picture: an encoding that lacks one of them needs `ascii_only`."""
_ASCII: Final = _Signs("123456789#", ".", "=", "x", "^", "...")

_DIM, _STARTS, _CHANGE, _CROWD, _BAD, _BOLD = "2", "34", "33", "35", "31", "1"
_COLOURS: Final = {"clock change": _CHANGE, "together": _CROWD, "peak": _STARTS}


class _Picture:
    def __init__(self, plan: Plan, width: int, *, coloured: bool, ascii_only: bool) -> None:
        width = max(width, _MIN_WIDTH)
        self.plan, self.width, self.coloured, self.ascii_only = plan, width, coloured, ascii_only
        self.signs = _ASCII if ascii_only else _BLOCKS
        self.zone = get_zone(plan.timezone)
        shared = common([lane.name for lane in plan.lanes])
        self.shared = printable(shared)
        names = [self.safe(lane.name.removeprefix(shared)) for lane in plan.lanes]
        self.counts = [("~" if lane.is_estimated else "") + f"{lane.count:,}" for lane in plan.lanes]
        widest = max(map(columns, [*names, "clock change"]))
        self.name_width = min(widest, max(12, int(width * _NAME_SHARE)))
        self.names = [shorten(name, self.name_width, dots=self.signs.dots) for name in names]
        room = width - self.name_width - 2 - 2 - max(map(len, [*self.counts, "starts"]))
        self.edges, self.held = cells(plan.edges, self.zone, max(_MIN_CELLS, room))
        self.repeat = max(1, room // (len(self.edges) - 1)) if len(self.edges) > 1 else 1

    def safe(self, text: str) -> str:
        """Return a text that can be printed."""
        shown = printable(text)
        return shown.encode("ascii", "backslashreplace").decode() if self.ascii_only else shown

    def paint(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self.coloured and text.strip() else text

    def row(self, name: str, painted: Sequence[str], after: str = "") -> str:
        gap = " " * (self.name_width - columns(name) + 2)
        return f"{name}{gap}{''.join(painted)}  {after}".rstrip()

    def lines(self) -> list[str]:
        plan = self.plan
        found = [*self.heading(), "", *self.axis()]
        found += [
            self.row(name, self.lane(lane), count)
            for name, lane, count in zip(self.names, plan.lanes, self.counts, strict=True)
        ]
        if not plan.lanes:
            found.append("no schedules")
        if plan.collision_count:
            found.append(self.row("together", self.crowds(), f"{plan.collision_count:,}"))
        touched = {self.cell(mark.at) for lane in plan.lanes for mark in lane.touched}
        touched |= {self.cell(change.at) for change in plan.changes}
        if touched:
            sign = self.paint(self.signs.change, _CHANGE)
            marks = [sign if number in touched else " " for number in range(len(self.held))]
            found.append(self.row("clock change", self.wide(marks)))
        return [*found, "", *self.legend(), *self.table()]

    # -- the parts -----------------------------------------------------------------------------------------------------

    def heading(self) -> list[str]:
        plan = self.plan
        number, about = len(plan.lanes), "about " if plan.is_estimated else ""
        schedules = "schedule" if number == 1 else "schedules"
        times = "fire time" if plan.count == 1 else "fire times"
        from_, to = (f"{at.astimezone(self.zone.info):%a %Y-%m-%d %H:%M}" for at in (plan.start, plan.end))
        dash = "-" if self.ascii_only else "\u2013"
        shared = f" of {self.safe(self.shared.rstrip('.'))}" if self.shared else ""
        return [
            self.paint(f"{number} {schedules}{shared}, {about}{plan.count:,} {times}", _BOLD),
            f"{from_} {dash} {to}, {plan.timezone}",
        ]

    def axis(self) -> list[str]:
        width = len(self.held) * self.repeat
        axis = make_axis(self.plan.start, self.plan.end, self.zone, lambda letters: width / (letters + 2))
        above, below = [" "] * width, [" "] * width
        for group in axis.groups:
            lo, hi = self.column(group.start), self.column(group.end)
            _write(above, lo, next((text for text in group.texts if len(text) < hi - lo), ""))
        for label in axis.labels:
            _write(below, self.column(label.at), label.text)
        gap = " " * (self.name_width + 2)
        heads = f"{gap}{''.join(above)}".rstrip(), f"{gap}{''.join(below)}  starts"
        return [self.paint(line, _DIM) for line in heads if line]

    def lane(self, lane: Lane) -> list[str]:
        if lane.error is not None:
            width = len(self.held) * self.repeat
            said = shorten(self.safe(lane.error), width, dots=self.signs.dots)
            return [self.paint(said, _BAD), " " * (width - columns(said))]
        touched = {self.cell(mark.at) for mark in lane.touched}
        dropped: dict[int, int] = {}
        for at in lane.dropped:
            dropped[self.cell(at)] = dropped.get(self.cell(at), 0) + 1
        running = self.running(lane)
        found = []
        for number, held in enumerate(self.held):
            count = sum(lane.counts[held.start : held.stop])
            if count and count == dropped.get(number, 0):
                found.append(self.paint(self.signs.dropped, _BAD))
            elif count:
                found.append(self.paint(self.level(count), _CHANGE if number in touched else _STARTS))
            elif number in running:
                found.append(self.paint(self.signs.run, _STARTS))
            else:
                found.append(self.paint(self.signs.none, _DIM))
        return self.wide(found, fill=running)

    def running(self, lane: Lane) -> set[int]:
        """Return the cells into which a run reaches."""
        found: set[int] = set()
        for begin, end in lane.runs:
            if begin < self.plan.end:
                lo = self.cell(begin)
                found.update(range(lo, len(self.held) if end >= self.plan.end else self.cell(end) + (end > begin)))
        return found

    def crowds(self) -> list[str]:
        found = []
        for held in self.held:
            most = max(self.plan.crowds[held.start : held.stop], default=0)
            sign = " " if not most else str(most) if most < 10 else "#"
            found.append(self.paint(sign, _CROWD))
        return self.wide(found)

    def legend(self) -> list[str]:
        unit = format_seconds(unit_of(self.edges).total_seconds())
        signs, plan = self.signs, self.plan
        if self.ascii_only:
            parts = ["1-9 starts in a cell, # more"]
        else:
            parts = [" ".join(f"{sign} {step}" for sign, step in zip(signs.levels, _STEPS, strict=False)) + " starts"]
        parts.insert(0, f"a cell is {unit}")
        if any(lane.runs for lane in plan.lanes):
            parts.append(f"{signs.run} runs")
        if any(lane.dropped for lane in plan.lanes):
            parts.append(f"{signs.dropped} {dropped_word(plan.lanes)}")
        lines = [parts[0]]
        for part in parts[1:]:
            longer = f"{lines[-1]}   {part}"
            lines = [*lines[:-1], longer] if columns(longer) <= self.width else [*lines, part]
        return [self.paint(line, _DIM) for line in lines]

    def table(self) -> list[str]:
        rows = [(entry.kind, self.safe(entry.where), self.safe(entry.what)) for entry in remarks(self.plan)]
        if not rows:
            return []
        widths = [min(max(columns(row[number]) for row in rows), 30) for number in (0, 1)]
        begin = sum(widths) + 4
        found = [""]
        for kind, where, what in rows:
            place = shorten(where, widths[1], dots=self.signs.dots)
            head = self.paint(kind, _COLOURS.get(kind, _BAD)) + " " * (widths[0] - columns(kind) + 2)
            head += place + " " * (widths[1] - columns(place) + 2)
            if self.width - begin < _SENTENCE:  # then below, and not in a column of its own
                found += [head.rstrip(), *wrap(what, self.width, initial_indent="  ", subsequent_indent="  ")]
                continue
            first, *others = wrap(what, self.width - begin) or [""]
            found += [head + first, *(" " * begin + line for line in others)]
        return found

    # -- cells ---------------------------------------------------------------------------------------------------------

    def cell(self, at: datetime) -> int:
        """Return the number of the cell in which an instant lies, by the buckets that it holds."""
        bucket = min(max(0, bisect_right(self.plan.edges, at) - 1), len(self.plan.edges) - 2)
        return next(number for number, held in enumerate(self.held) if bucket < held.stop)

    def column(self, at: datetime) -> int:
        """Return the column at which an instant begins, from the left of the cells."""
        return len(self.held) * self.repeat if at >= self.plan.end else self.cell(at) * self.repeat

    def level(self, count: int) -> str:
        if self.ascii_only:
            return self.signs.levels[min(count, 10) - 1]
        return self.signs.levels[sum(count > step for step in _STEPS)]

    def wide(self, found: Sequence[str], fill: set[int] | None = None) -> list[str]:
        """Return the cells, each as wide as there is room: a sign, and what goes on behind it."""
        behind = self.repeat - 1
        if not behind:
            return list(found)
        run, none = self.paint(self.signs.run * behind, _STARTS), " " * behind
        return [sign + (run if fill and number in fill else none) for number, sign in enumerate(found)]


def _write(row: list[str], at: int, text: str) -> None:
    """Write a text into a row, unless it would run into another or over the end."""
    stop = at + len(text)
    if stop <= len(row) and not "".join(row[max(0, at - 1) : stop + 1]).strip():
        row[at:stop] = text


def draw_text(plan: Plan, width: int = 80, *, coloured: bool = False, ascii_only: bool = False) -> str:
    """Return a plan as lines, each ended.

    Args:
        plan: What `preview` made.
        width: How many columns there are. Less than 40 counts as 40.
        coloured: Whether to use the colours of a terminal.
        ascii_only: Whether to keep to ASCII, for a terminal that has no more.
    """
    return "\n".join(_Picture(plan, width, coloured=coloured, ascii_only=ascii_only).lines()) + "\n"
