"""Deaths on purpose: a job is killed where the test says, runs twice, or loses its lease."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tickwork import App, Context
from tickwork.errors import IllegalMove, InvalidOption, JobParked, NotRunning
from tickwork.jobs import JobState


@pytest.fixture
def anyio_backend(virtual_backend: Any) -> Any:
    return virtual_backend


charged: list[str] = []
app = App(workers=2)


@app.task(name="charge")
async def charge(ctx: Context, order: str, amount: int = 1) -> str:
    ctx.checkpoint("before")
    if order not in charged:
        charged.append(order)
    ctx.checkpoint("charged")
    return f"{order} charged"


@app.task(name="careless")
async def careless(order: str) -> int:
    charged.append(order)
    return charged.count(order)


@app.task(name="wait")
async def wait() -> None:
    await asyncio.sleep(10)


@pytest.fixture(autouse=True)
def nobody_is_charged() -> None:
    charged.clear()


async def test_a_job_is_killed_at_a_checkpoint_and_runs_again() -> None:
    async with app.testing() as t:
        t.kill(charge, at="charged")
        job = await charge.enqueue("a1")
        await t.drain()

        assert await job == "a1 charged"
        assert charged == ["a1"]
        assert t.checkpoints(charge) == ["before", "charged", "before", "charged"]
        record = await job.record()
        assert (record.deaths, record.attempt) == (1, 1)


async def test_one_that_dies_again_and_again_is_parked() -> None:
    async with app.testing() as t:
        t.kill("charge", at="before", times=3)
        job = await charge.enqueue("a1")
        await t.drain()

        with pytest.raises(JobParked):
            await job
        assert charged == []


async def test_a_job_that_is_delivered_twice_shows_what_it_does_twice() -> None:
    async with app.testing() as t:
        good, bad = await charge.enqueue("a1"), await careless.enqueue("b1")
        await t.drain()

        assert (await good, await bad) == ("a1 charged", 1)
        assert await t.redeliver(good) == "a1 charged"
        assert await t.redeliver(bad) == 2
        assert charged == ["a1", "b1", "b1"]
        record = await bad.record()
        assert (record.state, record.attempt, record.deaths) == (JobState.SUCCEEDED, 1, 1)


async def test_a_job_that_has_not_ended_is_not_delivered_again() -> None:
    async with app.testing() as t:
        job = await wait.options(delay="1h").enqueue()
        with pytest.raises(IllegalMove, match=job.id):
            await t.redeliver(job)


async def test_a_job_loses_its_lease_and_runs_again(caplog: pytest.LogCaptureFixture) -> None:
    async with app.testing() as t:
        job = await wait.enqueue()
        await t.advance("4s")
        await t.lose_lease(job)
        await t.advance("9s")
        assert (await job.record()).state is JobState.RUNNING
        await t.advance("1s")

        await job
        assert (t.now - (await job.record()).enqueued_at).total_seconds() == 14
    assert caplog.text.count("its lease was over, and the job was taken away") == 1


async def test_what_does_not_run_has_no_lease_to_lose() -> None:
    async with app.testing() as t:
        job = await wait.options(delay="1h").enqueue()
        with pytest.raises(NotRunning, match=f"job {job.id} does not run here, so it has no lease to lose"):
            await t.lose_lease(job)


async def test_what_was_enqueued_can_be_asked_for() -> None:
    async with app.testing() as t:
        first, second = await charge.enqueue("a1"), await charge.options(delay="1h").enqueue("a2", amount=3)
        await t.drain()

        assert [record.id for record in t.enqueued(charge)] == [first.id, second.id]
        assert [record.id for record in t.enqueued("charge", amount=1)] == [first.id]
        assert [record.id for record in t.assert_enqueued(charge, order="a2", amount=3)] == [second.id]
        assert t.assert_enqueued(charge, order="a3", times=0) == []
        with pytest.raises(AssertionError) as told:
            t.assert_enqueued(charge, order="a3")
        assert str(told.value) == (
            "expected at least one job of charge(order='a3', ...), found 0; enqueued were: charge(order='a1'), "
            "charge(order='a2', amount=3)"
        )
        with pytest.raises(AssertionError, match=r"expected 1 jobs of wait, found 0; no job of wait was enqueued"):
            t.assert_enqueued(wait, times=1)


async def test_mistakes_are_told() -> None:
    async with app.testing() as t:
        with pytest.raises(InvalidOption, match=r"a task of the app: charge, careless, wait, got 'chrage'"):
            t.kill("chrage", at="before")
        with pytest.raises(InvalidOption, match="at must be"):
            t.kill(charge, at="")
        with pytest.raises(InvalidOption, match="times must be"):
            t.kill(charge, at="before", times=0)


async def test_a_checkpoint_does_nothing_elsewhere() -> None:
    ctx = Context(job_id="x", task="charge")
    ctx.checkpoint("before")
    assert await charge(ctx, "a1") == "a1 charged"
