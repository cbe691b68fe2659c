"""Deaths on purpose, for tests: people prove that a job may be killed anywhere, run twice, or lose its lease.

Part of `Testing`: see `tickwork.testing`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from .errors import InvalidOption, Killed, NotRunning
from .jobs import JobState
from .options import positive, text
from .payloads.hints import signature_of
from .tasks import Task

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .app import App
    from .context import Context
    from .handle import Job
    from .jobs import JobRecord
    from .tasks import AnyTask

__all__ = ["CrashKit"]


class CrashKit(ABC):
    """What `Testing` can do to jobs, and what it can say of those that were enqueued."""

    _app: App

    def __init__(self) -> None:
        self._kills: dict[tuple[str, str], int] = {}
        self._reached: list[tuple[str, str, str]] = []

    @property
    @abstractmethod
    def jobs(self) -> list[JobRecord]:
        """All jobs, in the order in which they were made."""

    @abstractmethod
    async def drain(self) -> None:
        """Run what is queued and running to its end."""

    # -- deaths -----------------------------------------------------------------------------------------------------

    def kill(self, task: AnyTask | str, *, at: str, times: int = 1) -> None:
        """Let the next attempts of a task die at a checkpoint: `ctx.checkpoint("charged")` in the job.

        To the store that is the death of a worker: the job runs again, at most `max_deaths` times. In the job
        `Killed` is raised, which `except Exception` does not catch; a `finally` runs, as it would not in a real death.
        A job in a child process hears of no checkpoint.

        Args:
            task: The task, or its name.
            at: The checkpoint's name.
            times: How many attempts.
        """
        self._kills[self._named(task), text("at", at)] = positive("times", times)

    def checkpoints(self, task: AnyTask | str) -> list[str]:
        """Return the checkpoints that jobs of a task have reached so far, in order."""
        name = self._named(task)
        return [checkpoint for reached, checkpoint, _ in self._reached if reached == name]

    async def redeliver(self, job: Job[Any]) -> Any:
        """Run a job again that has ended, as happens when a worker dies before the end is written; return its value.

        Raises:
            IllegalMove: It has not ended.
            Exception: What the job raises.
        """
        record = self._memory().redeliver(job.id)
        assert record.state is JobState.QUEUED
        await self.drain()
        return await job

    async def lose_lease(self, job: Job[Any]) -> None:
        """Take a running job away from its worker, as happens to one that stood still for longer than its lease.

        The attempt is cancelled, and what it may still say is refused; the job runs again.

        Raises:
            IllegalMove: It does not run.
        """
        store, dispatcher = self._memory(), self._app._dispatcher
        assert dispatcher is not None
        if not dispatcher.holds(job.id):
            raise NotRunning(f"job {job.id} does not run here, so it has no lease to lose")
        store.redeliver(job.id)
        dispatcher.leases_held(
            {run.record.id: run.record.token for run in dispatcher.running if run.record.id != job.id}
        )

    def _reach(self, context: Context, checkpoint: str) -> None:
        self._reached.append((context.task, checkpoint, context.job_id))
        left = self._kills.get((context.task, checkpoint), 0)
        if left:
            self._kills[context.task, checkpoint] = left - 1
            raise Killed(checkpoint)

    # -- what was enqueued --------------------------------------------------------------------------------------------

    def enqueued(self, task: AnyTask | str, **arguments: Any) -> list[JobRecord]:
        """Return the jobs of a task that were enqueued with these arguments, in order.

        Args:
            task: The task, or its name.
            **arguments: By name; those left out may be anything.
        """
        name = self._named(task)
        found = []
        for record in self.jobs:
            if record.task == name:
                given = _arguments(self._app.tasks[name], record.payload)
                if all(key in given and given[key] == value for key, value in arguments.items()):
                    found.append(record)
        return found

    def assert_enqueued(self, task: AnyTask | str, *, times: int | None = None, **arguments: Any) -> list[JobRecord]:
        """Check that jobs of a task were enqueued with these arguments, and return them.

        Args:
            task: The task, or its name.
            times: How many; None: one or more; 0: none.
            **arguments: By name; those left out may be anything.

        Raises:
            AssertionError: There are others than that; it lists what was enqueued.
        """
        name = self._named(task)
        found = self.enqueued(task, **arguments)
        if len(found) == times or (times is None and found):
            return found
        wanted = f"{name}({_shown(arguments)}, ...)" if arguments else name
        codec = self._app.tasks[name].codec
        there = [f"{name}({_shown(codec.show(record.payload))})" for record in self.jobs if record.task == name]
        raise AssertionError(
            f"expected {'at least one job' if times is None else f'{times} jobs'} of {wanted}, found {len(found)}; "
            + (f"enqueued were: {', '.join(there)}" if there else f"no job of {name} was enqueued")
        )

    # -- helpers ------------------------------------------------------------------------------------------------------

    def _named(self, task: AnyTask | str) -> str:
        name = task.name if isinstance(task, Task) else task
        if name not in self._app.tasks:
            raise InvalidOption("task", f"a task of the app: {', '.join(self._app.tasks)}", task)
        return name

    def _memory(self) -> Any:
        if self._app._store is None:
            raise NotRunning("the app is not under test; use `async with app.testing() as t`")
        return self._app._store


def _arguments(task: AnyTask, payload: str) -> dict[str, Any]:
    """Return the arguments of a job by name, with defaults for those that were not passed."""
    args, kwargs = task.codec.decode(payload)
    bound = signature_of(task.fn).bind(*((None, *args) if task.wants_context else args), **kwargs)
    bound.apply_defaults()
    return dict(list(bound.arguments.items())[task.wants_context :])


def _shown(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in arguments.items())
