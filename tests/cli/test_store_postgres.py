"""`tickwork store` of PostgreSQL: check, prune, move, load, and the refusal of a backup."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import sqlite3
import subprocess
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from parts import lacking
from tickwork.clock import SystemClock
from tickwork.stores.postgres_link import Link
from tickwork.stores.postgres_schema import VERSIONS, migrate

from .command import SAVES_A_POOL, Ended, Running, tickwork

if TYPE_CHECKING:
    from pathlib import Path

    from tickwork.stores.postgres_target import Target

APP = """
import asyncio, os
from tickwork import App

app = App(os.environ["STORE"], workers=2, max_queued=10_000)

@app.task(name="add")
async def add(a: int, b: int = 0) -> int:
    if a == 3:
        raise ValueError("three")
    return a + b

async def main(number):
    async with app:
        for job in await add.enqueue_many([(a,) for a in range(5)]):
            await job.finished()
    async with app.client():
        await add.enqueue_many([(a, 1) for a in range(10, 10 + number)])

if __name__ == "__main__":
    import sys
    asyncio.run(main(int(sys.argv[1])))
"""
JOBS = "id, task, payload, run_at, state, result, error, finished_at, attempt"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "jobs.py").write_text(
        APP.replace("await job.finished()", "await asyncio.wait([asyncio.ensure_future(job.result())])")
    )
    return tmp_path


def work(folder: Path, store: str, waiting: int) -> None:
    """Let an app run five jobs, of which one fails, and enqueue so many more."""
    with Running("jobs.py", str(waiting), cwd=folder, env={"STORE": store}) as made:
        assert made.ended().status == 0, made.err


def store(folder: Path, *words: str, status: int = 0) -> Ended:
    ended = tickwork("store", *words, cwd=folder)
    assert ended.status == status, ended.err
    return ended


def in_file(path: Path) -> list[Any]:
    if not path.exists():
        return []
    with closing(sqlite3.connect(path)) as db:
        try:
            return db.execute(f"SELECT {JOBS} FROM jobs ORDER BY seq").fetchall()
        except sqlite3.OperationalError:  # it is being made
            return []


def in_schema(target: Target, schema: str = "") -> list[Any]:
    with psycopg.connect(target.url) as connection:
        connection.execute(f"SET search_path = {schema or target.schema}")
        try:
            return connection.execute(
                f"SELECT {JOBS} FROM (SELECT seq, {JOBS} FROM jobs UNION ALL SELECT seq, {JOBS} FROM finished) AS e "
                "ORDER BY seq"
            ).fetchall()
        except psycopg.errors.UndefinedTable:  # it is being made
            return []


@pytest.mark.one_python
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["file to schema", "schema to file", "schema to schema"])
def test_a_move_that_is_killed_is_brought_to_its_end_by_the_same_command(
    kind: str, folder: Path, schema: str, target: Target
) -> None:
    first, second = (
        (f"sqlite:///{name}.db", partial(in_file, folder / f"{name}.db"))
        if word == "file"
        else (f"{schema}_{name}", partial(in_schema, target, f"{target.schema}_{name}"))
        for name, word in zip(("one", "two"), kind.split(" to "), strict=True)
    )
    work(folder, first[0], 9_000)
    before = first[1]()
    try:
        with Running("-m", "tickwork", "store", "move", first[0], second[0], cwd=folder) as moving:
            moving.wait_until(second[1], "the first jobs")
            moving.send(signal.SIGKILL)
            moving.ended()
        refused = tickwork("run", "jobs.py", "--until-idle", cwd=folder, env={"STORE": first[0]})
        assert "moved" in store(folder, "move", first[0], second[0]).out
        assert second[1]() == before
        assert store(folder, "move", first[0], second[0]).out == "moved nothing\n"
        assert store(folder, "check", second[0]).out == "the store is sound\n"
    finally:
        with psycopg.connect(target.url, autocommit=True) as connection:
            for name in ("one", "two"):
                connection.execute(f"DROP SCHEMA IF EXISTS {target.schema}_{name} CASCADE")
    assert refused.status == 3
    assert "its jobs were moved to " in refused.err


def test_a_schema_is_checked_pruned_and_measured(folder: Path, schema: str, target: Target) -> None:
    work(folder, schema, 7)
    assert store(folder, "check", schema).out == "the store is sound\n"
    assert store(folder, "prune", schema).out == "forgot 0 jobs and rows of ledgers\n"
    with psycopg.connect(target.url, autocommit=True) as connection:
        connection.execute(f"UPDATE {target.schema}.finished SET finished_at = 1")
        connection.execute(f"INSERT INTO {target.schema}.shards (name, touched_at, parked) VALUES ('wrong', 0, 1)")
    assert store(folder, "prune", schema).out == "forgot 5 jobs and rows of ledgers\n"
    assert json.loads(store(folder, "check", schema, "--json", status=1).out) == [
        {"rule": "miscounted", "text": "1 jobs are said to be parked, and 0 are", "remedy": "--repair counts anew"}
    ]
    assert store(folder, "check", schema, "--repair").out == "the store is sound\n"
    found = json.loads(store(folder, "stats", schema, "--json").out)
    assert (found["jobs"]["queued"], found["jobs"]["failed"], found["moved_to"]) == (7, 0, None)


def test_tables_of_an_older_version_are_found_and_left_as_they_are(folder: Path, schema: str, target: Target) -> None:
    link = Link(target, name="old", clock=SystemClock(), now_us=lambda: 0)
    link.transact(lambda db: migrate(db, target.where, target.schema, VERSIONS[:1]))
    link.disconnect()
    for _ in range(2):
        assert json.loads(store(folder, "check", schema, "--json", status=1).out) == [
            {
                "rule": "old tables",
                "text": f"the tables have version 1, and this tickwork makes those of version {len(VERSIONS)}",
                "remedy": "run `tickwork store migrate`, or start the app; then check again",
            }
        ]
    store(folder, "migrate", schema)
    assert store(folder, "check", schema).out == "the store is sound\n"


def test_no_schema_is_made_by_those_who_only_look(folder: Path, schema: str, target: Target) -> None:
    for words in (["check", schema], ["prune", schema], ["move", schema, "sqlite:///a.db"]):
        assert store(folder, *words, status=2).err == (
            f"tickwork: store {target.where}: there are no tables in its schema {target.schema!r}; "
            "see what the app's URL says, or start the app: it makes them\n"
        )


def test_a_backup_is_left_to_pg_dump_whose_command_is_told(folder: Path, schema: str, target: Target) -> None:
    work(folder, schema, 7)
    said = store(folder, "backup", schema, "copy.db", status=2).err
    told = f"tickwork: cannot use target {schema!r}: its jobs are in PostgreSQL, which has its own tools: "
    assert said.startswith(told)
    command = said.removeprefix(told).strip()
    assert command == target.dump_command
    if shutil.which("pg_dump") is None:
        lacking("pg_dump is missing; .ci/packages installs it, with PostgreSQL")
    subprocess.run(shlex.split(command), cwd=folder, check=True, timeout=30)
    assert (folder / "jobs.dump").stat().st_size > 1_000


def test_a_saved_pool_becomes_jobs_in_a_schema(folder: Path, schema: str, target: Target) -> None:
    with Running("-c", SAVES_A_POOL, cwd=folder, env={"STORE": schema}) as saving:
        assert saving.ended().status == 0, saving.err
    count = len(json.loads((folder / "pool.json").read_text())["entries"])
    ended = tickwork("store", "load", "jobs.py", "pool.json", cwd=folder, env={"STORE": schema})
    assert (ended.status, ended.out) == (0, f"enqueued {count} jobs\n")
    assert [row[4] for row in in_schema(target)] == ["queued"] * count
    assert list(folder.glob("pool.json*")) == []
