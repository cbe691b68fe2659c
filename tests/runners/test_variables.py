"""Context variables that go to child processes."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

import tickwork
from tickwork import App, Pool, Processes
from tickwork.errors import InvalidOption, InvalidPayload

from . import functions
from .functions import renamed, request_id, variables

BOTH = Processes(1, contextvars=[request_id, renamed])
LIST = "contextvars must be a list of context variables, got "


@contextmanager
def being(variable: ContextVar[Any], value: object) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


async def test_a_job_has_those_that_its_submitter_had_and_no_others() -> None:
    async with Pool(1, run_in="process", processes=BOTH) as pool:
        with being(request_id, "a"):
            first = await pool.submit(variables)
        with being(renamed, ["b"]):
            second = await pool.submit(variables)
        third = await pool.submit(variables)

        found = [await job for job in (first, second, third)]
    assert found == [("a", "none"), ("none", ["b"]), ("none", "none")]


async def test_without_the_option_none_is_carried() -> None:
    async with Pool(1, run_in="process", processes=1) as pool:
        with being(request_id, "a"):
            assert await (await pool.submit(variables)) == ("none", "none")


async def test_each_item_of_a_batch_has_them() -> None:
    with being(request_id, "a"):
        own = await tickwork.map(variables, range(3), processes=BOTH)
        async with Pool(processes=BOTH) as pool:
            shared = await tickwork.map(variables, range(3), pool=pool)

    assert own == shared == [("a", "none")] * 3


async def test_jobs_of_an_app_have_those_of_its_start() -> None:
    app = App(processes=BOTH)
    task = app.task(run_in="process")(variables)
    with being(request_id, "at the start"):
        await app.start()
    with being(request_id, "later"):
        of_a_job = await (await task.enqueue())
        of_a_batch = await tickwork.map(variables, [None], pool=app)
    await app.stop()

    assert of_a_job == ("at the start", "none")
    assert of_a_batch == [("later", "none")]


async def test_a_value_that_cannot_be_pickled_is_named() -> None:
    reason = "a function cannot be pickled for a child process: Can't "
    with being(request_id, "a"), being(renamed, lambda: None):
        async with Pool(1, run_in="process", processes=BOTH) as pool:
            with pytest.raises(InvalidPayload) as of_a_job:
                await (await pool.submit(variables))
        with pytest.raises(InvalidPayload) as of_a_batch:
            await tickwork.map(variables, range(3), processes=BOTH)

    assert str(of_a_job.value).startswith(f"context variable 'another name' of variables: {reason}")
    name = f"{functions.__name__}.variables"
    assert str(of_a_batch.value).startswith(f"context variable 'another name' of {name}: {reason}")


async def test_a_value_that_cannot_be_unpickled_there_is_told() -> None:
    async with Pool(1, processes=BOTH) as pool:
        (pid,) = await tickwork.map(functions.process_of, [None], pool=pool)
        with being(request_id, functions.Unreadable()):
            with pytest.raises(InvalidPayload) as of_a_job:
                await (await pool.options(run_in="process").submit(functions.process_of, 1))
            with pytest.raises(InvalidPayload) as of_a_batch:
                await tickwork.map(functions.process_of, [1], pool=pool)
        assert await tickwork.map(functions.process_of, [None], pool=pool) == [pid]

        with being(request_id, functions.Unreadable()), pytest.raises(InvalidPayload) as of_many:
            await tickwork.map(functions.process_of, range(3), pool=pool, on_error="collect")

    message = "they cannot be set in the child process: ValueError: unreadable"
    for caught in (of_a_batch, of_many):
        assert str(caught.value) == f"context variables of {functions.__name__}.process_of: {message}"
    assert of_a_job.value.reason == message


@pytest.mark.parametrize("given", [request_id, "request_id", ["request_id"], [request_id, 5], 5, None])
def test_what_is_no_list_of_them_is_refused(given: Any) -> None:
    with pytest.raises(InvalidOption) as caught:
        Processes(contextvars=given)

    assert str(caught.value) == f"{LIST}{given!r}"


def test_one_that_no_child_could_find_is_refused() -> None:
    hidden: ContextVar[int] = ContextVar("hidden")
    with pytest.raises(InvalidOption) as caught:
        Processes(contextvars=[hidden])

    assert str(caught.value) == (
        f"contextvars must be context variables of modules, got {hidden!r}; a child process finds one by name, so it "
        "must stand at the top level of a module"
    )


def test_those_of_the_script_are_found(tmp_path: Path) -> None:
    script = tmp_path / "requests_of.py"
    script.write_text(
        textwrap.dedent(
            """
            import asyncio
            from contextvars import ContextVar
            import tickwork

            request_id = ContextVar("request_id")

            def found(item):
                return item, request_id.get()

            async def main():
                request_id.set("from the script")
                print(await tickwork.map(found, [1], processes=tickwork.Processes(1, contextvars=[request_id])))

            if __name__ == "__main__":
                asyncio.run(main())
            """
        )
    )
    ended = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=45)

    assert (ended.stdout, ended.stderr) == ("[(1, 'from the script')]\n", "")
