"""What a statement costs must not grow with what waits or is finished: none walks a large table from end to end.

Each statement is explained as it is sent, by the connection that sends it, with its own values, right before it runs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from tickwork.conformance import HandClock, declare, ending, firing, lease, new_job
from tickwork.jobs import JobState, Outcome
from tickwork.limits import Limit, Limits, Rate
from tickwork.stores import postgres_batches as batches
from tickwork.stores import postgres_limits as limits
from tickwork.stores import postgres_people as people
from tickwork.stores import postgres_verbs as verbs
from tickwork.stores.base import Answer
from tickwork.stores.batches import BatchPart
from tickwork.stores.durable import Claim
from tickwork.stores.instants import at, us
from tickwork.stores.postgres_claims import MAX_LINES
from tickwork.stores.postgres_link import ANY_MARK, Link
from tickwork.stores.postgres_schema import migrate
from tickwork.stores.postgres_target import Target
from tickwork.stores.sql_attempts import attempts
from tickwork.stores.sql_schedules import write_answer
from tickwork.stores.views import JobQuery

pytestmark = pytest.mark.one_python

WAITING, FINISHED = 20_000, 50_000
LARGE = {"jobs", "finished", "ledger", "attempts", "behind"}
"""Tables that grow with what is done."""
MANY = 2_000
"""So many rows are sorted by none: a list of all states puts together a page of each."""
EXPLAINED = ("SELECT", "WITH", "INSERT", "UPDATE", "DELETE")
DAY = timedelta(days=1)
NUMBERS = itertools.count()

Verb = tuple[str, Callable[[Link], Any]]


class Explained(Link):
    """A link that has the server tell how it will run each statement. `plans`: statement and plan of each."""

    plans: list[tuple[str, dict[str, Any]]]
    how = "FORMAT JSON"

    def _run(self, query: str, params: Any) -> psycopg.Cursor[Any]:
        if query.lstrip().startswith(EXPLAINED) and self.connection is not None:
            told = self.connection.execute(f"EXPLAIN ({self.how}) {query}", params or None).fetchall()
            self.plans.append((query, told[0][0][0]["Plan"]))
        return super()._run(query, params)


class Measured(Explained):
    """A link that has the server run each statement, and tell what that took, before it runs it again."""

    how = "ANALYZE, BUFFERS, FORMAT JSON"
    _mark_query = ANY_MARK  # a mark is left once


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", []):
        yield from nodes(part)


def link_to(target: Target, clock: HandClock, kind: type[Link] = Link) -> Link:
    link = kind(target, name="plans", clock=clock, now_us=lambda: us(clock.now()))
    link.on_flush = batches.flush
    link.shard = f"plans {next(NUMBERS)}"
    return link


def fill(db: Link, now: int, waiting: int = WAITING, finished: int = FINISHED, size: int = 2) -> None:
    """Write jobs that wait, at a gate and before none, that run, are parked and finished, with all that goes with it.

    Every second job is one of a schedule that has its rows in the ledger; every fourth is of a batch. The payloads of
    those that are not finished have that size.
    """
    db.execute(
        """
        INSERT INTO jobs (id, task, payload, run_at, queue, priority, schedule, fire_time, state, enqueued_at, worker,
            lease_expires_at, batch, batch_index, gate1, gate, misfit)
        SELECT 'new' || i, 't' || i %% 7, rpad('{', %s::int - 1) || '}', %s + i, 'q' || i %% 5, i %% 3,
            CASE WHEN i %% 2 = 0 THEN 's' || i %% 100 END, CASE WHEN i %% 2 = 0 THEN i END, state, i,
            CASE state WHEN 'running' THEN 'other' END, CASE state WHEN 'running' THEN %s + i END,
            CASE WHEN i %% 4 = 1 THEN 'live' END, CASE WHEN i %% 4 = 1 THEN i END,
            CASE WHEN i %% 4 = 3 THEN 'limit:full' END, (i %% 4 = 3 AND state = 'queued')::int,
            CASE state WHEN 'parked' THEN 'one' END
        FROM (
            SELECT i, CASE WHEN i %% 10 < 7 THEN 'queued' ELSE (ARRAY['scheduled', 'running', 'parked'])[i %% 10 - 6]
                END AS state
            FROM generate_series(1, %s::int) AS i
        ) AS made
        """,
        (size, now, now + us(at(3_600_000_000)), waiting),
    )
    db.execute(
        """
        INSERT INTO finished (seq, id, task, payload, run_at, queue, priority, schedule, fire_time, state, enqueued_at,
            result, finished_at, batch, batch_index, batch_end)
        SELECT nextval('jobs_seq'), 'old' || i, 't' || i %% 7, '{}', i, 'q' || i %% 5, 0,
            CASE WHEN i %% 2 = 0 THEN 's' || i %% 100 END, CASE WHEN i %% 2 = 0 THEN i END,
            CASE WHEN i %% 10 = 0 THEN 'failed' ELSE 'succeeded' END, i, '1', %s - %s + i,
            CASE WHEN i %% 4 = 1 THEN 'old' END, CASE WHEN i %% 4 = 1 THEN i END, CASE WHEN i %% 4 = 1 THEN i END
        FROM generate_series(1, %s::int) AS i
        """,
        (now, finished, finished),
    )
    db.execute(
        """
        INSERT INTO ledger (schedule, first, last, count, outcome, answered_at, job_id, finished_at, state)
        SELECT schedule, fire_time, fire_time, 1, 'ran', finished_at, id, finished_at, state
        FROM finished WHERE schedule IS NOT NULL
        """
    )
    db.execute(
        "INSERT INTO attempts (job_id, place, number, ended_at, outcome) SELECT id, 1, 1, 0, 'failed' FROM finished"
    )
    db.execute("INSERT INTO behind SELECT id, 'new1' FROM jobs WHERE state = 'scheduled'")
    db.execute("INSERT INTO batches (id, task, created_at, feeds_until) VALUES ('old', 't', 0, 0), ('live', 't', 0, 0)")
    db.execute("ANALYZE")


def verbs_of(clock: HandClock) -> Iterator[Verb]:
    """Yield every verb but `queues`, in an order in which each has something to do; see below for that one."""
    now = clock.now()
    jobs = [new_job(clock, delay=(number % 2) * 60, key=f"k{number}", priority=9) for number in range(20)]
    yield "enqueue", lambda db: verbs.enqueue(db, now, [jobs], 100_000)
    yield "withdraw", lambda db: verbs.withdraw(db, [jobs[-2].id])
    yield "declare", lambda db: verbs.change_schedule(db, now, declare())
    yield "fire", lambda db: verbs.fire(db, now, firing(clock, 1, overlap="queue"))
    later = firing(clock, 2, overlap="replace", fire_time=now + DAY)
    yield "fire with replace", lambda db: verbs.fire(db, now, later)
    yield "fire beside others", lambda db: verbs.fire(db, now, firing(clock, None, "s4", overlap="queue"))
    missed = Answer(schedule="s", first=now + 2 * DAY, last=now + 2 * DAY, count=1, outcome="missed", answered_at=now)
    yield "answer", lambda db: write_answer(db, missed)
    yield from verbs_of_workers(clock, [job.id for job in jobs])
    yield "cancel", lambda db: verbs.cancel(db, now, "new20")
    yield "job", lambda db: verbs.job(db, "old7")
    yield "jobs of ids", lambda db: verbs.jobs_of(db, ["old7", "new7"])
    yield "ended_among", lambda db: verbs.ended_among(db, ["old1", "new1"])
    yield "key", lambda db: verbs.unfinished_of(db, "t", "k1")
    yield "news", verbs.news
    yield from verbs_of_people(clock)
    yield from verbs_of_batches(clock)
    yield "prune, in vain", lambda db: verbs.prune(db, results=at(0), jobs=at(0), ledger=at(0), limit=10)
    yield "prune", lambda db: verbs.prune(db, results=now, jobs=now, ledger=now, limit=10)


def verbs_of_workers(clock: HandClock, new: list[str]) -> Iterator[Verb]:
    """Yield what workers do; these jobs wait for them, and are the first ones."""
    now = clock.now()
    options: dict[str, Any] = {"worker": "w", "limit": 5, "lease_seconds": 60.0, "queues": None, "jobs": None}
    claimed: list[Any] = []

    def claim(db: Link, **others: Any) -> None:
        claimed.extend(verbs.claim_next(db, now, **{**options, "tasks": {"t"}, **others})[0])

    yield "claim", claim
    yield "claim of many tasks", lambda db: claim(db, tasks={f"t{number}" for number in range(7)})
    yield "claim of queues", lambda db: claim(db, tasks={"t1"}, queues={"q1", "q2"})
    yield "claim of jobs", lambda db: claim(db, jobs=set(new))
    yield "claim of a task without jobs", lambda db: claim(db, tasks={"none"})
    yield "limits", lambda db: limits.declare(db, {"t3": Limits(Limit(3), Rate(4, per=60))})
    yield "touch", lambda db: limits.touch(db, {("t3", "limit:full")})
    yield "claim behind gates", lambda db: claim(db, tasks={"t3"})
    yield "settle", lambda db: limits.settle(db, us(now), limits.due(db, us(now)))
    yield "promote", lambda db: verbs.promote(db, now)
    yield "next_claim", verbs.next_claim
    yield "extend", lambda db: verbs.extend(db, now, lease(claimed[0]), 60)
    yield "progress", lambda db: verbs.progress(db, lease(claimed[0]), now, None)
    yield "renew", lambda db: verbs.renew(db, now, "w", 60)
    yield "cancels_asked", lambda db: verbs.cancels_asked(db, "w")
    yield "leases_held", lambda db: verbs.leases_held(db, "w")
    yield "has_overdue", lambda db: verbs.has_overdue(db, now)
    yield "other_workers", lambda db: verbs.other_workers(db, "me")
    yield "finish", lambda db: verbs.finish(db, now, [ending(claimed[0], started_at=now)], {claimed[0].id})
    failed: dict[str, Any] = {"state": JobState.QUEUED, "outcome": Outcome.FAILED}
    yield "finish of a failure", lambda db: verbs.finish(db, now, [ending(claimed[1], **failed)], set())
    misfit: dict[str, Any] = {"state": JobState.PARKED, "misfit": "one"}
    yield "park", lambda db: verbs.finish(db, now, [ending(claimed[2], **misfit)], set())
    yield "became_of", lambda db: verbs.became_of(db, lease(claimed[0]))
    yield "release", lambda db: verbs.release(db, now, lease(claimed[3]))
    yield "rescue", lambda db: verbs.rescue(db, now, ["w"], timedelta(0), 3)
    yield "register", lambda db: people.register(db, now, "w", {"t": "two"})
    yield "forget_processes", lambda db: verbs.forget_processes(db, now, now - DAY)


def verbs_of_people(clock: HandClock) -> Iterator[Verb]:
    """Yield what people ask for and change."""
    now = clock.now()
    yield "counts", verbs.counts
    yield "jobs", lambda db: verbs.jobs(db, None, None, 100)
    yield "jobs of a state", lambda db: verbs.jobs(db, JobState.FAILED, None, 100)
    yield "jobs of a schedule", lambda db: verbs.jobs(db, None, "s4", 100)
    yield "jobs of both", lambda db: verbs.jobs(db, JobState.QUEUED, "s4", 100)
    yield "schedules", lambda db: verbs.schedules(db, None)
    yield "ledger", lambda db: verbs.ledger(db, "s4", 100, None)
    yield "ledger at", lambda db: verbs.ledger(db, "s4", 1, at(104))
    yield "answer_of", lambda db: verbs.answer_of(db, "s4", "old104")
    failed = (JobState.FAILED, JobState.QUEUED)
    for name, query in {
        "page": JobQuery(),
        "page behind another": JobQuery(after="abc"),
        "page of states": JobQuery(states=failed),
        "page of a task": JobQuery(tasks=("t1",)),
        "page of a task without jobs": JobQuery(tasks=("none",)),
        "page of a task and state": JobQuery(tasks=("t1",), states=failed),
        "page of a queue": JobQuery(queue="q1", after="1ff"),
        "page of a queue without jobs": JobQuery(queue="none"),
        "page of a schedule": JobQuery(schedule="s4", after="1ff"),
        "page of a schedule and states": JobQuery(schedule="s4", states=failed),
        "page of a batch": JobQuery(batch="old", after="1ffff"),
        "page of a batch and states": JobQuery(batch="old", states=failed, queue="q1"),
    }.items():
        yield name, lambda db, query=query: people.page(db, query)  # type: ignore[misc]
    for job_id in ("new1", "new7", "new17", "new19999", "old10"):
        yield f"standing of {job_id}", lambda db, job_id=job_id: people.standing(db, now, job_id)  # type: ignore[misc]
    yield "retry", lambda db: people.retry(db, now, "old10")
    yield "delete", lambda db: people.delete(db, now, "old20")
    yield "attempts", lambda db: attempts(db, "old30")
    yield "pause", lambda db: people.set_queue(db, now, "q3", paused=True)
    yield "workers", people.workers


def verbs_of_batches(clock: HandClock) -> Iterator[Verb]:
    """Yield every verb of batches, one of which has a quarter of all that is finished."""
    now = clock.now()
    part = BatchPart(batch="b", task="t", first=0, digest="", is_last=False, feed_seconds=60)
    jobs = [new_job(clock, batch="b", batch_index=index, priority=10) for index in range(20)]
    claimed: list[Any] = []
    options: dict[str, Any] = {"worker": "w", "limit": 5, "lease_seconds": 60.0, "queues": None, "jobs": None}
    failed = (JobState.FAILED, JobState.PARKED)
    yield "feed", lambda db: batches.feed(db, now, part, jobs, 100_000)
    yield "claim of a batch", lambda db: claimed.extend(verbs.claim_next(db, now, tasks={"t"}, **options)[0])
    yield "finish of a batch", lambda db: verbs.finish(db, now, [ending(record) for record in claimed], set())
    yield "batch", lambda db: batches.batch(db, "old")
    yield "batches", lambda db: batches.batches(db, 10)
    yield "batches of ids", lambda db: batches.batches_of(db, ["old", "b"])
    yield "cancel of a batch", lambda db: batches.cancel(db, now, "b")
    yield "jobs of a batch", lambda db: batches.jobs(db, "old", 40_000, (), 20)
    yield "first jobs of a batch", lambda db: batches.jobs(db, "old", 0, (), 20)
    yield "failed jobs of a batch", lambda db: batches.jobs(db, "old", 40_000, failed, 20)
    yield "ends of a batch", lambda db: batches.ends(db, "old", 40_000, 20)
    yield "prune of batches", lambda db: batches.prune(db, now, 10)


def costly(link: Explained, verbs: Iterator[Verb]) -> dict[str, list[str]]:
    """Run verbs, each in a transaction, and return what each of them does that it must not."""
    found = {}
    for name, verb in verbs:
        link.plans = []
        link.transact(verb)
        assert link.plans, name
        found[name] = [
            f"{wrong}: {' '.join(statement.split())}"
            for statement, plan in link.plans
            for node in nodes(plan)
            if (wrong := fault(node)) is not None
        ]
    return {name: faults for name, faults in found.items() if faults}


def fault(node: dict[str, Any]) -> str | None:
    """Return what is wrong with a step of a plan, or None."""
    if node["Node Type"] == "Seq Scan" and node["Relation Name"] in LARGE:
        return f"reads all of {node['Relation Name']}"
    if node["Node Type"] == "Sort" and node["Plan Rows"] > MANY:
        return f"sorts {node['Plan Rows']} rows"
    return None


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def link(target: Target, clock: HandClock) -> Iterator[Explained]:
    """A link to tables in which there is much."""
    maker = link_to(target, clock)
    maker.transact(lambda db: migrate(db, target.where, target.schema))
    maker.transact(lambda db: fill(db, us(clock.now())))
    maker.disconnect()
    found = link_to(target, clock, Explained)
    assert isinstance(found, Explained)
    found.plans = []
    found.connect()
    assert found.connection is not None
    found.connection.execute("SET enable_seqscan = on")  # what the indexes are worth, and not what is forbidden
    yield found
    found.disconnect()


def test_no_statement_reads_a_large_table_from_end_to_end(link: Explained, clock: HandClock) -> None:
    assert costly(link, verbs_of(clock)) == {}


def test_a_statement_without_an_index_would_be_noticed(link: Explained) -> None:
    query, ordered = "SELECT 1 FROM finished WHERE payload = %s", "SELECT 1 FROM finished ORDER BY run_at"
    verbs = iter([("all", lambda db: db.all(query, ("x",))), ("ordered", lambda db: db.all(ordered))])
    assert costly(link, verbs) == {
        "all": [f"reads all of finished: {query}"],
        "ordered": [f"sorts {FINISHED} rows: {ordered}", f"reads all of finished: {ordered}"],
    }


def test_plans_that_are_made_while_the_tables_are_empty_read_no_table_from_end_to_end(
    target: Target, clock: HandClock
) -> None:
    link = link_to(target, clock, Explained)
    assert isinstance(link, Explained)
    link.plans = []
    link.transact(lambda db: migrate(db, target.where, target.schema))

    assert costly(link, verbs_of_jobs(clock)) == {}
    link.disconnect()


def verbs_of_jobs(clock: HandClock) -> Iterator[Verb]:
    """Yield what each job goes through, also where a worker waits for it."""
    now, jobs = clock.now(), [new_job(clock) for _ in range(4)]
    options: dict[str, Any] = {"worker": "w", "limit": 5, "lease_seconds": 60.0, "queues": None, "jobs": None}
    hungry = Claim(tasks=frozenset({"t"}), **options)
    claimed: list[Any] = []
    yield "enqueue for a worker", lambda db: claimed.extend(verbs.enqueue(db, now, [jobs[:2]], 10, hungry)[1])
    yield "enqueue", lambda db: verbs.enqueue(db, now, [jobs[2:]], 10)
    yield "claim", lambda db: claimed.extend(verbs.claim_next(db, now, tasks={"t"}, **options)[0])
    yield "finish", lambda db: verbs.finish(db, now, [ending(record) for record in claimed], set())
    yield "ended_among", lambda db: verbs.ended_among(db, [job.id for job in jobs])
    yield "jobs of ids", lambda db: verbs.jobs_of(db, [job.id for job in jobs])


def test_a_claim_walks_no_queue_that_has_just_filled(target: Target, clock: HandClock) -> None:
    link = link_to(target, clock, Explained)
    assert isinstance(link, Explained)
    link.plans = []
    link.transact(lambda db: migrate(db, target.where, target.schema))
    link.transact(lambda db: db.execute("ALTER TABLE jobs SET (autovacuum_enabled = false)"))  # it is too late for it
    jobs = [new_job(clock) for _ in range(WAITING - 1)] + [new_job(clock, start_by=at(0))]
    link.transact(lambda db: verbs.enqueue(db, clock.now(), [jobs], 100_000))
    options: dict[str, Any] = {"worker": "w", "limit": 5, "lease_seconds": 60.0, "queues": None, "jobs": None}
    link.plans = []
    link.transact(lambda db: verbs.claim_next(db, clock.now(), tasks={"t"}, **options))
    link.disconnect()

    steps = [node for _, plan in link.plans for node in nodes(plan)]
    indexes = {node.get("Index Name", "") for node in steps}
    assert {name for name in indexes if name.startswith("jobs_")} == {
        "jobs_later",
        "jobs_grace",
        "jobs_lines",
        "jobs_ready",
        "jobs_by_state",  # by state and number
        "jobs_pkey",
        "jobs_id",  # of the one that begins too late
    }
    assert [wrong for node in steps if (wrong := fault(node)) is not None] == []


@pytest.mark.parametrize("asked", [{"tasks": {"none"}}, {"tasks": {"t"}, "queues": {"none"}}, {"tasks": {"a", "b"}}])
def test_a_claim_that_nothing_is_there_for_does_not_look_at_the_jobs_of_others(
    target: Target, clock: HandClock, asked: dict[str, Any]
) -> None:
    maker = link_to(target, clock)
    maker.transact(lambda db: migrate(db, target.where, target.schema))
    jobs = [new_job(clock) for _ in range(WAITING)]
    maker.transact(lambda db: verbs.enqueue(db, clock.now(), [jobs], 100_000))
    maker.disconnect()
    link = link_to(target, clock, Measured)
    assert isinstance(link, Measured)
    options: dict[str, Any] = {"worker": "w", "limit": 5, "lease_seconds": 60.0, "queues": None, "jobs": None}
    link.plans = []
    assert link.transact(lambda db: verbs.claim_next(db, clock.now(), **(options | asked))) == ([], None)
    link.disconnect()

    ((_, plan),) = [told for told in link.plans if "picked AS" in told[0]]
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 50


@pytest.mark.parametrize("is_counted", [False, True])
@pytest.mark.parametrize("others", [{"task": "u"}, {"queue": "bulk"}, {"task": "u", "queue": "bulk", "priority": 9}])
def test_a_claim_of_a_few_jobs_does_not_look_at_those_of_others_before_them(
    target: Target, clock: HandClock, others: dict[str, Any], is_counted: bool
) -> None:
    maker = link_to(target, clock)
    maker.transact(lambda db: migrate(db, target.where, target.schema))
    maker.transact(lambda db: db.execute("ALTER TABLE jobs SET (autovacuum_enabled = false)"))
    jobs = [new_job(clock, **others) for _ in range(WAITING)] + [new_job(clock) for _ in range(7)]
    maker.transact(lambda db: verbs.enqueue(db, clock.now(), [jobs], 100_000))
    if is_counted:
        maker.transact(lambda db: db.execute("ANALYZE jobs"))
    maker.disconnect()
    link = link_to(target, clock, Measured)
    assert isinstance(link, Measured)
    options: dict[str, Any] = {"worker": "w", "limit": 5, "lease_seconds": 60.0, "queues": {"default"}, "jobs": None}
    link.plans = []
    rest, _ = link.transact(lambda db: verbs.claim_next(db, clock.now(), tasks={"t"}, **options))
    link.disconnect()

    assert [record.id for record in rest] == [job.id for job in jobs[-2:]]  # the first five were taken by measuring it
    ((_, plan),) = [told for told in link.plans if "picked AS" in told[0]]
    assert [node["Actual Rows"] for node in nodes(plan) if node.get("Subplan Name") == "CTE own"] == [5]
    read = [node for node in nodes(plan) if node.get("Subplan Name") in ("CTE lines", "CTE picked", "CTE own")]
    assert sum(node["Shared Hit Blocks"] + node["Shared Read Blocks"] for node in read) < 100


def test_among_more_tasks_than_a_claim_looks_through_it_finds_what_is_there(target: Target, clock: HandClock) -> None:
    link = link_to(target, clock)
    link.transact(lambda db: migrate(db, target.where, target.schema))
    jobs = [new_job(clock, f"t{number:03}", queue=f"q{number % 9}") for number in range(2 * MAX_LINES)]
    link.transact(lambda db: verbs.enqueue(db, clock.now(), [jobs], 100_000))
    options: dict[str, Any] = {"worker": "w", "limit": 5, "lease_seconds": 60.0, "jobs": None}
    for job in jobs:
        for queues in ({"none"}, {job.queue}):
            claimed, _ = link.transact(
                lambda db, job=job, queues=queues: verbs.claim_next(  # type: ignore[misc]
                    db, clock.now(), tasks={job.task}, queues=queues, **options
                )
            )
            assert [record.id for record in claimed] == ([job.id] if queues == {job.queue} else [])
    link.disconnect()


@pytest.mark.slow
def test_people_look_at_200_000_jobs_through_indexes(target: Target, clock: HandClock) -> None:
    link = link_to(target, clock, Explained)
    assert isinstance(link, Explained)
    link.plans = []
    link.transact(lambda db: migrate(db, target.where, target.schema))
    link.transact(lambda db: fill(db, us(clock.now()), 100_000, 100_000, size=500))
    assert link.connection is not None
    are_old = "SELECT relallvisible = relpages FROM pg_class WHERE oid = 'jobs'::regclass"
    link.connection.execute("VACUUM ANALYZE jobs, finished")
    while link.connection.execute(are_old).fetchone() == (False,):  # somebody else's transaction was in the way
        link.connection.execute("VACUUM jobs")
    link.plans = []
    nearly_later = clock.now() + timedelta(seconds=59.999)  # of what `fill` has finished, a thousand jobs are as new
    queues = link.transact(lambda db: people.queues(db, nearly_later))
    counted = list(link.plans)
    faults = costly(link, verbs_of_people(clock))
    link.disconnect()

    assert faults == {}
    assert sum(queue.queued + queue.scheduled + queue.running for queue in queues) == 90_000
    steps = [node for _, plan in counted for node in nodes(plan) if node.get("Relation Name") in LARGE]
    assert [(step["Node Type"], step.get("Index Name")) for step in steps] == [
        ("Index Only Scan", "jobs_by_state"),
        ("Index Scan", "finished_age"),
    ]


def test_a_firing_that_may_run_beside_others_reads_none_of_them(target: Target, clock: HandClock) -> None:
    link = link_to(target, clock, Explained)
    assert isinstance(link, Explained)
    link.plans = []
    link.transact(lambda db: migrate(db, target.where, target.schema))
    link.transact(lambda db: verbs.change_schedule(db, clock.now(), declare()))
    link.plans = []
    several = [firing(clock, version, overlap="allow", fire_time=at(version)) for version in (1, 2, 3)]
    fired = link.transact(lambda db: verbs.fire_all(db, clock.now(), several))
    link.disconnect()

    assert [answer.outcome for answer in fired] == ["ran"] * 3
    read = {
        node.get("Relation Name") for told, plan in link.plans if told.lstrip()[:6] == "SELECT" for node in nodes(plan)
    }
    assert "schedules" in read
    assert "jobs" not in read
