"""Schedules are declared, changed and removed."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from ..errors import NotRunning, UnknownSchedule
from ..stores.base import Pause, Remove
from .kit import START, HandClock, StoreChecks, declare, ending

if TYPE_CHECKING:
    from ..stores.base import Store


class ScheduleChecks(StoreChecks):
    """Schedules are declared, changed and removed."""

    async def test_a_changed_trigger_starts_from_now_and_an_equal_one_goes_on(
        self, store: Store, clock: HandClock
    ) -> None:
        (row,) = await store.set_schedule([declare()])
        fired = await self.fire(store, clock, 1)
        clock.advance(30)
        (same,) = await store.set_schedule([declare()])
        next_at = clock.now() + timedelta(seconds=5)
        (changed,) = await store.set_schedule([declare(fingerprint="g", after_seconds=5.0, next_at=next_at)])
        assert row is not None
        assert changed is not None

        assert same == fired.row
        assert (changed.version, changed.watermark, changed.declared_at) == (3, clock.now(), clock.now())
        assert (changed.runs, changed.fingerprint) == (1, "g")
        assert (changed.after_seconds, changed.next_at) == (5.0, next_at)
        assert (await self.fire(store, clock, 2)).outcome is None  # a process that has the older trigger

    async def test_a_paused_schedule_takes_no_firing_and_resumes_from_now(self, store: Store, clock: HandClock) -> None:
        await store.set_schedule([declare()])
        (paused,) = await store.set_schedule([Pause(name="s", paused=True)])
        (again,) = await store.set_schedule([Pause(name="s", paused=True)])
        assert paused is not None
        assert paused == again
        assert (paused.paused, paused.version, paused.watermark) == (True, 2, START)
        assert (await self.fire(store, clock, 2)).outcome is None
        manual = await self.fire(store, clock, None)
        assert manual.outcome == "ran"
        passed: dict[str, Any] = {
            "passed_first": START + timedelta(seconds=60),
            "passed_last": clock.now(),
            "passed_count": 2,
        }
        (resumed,) = await store.set_schedule([Pause(name="s", paused=False, **passed)])

        assert resumed is not None
        assert (resumed.paused, resumed.version, resumed.watermark) == (False, 3, clock.now())
        answer = await self.newest(store)
        assert (answer.outcome, answer.count, answer.first, answer.last) == (
            "paused",
            2,
            START + timedelta(seconds=60),
            clock.now(),
        )
        assert await store.set_schedule([Pause(name="s", paused=False)]) == [resumed]

    async def test_a_resumed_schedule_goes_on_from_where_the_pause_was_told(
        self, store: Store, clock: HandClock
    ) -> None:
        await store.set_schedule([declare(), Pause(name="s", paused=True)])
        clock.advance(120)
        told = clock.now()
        clock.advance(30)  # the store is asked later than the trigger was
        (resumed,) = await store.set_schedule([Pause(name="s", paused=False, watermark=told)])

        assert resumed is not None
        assert resumed.watermark == told

    async def test_resuming_names_the_next_fire_time_after_end(self, store: Store, clock: HandClock) -> None:
        await store.set_schedule([declare(after_seconds=60.0, next_at=START), Pause(name="s", paused=True)])
        next_at = START + timedelta(hours=1)
        (resumed,) = await store.set_schedule([Pause(name="s", paused=False, next_at=next_at)])

        assert resumed is not None
        assert resumed.next_at == next_at

    async def test_changes_of_schedules_are_made_all_or_none(self, store: Store, clock: HandClock) -> None:
        await store.set_schedule([declare("known")])
        with pytest.raises(UnknownSchedule) as refused:
            await store.set_schedule([declare(), Remove(name="known"), Pause(name="knwon", paused=True)])

        assert str(refused.value).startswith("no schedule named 'knwon'")
        assert [row.name for row in await store.schedules()] == ["known"]

    async def test_schedules_are_listed_by_name(self, store: Store, clock: HandClock) -> None:
        await store.set_schedule([declare("b"), declare("a"), declare("c")])

        assert [row.name for row in await store.schedules()] == ["a", "b", "c"]
        assert [row.name for row in await store.schedules(["c", "x", "a"])] == ["a", "c"]
        assert await store.schedules([]) == []

    async def test_a_clock_set_back_moves_no_watermark_back(self, store: Store, clock: HandClock) -> None:
        await store.set_schedule([declare()])
        fired = await self.fire(store, clock, 1)
        assert fired.row is not None
        clock.seconds -= 3600
        await store.set_schedule([Pause(name="s", paused=True)])
        (resumed,) = await store.set_schedule([Pause(name="s", paused=False)])
        (changed,) = await store.set_schedule([declare(fingerprint="other")])

        assert resumed is not None
        assert changed is not None
        assert resumed.watermark == changed.watermark == fired.row.watermark

    async def test_a_removed_schedule_takes_no_firing_and_its_jobs_stay(self, store: Store, clock: HandClock) -> None:
        await store.set_schedule([declare()])
        fired = await self.fire(store, clock, 1)
        assert fired.job is not None
        assert await store.set_schedule([Remove(name="s"), Remove(name="never")]) == [None, None]

        gone = await self.fire(store, clock, 2)
        assert (gone.outcome, gone.row) == (None, None)
        assert await store.schedules() == []
        assert await store.ledger("s") == []
        record = await self.claim_one(store)
        assert record.id == fired.job.id
        assert await store.finish([ending(record)]) == [True]

    async def test_a_worker_may_say_that_it_lives(self, store: Store, clock: HandClock) -> None:
        await store.beat(self.worker)

    async def test_a_second_close_does_nothing(self, store: Store) -> None:
        await store.close()
        with suppress(NotRunning):
            await store.counts()
        await store.close()
