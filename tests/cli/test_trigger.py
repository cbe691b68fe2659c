"""`tickwork trigger` beside other processes on one file: it runs what it was asked to, and nothing else."""

from __future__ import annotations

from pathlib import Path

from fleet import Fleet

PROGRAM = """
app = App("sqlite:///jobs.db", workers=4)

@app.task(name="other")
async def other():
    say("other")

@app.task(name="mine", retry=Retry(2, delay=0))
async def mine(ctx: Context, times: int = 1) -> int:
    say("mine", ctx.attempt)
    await other.enqueue()
    if ctx.attempt < times:
        raise ValueError("once more")
    await asyncio.sleep(0.2)
    return ctx.attempt
"""


def test_trigger_runs_its_own_job_only_and_leaves_what_waits_and_what_it_enqueues(tmp_path: Path) -> None:
    with Fleet(tmp_path, PROGRAM) as fleet:
        before = fleet.enqueue(*["other"] * 3, "mine")
        for times in (1, 2):
            ended = fleet.start("-m", "tickwork", "trigger", "jobs.py", "mine", "--args", f"[{times}]").ended()
            assert (ended.status, ended.out) == (0, f"{times}\n"), ended.err

        assert fleet.said("mine") == ["1", "1", "2"]
        assert fleet.said("other") == []
        assert fleet.states() == {"queued": 4 + 3, "succeeded": 2}
        assert {fleet.job(job).attempt for job in before} == {0}


def test_trigger_runs_its_job_here_however_idle_the_others_are(tmp_path: Path) -> None:
    with Fleet(tmp_path, PROGRAM) as fleet:
        workers = [fleet.start() for _ in range(2)]
        for worker in workers:
            worker.wait_for("started:")
        triggers = [fleet.start("-m", "tickwork", "trigger", "jobs.py", "mine") for _ in range(4)]
        for trigger in triggers:
            assert trigger.ended().out == "1\n"
        fleet.wait_states(succeeded=8)

        assert {line.pid for line in fleet.lines("mine")} == {trigger.pid for trigger in triggers}
        assert {line.pid for line in fleet.lines("other")} <= {worker.pid for worker in workers}


def test_trigger_in_memory_runs_what_its_job_enqueues(tmp_path: Path) -> None:
    program = (
        PROGRAM.replace('"sqlite:///jobs.db", ', "")
        .replace("await other", "await (await other")
        .replace("enqueue()", "enqueue())")
    )
    with Fleet(tmp_path, program) as fleet:
        ended = fleet.start("-m", "tickwork", "trigger", "jobs.py", "mine").ended()

        assert (ended.status, ended.out) == (0, "1\n"), ended.err
        assert fleet.said("other") == ["other"]


def test_a_folder_for_who_runs_makes_no_sense_without_a_fire_time(tmp_path: Path) -> None:
    with Fleet(tmp_path, PROGRAM) as fleet:
        ended = fleet.start("-m", "tickwork", "trigger", "--state", "x", "jobs.py", "mine").ended()

        assert (ended.status, ended.out) == (2, "")
        assert ended.err == (
            "tickwork: --state must be left out without --fire-time, got 'x'; nobody is told who runs\n"
        )
        assert fleet.said("mine") == []
