"""A pgbouncer of the tests' own before a PostgreSQL server, run by an ordinary user on a free port."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg

from parts import lacking
from postgres_server import free_port, ordinary_user

POOL = 4
"""Connections to the server. All are made, and each transaction is given the one that was used longest ago."""


class Pgbouncer:
    """Gives each transaction another connection to the server; `stop` and `start` as often as you like.

    Args:
        url: Of a database on the server.
        settings: Lines of its file that differ from ours, such as pool_mode="session".
    """

    def __init__(self, url: str, **settings: str) -> None:
        self._program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
        if self._program is None:
            lacking("pgbouncer is not installed (Debian: apt install pgbouncer)")
        self.folder = Path(tempfile.mkdtemp(prefix="tickwork-pgbouncer-"))
        self._as = ordinary_user(self.folder)
        self.port = free_port()
        lines = {
            "listen_addr": "127.0.0.1",
            "listen_port": str(self.port),
            "unix_socket_dir": "",
            "logfile": str(self.folder / "log"),
            "auth_type": "any",
            "pool_mode": "transaction",
            "default_pool_size": str(POOL),
            "server_round_robin": "1",
            "server_login_retry": "1",
            **settings,
        }
        given = psycopg.conninfo.conninfo_to_dict(url)
        self._name = given.pop("dbname", "postgres")
        databases = f"[databases]\n* = {' '.join(f'{name}={value}' for name, value in given.items())}\n"
        options = "".join(f"{name} = {value}\n" for name, value in lines.items())
        (self.folder / "ini").write_text(f"{databases}[pgbouncer]\n{options}")
        self._is_pooling = lines["pool_mode"] == "transaction"
        self._size = int(lines["default_pool_size"])
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def url(self) -> str:
        """The database of the tests, by way of it."""
        return f"postgresql://tickwork@127.0.0.1:{self.port}/{self._name}"

    def start(self) -> None:
        """Start it, and wait until it takes connections and has its own to the server."""
        assert self._program is not None
        self._process = subprocess.Popen(
            [self._program, "-q", "ini"],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **self._as,
        )
        deadline = time.monotonic() + 30
        while not _is_open(self.port):
            assert self._process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.01)
        if self._is_pooling:
            self._fill()

    def stop(self) -> None:
        """End it at once, as a kill does: all connections through it are cut."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None

    @property
    def log(self) -> str:
        """What it has told."""
        path = self.folder / "log"
        return path.read_text() if path.exists() else ""

    def _fill(self) -> None:
        """Have it make all its connections: so many transactions are open at once."""
        links: list[psycopg.Connection[Any]] = []
        try:
            for _ in range(self._size):
                links.append(psycopg.connect(self.url))
                links[-1].execute("SELECT 1")
        finally:
            for link in links:
                link.rollback()
                link.close()


def _is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
