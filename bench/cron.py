"""What the next fire time of a cron expression costs, beside croniter, cronsim and APScheduler.

python bench/cron.py --rounds 7

Each contestant keeps one live object and is asked for one fire time after the other from the same start, in
the zone Europe/Berlin, daylight saving included. The figures are microseconds for one fire time: the best of
several rounds, in which the contestants take turns. The peers are taken from their environments (`peers.py`);
one that cannot be installed is shown as such.

An expression that a contestant cannot express is shown as "-" and is left out of its mean; so is one that it
reads differently: APScheduler takes both day fields together.
"""

import argparse
import importlib.metadata
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from inproc import hardware
from peers import Environment, environment

from tickwork.triggers import Cron

KEY = "Europe/Berlin"
ZONE = ZoneInfo(KEY)
START = datetime(2026, 1, 1, tzinfo=UTC)

# Typical expressions, seconds and years last, and APScheduler's words for them where it has some.
EXPRESSIONS: list[tuple[str, dict[str, str] | None]] = [
    ("* * * * *", {"minute": "*"}),
    ("*/5 * * * *", {"minute": "*/5"}),
    ("*/15 * * * *", {"minute": "*/15"}),
    ("0 * * * *", {"minute": "0"}),
    ("30 */2 * * *", {"minute": "30", "hour": "*/2"}),
    ("0 9 * * *", {"minute": "0", "hour": "9"}),
    ("30 2 * * *", {"minute": "30", "hour": "2"}),
    ("0 9-17 * * 1-5", {"minute": "0", "hour": "9-17", "day_of_week": "mon-fri"}),
    ("*/10 9-17 * * mon-fri", {"minute": "*/10", "hour": "9-17", "day_of_week": "mon-fri"}),
    ("0 0 * * 0", {"minute": "0", "hour": "0", "day_of_week": "sun"}),
    ("0 0 1 * *", {"minute": "0", "hour": "0", "day": "1"}),
    ("0 0 1 1 *", {"minute": "0", "hour": "0", "day": "1", "month": "1"}),
    ("0 0 L * *", {"minute": "0", "hour": "0", "day": "last"}),
    ("0 9 15W * *", None),
    ("0 9 * * 1#1", {"minute": "0", "hour": "9", "day": "1st mon"}),
    ("0 9 * * L5", {"minute": "0", "hour": "9", "day": "last fri"}),
    ("0 9 1,15 * 5", None),
    ("0 0 29 2 *", {"minute": "0", "hour": "0", "day": "29", "month": "2"}),
    ("* * * * * */10", {"minute": "*", "second": "*/10"}),
    ("0 0 1 1 * 0 2026/2", {"minute": "0", "hour": "0", "day": "1", "month": "1", "year": "2026-2099/2"}),
]
# How many fire times in a row. A century has 25 leap days and 37 even years until 2099.
FEW = {"0 0 29 2 *": 20, "0 0 1 1 * 0 2026/2": 30, "0 0 1 1 *": 70}
TYPICAL = 150

Step = Callable[[], object]
Maker = Callable[[str, dict[str, str] | None], Step | None]


def tickwork(expression: str, _: dict[str, str] | None) -> Step:
    trigger = Cron(expression, timezone=KEY, seconds="last" if expression.count(" ") > 4 else None)
    after = START

    def step() -> datetime | None:
        nonlocal after
        found = trigger.next(after)
        if found is not None:
            after = found
        return found

    return step


def live_croniter(expression: str, _: dict[str, str] | None) -> Step:
    from croniter import croniter

    live = croniter(expression, START.astimezone(ZONE), max_years_between_matches=130)
    return lambda: live.get_next(datetime)


def cronsim(expression: str, _: dict[str, str] | None) -> Step | None:
    from cronsim import CronSim, CronSimError

    fields = expression.replace("L5", "5L").upper().split()
    if len(fields) == 6:
        fields = [fields[5], *fields[:5]]
    try:
        live = CronSim(" ".join(fields), START.astimezone(ZONE))
    except CronSimError:
        return None
    return lambda: next(live)


def apscheduler(_: str, words: dict[str, str] | None) -> Step | None:
    from apscheduler.triggers.cron import CronTrigger

    if words is None:
        return None
    trigger = CronTrigger(timezone=ZONE, **words)
    previous: Any = None
    now = START.astimezone(ZONE)

    def step() -> object:
        nonlocal previous, now
        previous = trigger.get_next_fire_time(previous, now)
        now = previous
        return previous

    return step


def measure(maker: Maker, expression: str, words: dict[str, str] | None) -> float | None:
    """Return the microseconds for one fire time, or None when the contestant cannot express it."""
    step = maker(expression, words)
    if step is None:
        return None
    step()  # the first one may compile and find the zone's changes
    count = FEW.get(expression, TYPICAL)
    begun = time.perf_counter()
    for _ in range(count):
        step()
    return (time.perf_counter() - begun) / count * 1e6


def reach_peers() -> None:
    """Let the peers be imported from their environments, behind what is installed here: all of them are pure Python."""
    for peer in ("cronsim", "apscheduler3"):
        found = environment(peer)
        if isinstance(found, Environment):
            sys.path += [str(folder) for folder in found.python.parent.parent.glob("[Ll]ib/**/site-packages")]
        else:
            print(found.reason, file=sys.stderr)


def installed() -> tuple[dict[str, Maker], list[str]]:
    """Return the contestants with their versions, and what is not installed."""
    reach_peers()
    makers: dict[str, Maker] = {"croniter": live_croniter, "cronsim": cronsim, "apscheduler": apscheduler}
    found: dict[str, Maker] = {"tickwork": tickwork}
    missing = []
    for name, maker in makers.items():
        try:
            found[f"{name} {importlib.metadata.version(name)}"] = maker
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    return found, missing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    contestants, missing = installed()

    best: dict[tuple[str, str], float] = {}
    for _ in range(rounds):
        for expression, words in EXPRESSIONS:
            for name, maker in contestants.items():
                value = measure(maker, expression, words)
                if value is not None:
                    best[expression, name] = min(value, best.get((expression, name), value))

    peers = [name for name in contestants if name != "tickwork"]
    print(f"{hardware()}\n")
    columns = ["expression", "tickwork us", *(f"{name} us (ratio)" for name in peers)]
    print("| " + " | ".join([*columns, *missing]) + " |")
    print("|" + " --- |" * (len(columns) + len(missing)))
    for expression, _ in EXPRESSIONS:
        ours = best[expression, "tickwork"]
        cells = [f"`{expression}`", f"{ours:.2f}"]
        for name in peers:
            theirs = best.get((expression, name))
            cells.append("-" if theirs is None else f"{theirs:.1f} ({theirs / ours:.0f}x)")
        print("| " + " | ".join([*cells, *("not installed" for _ in missing)]) + " |")

    means = ["**geometric mean**", f"**{mean(best, 'tickwork', None):.2f}**"]
    means += [f"**{mean(best, name, None):.1f} ({mean(best, name, 'tickwork'):.0f}x)**" for name in peers]
    print("| " + " | ".join([*means, *("not installed" for _ in missing)]) + " |")


def mean(best: dict[tuple[str, str], float], name: str, over: str | None) -> float:
    """Return the geometric mean of a contestant's figures, or of their ratios to another's."""
    own = [expression for expression, contestant in best if contestant == name]
    return statistics.geometric_mean(
        best[expression, name] / (best[expression, over] if over else 1.0) for expression in own
    )


if __name__ == "__main__":
    main()
