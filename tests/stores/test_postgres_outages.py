"""Outages with all their parts: another server takes over, a disk is full, no connection is free, a link is half open.

What was acknowledged is there once, workers go on by themselves, and who calls meanwhile hears why it fails.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from fleet import Fleet
from postgres_server import following, running
from proxy import Proxy
from stores.test_postgres import CLOCK, go_through, opened
from test_one_firing import expect_each_fire_time_once, finish, stop
from tickwork.conformance import ending, lease, new_job
from tickwork.jobs import JobState
from tickwork.stores.postgres_target import target_of

pytestmark = [pytest.mark.skipif(sys.platform == "win32", reason="needs signals"), pytest.mark.one_python]

WaitUntil = Callable[..., Awaitable[None]]

# -- another server takes over --------------------------------------------------------------------------------------

HOLDERS = """
app = App("sqlite:///jobs.db", workers=4, drain_seconds=10)

@app.every("200ms", name="tick", overlap="allow", catch_up="all")
async def fired(ctx: Context):
    say("fired", ctx.schedule, ctx.job_id, ctx.fire_time.isoformat())

@app.task(name="hold")
async def hold(ctx: Context):
    say("begun", ctx.job_id)
    await wait_for("go on")
    say("ended", ctx.job_id)
"""


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_server_that_takes_over_has_all_that_was_acknowledged(tmp_path: Path, wait_until: WaitUntil) -> None:
    with running(fsync="off") as primary, following(primary, fsync="off", synchronous_standby_names="") as copy:
        with Proxy(primary.port) as proxy:
            url = f"postgresql://tickwork@127.0.0.1:{proxy.port}/postgres"
            with Fleet(tmp_path, HOLDERS, target_of(f"{url}?schema=fleet")) as fleet:
                fleet.start(), fleet.start()
                held = await asyncio.to_thread(fleet.enqueue, "hold", "hold")
                await asyncio.to_thread(fleet.wait_said, "begun", times=2)
                await asyncio.to_thread(fleet.wait_said, "fired", times=3)
                late = target_of(f"{url}?schema=late")
                async with opened(late, worker="late", lease_seconds=1.0, keeps_house=False) as owner:
                    await owner.enqueue([job := new_job(CLOCK)])
                    (claimed,) = await owner.claim(worker="late", tasks={"t"}, limit=1, lease_seconds=1.0)

                    def fail_over() -> None:
                        primary.stop()
                        copy.promote()
                        proxy.lead_to(copy.port)

                    await go_through(target_of(f"{url}?schema=busy"), [fail_over], wait_until)

                    async with opened(late, worker="next", keeps_house=False) as other:
                        while not await other.rescue():  # its lease is over within a second
                            await asyncio.to_thread(fleet.wait_said, "fired", times=len(fleet.lines("fired")) + 1)
                        (again,) = await other.claim(worker="next", tasks={"t"}, limit=1)
                        assert (claimed.token, again.token) == (1, 2)
                        assert await owner.finish([ending(claimed)]) == [False]
                        assert await owner.progress(lease(claimed)) is False
                        assert await other.finish([ending(again)]) == [True]
                        assert (await owner.job(job.id)).state is JobState.SUCCEEDED

                await asyncio.to_thread(fleet.wait_said, "fired", times=len(fleet.lines("fired")) + 5)
                fleet.touch("go on")
                await asyncio.to_thread(fleet.wait_said, "ended", times=2)
                await asyncio.to_thread(stop, fleet)
                await asyncio.to_thread(finish, fleet)
                assert sorted(fleet.said("ended")) == sorted(fleet.said("begun")) == sorted(held)
                assert await asyncio.to_thread(expect_each_fire_time_once, fleet, "tick", []) >= 8
