"""What stands below the lanes of the picture: the shapes explained, and what is worth a look."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING, Final

from ..durations import format_seconds
from .grid import unit_of
from .remarks import dropped_word, remarks
from .svg_parts import MARGIN, Shapes, number, text_width
from .words import shorten

if TYPE_CHECKING:
    from .plan import Plan
    from .svg_lanes import Frame

__all__ = ["draw_remarks", "draw_legend"]

_SIGN: Final = 22  # pixels for a shape of the legend, with its space
_KIND: Final = 110  # pixels for the kind of a finding
_WHERE: Final = 220  # pixels for its time or schedule, at the most
_COLOURS: Final = {"together": "crowd", "clock change": "change", "peak": "start", "too long": "soft"}


def draw_legend(shapes: Shapes, frame: Frame, plan: Plan, y: float, width: float) -> float:
    """Explain the shapes that occur, from the baseline `y` on; return the last baseline."""
    x: float = MARGIN
    for kind, said in _entries(frame, plan):
        wide = _SIGN + text_width(said, 11)
        if x + wide > width - MARGIN and x > MARGIN:
            x, y = MARGIN, y + 20
        _draw_sign(shapes, kind, x, y - 4)
        shapes.text(x + _SIGN, y, said, "small soft")
        x += wide + 18
    return y


def _entries(frame: Frame, plan: Plan) -> list[tuple[str, str]]:
    sparse = [lane for lane in plan.lanes if lane.count and frame.is_sparse(lane)]
    found = [("start", "start")] if sparse else []
    if any(lane.runs for lane in sparse):
        found.append(("run", "run"))
    if any(lane.jitter for lane in sparse):
        found.append(("jitter", "start put off at random"))
    if any(lane.dropped for lane in sparse):
        found.append(("dropped", dropped_word(plan.lanes)))
    if any(lane.count and not frame.is_sparse(lane) for lane in plan.lanes):
        unit = format_seconds(unit_of(frame.edges).total_seconds())
        found.append(("level", f"starts in {unit} (logarithmic)"))
    if any(lane.touched for lane in plan.lanes):
        found.append(("change", "touched by a clock change"))
    return found


def _draw_sign(shapes: Shapes, kind: str, x: float, middle: float) -> None:
    match kind:
        case "start":
            shapes.rect(x + 6, middle - 6, 3, 12, "start", radius=1.5)
        case "run":
            shapes.rect(x, middle - 5, 16, 10, "start", radius=3)
        case "jitter":
            shapes.rect(x, middle - 5, 16, 10, "jitter", radius=3)
            shapes.rect(x, middle - 6, 3, 12, "start", radius=1.5)
        case "dropped":
            shapes.rect(x + 5, middle - 6, 5, 12, "dropped", radius=2)
        case "level":
            shapes.path([f"M{number(x)} {number(middle + 5)}v-4h5v-3h5v-4h5v11z"], "level")
        case _:
            shapes.path([f"M{number(x + 8)} {number(middle - 5)}l5 5l-5 5l-5 -5z"], "diamond")


def draw_remarks(shapes: Shapes, plan: Plan, y: float, width: float) -> float:
    """Write what is worth a look below `y`; return the last baseline."""
    found = remarks(plan, most=2)
    if not found:
        return y
    y += 26
    shapes.path([f"M{MARGIN} {number(y)}H{number(width - MARGIN)}"], "grid")
    y += 8
    where = MARGIN + _KIND
    what = where + min(max(text_width(entry.where) for entry in found), _WHERE) + 18
    room = width - MARGIN - what
    for row, entry in enumerate(found):
        y += 20
        if not row or found[row - 1].kind != entry.kind:
            shapes.text(MARGIN, y, entry.kind, f"head {_COLOURS.get(entry.kind, 'bad')}")
        shapes.text(where, y, shorten(entry.where, _WHERE, width=text_width))
        lines = wrap(entry.what, int(room / 6.6), max_lines=2, placeholder=" \u2026") or [""]
        for below, line in enumerate(lines):
            y += 17 if below else 0
            shapes.text(what, y, shorten(line, room, width=text_width), "soft")
    return y
