"""Every fire time is answered exactly once, whatever happens: random schedules and disturbances against an oracle.

The machine drives a real app on virtual time. Its oracle walks the triggers one fire time after the other, from the
instant at which each schedule was added, and knows nothing of watermarks, heaps or bisection. All that is random is
drawn by hypothesis, so the steps that it prints for a failure are the whole of it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tickwork import App, At, Context, Cron, Every, JobState, Trigger
from tickwork.stores.memory import MemoryStore
from tickwork.testing import virtual_loop_factory

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Iterator, Sequence

    from tickwork.policies import Policies
    from tickwork.schedules import Schedule
    from tickwork.stores.base import Answer, Fired, Firing, ScheduleChange, ScheduleRow, Store

MICROSECOND = timedelta(microseconds=1)
PROMPT = timedelta(seconds=1)
LONG_AGO = datetime(1, 1, 1, tzinfo=UTC)
UNCOUNTED = 1_000
"""More fire times than this in one row are not counted, unless they are those of an `Every`."""


# --- what is drawn -------------------------------------------------------------------------------------------------


class Fragile(Trigger):
    """Another trigger that raises while it is told to."""

    def __init__(self, inner: Trigger) -> None:
        self.inner = inner
        self.error: BaseException | None = None

    def __repr__(self) -> str:
        return f"Fragile({self.inner!r})"

    def next(self, after: datetime) -> datetime | None:
        if self.error is not None:
            raise self.error
        return self.inner.next(after)

    @property
    def fingerprint(self) -> str:
        return f"fragile {self.inner.fingerprint}"


@dataclass(frozen=True)
class Run:
    """What a job does: it sleeps, then returns or raises; a stubborn one takes some seconds to be cancelled."""

    seconds: float
    fails: bool = False
    is_stubborn: bool = False


@dataclass(frozen=True)
class Plan:
    """A schedule to be, and what its jobs do, in turn."""

    trigger: Fragile | Every
    settings: dict[str, Any]
    runs: tuple[Run, ...]


CHANGES = {
    "Europe/Berlin": ("2026-03-29T00:20Z", "2026-10-25T00:20Z"),
    "America/New_York": ("2026-03-08T06:30Z", "2026-11-01T05:10Z"),
    "Australia/Lord_Howe": ("2026-10-03T15:10Z", "2026-04-04T14:40Z"),
    "Africa/Cairo": ("2026-04-23T21:40Z", "2026-10-29T20:30Z"),
}
"""Zones, and instants shortly before their clocks change."""

STARTS = [datetime.fromisoformat(text) for texts in CHANGES.values() for text in texts]
EXPRESSIONS = ["* * * * *", "*/7 * * * *", "30 2 * * *", "0 * * * *", "15,45 1-3 * * *", "*/20 */2 * * *"]
PERIODS = ["7s", "10s", "13.37s", "29.999999s", "1m", "97s", "10m", "3601s"]
MOVES = st.sampled_from(["advance", "suspend", "jump_back"])
SPANS = [0.0, 0.4, 1.0, 3.0, 9.999, 10.0, 30.0, 61.0, 300.0, 1800.0, 3600.0, 7200.0]


def spans(most: float = 7200.0) -> st.SearchStrategy[float]:
    return st.one_of(
        st.sampled_from([span for span in SPANS if span <= most]),
        st.floats(0.0, min(most, 900.0)).map(lambda span: round(span, 3)),
    )


def everys() -> st.SearchStrategy[Every]:
    return st.sampled_from(PERIODS).map(Every)


def crons() -> st.SearchStrategy[Cron]:
    return st.builds(
        lambda expression, zone, dst: Cron(expression, timezone=zone, dst=dst),
        st.sampled_from(EXPRESSIONS),
        st.sampled_from(list(CHANGES)),
        st.sampled_from(["cron", "skip", "both"]),
    )


def ats(start: datetime) -> st.SearchStrategy[At]:
    return spans().map(lambda span: At(start + timedelta(seconds=span)))


def triggers(start: datetime) -> st.SearchStrategy[Trigger]:
    plain = st.one_of(everys(), crons(), everys(), ats(start))
    return st.one_of(
        plain,
        st.builds(lambda one, other: one | other, everys(), st.one_of(crons(), ats(start))),
        st.builds(lambda one, other: one.exclude(other), everys(), crons()),
    )


def jobs() -> st.SearchStrategy[tuple[Run, ...]]:
    times = st.sampled_from([0.0, 0.5, 3.0, 12.0, 25.0, 70.0, 400.0])
    return st.lists(st.builds(Run, times, st.booleans(), st.booleans()), min_size=1, max_size=3).map(tuple)


@st.composite
def plans(draw: st.DrawFn, start: datetime) -> Plan:
    chosen: dict[str, Any] = {}
    is_after_end = draw(st.integers(0, 3)) == 0
    if is_after_end:
        chosen["after"] = "end"
    else:
        chosen["overlap"] = draw(st.sampled_from(["skip", "queue", "replace", "allow"]))
        modes = ["latest", "none"] if chosen["overlap"] != "allow" else ["all", "latest", "none"]
        chosen["catch_up"] = draw(st.sampled_from(modes))
        if chosen["catch_up"] == "all":
            chosen["max_catch_up"] = draw(st.sampled_from([1, 3, 100]))
    if draw(st.booleans()):
        chosen["grace"] = draw(st.sampled_from([0, 0.5, 5.0, 60.0, 1200.0]))
    if draw(st.booleans()):
        chosen["jitter"] = draw(st.sampled_from([0.001, 2.0, 30.0, 5000.0]))
    if draw(st.booleans()):
        chosen["first"] = "now"
    elif draw(st.integers(0, 3)) == 0:
        chosen["start_at"] = start + timedelta(seconds=draw(spans()))
    if draw(st.integers(0, 3)) == 0:
        early = 0 if "start_at" in chosen else draw(st.sampled_from([0, 0, 3600]))
        chosen["end_at"] = chosen.get("start_at", start) + timedelta(seconds=draw(spans()) - early)
    if draw(st.integers(0, 2)) == 0:
        chosen["max_runs"] = draw(st.integers(1, 3))
    trigger = draw(everys()) if is_after_end else Fragile(draw(triggers(start)))
    return Plan(trigger, chosen, draw(jobs()))


# --- a store that can be out of order, and that looks at what it is asked ------------------------------------------


VERBS = ("fire", "claim", "finish", "set_schedule", "schedules")


class WatchedStore(MemoryStore):
    """A memory store that raises while it is told to, and that remembers what must not be."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.error: BaseException | None = None
        self.verbs: tuple[str, ...] = VERBS
        self.violations: list[str] = []
        self.peak = self._clock.now()
        self.made: dict[str, list[str]] = {}
        """The ids of all jobs of a schedule, in their order."""

    def _check(self, verb: str) -> None:
        if self.error is not None and verb in self.verbs:
            raise self.error

    async def fire(self, firings: Sequence[Firing]) -> list[Fired]:
        self._check("fire")
        answers = await super().fire(firings)
        for firing, answer in zip(firings, answers, strict=True):
            if answer.job is not None:
                self.made.setdefault(firing.schedule, []).append(answer.job.id)
        return answers

    async def claim(self, **asked: Any) -> list[Any]:
        self._check("claim")
        claimed = await super().claim(**asked)
        now = self._clock.now()
        self.peak = max(self.peak, now)
        for job in claimed:
            if job.state is not JobState.RUNNING:
                continue
            if job.run_at > self.peak:  # its time had come, even if the clock has been set back since
                self.violations.append(f"job {job.id} was claimed before its time")
            if job.start_by is not None and job.start_by < now:
                self.violations.append(f"job {job.id} was claimed after its grace")
        return claimed

    async def finish(self, finishes: Sequence[Any]) -> list[bool]:
        self._check("finish")
        return await super().finish(finishes)

    async def set_schedule(self, changes: Sequence[ScheduleChange]) -> list[ScheduleRow | None]:
        self._check("set_schedule")
        return await super().set_schedule(changes)

    async def schedules(self, names: Collection[str] | None = None) -> list[ScheduleRow]:
        self._check("schedules")
        return await super().schedules(names)


PARTS = st.one_of(st.just(VERBS), st.sampled_from(VERBS).map(lambda verb: (verb,)))
"""What of a store is out of order: all of it, or one verb."""


class WatchedApp(App):
    store: WatchedStore

    def _make_store(self) -> Store:
        self.store = WatchedStore(self._clock, keep=1_000_000)
        return self.store


# --- what the oracle knows of a schedule ---------------------------------------------------------------------------


@dataclass
class Known:
    """A schedule, and what should have become of its fire times."""

    name: str
    plan: Plan
    schedule: Schedule
    added_at: datetime
    seen: datetime
    """The latest wall time at which the scheduler was well and looked: all up to it is answered."""
    peak: datetime = LONG_AGO
    """The latest wall time of all since it was added."""
    walked: list[datetime] = field(default_factory=list)
    """The fire times since it was added, as far as they were needed."""
    walk: Iterator[datetime] | None = None
    ahead: datetime | None = None
    paused_after: datetime = LONG_AGO
    """The last fire time that was answered when it was paused."""
    pauses: list[tuple[datetime, datetime]] = field(default_factory=list)
    """After which fire time and until when it was paused."""
    is_paused: bool = False
    turns: list[datetime] = field(default_factory=list)
    """For after="end": what a period may count from, other than the end of a job."""

    @property
    def policies(self) -> Policies:
        return self.schedule.policies

    def times_until(self, end: datetime) -> list[datetime]:
        """Return all fire times up to an instant."""
        if self.walk is None:
            self.walk = self._walk()
            self.ahead = next(self.walk, None)
        while self.ahead is not None and self.ahead <= end:
            self.walked.append(self.ahead)
            self.ahead = next(self.walk, None)
        return [at for at in self.walked if at <= end]

    def _walk(self) -> Iterator[datetime]:
        trigger = self.plan.trigger.inner if isinstance(self.plan.trigger, Fragile) else self.plan.trigger
        start, end = self.policies.start_at, self.policies.end_at
        if self.policies.first == "now" and (end is None or self.added_at <= end):
            yield self.added_at
        at = trigger.next(self.added_at)
        while at is not None and (end is None or at <= end):
            if start is None or at >= start:
                yield at
            at = trigger.next(at)


def window(history: list[Answer]) -> list[tuple[str, str, str, int | None, str]]:
    """Return rows as they read well in a failure."""
    return [
        (row.outcome, f"{row.first:%H:%M:%S.%f}", f"{row.last:%H:%M:%S.%f}", row.count, row.decided_by)
        for row in history[-5:]
    ]


# --- the machine ---------------------------------------------------------------------------------------------------


class FireTimes(RuleBasedStateMachine):
    """An app, its schedules, and everything that may happen to them."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=virtual_loop_factory, debug=False)
        self.runner.get_loop()
        self.known: dict[str, Known] = {}
        self.all_plans: dict[str, Plan] = {}
        self.names = itertools.count(1)
        self.begun: Counter[str] = Counter()
        self.running: Counter[str] = Counter()
        self.violations: list[str] = []
        self.is_open = False

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    def on_loop(self, change: Callable[[float], None], span: float) -> None:
        async def call() -> None:
            change(span)

        self.do(call())

    @initialize(
        start=st.sampled_from(STARTS),
        seed=st.integers(0, 99),
        workers=st.sampled_from([20, 20, 3, 1]),
        data=st.data(),
    )
    def begin(self, start: datetime, seed: int, workers: int, data: st.DataObject) -> None:
        self.app = WatchedApp(workers=workers)
        self.app._random = Random(seed)
        self.task = self.app.task(name="work")(self.work)
        self.t = self.app.testing(start, raise_errors=False)
        self.do(self.t.__aenter__())
        self.is_open = True
        for plan in data.draw(st.lists(plans(start), min_size=1, max_size=3), label="plans"):
            self._add(plan)

    async def work(self, ctx: Context) -> None:
        name, now = ctx.schedule or "", self.t.clock.now()
        run = self.plan_of(name).runs[self.begun[name] % len(self.plan_of(name).runs)]
        self.begun[name] += 1
        self.begun[ctx.job_id] += 1
        self.running[name] += 1
        overlap = self.plan_of(name).settings.get("overlap")
        if self.running[name] > 1 and overlap != "allow":
            self.violations.append(f"{self.running[name]} jobs of {name} run at {now}")
        try:
            await asyncio.sleep(run.seconds)
            if run.fails:
                raise ValueError("as planned")
        except asyncio.CancelledError:
            if run.is_stubborn:
                await asyncio.sleep(2)
            raise
        finally:
            self.running[name] -= 1

    def plan_of(self, name: str) -> Plan:
        return self.all_plans[name]

    @property
    def broken(self) -> list[str]:
        return [known.name for known in self.known.values() if getattr(known.plan.trigger, "error", None) is not None]

    @property
    def now(self) -> datetime:
        return self.t.clock.now()

    @property
    def is_well(self) -> bool:
        return self.app.store.error is None

    def settle(self) -> None:
        self.do(self.t.advance(0))
        self.app.store.peak = max(self.app.store.peak, self.now)

    # -- schedules ------------------------------------------------------------------------------------------------

    def _add(self, plan: Plan) -> None:
        name = f"s{next(self.names)}"
        self.all_plans[name] = plan

        async def add() -> None:
            now = self.now
            try:
                schedule = await self.app.schedules.add(self.task, plan.trigger, name=name, **plan.settings)
            except OSError:
                assert not self.is_well
                assert name not in self.app.schedules
                return
            known = self.known[name] = Known(name, plan, schedule, now, now)
            known.turns.append(now)

        self.do(add())

    @precondition(lambda self: len(self.known) < 4)
    @rule(data=st.data())
    def add(self, data: st.DataObject) -> None:
        self._add(data.draw(plans(self.now), label="plan"))

    def _pick(self, data: st.DataObject) -> Known:
        return self.known[data.draw(st.sampled_from(sorted(self.known)), label="schedule")]

    @precondition(lambda self: len(self.known) > 2 and self.is_well)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        known = self._pick(data)
        self.do(self.app.schedules.remove(known.name))
        del self.known[known.name]

    @rule(data=st.data())
    def pause(self, data: st.DataObject) -> None:
        self._pause(self._pick(data))

    def _pause(self, known: Known) -> None:
        try:
            self.do(known.schedule.pause())
        except OSError:
            assert not self.is_well
            return
        if not known.is_paused:
            known.is_paused = True
            rows = self.recorded(known)
            known.paused_after = rows[-1].last if rows else known.added_at - MICROSECOND

    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        self._resume(self._pick(data))

    def _resume(self, known: Known) -> None:
        is_broken = known.name in self.broken and not self.is_finished(known)  # a finished one asks its trigger no more
        now = self.now
        try:
            self.do(known.schedule.resume())
        except OSError:
            assert not self.is_well
            return
        if is_broken:
            assert known.schedule.error is not None
            assert known.schedule.is_paused == known.is_paused
        elif known.is_paused:
            known.is_paused = False
            assert not known.schedule.is_paused
            known.seen = max(known.seen, now)
            known.pauses.append((known.paused_after, known.seen))
            known.turns.append(now)

    @rule(data=st.data(), span=spans(most=300.0).filter(bool), moves=MOVES)
    def pause_a_while(self, data: st.DataObject, span: float, moves: str) -> None:
        known = self._pick(data)
        self._pause(known)
        getattr(self, moves)(span)
        self.settle()
        self._resume(known)

    @rule(data=st.data())
    def run_now(self, data: st.DataObject) -> None:
        known = self._pick(data)
        try:
            self.do(known.schedule.run_now())
        except OSError:
            assert not self.is_well

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        known = self._pick(data)
        self._cancel(known, data.draw(st.integers(0, 4), label="which of the unfinished"))

    def _cancel(self, known: Known, number: int) -> None:
        unfinished = self.unfinished(known.name)
        if not unfinished:
            return
        job_id = unfinished[number % len(unfinished)].id

        async def cancel() -> None:
            await (await self.app.job(job_id)).cancel()

        self.do(cancel())

    @precondition(lambda self: any(known.policies.after == "end" for known in self.known.values()))
    @rule()
    def cancel_what_others_count_from(self) -> None:
        for known in self.known.values():
            if known.policies.after == "end":
                self._cancel(known, 0)

    @rule(data=st.data(), error=st.sampled_from([ZeroDivisionError(), SystemExit(1), asyncio.CancelledError()]))
    def break_trigger(self, data: st.DataObject, error: BaseException) -> None:
        known = self._pick(data)
        if isinstance(known.plan.trigger, Fragile):
            known.plan.trigger.error = error

    @precondition(lambda self: self.is_well and self.broken)
    @rule(data=st.data(), resumes=st.booleans())
    def mend_trigger(self, data: st.DataObject, resumes: bool) -> None:
        known = self.known[data.draw(st.sampled_from(self.broken), label="schedule")]
        assert isinstance(known.plan.trigger, Fragile)
        known.plan.trigger.error = None
        if resumes and not known.is_paused:
            self.do(known.schedule.resume())
            assert known.schedule.error is None

    # -- time -----------------------------------------------------------------------------------------------------

    @rule(span=spans())
    def advance(self, span: float) -> None:
        self.do(self.t.advance(span))

    @rule(span=spans(most=300.0))
    def advance_a_little(self, span: float) -> None:
        self.do(self.t.advance(span))

    @rule(span=st.sampled_from([10.0, 60.0, 120.0]))
    def advance_some_periods(self, span: float) -> None:
        self.do(self.t.advance(span))

    @rule(span=spans().filter(bool))
    def block(self, span: float) -> None:
        self.on_loop(self.t.clock.block, span)

    @rule(span=spans().filter(bool))
    def suspend(self, span: float) -> None:
        self.on_loop(self.t.clock.suspend, span)

    @rule(span=spans().filter(bool))
    def jump_forwards(self, span: float) -> None:
        self.on_loop(self.t.clock.jump_wall, span)

    @rule(span=spans().filter(bool))
    def jump_back(self, span: float) -> None:
        self.on_loop(self.t.clock.jump_wall, -span)

    # -- the store ------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.is_well)
    @rule(verbs=PARTS)
    def break_store(self, verbs: tuple[str, ...]) -> None:
        self.app.store.verbs, self.app.store.error = verbs, OSError("the disk is full")

    @precondition(lambda self: self.is_well)
    @rule(span=spans(most=300.0).filter(bool), moves=MOVES, verbs=PARTS)
    def break_store_a_while(self, span: float, moves: str, verbs: tuple[str, ...]) -> None:
        self.break_store(verbs)
        getattr(self, moves)(span)
        self.settle()
        self.mend()

    @precondition(lambda self: not self.is_well)
    @rule()
    def mend_store(self) -> None:
        self.mend()

    @precondition(lambda self: not self.is_well)
    @rule()
    def mend_store_soon(self) -> None:
        self.mend()

    def mend(self) -> None:
        self.app.store.error = None
        self.do(self.t.advance(1))

    # -- what must hold ---------------------------------------------------------------------------------------------

    def unfinished(self, name: str) -> list[Any]:
        store = self.app.store
        made = [store._jobs[job_id] for job_id in store.made.get(name, ())]
        return [job for job in made if not job.state.is_finished]

    def history(self, known: Known) -> list[Answer]:
        async def read() -> list[Answer]:
            error, self.app.store.error = self.app.store.error, None
            try:
                return (await known.schedule.history(limit=1_000_000))[::-1]
            finally:
                self.app.store.error = error

        return self.do(read())  # type: ignore[no-any-return]

    def recorded(self, known: Known) -> list[Answer]:
        return list(self.app.store._ledger.get(known.name, ()))

    @invariant()
    def all_is_answered(self) -> None:
        if not self.is_open:
            return
        self.settle()
        assert not self.violations, self.violations
        assert not self.app.store.violations, self.app.store.violations
        assert self.app._failed is not None
        assert not self.app._failed.done()
        assert not self.is_well or self.do(self.app.health()).store_error is None
        for known in self.known.values():
            self.check(known)

    def check(self, known: Known) -> None:
        history = self.history(known)
        note(f"{known.name} {known.plan.trigger!r}: {window(history)}")
        self.check_jobs(known, history)
        if known.policies.after == "end":
            self.check_after_end(known, history)
        else:
            self.check_fire_times(known, history)
        self.check_policies(known, self.recorded(known))

    def check_fire_times(self, known: Known, history: list[Answer]) -> None:
        """Each fire time in exactly one row, in order, with the right counts."""
        is_finished = self.is_finished(known)
        is_broken = known.schedule.error is not None or getattr(known.plan.trigger, "error", None) is not None
        if self.is_well and not known.is_paused and not is_broken:
            known.seen = max(known.seen, self.now)
        if recorded := self.recorded(known):
            known.seen = max(known.seen, recorded[-1].last)  # a store that is out of order may answer all the same
        known.peak = max(known.peak, self.now)
        until = max(known.seen, self.now)
        times = known.times_until(known.peak)
        place = 0
        for row in history:
            assert place < len(times), f"{row.outcome} {row.first} is no fire time"
            assert row.first == times[place], f"{row.outcome} {row.first}, where {times[place]} comes next"
            end = place + row.count if row.count is not None else times.index(row.last) + 1
            if row.count is None:
                assert end - place > UNCOUNTED
            assert 0 < end <= len(times), f"{row} counts too many"
            assert row.last == times[end - 1], f"{row} counts {row.count}"
            place = end
        for after, last in [*known.pauses, *([(known.paused_after, until)] if known.is_paused else [])]:
            inside = times[bisect_right(times, after) : bisect_right(times, last)]
            for row in history:
                if row.outcome != "paused" and inside:
                    assert row.last < inside[0] or row.first > inside[-1], f"{row} in a pause"
        if not is_finished and not is_broken and (self.is_well or known.is_paused):
            expected = len(known.times_until(until if known.is_paused else known.seen))
            assert place == expected, f"{times[place:][:3]} of {known.name} is not answered"

    def is_finished(self, known: Known) -> bool:
        most = known.policies.max_runs
        return most is not None and sum(row.job_id is not None for row in self.recorded(known)) >= most

    def check_jobs(self, known: Known, history: list[Answer]) -> None:
        """The rows and the jobs tell the same."""
        jobs = self.app.store._jobs
        made = self.app.store.made.get(known.name, [])
        rows = [row for row in history if row.job_id is not None]
        assert [row.job_id for row in rows] == [job_id for job_id in made if jobs[job_id].fire_time is not None]
        for row in history:
            assert (row.first == row.last) == (row.count == 1)
            assert row.outcome in ("missed", "paused") or row.count == 1
            assert (row.job_id is not None) == (row.outcome in ("ran", "not_started")) or row.outcome == "missed"
            assert (row.blocked_by is not None) == (row.outcome in ("skipped", "merged"))
            assert row.blocked_by is None or row.blocked_by in made
            if row.job_id is None:
                continue
            job = jobs[row.job_id]
            assert job.schedule == known.name
            assert job.fire_time == row.first
            assert job.run_at == row.wanted_at
            assert row.first <= job.run_at <= row.first + timedelta(seconds=known.policies.jitter)
            assert (row.state, row.finished_at) == ((job.state, job.finished_at) if job.finished_at else (None, None))
            if job.state.is_finished:
                assert row.started_at == job.started_at
                assert (row.outcome == "ran") == bool(self.begun[job.id]), f"{row}, begun: {self.begun[job.id]}"
                assert (row.started_at is not None) == bool(self.begun[job.id])
            assert self.begun[job.id] <= 1
        row_ = self.app.store._schedules[known.name]
        assert row_.runs == len(rows)
        unfinished = self.unfinished(known.name)
        is_free = self.is_well and not self.app._engine.are_busy  # type: ignore[union-attr]
        if is_free and unfinished and all(job.state is not JobState.RUNNING for job in unfinished):
            assert all(job.run_at > self.now for job in unfinished), "nothing runs, and what waits does not begin"

    def check_after_end(self, known: Known, history: list[Answer]) -> None:
        """Each fire time one period after something from which a period counts; never two unfinished jobs."""
        period = timedelta(seconds=known.plan.trigger.period_seconds)  # type: ignore[union-attr]
        jobs = [self.app.store._jobs[job_id] for job_id in self.app.store.made.get(known.name, ())]
        starts = {*known.turns, *(job.finished_at for job in jobs if job.finished_at is not None)}
        starts |= {row.answered_at for row in history if row.outcome == "missed"}
        allowed = {start + period for start in starts} | {known.policies.start_at}
        for number, row in enumerate(history):
            is_first = number == 0 and row.first == known.added_at and known.policies.first == "now"
            assert row.first in allowed or is_first, f"{row} is no fire time"
            # Of missed ones that share a row, it is not kept when each was answered, from which the next counts.
            assert row.last in allowed or is_first or row.count != 1
        if not self.is_well:
            return
        row_ = self.app.store._schedules[known.name]
        if any(not job.state.is_finished for job in jobs):
            assert row_.next_at is None or jobs[-1].fire_time is None
        else:
            assert row_.next_at is not None
            assert row_.next_at in allowed
            is_over = known.policies.end_at is not None and row_.next_at > known.policies.end_at
            is_early = known.policies.start_at is not None and self.now < known.policies.start_at
            assert row_.next_at > self.now or known.is_paused or self.is_finished(known) or is_over or is_early

    def check_policies(self, known: Known, rows: list[Answer]) -> None:
        policies, name = known.policies, known.name
        assert policies.max_runs is None or sum(row.job_id is not None for row in rows) <= policies.max_runs
        for row in rows:
            if row.outcome == "paused" or policies.after is None:
                continue
            assert policies.start_at is None or row.first >= policies.start_at
            assert policies.end_at is None or row.first <= policies.end_at
        for before, row in itertools.pairwise(rows):
            if before.job_id is row.job_id is None and before.outcome in ("missed", "paused"):
                assert (before.outcome, before.decided_by) != (row.outcome, row.decided_by), "not joined"
            if row.wanted_at is not None and policies.jitter and policies.after is None:
                self.check_jitter(known, row)
            if policies.catch_up == "latest" and policies.grace is None and before.outcome == "missed":
                assert row.outcome != "paused", f"{before} was missed and nothing ran instead"
                assert row.answered_at == before.answered_at
        if policies.grace is None and policies.catch_up == "latest" and rows:
            assert rows[-1].outcome != "missed"
        if policies.catch_up == "none":
            for row, newer in itertools.zip_longest(rows, rows[1:]):
                is_late = row.answered_at - row.last > PROMPT
                # Of two that are noticed together the newer one counts.
                is_overtaken = newer is not None and newer.answered_at == row.answered_at
                if row.outcome != "paused" and row.job_id is None:
                    assert (row.outcome == "missed") == (is_late or is_overtaken) or row.decided_by.startswith("grace")
        unfinished = self.unfinished(name)
        waiting = [job for job in unfinished if job.state is not JobState.RUNNING]
        if policies.overlap == "skip":
            assert len(unfinished) <= 1
        if policies.overlap in ("queue", "replace"):
            assert len(waiting) <= 1
        if policies.overlap == "replace":
            assert all(job.cancel_requested for job in unfinished[:-1])

    def check_jitter(self, known: Known, row: Answer) -> None:
        trigger = known.plan.trigger.inner if isinstance(known.plan.trigger, Fragile) else known.plan.trigger
        following = trigger.next(row.first)
        assert row.wanted_at is not None
        end = known.policies.end_at
        assert following is None or row.wanted_at < following or (end is not None and following > end)

    def teardown(self) -> None:
        try:
            if self.is_open:
                self.app.store.error = None
                self.do(self.t.__aexit__(None, None, None))
        finally:
            self.runner.close()


CHECKS = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]


def live(caplog: pytest.LogCaptureFixture, lives: int, steps: int) -> None:
    caplog.set_level(logging.CRITICAL, "tickwork")  # what it logs of so many lives would only cost time
    chosen = settings(max_examples=lives, stateful_step_count=steps, deadline=None, suppress_health_check=CHECKS)
    run_state_machine_as_test(FireTimes, settings=chosen)


@pytest.mark.timeout(120)
def test_every_fire_time_is_answered_once_whatever_happens(caplog: pytest.LogCaptureFixture) -> None:
    live(caplog, 50, 30)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_fire_time_is_answered_once_in_long_lives(caplog: pytest.LogCaptureFixture) -> None:
    live(caplog, 120, 50)
