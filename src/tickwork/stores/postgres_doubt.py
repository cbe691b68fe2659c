"""Keys of which nobody knows yet whether a job has them: transactions of users that have not ended.

Such a transaction locks its keys, each by an advisory lock of its own, see `postgres_joint`. The store must not wait
for it, as the insert of a second job with the key would: it looks at the locks first. Should a key be locked between
that look and the insert, which takes a millisecond, `lock_timeout` cuts the wait short, and the transaction of the
store is run again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .postgres_link import key_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .postgres_link import Link

_LOOK = """
    SELECT told, key FROM (SELECT set_config('lock_timeout', '250ms', true) AS told) AS limited
    LEFT JOIN LATERAL (
        SELECT key FROM unnest(%b::bigint[]) AS key
        WHERE NOT CASE WHEN pg_try_advisory_lock_shared(key) THEN pg_advisory_unlock_shared(key) ELSE false END
    ) AS held ON true
"""
"""It keeps none of the locks: there may be thousands of keys, and a server has not so many locks. The time is shorter
than `deadlock_timeout`: who waits for whom is not to be settled at the user's cost."""


def in_doubt(db: Link, names: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return those of these tasks and keys of which a transaction that has not ended may enqueue a job.

    From here on, nothing waits longer than a quarter of a second in this transaction.
    """
    locks = {lock_of(db.schema, *name): name for name in names}
    return {locks[key] for _, key in db.all(_LOOK, (list(locks),)) if key is not None}


def lock_of(schema: str, task: str, key: str) -> int:
    """Return the number of the lock that a transaction of a user holds on a key."""
    return key_of(schema, f"joint {task} {key}".encode("utf-8", "surrogatepass").hex())
