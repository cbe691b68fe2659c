"""What may be wrong with a schema of PostgreSQL, and how it is mended: functions of a link, like the verbs.

Others work on the tables meanwhile. So what belongs together is counted in one statement, which sees one moment; and
whoever mends holds the locks of all that could change in between.
"""

from __future__ import annotations

import re
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from . import sql_check as sql
from .postgres_common import EVERY
from .postgres_link import LOCKS
from .postgres_schema import VERSIONS, quoted
from .sql_batches import STATES
from .sql_check import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from .postgres_link import Link

_ORPHANS = {
    "rows of attempts of jobs that are gone": """
        attempts WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE id = job_id)
            AND NOT EXISTS (SELECT 1 FROM finished WHERE id = job_id)
        """
}
_INDEX = re.compile(r"CREATE (UNIQUE )?INDEX (\w+) ON (.*)", re.DOTALL)


def check(db: Link, now: datetime) -> list[Finding]:
    """Look for what should not be."""
    return [*_indexes(db), *sql.stuck(db, now), *sql.orphans(db, _ORPHANS), *sql.miscounts(db), *_miscounts(db)]


def _indexes(db: Link) -> Iterator[Finding]:
    """Yield the indexes that are missing, or that the server does not use: nothing is as quick without them."""
    found: dict[str, bool] = dict(
        db.all(
            """
            SELECT relname::text, indisvalid FROM pg_index JOIN pg_class AS c ON c.oid = indexrelid
            JOIN pg_namespace AS n ON n.oid = relnamespace WHERE nspname = %s
            """,
            (db.schema,),
        )
    )
    schema = quoted(db.schema)
    for name in (name for name, is_valid in found.items() if not is_valid):
        remedy = f"run in psql: REINDEX INDEX CONCURRENTLY {schema}.{quoted(name)}"
        yield Finding("damaged", f"index {name} is invalid, and the server does not use it", remedy)
    ours = {made[2]: made for made in map(_INDEX.match, map(str.strip, chain(*VERSIONS))) if made is not None}
    for name in sorted(ours.keys() - found.keys()):
        unique, _, on = ours[name].groups()
        remedy = f"CREATE {unique or ''}INDEX CONCURRENTLY {name} ON {schema}.{' '.join(on.split())}"
        yield Finding("damaged", f"index {name} is missing", f"run in psql: {remedy}")


def _miscounts(db: Link) -> Iterator[Finding]:
    yield from sql.compare(db.all(_OF_STATES), lambda _: "jobs", lambda _: _recount)
    batches = {batch_id for (batch_id,) in db.all("SELECT id FROM batches")}
    rows = [row for row in db.all(_OF_BATCHES) if row[0] in batches]
    yield from sql.compare(rows, "jobs of batch {}".format, lambda batch: partial(_recount_batch, batch_id=batch))


_OF_STATES = " UNION ALL ".join(
    [
        f"SELECT 1, state, 0::bigint, count(*) FROM {EVERY} GROUP BY state",
        *(f"SELECT 1, '{state}', coalesce(sum({state}), 0)::bigint, 0 FROM shards" for state in STATES),
    ]
)
_OF_BATCHES = " UNION ALL ".join(
    [
        f"SELECT batch, state, 0::bigint, count(*) FROM {EVERY} WHERE batch IS NOT NULL GROUP BY batch, state",
        *(f"SELECT id, '{state}', {state}, 0 FROM batches" for state in STATES),
    ]
)


def _recount(db: Link) -> None:
    """Add what is missing in the counts to what this link has counted."""
    db.execute("UPDATE meta SET version = version")  # what has changed nothing leaves no mark, and so no counts
    for _, state, said, there in db.all(_OF_STATES):
        db.tally[state] += there - said


def _recount_batch(db: Link, batch_id: str) -> None:
    counts = ", ".join(
        f"{state} = (SELECT count(*) FROM {EVERY} WHERE batch = batches.id AND state = '{state}')" for state in STATES
    )
    db.execute(f"UPDATE batches SET {counts} WHERE id = ?", (batch_id,))


def repair(db: Link, findings: Sequence[Finding]) -> None:
    """Mend what can be mended without a person."""
    db.lock({f"{kind}:{number}" for kind in ("batch", "schedule") for number in range(LOCKS)})
    done: set[Any] = set()
    for mend in (mend for finding in findings for mend in finding.repair):
        if mend not in done:
            done.add(mend)
            mend(db)
