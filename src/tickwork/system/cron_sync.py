"""The entries of an app in a crontab: read from its table, and put into it. Pure: tables in, tables out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import InvalidEntry, UnsupportedSchedule
from .app_sync import Seen
from .cron_entry import CronEntry
from .cron_schedule import cron_fields
from .sync import Found, Want

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .app_entries import Wanted
    from .crontab_text import Table
    from .sync import Plan

__all__ = ["change_table", "look", "render"]


def render(wanted: Sequence[Wanted], zone: str | None) -> list[Want]:
    """Return entries as lines of a crontab, or why they cannot be."""
    return [_render(entry, zone) for entry in wanted]


def _render(wanted: Wanted, zone: str | None) -> Want:
    about, reason, is_unwritable = wanted.about, wanted.refused, False
    if not reason:
        try:
            line = CronEntry(wanted.id, wanted.trigger, wanted.argv).line(zone)
            return Want(wanted.id, cron_fields(wanted.trigger, zone), about, line, line)
        except (UnsupportedSchedule, InvalidEntry) as error:
            reason, is_unwritable = error.reason, isinstance(error, InvalidEntry) or zone is None
    return Want(wanted.id, repr(wanted.trigger), about, None, None, reason, is_unwritable)


def look(table: Table, app_id: str) -> Seen:
    """Return what a crontab has of an app."""
    entries = [table.get(id, app_id) for id in table.ids(app_id)]
    found = tuple(
        Found(entry.id or "", entry.schedule or entry.command, entry.raw, entry.is_edited)
        for entry in entries
        if entry is not None
    )
    owners = tuple(owner for owner in table.owners if owner.app == app_id)
    return Seen(found, owners, table.count_others(app_id))


def change_table(table: Table, plan: Plan) -> Table:
    """Return a table after the steps of a plan that was made for it."""
    if not plan.changes:
        return table
    lines = {want.id: want.payload for want in plan.request.wants}
    puts = {step.id: lines[step.id] for step in plan.steps if step.kind in ("add", "change")}
    drops = [step.id for step in plan.steps if step.kind == "remove"]
    owner = plan.request.owner
    if plan.request.mode != "uninstall":
        return table.update(puts, drops, owner)
    (there,) = (other for other in table.owners if other.app == owner.app)
    return table.update({}, drops, there).without_block(owner.app)
