"""Events: what happened, told to handlers that nobody waits for."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import tickwork
from tickwork import App, Every, JobFilter, Trigger, events
from tickwork.context import Context
from tickwork.errors import InvalidOption
from tickwork.events import EVENTS, LINE, Event

if TYPE_CHECKING:
    from datetime import datetime


@pytest.fixture
def anyio_backend(virtual_backend: Any) -> Any:
    return virtual_backend


class Breaking(Trigger):
    """Every ten seconds, until it raises."""

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def next(self, after: datetime) -> datetime | None:
        if self.error is not None:
            raise self.error
        return Every("10s").next(after)

    @property
    def fingerprint(self) -> str:
        return "breaking"


def listening(app: App) -> list[Event]:
    heard: list[Event] = []

    @app.on(Event)
    async def hear(event: Event) -> None:
        heard.append(event)

    return heard


async def test_the_life_of_jobs_is_told_in_its_order() -> None:
    app = App()
    heard = listening(app)

    @app.task(name="good")
    async def good() -> int:
        return 1

    @app.task(name="bad")
    async def bad() -> None:
        raise ValueError("no")

    @app.task(name="slow", timeout="1s")
    async def slow() -> None:
        await asyncio.sleep(60)

    async with app.testing(raise_errors=False) as t:
        done = await app.enqueue(good)
        await t.advance(0)
        failed = await app.enqueue(bad)
        await t.advance(0)
        late = await app.enqueue(slow)
        await t.advance("2s")
        stopped = await app.enqueue(slow)
        await t.advance("0.5s")
        await stopped.cancel()
        await t.advance(0)

    assert [type(event).__name__ for event in heard] == [
        "AppStarted",
        *["JobStarted", "JobSucceeded"],
        *["JobStarted", "JobFailed"],
        *["JobStarted", "JobFailed"],
        *["JobStarted", "JobCancelled"],
        "AppStopping",
    ]
    ends = [event for event in heard if isinstance(event, events.JobEnded)]
    assert [end.job_id for end in ends] == [done.id, failed.id, late.id, stopped.id]
    assert [end.seconds for end in ends][2:] == [1.0, 0.5]
    assert isinstance(ends[1], events.JobFailed)
    assert (repr(ends[1].error), ends[1].outcome, ends[1].is_final) == ("ValueError('no')", "failed", True)
    assert isinstance(ends[2], events.JobFailed)
    assert ends[2].outcome == "timed_out"


async def test_what_becomes_of_fire_times_is_told() -> None:
    app = App()
    heard = listening(app)

    @app.every("10s", name="poll")
    async def poll() -> None:
        await asyncio.sleep(15)

    async with app.testing() as t:
        await t.advance("26s")
        t.clock.suspend("40s")
        await t.advance("1s")

    answered = [event for event in heard if isinstance(event, events.FireTimeAnswered)]
    assert [(event.outcome, event.count) for event in answered] == [
        ("ran", 1),
        ("skipped", 1),
        ("missed", 3),
        ("ran", 1),
    ]
    assert answered[1].blocked_by == answered[0].job_id
    assert [event.seconds for event in heard if isinstance(event, events.ClockJumped)] == [40.0]


async def test_a_trigger_that_raises_is_told_and_so_are_pause_and_resume() -> None:
    app, trigger = App(), Breaking()
    heard = listening(app)

    @app.schedule(trigger, name="poll")
    async def poll() -> None: ...

    async with app.testing() as t:
        await app.schedules["poll"].pause()
        await app.schedules["poll"].resume()
        trigger.error = RecursionError("round and round")
        await t.advance("10s")

    told = [event for event in heard if "Schedule" in type(event).__name__]
    assert told[:2] == [events.SchedulePaused(schedule="poll"), events.ScheduleResumed(schedule="poll")]
    assert told[2:] == [events.ScheduleBroken(schedule="poll", error=trigger.error)]


async def test_a_handler_hears_only_what_it_asked_for_and_what_derives_from_it() -> None:
    app = App()
    heard: list[tuple[str, str]] = []

    @app.on(events.JobSucceeded, events.AppStopping)
    async def two(event: Event) -> None:
        heard.append(("two", type(event).__name__))

    @app.on(events.JobEvent)
    async def jobs(event: events.JobEvent) -> None:
        heard.append(("jobs", type(event).__name__))

    @app.task()
    async def work() -> None: ...

    async with app.testing() as t:
        await app.enqueue(work)
        await t.advance(0)

    assert sorted(heard) == [
        ("jobs", "JobStarted"),
        ("jobs", "JobSucceeded"),
        ("two", "AppStopping"),
        ("two", "JobSucceeded"),
    ]


@pytest.mark.parametrize(
    "error", [ValueError("no"), SystemExit(1), RecursionError(), MemoryError(), asyncio.CancelledError()]
)
async def test_a_handler_that_raises_goes_on_and_disturbs_nobody(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()
    heard = []

    @app.on(events.JobStarted)
    async def broken(event: events.JobStarted) -> None:
        heard.append(event.job_id)
        raise error

    @app.on(events.JobStarted)
    def broken_too(event: events.JobStarted) -> None:
        heard.append(event.job_id)
        raise error

    @app.task()
    async def work() -> int:
        return 1

    async with app.testing() as t:
        jobs = [await app.enqueue(work) for _ in range(3)]
        await t.advance(0)
        assert [await job for job in jobs] == [1, 1, 1]

    assert sorted(heard) == sorted([job.id for job in jobs] * 2)
    assert caplog.text.count(".broken raised at JobStarted(") == 3
    assert caplog.text.count(".broken_too raised at JobStarted(") == 3


async def test_a_slow_handler_loses_events_and_says_how_many(caplog: pytest.LogCaptureFixture) -> None:
    app, gate = App(), asyncio.Event()
    heard = 0

    @app.on(events.JobSucceeded)
    async def slow(event: events.JobSucceeded) -> None:
        nonlocal heard
        await gate.wait()
        heard += 1

    @app.task()
    async def work() -> None: ...

    async with app.testing() as t:
        await app.enqueue(work)
        await t.advance(0)  # the handler has this one in its hands
        for _ in range(LINE + 49):
            await app.enqueue(work)
        await t.advance(0)
        assert app._engine is not None
        assert app._engine.succeeded_count == LINE + 50  # nobody waited for the handler
        gate.set()
        await t.advance(0)

    assert heard == LINE + 1
    name = "test_a_slow_handler_loses_events_and_says_how_many.<locals>.slow"
    assert [message for message in caplog.messages if "handler" in message] == [
        f"the handler {name} is too slow: {LINE} events wait for it; further ones are lost to it until it catches up",
        f"the handler {name} has lost 49 events",
    ]


async def test_what_waits_for_a_handler_is_heard_before_the_app_has_stopped() -> None:
    app = App()
    heard = []

    @app.on(events.JobSucceeded)
    async def slow(event: events.JobSucceeded) -> None:
        await asyncio.sleep(0.1)
        heard.append(event)

    @app.task()
    async def work() -> None: ...

    async with app.testing() as t:
        for _ in range(5):
            await app.enqueue(work)
        await t.advance(0)
        assert heard == []

    assert len(heard) == 5


async def test_a_handler_that_never_ends_does_not_hold_the_stop(caplog: pytest.LogCaptureFixture) -> None:
    app = App(cancel_seconds=2)

    @app.on(events.JobSucceeded)
    async def stuck(event: events.JobSucceeded) -> None:
        await asyncio.Event().wait()

    @app.task()
    async def work() -> None: ...

    async with app.testing() as t:
        for _ in range(3):
            await app.enqueue(work)
        await t.advance(0)
        begun = t.now

    assert (t.now - begun).total_seconds() == 2
    assert any(message.endswith("did not hear the last 2 events") for message in caplog.messages)


async def test_a_plain_handler_runs_in_a_thread() -> None:
    app = App()
    threads = []

    @app.on(events.JobSucceeded)
    def hear(event: events.JobSucceeded) -> None:
        threads.append(threading.current_thread().name)

    @app.task()
    async def work() -> None: ...

    async with app.testing() as t:
        await app.enqueue(work)
        await t.advance(0)

    assert [name.startswith("tickwork-thread-") for name in threads] == [True]


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [
        (tickwork.JobFailed, "did you mean tickwork.events.JobFailed?"),
        (int, "see tickwork.events"),
    ],
)
def test_what_is_no_event_is_refused(kind: Any, remedy: str) -> None:
    with pytest.raises(InvalidOption) as raised:
        App().on(kind)(lambda event: None)

    assert str(raised.value) == f"event must be an event, got {kind!r}; {remedy}"


def test_a_decorator_without_an_event_is_refused() -> None:
    def hear(event: Event) -> None: ...

    for given in ((), (hear,)):
        with pytest.raises(InvalidOption) as raised:
            App().on(*given)
        assert str(raised.value) == f"event must be an event, got {given!r}; such as @app.on(events.JobFailed)"


def test_every_event_is_in_the_list_and_in_the_documentation() -> None:
    made = {found for found in vars(events).values() if inspect.isclass(found) and issubclass(found, Event)}
    page = (Path(__file__).parent.parent / "docs" / "watching.md").read_text(encoding="utf-8")

    assert made == set(EVENTS)
    assert [event.__name__ for event in EVENTS if f"| `{event.__name__}` |" not in page] == []


# -- logging --------------------------------------------------------------------------------------------------------


async def test_lines_written_inside_a_job_carry_the_job(caplog: pytest.LogCaptureFixture) -> None:
    app, mine = App(), logging.getLogger("mine")
    caplog.handler.addFilter(JobFilter())

    @app.task(name="on-loop")
    async def on_loop() -> None:
        mine.warning("one")
        await asyncio.create_task(deeper())

    async def deeper() -> None:
        mine.warning("two")

    @app.task(name="in-thread")
    def in_thread(ctx: Context) -> None:
        ctx.log.warning("three")
        mine.warning("four", extra={"job_id": "my own"})

    async with app.testing() as t:
        first, second = await app.enqueue(on_loop), await app.enqueue(in_thread)
        mine.warning("outside")
        await t.advance(0)

    told = {
        record.message: (
            getattr(record, "job_id", None),
            getattr(record, "task", None),
            getattr(record, "attempt", None),
        )
        for record in caplog.records
    }
    assert told["one"] == told["two"] == (first.id, "on-loop", 1)
    assert told["three"] == (second.id, "in-thread", 1)
    assert told["four"] == ("my own", None, None)
    assert told["outside"] == (None, None, None)
