"""Processes die, by SIGKILL or by order, and the server they share: no job is lost, none runs twice without need."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from cli.command import DEADLINE
from fleet import Fleet
from postgres_server import binaries
from tickwork.payloads import ErrorInfo
from tickwork.stores.postgres_target import Target

ROOT = Path(__file__).parent.parent

pytestmark = [pytest.mark.skipif(sys.platform == "win32", reason="needs signals"), pytest.mark.one_python]


# --- any moment --------------------------------------------------------------------------------------------------


def kill_bench(name: str, *words: str) -> list[dict[str, Any]]:
    """Run a benchmark, and return what it found."""
    done = subprocess.run(
        [sys.executable, ROOT / "bench" / name, "--json", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.skipif(not (ROOT / "bench").is_dir(), reason="without the benchmarks")
@pytest.mark.timeout(120)
def test_nothing_is_lost_and_nothing_runs_twice_when_workers_and_the_producer_are_killed() -> None:
    (found,) = kill_bench("kill.py", "--jobs", "150", "--kills", "8", "--processes", "2", "--producer", "dies")

    assert (found["lost"], found["doubled"], found["damage"]) == (0, 0, ["ok"])
    assert found["kills"] == 8
    assert all(row["kills"] > 0 for row in found["rows"]), found["rows"]


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / "bench").is_dir(), reason="without the benchmarks")
@pytest.mark.timeout(180)
def test_nothing_is_lost_twice_or_never_when_workers_schedulers_producer_and_postgresql_itself_are_killed() -> None:
    binaries()  # skip where there is no server
    words = "--jobs 200 --every 0.3 --workers 3 --schedulers 2 --restarts 1 --producer-deaths 1"
    (found,) = kill_bench("kill_postgres.py", *words.split())

    assert (found["lost"], found["doubled"], found["kept_twice"]) == (0, 0, 0), found
    assert (found["fire_times_never"], found["fire_times_twice"], found["fire_times_passed_over"]) == (0, 0, 0), found
    assert not found["miscounted"]  # what the store counts is what it holds
    assert found["states"] == {"succeeded": found["jobs"]}
    assert found["jobs"] > 200 + found["schedules"] > 200
    assert all(row["kills"] > 0 for row in found["rows"]), found["rows"]


# --- what a death counts for -------------------------------------------------------------------------------------

DEADLY = """
app = App("sqlite:///jobs.db", workers=4)

@app.task(name="deadly")
async def deadly(ctx: Context):
    say("deadly", ctx.job_id)
    await asyncio.sleep(float(os.environ["KILL_AFTER"]))
    os.kill(os.getpid(), signal.SIGKILL)

@app.task(name="innocent")
async def innocent(ctx: Context):
    say("innocent", ctx.job_id)
    await asyncio.sleep(0.2)
    say("ended", ctx.job_id)
"""


@pytest.mark.parametrize(("seconds", "dead"), [("0", 4), pytest.param("0.15", 3, marks=pytest.mark.slow)])
def test_a_job_that_kills_its_workers_is_parked_and_those_beside_it_are_not(
    tmp_path: Path, home: Target | None, seconds: str, dead: int
) -> None:
    # One that kills at once is not seen to have begun the first time, as its store was not told: so a fourth dies.
    with Fleet(tmp_path, DEADLY, home) as fleet:
        innocent = [*fleet.enqueue("innocent"), *fleet.enqueue("innocent")]
        (deadly,) = fleet.enqueue("deadly")
        innocent += fleet.enqueue(*["innocent"] * 12)
        for _ in range(dead):
            killed = fleet.start(env={"KILL_AFTER": seconds})
            assert killed.process.wait(DEADLINE) == -signal.SIGKILL
        fleet.start(env={"KILL_AFTER": seconds})
        fleet.wait_states(succeeded=14, parked=1)

        job = fleet.job(deadly)
        assert job.error is not None
        last = fleet.lines("deadly")[-1].pid
        error = ErrorInfo.from_json(job.error)
        assert error.type == "tickwork.errors.WorkerDied"
        assert error.message.startswith(f"3 worker processes died while it ran, the last of them {last}-")
        assert len(fleet.lines("deadly")) == dead
        assert (job.deaths, job.lost) == (3, dead)
        assert set(fleet.said("ended")) == set(innocent)  # one that has ended may be in hand until that is written


CRASH = """
app = App("sqlite:///jobs.db", workers=10, drain_seconds=float(os.environ.get("DRAIN", "10")), cancel_seconds=1)

@app.task(name="work")
async def work(ctx: Context):
    say("begun", ctx.job_id, ctx.attempt)
    await wait_for("go")
    say("ended", ctx.job_id)
"""


def test_the_jobs_of_a_killed_worker_run_again_long_before_their_leases_end(
    tmp_path: Path, home: Target | None
) -> None:
    with Fleet(tmp_path, CRASH, home) as fleet:
        jobs = fleet.enqueue(*["work"] * 20)
        killed = fleet.start()
        fleet.wait_said("begun", times=10)
        fleet.kill(killed)
        second = fleet.start()
        second.wait_for("started:")
        started = time.time()
        fleet.wait_said("begun", times=20)  # ten of them once more
        took = fleet.lines("begun")[19].at - started
        fleet.touch("go")
        fleet.wait_states(succeeded=20)

        assert took < 15  # not 60; it is one or two, on a machine with nothing else to do
        assert sorted(fleet.said("ended")) == sorted(jobs)
        runs = Counter(line.words[1] for line in fleet.lines("begun"))
        assert sorted(runs.values()) == [1] * 10 + [2] * 10
        assert {line.words[2] for line in fleet.lines("begun")} == {"1"}  # a death uses no attempt


def test_what_a_busy_process_cannot_begin_another_one_takes(tmp_path: Path) -> None:
    with Fleet(tmp_path, CRASH) as fleet:
        fleet.enqueue(*["work"] * 20)
        first = fleet.start()
        fleet.wait_said("begun", times=10)
        second = fleet.start()
        fleet.wait_said("begun", times=20)
        fleet.wait_states(running=20)
        fleet.touch("go")
        fleet.wait_states(succeeded=20)

        assert Counter(line.pid for line in fleet.lines("begun")) == {first.pid: 10, second.pid: 10}


def test_a_worker_that_is_told_to_end_lets_its_jobs_end_and_takes_no_others(tmp_path: Path) -> None:
    with Fleet(tmp_path, CRASH) as fleet:
        jobs = fleet.enqueue(*["work"] * 20)
        first = fleet.start()
        fleet.wait_said("begun", times=10)
        fleet.wait_states(running=10, queued=10)  # it takes no more than it can run
        first.send(signal.SIGTERM)
        first.wait_for("SIGTERM: draining")
        fleet.touch("go")
        assert first.ended().status == 0
        assert "stopped: 0 unstarted jobs given back, 0 cut" in first.err
        assert fleet.states() == {"succeeded": 10, "queued": 10}
        fleet.start()
        fleet.wait_states(succeeded=20)

        assert sorted(fleet.said("ended")) == sorted(jobs)
        assert sorted(line.words[1] for line in fleet.lines("begun")) == sorted(jobs)  # each once
        assert {fleet.job(job).attempt for job in jobs} == {1}


@pytest.mark.parametrize(
    "hurry", [pytest.param(False, marks=pytest.mark.slow), True], ids=["drain too short", "second signal"]
)
def test_jobs_that_are_cut_are_given_back_with_no_attempt_used(
    tmp_path: Path, home: Target | None, hurry: bool
) -> None:
    with Fleet(tmp_path, CRASH, home) as fleet:
        jobs = fleet.enqueue(*["work"] * 20)
        first = fleet.start(env={"DRAIN": "60" if hurry else "0.2"})
        fleet.wait_said("begun", times=10)
        fleet.wait_states(running=10, queued=10)
        begun = {line.words[1] for line in fleet.lines("begun")}
        first.send(signal.SIGTERM)
        if hurry:
            first.wait_for("SIGTERM: draining")
            first.send(signal.SIGTERM)
        assert first.ended().status == 4
        assert "stopped: 0 unstarted jobs given back, 10 cut" in first.err
        assert fleet.states() == {"queued": 20}
        assert {(fleet.job(job).attempt, fleet.job(job).deaths) for job in jobs} == {(0, 0)}
        fleet.touch("go")
        fleet.start()
        fleet.wait_states(succeeded=20)

        assert sorted(fleet.said("ended")) == sorted(jobs)
        runs = Counter(line.words[1] for line in fleet.lines("begun"))
        assert runs == {job: 2 if job in begun else 1 for job in jobs}
        assert {line.words[2] for line in fleet.lines("begun")} == {"1"}


# --- at most once, and attempts ------------------------------------------------------------------------------------

ONCE = """
app = App("sqlite:///jobs.db", workers=4, drain_seconds=0.1, cancel_seconds=1)

@app.task(name="once", delivery="at_most_once")
async def once(ctx: Context):
    say("begun", ctx.job_id)
    await wait_for("go")
    say("ended", ctx.job_id)

if "PREFETCH" in os.environ:  # as if so many had just ended that one is taken in advance
    from tickwork.prefetch import Prefetch
    Prefetch.allowed = lambda *_: 1
"""


def test_a_job_that_may_run_once_has_failed_when_its_worker_is_killed(tmp_path: Path) -> None:
    with Fleet(tmp_path, ONCE) as fleet:
        jobs = fleet.enqueue(*["once"] * 6, is_once=True)
        killed = fleet.start()
        fleet.wait_said("begun", times=2)
        fleet.kill(killed)
        in_hand = {job for job in jobs if fleet.job(job).state == "running"}
        fleet.touch("go")
        fleet.start()
        fleet.wait_states(failed=len(in_hand), succeeded=6 - len(in_hand))

        assert in_hand >= {line.words[1] for line in fleet.lines("begun") if line.pid == killed.pid}
        assert max(Counter(line.words[1] for line in fleet.lines("begun")).values()) == 1
        errors = {ErrorInfo.from_json(fleet.job(job).error or "").message.split(" died", 1)[1] for job in in_hand}
        assert errors == {" with it, and it may run at most once"}


def test_a_job_that_may_run_once_is_cancelled_when_a_drain_cuts_it_and_given_back_before_it_has_begun(
    tmp_path: Path,
) -> None:
    with Fleet(tmp_path, ONCE) as fleet:
        fleet.enqueue(*["once"] * 5, is_once=True)
        first = fleet.start(env={"PREFETCH": ""})
        fleet.wait_said("begun", times=4)
        fleet.wait_states(running=5)  # one is in the buffer
        first.send(signal.SIGTERM)
        assert first.ended().status == 4
        assert fleet.states() == {"cancelled": 4, "queued": 1}
        fleet.touch("go")
        fleet.start()
        fleet.wait_states(cancelled=4, succeeded=1)

        assert max(Counter(fleet.said("begun")).values()) == 1


RETRIED = """
app = App("sqlite:///jobs.db", workers=2)

@app.task(name="retried", retry=Retry(3, delay=0))
async def retried(ctx: Context):
    say("begun", ctx.job_id, ctx.attempt)
    if ctx.attempt == 2 and "KILL" in os.environ:
        os.kill(os.getpid(), signal.SIGKILL)
    if ctx.attempt < int(os.environ.get("UNTIL", "9")):
        raise ValueError(f"attempt {ctx.attempt}")
"""


@pytest.mark.parametrize(("until", "end"), [("3", "succeeded"), pytest.param("9", "failed", marks=pytest.mark.slow)])
def test_a_death_uses_no_attempt_and_a_failure_one_whatever_the_process(tmp_path: Path, until: str, end: str) -> None:
    with Fleet(tmp_path, RETRIED) as fleet:
        (job,) = fleet.enqueue("retried")
        for _ in range(2):
            assert fleet.start(env={"KILL": "", "UNTIL": until}).process.wait(DEADLINE) == -signal.SIGKILL
        fleet.start(env={"UNTIL": until})
        fleet.wait_states(**{end: 1})

        assert fleet.said("begun") == ["1", "2", "2", "2", "3"]
        assert fleet.job(job).attempt == 3


# --- across processes ----------------------------------------------------------------------------------------------

SHARED = """
app = App("sqlite:///jobs.db", workers=2, max_queued=5)

@app.task(name="where")
async def where(ctx: Context, number: int) -> tuple[int, int]:
    say("begun", ctx.job_id)
    while len({line.split()[0] for line in open("log") if " begun " in line}) < 2:  # until both processes work
        await asyncio.sleep(0.01)
    return number, os.getpid()

async def main():
    async with app:
        jobs = []
        for number in range(40):
            jobs.append(await where.enqueue(number))
            say("accepted", number)
        answers = [await job.result(timeout=30) for job in jobs]
        assert [number for number, _ in answers] == list(range(40))
        say("pids", *sorted({pid for _, pid in answers}))

if __name__ == "__main__":
    asyncio.run(main())
"""


def test_enqueue_waits_for_room_that_another_process_makes_and_results_come_back(
    tmp_path: Path, home: Target | None
) -> None:
    with Fleet(tmp_path, SHARED, home) as fleet:
        producer = fleet.start("jobs.py")
        fleet.wait_said("begun", times=2)
        # Two run, and wait for a second process; five wait in the store.
        fleet.wait_said("accepted", times=7)
        fleet.wait_states(running=2, queued=5)
        worker = fleet.start()
        assert producer.ended().status == 0, producer.err
        (line,) = fleet.lines("pids")

        assert line.words[1:] == [str(pid) for pid in sorted((producer.pid, worker.pid))]
        assert len(fleet.lines("begun")) == 40
