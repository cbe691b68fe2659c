"""Schedules with `after="end"`: each fire time one period after the end of the last job."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tickwork import App, JobState, Retry
from tickwork.errors import InvalidOption

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def anyio_backend(virtual_backend: Any) -> Any:
    return virtual_backend


def after(**elapsed: float) -> datetime:
    return START + timedelta(**elapsed)


async def test_the_period_counts_from_the_end_of_the_last_job() -> None:
    app = App()

    @app.every("10s", after="end", name="poll")
    async def poll() -> None:
        await asyncio.sleep(3.5)

    async with app.testing() as t:
        await t.advance("45s")

        assert t.fires("poll") == [after(seconds=10), after(seconds=23.5), after(seconds=37)]
        assert app.schedules["poll"].next_at == after(seconds=50.5)


async def test_a_run_longer_than_the_period_is_never_joined_by_another() -> None:
    app, running = App(), 0

    @app.every("1s", after="end", name="poll")
    async def poll() -> None:
        nonlocal running
        running += 1
        assert running == 1
        await asyncio.sleep(60)
        running -= 1

    async with app.testing() as t:
        await t.advance("5m")

        history = await app.schedules["poll"].history()
        assert [answer.outcome for answer in history] == ["ran"] * 5
        assert app.schedules["poll"].next_at is None


async def test_a_job_that_fails_or_is_cancelled_has_ended_too() -> None:
    app = App()

    @app.every("10s", after="end", first="now", name="poll")
    async def poll() -> None:
        if t.now < after(seconds=5):
            raise ValueError
        await asyncio.sleep(3600)

    async with app.testing(raise_errors=False) as t:
        await t.advance("12s")
        job = t.jobs[-1]
        assert (await app.job(job.id)).task == "poll"
        assert await (await app.job(job.id)).cancel()
        await t.advance("10s")

        assert t.fires("poll") == [START, after(seconds=10), after(seconds=22)]
        assert [job.state for job in t.jobs[:2]] == [JobState.FAILED, JobState.CANCELLED]


async def test_a_job_cancelled_before_it_begins_has_ended_too() -> None:
    app = App(workers=1)

    @app.task()
    async def occupy() -> None:
        await asyncio.sleep(15)

    @app.every("10s", after="end", name="poll")
    async def poll() -> None: ...

    async with app.testing() as t:
        await app.enqueue(occupy)
        await t.advance("11s")
        await (await app.job(t.jobs[-1].id)).cancel()
        await t.advance("10s")

        history = await app.schedules["poll"].history()
        assert [(answer.outcome, answer.first) for answer in history] == [
            ("ran", after(seconds=21)),
            ("not_started", after(seconds=10)),
        ]


@pytest.mark.parametrize("way", ["cancel", "delete"])
@pytest.mark.parametrize("stands", ["waits", "waits for a retry"])
async def test_a_person_who_cancels_or_deletes_a_waiting_job_sets_the_next_fire_time(way: str, stands: str) -> None:
    app = App()

    @app.every("10s", after="end", retry=Retry(2, delay="1h"), name="poll")
    async def poll() -> None:
        if t.now < after(seconds=20):
            raise ValueError

    async with app.testing(raise_errors=False) as t:
        if stands == "waits":
            await app.jobs.pause_queue("default")
        await t.advance("11s")
        (job,) = t.jobs
        assert job.state is (JobState.QUEUED if stands == "waits" else JobState.SCHEDULED)
        assert app.schedules["poll"].next_at is None
        await getattr(app.jobs, way)(job.id)
        await app.jobs.resume_queue("default")
        await t.advance("12s")

        assert app.schedules["poll"].next_at == after(seconds=31)
        assert [job.state for job in t.jobs][-1] is JobState.SUCCEEDED
        history = await app.schedules["poll"].history()
        assert [(answer.outcome, answer.first) for answer in history] == [
            ("ran", after(seconds=21)),
            ("not_started" if stands == "waits" else "ran", after(seconds=10)),
        ]


async def test_a_fire_time_beyond_its_grace_is_missed_and_the_next_comes_a_period_later() -> None:
    app = App()

    @app.every("10s", after="end", grace="1s", name="poll")
    async def poll() -> None: ...

    async with app.testing() as t:
        t.clock.suspend("60s")
        await t.advance("0s")
        await t.advance("10s")

        history = await app.schedules["poll"].history()
        assert [(answer.outcome, answer.first, answer.decided_by) for answer in history] == [
            ("ran", after(seconds=70), ""),
            ("missed", after(seconds=10), 'grace="1s"'),
        ]


async def test_a_late_one_runs_once() -> None:
    app = App()

    @app.every("10s", after="end", name="poll")
    async def poll() -> None: ...

    async with app.testing() as t:
        t.clock.suspend("65s")
        await t.advance("0s")
        await t.advance("10s")

        assert t.fires("poll") == [after(seconds=10), after(seconds=75)]


async def test_resuming_starts_one_period_from_now() -> None:
    app = App()

    @app.every("10s", after="end", name="poll")
    async def poll() -> None: ...

    async with app.testing() as t:
        poll_ = app.schedules["poll"]
        await poll_.pause()
        await t.advance("1m")
        assert [(a.outcome, a.first, a.count) for a in await poll_.history()] == [("paused", after(seconds=10), 1)]
        await poll_.resume()
        await t.advance("10s")

        assert [(a.outcome, a.first) for a in await poll_.history()] == [
            ("ran", after(seconds=70)),
            ("paused", after(seconds=10)),
        ]


async def test_a_manual_job_in_the_way_makes_it_skip_and_its_end_sets_the_next() -> None:
    app = App()

    @app.every("10s", after="end", name="poll")
    async def poll() -> None:
        await asyncio.sleep(8)

    async with app.testing() as t:
        await t.advance("5s")
        assert await app.schedules["poll"].run_now() is not None
        await t.advance("20s")

        assert [(a.outcome, a.first) for a in await app.schedules["poll"].history()] == [
            ("ran", after(seconds=23)),
            ("skipped", after(seconds=10)),
        ]


async def test_bounds_hold() -> None:
    app = App()

    @app.every("10s", after="end", start_at=after(minutes=1), end_at=after(minutes=1, seconds=15), name="poll")
    async def poll() -> None: ...

    async with app.testing() as t:
        await t.advance("5m")

        assert t.fires("poll") == [after(minutes=1), after(minutes=1, seconds=10)]


async def test_a_clock_set_back_before_its_bound_makes_it_wait_for_that() -> None:
    app = App()

    @app.every("10s", after="end", start_at=after(minutes=5), name="poll")
    async def poll() -> None:
        await asyncio.sleep(5)

    async with app.testing() as t:
        await t.advance("302s")
        t.clock.jump_wall(-120)
        await t.advance("110s")
        assert t.now < after(minutes=5)
        assert len(t.jobs) == 1
        await t.advance("25s")

        # The bound itself has been answered, so the next one comes a period later.
        assert t.fires("poll") == [after(minutes=5), after(minutes=5, seconds=10)]


async def test_a_clock_set_back_does_not_break_it() -> None:
    app = App()

    @app.every("10s", after="end", name="poll")
    async def poll() -> None:
        await asyncio.sleep(5)

    async with app.testing() as t:
        await t.advance("12s")
        t.clock.jump_wall(-3600)
        await t.advance("15s")

        assert app.schedules["poll"].error is None
        assert t.fires("poll") == [after(seconds=10), after(seconds=25 - 3600)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"overlap": "allow"},
            "overlap must be left out with after=\"end\", got 'allow'; a run is due after the last one, never twice",
        ),
        (
            {"catch_up": "none"},
            "catch_up must be left out with after=\"end\", got 'none'; a run is due after the last one, never twice",
        ),
        ({"after": "start"}, "after must be one of 'end', None, got 'start'"),
    ],
)
def test_what_contradicts_it_is_refused(options: Any, message: str) -> None:
    with pytest.raises(InvalidOption) as raised:
        App().every("10s", **{"after": "end", **options})

    assert str(raised.value) == message


@pytest.mark.parametrize("expression", ["* * * * *", "0 0 1 1 *"])
def test_a_cron_expression_has_no_period_to_count(expression: str) -> None:
    with pytest.raises(InvalidOption) as raised:
        App().cron(expression, after="end")

    assert str(raised.value) == (
        f"after must be left out with this trigger, got 'end'; it needs a plain period, such as Every('30s'), "
        f"not Cron({expression!r}, name='seed')"
    ).replace(", name='seed'", "")
