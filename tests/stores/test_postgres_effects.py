"""Jobs whose effects and success are one transaction: done once, however often a job is begun."""

from __future__ import annotations

import asyncio
import logging
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from proxy import Proxy
from tickwork import App, Context, Retry, dispatch, events, pulse
from tickwork.clock import SystemClock
from tickwork.conformance import new_job
from tickwork.errors import (
    InvalidPayload,
    JobFailed,
    LeaseLost,
    NotRunning,
    NotTransactional,
)
from tickwork.jobs import JobState
from tickwork.stores.postgres import PostgresStore
from tickwork.stores.postgres_target import Target

pytestmark = pytest.mark.one_python

CLOCK = SystemClock()
WaitUntil = Callable[..., Awaitable[None]]


def ask(target: Target, query: str) -> list[Any]:
    with psycopg.connect(target.url, autocommit=True) as connection:
        connection.execute(f'SET search_path = "{target.schema}", public')
        found = connection.execute(query)
        return found.fetchall() if found.description else []


@pytest.fixture
def effects(target: Target) -> Iterator[str]:
    """A table of the user's, where the tables of users are."""
    name = f"effects_{target.schema}"
    ask(target, f"CREATE TABLE public.{name} (number int)")
    yield name
    ask(target, f"DROP TABLE public.{name}")


def done(target: Target, effects: str) -> list[int]:
    return sorted(number for (number,) in ask(target, f"SELECT number FROM public.{effects}"))


def counted(target: Target) -> dict[str, int]:
    """Return how many jobs are in each state by the counts, which must be those by the rows."""
    states = [str(state) for state in JobState]
    sums = ask(target, f"SELECT {', '.join(f'sum({state})::int' for state in states)} FROM shards")[0]
    counts = {state: count for state, count in zip(states, sums, strict=True) if count}
    rows = "SELECT state, count(*) FROM (SELECT state FROM jobs UNION ALL SELECT state FROM finished) AS r GROUP BY 1"
    assert dict(ask(target, rows)) == counts
    return counts


async def put(ctx: Context, effects: str, number: int) -> Any:
    async with ctx.transaction() as connection:
        await connection.execute(f"INSERT INTO {effects} VALUES (%s)", (number,))
        ctx.complete(number)


# -- together or not at all ---------------------------------------------------------------------------------------


async def test_an_effect_and_the_success_are_there_together(schema: str, target: Target, effects: str) -> None:
    app = App(schema)
    seen: list[Any] = []

    @app.task(name="t")
    async def work(ctx: Context, number: int) -> int:
        async with ctx.transaction() as connection:
            await connection.execute(f"INSERT INTO {effects} VALUES (%s)", (number,))
            ctx.complete(0)
            ctx.complete(number * 2)
            seen.append((done(target, effects), counted(target)))
        seen.append((done(target, effects), counted(target)))
        return number * 2

    async with app:
        assert await (await work.enqueue(3)).result(30) == 6
    assert seen == [([], {"running": 1}), ([3], {"succeeded": 1})]


async def test_without_a_value_the_result_is_null(schema: str) -> None:
    app = App(schema)

    @app.task(name="t")
    async def work(ctx: Context) -> None:
        async with ctx.transaction():
            pass

    async with app:
        job = await work.enqueue()
        await job.result(30)
        assert (await job.record()).result == "null"


@pytest.mark.parametrize("how", ["raises", "result", "swallowed", "deferred", "by hand"])
async def test_a_block_that_fails_does_nothing_and_its_attempt_fails(
    schema: str, target: Target, effects: str, how: str
) -> None:
    app = App(schema)
    ask(target, f"ALTER TABLE public.{effects} ADD UNIQUE (number) DEFERRABLE INITIALLY DEFERRED")
    attempts: list[int] = []

    @app.task(name="t", retry=Retry(2, delay=0))
    async def work(ctx: Context) -> int:
        attempts.append(ctx.attempt)
        async with ctx.transaction() as connection:
            await connection.execute(f"INSERT INTO {effects} VALUES (1)")
            if ctx.attempt == 2:
                ctx.complete(7)
            elif how == "raises":
                raise ZeroDivisionError
            elif how == "result":
                ctx.complete("no number")
            elif how == "swallowed":
                with pytest.raises(psycopg.Error):
                    await connection.execute("SELECT 1 / 0")
            elif how == "deferred":
                await connection.execute(f"INSERT INTO {effects} VALUES (1)")
            else:
                await connection.execute("ROLLBACK")
        return 7

    async with app:
        job = await work.enqueue()
        assert await job.result(30) == 7
        (failed,) = await app._store_now().attempts(job.id)
    assert attempts == [1, 2]
    assert done(target, effects) == [1]
    assert counted(target) == {"succeeded": 1}
    assert failed.error_info is not None
    kinds = {
        "raises": "ZeroDivisionError",
        "result": InvalidPayload.__qualname__,
        "deferred": "UniqueViolation",
    }
    assert failed.error_info.type.rpartition(".")[2] == kinds.get(how, "InFailedSqlTransaction")


async def test_commit_and_rollback_by_hand_are_refused(schema: str, target: Target, effects: str) -> None:
    app = App(schema)

    @app.task(name="t")
    async def work(ctx: Context) -> None:
        async with ctx.transaction() as connection:
            for end in (connection.commit, connection.rollback):
                with pytest.raises(psycopg.ProgrammingError):
                    await end()
            with pytest.raises(ZeroDivisionError):
                async with connection.transaction():
                    await connection.execute(f"INSERT INTO {effects} VALUES (1)")
                    raise ZeroDivisionError
            await connection.execute(f"INSERT INTO {effects} VALUES (2)")

    async with app:
        await (await work.enqueue()).result(30)
    assert done(target, effects) == [2]


@pytest.mark.parametrize("after", ["raises", "returns"])
async def test_what_a_function_does_after_its_transaction_is_logged(
    schema: str, target: Target, effects: str, caplog: pytest.LogCaptureFixture, after: str
) -> None:
    app = App(schema)
    heard: list[events.Event] = []

    @app.on(events.JobEnded)
    async def hear(event: events.Event) -> None:
        heard.append(event)

    @app.task(name="t", retry=3)
    async def work(ctx: Context) -> int:
        await put(ctx, effects, 1)
        if after == "raises":
            raise ValueError("too late")
        return 99

    async with app:
        job = await work.enqueue()
        assert await job.result(30) == 1
    said = {"raises": "raised ValueError: too late", "returns": "returned something else than ctx.complete was given"}
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warnings == [
        f"t job={job.id} has succeeded with its transaction, and that stands; after it, the function {said[after]}"
    ]
    assert [type(event) for event in heard] == [events.JobSucceeded]
    assert done(target, effects) == [1]
    assert counted(target) == {"succeeded": 1}


async def test_a_job_that_was_taken_away_undoes_its_transaction(
    schema: str, target: Target, effects: str, wait_until: WaitUntil
) -> None:
    app = App(schema)
    raised: list[BaseException] = []

    @app.task(name="t")
    async def work(ctx: Context) -> None:
        try:
            async with ctx.transaction() as connection:
                await connection.execute(f"INSERT INTO {effects} VALUES (1)")
                ask(target, "UPDATE jobs SET token = token + 1")
        except BaseException as error:
            raised.append(error)
            raise

    async with app:
        job = await work.enqueue()
        await wait_until(lambda: raised)
        assert isinstance(raised[0], LeaseLost)
        assert str(raised[0]) == (
            f"job {job.id} (t) has lost its lease: what its transaction did is rolled back; it goes on elsewhere, "
            "if at all"
        )
        assert (await job.record()).state is JobState.RUNNING
        assert done(target, effects) == []
        ask(target, "DELETE FROM jobs")


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_commit_whose_answer_is_lost_is_done_once(
    schema: str, target: Target, effects: str, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in ((pulse, "PULSE_SECONDS"), (dispatch, "MARK_SECONDS")):
        monkeypatch.setattr(module, name, 3600.0)
    port = int(psycopg.conninfo.conninfo_to_dict(target.url)["port"] or 5432)
    attempts: list[int] = []
    with Proxy(port) as proxy:
        app = App(schema.replace(f":{port}", f":{proxy.port}"))

        @app.task(name="t", retry=Retry(2, delay=0))
        async def work(ctx: Context) -> int:
            attempts.append(ctx.attempt)
            async with ctx.transaction() as connection:
                await connection.execute(f"INSERT INTO {effects} VALUES (1)")
                ctx.complete(7)
                # Its connection is the one with a COMMIT next: nobody else writes, once the first pulse is told.
                if ctx.attempt == 1:
                    proxy.judge = _Cut(when)
            return 7

        async with app:
            async with asyncio.timeout(30):
                while True:
                    if [worker.vitals for worker in await app.jobs.workers() if worker.vitals is not None]:
                        break
                    await asyncio.sleep(0.01)
            job = await work.enqueue()
            assert await job.result(30) == 7
            proxy.judge = lambda sent: None
        assert proxy.cuts == 1
    assert attempts == ([1, 2] if when == "before" else [1])
    assert done(target, effects) == [1]
    assert counted(target) == {"succeeded": 1}


class _Cut:
    """Cuts the link on which the job's end is committed, once: that which has set a savepoint."""

    def __init__(self, when: str) -> None:
        self.when = when
        self.link: int | None = None  # each has a thread of the proxy
        self.is_over = False

    def __call__(self, sent: bytes) -> str | None:
        if b"SAVEPOINT tickwork" in sent:
            self.link = threading.get_ident()
        elif self.link == threading.get_ident() and not self.is_over and b"COMMIT" in sent:
            self.is_over = True
            return self.when
        return None


# -- the same as without ------------------------------------------------------------------------------------------


async def test_limits_batches_and_keys_go_on_as_after_any_end(schema: str, target: Target, effects: str) -> None:
    app = App(schema, workers=8)
    running: list[int] = []

    @app.task(name="t", limit=1)
    async def work(ctx: Context, number: int) -> int:
        running.append(number)
        assert len(running) == 1
        async with ctx.transaction() as connection:
            await connection.execute(f"INSERT INTO {effects} VALUES (%s)", (number,))
            await asyncio.sleep(0)
            ctx.complete(number)
            running.remove(number)
        return number

    @app.task(name="k", key="k")
    async def keyed(ctx: Context) -> int:
        await put(ctx, effects, 100)
        return 100

    async with app:
        batch = await work.map(range(20))
        assert sorted(await asyncio.wait_for(batch.results(), 40)) == list(range(20))
        for _ in range(3):
            job = await keyed.enqueue()
            assert job.is_new
            assert await job.result(30) == 100
    assert done(target, effects) == [*range(20), 100, 100, 100]
    assert counted(target) == {"succeeded": 23}


async def test_the_next_fire_time_counts_from_the_end(schema: str, wait_until: WaitUntil) -> None:
    app = App(schema)
    ran: list[str] = []

    @app.every("50ms", name="s", after="end", max_runs=3)
    async def work(ctx: Context) -> None:
        async with ctx.transaction():
            ran.append(ctx.job_id)

    async with app:
        await wait_until(lambda: len(ran) == 3)
        await wait_until(lambda: not app.running)
        rows = await app.schedules["s"].history()
    assert [row.state for row in rows] == [JobState.SUCCEEDED] * 3


async def test_a_job_enqueues_the_next_one_in_its_transaction(schema: str, target: Target, effects: str) -> None:
    app = App(schema)
    last: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @app.task(name="t")
    async def work(ctx: Context, number: int) -> None:
        async with ctx.transaction() as connection:
            await connection.execute(f"INSERT INTO {effects} VALUES (%s)", (number,))
            if number < 5:
                await work.options(connection=connection).enqueue(number + 1)
        if number == 5:
            last.set_result(None)

    async with app:
        await work.enqueue(1)
        await asyncio.wait_for(last, 30)
        await app.wait_idle()
    assert done(target, effects) == [1, 2, 3, 4, 5]
    assert counted(target) == {"succeeded": 5}


async def test_progress_told_in_a_transaction_is_kept(schema: str) -> None:
    app = App(schema)

    @app.task(name="t")
    async def work(ctx: Context) -> None:
        async with ctx.transaction():
            ctx.progress(3, 4)

    async with app:
        job = await work.enqueue()
        await job.result(30)
        progress = (await job.record()).progress
    assert progress is not None
    assert (progress.done, progress.total) == (3, 4)


# -- the connection -----------------------------------------------------------------------------------------------


async def test_names_of_the_users_tables_are_theirs_until_the_commit(schema: str, target: Target, effects: str) -> None:
    """Neither a temporary table called as one of ours is in the way, nor is ours in that of a trigger at the commit."""
    ask(
        target,
        f"""
        CREATE FUNCTION public.note_{effects}() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO {effects} VALUES (NEW.number + 1000); RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER note AFTER INSERT ON public.{effects} DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW WHEN (NEW.number < 1000) EXECUTE FUNCTION public.note_{effects}()
        """,
    )
    app = App(schema)

    @app.task(name="t")
    async def work(ctx: Context) -> None:
        async with ctx.transaction() as connection:
            await connection.execute("CREATE TEMP TABLE jobs (id int); CREATE TEMP TABLE shards (name text)")
            await connection.execute(f"INSERT INTO {effects} VALUES (1)")

    async with app:
        await (await work.enqueue()).result(30)
    assert done(target, effects) == [1, 1001]
    assert counted(target) == {"succeeded": 1}
    ask(target, f"DROP FUNCTION public.note_{effects} CASCADE")


async def test_what_one_job_sets_does_not_hold_for_the_next(schema: str, wait_until: WaitUntil) -> None:
    app = App(schema)
    seen: list[Any] = []

    @app.task(name="t")
    async def work(ctx: Context) -> None:
        async with ctx.transaction() as connection:
            asked = """
                SELECT pg_backend_pid(), current_setting('work_mem'), to_regclass('pg_temp.mine') IS NULL,
                    (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())
            """
            seen.append(await (await connection.execute(asked)).fetchone())
            await connection.execute(
                "SET work_mem = '77MB'; CREATE TEMP TABLE mine (id int); SELECT pg_advisory_lock(123)"
            )

    async with app:
        for _ in range(3):
            await (await work.enqueue()).result(30)
            await wait_until(lambda: not app.running)  # until then its connection is not there for the next
    assert len(set(seen)) == 1, seen
    assert "77MB" not in seen[0]


async def test_a_connection_that_the_server_has_ended_meanwhile_is_made_anew(
    schema: str, target: Target, wait_until: WaitUntil
) -> None:
    app = App(schema)

    @app.task(name="t")
    async def work(ctx: Context) -> int:
        async with ctx.transaction() as connection:
            ctx.complete(connection.info.backend_pid)
        return 0

    async with app:
        first = await (await work.enqueue()).result(30)
        await wait_until(lambda: not app.running)
        ask(target, f"SELECT pg_terminate_backend({first}, 10000)")
        assert await (await work.enqueue()).result(30) != first


# -- what is refused ----------------------------------------------------------------------------------------------


async def test_a_transaction_begins_where_it_can_end(schema: str, caplog: pytest.LogCaptureFixture) -> None:
    app = App(schema)
    told: list[str] = []
    over = asyncio.Event()

    @contextmanager
    def refused() -> Iterator[None]:
        with pytest.raises(NotRunning) as error:
            yield
        told.append(str(error.value))

    @app.task(name="t")
    async def work(ctx: Context) -> int:
        with refused():
            ctx.complete(1)
        async with ctx.transaction():
            with refused():
                async with ctx.transaction():
                    pass
            ctx.complete(1)
        with refused():
            async with ctx.transaction():
                pass
        over.set()
        return 1

    @app.task(name="plain")
    def plain(ctx: Context) -> None:
        async def begin() -> None:
            async with ctx.transaction():
                pass

        with refused():
            asyncio.run(begin())

    async with app:
        job = await work.enqueue()
        assert await job.result(30) == 1
        await asyncio.wait_for(over.wait(), 30)  # the commit ends the job, and its function has not come to its end yet
        await (await plain.enqueue()).result(30)
    with refused():
        Context(job_id="x", task="t").transaction()
    assert told == [
        "ctx.complete(value) gives a result inside of `async with ctx.transaction()`; return it",
        "a transaction of the job is open; its connection.transaction() makes savepoints",
        f"job {job.id} has succeeded with its transaction; there can be no other",
        "ctx.transaction() works on the app's loop; make the task a coroutine function",
        "no app runs this job, or in another process; ctx.transaction() works on the app's loop",
    ]
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("where", ["memory", "a file"])
async def test_an_app_elsewhere_has_no_transactions(tmp_path: Path, where: str) -> None:
    app = App() if where == "memory" else App(f"sqlite:///{tmp_path}/jobs.db")

    @app.task(name="t")
    async def work(ctx: Context) -> None:
        async with ctx.transaction():
            pass

    async with app:
        with pytest.raises(JobFailed) as failed:
            await (await work.enqueue()).result(30)
    assert isinstance(failed.value.__cause__, NotTransactional)
    assert str(failed.value.__cause__) == (
        f"ctx.transaction() takes an app that keeps its jobs in PostgreSQL, and this one keeps them in {where}; "
        'let it keep them there: App("postgresql://...")'
    )


# -- deaths -------------------------------------------------------------------------------------------------------

PROGRAM = """
import asyncio, random, sys
from tickwork import App, Context

app = App(sys.argv[1], workers=4, max_deaths=1_000_000)

@app.task(name="t")
async def put(ctx: Context, number: int) -> int:
    await asyncio.sleep(random.random() * 0.01)
    async with ctx.transaction() as connection:
        await connection.execute(f"INSERT INTO {sys.argv[2]} VALUES (%s)", (number,))
        await asyncio.sleep(random.random() * 0.01)
        ctx.complete(number)
    await asyncio.sleep(random.random() * 0.01)
    return number

app.run()
"""


@pytest.mark.parametrize("kills", [3, pytest.param(30, marks=pytest.mark.slow)])
@pytest.mark.timeout(600)
async def test_each_effect_is_there_once_although_processes_die(
    schema: str, target: Target, effects: str, tmp_path: Path, kills: int
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    words = [sys.executable, "program.py", schema, effects]
    count = 40 * kills
    store = PostgresStore(target, CLOCK, max_deaths=1_000_000)
    await store.open()
    await store.enqueue([new_job(CLOCK, payload=f'{{"number":{number}}}') for number in range(count)])
    draw = random.Random(7)

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            words,
            cwd=tmp_path,
            env={"PYTHONPATH": ":".join(sys.path)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def kill_again_and_again() -> None:
        workers = [start(), start()]
        try:
            for number in range(kills):
                before = len(done(target, effects))
                until = time.monotonic() + 60
                while len(done(target, effects)) < min(before + draw.randrange(1, 15), count):
                    assert time.monotonic() < until
                    time.sleep(draw.random() * 0.01)
                victim = workers[number % 2]
                victim.send_signal(signal.SIGKILL)
                victim.wait(30)
                workers[number % 2] = start()
            until = time.monotonic() + 120
            while ask(target, "SELECT count(*) FROM jobs") != [(0,)]:
                assert time.monotonic() < until, ask(target, "SELECT state, count(*) FROM jobs GROUP BY 1")
                time.sleep(0.05)
        finally:
            for worker in workers:
                worker.kill()
                worker.wait(30)

    await asyncio.to_thread(kill_again_and_again)
    claims = ask(target, "SELECT count(*) FROM finished WHERE token > 1")
    await store.close()
    assert done(target, effects) == list(range(count))
    assert counted(target) == {"succeeded": count}
    assert claims[0][0] > 0, "no job was begun twice: nothing was proved"
