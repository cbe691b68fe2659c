"""Why something ran, or did not: each sentence as a person gets it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from tickwork import App, Cron, Every, Trigger
from tickwork.errors import InvalidInstant
from tickwork.stores.memory import KEEP

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from tickwork.testing import Testing

    Story = Callable[[Testing, App], Coroutine[Any, Any, None]]

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def anyio_backend(virtual_backend: Any) -> Any:
    return virtual_backend


class Teller:
    """A schedule named `poll` under test, and what is said of it, with jobs numbered in their order."""

    def __init__(
        self,
        trigger: Trigger | None = None,
        *,
        start: str = "2026-01-01T00:00",
        zone: str = "UTC",
        takes: float = 60,
        error: BaseException | None = None,
        workers: int = 20,
        **settings: Any,
    ) -> None:
        self.app = App(timezone=zone, workers=workers)
        self.app._random = Random(1)
        self.takes = takes

        @self.app.schedule(trigger or Every("10m"), name="poll", **settings)
        async def poll() -> None:
            await asyncio.sleep(self.takes)
            if error is not None:
                raise error

        @self.app.task(name="occupy")
        async def occupy() -> None:
            await asyncio.sleep(3000)

        self.t = self.app.testing(start, raise_errors=False)
        self.schedule = self.app.schedules["poll"]

    async def __aenter__(self) -> Teller:
        await self.t.__aenter__()
        await self.t.advance(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.takes = 0
        await self.app.stop(0)
        await self.t.__aexit__(None, None, None)

    async def advance(self, duration: str | float) -> None:
        await self.t.advance(duration)

    async def suspend(self, duration: str) -> None:
        self.t.clock.suspend(duration)
        await self.t.advance(0)

    async def cancel(self, number: int) -> None:
        await (await self.app.job(self.t.jobs[number].id)).cancel()
        await self.t.advance(0)

    async def occupy(self, count: int) -> None:
        for _ in range(count):
            await self.app.enqueue(self.app.tasks["occupy"])

    async def why(self, when: str | datetime) -> str:
        """Return the sentence, without the head that is always the same."""
        said = str(await self.schedule.why(when))
        for number, job in enumerate(self.t.jobs):
            said = said.replace(job.id, f"#{number}")
        return said

    async def told(self, when: str) -> str:
        """Return what is told of a time of 1 January, without the time."""
        head, _, told = (await self.why(f"2026-01-01T{when}")).partition(" +0000: ")
        assert head.removesuffix(":00") == f"poll, 2026-01-01 {when}".removesuffix(":00")
        return told


# --- it ran --------------------------------------------------------------------------------------------------------


async def test_a_run_in_time_tells_start_end_and_length() -> None:
    async with Teller() as s:
        await s.advance("15m")

        assert await s.why("00:10") == (
            "poll, 2026-01-01 00:10:00 +0000: ran as job #0, started at 00:10:00; it succeeded at 00:11:00 after 1m"
        )
        answer = (await s.schedule.why("00:10")).answer
        assert answer is not None
        assert answer.outcome == "ran"


async def test_a_run_under_way() -> None:
    async with Teller() as s:
        await s.advance("10m30s")

        assert await s.told("00:10") == "ran as job #0, started at 00:10:00; it is running, for 30s now"


async def test_a_run_that_failed_tells_the_error_in_one_line() -> None:
    async with Teller(takes=0, error=OSError("no route\nto the host")) as s:
        await s.advance("10m")

        assert await s.told("00:10") == (
            "ran as job #0, started at 00:10:00; it failed at 00:10:00 after 0s: OSError: no route ..."
        )


async def test_an_error_without_words_is_told_by_its_type() -> None:
    async with Teller(takes=0, error=ZeroDivisionError()) as s:
        await s.advance("10m")

        assert await s.told("00:10") == (
            "ran as job #0, started at 00:10:00; it failed at 00:10:00 after 0s: ZeroDivisionError"
        )


async def test_a_run_that_was_cancelled() -> None:
    async with Teller(takes=3600) as s:
        await s.advance("11m")
        await s.cancel(0)

        assert await s.told("00:10") == "ran as job #0, started at 00:10:00; it was cancelled at 00:11:00 after 1m"


async def test_a_start_put_off_by_jitter() -> None:
    async with Teller(jitter="1m") as s:
        await s.advance("10m")
        assert await s.told("00:10") == (
            "waits as job #0, put off by 8.062s by its jitter; it is to begin at 00:10:08.062"
        )
        await s.advance("5m")
        assert await s.told("00:10") == (
            "ran as job #0, put off by 8.062s by its jitter, started at 00:10:08.062; "
            "it succeeded at 00:11:08.062 after 1m"
        )


async def test_a_start_for_which_no_worker_was_free() -> None:
    async with Teller(workers=1) as s:
        await s.occupy(1)
        await s.advance("11m")
        assert await s.told("00:10") == (
            "waits as job #1; it has not begun: it is claimed, and waits for a free worker"
        )
        await s.advance("1h")
        assert await s.told("00:10") == (
            "ran as job #1, started at 00:50:00, 40m late because no worker was free: 1 of 1 were busy; "
            "it succeeded at 00:51:00 after 1m"
        )


async def test_a_job_in_the_queue() -> None:
    async with Teller(workers=1) as s:
        await s.occupy(3)
        await s.advance("11m")

        assert await s.told("00:10") == "waits as job #3; it has not begun: it is in the queue"


async def test_a_fire_time_noticed_late_after_a_suspend() -> None:
    async with Teller() as s:
        await s.suspend("15m")
        await s.advance("2m")

        assert await s.told("00:10") == (
            "ran as job #0, noticed 5m late because the clock went forwards by 15m, set or asleep, "
            "started at 00:15:00; it succeeded at 00:16:00 after 1m"
        )


async def test_a_run_at_the_first_sight_of_the_schedule_is_found_by_its_minute() -> None:
    async with Teller(start="2026-01-01T00:03:07", first="now") as s:
        await s.advance("2m")

        assert await s.why("00:03") == (
            "poll, 2026-01-01 00:03:07 +0000: ran as job #0, started at 00:03:07; it succeeded at 00:04:07 after 1m"
        )


# --- it did not ----------------------------------------------------------------------------------------------------


async def test_skipped_names_the_job_in_the_way_as_it_runs_and_when_it_has_ended() -> None:
    async with Teller(takes=1500) as s:
        await s.advance("22m")
        assert await s.told("00:20") == (
            'skipped: job #0, due at 00:10:00 and running since 00:10:00, was not finished; overlap="skip" decided'
        )
        await s.advance("22m")
        assert await s.told("00:20") == (
            "skipped: job #0, due at 00:10:00 and run from 00:10:00 to 00:35:00 (25m), was not finished; "
            'overlap="skip" decided'
        )


async def test_skipped_for_a_job_made_by_hand() -> None:
    async with Teller(takes=600) as s:
        await s.advance("5m")
        await s.schedule.run_now()
        await s.advance("5m")

        assert await s.told("00:10") == (
            'skipped: job #0, made by hand and running since 00:05:00, was not finished; overlap="skip" decided'
        )


async def test_merged_names_the_job_that_stands_for_it() -> None:
    async with Teller(takes=1500, overlap="queue") as s:
        await s.advance("31m")
        expected = 'merged into job #1, due at 00:20:00, which waited its turn; overlap="queue" decided'

        assert await s.told("00:30") == expected
        await s.advance("30m")
        assert await s.told("00:30") == expected


async def test_missed_by_catch_up_alone_and_with_others() -> None:
    async with Teller(catch_up="none") as s:
        await s.suspend("15m")
        assert await s.told("00:10") == (
            'missed: noticed 5m late because the clock went forwards by 15m, set or asleep; catch_up="none" decided'
        )
        await s.suspend("20m")
        # The row that both passes share does not keep when the first was noticed: it must not say 25m.
        assert await s.told("00:10") == (
            "missed: one of 3 from 2026-01-01 00:10:00 +0000 to 2026-01-01 00:30:00 +0000, "
            'noticed at 00:35:00 at the latest; catch_up="none" decided'
        )


async def test_missed_because_the_latest_ran() -> None:
    async with Teller() as s:
        await s.suspend("35m")

        assert await s.told("00:10") == (
            "missed: one of 2 from 2026-01-01 00:10:00 +0000 to 2026-01-01 00:20:00 +0000, noticed at 00:35:00 at the "
            'latest because the clock went forwards by 35m, set or asleep; catch_up="latest" decided'
        )


async def test_missed_by_grace_when_it_was_noticed() -> None:
    async with Teller(grace="1m") as s:
        await s.suspend("15m")

        assert await s.told("00:10") == (
            'missed: noticed 5m late because the clock went forwards by 15m, set or asleep; grace="1m" decided'
        )


async def test_missed_by_grace_when_a_worker_could_have_taken_it() -> None:
    async with Teller(grace="5m", workers=1) as s:
        await s.occupy(2)
        await s.advance("3h")

        assert (
            await s.told("00:10") == 'missed: its job #2 could not begin until 00:50:00, 40m late; grace="5m" decided'
        )


@pytest.mark.parametrize("is_resumed", [False, True])
async def test_paused(is_resumed: bool) -> None:
    async with Teller() as s:
        await s.schedule.pause()
        await s.advance("25m")
        if is_resumed:
            await s.schedule.resume()

        assert await s.told("00:10") == "did not run: the schedule was paused"


async def test_cancelled_before_it_began() -> None:
    async with Teller(workers=1) as s:
        await s.occupy(3)
        await s.advance("12m")
        await s.cancel(-1)

        assert await s.told("00:10") == "did not run: its job #3 was cancelled at 00:12:00, before it began"


# --- no row --------------------------------------------------------------------------------------------------------


async def test_what_is_no_fire_time_tells_its_neighbours() -> None:
    async with Teller(start_at="2026-01-01T00:10Z", end_at="2026-01-01T00:25Z") as s:
        bounded = "Between(Every('10m'), start_at='2026-01-01T00:10:00+00:00', end_at='2026-01-01T00:25:00+00:00')"

        assert await s.told("00:05") == f"no fire time; {bounded} fires after it at 2026-01-01 00:10:00 +0000"
        assert await s.told("00:15") == (
            f"no fire time; {bounded} fires before it at 2026-01-01 00:10:00 +0000 and after it at "
            "2026-01-01 00:20:00 +0000"
        )
        assert await s.told("00:25") == f"no fire time; {bounded} fires before it at 2026-01-01 00:20:00 +0000"


async def test_the_future() -> None:
    async with Teller() as s:
        await s.advance("4m")
        assert await s.told("00:30") == "still to come, in 26m"
        await s.schedule.pause()
        assert await s.told("00:30") == (
            "still to come, in 26m; the schedule is paused, so it will not run unless somebody resumes it"
        )


async def test_a_schedule_finished_by_max_runs() -> None:
    async with Teller(max_runs=1) as s:
        assert await s.told("00:30") == "still to come, in 30m"
        await s.advance("25m")

        assert await s.told("00:20") == "did not run: the schedule was finished (max_runs=1)"
        assert await s.told("00:30") == "will not run: the schedule is finished (max_runs=1)"


@pytest.mark.parametrize("when", ["00:00", "2025-12-31T23:50"])
async def test_what_was_before_the_start(when: str) -> None:
    async with Teller() as s:
        await s.advance("5m")

        assert (await s.why(when)).endswith(
            "00 +0000: not known: the schedule began at 2026-01-01 00:00:00 +0000, and is kept in memory"
        )


async def test_what_is_due_and_not_answered_yet() -> None:
    async with Teller() as s:
        s.t.clock.block("11m")

        assert await s.told("00:10") == "is not answered yet: it was due 1m ago"


async def test_retention_that_has_passed() -> None:
    teller = Teller(Every("1s"), takes=0)
    teller.t.keep = KEEP
    async with teller as s:
        await s.advance(KEEP + 1)

        assert (await s.told("00:00:02")).startswith("ran as job ")
        assert await s.told("00:00:01") == "is no longer in the ledger: its retention has passed"


# --- clock changes -------------------------------------------------------------------------------------------------


async def test_a_time_in_a_gap_is_answered_by_what_ran_after_it() -> None:
    async with Teller(Cron("30 2 * * *"), zone="Europe/Berlin", start="2026-03-28T12:00") as s:
        await s.advance("1d")
        ran = "poll, 2026-03-29 03:00:00 +0200: ran as job #0, started at 03:00:00; it succeeded at 03:01:00 after 1m"
        never = (
            "2026-03-29 02:30:00 never was: clocks there go from 2026-03-29 02:00:00 straight to 2026-03-29 03:00:00. "
        )

        assert await s.why("2026-03-29T02:30") == never + ran
        assert await s.why("02:30") == never + ran
        assert await s.why("03:00") == ran


async def test_a_time_that_came_twice_is_the_first_unless_it_has_an_offset() -> None:
    async with Teller(Cron("30 * * * *"), zone="Europe/Berlin", start="2026-10-24T12:00") as s:
        await s.advance("1d")
        first, second = [n for n, job in enumerate(s.t.jobs) if job.fire_time and job.fire_time.hour in (0, 1)]
        rest = "started at 02:30:00; it succeeded at 02:31:00 after 1m"
        in_first = f"poll, 2026-10-25 02:30:00 +0200: ran as job #{first}, {rest}"
        twice = "2026-10-25 02:30:00 came twice; this is the first time, +0200. "

        assert await s.why("02:30") == twice + in_first
        assert await s.why("2026-10-25T02:30") == twice + in_first
        assert await s.why("2026-10-25T02:30+02:00") == in_first
        assert await s.why("2026-10-25T02:30+01:00") == (
            f"poll, 2026-10-25 02:30:00 +0100: ran as job #{second}, {rest}"
        )


async def test_a_time_of_day_is_the_last_one() -> None:
    async with Teller(Cron("0 3 * * *")) as s:
        await s.advance("26h")
        assert (await s.why("03:00")).startswith("poll, 2026-01-01 03:00:00 +0000: ran as job #0")
        await s.advance("1h")
        assert (await s.why("3:00")).startswith("poll, 2026-01-02 03:00:00 +0000: ran as job #1")
        assert (await s.why(" 03:00:00 ")).startswith("poll, 2026-01-02 03:00:00 +0000: ran as job #1")
        assert (await s.why(START + timedelta(hours=3))).startswith("poll, 2026-01-01 03:00:00 +0000: ran")


# --- after="end" ---------------------------------------------------------------------------------------------------


async def test_after_the_end_of_the_last_job() -> None:
    async with Teller(Every("7m"), after="end") as s:
        assert await s.told("00:07") == "still to come, in 7m"
        assert await s.told("00:08") == (
            "no fire time; the next one is 2026-01-01 00:07:00 +0000; each comes 7m after the end of the last job"
        )
        await s.advance("7m30s")
        assert await s.told("00:14") == (
            "no fire time; the next one comes 7m after the end of the last job, which is not finished"
        )
        await s.advance("8m")
        assert await s.told("00:15") == "ran as job #1, started at 00:15:00; it is running, for 30s now"


async def test_a_minute_in_which_an_ended_job_lets_the_next_begin_is_found() -> None:
    async with Teller(Every("7s"), after="end", takes=5) as s:
        await s.advance("20s")

        assert await s.why("00:00") == (
            "poll, 2026-01-01 00:00:07 +0000: ran as job #0, started at 00:00:07; it succeeded at 00:00:12 after 5s"
        )


async def test_after_end_when_it_is_finished() -> None:
    async with Teller(after="end", max_runs=1) as s:
        await s.advance("30m")

        assert await s.told("00:21") == "no fire time; the schedule is finished (max_runs=1)"


# --- what cannot be read -------------------------------------------------------------------------------------------

EXPECTED = 'when must be a time such as "03:00", "2026-03-29T03:00" or "2026-03-29T03:00+02:00", got '


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ("soon", f"{EXPECTED}'soon'"),
        ("25:00", f"{EXPECTED}'25:00'"),
        ("", f"{EXPECTED}''"),
        ("2026-02-30T00:00", f"{EXPECTED}'2026-02-30T00:00'"),
        (
            datetime(2026, 1, 1),  # noqa: DTZ001
            (
                "when must be an instant, got datetime.datetime(2026, 1, 1, 0, 0); "
                'add an offset ("2026-12-24T18:00:00+01:00", tzinfo=UTC)'
            ),
        ),
        (3, "when must be an aware datetime or an ISO 8601 text, got 3"),
    ],
)
async def test_what_is_no_time_is_refused(when: Any, message: str) -> None:
    async with Teller() as s:
        with pytest.raises(InvalidInstant) as raised:
            await s.schedule.why(when)

    assert str(raised.value) == message
