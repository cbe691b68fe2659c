"""Which of the jobs that several callers enqueue at once are taken in: the room there is, the keys that are held."""

from __future__ import annotations

from datetime import timedelta
from itertools import chain
from typing import TYPE_CHECKING

from ..jobs import JobRecord, JobState, NewJob, taken
from ..records import copier
from .rows import utf8

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from .durable import Claim

    Find = Callable[[str, str], JobRecord | None]


def take_in(
    asked: Sequence[Sequence[NewJob]], now: datetime, room: int, find: Find
) -> tuple[list[list[JobRecord] | None], list[JobRecord]]:
    """Take jobs in, for each who asks all or none.

    A job whose key an unfinished one has is not taken in: that one stands in its place, and needs no room.

    Args:
        asked: What each caller enqueues.
        now: When (UTC).
        room: For how many jobs.
        find: Returns the unfinished job of a task that has a key, or None.

    Returns:
        What each caller gets, None: there is no room for it; and the jobs that are new.
    """
    answers: list[list[JobRecord] | None] = []
    new: list[JobRecord] = []
    by_key: dict[tuple[str, str], JobRecord] = {}
    have_keys = any(job.key is not None for job in chain.from_iterable(asked))
    for jobs in asked:
        records = fresh = [taken(job, now) for job in jobs]
        if have_keys:
            records, fresh = _keyed(records, by_key, find)
        has_room = not fresh or len(fresh) <= room  # what was fired may have taken more than there is
        answers.append(records if has_room else None)
        if has_room:
            room -= len(fresh)
            new += fresh
            if have_keys:
                by_key.update({(record.task, record.key): record for record in fresh if record.key is not None})
    return answers, new


def claimed_at_once(new: Sequence[JobRecord], hungry: Claim | None, now: datetime) -> list[JobRecord]:
    """Return new jobs as they are when a worker has claimed them that waits: all, or none where that is not so simple.

    To write them as queued and claim them then would be twice the work. Whether others go first, the store must know.
    """
    if hungry is None or len(new) > hungry.limit or not all(map(hungry.takes, new)):
        return []
    expires = now + timedelta(seconds=hungry.lease_seconds)
    return [_as_claimed(record, utf8(record.payload), JobState.RUNNING, 1, hungry.worker, expires) for record in new]


_as_claimed = copier(JobRecord, "payload", "state", "token", "worker", "lease_expires_at")


def _keyed(
    records: Sequence[JobRecord], by_key: Mapping[tuple[str, str], JobRecord], find: Find
) -> tuple[list[JobRecord], list[JobRecord]]:
    """Return what stands for each of these jobs, and those that are new, with regard to their keys."""
    known = dict(by_key)
    answers, fresh = [], []
    for record in records:
        if record.key is not None:
            name = record.task, record.key
            held = known.get(name) or find(*name)
            known[name] = held or record
            if held is not None:
                answers.append(held)
                continue
        answers.append(record)
        fresh.append(record)
    return answers, fresh
