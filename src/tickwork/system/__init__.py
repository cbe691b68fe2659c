"""The schedulers of the operating system: `crontab` (Linux, macOS) and `schtasks` (Windows), awaited and safe.

    from tickwork.system import Crontab

    tab = Crontab()
    await tab.create_python("/srv/report.py", ["--day", "1"], schedule="30 3 * * 1-5", id="report", log="/srv/r.log")
    await tab.remove("report")

Names are loaded when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cron_doctor import Check as Check
    from .cron_doctor import CronDaemon as CronDaemon
    from .cron_doctor import CrontabReport as CrontabReport
    from .cron_doctor import doctor as doctor
    from .cron_entry import CronEntry as CronEntry
    from .cron_schedule import cron_fields as cron_fields
    from .crontab import Crontab as Crontab
    from .crontab_text import CronLine as CronLine
    from .crontab_text import Owner as Owner

_HOMES: dict[str, tuple[str, ...]] = {
    "cron_entry": ("CronEntry",),
    "cron_schedule": ("cron_fields",),
    "crontab": ("Crontab",),
    "crontab_text": ("CronLine", "Owner"),
    "cron_doctor": ("Check", "CronDaemon", "CrontabReport", "doctor"),
}

__all__ = [
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
