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
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING

from . import policies
from .durations import format_seconds
from .errors import UnknownSchedule
from .jobs import NewJob, new_id
from .stores.base import Declare, Firing, Pause, Remove
from .triggers import latest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from .clock import Clock
    from .policies import Policies
    from .stores.base import Fired, ScheduleRow, Store
    from .tasks import AnyTask
    from .triggers import Trigger

logger: logging.Logger = logging.getLogger("tickwork.scheduler")

RETRY_STORE_SECONDS = 1.0
"""How soon a store that raised is asked again. The fire times wait: nothing is lost by it."""


@dataclass(slots=True, eq=False)
class Entry:
    """A schedule as the scheduler holds it."""

    name: str
    task: AnyTask
    trigger: Trigger
    policies: Policies
    row: ScheduleRow | None = None
    """What the store has; None before the app has started."""
    next_at: datetime | None = None
    """The next fire time; None: paused, finished or broken."""
    broken: BaseException | None = None
    """What its trigger raised, when it did."""
    ticket: int = field(default=0)
    """Which heap entry is the valid one."""


class Scheduler:
    """Answers the fire times of its schedules.

    Args:
        store: Takes the firings.
        clock: Tells the time and wakes it.
        cancel: Cancels a job that runs in this process; the store tells other processes.
        random: Draws the jitter.
    """

    def __init__(
        self, store: Store, clock: Clock, cancel: Callable[[str], object], random: Random | None = None
    ) -> None:
        self._cancel = cancel
        self._random = random or Random()
        self._store = store
        self._clock = clock
        self.entries: dict[str, Entry] = {}
        self._heap: list[tuple[datetime, int, Entry]] = []
        self._tickets = itertools.count(1)
        self._changed = asyncio.Event()
        self.last_pass_at: datetime | None = None
        """When the last pass was made."""

    # -- schedules --------------------------------------------------------------------------------------------------

    async def start(self, entries: Sequence[Entry]) -> None:
        """Take schedules in: make their rows known to the store, all in one call, and plan their next fire times."""
        rows = await self._store.set_schedule([_declare(entry) for entry in entries])
        for entry, row in zip(entries, rows, strict=True):
            assert row is not None
            await self._take_in(entry, row)

    async def add(self, entry: Entry) -> None:
        """Take one schedule in; see `start`."""
        await self.start([entry])

    async def _take_in(self, entry: Entry, row: ScheduleRow) -> None:
        entry.row = row
        if row.version == 1 and entry.policies.first == "now" and not row.paused:
            now = self._clock.now()
            firing = Firing(
                schedule=entry.name,
                version=row.version,
                watermark=row.watermark,
                job=self._job(entry, now),
                overlap=entry.policies.overlap,
            )
            self._take(entry, (await self._store.fire([firing]))[0])
        self.entries[entry.name] = entry
        self._plan(entry)
        if entry.next_at is None and entry.broken is None and not row.paused:
            logger.warning("schedule %s will not run: %r has no fire time after now", entry.name, entry.trigger)

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
        """Pause or resume a schedule; resuming starts from now, also for one whose trigger has raised."""
        entry = self.entry(name)
        change = Pause(name=name, paused=True) if paused else self._resume(entry)
        entry.row = (await self._store.set_schedule([change]))[0]
        entry.broken = None
        self._plan(entry)

    def _resume(self, entry: Entry) -> Pause:
        """Return the change that resumes a schedule, with what passed while it was paused."""
        passed: tuple[datetime | None, datetime | None, int | None] = (None, None, 0)
        if entry.row is not None and entry.row.paused:
            try:
                passed = latest(entry.trigger, entry.row.watermark, self._clock.now())
            except Exception:  # it is planned anew right after this, and set aside then
                logger.debug("schedule %s: its trigger raised while it was resumed", entry.name, exc_info=True)
        first, last, count = passed
        return Pause(name=entry.name, paused=False, passed_first=first, passed_last=last, passed_count=count)

    async def run_now(self, name: str) -> Fired:
        """Make a job now. Overlap applies; the schedule's own fire times do not move."""
        entry = self.entry(name)
        firing = Firing(
            schedule=name,
            version=None,
            watermark=None,
            job=self._job(entry, None),
            overlap=entry.policies.overlap,
        )
        fired = (await self._store.fire([firing]))[0]
        self._stop_replaced(entry, fired)
        return fired

    def entry(self, name: str) -> Entry:
        """Return a schedule by name, or raise UnknownSchedule."""
        try:
            return self.entries[name]
        except KeyError:
            raise UnknownSchedule(name, list(self.entries)) from None

    # -- the loop ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Answer fire times, for ever."""
        self._clock.jump()  # what the clock did before the start is no news
        while True:
            self._note_jump()
            now = self.last_pass_at = self._clock.now()
            due = self._pop_due(now)
            if due and not await self._answer(due, now):
                await self._pause()
            else:
                await self._sleep()

    async def _sleep(self) -> None:
        """Sleep until the next fire time, or until something changes."""
        self._changed.clear()  # whatever set it is in the heap
        while self._heap and self._heap[0][1] != self._heap[0][2].ticket:
            heapq.heappop(self._heap)
        timer = None
        if self._heap:
            at = self._heap[0][0]
            if at <= self._clock.now():
                await asyncio.sleep(0)  # a schedule as fast as this loop must leave turns to the others
                return
            timer = self._clock.call_at(at, self._changed.set)
        try:
            await self._changed.wait()
        finally:
            if timer is not None:
                timer.cancel()
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
        moved = self._clock.jump()
        if moved > 0:
            logger.warning(
                "the clock went forwards by %s, set or asleep; what fell due is answered now",
                format_seconds(round(moved, 3)),
            )
        elif moved < 0:
            logger.warning(
                "the clock was set back by %s; no fire time is answered twice, so schedules go on when it has come "
                "as far again",
                format_seconds(round(-moved, 3)),
            )

    def _pop_due(self, now: datetime) -> list[Entry]:
        due = []
        while self._heap and self._heap[0][0] <= now:
            _, ticket, entry = heapq.heappop(self._heap)
            if ticket == entry.ticket:  # else it was planned anew, or removed
                due.append(entry)
        return due

    async def _answer(self, due: list[Entry], now: datetime) -> bool:
        """Fire all that is due in one call, and return whether the store took it."""
        decided = [(entry, firing) for entry in due for firing in self._decide(entry, now)]
        try:
            answers = await self._store.fire([firing for _, firing in decided]) if decided else []
        except Exception:
            logger.exception("the store failed to take %d fire times; trying again", len(decided))
            for entry in due:
                self._push(entry, entry.next_at)
            return False
        for (entry, _), answer in zip(decided, answers, strict=True):
            if self.entries.get(entry.name) is entry:  # else it was removed meanwhile
                self._take(entry, answer)
        for entry in due:
            if self.entries.get(entry.name) is entry:
                self._plan(entry)
        return True

    def _decide(self, entry: Entry, now: datetime) -> list[Firing]:
        """Return the answers to the fire times of a schedule that have come, in their order."""
        row = entry.row
        if row is None or row.paused or entry.broken is not None:
            return []
        try:
            found = policies.due(entry.trigger, row.watermark, now, entry.policies)
            if found is None:
                return []
            jobs = [self._job(entry, fire_time) for fire_time in found.runs]
        except Exception as error:
            self._set_aside(entry, error)
            return []
        if found.missed != 0:
            logger.warning(
                "schedule %s: %s fire times passed while nothing could run, from %s on; %s",
                entry.name,
                "many" if found.missed is None else found.missed,
                found.missed_first and found.missed_first.isoformat(),
                _runs_now(found.runs),
            )
        firings = []
        for number, job in enumerate(jobs or [None]):
            # Each firing moves the row on by one version, so the next one of this call expects that.
            firings.append(
                Firing(
                    schedule=entry.name,
                    version=row.version + number,
                    watermark=found.watermark if job is None or job.fire_time is None else job.fire_time,
                    job=job,
                    overlap=entry.policies.overlap,
                    missed_first=found.missed_first if number == 0 else None,
                    missed_last=found.missed_last if number == 0 else None,
                    missed_count=found.missed if number == 0 else 0,
                )
            )
        return firings

    def _job(self, entry: Entry, fire_time: datetime | None) -> NewJob:
        now = self._clock.now()
        run_at, rules = now, entry.policies
        if fire_time is not None:
            following = entry.trigger.next(fire_time) if rules.jitter else None
            run_at = policies.start_at(fire_time, following, rules, self._random.random())
        return NewJob(
            id=new_id(now),
            task=entry.task.name,
            payload=entry.task.codec.encode((), {}),
            run_at=run_at,
            start_by=None if fire_time is None or rules.grace is None else run_at + timedelta(seconds=rules.grace),
            queue=entry.task.options_.queue,
            priority=entry.task.options_.priority,
            schedule=entry.name,
            fire_time=fire_time,
        )

    def _take(self, entry: Entry, answer: Fired) -> None:
        """Keep what the store answered."""
        if answer.row is None:
            logger.warning("schedule %s is gone from the store and stops", entry.name)
            self.entries.pop(entry.name, None)
        entry.row = answer.row
        if answer.outcome == "skipped":
            logger.warning("schedule %s skipped: its last job %s is not finished", entry.name, answer.blocked_by)
        elif answer.outcome == "merged":
            logger.info("schedule %s merged into job %s, which waits", entry.name, answer.blocked_by)
        self._stop_replaced(entry, answer)

    def _stop_replaced(self, entry: Entry, answer: Fired) -> None:
        for job_id in answer.cancelled:
            logger.warning("schedule %s replaces job %s, which is cancelled", entry.name, job_id)
            self._cancel(job_id)

    def _plan(self, entry: Entry) -> None:
        """Find the next fire time and line up for it."""
        row = entry.row
        at = None
        if row is not None and not row.paused and entry.broken is None:
            try:
                at = entry.trigger.next(row.watermark)
                if at is not None and at <= row.watermark:
                    raise ValueError(f"{entry.trigger!r} says that {at} comes after {row.watermark}")
            except Exception as error:
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


def _runs_now(runs: tuple[datetime, ...]) -> str:
    if not runs:
        return "none of them runs"
    return f"the latest, {runs[-1].isoformat()}, runs now" if len(runs) == 1 else f"the latest {len(runs)} run now"


def _declare(entry: Entry) -> Declare:
    return Declare(
        name=entry.name, task=entry.task.name, trigger=repr(entry.trigger), fingerprint=entry.trigger.fingerprint
    )
