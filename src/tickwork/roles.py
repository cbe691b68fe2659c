"""What a process of an app does: all of it, or a part that other processes complete through the store they share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from .errors import InvalidOption
from .options import one_of, text

if TYPE_CHECKING:
    from collections.abc import Iterable

Role = Literal["all", "worker", "scheduler", "client"]
"""Fires schedules and runs jobs; only runs jobs; only fires schedules; only enqueues, and awaits what others run."""

SHARING = ("scheduler", "client")
"""The jobs of these are run by other processes, so that they need a store that processes share."""


def role_of(role: str, *, is_shared: bool) -> Role:
    """Return a role that makes sense.

    Args:
        role: Its name.
        is_shared: Whether the app keeps its jobs where other processes find them.

    Raises:
        InvalidOption: There is no such role, or nobody could run the jobs.
    """
    found: Role = one_of("role", role, get_args(Role))
    if found in SHARING and not is_shared:
        raise InvalidOption(
            "role",
            "'all' or 'worker' for an app in memory, whose jobs no other process can run",
            role,
            remedy='let it keep its jobs: App("sqlite:///jobs.db")',
        )
    return found


def queues_of(queues: Iterable[str] | None, *, is_shared: bool) -> tuple[str, ...] | None:
    """Return the names of the queues from which a process claims, in order; None: from all.

    Raises:
        InvalidOption: They are no names of queues, there is none, or nobody could run the jobs in the others.
    """
    if queues is None:
        return None
    if isinstance(queues, str):
        raise InvalidOption("queues", "a list of names", queues, remedy=f"write queues=[{queues!r}]")
    names = tuple(sorted({text("queues", name) for name in queues}))
    if not names:
        raise InvalidOption("queues", "at least one name", list(names), remedy="leave it out to claim from all")
    if not is_shared:
        raise InvalidOption(
            "queues",
            "left out for an app in memory, where no other process runs the jobs in the other queues",
            list(names),
            remedy='let it keep its jobs: App("sqlite:///jobs.db")',
        )
    return names
