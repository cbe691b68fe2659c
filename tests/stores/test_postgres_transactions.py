"""Jobs that are enqueued in a transaction of the user's own: there when it commits, and in nobody's way before."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from parts import need
from tickwork import App
from tickwork.clock import SystemClock
from tickwork.conformance import ending, ids, lease
from tickwork.conformance import new_job as new_job_now
from tickwork.errors import (
    InvalidOption,
    KeyInDoubt,
    NotCommitted,
    NotTransactional,
    StoreUnavailable,
)
from tickwork.jobs import JobState, NewJob
from tickwork.limits import Limit, Limits
from tickwork.stores.postgres import PostgresStore
from tickwork.stores.postgres_link import key_of
from tickwork.stores.postgres_target import Target

pytestmark = pytest.mark.one_python

CLOCK = SystemClock()
WaitUntil = Callable[..., Awaitable[None]]
KINDS = [
    "psycopg",
    "asyncpg",
    "asyncpg pool",
    "sqlalchemy psycopg",
    "sqlalchemy asyncpg",
    "session psycopg",
    "session asyncpg",
]


def new_job(clock: SystemClock, **options: Any) -> NewJob:
    """Return a job that is due by the server's clock, too."""
    return new_job_now(clock, **{"delay": -1.0, **options})


@asynccontextmanager
async def opened(target: Target, **options: Any) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(target, CLOCK, **{"worker": "w", "keeps_house": False, **options})
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def transaction(kind: str, target: Target, *, is_kept: bool = True) -> AsyncIterator[Any]:
    """Begin a transaction on a connection of a kind; commit it at the end of the block, or roll it back."""
    if kind == "psycopg":
        async with await psycopg.AsyncConnection.connect(target.url) as own:
            yield own
            if not is_kept:
                await own.rollback()
    elif kind.startswith("asyncpg"):
        need("asyncpg")
        import asyncpg

        async with asyncpg.create_pool(target.url, min_size=1, max_size=1) as pool, pool.acquire() as lent:
            connection: Any = lent if kind.endswith("pool") else lent._con
            begun = connection.transaction()
            await begun.start()
            yield connection
            await (begun.commit() if is_kept else begun.rollback())
    else:
        need("greenlet")
        from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

        engine = create_async_engine(target.url.replace(":", f"+{_driver(kind)}:", 1))
        try:
            async with AsyncSession(engine) if "session" in kind else engine.connect() as connection:
                if kind == "session asyncpg":  # which looks for its password in a file, and blocks the loop for that
                    await connection.connection()
                yield connection
                await (connection.commit() if is_kept else connection.rollback())
        finally:
            await engine.dispose()


def _driver(kind: str) -> str:
    return "psycopg" if "psycopg" in kind else "asyncpg"


async def counts(store: PostgresStore) -> dict[str, int]:
    return {str(state): count for state, count in (await store.counts()).items() if count}


def ask(target: Target, query: str) -> list[Any]:
    with psycopg.connect(target.url, autocommit=True) as connection:
        connection.execute(f'SET search_path = "{target.schema}"')
        found = connection.execute(query)
        return found.fetchall() if found.description else []


# -- commit and rollback ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_a_job_is_there_from_the_commit_on(target: Target, kind: str) -> None:
    async with opened(target) as store:
        async with transaction(kind, target) as connection:
            jobs = [new_job(CLOCK, payload='{"a":"\\u0000 \u00e9 100% ?"}'), new_job(CLOCK, delay=60, priority=3)]
            records = await store.enqueue_within(connection, jobs)
            assert [record.state for record in records] == [JobState.QUEUED, JobState.SCHEDULED]
            assert await store.jobs() == []
            assert await counts(store) == {}
            assert await store.claim(worker="w", tasks={"t"}, limit=9) == []

        assert ids(await store.jobs()) == [jobs[1].id, jobs[0].id]
        assert await counts(store) == {"queued": 1, "scheduled": 1}
        (claimed,) = await store.claim(worker="w", tasks={"t"}, limit=9)
        assert (claimed.id, claimed.payload) == (jobs[0].id, jobs[0].payload)
        assert await store.finish([ending(claimed)]) == [True]
        assert await counts(store) == {"succeeded": 1, "scheduled": 1}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_job_of_a_transaction_that_is_rolled_back_never_was(target: Target, kind: str) -> None:
    async with opened(target) as store:
        async with transaction(kind, target, is_kept=False) as connection:
            await store.enqueue_within(connection, [new_job(CLOCK), new_job(CLOCK, key="k")])

        assert await store.jobs() == []
        assert await counts(store) == {}
        assert (await store.enqueue([job := new_job(CLOCK, key="k")]))[0].id == job.id


async def test_what_a_savepoint_takes_back_is_not_counted(target: Target) -> None:
    async with opened(target) as store:
        async with transaction("psycopg", target) as connection:
            await store.enqueue_within(connection, [first := new_job(CLOCK)])
            with pytest.raises(ZeroDivisionError):
                async with connection.transaction():
                    await store.enqueue_within(connection, [new_job(CLOCK)])
                    raise ZeroDivisionError
            await store.enqueue_within(connection, [third := new_job(CLOCK)])

        assert sorted(ids(await store.jobs())) == sorted([first.id, third.id])
        assert await counts(store) == {"queued": 2}


PROGRAM = """
import asyncio, os, signal, sys
import psycopg
from tickwork import App

app = App(sys.argv[1])

@app.task(name="t")
async def work(a: int) -> int:
    return a

async def main():
    async with app.client(), await psycopg.AsyncConnection.connect(sys.argv[2]) as connection:
        await work.options(connection=connection).enqueue(1)
        if sys.argv[3] == "after":
            await connection.commit()
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


@pytest.mark.parametrize(("when", "states"), [("before", []), ("after", [JobState.QUEUED])])
async def test_a_process_that_is_killed_about_its_commit_leaves_a_job_or_none(
    target: Target, schema: str, tmp_path: Path, when: str, states: list[JobState]
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    words = [sys.executable, "program.py", schema, target.url, when]
    done = await asyncio.to_thread(
        subprocess.run, words, cwd=tmp_path, env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr

    async with opened(target) as store:
        assert [record.state for record in await store.jobs()] == states
        assert await counts(store) == ({"queued": 1} if states else {})


# -- in nobody's way ----------------------------------------------------------------------------------------------


async def test_two_transactions_at_once_do_not_wait_for_each_other(target: Target) -> None:
    async with opened(target) as store, transaction("psycopg", target) as one, transaction("psycopg", target) as two:
        for connection in (one, two, one):
            jobs = [new_job(CLOCK, gates=("limit:",)), new_job(CLOCK, key=f"{id(connection)}"), new_job(CLOCK)]
            await asyncio.wait_for(store.enqueue_within(connection, jobs), 10)
        await two.commit()
        assert await counts(store) == {"queued": 2, "scheduled": 1}
        await one.commit()
        assert await counts(store) == {"queued": 5, "scheduled": 3}
        assert len(await store.claim(worker="w", tasks={"t"}, limit=99)) == 8
        assert await counts(store) == {"running": 8}


async def test_workers_do_not_wait_for_a_transaction_that_stays_open(target: Target) -> None:
    gates = ("limit:",)
    async with opened(target, keeps_house=True) as store, transaction("psycopg", target) as connection:
        await store.set_limits({"t": Limits(Limit(1), None)})
        held = [new_job(CLOCK, gates=gates), new_job(CLOCK, gates=gates), new_job(CLOCK, key="k"), new_job(CLOCK)]
        await store.enqueue_within(connection, held)

        async def work() -> None:
            for number in range(20):
                jobs = [new_job(CLOCK, gates=gates), new_job(CLOCK, key=f"k{number}"), new_job(CLOCK)]
                await store.enqueue(jobs)
                done: list[str] = []
                while len(done) < 3:
                    claimed = await store.claim(worker="w", tasks={"t"}, limit=9)
                    await store.finish([ending(record) for record in claimed])
                    done += ids(claimed)
                assert sorted(done) == sorted(job.id for job in jobs)

        await asyncio.wait_for(work(), 20)
        await store.prune()
        assert await counts(store) == {"succeeded": 60}
        await connection.commit()

        # A limit of one holds for those that have come with the commit, too.
        claimed = await store.claim(worker="w", tasks={"t"}, limit=9)
        assert sorted(ids(claimed)) == sorted(job.id for job in (held[0], *held[2:]))
        await store.finish([ending(record) for record in claimed])
        assert ids(await store.claim(worker="w", tasks={"t"}, limit=9)) == [held[1].id]
        assert await counts(store) == {"succeeded": 63, "running": 1}


async def test_what_transactions_have_counted_is_added_up_before_long(target: Target, wait_until: WaitUntil) -> None:
    left = "SELECT count(*) FROM shards WHERE name LIKE '@%'"
    async with opened(target, keeps_house=True) as store, transaction("psycopg", target) as connection:
        for _ in range(5):
            await store.enqueue_within(connection, [new_job(CLOCK)])
            await store.enqueue_within(connection, [new_job(CLOCK)])
            await connection.commit()
        await wait_until(lambda: ask(target, left) == [(0,)])

        assert await counts(store) == {"queued": 10}


@pytest.mark.parametrize("notify", ["on", "off"])
async def test_a_worker_that_waits_hears_of_the_commit(target: Target, notify: str) -> None:
    target = replace(target, notifies=notify == "on")
    channel = f"tickwork_{key_of(target.schema, 'hints') & 0xFFFFFFFFFFFF:x}"
    async with opened(target) as store, await psycopg.AsyncConnection.connect(target.url, autocommit=True) as listener:
        await listener.execute(f"LISTEN {channel}")
        assert await store.claim(worker="w", tasks={"t"}, limit=1) == []
        waiting = asyncio.ensure_future(store.wait_claimable())
        async with transaction("psycopg", target) as connection:
            await store.enqueue_within(connection, [new_job(CLOCK) for _ in range(3)])
            backend = connection.info.backend_pid
        await asyncio.wait_for(waiting, 10)

        told: list[psycopg.Notify] = []
        if notify == "on":  # the server has another process tell us
            async for note in listener.notifies(timeout=30):
                if note.pid == backend:
                    told.append(note)
                    break
        told += [note async for note in listener.notifies(timeout=0.2) if note.pid == backend]
        assert len(told) == (1 if notify == "on" else 0)
        assert len(await store.claim(worker="w", tasks={"t"}, limit=9)) == 3


# -- keys ---------------------------------------------------------------------------------------------------------


async def test_a_key_that_an_unfinished_job_has_makes_no_other(target: Target) -> None:
    async with opened(target) as store, transaction("psycopg", target) as connection:
        (known,) = await store.enqueue([new_job(CLOCK, key="k")])
        jobs = [new_job(CLOCK, key="k"), new_job(CLOCK, key="m"), new_job(CLOCK), new_job(CLOCK, key="m")]
        records = await store.enqueue_within(connection, jobs)
        assert ids(records) == [known.id, jobs[1].id, jobs[2].id, jobs[1].id]
        (again,) = await store.enqueue_within(connection, [new_job(CLOCK, key="m")])
        assert again.id == jobs[1].id
        await connection.commit()

        assert await counts(store) == {"queued": 3}


@pytest.mark.parametrize("is_kept", [True, False])
async def test_who_enqueues_a_key_that_a_transaction_has_waits_for_its_end_alone(target: Target, is_kept: bool) -> None:
    async with opened(target) as store, transaction("psycopg", target) as connection:
        (theirs,) = await store.enqueue_within(connection, [new_job(CLOCK, key="k")])
        asked = asyncio.ensure_future(store.enqueue([own := new_job(CLOCK, key="k")]))
        for _ in range(5):  # nobody else waits
            await asyncio.wait_for(store.enqueue([new_job(CLOCK), new_job(CLOCK, key=f"k{_}")]), 10)
        assert not asked.done()
        await (connection.commit() if is_kept else connection.rollback())

        (record,) = await asyncio.wait_for(asked, 10)
        assert record.id == (theirs.id if is_kept else own.id)
        assert await counts(store) == {"queued": 11}


async def test_a_key_that_a_transaction_has_for_long_is_told(target: Target) -> None:
    async with opened(target, patience_seconds=0.2) as store, transaction("psycopg", target) as connection:
        await store.enqueue_within(connection, [new_job(CLOCK, key="k")])
        with pytest.raises(KeyInDoubt) as told:
            await store.enqueue([new_job(CLOCK, key="k")])
        assert str(told.value) == (
            "a transaction that has not ended enqueues a job of 't' with the same key, so that nobody knows yet "
            "whether there is one; end that transaction first, or try again"
        )


async def test_a_job_is_not_tried_again_while_a_transaction_has_its_key(target: Target) -> None:
    async with opened(target) as store, transaction("psycopg", target) as connection:
        await store.enqueue([new_job(CLOCK, key="k")])
        (claimed,) = await store.claim(worker="w", tasks={"t"}, limit=1)
        await store.finish([ending(claimed, JobState.FAILED)])
        await store.enqueue_within(connection, [new_job(CLOCK, key="k")])
        assert await asyncio.wait_for(store.retry([claimed.id]), 10) == [None]
        await connection.rollback()
        (again,) = await store.retry([claimed.id])

        assert again is not None
        assert await counts(store) == {"queued": 1}


async def test_a_key_that_is_written_between_look_and_insert_does_not_hold_the_store_up(target: Target) -> None:
    """As when a transaction locks and inserts it in that millisecond: here without a lock that could be looked at."""
    async with opened(target, patience_seconds=2.0) as store, transaction("psycopg", target) as connection:
        await store.enqueue([job := new_job(CLOCK, key="k")])
        (claimed,) = await store.claim(worker="w", tasks={"t"}, limit=1)
        await store.finish([ending(claimed)])
        await connection.execute(
            f"INSERT INTO {target.schema}.jobs (id, task, payload, run_at, queue, priority, state, enqueued_at, key)"
            " VALUES ('x', 't', '{}', 0, 'default', 0, 'queued', 0, 'k')"
        )
        with pytest.raises(StoreUnavailable, match="lock timeout"):
            await store.enqueue([new_job(CLOCK, key="k")])
        await asyncio.wait_for(store.enqueue([new_job(CLOCK)]), 5)
        await connection.rollback()

        assert ids(await store.enqueue([job := new_job(CLOCK, key="k")])) == [job.id]


async def test_a_transaction_waits_for_the_insert_of_its_key_that_is_under_way(target: Target) -> None:
    async with (
        opened(target) as store,
        transaction("psycopg", target) as other,
        transaction("psycopg", target) as connection,
    ):
        await other.execute(
            f"INSERT INTO {target.schema}.jobs (id, task, payload, run_at, queue, priority, state, enqueued_at, key)"
            " VALUES ('x', 't', '{}', 0, 'default', 0, 'queued', 0, 'k')"
        )
        enqueuing = asyncio.ensure_future(store.enqueue_within(connection, [new_job(CLOCK, key="k"), new_job(CLOCK)]))
        await asyncio.sleep(0.1)
        assert not enqueuing.done()
        await other.commit()
        keyed, plain = await enqueuing

        assert keyed.id == "x"
        await connection.commit()
        assert sorted(ids(await store.jobs())) == sorted(["x", plain.id])


# -- what is refused ----------------------------------------------------------------------------------------------


async def refused(awaitable: Awaitable[object]) -> str:
    with pytest.raises((InvalidOption, StoreUnavailable)) as told:
        await awaitable
    return str(told.value)


async def test_a_connection_in_no_transaction_is_refused(target: Target) -> None:
    need("asyncpg")
    import asyncpg

    async with opened(target) as store:
        async with await psycopg.AsyncConnection.connect(target.url, autocommit=True) as connection:
            told = await refused(store.enqueue_within(connection, [new_job(CLOCK)]))
            assert told.startswith("connection must be in a transaction, got <psycopg.AsyncConnection [IDLE]")
            remedy = "; enqueue inside of `async with connection.transaction():`, or connect without autocommit"
            assert told.endswith(remedy)
            async with connection.transaction():
                await store.enqueue_within(connection, [new_job(CLOCK)])
        lent = await asyncpg.connect(target.url)
        told = await refused(store.enqueue_within(lent, [new_job(CLOCK)]))
        assert told.endswith("; enqueue inside of `async with connection.transaction():`")
        await lent.close()
        assert await counts(store) == {"queued": 1}


@pytest.mark.parametrize("kind", ["sqlalchemy psycopg", "sqlalchemy asyncpg"])
async def test_autocommit_of_sqlalchemy_is_refused(target: Target, kind: str) -> None:
    async with opened(target) as store, transaction(kind, target) as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        told = await refused(store.enqueue_within(connection, [new_job(CLOCK)]))
        assert told.endswith('; its isolation_level is "AUTOCOMMIT": leave that out for what belongs together')
        assert await counts(store) == {}


async def test_what_is_no_such_connection_is_refused(target: Target) -> None:
    kinds = "psycopg.AsyncConnection, asyncpg.Connection, sqlalchemy.ext.asyncio.AsyncConnection or AsyncSession"
    async with opened(target) as store:
        told = await refused(store.enqueue_within(target.url, [new_job(CLOCK)]))
        assert told == f"connection must be {kinds}, got {target.url!r}; the one on which your transaction runs"
        connection = await asyncio.to_thread(lambda: psycopg.connect(target.url))
        told = await refused(store.enqueue_within(connection, [new_job(CLOCK)]))
        assert told.endswith("; one that blocks goes with enqueue_sync, in a thread")
        connection.close()


async def test_a_connection_that_leads_elsewhere_is_refused(target: Target) -> None:
    with psycopg.connect(target.url, autocommit=True) as connection:
        name = f"{target.schema}_other"
        connection.execute(f"CREATE DATABASE {name}")
    other = replace(target, url=f"{target.url.rpartition('/')[0]}/{name}")
    job = new_job(CLOCK)
    remedy = "give one to the database in which the app keeps its jobs"
    try:
        async with opened(target) as store:
            async with transaction("psycopg", other) as elsewhere:
                told = await refused(store.enqueue_within(elsewhere, [job]))
            assert told == (
                f"store {target.where}: the connection to {name!r} that was given finds no tables in schema "
                f"{target.schema!r}; {remedy}"
            )
            async with opened(other):
                pass
            async with transaction("psycopg", other) as elsewhere:
                told = await refused(store.enqueue_within(elsewhere, [job]))
            assert told == (
                f"store {target.where}: the connection that was given leads to another database ({name!r}, on another "
                f"server or here); {remedy}"
            )
    finally:
        with psycopg.connect(target.url, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


async def test_a_user_with_just_the_rights_that_the_docs_tell_enqueues(target: Target) -> None:
    role = f"role_{target.schema}"
    async with opened(target) as store:
        ask(
            target,
            f"""
            CREATE ROLE {role};
            GRANT USAGE ON SCHEMA {target.schema} TO {role};
            GRANT SELECT, INSERT ON jobs TO {role};
            GRANT SELECT, INSERT, UPDATE ON shards TO {role};
            GRANT USAGE ON SEQUENCE jobs_seq TO {role};
            """,
        )
        try:
            async with transaction("psycopg", target) as connection:
                await connection.execute(f"SET LOCAL ROLE {role}")
                await store.enqueue_within(connection, [new_job(CLOCK, key="k", gates=("limit:",)), new_job(CLOCK)])
            ask(target, f"REVOKE INSERT ON jobs FROM {role}")
            async with transaction("psycopg", target, is_kept=False) as connection:
                await connection.execute(f"SET LOCAL ROLE {role}")
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    await store.enqueue_within(connection, [new_job(CLOCK)])
        finally:
            ask(target, f"DROP OWNED BY {role}; DROP ROLE {role}")
        assert await counts(store) == {"queued": 1, "scheduled": 1}


# -- connections as programs have them ----------------------------------------------------------------------------


async def test_rows_and_codecs_of_a_connection_do_not_matter(target: Target) -> None:
    need("asyncpg")
    import asyncpg

    async with opened(target) as store:
        async with await psycopg.AsyncConnection.connect(target.url, row_factory=dict_row) as connection:
            connection.cursor_factory = psycopg.AsyncRawCursor
            await store.enqueue_within(connection, [new_job(CLOCK, key="k"), new_job(CLOCK, key="k")])
        lent = await asyncpg.connect(target.url)
        for kind in ("json", "jsonb"):
            await lent.set_type_codec(kind, encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
        async with lent.transaction():
            await store.enqueue_within(lent, [new_job(CLOCK, key="m"), new_job(CLOCK, key="k")])
        await lent.close()

        assert await counts(store) == {"queued": 2}


@pytest.mark.parametrize("kind", ["psycopg", "asyncpg", "sqlalchemy psycopg"])
async def test_a_schema_may_have_any_name(target: Target, kind: str) -> None:
    target = replace(target, schema=f'{target.schema} 100% "\u00e9" \\')
    try:
        async with opened(target) as store:
            async with transaction(kind, target) as connection:
                await store.enqueue_within(connection, [new_job(CLOCK, key="k")])
            assert await counts(store) == {"queued": 1}
    finally:
        with psycopg.connect(target.url, autocommit=True) as own:
            own.execute(psycopg.sql.SQL("DROP SCHEMA {} CASCADE").format(psycopg.sql.Identifier(target.schema)))


# -- an app -------------------------------------------------------------------------------------------------------


async def test_a_handle_says_that_its_job_is_not_there_before_the_commit(schema: str, target: Target) -> None:
    app = App(schema)

    @app.task(name="double")
    async def double(number: int) -> int:
        return 2 * number

    async with app:
        async with transaction("psycopg", target) as connection:
            job = await double.options(connection=connection).enqueue(21)
            for asked in (job.result(5), job.record(), job.cancel()):
                with pytest.raises(NotCommitted) as told:
                    await asked
                assert str(told.value) == (
                    f"no job {job.id!r} in the store: the transaction that enqueues it is not committed, or was rolled "
                    "back; ask for the job after the commit"
                )
            many = await double.options(connection=connection, delay=0.01).enqueue_many([(1,), {"number": 2}])

        assert await job.result(30) == 42
        assert [await other.result(30) for other in many] == [2, 4]
        with pytest.raises(InvalidOption, match="a batch is enqueued part by part; use enqueue_many$"):
            await double.options(connection=connection).map([1])


@pytest.mark.parametrize("kind", ["psycopg", "sqlalchemy", "session"])
async def test_a_thread_enqueues_on_a_connection_that_blocks(schema: str, target: Target, kind: str) -> None:
    app = App(schema)

    @app.task(name="double")
    async def double(number: int) -> int:
        return 2 * number

    def enqueue() -> Any:
        if kind == "psycopg":
            with psycopg.connect(target.url) as connection:
                return double.options(connection=connection).enqueue_sync(4)
        from sqlalchemy import create_engine
        from sqlalchemy.orm import Session

        engine = create_engine(target.url.replace(":", "+psycopg:", 1))
        try:
            with engine.begin() if kind == "sqlalchemy" else Session(engine) as begun:
                job = double.options(connection=begun).enqueue_sync(4)
                begun.commit()
            return job
        finally:
            engine.dispose()

    need("sqlalchemy")
    async with app:
        job = await asyncio.to_thread(enqueue)
        assert await job.result(30) == 8


async def test_an_app_elsewhere_than_in_postgres_takes_no_connection(schema: str, tmp_path: Path) -> None:
    remedy = 'let it keep them there: App("postgresql://...")'
    reasons = {
        None: "this one keeps them in memory",
        f"sqlite:///{tmp_path}/jobs.db": "this one keeps them in a file",
    }
    for url, reason in reasons.items():
        app = App(url)
        task = app.task(name="nothing")(nothing)
        async with app:
            with pytest.raises(NotTransactional) as told:
                await task.options(connection=object()).enqueue()
        assert str(told.value) == f"connection= takes an app that keeps its jobs in PostgreSQL, and {reason}; {remedy}"


async def nothing() -> None:
    pass


# -- many at once make one schema ---------------------------------------------------------------------------------


async def test_who_has_waited_for_the_tables_sees_them(target: Target, wait_until: WaitUntil) -> None:
    """The first look has found none; while the second one waits for its turn, another process makes them."""
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with psycopg.connect(target.url) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s)", (key_of(target.schema, "schema"),))
        store = PostgresStore(target, CLOCK, worker="w")
        opening = asyncio.ensure_future(store.open())
        await wait_until(lambda: ask(target, waiting) == [(1,)])
        made = PostgresStore(replace(target, schema=f"{target.schema}_made"), CLOCK)
        await made.open()
        await made.close()
        other.execute(f"ALTER SCHEMA {target.schema}_made RENAME TO {target.schema}")
        other.commit()
        await asyncio.wait_for(opening, 20)
    await store.enqueue([new_job(CLOCK)])
    (claimed,) = await store.claim(worker="w", tasks={"t"}, limit=1)

    assert lease(claimed).token == 1
    await store.close()
