"""`tickwork trigger --fire-time` of an app in memory: processes honour the overlap policy by locks of their own."""

from __future__ import annotations

import json
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cli.command import Running
from fleet import Fleet
from tickwork import Every
from tickwork.clock import SystemClock
from tickwork.policies import Due
from tickwork.system.turns import Turns

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="needs signals"),
    pytest.mark.timeout(120),  # several processes one after the other, on a busy machine
]

HOUR = timedelta(hours=1)

PROGRAM = """
from datetime import UTC, datetime, timedelta
from tickwork import Every

app = App(drain_seconds={drain}, cancel_seconds=2)

@app.schedule(Every("1h", anchor=datetime.fromisoformat({at!r})), name="long", {options})
async def long(ctx: Context):
    say("begun", ctx.fire_time.isoformat())
    try:
        await wait_for("go-" + ctx.fire_time.isoformat())
    except asyncio.CancelledError:
        say("cancelled", ctx.fire_time.isoformat())
        raise
    say("ended", ctx.fire_time.isoformat())
"""


def hourly(folder: Path, options: str = "", *, age: float = 3, drain: float = 5) -> tuple[Fleet, datetime]:
    """Return processes of a program with an hourly schedule, and its newest fire time."""
    at = (datetime.now(UTC) - timedelta(seconds=age)).replace(microsecond=0)
    return Fleet(folder, PROGRAM.format(at=at.isoformat(), drain=drain, options=options)), at


def start(fleet: Fleet, when: str | datetime = "auto", target: str = "jobs.py") -> Running:
    """Start what an entry of a crontab starts."""
    told = when if isinstance(when, str) else when.isoformat()
    words = ("trigger", "--state", str(fleet.folder), "--fire-time", told, target, "long")
    return fleet.start("-m", "tickwork", *words)


def note(fleet: Fleet) -> dict[str, Any]:
    (path,) = fleet.folder.glob("tickwork-runs/long-*.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def let_know(fleet: Fleet, at: datetime, before: datetime) -> None:
    """Let processes know the hourly schedule, as if the last one had been started for a fire time before some."""
    turns = Turns(fleet.folder / "tickwork-runs", f"{fleet.folder}/jobs:app", "long", SystemClock())
    fingerprint = Every("1h", anchor=at).fingerprint
    turns.take(before, fingerprint, "allow", lambda row, is_answered, now: Due(runs=(before,), watermark=before))
    turns.leave("ended")
    (path,) = fleet.folder.glob("tickwork-runs/long-*.json")
    path.write_text(json.dumps(note(fleet) | {"declared_at": before.isoformat(), "runs": 0}))


def allow(fleet: Fleet, *fire_times: datetime) -> None:
    for fire_time in fire_times:
        fleet.touch(f"go-{fire_time.isoformat()}")


def several(folder: Path, overlap: str, *, drain: float = 5) -> tuple[Fleet, list[datetime]]:
    """Return processes of a schedule that is known since before its three newest fire times, and those."""
    fleet, at = hourly(folder, f"overlap={overlap!r}", drain=drain)
    let_know(fleet, at, at - 3 * HOUR)
    return fleet, [at - 2 * HOUR, at - HOUR, at]


@pytest.mark.parametrize("overlap", ["skip", "queue", "replace", "allow"])
def test_a_fire_time_runs_once_however_often_it_is_started_at_once(tmp_path: Path, overlap: str) -> None:
    fleet, at = hourly(tmp_path, f"overlap={overlap!r}")
    with fleet:
        allow(fleet, at)
        done = [running.ended() for running in [start(fleet, when) for when in ("auto", at, "auto")]]

        assert [ended.status for ended in done] == [0, 0, 0], done
        assert fleet.said() == [at.isoformat()] * 2  # begun, ended
        assert sum("answered already" in ended.err for ended in done) == 2


def test_a_fire_time_that_has_run_does_not_run_again(tmp_path: Path) -> None:
    fleet, at = hourly(tmp_path)
    with fleet:
        allow(fleet, at)
        first = start(fleet)
        assert first.ended().status == 0
        done = start(fleet).ended()

        assert done.status == 0
        assert "answered already, or one after it: ended with exit status 0, by " in done.err
        assert (
            f", pid {first.pid}; nothing is run for it now. To run the task all the same: tickwork trigger" in done.err
        )
        assert len(fleet.lines("begun")) == 1


def test_all_spellings_of_a_target_are_one_app(tmp_path: Path) -> None:
    fleet, at = hourly(tmp_path)
    with fleet:
        allow(fleet, at)
        for target in ("jobs.py", "jobs", "jobs:app", "./jobs.py:app", f"{tmp_path}/jobs.py"):
            assert start(fleet, target=target).ended().status == 0

        assert len(fleet.lines("begun")) == 1
        assert note(fleet)["runs"] == 1


def test_skip_leaves_out_what_comes_while_the_last_run_goes_on(tmp_path: Path) -> None:
    fleet, (first, second, _) = several(tmp_path, "skip")
    with fleet:
        running = start(fleet, first)
        fleet.wait_said("begun")
        done = start(fleet, second).ended()

        assert done.status == 0
        assert "skipped: still running since " in done.err
        assert f", pid {running.pid}; nothing is run for it now" in done.err
        allow(fleet, first)
        assert running.ended().status == 0
        assert start(fleet, second).ended().status == 0  # it is answered
        assert fleet.said("begun") == [first.isoformat()]


def test_queue_lets_one_wait_for_its_turn_and_later_ones_merge_into_it(tmp_path: Path) -> None:
    fleet, (first, second, third) = several(tmp_path, "queue")
    with fleet:
        running = start(fleet, first)
        fleet.wait_said("begun")
        waiting = start(fleet, second)
        waiting.wait_for(f"schedule long waits until pid {running.pid} has ended, which runs")
        done = start(fleet, third).ended()

        assert done.status == 0
        assert "merged into the run that waits for its turn since " in done.err
        assert f", pid {waiting.pid}; nothing is run" in done.err
        assert fleet.said("begun") == [first.isoformat()]
        allow(fleet, first, second)
        assert (running.ended().status, waiting.ended().status) == (0, 0)
        assert [(line.pid, line.words[0]) for line in fleet.lines()] == [
            (running.pid, "begun"),
            (running.pid, "ended"),
            (waiting.pid, "begun"),
            (waiting.pid, "ended"),
        ]


def test_replace_ends_the_last_run_and_begins_when_it_is_gone(tmp_path: Path) -> None:
    fleet, (first, second, _) = several(tmp_path, "replace", drain=0.1)
    with fleet:
        running = start(fleet, first)
        fleet.wait_said("begun")
        allow(fleet, second)
        done = start(fleet, second).ended()

        assert done.status == 0, done.err
        assert running.ended().status == 4  # its job was cut
        assert [line.words for line in fleet.lines()] == [
            ["begun", first.isoformat()],
            ["cancelled", first.isoformat()],
            ["begun", second.isoformat()],
            ["ended", second.isoformat()],
        ]


def test_replace_replaces_the_one_that_waits_too(tmp_path: Path) -> None:
    fleet, (first, second, third) = several(tmp_path, "replace", drain=60)
    with fleet:
        running = start(fleet, first)
        fleet.wait_said("begun")
        waiting = start(fleet, second)
        running.wait_for("SIGTERM: draining")
        newest = start(fleet, third)

        assert waiting.ended().status == 128 + signal.SIGTERM
        assert "SIGTERM: ended before anything had begun" in waiting.err
        assert running.process.poll() is None  # it drains, and was not asked a second time
        allow(fleet, first, third)
        assert (running.ended().status, newest.ended().status) == (0, 0)
        assert fleet.said("begun") == fleet.said("ended") == [first.isoformat(), third.isoformat()]


def test_allow_runs_both(tmp_path: Path) -> None:
    fleet, (first, second, _) = several(tmp_path, "allow")
    with fleet:
        both = [start(fleet, first)]
        fleet.wait_said("begun")
        both += [start(fleet, second)]
        fleet.wait_said("begun", times=2)
        allow(fleet, first, second)

        assert [running.ended().status for running in both] == [0, 0]


@pytest.mark.parametrize("overlap", ["skip", "queue", "replace"])
def test_a_killed_process_is_in_nobodys_way(tmp_path: Path, overlap: str) -> None:
    fleet, (first, second, third) = several(tmp_path, overlap)
    with fleet:
        running = start(fleet, first)
        fleet.wait_said("begun")
        if overlap == "queue":
            waiting = start(fleet, second)
            waiting.wait_for("waits until pid")
            fleet.kill(waiting)
        fleet.kill(running)
        allow(fleet, third)
        done = start(fleet, third).ended()

        assert done.status == 0, done.err
        assert fleet.said("ended") == [third.isoformat()]


def test_a_pid_that_somebody_else_has_by_now_is_not_ended(tmp_path: Path) -> None:
    fleet, (first, second, _) = several(tmp_path, "replace")
    with fleet, Running("-c", "import signal; signal.pause()", cwd=tmp_path) as stranger:
        (path,) = fleet.folder.glob("tickwork-runs/long-*.json")
        holder = note(fleet)["last"] | {"pid": stranger.pid, "fire_time": first.isoformat()}
        path.write_text(json.dumps(note(fleet) | {"running": holder, "waiting": holder}))
        allow(fleet, second)

        assert start(fleet, second).ended().status == 0
        assert stranger.process.poll() is None


def test_a_process_of_another_container_is_waited_for(tmp_path: Path) -> None:
    fleet, (first, second, _) = several(tmp_path, "replace")
    with fleet:
        running = start(fleet, first)
        fleet.wait_said("begun")
        (path,) = fleet.folder.glob("tickwork-runs/long-*.json")
        told = note(fleet)
        told["running"]["place"] = "elsewhere pid:[1]"
        path.write_text(json.dumps(told))
        waiting = start(fleet, second)
        waiting.wait_for("runs in elsewhere pid:[1], where this process cannot end it: it is waited for")
        allow(fleet, first, second)

        assert (running.ended().status, waiting.ended().status) == (0, 0)
        assert fleet.said("ended") == [first.isoformat(), second.isoformat()]


def test_what_was_missed_before_is_said(tmp_path: Path) -> None:
    fleet, (_, _, third) = several(tmp_path, "skip")
    with fleet:
        allow(fleet, third)
        done = start(fleet).ended()

        assert done.status == 0
        assert "schedule long missed 2 fire times, from " in done.err
        assert 'catch_up="latest" decided' in done.err
        assert fleet.said("begun") == [third.isoformat()]


def test_a_schedule_that_is_new_makes_up_for_nothing(tmp_path: Path) -> None:
    fleet, _ = hourly(tmp_path, age=600)
    with fleet:
        done = [start(fleet).ended(), start(fleet).ended()]

        assert [ended.status for ended in done] == [0, 0]
        for ended in done:
            told = "passed before this schedule was started here for the first time, or with this trigger"
            assert f"{told}; nothing is run for it now" in ended.err
        assert fleet.lines() == []


def test_beyond_its_grace_a_fire_time_is_missed(tmp_path: Path) -> None:
    fleet, at = hourly(tmp_path, 'grace="1s"')
    with fleet:
        done = start(fleet).ended()

        assert done.status == 0
        assert f'schedule long missed {at:%Y-%m-%d %H:%M:%S} +0000; grace="1s" decided' in done.err
        assert fleet.lines() == []


def test_runs_are_counted_across_processes(tmp_path: Path) -> None:
    fleet, at = hourly(tmp_path, "max_runs=2")
    with fleet:
        allow(fleet, at, at - HOUR, at - 2 * HOUR)
        let_know(fleet, at, at - 3 * HOUR)
        done = [start(fleet, at - HOUR * number).ended() for number in (2, 1, 0)]

        assert [ended.status for ended in done] == [0, 0, 0]
        assert "the schedule is finished (max_runs=2); nothing is run" in done[2].err
        assert fleet.said("begun") == [(at - 2 * HOUR).isoformat(), (at - HOUR).isoformat()]


def test_a_job_that_fails_ends_with_status_1_and_is_not_run_again(tmp_path: Path) -> None:
    program = """
from datetime import datetime
from tickwork import Every

app = App()

@app.schedule(Every("1h", anchor=datetime.fromisoformat({at!r})), name="long", retry=Retry(2, delay=0))
async def long(ctx: Context):
    say("attempt", ctx.attempt)
    raise ValueError("no")
"""
    at = (datetime.now(UTC) - timedelta(seconds=2)).replace(microsecond=0)
    with Fleet(tmp_path, program.format(at=at.isoformat())) as fleet:
        done = start(fleet).ended()

        assert done.status == 1
        assert "ValueError: no" in done.err
        assert start(fleet).ended().status == 0
        assert fleet.said("attempt") == ["1", "2"]
        assert note(fleet)["said"] == "ended with exit status 1"


def test_what_a_job_enqueues_runs_too(tmp_path: Path) -> None:
    program = """
from datetime import datetime
from tickwork import Every

app = App(workers=1)

@app.task(name="other")
async def other(number: int):
    say("other", number)
    if number == 2:
        raise ValueError("no")

@app.schedule(Every("1h", anchor=datetime.fromisoformat({at!r})), name="long")
async def long():
    await other.enqueue_many([(1,), (2,), (3,)])
"""
    at = (datetime.now(UTC) - timedelta(seconds=2)).replace(microsecond=0)
    with Fleet(tmp_path, program.format(at=at.isoformat())) as fleet:
        assert start(fleet).ended().status == 1
        assert fleet.said("other") == ["1", "2", "3"]


def test_a_process_that_is_stopped_drains(tmp_path: Path) -> None:
    fleet, (first, _, _) = several(tmp_path, "skip")
    with fleet:
        running = start(fleet, first)
        fleet.wait_said("begun")
        running.send(signal.SIGTERM)
        running.wait_for("SIGTERM: draining")
        allow(fleet, first)

        assert running.ended().status == 0
        assert fleet.said("ended") == [first.isoformat()]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schedule": 1}', "\x00\xff"])
def test_a_note_that_cannot_be_read_is_said_and_stands_in_nobodys_way(tmp_path: Path, content: str) -> None:
    fleet, at = hourly(tmp_path)
    with fleet:
        allow(fleet, at)
        start(fleet).ended()
        (path,) = fleet.folder.glob("tickwork-runs/long-*.json")
        path.write_text(content, encoding="latin-1")
        done = start(fleet).ended()

        assert done.status == 0
        assert f"what earlier runs have left in {path} cannot be read" in done.err
        assert note(fleet)["answered"] == at.isoformat()


def test_a_folder_that_cannot_be_used_is_said_with_status_3(tmp_path: Path) -> None:
    fleet, _ = hourly(tmp_path)
    with fleet:
        (tmp_path / "tickwork-runs").write_text("a file")
        done = start(fleet).ended()

        assert done.status == 3
        assert f"not allowed: to keep a lock in '{tmp_path}/tickwork-runs': File exists; " in done.err
        assert fleet.lines() == []
