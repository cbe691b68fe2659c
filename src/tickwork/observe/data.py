"""A plan as JSON, with names that stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime

    from .plan import Lane, Plan

__all__ = ["as_data"]


def as_data(plan: Plan) -> dict[str, Any]:
    """Return a plan as what JSON can carry.

    Instants are ISO 8601 texts in UTC, durations seconds. The keys are the names of the attributes of `Plan`, `Lane`
    and the others, see there; a run is [begin, end]. Keys are only ever added.
    """
    return {
        "start": _utc(plan.start),
        "end": _utc(plan.end),
        "timezone": plan.timezone,
        "edges": [_utc(at) for at in plan.edges],
        "lanes": [_lane(lane) for lane in plan.lanes],
        "changes": [
            {"at": _utc(change.at), "shift": change.shift, "before": change.before, "after": change.after}
            for change in plan.changes
        ],
        "collisions": [
            {"at": _utc(collision.at), "names": list(collision.names), "count": collision.count}
            for collision in plan.collisions
        ],
        "collision_count": plan.collision_count,
        "crowds": list(plan.crowds),
        "peak": None if plan.peak is None else {"count": plan.peak.count, "at": _utc(plan.peak.at)},
    }


def _lane(lane: Lane) -> dict[str, Any]:
    return {
        "name": lane.name,
        "when": lane.when,
        "timezone": lane.timezone,
        "overlap": lane.overlap,
        "jitter": lane.jitter,
        "duration": lane.duration,
        "count": lane.count,
        "counts": list(lane.counts),
        "is_estimated": lane.is_estimated,
        "starts": [_utc(at) for at in lane.starts],
        "following": None if lane.following is None else _utc(lane.following),
        "touched": [{"at": _utc(mark.at), "change": mark.change} for mark in lane.touched],
        "runs": [[_utc(begin), _utc(end)] for begin, end in lane.runs],
        "dropped_count": lane.dropped_count,
        "dropped": [_utc(at) for at in lane.dropped],
        "is_background": lane.is_background,
        "error": lane.error,
    }


def _utc(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
