"""Health: whether the app does what it should."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tickwork import App, Every, Trigger
from tickwork.errors import NotRunning
from tickwork.health import fleet_problems
from tickwork.stores.views import Vitals, WorkerRow

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def anyio_backend(virtual_backend: Any) -> Any:
    return virtual_backend


async def test_an_app_that_does_what_it_should_is_well() -> None:
    app = App()

    @app.every("1m", expect_within="5m")
    async def poll() -> None: ...

    async with app.testing() as t:
        await t.advance("90s")
        health = await app.health()

        assert (health.is_ok, health.problems) == (True, [])
        assert health.scheduler_age == 30


async def test_a_schedule_that_has_not_succeeded_as_expected_is_named() -> None:
    app, fails = App(), False

    @app.every("1h", expect_within="26h", name="backup")
    async def backup() -> None:
        if fails:
            raise OSError("the disk is full")

    async with app.testing(raise_errors=False) as t:
        await t.advance("3h")
        fails = True
        await t.advance("26h")
        assert (await app.health()).is_ok
        await t.advance("1h")
        health = await app.health()

        assert health.problems == ["backup has last succeeded, for 1d3h; expected within 1d2h"]
        assert health.stale[0].succeeded_at == START + timedelta(hours=3)
        fails = False
        await t.advance("1h")
        assert (await app.health()).is_ok


async def test_a_schedule_that_never_ran_is_expected_from_the_start_also_while_it_is_paused() -> None:
    app = App()

    @app.every("1h", expect_within="2h", name="backup")
    async def backup() -> None: ...

    async with app.testing() as t:
        await app.schedules["backup"].pause()
        await t.advance("3h")

        assert (await app.health()).problems == [
            "backup has not succeeded yet, for 3h; expected within 2h; it is paused"
        ]


async def test_a_broken_trigger_is_named() -> None:
    class Broken(Trigger):
        fingerprint = "broken"

        def next(self, after: datetime) -> datetime | None:
            raise ZeroDivisionError

    app = App()

    @app.schedule(Broken(), name="broken")
    @app.schedule(Every("1m"), name="well")
    async def work() -> None: ...

    async with app.testing() as t:
        await t.advance("5m")

        assert (await app.health()).problems == ["the trigger of schedule broken raised, so it has stopped"]
        assert len(t.fires("well")) == 5


async def test_an_app_without_schedules_is_well_however_long_its_scheduler_sleeps() -> None:
    async with App().testing() as t:
        await t.advance("1d")

        assert (await t._app.health()).is_ok


async def test_the_death_of_a_part_is_told() -> None:
    app = App()

    with pytest.raises(AttributeError):
        async with app.testing() as t:
            assert app._scheduler is not None
            app._scheduler._clock = None  # type: ignore[assignment]
            app._scheduler._changed.set()
            with pytest.raises(AttributeError) as raised:
                await t.advance(0)

            health = await app.health()
            assert (health.is_ok, health.died) == (False, raised.value)
            assert health.problems == [f"a part of the app died: {raised.value!r}"]


async def test_an_app_that_does_not_run_has_no_health() -> None:
    with pytest.raises(NotRunning):
        await App().health()


def test_what_is_wrong_with_the_processes_of_a_store_is_told() -> None:
    def worker(pid: int, **settings: Any) -> WorkerRow:
        made: dict[str, Any] = {"started_at": START, "beat_at": START, "tasks": {"t": ""}, **settings}
        return WorkerRow(name=f"{pid}-ab", host="den", pid=pid, **made)

    def told(*workers: WorkerRow, seconds: float = 1.0) -> list[str]:
        return list(fleet_problems(workers, START + timedelta(seconds=seconds), has_schedules=True))

    both = worker(1, vitals=Vitals(scheduler_age=1.0, max_scheduler_age=60.0))
    assert told() == ["no worker process is alive; start one, as with `tickwork run`"]
    assert told(both) == []
    assert told(both, seconds=31) == ["worker 1-ab (pid 1 on den) has told nothing for 31s"]
    assert told(worker(2, vitals=Vitals())) == [
        "no process fires the schedules; start one, as with `tickwork run` or --role scheduler"
    ]
    assert told(worker(3)) == []  # it has just started, and may be about to
    assert told(worker(4, tasks={}, vitals=Vitals(scheduler_age=99.0, max_scheduler_age=60.0))) == [
        "no process runs jobs; start one, as with `tickwork run` or --role worker",
        "the scheduler of worker 4-ab (pid 4 on den) had not looked at what is due for 1m39s",
    ]
