"""`tickwork health` of an app whose PostgreSQL does not answer."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

import psycopg

from .command import tickwork

if TYPE_CHECKING:
    from pathlib import Path

    from tickwork.stores.postgres_target import Target


def app(folder: Path, url: str) -> None:
    (folder / "jobs.py").write_text(f"from tickwork import App\napp = App({url!r})\n")


def test_a_server_that_is_down_is_told_with_the_remedy(postgres_url: str, tmp_path: Path) -> None:
    with socket.socket() as unheard:  # nobody else gets this port, and it takes no connections
        unheard.bind(("127.0.0.1", 0))
        port = unheard.getsockname()[1]
        app(tmp_path, f"postgresql://app:secret@127.0.0.1:{port}/shop")
        ended = tickwork("health", "jobs.py", cwd=tmp_path)
    assert (ended.status, ended.err) == (1, "")
    assert ended.out.startswith(f"store postgresql://app@127.0.0.1:{port}/shop: connection failed: ")
    assert "Connection refused" in ended.out
    assert ended.out.endswith("see that PostgreSQL runs there, and takes connections (listen_addresses, port)\n")


def test_a_server_that_says_nothing_is_waited_for_no_longer_than_was_said(postgres_url: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        app(tmp_path, f"postgresql://app@127.0.0.1:{silent.getsockname()[1]}/shop?connect_timeout=600")
        ended = tickwork("health", "jobs.py", "--timeout", "0.5s", cwd=tmp_path)
    assert (ended.status, ended.out, ended.err) == (1, "the store has not answered within 0.5s\n", "")


def test_a_table_that_somebody_has_locked_holds_no_probe(schema: str, target: Target, tmp_path: Path) -> None:
    app(tmp_path, schema)
    assert tickwork("store", "migrate", schema, cwd=tmp_path).status == 0
    with psycopg.connect(target.url) as connection:
        connection.execute(f"LOCK TABLE {target.schema}.workers IN ACCESS EXCLUSIVE MODE")
        ended = tickwork("health", "jobs.py", "--timeout", "0.5s", "--json", cwd=tmp_path)
    assert (ended.status, ended.err) == (1, "")
    assert json.loads(ended.out) == {
        "ok": False,
        "problems": ["the store has not answered within 0.5s"],
        "workers": None,
        "oldest_due_seconds": None,
    }
