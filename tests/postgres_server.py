"""A PostgreSQL server of the tests' own, from the installed binaries, run by an ordinary user on a free port.

TICKWORK_TEST_POSTGRES names another one instead: a URL of a database in which the tests may make schemas. Tests that
stop and start their server need one of their own all the same.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from parts import lacking, need

QUICK = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
"""For tests that ask nothing about a power cut."""


def binaries() -> Path:
    """Return the folder of the newest server that is installed."""
    need("psycopg")
    folders = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    folders.sort(key=lambda path: int(re.sub(r"\D", "", path.parent.name) or 0), reverse=True)
    found = shutil.which("initdb")
    if found is not None:
        folders.append(Path(found).resolve().parent)
    if not folders:
        lacking("no PostgreSQL server is installed (Debian: apt install postgresql)")
    return folders[0]


class Server:
    """A server in a folder of its own; `start` and `stop` as often as you like.

    Args:
        settings: Lines of its configuration that differ from ours.
        copy_of: A server that runs: this one follows it, until `promote`. None: it is one of its own.
    """

    def __init__(self, settings: dict[str, str], *, copy_of: Server | None = None) -> None:
        self._bin = binaries()
        # Not below pytest's folder, which an ordinary user cannot enter when root runs the tests.
        self.folder = Path(tempfile.mkdtemp(prefix="tickwork-postgres-"))
        self._as = ordinary_user(self.folder)
        if copy_of is None:
            self._run("initdb", "--no-sync", "--auth=trust", "--username=tickwork", "--encoding=UTF8", "--locale=C")
        else:
            self._run("pg_basebackup", "--no-sync", "--checkpoint=fast", "--write-recovery-conf", *copy_of.way)
        self.port = free_port()  # now: others look for free ports, too
        lines = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.folder),
            "max_connections": "200",
            **settings,
        }
        with (self.folder / "data" / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in lines.items())

    @property
    def url(self) -> str:
        """The database of the tests, by TCP."""
        return f"postgresql://tickwork@127.0.0.1:{self.port}/postgres"

    @property
    def way(self) -> list[str]:
        """How commands of PostgreSQL are told where it is."""
        return ["--host=127.0.0.1", f"--port={self.port}", "--username=tickwork"]

    def promote(self) -> None:
        """Let it take changes, and follow no longer."""
        self._run("pg_ctl", "promote", "--wait", "--timeout=30")

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        self._run("pg_ctl", "start", "--wait", "--timeout=30", f"--log={self.folder}/log")

    def stop(self, mode: str = "immediate") -> None:
        """Stop it; "immediate" is what a power cut is to the server."""
        self._run("pg_ctl", "stop", "--wait", f"--mode={mode}")

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Let none of its processes do anything within the block, as a machine that is stopped."""
        postmaster = psutil.Process(int((self.folder / "data" / "postmaster.pid").read_text().split()[0]))
        postmaster.suspend()
        stopped = [postmaster, *postmaster.children()]
        for process in stopped[1:]:
            process.suspend()
        try:
            yield
        finally:
            for process in stopped:
                process.resume()

    def _run(self, command: str, *args: str) -> None:
        # It daemonizes itself, so that it is no child of the process that runs the tests.
        done = subprocess.run(
            [self._bin / command, *args, f"--pgdata={self.folder}/data"],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if command != "pg_ctl" else subprocess.DEVNULL,
            stderr=subprocess.STDOUT if command != "pg_ctl" else subprocess.DEVNULL,
            timeout=120,
            check=False,
            **self._as,
        )
        assert done.returncode == 0, f"{command}: {done.stdout!r}"


def ordinary_user(folder: Path) -> dict[str, Any]:
    """Return how a server is started that refuses to be root's: as somebody to whom its folder is given."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return {}
    shutil.chown(folder, "nobody", "nogroup")
    return {"user": "nobody", "group": "nogroup", "extra_groups": []}


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextmanager
def running(**settings: str) -> Iterator[Server]:
    """Run a server of one's own."""
    with _started(Server(settings)) as server:
        yield server


@contextmanager
def following(primary: Server, **settings: str) -> Iterator[Server]:
    """Run a copy of a server, without which that server acknowledges nothing from now on."""
    import psycopg

    with _started(Server(settings, copy_of=primary)) as copy, psycopg.connect(primary.url, autocommit=True) as link:
        link.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        link.execute("SELECT pg_reload_conf()")
        deadline = time.monotonic() + 30
        while link.execute("SELECT sync_state FROM pg_stat_replication").fetchall() != [("sync",)]:
            assert time.monotonic() < deadline, "the copy does not follow"
            time.sleep(0.01)
        link.close()
        yield copy


@contextmanager
def _started(server: Server) -> Iterator[Server]:
    server.start()
    try:
        yield server
    finally:
        try:
            if (server.folder / "data" / "postmaster.pid").exists():  # a test may have stopped it
                server.stop()
        finally:
            shutil.rmtree(server.folder, ignore_errors=True)
