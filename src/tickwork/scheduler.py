"""Due fire times become jobs: one heap, one sleeping task.

The scheduler sleeps until the earliest fire time, answers everything that is due then in one call of the store, and
sleeps again. What to do with a fire time is decided by `policies`, what has become of it is known by the store; here
is only the waiting. A trigger that raises puts its own schedule aside and no other.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import math
from collections import deque
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING, Any

from . import policies
from .clock import LATE_SECONDS
from .durations import format_seconds
from .errors import UnknownSchedule
from .events import ClockJumped, FireTimeAnswered, ScheduleBroken, SchedulePaused, ScheduleResumed, StoreFailed
from .jobs import NewJob, new_id
from .outage import Outage
from .shield import is_meant_for_us
from .stores.base import Declare, Firing, Pause, Remove
from .triggers import latest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from .clock import Clock
    from .events import Events
    from .policies import Due, Policies
    from .stores.base import Fired, ScheduleRow, Store
    from .tasks import AnyTask
    from .triggers import Trigger
    from .watchdog import Watchdog

logger: logging.Logger = logging.getLogger("tickwork.scheduler")

_LATE = timedelta(seconds=LATE_SECONDS)

RETRY_STORE_SECONDS = 1.0
"""How soon a store that raised is asked again. The fire times wait: nothing is lost by it."""

PREPARED_AT_ONCE = 50
"""How many fire times are prepared between two turns of the loop: about a millisecond."""

AT_ONCE = 1000
"""How many schedules are answered in one pass in memory: it takes some 20 ms, in which the loop does nothing else. In
smaller parts, the ends of the first jobs would make the last ones begin later. A durable store flushes once for all of
them, so there they are answered together."""


@dataclass(slots=True, eq=False)
class Prepared:
    """What was decided in advance about a fire time: it holds while the row is this one, and until an instant."""

    row: ScheduleRow
    until: datetime
    firings: list[Firing]
    runs: list[tuple[str, Any]]
    """What is ready to run, by the ids of jobs that are still to be made."""


@dataclass(slots=True, eq=False)
class Entry:
    """A schedule as the scheduler holds it."""

    name: str
    task: AnyTask
    trigger: Trigger
    """Within the bounds that the policies set."""
    policies: Policies
    row: ScheduleRow | None = None
    """What the store has; None before the app has started."""
    next_at: datetime | None = None
    """The next fire time; None: paused, finished, broken, or waiting for the end of its job."""
    broken: BaseException | None = None
    """What its trigger raised, when it did."""
    fingerprint: str = ""
    """What it was declared with: the trigger's, and what else changes its meaning."""
    skips: int = 0
    """Fire times skipped in a row."""
    known: tuple[datetime, datetime | None] | None = None
    """A fire time and the next one, as the trigger said last."""
    ticket: int = 0
    """Which heap entry is the valid one."""
    prepared: Prepared | None = None
    """What was decided about the next fire time; None: nothing yet."""


class Scheduler:
    """Answers the fire times of its schedules.

    Args:
        store: Takes the firings.
        clock: Tells the time and wakes it.
        cancel: Cancels a job that runs in this process; the store tells other processes.
        events: Hears what happens.
        watchdog: Finds out what held the loop when a fire time was due; None: nobody does.
        random: Draws the jitter.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        cancel: Callable[[str], object],
        *,
        events: Events,
        watchdog: Watchdog | None = None,
        random: Random | None = None,
    ) -> None:
        self._cancel = cancel
        self._random = random or Random()
        self._store = store
        self._clock = clock
        self._ahead = timedelta(seconds=clock.ahead_seconds)
        self._horizon = clock.now()
        """Up to here, it was looked for what can be prepared."""
        self._coming: deque[Entry] = deque()
        """Whose next fire time is to be prepared."""
        self._events = events
        self._watchdog = watchdog
        self.entries: dict[str, Entry] = {}
        self._outvoted: dict[str, Entry] = {}
        """Schedules that another process has declared with another trigger, as in a deployment."""
        self._heap: list[tuple[datetime, int, Entry]] = []
        self._tickets = itertools.count(1)
        self._changed = asyncio.Event()
        self._stale: set[str] = set()
        self.settle: Callable[[], Awaitable[object]] = _nothing
        """Awaited before fire times are answered: what is known of the ends of jobs is in the store then."""
        self.let_begin: Callable[[], Awaitable[object]] = _nothing
        """Awaited when they are answered: their jobs begin before their next fire times are looked for."""
        self.make_ready: Callable[[NewJob], Any] = _none
        """Called with a job that is about to be made; returns what is ready to run it, or None."""
        self.ready: dict[str, Any] = {}
        """What is ready to run, by job, while fire times are answered."""
        self._jumped: float = 0.0
        self.last_pass_at: datetime | None = None
        """When the last pass was made."""
        self._outage = Outage(logger, clock, "the store takes fire times again")
        self.store_error: BaseException | None = None
        """What the store raised in the last pass; None: it did not."""

    # -- schedules --------------------------------------------------------------------------------------------------

    async def add(self, *entries: Entry) -> None:
        """Take schedules in, in one call of the store: make their rows known to it and plan their next fire times."""
        now = self._clock.now()
        declared = [(entry, declare) for entry in entries if (declare := self._declare(entry, now)) is not None]
        rows = await self._store.set_schedule([declare for _, declare in declared])
        firings = []
        for (entry, _), row in zip(declared, rows, strict=True):
            assert row is not None
            entry.row = row
            if policies.is_due_at_once(row, entry.policies, now):
                firings.append((entry, _firing(entry, row.version, row.watermark, self._job(entry, now, now))))
        answers = await self._fire([firing for _, firing in firings])
        for (entry, firing), answer in zip(firings, answers, strict=True):
            self._take(entry, firing, answer)
        for entry in entries:
            self._outvoted.pop(entry.name, None)
            self.entries[entry.name] = entry
            self._plan(entry)
            if entry.next_at is None and entry.broken is None and _is_finished(entry):
                text = "its trigger" if entry.row is None else entry.row.trigger
                logger.warning("schedule %s will not run: %s has no fire time after now", entry.name, text)

    def _declare(self, entry: Entry, now: datetime) -> Declare | None:
        """Return the declaration of a schedule; None where its trigger raises, which sets it aside."""
        entry.broken = entry.known = None  # it is asked anew
        try:
            text = entry.trigger.fingerprint
            entry.fingerprint = f"{text} after end" if entry.policies.after == "end" else text
            return Declare(
                name=entry.name,
                task=entry.task.name,
                trigger=repr(entry.trigger),
                fingerprint=entry.fingerprint,
                after_seconds=policies.period_after_end(entry.trigger, entry.policies),
                next_at=policies.first_after_end(entry.trigger, entry.policies, now),
            )
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            self._set_aside(entry, error)
            return None

    async def remove(self, name: str) -> None:
        """Forget a schedule. Its jobs stay."""
        entry = self.entry(name)
        await self._store.set_schedule([Remove(name=name)])
        del self.entries[name]
        entry.ticket = 0
        if len(self._heap) > 2 * len(self.entries) + 64:  # removed ones would stay until they are due
            self._heap = [line for line in self._heap if line[1] == line[2].ticket]
            heapq.heapify(self._heap)

    async def pause(self, name: str, *, paused: bool) -> None:
        """Pause or resume a schedule; resuming starts from now.

        One whose trigger has raised goes on where that was, so `catch_up` decides about what has passed since.
        """
        entry = self.entry(name)
        if entry.row is None:  # its trigger raised before the store had heard of it
            if not paused:
                await self.add(entry)
            return
        change = Pause(name=name, paused=True) if paused else await self._resume(entry)
        if change is None:
            return
        entry.row = (await self._store.set_schedule([change]))[0]
        entry.broken = entry.known = None  # it is asked anew
        self._plan(entry)
        self._events.emit(SchedulePaused(schedule=name) if paused else ScheduleResumed(schedule=name))

    async def _resume(self, entry: Entry) -> Pause | None:
        """Return the change that resumes a schedule, with what passed while it was paused.

        None when its trigger raises: it stays paused, since what has passed could not be answered.
        """
        rows = await self._store.schedules([entry.name])  # the end of a job may have changed it just now
        now = self._clock.now()
        try:
            return resumption(entry, rows[0] if rows else None, now)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            self._set_aside(entry, error)
            return None

    async def run_now(self, name: str) -> Fired:
        """Make a job now. Overlap applies; the schedule's own fire times do not move."""
        entry = self.entry(name)
        firing = Firing(
            schedule=name,
            version=None,
            watermark=None,
            job=self._job(entry, None, self._clock.now()),
            overlap=entry.policies.overlap,
        )
        fired = (await self._fire([firing]))[0]
        self._stop_replaced(entry, fired)
        return fired

    def entry(self, name: str) -> Entry:
        """Return a schedule by name, or raise UnknownSchedule."""
        try:
            return self.entries[name]
        except KeyError:
            raise UnknownSchedule(name, list(self.entries)) from None

    def job_ended(self, name: str) -> None:
        """Hear that a job of a schedule has ended: with `after="end"` that sets the next fire time."""
        entry = self.entries.get(name)
        if entry is not None and entry.policies.after == "end":
            self._stale.add(name)
            self._changed.set()

    def schedules_changed(self) -> None:
        """Hear that another process has changed schedules: their rows are read anew."""
        self._stale |= self.entries.keys() | self._outvoted.keys()
        self._changed.set()

    @property
    def has_plans(self) -> bool:
        """Whether any fire time is lined up for; without one there is nothing to look at."""
        return any(entry.next_at is not None for entry in self.entries.values())

    # -- the loop ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Answer fire times, for ever."""
        self._clock.jump()  # what the clock did before the start is no news
        while True:
            self._note_jump()
            now = self.last_pass_at = self._clock.now()
            due = self._pop_due(now)
            is_well = await self._refresh()
            if due:
                is_well = await self._answer(due, now) and is_well
            elif is_well and self._ahead and self._prepare(now):
                await asyncio.sleep(0)
                continue
            if is_well:
                self.store_error = None
                self._outage.over()
                await self._sleep()
            else:
                await self._pause()

    async def _refresh(self) -> bool:
        """Look anew at the rows that a job's end has changed, and return whether the store could be asked."""
        if not self._stale:
            return True
        names, self._stale = self._stale, set()
        try:
            rows = await self._store.schedules(names)
        except BaseException as error:
            self._stale |= names
            if is_meant_for_us(error):
                raise
            self._outage.tell(error, "the store failed to show %d schedules; asking again", len(names))
            self._store_failed("schedules", error)
            return False
        for row in rows:
            entry = self.entries.get(row.name)
            if entry is None:
                self._take_back(row)
            elif self._keep(entry, row):
                self._plan(entry)
        return True

    def _take_back(self, row: ScheduleRow) -> None:
        """Fire a schedule again whose trigger is this process's once more, as when a deployment is rolled back."""
        entry = self._outvoted.get(row.name)
        if entry is not None and entry.fingerprint == row.fingerprint:
            logger.warning("schedule %s has its old trigger in the store again, so this process fires it", row.name)
            self.entries[row.name] = self._outvoted.pop(row.name)
            entry.row = row
            self._plan(entry)

    async def _sleep(self) -> None:
        """Sleep until the next fire time, or until something changes."""
        if self._stale:
            return
        self._changed.clear()  # whatever set it is in the heap
        while self._heap and self._heap[0][1] != self._heap[0][2].ticket:
            heapq.heappop(self._heap)
        timer = None
        if self._heap:
            at = self._heap[0][0]
            if at <= self._clock.now():
                await asyncio.sleep(0)  # a schedule as fast as this loop must leave turns to the others
                return
            early = max(at - self._ahead, self._horizon - self._ahead / 2)  # when there is something to prepare
            is_ahead = self._horizon < at and self._clock.now() < early
            timer = self._clock.call_at(early if is_ahead else at, self._changed.set)
        if self._watchdog is not None:
            self._watchdog.expect(self._mono(self._heap[0][0]) if self._heap else None)
        try:
            await self._changed.wait()
        finally:
            if timer is not None:
                timer.cancel()
            if self._watchdog is not None:
                self._watchdog.expect(None)  # it came
        if timer is None:
            self._clock.jump()  # it moved while nothing was planned, or was slewed for hours: that made no difference

    async def _pause(self) -> None:
        """Give a store that raised some time, whatever changes meanwhile."""
        over = asyncio.Event()
        timer = self._clock.call_later(RETRY_STORE_SECONDS, over.set)
        try:
            await over.wait()
        finally:
            timer.cancel()

    def _note_jump(self) -> None:
        self._jumped = moved = self._clock.jump()
        if not moved:
            return
        self._events.emit(ClockJumped(seconds=moved))
        if moved > 0:
            logger.warning(
                "the clock went forwards by %s, set or asleep; what fell due is answered now",
                format_seconds(round(moved, 3)),
            )
        else:
            logger.warning(
                "the clock was set back by %s; no fire time is answered twice, so schedules go on when it has come "
                "as far again",
                format_seconds(round(-moved, 3)),
            )

    def _pop_due(self, now: datetime) -> list[Entry]:
        """Return what is due; of a store whose calls are cheap, a few at a time, so that the first can begin."""
        most = math.inf if self._store.capabilities.durable else AT_ONCE
        due: list[Entry] = []
        while self._heap and self._heap[0][0] <= now and len(due) < most:
            _, ticket, entry = heapq.heappop(self._heap)
            if ticket == entry.ticket:  # else it was planned anew, or removed
                due.append(entry)
        return due

    def _prepare(self, now: datetime) -> bool:
        """Prepare some of what falls due in a moment, as if that had come, and return whether there is more of it."""
        if now + self._ahead / 2 >= self._horizon:
            self._look_ahead(now + self._ahead * 1.5)  # also what comes so soon after that no time is left for it
        coming = self._coming
        for _ in range(min(PREPARED_AT_ONCE, len(coming))):
            entry = coming.popleft()
            if entry.row is None or entry.next_at is None or entry.prepared is not None:
                continue
            try:
                entry.prepared = self._prepared(entry, entry.row, entry.next_at)
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                # It is raised again, and told, when the time has come.
        return bool(coming)

    def _look_ahead(self, until: datetime) -> None:
        """Find the schedules that are due until then."""
        self._horizon = until
        self._coming.clear()
        heap, places = self._heap, [0]
        while places and len(self._coming) < AT_ONCE:
            place = places.pop()
            if place < len(heap) and heap[place][0] <= until:
                _, ticket, entry = heap[place]
                places += (2 * place + 1, 2 * place + 2)
                if ticket == entry.ticket and entry.prepared is None:
                    self._coming.append(entry)

    def _prepared(self, entry: Entry, row: ScheduleRow, at: datetime) -> Prepared | None:
        found = policies.due(entry.trigger, row, at, entry.policies, entry.known)
        if found is None or found.missed != 0:
            return None
        firings = [self._store.stage(firing) for firing in self._firings(entry, row, found, at)]
        jobs = [firing.job for firing in firings if firing.job is not None]
        runs = [(job.id, run) for job in jobs if (run := self.make_ready(job)) is not None]
        return Prepared(row, policies.holds_until(found, at, entry.policies), firings, runs)

    async def _answer(self, due: list[Entry], now: datetime) -> bool:
        """Fire all that is due in one call, and return whether the store took it."""
        decided = [(entry, firing) for entry in due for firing in self._decide(entry, now)]
        try:
            answers = await self._fire([firing for _, firing in decided])
        except BaseException as error:
            if is_meant_for_us(error):
                raise
            self.ready.clear()
            self._outage.tell(error, "the store failed to take %d fire times; trying again", len(decided))
            self._store_failed("fire", error)
            for entry in due:
                if self.entries.get(entry.name) is entry:
                    self._push(entry, entry.next_at)
            return False
        is_heard, entries = self._events.wants(FireTimeAnswered), self.entries
        for (entry, firing), answer in zip(decided, answers, strict=True):
            if entries.get(entry.name) is not entry:  # it was removed meanwhile
                continue
            row = answer.row
            if (
                answer.outcome == "ran"
                and row is not None
                and row.fingerprint == entry.fingerprint
                and not (entry.skips or answer.cancelled or is_heard)
            ):
                entry.row = row  # there is nothing to tell, as nearly always
            else:
                self._take(entry, firing, answer)
        await self.let_begin()
        self.ready.clear()
        for entry in due:
            if self.entries.get(entry.name) is entry:
                self._plan(entry)
        return True

    async def _fire(self, firings: list[Firing]) -> list[Fired]:
        if not firings:
            return []
        await self.settle()
        return await self._store.fire(firings)

    def _mono(self, at: datetime) -> float:
        """Return the reading that the monotonic clock shows at an instant, if nobody sets the wall clock."""
        return self._clock.monotonic() + (at - self._clock.now()).total_seconds()

    def _store_failed(self, doing: str, error: BaseException) -> None:
        self.store_error = error
        self._events.emit(StoreFailed(doing=doing, error=error))

    def _decide(self, entry: Entry, now: datetime) -> list[Firing]:
        """Return the answers to the fire times of a schedule that have come, in their order."""
        row = entry.row
        prepared, entry.prepared = entry.prepared, None
        if row is None or entry.broken is not None:
            return []
        if prepared is not None and prepared.row is row and now < prepared.until:
            self.ready.update(prepared.runs)
            return prepared.firings
        try:
            found = policies.due(entry.trigger, row, now, entry.policies, entry.known)
            if found is None:
                return []
            firings = self._firings(entry, row, found, now)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            self._set_aside(entry, error)
            return []
        if found.missed != 0:
            logger.warning(
                "schedule %s: %s fire times passed while nothing could run, from %s on; %s%s",
                entry.name,
                "many" if found.missed is None else found.missed,
                found.missed_first and found.missed_first.isoformat(),
                _runs_now(found.runs),
                f"; {because}" if (because := firings[0].late_because) else "",
            )
        return firings

    def _firings(self, entry: Entry, row: ScheduleRow, found: Due, now: datetime) -> list[Firing]:
        entry.known = found.known
        jobs = [self._job(entry, fire_time, now) for fire_time in found.runs]
        late_because = self._late_because(found, now)
        firings = []
        for number, job in enumerate(jobs or [None]):
            is_first = number == 0  # what was missed lies before it
            firings.append(
                Firing(
                    schedule=entry.name,
                    # Each firing moves the row on by one version, so the next one of this call expects that.
                    version=row.version + number,
                    watermark=found.watermark if job is None or job.fire_time is None else job.fire_time,
                    job=job,
                    overlap=entry.policies.overlap,
                    missed_first=found.missed_first if is_first else None,
                    missed_last=found.missed_last if is_first else None,
                    missed_count=found.missed if is_first else 0,
                    decided_by=found.decided_by if is_first else "",
                    late_because=late_because,
                    next_at=found.next_at,
                )
            )
        return firings

    def _late_because(self, found: Due, now: datetime) -> str | None:
        """Say what made this pass late, where it is late and that is known."""
        lateness = now - (found.missed_first or (found.runs[0] if found.runs else now))
        if lateness <= _LATE:
            return None
        late = lateness.total_seconds()
        if self._jumped > 0:
            return f"the clock went forwards by {format_seconds(round(self._jumped, 3))}, set or asleep"
        mono = self._clock.monotonic()
        hold = None if self._watchdog is None else self._watchdog.covering(mono - late, mono)
        return None if hold is None else f"the loop was held by {hold}"

    def _job(self, entry: Entry, fire_time: datetime | None, now: datetime) -> NewJob:
        run_at, rules, task, options = fire_time or now, entry.policies, entry.task, entry.task.options_
        if fire_time is not None and rules.jitter:
            following = None
            if rules.after is None:
                known = entry.known
                is_known = known is not None and known[0] == fire_time
                following = known[1] if known is not None and is_known else entry.trigger.next(fire_time)
            run_at = policies.wanted_at(fire_time, following, rules, self._random.random())
        return NewJob(
            id=new_id(now),
            task=task.name,
            payload=task.codec.encode(),
            run_at=run_at,
            start_by=None if fire_time is None or rules.grace is None else run_at + timedelta(seconds=rules.grace),
            queue=options.queue,
            priority=options.priority,
            is_once=options.delivery == "at_most_once",
            schedule=entry.name,
            fire_time=fire_time,
            # No key: whether a job is made while another is unfinished, the overlap says.
            gates=() if entry.task.labels is None else entry.task.labels.of((), {})[1],
        )

    def _take(self, entry: Entry, firing: Firing, answer: Fired) -> None:
        """Keep what the store answered, and tell of it."""
        if not self._keep(entry, answer.row) or answer.outcome is None:
            return  # another process was first: the next pass decides on what it left
        self._tell(entry, firing, answer)
        self._stop_replaced(entry, answer)

    def _keep(self, entry: Entry, row: ScheduleRow | None) -> bool:
        """Keep a row that the store has shown; False: it is not this process's to fire any more."""
        entry.row = row
        if row is not None and row.fingerprint == entry.fingerprint:
            return True
        why = "is gone from the store" if row is None else "has another trigger in the store now"
        logger.warning("schedule %s %s, so this process stops firing it", entry.name, why)
        if self.entries.get(entry.name) is entry:
            del self.entries[entry.name]
            self._outvoted[entry.name] = entry
        entry.row = entry.next_at = None
        entry.ticket = 0
        return False

    def _tell(self, entry: Entry, firing: Firing, answer: Fired) -> None:
        """Log a fire time that made no job, and emit what became of those answered."""
        if answer.outcome == "skipped":
            entry.skips += 1
            level = logging.WARNING if entry.skips == 1 else logging.DEBUG  # the ledger has each of them
            logger.log(level, "schedule %s skipped: its last job %s is not finished", entry.name, answer.blocked_by)
        elif answer.outcome == "ran" and entry.skips:
            if entry.skips > 1:
                logger.info("schedule %s runs again; it has skipped %d fire times", entry.name, entry.skips)
            entry.skips = 0
        elif answer.outcome == "merged":
            logger.info("schedule %s merged into job %s, which waits", entry.name, answer.blocked_by)
        if not self._events.wants(FireTimeAnswered):
            return
        if firing.missed_first is not None and firing.missed_last is not None:
            self._events.emit(
                FireTimeAnswered(
                    schedule=entry.name,
                    first=firing.missed_first,
                    last=firing.missed_last,
                    count=firing.missed_count,
                    outcome="missed",
                )
            )
        fire_time = firing.job.fire_time if firing.job is not None else None
        if fire_time is not None and answer.outcome is not None:
            self._events.emit(
                FireTimeAnswered(
                    schedule=entry.name,
                    first=fire_time,
                    last=fire_time,
                    count=1,
                    outcome=answer.outcome,
                    job_id=None if answer.job is None else answer.job.id,
                    blocked_by=answer.blocked_by,
                )
            )

    def _stop_replaced(self, entry: Entry, answer: Fired) -> None:
        for job_id in answer.cancelled:
            logger.warning("schedule %s replaces job %s, which is cancelled", entry.name, job_id)
            self._cancel(job_id)

    def _plan(self, entry: Entry) -> None:
        """Find the next fire time and line up for it."""
        row = entry.row
        at = None
        if row is not None and entry.broken is None:
            try:
                at = policies.following(entry.trigger, row, entry.policies, entry.known)
                if at is not None and at <= row.watermark and entry.policies.after is None:
                    raise ValueError(f"{entry.trigger!r} says that {at} comes after {row.watermark}")
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                self._set_aside(entry, error)
                at = None
        self._push(entry, at)

    def _push(self, entry: Entry, at: datetime | None) -> None:
        entry.next_at = at
        entry.ticket = next(self._tickets)
        if at is not None:
            heapq.heappush(self._heap, (at, entry.ticket, entry))
        self._changed.set()

    def _set_aside(self, entry: Entry, error: BaseException) -> None:
        entry.broken = error
        logger.error(
            "the trigger of schedule %s raised, so it stops; resume() tries it again", entry.name, exc_info=error
        )
        self._events.emit(ScheduleBroken(schedule=entry.name, error=error))


async def _nothing() -> None:
    """Nothing is put off."""


def _none(job: NewJob) -> None:
    """Nothing is made ready."""


def resumption(entry: Entry, row: ScheduleRow | None, now: datetime) -> Pause:
    """Return the change that resumes a schedule now, with what passed in the pause. Raises what the trigger does."""
    first, last, count = passed_in_pause(entry.trigger, row, entry.policies, now)
    return Pause(
        name=entry.name,
        paused=False,
        passed_first=first,
        passed_last=last,
        passed_count=count,
        next_at=policies.first_after_end(entry.trigger, entry.policies, now),
        watermark=now,
    )


def passed_in_pause(
    trigger: Trigger, row: ScheduleRow | None, rules: Policies, now: datetime
) -> tuple[datetime | None, datetime | None, int | None]:
    """Return the first and the last fire time that have passed since a schedule was paused, and how many.

    (None, None, 0): it is not paused, or finished, or none has passed. Raises what the trigger does.
    """
    if row is None or not row.paused or policies.runs_left(row, rules) == 0:
        return None, None, 0
    if row.after_seconds is not None:
        is_past = row.next_at is not None and row.next_at <= now
        return (row.next_at, row.next_at, 1) if is_past else (None, None, 0)
    return latest(trigger, row.watermark, now)


def _is_finished(entry: Entry) -> bool:
    """Return whether a schedule without a next fire time never has one again."""
    row = entry.row
    return row is not None and not row.paused and (row.after_seconds is None or row.next_at is not None)


def _runs_now(runs: tuple[datetime, ...]) -> str:
    if not runs:
        return "none of them runs"
    return f"the latest, {runs[-1].isoformat()}, runs now" if len(runs) == 1 else f"the latest {len(runs)} run now"


def _firing(entry: Entry, version: int, watermark: datetime, job: NewJob | None) -> Firing:
    return Firing(schedule=entry.name, version=version, watermark=watermark, job=job, overlap=entry.policies.overlap)
