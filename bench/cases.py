"""Twelve cases that schedulers get wrong: what tickwork and four peers do, in words.

    python bench/cases.py                   # a Markdown table; peers in environments of their own; about five minutes
    python bench/cases.py --no-peers        # tickwork's column only
    python bench/cases.py --only overlap drift

Every case runs in a process of its own, in real time, on the defaults of each library; where a default would decide
the case otherwise than by its mechanism, the adapter says so. A case is "right", or **bold** with what was seen, or
"-" where a library has no such thing. The status is 1 when tickwork is not right everywhere.
"""

import argparse
import asyncio
import concurrent.futures
import contextlib
import importlib.metadata
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dst
import peers

PROCESS_SECONDS = 60  # for one case; the longest takes 36 s
CAP_SECONDS = 31  # how long a moved clock may go unnoticed: half a minute is what tickwork promises
PROMPT = 0.25  # seconds within which a job that is due has begun, on a busy machine too

Job = Callable[[], Awaitable[None]]


class NotThere(Exception):
    """The library has no such thing."""


class MovedClock:
    """The wall clock as Python shows it, set forwards; monotonic clocks and timers go on as ever.

    What a library imports afterwards is a `datetime` with another `now`, and `time.time` is replaced.
    """

    def __init__(self) -> None:
        self.moved = 0.0
        real, read = datetime, time.time
        clock = self

        class Kind(type):
            def __instancecheck__(cls, value: object) -> bool:
                return isinstance(value, real)

        class Moved(real, metaclass=Kind):
            @classmethod
            def now(cls, tz: Any = None) -> Any:
                return real.now(tz) + timedelta(seconds=clock.moved)

        import datetime as module

        module.datetime = Moved  # type: ignore[misc]
        time.time = lambda: read() + clock.moved


# --- the contestants ------------------------------------------------------------------------------------------------


class Contestant:
    """What the cases ask of a library. What it does not have raises `NotThere`."""

    period = 0.2  # the shortest it can do, in seconds

    async def open(self) -> None: ...

    async def once(self, job: Job, seconds: float) -> None:
        """Run a job once, so many seconds from now."""
        raise NotThere

    async def every(self, job: Job, seconds: float, *, name: str = "job", jitter: float = 0.0) -> None:
        """Run a job every so often, the first time after one period."""
        raise NotThere

    async def breaking(self, job: Job, n: int) -> None:
        """Run a job by a trigger of the user's that gives each second, and raises at the nth call."""
        raise NotThere

    async def pause(self, name: str) -> None:
        raise NotThere

    async def waiting(self) -> int:
        """Return how many jobs are made and not begun."""
        return 0

    async def close(self) -> None:
        """Shut down, waiting for running jobs where that can be asked for."""

    def serve(self, job: Job, service: "Service") -> Any:
        """Return the service as an ASGI application, a job every `period` beside it, as the library's pages show."""
        raise NotThere


class Tickwork(Contestant):
    async def open(self) -> None:
        from tickwork import App, Context

        self.app = App()
        self.jobs: dict[str | None, Job] = {}

        @self.app.task(name="work")  # tasks are known before the start; schedules come and go
        async def work(ctx: Context) -> None:
            await self.jobs[ctx.schedule]()

        self.task: Any = work
        await self.app.start()

    async def add(self, job: Job, trigger: Any, name: str = "job", **policies: Any) -> None:
        self.jobs[name] = job
        await self.app.schedules.add(self.task, trigger, name=name, **policies)

    async def once(self, job: Job, seconds: float) -> None:
        from tickwork import At

        await self.add(job, At(datetime.now(UTC) + timedelta(seconds=seconds)))

    async def every(self, job: Job, seconds: float, *, name: str = "job", jitter: float = 0.0) -> None:
        from tickwork import Every

        await self.add(job, Every(seconds, anchor=datetime.now(UTC)), name, jitter=jitter)

    async def breaking(self, job: Job, n: int) -> None:
        from tickwork import Every, Trigger

        class Breaking(Trigger):
            calls = 0

            def next(self, after: datetime) -> datetime | None:
                self.calls += 1
                if self.calls == n:
                    raise ZeroDivisionError
                return Every(1).next(after)

            @property
            def fingerprint(self) -> str:
                return "breaking"

        await self.add(job, Breaking(), "breaking")

    async def pause(self, name: str) -> None:
        await self.app.schedules[name].pause()

    async def waiting(self) -> int:
        from tickwork import JobState

        counts = await self.app._store_now().counts()
        return counts[JobState.QUEUED] + counts[JobState.SCHEDULED]

    async def close(self) -> None:
        await self.app.stop()

    def serve(self, job: Job, service: "Service") -> Any:
        from tickwork import App

        app = App()
        app.every(self.period, name="job")(job)
        return service.with_lifespan(app.lifespan)


class APScheduler3(Contestant):
    async def open(self) -> None:
        from apscheduler.schedulers.asyncio import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
            AsyncIOScheduler,
        )

        self.scheduler: Any = AsyncIOScheduler(timezone="UTC")
        self.scheduler.start()

    async def once(self, job: Job, seconds: float) -> None:
        self.scheduler.add_job(job, "date", run_date=datetime.now(UTC) + timedelta(seconds=seconds))

    async def every(self, job: Job, seconds: float, *, name: str = "job", jitter: float = 0.0) -> None:
        self.scheduler.add_job(job, "interval", seconds=seconds, id=name, jitter=jitter or None)

    async def breaking(self, job: Job, n: int) -> None:
        from apscheduler.triggers.base import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
            BaseTrigger,
        )

        class Breaking(BaseTrigger):  # type: ignore[misc,unused-ignore]
            calls = 0

            def get_next_fire_time(self, previous: Any, now: datetime) -> datetime:
                self.calls += 1
                if self.calls == n:
                    raise ZeroDivisionError
                return (previous or now) + timedelta(seconds=1)

        self.scheduler.add_job(job, Breaking())

    async def pause(self, name: str) -> None:
        self.scheduler.pause_job(name)

    async def close(self) -> None:
        self.scheduler.shutdown(wait=True)

    def serve(self, job: Job, service: "Service") -> Any:
        @contextlib.asynccontextmanager
        async def lifespan(web: Any) -> AsyncIterator[dict[str, Any]]:
            await self.open()
            await self.every(job, self.period)
            yield {}
            await self.close()

        return service.with_lifespan(lifespan)


class APScheduler4(Contestant):
    async def open(self) -> None:
        from apscheduler import AsyncScheduler  # type: ignore[import-not-found,import-untyped,unused-ignore]

        self.scheduler: Any = AsyncScheduler()
        self.begun = 0
        await self.scheduler.__aenter__()
        await self.scheduler.start_in_background()

    async def add(self, job: Job, trigger: Any, **options: Any) -> None:
        name = f"task-{id(job)}"

        async def counted() -> None:
            self.begun += 1
            try:
                await job()
            finally:
                self.begun -= 1

        await self.scheduler.configure_task(name, func=counted)
        await self.scheduler.add_schedule(name, trigger, **options)

    async def once(self, job: Job, seconds: float) -> None:
        from apscheduler.triggers.date import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
            DateTrigger,
        )

        await self.add(job, DateTrigger(datetime.now(UTC) + timedelta(seconds=seconds)))

    async def every(self, job: Job, seconds: float, *, name: str = "job", jitter: float = 0.0) -> None:
        from apscheduler.triggers.interval import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
            IntervalTrigger,
        )

        micro = round(seconds * 1_000_000)
        trigger = IntervalTrigger(microseconds=micro, start_time=datetime.now(UTC) + timedelta(microseconds=micro))
        await self.add(job, trigger, id=name, max_jitter=jitter or None)

    async def breaking(self, job: Job, n: int) -> None:
        from apscheduler.abc import Trigger  # type: ignore[import-not-found,import-untyped,unused-ignore]

        class Breaking(Trigger):  # type: ignore[misc,unused-ignore]
            calls = 0

            def next(self) -> datetime:
                self.calls += 1
                if self.calls == n:
                    raise ZeroDivisionError
                return datetime.now(UTC) + timedelta(seconds=1)

            def __getstate__(self) -> Any:
                return {}

            def __setstate__(self, state: Any) -> None: ...

        await self.add(job, Breaking())

    async def pause(self, name: str) -> None:
        await self.scheduler.pause_schedule(name)

    async def waiting(self) -> int:
        return len(await self.scheduler.get_jobs()) - self.begun

    async def close(self) -> None:
        await self.scheduler.stop()
        await self.scheduler.wait_until_stopped()
        await self.scheduler.__aexit__(None, None, None)

    def serve(self, job: Job, service: "Service") -> Any:
        web = service.with_lifespan(nothing)

        async def middleware(scope: Any, receive: Any, send: Any) -> None:
            await self.open()
            await self.every(job, self.period)
            try:
                await web(scope, receive, send)
            finally:
                await self.close()

        return middleware


class Asyncz(Contestant):
    def make(self) -> Any:
        from asyncz.schedulers.asyncio import (  # type: ignore[import-not-found,unused-ignore]
            NativeAsyncIOScheduler,
        )

        return NativeAsyncIOScheduler(timezone="UTC")

    async def open(self) -> None:
        self.scheduler = self.make()
        await self.scheduler.start()

    async def once(self, job: Job, seconds: float) -> None:
        self.scheduler.add_task(job, "date", run_at=datetime.now(UTC) + timedelta(seconds=seconds))

    async def every(self, job: Job, seconds: float, *, name: str = "job", jitter: float = 0.0) -> None:
        self.add(job, seconds, name, jitter)

    def add(self, job: Job, seconds: float, name: str = "job", jitter: float = 0.0) -> None:
        self.scheduler.add_task(job, "interval", seconds=seconds, id=name, jitter=jitter or None)

    async def breaking(self, job: Job, n: int) -> None:
        from asyncz.triggers.base import BaseTrigger  # type: ignore[import-not-found,unused-ignore]

        class Breaking(BaseTrigger):  # type: ignore[misc,unused-ignore]
            alias = "breaking"

            def get_next_trigger_time(self, timezone: Any, previous_time: Any, now: Any = None) -> datetime:
                calls.append(now)
                if len(calls) == n:
                    raise ZeroDivisionError
                return (previous_time or now or datetime.now(UTC)) + timedelta(seconds=1)

        calls: list[Any] = []
        self.scheduler.add_task(job, Breaking())

    async def pause(self, name: str) -> None:
        self.scheduler.pause_task(name)

    async def close(self) -> None:
        await self.scheduler.shutdown(wait=True)

    def serve(self, job: Job, service: "Service") -> Any:
        self.scheduler = self.make()
        self.add(job, self.period)
        return self.scheduler.asgi(service.with_lifespan(nothing), wait=True)


class Aiocron(Contestant):
    period = 1.0  # whole seconds of the wall clock

    async def open(self) -> None:
        self.crons: list[Any] = []

    async def every(self, job: Job, seconds: float, *, name: str = "job", jitter: float = 0.0) -> None:
        from aiocron import Cron  # type: ignore[import-not-found,unused-ignore]

        if seconds != 1 or jitter:
            raise NotThere
        self.crons.append(Cron("* * * * * *", job, start=True, tz=UTC))

    async def once(self, job: Job, seconds: float) -> None:
        from aiocron import Cron

        if seconds < 3600:
            raise NotThere
        due = datetime.now(UTC) + timedelta(seconds=seconds)  # that minute of each day, which is once here
        self.crons.append(Cron(f"{due.minute} {due.hour} * * *", job, start=True, tz=UTC))

    async def close(self) -> None:
        for cron in self.crons:
            cron.stop()


@contextlib.asynccontextmanager
async def nothing(web: Any) -> AsyncIterator[dict[str, Any]]:
    yield {}


# --- the cases: each returns words ----------------------------------------------------------------------------------

RIGHT = "right"


def wrong(words: str) -> str:
    return f"**{words}**"


def of_dst(case: dst.Case) -> Callable[[str], str]:
    """Return a case that only asks for fire times, which `dst.py` knows how to do."""

    def told(key: str) -> str:
        ask = dst.CONTESTANTS["cronsim" if key == "aiocron" else key].ask
        return case.tell(case, [datetime.fromisoformat(at) for at in dst.answer(case, ask)])

    return told


def tell_weekday(case: dst.Case, fires: list[datetime]) -> str:
    days = sorted({f"{at:%A}" for at in fires})
    return RIGHT if days == ["Tuesday"] else wrong(", ".join(days) or "never")


MIDNIGHT = dst.Case(
    "", "0 0 * * *", dst.NEW_YORK, dst.utc("2026-03-06T12:00"), dst.utc("2026-03-11T12:00"), dst.tell_days
)
TUESDAY = dst.Case("", "0 18 * * 2", "UTC", dst.utc("2026-01-01T00:00"), dst.utc("2026-01-15T00:00"), tell_weekday)


class Starts:
    """A job that notes when it begins, and takes some time."""

    def __init__(self, takes: float = 0.0) -> None:
        self.takes = takes
        self.at: list[float] = []
        self.running = self.most = self.ended = self.cancelled = 0

    async def __call__(self) -> None:
        self.at.append(time.monotonic())
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if self.takes:
                await asyncio.sleep(self.takes)
            self.ended += 1
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    @property
    def job(self) -> Job:
        async def job() -> None:
            await self()

        return job


async def at_phase(phase: float) -> None:
    """Wait until the wall clock shows this part of a second: some contestants know whole seconds only."""
    await asyncio.sleep((phase - time.time()) % 1.0)


async def dropped_one_off(it: Contestant) -> str:
    starts = Starts()
    await it.once(starts.job, 1)
    await asyncio.sleep(0.5)
    time.sleep(1.8)
    await asyncio.sleep(2)
    return RIGHT if len(starts.at) == 1 else wrong("never runs" if not starts.at else f"runs {len(starts.at)} times")


async def raising_trigger(it: Contestant) -> str:
    found = []
    for n in (2, 3):  # the first call is that of the declaration
        other = type(it)()
        await other.open()
        healthy, bad = Starts(), Starts()
        await other.breaking(bad.job, n)
        await other.every(healthy.job, 1, name="healthy")
        started = time.monotonic()
        try:
            await asyncio.sleep(6.5)
        except asyncio.CancelledError:  # by its task group, which is around this
            return wrong("the scheduler ends, and cancels the program around it")
        found.append(sum(at > started + n for at in healthy.at))  # when it has raised 4 are due, or 5
    return RIGHT if min(found) >= 3 else wrong(f"another one runs {min(found)} times in 4 s")


async def clock_jump(it: Contestant, clock: MovedClock) -> str:
    starts = Starts()
    await it.once(starts.job, 3600)
    await asyncio.sleep(1)
    clock.moved = 3700.0
    started = time.monotonic()
    while not starts.at and time.monotonic() < started + CAP_SECONDS:
        await asyncio.sleep(0.1)
    return RIGHT if starts.at else wrong(f"not run {CAP_SECONDS} s later")


async def jitter(it: Contestant) -> str:
    period, most, starts = 2, 1, Starts()  # whole seconds, because asyncz takes no others
    added = time.monotonic()
    await it.every(starts.job, period, jitter=most)
    await asyncio.sleep(8.5 * period)
    behind = [at - added - period * number for number, at in enumerate(starts.at, 1)]
    if len(behind) < 5:
        return wrong(f"{len(behind)} runs in {8 * period} s")
    if max(behind) < 0.1:
        return wrong("begins without it")
    if max(behind) > most + PROMPT:
        return wrong(f"adds up: {max(behind):.1f} s behind after {len(behind)} runs, {most} s at most is wanted")
    return RIGHT


async def overlap(it: Contestant) -> str:
    period = 0.3 if it.period < 1 else 1.0
    starts, waiting = Starts(takes=4 * period), 0
    await it.every(starts.job, period)
    ends = time.monotonic() + 13 * period
    while time.monotonic() < ends:
        await asyncio.sleep(period / 4)
        waiting = max(waiting, await it.waiting())
    found = [f"{starts.most} at the same time"] * (starts.most > 1) + [f"{waiting} waiting"] * (waiting > 1)
    return wrong(", ".join(found)) if found else RIGHT if starts.at else wrong("never runs")


async def burst(it: Contestant) -> str:
    starts = Starts()
    await at_phase(0.95)
    await it.every(starts.job, 1)  # due at about a full second, whoever asks
    await asyncio.sleep(1.4)
    time.sleep(3.3)  # over at about .65: three or four are due
    over = time.monotonic()
    await asyncio.sleep(0.2)
    found = sum(at >= over for at in starts.at)
    return RIGHT if found == 1 else wrong(f"{found} at once" if found else "none runs")


async def paused_and_overdue(it: Contestant) -> str:
    starts = Starts()
    await it.every(starts.job, 1)
    await asyncio.sleep(1.3)
    await it.pause("job")
    await asyncio.sleep(1.2)
    cpu, started = time.process_time(), time.monotonic()
    await asyncio.sleep(2)
    busy = (time.process_time() - cpu) / (time.monotonic() - started) * 100
    return RIGHT if busy < 5 else wrong(f"{busy:.0f} % of a core")


async def shutdown(it: Contestant) -> str:
    starts = Starts(takes=1.5)
    await it.every(starts.job, 1)
    while not starts.at:
        await asyncio.sleep(0.05)
    await it.close()
    ended, cancelled = starts.ended, starts.cancelled
    await asyncio.sleep(0.1)
    if ended and not starts.cancelled:
        return RIGHT
    return wrong("cancels the job" if cancelled or starts.cancelled else "does not wait for the job")


async def drift(it: Contestant) -> str:
    starts, count = Starts(takes=0.02), 20 if it.period < 1 else 6
    await it.every(starts.job, it.period)
    await asyncio.sleep((count + 1.5) * it.period)
    late = [at - starts.at[0] - number * it.period for number, at in enumerate(starts.at)]
    if len(late) < count:
        return wrong(f"{len(late)} runs instead of {count}")
    found = min(late[-5:], key=abs) * 1000  # a start in time, among others that a busy machine made late: no drift
    return RIGHT if abs(found) < 15 else wrong(f"{found:.0f} ms after {len(late)} runs")


class Service:
    """An ASGI application whose lifespan yields state, and takes a moment to open and to close what jobs need."""

    def __init__(self, moment: float) -> None:
        self.moment = moment
        self.is_open = False

    def with_lifespan(self, inner: Callable[[Any], Any]) -> Any:
        @contextlib.asynccontextmanager
        async def lifespan() -> AsyncIterator[dict[str, Any]]:
            await asyncio.sleep(self.moment)
            self.is_open = True
            async with inner(None) as state:
                yield {**state, "pool": "of the service"}
            self.is_open = False
            await asyncio.sleep(self.moment)

        async def web(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            async with lifespan() as state:  # what Starlette does
                scope["state"].update(state)
                await send({"type": "lifespan.startup.complete"})
                await receive()
            await send({"type": "lifespan.shutdown.complete"})

        return web


async def lifespan(it: Contestant) -> str:
    service = Service(moment=3 * it.period)
    without = 0

    async def job() -> None:
        nonlocal without
        without += not service.is_open

    application = it.serve(job, service)
    to_app: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    told: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    scope: dict[str, Any] = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    serving = asyncio.ensure_future(application(scope, to_app.get, told.put))
    for kind in ("startup", "shutdown"):
        await to_app.put({"type": f"lifespan.{kind}"})
        answer = await asyncio.wait_for(told.get(), 20)
        if answer["type"] != f"lifespan.{kind}.complete":
            return wrong(f"{kind} failed")
        if kind == "startup":
            kept = scope["state"].get("pool") == "of the service"
            before = without
            await asyncio.sleep(2 * it.period)
    await serving
    found = ["the state is lost"] * (not kept) + [f"{before} runs before it is ready"] * (before > 0)
    found += [f"{without - before} after its end"] * (without > before)
    return wrong(", ".join(found)) if found else RIGHT


@dataclass(frozen=True)
class Case:
    """A case.

    Attributes:
        title: The head of its row.
        run: Asked with a contestant that is open.
        told: Asked with the contestant's key instead, where fire times are all that matters.
        opens: Whether the contestant is opened before it.
    """

    title: str
    run: Callable[..., Awaitable[str]] | None = None
    told: Callable[[str], str] | None = None
    opens: bool = True


CASES = {
    "lost-day": Case("daily at midnight, New York, around 8 March 2026", told=of_dst(MIDNIGHT)),
    "weekday": Case("`0 18 * * 2` is a Tuesday", told=of_dst(TUESDAY)),
    "one-off": Case("a single run falls due while the loop is blocked: it runs late", dropped_one_off),
    "burst": Case("1 s period, the loop blocked for 3.3 s: one run catches up", burst),
    "clock-jump": Case("the clock is set past a run an hour away: it runs within half a minute", clock_jump),
    "raising": Case("a trigger raises: the other schedules go on", raising_trigger, opens=False),
    "paused": Case("a paused schedule is overdue: no work for the processor", paused_and_overdue),
    "overlap": Case("a job takes four periods: none piles up", overlap),
    "jitter": Case("jitter puts a start off, and each from its own fire time", jitter),
    "drift": Case("a job takes a while: its schedule does not drift", drift),
    "shutdown": Case("a coroutine runs at shutdown: it ends", shutdown),
    "lifespan": Case("in a web service: state is kept, no job without the service's resources", lifespan, opens=False),
}


# --- running them, in processes of their own ------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    name: str
    make: Callable[[], Contestant]
    distribution: str
    is_peer: bool = True


CONTESTANTS = {
    "tickwork": Entry("tickwork", Tickwork, "tickwork", is_peer=False),
    "apscheduler3": Entry("APScheduler", APScheduler3, "apscheduler"),
    "apscheduler4": Entry("APScheduler", APScheduler4, "apscheduler"),
    "asyncz": Entry("asyncz", Asyncz, "asyncz"),
    "aiocron": Entry("aiocron", Aiocron, "aiocron"),
}


async def run_case(key: str, case: Case) -> None:
    assert case.run is not None
    arguments: list[Any] = [CONTESTANTS[key].make()]
    if case.run is clock_jump:
        arguments.append(MovedClock())
        globals()["datetime"] = sys.modules["datetime"].datetime  # the adapters say when something is due
    try:
        if case.opens:
            await arguments[0].open()
        words = await case.run(*arguments)
    except NotThere:
        words = "-"
    tell(key, words)
    os._exit(0)  # how a library ends is one of the cases, and no part of the others


def tell(key: str, words: str) -> None:
    version = importlib.metadata.version(CONTESTANTS[key].distribution)
    print(json.dumps({"version": version, "words": words}), flush=True)


def child(key: str, name: str) -> None:
    logging.disable(logging.CRITICAL)
    case = CASES[name]
    if case.told is not None:
        tell(key, case.told(key))
    else:
        asyncio.run(run_case(key, case))


def fetch(key: str, name: str) -> dict[str, str]:
    """Run a case in a process of its own and return its words, and the version that said them."""
    python = Path(sys.executable)
    if CONTESTANTS[key].is_peer:
        made = peers.environment(key)
        if isinstance(made, peers.Missing):
            return {"words": f"not measured: {made.reason}"}
        python = made.python
    command = [str(python), __file__, "--child", key, name]
    environment = {**os.environ, "TZ": "UTC"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=PROCESS_SECONDS, env=environment
        )
    except subprocess.TimeoutExpired:
        return {"words": wrong(f"no end in {PROCESS_SECONDS} s")}
    if done.returncode != 0 or not done.stdout.strip():
        return {"words": f"not measured: {peers.last_line(done.stderr)}"}
    told: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return told


def fetch_all(keys: list[str], names: list[str]) -> dict[tuple[str, str], dict[str, str]]:
    """Run all cases, one after the other; those that only wait for half a minute meanwhile, beside them."""
    for key in keys:
        if CONTESTANTS[key].is_peer:
            peers.environment(key)  # made now, so that no case has an installation beside it
    pairs = [(key, name) for name in names for key in keys]
    beside = [pair for pair in pairs if pair[1] == "clock-jump"]
    with concurrent.futures.ThreadPoolExecutor(max_workers=len(keys)) as pool:
        waiting = {pair: pool.submit(fetch, *pair) for pair in beside}
        found = {pair: fetch(*pair) for pair in pairs if pair not in waiting}
        return found | {pair: future.result() for pair, future in waiting.items()}


def line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child)
        return 0

    keys = [key for key, entry in CONTESTANTS.items() if not (entry.is_peer and options.no_peers)]
    found = fetch_all(keys, options.only)
    heads = []
    for key in keys:
        versions = [told["version"] for name in options.only if "version" in (told := found[key, name])]
        heads.append(f"{CONTESTANTS[key].name} {versions[0]}" if versions and CONTESTANTS[key].is_peer else key)
    print(line(["", *heads]))
    print("|---" * (len(keys) + 1) + "|")
    for name in options.only:
        print(line([CASES[name].title, *(found[key, name]["words"] for key in keys)]))
    return int(any(found["tickwork", name]["words"] != RIGHT for name in options.only))


if __name__ == "__main__":
    sys.exit(main())
