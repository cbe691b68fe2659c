"""Limits and rates in memory: which of the queued jobs stand before a closed gate, and when it opens.

What `sqlite_limits` does with indexes, done with heaps. A job passes its gates one after the other; at each, as many
queued jobs have passed as there is room for, or all there are, and those are the first ones by priority and arrival.
The room is counted: a limit less the jobs that run, a rate less the starts of its period.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from ..limits import Limits, is_rate, key_of
from .blockers import MAX_HOLDERS, Blocker

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from ..jobs import JobRecord

Rank = tuple[int, int]
"""Minus the priority, and the order of arrival: the smaller goes first."""

_NO_LIMITS = Limits()


@dataclass(slots=True, eq=False)
class _Gate:
    """One gate of a task, and the jobs at it."""

    task: str
    name: str
    waiting: list[tuple[Rank, _Entry]] = field(default_factory=list)
    """A heap; entries that have gone elsewhere stay until they come up, or are too many."""
    waiting_count: int = 0
    passed: dict[str, _Entry] = field(default_factory=dict)
    """Queued jobs by id."""
    running: dict[str, None] = field(default_factory=dict)
    starts: deque[tuple[datetime, str]] = field(default_factory=deque)
    job_count: int = 0
    """How many queued and running jobs have it, wherever they are."""
    alarm: tuple[datetime, bool] | None = None
    """When the next start no longer counts, and whether jobs wait for that: what stands in one of the heaps."""

    def first_waiting(self) -> _Entry | None:
        while self.waiting:
            entry = self.waiting[0][1]
            if entry.waits_at(self):
                return entry
            heapq.heappop(self.waiting)
        return None

    def last_passed(self) -> _Entry | None:
        return max(self.passed.values(), key=_rank, default=None)

    def let_wait(self, entry: _Entry) -> None:
        self.waiting_count += 1
        heapq.heappush(self.waiting, (entry.rank, entry))
        if len(self.waiting) > 64 and len(self.waiting) > 2 * self.waiting_count:
            self.waiting = [(rank, found) for rank, found in self.waiting if found.waits_at(self)]
            heapq.heapify(self.waiting)


@dataclass(slots=True, eq=False)
class _Entry:
    """A queued or running job, and how many of its gates it has passed."""

    job_id: str
    rank: Rank
    gates: tuple[_Gate, ...]
    passed_count: int = 0
    is_running: bool = False
    has_left: bool = False

    def waits_at(self, gate: _Gate) -> bool:
        return not self.has_left and self.passed_count < len(self.gates) and self.gates[self.passed_count] is gate

    def __lt__(self, other: _Entry) -> bool:
        return self.rank < other.rank


def _rank(entry: _Entry) -> Rank:
    return entry.rank


class Gates:
    """The gates that jobs of a memory store are at."""

    def __init__(self) -> None:
        self._limits: dict[str, Limits] = {}
        self._gates: dict[tuple[str, str], _Gate] = {}
        self._entries: dict[str, _Entry] = {}
        self._changed: dict[_Gate, None] = {}
        self._opening: list[tuple[datetime, int, _Gate]] = []
        """A heap of gates that jobs wait at, by the time when the next may pass."""
        self._fading: list[tuple[datetime, int, _Gate]] = []
        """A heap of those that no job waits at, by the time when a start is to be forgotten."""
        self._order = itertools.count()
        self._newest_start: datetime | None = None

    def __bool__(self) -> bool:
        """Return whether there is anything to look at."""
        return bool(self._gates)

    def declare(self, limits: Mapping[str, Limits]) -> None:
        """Let limits hold for tasks from now on; see `Store.set_limits`."""
        self._limits.update(limits)
        self._changed.update((gate, None) for gate in self._gates.values() if gate.task in limits)

    def enter(self, record: JobRecord, place: int) -> None:
        """Let a queued job wait at its first gate."""
        names = [(record.task, name) for name in record.gates]
        gates = tuple(self._gates.setdefault(name, _Gate(*name)) for name in names)
        entry = self._entries[record.id] = _Entry(record.id, (-record.priority, place), gates)
        gates[0].let_wait(entry)
        for gate in gates:
            gate.job_count += 1
        self._changed.update(dict.fromkeys(gates))

    def has_passed(self, job_id: str) -> bool:
        """Return whether a queued job has passed all its gates."""
        entry = self._entries.get(job_id)
        return entry is not None and entry.passed_count == len(entry.gates)

    def claim(self, job_id: str, now: datetime) -> None:
        """Let a job that has passed all its gates run."""
        entry = self._entries[job_id]
        entry.is_running = True
        self._newest_start = now
        for gate in entry.gates:
            del gate.passed[job_id]
            gate.running[job_id] = None
            if is_rate(gate.name):
                gate.starts.append((now, job_id))
                self._changed[gate] = None

    def take_back(self, record: JobRecord) -> None:
        """Let the start of a running job not count: it is given back, and had not begun as far as was told."""
        for gate in self._entries[record.id].gates:
            for number in range(len(gate.starts) - 1, -1, -1):
                if gate.starts[number][1] == record.id:
                    del gate.starts[number]
                    break

    def leave(self, record: JobRecord) -> None:
        """Let a job go that is queued or runs no more."""
        entry = self._entries.pop(record.id, None)
        if entry is None:
            return
        if not entry.is_running and entry.passed_count < len(entry.gates):
            entry.gates[entry.passed_count].waiting_count -= 1
        entry.has_left = True
        for gate in entry.gates:
            gate.job_count -= 1
            gate.passed.pop(record.id, None)
            gate.running.pop(record.id, None)
            self._changed[gate] = None

    def settle(self, now: datetime) -> list[str]:
        """Let jobs pass where there is room, and back where too many have; return those that may be claimed now."""
        if self._newest_start is not None and self._newest_start > now:  # the clock was set back
            self._newest_start = now
            self._changed.update((gate, None) for gate in self._gates.values() if gate.starts)
        for heap in (self._opening, self._fading):
            while heap and heap[0][0] <= now:
                self._changed[heapq.heappop(heap)[2]] = None
        ready: list[str] = []
        while self._changed:
            gate, _ = self._changed.popitem()
            self._settle(gate, now, ready)
        return ready

    def _settle(self, gate: _Gate, now: datetime, ready: list[str]) -> None:
        room, opens_at = self._room(gate, now)
        while room is not None and len(gate.passed) > room and (last := gate.last_passed()) is not None:
            self._turn_back(last, gate)
        first = gate.first_waiting()
        while first is not None:
            if room is not None and len(gate.passed) >= room:
                last = gate.last_passed()
                if last is None or last.rank < first.rank:
                    break
                self._turn_back(last, gate)
            self._let_pass(first, ready)
            first = gate.first_waiting()
        self._watch(gate, opens_at, is_waited_for=first is not None)

    def _watch(self, gate: _Gate, opens_at: datetime | None, *, is_waited_for: bool) -> None:
        """Let a gate be looked at when that is due, or forget it when nothing is left of it."""
        alarm = None if opens_at is None else (opens_at, is_waited_for)
        if alarm is not None and alarm != gate.alarm:
            heapq.heappush(self._opening if is_waited_for else self._fading, (alarm[0], next(self._order), gate))
        gate.alarm = alarm
        name = gate.task, gate.name
        if alarm is None and not gate.job_count and self._gates.get(name) is gate:
            del self._gates[name]

    def _room(self, gate: _Gate, now: datetime) -> tuple[int | None, datetime | None]:
        """Return how many jobs may have passed, None: any number; and when a start of the period no longer counts."""
        limits = self._limits.get(gate.task, _NO_LIMITS)
        if not is_rate(gate.name):
            return None if limits.limit is None else max(0, limits.limit.at_once - len(gate.running)), None
        if limits.rate is None:
            gate.starts.clear()
            return None, None
        per = timedelta(seconds=limits.rate.per)
        while gate.starts and gate.starts[0][0] <= now - per:
            gate.starts.popleft()
        if gate.starts and gate.starts[-1][0] > now:
            gate.starts = deque((min(at, now), job_id) for at, job_id in gate.starts)
        return max(0, limits.rate.starts - len(gate.starts)), gate.starts[0][0] + per if gate.starts else None

    def _let_pass(self, entry: _Entry, ready: list[str]) -> None:
        gate = entry.gates[entry.passed_count]
        gate.waiting_count -= 1
        gate.passed[entry.job_id] = entry
        entry.passed_count += 1
        if entry.passed_count == len(entry.gates):
            ready.append(entry.job_id)
        else:
            following = entry.gates[entry.passed_count]
            following.let_wait(entry)
            self._changed[following] = None

    def _turn_back(self, entry: _Entry, gate: _Gate) -> None:
        """Let a job wait again at a gate that it has passed."""
        if entry.passed_count < len(entry.gates):
            entry.gates[entry.passed_count].waiting_count -= 1
        entry.passed_count = entry.gates.index(gate)
        for passed in entry.gates[entry.passed_count :]:
            passed.passed.pop(entry.job_id, None)
            self._changed[passed] = None
        gate.let_wait(entry)

    def next_at(self) -> datetime | None:
        """Return when the next gate opens at which jobs wait; None: not by time."""
        while self._opening and self._opening[0][2].alarm != (self._opening[0][0], True):
            heapq.heappop(self._opening)
        return self._opening[0][0] if self._opening else None

    def blocker(self, job_id: str, now: datetime) -> Blocker | None:
        """Return the gate that a queued job waits at, or None."""
        entry = self._entries.get(job_id)
        if entry is None or entry.passed_count == len(entry.gates):
            return None
        gate = entry.gates[entry.passed_count]
        held_by = tuple([*gate.running, *gate.passed][:MAX_HOLDERS])
        if not is_rate(gate.name):
            return Blocker("limit", key_of(gate.name), held_by)
        _, opens_at = self._room(gate, now)
        rate = self._limits.get(gate.task, _NO_LIMITS).rate
        is_used_up = rate is not None and len(gate.starts) >= rate.starts
        return Blocker("rate", key_of(gate.name), held_by, opens_at if is_used_up else None)
