"""Which task or schedule a person means who names one on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import UnknownSchedule, UnknownTask

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..app import App
    from ..schedules import Schedule
    from ..tasks import AnyTask


def task_to_run(app: App, name: str) -> AnyTask:
    """Return the task that is meant: of this name, now or formerly, of this schedule, or the only one that ends so.

    Raises:
        UnknownTask: There is none, or several names end so.
    """
    if name in app.schedules and name not in app._names:
        made: AnyTask = app.schedules[name].task
        return made
    return _find(app, name, app.schedules)


async def task_of_jobs(app: App, name: str) -> str:
    """Return the name of the task whose jobs are meant; the app's store is open.

    Jobs may be of a task that the app no longer has: what is the whole name of one stands for itself.

    Raises:
        UnknownTask: Neither the app nor any job has the task, or several names end so.
    """
    if name not in app._names and (await app.jobs.list(task=name, limit=1)).jobs:
        return name
    return _find(app, name, ()).name


def schedule_named(app: App, name: str) -> Schedule:
    """Return the schedule of this name, or the only one whose last part it is.

    Raises:
        UnknownSchedule: There is none, or several names end so.
    """
    if name in app.schedules:
        return app.schedules[name]
    ending = [key for key in app.schedules if key.endswith(f".{name}")]
    if len(ending) == 1:
        return app.schedules[ending[0]]
    raise UnknownSchedule(name, ending or list(app.schedules))


def _find(app: App, name: str, others: Iterable[str]) -> AnyTask:
    """Return the task of this name, now or formerly, or the only one whose last part it is.

    Args:
        app: Whose tasks are meant.
        name: What a person has written.
        others: What else may have been meant, for the message.
    """
    if name in app._names:
        return app._names[name]
    ending = [task for task in app.tasks.values() if task.name.endswith(f".{name}")]
    if len(ending) == 1:
        return ending[0]
    if ending:
        raise UnknownTask(name, remedy=f"several end so: {', '.join(task.name for task in ending)}")
    known = [*app._names, *others, *(task.rpartition(".")[2] for task in app.tasks)]
    raise UnknownTask(name, known=known, remedy=f"the app has {', '.join(app.tasks) or 'no tasks'}")
