"""The plan of several schedules in a window of time, as a plain value: who starts when, and what to look at."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Protocol

from ..clock import Clock, SystemClock
from ..durations import format_seconds, seconds
from ..errors import InvalidInstant, InvalidOption, UnknownSchedule
from ..policies import OverlapPolicy, Policies
from ..triggers import At, Cron, Every, Trigger, Union
from ..zones import FIRST, LAST, get_zone, zone_key
from .findings import shown
from .firing import Touched, changes, fire_times, touched
from .grid import edges
from .runs import Rehearsal, Run, busiest, rehearse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..zones import Window

__all__ = ["Change", "Collision", "Lane", "Peak", "Plan", "Planned", "Touched", "preview"]

MAX_DAYS: Final = 3_660  # ten years: beyond, a bucket would be longer than four weeks and show nothing
MAX_COLLISIONS: Final = 100  # groups of schedules that are kept with their names; all minutes are counted
_BUCKETS: Final = 400  # finer than any picture shows, and a day then has buckets of five minutes
_MINUTE: Final = timedelta(minutes=1)
_SECOND: Final = timedelta(seconds=1)


class Fires(Protocol):
    """What can be previewed: an app's `Schedule`, or a `Planned`."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def trigger(self) -> Trigger:
        """When it fires."""

    @property
    def policies(self) -> Policies:
        """How it treats its fire times."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A schedule that no app has, to be previewed."""

    name: str
    trigger: Trigger
    policies: Policies = field(default_factory=Policies)


@dataclass(frozen=True, slots=True)
class Lane:
    """What one schedule does in the window.

    Attributes:
        name: Its name.
        when: Its trigger as people read it, such as "every 30s" or "0 5 * * mon-fri".
        timezone: The zone by whose clocks it fires.
        overlap: What happens when a run is not finished at the next fire time.
        jitter: Seconds by which a start may be put off.
        duration: Seconds that a run takes; None: not known.
        count: How many fire times there are.
        counts: The same for each bucket of the plan.
        is_estimated: Whether these numbers are an estimate: the fire times were too many to be visited.
        starts: All fire times (UTC), ascending; empty when there are more than 10,000.
        following: The first fire time after the window (UTC); None: there is none.
        touched: The fire times that a change of the clocks touches, at most 500.
        runs: Beginning and end of each run (UTC); empty when the duration is not known.
        dropped_count: How many fire times get no run of their own, because the one before still goes on: skipped,
            or with overlap="queue" merged.
        dropped: Those fire times; empty when `starts` is.
        is_background: Whether collisions do not count it: it starts in every other minute or more often, more than
            10,000 times, or is spread by a jitter of a minute or more.
        error: What its trigger raised; None: it is well. Such a lane has no fire times.
    """

    name: str
    when: str
    timezone: str
    overlap: OverlapPolicy = "skip"
    jitter: float = 0.0
    duration: float | None = None
    count: int = 0
    counts: tuple[int, ...] = ()
    is_estimated: bool = False
    starts: tuple[datetime, ...] = ()
    following: datetime | None = None
    touched: tuple[Touched, ...] = ()
    runs: tuple[Run, ...] = ()
    dropped_count: int = 0
    dropped: tuple[datetime, ...] = ()
    is_background: bool = False
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """A change of the clocks of the plan's zone.

    Attributes:
        at: When (UTC).
        shift: Seconds by which the clocks are moved: forward (a gap) is more than zero, back (a fold) less.
        before: What they would have shown, such as "02:00".
        after: What they show instead.
    """

    at: datetime
    shift: float
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Collision:
    """Schedules that start in the same minute.

    Attributes:
        at: The first minute in which exactly these start: its beginning (UTC).
        names: Their names, in the order of the lanes.
        count: How many such minutes there are.
    """

    at: datetime
    names: tuple[str, ...]
    count: int


@dataclass(frozen=True, slots=True)
class Peak:
    """How many runs are expected to go on together at the most, and since when first (UTC)."""

    count: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Plan:
    """The schedules of an app in a window of time.

    Attributes:
        start: The beginning (UTC).
        end: The end (UTC), which is no part of it.
        timezone: The zone in which it is shown.
        edges: Where buckets begin, and the end: ascending, from `start` to `end`.
        lanes: One for each schedule, in the order given.
        changes: The changes of the zone's clocks.
        collisions: Which schedules start in the same minute: the most together first, at most 100 such groups.
        collision_count: In how many minutes more than one schedule starts.
        crowds: For each bucket, how many schedules start together in its fullest minute; 0: no collision.
        peak: The most runs at a time, of the schedules whose duration is known; None: none is.
    """

    start: datetime
    end: datetime
    timezone: str
    edges: tuple[datetime, ...]
    lanes: tuple[Lane, ...]
    changes: tuple[Change, ...]
    collisions: tuple[Collision, ...]
    collision_count: int
    crowds: tuple[int, ...]
    peak: Peak | None

    @property
    def count(self) -> int:
        """How many fire times there are in all."""
        return sum(lane.count for lane in self.lanes)

    @property
    def is_estimated(self) -> bool:
        """Whether `count` is an estimate."""
        return any(lane.is_estimated for lane in self.lanes)


def preview(
    schedules: Mapping[str, Fires] | Iterable[Fires],
    start: datetime,
    end: datetime,
    *,
    timezone: str = "UTC",
    durations: Mapping[str, float | str | timedelta] | None = None,
    clock: Clock | None = None,
) -> Plan:
    """Return what schedules are going to do from `start` until before `end`, if nothing is late or stands in the way.

    Args:
        schedules: `app.schedules`, or any objects with `name`, `trigger` and `policies`.
        start: Aware, in any zone.
        end: Aware, later than `start`, by ten years (3,660 days) at the most.
        timezone: The zone in which the plan is shown and days are cut; an IANA key.
        durations: How long a run takes, by the name of the schedule; its last part will do where it is unique.
        clock: Tells how long a trigger takes to answer; None: the real one.

    Semantics:
        Each trigger is asked for a bounded number of fire times and given up after five seconds. One that raises gives
        a lane with its error, and the others are not affected. At the beginning nothing is taken to run.

    Raises:
        InvalidInstant: A naive datetime, or a window that is empty or too long.
        InvalidDuration: A duration that cannot be read.
        InvalidOption: A duration for a name that several schedules have.
        UnknownSchedule: A duration for a name that no schedule has.
        UnknownTimezone: There is no such zone.
    """
    wanted = list(schedules.values() if isinstance(schedules, Mapping) else schedules)
    start, end = _checked("start", start), _checked("end", end)
    check_window(start, end)
    zone = get_zone(zone_key(timezone))
    cut = edges(start, end, zone, _BUCKETS)
    lengths = _lengths(durations or {}, [schedule.name for schedule in wanted])
    clock = clock or SystemClock()
    lanes = tuple(_lane(schedule, zone.key, cut, lengths.get(schedule.name), clock) for schedule in wanted)
    crowded = _crowded(lanes)
    return Plan(
        start=start,
        end=end,
        timezone=zone.key,
        edges=cut,
        lanes=lanes,
        changes=tuple(_change(window) for window in changes(zone, start, end)),
        collisions=_fullest(crowded, lanes),
        collision_count=len(crowded),
        crowds=_crowds(crowded, cut),
        peak=_peak(lanes, start),
    )


def check_window(start: datetime, end: datetime, option: str = "end") -> None:
    """Refuse a window that is empty or too long.

    Raises:
        InvalidInstant: The end, called by the name of its option.
    """
    if not timedelta(0) < end - start <= timedelta(days=MAX_DAYS):
        raise InvalidInstant(option, f"later than {start.isoformat()}, by {MAX_DAYS} days at the most", end.isoformat())


def _checked(option: str, value: datetime) -> datetime:
    if not isinstance(value, datetime) or value.utcoffset() is None:  # type: ignore[redundant-expr]
        raise InvalidInstant(option, "an aware datetime", value)
    if not FIRST.year < value.year < LAST.year:
        raise InvalidInstant(option, f"between the years {FIRST.year + 1} and {LAST.year - 1}", str(value))
    return value.astimezone(UTC)


def _lengths(durations: Mapping[str, float | str | timedelta], names: Sequence[str]) -> dict[str, float]:
    found = {}
    for given, length in durations.items():
        fitting = [given] if given in names else [name for name in names if name.endswith(f".{given}")]
        if not fitting:
            raise UnknownSchedule(given, list(names))
        if len(fitting) > 1:
            remedy = f"several are named so: {', '.join(fitting)}"
            raise InvalidOption("durations", "of one schedule each", given, remedy=remedy)
        found[fitting[0]] = seconds(length, f"duration of {fitting[0]}")
    return found


# --- a lane -----------------------------------------------------------------------------------------------------------


def _lane(schedule: Fires, key: str, cut: Sequence[datetime], duration: float | None, clock: Clock) -> Lane:
    trigger, policies = schedule.trigger, schedule.policies
    when, own = type(trigger).__name__, key
    try:
        when, own = _when(trigger, key), trigger.timezone or key
        firing = fire_times(trigger, cut, clock)
        marks = touched(trigger, get_zone(own), cut[0], cut[-1], clock)
        rehearsal = Rehearsal() if duration is None else rehearse(firing.starts, duration, policies.overlap)
    except Exception as error:  # a trigger of the user's: it spoils its own lane, and no other
        return Lane(schedule.name, when, own, policies.overlap, policies.jitter, duration, error=_said(error))
    count = sum(firing.counts)
    is_dense = count > len(firing.starts)
    return Lane(
        schedule.name,
        when,
        own,
        policies.overlap,
        policies.jitter,
        duration,
        count,
        firing.counts,
        firing.is_estimated,
        firing.starts,
        firing.following,
        marks,
        rehearsal.runs,
        _dropped(policies, duration, count, cut[-1] - cut[0]) if is_dense else len(rehearsal.dropped),
        rehearsal.dropped,
        is_dense or policies.jitter >= _MINUTE / _SECOND or _is_steady(firing.starts, cut[-1] - cut[0]),
    )


def _said(error: Exception) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return type(error).__name__


def _when(trigger: Trigger, key: str) -> str:
    if isinstance(trigger, Union):
        return " or ".join(_when(part, key) for part in trigger.triggers)
    if type(trigger) is Every:
        return f"every {format_seconds(trigger.period_seconds)}"
    if type(trigger) is Cron:
        return trigger.expression + (f" {trigger.timezone}" if trigger.timezone not in (None, key) else "")
    if type(trigger) is At:
        return f"at {shown(trigger.when, key):%Y-%m-%d %H:%M:%S %z}"
    return repr(trigger)


def _is_steady(starts: Sequence[datetime], span: timedelta) -> bool:
    """Whether there are starts in every other minute or more: it would collide with everything, which tells nothing."""
    return len(starts) > 1 and len({_minute(at) for at in starts}) * 2 * _MINUTE >= span


def _dropped(policies: Policies, duration: float | None, count: int, span: timedelta) -> int:
    """Return how many of evenly spread fire times get no run of their own."""
    if duration is None or policies.overlap not in ("skip", "queue"):
        return 0
    gap = span / _SECOND / count
    each = max(1, -int(-duration // gap)) if policies.overlap == "skip" else max(1.0, duration / gap)
    return count - int(-(-count // each))


# --- all lanes --------------------------------------------------------------------------------------------------------


def _minute(at: datetime) -> datetime:
    return at.replace(second=0, microsecond=0)


def _crowded(lanes: Sequence[Lane]) -> dict[datetime, list[int]]:
    """Return the minutes in which several schedules start, with the numbers of their lanes."""
    minutes: defaultdict[datetime, list[int]] = defaultdict(list)
    for number, lane in enumerate(lanes):
        if not lane.is_background:
            for minute in {_minute(at) for at in lane.starts}:
                minutes[minute].append(number)
    return {minute: found for minute, found in minutes.items() if len(found) > 1}


def _fullest(crowded: Mapping[datetime, list[int]], lanes: Sequence[Lane]) -> tuple[Collision, ...]:
    first: dict[tuple[int, ...], datetime] = {}
    for minute in sorted(crowded, reverse=True):
        first[tuple(crowded[minute])] = minute
    numbers = Counter(tuple(found) for found in crowded.values())
    order = sorted(numbers, key=lambda group: (-len(group), first[group]))[:MAX_COLLISIONS]
    return tuple(
        Collision(first[group], tuple(lanes[number].name for number in group), numbers[group]) for group in order
    )


def _crowds(crowded: Mapping[datetime, list[int]], cut: Sequence[datetime]) -> tuple[int, ...]:
    fullest = [0] * (len(cut) - 1)
    for minute, found in crowded.items():
        number = max(0, bisect_right(cut, minute) - 1)
        fullest[number] = max(fullest[number], len(found))
    return tuple(fullest)


def _change(window: Window) -> Change:
    after = window.lo + window.offset
    before = after - window.shift
    text = "%H:%M" if abs(window.shift) < timedelta(days=1) else "%Y-%m-%d %H:%M"
    return Change(window.lo, window.shift / _SECOND, f"{before:{text}}", f"{after:{text}}")


def _peak(lanes: Sequence[Lane], start: datetime) -> Peak | None:
    known = [lane for lane in lanes if lane.duration is not None and lane.count]
    if not known:
        return None
    found = busiest(run for lane in known for run in lane.runs)
    # Those that start too often to be rehearsed are taken to run all the time.
    always = sum(1 for lane in known if lane.count > len(lane.starts))
    return Peak(always, start) if found is None else Peak(found[0] + always, found[1])
