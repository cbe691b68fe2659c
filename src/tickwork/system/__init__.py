"""The schedulers of the operating system: `crontab` (Linux, macOS) and `schtasks` (Windows), awaited and safe.

    from tickwork.system import Crontab

    tab = Crontab()
    await tab.create_python("/srv/report.py", ["--day", "1"], schedule="30 3 * * 1-5", id="report", log="/srv/r.log")
    await tab.remove("report")

Names are loaded when they are first used.
"""

from __future__ import annotations

from typing import Any

_HOMES: dict[str, tuple[str, ...]] = {
    "schtasks": ("Schtasks",),
    "scheduled_task": ("ScheduledTask", "TaskEntry"),
    "task_model": (
        "ByDay",
        "ByMonth",
        "ByMonthWeekday",
        "ByWeek",
        "CalendarTrigger",
        "Definition",
        "Repetition",
        "TimeTrigger",
    ),
}

__all__: list[str] = [
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
