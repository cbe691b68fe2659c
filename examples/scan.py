"""A batch: a function over many files, in processes, with progress, and going on where it was stopped.

    python examples/scan.py [FOLDER]

It looks for the longest function of a tree of Python files, asyncio's own without an argument. Parsing keeps a
processor busy, so it is done in child processes. Interrupted by Ctrl-C or killed, it goes on where it was, with what
`scan.db` knows; that file is removed at the end. Files that do not parse are listed in `scan_failed.jsonl`.
"""

import ast
import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import tickwork

CHECKPOINT, FAILED = Path("scan.db"), Path("scan_failed.jsonl")


@dataclass(frozen=True)
class Longest:
    """The longest function of a file."""

    name: str
    lines: int


def longest_function(path: Path) -> Longest | None:
    """Return the longest function of a file; None: it has none. Runs in a child process."""
    found = [
        Longest(node.name, (node.end_lineno or node.lineno) - node.lineno + 1)
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return max(found, key=lambda function: function.lines, default=None)


async def main(folder: str) -> None:
    """Find the longest functions of all files, and tell of three of them."""
    results = await tickwork.map_files(
        folder,
        longest_function,
        "*.py",
        run_in="process",
        timeout="1m",
        on_error="skip",
        progress=True,
        checkpoint=CHECKPOINT,
        dead=FAILED,
    )
    found = [(longest, path) for path, longest in results.items() if longest is not None]
    for longest, path in sorted(found, key=lambda entry: entry[0].lines)[-3:]:
        print(f"{longest.lines:6,} lines: {longest.name} in {path}")
    print(f"{len(results):6,} files")


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(asyncio.__file__)))
        CHECKPOINT.unlink()
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
