"""Further attempts: when, how often, against what."""

from __future__ import annotations

import asyncio
import logging
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickwork import App, GiveUp, JobFailed, JobState, JobTimedOut, Retry, RetryAfter, events
from tickwork.errors import InvalidDuration, InvalidOption
from tickwork.retry import next_attempt_at

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def anyio_backend(virtual_backend: Any) -> Any:
    return virtual_backend


# -- the decision -----------------------------------------------------------------------------------------------------


@given(
    attempts=st.integers(1, 10_000),
    delay=st.floats(0, 1e6),
    factor=st.floats(1, 1_000),
    max_delay=st.floats(0, 1e6),
    jitter=st.floats(0, 1),
    attempt=st.integers(1, 10**9),
    draw=st.floats(0, 1, exclude_max=True),
)
def test_a_wait_lies_within_its_bounds(
    attempts: int, delay: float, factor: float, max_delay: float, jitter: float, attempt: int, draw: float
) -> None:
    retry = Retry(attempts, delay=delay, factor=factor, max_delay=max_delay, jitter=jitter)
    wait = retry.wait_after(attempt, draw)
    full = retry.wait_after(attempt, 0.0)

    assert 0 <= wait <= full <= retry.max_delay
    assert wait >= full * (1 - retry.jitter) - 1e-9
    assert full >= min(retry.delay, retry.max_delay) - 1e-9
    assert retry.wait_after(attempt + 1, 0.0) >= full


def test_waits_double_up_to_the_longest() -> None:
    retry = Retry(10, delay="1s", max_delay="10s", jitter=0)

    assert [retry.wait_after(attempt, 0.0) for attempt in range(1, 7)] == [1, 2, 4, 8, 10, 10]


def test_the_attempts_are_counted_in_all() -> None:
    def at(attempt: int, error: BaseException) -> datetime | None:
        return next_attempt_at(Retry(3, jitter=0), (OSError, TimeoutError), error, attempt, START, 0.0)

    assert at(1, OSError()) == START + timedelta(seconds=1)
    assert at(2, ConnectionError()) == START + timedelta(seconds=2)
    assert at(3, OSError()) is None
    assert at(1, ValueError()) is None
    assert at(1, GiveUp()) is None
    assert at(1, RetryAfter("1m")) == START + timedelta(minutes=1)
    assert at(3, RetryAfter("1m")) is None
    assert next_attempt_at(None, (Exception,), OSError(), 1, START, 0.0) is None


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"retry": 0}, InvalidOption, "retry must be a whole number of at least 1, got 0"),
        ({"retry": "often"}, InvalidOption, "retry must be a whole number of at least 1, got 'often'"),
        ({"retry_on": "OSError"}, InvalidOption, "retry_on must be an exception class, or several, got 'OSError'"),
        ({"retry_on": ()}, InvalidOption, "retry_on must be an exception class, or several, got ()"),
        (
            {"delivery": "exactly_once"},
            InvalidOption,
            "delivery must be one of 'at_least_once', 'at_most_once', got 'exactly_once'",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_when_declared(options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as raised:
        App().task(**options)

    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"attempts": True}, InvalidOption, "attempts must be a whole number of at least 1, got True"),
        ({"attempts": 2, "factor": 0.5}, InvalidOption, "factor must be a number from 1 to 1000, got 0.5"),
        ({"attempts": 2, "jitter": float("nan")}, InvalidOption, "jitter must be a number from 0 to 1, got nan"),
        ({"attempts": 2, "delay": "soon"}, InvalidDuration, "delay must be a duration"),
    ],
)
def test_a_retry_out_of_range_is_refused(settings: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as raised:
        Retry(**settings)

    assert str(raised.value).startswith(message)


def test_a_job_that_may_run_once_has_no_second_attempt() -> None:
    with pytest.raises(InvalidOption) as raised:
        App().task(retry=Retry(2, jitter=0), delivery="at_most_once")

    assert str(raised.value) == (
        'retry must be left out with delivery="at_most_once", '
        "got Retry(attempts=2, delay=1.0, factor=2.0, max_delay=3600.0, jitter=0.0); "
        "a second attempt would be once too often"
    )


# -- jobs -------------------------------------------------------------------------------------------------------------


async def test_a_job_is_tried_until_it_succeeds_and_whoever_waits_gets_its_result(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app, tried, ends = App(), [], []

    @app.on(events.JobEnded)
    async def hear(event: events.JobEnded) -> None:
        ends.append((type(event).__name__, event.attempt, getattr(event, "is_final", None)))

    @app.task(retry=Retry(5, delay="10s", jitter=0), name="fetch")
    async def fetch() -> str:
        tried.append((t.now - START).total_seconds())
        if len(tried) < 3:
            raise ConnectionError("no route")
        return "page"

    async with app.testing() as t:
        job = await app.enqueue(fetch)
        result = asyncio.create_task(job.result())
        await t.advance("15s")
        assert (await job.record()).state is JobState.SCHEDULED
        assert not result.done()
        await t.advance("1m")

        assert await result == "page"
        assert tried == [0, 10, 30]
        record = await job.record()
        assert (record.attempt, record.state, app.failed_count) == (3, JobState.SUCCEEDED, 0)

    assert ends == [("JobFailed", 1, False), ("JobFailed", 2, False), ("JobSucceeded", 3, None)]
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert told == [
        f"end fetch job={job.id} failed took=0.000s: ConnectionError: no route; tried again in 10s",
        f"end fetch job={job.id} failed took=0.000s: ConnectionError: no route; tried again in 20s",
    ]


async def test_a_job_whose_attempts_are_used_up_has_failed() -> None:
    app, tried = App(), 0

    @app.task(retry=3, name="fetch")
    def fetch() -> None:
        nonlocal tried
        tried += 1
        raise ConnectionError(f"no route, {tried}")

    async with app.testing(raise_errors=False) as t:
        job = await app.enqueue(fetch)
        await t.advance("1m")

        with pytest.raises(JobFailed, match="ConnectionError: no route, 3"):
            await job
        assert (tried, (await job.record()).attempt) == (3, 3)


async def test_give_up_and_other_exceptions_end_it_at_once() -> None:
    app, tried = App(), []

    @app.task(retry=Retry(5), retry_on=[OSError], name="fetch")
    async def fetch(error: str) -> None:
        tried.append(error)
        raise GiveUp("the account is closed") if error == "give up" else ValueError(error)

    async with app.testing(raise_errors=False) as t:
        jobs = [await app.enqueue(fetch, error) for error in ("give up", "value")]
        await t.advance("1h")

        with pytest.raises(JobFailed, match=r"tickwork\.retry\.GiveUp: the account is closed"):
            await jobs[0]
        with pytest.raises(JobFailed, match="ValueError: value"):
            await jobs[1]
        assert tried == ["give up", "value"]


async def test_retry_after_says_when() -> None:
    app, tried = App(), []

    @app.task(retry=2, name="fetch")
    async def fetch() -> None:
        tried.append((t.now - START).total_seconds())
        if len(tried) == 1:
            raise RetryAfter("90s")

    async with app.testing() as t:
        await app.enqueue(fetch)
        await t.advance("2m")

        assert tried == [0, 90]


async def test_a_timeout_is_tried_again_and_nobody_hears_of_it_before_the_last() -> None:
    app, tried = App(), 0

    @app.task(retry=Retry(2, delay="10s", jitter=0), timeout="5s", name="slow")
    async def slow() -> int:
        nonlocal tried
        tried += 1
        await asyncio.sleep(60 if tried == 1 else 1)
        return tried

    async with app.testing() as t:
        job = await app.enqueue(slow)
        result = asyncio.create_task(job.result())
        await t.advance("1m")

        assert await result == 2


async def test_a_thread_that_overruns_is_tried_again_and_nobody_hears_of_it_before_the_last() -> None:
    app, tried = App(), 0
    gates = [threading.Event(), threading.Event()]
    is_tried_again = threading.Event()

    @app.task(retry=Retry(2, delay="1s", jitter=0), timeout="1s", name="slow")
    def slow() -> None:
        nonlocal tried
        tried += 1
        if tried == 2:
            is_tried_again.set()
        gates[tried - 1].wait(10)

    async with app.testing(raise_errors=False) as t:
        job = await app.enqueue(slow)
        result = asyncio.create_task(job.result())
        await t.advance("1.5s", wait=False)
        assert not result.done()
        gates[0].set()
        await t.advance(0)
        await t.advance("2.5s", wait=False)

        with pytest.raises(JobTimedOut):
            await result
        assert await asyncio.to_thread(is_tried_again.wait, 10)  # its thread may begin late, on a busy machine
        gates[1].set()


async def test_a_waiting_retry_blocks_its_schedule_and_can_be_cancelled() -> None:
    app = App()

    @app.every("10s", retry=Retry(3, delay="25s", jitter=0), name="poll")
    async def poll() -> None:
        if t.now < START + timedelta(seconds=15):
            raise OSError

    async with app.testing() as t:
        await t.advance("32s")
        history = await app.schedules["poll"].history()
        assert [answer.outcome for answer in history] == ["skipped", "skipped", "ran"]
        assert await (await app.job(t.jobs[0].id)).cancel()
        await t.advance("10s")

        assert [answer.outcome for answer in await app.schedules["poll"].history(limit=1)] == ["ran"]


async def test_a_timed_out_job_without_a_retry_raises_as_before() -> None:
    app = App()

    @app.task(timeout="1s", name="slow")
    async def slow() -> None:
        await asyncio.sleep(60)

    async with app.testing(raise_errors=False) as t:
        job = await app.enqueue(slow)
        await t.advance("2s")

        with pytest.raises(JobTimedOut):
            await job
