"""Scheduled and background work inside an asyncio program, in one small library.

    from tickwork import App

    app = App()

    @app.every("30s")
    async def poll() -> None: ...

Names are loaded when they are first used, so that `import tickwork` costs next to nothing, and a child process that
runs one function does not load a scheduler.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._version import __version__ as __version__

if TYPE_CHECKING:
    from .app import App as App
    from .app import Stopped as Stopped
    from .batch.api import amap as amap
    from .batch.api import map as map
    from .batch.dead import dead_items as dead_items
    from .batch.files_api import amap_files as amap_files
    from .batch.files_api import map_files as map_files
    from .batch.outcomes import ItemOutcome as ItemOutcome
    from .batch.progress import BatchProgress as BatchProgress
    from .context import Context as Context
    from .context import JobFilter as JobFilter
    from .errors import BatchIncomplete as BatchIncomplete
    from .errors import ItemError as ItemError
    from .errors import JobCancelled as JobCancelled
    from .errors import JobError as JobError
    from .errors import JobFailed as JobFailed
    from .errors import JobParked as JobParked
    from .errors import JobTimedOut as JobTimedOut
    from .errors import QueueFull as QueueFull
    from .errors import TickworkError as TickworkError
    from .errors import WrongBatch as WrongBatch
    from .errors import WrongState as WrongState
    from .explain import Why as Why
    from .explain_job import JobWhy as JobWhy
    from .handle import Job as Job
    from .health import Health as Health
    from .job_batch import BatchCounts as BatchCounts
    from .job_batch import JobBatch as JobBatch
    from .job_batch import JobOutcome as JobOutcome
    from .job_info import JobInfo as JobInfo
    from .job_info import JobPage as JobPage
    from .jobs import Attempt as Attempt
    from .jobs import JobRecord as JobRecord
    from .jobs import JobState as JobState
    from .jobs import Progress as Progress
    from .limits import Limit as Limit
    from .limits import Rate as Rate
    from .payloads import Secret as Secret
    from .pool import Loaded as Loaded
    from .pool import Pool as Pool
    from .pool import PoolJob as PoolJob
    from .pool import PoolStats as PoolStats
    from .pool import Saved as Saved
    from .retry import GiveUp as GiveUp
    from .retry import Retry as Retry
    from .retry import RetryAfter as RetryAfter
    from .runners.options import Processes as Processes
    from .schedules import Schedule as Schedule
    from .stores.base import Answer as Answer
    from .tasks import Task as Task
    from .tasks import at as at
    from .tasks import cron as cron
    from .tasks import every as every
    from .tasks import schedule as schedule
    from .tasks import task as task
    from .ticks import Tick as Tick
    from .triggers import At as At
    from .triggers import Cron as Cron
    from .triggers import Every as Every
    from .triggers import Trigger as Trigger

_HOMES = {
    "app": ("App", "Stopped"),
    "batch.api": ("amap", "map"),
    "batch.dead": ("dead_items",),
    "batch.files_api": ("amap_files", "map_files"),
    "batch.outcomes": ("ItemOutcome",),
    "batch.progress": ("BatchProgress",),
    "context": ("Context", "JobFilter"),
    "errors": (
        "BatchIncomplete",
        "ItemError",
        "JobCancelled",
        "JobError",
        "JobFailed",
        "JobParked",
        "JobTimedOut",
        "QueueFull",
        "TickworkError",
        "WrongBatch",
        "WrongState",
    ),
    "explain": ("Why",),
    "explain_job": ("JobWhy",),
    "handle": ("Job",),
    "health": ("Health",),
    "job_batch": ("BatchCounts", "JobBatch", "JobOutcome"),
    "job_info": ("JobInfo", "JobPage"),
    "jobs": ("Attempt", "JobRecord", "JobState", "Progress"),
    "limits": ("Limit", "Rate"),
    "payloads.secrets": ("Secret",),
    "pool": ("Loaded", "Pool", "PoolJob", "PoolStats", "Saved"),
    "retry": ("GiveUp", "Retry", "RetryAfter"),
    "runners.options": ("Processes",),
    "schedules": ("Schedule",),
    "stores.base": ("Answer",),
    "tasks": ("Task", "at", "cron", "every", "schedule", "task"),
    "ticks": ("Tick",),
    "triggers": ("At", "Cron", "Every", "Trigger"),
}

__all__ = [
    # an app
    "App",
    "Answer",
    "Attempt",
    "BatchCounts",
    "Context",
    "Health",
    "Job",
    "JobBatch",
    "JobFilter",
    "JobInfo",
    "JobOutcome",
    "JobPage",
    "JobRecord",
    "JobState",
    "JobWhy",
    "Limit",
    "Progress",
    "Rate",
    "Retry",
    "Schedule",
    "Secret",
    "Stopped",
    "Task",
    "Why",
    # decorators
    "at",
    "cron",
    "every",
    "schedule",
    "task",
    # triggers
    "At",
    "Cron",
    "Every",
    "Tick",
    "Trigger",
    # a pool
    "Loaded",
    "Pool",
    "PoolJob",
    "PoolStats",
    "Processes",
    "Saved",
    # batches
    "BatchProgress",
    "ItemError",
    "ItemOutcome",
    "amap",
    "amap_files",
    "dead_items",
    "map",
    "map_files",
    # errors; all of them are in tickwork.errors
    "BatchIncomplete",
    "GiveUp",
    "JobCancelled",
    "JobError",
    "JobFailed",
    "JobParked",
    "JobTimedOut",
    "QueueFull",
    "RetryAfter",
    "TickworkError",
    "WrongBatch",
    "WrongState",
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
