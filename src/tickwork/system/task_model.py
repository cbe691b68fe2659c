"""What a task of Task Scheduler consists of, as values: when it starts, and on which terms.

Each value refuses what Task Scheduler's schema has no place for, so that whatever can be made can be written. Weekdays
are numbers, 0 is Sunday; months are 1 to 12; minutes and hours are those of the machine's own wall clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from ..errors import InvalidEntry

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "ANCHOR",
    "MAX_TRIGGERS",
    "ByDay",
    "ByMonth",
    "ByMonthWeekday",
    "ByWeek",
    "CalendarTrigger",
    "Days",
    "Definition",
    "Last",
    "Repetition",
    "TaskTrigger",
    "TimeTrigger",
]

Last: TypeAlias = Literal["last"]

ANCHOR: Final = datetime(2026, 1, 1)  # noqa: DTZ001  # on the wall clock of whatever machine the task is made
"""The day from which triggers count unless one is given: a Thursday. It is fixed, so that the same schedule makes the
same text whenever it is made, and past, so that a trigger that repeats is not held back until tomorrow."""

MAX_TRIGGERS: Final = 48  # of one task, by the schema

_MINUTE: Final = 60
_MAX_INTERVAL: Final = 31 * 86_400


@dataclass(frozen=True, slots=True)
class Repetition:
    """A trigger starts its task again and again.

    Attributes:
        interval_seconds: Whole seconds from one start to the next, 60 to 2,678,400 (31 days).
        duration_seconds: For how long, at least 60 and more than the interval; None: without end.
    """

    interval_seconds: int
    duration_seconds: int | None = None

    def __post_init__(self) -> None:
        """Keep to the limits of the schema."""
        _whole("interval", self.interval_seconds, _MINUTE, _MAX_INTERVAL)
        if self.duration_seconds is not None:
            _whole("duration", self.duration_seconds, self.interval_seconds + 1, 10**9)


@dataclass(frozen=True, slots=True)
class TimeTrigger:
    """Start at one instant, and from then on at equal distances where it repeats.

    Attributes:
        start: To the second: naive for the machine's wall clock, or aware UTC for an instant.
        repetition: None: once.
    """

    start: datetime
    repetition: Repetition | None = None

    def __post_init__(self) -> None:
        """Refuse what is not to the second, and any zone but UTC."""
        _to_the_second(self.start)
        if self.start.tzinfo not in (None, UTC):
            raise InvalidEntry("start", self.start, "it must be naive, or in UTC")


@dataclass(frozen=True, slots=True)
class ByDay:
    """Every `every` days, 1 to 365, counted from the day of the trigger's start."""

    every: int = 1

    def __post_init__(self) -> None:
        """Keep to the limits of the schema."""
        _whole("days", self.every, 1, 365)


@dataclass(frozen=True, slots=True)
class ByWeek:
    """On some weekdays of every `every` weeks, 1 to 52, counted from the week of the trigger's start."""

    weekdays: tuple[int, ...]
    every: int = 1

    def __post_init__(self) -> None:
        """Keep to the limits of the schema."""
        _listed("weekdays", self.weekdays, range(7))
        _whole("weeks", self.every, 1, 52)


@dataclass(frozen=True, slots=True)
class ByMonth:
    """On some days, 1 to 31 and "last", of some months. Days that a month does not have do not come."""

    days: tuple[int | Last, ...]
    months: tuple[int, ...] = tuple(range(1, 13))

    def __post_init__(self) -> None:
        """Keep to the limits of the schema."""
        _listed("days", self.days, [*range(1, 32), "last"])
        _listed("months", self.months, range(1, 13))


@dataclass(frozen=True, slots=True)
class ByMonthWeekday:
    """On the first to fourth and the last of some weekdays in some months: weeks are 1 to 4 and "last"."""

    weeks: tuple[int | Last, ...]
    weekdays: tuple[int, ...]
    months: tuple[int, ...] = tuple(range(1, 13))

    def __post_init__(self) -> None:
        """Keep to the limits of the schema."""
        _listed("weeks", self.weeks, [1, 2, 3, 4, "last"])
        _listed("weekdays", self.weekdays, range(7))
        _listed("months", self.months, range(1, 13))


Days: TypeAlias = ByDay | ByWeek | ByMonth | ByMonthWeekday


@dataclass(frozen=True, slots=True)
class CalendarTrigger:
    """Start at a time of some days, and from then on at equal distances where it repeats.

    Attributes:
        start: The first day that counts and the time of day, naive, to the second.
        days: On which days.
        repetition: None: once on each of them. One without an end would not stop on the days that are left out.
    """

    start: datetime
    days: Days
    repetition: Repetition | None = None

    def __post_init__(self) -> None:
        """Refuse a zone, and a repetition that runs into the next day's."""
        _to_the_second(self.start)
        if self.start.tzinfo is not None:
            raise InvalidEntry("start", self.start, "days are those of the machine's own zone: leave the zone out")
        if self.repetition is not None and not 0 < (self.repetition.duration_seconds or 0) <= 86_400:
            raise InvalidEntry("repetition", self.repetition, "on some days only, it needs an end within 24 hours")


TaskTrigger: TypeAlias = TimeTrigger | CalendarTrigger


@dataclass(frozen=True, slots=True)
class Definition:
    """What Task Scheduler keeps of a task, as far as tickwork writes it.

    Attributes:
        triggers: When it starts, 1 to 48.
        command: The full path of the program.
        arguments: The rest of the command line, as one text.
        directory: The working directory, or None.
        instances: What happens when it is due while it runs: "IgnoreNew", "Queue", "StopExisting" or "Parallel".
        limit_seconds: After how long a run is ended; 0: never.
        catch_up: Whether a start that was missed, because the machine was off, is made up for as soon as can be.
        on_batteries: Whether it also starts, and goes on, on batteries.
        logon: "InteractiveToken" or "S4U".
        run_level: "LeastPrivilege" or "HighestAvailable".
    """

    triggers: tuple[TaskTrigger, ...]
    command: str
    arguments: str = ""
    directory: str | None = None
    instances: str = "IgnoreNew"
    limit_seconds: int = 0
    catch_up: bool = False
    on_batteries: bool = True
    logon: str = "InteractiveToken"
    run_level: str = "LeastPrivilege"


def _whole(part: str, value: object, lowest: int, highest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        raise InvalidEntry(part, value, f"it must be a whole number from {lowest:,} to {highest:,}")


def _listed(part: str, values: Any, allowed: Iterable[Any]) -> None:
    known = list(allowed)
    is_right = isinstance(values, tuple) and all(not isinstance(value, bool) and value in known for value in values)
    if not is_right or not values or len(set(values)) < len(values):
        raise InvalidEntry(part, values, f"it must name, each once, some of {', '.join(map(str, known))}")


def _to_the_second(start: object) -> None:
    if not isinstance(start, datetime) or start.microsecond:
        raise InvalidEntry("start", start, "it must be a datetime to the second")
