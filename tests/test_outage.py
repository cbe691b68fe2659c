"""A store that cannot be used for a while is told of once, then each minute, and when it is over."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from tickwork import App
from tickwork.conformance import HandClock
from tickwork.errors import StoreUnavailable
from tickwork.outage import REMIND_SECONDS, Outage
from tickwork.stores.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

    from tickwork.stores.base import Fired, Firing, Store

GONE = StoreUnavailable("db", "nobody answers")


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    """Return what was logged, but for what only a person who debugs sees."""
    return [(record.levelno, record.getMessage()) for record in caplog.records if record.levelno > logging.DEBUG]


def fail(outage: Outage, error: Exception) -> None:
    try:
        raise error
    except Exception as caught:
        outage.tell(caught, "could not count %d; trying again", 7)


def test_it_is_told_once_then_each_minute_and_when_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    clock = HandClock()
    outage = Outage(logging.getLogger("tickwork.test"), clock, "it counts again")

    for _ in range(int(REMIND_SECONDS) + 30):
        fail(outage, GONE)
        clock.advance(1)
    outage.over()
    outage.over()

    assert told(caplog) == [
        (logging.ERROR, "could not count 7; trying again: store db: nobody answers"),
        (logging.ERROR, "for 1m now, could not count 7; trying again: store db: nobody answers"),
        (logging.WARNING, "it counts again, after 1m30s"),
    ]
    assert len(caplog.records) == REMIND_SECONDS + 30 + 1  # each of the others at level DEBUG
    assert not any(record.exc_info for record in caplog.records)


def test_the_next_one_is_told_anew(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage(logging.getLogger("tickwork.test"), HandClock(), "it counts again")

    fail(outage, GONE)
    outage.over()
    fail(outage, GONE)

    assert [level for level, _ in told(caplog)] == [logging.ERROR, logging.WARNING, logging.ERROR]


def test_what_no_store_should_raise_is_told_each_time_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage(logging.getLogger("tickwork.test"), HandClock(), "it counts again")

    fail(outage, ZeroDivisionError("a mistake"))
    fail(outage, ZeroDivisionError("a mistake"))
    outage.over()

    assert told(caplog) == [(logging.ERROR, "could not count 7; trying again")] * 2
    assert all(record.exc_info is not None for record in caplog.records)


class Away(MemoryStore):
    """A store that takes no fire times for a while."""

    left = 0

    async def fire(self, firings: Sequence[Firing]) -> list[Fired]:
        if self.left:
            self.left -= 1
            raise GONE
        return await super().fire(firings)


class AwayApp(App):
    away: Away

    def _make_store(self) -> Store:
        self.away = Away(self._clock)
        return self.away


async def test_an_app_whose_store_is_away_says_so_in_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    app = AwayApp()
    runs = 0

    @app.every("10s", name="poll")
    async def poll() -> None:
        nonlocal runs
        runs += 1

    async with app.testing() as t:
        app.away.left = 5
        await t.advance("30s")

    assert runs == 3
    about = [message for level, message in told(caplog) if level >= logging.WARNING]
    assert about == [
        "the store failed to take 1 fire times; trying again: store db: nobody answers",
        "the store takes fire times again, after 5s",
    ]
