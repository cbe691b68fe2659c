"""`tickwork store migrate`, on files and schemas that are old, new, of somebody else, or not there."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tickwork.stores import postgres_schema, sqlite_schema

from .command import Ended, tickwork

if TYPE_CHECKING:
    from pathlib import Path

    from tickwork.stores.postgres_target import Target

FILE = "sqlite:///a.db"
KNOWN = len(sqlite_schema.VERSIONS)


def migrate(folder: Path, store: str, *options: str) -> str:
    ended = tickwork("store", "migrate", store, *options, cwd=folder)
    assert (ended.status, ended.err) == (0, "")
    return ended.out


def refused(folder: Path, store: str, *options: str) -> Ended:
    ended = tickwork("store", "migrate", store, *options, cwd=folder)
    assert ended.out == ""
    return ended


def of_file(path: Path) -> tuple[int, list[Any]]:
    """Return the version of a file's tables, and all that it is made of."""
    with closing(sqlite3.connect(path)) as db:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        return version, db.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()


def of_schema(target: Target) -> list[tuple[Any, ...]]:
    """Return the columns of a schema's tables, and its indexes."""
    with psycopg.connect(target.url, autocommit=True) as connection:
        columns = connection.execute(
            """
            SELECT table_name, column_name, data_type, column_default, is_nullable FROM information_schema.columns
            WHERE table_schema = %s ORDER BY table_name, column_name
            """,
            (target.schema,),
        ).fetchall()
        query = "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = %s ORDER BY indexname"
        return columns + connection.execute(query, (target.schema,)).fetchall()


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A file as the first version made it."""
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN")
        sqlite_schema.migrate(db, str(path), sqlite_schema.VERSIONS[:1])
        db.execute("COMMIT")
    return path


def test_a_file_of_an_older_version_becomes_one_of_today(old: Path) -> None:
    script = json.loads(migrate(old.parent, FILE, "--plan", "--json"))
    assert len(script.pop("statements")) > 1
    assert script == {"store": str(old), "before": 1, "after": 1, "known": KNOWN}
    told = f"{old}: there were tables of version 1, now there are tables of version {KNOWN}\n"
    assert migrate(old.parent, FILE) == told
    assert migrate(old.parent, FILE) == f"{old}: nothing to do, there are tables of version {KNOWN}\n"
    now = json.loads(migrate(old.parent, FILE, "--json"))
    assert now == {"store": str(old), "before": KNOWN, "after": KNOWN, "known": KNOWN}
    assert migrate(old.parent, FILE, "--plan") == (
        f"-- {old}: tables of version {KNOWN}; this tickwork makes those of version {KNOWN}\n-- nothing to do\n"
    )


def test_the_plan_for_a_file_changes_nothing_and_does_the_same_when_it_is_run(old: Path, tmp_path: Path) -> None:
    before = old.read_bytes()
    script = migrate(old.parent, FILE, "--plan")
    assert script.startswith(
        f"-- {old}: tables of version 1; this tickwork makes those of version {KNOWN}\nBEGIN IMMEDIATE;\nCREATE TABLE "
    )
    assert script.endswith("COMMIT;\n")
    assert old.read_bytes() == before
    copy = tmp_path / "copy.db"
    copy.write_bytes(before)
    with closing(sqlite3.connect(copy)) as db:
        db.executescript(script)

    migrate(old.parent, FILE)
    squeezed = [[(name, " ".join(str(sql).split())) for name, sql in of_file(path)[1]] for path in (copy, old)]
    assert squeezed[0] == squeezed[1]
    assert of_file(copy)[0] == of_file(old)[0] == KNOWN


@pytest.mark.parametrize("options", [(), ("--plan",)])
def test_files_that_cannot_be_migrated_are_refused(tmp_path: Path, options: tuple[str, ...]) -> None:
    (tmp_path / "jobs.py").write_text("from tickwork import App\napp = App()\n")
    ended = refused(tmp_path, "jobs.py", *options)
    assert ended.err == (
        "tickwork: cannot use target 'jobs.py': this app keeps its jobs in memory, which no other process can reach\n"
    )
    ended = refused(tmp_path, FILE, *options)
    assert ended.err == f"tickwork: store {tmp_path / 'a.db'}: there is no such file; see where the app was started\n"
    assert not (tmp_path / "a.db").exists()
    with closing(sqlite3.connect(tmp_path / "a.db")) as db:
        db.execute("CREATE TABLE theirs (id)")
    ended = refused(tmp_path, FILE, *options)
    assert ended.err == (
        f"tickwork: store {tmp_path / 'a.db'}: it is a database of another program; give tickwork a file of its own\n"
    )
    (tmp_path / "a.db").write_bytes(b"no database, but long enough to be taken for one" * 100)
    ended = refused(tmp_path, FILE, *options)
    assert ended.err.startswith(f"tickwork: store {tmp_path / 'a.db'}: file is not a database")


def test_a_schema_is_made(schema: str, target: Target, tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text(f"from tickwork import App\napp = App({schema!r})\n")
    known, where = len(postgres_schema.VERSIONS), f"{target.where}, schema {target.schema}"
    told = f"{where}: there were no tables, now there are tables of version {known}\n"
    assert migrate(tmp_path, "jobs.py") == told
    assert migrate(tmp_path, schema) == f"{where}: nothing to do, there are tables of version {known}\n"
    assert migrate(tmp_path, schema, "--plan") == (
        f"-- {where}: tables of version {known}; this tickwork makes those of version {known}\n-- nothing to do\n"
    )


def test_the_plan_for_a_schema_changes_nothing_and_does_the_same_when_it_is_run(
    schema: str, target: Target, tmp_path: Path
) -> None:
    script = migrate(tmp_path, schema, "--plan")
    known, where = len(postgres_schema.VERSIONS), f"{target.where}, schema {target.schema}"
    assert script.startswith(
        f"-- {where}: no tables; this tickwork makes those of version {known}\nBEGIN;\n"
        f'SET LOCAL search_path = "{target.schema}";\nCREATE SCHEMA "{target.schema}";\n'
    )
    assert of_schema(target) == []
    with psycopg.connect(target.url, autocommit=True) as connection:
        connection.execute(script.encode())
        by_script = of_schema(target)
        connection.execute(f'DROP SCHEMA "{target.schema}" CASCADE')

    migrate(tmp_path, schema)
    assert of_schema(target) == by_script != []


def test_schemas_that_cannot_be_migrated_are_refused(schema: str, target: Target, tmp_path: Path) -> None:
    migrate(tmp_path, schema)
    with psycopg.connect(target.url, autocommit=True) as connection:
        connection.execute(f"UPDATE {target.schema}.meta SET version = 99, usable_from = 99")
        newer = refused(tmp_path, schema, "--plan").err
        connection.execute(f"DROP TABLE {target.schema}.meta")
    assert newer == (
        f"tickwork: store {target.where}: its tables have version 99, and this tickwork knows "
        f"{len(postgres_schema.VERSIONS)}; install the version of tickwork that wrote it, or a later one\n"
    )
    assert f"its schema {target.schema!r} holds tables of another program" in refused(tmp_path, schema, "--plan").err


def test_a_name_of_two_lines_leaves_the_comment_one_line(postgres_url: str, tmp_path: Path) -> None:
    sign, known = "&" if "?" in postgres_url else "?", len(postgres_schema.VERSIONS)
    first, second, *_ = migrate(tmp_path, f"{postgres_url}{sign}schema=a%0ASELECT", "--plan").splitlines()
    assert first.endswith(f", schema a SELECT: no tables; this tickwork makes those of version {known}")
    assert second == "BEGIN;"
