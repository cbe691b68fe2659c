"""Random sequences of calls against a small model, for every store alike.

The model knows, of each job, what the contract promises: its state, its owner, how often it was claimed, begun and
cancelled; of each schedule its version, watermark and the answers to its fire times. After every call the store is
asked for all jobs and all rows, and must say the same.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from tickwork.conformance import HandClock, declare, new_job
from tickwork.errors import QueueFull
from tickwork.jobs import JobRecord, JobState, NewJob, Progress
from tickwork.limits import Limit, Limits, Rate
from tickwork.policies import MAX_DEATHS
from tickwork.records import changed
from tickwork.stores.base import Answer, Finish, Firing, Lease, Pause, Remove, Store
from tickwork.stores.memory import MemoryStore
from tickwork.stores.postgres import PostgresStore
from tickwork.stores.postgres_target import target_of
from tickwork.stores.sqlite import SQLiteStore
from tickwork.stores.views import RETRIABLE

T = TypeVar("T")

WORKER = "w"
LEASE_SECONDS = 30.0
KEEP_SECONDS = 300.0
MAX_QUEUED = 8
WAITING = (JobState.QUEUED, JobState.SCHEDULED)
ENDED = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


@dataclass
class ModelJob:
    """What the contract promises about a job."""

    new: NewJob
    place: int
    state: JobState
    run_at: datetime
    token: int = 0
    attempt: int = 0
    deaths: int = 0
    expires: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    is_cancel_asked: bool = False
    progress: Progress | None = None
    behind: set[str] = field(default_factory=set)

    @property
    def has_begun(self) -> bool:
        return bool(self.attempt or self.deaths)


@dataclass
class ModelSchedule:
    """What the contract promises about a schedule."""

    version: int
    watermark: datetime
    fingerprint: str
    after: float | None
    next_at: datetime | None
    is_paused: bool = False
    runs: int = 0
    answers: list[Answer] = field(default_factory=list)


GATES = [
    (),
    (),
    ("limit:",),
    ("rate:x",),
    ("limit:a", "rate:"),
    ("limit:b", "rate:"),
    ("rate:a", "limit:"),
    ("rate:b", "limit:"),
]
"""Jobs that share their first gate share the second: else nothing promises which of them goes first."""
LIMITS = [
    Limits(Limit(1), Rate(2, per=10)),
    Limits(Limit(2), Rate(1, per=4)),
    Limits(Limit(1), None),
    Limits(None, Rate(3, per=40)),
    Limits(),
]

SELDOM = st.integers(0, 5).map(lambda drawn: drawn == 5)


class StoreMachine(RuleBasedStateMachine):
    """Calls of a store in any order; a subclass opens the store."""

    claims = Bundle("claims")

    def open_store(self, clock: HandClock) -> Store:
        raise NotImplementedError

    @initialize()
    def begin(self) -> None:
        self.runner = asyncio.Runner()
        self.clock = HandClock()
        self.store = self.open_store(self.clock)
        self.jobs: dict[str, ModelJob] = {}
        self.schedules: dict[str, ModelSchedule] = {}
        self.paused: set[str] = set()
        self.count = 0
        self.is_pruned = False
        self.limits = Limits()
        self.starts: dict[str, list[tuple[datetime, str]]] = {}
        self.call(self.store.open())
        self.set_limits(LIMITS[0])
        self.enqueue("tt", 0, 0, False, "default", None, ())
        self.declare_schedule("a", "f", False)
        self.declare_schedule("b", "f", True)

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.call(self.store.close())
            self.runner.close()

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(asyncio.wait_for(coroutine, 15))

    # -- the model --------------------------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        return self.clock.now()

    def add(self, job: NewJob) -> ModelJob:
        self.count += 1
        state = JobState.QUEUED if job.run_at <= self.now else JobState.SCHEDULED
        made = self.jobs[job.id] = ModelJob(job, self.count, state, job.run_at)
        return made

    def waiting_count(self) -> int:
        return sum(job.state in WAITING for job in self.jobs.values())

    def unfinished(self, schedule: str) -> list[ModelJob]:
        found = [
            job
            for job in self.jobs.values()
            if job.new.schedule == schedule and (job.state in WAITING or job.state is JobState.RUNNING)
        ]
        return sorted(found, key=lambda job: job.place)

    def end(self, job: ModelJob, state: JobState) -> None:
        """Bring a job to an end, or to where it is parked."""
        was_parked = job.state is JobState.PARKED
        job.state, job.expires = state, None
        if state in ENDED:
            job.finished_at = self.now
        self.amend(job, finished_at=self.now, state=state)
        if was_parked:
            return
        for other in self.jobs.values():
            other.behind.discard(job.new.id)
        row = self.schedules.get(job.new.schedule or "")
        if row is not None and row.after is not None and row.next_at is None:
            row.version += 1
            row.next_at = self.now + timedelta(seconds=row.after)

    def amend(self, job: ModelJob, **changes: Any) -> None:
        row = self.schedules.get(job.new.schedule or "")
        for number, answer in enumerate(row.answers if row else ()):
            if answer.job_id == job.new.id and row is not None:
                values = {name: getattr(answer, name) for name in vars(Answer)["__slots__"]} | changes
                row.answers[number] = Answer(**values)

    def answer_of(self, job: ModelJob) -> Answer | None:
        row = self.schedules.get(job.new.schedule or "")
        return next((answer for answer in row.answers if answer.job_id == job.new.id), None) if row else None

    def cancel_waiting(self, job: ModelJob, outcome: str = "not_started") -> None:
        if not job.has_begun and job.state is not JobState.PARKED:
            self.amend(job, outcome=outcome)
        self.end(job, JobState.CANCELLED)

    def owned(self, lease: Lease) -> ModelJob | None:
        job = self.jobs.get(lease.job_id)
        return job if job and job.state is JobState.RUNNING and job.token == lease.token else None

    def look_at_starts(self) -> None:
        """Forget those whose period is over; what lies in the future, since the clock was set back, has started now."""
        if self.limits.rate is None:
            self.starts.clear()
        else:
            since = self.now - timedelta(seconds=self.limits.rate.per)
            for gate, starts in self.starts.items():
                self.starts[gate] = [(min(at, self.now), job_id) for at, job_id in starts if at > since]

    def rooms(self) -> dict[str, float]:
        """Return how many more jobs may pass each gate now."""
        limit, rate = self.limits.limit, self.limits.rate
        rooms: dict[str, float] = {gate: math.inf for gates in GATES for gate in gates}
        for gate in rooms:
            if gate.startswith("limit:") and limit is not None:
                running = [job for job in self.jobs.values() if job.state is JobState.RUNNING and gate in job.new.gates]
                rooms[gate] = limit.at_once - len(running)
            elif gate.startswith("rate:") and rate is not None:
                rooms[gate] = rate.starts - len(self.starts.get(gate, ()))
        return rooms

    def let_through(self, queued: list[ModelJob]) -> list[ModelJob]:
        """Return the jobs that all their gates let pass, the first ones first."""
        rooms, through = self.rooms(), []
        for job in queued:
            if all(rooms[gate] > 0 for gate in job.new.gates):
                through.append(job)
                for gate in job.new.gates:
                    rooms[gate] -= 1
        return through

    def promote(self) -> None:
        for job in self.jobs.values():
            if job.state is JobState.SCHEDULED and job.run_at <= self.now:
                job.state = JobState.QUEUED

    # -- producers --------------------------------------------------------------------------------------------------

    @rule(
        tasks=st.sampled_from(["t", "tt", "u", "tut", "tttt", ""]),
        delay=st.sampled_from([0, 0, 0, 20, 100]),
        priority=st.integers(-1, 1),
        is_once=SELDOM,
        queue=st.sampled_from(["default", "mail"]),
        key=st.sampled_from([None, None, None, "k", "l"]),
        gates=st.sampled_from(GATES),
    )
    def enqueue(
        self,
        tasks: str,
        delay: float,
        priority: int,
        is_once: bool,
        queue: str,
        key: str | None,
        gates: tuple[str, ...],
    ) -> None:
        about: dict[str, Any] = {"delay": delay, "priority": priority, "is_once": is_once, "queue": queue, "key": key}
        jobs = [new_job(self.clock, task, gates=gates if task == "t" else (), **about) for task in tasks]
        known = {
            (job.new.task, job.new.key): job.new.id
            for job in self.jobs.values()
            if job.new.key is not None and job.state not in ENDED
        }
        expected, new = [], []
        for job in jobs:
            held = None if key is None else known.get((job.task, key))
            expected.append(held or job.id)
            if held is None:
                new.append(job)
                if key is not None:
                    known[job.task, key] = job.id
        has_room = not new or self.waiting_count() + len(new) <= MAX_QUEUED
        try:
            taken = self.call(self.store.enqueue(jobs, wait=False))
        except QueueFull:
            assert not has_room
            return
        assert has_room
        assert [record.id for record in taken] == expected
        for job in new:
            self.add(job)

    @rule(limits=st.sampled_from(LIMITS))
    def set_limits(self, limits: Limits) -> None:
        self.take(0)  # starts that no longer count are forgotten at the next claim, if not before
        self.call(self.store.set_limits({"t": limits}))
        self.limits = limits
        self.take(0)

    @rule(
        names=st.sampled_from(["a", "b", "ab"]),
        fingerprint=st.sampled_from("ffg"),
        end=st.booleans(),
    )
    def declare_schedule(self, names: str, fingerprint: str, end: bool) -> None:
        after = 10.0 if end else None
        next_at = self.now + timedelta(seconds=10) if end else None
        fingerprint += "end" if end else ""
        self.call(
            self.store.set_schedule(
                [declare(name, fingerprint, after_seconds=after, next_at=next_at) for name in names]
            )
        )
        for name in names:
            row = self.schedules.get(name)
            if row is None:
                self.schedules[name] = ModelSchedule(1, self.now, fingerprint, after, next_at)
            elif row.fingerprint != fingerprint:
                row.version += 1
                row.watermark = max(row.watermark, self.now)
                row.fingerprint, row.after, row.next_at = fingerprint, after, next_at

    @rule(name=st.sampled_from("ab"), passed=st.integers(0, 2))
    def pause_or_resume(self, name: str, passed: int) -> None:
        row = self.schedules.get(name)
        if row is None:
            return
        change = Pause(name=name, paused=not row.is_paused)
        if row.is_paused:
            first = row.watermark + timedelta(seconds=1)
            next_at = self.now + timedelta(seconds=9)
            change = Pause(name=name, paused=False, next_at=next_at)
            if passed and first <= self.now:
                change = Pause(
                    name=name,
                    paused=False,
                    next_at=next_at,
                    passed_first=first,
                    passed_last=self.now,
                    passed_count=passed,
                )
        self.call(self.store.set_schedule([change]))
        row.is_paused = change.paused
        row.version += 1
        if not change.paused:
            row.watermark = max(row.watermark, self.now)
            if row.next_at is not None:
                row.next_at = change.next_at
            if change.passed_first is not None and change.passed_last is not None:
                self.answer(
                    row,
                    Answer(
                        schedule=name,
                        first=change.passed_first,
                        last=change.passed_last,
                        count=change.passed_count,
                        outcome="paused",
                        answered_at=self.now,
                    ),
                )

    @rule(name=st.sampled_from("ab"))
    def remove_schedule(self, name: str) -> None:
        assert self.call(self.store.set_schedule([Remove(name=name)])) == [None]
        self.schedules.pop(name, None)

    def answer(self, row: ModelSchedule, answer: Answer) -> None:
        if row.answers and row.answers[-1].shares_row_with(answer):
            row.answers[-1] = row.answers[-1].joined(answer)
        elif all(known.first != answer.first for known in row.answers):
            row.answers.append(answer)

    @rule(
        name=st.sampled_from("ab"),
        overlap=st.sampled_from(["skip", "queue", "replace", "allow"]),
        staleness=SELDOM.map(int),
        is_manual=SELDOM,
        with_job=st.sampled_from([True, True, True, False]),
        missed=st.sampled_from([0, 0, 1]),
        grace=st.sampled_from([None, None, 5]),
        repeats=SELDOM,
        is_once=SELDOM,
        gates=st.sampled_from(GATES),
    )
    def fire(
        self,
        name: str,
        overlap: Any,
        staleness: int,
        is_manual: bool,
        with_job: bool,
        missed: int,
        grace: int | None,
        repeats: bool,
        is_once: bool,
        gates: tuple[str, ...],
    ) -> None:
        row = self.schedules.get(name)
        fire_time = self.now
        if row is not None and repeats and row.answers and not is_manual:
            fire_time = row.answers[-1].first
        elif row is not None and self.now <= row.watermark:
            fire_time = row.watermark + timedelta(seconds=2)
        version = (row.version if row else 1) - staleness
        start_by = None if grace is None else self.now + timedelta(seconds=grace)
        job = new_job(
            self.clock,
            schedule=name,
            fire_time=None if is_manual else fire_time,
            start_by=start_by,
            is_once=is_once,
            gates=gates,
        )
        has_missed = bool(missed) and not is_manual
        firing = Firing(
            schedule=name,
            version=None if is_manual else version,
            watermark=None if is_manual else fire_time,
            job=job if with_job or is_manual else None,
            overlap=overlap,
            missed_first=fire_time - timedelta(seconds=1) if has_missed else None,
            missed_count=missed if has_missed else 0,
            decided_by="d",
        )
        (fired,) = self.call(self.store.fire([firing]))

        if row is None:
            assert (fired.outcome, fired.row) == (None, None)
            return
        if not is_manual:
            if version != row.version or row.is_paused:
                assert fired.outcome is None
                return
            row.version += 1
            row.watermark, row.next_at = fire_time, None
            if firing.job is not None and any(answer.first == fire_time for answer in row.answers):
                assert fired.outcome is None
                row.next_at = None if row.after is None else self.now + timedelta(seconds=row.after)
                return
        if firing.missed_first is not None:
            self.answer(
                row,
                Answer(
                    schedule=name,
                    first=firing.missed_first,
                    last=firing.missed_first,
                    count=missed,
                    outcome="missed",
                    answered_at=self.now,
                    decided_by="d",
                ),
            )
        if firing.job is None:
            assert fired.outcome == "missed"
            return
        self.expect_overlap(name, row, overlap, job, fired)

    def expect_overlap(self, name: str, row: ModelSchedule, overlap: str, job: NewJob, fired: Any) -> None:
        unfinished = self.unfinished(name)
        waiting = [entry for entry in unfinished if entry.state in WAITING and not entry.attempt]
        outcome, blocked_by, behind = "ran", None, set()
        if unfinished and overlap == "skip":
            outcome, blocked_by = "skipped", unfinished[0].new.id
        elif unfinished and overlap == "queue" and waiting:
            outcome, blocked_by = "merged", waiting[0].new.id
        elif overlap == "queue":
            behind = {entry.new.id for entry in unfinished}
        elif overlap == "replace":
            behind = {entry.new.id for entry in unfinished if entry.state is JobState.RUNNING}
            assert set(fired.cancelled) == behind
            for entry in unfinished:
                if entry.state is JobState.RUNNING:
                    entry.is_cancel_asked = True
                else:
                    self.cancel_waiting(entry)
        assert (fired.outcome, fired.blocked_by) == (outcome, blocked_by)
        if outcome == "ran":
            self.add(job).behind = behind
        if job.fire_time is not None:
            row.runs += outcome == "ran"
            self.answer(
                row,
                Answer(
                    schedule=name,
                    first=job.fire_time,
                    last=job.fire_time,
                    count=1,
                    outcome=fired.outcome,
                    answered_at=self.now,
                    job_id=job.id if outcome == "ran" else None,
                    blocked_by=blocked_by,
                    decided_by="" if outcome == "ran" else f'overlap="{overlap}"',
                    wanted_at=job.run_at if outcome == "ran" else None,
                ),
            )

    # -- workers ----------------------------------------------------------------------------------------------------

    @rule(target=claims, limit=st.integers(1, 3), queues=st.sampled_from([None, None, {"mail"}]))
    def claim(self, limit: int, queues: set[str] | None) -> list[JobRecord]:
        return self.take(limit, queues)

    def take(self, limit: int, queues: set[str] | None = None) -> list[JobRecord]:
        records = self.call(
            self.store.claim(worker=WORKER, tasks={"t"}, limit=limit, queues=queues, lease_seconds=LEASE_SECONDS)
        )
        self.promote()
        self.look_at_starts()
        for record in records:
            if record.state is JobState.CANCELLED:
                job = self.jobs[record.id]
                assert job.state is JobState.QUEUED
                assert not job.has_begun
                assert job.new.start_by is not None
                assert self.now > job.new.start_by
                self.amend(job, decided_by='grace="5s"')
                self.cancel_waiting(job, "missed")
        expected = [
            job for job in self.jobs.values() if job.state is JobState.QUEUED and job.new.task == "t" and not job.behind
        ]
        expected.sort(key=lambda job: (-job.new.priority, job.place))
        # What a limit lets through is decided before queues are looked at, paused ones included.
        expected = [
            job
            for job in self.let_through(expected)
            if (queues is None or job.new.queue in queues) and job.new.queue not in self.paused
        ]
        claimed = [record for record in records if record.state is JobState.RUNNING]
        assert [record.id for record in claimed] == [job.new.id for job in expected[:limit]]
        for record in claimed:
            job = self.jobs[record.id]
            assert record.token > job.token
            assert job.has_begun or job.new.start_by is None or self.now <= job.new.start_by
            job.state, job.token, job.started_at = JobState.RUNNING, record.token, None
            for gate in job.new.gates:
                if gate.startswith("rate:") and self.limits.rate is not None:
                    self.starts.setdefault(gate, []).append((self.now, job.new.id))
            job.progress = None
            job.expires = self.now + timedelta(seconds=LEASE_SECONDS)
        return claimed

    @rule(records=claims, begins=st.booleans(), done=st.none() | st.integers(0, 9))
    def begin_jobs(self, records: list[JobRecord], begins: bool = True, done: int | None = None) -> None:
        began = self.now if begins else None
        told = None if done is None else Progress(done=done, updated_at=self.now)
        for record in records:
            lease = Lease(record.id, record.token)
            job = self.owned(lease)
            assert self.call(self.store.progress(lease, started_at=began, progress=told)) is (job is not None)
            if job is not None:
                job.started_at = began or job.started_at
                job.progress = told or job.progress

    @rule(records=claims, seconds=st.sampled_from([5.0, 60.0]))
    def extend(self, records: list[JobRecord], seconds: float) -> None:
        leases = [Lease(record.id, record.token) for record in records]
        owned = [self.owned(lease) for lease in leases]
        assert self.call(self.store.extend(leases, seconds)) == [job is not None for job in owned]
        for job in owned:
            if job is not None:
                job.expires = self.now + timedelta(seconds=seconds)

    @rule(
        records=claims,
        state=st.sampled_from([JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.PARKED, *WAITING]),
        has_started=st.booleans(),
    )
    def finish(self, records: list[JobRecord], state: JobState, has_started: bool) -> None:
        """End attempts: by their owners, or by late ones."""
        run_at = self.now + timedelta(seconds=7) if state is JobState.SCHEDULED else None
        finishes, expected = [], []
        for record in records:
            lease = Lease(record.id, record.token)
            job = self.owned(lease)
            begun = self.now if has_started or state not in (JobState.CANCELLED, JobState.PARKED) else None
            finishes.append(
                Finish(
                    lease=lease,
                    state=state,
                    attempt=record.attempt + 1,
                    deaths=record.deaths,
                    started_at=begun,
                    run_at=run_at,
                    result="1" if state is JobState.SUCCEEDED else None,
                )
            )
            expected.append(job is not None)
        answers = self.call(self.store.finish(finishes))
        assert answers == expected
        for end, is_accepted in zip(finishes, answers, strict=True):
            if is_accepted:
                self.expect_finished(self.jobs[end.lease.job_id], end)

    def expect_finished(self, job: ModelJob, end: Finish) -> None:
        state = JobState.CANCELLED if end.state in WAITING and job.is_cancel_asked else end.state
        started_at = end.started_at or job.started_at
        answer = self.answer_of(job)
        if answer is not None and answer.started_at is None:
            self.amend(job, started_at=started_at)
            if state is JobState.CANCELLED and started_at is None and not job.has_begun:
                self.amend(job, outcome="not_started")
        job.attempt, job.started_at = end.attempt, started_at
        if end.run_at is not None:
            job.run_at = end.run_at
        if state in WAITING:
            job.state, job.expires = state, None
        else:
            self.end(job, state)

    @rule(records=consumes(claims))
    def release(self, records: list[JobRecord]) -> None:
        leases = [Lease(record.id, record.token) for record in records]
        owned = [self.owned(lease) for lease in leases]
        assert self.call(self.store.release(leases)) == [job is not None for job in owned]
        for job in owned:
            if job is not None:
                self.give_back(job)

    def give_back(self, job: ModelJob) -> None:
        for gate in job.new.gates if job.started_at is None else ():
            starts = self.starts.get(gate, [])
            last = max((number for number, (_, job_id) in enumerate(starts) if job_id == job.new.id), default=None)
            if last is not None:
                del starts[last]
        job.state, job.expires, job.started_at = JobState.QUEUED, None, None
        if job.is_cancel_asked:
            self.cancel_waiting(job)

    @rule()
    def rescue(self) -> None:
        dead = [
            job
            for job in self.jobs.values()
            if job.state is JobState.RUNNING and job.expires is not None and job.expires <= self.now
        ]
        rescued = self.call(self.store.rescue())
        assert {record.id for record in rescued} == {job.new.id for job in dead}
        for job in dead:
            had_begun = job.has_begun
            if job.started_at is not None:
                job.deaths += 1
                answer = self.answer_of(job)
                if answer is not None and answer.started_at is None:
                    self.amend(job, started_at=job.started_at)
            if job.new.is_once:
                self.end(job, JobState.FAILED)
            elif job.is_cancel_asked:
                if not had_begun and job.started_at is None:
                    self.amend(job, outcome="not_started")
                self.end(job, JobState.CANCELLED)
            elif job.deaths >= MAX_DEATHS:
                self.end(job, JobState.PARKED)
            else:
                job.state, job.expires = JobState.QUEUED, None

    @rule(target=claims, has_begun=st.booleans())
    def lose_owners(self, has_begun: bool) -> list[JobRecord]:
        """Workers die under their jobs, and others take them."""
        records = self.take(3)
        if has_begun:
            self.begin_jobs(records)
        self.clock.advance(LEASE_SECONDS)
        self.rescue()
        return self.take(3)

    @rule(
        state=st.sampled_from([JobState.SUCCEEDED, JobState.FAILED, JobState.PARKED, *WAITING]),
        is_cancelled=SELDOM,
        limit=st.integers(1, 3),
    )
    def work(self, state: JobState, is_cancelled: bool, limit: int) -> None:
        """Jobs run as they do in an app."""
        records = self.take(limit)
        self.begin_jobs(records)
        self.clock.advance(1)
        if is_cancelled and records:
            self.call(self.store.cancel([records[0].id]))
            self.jobs[records[0].id].is_cancel_asked = True
        self.finish(records, state, True)

    @rule(name=st.sampled_from("ab"), overlap=st.sampled_from(["queue", "replace"]))
    def fire_behind(self, name: str, overlap: str) -> None:
        """A job falls due while the last one runs."""
        if name in self.schedules and not self.schedules[name].is_paused:
            for _ in range(2):
                self.clock.advance(3)
                self.fire(name, overlap, 0, False, True, 0, None, False, False, ("limit:",))
                self.take(3)

    # -- people and time --------------------------------------------------------------------------------------------

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        known = sorted(self.jobs, key=lambda job_id: self.jobs[job_id].place)
        if not known:
            return
        asked = data.draw(st.lists(st.sampled_from(known), min_size=1, max_size=3, unique=True))
        answers = self.call(self.store.cancel([*asked, "nobody"]))
        for job_id, answer in zip([*asked, "nobody"], answers, strict=True):
            job = self.jobs.get(job_id)
            if job is None or job.state in ENDED:
                assert answer is None
            elif job.state is JobState.RUNNING:
                assert answer is not None
                job.is_cancel_asked = True
            else:
                assert answer is not None
                self.cancel_waiting(job)

    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        known = sorted(self.jobs, key=lambda job_id: self.jobs[job_id].place)
        if not known:
            return
        asked = data.draw(st.lists(st.sampled_from(known), min_size=1, max_size=4, unique=True))
        answers = self.call(self.store.retry([*asked, "nobody"]))
        for job_id, answer in zip([*asked, "nobody"], answers, strict=True):
            job = self.jobs.get(job_id)
            if job is None or job.state not in RETRIABLE or self.is_key_taken(job):
                assert answer is None
                continue
            assert answer is not None
            self.reopen(job)

    def is_key_taken(self, job: ModelJob) -> bool:
        """Return whether another unfinished job has the key of one."""
        name = job.new.task, job.new.key
        return job.new.key is not None and any(
            other is not job and other.state not in ENDED and (other.new.task, other.new.key) == name
            for other in self.jobs.values()
        )

    def reopen(self, job: ModelJob) -> None:
        """Let a job begin anew, as a person wants it."""
        job.state, job.run_at, job.new = JobState.QUEUED, self.now, changed(job.new, start_by=None)
        job.attempt = job.deaths = 0
        job.started_at = job.finished_at = job.progress = None
        job.is_cancel_asked, job.behind = False, set()
        answer = self.answer_of(job)
        if answer is not None:
            again = {"outcome": "ran", "decided_by": ""} if answer.outcome in ("not_started", "missed") else {}
            self.amend(job, finished_at=None, state=None, started_at=None, **again)

    @rule(data=st.data(), is_rash=SELDOM)
    def delete(self, data: st.DataObject, is_rash: bool) -> None:
        known = sorted(self.jobs, key=lambda job_id: self.jobs[job_id].place)
        if not known or not is_rash:
            return
        asked = data.draw(st.lists(st.sampled_from(known), min_size=1, max_size=3, unique=True))
        answers = self.call(self.store.delete([*asked, "nobody"]))
        for job_id, answer in zip([*asked, "nobody"], answers, strict=True):
            job = self.jobs.get(job_id)
            if job is None or job.state is JobState.RUNNING:
                assert answer is None
                continue
            assert answer is not None
            if job.state in WAITING:
                self.cancel_waiting(job)
            del self.jobs[job_id]

    @rule(name=st.sampled_from(["default", "mail"]), is_rash=SELDOM)
    def pause_or_resume_queue(self, name: str, is_rash: bool) -> None:
        if is_rash or name in self.paused:
            assert self.call(self.store.set_queue(name, paused=name not in self.paused))
            self.paused ^= {name}

    @rule(seconds=st.sampled_from([0.001, 1, 4, 10, 31, 120]))
    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(seconds=st.sampled_from([-100, -5, 50]))
    def jump(self, seconds: float) -> None:
        """The wall clock is set."""
        self.take(0)
        self.clock.seconds += seconds
        self.take(0)  # a store may take notice of that at the next claim

    @rule()
    def prune(self) -> None:
        self.call(self.store.prune())
        self.is_pruned = True

    # -- what must hold ---------------------------------------------------------------------------------------------

    @invariant()
    def store_and_model_say_the_same(self) -> None:
        if not hasattr(self, "store"):
            return
        self.call(self._compare())

    async def _compare(self) -> None:
        records = {record.id: record for record in await self.store.jobs(limit=100_000)}
        self.forget_pruned(records)
        assert set(records) == set(self.jobs)
        order = sorted(self.jobs, key=lambda job_id: -self.jobs[job_id].place)
        assert list(records) == order
        for job_id, job in self.jobs.items():
            self.compare_job(records[job_id], job)
        counts = await self.store.counts()
        assert counts == {state: sum(r.state is state for r in records.values()) for state in JobState}
        rows = {row.name: row for row in await self.store.schedules()}
        assert set(rows) == set(self.schedules)
        assert {row.name for row in await self.store.queues() if row.paused_at is not None} == self.paused
        for name, model in self.schedules.items():
            row = rows[name]
            assert (row.version, row.watermark, row.fingerprint) == (model.version, model.watermark, model.fingerprint)
            assert (row.paused, row.runs, row.next_at) == (model.is_paused, model.runs, model.next_at)
            await self.compare_ledger(name, model)

    def compare_job(self, record: JobRecord, job: ModelJob) -> None:
        state = record.state
        if job.state is JobState.SCHEDULED and state is JobState.QUEUED:
            assert job.run_at <= self.now or record.run_at <= self.now  # a store may queue it before it is claimed
            job.state = JobState.QUEUED
        assert state is job.state
        assert (record.attempt, record.deaths, record.token) == (job.attempt, job.deaths, job.token)
        assert (record.lease_expires_at, record.finished_at) == (job.expires, job.finished_at)
        assert record.progress == job.progress
        assert (record.run_at, record.cancel_requested) == (job.run_at, job.is_cancel_asked)
        assert record.worker == (WORKER if state is JobState.RUNNING else None)
        if state is JobState.RUNNING:
            assert record.started_at == job.started_at

    async def compare_ledger(self, name: str, model: ModelSchedule) -> None:
        answers = (await self.store.ledger(name, limit=100_000))[::-1]
        if self.is_pruned:
            kept = {answer.first for answer in answers}
            limit = self.now - timedelta(seconds=KEEP_SECONDS)
            assert all(known.answered_at < limit for known in model.answers if known.first not in kept)
            model.answers = [known for known in model.answers if known.first in kept]
        assert answers == model.answers
        assert len({answer.first for answer in answers}) == len(answers)

    def forget_pruned(self, records: dict[str, JobRecord]) -> None:
        if self.is_pruned:
            limit = self.now - timedelta(seconds=KEEP_SECONDS)
            for job_id in set(self.jobs) - set(records):
                job = self.jobs.pop(job_id)
                assert job.finished_at is not None
                assert job.finished_at < limit


class MemoryMachine(StoreMachine):
    def open_store(self, clock: HandClock) -> Store:
        return MemoryStore(clock, max_queued=MAX_QUEUED)


class SQLiteMachine(StoreMachine):
    def open_store(self, clock: HandClock) -> Store:
        self.folder = tempfile.TemporaryDirectory(prefix="tickwork-machine-")
        return SQLiteStore(
            Path(self.folder.name) / "jobs.db",
            clock,
            worker=WORKER,
            max_queued=MAX_QUEUED,
            keeps_house=False,
            keep_jobs=KEEP_SECONDS,
            keep_ledger=KEEP_SECONDS,
        )

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "folder"):
            self.folder.cleanup()


class PostgresMachine(StoreMachine):
    url: str
    """Where schemas may be made: each example has its own."""
    numbers = itertools.count()

    def open_store(self, clock: HandClock) -> Store:
        self.schema = f"tickwork_machine_{os.getpid()}_{next(self.numbers)}"
        return PostgresStore(
            target_of(f"{self.url}?schema={self.schema}"),
            clock,
            worker=WORKER,
            max_queued=MAX_QUEUED,
            keeps_house=False,
            keep_jobs=KEEP_SECONDS,
            keep_ledger=KEEP_SECONDS,
        )

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "schema"):
            with psycopg.connect(self.url, autocommit=True) as connection:
                connection.execute(f"DROP SCHEMA IF EXISTS {self.schema} CASCADE")


@pytest.fixture(params=[MemoryMachine, SQLiteMachine, PostgresMachine])
def machine(request: pytest.FixtureRequest) -> type[StoreMachine]:
    found: type[StoreMachine] = request.param
    if found is PostgresMachine:
        PostgresMachine.url = request.getfixturevalue("postgres_url")
    return found


CHECKS = list(HealthCheck)
EXAMPLES: dict[type[StoreMachine], int] = {MemoryMachine: 60, PostgresMachine: 8}


def run(machine: type[StoreMachine], examples: int, steps: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=CHECKS, database=None
        ),
    )


@pytest.mark.timeout(120)
def test_a_store_does_what_the_model_says(machine: type[StoreMachine]) -> None:
    run(machine, EXAMPLES.get(machine, 15), 40)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_store_does_what_the_model_says_for_long(machine: type[StoreMachine]) -> None:
    run(machine, 400 if machine is MemoryMachine else 50, 80)
