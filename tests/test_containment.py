"""What users' own code raises, and what a store raises, stops nothing but itself; it is seen, and it passes."""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest

from cli.command import Running
from tickwork import App, Context, Every, JobState, Trigger, events
from tickwork.stores.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tickwork.stores.base import Store

START = datetime(2026, 1, 1, tzinfo=UTC)


class Odd(BaseException):
    """Derived from nothing that people expect."""


KINDS = [ValueError, Odd, RecursionError, MemoryError, SystemExit, asyncio.CancelledError]


@pytest.fixture(params=KINDS)
def error(request: pytest.FixtureRequest) -> BaseException:
    made: BaseException = request.param("no")
    return made


@pytest.fixture(params=[kind for kind in KINDS if kind is not SystemExit])
def no_exit(request: pytest.FixtureRequest) -> BaseException:
    """Any error but SystemExit, which ends the program, here as anywhere: asyncio passes it on, whatever catches it."""
    made: BaseException = request.param("no")
    return made


@pytest.fixture
def anyio_backend(virtual_backend: Any) -> Any:
    return virtual_backend


def after(**elapsed: float) -> datetime:
    return START + timedelta(**elapsed)


def traced(caplog: pytest.LogCaptureFixture, error: BaseException) -> list[str]:
    """Return the messages of the records at ERROR or above that carry the traceback of an error."""
    return [r.getMessage() for r in caplog.records if r.exc_info and r.exc_info[1] is error and r.levelno >= 40]


# --- triggers ------------------------------------------------------------------------------------------------------


class Raising(Trigger):
    """Every ten seconds, but one of its parts raises while it is told to."""

    def __init__(self, part: str) -> None:
        self.part = part
        self.error: BaseException | None = None

    def _may_raise(self, part: str) -> None:
        if self.error is not None and self.part == part:
            raise self.error

    def next(self, after: datetime) -> datetime | None:
        self._may_raise("next")
        return Every("10s").next(after)

    @property
    def fingerprint(self) -> str:
        self._may_raise("fingerprint")
        return "raising"

    def __repr__(self) -> str:
        self._may_raise("repr")
        return "Raising()"


@pytest.mark.parametrize("part", ["next", "fingerprint", "repr"])
async def test_a_trigger_that_raises_from_the_start_stops_its_own_schedule(
    part: str, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    app, trigger, broken = App(), Raising(part), list[events.ScheduleBroken]()

    @app.on(events.ScheduleBroken)
    async def hear(event: events.ScheduleBroken) -> None:
        broken.append(event)

    @app.schedule(trigger, name="bad")
    @app.every("10s", name="good")
    async def work() -> None: ...

    trigger.error = error
    async with app.testing() as t:
        await t.advance("30s")

        bad = app.schedules["bad"]
        assert t.fires("good") == [after(seconds=10), after(seconds=20), after(seconds=30)]
        assert bad.error is error
        assert broken == [events.ScheduleBroken(schedule="bad", error=error)]
        assert (await app.health()).problems == ["the trigger of schedule bad raised, so it has stopped"]
        assert traced(caplog, error) == ["the trigger of schedule bad raised, so it stops; resume() tries it again"]

        await bad.pause()
        await bad.resume()
        assert bad.error is error
        trigger.error = None
        await bad.resume()
        await t.advance("10s")
        assert (await app.health()).is_ok
        assert t.fires("bad")[-1] == after(seconds=40)


async def test_a_trigger_that_raises_can_still_be_asked_about(error: BaseException) -> None:
    app, trigger = App(), Raising("next")

    @app.schedule(trigger, name="bad")
    async def work() -> None: ...

    async with app.testing() as t:
        await t.advance("10s")
        trigger.error = error
        await t.advance("20s")
        bad = app.schedules["bad"]

        assert [row.outcome for row in await bad.history()] == ["ran"]
        assert " ran as job " in str(await bad.why("00:00:10"))
        assert str(await bad.why("00:00:30")) == (
            f"bad, 2026-01-01 00:00:30 +0000: nothing is recorded, and the trigger raised {error!r}"
        )


# --- tasks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run_in", ["loop", "thread"])
async def test_a_job_that_raises_stops_neither_its_schedule_nor_others(
    run_in: str, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    app, heard = App(workers=1), list[BaseException]()

    @app.on_error
    async def hear(ctx: Context, raised: BaseException) -> None:
        heard.append(raised)

    @app.task(name="bad")
    async def bad() -> None:
        raise error

    @app.task(name="bad-in-thread")
    def bad_in_thread() -> None:
        raise error

    @app.every("10s", name="good")
    async def good() -> None: ...

    async with app.testing(raise_errors=False) as t:
        task = app.tasks["bad" if run_in == "loop" else "bad-in-thread"]
        await app.schedules.add(task, Every("10s"), name="poll")
        await t.advance("30s")

        assert len(t.fires("poll")) == len(t.fires("good")) == 3
        jobs = [job.state for job in t.jobs if job.schedule == "poll"]
        if isinstance(error, asyncio.CancelledError):
            assert jobs == [JobState.CANCELLED] * 3
        else:
            assert jobs == [JobState.FAILED] * 3
            assert heard == [error] * 3
            assert len(traced(caplog, error)) == 3
        assert (await app.health()).is_ok


# --- listeners -----------------------------------------------------------------------------------------------------


async def test_a_listener_that_raises_is_logged_and_hears_the_next(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    app, heard = App(), list[str]()

    @app.on(events.FireTimeAnswered)
    async def bad(event: events.FireTimeAnswered) -> None:
        heard.append("on the loop")
        raise error

    @app.on(events.FireTimeAnswered)
    def bad_in_thread(event: events.FireTimeAnswered) -> None:
        heard.append("in a thread")
        raise error

    @app.on_error
    async def bad_on_error(ctx: Context, raised: BaseException) -> None:
        heard.append("on_error")
        raise error

    @app.on_error
    def bad_on_error_in_thread(ctx: Context, raised: BaseException) -> None:
        heard.append("on_error in a thread")
        raise error

    @app.every("10s", name="poll")
    async def poll() -> None:
        raise ZeroDivisionError

    async with app.testing(raise_errors=False) as t:
        await t.advance("30s")
        assert len(t.fires("poll")) == 3

    names = ("on the loop", "in a thread", "on_error", "on_error in a thread")
    assert {name: heard.count(name) for name in names} == dict.fromkeys(names, 3)
    assert len(traced(caplog, error)) == 12


# --- contexts ------------------------------------------------------------------------------------------------------


def app_with(lifespan: Callable[[App], Any]) -> tuple[App, list[str]]:
    app, ran = App(lifespan=lifespan), list[str]()

    @app.every("10s", name="poll")
    async def poll() -> None:
        ran.append("poll")

    return app, ran


@pytest.mark.parametrize("where", ["enter", "hook"])
async def test_a_start_that_raises_closes_everything_and_may_be_tried_again(where: str, no_exit: BaseException) -> None:
    raises, closed = True, list[str]()

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        if where == "enter" and raises:
            raise no_exit
        try:
            yield
        finally:
            closed.append("closed")

    app, ran = app_with(lifespan)

    @app.on_start
    def hook() -> None:
        if where == "hook" and raises:
            raise no_exit

    with pytest.raises(type(no_exit)) as raised:
        async with app.testing():
            pass
    assert raised.value is no_exit
    assert closed == (["closed"] if where == "hook" else [])
    assert not app.is_running
    raises = False
    async with app.testing() as t:
        await t.advance("10s")
    assert ran == ["poll"]


async def test_a_context_that_raises_when_it_is_left_leaves_nothing_open(no_exit: BaseException) -> None:
    raises = True

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        yield
        if raises:
            raise no_exit

    app, ran = app_with(lifespan)

    with pytest.raises(type(no_exit)):
        async with app.testing() as t:
            await t.advance("10s")
    raises = False
    async with app.testing() as t:
        await t.advance("10s")
    assert ran == ["poll", "poll"]


# --- stores --------------------------------------------------------------------------------------------------------


class RaisingStore(MemoryStore):
    """A memory store of which some verbs raise while they are told to."""

    verbs: tuple[str, ...] = ()
    error: BaseException
    raised: int = 0

    def __getattribute__(self, name: str) -> Any:
        if name in object.__getattribute__(self, "verbs"):
            return object.__getattribute__(self, "_raise")
        return object.__getattribute__(self, name)

    async def _raise(self, *args: Any, **named: Any) -> Any:
        self.raised += 1
        raise self.error


class RaisingApp(App):
    raising: RaisingStore

    def _make_store(self) -> Store:
        self.raising = RaisingStore(self._clock)
        return self.raising


@pytest.mark.parametrize("verb", ["fire", "claim", "finish", "schedules", "wait_claimable"])
async def test_a_store_that_raises_is_asked_again_until_it_does_not(
    verb: str, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    app, failures, ran = RaisingApp(), list[events.StoreFailed](), list[datetime]()

    @app.on(events.StoreFailed)
    async def hear(event: events.StoreFailed) -> None:
        failures.append(event)

    @app.every("10s", name="grid")
    @app.every("10s", name="end", after="end")
    async def work() -> None:
        ran.append(t.now)

    async with app.testing() as t:
        await t.advance("15s")
        assert (await app.health()).is_ok
        app.raising.verbs, app.raising.error = (verb,), error
        await t.advance("20s")

        assert app.raising.raised >= 2
        health = await app.health()
        assert health.store_error is error
        assert health.problems == [f"the store raised {error!r}, and is asked again"]
        doing = "claim" if verb == "wait_claimable" else verb
        assert {(event.doing, event.error) for event in failures} == {(doing, error)}
        assert len(traced(caplog, error)) == len(failures)
        assert app._failed is not None
        assert not app._failed.done()

        app.raising.verbs = ()
        ran.clear()
        await t.advance("35s")
        assert (await app.health()).is_ok
        assert len(t.fires("grid")) >= 5
        assert max(t.fires("grid")) == after(seconds=70)
        assert len(ran) >= 6
        assert {job.state for job in t.jobs} == {JobState.SUCCEEDED}


async def test_a_store_that_raises_for_a_person_raises_to_that_person_only(error: BaseException) -> None:
    app = RaisingApp()

    @app.every("10s", name="poll")
    async def poll() -> None: ...

    async with app.testing() as t:
        app.raising.verbs, app.raising.error = ("ledger",), error
        with pytest.raises(type(error)):
            await app.schedules["poll"].history()
        with pytest.raises(type(error)):
            await app.schedules["poll"].why("00:00")
        app.raising.verbs = ("set_schedule",)
        with pytest.raises(type(error)):
            await app.schedules["poll"].pause()
        with pytest.raises(type(error)):
            await app.schedules.add(app.tasks["poll"], Every("1s"), name="more")
        app.raising.verbs = ()
        await t.advance("20s")

        assert list(app.schedules) == ["poll"]
        assert len(t.fires("poll")) == 2


async def test_a_store_that_raises_while_the_app_stops_is_asked_for_some_seconds(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    app, ended = RaisingApp(workers=1, cancel_seconds=3), list[str]()

    @app.task(name="work")
    async def work() -> None:
        await asyncio.sleep(1)
        ended.append("work")

    async with app.testing() as t:
        jobs = [await app.enqueue(work) for _ in range(3)]
        await t.advance(0)
        waits = asyncio.ensure_future(jobs[0].result())
        await t.advance(0)
        app.raising.verbs, app.raising.error = ("finish", "release"), error

    assert ended == ["work"]
    assert not app.is_running
    assert "the store failed to take back 1 unstarted jobs" in traced(caplog, error)
    assert f"stopped without the store: the ends of 1 jobs are lost: {jobs[0].id}" in caplog.messages
    assert (t.now - START).total_seconds() == 4
    with pytest.raises(BaseException, match="the app stopped before it had ended"):
        await waits


async def test_a_store_that_recovers_while_the_app_stops_is_given_all_ends() -> None:
    app = RaisingApp(workers=1)

    @app.task(name="work")
    async def work() -> None:
        app.raising.verbs, app.raising.error = ("finish",), OSError("away")
        asyncio.get_running_loop().call_later(2.5, setattr, app.raising, "verbs", ())

    async with app.testing() as t:
        await app.enqueue(work)
        await t.advance(0)

    assert [job.state for job in t.jobs] == [JobState.SUCCEEDED]


async def test_a_store_that_raises_when_it_is_closed_leaves_an_app_that_can_start_again(no_exit: BaseException) -> None:
    app = RaisingApp()

    with pytest.raises(type(no_exit)):
        async with app.testing():
            app.raising.verbs, app.raising.error = ("close",), no_exit
    async with app.testing():
        assert app.is_running


# --- parts of the app ----------------------------------------------------------------------------------------------

DEATHS = {
    "scheduler": """
        app._scheduler._clock = None
        app._scheduler._changed.set()
    """,
    "feeder": """
        app._dispatcher._admit = None
        await app.enqueue(work)
    """,
    "writer": """
        app._dispatcher._written.wait = None
        await app.enqueue(work)
    """,
}
JOBS = """
from tickwork import App

app = App()

@app.every("1h", name="work")
async def work(): ...

@app.on_start
async def break_it():
    {body}
"""


@pytest.mark.parametrize("part", list(DEATHS))
async def test_the_death_of_a_part_is_loud(part: str, caplog: pytest.LogCaptureFixture) -> None:
    app = App()

    @app.every("1h", name="work")
    async def work() -> None: ...

    async with app:
        namespace = {"app": app, "work": work}
        exec(f"async def break_it():\n{indented(DEATHS[part])}", namespace)
        await namespace["break_it"]()  # type: ignore[operator]
        error = await app.wait_failed()
        health = await app.health()

    assert isinstance(error, TypeError | AttributeError)
    assert health.died is error
    assert f"a part of the app died: {error!r}" in health.problems
    told = [(record.levelno, record.getMessage()) for record in caplog.records if record.exc_info]
    assert told == [(logging.CRITICAL, f"the {part} of the app died; the app no longer works")]


async def test_a_part_that_is_cancelled_by_nobody_has_died(caplog: pytest.LogCaptureFixture) -> None:
    app = App()

    async def part() -> None:
        raise asyncio.CancelledError

    async with app:
        app._supervise(part(), "part")
        error = await app.wait_failed()

    assert isinstance(error, asyncio.CancelledError)
    assert "the part of the app died; the app no longer works" in caplog.messages


def indented(body: str) -> str:
    return "\n".join(f"    {line}" for line in dedent(body).strip().splitlines())


@pytest.mark.skipif(sys.platform == "win32", reason="processes as POSIX has them")
@pytest.mark.parametrize("part", list(DEATHS))
def test_the_death_of_a_part_ends_the_program_with_status_4(part: str, tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text(JOBS.replace("    {body}", indented(DEATHS[part])))
    with Running("-m", "tickwork", "run", "jobs.py", cwd=tmp_path) as running:
        ended = running.ended()

    assert ended.status == 4, ended.err
    assert f"CRITICAL the {part} of the app died; the app no longer works" in ended.err
    assert "Traceback (most recent call last)" in ended.err


@pytest.mark.skipif(sys.platform == "win32", reason="processes as POSIX has them")
@pytest.mark.parametrize("error", ["ValueError('no')", "BaseException('no')", "asyncio.CancelledError()"])
def test_a_start_that_raises_ends_the_program_with_status_3(error: str, tmp_path: Path) -> None:
    body = f"    import asyncio\n    raise {error}"
    (tmp_path / "jobs.py").write_text(JOBS.replace("    {body}", body))
    with Running("-m", "tickwork", "run", "jobs.py", cwd=tmp_path) as running:
        ended = running.ended()

    assert ended.status == 3, ended.err
    assert "CRITICAL the app could not start" in ended.err


@pytest.mark.skipif(sys.platform == "win32", reason="processes as POSIX has them")
def test_a_start_that_exits_ends_the_program_as_it_says(tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text(JOBS.replace("    {body}", "    raise SystemExit('no address')"))
    with Running("-m", "tickwork", "run", "jobs.py", cwd=tmp_path) as running:
        ended = running.ended()

    assert ended.status == 1, ended.err
    assert "no address" in ended.err
