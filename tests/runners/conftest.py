"""Both real loops for every test of the runners, and no process left behind."""

from __future__ import annotations

import contextlib
import importlib.util
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tickwork.runners.process import ProcessRunner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

BACKENDS: list[Any] = [pytest.param(("asyncio", {}), id="asyncio")]
if importlib.util.find_spec("uvloop") is not None:
    BACKENDS.append(pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"))


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(autouse=True)
def no_child_is_left() -> Iterator[None]:
    """After each test no child process is left, a zombie neither. What is left fails this one test only."""
    yield
    left = psutil.Process().children(recursive=True)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=10)
    assert left == []


@pytest.fixture
async def runner() -> AsyncIterator[ProcessRunner]:
    runner = ProcessRunner(2)
    yield runner
    await runner.aclose()
