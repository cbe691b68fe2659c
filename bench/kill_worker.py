"""What the kill suites start: workers and schedulers that kill themselves at a named point, and producers.

    python kill_worker.py worker DATABASE LOG       KILL_AT=point:count in the environment
    python kill_worker.py scheduler DATABASE LOG    KILL_ON_SIGNAL=1: the point counts from SIGUSR1 on
    python kill_worker.py client DATABASE LOG FIRST COUNT AT_ONCE    the producer; so many calls at the same time

DATABASE is a file, or the URL of a PostgreSQL database: there schedules are declared, too, and jobs have keys.
What happens is appended to LOG, a line at a time, each by one write: a kill loses none of them.

    U pid                   the process has started
    Q number                the producer is about to enqueue
    A number job            it holds the answer of `enqueue`
    D number error          it got an error instead
    S job pid time token    a job's function begins; the token of its lease
    F job schedule at       the same job was fired by a schedule for this fire time, in microseconds
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
from typing import TYPE_CHECKING, Any, NoReturn

from tickwork import App, Context
from tickwork.errors import StoreUnavailable
from tickwork.stores.durable import DurableStore

if TYPE_CHECKING:
    from tickwork.stores.base import Store

MAX_DEATHS = 1_000  # no job here is to blame for a death, and the oldest ones see many
SLOTS = 10
"""Jobs at the same time in each worker process."""
MAX_QUEUED = 400

POINTS_OF_COMMITS = ("in the transaction", "during commit", "after commit")

role, database, log = sys.argv[1:4]
is_shared = database.startswith("postgresql://")
_log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
_me = int(os.environ.get("KILL_NUMBER") or os.getpid())
"""What it calls itself: a number in a long run, in which the system gives process ids out again. No process id!"""


def say(*words: object) -> None:
    os.write(_log, (" ".join(map(str, words)) + "\n").encode())


class Bomb:
    """Kills this process when a point is reached for the given time, once it is armed."""

    def __init__(self, told: str, *, is_armed: bool) -> None:
        self.point, _, count = told.partition(":")
        self.left = int(count or 0)
        self.is_armed = is_armed

    def reached(self, *points: str) -> bool:
        if self.point not in points or not self.is_armed:
            return False
        self.left -= 1
        return self.left == 0

    def arm(self, *_: object) -> None:
        self.is_armed = True

    def explode(self, *jobs: str) -> NoReturn:
        say("K", self.point, _me, time.time(), *sorted({*jobs, *in_hand()}))
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("still alive")


bomb = Bomb(os.environ.get("KILL_AT", ""), is_armed="KILL_ON_SIGNAL" not in os.environ)


class Armed(DurableStore):
    """What a store has more: the points at which a process may die."""

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
            in_hand() and (bomb.reached("during commit") or bomb.reached("after commit"))
        ):
            self.fuse = jobs
        return await super().finish(finishes)

    async def fire(self, firings: Any) -> Any:
        if role == "scheduler" and bomb.reached(*POINTS_OF_COMMITS):
            self.fuse = []
        return await super().fire(firings)

    def _tell_rescued(self, dead: Any, rescued: Any) -> None:
        say("R", time.time(), *(record.id for record in rescued))
        super()._tell_rescued(dead, rescued)

    def _transact(self, connection: Any, works: Any) -> Any:
        jobs = self.fuse
        if jobs is None:
            return super()._transact(connection, works)  # type: ignore[misc]
        works = [*works, lambda db: self._last(jobs)]
        values = super()._transact(connection, works)  # type: ignore[misc]
        if bomb.point == "after commit":
            bomb.explode(*jobs)
        return values[:-1]

    def _last(self, jobs: list[str]) -> None:
        """The last thing before COMMIT."""
        if bomb.point == "in the transaction":
            bomb.explode(*jobs)
        if bomb.point == "during commit":
            say("K", bomb.point, _me, time.time(), *sorted({*jobs, *in_hand()}))
            threading.Thread(target=_soon, args=(random.uniform(0, 0.002),), daemon=True).start()


def _soon(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass
    os.kill(os.getpid(), signal.SIGKILL)


def store_class() -> Any:
    if is_shared:
        from tickwork.stores.postgres import PostgresStore

        return PostgresStore
    from tickwork.stores.sqlite import SQLiteStore

    return SQLiteStore


class KilledApp(App):
    """The app, on that store."""

    def _make_store(self) -> Store:
        armed = type("ArmedStore", (Armed, store_class()), {})
        made: Store = armed(
            self._target or Path(database),
            self._clock,
            worker=self._worker,
            max_queued=MAX_QUEUED,
            max_deaths=MAX_DEATHS,
        )
        return made


def in_hand() -> list[str]:
    return [] if app._dispatcher is None else list(app._dispatcher._runs)


def token(job_id: str) -> int:
    run = None if app._dispatcher is None else app._dispatcher._runs.get(job_id)
    return -1 if run is None else run.record.token


app = (App if role == "client" else KilledApp)(
    database if is_shared else f"sqlite:///{database}",
    workers=SLOTS,
    max_queued=MAX_QUEUED,
    max_deaths=MAX_DEATHS,
    role=role,  # type: ignore[arg-type]
)


@app.on_start
async def started() -> None:
    signal.signal(signal.SIGUSR1, bomb.arm)
    say("U", _me)


def seconds_of(number: int) -> float:
    """Most jobs take some milliseconds, every 40th longer than the store needs to hear that it has begun."""
    return 0.5 if number % 40 == 7 else (number * 7919 % 100) / 1000


@app.task(name="on the loop")
async def on_the_loop(ctx: Context, number: int) -> int:
    say("S", ctx.job_id, _me, time.time(), token(ctx.job_id))
    if bomb.reached("begun"):
        bomb.explode()
    await asyncio.sleep(seconds_of(number) / 2)
    if bomb.reached("in the middle"):
        bomb.explode()
    await asyncio.sleep(seconds_of(number) / 2)
    say("E", ctx.job_id, _me, time.time())
    return number


@app.task(name="in a thread")
def in_a_thread(ctx: Context, number: int) -> int:
    say("S", ctx.job_id, _me, time.time(), token(ctx.job_id))
    time.sleep(seconds_of(number))
    say("E", ctx.job_id, _me, time.time())
    return number


@app.task(name="fired")
async def fired(ctx: Context) -> None:
    assert ctx.fire_time is not None
    say("S", ctx.job_id, _me, time.time(), token(ctx.job_id))
    say("F", ctx.job_id, ctx.schedule, round(ctx.fire_time.timestamp() * 1_000_000))
    await asyncio.sleep(0.02)
    say("E", ctx.job_id, _me, time.time())


if is_shared:
    for number in range(3):
        app.every("500ms", name=f"all-{number}", overlap="allow", catch_up="all", max_catch_up=1_000)(fired)
    app.every("500ms", name="plain")(fired)


async def produce(first: int, count: int, at_once: int) -> None:
    await app.start()
    numbers = iter(range(first, first + count))

    async def enqueue() -> None:
        for number in numbers:
            say("Q", number)
            task = in_a_thread if number % 5 == 0 else on_the_loop
            key = f"number {number}" if is_shared and number % 3 == 0 else None
            try:
                job = await task.options(key=key).enqueue(number)
            except StoreUnavailable as error:
                say("D", number, type(error).__name__)
            else:
                say("A", number, job.id)

    await asyncio.gather(*(enqueue() for _ in range(at_once)))
    await app.stop()


if __name__ == "__main__":
    if role == "client":
        asyncio.run(produce(int(sys.argv[4]), int(sys.argv[5]), int(sys.argv[6])))
    else:
        sys.exit(app.run())
