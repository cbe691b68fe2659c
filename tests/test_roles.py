"""Roles: what a process does of what an app has to do, and the fleet of processes that do it together."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cli.command import tickwork
from fleet import Fleet
from tickwork import App
from tickwork._version import __version__
from tickwork.errors import InvalidOption, NotRunning
from tickwork.jobs import JobState

PROGRAM = """
app = App("sqlite:///jobs.db", workers=2, role=os.environ.get("ROLE", "all"))

@app.every("1000d", first="now", name="hourly", queue="clock")
async def hourly():
    say("fired")

@app.task(name="mail", queue="mail")
async def mail():
    say("mailed")

@app.task(name="report", queue="report")
async def report():
    say("reported")

@app.task(name="wait", queue="mail")
async def wait():
    say("waiting")
    await wait_for("go")
"""


def url(folder: Path) -> str:
    return f"sqlite:///{folder}/jobs.db"


@pytest.mark.timeout(120)
def test_processes_share_what_an_app_has_to_do_by_their_roles(tmp_path: Path) -> None:
    with Fleet(tmp_path, PROGRAM) as fleet:
        scheduler = fleet.start("-m", "tickwork", "run", "jobs.py", "--role", "scheduler")
        fleet.wait_states(queued=1)
        fleet.enqueue("mail", "wait", queue="mail")
        fleet.enqueue("report", queue="report")
        mailer = fleet.start("-m", "tickwork", "run", "jobs.py", "--queues", "mail, none", "--role=worker")
        fleet.wait_said("mailed")
        fleet.wait_said("waiting")
        assert fleet.said("fired") == fleet.said("reported") == []
        why = tickwork("jobs", "jobs.py", "--task", "report", "--json", cwd=tmp_path)
        (found,) = json.loads(why.out)["jobs"]
        sentence = tickwork("why", "jobs.py", found["id"], cwd=tmp_path).out
        assert "no live worker that knows its task claims from its queue 'report'" in sentence
        assert sentence.endswith("start one with --queues report\n")

        rest = fleet.start(env={"ROLE": "client"})  # what the app is in the web is not what `tickwork run` is for
        fleet.wait_said("fired")
        fleet.wait_said("reported")
        assert {fleet.lines("mailed")[0].pid, fleet.lines("waiting")[0].pid} == {mailer.pid}
        assert {fleet.lines("fired")[0].pid, fleet.lines("reported")[0].pid} == {rest.pid}
        assert "from mail, none; role worker" in mailer.err
        assert "; role scheduler" in scheduler.err
        fleet.touch("go")


def told(fleet: Fleet) -> dict[int, dict[str, Any]]:
    """Return what `tickwork workers` tells, by process."""
    ended = tickwork("workers", "jobs.py", "--json", cwd=fleet.folder)
    assert (ended.status, ended.err) == (0, "")
    return {row["pid"]: row for row in json.loads(ended.out)}


def wait_for_pulses(fleet: Fleet, count: int) -> None:
    """Wait until so many processes have told how they do."""

    def have_told() -> bool:
        workers = fleet.ask(lambda store: store.workers())
        return len(workers) == count and all(worker.vitals is not None for worker in workers)

    fleet.wait_until(have_told, f"{count} pulses")


@pytest.mark.timeout(120)
def test_workers_are_listed_with_how_they_do(tmp_path: Path) -> None:
    with Fleet(tmp_path, PROGRAM) as fleet:
        full = fleet.start("-m", "tickwork", "run", "jobs.py")
        fleet.wait_said("fired")
        part = fleet.start("-m", "tickwork", "run", "jobs.py", "--queues", "mail", "--role", "worker", "--workers", "1")
        wait_for_pulses(fleet, 2)
        rows = told(fleet)

        assert rows.keys() == {full.pid, part.pid}
        for row in rows.values():
            assert (row["host"], row["version"]) == (os.uname().nodename, __version__)
            assert row["tasks"] == ["hourly", "mail", "report", "wait"]
            assert 10 * 2**20 < row["vitals"]["rss_bytes"] < 2**30
            assert row["vitals"]["lag_seconds"] >= 0
        assert (rows[full.pid]["queues"], rows[part.pid]["queues"]) == (None, ["mail"])
        assert rows[part.pid]["vitals"]["scheduler_age"] is None
        assert rows[full.pid]["vitals"]["scheduler_age"] >= 0

        table = tickwork("workers", "jobs.py", cwd=tmp_path).out.splitlines()
        assert table[0].split() == (
            [
                "worker",
                "host",
                "pid",
                "version",
                "schedules",
                "queues",
                "running",
                "memory",
                "loop",
                "lag",
                "up",
                "told",
            ]
        )
        assert len(table) == 3
        assert "fires" in table[1]
        assert " mail " in table[2]


@pytest.mark.timeout(120)
def test_health_names_what_is_wrong_and_its_status_tells_it(tmp_path: Path) -> None:
    with Fleet(tmp_path, PROGRAM) as fleet:
        none = tickwork("health", "jobs.py", cwd=tmp_path)
        assert (none.status, none.err) == (1, "")
        assert none.out.rstrip().endswith(
            "there is no such file; the app has not run yet, or was started in another folder"
        )

        worker = fleet.start("-m", "tickwork", "run", "jobs.py", "--queues", "mail", "--role", "worker")
        fleet.enqueue("report", queue="report")
        wait_for_pulses(fleet, 1)
        wrong = tickwork("health", "jobs.py", "--max-wait", "0s", cwd=tmp_path)
        first, second = wrong.out.splitlines()
        assert wrong.status == 1
        assert first == "no process fires the schedules; start one, as with `tickwork run` or --role scheduler"
        assert second.startswith("a job has been due for ")
        assert second.endswith("; expected to begin within 0s")

        fleet.start()
        fleet.wait_said("fired")
        fleet.wait_said("reported")
        wait_for_pulses(fleet, 2)
        well = tickwork("health", "jobs.py", "--max-wait", "1h", "--json", cwd=tmp_path)
        assert json.loads(well.out) == {"ok": True, "problems": [], "workers": 2, "oldest_due_seconds": None}
        assert tickwork("health", "jobs.py", cwd=tmp_path).out == "all is well: 2 worker processes\n"
        for running in fleet.processes:
            running.send(signal.SIGTERM)
        assert worker.ended().status == 0
        fleet.processes[1].ended()
        gone = tickwork("health", "jobs.py", cwd=tmp_path)
        assert (gone.status, gone.out) == (1, "no worker process is alive; start one, as with `tickwork run`\n")


@pytest.mark.timeout(120)
def test_a_schedule_is_paused_and_resumed_everywhere_from_outside(tmp_path: Path) -> None:
    program = PROGRAM.replace('"1000d", first="now"', '"0.1s"')
    with Fleet(tmp_path, program) as fleet:
        early = tickwork("pause", "jobs.py", "--schedule", "hourly", cwd=tmp_path)
        assert early.status == 2
        assert "there is no such file" in early.err
        fleet.start()
        fleet.start()
        fleet.wait_said("fired")

        assert tickwork("pause", "jobs.py", "--schedule", "hourly", cwd=tmp_path).out == (
            "schedule 'hourly' is paused: its fire times pass until it is resumed\n"
        )
        fleet.wait_until(lambda: fleet.states() == {"succeeded": len(fleet.said("fired"))}, "the end of what was fired")
        again = tickwork("pause", "jobs.py", "--schedule", "hourly", cwd=tmp_path)
        assert (again.status, again.out) == (0, "schedule 'hourly' is paused already\n")
        assert tickwork("resume", "jobs.py", "--schedule", "hourly", cwd=tmp_path).out == (
            "schedule 'hourly' is resumed: it fires again from now on\n"
        )
        count = len(fleet.said("fired"))
        fleet.wait_said("fired", times=count + 3)
        ledger = fleet.ask(lambda store: store.ledger("hourly", limit=1000))
        (passed,) = [row for row in ledger if row.outcome == "paused"]
        assert not [row for row in ledger if row.outcome == "ran" and passed.first <= row.first <= passed.last]
        assert {row.first < passed.first for row in ledger if row.outcome == "ran"} == {True, False}
        assert {row.outcome for row in ledger} <= {"ran", "paused", "skipped", "missed"}
        wrong = tickwork("pause", "jobs.py", "--schedule", "hurly", cwd=tmp_path)
        assert (wrong.status, "did you mean 'hourly'?" in wrong.err) == (2, True)
        none = tickwork("resume", "jobs.py", cwd=tmp_path)
        assert none.status == 2


async def test_an_app_whose_role_is_client_only_enqueues(tmp_path: Path) -> None:
    app = App(url(tmp_path), role="client")
    ran: list[str] = []

    @app.every("1h", first="now")
    async def hourly() -> None:
        ran.append("fired")

    @app.task()
    async def work() -> str:
        ran.append("ran")
        return "done"

    async with app.lifespan() as state:
        assert state == {"tickwork": app}
        job = await work.enqueue()
        assert await app.jobs.workers() == []
        assert (await job.record()).state is JobState.QUEUED
        with pytest.raises(NotRunning, match="a client runs no jobs"):
            await app.enqueue_here(work, (), {})
    assert ran == []

    async with app.testing() as t:  # a test wants to see all of it
        assert await (await work.enqueue()).result() == "done"
        await t.advance("1h")
    assert sorted(set(ran)) == ["fired", "ran"]

    app.assign(role="worker", workers=3)
    async with app:
        assert await job.result() == "done"
        (row,) = await app.jobs.workers()
        with pytest.raises(NotRunning):
            app.assign(role="all")
    assert row.queues is None
    assert app.workers == 3
    assert ran.count("fired") == 2  # both in the test: on the start, and an hour later


async def test_queues_that_nobody_claims_from_keep_their_jobs(tmp_path: Path) -> None:
    app = App(url(tmp_path), queues=["b", "a", "b"])

    @app.task(queue="a")
    async def one() -> int:
        return 1

    @app.task(queue="c")
    async def two() -> int:
        return 2

    async with app:
        waits = await two.enqueue()
        assert await (await one.enqueue()).result() == 1
        assert (await waits.record()).state is JobState.QUEUED
        why = await app.jobs.why(waits.id)
        (row,) = await app.jobs.workers()
    assert (why.reason, why.by) == ("unclaimed_queue", "c")
    assert row.queues == app.queues == ("a", "b")


async def test_health_looks_at_all_processes_and_at_what_waits(tmp_path: Path) -> None:
    app = App(url(tmp_path), queues=["a"])

    @app.task(queue="b")
    async def work() -> None: ...

    async with app:
        await work.enqueue()
        async with asyncio.timeout(30):
            while True:
                if (await app.jobs.workers())[0].vitals is not None:
                    break
                await asyncio.sleep(0.01)
        well = await app.health()
        asked = await app.health(max_wait=timedelta(0))
        await app.jobs.pause_queue("b")
        paused = await app.health(max_wait=0)
    assert (well.problems, well.oldest_due_seconds) == ([], None)
    assert well.workers is not None
    assert [row.pid for row in well.workers] == [os.getpid()]
    assert asked.oldest_due_seconds is not None
    assert len(asked.problems) == 1
    assert (paused.problems, paused.oldest_due_seconds) == ([], None)
    with pytest.raises(InvalidOption):
        async with app:
            await app.health(max_wait="soon")


KEEP = '; let it keep its jobs: App("sqlite:///jobs.db")'


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"role": "boss"}, "role must be one of 'all', 'worker', 'scheduler', 'client', got 'boss'"),
        (
            {"role": "client"},
            "role must be 'all' or 'worker' for an app in memory, whose jobs no other process can run, got 'client'"
            + KEEP,
        ),
        (
            {"queues": ["a"]},
            "queues must be left out for an app in memory, where no other process runs the jobs in the other queues, "
            "got ['a']" + KEEP,
        ),
        ({"queues": "a,b"}, "queues must be a list of names, got 'a,b'; write queues=['a,b']"),
        ({"queues": []}, "queues must be at least one name, got []; leave it out to claim from all"),
        ({"queues": ["a", ""]}, "queues must be a printable, non-empty text, got ''"),
    ],
)
def test_parts_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption) as refused:
        App(**options)
    assert str(refused.value) == message
    with pytest.raises(InvalidOption) as refused:
        App().assign(**options)
    assert str(refused.value) == message


async def test_a_process_is_idle_when_its_own_queues_are(tmp_path: Path) -> None:
    app = App(url(tmp_path), queues=["a"])
    go = asyncio.Event()

    @app.task(queue="a")
    async def one() -> None:
        await go.wait()

    @app.task(queue="b")
    async def two() -> None: ...

    async with app:
        await two.enqueue()
        await app.wait_idle()
        job = await one.enqueue()
        idle = asyncio.ensure_future(app.wait_idle())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(idle), 0.1)
        go.set()
        await idle
        assert (await job.record()).state is JobState.SUCCEEDED


def test_until_idle_is_for_who_runs_jobs(tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text('from tickwork import App\napp = App("sqlite:///jobs.db")\n')
    ended = tickwork("run", "jobs.py", "--until-idle", "--role", "scheduler", cwd=tmp_path)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.endswith(
        "--until-idle must be used where jobs are run, got 'role scheduler'; leave one of them out\n"
    )


async def test_a_job_for_here_that_nobody_waits_for_any_more_still_runs(tmp_path: Path) -> None:
    app = App(url(tmp_path), workers=1)
    go = asyncio.Event()
    ran: list[int] = []

    @app.task()
    async def work(number: int) -> None:
        await go.wait()
        ran.append(number)

    async with app:
        await app.enqueue_here(work, (0,), {})
        for number in range(1, 5):
            with suppress(TimeoutError):
                await asyncio.wait_for(app.enqueue_here(work, (number,), {}), 0.2)
        go.set()
        await app.wait_idle()
        counts = await app.jobs.counts()
    # One that was cancelled before the store had it is taken back, and runs not at all.
    assert len(set(ran)) == len(ran) == counts[JobState.SUCCEEDED]
    assert counts[JobState.RUNNING] == counts[JobState.QUEUED] == 0
