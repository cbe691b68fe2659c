"""Plans seen before they run: when an app's schedules fire, where they collide, what a clock change does to them.

    from tickwork.observe import draw_svg, draw_text, preview

    plan = preview(app.schedules, start, end, timezone="Europe/Berlin", durations={"nightly": "20m"})
    Path("plan.svg").write_text(draw_svg(plan), encoding="utf-8")

`preview` makes a plain value and the others draw it: nothing here starts an app, opens a file or reads the time of day.
"""

from __future__ import annotations

from .data import as_data
from .firing import Touched
from .plan import Change, Collision, Lane, Peak, Plan
from .previewing import Planned, preview
from .svg import draw_svg
from .text import draw_text

__all__ = [
    "Change",
    "Collision",
    "Lane",
    "Peak",
    "Plan",
    "Planned",
    "Touched",
    "as_data",
    "draw_svg",
    "draw_text",
    "preview",
]
