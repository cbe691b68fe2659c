"""What a PostgreSQL server and the way to it can suffer. What was acknowledged is there once, the rest was told."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import psutil
import psycopg
import pytest

from postgres_server import QUICK, running
from proxy import Proxy
from tickwork import App
from tickwork.clock import Clock, SystemClock
from tickwork.conformance import declare, ending, firing, ids, lease, new_job
from tickwork.errors import DuplicateJob, NotRunning, StoreUnavailable
from tickwork.jobs import JobState, NewJob
from tickwork.limits import Limit, Limits, Rate
from tickwork.stores import postgres_verbs as verbs
from tickwork.stores.base import Lease
from tickwork.stores.durable import Claim
from tickwork.stores.migration import Migration
from tickwork.stores.postgres import PostgresStore
from tickwork.stores.postgres_link import DOUBT_SECONDS, Link
from tickwork.stores.postgres_schema import USABLE_FROM, VERSIONS, migrate, plan
from tickwork.stores.postgres_target import Target, target_of

pytestmark = pytest.mark.one_python

CLOCK = SystemClock()
WaitUntil = Callable[..., Awaitable[None]]


@asynccontextmanager
async def opened(target: Target, *, clock: Clock = CLOCK, **options: Any) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(target, clock, **options)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def by_way_of(proxy: Proxy, target: Target) -> Target:
    """Return the same database behind a proxy."""
    host = target.url.rpartition("@")[2].partition("/")[0]
    return replace(target, url=target.url.replace(host, f"127.0.0.1:{proxy.port}", 1))


def port_of(target: Target) -> int:
    return int(psycopg.conninfo.conninfo_to_dict(target.url)["port"] or 5432)


def tables(target: Target, query: str) -> list[Any]:
    """Ask the schema of a test, as another program does."""
    with psycopg.connect(target.url, autocommit=True) as connection:
        connection.execute(f'SET search_path = "{target.schema}"')
        return connection.execute(query).fetchall()


async def refusal(awaitable: Awaitable[object]) -> str:
    with pytest.raises(StoreUnavailable) as refused:
        await awaitable
    return str(refused.value)


# -- open and close -----------------------------------------------------------------------------------------------


async def test_a_schema_is_opened_again_by_the_same_store(target: Target) -> None:
    store = PostgresStore(target, CLOCK, worker="w")
    await store.close()
    for count in (1, 2):
        await store.open()
        await store.enqueue([new_job(CLOCK)])
        assert len(await store.jobs()) == count
        assert (await store.counts())[JobState.QUEUED] == count
        await store.close()
    with pytest.raises(NotRunning, match="^the store is closed$"):
        await store.jobs()


async def test_a_store_that_is_opened_while_the_server_is_away_waits_for_it(
    target: Target, caplog: pytest.LogCaptureFixture, wait_until: Callable[..., Awaitable[None]]
) -> None:
    with Proxy(port_of(target)) as proxy:
        proxy.refuse()
        store = PostgresStore(by_way_of(proxy, target), CLOCK, worker="w", patience_seconds=60)
        opening = asyncio.ensure_future(store.open())
        await wait_until(lambda: caplog.messages)
        assert not opening.done()
        proxy.refuse(is_refusing=False)
        await opening
        await store.enqueue([new_job(CLOCK)])
        await store.close()

    (told,) = caplog.messages
    assert told.startswith(f"trying for up to 1m: store {store.where}: "), told


async def test_who_only_looks_does_not_wait_for_a_server_that_is_away(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(StoreUnavailable, match="see that PostgreSQL runs there"):
        async with App("postgresql://127.0.0.1:1/postgres").looking():
            pass
    assert not caplog.messages


async def test_a_store_whose_opening_is_cancelled_waits_for_the_server_no_longer(
    target: Target, caplog: pytest.LogCaptureFixture, wait_until: Callable[..., Awaitable[None]]
) -> None:
    with Proxy(port_of(target)) as proxy:
        proxy.refuse()
        store = PostgresStore(by_way_of(proxy, target), CLOCK, worker="w", patience_seconds=3_600)
        opening = asyncio.ensure_future(store.open())
        await wait_until(lambda: caplog.messages)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        proxy.refuse(is_refusing=False)
        await store.open()
        await store.close()


async def test_two_workers_of_one_name_are_one_too_many(target: Target) -> None:
    async with opened(target, worker="w") as store:
        told = await refusal(PostgresStore(target, CLOCK, worker="w").open())
        assert told == f"store {target.where}: another process works on it as 'w'; give every worker a name of its own"
        await store.enqueue([new_job(CLOCK)])
    async with opened(target, worker="w"):
        pass


async def test_a_schema_of_another_program_is_refused_as_it_is(target: Target) -> None:
    with psycopg.connect(target.url, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {target.schema}")
        connection.execute(f"CREATE TABLE {target.schema}.jobs (id int)")

    assert await refusal(PostgresStore(target, CLOCK).open()) == (
        f"store {target.where}: its schema {target.schema!r} holds tables of another program (jobs); "
        'name another: "?schema=..."'
    )


@pytest.mark.parametrize("usable_from", [99, 1])
async def test_tables_of_a_later_version_are_used_where_it_allows_that(target: Target, usable_from: int) -> None:
    async with opened(target):
        pass
    with psycopg.connect(target.url, autocommit=True) as connection:
        connection.execute(f"UPDATE {target.schema}.meta SET version = 99, usable_from = {usable_from}")
    if usable_from == 1:
        async with opened(target) as store:
            await store.enqueue([new_job(CLOCK)])
        return
    assert await refusal(PostgresStore(target, CLOCK).open()) == (
        f"store {target.where}: its tables have version 99, and this tickwork knows {len(VERSIONS)}; "
        "install the version of tickwork that wrote it, or a later one"
    )


def test_only_what_a_later_version_adds_is_run_and_once(target: Target) -> None:
    versions = [*VERSIONS, ["ALTER TABLE jobs ADD COLUMN more bigint", "CREATE INDEX jobs_more ON jobs (more)"]]
    link = Link(target, name="migration", clock=CLOCK, now_us=lambda: 0)
    link.transact(lambda db: migrate(db, target.where, target.schema))

    def planned(db: Link) -> Migration:
        return plan(db, target.where, target.schema, versions)

    last = f"UPDATE meta SET version = {len(versions)}, usable_from = {USABLE_FROM}"
    found = link.transact(planned)
    assert (found.version, found.known) == (len(VERSIONS), len(versions))
    assert found.statements == (*versions[-1], last)
    for _ in range(2):
        link.transact(lambda db: migrate(db, target.where, target.schema, versions))
        found = link.transact(planned)
        assert (found.version, found.statements) == (len(versions), ())
    assert tables(target, "SELECT version, usable_from FROM meta") == [(len(versions), USABLE_FROM)]
    link.disconnect()


async def test_many_open_an_empty_database_at_once(target: Target) -> None:
    stores = [PostgresStore(target, CLOCK, worker=f"w{number}") for number in range(6)]
    await asyncio.gather(*[store.open() for store in stores])
    await asyncio.gather(*[store.enqueue([new_job(CLOCK)]) for store in stores])

    assert (await stores[0].counts())[JobState.QUEUED] == 6
    assert sorted(row.name for row in await stores[0].workers()) == [f"w{number}" for number in range(6)]
    await asyncio.gather(*[store.close() for store in stores])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("port", "see that PostgreSQL runs there, and takes connections (listen_addresses, port)"),
        ("database", "does not exist; create it, or name another in the URL"),
    ],
)
async def test_a_server_that_cannot_be_used_is_told_with_the_remedy(target: Target, change: str, reason: str) -> None:
    if change == "port":
        url = f"postgresql://tickwork:secret@127.0.0.1:1/postgres?schema={target.schema}"
    else:
        url = f"{target.url.rpartition('/')[0]}/nowhere"
    told = await refusal(PostgresStore(target_of(url), CLOCK, patience_seconds=0).open())

    assert told.startswith(f"store {target_of(url).where}: ")
    assert told.endswith(reason), told
    assert "secret" not in told


# -- a worker that waits -----------------------------------------------------------------------------------------------


async def hungry(store: PostgresStore) -> asyncio.Future[None]:
    """Find nothing, and wait."""
    assert await store.claim(worker="w", tasks={"t"}, limit=10) == []
    waiting = asyncio.ensure_future(store.wait_claimable(10))
    await asyncio.sleep(0)
    return waiting


def written(store: PostgresStore, jobs: list[NewJob]) -> Awaitable[Any]:
    """Write jobs for a worker that waits, and return them as it has claimed them."""
    claim = Claim(worker="w", tasks=frozenset({"t"}), queues=None, jobs=None, lease_seconds=60.0, limit=4)
    return store.run(lambda db: verbs.enqueue(db, CLOCK.now(), [jobs], 10, claim)[1])


async def test_jobs_are_written_as_claimed_for_a_worker_that_waits(target: Target) -> None:
    async with opened(target, worker="w", keeps_house=False) as store:
        claimed = await written(store, [new_job(CLOCK, priority=number % 2) for number in range(4)])

        assert claimed == [await store.job(record.id) for record in claimed]
        assert [(record.priority, record.token, record.worker) for record in claimed] == [
            *[(1, 1, "w")] * 2,
            *[(0, 1, "w")] * 2,
        ]
        assert {state: count for state, count in (await store.counts()).items() if count} == {JobState.RUNNING: 4}
        assert await store.finish([ending(record) for record in claimed]) == [True] * 4


async def test_jobs_are_not_written_as_claimed_where_others_go_first(target: Target) -> None:
    async with opened(target, worker="w", keeps_house=False) as store:
        await store.enqueue([first := new_job(CLOCK)])
        second, many = new_job(CLOCK), [new_job(CLOCK) for _ in range(5)]
        assert await written(store, [second]) == []
        assert await written(store, many) == []  # more than it has room for

        claimed = await store.claim(worker="w", tasks={"t"}, limit=10)
        assert ids(claimed) == [job.id for job in (first, second, *many)]


async def test_what_is_enqueued_while_a_worker_waits_is_there_when_it_looks(target: Target) -> None:
    async with opened(target, worker="w", keeps_house=False) as store:
        waiting = await hungry(store)
        await store.enqueue(jobs := [new_job(CLOCK) for _ in range(3)])
        await waiting

        assert ids(await store.claim(worker="w", tasks={"t"}, limit=10)) == [job.id for job in jobs]


async def test_a_worker_that_waits_gets_nothing_of_a_paused_queue(target: Target) -> None:
    async with opened(target, worker="w", keeps_house=False) as store:
        await store.set_queue("default", paused=True)
        waiting = await hungry(store)
        await store.enqueue([job := new_job(CLOCK)])

        assert (await store.job(job.id)).state is JobState.QUEUED
        assert await store.claim(worker="w", tasks={"t"}, limit=10) == []
        waiting.cancel()


async def test_an_id_that_has_ended_is_refused_while_a_worker_waits(target: Target) -> None:
    async with opened(target, worker="w", keeps_house=False) as store:
        await store.enqueue([job := new_job(CLOCK)])
        (record,) = await store.claim(worker="w", tasks={"t"}, limit=10)
        await store.finish([ending(record)])
        waiting = await hungry(store)
        with pytest.raises(DuplicateJob) as refused:
            await store.enqueue([new_job(CLOCK), job])

        assert str(refused.value) == str(DuplicateJob(job.id))
        assert [record.state for record in await store.jobs()] == [JobState.SUCCEEDED]
        waiting.cancel()


async def test_a_user_without_rights_is_told_which_to_ask_for(target: Target) -> None:
    role = f"{target.schema}_app"
    as_role = replace(target, url=f"{target.url}?options=-crole%3D{role}")
    async with opened(target):
        pass
    with psycopg.connect(target.url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role}")
        try:
            said = [
                await refusal(PostgresStore(replace(as_role, schema=f"{target.schema}_new"), CLOCK).open()),
                await refusal(PostgresStore(as_role, CLOCK).open()),
            ]
            connection.execute(f"GRANT USAGE ON SCHEMA {target.schema} TO {role}")
            said.append(await refusal(PostgresStore(as_role, CLOCK).open()))
            connection.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA {target.schema} TO {role}")
            connection.execute(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA {target.schema} TO {role}")
            async with opened(as_role, worker="w") as store:
                await store.enqueue([new_job(CLOCK)])
                (record,) = await store.claim(worker="w", tasks={"t"}, limit=1)
                assert await store.finish([ending(record)]) == [True]
        finally:
            connection.execute(f"DROP OWNED BY {role}")
            connection.execute(f"DROP ROLE {role}")
    database = psycopg.conninfo.conninfo_to_dict(target.url)["dbname"]
    assert said == [
        (
            f"store {target.where}: permission denied for database {database}; let this user create the schema (GRANT "
            'CREATE ON DATABASE ...), or make one for it: "?schema=..."'
        ),
        (
            f"store {target.where}: its user {role!r} may not use the schema {target.schema!r}; GRANT USAGE ON SCHEMA "
            f'"{target.schema}" TO "{role}", and rights on what is in it'
        ),
        (
            f"store {target.where}: permission denied for table meta; let this user read and change all tables and "
            "sequences of the schema (GRANT ... ON ALL ...)"
        ),
    ]


# -- links that break ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_commit_whose_answer_is_lost_is_done_once(target: Target, when: str) -> None:
    with Proxy(port_of(target)) as proxy:
        async with opened(by_way_of(proxy, target), worker="w", keeps_house=False) as store:
            proxy.judge = lambda sent: when if b"COMMIT" in sent and proxy.cuts == 0 else None
            await store.enqueue([job := new_job(CLOCK)])
            assert proxy.cuts == 1
            proxy.cuts = 0
            (record,) = await store.claim(worker="w", tasks={"t"}, limit=5)
            assert proxy.cuts == 1
            proxy.cuts = 0
            assert await store.finish([ending(record)]) == [True]

            assert proxy.cuts == 1
            assert ids(await store.jobs()) == [job.id]
            assert (await store.job(job.id)).state is JobState.SUCCEEDED
            assert (await store.job(job.id)).token == 1
            assert {state: count for state, count in (await store.counts()).items() if count} == {JobState.SUCCEEDED: 1}


async def test_what_others_have_done_is_noticed_although_the_link_breaks_during_the_look(target: Target) -> None:
    with Proxy(port_of(target)) as proxy:
        async with opened(by_way_of(proxy, target), worker="w", keeps_house=False) as one, opened(target) as two:
            assert await one.claim(worker="w", tasks={"t"}, limit=1) == []
            waiting = asyncio.ensure_future(one.wait_claimable())
            await asyncio.sleep(0)
            proxy.judge = lambda sent: "before" if b"cancel_requested" in sent and proxy.cuts == 0 else None
            await two.enqueue([job := new_job(CLOCK)])
            await asyncio.wait_for(waiting, 15)

            assert proxy.cuts == 1
            assert ids(await one.claim(worker="w", tasks={"t"}, limit=1)) == [job.id]


class Cutter:
    """Cuts a link and cancels a task when it hears for the second time which leases a worker holds."""

    def __init__(self, proxy: Proxy, waiting: asyncio.Future[None]) -> None:
        self.proxy, self.waiting, self.has_heard = proxy, waiting, False

    def leases_held(self, tokens: Mapping[str, int]) -> None:
        if self.has_heard:
            self.proxy.refuse()
            self.proxy.cut()
            self.waiting.cancel()
        self.has_heard = True

    def cancel_asked(self, job_ids: Sequence[str]) -> None:
        """Nobody asks."""

    def schedules_changed(self) -> None:
        """Likewise."""


async def test_who_is_cancelled_while_it_waits_is_although_the_server_is_away_and_loses_nothing(
    target: Target, wait_until: WaitUntil
) -> None:
    with Proxy(port_of(target)) as proxy:
        behind = by_way_of(proxy, target)
        async with opened(behind, worker="w", keeps_house=False, patience_seconds=0.1) as store:
            assert await store.claim(worker="w", tasks={"t"}, limit=1) == []
            waiting = asyncio.ensure_future(store.wait_claimable())
            store.listen(cutter := Cutter(proxy, waiting))
            await wait_until(lambda: cutter.has_heard)  # of the first look
            job = new_job(CLOCK)  # asked in one turn, and so done in one transaction: it is refused, and tells
            await asyncio.gather(store.enqueue([job]), store.progress(Lease("none", 1), started_at=CLOCK.now()))
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert tables(target, "SELECT id, state FROM jobs") == [(job.id, "running")]
            proxy.refuse(is_refusing=False)

            (record,) = await store.claim(worker="w", tasks={"t"}, limit=1)
            assert (record.id, record.token) == (job.id, 2)


@pytest.mark.parametrize(("clashes", "is_done"), [(1, True), (5, True), (6, False)])
def test_what_is_in_anothers_way_is_tried_again_by_who_has_no_patience_too(
    target: Target, clashes: int, is_done: bool
) -> None:
    link = Link(target, name="hasty", clock=CLOCK, now_us=lambda: 0, patience_seconds=0.0)
    tries: list[int] = []

    def work(db: Link) -> str:
        tries.append(db.all("SELECT 1")[0][0])
        if len(tries) <= clashes:
            db.execute("DO $$ BEGIN RAISE EXCEPTION 'deadlock detected' USING ERRCODE = '40P01'; END $$")
        return "done"

    try:
        if is_done:
            assert link.transact(work) == "done"
        else:
            with pytest.raises(StoreUnavailable, match="deadlock detected"):
                link.transact(work)
    finally:
        link.disconnect()

    assert len(tries) == min(clashes + 1, 6)


async def test_a_claim_that_finds_nothing_writes_nothing(target: Target) -> None:
    async with opened(target, worker="w", keeps_house=False) as store:
        await store.enqueue([job := new_job(CLOCK), new_job(CLOCK, "unknown")])
        assert ids(await store.claim(worker="w", tasks={"t"}, limit=9)) == [job.id]
        mark = store._writing.mark
        for limit in (0, 1, 9):
            assert await store.claim(worker="w", tasks={"t"}, limit=limit) == []
            assert not store._writing.has_written

        assert store._writing.mark == mark


class LeapingClock(SystemClock):
    """A clock of a test that waits for nothing."""

    leapt = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.leapt


async def doubt(
    proxy: Proxy, clock: LeapingClock, when: str, wait_until: WaitUntil, call: Coroutine[Any, Any, object]
) -> str:
    """Cut the link when a call commits a claim, before or after the server gets that, until it is given up; say how."""
    claimed: set[int] = set()

    def judge(sent: bytes) -> str | None:
        link = threading.get_ident()
        if b"picked AS" in sent or b"FROM queues)" in sent:  # a claim, or jobs that are written as claimed
            claimed.add(link)
        if b"COMMIT" not in sent or link not in claimed:
            return None
        proxy.refuse()
        return when

    def has_failed() -> bool:
        if proxy.cuts:
            clock.leapt += DOUBT_SECONDS
        return calling.done()

    proxy.cuts, proxy.judge = 0, judge
    calling = asyncio.ensure_future(call)
    await wait_until(has_failed)
    proxy.judge = lambda sent: None
    return await refusal(calling)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_what_a_claim_has_taken_that_nobody_heard_of_is_claimed_again(
    target: Target, when: str, wait_until: WaitUntil
) -> None:
    clock = LeapingClock()
    with Proxy(port_of(target)) as proxy:
        async with opened(by_way_of(proxy, target), clock=clock, worker="w", keeps_house=False) as store:
            jobs = [new_job(CLOCK), new_job(CLOCK)]
            await store.enqueue(jobs)
            told = await doubt(proxy, clock, when, wait_until, store.claim(worker="w", tasks={"t"}, limit=5))
            assert told.endswith("whether that was done is not known"), told
            assert {token for (token,) in tables(target, "SELECT token FROM jobs")} == {0 if when == "before" else 1}
            proxy.refuse(is_refusing=False)

            records = await store.claim(worker="w", tasks={"t"}, limit=5)
            assert ids(records) == [job.id for job in jobs]
            assert {record.token for record in records} == {1 if when == "before" else 2}
            assert await store.finish([ending(record) for record in records]) == [True, True]
            assert (await store.counts())[JobState.SUCCEEDED] == 2


async def test_what_was_claimed_for_who_waits_in_an_enqueue_that_nobody_heard_of_wakes_it_all_the_same(
    target: Target, wait_until: WaitUntil
) -> None:
    clock = LeapingClock()
    with Proxy(port_of(target)) as proxy:
        async with opened(by_way_of(proxy, target), clock=clock, worker="w", keeps_house=False) as store:
            assert await store.claim(worker="w", tasks={"t"}, limit=5) == []
            waiting = asyncio.ensure_future(store.wait_claimable())
            await asyncio.sleep(0)
            await doubt(proxy, clock, "after", wait_until, store.enqueue([job := new_job(CLOCK)]))
            await asyncio.wait_for(waiting, 30)
            assert tables(target, "SELECT id, state, worker FROM jobs") == [(job.id, "running", "w")]
            proxy.refuse(is_refusing=False)

            (record,) = await store.claim(worker="w", tasks={"t"}, limit=5)
            assert (record.id, record.token) == (job.id, 2)


SLOW_COMMIT = """
CREATE FUNCTION {schema}.wait() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_advisory_xact_lock(4711); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON {schema}.jobs DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION {schema}.wait();
"""
WAITING = "SELECT pid FROM pg_stat_activity WHERE {pid} = ANY (pg_blocking_pids(pid))"


async def test_the_first_commit_of_a_link_that_is_lost_while_it_is_under_way_is_waited_for(
    target: Target, wait_until: WaitUntil
) -> None:
    async with opened(target):  # makes the tables
        pass
    with Proxy(port_of(target)) as proxy, psycopg.connect(target.url, autocommit=True) as other:
        async with opened(by_way_of(proxy, target), keeps_house=False) as store:
            other.execute(SLOW_COMMIT.format(schema=target.schema))
            other.execute("SELECT pg_advisory_lock(4711)")
            enqueuing = asyncio.ensure_future(store.enqueue([job := new_job(CLOCK)]))
            await wait_until(lambda: tables(target, WAITING.format(pid=other.info.backend_pid)))
            ((pid,),) = tables(target, WAITING.format(pid=other.info.backend_pid))
            await asyncio.to_thread(proxy.cut)
            await wait_until(lambda: tables(target, WAITING.format(pid=pid)))
            other.execute("SELECT pg_advisory_unlock(4711)")

            assert ids(await enqueuing) == [job.id]
            assert ids(await store.jobs()) == [job.id]
            assert {state: count for state, count in (await store.counts()).items() if count} == {JobState.QUEUED: 1}


async def play(store: PostgresStore) -> None:
    """Do a bit of everything."""
    await store.set_limits({"t": Limits(Limit(2), Rate(100, per=60))})
    await store.set_schedule([declare()])
    gates = ("rate:a", "limit:")
    jobs = [new_job(CLOCK, gates=gates) for _ in range(4)]
    await store.enqueue([*jobs, later := new_job(CLOCK, delay=60, key="k")])
    (fired,) = await store.fire([firing(CLOCK, 1)])
    first, second, third = await store.claim(worker="w", tasks={"t"}, limit=10)
    await store.progress(lease(first), started_at=CLOCK.now())
    await store.extend([lease(second)], 60)
    await store.release([lease(second)])
    assert await store.finish([ending(first), ending(third, JobState.FAILED)]) == [True, True]
    await store.cancel([later.id])
    await store.retry([later.id])
    assert {record.id for record in await store.claim(worker="w", tasks={"t"}, limit=10)} >= {later.id}
    await store.delete([third.id])
    assert fired.job is not None
    assert [third.id] == [fired.job.id]
    await store.set_queue("other", paused=True)
    await store.feed_batch(replace(_part(), task="u", is_last=False), [new_job(CLOCK, "u", batch="b", batch_index=0)])
    (lost,) = await store.claim(worker="of no process", tasks={"u"}, limit=1)
    assert ids(await store.rescue()) == [lost.id]
    await store.cancel_batch("b")
    await store.cancel([lost.id])
    await store.register("w", {"t": ""})
    await store.beat("w")
    await store.prune()


async def expect_played(store: PostgresStore, cancelled: int = 1) -> None:
    """Check that all of it is done, and once; and that so many jobs are cancelled."""
    counts = {state: count for state, count in (await store.counts()).items() if count}
    assert counts == {JobState.RUNNING: 3, JobState.SUCCEEDED: 1, JobState.QUEUED: 1, JobState.CANCELLED: cancelled}
    there = [record.state for record in await store.jobs()]
    assert {state: there.count(state) for state in set(there)} == counts
    assert len(await store.ledger("s")) == 1
    batch = await store.batch("b")
    assert {state: count for state, count in batch.counts.items() if count} == {JobState.CANCELLED: 1}
    assert list(await store.paused_queues()) == ["other"]


def named(target: Target) -> Target:
    """Return the same, whose connections the server knows by the name of the schema."""
    return replace(target, url=f"{target.url}{'&' if '?' in target.url else '?'}application_name={target.schema}")


async def expect_nothing_left(target: Target) -> None:
    """Wait until the server knows no connection of that name, nor a lock of one."""
    query = """
        SELECT state, query, mode FROM pg_stat_activity AS a LEFT JOIN pg_locks AS l USING (pid)
        WHERE application_name = %s
    """
    deadline = CLOCK.monotonic() + 30
    with psycopg.connect(target.url, autocommit=True) as connection:
        while left := connection.execute(query, (target.schema,)).fetchall():
            assert CLOCK.monotonic() < deadline, left
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("when", "step"),
    [
        ("before", 11),
        ("after", 11),
        pytest.param("before", 2, marks=pytest.mark.slow),
        pytest.param("after", 1, marks=pytest.mark.slow),
    ],
)
@pytest.mark.timeout(600)
async def test_wherever_a_link_breaks_nothing_is_lost_or_done_twice(target: Target, when: str, step: int) -> None:
    """The writer's link is cut at one message after the other, before or after the server gets it."""
    with Proxy(port_of(target)) as proxy:
        assert await cut_at_each(step, when, proxy, by_way_of(proxy, named(target)), target) > 90
    await expect_nothing_left(target)


async def cut_at_each(step: int, when: str, proxy: Proxy, behind: Target, target: Target) -> int:
    """Play once for each message, or each `step`th, at which the writer's link is cut; return how many there are."""
    for number in itertools.count(0, step):
        schema = f"{target.schema}_{number}"
        async with opened(replace(behind, schema=schema), worker="w", keeps_house=False) as store:
            proxy.cuts = 0
            proxy.judge = judge(number, when)
            await play(store)
            proxy.judge = lambda sent: None
            await expect_played(store)
        with psycopg.connect(target.url, autocommit=True) as connection:
            connection.execute(f"DROP SCHEMA {schema} CASCADE")
        if proxy.cuts == 0:
            return number
    raise AssertionError("there is no end of numbers")


def judge(number: int, when: str) -> Callable[[bytes], str | None]:
    seen = itertools.count()
    return lambda sent: when if _writes(sent) and next(seen) == number else None


def _writes(sent: bytes) -> bool:
    return not any(word in sent for word in (b"LISTEN", b"NOTIFY", b"sum(mark)"))


async def test_a_commit_that_the_server_has_not_come_to_when_it_is_asked_for_cannot_be_done_any_more(
    caplog: pytest.LogCaptureFixture, wait_until: WaitUntil
) -> None:
    with running(**QUICK) as own, Proxy(own.port) as proxy, psycopg.connect(own.url, autocommit=True) as other:
        store = PostgresStore(target_of(own.url), CLOCK, worker="w", keeps_house=False)
        store._writing._target = by_way_of(proxy, store.target)  # and no other link: what is cut is a commit of it
        await store.open()
        await store.enqueue([first := new_job(CLOCK)])
        (record,) = await store.claim(worker="w", tasks={"t"}, limit=1)
        server = psutil.Process(store._writing.pid)
        stopped: list[int] = []
        waits = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event = 'ClientRead'"

        def stop(sent: bytes) -> str | None:
            if b"shards AS s" in sent and not proxy.cuts:  # the mark; the COMMIT comes with it, or next
                while other.execute(waits, (server.pid,)).fetchone() is None:
                    pass  # it has locks of the whole server while it works
                server.suspend()
                stopped.append(server.pid)
            return "at once" if stopped and b"COMMIT" in sent and not proxy.cuts else None

        proxy.judge = stop
        finishing = asyncio.ensure_future(store.finish([ending(record)]))
        try:
            await wait_until(lambda: caplog.messages)
        finally:
            server.resume()
            is_finished = await finishing
            await store.close()
        assert is_finished == [True]
        with psycopg.connect(own.url) as db:
            assert db.execute("SELECT id, state FROM tickwork.finished").fetchall() == [(first.id, "succeeded")]

    assert caplog.messages == ["a commit was cut off, and was not done: doing it again"]


async def test_a_server_that_is_away_for_a_moment_is_waited_for(target: Target) -> None:
    with Proxy(port_of(target)) as proxy:
        async with opened(by_way_of(proxy, target), worker="w") as store:
            proxy.refuse()
            proxy.cut()
            enqueuing = asyncio.ensure_future(store.enqueue([job := new_job(CLOCK)]))
            await asyncio.to_thread(enqueuing.get_loop().call_soon_threadsafe, lambda: None)
            assert not enqueuing.done()
            proxy.refuse(is_refusing=False)
            await asyncio.wait_for(enqueuing, 30)

            assert ids(await store.jobs()) == [job.id]


async def test_a_server_that_stays_away_is_told_in_time_and_used_when_it_is_back(
    target: Target, caplog: pytest.LogCaptureFixture
) -> None:
    with Proxy(port_of(target)) as proxy:
        behind = by_way_of(proxy, target)
        async with opened(behind, worker="w", patience_seconds=2) as store:
            proxy.refuse()
            proxy.cut()
            for call in (store.enqueue([new_job(CLOCK)]), store.jobs()):
                told = await refusal(call)
                assert told.startswith(f"store {behind.where}: ")
            proxy.refuse(is_refusing=False)
            await store.enqueue([job := new_job(CLOCK)])

            assert ids(await store.jobs()) == [job.id]
    caplog.clear()


async def test_a_network_that_says_nothing_any_more_is_given_up(target: Target) -> None:
    with Proxy(port_of(target)) as proxy:
        behind = by_way_of(proxy, target)
        slow = replace(
            behind, url=f"{behind.url}?tcp_user_timeout=500&keepalives_idle=1&keepalives_interval=1&keepalives_count=1"
        )
        async with opened(slow, worker="w", keeps_house=False) as store:
            proxy.freeze()
            enqueuing = asyncio.ensure_future(store.enqueue([job := new_job(CLOCK)]))
            await asyncio.to_thread(proxy.cut)
            proxy.thaw()
            await asyncio.wait_for(enqueuing, 30)

            assert ids(await store.jobs()) == [job.id]


async def go_through(target: Target, outages: Sequence[Callable[[], object]], wait_until: WaitUntil) -> None:
    """Enqueue and work all the time, and check that outages cost nothing that was acknowledged.

    Args:
        target: The schema, in which nothing else is.
        outages: Functions that cause one, and return when it is over.
        wait_until: The fixture.
    """
    async with opened(target, worker="w", lease_seconds=60.0, patience_seconds=60.0) as store:
        known: list[str] = []
        is_over = False

        async def produce() -> None:
            while not is_over:
                (record,) = await store.enqueue([new_job(CLOCK)])
                known.append(record.id)

        async def work() -> None:
            while not is_over:
                await store.finish([ending(record) for record in await store.claim(worker="w", tasks={"t"}, limit=9)])

        tasks = [asyncio.ensure_future(produce()) for _ in range(8)] + [asyncio.ensure_future(work())]
        for outage in [*outages, lambda: None]:
            before = len(known)
            await wait_until(lambda before=before: len(known) > before + 30 or any(task.done() for task in tasks))
            await asyncio.to_thread(outage)
        is_over = True
        await asyncio.gather(*tasks)
        while claimed := await store.claim(worker="w", tasks={"t"}, limit=100):
            await store.finish([ending(record) for record in claimed])

        there = await store.jobs(limit=100_000)
        assert sorted(record.id for record in there) == sorted(known)
        assert {record.state for record in there} == {JobState.SUCCEEDED}
        assert all(record.token == 1 for record in there)
        assert (await store.counts())[JobState.SUCCEEDED] == len(known)


async def test_a_commit_after_which_the_server_says_that_it_stops_is_not_done_again(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []

    def commit(link: Link) -> None:
        committed(link)
        if link._has_written and link is store._writing and not told:
            told.append(link.pid)  # the connection is open still
            raise psycopg.errors.AdminShutdown("terminating connection due to administrator command")

    async with opened(target, worker="w", keeps_house=False) as store:
        committed = Link._commit
        monkeypatch.setattr(Link, "_commit", commit)
        (record,) = await store.enqueue([new_job(CLOCK)])

        assert told
        assert ids(await store.jobs()) == [record.id]


@pytest.mark.timeout(120)
async def test_a_server_that_is_restarted_loses_nothing_that_was_acknowledged(wait_until: WaitUntil) -> None:
    with running() as server:

        def restart(mode: str) -> None:
            server.stop(mode)
            server.start()

        ways = [partial(restart, mode) for mode in ("immediate", "fast", "immediate")]
        await go_through(target_of(server.url), ways, wait_until)


# -- several processes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("notify", ["on", "off"])
async def test_what_another_process_enqueues_and_ends_is_noticed_soon(target: Target, notify: str) -> None:
    target = replace(target, notifies=notify == "on")
    async with opened(target, worker="w") as one, opened(target, worker="v") as two:
        for _ in range(5):
            assert await one.claim(worker="w", tasks={"t"}, limit=1) == []
            waiting = asyncio.ensure_future(one.wait_claimable())
            await two.enqueue([job := new_job(CLOCK)])
            ended = two.finished(job.id)
            began = CLOCK.monotonic()
            await asyncio.wait_for(waiting, 30)
            while not (claimed := await one.claim(worker="w", tasks={"t"}, limit=1)):
                await asyncio.wait_for(one.wait_claimable(), 30)
            await one.finish([ending(claimed[0], result="7")])
            assert (await asyncio.wait_for(ended, 30)).result == "7"
            assert CLOCK.monotonic() - began < 15  # tenths of a second are usual, and a busy machine takes its time


class Hints:
    """Two stores that hear of each other by hints alone, and how often the first has looked."""

    def __init__(self, one: PostgresStore, two: PostgresStore) -> None:
        self.one, self.two = one, two
        self.looks = 0
        self.during: Callable[[], object] | None = None
        """Called once, in the midst of a look of the first."""

    def is_put_off(self) -> bool:
        return self.one._watcher._is_put_off


@pytest.fixture
async def hints(target: Target, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil) -> AsyncIterator[Hints]:
    for module in ("postgres", "postgres_watcher"):
        for name in ("LOOK_SECONDS", "CALM_SECONDS", "CALM_HINT_SECONDS"):
            monkeypatch.setattr(f"tickwork.stores.{module}.{name}", 600.0, raising=False)
    monkeypatch.setattr("tickwork.stores.postgres.HOUSEKEEPING_SECONDS", 600.0)
    patient: dict[str, Any] = {"keeps_house": False, "lease_seconds": 7200.0}
    async with opened(target, worker="w", **patient) as one, opened(target, worker="v", **patient) as two:
        found = Hints(one, two)
        news = verbs.news

        def counted(db: Link) -> tuple[int, int, int, int]:
            if db is one._watching:
                found.looks += 1
                during, found.during = found.during, None
                if during is not None:
                    during()
            return news(db)

        monkeypatch.setattr(verbs, "news", counted)
        one._watcher._ring()
        await wait_until(lambda: one._watcher._listens_on is not None and two._watcher._listens_on is not None)
        yield found


async def test_a_hint_is_put_off_while_nobody_waits_and_followed_when_a_worker_does(
    hints: Hints, wait_until: WaitUntil
) -> None:
    assert await hints.one.claim(worker="w", tasks={"t"}, limit=1) == []
    before = hints.looks
    await hints.two.enqueue([job := new_job(CLOCK)])
    await wait_until(hints.is_put_off)
    assert hints.looks == before

    await asyncio.wait_for(hints.one.wait_claimable(), 30)

    assert ids(await hints.one.claim(worker="w", tasks={"t"}, limit=1)) == [job.id]


async def test_a_hint_is_put_off_while_nobody_waits_and_followed_when_somebody_awaits_a_job(
    hints: Hints, wait_until: WaitUntil
) -> None:
    await hints.one.enqueue([job := new_job(CLOCK)])
    (claimed,) = await hints.two.claim(worker="v", tasks={"t"}, limit=1)
    await hints.two.finish([ending(claimed, result="7")])
    await wait_until(hints.is_put_off)

    ended = await asyncio.wait_for(hints.one.finished(job.id), 30)

    assert ended.result == "7"


async def test_a_hint_that_comes_during_a_look_is_followed_by_another(
    hints: Hints, target: Target, wait_until: WaitUntil
) -> None:
    def hint() -> None:
        with psycopg.connect(target.url, autocommit=True) as connection:
            connection.execute(f"NOTIFY {hints.one._channel}")

    assert await hints.one.claim(worker="w", tasks={"t"}, limit=1) == []
    waiting = asyncio.ensure_future(hints.one.wait_claimable())
    await asyncio.sleep(0)
    before, hints.during = hints.looks, hint
    await asyncio.to_thread(hint)

    await wait_until(lambda: hints.looks >= before + 2)

    waiting.cancel()


async def test_work_is_hinted_at_although_something_else_was_just_now(hints: Hints, wait_until: WaitUntil) -> None:
    await hints.two.enqueue([job := new_job(CLOCK)])
    await wait_until(hints.is_put_off)
    (claimed,) = await hints.two.claim(worker="v", tasks={"t"}, limit=1)
    await hints.two.finish([ending(claimed)])  # is not hinted at for ten minutes
    assert await hints.one.claim(worker="w", tasks={"t"}, limit=1) == []
    waiting = asyncio.ensure_future(hints.one.wait_claimable())
    await hints.two.enqueue([job := new_job(CLOCK)])

    await asyncio.wait_for(waiting, 30)

    assert ids(await hints.one.claim(worker="w", tasks={"t"}, limit=1)) == [job.id]


@pytest.mark.timeout(120)
async def test_processes_side_by_side_keep_limits_schedules_and_counts(target: Target) -> None:
    names = [f"w{number}" for number in range(4)]
    stores = [PostgresStore(target, CLOCK, worker=name, keeps_house=False) for name in names]
    await asyncio.gather(*[store.open() for store in stores])
    limit = 3
    await stores[0].set_limits({"t": Limits(Limit(limit), None)})
    await stores[0].set_schedule([declare(f"s{number}") for number in range(5)])
    await stores[0].feed_batch(_part(), [new_job(CLOCK, batch="b", batch_index=index) for index in range(60)])
    held: set[str] = set()
    done: list[str] = []

    async def churn(store: PostgresStore, name: str) -> None:
        for _ in range(15):
            await store.enqueue([new_job(CLOCK, gates=("limit:k",)), new_job(CLOCK)])
            for row in await store.schedules():
                await store.fire([firing(CLOCK, row.version, row.name, overlap="queue")])
            claimed = await store.claim(worker=name, tasks={"t"}, limit=6)
            gated = {record.id for record in claimed if record.gates}
            held.update(gated)
            assert len(held) <= limit
            held.difference_update(gated)
            await store.finish([ending(record) for record in claimed])
            done.extend(ids(claimed))

    await asyncio.gather(*[churn(store, name) for store, name in zip(stores, names, strict=True)])
    while any([await _drain(store, name, done) for store, name in zip(stores, names, strict=True)]):
        pass

    assert len(done) == len(set(done))
    there = await stores[0].jobs(limit=10_000)
    assert {record.state for record in there} == {JobState.SUCCEEDED}
    assert sorted(done) == sorted(record.id for record in there)
    assert (await stores[0].counts())[JobState.SUCCEEDED] == len(there)
    batch = await stores[0].batch("b")
    assert (batch.counts[JobState.SUCCEEDED], batch.ends) == (60, 60)
    assert sorted(end for end, _ in await stores[0].batch_ends("b")) == list(range(1, 61))
    await asyncio.gather(*[store.close() for store in stores])


def _part() -> Any:
    from tickwork.stores.batches import BatchPart

    return BatchPart(batch="b", task="t", first=0, digest="", is_last=True, feed_seconds=60.0)


async def _drain(store: PostgresStore, name: str, done: list[str]) -> bool:
    claimed = await store.claim(worker=name, tasks={"t"}, limit=100)
    await store.finish([ending(record) for record in claimed])
    done.extend(ids(claimed))
    return bool(claimed)


def waits(target: Target, name: str) -> bool:
    """Return whether the connection of this name waits for a lock that another one has."""
    query = f"SELECT 1 FROM pg_stat_activity WHERE application_name = '{name}' AND wait_event_type = 'Lock'"
    return bool(tables(target, query))


async def test_a_worker_that_renews_and_ends_at_the_same_time_is_not_in_its_own_way(
    target: Target, wait_until: WaitUntil
) -> None:
    writer, watcher = (Link(target, name=f"{target.schema} {name}", clock=CLOCK, now_us=lambda: 0) for name in "ab")
    async with opened(target, worker="w", keeps_house=False) as store:
        await store.enqueue([new_job(CLOCK)])
        (record,) = await store.claim(worker="w", tasks={"t"}, limit=5)
        tries: list[str] = []
        has_beaten, may_end = threading.Event(), threading.Event()

        def write(db: Link) -> list[bool]:
            tries.append("write")
            verbs.beat(db, CLOCK.now(), "w", None, 60.0)
            has_beaten.set()
            may_end.wait(30)
            return verbs.finish(db, CLOCK.now(), [ending(record)], ())[0]

        def renew(db: Link) -> bool:
            tries.append("renew")
            return verbs.renew(db, CLOCK.now(), "w", 60.0)

        writing = asyncio.ensure_future(asyncio.to_thread(writer.transact, write))
        await asyncio.to_thread(has_beaten.wait, 30)
        renewing = asyncio.ensure_future(asyncio.to_thread(watcher.transact, renew))
        await wait_until(lambda: waits(target, f"{target.schema} b"))
        may_end.set()

        assert (await writing, await renewing) == ([True], True)
        assert tries == ["write", "renew"]
    writer.disconnect()
    watcher.disconnect()


def forget(db: Link) -> None:
    """Forget whoever should have been heard of by now."""
    verbs.forget_processes(db, CLOCK.now(), CLOCK.now())


@pytest.mark.parametrize("way", ["rescued", "forgotten"])
async def test_two_that_take_the_same_workers_off_the_list_do_not_wait_for_each_other(target: Target, way: str) -> None:
    async with opened(target, worker="w", keeps_house=False) as store:
        with psycopg.connect(target.url, options=f"-csearch_path={target.schema}") as other:
            for name in ("u", "v"):
                other.execute(
                    """
                    INSERT INTO workers (name, host, machine, pid, started_at, beat_at, lives_until)
                    SELECT %s, host, machine, 2000000000, 0, 0, 0 FROM workers WHERE name = 'w'
                    """,
                    (name,),
                )
            other.commit()
            other.execute("DELETE FROM workers WHERE name = 'v'")
            for left in ({"v", "w"}, {"w"}):
                if way == "rescued":
                    await asyncio.wait_for(store.rescue(), 10)
                else:
                    await asyncio.wait_for(store.run(forget), 10)
                assert {name for (name,) in tables(target, "SELECT name FROM workers")} == left
                other.rollback()


async def test_the_bound_holds_for_many_who_enqueue_at_once(target: Target) -> None:
    stores = [PostgresStore(target, CLOCK, max_queued=50) for _ in range(4)]
    await asyncio.gather(*[store.open() for store in stores])

    async def fill(store: PostgresStore) -> int:
        from tickwork.errors import QueueFull

        taken = 0
        try:
            while True:
                await store.enqueue([new_job(CLOCK) for _ in range(3)], wait=False)
                taken += 3
        except QueueFull:
            return taken

    assert sum(await asyncio.gather(*[fill(store) for store in stores])) == 48
    assert (await stores[0].counts())[JobState.QUEUED] == 48
    await asyncio.gather(*[store.close() for store in stores])


async def test_an_id_is_taken_once_also_when_its_job_has_ended(target: Target) -> None:
    async with opened(target, worker="w", keeps_house=False) as store:
        await store.enqueue([job := new_job(CLOCK)])
        (record,) = await store.claim(worker="w", tasks={"t"}, limit=1)
        await store.finish([ending(record)])
        with pytest.raises(DuplicateJob):
            await store.enqueue([new_job(CLOCK, id=job.id)])

        assert len(await store.jobs()) == 1


async def test_a_renewal_keeps_what_a_worker_has_and_is_no_sign_that_its_loop_turns(target: Target) -> None:
    async with opened(target, worker="w", lease_seconds=0.3) as store:
        await store.register("w", {"t": ""})
        (told,) = await store.workers()
        await store.enqueue([job := new_job(CLOCK)])
        (record,) = await store.claim(worker="w", tasks={"t"}, limit=1)
        assert record.lease_expires_at is not None
        async with asyncio.timeout(30):
            while True:
                renewed = (await store.job(job.id)).lease_expires_at
                if renewed is not None and renewed > record.lease_expires_at:
                    break
                await asyncio.sleep(0.01)
        (row,) = await store.workers()
        assert row.beat_at == told.beat_at
        await store.beat("w")
        (row,) = await store.workers()
        assert row.beat_at > told.beat_at
