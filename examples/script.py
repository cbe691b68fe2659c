"""A pool in a script: many jobs, few at a time, and what is left at the end saved for the next run.

    python examples/script.py [FILE ...]

It counts the words of files, the standard library's without an argument. Interrupted by Ctrl-C, it saves what it has
not begun in `script.json`, and goes on with that when it is started again.
"""

import asyncio
import os
import sys
from pathlib import Path

from tickwork import Pool

SAVED = Path("script.json")


def count_words(path: str) -> tuple[str, int]:
    """Count the words of a file, in a thread."""
    return path, len(Path(path).read_bytes().split())


async def main(paths: list[str]) -> None:
    """Count the words of all files, or of those that the last run has left."""
    async with Pool(workers=8, buffer=10_000) as pool:
        try:
            try:
                jobs = (await pool.load(SAVED)).jobs
                print(f"{len(jobs)} left from the last time")
            except FileNotFoundError:
                jobs = [await pool.submit(count_words, path) for path in paths]
            words = [await job.result() for job in jobs]
        except asyncio.CancelledError:  # Ctrl-C
            saved = await pool.save(SAVED)
            print(f"{len(saved.jobs)} saved in {saved.path}", flush=True)
            raise
        stats = pool.stats()
    for path, count in sorted(words, key=lambda entry: entry[1])[-3:]:
        print(f"{count:8,} {path}")
    print(f"{sum(count for _, count in words):8,} words in {len(words)} files, {stats.workers} at a time")


if __name__ == "__main__":
    library = Path(os.__file__).parent
    try:
        asyncio.run(main(sys.argv[1:] or [str(path) for path in library.glob("*.py")]))
    except KeyboardInterrupt:
        sys.exit(130)
