"""Triggers: values that tell the next fire time after a given instant.

    Every("30s")    Cron("0 5 * * mon-fri", timezone="Asia/Seoul")    At("2026-12-24T18:00:00+01:00")
    Every("1h") | At(...)          Cron("0 9 * * *").exclude(["2026-12-25"])

A trigger reads no clock, waits for nothing and keeps no state: equal triggers give equal answers in every
process and at every time of asking, which is what lets many processes agree on a fire time without talking.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from .cron_expression import Parts, Plan, fire_after, parse
from .durations import format_microseconds, microseconds
from .errors import InvalidInstant, InvalidOption, nearest
from .zones import get_zone, resolve_wall, zone_key

if TYPE_CHECKING:
    from collections.abc import Sequence
    from zoneinfo import ZoneInfo

    from .ticks import Ticks

__all__ = [
    "At",
    "Between",
    "Cron",
    "DstRule",
    "Every",
    "Exclusion",
    "Trigger",
    "Union",
    "latest",
    "newest",
    "parse_every",
    "read_instant",
    "upcoming",
]

DstRule = Literal["cron", "skip", "both"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_SECOND: Final = timedelta(seconds=1)
_MIN_PERIOD: Final = 1_000  # microseconds; a loop turns about that often, and no timer is finer

# How many fire times in a row an exclusion may remove before the trigger counts as finished. More than a day
# of seconds (86,400); costs half a second at most, and only a trigger that excludes all of itself pays it.
_MAX_EXCLUDED: Final = 100_000


class Trigger(ABC):
    """When something is due. Immutable, hashable, picklable, equal by value.

    A trigger of your own needs `next` and a `fingerprint`; two of one class are equal when their `repr` is.
    """

    __slots__ = ()

    @abstractmethod
    def next(self, after: datetime) -> datetime | None:
        """Return the first fire time strictly later than an instant, or None when there is none.

        Args:
            after: An aware datetime in any zone; it counts to the microsecond.

        Returns:
            An aware datetime in UTC.

        Raises:
            InvalidInstant: `after` is naive or no datetime.
        """

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A text that changes exactly when the meaning changes; the same in every process."""

    @property
    def timezone(self) -> str | None:
        """The IANA key of the zone the trigger was declared with, or None."""
        return None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is valid and probably not meant, in sentences."""
        return ()

    def in_timezone(self, key: str) -> Trigger:
        """Return a trigger in which every part declared without a zone uses this one.

        Args:
            key: An IANA key.

        Raises:
            UnknownTimezone: There is no such zone.
        """
        zone_key(key)
        return self

    def exclude(self, dates: Trigger | date | str | Iterable[date | str]) -> Trigger:
        """Return this trigger without some of its fire times.

        Args:
            dates: Whole days in the trigger's zone, one or several, as dates, datetimes (their calendar day
                as written) or "YYYY-MM-DD" texts; or a trigger, whose fire times are taken out.

        Semantics:
            A fire time belongs to the day that the trigger's zone shows at it (UTC where it has none). When
            100,000 fire times in a row are excluded, the trigger counts as finished: `next` returns None.

        Raises:
            InvalidInstant: One of the dates cannot be read.
            InvalidOption: The dates of a union whose parts are in different zones would be ambiguous, or the
                trigger would exclude itself.
        """
        if isinstance(dates, Trigger):
            if dates.fingerprint == self.fingerprint:
                raise InvalidOption("exclude", "a trigger that leaves some fire times", dates)
            return Exclusion(self, without=dates)
        return Exclusion(self, dates=dates)

    def __aiter__(self) -> Ticks:
        """Iterate over the fire times from now on, each when it has come: `async for tick in Every("30s")`."""
        from .ticks import Ticks  # waiting is not a trigger's business; this is only where people look for it

        return Ticks(self)

    def __or__(self, other: object) -> Trigger:
        """Return the union: due whenever one of them is, once when both are."""
        if not isinstance(other, Trigger):
            return NotImplemented
        return Union(self, other)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.fingerprint}>"


_Arguments: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]


class _Declared(Trigger):
    """A trigger that is fully told by the arguments that make an equal one."""

    __slots__ = ()

    @abstractmethod
    def _arguments(self) -> _Arguments:
        """Return positional arguments, and those named ones that differ from their default."""

    def __repr__(self) -> str:
        positional, named = self._arguments()
        parts = [*map(repr, positional), *(f"{name}={value!r}" for name, value in named.items())]
        return f"{type(self).__name__}({', '.join(parts)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), *self._arguments())


def _rebuild(cls: type[Trigger], positional: tuple[Any, ...], named: dict[str, Any]) -> Trigger:
    return cls(*positional, **named)


class Every(_Declared):
    """Fire on a grid of elapsed time, the same in every process and after every restart.

    Args:
        period: Such as "30s", "1h30m", a number of seconds or a timedelta; at least 1 ms, whole microseconds.
        anchor: An aware datetime on the grid; None: the Unix epoch, so that Every("1h") fires on the hour of
            UTC.

    Semantics:
        Elapsed time knows no daylight saving: "1d" is 86,400 s, and moves by an hour on the wall clock when
        clocks change. For a time of day use `Cron`, or every("day", at="05:00").

    Raises:
        InvalidDuration: The period cannot be read, or is too small.
        InvalidInstant: The anchor is naive.
    """

    __slots__ = ("_anchor", "_origin", "_period")

    def __init__(self, period: str | float | timedelta, *, anchor: datetime | None = None) -> None:
        self._period = microseconds(period, "period", minimum=_MIN_PERIOD) * _MICROSECOND
        self._anchor = None if anchor is None else _as_utc(anchor, "anchor")
        self._origin = _EPOCH if self._anchor is None else _EPOCH + (self._anchor - _EPOCH) % self._period

    @property
    def period_seconds(self) -> float:
        """The period in seconds."""
        return self._period / _SECOND

    @property
    def anchor(self) -> datetime | None:
        """The instant that was given to lie on the grid (UTC), or None."""
        return self._anchor

    @property
    def timezone(self) -> None:
        """None: elapsed time has no zone."""
        return None

    @property
    def fingerprint(self) -> str:
        """The period, and where the grid lies."""
        start = (self._origin - _EPOCH) // _MICROSECOND
        return f"every {self._period // _MICROSECOND}us" + (f" +{start}us" if start else "")

    def next(self, after: datetime) -> datetime | None:
        """Return the first point of the grid strictly later than an instant; None past the year 9999."""
        if type(after) is not datetime or after.tzinfo is not UTC:
            after = _as_utc(after)
        try:
            # Exact: a timedelta is whole microseconds.
            return after + (self._period - (after - self._origin) % self._period)
        except OverflowError:
            return None

    def _arguments(self) -> _Arguments:
        named = {} if self._anchor is None else {"anchor": self._anchor}
        return (format_microseconds(self._period // _MICROSECOND),), named


class Cron(_Declared):
    """Fire at the times of a cron expression, read on the wall clock of a zone.

    Args:
        expression: Five fields (minute hour day month weekday), an alias such as "@daily", or with `seconds`
            six or seven.
        timezone: An IANA key or a `ZoneInfo`; None: UTC, or the app's zone once an app uses it.
        dst: What happens when clocks change, see below.
        seconds: Where the second stands when there are six or seven fields: "first" (second minute hour day
            month weekday [year], as Quartz and Spring) or "last" (minute hour day month weekday second
            [year], as croniter). Weekdays are 0-7 in both, 0 and 7 are Sunday.
        name: Seeds `H`, which stands for a fixed value that differs between names.

    Semantics:
        `dst="cron"`, the rule of Debian's cron(8): an expression whose minute, hour or second field begins
        with `*` follows the wall clock: nothing for times that a gap swallows, every pass of a repeated
        hour. Any other runs once, right after the gap that swallowed it, and once, in the first pass, in a
        repeated hour. croniter and APScheduler run it in both passes, Quartz in the second only, and Quartz,
        systemd and Kubernetes drop what a gap swallows. A move forward by three hours or more, or back by
        more than three (Apia skipped a day in 2011), is a correction of the calendar: nothing is replayed or
        left out.
        `dst="skip"`: whatever the expression, nothing for a gap and the first pass only.
        `dst="both"`: whatever the expression, once after a gap, and both passes.
        Where both day fields are restricted, either matches; a day field that begins with `*` does not
        restrict (crontab(5); croniter and Kubernetes differ for "*/2").

    Raises:
        InvalidCron: The expression is refused, with the field and the reason.
        UnknownTimezone: There is no such zone.
        InvalidOption: Another option has a value it cannot have.
    """

    __slots__ = ("_dst", "_name", "_plan", "_seconds", "_timezone", "_zone", "expression")

    expression: str

    def __init__(
        self,
        expression: str,
        *,
        timezone: str | ZoneInfo | None = None,
        dst: DstRule = "cron",
        seconds: Literal["first", "last"] | None = None,
        name: str | None = None,
    ) -> None:
        if dst not in ("cron", "skip", "both"):
            raise InvalidOption("dst", '"cron", "skip" or "both"', dst)
        self._plan: Plan = parse(expression, seconds, name)
        self._timezone = None if timezone is None else zone_key(timezone)
        self._zone = get_zone(self._timezone or "UTC")
        self._dst: DstRule = dst
        self.expression, self._seconds = expression, seconds
        # Without an H the name means nothing, and two equal expressions must be equal triggers.
        self._name = name if re.search(r"(?<![a-z])h(?![a-z])", expression.lower()) else None

    @property
    def timezone(self) -> str | None:
        """The IANA key it was declared with, or None."""
        return self._timezone

    @property
    def dst(self) -> DstRule:
        """The rule for clock changes."""
        return self._dst

    @property
    def is_hashed(self) -> bool:
        """Whether it holds an `H`, so that its times depend on its name."""
        return self._name is not None

    @property
    def follows_wall_clock(self) -> bool:
        """Whether the minute, hour or second field begins with `*`: what `dst="cron"` asks for."""
        return self._plan.is_wildcard

    @property
    def is_hourly(self) -> bool:
        """Whether it follows the wall clock through every hour, and so names no time of day."""
        return self._plan.is_wildcard and self._plan.is_every_hour

    @property
    def parts(self) -> Parts:
        """The values of its fields."""
        return self._plan.parts

    @property
    def fingerprint(self) -> str:
        """The wall times, the zone, and what clock changes do: two spellings of one meaning agree."""
        rule = ""
        if self._zone.key != "UTC":
            rule = {"cron": "wall" if self._plan.is_wildcard else "once"}.get(self._dst, self._dst) + " "
        return _shorten(f"cron {rule}{self._zone.key} {self._plan.canonical}")

    @property
    def warnings(self) -> tuple[str, ...]:
        """Such as: "*/90" in the minute field means only 0."""
        return self._plan.warnings

    def next(self, after: datetime) -> datetime | None:
        """Return the first fire time strictly later than an instant, or None when there is none."""
        if type(after) is not datetime or after.tzinfo is not UTC:
            after = _as_utc(after)
        return fire_after(self._plan, self._zone, after, self._dst)

    def in_timezone(self, key: str) -> Cron:
        """Return it in this zone, unless it was declared with one."""
        key = zone_key(key)
        if self._timezone is not None:
            return self
        there = object.__new__(Cron)  # the same in every other way: nothing has to be read again
        there._plan, there._dst, there._seconds, there._name = self._plan, self._dst, self._seconds, self._name
        there.expression, there._timezone, there._zone = self.expression, key, get_zone(key)
        return there

    def on_utc(self) -> Cron:
        """Return it in UTC: the wall times that it names, whether its own zone shows them once, twice or never."""
        positional, named = self._arguments()
        return Cron(*positional, **{**named, "timezone": "UTC"})

    def _arguments(self) -> _Arguments:
        named: dict[str, Any] = {"timezone": self._timezone, "seconds": self._seconds, "name": self._name}
        named = {name: value for name, value in named.items() if value is not None}
        if self._dst != "cron":
            named["dst"] = self._dst
        return (self.expression,), named


class At(_Declared):
    """Fire once, at one instant.

    Args:
        when: An aware datetime, or an ISO 8601 text with an offset ("2026-12-24T18:00:00+01:00"). Without an
            offset only together with `timezone`.
        timezone: An IANA key or a `ZoneInfo`, in which a `when` without an offset is read. A time that clocks
            there show twice means the first; one that they never show is refused.

    Raises:
        InvalidInstant: `when` cannot be read, has no offset, or does not exist in the zone.
        UnknownTimezone: There is no such zone.
    """

    __slots__ = ("_timezone", "when")

    when: datetime

    def __init__(self, when: datetime | str, *, timezone: str | ZoneInfo | None = None) -> None:
        self._timezone = None if timezone is None else zone_key(timezone)
        moment = _read_moment(when)
        if moment.tzinfo is None:
            if self._timezone is None:
                raise InvalidInstant(
                    "when",
                    "an instant",
                    when,
                    remedy='add an offset ("2026-12-24T18:00:00+01:00", tzinfo=UTC) or pass timezone="..."',
                )
            self.when = resolve_wall(moment, self._timezone)
        else:
            self.when = _as_utc(moment, "when")

    @property
    def timezone(self) -> str | None:
        """The IANA key it was declared with, or None."""
        return self._timezone

    @property
    def fingerprint(self) -> str:
        """The instant."""
        return f"at {self.when.isoformat()}"

    def next(self, after: datetime) -> datetime | None:
        """Return the instant when it is strictly later than `after`, else None."""
        return self.when if self.when > _as_utc(after) else None

    def _arguments(self) -> _Arguments:
        named = {} if self._timezone is None else {"timezone": self._timezone}
        return (self.when.isoformat(),), named


class Union(_Declared):
    """Fire whenever one of several triggers does; written `A | B`.

    Args:
        triggers: At least one. Unions among them are taken apart, equal ones count once.
    """

    __slots__ = ("triggers",)

    triggers: tuple[Trigger, ...]

    def __init__(self, *triggers: Trigger) -> None:
        parts: dict[Trigger, None] = {}
        for trigger in triggers:
            if not isinstance(trigger, Trigger):
                raise InvalidOption("trigger", "a Trigger", trigger)
            parts.update(dict.fromkeys(trigger.triggers if isinstance(trigger, Union) else (trigger,)))
        if not parts:
            raise InvalidOption("triggers", "at least one trigger", ())
        self.triggers = tuple(parts)

    @property
    def timezone(self) -> str | None:
        """The zone that all parts with a zone share, or None."""
        keys = {part.timezone for part in self.triggers} - {None}
        return keys.pop() if len(keys) == 1 else None

    @property
    def fingerprint(self) -> str:
        """Those of the parts, in an order that does not depend on how the union was written."""
        return _shorten(" | ".join(sorted({part.fingerprint for part in self.triggers})))

    @property
    def warnings(self) -> tuple[str, ...]:
        """Those of the parts."""
        return tuple(warning for part in self.triggers for warning in part.warnings)

    def next(self, after: datetime) -> datetime | None:
        """Return the earliest of the parts' next fire times, or None when all are finished."""
        after = _as_utc(after)
        return min(
            (found for part in self.triggers if (found := part.next(after)) is not None),
            default=None,
        )

    def in_timezone(self, key: str) -> Trigger:
        """Return a union of the parts in this zone."""
        return Union(*(part.in_timezone(key) for part in self.triggers))

    def _arguments(self) -> _Arguments:
        return self.triggers, {}

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return set(self.triggers) == set(other.triggers)

    def __hash__(self) -> int:
        return hash(frozenset(self.triggers))

    def __repr__(self) -> str:
        return " | ".join(map(repr, self.triggers))


class Exclusion(_Declared):
    """Fire when a trigger does, except on some days or at the fire times of another; see `Trigger.exclude`.

    Args:
        trigger: What fires.
        dates: The days on which it does not.
        without: The trigger whose fire times are taken out.
        timezone: The zone of the days; None: the trigger's, or UTC.
    """

    __slots__ = ("_dates", "_timezone", "_trigger", "_without", "_zone")

    def __init__(
        self,
        trigger: Trigger,
        *,
        dates: date | str | Iterable[date | str] = (),
        without: Trigger | None = None,
        timezone: str | None = None,
    ) -> None:
        self._trigger, self._without = trigger, without
        self._dates = frozenset(_read_dates(dates))
        if self._dates and timezone is None and isinstance(trigger, Union) and _is_mixed(trigger):
            raise InvalidOption(
                "exclude",
                "dates of one zone",
                trigger,
                remedy="its parts are in different zones: exclude the dates from each part, then join them",
            )
        self._timezone = trigger.timezone if timezone is None else zone_key(timezone)
        self._zone = get_zone(self._timezone or "UTC")

    @property
    def trigger(self) -> Trigger:
        """What fires, the excluded times too."""
        return self._trigger

    @property
    def dates(self) -> frozenset[date]:
        """The days on which it does not."""
        return self._dates

    @property
    def without(self) -> Trigger | None:
        """The trigger whose fire times are taken out, or None."""
        return self._without

    @property
    def timezone(self) -> str | None:
        """The zone of the days, or None."""
        return self._timezone

    @property
    def fingerprint(self) -> str:
        """The trigger's, and what is taken out."""
        text = self._trigger.fingerprint
        if self._without is not None:
            text += f" without ({self._without.fingerprint})"
        if self._dates:
            text += f" not {self._zone.key} {' '.join(day.isoformat() for day in sorted(self._dates))}"
        return _shorten(text)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Those of the trigger."""
        return self._trigger.warnings

    def next(self, after: datetime) -> datetime | None:
        """Return the first fire time that is not excluded; None also after 100,000 excluded ones in a row."""
        found = self._trigger.next(after)
        for _ in range(_MAX_EXCLUDED):
            if found is None:
                return None
            if self._dates and (day := found.astimezone(self._zone.info).date()) in self._dates:
                found = self._trigger.next(self._end_of(day, found))
            elif self._without is not None and self._without.next(found - _MICROSECOND) == found:
                found = self._trigger.next(found)
            else:
                return found
        return None

    def in_timezone(self, key: str) -> Trigger:
        """Return it with its parts in this zone."""
        zone_key(key)
        return Exclusion(
            self._trigger.in_timezone(key),
            dates=self._dates,
            without=None if self._without is None else self._without.in_timezone(key),
            timezone=self._timezone or key,
        )

    def _end_of(self, day: date, inside: datetime) -> datetime:
        """Return an instant on a day not before `inside`, as late as can be told without any search."""
        # A clock change on that day or midnight may still be ahead: never jump past what is left of the day.
        midnight = datetime.combine(day + timedelta(days=1), time(), tzinfo=UTC)
        end = midnight - (inside.astimezone(self._zone.info).utcoffset() or timedelta(0)) - _MICROSECOND
        window = self._zone.at(inside)
        return max(inside, min(end, window.hi - _MICROSECOND))

    def _arguments(self) -> _Arguments:
        named: dict[str, Any] = {}
        if self._dates:
            named["dates"] = [day.isoformat() for day in sorted(self._dates)]
        if self._without is not None:
            named["without"] = self._without
        if self._timezone != self._trigger.timezone:
            named["timezone"] = self._timezone
        return (self._trigger,), named


class Between(_Declared):
    """Fire when a trigger does, from one instant to another.

    Args:
        trigger: What fires.
        start_at: The first instant at which it may: aware, or ISO text with an offset; None: no bound.
        end_at: The last one; None: no bound.
    """

    __slots__ = ("end_at", "start_at", "trigger")

    trigger: Trigger
    start_at: datetime | None
    end_at: datetime | None

    def __init__(
        self, trigger: Trigger, *, start_at: datetime | str | None = None, end_at: datetime | str | None = None
    ) -> None:
        self.trigger = trigger
        self.start_at = None if start_at is None else read_instant(start_at, "start_at")
        self.end_at = None if end_at is None else read_instant(end_at, "end_at")

    @property
    def timezone(self) -> str | None:
        """The trigger's."""
        return self.trigger.timezone

    @property
    def fingerprint(self) -> str:
        """The trigger's, and its bounds."""
        bounds = [f" {word} {at.isoformat()}" for word, at in (("from", self.start_at), ("to", self.end_at)) if at]
        return _shorten(self.trigger.fingerprint + "".join(bounds))

    @property
    def warnings(self) -> tuple[str, ...]:
        """Those of the trigger."""
        return self.trigger.warnings

    def next(self, after: datetime) -> datetime | None:
        """Return the first fire time strictly later than an instant and within the bounds, or None."""
        after = _as_utc(after)
        if self.start_at is not None and after < self.start_at:
            after = self.start_at - _MICROSECOND
        found = self.trigger.next(after)
        return None if found is None or (self.end_at is not None and found > self.end_at) else found

    def in_timezone(self, key: str) -> Trigger:
        """Return it with its trigger in this zone."""
        return Between(self.trigger.in_timezone(key), start_at=self.start_at, end_at=self.end_at)

    def _arguments(self) -> _Arguments:
        bounds = {"start_at": self.start_at, "end_at": self.end_at}
        return (self.trigger,), {name: at.isoformat() for name, at in bounds.items() if at is not None}


# --- reading ----------------------------------------------------------------------------------------------


def read_instant(value: datetime | str, option: str) -> datetime:
    """Return an instant in UTC, given as an aware datetime or as an ISO 8601 text with an offset.

    Raises:
        InvalidInstant: It cannot be read, or has no offset.
    """
    moment = _read_moment(value, option)
    if moment.tzinfo is None:
        raise InvalidInstant(
            option, "an instant", value, remedy='add an offset ("2026-12-24T18:00:00+01:00", tzinfo=UTC)'
        )
    return _as_utc(moment, option)


def _as_utc(value: datetime, option: str = "after") -> datetime:
    if not isinstance(value, datetime):
        raise InvalidInstant(option, "an aware datetime", value)
    if value.tzinfo is UTC:
        return value
    if value.utcoffset() is None:
        raise InvalidInstant(option, "an aware datetime", value, remedy="pass datetime.now(UTC), or add tzinfo=...")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise InvalidInstant(option, "a time that has a date in UTC, too", value) from None


def _read_moment(when: object, option: str = "when") -> datetime:
    if isinstance(when, str):
        try:
            return datetime.fromisoformat(when.strip())
        except ValueError as error:
            raise InvalidInstant(option, 'an ISO 8601 text such as "2026-12-24T18:00:00+01:00"', when) from error
    if not isinstance(when, datetime):
        raise InvalidInstant(option, "an aware datetime or an ISO 8601 text", when)
    return when


def _read_dates(dates: date | str | Iterable[date | str]) -> Iterable[date]:
    for entry in dates if isinstance(dates, Iterable) and not isinstance(dates, str) else [dates]:
        if isinstance(entry, datetime):
            yield entry.date()
        elif isinstance(entry, date):
            yield entry
        else:
            try:
                yield date.fromisoformat(entry)
            except (TypeError, ValueError) as error:
                raise InvalidInstant("exclude", 'a date or "YYYY-MM-DD"', entry) from error


def _is_mixed(union: Union) -> bool:
    zoneless = (Every, At)  # an At without a zone is an instant: any zone may tell its day
    keys = {part.timezone for part in union.triggers if part.timezone or not isinstance(part, zoneless)}
    return len(keys) > 1


def _shorten(text: str, limit: int = 200) -> str:
    """Return a text that a store can compare cheaply: itself, or its beginning and a digest."""
    if len(text) <= limit:
        return text
    from hashlib import sha256

    return f"{text[:100]}... sha256:{sha256(text.encode()).hexdigest()}"


# --- every("monday", at="09:30") --------------------------------------------------------------------------

_DAYS: Final = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
_WEEKDAYS: Final = {name: number for number, day in enumerate(_DAYS) for name in (day, day[:3])}
_TIME: Final = r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?"
_MINUTE: Final = r":([0-9]{2})(?::([0-9]{2}))?"


def parse_every(
    period: str | float | timedelta,
    *,
    at: str | time | Sequence[str | time] | None = None,
    timezone: str | ZoneInfo | None = None,
) -> Trigger:
    """Return the trigger that `every(...)` means.

    Args:
        period: A duration for elapsed time ("30s", seconds, timedelta; "second", "minute", "hour"), or "day"
            or a weekday ("monday", "mon") together with `at`; "hour" may have an `at`, too.
        at: A time of day "HH:MM" or "HH:MM:SS" or a `datetime.time`, or several; for "hour" ":MM" or
            ":MM:SS".
        timezone: The zone of `at`: an IANA key or a `ZoneInfo`; None: UTC, or the app's zone.

    Raises:
        InvalidDuration: The period cannot be read.
        InvalidOption: `at` is missing where it is needed, stands where it has no meaning, or cannot be read.
    """
    word = period.strip().lower() if isinstance(period, str) else ""
    weekday = _WEEKDAYS.get(word)
    if weekday is None and word not in ("day", "hour"):
        return _parse_elapsed(period, word, at, timezone)
    if at is None:
        if word == "hour":
            return _parse_elapsed(period, word, at, timezone)
        elapsed = ', or every("24h") for elapsed time' if word == "day" else ""
        raise InvalidOption(
            "at", f"given with every({period!r})", None, remedy=f'pass at="00:00" for midnight{elapsed}'
        )
    times = list(at) if isinstance(at, Iterable) and not isinstance(at, str) else [at]
    if not times:
        raise InvalidOption("at", "at least one time", at)
    days = "*" if weekday is None else str(weekday)
    crons = [_cron_at(_read_time(entry, is_hourly=word == "hour"), days, timezone) for entry in times]
    return crons[0] if len(crons) == 1 else _join(crons)


def _join(triggers: Sequence[Trigger]) -> Trigger:
    joined = Union(*triggers)
    return joined.triggers[0] if len(joined.triggers) == 1 else joined


def _parse_elapsed(period: str | float | timedelta, word: str, at: object, timezone: str | ZoneInfo | None) -> Trigger:
    if word in ("week", "month", "year"):
        use = (
            'name the weekday, as in every("monday", at="00:00"), or write "7d" for elapsed time'
            if word == "week"
            else 'use a cron expression such as "0 0 1 * *"'
        )
        raise InvalidOption("period", "a duration, a weekday or a day", period, remedy=use)
    near = nearest(word, list(_DAYS)) if word.isalpha() and word not in ("second", "minute") else None
    if near:
        raise InvalidOption("period", "a duration, a weekday or a day", period, remedy=f"did you mean {near!r}?")
    trigger = Every(period)
    if at is not None:
        raise InvalidOption(
            "at",
            "left out for a period of elapsed time",
            at,
            remedy='use every("day", at=...) or every("monday", at=...), or Every(..., anchor=...)',
        )
    if timezone is not None:
        raise InvalidOption(
            "timezone", "left out for a period of elapsed time", timezone, remedy="it knows no wall clock"
        )
    return trigger


def _read_time(entry: object, *, is_hourly: bool) -> tuple[str, int, int]:
    """Return hour (`*` for hourly), minute and second."""
    expected = 'a minute such as ":15"' if is_hourly else 'a time such as "05:00" or "05:00:30"'
    if isinstance(entry, time) and not is_hourly:
        if entry.tzinfo is not None or entry.microsecond:
            raise InvalidOption("at", "a time of whole seconds without a zone", entry, remedy="use timezone=")
        return str(entry.hour), entry.minute, entry.second
    if isinstance(entry, str):
        if is_hourly and (found := re.fullmatch(_MINUTE, entry.strip())):
            hour, minute, second = "*", int(found[1]), int(found[2] or 0)
        elif not is_hourly and (found := re.fullmatch(_TIME, entry.strip())) and int(found[1]) < 24:
            hour, minute, second = str(int(found[1])), int(found[2]), int(found[3] or 0)
        else:
            raise InvalidOption("at", expected, entry)
        if minute < 60 and second < 60:
            return hour, minute, second
    raise InvalidOption("at", expected, entry)


def _cron_at(moment: tuple[str, int, int], days: str, timezone: str | ZoneInfo | None) -> Cron:
    hour, minute, second = moment
    if second:
        return Cron(f"{second} {minute} {hour} * * {days}", seconds="first", timezone=timezone)
    return Cron(f"{minute} {hour} * * {days}", timezone=timezone)


# --- looking ahead and back -------------------------------------------------------------------------------


def upcoming(trigger: Trigger, after: datetime, n: int) -> list[datetime]:
    """Return the next `n` fire times after an instant, ascending; fewer when the trigger ends."""
    found: list[datetime] = []
    moment: datetime | None = after
    while len(found) < n and moment is not None:
        moment = trigger.next(moment)
        if moment is not None:
            found.append(moment)
    return found


def latest(
    trigger: Trigger, after: datetime, now: datetime, *, limit: int = 1_000
) -> tuple[datetime | None, datetime | None, int | None]:
    """Return the first and the last fire time in (after, now], and how many there are.

    It costs a few dozen calls of `next` however long the gap is, and at most `limit` more for the count.

    Args:
        trigger: Any trigger.
        after: An aware datetime: the fire times up to it are answered.
        now: An aware datetime.
        limit: Up to how many fire times are counted one by one.

    Returns:
        (None, None, 0) when there is none. The count is None when there are more than `limit` (never for
        `Every`, which needs no counting).
    """
    after, now = _as_utc(after), _as_utc(now, "now")
    first = trigger.next(after)
    if first is None or first > now:
        return None, None, 0
    following = trigger.next(first)
    if following is None or following > now:  # the one fire time that somebody woke up for
        return first, first, 1
    last = _last(trigger, first, now)
    return first, last, _count(trigger, first, last, limit)


def newest(trigger: Trigger, after: datetime, now: datetime, n: int) -> list[datetime]:
    """Return the newest `n` fire times in (after, now], ascending, without visiting the older ones."""
    after, now = _as_utc(after), _as_utc(now, "now")
    first = trigger.next(after)
    found: list[datetime] = []
    while len(found) < n and first is not None and first <= now:
        now = _last(trigger, first, now)
        found.append(now)
        now -= _MICROSECOND
    return found[::-1]


def _last(trigger: Trigger, first: datetime, now: datetime) -> datetime:
    """Return the last fire time in [first, now]; `first` is one, not after `now`."""
    # Step back from now in doubling windows until one holds a fire time ...
    known, span = first, _SECOND
    while now - span > known:
        found = trigger.next(now - span)
        if found is not None and found <= now:
            known = found
            break
        span *= 2
    # ... then halve what lies between the last known fire time and now: nothing is after `end`.
    end = now
    while True:
        following = trigger.next(known)
        if following is None or following > end:
            return known
        if following <= known:
            raise ValueError(f"{trigger!r} says that {following} comes after {known}")
        known = following
        middle = known + (end - known) // 2
        found = trigger.next(middle)
        if found is not None and found <= end:
            known = found
        else:
            end = middle


def _count(trigger: Trigger, first: datetime, last: datetime, limit: int) -> int | None:
    if isinstance(trigger, Every):
        return (last - first) // trigger._period + 1
    count = 1
    moment: datetime | None = first
    while moment is not None and moment < last:
        if count >= limit:
            return None
        moment = trigger.next(moment)
        count += 1
    return count
