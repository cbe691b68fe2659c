"""The schedulers of the operating system: `crontab` (Linux, macOS) and `schtasks` (Windows), awaited and safe.

    from tickwork.system import Crontab

    tab = Crontab()
    await tab.create_python("/srv/report.py", ["--day", "1"], schedule="30 3 * * 1-5", id="report", log="/srv/r.log")
    await tab.remove("report")

    from tickwork.system import Schtasks

    st = Schtasks()
    await st.create_daily("report", [sys.executable, "C:/srv/report.py", "--day", "1"], at="03:30")
    await st.delete("report")

The schedules of an app are brought into either, and kept in step:

    plan = await tab.plan(app, "billing.jobs:app")
    print(plan)
    await tab.apply(plan)

Names are loaded when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cron_daemon import CronDaemon as CronDaemon
    from .cron_doctor import Check as Check
    from .cron_doctor import CrontabReport as CrontabReport
    from .cron_doctor import doctor as doctor
    from .cron_entry import CronEntry as CronEntry
    from .cron_schedule import cron_fields as cron_fields
    from .crontab import Crontab as Crontab
    from .crontab_text import CronLine as CronLine
    from .crontab_text import Owner as Owner
    from .scheduled_task import ScheduledTask as ScheduledTask
    from .scheduled_task import TaskEntry as TaskEntry
    from .schtasks import Schtasks as Schtasks
    from .sync import Plan as Plan
    from .sync import Step as Step
    from .task_model import ByDay as ByDay
    from .task_model import ByMonth as ByMonth
    from .task_model import ByMonthWeekday as ByMonthWeekday
    from .task_model import ByWeek as ByWeek
    from .task_model import CalendarTrigger as CalendarTrigger
    from .task_model import Definition as Definition
    from .task_model import Repetition as Repetition
    from .task_model import TimeTrigger as TimeTrigger
    from .task_triggers import to_task_triggers as to_task_triggers

_HOMES: dict[str, tuple[str, ...]] = {
    "cron_entry": ("CronEntry",),
    "cron_schedule": ("cron_fields",),
    "crontab": ("Crontab",),
    "crontab_text": ("CronLine", "Owner"),
    "scheduled_task": ("ScheduledTask", "TaskEntry"),
    "schtasks": ("Schtasks",),
    "sync": ("Plan", "Step"),
    "task_model": (
        *("ByDay", "ByMonth", "ByMonthWeekday", "ByWeek"),
        *("CalendarTrigger", "Definition", "Repetition", "TimeTrigger"),
    ),
    "task_triggers": ("to_task_triggers",),
    "cron_daemon": ("CronDaemon",),
    "cron_doctor": ("Check", "CrontabReport", "doctor"),
}

__all__ = [
    # both
    "Plan",
    "Step",
    # crontab
    "Check",
    "CronDaemon",
    "CronEntry",
    "CronLine",
    "Crontab",
    "CrontabReport",
    "Owner",
    "cron_fields",
    "doctor",
    # schtasks
    "ByDay",
    "ByMonth",
    "ByMonthWeekday",
    "ByWeek",
    "CalendarTrigger",
    "Definition",
    "Repetition",
    "ScheduledTask",
    "Schtasks",
    "TaskEntry",
    "TimeTrigger",
    "to_task_triggers",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    for home, names in _HOMES.items():
        if name in names:
            value = getattr(import_module(f".{home}", __name__), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
