"""What a PostgreSQL store does, verb by verb: functions of a link, each a part of somebody's transaction.

They know neither threads nor the loop. `now` is handed in. Here is what only reads or forgets; the others stand in
`postgres_intake`, `postgres_firing`, `postgres_claims`, `postgres_ends` and `postgres_watch`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..jobs import JobRecord, JobState
from .instants import us
from .postgres_claims import Told as Told
from .postgres_claims import claim_next as claim_next
from .postgres_claims import extend as extend
from .postgres_claims import progress as progress
from .postgres_claims import progress_all as progress_all
from .postgres_claims import promote as promote
from .postgres_common import EVERY, count, forget_attempts, table_of
from .postgres_common import hold as hold
from .postgres_common import job as job
from .postgres_common import jobs_of as jobs_of
from .postgres_common import unfinished_of as unfinished_of
from .postgres_ends import became_of as became_of
from .postgres_ends import cancel as cancel
from .postgres_ends import finish as finish
from .postgres_ends import release as release
from .postgres_ends import rescue as rescue
from .postgres_firing import change_schedule as change_schedule
from .postgres_firing import fire as fire
from .postgres_firing import fire_all as fire_all
from .postgres_intake import enqueue as enqueue
from .postgres_intake import withdraw as withdraw
from .postgres_watch import beat as beat
from .postgres_watch import cancels_asked as cancels_asked
from .postgres_watch import ended_among as ended_among
from .postgres_watch import forget_processes as forget_processes
from .postgres_watch import has_overdue as has_overdue
from .postgres_watch import leases_held as leases_held
from .postgres_watch import leave as leave
from .postgres_watch import merge_shards as merge_shards
from .postgres_watch import news as news
from .postgres_watch import next_claim as next_claim
from .postgres_watch import other_workers as other_workers
from .postgres_watch import renew as renew
from .rows import JOB, job_of
from .sql_batches import STATES
from .sql_schedules import answer_of as answer_of
from .sql_schedules import ledger as ledger
from .sql_schedules import schedules as schedules

if TYPE_CHECKING:
    from datetime import datetime

    from .postgres_link import Link


def jobs(db: Link, state: JobState | None, name: str | None, limit: int) -> list[JobRecord]:
    """Return jobs, the newest first."""
    wanted = [("state = %s", None if state is None else state.value), ("schedule = %s", name)]
    given = [(test, value) for test, value in wanted if value is not None]
    where = f"WHERE {' AND '.join(test for test, _ in given)}" if given else ""
    values = (*(value for _, value in given), limit)
    table = EVERY if state is None else table_of(state)
    return [job_of(entry) for entry in db.all(f"SELECT {JOB} FROM {table} {where} ORDER BY seq DESC LIMIT %s", values)]


def counts(db: Link) -> dict[JobState, int]:
    """Return how many jobs there are in each state."""
    sums = ", ".join(f"coalesce(sum({state}), 0)::bigint" for state in STATES)
    found = db.all(f"SELECT {sums} FROM shards")[0]
    return {JobState(state): count for state, count in zip(STATES, found, strict=True)}


def prune(db: Link, *, results: datetime, jobs: datetime, ledger: datetime, limit: int) -> tuple[int, bool]:
    """Forget results, finished jobs and ledger rows that ended before these instants, so many of each at the most.

    Returns:
        How many jobs and rows are gone, and whether there may be more.
    """
    emptied = db.execute(
        """
        UPDATE finished SET result = NULL WHERE seq IN (
            SELECT seq FROM finished WHERE result IS NOT NULL AND finished_at < %s ORDER BY finished_at LIMIT %s
            FOR UPDATE SKIP LOCKED
        )
        """,
        (us(results), limit),
    ).rowcount
    gone = db.all(
        """
        DELETE FROM finished WHERE seq IN (
            SELECT seq FROM finished WHERE finished_at < %s ORDER BY finished_at LIMIT %s FOR UPDATE SKIP LOCKED
        ) RETURNING id, state, batch
        """,
        (us(jobs), limit),
    )
    for _, state, batch in gone:
        count(db, state, None, batch)
    forget_attempts(db, [job_id for job_id, *_ in gone])
    rows = db.execute(
        """
        DELETE FROM ledger
        WHERE seq IN (
            SELECT seq FROM ledger WHERE answered_at < %s ORDER BY answered_at LIMIT %s FOR UPDATE SKIP LOCKED
        )
        """,
        (us(ledger), limit),
    ).rowcount
    return len(gone) + rows, max(emptied, len(gone), rows) >= limit
