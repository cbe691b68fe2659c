"""Several processes with the same app on one file fire each schedule once, whoever dies, comes or changes it."""

from __future__ import annotations

import random
import signal
import sys
import time
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from cli.command import Running
from fleet import Fleet, Line
from tickwork.stores.base import Answer
from tickwork.stores.postgres_target import Target

pytestmark = [pytest.mark.skipif(sys.platform == "win32", reason="needs signals"), pytest.mark.one_python]

PERIOD = timedelta(milliseconds=200)

MANY = """
app = App("sqlite:///jobs.db", workers=10, drain_seconds=5)

@app.task(name="fired")
async def fired(ctx: Context):
    say("fired", ctx.schedule, ctx.job_id, ctx.fire_time.isoformat())

for number in range(10):
    app.every("200ms", name=f"all-{number}", overlap="allow", catch_up="all")(fired)
    app.every("200ms", name=f"plain-{number}")(fired)
app.every("1000d", name="first", first="now")(fired)
"""


def ledger(fleet: Fleet, schedule: str) -> list[Answer]:
    """Return all that became of the fire times of a schedule, the oldest first."""
    return fleet.ask(lambda store: store.ledger(schedule, limit=100_000))[::-1]


def stop(fleet: Fleet) -> None:
    """Let all processes drain, and see that all jobs have ended."""
    living = [running for running in fleet.processes if running.process.poll() is None]
    for running in living:
        running.wait_for("started:")  # before, nobody would handle the signal
        running.send(signal.SIGTERM)
    for running in living:
        assert running.ended().status == 0, running.err


def finish(fleet: Fleet) -> None:
    """Run what is left. It fires nothing: a busy machine might not become idle between the fire times."""
    ended = fleet.start("-m", "tickwork", "run", "jobs.py", "--until-idle", "--role", "worker").ended()
    assert ended.status == 0, ended.err


def churn(fleet: Fleet, processes: list[Running], draw: random.Random, deaths: int, pause: float) -> list[int]:
    """Kill a process and start another, again and again; return the dead."""
    dead = []
    for _ in range(deaths):
        victim = processes.pop(draw.randrange(len(processes)))
        before = len(fleet.lines("fired"))
        fleet.wait_until(lambda before=before: len(fleet.lines("fired")) > before + 20, "fires")  # type: ignore[misc]
        fleet.kill(victim)
        dead.append(victim.pid)
        processes.append(fleet.start())
        processes[-1].wait_for("started:")
        time.sleep(pause)
    return dead


def expect_each_fire_time_once(fleet: Fleet, schedule: str, dead: list[int]) -> int:
    """Check that the ledger has no gap and nothing twice, and that each job ran once; return how many fire times."""
    answers = ledger(fleet, schedule)
    for before, after in pairwise(answers):
        assert after.first == before.last + PERIOD, (schedule, before, after)
    for answer in answers:
        assert answer.last == answer.first + PERIOD * ((answer.count or 0) - 1)
    ran = {answer.job_id: answer for answer in answers if answer.outcome == "ran"}
    runs: dict[str, list[Line]] = {}
    for line in fleet.lines("fired", schedule):
        runs.setdefault(line.words[2], []).append(line)
    assert runs.keys() == ran.keys()
    for job_id, lines in runs.items():
        assert all(line.pid in dead for line in lines[:-1]), (schedule, lines)  # again only after a death
        assert {datetime.fromisoformat(line.words[3]) for line in lines} == {ran[job_id].first}
        assert ran[job_id].state == "succeeded"
    return sum(answer.count or 0 for answer in answers)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("wanted", "deaths"), [(200, 1), pytest.param(1_000, 8, marks=pytest.mark.slow)], ids=["some", "a thousand"]
)
def test_processes_fire_each_fire_time_once_whoever_dies_or_comes(
    tmp_path: Path, home: Target | None, wanted: int, deaths: int
) -> None:
    with Fleet(tmp_path, MANY, home) as fleet:
        processes = [fleet.start() for _ in range(4)]
        dead = churn(fleet, processes, random.Random(1), deaths, 0.3)
        fleet.wait_said("fired", times=wanted, within=60)
        stop(fleet)
        finish(fleet)  # what was in hand at the last death

        counts = {name: expect_each_fire_time_once(fleet, name, dead) for name in schedules(fleet) if name != "first"}
        assert len(counts) == 20
        assert sum(counts.values()) >= wanted
        for number in range(10):  # nothing is let pass where the options say so
            assert {answer.outcome for answer in ledger(fleet, f"all-{number}")} == {"ran"}
        (first,) = ledger(fleet, "first")
        assert first.outcome == "ran"


def schedules(fleet: Fleet) -> list[str]:
    return [row.name for row in fleet.ask(lambda store: store.schedules())]


# --- clocks that differ ------------------------------------------------------------------------------------------

APART = """
from datetime import timedelta
from tickwork.clock import SystemClock

class Apart(SystemClock):
    def now(self):
        return super().now() + timedelta(seconds=float(os.environ.get("APART", "0")))

app = App("sqlite:///jobs.db", workers=10, drain_seconds=5, clock=Apart())

@app.task(name="fired")
async def fired(ctx: Context):
    say("fired", ctx.schedule, ctx.job_id, ctx.fire_time.isoformat())

for number in range(20):
    app.every("200ms", name=f"apart-{number}", overlap="allow", catch_up="all", max_runs=20)(fired)
"""


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_hosts_whose_clocks_are_seconds_apart_fire_each_fire_time_once(tmp_path: Path, target: Target) -> None:
    # `bench/apart.py` does so with 100 schedules and eight processes.
    with Fleet(tmp_path, APART, target) as fleet:
        for ahead in (-1, 0, 1, 1):  # those that are ahead race each other, and then are killed, for the others to race
            fleet.start(env={"APART": str(ahead)}).wait_for("started:")
        fleet.wait_said("fired", times=100)
        dead = [running.pid for running in fleet.processes[2:]]
        for running in fleet.processes[2:]:
            fleet.kill(running)
        fired = "all fire times"  # each of them ran: what a death has interrupted says so twice
        fleet.wait_until(lambda: len({(*line.words[1:4:2],) for line in fleet.lines("fired")}) == 400, fired, 60)
        stop(fleet)
        finish(fleet)

        assert {name: expect_each_fire_time_once(fleet, name, dead) for name in schedules(fleet)} == {
            f"apart-{number}": 20 for number in range(20)
        }


# --- never two at a time -----------------------------------------------------------------------------------------

ALONE = """
app = App("sqlite:///jobs.db", workers=10, drain_seconds=5, cancel_seconds=2)

async def alone(ctx: Context):
    say("begun", ctx.schedule)
    try:
        await asyncio.sleep(0.15 if ctx.schedule != "end" else 0.03)
    finally:
        say("ended", ctx.schedule)

for overlap in ("skip", "queue", "replace"):
    app.every("100ms", name=overlap, overlap=overlap)(app.task(name=overlap)(alone))
app.every("50ms", name="end", after="end")(app.task(name="end")(alone))
"""


def expect_alone(fleet: Fleet, schedule: str, dead: list[int]) -> int:
    """Check that no two jobs of a schedule ran at the same time, and return how many began."""
    running: int | None = None
    begun = 0
    for line in [line for line in fleet.lines() if line.words[1] == schedule]:
        if line.words[0] == "begun":
            assert running is None or running in dead, (schedule, line, running)
            running, begun = line.pid, begun + 1
        else:
            assert running == line.pid, (schedule, line)
            running = None
    return begun


@pytest.mark.timeout(120)
def test_jobs_of_a_schedule_run_one_at_a_time_in_all_processes_and_go_on_after_deaths(tmp_path: Path) -> None:
    with Fleet(tmp_path, ALONE) as fleet:
        processes = [fleet.start() for _ in range(3)]
        dead: list[int] = []
        for schedule in ("end", "skip", "queue", "replace"):  # whoever runs its job dies
            begun = len(fleet.lines("begun", schedule))
            fleet.wait_said("begun", schedule, times=begun + 3)
            pid = fleet.lines("begun", schedule)[-1].pid
            (victim,) = [running for running in processes if running.pid == pid]
            fleet.kill(victim)
            dead.append(pid)
            processes.remove(victim)
            begun = len(fleet.lines("begun", schedule))
            processes.append(fleet.start())
            fleet.wait_said("begun", schedule, times=begun + 3)
        stop(fleet)

        for schedule in ("end", "skip", "queue", "replace"):
            assert expect_alone(fleet, schedule, dead) > 6
            answers = ledger(fleet, schedule)
            assert len({answer.first for answer in answers}) == len(answers)
        assert {answer.outcome for answer in ledger(fleet, "end")} == {"ran"}
        assert "skipped" in {answer.outcome for answer in ledger(fleet, "skip")}
        assert "merged" in {answer.outcome for answer in ledger(fleet, "queue")}
        assert "cancelled" in {answer.state for answer in ledger(fleet, "replace")}


def test_what_all_processes_missed_is_made_up_for_by_one_run(tmp_path: Path) -> None:
    with Fleet(tmp_path, MANY) as fleet:
        before = [fleet.start() for _ in range(2)]
        fleet.wait_said("fired", "plain-0", times=2)
        dead = [running.pid for running in before]
        for running in before:
            fleet.kill(running)
        down = time.time()
        fleet.wait_until(lambda: time.time() > down + 2, "two seconds without any process")
        for _ in range(2):
            fleet.start()
        fleet.wait_until(lambda: fleet.lines("fired")[-1].at > down + 2, "fires")
        fleet.wait_said("fired", "plain-0", times=len(fleet.lines("fired", "plain-0")) + 2)
        stop(fleet)
        finish(fleet)

        for name in ("plain-0", "all-0"):
            expect_each_fire_time_once(fleet, name, dead)
        missed = [answer.count for answer in ledger(fleet, "plain-0") if answer.outcome == "missed"]
        assert max(count for count in missed if count is not None) >= 5
        assert {answer.outcome for answer in ledger(fleet, "all-0")} == {"ran"}


# --- what one process does, all do -------------------------------------------------------------------------------

BOSS = """
app = App("sqlite:///jobs.db", workers=3, drain_seconds=5)

@app.every("100ms", name="tick")
async def tick(ctx: Context):
    say("tick", ctx.job_id, "-" if ctx.fire_time is None else ctx.fire_time.timestamp())

@app.task(name="long")
async def long(ctx: Context):
    say("begun", ctx.job_id)
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        say("cancelled", ctx.job_id)
        raise

@app.every("1000d", name="by hand")
async def by_hand(ctx: Context):
    say("by-hand", ctx.job_id)
    await asyncio.sleep(60)

async def watch():
    was = False
    while app.is_running:
        if app.schedules["tick"].is_paused != was:
            was = not was
            say("sees", "paused" if was else "resumed")
        await asyncio.sleep(0.005)

@app.on_start
async def begin_to_watch():
    global watching
    if __name__ != "__main__":  # not in the process that pauses
        watching = asyncio.create_task(watch())

async def main():
    async with app:
        schedule = app.schedules["tick"]
        await schedule.pause()
        say("paused")
        await wait_for("go on")
        say("resuming")
        await schedule.resume()
        say("resumed")
        await wait_for("run")
        job = await app.schedules["by hand"].run_now()
        say("asked", job.id)
        await wait_for("cancel")
        for job_id in sys.argv[1:]:
            say("cancelling", await (await app.job(job_id)).cancel())
        say("cancelling", await job.cancel())
        await wait_for("end")

if __name__ == "__main__":
    asyncio.run(main())
"""


def test_pause_resume_run_now_and_cancel_take_effect_in_other_processes_at_once(
    tmp_path: Path, home: Target | None
) -> None:
    with Fleet(tmp_path, BOSS, home) as fleet:
        (job,) = fleet.enqueue("long")
        worker = fleet.start()
        fleet.wait_said("begun", job)
        fleet.wait_said("tick", times=2)

        boss = fleet.start("jobs.py", job)
        fleet.wait_said("paused")
        paused = fleet.lines("paused")[0].at
        fleet.wait_said("sees", "paused")
        fleet.wait_until(lambda: time.time() > paused + 0.5, "half a second")
        fleet.touch("go on")
        fleet.wait_said("resumed")
        resumed = fleet.lines("resumed")[0].at
        fleet.wait_said("sees", "resumed")
        fleet.wait_until(
            lambda: any(line.pid == worker.pid and line.at > resumed for line in fleet.lines("tick")), "on"
        )
        fleet.touch("run")
        fleet.wait_said("by-hand")
        fleet.touch("cancel")
        fleet.wait_said("cancelled")
        fleet.wait_until(lambda: fleet.states().get("cancelled") == 2, "both cancelled")
        fleet.touch("end")
        assert boss.ended().status == 0, boss.err

        due = [float(when) for when in fleet.said("tick")]
        assert not [when for when in due if paused < when < fleet.lines("resuming")[0].at]
        # Hundredths of a second. Without a word from the store, half a minute, or never.
        assert fleet.lines("sees", "paused")[0].at - paused < 10
        assert fleet.lines("sees", "resumed")[0].at - resumed < 10
        assert fleet.lines("by-hand")[0].at - fleet.lines("asked")[0].at < 10
        assert fleet.lines("cancelled")[0].at - fleet.lines("cancelling")[0].at < 10
        assert fleet.said("cancelling") == ["True", "True"]


# --- a web server with workers -----------------------------------------------------------------------------------

WEB = """
from starlette.applications import Starlette

app = App("sqlite:///jobs.db", workers=5, block_warn_seconds=None)

@app.every("200ms", name="plain")
async def fired(ctx: Context):
    say("fired", ctx.schedule, ctx.job_id, ctx.fire_time.isoformat())

@app.on_start
async def started():
    say("started")

web = Starlette(lifespan=app.lifespan)
"""


def test_workers_of_a_web_server_fire_each_fire_time_once(tmp_path: Path) -> None:
    with Fleet(tmp_path, WEB) as fleet:
        patient = ("--timeout-worker-healthcheck", "60")  # a busy machine keeps workers waiting that are not dead
        server = fleet.start("-m", "uvicorn", "--port", "0", *patient, "--workers", "4", "jobs:web")
        fleet.wait_said("started", times=4)
        fleet.wait_said("fired", times=len(fleet.lines("fired")) + 8)
        server.send(signal.SIGINT)
        server.ended()
        assert len({line.pid for line in fleet.lines("started")}) == 4
        finish(fleet)  # what fired as the last one stopped

        assert expect_each_fire_time_once(fleet, "plain", []) >= 8
        assert "WARNING" not in server.err


# --- deployments ---------------------------------------------------------------------------------------------------

DEPLOYED = """
app = App("sqlite:///jobs.db", workers=3, drain_seconds=5)

@app.every(os.environ["PERIOD"], name="tick")
async def tick(ctx: Context):
    say("tick", os.environ["PERIOD"], round(ctx.fire_time.timestamp() * 1000))
"""


def test_a_deployment_with_another_trigger_fires_neither_twice_nor_never(tmp_path: Path) -> None:
    with Fleet(tmp_path, DEPLOYED) as fleet:
        old = [fleet.start(env={"PERIOD": "200ms"}) for _ in range(2)]
        fleet.wait_said("tick", times=3)
        new = fleet.start(env={"PERIOD": "270ms"})
        for running in old:
            running.wait_for("schedule tick has another trigger in the store now, so this process stops firing it")
        (row,) = fleet.ask(lambda store: store.schedules())
        changed = row.declared_at.timestamp() * 1000
        fleet.wait_said("tick", times=len(fleet.lines("tick")) + 4)
        # The new one is rolled back: one of the old version comes again, and those that still run fire, too.
        new.send(signal.SIGTERM)  # a kill might come between a run and its end, which would then run again
        new.ended()
        fleet.start(env={"PERIOD": "200ms"}).wait_for("started:")
        for running in old:
            running.wait_for("schedule tick has its old trigger in the store again, so this process fires it")
        (row,) = fleet.ask(lambda store: store.schedules())
        back = row.declared_at.timestamp() * 1000
        fleet.wait_until(lambda: int(fleet.said("tick")[-1]) > back + 400, "fires on the old grid")
        stop(fleet)

        due = [int(when) for when in fleet.said("tick")]
        assert len(set(due)) == len(due)
        assert not [when for when in due if changed < when < back and when % 270]
        assert not [when for when in due if not changed < when < back and when % 200]
        answers = ledger(fleet, "tick")
        assert len({answer.first for answer in answers}) == len(answers)
