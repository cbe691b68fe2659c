"""Health: whether the app does what it should."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tickwork import App, Every, Trigger
from tickwork.errors import NotRunning

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
