"""What a SQLite file can suffer. What was acknowledged is there afterwards; what was not has raised a clear error."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from parts import lacking, small_disk
from tickwork.clock import SystemClock
from tickwork.conformance import HandClock, ending, ids, lease, new_job
from tickwork.errors import NotRunning, StoreUnavailable
from tickwork.jobs import JobState
from tickwork.stores.batches import BatchPart
from tickwork.stores.filelock import FileLock
from tickwork.stores.sqlite import OVERDUE_SECONDS, SQLiteStore
from tickwork.stores.sqlite_schema import APPLICATION_ID, VERSIONS, migrate

CLOCK = SystemClock()
WRITABLE = "let this user write the file and its folder"


@asynccontextmanager
async def opened(path: Path, clock: Any = CLOCK, **options: Any) -> AsyncIterator[SQLiteStore]:
    store = SQLiteStore(path, clock, **options)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def refusal(awaitable: Awaitable[object]) -> str:
    with pytest.raises(StoreUnavailable) as refused:
        await awaitable
    return str(refused.value)


def kept(path: Path) -> list[str]:
    """Return the ids in a file, as another program reads them."""
    connection = sqlite3.connect(path)
    try:
        return [job_id for (job_id,) in connection.execute("SELECT id FROM jobs ORDER BY seq")]
    finally:
        connection.close()


def run_program(text: str, *args: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text), *map(str, args)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


# -- the file -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["jobs.db", "what? #1.db", "a b%20.db", "f\u00fcr \u4e2d\u6587.db", "file:x.db", ":memory:", "-x"]
)
async def test_any_file_name_will_do(tmp_path: Path, name: str) -> None:
    async with opened(tmp_path / name, worker="w") as store:
        await store.enqueue([job := new_job(CLOCK)])
    async with opened(tmp_path / name) as store:
        assert ids(await store.jobs()) == [job.id]

    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, f"{name}-lock", f"{name}-workers"])


async def test_a_file_is_closed_and_opened_again_by_the_same_store(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "jobs.db", CLOCK, worker="w")
    await store.close()
    for count in (1, 2):
        await store.open()
        await store.enqueue([new_job(CLOCK)])
        assert len(await store.jobs()) == count
        await store.close()
    with pytest.raises(NotRunning, match="^the store is closed$"):
        await store.jobs()


async def test_two_workers_of_one_name_are_one_too_many(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    async with opened(path, worker="w") as store:
        told = await refusal(SQLiteStore(path, CLOCK, worker="w").open())
        assert told == f"store {path}: another process works on it as 'w'; give every worker a name of its own"
        await store.enqueue([new_job(CLOCK)])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("garbage", "file is not a database; it is damaged, or something else: move it away, or restore a backup"),
        ("short", "file is not a database; it is damaged, or something else: move it away, or restore a backup"),
        (
            "truncated",
            (
                "database disk image is malformed; "
                "it is damaged: restore a backup, or rescue what is left with sqlite3's .recover"
            ),
        ),
        ("folder", "unable to open database file; make its folder, or let this user write there"),
        ("foreign", "it is a database of another program; give tickwork a file of its own"),
        ("marked foreign", "it is a database of another program; give tickwork a file of its own"),
        (
            "newer",
            (
                f"its tables have version 99, and this tickwork knows {len(VERSIONS)}; "
                "install the version of tickwork that wrote it, or a later one"
            ),
        ),
    ],
)
async def test_a_file_that_cannot_be_used_is_refused_as_it_is(tmp_path: Path, damage: str, reason: str) -> None:
    path = tmp_path / "jobs.db"
    if damage in ("truncated", "newer"):
        async with opened(path) as store:
            await store.enqueue([new_job(CLOCK, payload='"' + "x" * 10_000 + '"') for _ in range(20)])
    match damage:
        case "garbage":
            path.write_bytes(os.urandom(50_000))
        case "short":
            path.write_bytes(b"SQLite")
        case "truncated":
            path.write_bytes(path.read_bytes()[:20_000])
        case "folder":
            path.mkdir()
        case "foreign" | "marked foreign" | "newer":
            connection = sqlite3.connect(path)
            statement = {"foreign": "CREATE TABLE mine (x)", "newer": "PRAGMA user_version = 99"}
            connection.execute(statement.get(damage, "PRAGMA application_id = 7"))
            connection.commit()
            connection.close()
    before = path.read_bytes() if path.is_file() else b""

    store = SQLiteStore(path, CLOCK, worker="w")
    assert await refusal(store.open()) == f"store {path}: {reason}"
    with pytest.raises(NotRunning):
        await store.jobs()
    await store.close()

    assert damage == "folder" or path.read_bytes() == before
    assert not list(tmp_path.glob("jobs.db-workers/*"))


async def test_without_its_folder_a_file_cannot_be_made(tmp_path: Path) -> None:
    path = tmp_path / "no" / "jobs.db"
    told = await refusal(SQLiteStore(path, CLOCK).open())
    assert told == f"store {path}: No such file or directory: {path}-lock; make its folder"


def test_an_older_file_becomes_one_of_today() -> None:
    versions = [["CREATE TABLE a (x)"], ["ALTER TABLE a ADD y", "CREATE TABLE b (z)"], ["DROP TABLE b"]]
    fresh, old = (sqlite3.connect(":memory:", isolation_level=None) for _ in range(2))
    for connection, known in ((old, 1), (old, 3), (old, 3), (fresh, 3)):
        connection.execute("BEGIN")
        migrate(connection, "x.db", versions[:known])
        connection.execute("COMMIT")

    for connection in (fresh, old):
        assert connection.execute("PRAGMA user_version").fetchone() == (3,)
        assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
        assert connection.execute("SELECT sql FROM sqlite_master").fetchall() == [("CREATE TABLE a (x, y)",)]
        connection.close()


@pytest.fixture
def path_of_version_1(tmp_path: Path) -> Path:
    """A file from before there were batches, with one job."""
    path = tmp_path / "jobs.db"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN")
    migrate(connection, "jobs.db", VERSIONS[:1])
    connection.execute(
        """
        INSERT INTO jobs (id, task, payload, run_at, queue, priority, state, enqueued_at)
        VALUES ('old', 't', '{}', 0, 'default', 0, 'queued', 0)
        """
    )
    connection.execute("COMMIT")
    connection.close()
    return path


async def test_a_file_of_version_1_keeps_its_jobs_and_takes_batches(path_of_version_1: Path) -> None:
    async with opened(path_of_version_1, worker="w") as store:
        old = await store.job("old")
        assert (old.batch, old.batch_index, old.state) == (None, None, JobState.QUEUED)
        part = BatchPart(batch="b", task="t", first=0, digest="", is_last=True, feed_seconds=60)
        await store.feed_batch(part, [new_job(CLOCK, batch="b", batch_index=0)])
        claimed = await store.claim(worker="w", tasks={"t"}, limit=10)
        assert claimed[0].id == "old"
        await store.finish([ending(record) for record in claimed])
        assert (await store.batch("b")).is_over
        assert (await store.counts())[JobState.SUCCEEDED] == 2


@contextmanager
def immutable(path: Path) -> Iterator[None]:
    """Keep everybody, root too, from writing."""
    if os.name != "posix":
        pytest.skip("permissions of POSIX")
    if os.geteuid() != 0:
        path.chmod(0o555 if path.is_dir() else 0o444)
        yield
        path.chmod(0o755)
        return
    if shutil.which("chattr") is None:
        lacking("chattr is missing; .ci/packages installs it")
    if subprocess.run(["chattr", "+i", path], capture_output=True).returncode:
        lacking("root may write everywhere, and chattr +i does not work here")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", path], check=True)


async def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    with immutable(tmp_path):
        told = await refusal(SQLiteStore(path, CLOCK, worker="w").open())
    assert told in [
        f"store {path}: {reason}: {path}-lock; {WRITABLE}"
        for reason in ("Permission denied", "Operation not permitted")
    ]


async def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    async with opened(path) as store:
        await store.enqueue([job := new_job(CLOCK)])
    with immutable(path):
        told = await refusal(SQLiteStore(path, CLOCK, worker="w").open())
    assert told == f"store {path}: attempt to write a readonly database; {WRITABLE}"
    assert kept(path) == [job.id]


# -- faults while it is open --------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["removed", "replaced", "its -wal removed"])
async def test_a_file_that_is_taken_away_is_noticed_before_anything_is_lost(tmp_path: Path, what: str) -> None:
    path, away = tmp_path / "jobs.db", tmp_path / "away"
    async with opened(path, worker="w") as store:
        await store.enqueue([job := new_job(CLOCK)])
        taken = Path(f"{path}-wal") if what == "its -wal removed" else path
        taken.rename(away)
        if what == "replaced":
            taken.write_bytes(away.read_bytes())

        for call in (store.enqueue([new_job(CLOCK)]), store.jobs()):
            assert await refusal(call) == (
                f"store {path}: it was removed or replaced while it was open; put it back, or start the app anew"
            )
        away.replace(taken)
        assert ids(await store.jobs()) == [job.id]
        await store.enqueue([new_job(CLOCK)])
    assert len(kept(path)) == 2


@contextmanager
def held_by_another_program(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN EXCLUSIVE")
    try:
        yield connection
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        connection.close()


async def test_a_file_that_another_program_holds_for_long_is_told_to_all_at_once(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    async with opened(path, worker="w", busy_seconds=0.3) as store:
        await store.enqueue([new_job(CLOCK)])
        with held_by_another_program(path):
            began = time.monotonic()
            calls = [store.enqueue([new_job(CLOCK)]) for _ in range(20)]
            told = await asyncio.gather(*calls, return_exceptions=True)
            took = time.monotonic() - began

        assert {str(error) for error in told} == {
            f"store {path}: database is locked; another program holds it: end that, or give tickwork a file of its own"
        }
        assert took < 5
        assert len(await store.jobs()) == 1
        await store.enqueue([new_job(CLOCK)])
    assert len(kept(path)) == 2


async def test_a_file_that_another_program_holds_for_a_moment_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    async with opened(path, worker="w", busy_seconds=10.0) as store:
        with held_by_another_program(path) as other:
            timer = threading.Timer(0.3, other.execute, ["ROLLBACK"])
            timer.start()
            (record,) = await store.enqueue([new_job(CLOCK)])
            timer.join()
    assert kept(path) == [record.id]


async def test_a_process_that_is_stuck_with_the_lock_is_told(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    async with opened(path, busy_seconds=0.2) as store:
        lock = FileLock(Path(f"{path}-lock"))
        assert lock.try_acquire()
        told = await refusal(store.enqueue([new_job(CLOCK)]))
        lock.close()
        assert told == (
            f"store {path}: another process has held its lock for 0.2 s; see who is stuck with {path}-lock open"
        )
        await store.enqueue([new_job(CLOCK)])


FULL = """
import asyncio, resource, signal, sys
from pathlib import Path
from tickwork.clock import SystemClock
from tickwork.conformance import new_job
from tickwork.errors import StoreUnavailable
from tickwork.stores.sqlite import SQLiteStore

async def main():
    clock = SystemClock()
    path = Path(sys.argv[1])
    store = SQLiteStore(path, clock, worker="w")
    await store.open()
    if sys.argv[2] == "limit":
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, resource.RLIM_INFINITY))
    taken, refused = [], []
    for _ in range(200):
        job = new_job(clock, payload='"' + "x" * 9_000 + '"')
        try:
            await store.enqueue([job])
            taken.append(job.id)
        except StoreUnavailable as error:
            refused.append(str(error))
    assert [job.id for job in await store.jobs(limit=1000)] == taken[::-1]
    if sys.argv[2] == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    else:
        (path.parent / "ballast").unlink()
    job = new_job(clock)
    await store.enqueue([job])
    await store.close()
    print(*sorted(set(refused)), sep="\\n")
    print(*taken, job.id)

asyncio.run(main())
"""


def check_full(path: Path, way: str, reason: str) -> None:
    done = run_program(FULL, path, way)
    assert (done.returncode, done.stderr.splitlines()[:0]) == (0, []), done.stderr
    *refused, taken = done.stdout.splitlines()
    assert refused == [f"store {path}: {reason}"]
    assert kept(path) == taken.split()
    assert 5 < len(taken.split()) < 201


@pytest.mark.timeout(120)
@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_a_file_that_may_not_grow_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    reason = "disk I/O error; see what the system says of the disk; what was asked for is not done"
    check_full(tmp_path / "jobs.db", "limit", reason)


@pytest.mark.timeout(120)
def test_a_full_disk_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1500k") as disk:
        (disk / "ballast").write_bytes(b"x" * 800_000)
        remedy = "make room; what was asked for is not done, and is tried again where the app asked"
        check_full(disk / "jobs.db", "disk", f"database or disk is full; {remedy}")


async def test_numbers_and_texts_that_sqlite_cannot_keep_spoil_no_others(tmp_path: Path) -> None:
    async with opened(tmp_path / "jobs.db") as store:
        jobs = [new_job(CLOCK), new_job(CLOCK, priority=2**63), new_job(CLOCK, queue="\udc80"), new_job(CLOCK)]
        told = await asyncio.gather(*[store.enqueue([job]) for job in jobs], return_exceptions=True)

        assert [type(answer) for answer in told] == [list, OverflowError, UnicodeEncodeError, list]
        assert ids(await store.jobs()) == [jobs[3].id, jobs[0].id]
        await store.enqueue([new_job(CLOCK, priority=2**63 - 1), new_job(CLOCK, priority=-(2**63), queue="a\0b")])
        claimed = await store.claim(worker="w", tasks={"t"}, limit=9)
        assert [record.priority for record in claimed] == [2**63 - 1, 0, 0, -(2**63)]
        assert claimed[3].queue == "a\0b"


# -- threads, forks, flushes --------------------------------------------------------------------------------------


async def test_many_who_enqueue_at_once_share_few_commits(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    async with opened(path) as store:
        statements: list[str] = []
        await store._committer.run(lambda db: db.set_trace_callback(statements.append))
        await asyncio.gather(*[store.enqueue([new_job(CLOCK)]) for _ in range(64)])
        await store._committer.run(lambda db: db.set_trace_callback(None))

        assert len(await store.jobs()) == 64
        assert statements.count("COMMIT") - 1 <= 2  # and that of the call that began to count


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_is_refused_and_leaves_the_parent_alone(tmp_path: Path) -> None:
    done = run_program(
        """
        import asyncio, os, sys
        from pathlib import Path
        from tickwork.clock import SystemClock
        from tickwork.conformance import new_job
        from tickwork.stores.sqlite import SQLiteStore

        async def main():
            clock = SystemClock()
            store = SQLiteStore(Path(sys.argv[1]), clock, worker="w")
            await store.open()
            if not (child := os.fork()):
                status = 1
                for call in (store.jobs(), store.close()):
                    try:
                        call.send(None)
                    except StopIteration:
                        status += 1
                    except RuntimeError as error:
                        print(str(error).replace(str(os.getppid()), "PARENT"), flush=True)
                os._exit(status)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            await store.enqueue([new_job(clock)])
            print(len(await store.jobs()), os.listdir(sys.argv[1] + "-workers"))
            await store.close()

        asyncio.run(main())
        """,
        tmp_path / "jobs.db",
    )
    assert done.stdout.splitlines() == [
        "the store was opened by process PARENT; a forked child must open its own",
        "2",
        "1 ['w']",
    ], done.stderr


def test_each_acknowledgement_comes_after_a_flush(tmp_path: Path) -> None:
    strace = shutil.which("strace")
    if strace is None:
        lacking("strace is missing; .ci/packages installs it")
    program = """
import asyncio, os, sys
from pathlib import Path
from tickwork.clock import SystemClock
from tickwork.conformance import ending, new_job
from tickwork.stores.sqlite import SQLiteStore

async def main():
    clock = SystemClock()
    store = SQLiteStore(Path(sys.argv[1]), clock, worker="w", keeps_house=False)
    await store.open()
    os.write(1, b"begin")
    for _ in range(5):
        await store.enqueue([new_job(clock)])
        os.write(1, b"acknowledged")
    records = await store.claim(worker="w", tasks={"t"}, limit=9)
    os.write(1, b"acknowledged")
    await store.finish([ending(record) for record in records])
    os.write(1, b"acknowledged")
    await store.jobs()
    os.write(1, b"read")
    os._exit(0)

asyncio.run(main())
"""
    log = tmp_path / "log"
    done = subprocess.run(
        [
            strace,
            "-f",
            "-o",
            log,
            "-e",
            "trace=fsync,fdatasync,write",
            sys.executable,
            "-c",
            program,
            tmp_path / "x.db",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "Operation not permitted" in done.stderr:
        lacking("processes may not be traced here")
    assert done.returncode == 0, done.stderr
    marks = []
    for line in log.read_text().splitlines():
        if "sync(" in line or "sync resumed" in line:
            if "unfinished" not in line:
                assert line.rstrip().endswith("= 0")
                marks.append("flush")
        elif "write(1," in line and "unfinished" not in line:
            marks.append(line.split('"')[1])
    assert marks[marks.index("begin") :] == ["begin", *["flush", "acknowledged"] * 7, "read"]


# -- leases -------------------------------------------------------------------------------------------------------


def block(clock: HandClock, store: SQLiteStore, rounds: int) -> None:
    """Hold up the loop while time passes, a second with each round of housekeeping that the store's thread makes."""
    deadline = time.monotonic() + 30
    for _ in range(rounds):
        clock.advance(1)
        while store._next_housekeeping <= clock.seconds:
            assert time.monotonic() < deadline, "the thread makes no more rounds"
            time.sleep(0.001)


@pytest.mark.blocks("that is what it is about")
async def test_a_loop_that_is_blocked_keeps_its_leases(tmp_path: Path) -> None:
    clock, path = HandClock(), tmp_path / "jobs.db"
    async with (
        opened(path, clock, worker="one", lease_seconds=6) as one,
        opened(path, clock, worker="two", keeps_house=False) as two,
    ):
        await one.enqueue([new_job(clock)])
        (record,) = await one.claim(worker="one", tasks={"t"}, limit=1)
        block(clock, one, rounds=20)

        assert await two.rescue() == []
        assert await one.finish([ending(record)]) == [True]


@pytest.mark.blocks("that is what it is about")
async def test_a_loop_that_is_stuck_for_too_long_loses_them_and_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock, path = HandClock(), tmp_path / "jobs.db"
    async with (
        opened(path, clock, worker="one", lease_seconds=6, max_stall_seconds=5) as one,
        opened(path, clock, worker="two", keeps_house=False) as two,
    ):
        await one.enqueue([new_job(clock)])
        (record,) = await one.claim(worker="one", tasks={"t"}, limit=1)
        block(clock, one, rounds=15)

        assert ids(await two.rescue()) == [record.id]
        (other,) = await two.claim(worker="two", tasks={"t"}, limit=1)
        assert await one.finish([ending(record)]) == [False]
        assert await one.extend([lease(record)], 60) == [False]
        assert await two.finish([ending(other)]) == [True]
    told = [line.getMessage() for line in caplog.records if line.levelno == logging.CRITICAL]
    assert told
    assert "so the leases of worker one end: its jobs run again elsewhere" in told[0]


class Computer(HandClock):
    """A clock of a machine that can be suspended, and whose wall clock can be set."""

    def __init__(self) -> None:
        super().__init__()
        self.wall = timedelta(0)

    def now(self) -> Any:
        return super().now() + self.wall


async def rounds(clock: HandClock, stores: list[SQLiteStore], seconds: float, wait_until: Any) -> None:
    """Let time pass, second by second, each with a round of housekeeping in every store."""
    for _ in range(int(seconds)):
        clock.advance(1)
        await wait_until(lambda: all(store._next_housekeeping > clock.seconds for store in stores))
        for store in stores:
            await store.counts()  # what the round did is done


@pytest.mark.parametrize("jump", [timedelta(hours=8), timedelta(hours=-8)])
async def test_after_a_night_asleep_living_workers_keep_their_jobs(
    tmp_path: Path, wait_until: Any, jump: timedelta
) -> None:
    clock, path = Computer(), tmp_path / "jobs.db"
    async with opened(path, clock, worker="one") as one, opened(path, clock, worker="two") as two:
        await one.enqueue([new_job(clock)])
        (record,) = await one.claim(worker="one", tasks={"t"}, limit=1)
        await rounds(clock, [one, two], 15, wait_until)
        clock.wall += jump
        await rounds(clock, [two], 3, wait_until)  # the other is awake first
        await rounds(clock, [one, two], 30, wait_until)

        now = clock.now()
        kept_until = (await one.job(record.id)).lease_expires_at
        assert kept_until is not None
        assert now < kept_until <= now + timedelta(seconds=60)
        assert await one.finish([ending(record)]) == [True]


async def test_the_lease_of_a_living_worker_that_is_over_for_long_is_taken(tmp_path: Path, wait_until: Any) -> None:
    clock, path = Computer(), tmp_path / "jobs.db"
    async with (
        opened(path, clock, worker="stuck", keeps_house=False) as stuck,
        opened(path, clock, worker="two") as two,
    ):
        await stuck.enqueue([new_job(clock)])
        (record,) = await stuck.claim(worker="stuck", tasks={"t"}, limit=1, lease_seconds=20.0)
        clock.wall += timedelta(hours=1)
        await rounds(clock, [two], OVERDUE_SECONDS - 1, wait_until)
        assert (await two.job(record.id)).state is JobState.RUNNING
        await rounds(clock, [two], 3, wait_until)

        assert (await two.job(record.id)).state is JobState.QUEUED
        assert await stuck.finish([ending(record)]) == [False]


async def test_the_jobs_of_a_worker_that_is_gone_run_again_within_a_round(tmp_path: Path, wait_until: Any) -> None:
    path = tmp_path / "jobs.db"
    done = run_program(
        """
        import asyncio, os, sys
        from pathlib import Path
        from tickwork.clock import SystemClock
        from tickwork.conformance import new_job
        from tickwork.stores.sqlite import SQLiteStore

        async def main():
            store = SQLiteStore(Path(sys.argv[1]), SystemClock(), worker="dead")
            await store.open()
            await store.enqueue([new_job(SystemClock())])
            await store.claim(worker="dead", tasks={"t"}, limit=1)
            os.kill(os.getpid(), 9)

        asyncio.run(main())
        """,
        path,
    )
    assert done.returncode == -9, done.stderr
    async with opened(path, worker="two") as two:
        await asyncio.wait_for(two.wait_claimable(), 30)
        (record,) = await two.claim(worker="two", tasks={"t"}, limit=1)
        assert record.deaths == 0
        assert [path.name for path in Path(f"{path}-workers").iterdir()] == ["two"]


# -- housekeeping -------------------------------------------------------------------------------------------------


async def test_what_is_old_is_pruned_unasked_and_in_parts(tmp_path: Path, wait_until: Any) -> None:
    clock, path = Computer(), tmp_path / "jobs.db"
    async with opened(path, clock, worker="w", keep_results=10.0, keep_jobs=200.0) as store:
        await store.enqueue([new_job(clock) for _ in range(2500)])
        records = await store.claim(worker="w", tasks={"t"}, limit=2500)
        await store.finish([ending(record, result="1") for record in records])
        clock.advance(100)
        results = "SELECT count(*) FROM jobs WHERE result IS NOT NULL"

        async def count(query: str) -> int:
            return int(await store._committer.run(lambda db: db.execute(query).fetchone()[0]))

        async def reaches(query: str, wanted: int) -> None:
            for _ in range(200):
                if await count(query) == wanted:
                    return
                await asyncio.to_thread(time.sleep, 0.01)
            raise AssertionError(await count(query))

        await reaches(results, 0)
        assert (await store.counts())[JobState.SUCCEEDED] == 2500
        clock.advance(200)
        await reaches("SELECT count(*) FROM jobs", 0)
        assert sum((await store.counts()).values()) == 0


async def test_trouble_with_housekeeping_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, wait_until: Any
) -> None:
    path = tmp_path / "jobs.db"
    async with opened(path, worker="w", lease_seconds=0.6) as store:
        troubles: list[Exception] = []
        look = store._look_around

        def watched(db: sqlite3.Connection) -> float:
            try:
                return look(db)
            except Exception as error:
                troubles.append(error)
                raise

        monkeypatch.setattr(store, "_look_around", watched)
        away = path.rename(tmp_path / "away")
        await wait_until(lambda: len(troubles) >= 3)
        away.rename(path)
        assert await store.jobs() == []
    told = [line.getMessage() for line in caplog.records]
    assert told == [
        (
            "the store failed to look around; it goes on trying: "
            f"store {path}: it was removed or replaced while it was open; put it back, or start the app anew"
        )
    ]
