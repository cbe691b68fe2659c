"""Many schedules, and punctual ones: what they cost and how late their jobs begin, beside bare timers and four peers.

    python bench/scale.py                  # 100,000 schedules, 3 rounds; about 20 minutes
    python bench/scale.py --quick          # a tenth of everything, 1 round
    python bench/scale.py --no-peers --only lateness

Every contestant runs in a process of its own, all in turn, `--rounds` times; the peers, which are slower, in the first
round only and with `--peer-schedules`. Ratios are to the limit in the same round.
"""

import argparse
import asyncio
import gc
import heapq
import importlib.metadata
import json
import logging
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import peers
from inproc import hardware, spread

PROCESS_SECONDS = 900  # for one contestant; asyncz needs half a millisecond to add a schedule
IDLE_PERCENT = 0.3  # of a core
ADD_MICROSECONDS, ADD_BYTES = 40, 2_048
KINDS = 20  # distinct expressions, and distinct periods

late: list[float] = []
"""By how many seconds each job began late."""


async def work(phase: float) -> None:
    """Note how late it is: `phase` is when in a second it is due."""
    # A little early is possible, where wall and monotonic clock drift apart.
    late.append((time.time() - phase + 0.1) % 1.0 - 0.1)


# --- the schedules: none of them is due while they are measured ---


def far_crons() -> list[str]:
    """Return distinct expressions of different forms, none of them due in the next five hours."""
    hour = datetime.now(UTC).hour + 6
    crons = []
    for number in range(KINDS):
        first, second = sorted(((hour + number % 5) % 24, (hour + 6 + number % 7) % 24))
        minute = 7 + 2 * number
        forms = [
            f"{minute} {first} * * *",
            f"{minute} {first},{second} * * 1-5",
            f"{minute},{minute + 5} {second} */2 * *",
            f"*/15 {first} {number + 1} * *",
            f"{minute}-{minute + 9} {second} * {number % 12 + 1},{(number + 5) % 12 + 1} *",
        ]
        crons.append(forms[number % len(forms)])
    return crons


def far_periods() -> list[int]:
    """Return distinct periods in seconds, whose multiples since the epoch are an hour away."""
    now, found, period = int(time.time()), [], 6 * 3600
    while len(found) < KINDS:
        period += 60
        if period - now % period > 3600:
            found.append(period)
    return found


# --- the contestants: `open`, then `cron` or `every` or `each_second` many times, then `settle` ---


class Contestant:
    """What every contestant does; a schedule is told by its number, and its job is `work`."""

    async def open(self) -> None: ...

    async def cron(self, number: int, expression: str) -> None:
        raise NotImplementedError

    async def every(self, number: int, seconds: int) -> None:
        raise NotImplementedError

    async def each_second(self, number: int, first: float) -> None:
        """Begin at the instant `first`, then each second."""
        raise NotImplementedError

    async def settle(self) -> None:
        """Let what was added take effect."""
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def close(self) -> None: ...


class Bare(Contestant):
    """A heap with one timer of the loop; each job is a task. The limit: nothing is kept but the next fire times."""

    async def open(self) -> None:
        self.heap: list[tuple[Any, int, Any]] = []
        self.timer: asyncio.TimerHandle | None = None

    async def cron(self, number: int, expression: str) -> None:
        from tickwork.cron_expression import fire_after, parse
        from tickwork.zones import get_zone

        plan = parse(expression)
        found = fire_after(plan, get_zone("UTC"), datetime.now(UTC))
        assert found is not None
        heapq.heappush(self.heap, (found.timestamp(), number, plan))

    async def every(self, number: int, seconds: int) -> None:
        heapq.heappush(self.heap, ((time.time() // seconds + 1) * seconds, number, seconds))

    async def each_second(self, number: int, first: float) -> None:
        heapq.heappush(self.heap, (first, number, first % 1.0))

    async def settle(self) -> None:
        self.sleep()

    def sleep(self) -> None:
        self.timer = asyncio.get_running_loop().call_later(max(0.0, self.heap[0][0] - time.time()), self.ring)

    def ring(self) -> None:
        loop, heap, now = asyncio.get_running_loop(), self.heap, time.time()
        while heap[0][0] <= now:
            at, number, phase = heap[0]
            heapq.heapreplace(heap, (at + 1.0, number, phase))
            task = loop.create_task(work(phase))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        self.sleep()

    async def close(self) -> None:
        if self.timer is not None:
            self.timer.cancel()


tasks: set[asyncio.Task[None]] = set()


class Timer(Contestant):
    """One timer of the loop that sets the next, and calls the job itself: the limit for one job each second."""

    async def each_second(self, number: int, first: float) -> None:
        self.next, self.phase = first, first % 1.0
        self.sleep()

    def sleep(self) -> None:
        self.timer = asyncio.get_running_loop().call_later(self.next - time.time(), self.ring)

    def ring(self) -> None:
        late.append(time.time() - self.next)
        self.next += 1.0
        self.sleep()

    async def close(self) -> None:
        self.timer.cancel()


class Tickwork(Contestant):
    """Schedules added while the app runs."""

    async def open(self) -> None:
        from tickwork import App, Context

        self.app = App()

        @self.app.task(name="work")
        async def note(ctx: Context) -> None:
            late.append(time.time() - ctx.fire_time.timestamp())  # type: ignore[union-attr]

        self.task: Any = note
        await self.app.start()

    async def cron(self, number: int, expression: str) -> None:
        from tickwork import Cron

        await self.add(number, Cron(expression))

    async def every(self, number: int, seconds: int) -> None:
        from tickwork import Every

        await self.add(number, Every(seconds))

    async def each_second(self, number: int, first: float) -> None:
        from tickwork import Every

        await self.add(number, Every(1, anchor=datetime.fromtimestamp(first, UTC)))

    async def add(self, number: int, trigger: Any) -> None:
        await self.app.schedules.add(self.task, trigger, name=f"job-{number}")

    async def close(self) -> None:
        await self.app.stop()


class Declared(Tickwork):
    """Schedules declared by decorators, before the app starts."""

    async def open(self) -> None:
        from tickwork import App, Cron

        Cron("@daily")  # the first one imports croniter
        self.app = App()
        self.task = self.app.task(name="work")(tick)

    async def cron(self, number: int, expression: str) -> None:
        self.app.cron(expression, name=f"job-{number}")(self.task)

    async def every(self, number: int, seconds: int) -> None:
        self.app.every(seconds, name=f"job-{number}")(self.task)

    async def settle(self) -> None:
        await self.app.start()


async def tick() -> None:
    """Do nothing: it is never due."""


class APScheduler3(Contestant):
    async def open(self) -> None:
        from apscheduler.schedulers.asyncio import AsyncIOScheduler  # type: ignore[import-not-found,import-untyped,unused-ignore]

        self.scheduler = AsyncIOScheduler(timezone="UTC", job_defaults={"misfire_grace_time": None})
        self.scheduler.start()

    async def cron(self, number: int, expression: str) -> None:
        from apscheduler.triggers.cron import CronTrigger

        self.add(number, CronTrigger.from_crontab(expression, timezone=UTC))

    async def every(self, number: int, seconds: int) -> None:
        from apscheduler.triggers.interval import IntervalTrigger  # type: ignore[import-not-found,import-untyped,unused-ignore]

        self.add(number, IntervalTrigger(seconds=seconds, timezone=UTC))

    async def each_second(self, number: int, first: float) -> None:
        from apscheduler.triggers.interval import IntervalTrigger

        self.add(number, IntervalTrigger(seconds=1, start_date=datetime.fromtimestamp(first, UTC)), first % 1.0)

    def add(self, number: int, trigger: Any, phase: float = 0.0) -> None:
        self.scheduler.add_job(work, trigger, id=f"job-{number}", args=(phase,))

    async def close(self) -> None:
        self.scheduler.shutdown()


class APScheduler4(Contestant):
    async def open(self) -> None:
        from apscheduler import AsyncScheduler  # type: ignore[import-not-found,import-untyped,unused-ignore]

        self.scheduler = AsyncScheduler()
        await self.scheduler.__aenter__()
        await self.scheduler.configure_task("work", func=work, max_running_jobs=None)
        await self.scheduler.start_in_background()

    async def cron(self, number: int, expression: str) -> None:
        from apscheduler.triggers.cron import CronTrigger

        await self.add(number, CronTrigger.from_crontab(expression, timezone=UTC))

    async def every(self, number: int, seconds: int) -> None:
        from apscheduler.triggers.interval import IntervalTrigger

        start = datetime.now(UTC) + timedelta(seconds=seconds)  # the first run would be at once
        await self.add(number, IntervalTrigger(seconds=seconds, start_time=start))

    async def each_second(self, number: int, first: float) -> None:
        from apscheduler.triggers.interval import IntervalTrigger

        start = datetime.fromtimestamp(first, UTC)
        await self.add(number, IntervalTrigger(seconds=1, start_time=start), first % 1.0)

    async def add(self, number: int, trigger: Any, phase: float = 0.0) -> None:
        await self.scheduler.add_schedule("work", trigger, id=f"job-{number}", args=(phase,))

    async def close(self) -> None:
        await self.scheduler.__aexit__(None, None, None)


class Asyncz(Contestant):
    async def open(self) -> None:
        from asyncz.schedulers.asyncio import NativeAsyncIOScheduler  # type: ignore[import-not-found,import-untyped,unused-ignore]

        self.scheduler = NativeAsyncIOScheduler(timezone="UTC", task_defaults={"mistrigger_grace_time": None})
        await self.scheduler.start()

    async def cron(self, number: int, expression: str) -> None:
        from asyncz.triggers import CronTrigger  # type: ignore[import-not-found,import-untyped,unused-ignore]

        self.add(number, CronTrigger.from_crontab(expression, timezone="UTC"))

    async def every(self, number: int, seconds: int) -> None:
        from asyncz.triggers import IntervalTrigger

        self.add(number, IntervalTrigger(seconds=seconds, timezone="UTC"))

    async def each_second(self, number: int, first: float) -> None:
        from asyncz.triggers import IntervalTrigger

        start = datetime.fromtimestamp(first, UTC)
        self.add(number, IntervalTrigger(seconds=1, start_at=start, timezone="UTC"), first % 1.0)

    def add(self, number: int, trigger: Any, phase: float = 0.0) -> None:
        self.scheduler.add_task(work, trigger, id=f"job-{number}", args=[phase])

    async def close(self) -> None:
        await self.scheduler.shutdown()


class Aiocron(Contestant):
    async def open(self) -> None:
        self.crons: list[Any] = []

    async def cron(self, number: int, expression: str) -> None:
        from aiocron import Cron  # type: ignore[import-not-found,import-untyped,unused-ignore]

        self.crons.append(Cron(expression, tick, start=True, tz=UTC))

    async def each_second(self, number: int, first: float) -> None:
        from aiocron import Cron

        if first % 1.0:
            raise NotImplementedError
        self.crons.append(Cron("* * * * * *", work, args=(0.0,), start=True, tz=UTC))

    async def close(self) -> None:
        for cron in self.crons:
            cron.stop()


@dataclass(frozen=True)
class Entry:
    name: str
    make: Callable[[], Contestant]
    distribution: str | None = None  # of a peer, which has an environment of its own


CONTESTANTS = {
    "bare": Entry("a heap with one timer", Bare),
    "timer": Entry("a bare loop timer", Timer),
    "tickwork": Entry("tickwork", Tickwork),
    "declared": Entry("tickwork, declared before the start", Declared),
    "apscheduler3": Entry("APScheduler", APScheduler3, "apscheduler"),
    "apscheduler4": Entry("APScheduler", APScheduler4, "apscheduler"),
    "asyncz": Entry("asyncz", Asyncz, "asyncz"),
    "aiocron": Entry("aiocron", Aiocron, "aiocron"),
}


# --- measuring, in a process of the contestant's own ---


def rss() -> int:
    """Return the bytes of memory that this process holds."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    except OSError:
        import resource  # where there is no /proc: the most it ever held, which only grows here

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


async def measure_many(contestant: Contestant, options: argparse.Namespace) -> dict[str, float]:
    """Add many schedules, then let them wait."""
    add: Callable[[int, Any], Any] = contestant.cron if options.case == "cron" else contestant.every
    values: list[Any] = far_crons() if options.case == "cron" else far_periods()
    await contestant.open()
    if not isinstance(contestant, Declared):
        for number, value in enumerate(values):
            await add(-1 - number, value)  # imports and tables are no schedule's own
        await contestant.settle()
    gc.collect()
    before, started = rss(), time.perf_counter()
    for number in range(options.schedules):
        await add(number, values[number % KINDS])
    await contestant.settle()
    elapsed = time.perf_counter() - started
    gc.collect()
    found = {"us": elapsed / options.schedules * 1e6, "bytes": (rss() - before) / options.schedules}
    if options.idle:
        await asyncio.sleep(2)
        cpu, started = time.process_time(), time.perf_counter()
        await asyncio.sleep(options.idle)
        found["idle"] = (time.process_time() - cpu) / (time.perf_counter() - started) * 100
    await contestant.close()
    return found


async def measure_lateness(contestant: Contestant, options: argparse.Namespace) -> dict[str, float]:
    """Let schedules be due each second: all at the same instant, or one after the other."""
    await contestant.open()
    base = int(time.time()) + 4  # time enough to add a thousand
    for number in range(options.schedules):
        spread = number / options.schedules if options.case == "spread" else 0.0
        await contestant.each_second(number, base + spread)
    await contestant.settle()
    if time.time() > base - 0.5:
        raise RuntimeError("adding took longer than the time there was")
    gc.collect()
    await asyncio.sleep(base - 0.02 - time.time())
    late.clear()  # tickwork's grid has no beginning: it was due before, too
    await asyncio.sleep(base + options.seconds - 0.02 - time.time())
    found = sorted(late)
    await contestant.close()
    if not found:
        raise RuntimeError("no job ran")
    return {
        "runs": len(found) / (options.schedules * options.seconds),
        "p50": statistics.median(found) * 1e3,
        "p99": found[len(found) * 99 // 100] * 1e3,
    }


def child(options: argparse.Namespace) -> None:
    logging.disable(logging.WARNING)  # lines that nobody reads; whether they are made is the library's affair
    entry = CONTESTANTS[options.child]
    measure = measure_many if options.case in ("cron", "every") else measure_lateness
    found: dict[str, Any] = asyncio.run(measure(entry.make(), options))
    if entry.distribution is not None:
        found["version"] = importlib.metadata.version(entry.distribution)
    print(json.dumps(found))


# --- running the contestants ---


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
        name: What a child is told.
        contestants: Who takes part; the first is the limit.
        fixed: How many schedules; None: as the options say.
        times: How many times as long as `--seconds` says: one job a second needs a while until there is a median.
    """

    name: str
    contestants: tuple[str, ...]
    fixed: int | None = None
    times: int = 1


PEERS = ("apscheduler3", "apscheduler4", "asyncz", "aiocron")
CASES = {
    "cron": Case("cron", ("bare", "tickwork", "declared", *PEERS)),
    "every": Case("every", ("bare", "tickwork", "declared", *PEERS[:3])),
    "burst": Case("burst", ("bare", "tickwork", *PEERS), 1_000),
    "spread": Case("spread", ("bare", "tickwork", *PEERS[:3]), 1_000),
    "one": Case("one", ("timer", "tickwork", *PEERS), 1, 2),
}
GROUPS = {"many": ("cron", "every"), "lateness": ("burst", "spread", "one")}


class Results:
    """What was measured, by case and contestant: a list of rounds, or the reason why there is nothing."""

    def __init__(self) -> None:
        self.rounds: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self.reasons: dict[tuple[str, str], str] = {}

    def values(self, case: str, key: str, what: str) -> list[float]:
        return [found[what] for found in self.rounds.get((case, key), []) if what in found]

    def ratios(self, case: str, key: str, what: str, to: float = 1.0) -> list[float]:
        limit = self.values(case, CASES[case].contestants[0], what)
        return [mine / theirs * to for mine, theirs in zip(self.values(case, key, what), limit, strict=False)]

    def name(self, case: str, key: str) -> str:
        entry = CONTESTANTS[key]
        versions = [found["version"] for found in self.rounds.get((case, key), []) if "version" in found]
        return f"{entry.name} {versions[0]}" if versions else entry.name


def run(python: Path, key: str, case: str, schedules: int, seconds: float, idle: float) -> dict[str, Any] | str:
    """Run a contestant in its own process; return what it measured, or why there is nothing."""
    command = [str(python), __file__, "--child", key, "--case", case, "--schedules", str(schedules)]
    command += ["--seconds", str(seconds), "--idle", str(idle)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=PROCESS_SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"no end after {PROCESS_SECONDS} s"
    if done.returncode != 0:
        return peers.last_line(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def run_all(options: argparse.Namespace, names: list[str]) -> Results:
    results = Results()
    for number in range(options.rounds):
        for name in names:
            case = CASES[name]
            turn = number % len(case.contestants)
            for key in case.contestants[turn:] + case.contestants[:turn]:
                is_peer = CONTESTANTS[key].distribution is not None
                if (name, key) in results.reasons or (is_peer and (options.no_peers or number)):
                    continue
                made = peers.environment(key) if is_peer else peers.Environment(Path(sys.executable))
                if isinstance(made, peers.Missing):
                    results.reasons[name, key] = made.reason
                    continue
                size = case.fixed or (options.peer_schedules if is_peer else options.schedules)
                idle = options.idle if name == "cron" and not number else 0
                found = run(made.python, key, name, size, options.seconds * case.times, idle)
                if isinstance(found, str):
                    results.reasons[name, key] = found
                else:
                    results.rounds.setdefault((name, key), []).append(found)
                print(f"round {number + 1}, {name}, {key}: {found}", file=sys.stderr)
    return results


# --- the tables ---


def verdict(text: str, *met: bool) -> str:
    return f"{text} {'met' if all(met) else 'MISSED'}" if met else ""


def middle(values: list[float]) -> float:
    return statistics.median(values) if values else float("inf")


def print_table(head: list[str], rows: list[list[str]]) -> None:
    print("| " + " | ".join(head) + " |")
    print("|---" + "|--:" * (len(head) - 2) + "|---|")
    for cells in rows:
        print("| " + " | ".join(cells) + " |")


def tell_many(results: Results, options: argparse.Namespace) -> None:
    print(f"\n### {options.schedules:,} schedules ({options.peer_schedules:,} of the peers), none due\n")
    rows = []
    for key in CASES["cron"].contestants:
        if ("cron", key) in results.reasons:
            rows.append([CONTESTANTS[key].name, f"not measured: {results.reasons['cron', key]}", *["-"] * 4, ""])
            continue
        if ("cron", key) not in results.rounds:
            continue
        cells = [
            spread(values, form) if (values := results.values(case, key, what)) else "-"
            for case in ("cron", "every")
            for what, form in (("us", ".1f"), ("bytes", ",.0f"))
        ]
        idle = results.values("cron", key, "idle")
        wanted = ""
        if CONTESTANTS[key].distribution is None and key != "bare":
            us = [middle(results.values(case, key, "us")) <= ADD_MICROSECONDS for case in ("cron", "every")]
            size = [middle(results.values(case, key, "bytes")) <= ADD_BYTES for case in ("cron", "every")]
            wanted = ", ".join(
                [
                    verdict(f"<= {ADD_MICROSECONDS} us", *us),
                    verdict(f"<= {ADD_BYTES:,} bytes", *size),
                    verdict(f"idle < {IDLE_PERCENT} %", middle(idle) < IDLE_PERCENT),
                ]
            )
        rows.append([results.name("cron", key), *cells, f"{idle[0]:.3f}" if idle else "-", wanted])
    head = ["contestant", "`Cron`: us to add each", "bytes each", "`Every`: us", "bytes each", "idle, % of a core"]
    print_table([*head, "wanted"], rows)


TITLES = {
    "burst": "1,000 due at the same instant each second",
    "spread": "1,000 each second, one each millisecond",
    "one": "one job each second",
}


def tell_lateness(results: Results, options: argparse.Namespace, case: str) -> None:
    print(f"\n### {TITLES[case]}, {options.seconds * CASES[case].times:g} s: by how many ms jobs begin late\n")
    rows = []
    limit = CASES[case].contestants[0]
    for key in CASES[case].contestants:
        if (case, key) in results.reasons:
            rows.append([CONTESTANTS[key].name, f"not measured: {results.reasons[case, key]}", *["-"] * 4, ""])
            continue
        if (case, key) not in results.rounds:
            continue
        p50, p99 = (results.values(case, key, what) for what in ("p50", "p99"))
        ratios = [results.ratios(case, key, what) for what in ("p50", "p99")]
        wanted = ""
        if key == "tickwork" and case == "one":
            limits = [1.2 * theirs + 0.1 for theirs in results.values(case, limit, "p50")]
            wanted = verdict("p50 <= 1.2 + 0.1 ms", middle(p50) <= middle(limits))
        elif key == "tickwork":
            wanted = verdict("p99 <= 2", middle(ratios[1]) <= 2)
            if not options.no_peers:
                ahead = [
                    middle(p99[: len(theirs)]) < middle(theirs)  # in the rounds in which the peer ran
                    for peer in CASES[case].contestants[2:]
                    if (theirs := results.values(case, peer, "p99"))
                ]
                wanted += ", " + verdict("ahead of the peers", *ahead)
        rows.append(
            [
                results.name(case, key),
                f"{middle(results.values(case, key, 'runs')) * 100:.1f} %",
                spread(p50, ".2f"),
                spread(p99, ".2f"),
                f"{middle(ratios[0]):.2f}",
                f"{middle(ratios[1]):.2f}",
                wanted,
            ]
        )
    of = f"of {CONTESTANTS[limit].name.removeprefix('a ')}"
    print_table(["contestant", "begun", "p50", "p99", f"p50 {of}", "p99", "wanted"], rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--schedules", type=int, default=100_000)
    parser.add_argument("--peer-schedules", type=int, default=20_000, help="for the peers (default 20000)")
    parser.add_argument("--seconds", type=float, default=20, help="how long jobs are due each second")
    parser.add_argument("--idle", type=float, default=20, help="how many seconds of idling are measured")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a tenth of everything, 1 round")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--only", choices=[*GROUPS, *CASES])
    parser.add_argument("--child", choices=CONTESTANTS, help=argparse.SUPPRESS)
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options)
        return 0
    if options.quick:
        options.schedules, options.peer_schedules = options.schedules // 10, options.peer_schedules // 10
        options.seconds, options.idle, options.rounds = options.seconds / 4, options.idle / 4, 1

    names = [name for group in GROUPS.values() for name in group]
    if options.only:
        names = list(GROUPS.get(options.only, (options.only,)))
    results = run_all(options, names)
    if set(GROUPS["many"]) & set(names):
        tell_many(results, options)
    for case in GROUPS["lateness"]:
        if case in names:
            tell_lateness(results, options, case)
    print(f"\n{hardware()}; {options.rounds} rounds, the peers in the first; median (min-max)\n")
    return 1 if any(CONTESTANTS[key].distribution is None for _, key in results.reasons) else 0


if __name__ == "__main__":
    sys.exit(main())
