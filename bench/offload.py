"""Functions in child processes: `tickwork.map` and single calls beside six peers, on two workers.

    python bench/offload.py                     # 9 rounds, some ten minutes
    python bench/offload.py --rounds 3 --no-peers

A round runs every contestant once, in turn and in a program of its own, on warm processes. Each gets the same items:
how far the function shall count. `multiprocessing.Pool` and `ProcessPoolExecutor` run with several chunk sizes, and the
best one of each row stands in the table. What is slow for each item gets fewer items, and is compared by the item.
"""

import argparse
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import offload_work as work
import peers
from inproc import hardware

WORK = Path(work.__file__)
SINGLE_CALLS = 2_000
SLOW_ITEMS = 2_000
"""The most items for contestants that need more than 100 us for each."""


@dataclass(frozen=True)
class Row:
    name: str
    seconds: float
    items: int
    chunks: tuple[int, ...]
    most: float
    """How much longer than the best peer a map may take."""


ROWS = (
    Row("~0 us x 100,000", 0.0, 100_000, (1_024, 4_096, 25_000), 2.0),
    Row("100 us x 10,000", 100e-6, 10_000, (16, 64, 250), 1.15),
    Row("10 ms x 400", 10e-3, 400, (1, 4, 10), 1.15),
)
MAPS = {
    "tickwork": ("`tickwork.map`", None),
    "mp": ("`multiprocessing.Pool.map`, best chunk size", None),
    "ppe": ("`ProcessPoolExecutor.map`, best chunk size", None),
    "joblib": ("joblib (loky)", "joblib"),
    "aiomultiprocess": ("aiomultiprocess", "aiomultiprocess"),
    "anyio": ("anyio.to_process", None),
    "dask": ("Dask, local cluster", "dask"),
}
CALLS = {
    "tickwork": ("tickwork, `ProcessRunner.run`", None),
    "pool": ("tickwork, `Pool.submit`, and its result", None),
    "ppe": ("`ProcessPoolExecutor`, `run_in_executor`", None),
    "anyio": ("anyio.to_process", None),
    "aiomultiprocess": ("aiomultiprocess, `apply`", "aiomultiprocess"),
    "echo": ("100 bytes there and back, plain sockets on the loop", None),
}
SLOW = {"anyio", "dask", "aiomultiprocess"}
ASYNCIO = {"aiomultiprocess", "anyio", "dask"}
CALL_LIMIT = 1 / 3
LAG_MS = 10.0
EFFICIENCY = 0.9


def run(python: Path, *args: str) -> work.Found | str:
    """Run one contestant; return what it found of each row, or why there is nothing."""
    # -W: a peer may start its processes in a way that a newer Python warns of.
    command = [str(python), "-W", "ignore", str(WORK), *args]
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=600)
    except subprocess.TimeoutExpired:
        return "it did not end within ten minutes"
    for line in done.stdout.splitlines():
        if line.startswith("found:"):
            rows = [[float(number) for number in row.split(",")] for row in line.split()[1:]]
            return [(took, lag, inside) for took, lag, inside in rows]
    return peers.last_line(done.stderr)


def pythons(chosen: dict[str, tuple[str, str | None]], with_peers: bool) -> tuple[dict[str, Path], dict[str, str]]:
    found, reasons = {}, {}
    for key, (_, peer) in chosen.items():
        if peer is None:
            found[key] = Path(sys.executable)
        elif with_peers:
            made = peers.environment(peer)
            if isinstance(made, peers.Missing):
                reasons[key] = made.reason
            else:
                found[key] = made.python
    return found, reasons


class Maps:
    """What the maps have shown, by contestant, row and chunk size: microseconds for an item."""

    def __init__(self, counts: list[int], with_peers: bool) -> None:
        self.counts = counts
        self.pythons, self.reasons = pythons(MAPS, with_peers)
        self.each: dict[tuple[str, int, int], list[float]] = {}
        self.inside: dict[tuple[str, int, int], list[float]] = {}
        """How much of two processors' time went by inside of the function, likewise."""
        self.lags: dict[int, list[float]] = {}

    def round(self, number: int) -> None:
        keys = list(self.pythons)
        turn = number % len(keys)
        for key in keys[turn:] + keys[:turn]:
            variants = len(ROWS[0].chunks) if key in ("mp", "ppe") else 1
            for variant in range(variants):
                self.measure(key, variant)

    def measure(self, key: str, variant: int) -> None:
        if key in self.reasons:
            return
        items = [min(row.items, SLOW_ITEMS) if key in SLOW else row.items for row in ROWS]
        rows = zip(self.counts, items, ROWS, strict=True)
        found = run(
            self.pythons[key], "map", key, *(f"{count}:{many}:{row.chunks[variant]}" for count, many, row in rows)
        )
        if isinstance(found, str):
            self.reasons[key] = found
            return
        for row, (took, lag, inside) in enumerate(found):
            self.each.setdefault((key, row, variant), []).append(took / items[row] * 1e6)
            self.inside.setdefault((key, row, variant), []).append(inside / work.WORKERS / took)
            if key == "tickwork":
                self.lags.setdefault(row, []).append(lag)

    def best(self, key: str, row: int) -> list[float] | None:
        """Return the rounds of the chunk size with the least median."""
        found = [times for (name, at, _), times in self.each.items() if (name, at) == (key, row)]
        return min(found, key=statistics.median) if found else None

    def shares(self) -> list[str]:
        """Return the table of how much of the time was inside of the function: other programs change it little."""
        rows = [number for number, row in enumerate(ROWS) if row.seconds]
        lines = [
            "| share of the time inside of the function | " + " | ".join(ROWS[number].name for number in rows) + " |"
        ]
        lines.append("|---|" + "--:|" * len(rows))
        for key, (name, _) in MAPS.items():
            if key not in self.reasons and key in self.pythons:
                best = []
                for row in rows:
                    found = [times for (who, at, _), times in self.inside.items() if (who, at) == (key, row)]
                    best.append(max(found, key=statistics.median))
                lines.append(f"| {name} | " + " | ".join(spread(times) for times in best) + " |")
        return lines

    def table(self) -> list[str]:
        lines = ["| us for an item | " + " | ".join(row.name for row in ROWS) + " |", "|---|" + "--:|" * len(ROWS)]
        for key, (name, _) in MAPS.items():
            if key in self.reasons:
                lines.append(f"| {name} | not measured: {self.reasons[key]} |" + " |" * (len(ROWS) - 1))
            elif key in self.pythons:
                cells = [spread(self.best(key, row) or []) for row in range(len(ROWS))]
                lines.append(f"| {name} | " + " | ".join(cells) + " |")
        return lines

    def verdicts(self) -> list[str]:
        lines = []
        for at, row in enumerate(ROWS):
            mine = self.best("tickwork", at)
            others = {key: times for key in MAPS if key != "tickwork" and (times := self.best(key, at))}
            if mine is None or not others:
                continue
            best = min(others, key=lambda key: statistics.median(others[key]))
            ratio = statistics.median(a / b for a, b in zip(mine, others[best], strict=True))
            lines.append(
                f"- {row.name}: {ratio:.2f} times the best peer, {MAPS[best][0]}; {limit(ratio <= row.most, row.most)}"
            )
            behind = [key for key in ASYNCIO & set(others) if statistics.median(others[key]) < statistics.median(mine)]
            if ASYNCIO & set(others):
                lines.append(f"- {row.name}: ahead of the asyncio ones; {limit(not behind, 'all of them')}")
        long = self.best("tickwork", len(ROWS) - 1)
        if long is not None:
            efficiency = 10_000 / work.WORKERS / statistics.median(long)
            lines.append(f"- 10 ms: efficiency {efficiency:.3f}; {limit(efficiency >= EFFICIENCY, EFFICIENCY)}")
        lag = max(statistics.median(lags) for lags in self.lags.values())
        lines.append(f"- the loop's lag during a map, p99: {lag:.1f} ms; {limit(lag < LAG_MS, LAG_MS)}")
        return lines


def limit(is_met: bool, wanted: object) -> str:
    return f"wanted {wanted}: {'met' if is_met else 'MISSED'}"


def spread(values: list[float]) -> str:
    middle = statistics.median(values)
    form = ",.0f" if middle >= 1_000 else ",.1f" if middle >= 10 else ".2f"
    low, mid, high = (format(value, form) for value in (min(values), middle, max(values)))
    return f"{mid} ({low}-{high})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--no-peers", action="store_true", help="only what needs no environment of its own")
    options = parser.parse_args()

    maps = Maps([work.calibrate(row.seconds) if row.seconds else 0 for row in ROWS], not options.no_peers)
    call_pythons, reasons = pythons(CALLS, not options.no_peers)
    each: dict[str, list[float]] = {}
    for number in range(options.rounds):
        maps.round(number)
        for key, python in call_pythons.items():
            if key in reasons:
                continue
            found = run(python, "call", key, str(SINGLE_CALLS))
            if isinstance(found, str):
                reasons[key] = found
            else:
                each.setdefault(key, []).append(found[0][0] * 1e6)
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    if "tickwork" in {**maps.reasons, **reasons}:
        print(f"tickwork did not run: {maps.reasons} {reasons}", file=sys.stderr)
        return 1

    setting = f"{work.WORKERS} workers, {options.rounds} rounds, median (min-max)"
    print(f"\n### Batches in processes: {setting}\n")
    print("\n".join([*maps.table(), "", *maps.shares(), "", *maps.verdicts()]))
    print(f"\n### One call of an empty function after the other: {setting} of {SINGLE_CALLS:,} calls\n")
    print("| | us a call | of the executor's | wanted |\n|---|--:|--:|---|")
    for key, (name, _) in CALLS.items():
        if key in reasons:
            print(f"| {name} | not measured: {reasons[key]} | | |")
        elif key in each:
            ratio = statistics.median(a / b for a, b in zip(each[key], each["ppe"], strict=True))
            wanted = limit(ratio <= CALL_LIMIT, "a third") if key == "tickwork" else ""
            print(f"| {name} | {spread(each[key])} | {ratio:.2f} | {wanted} |")
    if "anyio" in each:
        ratio = statistics.median(a / b for a, b in zip(each["tickwork"], each["anyio"], strict=True))
        print(f"\n- beside anyio.to_process: {ratio:.2f}; {limit(ratio <= CALL_LIMIT, 'a third')}")
    print(f"\n{hardware()}, load {os.getloadavg()[0]:.1f}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
