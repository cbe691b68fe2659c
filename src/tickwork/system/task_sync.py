"""The entries of an app in Task Scheduler: as they are to be made, and as they are found. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import InvalidEntry, UnsupportedSchedule
from .app_sync import Seen
from .crontab_text import Owner
from .scheduled_task import ScheduledTask
from .sync import Found, Want
from .task_text import describe_triggers
from .task_xml import fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from .app_entries import Wanted
    from .scheduled_task import TaskEntry

__all__ = ["look", "render"]


def render(wanted: Sequence[Wanted], owner: Owner, *, timezone: str | None, now: datetime) -> list[Want]:
    """Return entries as tasks, or why they cannot be."""
    return [_render(entry, owner, timezone, now) for entry in wanted]


def _render(wanted: Wanted, owner: Owner, timezone: str | None, now: datetime) -> Want:
    about, reason, is_unwritable = wanted.about, wanted.refused, False
    if not reason:
        task = ScheduledTask(
            rf"{owner.app}\{wanted.id}",
            wanted.argv,
            wanted.trigger,
            overlap="allow",  # what runs knows the overlap policy of the schedule, and writes down what it did
            app=owner.app,
            dir=owner.dir,
            target=owner.target,
        )
        try:
            definition = task.define(timezone=timezone, now=now)
        except (UnsupportedSchedule, InvalidEntry) as error:
            reason, is_unwritable = error.reason, isinstance(error, InvalidEntry) or timezone is None
        else:
            return Want(wanted.id, describe_triggers(definition.triggers), about, fingerprint(definition), task)
    return Want(wanted.id, repr(wanted.trigger), about, None, None, reason, is_unwritable)


def look(entries: Iterable[TaskEntry], app_id: str) -> Seen:
    """Return what a folder of Task Scheduler has of an app."""
    found, owners, others = list[Found](), list[Owner](), 0
    for entry in entries:
        app, _, id = entry.name.lower().partition("\\")
        is_ours = entry.is_managed and entry.app == app_id
        if app != app_id or not id:
            others += 1
            continue
        found.append(_found(entry, id, is_ours=is_ours))
        if is_ours:
            owners.append(Owner(app_id, entry.dir, entry.target))
        else:
            others += 1
    return Seen(tuple(found), tuple(dict.fromkeys(owners)), others)


def _found(entry: TaskEntry, id: str, *, is_ours: bool) -> Found:
    definition = entry.definition  # as it is now, which for one that was edited is not what its mark says
    when, token = ("?", "") if definition is None else (describe_triggers(definition.triggers), fingerprint(definition))
    if not is_ours:
        note = f"belongs to the app {entry.app!r}" if entry.is_managed else "not made by tickwork"
    else:
        note = "" if entry.is_enabled else "switched off"
    return Found(id, when, token, entry.is_edited, is_ours, note)
