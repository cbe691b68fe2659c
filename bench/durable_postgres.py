"""The PostgreSQL of `durable.py`: a server of the benchmark's own, and the limits: psycopg, one connection, no loop.

All callers enqueue at the same moment, so their rows are inserted in one transaction; all are claimed in the next, and
ended in the third; then all results are read. Each transaction waits for the disk (fsync and synchronous_commit on).
"""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

from durable_raw import Times, now

USER = "bench"
DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
"""The defaults, named: an answer means that the disk has it."""


class NoPostgres(Exception):
    """There is no PostgreSQL here, or it does not start."""


# --- the server ---


def binaries() -> Path | None:
    """Return the folder of the newest server that is installed; Debian has them outside the PATH."""
    folders = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    if folders:
        return max(folders, key=lambda path: int(re.sub(r"\D", "", path.parent.name) or 0))
    found = shutil.which("postgres")
    return None if found is None else Path(found).resolve().parent


@contextmanager
def postgres(folder: Path, **settings: str) -> Iterator[None]:
    """Run a PostgreSQL of one's own, with its data and its socket in the folder; see `url`."""
    home = folder / "postgres"
    home.mkdir()
    ordinary = ordinary_user(home)
    run(["initdb", "--no-sync", "--auth=trust", f"--username={USER}", "--encoding=UTF8", "--locale=C"], home, ordinary)
    chosen = [f"--{name}={value}" for name, value in (DURABLE | settings).items()]
    with (home / "log").open("w") as log:
        server = subprocess.Popen(
            [binary("postgres"), "-D", home / "data", "-k", home, "-h", "", *chosen],
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            **ordinary,
        )
    try:
        deadline = time.monotonic() + 60
        while subprocess.run([binary("pg_isready"), "--quiet", "--host", home]).returncode != 0:
            if server.poll() is not None or time.monotonic() > deadline:
                raise NoPostgres(f"the server does not start: {last_line(home / 'log')}")
            time.sleep(0.05)
        yield
    finally:
        server.send_signal(signal.SIGQUIT)  # at once: what it has written is thrown away
        server.wait(60)


def lacks(*, needs_psycopg: bool) -> str:
    """Return what is not here; "" when nothing is lacking."""
    if binaries() is None:
        return "there is no PostgreSQL server; bench/packages installs it"
    if needs_psycopg and find_spec("psycopg") is None:
        return "psycopg is not installed: pip install 'tickwork[postgres]'"
    return ""


def url(folder: Path) -> str:
    """Return the database of the server in a folder, by its socket."""
    return f"postgresql://{USER}@/postgres?host={quote(str(folder / 'postgres'))}"


def ordinary_user(home: Path) -> dict[str, Any]:
    """Return how to start the server as an ordinary user, which it insists on, and give that one the folder."""
    if os.geteuid() != 0:
        return {}
    import pwd

    nobody = pwd.getpwnam("nobody")
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    home.parent.chmod(0o711)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def run(command: list[str], home: Path, ordinary: dict[str, Any]) -> None:
    with (home / "log").open("w") as log:
        done = subprocess.run(
            [binary(command[0]), *command[1:], f"--pgdata={home / 'data'}"],
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            **ordinary,
        )
    if done.returncode != 0:
        raise NoPostgres(f"{command[0]}: {last_line(home / 'log')}")


def binary(name: str) -> Path:
    folder = binaries()
    if folder is None:
        raise NoPostgres("no PostgreSQL server is installed; bench/packages installs it")
    return folder / name


def last_line(log: Path) -> str:
    """Return the last line that tells what went wrong."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    wrong = [line for line in lines if "FATAL" in line or "rror" in line]
    return [*(lines or ["no reason given"]), *wrong][-1]


# --- the limits ---

BY_INDEX = "-c enable_seqscan=off"
"""The server has seen these tables empty, and would read all of them: it keeps the plans that it made then."""


def same_rows(folder: Path, jobs: int, callers: int) -> Times:
    """Write what tickwork writes: its tables and indexes, the same values in the same columns, its counts."""
    import psycopg

    make_tables(folder)
    with psycopg.connect(url(folder), autocommit=True, options=f"{BY_INDEX} -c search_path=tickwork") as db:
        db.execute("INSERT INTO shards (name, touched_at) VALUES ('raw', 0)")
        for first in range(-2 * callers, 0, callers):  # statements are prepared, and the caches of the server filled
            batch(db, [f"00warm{-number:014d}" for number in range(first, first + callers)])
        started, cpu = time.perf_counter(), time.process_time()
        for first in range(0, jobs, callers):
            batch(db, [f"01m8bqkb8{number:011d}" for number in range(first, min(first + callers, jobs))])
        return time.perf_counter() - started, time.process_time() - cpu


def make_tables(folder: Path, schema: str = "tickwork") -> None:
    """Let the store make its tables."""
    from durable_tickwork import store_of

    async def make() -> None:
        store = store_of(f"{url(folder)}&schema={schema}")
        await store.open()
        await store.close()

    asyncio.run(make())


def batch(db: Any, ids: list[str]) -> None:
    """Take jobs from being enqueued to their results, in three transactions, each sent to the server in one go."""
    at = now()
    with db.pipeline():
        db.execute("BEGIN")
        db.execute(
            """
            INSERT INTO jobs (id, task, payload, run_at, queue, priority, state, enqueued_at)
            SELECT id, 'noop', '{"x":7}', %(at)s, 'default', 0, 'queued', %(at)s FROM unnest(%(ids)s::text[]) AS id
            """,
            {"at": at, "ids": ids},
        )
        count(db, at, "queued = queued + %s", len(ids))
        db.execute("COMMIT")

    at = now()
    with db.pipeline():
        db.execute("BEGIN")
        found = db.execute(
            """
            WITH picked AS MATERIALIZED (
                SELECT seq FROM jobs WHERE state = 'queued' AND held = 0 AND gate = 0 AND task = 'noop'
                ORDER BY priority DESC, seq LIMIT %s FOR UPDATE SKIP LOCKED
            )
            UPDATE jobs SET state = 'running', token = token + 1, worker = 'host-12345-abcdef', lease_expires_at = %s
            FROM picked WHERE jobs.seq = picked.seq RETURNING id, token, payload
            """,
            (len(ids), at + 60_000_000),
        )
        count(db, at, "queued = queued - %s, running = running + %s", len(ids))
        db.execute("COMMIT")
    claimed = found.fetchall()

    at = now()
    with db.pipeline():
        db.execute("BEGIN")
        db.execute(
            """
            WITH ended AS MATERIALIZED (
                SELECT * FROM unnest(%s::text[], %s::bigint[]) AS ended (id, token)
            ), gone AS (
                DELETE FROM jobs USING ended
                WHERE jobs.id = ended.id AND jobs.token = ended.token AND state = 'running' RETURNING jobs.*
            )
            INSERT INTO finished (seq, id, task, payload, run_at, queue, priority, state, enqueued_at, attempt, token,
                started_at, finished_at, result)
            SELECT seq, id, task, payload, run_at, queue, priority, 'succeeded', enqueued_at, 1, token, %s, %s, '7'
            FROM gone
            """,
            ([job_id for job_id, _, _ in claimed], [token for _, token, _ in claimed], at, at),
        )
        count(db, at, "running = running - %s, succeeded = succeeded + %s", len(ids))
        db.execute("COMMIT")

    ended = db.execute("SELECT id, result FROM finished WHERE id = ANY(%s)", (ids,)).fetchall()
    if len(ended) != len(ids):
        raise AssertionError(f"{len(ids) - len(ended)} of {len(ids)} jobs have no result")


def count(db: Any, at: int, changes: str, by: int) -> None:
    db.execute(
        f"UPDATE shards SET mark = mark + 1, touched_at = %s, {changes} WHERE name = 'raw'",
        (at, *[by] * changes.count("%s")),
    )


def bare_table(folder: Path, jobs: int, callers: int) -> Times:
    """Write as little as a queue can do with: four columns, and one index of what waits."""
    import psycopg

    with psycopg.connect(url(folder), autocommit=True, options=BY_INDEX) as db:
        db.execute("CREATE TABLE jobs (seq bigint PRIMARY KEY, payload text, state smallint, result text)")
        db.execute("CREATE INDEX ready ON jobs (seq) WHERE state = 0")
        for first in range(-2 * callers, 0, callers):
            bare_batch(db, list(range(first, first + callers)))
        started, cpu = time.perf_counter(), time.process_time()
        for first in range(0, jobs, callers):
            bare_batch(db, list(range(first, min(first + callers, jobs))))
        return time.perf_counter() - started, time.process_time() - cpu


def bare_batch(db: Any, ids: list[int]) -> None:
    db.execute("""INSERT INTO jobs SELECT seq, '{"x":7}', 0 FROM unnest(%s::bigint[]) AS seq""", (ids,))
    claimed = db.execute(
        """
        UPDATE jobs SET state = 1
        WHERE seq IN (SELECT seq FROM jobs WHERE state = 0 ORDER BY seq LIMIT %s FOR UPDATE SKIP LOCKED)
        RETURNING seq, payload
        """,
        (len(ids),),
    ).fetchall()
    db.execute("UPDATE jobs SET state = 2, result = '7' WHERE seq = ANY(%s)", ([seq for seq, _ in claimed],))
    found = db.execute("SELECT seq, result FROM jobs WHERE seq = ANY(%s)", (ids,)).fetchall()
    if len(found) != len(ids):
        raise AssertionError(f"{len(ids) - len(found)} of {len(ids)} jobs have no result")
