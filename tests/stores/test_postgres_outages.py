"""Outages with all their parts: another server takes over, a disk is full, no connection is free, a link is half open.

What was acknowledged is there once, workers go on by themselves, and who calls meanwhile hears why it fails.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from fleet import Fleet
from parts import small_disk
from postgres_server import QUICK, following, ordinary_user, running
from proxy import Proxy
from stores.test_postgres import (
    CLOCK,
    by_way_of,
    expect_nothing_left,
    expect_played,
    go_through,
    judge,
    named,
    opened,
    play,
    port_of,
    refusal,
    tables,
)
from test_one_firing import expect_each_fire_time_once, finish, stop
from tickwork import App, Context, Job
from tickwork.conformance import ending, ids, lease, new_job
from tickwork.errors import StoreUnavailable
from tickwork.jobs import JobState
from tickwork.limits import Limit, Limits, Rate
from tickwork.stores import postgres_guard, postgres_link
from tickwork.stores.postgres import PostgresStore
from tickwork.stores.postgres_schema import VERSIONS
from tickwork.stores.postgres_target import Target, target_of

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="needs signals"),
    pytest.mark.one_python,
    pytest.mark.timeout(180),  # seconds, where nothing else runs
]

WaitUntil = Callable[..., Awaitable[None]]

# -- another server takes over --------------------------------------------------------------------------------------

HOLDERS = """
app = App("sqlite:///jobs.db", workers=4, drain_seconds=10)

@app.every("200ms", name="tick", overlap="allow", catch_up="all")
async def fired(ctx: Context):
    say("fired", ctx.schedule, ctx.job_id, ctx.fire_time.isoformat())

@app.task(name="hold")
async def hold(ctx: Context):
    say("begun", ctx.job_id)
    await wait_for("go on")
    say("ended", ctx.job_id)
"""


@pytest.mark.slow
async def test_a_server_that_takes_over_has_all_that_was_acknowledged(tmp_path: Path, wait_until: WaitUntil) -> None:
    with (
        running(fsync="off") as primary,
        following(primary, fsync="off", synchronous_standby_names="") as copy,
        Proxy(primary.port) as proxy,
    ):
        url = f"postgresql://tickwork@127.0.0.1:{proxy.port}/postgres"
        with Fleet(tmp_path, HOLDERS, target_of(f"{url}?schema=fleet")) as fleet:
            fleet.start(), fleet.start()
            held = await asyncio.to_thread(fleet.enqueue, "hold", "hold")
            await asyncio.to_thread(fleet.wait_said, "begun", times=2)
            await asyncio.to_thread(fleet.wait_said, "fired", times=3)
            late = target_of(f"{url}?schema=late")
            async with opened(late, worker="late", lease_seconds=1.0, keeps_house=False) as owner:
                await owner.enqueue([job := new_job(CLOCK)])
                (claimed,) = await owner.claim(worker="late", tasks={"t"}, limit=1, lease_seconds=1.0)

                def fail_over() -> None:
                    primary.stop()
                    copy.promote()
                    proxy.lead_to(copy.port)

                await go_through(target_of(f"{url}?schema=busy"), [fail_over], wait_until)

                async with opened(late, worker="next", keeps_house=False) as other:
                    while not await other.rescue():  # its lease is over within a second
                        await asyncio.to_thread(fleet.wait_said, "fired", times=len(fleet.lines("fired")) + 1)
                    (again,) = await other.claim(worker="next", tasks={"t"}, limit=1)
                    assert (claimed.token, again.token) == (1, 2)
                    assert await owner.finish([ending(claimed)]) == [False]
                    assert await owner.progress(lease(claimed)) is False
                    assert await other.finish([ending(again)]) == [True]
                    assert (await owner.job(job.id)).state is JobState.SUCCEEDED

            await asyncio.to_thread(fleet.wait_said, "fired", times=len(fleet.lines("fired")) + 5)
            fleet.touch("go on")
            await asyncio.to_thread(fleet.wait_said, "ended", times=2)
            await asyncio.to_thread(stop, fleet)
            await asyncio.to_thread(finish, fleet)
            assert sorted(fleet.said("ended")) == sorted(fleet.said("begun")) == sorted(held)
            assert await asyncio.to_thread(expect_each_fire_time_once, fleet, "tick", []) >= 8


# -- what the server lacks ------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_full_disk_is_told_and_all_goes_on_when_there_is_room(wait_until: WaitUntil) -> None:
    with running(**QUICK) as server, small_disk(server.folder / "disk", "12m") as disk:
        (tables := disk / "tables").mkdir()
        ordinary_user(tables)
        with psycopg.connect(server.url, autocommit=True) as link:
            link.execute(f"CREATE TABLESPACE small LOCATION '{tables}'")
            link.execute("ALTER DATABASE postgres SET default_tablespace = small")
        app = App(server.url, workers=2)
        go_on = asyncio.Event()
        ticks: list[str] = []
        long = os.urandom(200_000).hex()

        @app.every("100ms", name="tick")
        async def tick(ctx: Context) -> None:
            ticks.append(ctx.job_id)

        @app.task(name="hold")
        async def hold() -> str:
            await go_on.wait()
            return long

        @app.task(name="take")
        async def take(text: str) -> None:
            pass

        async with app:
            held = await hold.enqueue()
            await wait_until(lambda: ticks)
            fill(disk)
            taken: list[Job[None]] = []
            with pytest.raises(StoreUnavailable) as refused:
                while len(taken) < 999:
                    taken.append(await take.options(delay="1h").enqueue(os.urandom(5_000).hex()))
            go_on.set()
            with pytest.raises(TimeoutError):
                await held.result(timeout=2)
            assert (await held.record()).state is JobState.RUNNING
            (disk / "ballast").unlink()
            assert await held.result(timeout=30) == long
            before = len(ticks)
            await wait_until(lambda: len(ticks) > before + 2)
            taken.append(await take.options(delay="1h").enqueue("again"))

            waiting = await app.jobs.list(task="take", limit=1_000)
            assert sorted(job.id for job in waiting.jobs) == sorted(job.id for job in taken)
        assert re.sub(r'file ".*?"[^:]*', "file", str(refused.value)) == (
            f"store {server.url}: could not extend file: No space left on device; HINT:  Check free disk space.; "
            "make room on the server's disk; what was asked for is not done"
        )
        assert len(ticks) == len(set(ticks))


def fill(disk: Path) -> None:
    with (disk / "ballast").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(4096))


@pytest.mark.slow
async def test_a_server_whose_log_has_no_room_stops_and_has_all_that_was_acknowledged(
    wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_link, "DOUBT_SECONDS", 2.0)
    with running() as server, small_disk(server.folder / "disk", "64m") as disk:
        server.stop("fast")
        log = server.folder / "data" / "pg_wal"
        shutil.copytree(log, disk / "pg_wal")
        shutil.rmtree(log)
        log.symlink_to(disk / "pg_wal")
        for path in (disk / "pg_wal", *(disk / "pg_wal").rglob("*")):
            ordinary_user(path)
        server.start()
        app = App(server.url, workers=2)
        go_on = asyncio.Event()
        ticks: list[str] = []

        @app.every("100ms", overlap="allow", catch_up="all")
        async def tick(ctx: Context) -> None:
            ticks.append(str(ctx.fire_time))

        @app.task(name="hold")
        async def hold() -> int:
            await go_on.wait()
            return 7

        @app.task(name="take")
        async def take(text: str) -> None:
            pass

        async with app:
            held = await hold.enqueue()
            await wait_until(lambda: ticks)
            fill(disk)
            taken: list[Job[None]] = []
            with pytest.raises(StoreUnavailable):
                while len(taken) < 999:
                    taken.append(await take.options(delay="1h").enqueue(os.urandom(100_000).hex()))
            go_on.set()
            await wait_until(lambda: not (server.folder / "data" / "postmaster.pid").exists())
            (disk / "ballast").unlink()
            server.start()
            assert await held.result(timeout=60) == 7
            before = len(ticks)
            await wait_until(lambda: len(ticks) > before + 2)
            taken.append(await take.options(delay="1h").enqueue("again"))

            waiting = {job.id for job in (await app.jobs.list(task="take", limit=1_000)).jobs}
            assert {job.id for job in taken} <= waiting
            assert len(waiting) <= len(taken) + 1  # the one that was refused: nobody knew whether it was kept
        assert len(ticks) == len(set(ticks))


@pytest.mark.slow
async def test_a_server_without_a_free_connection_is_waited_for_and_told() -> None:
    with running(**QUICK, max_connections="8", superuser_reserved_connections="0", max_wal_senders="0") as server:
        target = target_of(server.url)
        async with opened(target, worker="w", patience_seconds=3) as store:
            await store.enqueue([job := new_job(CLOCK)])
            (held,) = await store.claim(worker="w", tasks={"t"}, limit=1)
            with ExitStack() as others:
                take_all_connections(server.url, others)
                calls = store.enqueue([new_job(CLOCK)]), store.job(job.id), store.finish([ending(held)])
                for told in await asyncio.gather(*map(refusal, calls)):
                    assert told.endswith(
                        "FATAL:  sorry, too many clients already; let the server take more connections "
                        "(max_connections), or put pgbouncer before it"
                    ), told
            assert await store.finish([ending(held)]) == [True]
            assert ids(await store.jobs()) == [job.id]


def take_all_connections(url: str, others: ExitStack) -> None:
    """Take those that are free, and those of a store too."""
    first = others.enter_context(psycopg.connect(url, autocommit=True))
    while True:
        try:
            others.enter_context(psycopg.connect(url))
        except psycopg.OperationalError:
            query = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name ~ 'tickwork'"
            if not first.execute(query).fetchall():
                return


# -- links that are half open ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("when", ["freeze before", "freeze after"])
async def test_who_is_cut_off_within_a_transaction_holds_nobody_up_and_goes_on(
    target: Target, when: str, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its host is gone for the server, at one message after the other; another process needs the same locks."""
    monkeypatch.setattr(postgres_link, "IDLE_MILLISECONDS", 300)
    with Proxy(port_of(target)) as proxy:
        for number in itertools.count(3, 23):
            here = replace(named(target), schema=f"{target.schema}_{number}")
            async with opened(by_way_of(proxy, here), worker="w", keeps_house=False) as store, opened(here) as other:
                proxy.judge = judge(number, when)
                playing = asyncio.ensure_future(play(store))
                await wait_until(lambda playing=playing: proxy.is_frozen or playing.done())
                proxy.judge = lambda sent: None
                was_frozen = proxy.is_frozen
                if was_frozen:
                    await other.set_limits({"t": Limits(Limit(2), Rate(100, per=60))})
                    await other.enqueue([job := new_job(CLOCK, "u", key="k", gates=("rate:a", "limit:"), delay=60)])
                    await other.cancel([job.id])
                    proxy.thaw()
                await playing
                await expect_played(store, 1 + was_frozen)
            with psycopg.connect(target.url, autocommit=True) as connection:
                connection.execute(f"DROP SCHEMA {here.schema} CASCADE")
            if not was_frozen:
                break
        assert number > 90
    await expect_nothing_left(target)


@pytest.mark.slow
async def test_a_watcher_whose_link_breaks_renews_leases_and_rescues_all_the_same(
    target: Target, wait_until: WaitUntil
) -> None:
    statements = [b"sum(mark)", b"LISTEN", b"lives_until = $1 WHERE", b"WHERE name <> "]

    def cut(sent: bytes) -> str | None:
        if not statements or statements[0] not in sent:
            return None
        statements.pop(0)
        return "before"

    with Proxy(port_of(target)) as proxy:
        async with opened(by_way_of(proxy, target), worker="w", lease_seconds=2.0) as store:
            await store.enqueue([new_job(CLOCK), new_job(CLOCK)])
            (held,) = await store.claim(worker="w", tasks={"t"}, limit=1, lease_seconds=2.0)
            proxy.judge = cut
            await wait_until(lambda: not statements)
            (lost,) = await store.claim(worker="of no process", tasks={"t"}, limit=1)
            async with asyncio.timeout(30):
                while True:
                    if (await store.job(lost.id)).state is JobState.QUEUED:
                        break
                    await asyncio.sleep(0.01)
                while True:
                    until = (await store.job(held.id)).lease_expires_at
                    assert until is not None
                    assert held.lease_expires_at is not None
                    if until > held.lease_expires_at:
                        break
                    await asyncio.sleep(0.01)
            assert await store.finish([ending(held)]) == [True]


@pytest.mark.slow
async def test_a_server_that_hangs_is_given_up_and_used_when_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ANSWER_SECONDS", "CLOSING_SECONDS"):
        monkeypatch.setattr(postgres_guard, name, 1.0)
    with running(**QUICK) as server:
        target = target_of(f"{server.url}?connect_timeout=2")
        async with opened(target, worker="w", patience_seconds=0.5) as store:
            await store.enqueue([first := new_job(CLOCK)])
            (held,) = await store.claim(worker="w", tasks={"t"}, limit=1)
            with server.hanging():
                calls = store.enqueue([new_job(CLOCK)]), store.job(first.id), store.finish([ending(held)])
                for told in await asyncio.wait_for(asyncio.gather(*map(refusal, calls)), 30):
                    assert told == (
                        f"store {target.where}: connection timeout expired; "
                        "see that host and port are right, and no firewall is between"
                    )
            await store.enqueue([later := new_job(CLOCK)])
            assert await store.finish([ending(held)]) == [True]
            assert ids(await store.jobs()) == [later.id, first.id]
        store = PostgresStore(target, CLOCK, worker="w")
        await store.open()
        with server.hanging():
            await asyncio.wait_for(store.close(), 30)


@pytest.mark.slow
@pytest.mark.parametrize("sign", [b"pg_backend_pid", b"pg_namespace", b"CREATE TABLE", b"COMMIT"])
async def test_a_server_that_hangs_while_a_store_opens_is_given_up(
    target: Target, monkeypatch: pytest.MonkeyPatch, sign: bytes
) -> None:
    for name in ("ANSWER_SECONDS", "CLOSING_SECONDS"):
        monkeypatch.setattr(postgres_guard, name, 1.0)
    with Proxy(port_of(target)) as proxy:
        behind = by_way_of(proxy, target)
        store = PostgresStore(replace(behind, url=f"{behind.url}?connect_timeout=2"), CLOCK, patience_seconds=0)
        proxy.judge = lambda sent: "freeze before" if sign in sent else None
        monkeypatch.setattr(postgres_link, "DOUBT_SECONDS", 1.0)
        await asyncio.wait_for(refusal(store.open()), 30)
        assert proxy.is_frozen
        opening = asyncio.ensure_future(store.open())
        await asyncio.sleep(0)  # it has begun
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(opening, 30)
        proxy.judge = lambda sent: None
        proxy.cut()
        proxy.thaw()
        await store.open()
        await store.close()


# -- a later version ------------------------------------------------------------------------------------------------

LATER = """
from tickwork.stores import postgres_schema

TABLES = (
    "jobs finished shards attempts queues behind limits gates starts schedules ledger batches workers"
).split()
postgres_schema.VERSIONS.append(
    [f"ALTER TABLE {name} ADD COLUMN more bigint NOT NULL DEFAULT 0" for name in TABLES]
    + ["CREATE INDEX jobs_more ON jobs (more, seq)"]
)
from jobs import app
"""


@pytest.mark.slow
def test_workers_of_an_older_version_go_on_while_a_later_one_changes_the_tables(tmp_path: Path, target: Target) -> None:
    with Fleet(tmp_path, HOLDERS, target) as fleet:
        older = [fleet.start(), fleet.start()]
        held = fleet.enqueue("hold", "hold")
        fleet.wait_said("begun", times=2)
        fleet.wait_said("fired", times=5)
        (tmp_path / "later.py").write_text(LATER)
        later = fleet.start("-m", "tickwork", "run", "later.py")
        later.wait_for("started:")
        assert tables(target, "SELECT meta.version, more FROM meta, workers LIMIT 1") == [(len(VERSIONS) + 1, 0)]
        later.send(signal.SIGTERM)
        assert later.ended().status == 0, later.err
        fleet.wait_said("fired", times=len(fleet.lines("fired")) + 5)  # by the older ones alone
        fleet.touch("go on")
        fleet.wait_said("ended", times=2)
        fleet.start().wait_for("started:")  # an older one may also begin
        fleet.start("-m", "tickwork", "run", "later.py").wait_for("started:")
        stop(fleet)
        finish(fleet)

        assert sorted(fleet.said("ended")) == sorted(fleet.said("begun")) == sorted(held)
        assert {line.pid for line in fleet.lines("ended")} <= {running.pid for running in older}
        assert expect_each_fire_time_once(fleet, "tick", []) >= 10
        assert set(fleet.states()) == {"succeeded"}
        for running in fleet.processes:
            assert "ERROR" not in running.err, running.err
