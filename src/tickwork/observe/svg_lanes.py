"""One lane of the picture: its name, what it starts, how often, and what a clock change does to it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from math import log
from typing import TYPE_CHECKING, Final

from ..durations import format_seconds
from ..zones import get_zone
from .grid import cells, unit_of
from .remarks import dropped_word, moment, shown
from .svg_parts import MARGIN, Shapes, number, text_width
from .words import shorten

if TYPE_CHECKING:
    from datetime import datetime
    from typing import Self

    from .plan import Lane, Plan

__all__ = ["Frame", "draw_lane"]

_TICK: Final = 3  # pixels; the width of a start
_SPACING: Final = 6  # pixels a start needs, to be seen as one: with less they are shown by number
_BUCKET: Final = 3.4  # pixels that a bucket has at least,
_DAY: Final = 1.6  # and one of a day
_LOWEST: Final = 0.22  # the height of a single start, as a part of the lane's


@dataclass(frozen=True, slots=True)
class Frame:
    """Where the lanes are drawn.

    Attributes:
        start: The beginning of the window.
        left: Where it lies, in pixels.
        right: Where its end lies.
        seconds: How long the window is.
        height: The height of a lane, in pixels.
        is_compact: Whether a lane has one line of text, and not two.
        edges: Where the buckets begin that are drawn for many starts.
        held: Which buckets of the plan each of them holds.
        most: How many starts the fullest of them has, of all lanes.
    """

    start: datetime
    left: float
    right: float
    seconds: float
    height: float
    is_compact: bool
    edges: tuple[datetime, ...]
    held: list[range]
    most: int

    @classmethod
    def of(cls, plan: Plan, left: float, right: float, *, height: float, is_compact: bool) -> Self:
        """Return the frame of a plan."""
        # Days stay days: a schedule of weekdays then has its weekends.
        pixels = _BUCKET if unit_of(plan.edges) < timedelta(days=1) else _DAY
        edges, held = cells(plan.edges, get_zone(plan.timezone), int((right - left) / pixels))
        sums = [sum(lane.counts[part.start : part.stop]) for lane in plan.lanes for part in held]
        seconds = (plan.end - plan.start).total_seconds()
        return cls(plan.start, left, right, seconds, height, is_compact, edges, held, max(sums, default=0))

    def x(self, at: datetime) -> float:
        """Return where an instant lies."""
        return self.left + self.scale((at - self.start).total_seconds())

    def scale(self, seconds: float) -> float:
        """Return how many pixels a duration takes."""
        return (self.right - self.left) * seconds / self.seconds

    def is_sparse(self, lane: Lane) -> bool:
        """Whether every start is drawn, and not only their number."""
        return len(lane.starts) == lane.count <= (self.right - self.left) / _SPACING


def draw_lane(shapes: Shapes, frame: Frame, plan: Plan, lane: Lane, name: str, y: float, *, tooltips: int) -> None:
    """Draw a lane below `y`.

    Args:
        shapes: Where to.
        frame: Where the lanes lie.
        plan: The plan it belongs to.
        lane: The lane.
        name: Its name as there is room for it.
        y: Its upper edge, in pixels.
        tooltips: How many of its marks may tell what they are: beyond, none does.
    """
    shapes.begin(_told(lane))
    middle = y + frame.height / 2
    if frame.is_compact:
        shapes.text(MARGIN, middle + 4.5, name, "name")
    else:
        room = frame.left - MARGIN - 14
        shapes.text(MARGIN, middle - 1, name, "name")
        shapes.text(
            MARGIN, middle + 13, shorten(lane.when, room, width=lambda text: text_width(text, 11)), "small soft"
        )
    if lane.error is None:
        count = ("~" if lane.is_estimated else "") + f"{lane.count:,}"
        shapes.text(frame.right + 74, middle + 4, count, "" if lane.count else "soft", anchor="end")
    if lane.error is not None or not lane.count:
        _draw_nothing(shapes, frame, plan, lane, middle)
    elif frame.is_sparse(lane):
        _draw_starts(shapes, frame, plan, lane, y, has_titles=lane.count <= tooltips)
    else:
        _draw_numbers(shapes, frame, lane, y)
    _draw_changes(shapes, frame, plan, lane, y)
    shapes.end()


def _told(lane: Lane) -> str:
    about = "about " if lane.is_estimated else ""
    parts = [f"{lane.name}: {lane.when}", f"{about}{lane.count:,} starts"]
    if lane.duration is not None:
        parts.append(f"a run takes {format_seconds(lane.duration)}")
    if lane.jitter:
        parts.append(f"put off by up to {format_seconds(lane.jitter)}")
    if lane.dropped_count:
        parts.append(f"{lane.dropped_count:,} {dropped_word([lane])}")
    if lane.error is not None:
        parts[1] = lane.error
    return ", ".join(parts)


def _draw_nothing(shapes: Shapes, frame: Frame, plan: Plan, lane: Lane, middle: float) -> None:
    said = lane.error
    if said is None:
        said = "none to come" if lane.following is None else f"next {_with_year(lane.following, plan)}"
    room = frame.right - frame.left - 20
    fitting = shorten(said, room, width=lambda text: text_width(text, 11))
    shapes.text(
        frame.left + 10, middle + 4, fitting, "small inside bad" if lane.error is not None else "small inside soft"
    )


def _with_year(at: datetime, plan: Plan) -> str:
    return f"{shown(at, plan.timezone):%a %d %b %Y %H:%M}"


def _draw_starts(shapes: Shapes, frame: Frame, plan: Plan, lane: Lane, y: float, *, has_titles: bool) -> None:
    top, height = y + 8, frame.height - 16
    if lane.jitter and (wide := frame.scale(lane.jitter)) > _TICK + 1:
        for at in lane.starts:
            x = frame.x(at)
            shapes.rect(x, top, min(wide, frame.right - x), height, "jitter", radius=3)
    dropped = set(lane.dropped)
    if has_titles:
        ends = dict(lane.runs)
        for at in lane.starts:
            if at not in dropped and at not in ends:
                shapes.rect(frame.x(at), top, _TICK, height, "start mark", radius=1.5, title=moment(at, plan))
        for begin, end in lane.runs:
            if begin < plan.end:
                said = f"{moment(begin, plan)} \u2013 {moment(end, plan).rpartition(' ')[2]}"
                _draw_run(shapes, frame, begin, end, top, height, said)
    else:
        ticks = (frame.x(at) + _TICK / 2 for at in lane.starts if at not in dropped)
        shapes.path((f"M{number(at)} {number(top + 1.5)}v{number(height - 3)}" for at in ticks), "ticks")
        for begin, end in lane.runs:
            if begin < plan.end and frame.scale((end - begin).total_seconds()) > _TICK + 1:
                _draw_run(shapes, frame, begin, end, top, height, "")
    for at in lane.dropped:
        title = f"{moment(at, plan)}, {dropped_word([lane])}" if has_titles else ""
        shapes.rect(frame.x(at), top, _TICK + 1.5, height, "dropped mark", radius=2, title=title)


def _draw_run(
    shapes: Shapes, frame: Frame, begin: datetime, end: datetime, top: float, height: float, title: str
) -> None:
    x = frame.x(begin)
    # A hair less than its length, so that a run and the next one are seen as two.
    wide = min(max(_TICK, frame.scale((end - begin).total_seconds()) - 0.8), frame.right - x)
    shapes.rect(x, top, wide, height, "start mark", radius=min(3, wide / 2), title=title)


def _draw_numbers(shapes: Shapes, frame: Frame, lane: Lane, y: float) -> None:
    """Draw how many starts there are in each bucket, as steps of a logarithmic height."""
    bottom, height = y + frame.height - 4, frame.height - 12
    numbers = [sum(lane.counts[part.start : part.stop]) for part in frame.held]
    levels, unit = [], unit_of(frame.edges)
    for count, begin, end in zip(numbers, frame.edges, frame.edges[1:], strict=False):
        # What the edge of the window has cut off is as high as if it were whole.
        whole = min(count * max(1.0, unit / (end - begin)), max(numbers))
        share = _LOWEST + (1 - _LOWEST) * log(whole) / log(frame.most) if count and frame.most > 1 else 1.0
        levels.append(height * share if count else 0.0)
    steps, last = [], 0.0
    for edge, level in zip(frame.edges, [*levels, 0.0], strict=True):
        x = number(frame.x(edge))
        if level != last:
            if not last:
                steps.append(f"M{x} {number(bottom)}")
            steps.append(f"H{x}V{number(bottom - level)}")
            if not level:
                steps.append("z")
            last = level
    shapes.path(steps, "level")


def _draw_changes(shapes: Shapes, frame: Frame, plan: Plan, lane: Lane, y: float) -> None:
    taken = -100.0
    for mark in lane.touched:
        x = frame.x(mark.at) + _TICK / 2
        if x - taken > 4:  # one for several where they would hide each other
            title = f"{moment(mark.at, plan)}, {mark.change}"
            shapes.path([f"M{number(x)} {number(y + 1)}l5 5l-5 5l-5 -5z"], "diamond mark", title=title)
            taken = x
