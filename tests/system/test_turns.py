"""Processes without a store take turns: one at a time, whoever is killed, and the note they leave each other."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cli.command import Running
from tickwork.clock import SystemClock
from tickwork.errors import SchedulerDenied, SchedulerTimedOut
from tickwork.policies import Due
from tickwork.stores.base import ScheduleRow
from tickwork.stores.filelock import FileLock
from tickwork.system.turn_note import Holder, Note, read_note, write_note
from tickwork.system.turns import Turns

AT = datetime(2026, 11, 26, 3, 30, tzinfo=UTC)


def run(row: ScheduleRow, is_answered: bool, now: datetime) -> Due:
    return Due(runs=(AT,), watermark=AT)


# --- the note ------------------------------------------------------------------------------------------------------


def test_a_note_comes_back_as_it_was_written(tmp_path: Path) -> None:
    holder = Holder(4711, "host pid:[1]", AT, AT - timedelta(hours=1), is_told=True)
    note = Note("nächtlich", "cron", AT, AT, "ran", 3, holder, None, holder)

    write_note(tmp_path / "note", note)

    assert read_note(tmp_path / "note") == note
    assert [path.name for path in tmp_path.iterdir()] == ["note"]
    if os.name == "posix":
        assert (tmp_path / "note").stat().st_mode & 0o777 == 0o600


def test_where_there_is_no_note_nothing_is_known(tmp_path: Path) -> None:
    assert read_note(tmp_path / "note") is None


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, of Linux")
def test_a_note_that_cannot_be_written_leaves_none_that_names_the_dead(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "note"
    write_note(path, Note("nightly", "cron", AT))
    (tmp_path / f"note.{os.getpid()}").symlink_to("/dev/full")

    write_note(path, Note("nightly", "cron", AT, AT))

    assert list(tmp_path.iterdir()) == []
    (told,) = caplog.messages
    assert told == (
        f"no note of this run can be left in {path} (No space left on device): if it is started twice for "
        "2026-11-26T03:30:00+00:00, it runs twice"
    )


# --- turns ---------------------------------------------------------------------------------------------------------


def test_schedules_and_apps_do_not_share_turns(tmp_path: Path) -> None:
    for target, schedule in (
        ("a", "x"),
        ("a", "y"),
        ("b", "x"),
        ("a", "ä"),
        ("a", "ö"),
        ("a", "x" * 500),
        ("a", "../x"),
    ):
        turns = Turns(tmp_path, target, schedule, SystemClock())
        assert turns.take(AT, "cron", "skip", run).outcome == "ran"

    assert len(list(tmp_path.glob("*.json"))) == 7
    assert all(len(path.name) < 64 for path in tmp_path.iterdir())


def test_who_has_left_is_in_nobodys_way(tmp_path: Path) -> None:
    first, second = (Turns(tmp_path, "app", "nightly", SystemClock()) for _ in range(2))
    assert first.take(AT, "cron", "skip", run).outcome == "ran"
    turn = second.take(AT, "cron", "skip", run)
    assert (turn.outcome, turn.other and turn.other.pid) == ("skipped", os.getpid())

    first.leave("ended")

    assert second.take(AT, "cron", "skip", run).outcome == "ran"


def test_who_comes_when_the_last_run_has_just_ended_does_not_overtake_who_waits(tmp_path: Path) -> None:
    first, later = (Turns(tmp_path, "app", "nightly", SystemClock()) for _ in range(2))
    assert first.take(AT, "cron", "queue", run).outcome == "ran"
    (path,) = tmp_path.glob("*.next")
    waits = FileLock(path)  # of a process that looks again in a while
    assert waits.try_acquire()
    first.leave("ended")

    assert later.take(AT + timedelta(minutes=1), "cron", "queue", run).outcome == "merged"
    waits.close()
    assert later.take(AT + timedelta(minutes=2), "cron", "queue", run).outcome == "ran"


def test_who_waits_has_its_turn_also_when_the_note_is_lost(tmp_path: Path) -> None:
    first, second, third = (Turns(tmp_path, "app", "nightly", SystemClock()) for _ in range(3))
    assert first.take(AT, "cron", "queue", run).outcome == "ran"
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(second.take, AT + timedelta(minutes=1), "cron", "queue", run)
        (path,) = tmp_path.glob("*.json")
        while (note := read_note(path)) is None or note.waiting is None:
            time.sleep(0.002)
        path.unlink()
        assert third.take(AT + timedelta(minutes=2), "cron", "queue", run).outcome == "merged"
        first.leave("ended")
        assert waiting.result(30).outcome == "ran"
    note = read_note(path)
    assert note is not None
    assert note.waiting is None
    assert note.running is not None


def test_another_trigger_begins_anew_without_forgetting_what_is_answered(tmp_path: Path) -> None:
    seen: list[tuple[ScheduleRow, bool]] = []

    def look(row: ScheduleRow, is_answered: bool, now: datetime) -> Due:
        seen.append((row, is_answered))
        return run(row, is_answered, now)

    turns = Turns(tmp_path, "app", "nightly", SystemClock())
    for fingerprint in ("one", "one", "two"):
        turns.take(AT, fingerprint, "allow", look)

    (first, second, third) = (row for row, _ in seen)
    assert [is_answered for _, is_answered in seen] == [False, True, True]
    assert first.declared_at == second.declared_at < third.declared_at == third.watermark
    assert (first.runs, third.runs) == (0, 2)


class Hasty(SystemClock):
    """A clock on which a second passes each time somebody looks."""

    def __init__(self) -> None:
        super().__init__()
        self.mono = 0.0

    def monotonic(self) -> float:
        self.mono += 1
        return self.mono


def test_a_lock_that_somebody_keeps_is_said_after_ten_seconds(tmp_path: Path) -> None:
    turns = Turns(tmp_path, "app", "nightly", Hasty())
    (path,) = tmp_path.glob("*.lock")
    lock = FileLock(path)
    assert lock.try_acquire()

    with pytest.raises(SchedulerTimedOut) as raised:
        turns.take(AT, "cron", "skip", run)

    lock.close()
    assert str(raised.value) == (
        f"the wait for the lock of schedule 'nightly' took longer than 10 s; `fuser {path}` names who holds it"
    )


@pytest.mark.skipif(sys.platform == "win32", reason="has other permissions")
def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").symlink_to("/tmp")

    with pytest.raises(SchedulerDenied):
        Turns(tmp_path / "theirs", "app", "nightly", SystemClock())


# Each of its processes takes one turn after the other, and proves by a lock of its own that no other has one meanwhile.
STORM = """
import fcntl, os, signal, sys, time
from datetime import UTC, datetime
from pathlib import Path
from tickwork.clock import SystemClock
from tickwork.policies import Due
from tickwork.system.turns import Turns

folder, overlap = Path(sys.argv[1]), sys.argv[2]
proof = os.open(folder / "proof", os.O_RDWR | os.O_CREAT)
log = os.open(folder / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def end(number, frame):
    raise SystemExit

signal.signal(signal.SIGTERM, end)
at = datetime.now(UTC)
turns = Turns(folder / "turns", "app", "storm", SystemClock())
turn = turns.take(at, "cron", overlap, lambda row, is_answered, now: Due(runs=(at,), watermark=at))
if turn.outcome == "ran":
    try:
        fcntl.flock(proof, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.write(log, b"clash:%s\\n" % os.pread(proof, 20, 0))
    else:
        os.ftruncate(proof, 0)
        os.pwrite(proof, b"%d" % os.getpid(), 0)
    time.sleep(0.05)
    os.write(log, b"ran\\n")
    fcntl.flock(proof, fcntl.LOCK_UN)
    turns.leave("ended")
else:
    os.write(log, f"{turn.outcome}\\n".encode())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals and flock")
@pytest.mark.timeout(120)
@pytest.mark.parametrize("overlap", ["skip", "queue", "replace"])
def test_in_a_storm_of_starts_and_kills_one_runs_at_a_time(tmp_path: Path, overlap: str) -> None:
    (tmp_path / "storm.py").write_text(STORM)
    draw = random.Random(1)
    source = os.pathsep.join(filter(None, sys.path))
    living, killed = list[Running](), set[int]()
    for number in range(30):
        living.append(Running("storm.py", str(tmp_path), overlap, cwd=tmp_path, env={"PYTHONPATH": source}))
        if number % 4 == 3:
            victim = living.pop(draw.randrange(len(living)))
            victim.send(signal.SIGKILL)
            victim.process.wait()
            killed.add(victim.process.pid)
        while len(living) > 4:
            living.pop(0).ended()
        time.sleep(draw.random() * 0.05)
    for running in living:
        assert running.ended().status == 0, running.err

    said = (tmp_path / "log").read_text().split()
    # The kernel gives back the locks of one that was killed one after the other.
    said = [word for word in said if word not in {f"clash:{pid}" for pid in killed}]
    assert said.count("ran") >= 5
    assert set(said) <= {"ran", {"skip": "skipped", "queue": "merged", "replace": "replaced"}[overlap]}
