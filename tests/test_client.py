"""A process that only enqueues: it runs nothing, and hears of the ends of what others run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fleet import Fleet
from tickwork import App, events
from tickwork.errors import JobFailed, NotRunning, QueueFull, UnknownSchedule
from tickwork.jobs import JobState

PROGRAM = """
app = App("sqlite:///jobs.db", workers=2, max_queued=3)

@app.on_start
def started():
    say("started")

@app.every("1000d", first="now", name="hourly")
async def hourly():
    say("fired")

@app.task(name="double")
async def double(number: int) -> int:
    say("double", number)
    if number < 0:
        raise ValueError(f"{number} is negative")
    return 2 * number

@app.task(name="wait")
async def wait():
    say("waiting")
    try:
        await wait_for("go")
    except asyncio.CancelledError:
        say("cancelled")
        raise
"""

CLIENT = """
import asyncio
from jobs import app, double, say, wait
from tickwork.errors import JobCancelled, JobFailed

async def main():
    async with app.client():
        say("client")
        jobs = [await double.enqueue(number) for number in range(20)]
        say("sum", sum([await job.result(timeout=30) for job in jobs]))
        try:
            await (await double.enqueue(-1)).result(timeout=30)
        except JobFailed as error:
            say("failed", error)
        job = await wait.enqueue()
        while (await job.record()).state != "running":
            await asyncio.sleep(0.01)
        say("cancelling", await job.cancel())
        try:
            await job.result(timeout=30)
        except JobCancelled:
            say("gone")

asyncio.run(main())
"""


def test_a_client_enqueues_and_hears_of_the_ends_in_another_process(tmp_path: Path) -> None:
    with Fleet(tmp_path, PROGRAM) as fleet:
        (tmp_path / "client.py").write_text(CLIENT)
        client = fleet.start("client.py")
        fleet.wait_states(queued=3)  # there is room for no more, and nobody runs them
        assert fleet.said("started") == fleet.said("fired") == fleet.said("double") == []
        assert fleet.ask(lambda store: store.schedules()) == []

        worker = fleet.start()
        fleet.wait_said("gone")
        assert client.ended().status == 0, client.err
        assert (client.out, client.err) == ("", "")

        assert fleet.said("sum") == ["380"]
        assert " ".join(fleet.lines("failed")[0].words[1:]).endswith("ValueError: -1 is negative")
        assert fleet.said("cancelling") == ["True"]
        assert {line.pid for word in ("double", "started", "fired", "waiting") for line in fleet.lines(word)} == {
            worker.pid
        }


async def nothing() -> None: ...


async def test_a_client_is_none_of_the_workers_and_opens_nothing_for_jobs(tmp_path: Path) -> None:
    heard: list[object] = []

    async def resources(app: App) -> AsyncIterator[None]:
        heard.append("lifespan")
        yield None

    app = App(f"sqlite:///{tmp_path}/jobs.db", lifespan=resources)
    app.on_start(lambda: heard.append("on_start"))
    app.on(events.AppStarted, events.AppStopping)(heard.append)
    app.every("1h", name="hourly")(nothing)

    @app.task()
    async def work() -> None:
        heard.append("ran")

    async with app.client() as state:
        assert state == {"tickwork": app}
        assert app.is_running
        job = await work.enqueue()
        with pytest.raises(TimeoutError):
            await job.result(timeout=0.05)
        assert await (await work.options(delay="1h").enqueue()).cancel()
        with pytest.raises(NotRunning) as twice:
            await app.start()
        with pytest.raises(NotRunning) as nothing_here:
            await app.enqueue_here(work, (), {})
        with pytest.raises(UnknownSchedule) as unscheduled:
            await app.schedules["hourly"].pause()
        assert not (tmp_path / "jobs.db-workers").exists() or not list((tmp_path / "jobs.db-workers").iterdir())
        assert (await job.record()).state is JobState.QUEUED

    still = not app.is_running
    assert still
    assert heard == []
    assert str(twice.value) == "the app has started already; one app runs once at a time"
    assert str(nothing_here.value) == "a client runs no jobs; use app.enqueue(task, ...)"
    assert str(unscheduled.value) == "no schedule named 'hourly'; known: none"
    with pytest.raises(NotRunning, match="no started app includes"):
        await work.enqueue()

    async with app:  # the same app may work afterwards
        await job
    assert "ran" in heard


async def test_an_app_in_memory_has_no_clients() -> None:
    with pytest.raises(NotRunning) as refused:
        async with App().client():
            pass

    assert str(refused.value) == (
        "an app in memory has no clients: no other process could run what they enqueue; let it keep its jobs: "
        'App("sqlite:///jobs.db")'
    )


async def test_a_client_that_cannot_open_the_file_leaves_an_app_that_can_be_started(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    app = App(f"sqlite:///{folder}/jobs.db")
    with pytest.raises(Exception, match="unable to open|No such file"):
        async with app.client():
            pass
    await asyncio.to_thread(folder.mkdir)

    async with app.client():
        pass


async def test_a_client_meets_the_bound_of_the_store(tmp_path: Path) -> None:
    app = App(f"sqlite:///{tmp_path}/jobs.db", max_queued=1)

    @app.task()
    async def work() -> None: ...

    async with app.client():
        await work.enqueue()
        with pytest.raises(QueueFull):
            await work.enqueue_nowait()


async def test_who_waits_for_the_end_of_all_jobs_hears_of_those_of_others(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/jobs.db"
    worker, client = App(url), App(url)
    go = asyncio.Event()

    @worker.task(name="work")
    async def work() -> None:
        await go.wait()
        raise ValueError("no")

    @client.task(name="work")
    async def same() -> None: ...

    async with worker, client.client():
        job = await client.enqueue(same)
        idle = asyncio.ensure_future(client.wait_idle())
        await asyncio.sleep(0)
        go.set()
        with pytest.raises(JobFailed):
            await job
        await asyncio.wait_for(idle, 30)
