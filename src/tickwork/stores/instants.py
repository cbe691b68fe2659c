"""Instants as the stores in databases keep them: whole microseconds since the Unix epoch."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def us(at: datetime) -> int:
    """Return an instant as whole microseconds since the Unix epoch."""
    return (at - EPOCH) // MICROSECOND


def us_or_none(at: datetime | None) -> int | None:
    """Return the same, or None of None."""
    return None if at is None else (at - EPOCH) // MICROSECOND


def at(micro: int) -> datetime:
    """Return the instant of so many microseconds."""
    return EPOCH + micro * MICROSECOND  # half the time of timedelta(microseconds=...)


def at_or_none(micro: int | None) -> datetime | None:
    """Return the same, or None of None."""
    return None if micro is None else EPOCH + micro * MICROSECOND
