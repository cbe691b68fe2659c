"""What a picture is made of: shapes and texts as SVG, their colours, and how wide a text will be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .words import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["MARGIN", "STYLE", "Shapes", "number", "text_width"]

MARGIN: Final = 32
"""Pixels around the picture."""

# Blue, amber and magenta differ in lightness too, so that they are told apart without seeing red or green; and what
# they mean differs in shape or place as well. Every text has a contrast of at least 4.5 to 1 in both schemes.
_LIGHT: Final = {
    "paper": "#ffffff",
    "ink": "#1b2530",
    "soft": "#5a6775",
    "line": "#e1e6ec",
    "rule": "#c3ccd6",
    "track": "#f3f5f8",
    "start": "#2c6cb3",
    "change": "#a15c00",
    "crowd": "#b1306f",
    "bad": "#b3261e",
}
_DARK: Final = {
    "paper": "#10151c",
    "ink": "#e7ecf2",
    "soft": "#98a6b5",
    "line": "#26303b",
    "rule": "#43505e",
    "track": "#19212a",
    "start": "#6cb0f5",
    "change": "#f2b340",
    "crowd": "#f47fb6",
    "bad": "#ff8a7d",
}


def _variables(colours: dict[str, str]) -> str:
    return ";".join(f"--{name}:{value}" for name, value in colours.items())


# Everything is below the class of the picture, so that the style stays in it when it stands inside a page.
_FONTS: Final = "ui-sans-serif,system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,'Noto Sans',sans-serif"
_ROOT: Final = ".tickwork-plan"
STYLE: Final = "\n".join(
    (
        f"{_ROOT}{{{_variables(_LIGHT)}}}",
        f"@media (prefers-color-scheme:dark){{{_ROOT}{{{_variables(_DARK)}}}}}",
        f"{_ROOT} text{{font-family:{_FONTS};font-size:12px;fill:var(--ink);font-variant-numeric:tabular-nums}}",
        *(
            f"{_ROOT} {selector}{{{rule}}}"
            for selector, rule in (
                (".paper", "fill:var(--paper)"),
                (".title", "font-size:19px;font-weight:600"),
                (".figure", "font-size:19px;font-weight:600"),
                (".head", "font-weight:600"),
                (".name", "font-size:13px"),
                (".soft", "fill:var(--soft)"),
                (".small", "font-size:11px"),
                (".track", "fill:var(--track)"),
                (".grid", "stroke:var(--line);fill:none"),
                (".rule", "stroke:var(--rule);fill:none"),
                (".start", "fill:var(--start)"),
                (".level", "fill:var(--start);fill-opacity:.5"),
                (".ticks", "stroke:var(--start);stroke-width:3;stroke-linecap:round;fill:none"),
                (".jitter", "fill:var(--start);fill-opacity:.26"),
                (".dropped", "fill:var(--track);stroke:var(--soft);stroke-width:1.2"),
                (".change", "fill:var(--change)"),
                (".fold", "fill:var(--change);fill-opacity:.13"),
                (".gap", "stroke:var(--change);stroke-width:1.2;stroke-dasharray:2 3;fill:none"),
                (".diamond", "fill:var(--change);stroke:var(--track);stroke-width:1.5"),
                (".crowd", "fill:var(--crowd)"),
                (".bad", "fill:var(--bad)"),
                # A text that lines run under keeps a margin of the colour below it.
                (".over", "paint-order:stroke;stroke:var(--paper);stroke-width:5px;stroke-linejoin:round"),
                (".inside", "paint-order:stroke;stroke:var(--track);stroke-width:5px;stroke-linejoin:round"),
                (".mark:hover", "fill:var(--ink)"),
            )
        ),
    )
)


def number(value: float) -> str:
    """Return a coordinate in tenths of a pixel, as short as it can be written."""
    text = f"{value:.1f}"
    return text[:-2] if text.endswith(".0") else text


def _escaped(text: str) -> str:
    # The modules of the standard library for this take 20 ms to import.
    return printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


class Shapes:
    """The shapes of a picture, in the order in which they are painted."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def text(self, x: float, y: float, content: str, classes: str = "", *, anchor: str = "") -> None:
        """Write a text with its baseline at `y`; the anchor is "middle", "end", or "" for its beginning."""
        where = f'x="{number(x)}" y="{number(y)}"' + (f' text-anchor="{anchor}"' if anchor else "")
        shown = f' class="{classes}"' if classes else ""
        self.parts.append(f"<text {where}{shown}>{_escaped(content)}</text>")

    def rect(
        self, x: float, y: float, width: float, height: float, classes: str, *, radius: float = 0, title: str = ""
    ) -> None:
        """Draw a rectangle; with a title it tells it where the pointer rests."""
        where = " ".join(
            f'{name}="{number(value)}"'
            for name, value in (("x", x), ("y", y), ("width", width), ("height", height), ("rx", radius))
            if value or name != "rx"
        )
        self._shape("rect", f'class="{classes}" {where}', title)

    def path(self, steps: Iterable[str], classes: str, *, title: str = "") -> None:
        """Draw a path, if it has any steps."""
        drawn = "".join(steps)
        if drawn:
            self._shape("path", f'class="{classes}" d="{drawn}"', title)

    def begin(self, title: str) -> None:
        """Begin a group of shapes, with a title for all of those that have none of their own."""
        self.parts.append(f"<g><title>{_escaped(title)}</title>")

    def end(self) -> None:
        """End the group."""
        self.parts.append("</g>")

    def _shape(self, tag: str, attributes: str, title: str) -> None:
        inside = f"><title>{_escaped(title)}</title></{tag}>" if title else "/>"
        self.parts.append(f"<{tag} {attributes}{inside}")


def text_width(text: str, size: float = 12) -> float:
    """Return about how many pixels a text takes: rather too many, since no font is known here."""
    return sum(map(_letter_width, text)) * size


def _letter_width(letter: str) -> float:
    if letter in "iljtfrI.,:;'|!()[]/\u2009 ":
        return 0.36
    if letter in "mwMW@%\u2026":
        return 0.92
    if letter >= "\u1100":
        return 1.05 if letter not in "\u2013\u2014\u2019" else 0.6
    return 0.7 if letter.isupper() else 0.6
