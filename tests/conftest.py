"""What every test runs under: a loop in debug mode, no blocking call of ours inside it, nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import inspect
import itertools
import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

import psutil
import pytest
from blockbuster import BlockBuster
from hypothesis import HealthCheck, settings

import tickwork.watchdog  # noqa: F401  # here, because an App made inside of a loop would import it there
from postgres_server import QUICK, running
from tickwork.stores.postgres_target import Target, target_of
from tickwork.testing import virtual_loop_factory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

Backend = tuple[str, dict[str, Any]]

REAL_LOOPS: dict[str, Backend] = {
    "asyncio": ("asyncio", {"debug": True}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
}
WANTED_LOOP = os.environ.get("TICKWORK_TEST_LOOP") or "asyncio"
VIRTUAL_LOOP: Backend = ("asyncio", {"loop_factory": virtual_loop_factory, "debug": True})

LAST_SECONDS = 30.0
"""How long threads and processes of a test may take to be gone: they have been told to end, and usually are."""


# How long an example takes tells of the machine and what else it does. The same commit must get the same answer of CI;
# what other examples show is found by everybody's own runs.
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("here"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")


def pytest_configure(config: pytest.Config) -> None:
    # A loop in debug mode warns of callbacks that take long. On a busy machine any may, and tests compare the log.
    logging.getLogger("asyncio").addFilter(lambda record: not str(record.msg).startswith("Executing"))
    logging.getLogger("tickwork.watchdog").addFilter(
        lambda record: _is_about_holds or "the loop" not in str(record.msg)
    )
    logging.getLogger("tickwork.jobs").addFilter(
        lambda record: _is_about_holds or "the loop was held by" not in record.getMessage()
    )
    config.addinivalue_line("markers", "blocks(reason): blocks the loop on purpose")


_is_about_holds = False
"""Whether the present test is: in others, a warning that the loop is held tells of the machine, as above."""


def pytest_runtest_setup(item: pytest.Item) -> None:
    global _is_about_holds
    _is_about_holds = item.path.stem in ("test_watchdog", "test_holds")


def pytest_collection_finish() -> None:
    """Leave what pytest keeps for good out of collections: a full one would hold a loop for a third of a second."""
    gc.collect()
    gc.freeze()


def pytest_report_header() -> str | None:
    return None if WANTED_LOOP == "asyncio" else f"loop: {WANTED_LOOP}, and only the tests that run on it"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what does not run on the loop that is wanted: it would be the same test once more.

    That is what is not async, what runs on virtual time, and what chooses its loops itself.
    """
    if WANTED_LOOP == "asyncio":
        return
    others = [item for item in items if "real_backend" not in getattr(item, "fixturenames", ())]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if "real_backend" in getattr(item, "fixturenames", ())]


@pytest.fixture(scope="session")
def real_backend() -> Backend:
    """The real loop that TICKWORK_TEST_LOOP asks for."""
    return REAL_LOOPS[WANTED_LOOP]


@pytest.fixture(scope="session")
def virtual_backend() -> Backend:
    """A loop on virtual time. A module that wants it overrides `anyio_backend` with it."""
    return VIRTUAL_LOOP


@pytest.fixture(scope="session")
def anyio_backend(real_backend: Backend) -> Backend:
    return real_backend


class WaitUntil(Protocol):
    async def __call__(self, condition: Callable[[], object], timeout: float = 30) -> None: ...


@pytest.fixture(scope="session")
def wait_until() -> WaitUntil:
    """`await wait_until(condition)`: real time passes, on a virtual loop too."""

    async def wait(condition: Callable[[], object], timeout: float = 30) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {timeout} s: {inspect.getsource(condition).strip()}")
            await asyncio.to_thread(time.sleep, 0.002)

    return wait


# --- what a test must not do, and must not leave -----------------------------------------------------------------


def _is_async(item: Any) -> bool:
    return inspect.iscoroutinefunction(getattr(item, "function", None))


def _watch() -> BlockBuster:
    watch = BlockBuster("tickwork")
    for function in watch.functions.values():
        # The first use of a zone reads its file: 0.1 ms, once in the life of a process.
        function.can_block_in("tickwork/zones.py", "_load")
        # The first cron expression imports croniter: 50 ms, once, and in an app before its loop runs.
        function.can_block_in("tickwork/cron_expression.py", "_parse")
    return watch


@pytest.fixture(autouse=True)
def _strict(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail on blocking calls below `tickwork` inside a loop, and on what is left behind."""
    children = set(psutil.Process().children())
    watch = _watch() if _is_async(request.node) else None
    if watch is not None:
        request.getfixturevalue("_no_task_left")
        if request.node.get_closest_marker("blocks") is None:
            watch.activate()
            time.sleep.__module__, time.sleep.__qualname__ = "time", "sleep"  # so that a process finds it
    try:
        yield
    finally:
        if watch is not None:
            watch.deactivate()
    _expect_gone(_our_threads, "threads left")
    _expect_gone(lambda: [child for child in psutil.Process().children() if child not in children], "processes left")


@pytest.fixture
async def _no_task_left() -> AsyncIterator[None]:
    yield
    runner = "TestRunner."  # the plugin's own tasks, in which this runs
    left = [task for task in asyncio.all_tasks() if not task.get_coro().__qualname__.startswith(runner)]  # type: ignore[union-attr]
    assert not left, "tasks left"
    timers = [timer for timer in getattr(asyncio.get_running_loop(), "_scheduled", ()) if not timer.cancelled()]
    assert not [timer for timer in timers if "tickwork" in repr(timer)], "timers left"


def _our_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("tickwork-")]


def _expect_gone(find: Callable[[], list[Any]], what: str) -> None:
    deadline = time.monotonic() + LAST_SECONDS
    while left := find():
        assert time.monotonic() < deadline, f"{what}: {left}"
        time.sleep(0.002)


# --- PostgreSQL --------------------------------------------------------------------------------------------------

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a database in which the tests may make schemas."""
    given = os.environ.get("TICKWORK_TEST_POSTGRES")
    if given:
        yield given
        return
    with running(**QUICK) as server:
        yield server.url


@pytest.fixture
def schema(postgres_url: str) -> Iterator[str]:
    """The URL of a schema that does not exist yet; it goes with the test."""
    import psycopg

    name = f"tickwork_test_{os.getpid()}_{next(_numbers)}"
    yield f"{postgres_url}{'&' if '?' in postgres_url else '?'}schema={name}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"DROP SCHEMA IF EXISTS {name} CASCADE")


@pytest.fixture
def target(schema: str) -> Target:
    """The same, as a store takes it."""
    return target_of(schema)


@pytest.fixture(params=["sqlite", "postgres"])
def home(request: pytest.FixtureRequest) -> Target | None:
    """Where a fleet keeps its jobs: a schema, or None, which is the file in its folder."""
    found: Target | None = request.getfixturevalue("target") if request.param == "postgres" else None
    return found
