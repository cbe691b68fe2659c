"""Worker processes that share one SQLite file are killed, again and again: is any job lost, does any run twice?

    python bench/kill.py                   # 20,000 jobs, 200 kills, then the same with a producer that is killed, too
    python bench/kill.py --jobs 300 --kills 16 --json

Real processes (`kill_worker.py`) die by SIGKILL: half of them by their own hand at a named point of the life of a job,
half from outside at a random moment, always with at least one job in hand. What was enqueued, begun and ended stands in
a file to which all of them append. At the end:

- lost: the producer was told that the job is kept, and it has not succeeded;
- doubled: a job ran again although no process that had it in hand was killed, or although its end had been written.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from tickwork.stores.filelock import FileLock

WORKER = Path(__file__).with_name("kill_worker.py")
RANDOM = "at a random moment"
POINTS = {  # the name, and after how many times that it is reached the process dies, at the most
    "claimed": 8,
    "begun": 150,
    "in the middle": 150,
    "before finish": 100,
    "in the transaction": 100,
    "during commit": 100,
    "after commit": 100,
}
WHAT = {
    "claimed": "after the claim, before the start",
    "begun": "at the start of a job",
    "in the middle": "in the middle of a job",
    "before finish": "before the end is written",
    "in the transaction": "in the transaction, before its COMMIT",
    "during commit": "up to 2 ms after COMMIT was begun",
    "after commit": "after COMMIT, before anybody hears of it",
}
RANDOM_SECONDS = 4.0
"""How long a process lives that is killed from outside, at the most."""
STALL_SECONDS = 60


@dataclass
class Kill:
    """One death of a worker process.

    Attributes:
        point: Where it was.
        pid: Who died.
        at: When, seconds since the epoch.
        in_hand: The jobs that the process had claimed and not ended, as far as the store knows.
        settled: Jobs that it had run and whose ends were in the store.
    """

    point: str
    pid: int
    at: float
    in_hand: set[str] = field(default_factory=set)
    settled: set[str] = field(default_factory=set)


class Log:
    """What the processes have said."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self.accepted: dict[str, int] = {}
        self.starts: dict[str, list[tuple[float, int]]] = defaultdict(list)
        self.ends: dict[str, list[int]] = defaultdict(list)
        self.by_pid: dict[int, set[str]] = defaultdict(set)
        self.open_by_pid: dict[int, set[str]] = defaultdict(set)
        self.rescues: dict[str, list[float]] = defaultdict(list)
        self.last_words: dict[int, tuple[str, float, set[str]]] = {}

    def read(self) -> None:
        with self._path.open() as file:
            file.seek(self._offset)
            for line in iter(file.readline, ""):
                if not line.endswith("\n"):
                    break
                self._offset += len(line)
                kind, *words = line.split()
                self.hear(kind, words)

    def hear(self, kind: str, words: list[str]) -> None:
        """Take in a line; see `kill_worker.py` for what they mean."""
        if kind == "A":
            self.accepted[words[1]] = int(words[0])
        elif kind == "S":
            job, pid = words[0], int(words[1])
            self.starts[job].append((float(words[2]), pid))
            self.by_pid[pid].add(job)
            self.open_by_pid[pid].add(job)
        elif kind == "E":
            self.ends[words[0]].append(int(words[1]))
            self.open_by_pid[int(words[1])].discard(words[0])
        elif kind == "R":
            for job in words[1:]:
                self.rescues[job].append(float(words[0]))
        elif kind == "K":
            *point, pid_word, at = _until_number(words)
            self.last_words[int(pid_word)] = " ".join(point), float(at), set(words[len(point) + 2 :])


def _until_number(words: list[str]) -> list[str]:
    first = next(place for place, word in enumerate(words) if word.isdecimal())
    return words[: first + 2]


class Slaughter:
    """One run: `processes` workers, one producer, and their deaths."""

    def __init__(self, folder: Path, *, jobs: int, kills: int, processes: int, kill_producer: bool, seed: int) -> None:
        self.folder, self.jobs, self.processes, self.kill_producer = folder, jobs, processes, kill_producer
        self.random = random.Random(seed)
        self.database = folder / "jobs.db"
        (folder / "log").touch()
        self.log = Log(folder / "log")
        each = max(1, kills // 2 // len(POINTS))
        self.plan = [point for point in POINTS for _ in range(each)]
        self.plan += [RANDOM] * (kills - len(self.plan))
        self.random.shuffle(self.plan)
        self.hurry = min(1.0, jobs / kills / 100)
        self.kills: list[Kill] = []
        self.workers: dict[int, tuple[subprocess.Popen[bytes], str, float]] = {}
        self.producer: subprocess.Popen[bytes] | None = None
        self.producer_kills = 0
        self.produced = 0
        self._ask_again = 0.0
        self._size, self._moved = 0, time.monotonic()

    def start(self, *words: object, kill_at: str = "") -> subprocess.Popen[bytes]:
        env = {**os.environ, "KILL_AT": kill_at}
        with (self.folder / "err").open("ab") as err:
            return subprocess.Popen(
                [sys.executable, str(WORKER), words[0], self.database, self.folder / "log", *map(str, words[1:])],
                env=env,
                stdin=subprocess.DEVNULL,
                stderr=err,
            )

    def start_worker(self) -> None:
        point = self.plan.pop() if self.plan else ""
        most = max(1, int(POINTS.get(point, 1) * self.hurry))
        process = self.start("worker", kill_at=f"{point}:{self.random.randint(1, most)}")
        life = self.random.uniform(0.1, RANDOM_SECONDS * self.hurry)
        self.workers[process.pid] = process, point, time.monotonic() + life

    def start_producer(self) -> None:
        self.log.read()
        self.produced = max(self.log.accepted.values(), default=0)
        self.producer = self.start("client", self.produced + 1, self.jobs - self.produced, 1)
        self.producer_dies = len(self.log.accepted) + self.random.randint(1, self.jobs // 5)

    # -- the run ----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Produce and kill until every accepted job has ended."""
        self.start_producer()
        try:
            while not self.is_done():
                while len(self.workers) < self.processes:
                    self.start_worker()
                self.look_after_producer()
                self.kill_at_random()
                self.bury()
                self.expect_progress()
                time.sleep(0.005)
        finally:
            for process, _, _ in self.workers.values():
                process.terminate()
            for process, _, _ in self.workers.values():
                process.wait(30)
            if self.producer is not None:
                self.producer.kill()
                self.producer.wait()

    def is_done(self) -> bool:
        self.log.read()
        if self.producer is None and (self.plan or any(point for _, point, _ in self.workers.values())):
            self.jobs += max(self.jobs // 10, 50)  # the points that are left need jobs that reach them
            self.start_producer()
        if self.producer is not None or time.monotonic() < self._ask_again:
            return False
        self._ask_again = time.monotonic() + 0.1
        with self.look() as db:
            counts = dict(db.execute("SELECT state, count FROM counts").fetchall())
        return not counts["queued"] + counts["running"] + counts["scheduled"]

    def look_after_producer(self) -> None:
        if self.producer is None:
            return
        if (status := self.producer.poll()) is not None:
            if status:
                raise SystemExit(f"the producer ended with {status}; see {self.folder / 'err'}")
            self.producer = None
        elif self.kill_producer and len(self.log.accepted) >= self.producer_dies:
            self.producer.kill()
            self.producer.wait()
            self.producer_kills += 1
            self.start_producer()

    def kill_at_random(self) -> None:
        """Kill a worker whose time has come. It is stopped first, to see what it has in hand."""
        for pid, (process, point, due) in list(self.workers.items()):
            if point != RANDOM or time.monotonic() < due or not self.log.open_by_pid[pid]:
                continue
            process.send_signal(signal.SIGSTOP)
            self.log.read()
            if self.log.open_by_pid[pid]:
                self.log.last_words[pid] = RANDOM, time.time(), set()  # before: what follows from it is not earlier
                process.kill()
            else:
                process.send_signal(signal.SIGCONT)

    def bury(self) -> None:
        for pid, (process, point, _) in list(self.workers.items()):
            if process.poll() is None:
                continue
            del self.workers[pid]
            self.log.read()
            if process.returncode != -signal.SIGKILL or pid not in self.log.last_words:
                raise SystemExit(f"a worker ended with {process.returncode} at {point}; see {self.folder / 'err'}")
            self.kills.append(self.inquest(pid))

    def inquest(self, pid: int) -> Kill:
        """Find out what a dead process had in hand, and which ends it had written."""
        point, at, in_hand = self.log.last_words[pid]
        touched = in_hand | self.log.by_pid[pid]
        with self.look() as db:
            quoted = ", ".join(f"'{job}'" for job in touched)
            written = dict(db.execute(f"SELECT id, finished_at FROM jobs WHERE id IN ({quoted})").fetchall())
        ended = {job for job in touched if written[job] is not None}
        self.log.read()
        # What another process has run since was not ended by this one.
        again = {job for job in ended if any(start > at and by != pid for start, by in self.log.starts[job])}
        settled = ended - again
        return Kill(point, pid, at, touched - settled, settled)

    def look(self) -> "Look":
        return Look(self.database)

    def expect_progress(self) -> None:
        size = (self.folder / "log").stat().st_size
        if size != self._size:
            self._size, self._moved = size, time.monotonic()
        elif time.monotonic() > self._moved + STALL_SECONDS:
            raise SystemExit(f"nothing has happened for {STALL_SECONDS} s; see {self.folder}")


class Look:
    """A reader's connection, under the lock of the file."""

    def __init__(self, database: Path) -> None:
        self._database = database

    def __enter__(self) -> sqlite3.Connection:
        self._lock = FileLock(self._database.with_name(f"{self._database.name}-lock"))
        while not self._lock.try_acquire():
            time.sleep(0.0005)
        self._db = sqlite3.connect(self._database)
        return self._db

    def __exit__(self, *_: object) -> None:
        self._db.close()
        self._lock.close()


# --- the verdict ---


def judge(run: Slaughter) -> dict[str, object]:
    """Count what was lost and what ran twice."""
    run.log.read()
    with run.look() as db:
        states = dict(db.execute("SELECT id, state FROM jobs").fetchall())
        damage = db.execute("PRAGMA integrity_check").fetchall()
        deaths = db.execute("SELECT count(*), max(lost), max(deaths) FROM jobs WHERE lost > 0").fetchone()
    lost = [job for job in run.log.accepted if states.get(job) != "succeeded" or not run.log.ends[job]]
    doubled, again = [], 0
    kill_of = {kill.pid: kill for kill in run.kills}
    for job, starts in run.log.starts.items():
        for (_, by), (at, _) in pairwise(starts):
            kill = kill_of.get(by)
            again += 1
            if kill is None or job not in kill.in_hand or at < kill.at:
                doubled.append(job)
    rows = []
    for point in (*POINTS, RANDOM):
        kills = [kill for kill in run.kills if kill.point == point]
        waits = [
            min(later) - kill.at
            for kill in kills
            for job in kill.in_hand
            if (later := [at for at in run.log.rescues[job] if at > kill.at])
        ]
        ours = {job for kill in kills for job in kill.in_hand | kill.settled}
        rows.append(
            {
                "point": WHAT.get(point, point),
                "kills": len(kills),
                "without": sum(not kill.in_hand for kill in kills),
                "in_hand": sum(len(kill.in_hand) for kill in kills),
                "lost": len(ours & set(lost)),
                "doubled": len(ours & set(doubled)),
                "median": statistics.median(waits) if waits else 0.0,
                "max": max(waits, default=0.0),
            }
        )
    return {
        "jobs": len(run.log.accepted),
        "unanswered": len(states) - len(run.log.accepted),
        "kills": len(run.kills),
        "producer_kills": run.producer_kills,
        "again": again,
        "lost": len(lost),
        "doubled": len(doubled),
        "states": {state: list(states.values()).count(state) for state in set(states.values())},
        "damage": [line for (line,) in damage],
        "in_hand_at_a_death": deaths[0],
        "max_lost": deaths[1],
        "max_deaths": deaths[2],
        "rows": rows,
    }


def table(found: dict[str, object]) -> str:
    """Return the Markdown table."""
    lines = [
        "| killed | kills | jobs in hand | lost | doubled | rescued within: median, max |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {row['point']} | {row['kills']} | {row['in_hand']} | {row['lost']} | {row['doubled']} "
        f"| {row['median']:.2f} s, {row['max']:.2f} s |"
        for row in found["rows"]  # type: ignore[attr-defined]
    ]
    lines.append(f"| **all**, {found['jobs']:,} jobs | {found['kills']} | | {found['lost']} | {found['doubled']} | |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--producer", choices=["lives", "dies", "both"], default="both")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--keep", action="store_true", help="keep the database and the log, which go where all is well")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    is_well = True
    for kill_producer in {"lives": [False], "dies": [True], "both": [False, True]}[args.producer]:
        folder = Path(tempfile.mkdtemp(prefix="tickwork-kill-"))
        seed = random.randrange(2**32) if args.seed is None else args.seed
        run = Slaughter(
            folder, jobs=args.jobs, kills=args.kills, processes=args.processes, kill_producer=kill_producer, seed=seed
        )
        began = time.monotonic()
        run.run()
        found = {**judge(run), "seed": seed, "seconds": round(time.monotonic() - began, 1)}
        fine = not found["lost"] and not found["doubled"] and found["damage"] == ["ok"]
        is_well = is_well and fine
        if args.json:
            print(json.dumps(found), flush=True)
        else:
            rest = {key: value for key, value in found.items() if key != "rows"}
            print(f"\n{table(found)}\n\n{rest}", flush=True)
        if fine and not args.keep:
            shutil.rmtree(folder)
        else:
            print(f"kept: {folder}", file=sys.stderr)
    sys.exit(not is_well)


if __name__ == "__main__":
    main()
