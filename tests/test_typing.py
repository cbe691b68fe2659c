"""What type checkers see. mypy (strict) and pyright check this file; the tests run it, so that both agree."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, assert_type

from tickwork import App, BatchCounts, Context, Job, JobBatch, JobOutcome, Pool, PoolJob, Task, TickworkError, task

app = App()


@app.task()
async def spell(number: int, *, loud: bool = False) -> str:
    return str(number).upper() if loud else str(number)


@app.task(run_in="thread")
def half(number: int) -> float:
    return number / 2


@app.task()
async def spell_in(ctx: Context, number: int) -> str:
    return f"{ctx.attempt} {number}"


@app.task()
def half_in(ctx: Context, number: int) -> float:
    return ctx.attempt + number / 2


@app.every("1h")
async def poll() -> None: ...


@app.every("1h", name="beside")
@app.cron("0 5 * * *")
@task(timeout="1m")
def nightly(ctx: Context) -> int:
    return ctx.attempt


async def test_job_has_the_type_of_what_the_function_returns() -> None:
    async with app:
        spelled = await spell.enqueue(1, loud=True)
        assert_type(spelled, Job[str])
        assert_type(await spelled.result(), str)
        assert_type(await spelled, str)
        assert_type(await (await half.enqueue(3)).result(), float)
        assert_type(await (await half.enqueue_nowait(3)).result(timeout=30), float)
        assert_type(await (await poll.enqueue()).result(), None)


async def test_a_batch_has_the_type_of_what_the_function_returns() -> None:
    async with app:
        batch = await spell.map([1, 2])
        assert_type(batch, JobBatch[str])
        assert_type(await batch, list[str])
        assert_type(await batch.results(on_error="skip"), list[str])
        assert_type(await batch.results(on_error="collect"), list[str | TickworkError])
        assert_type([outcome async for outcome in batch], list[JobOutcome[str]])
        assert_type([outcome.result() async for outcome in batch.outcomes(ordered=False)], list[str])
        assert_type(await batch.wait(), BatchCounts)
        assert_type(await half_in.options(priority=1).map_calls([{"number": 1}]), JobBatch[float])


async def test_context_is_no_parameter_of_enqueue() -> None:
    async with app:
        assert_type(await spell_in.enqueue(1), Job[str])
        assert_type(await half_in.enqueue(number=1), Job[float])
        assert_type(await nightly.enqueue(), Job[int])
        assert await (await spell_in.enqueue(2)) == "1 2"
        assert await (await half_in.enqueue(2)) == 2.0


async def test_options_and_the_app_keep_the_types() -> None:
    async with app:
        assert_type(await spell.options(priority=1).enqueue(1), Job[str])
        assert_type(await half_in.options(delay=0).enqueue(1), Job[float])
        assert_type(await app.enqueue(spell, 1, loud=False), Job[str])
        assert_type(await app.enqueue(half_in, 1), Job[float])


async def test_task_is_still_the_function() -> None:
    coroutine = assert_type(spell(1), Coroutine[Any, Any, str])
    assert_type(await coroutine, str)
    assert_type(half(3), float)
    assert_type(half_in(Context(job_id="1", task="x"), 3), float)


async def test_pool_job_has_the_type_of_what_the_function_returns() -> None:
    async def fetch(url: str) -> bytes:
        return url.encode()

    async with Pool(workers=1) as pool:
        assert_type(await pool.submit(fetch, "a"), PoolJob[bytes])
        assert_type(await pool.submit(len, "abc"), PoolJob[int])
        assert_type(pool.submit_nowait(fetch, url="a"), PoolJob[bytes])
        assert_type(await pool.options(timeout=5).submit(fetch, "a"), PoolJob[bytes])
        assert_type(await (await pool.submit(len, "abc")).result(), int)


def test_types_of_tasks_can_be_named() -> None:
    plain: Task[[int], float, [int], float] = half
    with_context: Task[[Context, int], float, [int], float] = half_in
    function: Callable[[int], float] = half

    assert (plain.name, with_context.name, function(4)) == ("test_typing.half", "test_typing.half_in", 2.0)


if TYPE_CHECKING:
    # What must be refused: for mypy, an ignore that is not needed is an error of its own (warn_unused_ignores).
    async def refused() -> None:
        await spell.enqueue("1")  # type: ignore[arg-type]
        await spell.enqueue()  # type: ignore[call-arg]
        await spell.enqueue(1, quiet=True)  # type: ignore[call-arg]
        await half_in.enqueue(Context(job_id="1", task="x"), 1)  # type: ignore[call-arg, arg-type]
        await half.options().enqueue("1")  # type: ignore[arg-type]
        await app.enqueue(half, "1")  # type: ignore[arg-type]
        async with Pool() as pool:
            await pool.submit(half, "1")  # type: ignore[call-overload]
