"""The rules of `tickwork check` about what waits in the app's file: whether today's tasks take it.

Run before a deployment: what is found there would stay queued, or be parked by the new workers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import InvalidPayload, nearest
from ..jobs import JobState
from ..stores.views import JobQuery
from .findings import Finding

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..jobs import JobRecord
    from ..stores.base import Store
    from ..tasks import AnyTask

PAGE = 5_000
"""Jobs read at once: a tenth of a second, after which those who run jobs come in between."""
WAITING = (JobState.SCHEDULED, JobState.QUEUED, JobState.RUNNING, JobState.PARKED)
"""What runs counts, too: it may come back."""


@dataclass(slots=True)
class _Group:
    """Jobs of one task of which the same is to be said; the oldest of them is shown."""

    task: str
    example: str
    count: int = 0
    parked_count: int = 0
    reason: str = ""

    def add(self, job: JobRecord, reason: str = "") -> None:
        self.count += 1
        self.parked_count += job.state is JobState.PARKED
        self.example, self.reason = job.id, reason  # the newest come first

    def __str__(self) -> str:
        such = "1 job waits" if self.count == 1 else f"{self.count:,} jobs wait"
        parked = f" ({self.parked_count:,} parked)" if self.parked_count else ""
        return f"{such}{parked}, the oldest is {self.example}"


async def check_waiting(store: Store, names: Mapping[str, AnyTask]) -> list[Finding]:
    """Return what is found among the unfinished jobs of a store, a finding for each task and what is wrong with it.

    Args:
        store: It is open.
        names: The tasks, by name and alias.
    """
    unknown: dict[str, _Group] = {}
    misfits: dict[str, _Group] = {}
    query: JobQuery | None = JobQuery(states=WAITING, limit=PAGE)
    while query is not None:
        page = await store.page(query)
        for job in page.jobs:
            task = names.get(job.task)
            if task is None:
                unknown.setdefault(job.task, _Group(job.task, job.id)).add(job)
            elif (reason := _misfit(task, job)) is not None:
                misfits.setdefault(job.task, _Group(job.task, job.id)).add(job, reason)
        query = None if page.next is None else JobQuery(states=WAITING, limit=PAGE, after=page.next)
    return [_unknown(group, names) for group in unknown.values()] + [
        Finding("waiting-misfit", group.task, f"{group}; its arguments do not fit: {group.reason}", _FIT)
        for group in misfits.values()
    ]


_FIT = "give what is new a default, take what is gone by **kwargs, or let them run before the deployment"


def _misfit(task: AnyTask, job: JobRecord) -> str | None:
    """Return why the arguments of a job do not fit its task; None: they do."""
    try:
        task.codec.decode(job.payload)
    except InvalidPayload as error:
        return str(error)
    except Exception as error:  # the user's own types may raise anything
        return f"{type(error).__name__} while they were read"
    return None


def _unknown(group: _Group, names: Mapping[str, AnyTask]) -> Finding:
    near = nearest(group.task, list(names))
    renamed = f'if {near!r} is its new name, give that aliases=["{group.task}"]; else ' if near else ""
    remedy = f"{renamed}cancel them with `tickwork jobs cancel`, or keep the task until they have run"
    return Finding("waiting-unknown", group.task, f"{group}, and the app has no such task", remedy)
