"""From schedules to a plan: each is asked when it fires, then all of them are looked at together."""

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
from ..policies import Policies
from ..triggers import At, Cron, Every, Trigger, Union
from ..zones import FIRST, LAST, get_zone, zone_key
from .firing import changes, fire_times, touched
from .grid import edges
from .plan import Change, Collision, Lane, Peak, Plan
from .remarks import shown
from .runs import Rehearsal, busiest, rehearse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..zones import Window

__all__ = ["Fires", "Planned", "check_window", "preview"]

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
        Each trigger is asked for a bounded number of fire times and given up after 20 seconds. One that raises gives
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
