"""The plan as SVG."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from xml.etree import ElementTree
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tickwork import At, Cron, Every
from tickwork.observe import Plan, Planned, draw_svg, preview
from tickwork.observe.svg_parts import text_width
from tickwork.policies import Policies
from tickwork.triggers import Trigger

from .triggers import Answers

BERLIN = ZoneInfo("Europe/Berlin")
SVG = "{http://www.w3.org/2000/svg}"
START = datetime(2026, 3, 29, tzinfo=BERLIN)


def plan_of(*triggers: Trigger, days: float = 1, policies: Policies | None = None, **durations: str) -> Plan:
    planned = [Planned(f"shop.job{number}", trigger, policies or Policies()) for number, trigger in enumerate(triggers)]
    return preview(planned, START, START + timedelta(days=days), timezone="Europe/Berlin", durations=durations)


def parsed(plan: Plan, width: int = 960) -> ElementTree.Element:
    return ElementTree.fromstring(draw_svg(plan, width=width))


def shapes(root: ElementTree.Element, classes: str) -> list[ElementTree.Element]:
    return [element for element in root.iter() if element.get("class") == classes]


def texts(root: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def titles(root: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}title")]


def test_picture_stands_alone_and_says_what_it_is() -> None:
    plan = plan_of(Cron("0 3 * * *", timezone="Europe/Berlin"), Every("1h"))
    drawn = draw_svg(plan)
    root = ElementTree.fromstring(drawn)

    assert not re.search(r"<script|href|url\(|@import|http(?!://www\.w3\.org/2000/svg)", drawn)
    assert root.get("role") == "img"
    named = {element.get("id"): element.text for element in root if element.get("id")}
    assert root.get("aria-labelledby") == " ".join(key or "" for key in named)
    title, said = named.values()
    assert title == "Plan of 2 schedules, 24 fire times"
    assert "after the gap 02:00-03:00: job0" in (said or "")
    assert "@media (prefers-color-scheme:dark)" in drawn


def test_each_start_is_a_mark_that_says_when() -> None:
    root = parsed(plan_of(Cron("0 5,17 * * *", timezone="Europe/Berlin")))

    marks = shapes(root, "start mark")
    assert [mark[0].text for mark in marks] == ["Sun 29 Mar 05:00", "Sun 29 Mar 17:00"]
    left, right = (float(mark.get("x") or 0) for mark in marks)
    assert right > left


def test_known_durations_make_bars_as_wide_as_the_run() -> None:
    root = parsed(plan_of(Cron("0 6,18 * * *", timezone="Europe/Berlin"), job0="6h"))

    first, second = shapes(root, "start mark")
    x = [float(mark.get("x") or 0) for mark in (first, second)]
    assert float(first.get("width") or 0) == pytest.approx((x[1] - x[0]) / 2, abs=1)
    assert first[0].text == "Sun 29 Mar 06:00 \u2013 12:00"


def test_skipped_fire_times_are_hollow() -> None:
    root = parsed(plan_of(Every("1h"), job0="90m"))

    hollow = [mark for mark in shapes(root, "dropped mark") if len(mark)]
    assert len(hollow) == 11
    assert hollow[0][0].text == "Sun 29 Mar 01:00, skipped"
    assert len(shapes(root, "start mark")) == 12


def test_jitter_widens_a_start() -> None:
    root = parsed(plan_of(Cron("0 5 * * *", timezone="Europe/Berlin"), policies=Policies(jitter=3600)))

    wide = [shape for shape in shapes(root, "jitter") if float(shape.get("height") or 0) > 12]
    assert len(wide) == 1
    assert "put off by up to 1h" in " ".join(titles(root))


def test_clock_changes_are_drawn_and_what_they_touch_is_marked() -> None:
    spring = parsed(plan_of(Cron("30 2 * * *", timezone="Europe/Berlin")))
    plan = preview(
        [Planned("a", Cron("*/30 * * * *", timezone="Europe/Berlin"))],
        datetime(2026, 10, 25, tzinfo=BERLIN),
        datetime(2026, 10, 25, 12, tzinfo=BERLIN),
        timezone="Europe/Berlin",
    )
    autumn = parsed(plan)

    assert "02:00 \u2192 03:00" in texts(spring)
    assert "Sun 29 Mar 03:00, after the gap 02:00-03:00" in titles(spring)
    assert (len(shapes(spring, "fold")), len(shapes(autumn, "fold"))) == (0, 1)
    assert "03:00 \u2192 02:00" in texts(autumn)
    assert len(shapes(autumn, "diamond mark")) == 4


def test_many_starts_are_drawn_as_heights() -> None:
    root = parsed(plan_of(Every("1s"), days=365))

    assert shapes(root, "start mark") == []
    levels = [shape for shape in shapes(root, "level") if len(shape.get("d") or "") > 40]
    assert len(levels) == 1


def test_lane_without_starts_says_when_the_next_comes() -> None:
    root = parsed(plan_of(At("2026-12-24T18:00+01:00"), At("2020-01-01T00:00Z")))

    assert "next Thu 24 Dec 2026 18:00" in texts(root)
    assert "none to come" in texts(root)


def test_the_end_of_the_calendar_is_told_in_utc_where_the_zone_has_no_date_for_it() -> None:
    plan = preview([Planned("a", At("9999-12-31T23:59Z"))], START, START + timedelta(days=1), timezone="Asia/Tokyo")

    assert plan.lanes[0].error is None
    assert "next Fri 31 Dec 9999 23:59" in texts(parsed(plan))


def test_error_of_a_trigger_stands_in_its_lane() -> None:
    def refuse(after: datetime) -> None:
        raise ValueError("1 < 2 & \x00")

    assert "ValueError: 1 < 2 & \ufffd" in texts(parsed(plan_of(Answers(refuse))))


def test_long_name_is_shortened_and_whole_in_the_tooltip() -> None:
    name = "a_name_" * 20
    root = parsed(preview([Planned(name, Every("1h"))], START, START + timedelta(days=1)))

    shown = next(text for text in texts(root) if text.startswith("a_name_"))
    assert "\u2026" in shown
    assert text_width(shown, 13) <= 230
    assert any(title.startswith(f"{name}: every 1h") for title in titles(root))


def test_empty_plan_says_so() -> None:
    assert "No schedules: there is nothing to plan." in texts(parsed(plan_of()))


names = st.text(st.characters(), min_size=1, max_size=60)


@settings(max_examples=150, deadline=None)
@given(given_names=st.lists(names, min_size=1, max_size=4), days=st.sampled_from([0.04, 1, 7, 365]))
def test_any_names_give_well_formed_xml(given_names: list[str], days: float) -> None:
    planned = [Planned(name, Cron("30 2 * * *", timezone="Europe/Berlin")) for name in given_names]
    plan = preview(planned, START, START + timedelta(days=days), timezone="Europe/Berlin")

    drawn = draw_svg(plan)

    ElementTree.fromstring(drawn.encode())


@pytest.mark.parametrize(
    ("lanes", "days"), [(1, 1), (1, 3_660), (60, 1 / 24), (60, 1), (60, 7), (60, 31), (60, 100), (24, 365)]
)
def test_file_is_small_and_everything_lies_inside_for_any_window(lanes: int, days: float) -> None:
    triggers: list[Trigger] = [
        Cron("* 9-17 * * mon-fri", timezone="Europe/Berlin"),
        Cron("*/20 * * * *", timezone="Europe/Berlin"),
        Cron("0 9-17 * * *"),
        Cron("7 1,3,5 * * *"),
    ]
    many = [triggers[number % len(triggers)] for number in range(lanes)]
    drawn = draw_svg(plan_of(*many, days=days, policies=Policies(jitter=20)))

    assert len(drawn.encode()) < 300_000
    root = ElementTree.fromstring(drawn)
    width, height = float(root.get("width") or 0), float(root.get("height") or 0)
    for shape in root.iter():
        x, y = float(shape.get("x") or 0), float(shape.get("y") or 0)
        assert 0 <= x <= x + float(shape.get("width") or 0) <= width
        assert 0 <= y <= y + float(shape.get("height") or 0) <= height
    for element in root.iter(f"{SVG}text"):
        x, wide = float(element.get("x") or 0), text_width(element.text or "", 11)
        begin = x - {"middle": wide / 2, "end": wide}.get(element.get("text-anchor") or "", 0)
        assert 0 <= begin <= begin + wide <= width, element.text


def test_equal_plans_are_drawn_alike() -> None:
    assert draw_svg(plan_of(Every("7m"))) == draw_svg(plan_of(Every("7m")))


def test_style_stays_inside_the_picture() -> None:
    style = next(element.text or "" for element in parsed(plan_of()).iter(f"{SVG}style"))

    selectors = re.findall(r"^(?:@media [^{]*\{)?([^{]+)\{", style, re.M)
    assert len(selectors) > 20
    assert all(selector.strip().startswith(".tickwork-plan") for selector in selectors)


def test_texts_of_both_schemes_have_contrast_enough() -> None:
    from tickwork.observe.svg_parts import _DARK, _LIGHT

    def light(colour: str) -> float:
        parts = [int(colour[number : number + 2], 16) / 255 for number in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for scheme in (_LIGHT, _DARK):
        for text in ("ink", "soft", "start", "change", "crowd", "bad"):
            for below in ("paper", "track"):
                dark, bright = sorted((light(scheme[text]), light(scheme[below])))
                assert (bright + 0.05) / (dark + 0.05) >= 4.5, (text, below)
