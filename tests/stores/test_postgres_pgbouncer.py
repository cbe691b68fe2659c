"""Behind a pgbouncer that gives each transaction another connection to the server, as `?notify=off` is for."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from fleet import Fleet
from pgbouncer import POOL, Pgbouncer
from postgres_server import running
from proxy import Proxy
from stores.test_postgres import (
    CLOCK,
    by_way_of,
    cut_at_each,
    go_through,
    opened,
    play,
    refusal,
    tables,
)
from test_one_firing import expect_each_fire_time_once, finish, stop
from tickwork import App, Context
from tickwork.conformance import ending, ids, new_job
from tickwork.jobs import JobState
from tickwork.stores.base import Store
from tickwork.stores.postgres import PostgresStore
from tickwork.stores.postgres_target import Target, target_of
from tickwork.testing import HandClock, StoreConformance

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="needs signals"),
    pytest.mark.one_python,
    pytest.mark.timeout(180),  # seconds, where nothing else runs
]

WaitUntil = Callable[..., Awaitable[None]]


@pytest.fixture(scope="module")
def pgbouncer(postgres_url: str) -> Iterator[Pgbouncer]:
    with Pgbouncer(postgres_url) as bouncer:
        yield bouncer


@pytest.fixture
def behind(target: Target, pgbouncer: Pgbouncer) -> Target:
    """The schema of a test, by way of it."""
    return replace(target, url=pgbouncer.url, notifies=False)


# -- the same as without --------------------------------------------------------------------------------------------

BASICS = {
    "test_a_large_payload_and_a_large_result_come_back_whole",
    "test_each_job_goes_to_one_of_many_who_claim_at_once",
    "test_a_job_for_later_is_scheduled_and_wakes_who_waits_when_it_is_due",
    "test_producers_wait_for_room_in_their_order",
    "test_a_cancelled_claim_has_claimed_nothing_however_far_it_was",
    "test_while_a_job_with_a_key_is_unfinished_it_stands_for_others",
    "test_many_who_enqueue_one_key_at_once_get_one_job",
    "test_a_job_must_pass_its_limit_and_its_rate",
    "test_whatever_makes_room_under_a_limit_wakes_who_waits",
    "test_a_late_owner_is_refused_and_changes_nothing",
    "test_an_extended_lease_is_not_rescued",
    "test_only_a_job_that_had_begun_counts_the_death_of_its_worker",
    "test_cancelling_ends_what_waits_and_marks_what_runs",
    "test_jobs_are_listed_the_newest_first_and_counted",
    "test_misfits_are_queued_again_by_a_worker_with_another_fingerprint",
    "test_pruning_forgets_nothing_that_is_unfinished",
    "test_a_batch_counts_its_jobs_wherever_they_go",
    "test_of_many_who_fire_at_once_one_does",
    "test_replace_cancels_the_last_and_waits_for_its_end",
    "test_the_ledger_has_one_answer_for_each_fire_time",
}
"""What touches locks, notices of others, large rows and every table. All tests of the suite pass here; these are so
many that a change which counts on a session is noticed."""


@pytest.mark.slow
class TestBasics(StoreConformance):
    forget_seconds = 31 * 86_400.0

    @pytest.fixture
    def anyio_backend(self, real_backend: Any) -> Any:
        return real_backend

    @pytest.fixture
    def make_store(self, behind: Target) -> Callable[[HandClock, int], Store]:
        return lambda clock, max_queued: PostgresStore(
            behind, clock, worker=self.worker, max_queued=max_queued, keeps_house=False
        )


for _name in vars(StoreConformance):
    if _name.startswith("test_") and _name not in BASICS:
        setattr(TestBasics, _name, None)


def sessions(target: Target) -> set[tuple[Any, ...]]:
    """Return what lasts in the connections of a pgbouncer to its server, of all of them at once."""
    links = [psycopg.connect(target.url, prepare_threshold=None) for _ in range(POOL)]
    found = {
        link.execute(
            """
            SELECT pg_backend_pid(), current_setting('search_path'), current_setting('jit'),
                current_setting('idle_in_transaction_session_timeout'), current_setting('lock_timeout'),
                (SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_listening_channels()),
                (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())
            """
        ).fetchone()
        or ()
        for link in links
    }
    for link in links:
        link.close()
    assert len(found) == POOL
    return {about for _, *rest in found for about in [tuple(rest)]}


async def test_nothing_of_a_store_is_left_in_the_connections_that_it_was_lent(behind: Target) -> None:
    fresh = sessions(behind)
    assert len(fresh) == 1
    app = App(f"{behind.url}?schema={behind.schema}&notify=off")

    @app.task(name="effect", key="e")
    async def work(ctx: Context) -> str:
        async with ctx.transaction() as connection:
            await next_one.options(connection=connection).enqueue()
            ctx.complete("done")
        return "done"

    @app.task(name="next", key="n")
    async def next_one() -> None:
        pass

    async with opened(behind, worker="w", keeps_house=False) as store:  # it rescues when it is told to
        await play(store)
    async with app:
        for _ in range(2 * POOL):
            assert await (await work.enqueue()).result(30) == "done"

    assert sessions(behind) == fresh


async def test_a_burst_of_several_processes_is_done_once_on_few_connections(behind: Target) -> None:
    names = [f"w{number}" for number in range(3)]
    stores = [PostgresStore(behind, CLOCK, worker=name) for name in names]
    await asyncio.gather(*[store.open() for store in stores])
    done: list[str] = []

    async def churn(store: PostgresStore, name: str) -> None:
        await asyncio.gather(*[store.enqueue([new_job(CLOCK, key=f"k{number}")]) for number in range(40)])
        while claimed := await store.claim(worker=name, tasks={"t"}, limit=5):
            await store.finish([ending(record) for record in claimed])
            done.extend(ids(claimed))

    await asyncio.gather(*[churn(store, name) for store, name in zip(stores, names, strict=True)])
    there = await stores[0].jobs(limit=1_000)
    assert {record.state for record in there} == {JobState.SUCCEEDED}
    assert sorted(done) == sorted(record.id for record in there)
    assert len(done) == len(set(done)) >= 40
    await asyncio.gather(*[store.close() for store in stores])


# -- with notify on -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [{}, {"server_round_robin": "0"}, {"server_round_robin": "0", "default_pool_size": "1"}],
    ids=["the oldest", "the newest", "the only one"],
)
async def test_a_store_that_counts_on_its_session_refuses_to_be_lent_connections(
    target: Target, settings: dict[str, str]
) -> None:
    with Pgbouncer(target.url, **settings) as bouncer:
        behind = replace(target, url=bouncer.url)
        told = await refusal(PostgresStore(behind, CLOCK, worker="w").open())

        assert told == (
            f"store {behind.where}: a pooler is between, and gives each transaction another connection; "
            'add "notify=off" to the options of the URL, or name the server itself'
        )
    assert tables(target, f"SELECT 1 FROM pg_namespace WHERE nspname = '{target.schema}'") == []


async def test_a_pgbouncer_that_lends_connections_for_a_session_is_like_none(target: Target) -> None:
    with Pgbouncer(target.url, pool_mode="session", default_pool_size="20") as bouncer:
        behind = replace(target, url=bouncer.url)
        async with (
            opened(behind, worker="w", keeps_house=False) as one,
            opened(behind, keeps_house=False) as two,
        ):
            await play(one)
            while claimed := await one.claim(worker="w", tasks={"t"}, limit=10):
                await one.finish([ending(record) for record in claimed])
            waiting = asyncio.ensure_future(one.wait_claimable())
            await two.enqueue([new_job(CLOCK)])
            await asyncio.wait_for(waiting, 30)


async def test_a_pgbouncer_that_lends_connections_for_a_statement_is_refused(target: Target) -> None:
    with Pgbouncer(target.url, pool_mode="statement") as bouncer:
        behind = replace(target, url=bouncer.url, notifies=False)
        told = await refusal(PostgresStore(behind, CLOCK, patience_seconds=0).open())

        assert told == (
            f"store {behind.where}: transaction blocks not allowed in statement pooling mode; "
            "let pgbouncer lend a connection for a transaction (pool_mode = transaction)"
        )


# -- links that break -----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
async def test_wherever_the_link_to_it_breaks_nothing_is_lost_or_done_twice(
    pgbouncer: Pgbouncer, behind: Target, target: Target, when: str
) -> None:
    with Proxy(pgbouncer.port) as proxy:
        assert await cut_at_each(23, when, proxy, by_way_of(proxy, behind), target) > 60


async def test_a_pgbouncer_that_is_killed_and_started_again_loses_nothing(
    target: Target, wait_until: WaitUntil
) -> None:
    with Pgbouncer(target.url) as bouncer:

        def restart() -> None:
            bouncer.stop()
            bouncer.start()

        await go_through(replace(target, url=bouncer.url, notifies=False), [restart] * 3, wait_until)


@pytest.mark.slow
async def test_a_server_behind_it_that_is_restarted_loses_nothing(wait_until: WaitUntil) -> None:
    with running() as server, Pgbouncer(server.url) as bouncer:

        def restart(mode: str) -> None:
            server.stop(mode)
            server.start()

        ways = [partial(restart, mode) for mode in ("immediate", "fast")]
        await go_through(target_of(f"{bouncer.url}?notify=off"), ways, wait_until)


# -- several processes ----------------------------------------------------------------------------------------------

MANY = """
app = App("sqlite:///jobs.db", workers=3, drain_seconds=5)

@app.every("200ms", name="tick", overlap="allow", catch_up="all")
async def fired(ctx: Context):
    say("fired", ctx.schedule, ctx.job_id, ctx.fire_time.isoformat())

@app.task(name="long")
async def long(ctx: Context):
    say("begun", ctx.job_id)
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        say("cancelled", ctx.job_id)
        raise
"""


@pytest.mark.slow
def test_processes_fire_once_rescue_and_cancel_while_pgbouncer_is_killed(tmp_path: Path, target: Target) -> None:
    with (
        Pgbouncer(target.url) as bouncer,
        Fleet(tmp_path, MANY, replace(target, url=bouncer.url, notifies=False)) as fleet,
    ):
        workers = [fleet.start(), fleet.start()]
        (job,) = fleet.enqueue("long")
        fleet.wait_said("begun", job)
        fleet.wait_said("fired", times=5)
        bouncer.stop()
        bouncer.start()
        before = len(fleet.lines("fired"))
        fleet.wait_said("fired", times=before + 5)

        (victim,) = [worker for worker in workers if worker.pid == fleet.lines("begun")[0].pid]
        fleet.kill(victim)
        fleet.wait_said("begun", job, times=2)
        fleet.ask(lambda store: store.cancel([job]))
        fleet.wait_said("cancelled", job)
        stop(fleet)
        finish(fleet)

        assert fleet.job(job).state is JobState.CANCELLED
        assert [line.pid == victim.pid for line in fleet.lines("begun")] == [True, False]
        assert expect_each_fire_time_once(fleet, "tick", [victim.pid]) >= 10
