"""What shows that a process is one of several web workers: in a made environment, and under a real server."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from cli.command import Running
from tickwork.siblings import _declared, _server, visible_workers

WEB = """
import os
from contextlib import asynccontextmanager
from pathlib import Path
from tickwork.siblings import visible_workers

@asynccontextmanager
async def lifespan():
    said = Path(f"worker-{os.getpid()}")  # a file each: lines of several processes in one may be lost
    said.write_text(str(visible_workers({})))
    said.rename(said.with_suffix(".said"))
    yield

async def web(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        async with lifespan():
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})
"""


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        ("4", "WEB_CONCURRENCY=4"),
        (" 2 ", "WEB_CONCURRENCY=2"),
        ("1" * 5_000, "WEB_CONCURRENCY=" + "1" * 5_000),
        ("1", None),
        ("0", None),
        ("-3", None),
        ("", None),
        ("many", None),
        ("²", None),
    ],
)
def test_the_environment_tells_of_several_workers(value: str, seen: str | None) -> None:
    assert visible_workers({"WEB_CONCURRENCY": value}) == seen


def test_a_process_without_a_server_above_it_is_alone() -> None:
    assert visible_workers({}) is None


def test_a_process_that_is_gone_shows_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as started:
        process = psutil.Process(started.pid)
        started.communicate(b"\n")

    assert visible_workers({}, process=process) is None


@pytest.mark.parametrize(
    ("line", "server", "declared"),
    [
        ("/venv/bin/python /venv/bin/uvicorn web:app --workers 4", "uvicorn", 4),
        ("/venv/bin/python3.11 -X dev -m uvicorn web:app --workers=4", "uvicorn", 4),
        ("C:\\venv\\python.exe -m uvicorn web:app".replace("\\", "/"), "uvicorn", 0),
        ("/usr/bin/python /usr/bin/gunicorn -w 3 web:app", "gunicorn", 3),
        ("gunicorn web:app -w3", "gunicorn", 3),
        ("uwsgi --http :80 --processes 2", "uwsgi", 2),
        ("python -m tickwork run jobs.py --workers 4", None, 4),
        ("python serve.py uvicorn", None, 0),
        ("sh -c uvicorn", None, 0),
        ("", None, 0),
    ],
)
def test_a_server_is_known_by_its_command_line(line: str, server: str | None, declared: int) -> None:
    assert _server(line.split()) == server
    assert _declared(line.split()) == declared


def test_a_server_that_renames_itself_is_known() -> None:
    assert _server(["gunicorn: master [web:app]"]) == "gunicorn"


PATIENT = ("--timeout-worker-healthcheck", "60")
"""A server does not take a worker for dead that a busy machine keeps waiting, and start another one."""


def under_uvicorn(folder: Path, workers: int) -> tuple[int, list[str]]:
    """Return the process id of a real server, and what its workers say when they start."""
    (folder / "web.py").write_text(WEB)
    words = ("-m", "uvicorn", "--port", "0", *PATIENT, "--workers", str(workers), "web:web")
    source = os.pathsep.join(filter(None, sys.path))
    with Running(*words, cwd=folder, env={"PYTHONPATH": source}) as running:
        running.wait_until(lambda: len(list(folder.glob("*.said"))) >= workers, f"{workers} workers")
        running.send(signal.SIGINT)
        running.ended()
    return running.pid, [path.read_text() for path in folder.glob("*.said")]


def test_workers_of_uvicorn_see_each_other(tmp_path: Path) -> None:
    server, said = under_uvicorn(tmp_path, 2)

    assert said == [f"this process and 1 more are workers of uvicorn (pid {server})"] * 2


def test_a_single_worker_of_uvicorn_sees_nobody(tmp_path: Path) -> None:
    _, said = under_uvicorn(tmp_path, 1)

    assert said == ["None"]


IN_MEMORY = """
import logging
from starlette.applications import Starlette
from tickwork import App

logging.basicConfig(format="%(levelname)s %(message)s")
app = App(block_warn_seconds=None)

@app.every("1h")
async def fired(): ...

web = Starlette(lifespan=app.lifespan)
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_an_app_in_memory_warns_when_it_is_one_of_several_workers(tmp_path: Path, workers: int) -> None:
    (tmp_path / "web.py").write_text(IN_MEMORY)
    source = os.pathsep.join(filter(None, sys.path))
    words = ("-m", "uvicorn", "--port", "0", *PATIENT, "--workers", str(workers), "web:web")
    with Running(*words, cwd=tmp_path, env={"PYTHONPATH": source}) as running:
        running.wait_for("Application startup complete", times=workers)
        if workers > 1:
            running.wait_for("WARNING", times=workers)
        running.send(signal.SIGINT)
        running.ended()
        warnings = [line for line in running.err.splitlines() if "WARNING" in line]

    said = (
        f"WARNING the app keeps its jobs in memory, and this process and 1 more are workers of uvicorn "
        f"(pid {running.pid}): each of them fires every schedule (1) by itself. Share a file, "
        'App("sqlite:///jobs.db"), and each fire time runs once; or give the schedules to one process'
    )
    assert warnings == ([said] * 2 if workers > 1 else [])


FORKING = """
import os, signal, subprocess, sys

for _ in range(3):
    worker = os.fork()
    if not worker:
        signal.pause()
print("worker", worker, flush=True)
subprocess.run([sys.executable, "-c", "import os, signal; print('other', os.getpid(), flush=True); signal.pause()"])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="without fork")
def test_forked_workers_are_counted_where_the_command_line_tells_no_number(tmp_path: Path) -> None:
    # A server by its name alone, which forks as gunicorn does, and starts another program beside.
    server = tmp_path / "gunicorn"
    server.write_text(FORKING)
    with Running(str(server), cwd=tmp_path) as running:
        running.wait_until(lambda: re.search(r"other \d+\n", running.out), "the other program")
        pids = {name: int(pid) for name, pid in re.findall(r"(worker|other) (\d+)\n", running.out)}
        seen = {name: visible_workers({}, process=psutil.Process(pid)) for name, pid in pids.items()}

    assert seen == {"worker": f"this process and 2 more are workers of gunicorn (pid {running.pid})", "other": None}
