"""The history of jobs in a database: attempts that did not succeed, so that those which do pay nothing.

In the SQL that SQLite and PostgreSQL both understand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..jobs import Attempt, Outcome
from .instants import at, at_or_none, us, us_or_none
from .views import MAX_ATTEMPTS

if TYPE_CHECKING:
    from collections.abc import Sequence


def write_attempts(db: Any, ended: Sequence[tuple[str, Attempt]]) -> None:
    """Keep attempts of jobs, and of each job the newest `MAX_ATTEMPTS` only."""
    db.executemany(
        """
        INSERT INTO attempts (job_id, place, number, started_at, ended_at, outcome, worker, error)
        SELECT CAST(? AS TEXT), coalesce(max(place), 0) + 1, ?, CAST(? AS BIGINT), ?, CAST(? AS TEXT), CAST(? AS TEXT),
            CAST(? AS TEXT)
        FROM attempts WHERE job_id = ?
        """,
        [
            (
                job_id,
                attempt.number,
                us_or_none(attempt.started_at),
                us(attempt.ended_at),
                attempt.outcome,
                attempt.worker,
                attempt.error,
                job_id,
            )
            for job_id, attempt in ended
        ],
    )
    db.executemany(
        """
        DELETE FROM attempts
        WHERE job_id = ? AND place <= (SELECT max(place) FROM attempts WHERE job_id = ?) - ?
        """,
        [(job_id, job_id, MAX_ATTEMPTS) for job_id in {job_id for job_id, _ in ended}],
    )


def attempts(db: Any, job_id: str) -> list[Attempt]:
    """Return what is kept of the attempts of a job, the oldest first."""
    found = db.execute(
        """
        SELECT number, started_at, ended_at, outcome, worker, error FROM attempts WHERE job_id = ? ORDER BY place
        """,
        (job_id,),
    )
    return [
        Attempt(
            number=number,
            started_at=at_or_none(started_at),
            ended_at=at(ended_at),
            outcome=Outcome(outcome),
            worker=worker,
            error=error,
        )
        for number, started_at, ended_at, outcome, worker, error in found
    ]
