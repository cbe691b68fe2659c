"""How long an app's file keeps what has ended: what may be asked for, and that it is done."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tickwork import App
from tickwork.clock import SystemClock
from tickwork.errors import InvalidDuration, InvalidOption, ResultExpired, UnknownJob
from tickwork.retention import DEFAULT, Retention

URL = "sqlite:////nowhere/jobs.db"


class Later(SystemClock):
    """The real clock, set forward."""

    def __init__(self, **by: float) -> None:
        super().__init__()
        self.by = timedelta(**by)

    def now(self) -> datetime:
        return super().now() + self.by


def test_it_is_an_hour_a_week_and_a_month_unless_told() -> None:
    assert App(URL).retention == DEFAULT == Retention(3_600, 7 * 86_400, 30 * 86_400)
    told = App(URL, keep_results=timedelta(days=1), keep_jobs="36525d", keep_ledger=1.5)
    assert told.retention == Retention(86_400, 36_525 * 86_400, 1.5)


def test_results_go_with_their_jobs() -> None:
    assert App(URL, keep_jobs="10m").retention == Retention(600, 600, 30 * 86_400)
    with pytest.raises(InvalidOption) as refused:
        App(URL, keep_results="2h", keep_jobs="90m")
    assert str(refused.value) == (
        "keep_results must be at most keep_jobs (1h30m), since a result goes with its job, got '2h'"
    )


@pytest.mark.parametrize("option", ["keep_results", "keep_jobs", "keep_ledger"])
def test_in_memory_nothing_is_kept_by_age(option: str) -> None:
    given: Any = {option: "2h"}
    with pytest.raises(InvalidOption) as refused:
        App(**given)

    assert str(refused.value) == (
        f"{option} must be left out for an app in memory, got '2h'; it keeps the last 1,000; to keep by age, give it a "
        'file: App("sqlite:///jobs.db")'
    )


@pytest.mark.parametrize("value", [0, "0s", "999ms", -1, "36526d", "soon", True, None, float("inf")])
def test_what_is_no_time_to_keep_something_is_refused(value: Any) -> None:
    for option in ("keep_results", "keep_jobs", "keep_ledger"):
        given: Any = {option: value}
        with pytest.raises(InvalidDuration, match=f"^{option} must be a duration"):
            App(URL, **given)


async def test_the_file_forgets_as_the_app_says(tmp_path: Path) -> None:
    def app(**by: float) -> App:
        made = App(
            f"sqlite:///{tmp_path}/jobs.db", keep_results="20m", keep_jobs="2h", keep_ledger="3h", clock=Later(**by)
        )

        @made.every("1000d", name="work", first="now")
        async def work() -> int:
            return 7

        return made

    async with (first := app()):
        schedule = first.schedules["work"]
        while not (rows := await schedule.history()) or rows[0].finished_at is None:
            await asyncio.to_thread(time.sleep, 0.01)
    (job_id,) = [row.job_id for row in rows]
    assert job_id is not None

    async with (second := app(minutes=21)):
        job: Any = await second.job(job_id)
        while (await job.record()).result is not None:
            await asyncio.to_thread(time.sleep, 0.01)
        with pytest.raises(ResultExpired):
            await job

    await expect_rows(app(minutes=121), job_id, is_kept=True)
    await expect_rows(app(minutes=181), job_id, is_kept=False)


async def expect_rows(app: App, job_id: str, *, is_kept: bool) -> None:
    """Expect that a job is gone, and its row of the ledger kept, or not."""
    async with app:
        while True:
            try:
                await app.job(job_id)
            except UnknownJob:
                break
            await asyncio.to_thread(time.sleep, 0.01)
        while (job_id in {row.job_id for row in await app.schedules["work"].history()}) is not is_kept:
            await asyncio.to_thread(time.sleep, 0.01)


async def test_an_app_with_a_file_is_tested_in_memory_all_the_same() -> None:
    app = App(URL, keep_jobs="1h")

    @app.task()
    async def work() -> int:
        return 7

    async with app.testing():
        assert await (await app.enqueue(work)) == 7
