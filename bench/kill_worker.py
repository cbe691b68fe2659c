"""The processes that `kill.py` starts: a worker that may kill itself at a named point, and a producer.

    python kill_worker.py worker DATABASE LOG     KILL_AT=point:count in the environment
    python kill_worker.py producer DATABASE LOG FIRST COUNT

What happens is appended to LOG, a line at a time, each by one write: a kill loses none of them.

    A number job            the producer holds the answer of `enqueue`
    S job pid time          a job's function begins
    E job pid time          it ends
    K point pid time job... the process kills itself; the jobs that it has in hand
    R time job...           it has returned jobs of a dead process to the queue
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

from tickwork import App, Context
from tickwork.stores.sqlite import SQLiteStore

MAX_DEATHS = 1_000  # no job here is to blame for a death, and the oldest ones see many
SLOTS = 10
"""Jobs at the same time in each worker process."""
MAX_QUEUED = 400

database, log = (Path(word) for word in sys.argv[2:4])
_log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
_pid = os.getpid()


def say(*words: object) -> None:
    os.write(_log, (" ".join(map(str, words)) + "\n").encode())


class Bomb:
    """Kills this process when a point is reached for the given time."""

    def __init__(self, told: str) -> None:
        self.point, _, count = told.partition(":")
        self.left = int(count or 0)

    def reached(self, point: str) -> bool:
        if point != self.point:
            return False
        self.left -= 1
        return self.left == 0

    def explode(self, *jobs: str) -> NoReturn:
        say("K", self.point, _pid, time.time(), *sorted({*jobs, *app.in_hand()}))
        os.kill(_pid, signal.SIGKILL)
        raise AssertionError("still alive")


bomb = Bomb(os.environ.get("KILL_AT", ""))


class Armed(SQLiteStore):
    """The store, with the points at which a process may die."""

    fuse: list[str] | None = None
    """Set when the next transaction is to be its last: the jobs that end in it."""

    async def claim(self, **options: Any) -> Any:
        records = await super().claim(**options)
        if records and bomb.reached("claimed"):
            bomb.explode(*(record.id for record in records))
        return records

    async def finish(self, finishes: Any) -> Any:
        jobs = [finish.lease.job_id for finish in finishes]
        if bomb.reached("before finish"):
            bomb.explode(*jobs)
        # After a COMMIT these are no longer in hand: there must be others.
        if bomb.reached("in the transaction") or (
            app.in_hand() and (bomb.reached("during commit") or bomb.reached("after commit"))
        ):
            self.fuse = jobs
        return await super().finish(finishes)

    def _tell_rescued(self, dead: Any, rescued: Any) -> None:
        say("R", time.time(), *(record.id for record in rescued))
        super()._tell_rescued(dead, rescued)

    def _transact(self, connection: Any, works: Any) -> Any:
        jobs = self.fuse
        if jobs is None:
            return super()._transact(connection, works)
        works = [*works, lambda db: self._last(jobs)]
        values = super()._transact(connection, works)
        if bomb.point == "after commit":
            bomb.explode(*jobs)
        return values[:-1]

    def _last(self, jobs: list[str]) -> None:
        """The last thing before COMMIT."""
        if bomb.point == "in the transaction":
            bomb.explode(*jobs)
        if bomb.point == "during commit":
            say("K", bomb.point, _pid, time.time(), *sorted({*jobs, *app.in_hand()}))
            threading.Thread(target=_soon, args=(random.uniform(0, 0.002),), daemon=True).start()


def _soon(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass
    os.kill(_pid, signal.SIGKILL)


class KilledApp(App):
    """The app, on that store."""

    def _make_store(self) -> SQLiteStore:
        return Armed(database, self._clock, worker=self._worker, max_queued=MAX_QUEUED, max_deaths=MAX_DEATHS)

    def in_hand(self) -> list[str]:
        return [] if self._dispatcher is None else list(self._dispatcher._runs)


class Producer(KilledApp):
    """One that only enqueues: it claims nothing."""

    def _make_store(self) -> SQLiteStore:
        return SQLiteStore(database, self._clock, max_queued=self.max_queued)

    def _supervise(self, work: Any, name: str) -> None:
        if name == "feeder":
            work.close()
        else:
            super()._supervise(work, name)


app = (Producer if sys.argv[1] == "producer" else KilledApp)(
    f"sqlite:///{database}", workers=SLOTS, max_queued=MAX_QUEUED, max_deaths=MAX_DEATHS
)


def seconds_of(number: int) -> float:
    """Most jobs take some milliseconds, every 40th longer than the store needs to hear that it has begun."""
    return 0.5 if number % 40 == 7 else (number * 7919 % 100) / 1000


@app.task(name="on the loop")
async def on_the_loop(ctx: Context, number: int) -> int:
    say("S", ctx.job_id, _pid, time.time())
    if bomb.reached("begun"):
        bomb.explode()
    await asyncio.sleep(seconds_of(number) / 2)
    if bomb.reached("in the middle"):
        bomb.explode()
    await asyncio.sleep(seconds_of(number) / 2)
    say("E", ctx.job_id, _pid, time.time())
    return number


@app.task(name="in a thread")
def in_a_thread(ctx: Context, number: int) -> int:
    say("S", ctx.job_id, _pid, time.time())
    time.sleep(seconds_of(number))
    say("E", ctx.job_id, _pid, time.time())
    return number


async def produce(first: int, count: int) -> None:
    await app.start(schedules=False)
    for number in range(first, first + count):
        job = await (in_a_thread if number % 5 == 0 else on_the_loop).enqueue(number)
        say("A", number, job.id)
    await app.stop()


if __name__ == "__main__":
    if sys.argv[1] == "producer":
        asyncio.run(produce(int(sys.argv[4]), int(sys.argv[5])))
    else:
        sys.exit(app.run())
