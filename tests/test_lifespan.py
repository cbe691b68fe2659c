"""Embedded in a web service: under a real uvicorn, with FastAPI and Starlette."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import pytest

from cli.command import Ended, Running
from tickwork import App
from tickwork.errors import NotRunning

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

HEAD = """
import asyncio, logging, signal, time
from contextlib import asynccontextmanager
from tickwork import App

logging.basicConfig(level=logging.INFO)
app = App(drain_seconds=0.2, cancel_seconds=0.2)

@app.task()
async def double(number: int) -> int:
    return 2 * number

def handlers():
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

before = None

@asynccontextmanager
async def outer(web):
    global before
    before = handlers()
    async with app.lifespan(web) as state:
        print("same handlers:", handlers() == before, flush=True)
        yield {**state, "own": "mine"}
    print("same handlers after:", handlers() == before, "running:", app.is_running, flush=True)
"""
FASTAPI = """
from fastapi import FastAPI, Request
web = FastAPI(lifespan=LIFESPAN)

@web.get("/")
async def show(request: Request):
    state = request.state
    job = await state.tickwork.enqueue(double, 21)
    return {"is app": state.tickwork is app, "own": getattr(state, "own", None), "result": await job.result()}
"""
STARLETTE = """
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

async def show(request):
    job = await double.enqueue(21)
    state = request.state
    answer = {"is app": state.tickwork is app, "own": getattr(state, "own", None), "result": await job.result()}
    return JSONResponse(answer)

web = Starlette(lifespan=LIFESPAN, routes=[Route("/", show)])
"""
STUCK = {
    "ignores its cancellation": """
@app.every("1000d", first="now")
async def work():
    print("began", flush=True)
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass
""",
    "ignores everything": """
@app.every("1000d", first="now")
async def work():
    print("began", flush=True)
    while True:
        try:
            await asyncio.sleep(3600)
        except BaseException:
            pass
""",
    "thread": """
@app.every("1000d", first="now")
def work():
    print("began", flush=True)
    time.sleep(3600)
""",
    "process": """
@app.every("1000d", first="now", run_in="process")
def work():
    print("began", flush=True)
    time.sleep(3600)
""",
}


def served(folder: Path, text: str) -> Running:
    (folder / "service.py").write_text(text)
    return Running("-m", "uvicorn", "--port", "0", "service:web", cwd=folder)


def ask(running: Running) -> Any:
    running.wait_for("Uvicorn running on http")
    found = re.search(r"running on (http://[\d.:]+)", running.err)
    assert found is not None
    with urlopen(found[1], timeout=30) as answer:
        return json.load(answer)


def ends(running: Running) -> Ended:
    running.send(signal.SIGTERM)
    ended = running.ended()
    running.wait_alone()
    assert "Application shutdown complete" in ended.err
    assert "Traceback" not in ended.err
    return ended


@pytest.mark.parametrize("web", [FASTAPI, STARLETTE], ids=["FastAPI", "Starlette"])
def test_requests_find_the_app_and_enqueue(tmp_path: Path, web: str) -> None:
    with served(tmp_path, HEAD + web.replace("LIFESPAN", "app.lifespan")) as running:
        answer = ask(running)
        ended = ends(running)

    assert answer == {"is app": True, "own": None, "result": 42}
    assert "stopped: 0 unstarted jobs given back, 0 cut" in ended.err


@pytest.mark.parametrize("web", [FASTAPI, STARLETTE], ids=["FastAPI", "Starlette"])
def test_lifespan_can_stand_inside_one_of_the_users_and_touches_no_signal_handler(tmp_path: Path, web: str) -> None:
    with served(tmp_path, HEAD + web.replace("LIFESPAN", "outer")) as running:
        answer = ask(running)
        ended = ends(running)

    assert answer == {"is app": True, "own": "mine", "result": 42}
    assert "same handlers: True" in ended.out
    assert "same handlers after: True running: False" in ended.out


@pytest.mark.parametrize("kind", STUCK)
def test_stuck_job_does_not_hold_the_exit_of_the_service(tmp_path: Path, kind: str) -> None:
    with served(tmp_path, HEAD + STUCK[kind] + FASTAPI.replace("LIFESPAN", "app.lifespan")) as running:
        running.wait_for("began")
        ask(running)
        ended = ends(running)

    assert "1 cut: service.work job=" in ended.err


def test_start_that_fails_ends_the_service(tmp_path: Path) -> None:
    text = HEAD + "\n@app.on_start\ndef begin():\n    raise OSError('no disk')\n"
    with served(tmp_path, text + FASTAPI.replace("LIFESPAN", "app.lifespan")) as running:
        ended = running.ended()

    assert ended.status == 3
    assert "OSError: no disk" in ended.err


# -- without a service ------------------------------------------------------------------------------------------------


async def test_lifespan_yields_a_mapping_and_stops_the_app() -> None:
    app = App()

    async with app.lifespan(object()) as state:
        assert state == {"tickwork": app}
        assert app.is_running

    assert not app.is_running


async def test_lifespan_of_the_app_opens_what_jobs_need_and_closes_it_after_the_last() -> None:
    told: list[str] = []

    @asynccontextmanager
    async def resources(opened_for: App) -> AsyncIterator[str]:
        assert opened_for is app
        told.append("open")
        yield "the pool"
        told.append("close")

    app = App(lifespan=resources, drain_seconds=5)
    began = asyncio.Event()

    @app.task(name="work")
    async def work() -> None:
        began.set()
        await asyncio.sleep(0.01)
        told.append("work")

    async with app.lifespan():
        await work.enqueue()
        await began.wait()

    assert told == ["open", "work", "close"]


async def test_app_can_be_started_again_after_it_has_stopped_and_not_before() -> None:
    app = App()

    async with app.lifespan():
        with pytest.raises(NotRunning, match="has started already"):
            async with app.lifespan():
                pass
        assert app.is_running
    async with app.lifespan():
        assert app.is_running


async def test_error_inside_the_lifespan_stops_the_app_and_goes_on() -> None:
    app = App()

    with pytest.raises(KeyError):
        async with app.lifespan():
            raise KeyError("of the service")

    assert not app.is_running
