"""Eight processes whose clocks differ by seconds fire 100 schedules on one PostgreSQL: each fire time once?

    python bench/apart.py                          # 100 schedules, 200 fire times each
    python bench/apart.py --schedules 20 --fire-times 20 --processes 4

Each process is an app of its own that fires and runs, and whose clock goes wrong by up to `--apart` seconds, half of
them ahead and half of them behind the server's. Those that are furthest ahead are first and race each other, so one of
them after the other is killed and comes again, until all have died once. Each job appends its schedule and its fire
time to a file. At the end each schedule must have run its fire times, one after the other without a gap, by one job
each; a job may have run again only when it was in hand at a kill.
"""

import argparse
import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from datetime import datetime, timedelta
from itertools import pairwise
from multiprocessing import get_context
from multiprocessing.context import ForkProcess  # noqa: TC003
from pathlib import Path

from durable_postgres import lacks, url
from kill_postgres import Server, preload

from tickwork import App, Context
from tickwork.clock import SystemClock

FORK = get_context("fork")
STALL_SECONDS = 120


class Apart(SystemClock):
    """A clock that is wrong by so many seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._apart = timedelta(seconds=seconds)

    def now(self) -> datetime:
        return super().now() + self._apart


def live(folder: Path, options: argparse.Namespace, seconds: float, me: int) -> None:
    """Be a process; in the forked child."""
    log = os.open(folder / "log", os.O_WRONLY | os.O_APPEND)
    os.dup2(os.open(folder / "err", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644), 2)
    app = App(url(folder), workers=20, clock=Apart(seconds), max_deaths=1_000)

    @app.task(name="fired")
    async def fired(ctx: Context) -> None:
        assert ctx.fire_time is not None
        line = f"{ctx.schedule} {round(ctx.fire_time.timestamp() * 1_000_000)} {ctx.job_id} {me}\n"
        os.write(log, line.encode())
        await asyncio.sleep(0)

    for number in range(options.schedules):
        bounds = {"overlap": "allow", "catch_up": "all", "max_runs": options.fire_times, "max_catch_up": 10_000}
        app.every(options.every, name=f"schedule-{number}", **bounds)(fired)
    sys.exit(app.run())


Line = tuple[str, int, str, int]


def lines(folder: Path) -> list[Line]:
    """Return what was said: schedule, fire time, job and process."""
    told = [line.split() for line in (folder / "log").read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [(schedule, int(at), job, int(pid)) for schedule, at, job, pid in told]


def run(folder: Path, options: argparse.Namespace) -> set[int]:
    """Let all processes fire and die in turn; return the dead."""
    share = 2 * options.apart / max(1, options.processes - 1)
    clocks = [round(options.apart - share * number, 3) for number in range(options.processes)]
    wanted = options.schedules * options.fire_times
    living: list[tuple[ForkProcess, float]] = []
    dead: set[int] = set()

    def start(seconds: float) -> None:
        number = len(dead) + len(living)
        process = FORK.Process(target=live, args=(folder, options, seconds, number), name=str(number), daemon=True)
        process.start()
        living.append((process, seconds))

    for seconds in clocks:
        start(seconds)
    try:
        moved, size = time.monotonic(), -1
        while (count := len({(schedule, at) for schedule, at, *_ in lines(folder)})) < wanted:
            if count != size:
                moved, size = time.monotonic(), count
            elif time.monotonic() > moved + STALL_SECONDS:
                raise SystemExit(f"{count} of {wanted} fire times after {STALL_SECONDS} s; see {folder}")
            if len(dead) < len(clocks) and count > wanted * (len(dead) + 1) / (len(clocks) + 2):
                process, seconds = living.pop(0)
                process.kill()
                process.join()
                dead.add(int(process.name))
                start(seconds)
            time.sleep(0.2)
        time.sleep(2 * options.apart)  # what would come twice would come from one that is behind
    finally:
        for process, _ in living:
            os.kill(process.pid or 0, signal.SIGTERM)
        for process, _ in living:
            process.join()
    return dead


def judge(folder: Path, dead: set[int], every: int) -> dict[str, int]:
    """Count the fire times, and those that came never or twice."""
    jobs: dict[tuple[str, int], set[str]] = defaultdict(set)
    runs: dict[str, list[int]] = defaultdict(list)
    for schedule, at, job, pid in lines(folder):
        jobs[schedule, at].add(job)
        runs[job].append(pid)
    of_schedule: dict[str, list[int]] = defaultdict(list)
    for schedule, at in sorted(jobs):
        of_schedule[schedule].append(at)
    return {
        "schedules": len(of_schedule),
        "fire_times": len(jobs),
        "never": sum(
            (after - before) // every - 1 for times in of_schedule.values() for before, after in pairwise(times)
        ),
        "twice": sum(len(made) > 1 for made in jobs.values()),
        "again": sum(len(pids) - 1 for pids in runs.values()),
        "again_without_a_kill": sum(pid not in dead for pids in runs.values() for pid in pids[:-1]),
        "kills": len(dead),
        "processes_that_ran": len({pid for pids in runs.values() for pid in pids}),
        "uneven": len(Counter(len(times) for times in of_schedule.values())) - 1,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schedules", type=int, default=100)
    parser.add_argument("--fire-times", type=int, default=200)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--apart", type=float, default=2.0, help="seconds by which a clock is wrong, at the most")
    parser.add_argument("--every", type=float, default=0.5, help="seconds between the fire times of a schedule")
    options = parser.parse_args()
    if lack := lacks(needs_psycopg=True):
        print(lack, file=sys.stderr)
        return
    preload()
    folder = Path(tempfile.mkdtemp(prefix="tickwork-apart-"))
    (folder / "log").touch()
    server = Server(folder)
    began = time.monotonic()
    try:
        dead = run(folder, options)
    finally:
        server.stop()
    found = {**judge(folder, dead, round(options.every * 1_000_000)), "seconds": round(time.monotonic() - began)}
    print(found)
    is_fine = found["fire_times"] == options.schedules * options.fire_times
    is_fine = is_fine and not any(found[name] for name in ("never", "twice", "again_without_a_kill", "uneven"))
    if is_fine:
        shutil.rmtree(folder)
    else:
        print(f"kept: {folder}", file=sys.stderr)
    sys.exit(not is_fine)


if __name__ == "__main__":
    main()
