"""Triggers of Task Scheduler as short texts."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tickwork import At, Cron, Every
from tickwork.system.task_model import ByDay, ByMonthWeekday, ByWeek, CalendarTrigger
from tickwork.system.task_text import describe_triggers
from tickwork.system.task_triggers import to_task_triggers
from tickwork.triggers import Trigger

NINE = datetime(2026, 1, 1, 9)  # noqa: DTZ001  # on the wall clock of the machine


@pytest.mark.parametrize(
    ("trigger", "text"),
    [
        (Cron("30 3 * * *"), "daily 03:30"),
        (Cron("0 9 * * mon-fri"), "mon-fri 09:00"),
        (Cron("0 9 * * 1,4"), "mon,thu 09:00"),
        (Cron("*/20 9-17 * * *"), "daily 09:00, every 20m for 8h40m"),
        (Cron("*/5 * * * *"), "every 5m from 2026-01-01 00:00"),
        (Cron("0 6 1,L * *"), "day 1,last 06:00"),
        (Cron("0 6 * 3,7 *"), "daily in mar,jul 06:00"),
        (Cron("0 6 * * 1#2"), "2. mon 06:00"),
        (Cron("0 6 * 1-3 5"), "fri in jan-mar 06:00"),
        (Cron("*/7 * * * *"), "every 1h from 2026-01-01 00:00; every 1h from 2026-01-01 00:07; 7 more"),
        (Every("90m"), "every 1h30m from 2026-01-01 00:00 UTC"),
        (Every("2d"), "every 2d from 2026-01-01 00:00 UTC"),
        (At(datetime(2027, 1, 1, 2, 3, 4, tzinfo=UTC)), "2027-01-01 02:03:04 UTC"),
    ],
)
def test_triggers_read_as_people_say_them(trigger: Trigger, text: str) -> None:
    assert describe_triggers(to_task_triggers(trigger, timezone="UTC")) == text


def test_distances_of_several_days_and_weeks_are_told() -> None:
    assert describe_triggers([CalendarTrigger(NINE, ByDay(3))]) == "every 3 days 09:00"
    assert describe_triggers([CalendarTrigger(NINE, ByWeek((1,), 2))]) == "mon of every 2 weeks 09:00"
    assert describe_triggers([CalendarTrigger(NINE, ByMonthWeekday((1, "last"), (0,)))]) == "1,last. sun 09:00"
