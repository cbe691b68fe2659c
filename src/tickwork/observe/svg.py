"""A plan as one self-contained SVG: no script, no font from elsewhere, its own colours for light and dark."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..zones import get_zone
from .grid import make_axis
from .remarks import dropped_word, moment, remarks
from .svg_below import draw_legend, draw_remarks
from .svg_lanes import Frame, draw_lane
from .svg_parts import MARGIN, STYLE, Shapes, number, text_width
from .words import common, shorten

if TYPE_CHECKING:
    from .plan import Plan

__all__ = ["draw_svg"]

_NAMES: Final = (110, 230)  # pixels for the names, at least and at most
_NUMBERS: Final = 74  # pixels for the counts on the right
_COMPACT: Final = 24  # more lanes than this are drawn closer, on one line each
_STRIP: Final = 40  # the height of the row of what starts together


def draw_svg(plan: Plan, *, width: int = 960) -> str:
    """Return a plan as the text of an SVG file.

    Args:
        plan: What `preview` made.
        width: In pixels, at least 640. The height follows from the number of schedules.
    """
    return _Picture(plan, max(640, width)).draw()


class _Picture:
    """The layout, from top to bottom: each part draws at `self.y` and moves it on."""

    def __init__(self, plan: Plan, width: int) -> None:
        self.plan, self.width = plan, width
        self.zone = get_zone(plan.timezone)
        self.shapes = Shapes()
        self.y = 0.0
        shared = common([lane.name for lane in plan.lanes])
        self.shared = shared
        self.names = [lane.name.removeprefix(shared) for lane in plan.lanes]
        longest = max(text_width(name, 13) for name in [*self.names, "Starting together"])
        longest = max([longest, *(text_width(lane.when, 11) for lane in plan.lanes)])
        self.names_width = min(max(longest, _NAMES[0]), _NAMES[1])
        left = MARGIN + self.names_width + 18
        right = width - MARGIN - _NUMBERS
        is_compact = len(plan.lanes) > _COMPACT
        self.frame = Frame.of(plan, left, right, height=24 if is_compact else 40, is_compact=is_compact)

    def draw(self) -> str:
        self.heading()
        if self.plan.lanes:
            self.chart()
            self.y = draw_legend(self.shapes, self.frame, self.plan, self.y + 34, self.width)
        else:
            self.y += 44
            self.shapes.text(MARGIN, self.y, "No schedules: there is nothing to plan.", "soft")
            self.y += 6
        self.y = draw_remarks(self.shapes, self.plan, self.y, self.width)
        return self.document()

    def document(self) -> str:
        height = number(round(self.y + MARGIN))
        title, said = f"Plan of {self.title()}", "; ".join(self.description())
        head = Shapes()
        head.rect(0, 0, self.width, float(height), "paper", radius=10)
        opened = (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="tickwork-plan" width="{self.width}" height="{height}" '
            f'viewBox="0 0 {self.width} {height}" role="img" aria-labelledby="tickwork-plan-title tickwork-plan-desc">'
        )
        texts = Shapes()
        texts.text(0, 0, title)
        texts.text(0, 0, said)
        named = [part.partition(">")[2].removesuffix("</text>") for part in texts.parts]
        return "\n".join(
            [
                opened,
                f'<title id="tickwork-plan-title">{named[0]}</title>',
                f'<desc id="tickwork-plan-desc">{named[1]}</desc>',
                f"<style>\n{STYLE}\n</style>",
                *head.parts,
                *self.shapes.parts,
                "</svg>\n",
            ]
        )

    # -- above the chart -----------------------------------------------------------------------------------------------

    def title(self) -> str:
        schedules = "schedule" if len(self.plan.lanes) == 1 else "schedules"
        times = "fire time" if self.plan.count == 1 else "fire times"
        about = "about " if self.plan.is_estimated else ""
        return f"{len(self.plan.lanes)} {schedules}, {about}{self.plan.count:,} {times}"

    def window(self) -> str:
        from_, to = (at.astimezone(self.zone.info) for at in (self.plan.start, self.plan.end))
        return f"{from_:%a %d %b %Y %H:%M} \u2013 {to:%a %d %b %Y %H:%M}, {self.plan.timezone}"

    def description(self) -> list[str]:
        found = [self.window()]
        found += [f"{entry.kind} {entry.where}: {entry.what}" for entry in remarks(self.plan)]
        return found

    def heading(self) -> None:
        self.y = MARGIN + 16
        right: float = self.width - MARGIN
        for figure, said, colour in reversed(self.figures()):
            self.shapes.text(right, self.y, figure, f"figure {colour}", anchor="end")
            self.shapes.text(right, self.y + 19, said, "small soft", anchor="end")
            right -= max(text_width(said, 11), text_width(figure, 23)) + 26
        room = right - MARGIN
        self.shapes.text(MARGIN, self.y, shorten(self.title(), room, width=lambda text: text_width(text, 21)), "title")
        self.y += 20
        shared = f" \u00b7 {self.shared.rstrip('.')}" if self.shared else ""
        self.shapes.text(MARGIN, self.y, shorten(self.window() + shared, room, width=text_width), "soft")

    def figures(self) -> list[tuple[str, str, str]]:
        """Return the figures worth a large type: the number, what it counts, its colour."""
        plan, found = self.plan, []
        touched = sum(len(lane.touched) for lane in plan.lanes)
        dropped = sum(lane.dropped_count for lane in plan.lanes)
        if plan.collisions:
            found.append((str(len(plan.collisions[0].names)), "start together", "crowd"))
        if plan.peak is not None:
            found.append((str(plan.peak.count), "run at a time", "start"))
        if touched:
            found.append((f"{touched:,}", "at a clock change", "change"))
        if dropped:
            found.append((f"{dropped:,}", dropped_word(plan.lanes), "soft"))
        return found

    # -- the chart -----------------------------------------------------------------------------------------------------

    def chart(self) -> None:
        plan, frame, shapes = self.plan, self.frame, self.shapes
        self.y += 38
        top = self.axis()
        if plan.changes:
            top = self.change_labels()
        lanes_end = top + frame.height * len(plan.lanes)
        bottom = lanes_end + (_STRIP + 14 if plan.collision_count else 0)
        for row, _ in enumerate(plan.lanes):
            y = top + frame.height * row
            shapes.rect(frame.left, y + 4, frame.right - frame.left, frame.height - 8, "track", radius=5)
        self.lines(top, bottom)
        each = 1_500 // len(plan.lanes)  # tooltips are what makes a file large
        for row, (lane, name) in enumerate(zip(plan.lanes, self.names, strict=True)):
            draw_lane(shapes, frame, plan, lane, self.fitting(name), top + frame.height * row, tooltips=each)
        self.y = lanes_end
        if plan.collision_count:
            self.crowds()

    def fitting(self, name: str) -> str:
        return shorten(name, self.names_width, width=lambda text: text_width(text, 13))

    def axis(self) -> float:
        """Draw days and hours, or months and days; return where the lanes begin."""
        frame, shapes = self.frame, self.shapes
        room = frame.right - frame.left
        self.ticks = make_axis(self.plan.start, self.plan.end, self.zone, lambda letters: room / (letters * 7 + 18))
        for group in self.ticks.groups:
            x, end = frame.x(group.start), frame.x(group.end)
            fitting = (text for text in group.texts if text_width(text) < end - x - 6)
            shapes.text(x, self.y, next(fitting, ""), "head")
        shapes.parts = [part for part in shapes.parts if not part.endswith("></text>")]
        self.y += 20
        for label in self.ticks.labels:
            x = frame.x(label.at)
            if x + text_width(label.text, 11) < frame.right + 4:
                shapes.text(x, self.y, label.text, "small soft")
        shapes.text(self.width - MARGIN, self.y, "starts", "small soft", anchor="end")
        self.y += 8
        return self.y

    def lines(self, top: float, bottom: float) -> None:
        frame = self.frame
        begins = {group.start for group in self.ticks.groups}
        fine = (label.at for label in self.ticks.labels if label.at not in begins)
        self.shapes.path((f"M{number(frame.x(at))} {number(top)}V{number(bottom)}" for at in fine), "grid")
        coarse = (f"M{number(frame.x(at))} {number(top - 8)}V{number(bottom)}" for at in sorted(begins))
        self.shapes.path(coarse, "rule")
        for change in self.plan.changes:
            x = frame.x(change.at)
            if change.shift < 0:
                reach = frame.scale(-change.shift)
                left, right = max(frame.left, x - reach), min(frame.right, x + reach)
                self.shapes.rect(left, top - 2, max(1.5, right - left), bottom - top + 2, "fold")
            self.shapes.path([f"M{number(x)} {number(top - 4)}V{number(bottom)}"], "gap")

    def change_labels(self) -> float:
        self.y += 12
        taken = 0.0
        for change in self.plan.changes:
            said = f"{change.before} \u2192 {change.after}"
            half = text_width(said, 11) / 2
            x = min(max(self.frame.x(change.at), self.frame.left + half), self.frame.right - half)
            if x - half > taken:
                self.shapes.text(x, self.y, said, "small change over", anchor="middle")
                taken = x + half + 6
        self.y += 8
        return self.y

    def crowds(self) -> None:
        plan, frame, shapes = self.plan, self.frame, self.shapes
        self.y += 14 + _STRIP
        most = max(plan.crowds)
        shapes.begin(f"In {plan.collision_count:,} minutes several schedules start, at most {most}")
        shapes.text(MARGIN, self.y - _STRIP / 2 - 1, "Starting together", "name")
        shapes.text(MARGIN, self.y - _STRIP / 2 + 15, "schedules in a minute", "small soft")
        steps = []
        for begin, end, buckets in zip(frame.edges, frame.edges[1:], frame.held, strict=False):
            crowd = max(plan.crowds[buckets.start : buckets.stop], default=0)
            if crowd:
                x, height = frame.x(begin), (_STRIP - 16) * crowd / most
                wide = max(1.5, min(frame.x(end) - x - 0.6, 14))
                steps.append(f"M{number(x)} {number(self.y)}v-{number(height)}h{number(wide)}V{number(self.y)}z")
        shapes.path(steps, "crowd")
        shapes.path([f"M{number(frame.left)} {number(self.y)}H{number(frame.right)}"], "rule")
        said = f"{most} at {moment(plan.collisions[0].at, plan)}"
        half, x = text_width(said, 11) / 2, frame.x(plan.collisions[0].at)
        anchor = "" if x - half < frame.left else "end" if x + half > frame.right else "middle"
        shapes.text(x + (4 if not anchor else 0), self.y - _STRIP + 10, said, "small crowd head over", anchor=anchor)
        shapes.text(self.width - MARGIN, self.y - _STRIP / 2 + 4, f"{plan.collision_count:,}", "soft", anchor="end")
        shapes.end()
