"""`tickwork preview`: the schedules of an app drawn before they run, on the terminal, as SVG or as JSON."""

from __future__ import annotations

import os
import re
import shutil
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING

from ..durations import seconds
from ..errors import InvalidInstant, InvalidOption
from ..zones import resolve_wall

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from ..zones import Zone

_WHEN = '"now", a date, a time such as "2026-03-29T02:00", or a duration such as "7d"'
_DAYS = r"[+-]?\s*([0-9]+)\s*(d|days?|w|weeks?)"


def add_preview(add: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    command = add("preview", "Draw when the schedules will start, where they collide, what clock changes touch.")
    command.add_argument("--from", dest="start", default="now", metavar="WHEN", help=f"{_WHEN} from now (now)")
    command.add_argument("--to", dest="end", default="24h", metavar="WHEN", help="the same, from --from (24h)")
    command.add_argument("--tz", metavar="ZONE", help="the zone to draw in, and of times without an offset (the app's)")
    command.add_argument(
        "--duration",
        action="append",
        default=[],
        metavar="NAME=LENGTH",
        help="how long a run of a schedule takes: nightly=20m; its last part will do where it is unique",
    )
    form = command.add_mutually_exclusive_group()
    form.add_argument("-o", "--output", metavar="FILE", help='write an SVG file; "-" is stdout')
    form.add_argument("--json", action="store_true", help="as JSON")


def run_preview(options: argparse.Namespace) -> int:
    """Draw the plan."""
    from ..clock import SystemClock
    from ..observe import as_data, draw_svg, draw_text, preview
    from ..observe.previewing import check_window
    from ..observe.text import SIGNS
    from ..program import OK
    from ..zones import get_zone, zone_key
    from .output import as_json
    from .target import load

    app = load(options.target, show_traceback=options.verbose)
    zone = get_zone(app.timezone if options.tz is None else zone_key(options.tz, "--tz"))
    now = SystemClock().now()
    start = read_when(options.start, "--from", zone, now=now, base=now)
    end = read_when(options.end, "--to", zone, now=now, base=start)
    check_window(start, end, "--to")
    plan = preview(app.schedules, start, end, timezone=zone.key, durations=_read_durations(options.duration))
    if options.json:
        as_json(as_data(plan))
    elif options.output == "-":
        _print(draw_svg(plan))
    elif options.output is not None:
        size = write_whole(Path(options.output), draw_svg(plan))
        print(f"{options.output}: {size:,} bytes")
    else:
        width = shutil.get_terminal_size().columns
        _print(draw_text(plan, width, coloured=_is_coloured(), ascii_only=not _can_print(SIGNS)))
    return OK


def read_when(text: str, option: str, zone: Zone, *, now: datetime, base: datetime) -> datetime:
    """Return the instant (UTC) that an option names.

    Args:
        text: "now" or another instant, see `_WHEN`; a duration may have a sign.
        option: The name of the option, for the error.
        zone: In which a time without an offset is read. Whole days and weeks are days of its calendar.
        now: What "now" is (aware UTC).
        base: From where a duration counts (aware UTC).

    Raises:
        InvalidInstant: It is nothing of this, or no time that the zone's clocks show.
        InvalidDuration: A duration that cannot be read.
    """
    word = text.strip()
    if word == "now":
        return now
    try:
        moment = datetime.fromisoformat(word)
    except ValueError:
        return _after(word, option, zone, base)
    try:
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
        if re.fullmatch(r"[0-9-]*", word):  # a date: the day's first moment, also where midnight is in a gap
            return moment.replace(tzinfo=zone.info).astimezone(UTC)
        return resolve_wall(moment, zone.key, option)
    except OverflowError:
        raise InvalidInstant(option, _WHEN, text) from None


def _after(word: str, option: str, zone: Zone, base: datetime) -> datetime:
    """Return the instant so long after another one, or before it."""
    if not re.match(r"[+-]?\s*[0-9]", word):
        raise InvalidInstant(option, _WHEN, word)
    length = timedelta(seconds=seconds(word.lstrip("+-").strip(), option, allow_zero=True))
    if word.startswith("-"):
        length = -length
    try:
        if not re.fullmatch(_DAYS, word):
            return base + length
        wall = base.astimezone(zone.info).replace(tzinfo=None) + length
        return wall.replace(tzinfo=zone.info).astimezone(UTC)
    except OverflowError:
        raise InvalidInstant(option, _WHEN, word) from None


def _read_durations(entries: Sequence[str]) -> dict[str, str]:
    found = {}
    for entry in entries:
        name, sign, length = entry.rpartition("=")
        if not sign or not name:
            raise InvalidOption("--duration", "NAME=LENGTH, such as nightly=20m", entry)
        found[name] = length
    return found


def write_whole(path: Path, text: str) -> int:
    """Write a file that is there as a whole or not at all, and return its size in bytes.

    Raises:
        InvalidOption: It cannot be written.
    """
    data = text.encode()
    path_, beside = path.resolve(), None  # a link stays a link
    try:
        if path_.exists() and not path_.is_file():  # a pipe, or a folder, which says so itself
            path_.write_bytes(data)
            return len(data)
        beside = path_.with_name(f".{path_.name}.{os.getpid()}")
        beside.write_bytes(data)
        if path_.exists():
            shutil.copymode(path_, beside)
        beside.replace(path_)
    except OSError as error:
        if beside is not None:
            with suppress(OSError):
                beside.unlink()
        raise InvalidOption("-o", "a file that can be written", str(path), remedy=error.strerror or "") from None
    return len(data)


def _print(text: str) -> None:
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the encoding lacks is escaped, not refused
    print(text, end="")


def _is_coloured() -> bool:
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    return is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _can_print(text: str) -> bool:
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
