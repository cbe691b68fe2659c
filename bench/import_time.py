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
CHILD = """
import sys, time
start = time.perf_counter()
import {modules}
elapsed = time.perf_counter() - start
tops = {{name.partition(".")[0] for name in sys.modules}} - sys.stdlib_module_names - {{"__main__"}}
import json
outside = {{top: sum(n == top or n.startswith(top + ".") for n in sys.modules) for top in tops}}
print(json.dumps([elapsed * 1000, outside]))
"""


def measure(modules: str) -> tuple[float, dict[str, int]]:
    """Return the milliseconds, and how many modules of which package from outside the standard library."""
    command = [sys.executable, "-I", "-c", CHILD.format(modules=modules)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    milliseconds, outside = json.loads(done.stdout)
    return milliseconds, outside


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=25)
    runs = parser.parse_args().runs

    _, before = measure("asyncio")  # the first runs also compile, so they do not count
    _, after = measure("asyncio, tickwork")
    alone, both = [], []
    for _ in range(runs):
        alone.append(measure("asyncio")[0])
        both.append(measure("asyncio, tickwork")[0])
    above = statistics.median(both) - statistics.median(alone)

    print(
        f"### `import tickwork` above `import asyncio`: median of {runs} fresh interpreters each, in turn\n"
    )
    print("| | ms, median (min-max) |\n|---|--:|")
    for name, times in (("`import asyncio`", alone), ("`import asyncio, tickwork`", both)):
        print(f"| {name} | {statistics.median(times):.1f} ({min(times):.1f}-{max(times):.1f}) |")
    print(f"| the difference | {above:.1f} |")
    ratio = above / LIMIT_MS
    print(f"\n{ratio:.2f} of the limit of {LIMIT_MS:g} ms: {'met' if ratio <= 1 else 'MISSED'}\n")
    pulled = {name: count for name, count in sorted(after.items()) if name not in before}
    print("Modules from outside the standard library:", end=" ")
    print(", ".join(f"{name} ({count})" for name, count in pulled.items()) or "none")
    print(f"\n{hardware()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
