"""The store without a file: the same meaning, gone with the process.

Nothing here waits in the middle of a change, and the loop runs one thing at a time: that makes each verb a transaction.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import os
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from .._version import __version__
from ..errors import DuplicateJob, IllegalMove, NotRunning, QueueFull, UnknownBatch, UnknownJob, UnknownSchedule
from ..jobs import JobRecord, JobState, NewJob, taken
from ..policies import MAX_DEATHS, grace_of, overlap
from ..records import changed, copier, fill
from . import memory_people as people
from .base import (
    Answer,
    Capabilities,
    Declare,
    Finish,
    Fired,
    Pause,
    Remove,
    ScheduleRow,
    Store,
    after_attempt,
    after_death,
    attempt_of,
    is_aside,
    lost_attempt,
)
from .base import check_finishes as _check
from .ends import Ends
from .gates import Gates
from .views import MAX_ATTEMPTS, RETRIABLE, WAITING, Standing, WorkerRow

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from ..clock import Clock, Timer
    from ..jobs import Attempt, Progress
    from ..limits import Limits
    from .base import FireOutcome, Firing, Lease, ScheduleChange
    from .batches import BatchPart, BatchRow
    from .memory_batches import Batches
    from .views import JobQuery, Page, QueueRow, Vitals

KEEP = 1000
"""Finished jobs kept, and ledger rows for each schedule: enough to look back at, a few megabytes at the most."""

_NEVER = datetime.min.replace(tzinfo=UTC)
_RAN = Answer(schedule="", first=_NEVER, last=_NEVER, count=1, outcome="ran", answered_at=_NEVER)
"""What those answers have in common that made a job."""

_Queued = tuple[int, int, str]
"""A heap entry: minus the priority, the order of arrival, the job's id."""


class _Staged(NamedTuple):
    """What `stage` has made, that comes true if the schedule's row is still this one."""

    before: ScheduleRow
    fired: Fired
    record: JobRecord
    answer: Answer


class MemoryStore(Store):
    """Jobs and schedules in dictionaries and heaps.

    Args:
        clock: Tells the time.
        max_queued: How many jobs may wait before `enqueue` waits too.
        max_deaths: A job under which this many workers died is parked.
        is_held: Whether somebody still holds a job's handle, so that its end must be kept.
        is_batch_held: Likewise of a batch, whose jobs are kept then.
        keep: How many finished jobs are kept, and how many ledger rows for each schedule.
    """

    capabilities: Capabilities = Capabilities(notify=True)

    def __init__(
        self,
        clock: Clock,
        *,
        max_queued: int = 100_000,
        max_deaths: int = MAX_DEATHS,
        keep: int = KEEP,
        is_held: Callable[[str], bool] = lambda job_id: False,
        is_batch_held: Callable[[str], bool] = lambda batch_id: False,
    ) -> None:
        self._clock = clock
        self._is_held = is_held
        self._is_batch_held = is_batch_held
        self._made_batches: Batches | None = None
        self._keep = keep
        self._max_queued = max_queued
        self._max_deaths = max_deaths
        self._as_claimed = copier(JobRecord, "state", "token", "worker", "lease_expires_at", "started_at", "progress")
        self._as_fired = copier(ScheduleRow, "version", "watermark", "next_at", "runs")
        self._as_ran = copier(Answer, "schedule", "first", "last", "answered_at", "job_id", "late_because", "wanted_at")
        self._jobs: dict[str, JobRecord] = {}
        self._queues: dict[str, list[_Queued]] = {}
        self._later: list[tuple[datetime, int, str]] = []
        self._stale = 0
        self._order = itertools.count()
        self._places: dict[str, int] = {}
        self._waiting_count = 0
        self._schedules: dict[str, ScheduleRow] = {}
        self._succeeded: dict[str, datetime] = {}  # beside the rows, which would be copied for each success
        self._unfinished: dict[str, dict[str, None]] = {}  # of each schedule, in the order in which they were made
        self._behind: dict[str, set[str]] = {}
        self._ledger: dict[str, deque[Answer]] = {}
        self._finished: deque[str] = deque()
        self._tokens = itertools.count(1)
        self._claimable = asyncio.Event()
        self._asked: frozenset[str] | None = frozenset()
        """For which jobs the last claim asked; None: for any."""
        self._alarm: Timer | None = None
        self._alarm_at: datetime | None = None
        self._ends = Ends()
        self._room: deque[tuple[asyncio.Future[None], int]] = deque()
        self._keys: dict[tuple[str, str], str] = {}
        """The newest job of each task and key."""
        self._gates = Gates()
        self._paused: dict[str, datetime] = {}  # queues, and since when
        self._attempts: dict[str, deque[Attempt]] = {}
        self._misfits: dict[str, set[str]] = {}  # of parked jobs, the fingerprints that have refused them
        self._workers: dict[str, WorkerRow] = {}

    async def open(self) -> None:
        """Nothing to connect to."""

    async def close(self) -> None:
        """Set no more alarms, and let nobody wait for anything any longer."""
        while self._room:
            turn, _ = self._room.popleft()
            if not turn.done():
                turn.set_exception(NotRunning("the app stopped while this waited for room; nothing was enqueued"))
        self._ends.close()
        if self._made_batches is not None:
            self._made_batches.waits.close()
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = self._alarm_at = None

    # -- producers ------------------------------------------------------------------------------------------------

    async def enqueue(self, jobs: Sequence[NewJob], *, wait: bool = True) -> list[JobRecord]:
        """See `Store.enqueue`."""
        await self._room_for(jobs, wait=wait)
        self._expect_new(jobs)
        now = self._clock.now()
        records = [self._with_key(job.task, job.key) or self._insert(job, now) for job in jobs]
        self._make_room()
        return records

    async def _room_for(self, jobs: Sequence[NewJob], *, wait: bool) -> None:
        """Wait until there is room for these jobs, which are new."""
        if len(jobs) > self._max_queued:
            raise QueueFull("store", self._max_queued, f"{len(jobs)} jobs at once never fit; enqueue them in parts")
        self._expect_new(jobs)
        is_first = False
        while (count := self._new_count(jobs)) and (
            (self._room and not is_first) or self._waiting_count + count > self._max_queued
        ):
            if not wait:
                raise QueueFull("store", self._max_queued, "await enqueue(...) to wait for room, or raise max_queued")
            turn: tuple[asyncio.Future[None], int] = asyncio.get_running_loop().create_future(), count
            if is_first:
                self._room.appendleft(turn)  # its turn has come; somebody else was quicker
            else:
                self._room.append(turn)
            try:
                await turn[0]
            except BaseException:
                if turn in self._room:
                    self._room.remove(turn)
                self._make_room()  # perhaps it was this one's turn: hand it on
                raise
            is_first = True

    def _new_count(self, jobs: Sequence[NewJob]) -> int:
        """Return how many jobs are new: their keys are those of no unfinished job, and of none before them."""
        if all(job.key is None for job in jobs):
            return len(jobs)
        new = [job for job in jobs if self._with_key(job.task, job.key) is None]
        return len({job.id if job.key is None else (job.task, job.key) for job in new})

    def _with_key(self, task: str, key: str | None) -> JobRecord | None:
        """Return the unfinished job of a task that has a key, or None."""
        if key is None:
            return None
        record = self._jobs.get(self._keys.get((task, key), ""))
        return None if record is None or record.state.is_finished else record

    def _expect_new(self, jobs: Sequence[NewJob]) -> None:
        ids: set[str] = set()
        for job in jobs:
            if job.id in self._jobs or job.id in ids:
                raise DuplicateJob(job.id)
            ids.add(job.id)

    def _insert(self, job: NewJob, now: datetime, *, behind: Sequence[str] = ()) -> JobRecord:
        record = taken(job, now)
        self._take_in(record, behind)
        return record

    def _take_in(self, record: JobRecord, behind: Sequence[str]) -> None:
        if record.batch is None:
            self._jobs[record.id] = record
        else:
            self._keep_record(record)
        place = self._places[record.id] = next(self._order)
        self._waiting_count += 1
        if record.key is not None:
            self._keys[record.task, record.key] = record.id
        if record.schedule is not None:
            unfinished = self._unfinished.get(record.schedule)
            if unfinished is None:
                unfinished = self._unfinished[record.schedule] = {}
            unfinished[record.id] = None
        if behind:
            self._behind[record.id] = set(behind)
        if record.state is JobState.QUEUED and not behind and not record.gates:  # what nearly all are
            self._let_claim(record, place)
        else:
            self._line_up(record)

    def _keep_record(self, record: JobRecord) -> None:
        """Keep a job that is new, or that is in another state now."""
        if record.batch is not None:
            self._batches.moved(record.batch, self._jobs.get(record.id), record)
        self._jobs[record.id] = record

    def _line_up(self, record: JobRecord) -> None:
        """Put a record where its turn will come."""
        if record.state is JobState.QUEUED:
            if record.id in self._behind:
                return  # its turn comes when those before it have ended
            if record.gates:
                self._gates.enter(record, self._places[record.id])
                self._open_gates()
            else:
                self._let_claim(record, self._places[record.id])
        else:
            heapq.heappush(self._later, (record.run_at, self._places[record.id], record.id))
            self._set_alarm()

    def _let_claim(self, record: JobRecord, place: int) -> None:
        line = self._queues.get(record.queue)
        if line is None:
            line = self._queues[record.queue] = []
        heapq.heappush(line, (-record.priority, place, record.id))
        if not self._claimable.is_set():
            self._claimable.set()

    def _open_gates(self) -> None:
        """Let those jobs be claimed that have passed their gates by now."""
        for job_id in self._gates.settle(self._clock.now()):
            self._let_claim(self._jobs[job_id], self._places[job_id])
        self._set_alarm()

    def _tidy(self) -> None:
        """Forget the places in line of cancelled jobs once they are the larger part."""
        if self._stale > 64 and self._stale * 2 > len(self._later):
            self._later = [entry for entry in self._later if self._is_scheduled(entry[2])]
            heapq.heapify(self._later)
            self._stale = 0

    def _is_scheduled(self, job_id: str) -> bool:
        record = self._jobs.get(job_id)
        return record is not None and record.state is JobState.SCHEDULED

    def _make_room(self) -> None:
        """Wake the producer that has waited longest, when there is room for all it has."""
        if self._room and self._waiting_count + self._room[0][1] <= self._max_queued:
            turn, _ = self._room.popleft()
            if not turn.done():
                turn.set_result(None)

    async def fire(self, firings: Sequence[Firing]) -> list[Fired]:
        """See `Store.fire`."""
        self._expect_new([firing.job for firing in firings if firing.job is not None])
        now = self._clock.now()
        return [self._fire(firing, now) for firing in firings]

    def stage(self, firing: Firing) -> Firing:
        """See `Store.stage`: a firing that makes a job which is to begin at once, with nothing in its way."""
        row, job = self._schedules.get(firing.schedule), firing.job
        if row is None or job is None or job.fire_time is None or row.paused or row.version != firing.version:
            return firing
        if job.run_at > job.fire_time or job.gates or firing.missed_first is not None or firing.watermark is None:
            return firing
        after = self._as_fired(row, row.version + 1, firing.watermark, firing.next_at, row.runs + 1)
        record = taken(job, job.fire_time)
        answer = self._as_ran(
            _RAN, row.name, job.fire_time, job.fire_time, _NEVER, job.id, firing.late_because, job.run_at
        )
        fill(firing, "staged", _Staged(row, Fired(outcome="ran", row=after, job=record), record, answer))
        return firing

    def _fire(self, firing: Firing, now: datetime) -> Fired:
        name, job = firing.schedule, firing.job
        row, staged = self._schedules.get(name), firing.staged
        if staged is not None and staged.before is row and not self._unfinished.get(name):
            fired: Fired | None = self._fire_staged(staged, now)
            if fired is not None:
                return fired
        if row is None:
            return Fired(outcome=None, row=None)
        fire_time = None if job is None else job.fire_time
        ids = self._unfinished.get(name) if firing.overlap != "allow" else None
        unfinished = [self._jobs[job_id] for job_id in ids] if ids else ()
        verdict = overlap(firing.overlap, unfinished)
        if firing.version is not None:
            if row.version != firing.version or row.paused:
                return Fired(outcome=None, row=row)
            assert firing.watermark is not None
            is_again = self._is_answered(name, fire_time)
            next_at = firing.next_at
            if is_again and row.after_seconds is not None:
                next_at = now + timedelta(seconds=row.after_seconds)
            runs = row.runs + (fire_time is not None and verdict.outcome == "ran" and not is_again)
            row = self._schedules[name] = self._as_fired(row, row.version + 1, firing.watermark, next_at, runs)
            if is_again:
                return Fired(outcome=None, row=row)
        if firing.missed_first is not None:
            self._answer(
                Answer(
                    schedule=name,
                    first=firing.missed_first,
                    last=firing.missed_last or firing.missed_first,
                    count=firing.missed_count,
                    outcome="missed",
                    answered_at=now,
                    decided_by=firing.decided_by,
                    late_because=firing.late_because,
                )
            )
        if job is None:
            return Fired(outcome="missed", row=row)
        running: tuple[str, ...] = ()
        if verdict.cancel:
            for job_id in verdict.cancel:
                self._cancel(job_id)
            row = self._schedules[name]  # that may have changed it
            running = tuple(job.id for job in unfinished if job.id in verdict.cancel and job.id in verdict.behind)
        record = self._insert(job, now, behind=verdict.behind) if verdict.outcome == "ran" else None
        if fire_time is not None and record is not None and firing.version is not None:
            # No row has this fire time, as was asked above, and none is shared by jobs.
            self._rows(name).append(
                self._as_ran(_RAN, name, fire_time, fire_time, now, record.id, firing.late_because, record.run_at)
            )
        elif fire_time is not None:
            self._answer(
                Answer(
                    schedule=name,
                    first=fire_time,
                    last=fire_time,
                    count=1,
                    outcome=verdict.outcome,
                    answered_at=now,
                    job_id=None if record is None else record.id,
                    blocked_by=verdict.blocked_by,
                    decided_by="" if record is not None else f'overlap="{firing.overlap}"',
                    late_because=firing.late_because,
                    wanted_at=None if record is None else record.run_at,
                )
            )
        return Fired(outcome=verdict.outcome, row=row, job=record, blocked_by=verdict.blocked_by, cancelled=running)

    def _fire_staged(self, staged: _Staged, now: datetime) -> Fired | None:
        """Do what was made ready; None: the fire time may have a row in the ledger, or has not come."""
        record, answer = staged.record, staged.answer
        name, rows = answer.schedule, self._rows(answer.schedule)
        if now < answer.first or (rows and rows[-1].last >= answer.first):
            return None
        fill(record, "enqueued_at", now)
        fill(answer, "answered_at", now)
        assert staged.fired.row is not None
        self._schedules[name] = staged.fired.row
        rows.append(answer)
        self._take_in(record, ())
        return staged.fired

    def _is_answered(self, schedule: str, fire_time: datetime | None) -> bool:
        """Return whether the ledger has a row that begins with a fire time: not unless the clock was set back."""
        rows = self._ledger.get(schedule)
        if not rows or fire_time is None or fire_time > rows[-1].last:
            return False
        return any(row.first == fire_time for row in rows)

    def _rows(self, schedule: str) -> deque[Answer]:
        rows = self._ledger.get(schedule)
        if rows is None:
            rows = self._ledger[schedule] = deque(maxlen=self._keep)
        return rows

    def _answer(self, answer: Answer) -> None:
        rows = self._rows(answer.schedule)
        if rows and rows[-1].shares_row_with(answer):
            rows[-1] = rows[-1].joined(answer)
        elif not self._is_answered(answer.schedule, answer.first):
            rows.append(answer)

    async def set_schedule(self, changes: Sequence[ScheduleChange]) -> list[ScheduleRow | None]:
        """See `Store.set_schedule`."""
        changed_here: dict[str, bool] = {}  # whether there is such a schedule after the changes so far
        for change in changes:  # all or none
            if isinstance(change, Pause) and not changed_here.get(change.name, change.name in self._schedules):
                raise UnknownSchedule(change.name, sorted(self._schedules))
            changed_here[change.name] = not isinstance(change, Remove)
        return [self._change(change) for change in changes]

    def _change(self, change: ScheduleChange) -> ScheduleRow | None:
        row = self._schedules.get(change.name)
        match change:
            case Remove():
                self._schedules.pop(change.name, None)
                self._ledger.pop(change.name, None)
                self._succeeded.pop(change.name, None)
                return None
            case Pause():
                assert row is not None
                if row.paused == change.paused:
                    return row
                watermark = row.watermark
                if not change.paused:
                    watermark = max(watermark, change.watermark or self._clock.now())
                row = changed(row, paused=change.paused, version=row.version + 1, watermark=watermark)
                if not change.paused and row.next_at is not None:
                    row = changed(row, next_at=change.next_at)
                if not change.paused and change.passed_first is not None:
                    self._answer(
                        Answer(
                            schedule=row.name,
                            first=change.passed_first,
                            last=change.passed_last or change.passed_first,
                            count=change.passed_count,
                            outcome="paused",
                            answered_at=self._clock.now(),
                        )
                    )
            case Declare():
                if row is not None and row.fingerprint == change.fingerprint and row.task == change.task:
                    return row
                now = self._clock.now()
                row = ScheduleRow(
                    name=change.name,
                    task=change.task,
                    trigger=change.trigger,
                    fingerprint=change.fingerprint,
                    version=1 if row is None else row.version + 1,
                    # Never back: a clock that was set back must not bring fire times a second time.
                    watermark=now if row is None else max(row.watermark, now),
                    declared_at=now,
                    paused=row is not None and row.paused,
                    runs=0 if row is None else row.runs,
                    after_seconds=change.after_seconds,
                    next_at=change.next_at,
                )
        self._schedules[row.name] = row
        return row

    async def set_limits(self, limits: Mapping[str, Limits]) -> None:
        """See `Store.set_limits`."""
        self._gates.declare(limits)
        self._open_gates()

    async def schedules(self, names: Collection[str] | None = None) -> list[ScheduleRow]:
        """See `Store.schedules`."""
        wanted = self._schedules if names is None else names
        return [
            changed(self._schedules[name], succeeded_at=self._succeeded.get(name))
            for name in sorted(wanted)
            if name in self._schedules
        ]

    # -- workers --------------------------------------------------------------------------------------------------

    async def claim(
        self,
        *,
        worker: str,
        tasks: Collection[str],
        limit: int,
        queues: Collection[str] | None = None,
        jobs: Collection[str] | None = None,
        lease_seconds: float | None = None,
    ) -> list[JobRecord]:
        """See `Store.claim`."""
        self._promote()
        if self._gates:
            self._open_gates()
        now = self._clock.now()
        expires = None if lease_seconds is None else now + timedelta(seconds=lease_seconds)
        claimed: list[JobRecord] = []
        too_late: list[JobRecord] = []
        passed: list[tuple[list[_Queued], _Queued]] = []
        lines = self._lines(queues)
        while len(claimed) < limit:
            # By their first entries: priority, then arrival.
            line = lines[0] if len(lines) == 1 else min(filter(None, lines), default=None)
            if not line:
                break
            entry = heapq.heappop(line)
            record = self._jobs.get(entry[2])
            if record is None or record.state is not JobState.QUEUED:
                continue  # cancelled or gone: its entry stayed behind
            if record.gates and not self._gates.has_passed(record.id):
                continue  # another one goes before it: its entry stayed behind
            if record.task not in tasks or (jobs is not None and record.id not in jobs):
                passed.append((line, entry))
                continue
            if record.start_by is not None and now > record.start_by and not _has_begun(record):
                self._cancel(record.id, "missed")
                too_late.append(self._jobs[record.id])
                lines = self._lines(queues)  # another one may have passed its gates for it
                continue
            # As `moved` does, which would look at its state again.
            record = self._as_claimed(record, JobState.RUNNING, next(self._tokens), worker, expires, None, None)
            if record.batch is None:
                self._jobs[record.id] = record
            else:
                self._keep_record(record)
            self._waiting_count -= 1
            if record.gates:
                self._gates.claim(record.id, now)
            claimed.append(record)
        for line, entry in passed:
            heapq.heappush(line, entry)
        if jobs is None or not is_aside(jobs, self._asked):
            self._asked = None if jobs is None else frozenset(jobs)
            if len(claimed) < limit:
                self._claimable.clear()
        if self._gates:
            self._open_gates()  # when the next may start of a rate that is used up now
        self._make_room()
        return claimed + too_late

    def _lines(self, queues: Collection[str] | None) -> list[list[_Queued]]:
        return [
            line
            for name, line in self._queues.items()
            if (queues is None or name in queues) and name not in self._paused
        ]

    def _amend(self, record: JobRecord, **changes: Any) -> None:
        """Write into the ledger what has become of a job that a schedule made."""
        rows = self._ledger.get(record.schedule or "")
        for number in range(len(rows or ()) - 1, -1, -1):  # the newest are the likely ones
            assert rows is not None
            if rows[number].job_id == record.id:
                rows[number] = changed(rows[number], **changes)
                return

    def _let_follow(self, ended: str) -> None:
        """Let the jobs begin that waited for this one only."""
        for job_id, before in list(self._behind.items()):
            before.discard(ended)
            if not before or job_id == ended:
                del self._behind[job_id]
                record = self._jobs.get(job_id)
                if record is not None and record.state is JobState.QUEUED:
                    self._line_up(record)

    def _promote(self) -> None:
        """Queue the scheduled jobs that are due."""
        now = self._clock.now()
        while self._later and self._later[0][0] <= now:
            record = self._jobs.get(heapq.heappop(self._later)[2])
            # One that was cancelled and retried may wait for a later time: that has an entry of its own.
            if record is not None and record.state is JobState.SCHEDULED and record.run_at <= now:
                record = record.moved(JobState.QUEUED)
                self._keep_record(record)
                self._line_up(record)
        self._set_alarm()

    def _set_alarm(self) -> None:
        """Wake whoever waits for work when the next scheduled job is due."""
        dues = [entry[0] for entry in self._later[:1]]
        if self._gates and (opens_at := self._gates.next_at()) is not None:
            dues.append(opens_at)
        if not dues:
            return
        due = min(dues)
        if self._alarm is not None:
            if self._alarm_at is not None and self._alarm_at <= due:
                return
            self._alarm.cancel()
        self._alarm_at = due
        self._alarm = self._clock.call_at(due, self._ring)

    def _ring(self) -> None:
        self._alarm = self._alarm_at = None
        self._promote()
        if self._gates:
            self._open_gates()

    def _owned(self, lease: Lease) -> JobRecord | None:
        record = self._jobs.get(lease.job_id)
        if record is None or record.state is not JobState.RUNNING or record.token != lease.token:
            return None
        return record

    async def extend(self, leases: Sequence[Lease], lease_seconds: float) -> list[bool]:
        """See `Store.extend`."""
        expires = self._clock.now() + timedelta(seconds=lease_seconds)
        answers = []
        for lease in leases:
            record = self._owned(lease)
            if record is not None:
                self._jobs[record.id] = changed(record, lease_expires_at=expires)
            answers.append(record is not None)
        return answers

    async def progress(
        self, lease: Lease, *, started_at: datetime | None = None, progress: Progress | None = None
    ) -> bool:
        """See `Store.progress`."""
        record = self._owned(lease)
        if record is None:
            return False
        self._jobs[record.id] = changed(
            record, started_at=started_at or record.started_at, progress=progress or record.progress
        )
        return True

    async def finish(self, finishes: Sequence[Finish]) -> list[bool]:
        """See `Store.finish`."""
        _check(finishes)
        return [self._finish(finish) for finish in finishes]

    def _finish(self, finish: Finish) -> bool:
        record = self._owned(finish.lease)
        if record is None:
            return False
        if finish.state is not JobState.SUCCEEDED:
            self._keep_trace(finish, record)
        after = after_attempt(record, finish, self._clock.now())
        told: dict[str, Any] = {}
        if record.fire_time is not None and not _has_begun(record):
            told["started_at"] = after.started_at
            if finish.late_because is not None:
                told["late_because"] = finish.late_because
            if after.started_at is None and after.state is JobState.CANCELLED:
                told["outcome"] = "not_started"
        self._place(after, **told)
        return True

    def _place(self, record: JobRecord, **told: Any) -> None:
        """Keep a record in its new state, and tell who waits for it; what is told besides goes into the ledger."""
        self._keep_record(record)
        if record.gates:
            self._gates.leave(record)
            self._open_gates()
        if record.state in (JobState.QUEUED, JobState.SCHEDULED):
            self._waiting_count += 1
            self._line_up(record)
            if told:
                self._amend(record, **told)
            return
        if record.schedule is not None:
            self._end_of_schedule_job(record, record.schedule, told)
        self._finished.append(record.id)
        for _ in range(2):  # a held one goes to the end of the line, so one look for each new one would not do
            if len(self._finished) > self._keep:
                oldest = self._finished.popleft()
                if self._is_held(oldest) or self._is_in_held_batch(oldest):
                    self._finished.append(oldest)
                else:
                    self._forget(oldest)
        self._ends.tell(record)

    def _is_in_held_batch(self, job_id: str) -> bool:
        record = self._jobs.get(job_id)
        return record is not None and record.batch is not None and self._is_batch_held(record.batch)

    def _forget(self, job_id: str) -> None:
        """Keep no more of a job."""
        record = self._jobs.get(job_id)
        if record is not None and record.batch is not None:
            self._batches.moved(record.batch, record, None)
        if record is not None and record.key is not None and self._keys.get((record.task, record.key)) == job_id:
            del self._keys[record.task, record.key]
        for kept in (self._jobs, self._places, self._attempts, self._misfits):
            kept.pop(job_id, None)

    def _keep_trace(self, finish: Finish, record: JobRecord) -> None:
        """Keep what is to be known of an attempt that did not succeed, or of arguments that did not fit."""
        if finish.leaves_trace:
            self._keep_attempt(record.id, attempt_of(finish, record.worker, self._clock.now()))
        if finish.misfit is not None:
            self._misfits.setdefault(record.id, set()).add(finish.misfit)
        elif finish.state is JobState.PARKED:
            self._misfits.pop(record.id, None)

    def _keep_attempt(self, job_id: str, attempt: Attempt) -> None:
        kept = self._attempts.get(job_id)
        if kept is None:
            kept = self._attempts[job_id] = deque(maxlen=MAX_ATTEMPTS)
        kept.append(attempt)

    def _end_of_schedule_job(self, record: JobRecord, schedule: str, told: dict[str, Any]) -> None:
        """Let what waits for this end go on, and write it where it belongs: into the ledger and the schedule's row."""
        if unfinished := self._unfinished.get(schedule):
            unfinished.pop(record.id, None)
            self._let_follow(record.id)
        now = self._clock.now()
        if record.fire_time is not None:
            self._amend(record, finished_at=now, state=record.state, **told)
        row = self._schedules.get(schedule)
        if row is not None and record.state is JobState.SUCCEEDED:
            self._succeeded[schedule] = now
        if row is not None and row.after_seconds is not None and row.next_at is None:
            next_at = now + timedelta(seconds=row.after_seconds)
            self._schedules[schedule] = changed(row, version=row.version + 1, next_at=next_at)

    def redeliver(self, job_id: str) -> JobRecord:
        """Let a job run again that runs or has ended, as if its worker had died before that end was written; for tests.

        Raises:
            UnknownJob: There is no such job.
            IllegalMove: It waits.
        """
        record = self._jobs.get(job_id)
        if record is None:
            raise UnknownJob(job_id)
        if record.state is not JobState.RUNNING and not record.state.is_finished:
            raise IllegalMove(job_id, record.state, JobState.QUEUED)
        has_ended = record.state.is_finished
        if has_ended:
            record = changed(record, attempt=max(0, record.attempt - 1), deaths=record.deaths + 1)
        again = changed(
            record,
            state=JobState.QUEUED,
            lost=record.lost + 1,
            worker=None,
            lease_expires_at=None,
            started_at=None,
            finished_at=None,
            result=None,
            error=None,
        )
        if has_ended:
            return self._queue_again(again)
        self._place(again)
        return again

    async def release(self, leases: Sequence[Lease]) -> list[bool]:
        """See `Store.release`."""
        answers = []
        for lease in leases:
            record = self._owned(lease)
            if record is not None:
                self._give_back(record)
            answers.append(record is not None)
        return answers

    def _give_back(self, record: JobRecord) -> None:
        state = JobState.QUEUED
        changes: dict[str, Any] = {"lease_expires_at": None, "worker": None, "started_at": None}
        if record.cancel_requested:
            state = JobState.CANCELLED
            changes["finished_at"] = self._clock.now()
            if record.fire_time is not None and not _has_begun(record):
                self._amend(record, outcome="not_started")
        if record.gates and record.started_at is None:
            self._gates.take_back(record)
        self._place(record.moved(state, **changes))

    async def rescue(self) -> list[JobRecord]:
        """See `Store.rescue`."""
        now = self._clock.now()
        expired = [
            record
            for record in self._jobs.values()
            if record.state is JobState.RUNNING
            and record.lease_expires_at is not None
            and record.lease_expires_at <= now
        ]
        return [self._rescue(record, now) for record in expired]

    def _rescue(self, record: JobRecord, now: datetime) -> JobRecord:
        state, deaths, error = after_death(record, self._max_deaths)
        if record.started_at is not None:
            self._keep_attempt(record.id, lost_attempt(record, now))
        if state is JobState.PARKED:
            self._misfits.pop(record.id, None)
        if record.fire_time is not None and not _has_begun(record):
            if record.started_at is not None:
                self._amend(record, started_at=record.started_at)
            elif state is JobState.CANCELLED:
                self._amend(record, outcome="not_started")
        moved = record.moved(
            state,
            deaths=deaths,
            lost=record.lost + 1,
            error=error,
            worker=None,
            lease_expires_at=None,
            finished_at=now if state.is_finished else None,
        )
        self._place(moved)
        return moved

    async def register(
        self, worker: str, tasks: Mapping[str, str], *, queues: Collection[str] | None = None
    ) -> list[JobRecord]:
        """See `Store.register`."""
        now = self._clock.now()
        self._workers[worker] = WorkerRow(
            name=worker,
            host="",
            pid=os.getpid(),
            started_at=now,
            beat_at=now,
            tasks=dict(tasks),
            version=__version__,
            queues=None if queues is None else tuple(sorted(queues)),
        )
        fit = [
            self._jobs[job_id]
            for job_id, refused in self._misfits.items()
            if self._jobs[job_id].state is JobState.PARKED
            and tasks.get(self._jobs[job_id].task, None) not in (None, *refused)
        ]
        return [self._queue_again(people.unparked(record)) for record in fit]

    async def workers(self) -> list[WorkerRow]:
        """See `Store.workers`: they live as long as this process does."""
        return list(self._workers.values())

    async def beat(self, worker: str, vitals: Vitals | None = None) -> None:
        """See `Store.beat`. There is one worker process: this one."""
        if (row := self._workers.get(worker)) is not None:
            self._workers[worker] = changed(row, beat_at=self._clock.now(), vitals=vitals or row.vitals)

    # -- waiting --------------------------------------------------------------------------------------------------

    async def wait_claimable(self, limit: int = 1) -> None:
        """See `Store.wait_claimable`."""
        self._promote()
        await self._claimable.wait()

    def finished(self, job_id: str) -> asyncio.Future[JobRecord]:
        """See `Store.finished`."""
        ended = self._ends.wait(job_id)
        record = self._jobs.get(job_id)
        if record is None:
            self._ends.fail(job_id, UnknownJob(job_id))
        elif record.has_ended:
            self._ends.tell(record)
        return ended

    # -- batches --------------------------------------------------------------------------------------------------

    @property
    def _batches(self) -> Batches:
        if self._made_batches is None:
            from .memory_batches import Batches  # what most runs of an app never need

            self._made_batches = Batches(self._keep, self._is_batch_held)
        return self._made_batches

    async def feed_batch(self, part: BatchPart, jobs: Sequence[NewJob], *, wait: bool = True) -> BatchRow:
        """See `Store.feed_batch`."""
        if self._expect_part(part) and jobs:
            await self._room_for(jobs, wait=wait)
        if self._expect_part(part):  # the batch may have changed meanwhile
            self._expect_new(jobs)
            now = self._clock.now()
            self._batches.feed(part, len(jobs), now)
            for job in jobs:
                self._insert(job, now)
            self._batches.tell(part.batch)
        self._make_room()
        return self._batches.row(part.batch)

    def _expect_part(self, part: BatchPart) -> bool:
        """Return whether a part is what a batch takes next."""
        row = self._batches.find(part.batch)
        if row is None and part.first:
            raise UnknownBatch(part.batch)
        return row is None or row.takes(part)

    async def cancel_batch(self, batch_id: str) -> BatchRow:
        """See `Store.cancel_batch`."""
        self._batches.cancel(batch_id, self._clock.now())
        self._batches.tell(batch_id)
        return self._batches.row(batch_id)

    async def batch(self, batch_id: str) -> BatchRow:
        """See `Store.batch`."""
        return self._batches.row(batch_id)

    async def batches(self, *, limit: int = 100) -> list[BatchRow]:
        """See `Store.batches`."""
        return list(itertools.islice(self._batches.rows(), limit))

    async def batch_jobs(
        self, batch_id: str, *, first: int = 0, states: Collection[JobState] = (), limit: int = 100
    ) -> list[JobRecord]:
        """See `Store.batch_jobs`."""
        return list(itertools.islice(self._batches.jobs(self._jobs, batch_id, first, states), limit))

    async def batch_ends(self, batch_id: str, *, after: int = 0, limit: int = 100) -> list[tuple[int, JobRecord]]:
        """See `Store.batch_ends`."""
        return list(itertools.islice(self._batches.ends(self._jobs, batch_id, after), limit))

    def batch_when(self, batch_id: str, is_so: Callable[[BatchRow], bool]) -> asyncio.Future[BatchRow]:
        """See `Store.batch_when`."""
        told = self._batches.waits.wait(batch_id, is_so)
        row = self._batches.find(batch_id)
        if row is None:
            self._batches.waits.fail(batch_id, UnknownBatch(batch_id))
        else:
            self._batches.waits.tell([row])
        return told

    # -- people ---------------------------------------------------------------------------------------------------

    async def cancel(self, job_ids: Sequence[str], *, seen: JobState | None = None) -> list[JobRecord | None]:
        """See `Store.cancel`."""
        return [self._cancel(job_id) if self._is_in(job_id, seen) else None for job_id in job_ids]

    def _is_in(self, job_id: str, seen: JobState | None) -> bool:
        """Return whether a job is in the state in which somebody has seen it; None: in any."""
        return seen is None or (job_id in self._jobs and self._jobs[job_id].state is seen)

    async def retry(self, job_ids: Sequence[str], *, seen: JobState | None = None) -> list[JobRecord | None]:
        """See `Store.retry`."""
        return [self._retry(job_id) if self._is_in(job_id, seen) else None for job_id in job_ids]

    def _retry(self, job_id: str) -> JobRecord | None:
        record = self._jobs.get(job_id)
        if record is None or record.state not in RETRIABLE:
            return None
        if self._holder(record) is not None:
            return None
        self._misfits.pop(job_id, None)
        return self._queue_again(people.reopened(record, self._clock.now()))

    def _queue_again(self, record: JobRecord) -> JobRecord:
        """Let a job that had ended, or was parked, wait for a worker."""
        with suppress(ValueError):  # one that was parked and cancelled stands there once
            self._finished.remove(record.id)
        if record.schedule is not None:
            unfinished = (*self._unfinished.get(record.schedule, ()), record.id)
            self._unfinished[record.schedule] = dict.fromkeys(sorted(unfinished, key=self._places.__getitem__))
            self._reopen_answer(record)
        self._keep_record(record)
        if record.key is not None:
            self._keys[record.task, record.key] = record.id
        self._waiting_count += 1
        self._line_up(record)
        return record

    def _reopen_answer(self, record: JobRecord) -> None:
        """Let the row of the ledger say that its job is unfinished again."""
        answer = next((row for row in self._ledger.get(record.schedule or "", ()) if row.job_id == record.id), None)
        if answer is not None:
            again = {"outcome": "ran", "decided_by": ""} if answer.outcome in ("not_started", "missed") else {}
            self._amend(record, finished_at=None, state=None, started_at=None, **again)

    async def delete(self, job_ids: Sequence[str]) -> list[JobRecord | None]:
        """See `Store.delete`."""
        return [self._delete(job_id) for job_id in job_ids]

    def _delete(self, job_id: str) -> JobRecord | None:
        record = self._jobs.get(job_id)
        if record is None or record.state is JobState.RUNNING:
            return None
        if record.state in WAITING:
            self._cancel(job_id)
        with suppress(ValueError):
            self._finished.remove(job_id)
        self._forget(job_id)
        return record

    async def set_queue(self, name: str, *, paused: bool) -> bool:
        """See `Store.set_queue`."""
        if (name in self._paused) == paused:
            return False
        if paused:
            self._paused[name] = self._clock.now()
        else:
            del self._paused[name]
            self._claimable.set()
        return True

    async def queues(self) -> list[QueueRow]:
        """See `Store.queues`."""
        return people.queues(self._jobs.values(), self._paused, self._clock.now(), self._keep)

    async def paused_queues(self) -> dict[str, datetime]:
        """See `Store.paused_queues`."""
        return dict(sorted(self._paused.items()))

    async def page(self, query: JobQuery) -> Page:
        """See `Store.page`."""
        return people.page(reversed(self._jobs.values()), self._places, query)

    async def attempts(self, job_id: str) -> list[Attempt]:
        """See `Store.attempts`."""
        return list(self._attempts.get(job_id, ()))

    async def standing(self, job_id: str) -> Standing:
        """See `Store.standing`."""
        record = await self.job(job_id)
        if record.state not in WAITING:
            return Standing(job=record, key_held_by=self._holder(record))
        return Standing(
            job=record,
            behind=tuple(sorted(self._behind.get(job_id, ()))),
            queue_paused_at=self._paused.get(record.queue),
            ahead=people.ahead(self._jobs.values(), self._places, record, self._is_ready),
            gate=self._gates.blocker(job_id, self._clock.now()),
        )

    def _holder(self, record: JobRecord) -> str | None:
        """Return the id of the other unfinished job that has the key of one which may be retried."""
        other = self._with_key(record.task, record.key) if record.state in RETRIABLE else None
        return None if other is None or other.id == record.id else other.id

    def _is_ready(self, record: JobRecord) -> bool:
        """Return whether nothing keeps a queued job from being claimed."""
        if record.queue in self._paused or record.id in self._behind:
            return False
        return not record.gates or self._gates.has_passed(record.id)

    def _cancel(self, job_id: str, outcome: FireOutcome = "not_started") -> JobRecord | None:
        record = self._jobs.get(job_id)
        if record is None or record.state.is_finished:
            return None
        if record.state is JobState.RUNNING:
            self._jobs[job_id] = changed(record, cancel_requested=True)
        elif record.state is JobState.PARKED:  # its end is written already, all but the last word
            now = self._clock.now()
            self._keep_record(record.moved(JobState.CANCELLED, finished_at=now))
            if record.fire_time is not None:
                self._amend(record, finished_at=now, state=JobState.CANCELLED)
        else:
            self._waiting_count -= 1
            if record.state is JobState.SCHEDULED:
                self._stale += 1
                self._tidy()
            if record.fire_time is not None and not _has_begun(record):
                self._amend(record, outcome=outcome, decided_by=grace_of(record) if outcome == "missed" else "")
            self._place(record.moved(JobState.CANCELLED, finished_at=self._clock.now()))
            self._make_room()
        return self._jobs[job_id]

    async def prune(self) -> int:
        """Nothing to do: the bounds are kept with every write."""
        return 0

    async def job(self, job_id: str) -> JobRecord:
        """See `Store.job`."""
        try:
            return self._jobs[job_id]
        except KeyError:
            raise UnknownJob(job_id) from None

    async def jobs(
        self, *, state: JobState | None = None, schedule: str | None = None, limit: int = 100
    ) -> list[JobRecord]:
        """See `Store.jobs`."""
        matching = (
            record
            for record in reversed(self._jobs.values())
            if (state is None or record.state is state) and (schedule is None or record.schedule == schedule)
        )
        return list(itertools.islice(matching, limit))

    async def counts(self) -> dict[JobState, int]:
        """See `Store.counts`."""
        counts = dict.fromkeys(JobState, 0)
        for record in self._jobs.values():
            counts[record.state] += 1
        return counts

    async def ledger(self, schedule: str, *, limit: int = 100, at: datetime | None = None) -> list[Answer]:
        """See `Store.ledger`."""
        rows = reversed(self._ledger.get(schedule, ()))
        found = rows if at is None else (row for row in rows if row.first <= at <= row.last)
        return list(itertools.islice(found, limit))

    async def answer_of(self, schedule: str, job_id: str) -> Answer | None:
        """See `Store.answer_of`."""
        return next((row for row in reversed(self._ledger.get(schedule, ())) if row.job_id == job_id), None)


def _has_begun(record: JobRecord) -> bool:
    """Return whether an earlier claim of a job called its function."""
    return bool(record.attempt or record.deaths)
