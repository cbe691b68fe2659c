"""The plan on a terminal."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tickwork import Cron, Every
from tickwork.observe import Plan, Planned, draw_text, preview
from tickwork.observe.text import SIGNS
from tickwork.observe.words import columns, common, printable, shorten

from .triggers import Answers

BERLIN = ZoneInfo("Europe/Berlin")
NIGHT = [
    Planned("shop.fetch", Cron("*/30 * * * *", timezone="Europe/Berlin")),
    Planned("shop.backup", Cron("30 2 * * *", timezone="Europe/Berlin")),
    Planned("shop.report", Cron("0 3 * * *", timezone="Europe/Berlin")),
]


def night(**durations: str) -> Plan:
    start = datetime(2026, 3, 29, tzinfo=BERLIN)
    return preview(NIGHT, start, start + timedelta(hours=7), timezone="Europe/Berlin", durations=durations)


PICTURE = """\
3 schedules of shop, 14 fire times
Sun 2026-03-29 00:00 DASH Sun 2026-03-29 07:00, Europe/Berlin

              Sunday 29 March 2026
              00:00             04:00       06:00   starts
fetch         ▂━━CROSS━·▂━━CROSS━·▂━━CROSS━·▂━━CROSS━·▂━━CROSS━·▂━━CROSS━·  12
backup        ············▂·······················  1
report        ············▂━━━━━━━━━··············  1
together                  3                         1
clock change              ▲

a cell is 10m   ▂ 1 ▃ 2 ▄ 4 ▅ 8 ▆ 16 ▇ 64 starts   ━ runs
CROSS skipped

together      Sun 29 Mar 03:00  3 start: fetch, backup,
                                report
clock change  Sun 29 Mar 03:00  after the gap 02:00-03:00:
                                fetch, backup, report
too long      fetch             6 of 12 fire times skipped:
                                a run takes 40m
peak          Sun 29 Mar 03:00  2 runs at a time, of the
                                schedules whose duration is
                                known
""".replace("CROSS", "\u00d7").replace("DASH", "\u2013")


def test_picture_shows_starts_runs_clock_changes_and_what_to_look_at() -> None:
    assert draw_text(night(fetch="40m", report="90m"), 60) == PICTURE


def test_ascii_picture_holds_nothing_else() -> None:
    drawn = draw_text(night(fetch="40m"), 60, ascii_only=True)

    assert drawn.isascii()
    assert drawn.splitlines()[5:8] == [
        "fetch         1==x=.1==x=.1==x=.1==x=.1==x=.1==x=.  12",
        "backup        ............1.......................  1",
        "report        ............1.......................  1",
    ]


@pytest.mark.parametrize("width", [-1, 0, 10, 40])
def test_narrow_terminal_gets_what_forty_columns_hold(width: int) -> None:
    assert draw_text(night(fetch="40m"), width) == draw_text(night(fetch="40m"), 40)


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
@pytest.mark.parametrize("days", [0.05, 1, 7, 31, 365])
def test_no_line_of_lanes_is_wider_than_the_terminal(width: int, days: float) -> None:
    start = datetime(2026, 3, 20, 13, 37, 11, tzinfo=UTC)
    plan = preview([*NIGHT, Planned("shop.often", Every("1s"))], start, start + timedelta(days=days))

    for line in draw_text(plan, width).splitlines()[3:]:
        assert columns(line) <= width


def test_sums_of_the_lanes_stand_at_the_right() -> None:
    plan = night()

    drawn = draw_text(plan, 80).splitlines()

    for lane in plan.lanes:
        row = next(line for line in drawn if line.startswith(lane.name.removeprefix("shop.")))
        assert row.endswith(f"  {lane.count}")


def test_no_colour_unless_asked_for() -> None:
    assert "\x1b" not in draw_text(night(fetch="40m"), 80)


def test_colours_change_nothing_but_the_colours() -> None:
    plan = night(fetch="40m", report="1h")

    coloured = draw_text(plan, 80, coloured=True)

    assert "\x1b[33m" in coloured
    assert re.sub(r"\x1b\[\d+m", "", coloured) == draw_text(plan, 80)


def test_empty_plan_says_so() -> None:
    drawn = draw_text(preview([], datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)))

    assert drawn.startswith("0 schedules, 0 fire times\n")
    assert "\nno schedules\n" in drawn


def test_error_of_a_trigger_stands_in_its_lane() -> None:
    def refuse(after: datetime) -> None:
        raise ValueError("no idea\x1b[2J\nat all")

    start = datetime(2026, 1, 1, tzinfo=UTC)
    drawn = draw_text(preview([Planned("broken", Answers(refuse))], start, start + timedelta(days=1)), 80)

    assert "broken        ValueError: no idea\ufffd[2J at all" in drawn
    assert "error  broken  ValueError: no idea" in drawn


def test_control_characters_of_a_name_do_not_reach_the_terminal() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    drawn = draw_text(preview([Planned("a\x1b[31m\nb\x07", Every("1h"))], start, start + timedelta(days=1)), 80)

    assert "\x1b" not in drawn
    assert "a\ufffd[31m b\ufffd" in drawn


def test_all_signs_of_a_picture_are_told() -> None:
    drawn = draw_text(night(fetch="40m", report="90m"), 50)

    assert {sign for sign in drawn if not sign.isascii()} <= set(SIGNS)


# -- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "shared"),
    [
        ([], ""),
        (["shop.a"], ""),
        (["shop.a", "shop.b"], "shop."),
        (["shop.a", "shopping.b"], ""),
        (["shop.jobs.a", "shop.jobs.b.c"], "shop.jobs."),
        (["shop", "shop.a"], ""),
        (["shop.a", "shop.a"], "shop."),
    ],
)
def test_what_names_have_in_common_ends_with_a_dot(names: list[str], shared: str) -> None:
    assert common(names) == shared


@settings(max_examples=300)
@given(text=st.text(), most=st.integers(1, 30))
def test_shortened_text_is_no_wider_than_allowed(text: str, most: int) -> None:
    shown = shorten(printable(text), most)

    assert columns(shown) <= most
    assert shown == printable(text) or "\u2026" in shown


def test_wide_letters_take_two_columns() -> None:
    assert columns("日本a") == 5
    assert shorten("日本語の名前", 7) == "日本…前"
