"""What a statement costs must not grow with what is finished. SQLite's steps are counted, which do not vary."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tickwork.conformance import HandClock, declare, ending, firing, lease, new_job
from tickwork.jobs import JobState, Outcome
from tickwork.limits import Limit, Limits, Rate
from tickwork.stores import sqlite_batches as batches
from tickwork.stores import sqlite_people as people
from tickwork.stores import sqlite_verbs as verbs
from tickwork.stores.base import Answer, Fired
from tickwork.stores.batches import BatchPart
from tickwork.stores.instants import at
from tickwork.stores.sql_attempts import attempts
from tickwork.stores.sql_schedules import write_answer
from tickwork.stores.sqlite_limits import blocker
from tickwork.stores.sqlite_limits import declare as declare_limits
from tickwork.stores.sqlite_schema import migrate
from tickwork.stores.views import JobQuery

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=400)
FEW = {
    "SCAN jobs USING INDEX jobs_ready",
    "SCAN jobs USING INDEX jobs_lines",
    "SCAN firsts",
    "SCAN jobs USING INDEX jobs_leased",
    "SCAN jobs USING COVERING INDEX jobs_leased",
    "SCAN json_each VIRTUAL TABLE INDEX 1:",
    "SCAN moved",
    "SCAN own",
    "SCAN shared",
}
"""Indexes that hold only what is queued or running, lists and rows that were handed in, and a table of one row."""
SMALL = (
    "SCAN batches USING INDEX batches_newest",
    "SCAN (subquery-",
    "SCAN part",  # the same, with the names that PostgreSQL wants
    "SCAN wanted",
    "SCAN schedules",
    "SCAN workers",
    "SCAN queues",
    "SCAN counts",
    "SCAN CONSTANT ROW",
    *(f"SCAN {2**power} CONSTANT ROWS" for power in range(1, 7)),
    "SCAN done",
    "SCAN one",
    "SCAN two",
)
MAX_STEPS = 20_000


class Cost:
    """Counts what a connection does, and keeps its statements."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db
        self.statements: list[str] = []

    def of(self, call: Callable[[], Any]) -> int:
        steps = 0

        def step() -> int:
            nonlocal steps
            steps += 100
            return 0

        self.db.set_trace_callback(self.statements.append)
        self.db.set_progress_handler(step, 100)
        call()
        self.db.set_progress_handler(None, 100)
        self.db.set_trace_callback(None)
        return steps

    def plans(self) -> Iterator[tuple[str, str]]:
        for statement in dict.fromkeys(self.statements):
            if not statement.startswith("--"):  # of a trigger
                for *_, detail in self.db.execute(f"EXPLAIN QUERY PLAN {statement}"):
                    yield statement, detail


def fill(db: sqlite3.Connection, count: int) -> None:
    """Write so many finished jobs of a schedule, with their rows of the ledger."""
    db.execute(
        """
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
        INSERT INTO jobs (id, task, payload, run_at, queue, priority, schedule, fire_time, state, enqueued_at, result,
            finished_at, batch, batch_index, batch_end)
        SELECT 'old' || i, 't', '{}', i, 'default', 0, iif(i % 2, 's', NULL), iif(i % 2, i, NULL),
            iif(i % 10, 'succeeded', 'failed'), i, '1', ? + i, iif(i % 2, NULL, 'old'), iif(i % 2, NULL, i / 2),
            iif(i % 2, NULL, i / 2) FROM n
        """,
        (count, verbs.us(NOW) - count),
    )
    db.execute(
        """
        INSERT INTO ledger (schedule, first, last, count, outcome, answered_at, job_id, finished_at, state)
        SELECT schedule, fire_time, fire_time, 1, 'ran', ?, id, finished_at, state FROM jobs WHERE schedule IS NOT NULL
        """,
        (verbs.us(NOW),),
    )


def verbs_of(db: sqlite3.Connection, clock: HandClock) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield every verb, in an order in which each has something to do."""
    clock.advance(60)
    now = clock.now()
    jobs = [new_job(clock, delay=(number % 2) * 60) for number in range(20)]
    yield "enqueue", lambda: verbs.enqueue(db, now, [jobs], 1000)
    yield "withdraw", lambda: verbs.withdraw(db, [jobs[-2].id])
    yield "declare", lambda: verbs.change_schedule(db, now, declare())
    fired: list[Any] = []
    late = {"start_by": now - timedelta(seconds=1)}
    yield "fire", lambda: fired.append(verbs.fire(db, now, firing(clock, 1, overlap="queue", job=late)))
    yield (
        "answer",
        lambda: write_answer(
            db,
            Answer(
                schedule="s",
                first=now + timedelta(1),
                last=now + timedelta(1),
                count=1,
                outcome="missed",
                answered_at=now,
            ),
        ),
    )
    claimed: list[Any] = []
    options: dict[str, Any] = {"worker": "w", "limit": 5, "lease_seconds": 60.0}
    yield "claim", lambda: claimed.extend(verbs.claim(db, now, tasks={"t", "u"}, queues=None, **options))
    yield "claim of queues", lambda: verbs.claim(db, now, tasks={"t"}, queues={"mail"}, **options)
    yield "next_claim", lambda: verbs.next_claim(db)
    yield "extend", lambda: verbs.extend(db, now, lease(claimed[0]), 60)
    yield "progress", lambda: verbs.progress(db, lease(claimed[0]), now, None)
    yield "renew", lambda: verbs.renew(db, now, "w", 60)
    yield "cancels_asked", lambda: verbs.cancels_asked(db, "w")
    yield "leases_held", lambda: verbs.leases_held(db, "w")
    yield "has_overdue", lambda: verbs.has_overdue(db, now)
    yield "other_workers", lambda: verbs.other_workers(db, "me")
    yield (
        "fire with replace",
        lambda: verbs.fire(db, now, firing(clock, 2, overlap="replace", fire_time=now + timedelta(1))),
    )
    yield "finish", lambda: verbs.finish(db, now, [ending(claimed[0], started_at=now)], {claimed[0].id})
    failed: dict[str, Any] = {"state": JobState.QUEUED, "outcome": Outcome.FAILED}
    yield "finish of a failure", lambda: verbs.finish(db, now, [ending(claimed[2], **failed)], set())
    yield "release", lambda: verbs.release(db, now, lease(claimed[1]))
    yield "rescue", lambda: verbs.rescue(db, now + timedelta(seconds=90), ["w"], timedelta(0), 3)
    yield "cancel", lambda: verbs.cancel(db, now, jobs[3].id)
    yield "job", lambda: verbs.job(db, "old7")
    yield "ended_among", lambda: verbs.ended_among(db, ["old1", jobs[0].id])
    yield "counts", lambda: verbs.counts(db)
    yield "jobs", lambda: verbs.jobs(db, None, None, 100)
    yield "jobs of a state", lambda: verbs.jobs(db, JobState.FAILED, None, 100)
    yield "jobs of a schedule", lambda: verbs.jobs(db, None, "s", 100)
    yield "jobs of both", lambda: verbs.jobs(db, JobState.QUEUED, "s", 100)
    yield "ledger", lambda: verbs.ledger(db, "s", 100, None)
    yield "ledger at", lambda: verbs.ledger(db, "s", 1, at(77))
    yield "answer_of", lambda: verbs.answer_of(db, "s", "old7")
    yield "page", lambda: people.page(db, JobQuery(after="abc"))
    yield "page of states", lambda: people.page(db, JobQuery(states=(JobState.FAILED, JobState.QUEUED)))
    yield "page of a task", lambda: people.page(db, JobQuery(tasks=("t",)))
    yield "page of a task and state", lambda: people.page(db, JobQuery(tasks=("t",), states=(JobState.FAILED,)))
    yield "page of a queue", lambda: people.page(db, JobQuery(queue="default", after="1ff"))
    yield "page of a schedule", lambda: people.page(db, JobQuery(schedule="s", after="1ff"))
    yield "page of both", lambda: people.page(db, JobQuery(schedule="s", states=(JobState.QUEUED,)))
    yield "standing", lambda: people.standing(db, now, jobs[19].id)
    yield "standing of the last", lambda: people.standing(db, now, claimed[1].id)
    yield "retry", lambda: people.retry(db, now, "old10")
    yield "delete", lambda: people.delete(db, now, "old20")
    yield "attempts", lambda: attempts(db, "old10")
    yield "queues", lambda: people.queues(db, now + timedelta(1))
    yield "pause", lambda: people.set_queue(db, now, "mail", paused=True)
    yield (
        "claim beside a paused queue",
        lambda: claimed.extend(verbs.claim(db, now, tasks={"t"}, queues=None, **options)),
    )
    misfit: dict[str, Any] = {"state": JobState.PARKED, "misfit": "one"}
    yield "park", lambda: verbs.finish(db, now, [ending(claimed[-1], **misfit)], set())
    yield "register", lambda: people.register(db, now, "w", {"t": "two"})
    yield "workers", lambda: people.workers(db)
    yield from verbs_of_batches(db, clock, options)
    limits = {"results": LONG_AGO, "jobs": LONG_AGO, "ledger": LONG_AGO}
    yield "prune, in vain", lambda: verbs.prune(db, **limits, limit=10)
    yield "prune", lambda: verbs.prune(db, results=NOW, jobs=NOW, ledger=NOW + timedelta(1), limit=10)


def verbs_of_batches(
    db: sqlite3.Connection, clock: HandClock, options: dict[str, Any]
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield every verb of batches, one of which has half of all that is finished."""
    now = clock.now()
    part = BatchPart(batch="b", task="t", first=0, digest="", is_last=False, feed_seconds=60)
    jobs = [new_job(clock, batch="b", batch_index=index, priority=9) for index in range(20)]
    claimed: list[Any] = []
    yield "feed", lambda: batches.feed(db, now, part, jobs, 1000)
    yield "claim of a batch", lambda: claimed.extend(verbs.claim(db, now, tasks={"t"}, queues=None, **options))
    yield "finish of a batch", lambda: verbs.finish(db, now, [ending(record) for record in claimed], set())
    yield "batch", lambda: batches.batch(db, "old")
    yield "batches", lambda: batches.batches(db, 10)
    yield "cancel of a batch", lambda: batches.cancel(db, now, "b")
    failed = (JobState.FAILED, JobState.PARKED)
    yield "jobs of a batch", lambda: batches.jobs(db, "old", 40_000, (), 20)
    yield "failed jobs of a batch", lambda: batches.jobs(db, "old", 40_000, failed, 20)
    yield "ends of a batch", lambda: batches.ends(db, "old", 40_000, 20)
    yield "page of a batch", lambda: people.page(db, JobQuery(batch="old", after="1fff"))
    yield "page of a batch and state", lambda: people.page(db, JobQuery(batch="old", states=failed, queue="default"))
    yield "prune of batches", lambda: batches.prune(db, now, 10)


def check(path: Path, count: int) -> None:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA synchronous = OFF")
    db.execute("BEGIN")
    migrate(db, str(path))
    db.execute("INSERT INTO batches (id, task, created_at, feeds_until) VALUES ('old', 't', 0, 0)")
    fill(db, count)
    cost, clock = Cost(db), HandClock()
    steps = {name: cost.of(call) for name, call in verbs_of(db, clock)}

    scans = {
        (statement, detail)
        for statement, detail in cost.plans()
        if detail.startswith("SCAN") and not detail.startswith(SMALL) and detail not in FEW
    }
    listing = {(statement, detail) for statement, detail in scans if "FROM jobs  ORDER BY seq DESC LIMIT" in statement}
    assert {detail for _, detail in listing} == {"SCAN jobs"}  # backwards from the end, as far as the limit
    assert scans - listing == set()
    assert {name: count for name, count in steps.items() if count > MAX_STEPS} == {}
    db.close()


def test_a_list_of_what_is_rare_looks_at_an_index_only(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)
    migrate(db, "jobs.db")
    cost = Cost(db)
    for query in (JobQuery(tasks=("rare",)), JobQuery(queue="rare"), JobQuery(tasks=("a", "b"), queue="rare")):
        cost.of(partial(people.page, db, query))

    looks = {detail for statement, detail in cost.plans() if "INDEXED BY" in statement}
    assert looks == {"SEARCH jobs USING COVERING INDEX jobs_by_state (state=? AND seq<?)"}
    db.close()


def test_no_statement_looks_at_all_that_is_finished(tmp_path: Path) -> None:
    check(tmp_path / "jobs.db", 100_000)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_no_statement_looks_at_all_of_a_million_that_are_finished(tmp_path: Path) -> None:
    check(tmp_path / "jobs.db", 1_000_000)


@pytest.mark.parametrize("gates", [(), ("limit:full",), ("rate:full", "limit:")])
def test_no_statement_looks_at_all_that_waits(tmp_path: Path, gates: tuple[str, ...]) -> None:
    db = sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)
    db.execute("PRAGMA synchronous = OFF")
    db.execute("BEGIN")
    migrate(db, "jobs.db")
    declare_limits(db, {"t": Limits(Limit(3), Rate(4, per=60))})
    clock, cost = HandClock(), Cost(db)
    now = clock.now()
    waiting = [new_job(clock, gates=gates) for _ in range(20_000)]
    verbs.enqueue(db, now, [waiting], 100_000)
    options: dict[str, Any] = {"worker": "w", "queues": None, "lease_seconds": 60.0, "tasks": {"t"}}
    claimed: list[Any] = []

    def claim(limit: int) -> None:
        claimed[:] = verbs.claim(db, now, limit=limit, **options)

    def finish() -> None:
        verbs.finish(db, now, [ending(record, started_at=now) for record in claimed], set())

    steps = {
        "claim": cost.of(lambda: claim(5)),
        "claim again": cost.of(lambda: verbs.claim(db, now, limit=0, **options)),
        "finish": cost.of(finish),
        "claim what follows": cost.of(lambda: claim(1)),
        "release": cost.of(lambda: verbs.release(db, now, lease(claimed[0])) if claimed else None),
        "enqueue": cost.of(lambda: verbs.enqueue(db, now, [[new_job(clock, gates=gates, priority=1)]], 100_000)),
        "claim the urgent one": cost.of(lambda: claim(1)),
        "next_claim": cost.of(lambda: verbs.next_claim(db)),
        "ended_among": cost.of(lambda: verbs.ended_among(db, [waiting[9].id, "x"])),
        "blocker": cost.of(lambda: blocker(db, verbs.us(now), waiting[-1].id, at)),
        "standing": cost.of(lambda: people.standing(db, now, waiting[-1].id)),
        "cancel": cost.of(lambda: verbs.cancel(db, now, waiting[100].id)),
        "key": cost.of(lambda: verbs.unfinished_of(db, "t", "k")),
        "settle": cost.of(lambda: verbs.claim(db, now + timedelta(seconds=61), limit=1, **options)),
    }

    assert {name: count for name, count in steps.items() if count > MAX_STEPS} == {}
    db.close()


@pytest.mark.parametrize("others", [{"task": "u"}, {"queue": "bulk"}, {"task": "u", "queue": "bulk", "priority": 9}])
def test_a_claim_does_not_look_at_the_jobs_of_others(tmp_path: Path, others: dict[str, Any]) -> None:
    db, clock = sqlite3.connect(tmp_path / "jobs.db", isolation_level=None), HandClock()
    db.execute("PRAGMA synchronous = OFF")
    migrate(db, "jobs.db")
    cost, claimed = Cost(db), []
    options: dict[str, Any] = {"worker": "w", "queues": {"default"}, "lease_seconds": 60.0, "tasks": {"t"}, "limit": 5}

    def claim(**changed: Any) -> int:
        return cost.of(lambda: claimed.append(verbs.claim(db, clock.now(), **(options | changed))))

    verbs.enqueue(db, clock.now(), [[new_job(clock, **others) for _ in range(20_000)]], 100_000)
    steps = [claim()]
    verbs.enqueue(db, clock.now(), [[last := new_job(clock)]], 100_000)
    steps += [claim(jobs={"nobody"}), claim(), claim()]

    assert [[record.id for record in records] for records in claimed] == [[], [], [last.id], []]
    assert max(steps) < 2_000  # 200,000 if it looked at all of them
    db.close()


def test_among_more_tasks_than_a_claim_looks_through_it_finds_what_is_there(tmp_path: Path) -> None:
    db, clock = sqlite3.connect(tmp_path / "jobs.db", isolation_level=None), HandClock()
    db.execute("PRAGMA synchronous = OFF")
    migrate(db, "jobs.db")
    jobs = [new_job(clock, f"t{number:03}", queue=f"q{number % 9}") for number in range(2 * verbs.MAX_LINES)]
    verbs.enqueue(db, clock.now(), [jobs], 100_000)
    options: dict[str, Any] = {"worker": "w", "limit": 5, "lease_seconds": 60.0}
    for job in jobs:
        assert verbs.claim(db, clock.now(), tasks={job.task}, queues={"none"}, **options) == []
        (record,) = verbs.claim(db, clock.now(), tasks={job.task}, queues={job.queue}, **options)
        assert record.id == job.id
    db.close()


def test_a_firing_that_may_run_beside_others_costs_the_same_however_many_there_are(tmp_path: Path) -> None:
    db, clock = sqlite3.connect(tmp_path / "jobs.db", isolation_level=None), HandClock()
    migrate(db, "jobs.db")
    verbs.change_schedule(db, clock.now(), declare())
    cost = Cost(db)
    fired: list[Fired] = []

    def fire() -> None:
        clock.advance(1)
        fired.extend(verbs.fire_all(db, clock.now(), [firing(clock, len(fired) + 1, overlap="allow")]))

    steps = [cost.of(fire) for _ in range(500)]

    assert {answer.outcome for answer in fired} == {"ran"}
    assert max(steps) < 2_000  # 35,000 if the last of them looked at all the others
    db.close()
