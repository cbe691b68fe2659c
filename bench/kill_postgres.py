"""Workers, schedulers, producers and the PostgreSQL server itself are killed: is a job lost, does one run twice?

    python bench/kill_postgres.py                  # 50,000 jobs, a kill every second, five deaths of the server
    python bench/kill_postgres.py --jobs 150 --every 0.5 --workers 3 --schedulers 2 --restarts 1 --json

Real processes (`kill_worker.py`) die by SIGKILL, one after the other at equal intervals: half of them by their own hand
at a named point of the life of a job or of a firing, the others from outside at a random moment. The server, one of the
benchmark's own that flushes each commit, is stopped in immediate mode, so that it recovers from its log, and comes back
up to two seconds later; the deaths go on meanwhile. What was asked, answered, begun and ended stands in a file to
which all of them append; of the store it is only asked at the end what it holds. Then:

- lost: the producer was told that the job is kept, or the store holds it, and it has not succeeded or has not run;
- doubled: a job began again although the process that had begun it lives, or had written its end before it died. The
  death of the server is no excuse: who has a job in hand then goes on with it;
- in doubt: the producer died, or got an error, before it heard of the answer. The store has such a job once or not at
  all; which of them, is counted;
- a fire time is to have one answer in the ledger, and one job where that says so.
"""

import argparse
import json
import os
import random
import re
import runpy
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from itertools import pairwise
from multiprocessing import get_context
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import kill
from durable_postgres import DURABLE, NoPostgres, binary, lacks, last_line, ordinary_user, url
from durable_postgres import run as run_tool

FORK = get_context("fork")
WORKER = Path(__file__).with_name("kill_worker.py")
RANDOM = kill.RANDOM
POINTS = {"worker": list(kill.POINTS), "scheduler": ["in the transaction", "during commit", "after commit"]}
AT_ONCE = 20
"""So many calls of `enqueue` are under way in the producer."""
AWAY_SECONDS = 2.0
"""For how long the server stays away, at the most, beside what its recovery takes."""
PATIENCE_SECONDS = 5.0
"""How long a random death waits for a process to have a job in hand."""
STALL_SECONDS = 90
PERIOD = 500_000
"""Microseconds between the fire times of the schedules in `kill_worker.py`."""


@dataclass
class Death:
    """The end of one process.

    Attributes:
        role: What it was.
        point: Where it was.
        at: When, seconds since the epoch.
        told: What it said that it had in hand.
        in_hand: The jobs whose leases it had, and whose ends were not written.
        settled: Jobs whose ends it had written.
    """

    role: str
    point: str
    at: float
    told: set[str] = field(default_factory=set)
    in_hand: set[str] = field(default_factory=set)
    settled: set[str] = field(default_factory=set)


class Log(kill.Log):
    """What the processes have said."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.asked: set[int] = set()
        self.refused: set[int] = set()
        self.up: set[int] = set()
        self.runs: dict[str, list[tuple[float, int, int]]] = defaultdict(list)
        """The starts of a job: when, by which process, by which lease."""
        self.end_times: dict[str, list[tuple[float, int]]] = defaultdict(list)
        self.fires: dict[tuple[str, int], set[str]] = defaultdict(set)

    def hear(self, kind: str, words: list[str]) -> None:
        super().hear(kind, words)
        if kind == "Q":
            self.asked.add(int(words[0]))
        elif kind == "D":
            self.refused.add(int(words[0]))
        elif kind == "U":
            self.up.add(int(words[0]))
        elif kind == "S":
            self.runs[words[0]].append((float(words[2]), int(words[1]), int(words[3])))
        elif kind == "E":
            self.end_times[words[0]].append((float(words[2]), int(words[1])))
        elif kind == "F":
            self.fires[words[1], int(words[2])].add(words[0])


class Server:
    """A PostgreSQL that dies and comes back."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "postgres"
        self.home.mkdir()
        self.ordinary = ordinary_user(self.home)
        self.outages: list[tuple[float, float]] = []
        self.is_away = False
        self.trouble: BaseException | None = None
        make = ["initdb", "--no-sync", "--auth=trust", "--username=bench", "--encoding=UTF8", "--locale=C"]
        run_tool(make, self.home, self.ordinary)
        self.start()

    def start(self) -> None:
        settings = [f"--{name}={value}" for name, value in {**DURABLE, "max_connections": "200"}.items()]
        with (self.home / "log").open("a") as log:
            self.process = subprocess.Popen(
                [binary("postgres"), "-D", self.home / "data", "-k", self.home, "-h", "", *settings],
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **self.ordinary,
            )
        deadline = time.monotonic() + 60
        while subprocess.run([binary("pg_isready"), "--quiet", "--host", self.home]).returncode != 0:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise NoPostgres(f"the server does not start: {last_line(self.home / 'log')}")
            time.sleep(0.05)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGQUIT)  # immediate mode
        self.process.wait(60)

    def restart(self, pause: float) -> None:
        """Die, and come back; in a thread, for others die meanwhile."""
        try:
            self.is_away = True
            died = time.time()
            self.stop()
            time.sleep(pause)
            self.start()
            self.outages.append((died, time.time()))
            self.is_away = False
        except BaseException as error:
            self.trouble = error


@dataclass
class Mortal:
    """A worker or a scheduler.

    Attributes:
        process: It.
        role: What it does.
        point: Where it dies; "": nowhere.
        started: When, seconds since the epoch.
        doomed: When its time had come (monotonic); None: not yet.
    """

    process: ForkProcess
    role: str
    point: str
    started: float
    doomed: float | None = None


def live(argv: list[str], env: dict[str, str], err: Path) -> None:
    """Be a process of `kill_worker.py`; in the forked child."""
    os.environ.update(env)
    sys.argv = argv
    os.dup2(os.open(err, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644), 2)
    runpy.run_path(argv[0], run_name="__main__")


def pid_of(process: ForkProcess) -> int:
    assert process.pid is not None
    return process.pid


def number_of(process: ForkProcess) -> int:
    return int(process.name)


class Slaughter:
    """One run."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder, self.options = folder, options
        self.random = random.Random(options.seed)
        (folder / "log").touch()
        self.log = Log(folder / "log")
        self.server = Server(folder)
        self.plans = {role: self.plan(points) for role, points in POINTS.items()}
        self.next_death = time.monotonic() + options.every
        self.number = 0
        self.living: dict[int, Mortal] = {}
        """By number: ids of processes are given out again."""
        self.deaths: dict[int, Death] = {}
        self.gave_up = 0
        self.producer: ForkProcess | None = None
        self.jobs = options.jobs
        self.began = time.monotonic()
        self.is_ending = False
        self.restarting: threading.Thread | None = None
        self._size, self._moved = 0, time.monotonic()

    def plan(self, points: list[str]) -> Iterator[str]:
        """Return where to die: at each point and at random once, then at random half of the time."""
        yield from self.random.sample([*points, RANDOM], len(points) + 1)
        while True:
            yield from self.random.sample([*points, *[RANDOM] * len(points)], 2 * len(points))

    def start(self, role: str, *words: object, **env: str) -> ForkProcess:
        """Fork a process, which has imported all that takes long: it works some hundredths of a second later."""
        argv = [str(WORKER), role, url(self.folder), str(self.folder / "log"), *map(str, words)]
        self.number += 1
        env = {**env, "KILL_NUMBER": str(self.number)}
        name = str(self.number)
        process = FORK.Process(target=live, args=(argv, env, self.folder / "err"), name=name, daemon=True)
        process.start()
        return process

    def start_mortal(self, role: str) -> None:
        """Start a worker or a scheduler, and say where it has to die."""
        point = "" if self.is_ending else next(self.plans[role])
        process = self.start(role, KILL_AT=f"{'' if point == RANDOM else point}:1", KILL_ON_SIGNAL="1")
        self.living[number_of(process)] = Mortal(process, role, point, time.time())

    def start_producer(self) -> None:
        self.log.read()
        done = max(self.log.asked, default=0)
        self.producer = self.start("client", done + 1, max(0, self.jobs - done), AT_ONCE)
        share = self.options.jobs // (self.options.producer_deaths + 1)
        self.producer_dies = done + int(share * self.random.uniform(0.7, 1.0))
        self.producer_started = time.time()

    # -- the run ----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Produce and kill until all is done, then let the processes that are left stop."""
        try:
            self.start_producer()
            while not self.is_done():
                self.refill()
                self.look_after_producer()
                self.doom()
                self.kill_at_random()
                self.bury()
                self.look_after_server()
                self.expect_progress()
                time.sleep(0.01)
            self.stop("worker")
        finally:
            for entry in self.living.values():
                entry.process.kill()
                entry.process.join()
            if self.producer is not None:
                self.producer.kill()
                self.producer.join()
            if self.restarting is not None:
                self.restarting.join()

    def refill(self) -> None:
        if self.server.is_away:  # nothing can start, and says so
            return
        for role, wanted in (("worker", self.options.workers), ("scheduler", self.options.schedulers)):
            there = sum(entry.role == role for entry in self.living.values())
            for _ in range(wanted - there if not (self.is_ending and role == "scheduler") else 0):
                self.start_mortal(role)

    def is_done(self) -> bool:
        self.log.read()
        if self.server.is_away or (self.producer is not None and self.progress() < 1):
            return False
        if self.producer is not None:
            self.end_producer()
        if not self.is_ending:
            if not self.has_enough() and self.progress() < 1:
                self.jobs += max(self.jobs // 10, 50)  # what is left to be killed needs jobs
                self.start_producer()
                return False
            self.is_ending = True
            self.stop("scheduler")
        if any(self.log.open_by_pid[number] for number in self.living):
            return False
        time.sleep(0.2)
        return not any(count for state, count in self.states().items() if state in ("queued", "running", "scheduled"))

    def progress(self) -> float:
        """Return how much of the time is over, from 0 to 1."""
        return (time.monotonic() - self.began) / self.options.most_seconds

    def end_producer(self) -> None:
        """Kill the producer, when the time is over."""
        assert self.producer is not None
        os.kill(pid_of(self.producer), signal.SIGSTOP)
        self.deaths[number_of(self.producer)] = Death("producer", RANDOM, time.time())
        self.producer.kill()
        self.producer.join()
        self.producer = None

    def has_enough(self) -> bool:
        """Return whether each point has seen deaths enough, and the server, too."""
        seen = Counter((death.role, death.point) for death in self.deaths.values())
        wanted = {(role, point) for role, points in POINTS.items() for point in (*points, RANDOM)}
        is_server_done = len(self.server.outages) >= self.options.restarts and not self.server.is_away
        return is_server_done and all(seen[entry] >= self.options.least for entry in wanted)

    def look_after_producer(self) -> None:
        if self.producer is None:
            return
        if self.server.is_away:  # nothing can start, and says so
            return
        status = self.producer.exitcode
        if status is None:
            deaths = sum(death.role == "producer" for death in self.deaths.values())
            if max(self.log.asked, default=0) >= self.producer_dies and deaths < self.options.producer_deaths:
                self.end_producer()
                self.start_producer()
        elif status == 0:
            self.producer = None
        elif self.was_away(self.producer_started):
            self.gave_up += 1
            self.start_producer()
        else:
            raise SystemExit(f"the producer ended with {status}; see {self.folder / 'err'}")

    def doom(self) -> None:
        """Let the time of a process come, where there are others that work."""
        if self.is_ending or time.monotonic() < self.next_death:
            return
        ready = [pid for pid, entry in self.living.items() if pid in self.log.up and entry.doomed is None]
        if len(ready) <= (self.options.workers + self.options.schedulers) * 2 / 3:
            return  # they start more slowly than they die, and somebody has to work
        self.next_death = max(self.next_death, time.monotonic() - self.options.every) + self.options.every
        chosen = self.living[self.random.choice(ready)]
        chosen.doomed = time.monotonic()
        if chosen.point != RANDOM:
            os.kill(pid_of(chosen.process), signal.SIGUSR1)

    def kill_at_random(self) -> None:
        """Kill whoever's time has come; a worker that has nothing in hand is given some time. It is stopped first."""
        for pid, entry in self.living.items():
            if entry.point != RANDOM or entry.doomed is None or pid in self.deaths:
                continue
            is_idle = entry.role == "worker" and not self.log.open_by_pid[pid]
            if is_idle and time.monotonic() < entry.doomed + PATIENCE_SECONDS:
                continue
            os.kill(pid_of(entry.process), signal.SIGSTOP)
            self.deaths[pid] = Death(entry.role, RANDOM, time.time())
            entry.process.kill()

    def bury(self) -> None:
        for pid, entry in list(self.living.items()):
            status = entry.process.exitcode
            if status is None:
                continue
            del self.living[pid]
            if not self.has_died(pid, entry, status):
                if status > 0 and pid not in self.log.up and self.was_away(entry.started):
                    self.gave_up += 1
                else:
                    raise SystemExit(f"a {entry.role} ended with {status}; see {self.folder / 'err'}")

    def has_died(self, pid: int, entry: Mortal, status: int) -> bool:
        """Return whether a process was killed, and keep where."""
        self.log.read()
        if status == -signal.SIGKILL and pid in self.log.last_words:
            _, at, told = self.log.last_words[pid]
            self.deaths.setdefault(pid, Death(entry.role, entry.point, at, told))
        return status == -signal.SIGKILL and pid in self.deaths

    def was_away(self, since: float) -> bool:
        """Return whether the server was away since then."""
        return self.server.is_away or any(back > since for _, back in self.server.outages)

    def look_after_server(self) -> None:
        if self.server.trouble is not None:
            raise self.server.trouble
        number = len(self.server.outages) + 1
        share = number / (self.options.restarts + 1)
        is_due = max(self.progress(), len(self.log.accepted) / self.options.jobs) >= share
        if number <= self.options.restarts and not self.server.is_away and is_due and not self.is_ending:
            self.server.is_away = True
            pause = self.random.uniform(0, AWAY_SECONDS)
            self.restarting = threading.Thread(target=self.server.restart, args=(pause,))
            self.restarting.start()

    def stop(self, role: str) -> None:
        """Let the processes of a role drain. One that was to die yet may do so."""
        ending = {pid: entry for pid, entry in self.living.items() if entry.role == role}
        for pid, entry in ending.items():
            while pid not in self.log.up and entry.process.exitcode is None:  # before, nobody would handle the signal
                time.sleep(0.01)
                self.log.read()
            entry.process.terminate()
        for pid, entry in ending.items():
            entry.process.join(60)
            status = entry.process.exitcode
            if status and not self.has_died(pid, entry, status):
                raise SystemExit(f"a {role} ended with {status} when it was to drain; see {self.folder / 'err'}")
            del self.living[pid]

    def states(self) -> dict[str, int]:
        """Return how many jobs the store says that there are in each state."""
        names = "queued", "running", "scheduled", "succeeded", "failed", "cancelled", "parked"
        (row,) = self.ask(f"SELECT {', '.join(f'coalesce(sum({name}), 0)::bigint' for name in names)} FROM shards")
        return {name: count for name, count in zip(names, row, strict=True) if count}

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        import psycopg

        with psycopg.connect(url(self.folder), options="-c search_path=tickwork") as db:
            return db.execute(query).fetchall()

    def expect_progress(self) -> None:
        size = (self.folder / "log").stat().st_size
        if size != self._size:
            self._size, self._moved = size, time.monotonic()
        elif time.monotonic() > self._moved + STALL_SECONDS:
            raise SystemExit(f"nothing has happened for {STALL_SECONDS} s; see {self.folder}")


# --- the verdict ---


@dataclass(frozen=True)
class Row:
    """A job, as the store has it at the end."""

    state: str
    token: int
    number: int | None
    schedule: str | None


def rows_of(run: Slaughter) -> dict[str, Row]:
    parts = [f"SELECT id, state, token, payload, schedule FROM {table}" for table in ("jobs", "finished")]
    found = {}
    for job, state, token, payload, schedule in run.ask(" UNION ALL ".join(parts)):
        number = re.search(r"\d+", payload)
        assert job not in found
        found[job] = Row(state, token, None if number is None else int(number[0]), schedule)
    return found


def judge(run: Slaughter) -> dict[str, Any]:
    """Count what was lost and what ran twice."""
    log, deaths = run.log, run.deaths
    log.read()
    rows = rows_of(run)
    lost = {job for job in {*log.accepted, *rows} if not is_done(job, rows.get(job), log)}
    doubled = {
        job
        for job, starts in log.runs.items()
        for pair in pairwise(starts)
        if is_needless(*pair, rows.get(job), deaths)
    }
    for pid, death in deaths.items():
        touched = death.told | log.by_pid[pid]
        tokens = {job: token for job in touched for _, by, token in log.runs[job] if by == pid}
        death.settled = {job for job, token in tokens.items() if job in rows and rows[job].token == token}
        death.in_hand = {job for job in touched if job not in death.settled}
    counted = run.states()
    states = dict(Counter(row.state for row in rows.values()))
    return {
        "jobs": len(rows),
        "kills": len(deaths),
        "restarts": len(run.server.outages),
        "gave_up": run.gave_up,
        "again": sum(len(starts) - 1 for starts in log.runs.values()),
        "lost": len(lost),
        "doubled": len(doubled),
        **doubts(log, rows),
        **fire_times(run, rows),
        **commits(run.folder / "err"),
        "states": states,
        "miscounted": counted != states,
        "rows": [*table_rows(run, lost, doubled), *server_rows(run, lost, doubled)],
        "which": sorted(lost | doubled)[:20],
    }


def is_done(job: str, row: Row | None, log: Log) -> bool:
    """Return whether a job has succeeded, and the process that says so has run it to its end."""
    if row is None or row.state != "succeeded" or not log.runs[job]:
        return False
    _, pid, token = log.runs[job][-1]
    return token == row.token and any(by == pid for _, by in log.end_times[job])


def is_needless(
    before: tuple[float, int, int], after: tuple[float, int, int], row: Row | None, deaths: dict[int, Death]
) -> bool:
    """Return whether a job had no reason to begin again after it had begun before."""
    (_, pid, token), (at, _, _) = before, after
    death = deaths.get(pid)
    return death is None or death.at > at or (row is not None and row.token == token)


def doubts(log: Log, rows: dict[str, Row]) -> dict[str, int]:
    """Count the calls of `enqueue` whose answer nobody has heard, and what became of them."""
    kept = Counter(row.number for row in rows.values() if row.schedule is None)
    unheard = log.asked - set(log.accepted.values())
    return {
        "in_doubt": len(unheard),
        "in_doubt_kept": sum(number in kept for number in unheard),
        "in_doubt_told": len(log.refused),
        "kept_twice": sum(count > 1 for count in kept.values()),
        "never_asked": len(kept.keys() - log.asked),
    }


def fire_times(run: Slaughter, rows: dict[str, Row]) -> dict[str, int]:
    """Compare the ledger, the jobs and what ran: each fire time once."""
    found = defaultdict(list)
    for name, *answer in run.ask("SELECT schedule, first, last, count, outcome, job_id FROM ledger ORDER BY first"):
        found[name].append(answer)
    count = never = twice = passed = 0
    for name, answers in found.items():
        ran = {job for *_, outcome, job in answers if outcome == "ran"}
        count += sum((last - first) // PERIOD + 1 for first, last, *_ in answers)
        passed += sum(outcome != "ran" for *_, outcome, _ in answers if name.startswith("all-"))
        for (_, before, *_), (after, *_) in pairwise(answers):
            never += max(0, (after - before) // PERIOD - 1)
            twice += after <= before
        theirs = {job for job, row in rows.items() if row.schedule == name}
        never += len(ran - theirs)
        twice += len(theirs - ran)
        began = {at: jobs for (schedule, at), jobs in run.log.fires.items() if schedule == name}
        twice += sum(len(jobs) > 1 for jobs in began.values())
        never += sum(at not in began for at, *_, outcome, _ in answers if outcome == "ran")
    return {
        "schedules": len(found),
        "fire_times": count,
        "fire_times_never": never,
        "fire_times_twice": twice,
        "fire_times_passed_over": passed,
    }


def commits(err: Path) -> dict[str, int]:
    """Count the commits whose answer was lost, by what had become of them."""
    text = err.read_text(errors="replace")
    return {
        "commits_cut_off_and_done": text.count("a commit was cut off, and was done"),
        "commits_cut_off_and_not_done": text.count("a commit was cut off, and was not done"),
    }


def table_rows(run: Slaughter, lost: set[str], doubled: set[str]) -> list[dict[str, Any]]:
    rows = []
    for role, point in [(role, point) for role, points in POINTS.items() for point in (*points, RANDOM)]:
        deaths = [death for death in run.deaths.values() if (death.role, death.point) == (role, point)]
        waits = [
            min(later) - death.at
            for death in deaths
            for job in death.in_hand
            if (later := [at for at in run.log.rescues[job] if at > death.at])
        ]
        ours = {job for death in deaths for job in death.in_hand | death.settled}
        rows.append(
            {
                "role": role,
                "point": kill.WHAT.get(point, point),
                "kills": len(deaths),
                "in_hand": sum(len(death.in_hand) for death in deaths),
                "lost": len(ours & lost),
                "doubled": len(ours & doubled),
                "median": statistics.median(waits) if waits else 0.0,
                "max": max(waits, default=0.0),
            }
        )
    deaths = [death for death in run.deaths.values() if death.role == "producer"]
    rows.append({"role": "producer", "point": RANDOM, "kills": len(deaths), "in_hand": 0, "lost": 0, "doubled": 0})
    return rows


def server_rows(run: Slaughter, lost: set[str], doubled: set[str]) -> list[dict[str, Any]]:
    outages = run.server.outages
    in_hand = [job for died, _ in outages for job in running_at(run, died)]
    away = [back - died for died, back in outages]
    return [
        {
            "role": "server",
            "point": "stopped in immediate mode",
            "kills": len(outages),
            "in_hand": len(in_hand),
            "lost": len(lost & set(in_hand)),
            "doubled": len(doubled & set(in_hand)),
            "away_median": statistics.median(away) if away else 0.0,
            "away_max": max(away, default=0.0),
        }
    ]


def running_at(run: Slaughter, at: float) -> list[str]:
    """Return the jobs that ran at a moment, in processes that lived."""
    found = []
    for job, starts in run.log.runs.items():
        for began, pid, _ in starts:
            ended = min((end for end, by in run.log.end_times[job] if by == pid and end >= began), default=None)
            death = run.deaths.get(pid)
            if began <= at and (ended is None or ended > at) and (death is None or death.at > at):
                found.append(job)
    return found


def table(found: dict[str, Any]) -> str:
    """Return the Markdown table, and a sentence about what stands in no table."""
    lines = [
        "| killed | kills | jobs in hand | lost | doubled | rescued within: median, max |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for row in found["rows"]:
        name = row["point"] if row["role"] == "worker" else f"{row['role']}: {row['point']}"
        took = f"{row['median']:.2f} s, {row['max']:.2f} s" if row.get("max") else ""
        if "away_max" in row:
            took = f"away for {row['away_median']:.1f} s, {row['away_max']:.1f} s"
        in_hand = row["in_hand"] if row["role"] in ("worker", "server") else ""
        lines.append(f"| {name} | {row['kills']} | {in_hand} | {row['lost']} | {row['doubled']} | {took} |")
    lines.append(
        f"| **all**, {found['jobs']:,} jobs | {found['kills'] + found['restarts']} | | {found['lost']} "
        f"| {found['doubled']} | |"
    )
    return "\n".join(lines)


def is_fine(found: dict[str, Any]) -> bool:
    bad = "lost", "doubled", "kept_twice", "never_asked", "miscounted"
    fires = "fire_times_never", "fire_times_twice", "fire_times_passed_over"
    return not any(found[name] for name in (*bad, *fires))


def preload() -> None:
    """Import what the processes need: here, once, and in none that is forked."""
    for name in ("app", "scheduler", "watchdog", "pulse", "stores.postgres"):
        import_module(f"tickwork.{name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=50_000, help="more, where deaths are left when these are enqueued")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between deaths")
    parser.add_argument("--least", type=int, default=1, help="deaths at each point, at the least")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--schedulers", type=int, default=4)
    parser.add_argument("--restarts", type=int, default=5, help="deaths of the server")
    parser.add_argument("--producer-deaths", type=int, default=5)
    parser.add_argument("--most-seconds", type=float, default=3_600.0, help="fewer jobs, where these are over before")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--keep", action="store_true", help="keep the database and the log, which go where all is well")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if lack := lacks(needs_psycopg=True):
        print(lack, file=sys.stderr)
        return
    preload()
    options.seed = random.randrange(2**32) if options.seed is None else options.seed
    folder = Path(tempfile.mkdtemp(prefix="tickwork-kill-"))
    began = time.monotonic()
    run = Slaughter(folder, options)
    try:
        run.run()
        found = {**judge(run), "seed": options.seed, "seconds": round(time.monotonic() - began, 1)}
    finally:
        run.server.stop()
    if options.json:
        print(json.dumps(found), flush=True)
    else:
        rest = {key: value for key, value in found.items() if key != "rows"}
        print(f"\n{table(found)}\n\n{rest}", flush=True)
    if is_fine(found) and not options.keep:
        shutil.rmtree(folder)
    else:
        print(f"kept: {folder}", file=sys.stderr)
    sys.exit(not is_fine(found))


if __name__ == "__main__":
    main()
