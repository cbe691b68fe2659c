"""What `import tickwork` costs above `import asyncio`, in fresh interpreters, and what it pulls in.

python bench/import_time.py --runs 20
"""

import argparse
import json
import statistics
import subprocess
import sys

from inproc import hardware

LIMIT_MS = 30.0
BASE = "import asyncio"
LIMITED = "import asyncio, tickwork"
STATEMENTS = (
    LIMITED,  # the names of tickwork load when they are first used,
    "import asyncio; from tickwork import Pool",  # so this is what a program pays in the end
    "import asyncio; from tickwork import App",
)
CHILD = """
import sys, time
before = set(sys.modules)
start = time.perf_counter()
{statement}
elapsed = time.perf_counter() - start
new = [name.partition(".")[0] for name in sys.modules if name not in before]
import json
print(json.dumps([elapsed * 1000, {{top: new.count(top) for top in set(new) - sys.stdlib_module_names}}]))
"""


def measure(statement: str) -> tuple[float, dict[str, int]]:
    """Return the milliseconds, and how many modules of which package from outside the standard library."""
    command = [sys.executable, "-I", "-c", CHILD.format(statement=statement)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    milliseconds, outside = json.loads(done.stdout)
    return milliseconds, outside


def verdict(ratio: float) -> str:
    return "met" if ratio <= 1 else "MISSED"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=25)
    runs = parser.parse_args().runs

    # The first runs also compile, so they do not count.
    outside = {statement: measure(statement)[1] for statement in (BASE, *STATEMENTS)}
    times: dict[str, list[float]] = {statement: [] for statement in outside}
    for _ in range(runs):
        for statement, values in times.items():
            values.append(measure(statement)[0])

    base = statistics.median(times[BASE])
    print(f"### Import above `{BASE}`: median (min-max) of {runs} fresh interpreters each, in turn\n")
    print(f"| | ms | above | of {LIMIT_MS:g} ms | |\n|---|--:|--:|--:|---|")
    for statement, values in times.items():
        middle = statistics.median(values)
        row = f"| `{statement}` | {middle:.1f} ({min(values):.1f}-{max(values):.1f}) |"
        if statement == BASE:
            print(f"{row} | | |")
            continue
        ratio = (middle - base) / LIMIT_MS
        print(f"{row} {middle - base:.1f} | {ratio:.2f} | {verdict(ratio) if statement == LIMITED else ''} |")
    print()
    for statement in STATEMENTS:
        pulled = [f"{name} ({count})" for name, count in sorted(outside[statement].items())]
        print(f"- `{statement}` loads from outside the standard library: {', '.join(pulled) or 'nothing'}")
    print(f"\n{hardware()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
