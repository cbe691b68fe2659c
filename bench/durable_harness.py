"""How `durable.py` measures: each in a process of its own, in turn, in an empty folder; ratios within a round."""

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import durable_peers
import durable_postgres
import peers
from durable_raw import Times
from inproc import spread

CALLERS = 64
PROCESS_SECONDS = 600  # for one contestant in one round
SCRIPT = Path(__file__).with_name("durable.py")


# --- processes ---


def run_child(
    what: str, folder: Path, amount: float, python: Path | None = None, seconds: float = PROCESS_SECONDS
) -> Any:
    """Run durable.py in a process of its own; return what it measured, or as a string why there is nothing."""
    command = [str(python or sys.executable), str(SCRIPT), "--child", what, "--folder", str(folder)]
    try:
        done = subprocess.run(
            [*command, "--amount", str(amount)],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return f"not done in {seconds} s"
    if done.returncode != 0:
        return peers.last_line(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def in_turn(
    keys: list[str], rounds: int, run: Callable[[str, Path], Any], parent: Path
) -> tuple[dict[str, list[Any]], dict[str, str]]:
    """Let each have a round after the other; return what each measured in each, and why others did not."""
    found: dict[str, list[Any]] = {key: [] for key in keys}
    reasons: dict[str, str] = {}
    for number in range(rounds):
        turn = number % len(keys)
        for key in keys[turn:] + keys[:turn]:
            if key in reasons:
                continue
            with tempfile.TemporaryDirectory(prefix="tickwork-durable-", dir=parent) as folder:
                got = run(key, Path(folder))
            if isinstance(got, str):
                reasons[key] = got
                del found[key]
            else:
                found[key].append(got)
        print(f"{keys[0]} ... {keys[-1]}: round {number + 1} of {rounds}", file=sys.stderr)
    return found, reasons


def with_postgres(what: Callable[[str], str], amount: float) -> Callable[[str, Path], Any]:
    """Return how to run a child beside a PostgreSQL of its own."""

    def run(key: str, folder: Path) -> Any:
        try:
            with durable_postgres.postgres(folder):
                return run_child(what(key), folder, amount)
        except durable_postgres.NoPostgres as error:
            return str(error)

    return run


def verdict(is_met: bool, wanted: str) -> str:
    return f"{wanted} {'met' if is_met else 'MISSED'}"


def ratios(mine: list[float], limit: list[float]) -> list[float]:
    return [one / other for one, other in zip(mine, limit, strict=True)]


# --- a job that is picked up ---


def pick_up_table(entries: dict[str, tuple[str, float]], options: Any, run: Callable[[str, Path], Any]) -> bool:
    """Measure and print how late jobs begin that come one at a time; entries: a name, and the p50 that is wanted."""
    found, reasons = in_turn(list(entries), options.rounds, run, options.folder)
    print(f"\n### From enqueue to the first line of the job, one at a time: {options.rounds} rounds, ms\n")
    print("| | jobs | p50 | p99 | most | wanted |\n|---|--:|--:|--:|--:|---|")
    for key, (name, most) in entries.items():
        if key in reasons:
            print(f"| {name} | - | not measured: {reasons[key]} | - | - | |")
            continue
        middle = [statistics.median(late) for late in found[key]]
        p99 = [percentile(late, 0.99) for late in found[key]]
        wanted = verdict(statistics.median(middle) < most, f"p50 < {most}")
        worst = max(max(late) for late in found[key])
        print(
            f"| {name} | {options.samples} | {spread(middle, '.2f')} | {spread(p99, '.1f')} | {worst:.1f} | {wanted} |"
        )
    return not reasons


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[int(len(values) * share)]


# --- a race ---


@dataclass(frozen=True)
class Contestant:
    """One who brings jobs from `enqueue` to their end: takes a folder, how many jobs and how many callers."""

    name: str
    run: Callable[[Path, int, int], Times]
    kept: str
    part: str
    peer: str | None = None
    rival: str = ""


@dataclass(frozen=True)
class Rival:
    """Of whose best tickwork, run in that way, wants to bring so many times as many jobs to their end."""

    ours: str
    times: float


@dataclass(frozen=True)
class Race:
    """Contestants whose figures stand in one table.

    Attributes:
        limit: Who is the limit, and what the table calls it.
        ours: Who is tickwork.
        least: The share of the limit that is wanted of tickwork.
        rivals: What is wanted, by what the contestants call it in `rival`.
    """

    contestants: dict[str, Contestant]
    limit: tuple[str, str]
    ours: str
    least: float
    rivals: dict[str, Rival]

    @property
    def parts(self) -> set[str]:
        return {entry.part for entry in self.contestants.values()}


def race(entries: Race, options: Any) -> bool:
    """Race tickwork with those that are wanted, and print who got how far; return whether what needs no peer did."""
    wanted = [key for key, entry in entries.contestants.items() if entry.part in options.only]
    keys = [key for key in entries.contestants if key in {*wanted, entries.limit[0], entries.ours}]
    if options.no_peers:
        keys = [key for key in keys if entries.contestants[key].peer is None]
    pythons, missing = environments(entries, keys)
    jobs_of = {
        key: min(options.jobs, options.peer_jobs) if entries.contestants[key].peer else options.jobs for key in keys
    }

    def run(key: str, folder: Path) -> Any:
        try:
            with server(entries.contestants[key].part, folder):
                return run_child(f"race:{key}", folder, jobs_of[key], pythons[key])
        except (durable_peers.NoRedis, durable_postgres.NoPostgres) as error:
            return str(error)

    found, reasons = in_turn(list(pythons), options.rounds, run, options.folder) if pythons else ({}, {})
    reasons = missing | reasons
    limit, name = entries.limit
    print(f"\n### From enqueue to the result: {CALLERS} callers, {options.rounds} rounds, median (min-max)\n")
    print(f"| contestant | kept in | jobs | jobs per second | us of CPU a job | of {name} | wanted |")
    print("|---|---|--:|--:|--:|--:|---|")
    for key in keys:
        entry = entries.contestants[key]
        if key in reasons:
            print(f"| {entry.name} | {entry.kept} | - | not measured: {reasons[key]} | - | - | |")
            continue
        of_raw = ratios(rates(found[key]), rates(found[limit])) if limit in found else []
        # Redis has a processor for itself: what the process of the peer uses is not all.
        cpu = "-" if entry.part == "redis" else spread([got["cpu"] for got in found[key]], ",.0f")
        told = ""
        if key == entries.ours and of_raw:
            told = verdict(statistics.median(of_raw) >= entries.least, f">= {entries.least}")
        print(
            f"| {entry.name} | {entry.kept} | {jobs_of[key]:,} | {spread(rates(found[key]), ',.0f')} | {cpu} "
            f"| {spread(of_raw, '.3f') if of_raw else '-'} | {told} |"
        )
    beside_the_best(entries, found)
    return all(entries.contestants[key].peer is not None or key in missing for key in reasons)


def beside_the_best(entries: Race, found: dict[str, list[Any]]) -> None:
    """Print how many times as many jobs go through tickwork as through the best of each group of peers."""
    rows = []
    for name, rival in entries.rivals.items():
        medians = {
            key: statistics.median(rates(got))
            for key, got in found.items()
            if entries.contestants[key].rival == name and got
        }
        if medians and rival.ours in found:
            best = max(medians, key=lambda key: medians[key])
            times = ratios(rates(found[rival.ours]), rates(found[best]))
            told = verdict(statistics.median(times) >= rival.times, f">= {rival.times:g}")
            rows.append(f"| {entries.contestants[best].name} | {spread(times, '.2f')} | {told} |")
    if rows:
        print("\n| tickwork beside the best | times as many | wanted |\n|---|--:|---|")
        print("\n".join(rows))


def server(part: str, folder: Path) -> AbstractContextManager[None]:
    """Return what to run beside a contestant."""
    if part == "redis":
        return durable_peers.redis(folder)
    return durable_postgres.postgres(folder) if part == "postgres" else nullcontext()


def environments(entries: Race, keys: list[str]) -> tuple[dict[str, Path], dict[str, str]]:
    """Return the Python of each contestant, and the reasons why some have none."""
    pythons: dict[str, Path] = {}
    reasons: dict[str, str] = {}
    for key in keys:
        entry = entries.contestants[key]
        if entry.part == "redis" and not durable_peers.has_redis():
            reasons[key] = "there is no redis-server; bench/packages installs it"
        elif entry.part == "postgres" and (reason := durable_postgres.lacks(needs_psycopg=entry.peer is None)):
            reasons[key] = reason
        elif entry.peer is None:
            pythons[key] = Path(sys.executable)
        else:
            made = peers.environment(entry.peer)
            if isinstance(made, peers.Missing):
                reasons[key] = made.reason
            else:
                pythons[key] = made.python
    return pythons, reasons


def rates(got: list[Any]) -> list[float]:
    return [one["rate"] for one in got]
