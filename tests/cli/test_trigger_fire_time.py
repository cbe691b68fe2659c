"""`tickwork trigger --fire-time` on a file: what cron starts fires through the store, as an app that runs does."""

from __future__ import annotations

import os
import re
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cli.command import Running
from fleet import Fleet
from tickwork import Every
from tickwork.stores.base import Answer, Declare, Pause, Store
from tickwork.stores.instants import us
from tickwork.stores.sqlite import SQLiteStore

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="needs signals"),
    pytest.mark.timeout(120),  # several processes one after the other, on a busy machine
]

HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)

# One fire time an hour, the newest of them `age` ago: so that "auto" means the same in all processes of a test.
HOURLY = """
from datetime import UTC, datetime, timedelta
from tickwork import Every

AT = datetime.fromisoformat({at!r})
app = App("sqlite:///jobs.db", workers={workers}, drain_seconds={drain}, cancel_seconds=2)
HOURLY = Every("1h", anchor=AT)
"""


def hourly(folder: Path, program: str, *, age: float = 3, drain: float = 5, workers: int = 4) -> tuple[Fleet, datetime]:
    """Return processes of a program with an hourly trigger, HOURLY, and its newest fire time."""
    at = (datetime.now(UTC) - timedelta(seconds=age)).replace(microsecond=0)
    return Fleet(folder, HOURLY.format(at=at.isoformat(), drain=drain, workers=workers) + program), at


def start(fleet: Fleet, name: str, when: str | datetime = "auto", *words: str) -> Running:
    """Start what an entry of a crontab starts."""
    told = when if isinstance(when, str) else when.isoformat()
    where = ("--dir", str(fleet.folder), *words, "--fire-time", told)
    return fleet.start("-m", "tickwork", "trigger", *where, "jobs.py", name)


def ledger(fleet: Fleet, schedule: str) -> list[Answer]:
    """Return all that became of the fire times of a schedule, the oldest first."""
    return fleet.ask(lambda store: store.ledger(schedule, limit=1_000))[::-1]


NIGHTLY = """
@app.schedule(HOURLY, name="nightly")
async def nightly(ctx: Context, day: int = 1):
    say("ran", ctx.schedule, ctx.fire_time.isoformat(), day)
    await asyncio.sleep(0.1)
"""


def test_the_newest_fire_time_runs_here_with_the_arguments_of_the_schedule_and_is_in_the_ledger(tmp_path: Path) -> None:
    fleet, at = hourly(tmp_path, NIGHTLY)
    with fleet:
        done = start(fleet, "nightly").ended()

        assert (done.status, done.out) == (0, ""), done.err
        (line,) = fleet.lines("ran")
        assert (line.pid, line.words) == (fleet.processes[0].pid, ["ran", "nightly", at.isoformat(), "1"])
        (answer,) = ledger(fleet, "nightly")
        assert (answer.first, answer.outcome, answer.state) == (at, "ran", "succeeded")
        assert answer.late_because == "a process was started for it"


def test_a_fire_time_that_is_answered_runs_nothing_and_says_what_became_of_it(tmp_path: Path) -> None:
    fleet, _ = hourly(tmp_path, NIGHTLY)
    with fleet:
        start(fleet, "nightly").ended()
        (answer,) = ledger(fleet, "nightly")
        done = start(fleet, "nightly").ended()

        assert done.status == 0
        assert f"ran as job {answer.job_id}" in done.err
        assert "nothing is run for it now. To run the task all the same: tickwork trigger --dir" in done.err
        assert len(fleet.lines("ran")) == 1
        assert ledger(fleet, "nightly") == [answer]


def test_of_many_processes_for_one_fire_time_one_runs_it(tmp_path: Path) -> None:
    fleet, at = hourly(tmp_path, NIGHTLY)
    with fleet:
        for running in [start(fleet, "nightly", when) for when in ("auto", at) * 3]:
            assert running.ended().status == 0, running.err

        assert len(fleet.lines("ran")) == 1
        assert [(answer.first, answer.outcome) for answer in ledger(fleet, "nightly")] == [(at, "ran")]


TICKS = """
app = App("sqlite:///jobs.db", workers=4)

@app.every("1s", name="tick", overlap="allow", catch_up="all")
async def tick(ctx: Context):
    say("ran", ctx.fire_time.isoformat())

@app.task(name="hold")
async def hold():
    say("held")
    while not Path("go-on").exists():
        time.sleep(0.01)  # which lets the app answer nothing
"""


def expect_each_once(fleet: Fleet, *fire_times: datetime) -> None:
    """Check that each fire time was answered, and ran, once."""
    answers = ledger(fleet, "tick")
    assert {answer.outcome for answer in answers} == {"ran"}
    ran = [answer for answer in answers if answer.state is not None]
    assert len(answers) - len(ran) <= 1  # what had not begun when the app was stopped
    assert sorted(fleet.said("ran")) == [answer.first.isoformat() for answer in ran]
    assert set(fire_times) <= {answer.first for answer in ran}


def wait_for_time(fleet: Fleet, at: datetime) -> None:
    fleet.wait_until(lambda: datetime.now(UTC) > at, f"{at}")


def test_beside_an_app_that_runs_each_fire_time_runs_once(tmp_path: Path) -> None:
    with Fleet(tmp_path, TICKS) as fleet:
        app = fleet.start()
        app.wait_for("started:")
        cron = []
        begin = datetime.now(UTC).replace(microsecond=0) + 3 * SECOND
        for number in range(6):
            at = begin + number * SECOND
            for lead in (0.6, 0.3):  # two hosts' crons, a little early, so that they may be before the app
                wait_for_time(fleet, at - lead * SECOND)
                cron += [(at, start(fleet, "tick", at))]
        for _, running in cron:
            assert running.ended().status == 0, running.err
        app.send(signal.SIGTERM)
        assert app.ended().status == 0

        expect_each_once(fleet, *(at for at, _ in cron))


def test_an_app_that_was_held_finds_what_cron_has_answered_meanwhile(tmp_path: Path) -> None:
    with Fleet(tmp_path, TICKS) as fleet:
        app = fleet.start()
        app.wait_for("started:")
        fleet.enqueue("hold")
        fleet.wait_said("held")
        at = datetime.now(UTC).replace(microsecond=0) + SECOND
        wait_for_time(fleet, at)
        cron = [start(fleet, "tick", at) for _ in range(3)]
        for running in cron:
            assert running.ended().status == 0, running.err
        fleet.touch("go-on")
        before = len(fleet.lines("ran"))
        fleet.wait_said("ran", times=before + 3)
        app.send(signal.SIGTERM)
        assert app.ended().status == 0

        expect_each_once(fleet, at)
        (line,) = fleet.lines("ran", at.isoformat())
        assert line.pid in {running.pid for running in cron}
        assert line.pid != fleet.lines("ran")[-1].pid == app.pid


def test_a_process_that_is_started_a_little_early_waits_for_its_fire_time(tmp_path: Path) -> None:
    program = NIGHTLY.replace('say("ran"', 'say("ran", time.time()')
    fleet, at = hourly(tmp_path, program, age=-6)
    with fleet:
        fleet.wait_until(lambda: datetime.now(UTC) > at - timedelta(seconds=0.95), "the time")
        done = start(fleet, "nightly").ended()

        assert done.status == 0, done.err
        (line,) = fleet.lines("ran")
        assert line.words[3] == at.isoformat()
        assert float(line.words[1]) >= at.timestamp()


def test_a_job_that_fails_is_tried_again_here_and_the_status_says_how_it_ended(tmp_path: Path) -> None:
    program = """
@app.schedule(HOURLY, name="second", retry=Retry(3, delay=0.1))
async def second(ctx: Context):
    say("second", ctx.attempt)
    if ctx.attempt < 2:
        raise ValueError("once more")

@app.schedule(HOURLY, name="never", retry=Retry(2, delay=0.1))
async def never(ctx: Context):
    say("never", ctx.attempt)
    raise ValueError("never")
"""
    fleet, _ = hourly(tmp_path, program)
    with fleet:
        assert start(fleet, "second").ended().status == 0
        done = start(fleet, "never").ended()

        assert done.status == 1
        assert "ValueError: never" in done.err
        assert (fleet.said("second"), fleet.said("never")) == (["1", "2"], ["1", "2"])
        assert [answer.state for answer in ledger(fleet, "never")] == ["failed"]


LONG = """
@app.schedule(HOURLY, name="long", overlap={overlap!r})
async def long(ctx: Context):
    say("begun", ctx.fire_time.isoformat())
    try:
        await wait_for("go-" + ctx.fire_time.isoformat())
    except asyncio.CancelledError:
        say("cancelled", ctx.fire_time.isoformat())
        raise
    say("ended", ctx.fire_time.isoformat())
"""


def times(at: datetime, count: int) -> list[datetime]:
    """Return the newest fire times, the oldest first."""
    return [at - HOUR * number for number in reversed(range(count))]


def let_know(fleet: Fleet, name: str, at: datetime, before: datetime) -> None:
    """Let the store know an hourly schedule, as if it had been there since before some fire times."""
    trigger = Every("1h", anchor=at)
    declare = Declare(name=name, task=name, trigger=repr(trigger), fingerprint=trigger.fingerprint)

    async def put(store: Store) -> None:
        await store.set_schedule([declare])
        since = us(before)
        assert isinstance(store, SQLiteStore)
        await store.run(lambda db: db.execute("UPDATE schedules SET watermark = ?, declared_at = ?", (since, since)))

    fleet.ask(put)


def test_skip_leaves_out_what_comes_while_the_last_run_goes_on(tmp_path: Path) -> None:
    fleet, at = hourly(tmp_path, LONG.format(overlap="skip"))
    with fleet:
        first, second = times(at, 2)
        let_know(fleet, "long", at, first - HOUR)
        running = start(fleet, "long", first)
        fleet.wait_said("begun")
        done = start(fleet, "long", second).ended()

        assert done.status == 0
        assert re.search(rf"job \S+ is running in worker \S+ \(pid {running.pid} on ", done.err), done.err
        assert 'overlap="skip" decided; nothing is run for it now' in done.err
        fleet.touch(f"go-{first.isoformat()}")
        assert running.ended().status == 0
        assert [answer.outcome for answer in ledger(fleet, "long")] == ["ran", "skipped"]
        assert fleet.said("begun") == [first.isoformat()]


def test_queue_lets_one_wait_for_its_turn_and_later_ones_merge_into_it(tmp_path: Path) -> None:
    fleet, at = hourly(tmp_path, LONG.format(overlap="queue"))
    with fleet:
        first, second, third = times(at, 3)
        let_know(fleet, "long", at, first - HOUR)
        running = start(fleet, "long", first)
        fleet.wait_said("begun")
        waiting = start(fleet, "long", second)
        fleet.wait_until(lambda: len(ledger(fleet, "long")) == 2, "the second")
        done = start(fleet, "long", third).ended()

        assert done.status == 0, done.err
        assert "merged into job" in done.err
        assert fleet.said("begun") == [first.isoformat()]
        fleet.touch(f"go-{first.isoformat()}")
        fleet.touch(f"go-{second.isoformat()}")
        assert (running.ended().status, waiting.ended().status) == (0, 0)
        assert [answer.outcome for answer in ledger(fleet, "long")] == ["ran", "ran", "merged"]
        assert fleet.said("begun") == fleet.said("ended") == [first.isoformat(), second.isoformat()]
        assert [line.pid for line in fleet.lines("begun")] == [running.pid, waiting.pid]


def test_replace_ends_the_last_run_and_begins_when_it_has_ended(tmp_path: Path) -> None:
    fleet, at = hourly(tmp_path, LONG.format(overlap="replace"))
    with fleet:
        first, second = times(at, 2)
        let_know(fleet, "long", at, first - HOUR)
        running = start(fleet, "long", first)
        fleet.wait_said("begun")
        fleet.touch(f"go-{second.isoformat()}")
        done = start(fleet, "long", second).ended()

        assert done.status == 0, done.err
        assert running.ended().status == 1  # its job was cancelled
        said = [line.words for line in fleet.lines()]
        assert said == [
            ["begun", first.isoformat()],
            ["cancelled", first.isoformat()],
            ["begun", second.isoformat()],
            ["ended", second.isoformat()],
        ]
        assert [answer.state for answer in ledger(fleet, "long")] == ["cancelled", "succeeded"]


def test_allow_runs_both(tmp_path: Path) -> None:
    fleet, at = hourly(tmp_path, LONG.format(overlap="allow"))
    with fleet:
        first, second = times(at, 2)
        let_know(fleet, "long", at, first - HOUR)
        both = [start(fleet, "long", first)]
        fleet.wait_said("begun")
        both += [start(fleet, "long", second)]
        fleet.wait_said("begun", times=2)
        for fire_time in (first, second):
            fleet.touch(f"go-{fire_time.isoformat()}")

        assert [running.ended().status for running in both] == [0, 0]


@pytest.mark.parametrize("overlap", ["skip", "queue", "replace", "allow"])
def test_what_a_killed_process_has_left_is_taken_over_by_the_next(tmp_path: Path, overlap: str) -> None:
    fleet, at = hourly(tmp_path, LONG.format(overlap=overlap))
    with fleet:
        first, second = times(at, 2)
        let_know(fleet, "long", at, first - HOUR)
        running = start(fleet, "long", first)
        fleet.wait_said("begun")
        fleet.wait_until(lambda: fleet.job(job_of(fleet, first)).started_at, "the mark that it has begun")
        fleet.kill(running)
        for fire_time in (first, second):
            fleet.touch(f"go-{fire_time.isoformat()}")
        done = start(fleet, "long", second).ended()

        assert done.status == 0, done.err
        outcomes = {answer.first: (answer.outcome, answer.state) for answer in ledger(fleet, "long")}
        expected = {
            "skip": {first: ("ran", "succeeded"), second: ("ran", "succeeded")},
            "queue": {first: ("ran", "succeeded"), second: ("merged", None)},
            "replace": {first: ("ran", "cancelled"), second: ("ran", "succeeded")},
            "allow": {first: ("ran", "succeeded"), second: ("ran", "succeeded")},
        }
        assert outcomes == expected[overlap]
        assert set(fleet.states()) <= {"succeeded", "cancelled"}


def job_of(fleet: Fleet, at: datetime) -> str:
    return next(answer.job_id or "" for answer in ledger(fleet, "long") if answer.first == at)


def test_what_an_app_that_runs_will_take_is_left_to_it(tmp_path: Path) -> None:
    program = (
        LONG.format(overlap="skip")
        + """
@app.task(name="busy")
async def busy():
    say("busy")
    await wait_for("go-busy")
"""
    )
    fleet, at = hourly(tmp_path, program, workers=1)
    with fleet:
        let_know(fleet, "long", at, at - HOUR)
        fleet.enqueue("busy")
        app = fleet.start()
        fleet.wait_said("busy")
        fleet.wait_until(lambda: ledger(fleet, "long"), "the fire time, for which no worker is free")
        done = start(fleet, "long").ended()

        assert done.status == 0
        assert "waits as job" in done.err
        fleet.touch(f"go-{at.isoformat()}")
        fleet.touch("go-busy")
        fleet.wait_said("ended")
        assert {line.pid for line in fleet.lines("begun")} == {app.pid}


def test_what_an_app_of_other_queues_will_not_take_is_taken_over(tmp_path: Path) -> None:
    fleet, at = hourly(tmp_path, LONG.format(overlap="skip"))
    with fleet:
        running = start(fleet, "long")
        fleet.wait_said("begun")
        app = fleet.start("-m", "tickwork", "run", "jobs.py", "--queues", "mail")
        app.wait_for("started:")
        fleet.kill(running)
        fleet.touch(f"go-{at.isoformat()}")
        done = start(fleet, "long").ended()

        assert done.status == 0, done.err
        assert "was left unfinished, and nobody runs it: taken over" in done.err
        assert fleet.said("ended") == [at.isoformat()]


def test_a_process_that_is_stopped_drains_and_the_next_one_goes_on_with_its_job(tmp_path: Path) -> None:
    fleet, at = hourly(tmp_path, LONG.format(overlap="skip"), drain=0.1)
    with fleet:
        running = start(fleet, "long")
        fleet.wait_said("begun")
        running.send(signal.SIGTERM)

        assert running.ended().status == 4  # cut
        assert "has not ended; an app that runs, or the next start, takes it over" in running.err
        assert fleet.states() == {"queued": 1}
        fleet.touch(f"go-{at.isoformat()}")
        done = start(fleet, "long").ended()
        assert done.status == 0, done.err
        assert "was left unfinished, and nobody runs it: taken over" in done.err
        assert fleet.said("ended") == [at.isoformat()]
        assert fleet.states() == {"succeeded": 1}


def test_beyond_its_grace_a_fire_time_is_recorded_as_missed(tmp_path: Path) -> None:
    program = NIGHTLY.replace('name="nightly"', 'name="nightly", grace="1s"')
    fleet, at = hourly(tmp_path, program, age=5)
    with fleet:
        done = start(fleet, "nightly").ended()

        assert done.status == 0
        assert 'grace="1s" decided; nothing is run for it now' in done.err
        (answer,) = ledger(fleet, "nightly")
        assert (answer.first, answer.outcome, answer.decided_by) == (at, "missed", 'grace="1s"')
        assert fleet.lines("ran") == []


def test_a_schedule_that_is_new_makes_up_for_nothing(tmp_path: Path) -> None:
    fleet, _ = hourly(tmp_path, NIGHTLY, age=600)
    with fleet:
        done = start(fleet, "nightly").ended()

        assert done.status == 0
        assert "schedule nightly: started 10m" in done.err
        assert "did not run: the schedule was declared with this trigger at" in done.err
        assert (fleet.lines("ran"), ledger(fleet, "nightly")) == ([], [])


def test_a_paused_schedule_runs_nothing_and_the_fire_time_is_recorded_as_paused(tmp_path: Path) -> None:
    fleet, at = hourly(tmp_path, NIGHTLY)
    with fleet:
        let_know(fleet, "nightly", at, at - HOUR)
        fleet.ask(lambda store: store.set_schedule([Pause(name="nightly", paused=True)]))
        done = start(fleet, "nightly").ended()

        assert done.status == 0
        assert "did not run: the schedule was paused; nothing is run for it now" in done.err
        assert fleet.lines("ran") == []
        with Running("-m", "tickwork", "history", "jobs.py", "nightly", cwd=tmp_path) as running:
            assert "paused" in running.ended().out


def test_a_job_that_does_not_begin_says_what_it_waits_for(tmp_path: Path) -> None:
    fleet, at = hourly(tmp_path, NIGHTLY)
    with fleet:
        let_know(fleet, "nightly", at, at - HOUR)
        with Running("-m", "tickwork", "pause", "jobs.py", "default", cwd=tmp_path) as running:
            assert running.ended().status == 0, running.err
        waiting = start(fleet, "nightly")
        waiting.wait_for("queue 'default' is paused")
        with Running("-m", "tickwork", "resume", "jobs.py", "default", cwd=tmp_path) as running:
            assert running.ended().status == 0, running.err

        assert waiting.ended().status == 0
        assert fleet.said("ran") == ["1"]


def test_the_words_that_sync_writes_run_from_any_folder(tmp_path: Path) -> None:
    fleet, _ = hourly(tmp_path, NIGHTLY)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "jobs.py").write_text("raise RuntimeError('the module of another folder')")
    with fleet:
        log = tmp_path / "nightly.log"
        words = ["trigger", "--dir", str(tmp_path), "--log", str(log), "--fire-time", "auto", "jobs:app", "nightly"]
        with Running("-m", "tickwork", *words, cwd=elsewhere, env={"PYTHONPATH": SOURCE}) as running:
            done = running.ended()

        assert (done.status, done.out, done.err) == (0, "", "")
        assert fleet.said("ran") == ["1"]
        assert log.stat().st_mode & 0o777 == 0o600
        assert re.search(
            r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\S+ INFO +end nightly job=\S+ succeeded", log.read_text(), re.M
        )


SOURCE = os.pathsep.join(filter(None, sys.path))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["jobs.py", "nihgtly"], "no schedule named 'nihgtly'; did you mean 'nightly'?"),
        (
            ["--args", "[1]", "jobs.py", "nightly"],
            "--args must be left out with --fire-time, got '[1]'; the schedule has them",
        ),
        (
            ["jobs.py", "end"],
            (
                "NAME must be a schedule whose fire times its trigger tells, got 'end'; each comes a period after the "
                'end of the last job (after="end"), so only a running app can fire it'
            ),
        ),
        (["nowhere.py", "nightly"], "cannot use target 'nowhere.py': no such file"),
        (
            ["--dir", "nowhere", "jobs.py", "nightly"],
            "--dir must be a folder that can be entered, got '{folder}/nowhere'; No such file or directory",
        ),
        (
            ["--log", "nowhere/log", "jobs.py", "nightly"],
            (
                "--log must be a file that can be written, got '{folder}/nowhere/log'; No such file or directory; "
                "nothing was run"
            ),
        ),
        (
            ["--log", ".", "jobs.py", "nightly"],
            "--log must be a file that can be written, got '{folder}/.'; Is a directory; nothing was run",
        ),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(value),
)
def test_a_mistake_is_said_on_standard_error_with_status_2(tmp_path: Path, words: list[str], message: str) -> None:
    program = (
        NIGHTLY
        + """
@app.every("1h", name="end", after="end")
async def end():
    pass
"""
    )
    fleet, _ = hourly(tmp_path, program)
    with fleet:
        done = fleet.start("-m", "tickwork", "trigger", "--fire-time", "auto", *words).ended()

        assert (done.status, done.out) == (2, "")
        assert done.err.splitlines()[-1] == f"tickwork: {message.format(folder=tmp_path)}"


def test_a_schedule_without_a_fire_time_yet_runs_nothing(tmp_path: Path) -> None:
    program = """
from tickwork import At

@app.schedule(At("2999-01-01T00:00Z"), name="later")
async def later():
    say("ran")
"""
    fleet, _ = hourly(tmp_path, program)
    with fleet:
        done = start(fleet, "later").ended()

        assert done.status == 0
        assert (
            "schedule later has had no fire time yet, so nothing is run; the first is 2999-01-01 00:00:00 +0000"
            in done.err
        )


def test_a_trigger_that_raises_is_said_with_status_3(tmp_path: Path) -> None:
    program = """
from tickwork.triggers import Trigger

class Broken(Trigger):
    fingerprint = "broken"
    def next(self, after):
        raise RuntimeError("no calendar today")

@app.schedule(Broken(), name="broken")
async def broken():
    say("ran")
"""
    fleet, _ = hourly(tmp_path, program)
    with fleet:
        done = start(fleet, "broken").ended()

        assert done.status == 3
        assert "the fire time of broken could not be answered" in done.err
        assert "RuntimeError: no calendar today" in done.err


def test_a_name_beyond_ascii_is_found(tmp_path: Path) -> None:
    fleet, _ = hourly(tmp_path, NIGHTLY.replace('"nightly"', '"nächtlich 夜"'))
    with fleet:
        done = start(fleet, "nächtlich 夜").ended()

        assert done.status == 0, done.err
        assert fleet.said("ran") == ["1"]
