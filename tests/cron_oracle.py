"""A slow, plain evaluator of cron expressions that the tests compare with.

Written from crontab(5) and the rules of Debian's cron(8) for clock changes, and from nothing of the library:
it asks every minute of a day "do you match?" on the wall clock that `zoneinfo` shows at that instant. The one
short cut: days on which no date near matches are skipped whole.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
WEEKDAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
RANGES = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 6), (0, 59), (1970, 2099)]
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


class Oracle:
    """An expression of 5 to 7 fields in the order minute hour day month weekday [second [year]]."""

    def __init__(self, expression: str) -> None:
        self.fields = expression.lower().split()
        self.minutes = plain_values(self.fields[0], 0)
        self.hours = plain_values(self.fields[1], 1)
        self.months = plain_values(self.fields[3], 3)
        self.seconds = sorted(plain_values(self.fields[5], 5)) if len(self.fields) > 5 else [0]
        self.years = plain_values(self.fields[6], 6) if len(self.fields) > 6 else None
        self.follows_wall_clock = any(self.fields[i][0] == "*" for i in (0, 1, 5) if i < len(self.fields))
        self._dates: dict[date, bool] = {}
        self._days: dict[tuple[datetime, str, str], list[datetime]] = {}

    def matches_date(self, day: date) -> bool:
        if day not in self._dates:
            self._dates[day] = self._match_date(day)
        return self._dates[day]

    def _match_date(self, day: date) -> bool:
        if day.month not in self.months or (self.years is not None and day.year not in self.years):
            return False
        in_month = any(matches_day(item, day) for item in self.fields[2].split(","))
        in_week = any(matches_weekday(item, day) for item in self.fields[4].split(","))
        if self.fields[2][0] in "*?" or self.fields[4][0] in "*?":
            return in_month and in_week
        return in_month or in_week

    def matches_minute(self, wall: datetime) -> bool:
        return wall.minute in self.minutes and wall.hour in self.hours and self.matches_date(wall.date())

    def ever_matches(self) -> bool:
        first, last = (1999, 2051) if self.years is None else (1970, 2099)
        day = date(first, 1, 1)
        while day.year <= last:
            if self.matches_date(day):
                return True
            day += DAY
        return False

    def next_after(self, after: datetime, key: str = "UTC", dst: str = "cron", *, days: int = 800) -> datetime | None:
        """Return the first fire time later than `after`, or None when there is none for so many days."""
        day = after.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        for _ in range(days):
            if any(self.matches_date((day + n * DAY).date()) for n in (-1, 0, 1)):
                for found in self.fire_times_of_day(day, key, dst):
                    if found > after:
                        return found
            day += DAY
        return None

    def fire_times_of_day(self, day: datetime, key: str, dst: str) -> list[datetime]:
        if (day, key, dst) not in self._days:
            self._days[day, key, dst] = self._visit_minutes_of_day(day, ZoneInfo(key), dst)
        return self._days[day, key, dst]

    def _visit_minutes_of_day(self, day: datetime, zone: ZoneInfo, dst: str) -> list[datetime]:
        found: set[datetime] = set()
        once_in_gap = dst == "both" or (dst == "cron" and not self.follows_wall_clock)
        first_pass_only = dst == "skip" or (dst == "cron" and not self.follows_wall_clock)
        previous = wall_clock(day - MINUTE, zone)
        for number in range(24 * 60):
            instant = day + number * MINUTE
            wall = wall_clock(instant, zone)
            if self.matches_minute(wall) and not (first_pass_only and is_second_pass(instant, zone)):
                found.update(instant + timedelta(seconds=second) for second in self.seconds)
            missing = wall - previous - MINUTE
            if once_in_gap and timedelta(0) < missing < 3 * HOUR:
                gap = [previous + n * MINUTE for n in range(1, missing // MINUTE + 1)]
                if any(self.matches_minute(swallowed) for swallowed in gap):
                    found.add(instant)
            previous = wall
        return sorted(found)


def wall_clock(instant: datetime, zone: ZoneInfo) -> datetime:
    return instant.astimezone(zone).replace(tzinfo=None, fold=0)


def is_second_pass(instant: datetime, zone: ZoneInfo) -> bool:
    local = instant.astimezone(zone)
    if local.fold == 0:
        return False
    return instant - local.replace(fold=0).astimezone(UTC) <= 3 * HOUR


def plain_values(field: str, index: int) -> set[int]:
    values: set[int] = set()
    for item in field.split(","):
        values |= item_values(item, index)
    return values


def item_values(item: str, index: int) -> set[int]:
    low, high = RANGES[index]
    span, _, step_text = item.partition("/")
    step = int(step_text or 1)
    if span in ("*", "?"):
        start, end = low, high
    elif "-" in span:
        start, end = (number(part, index) for part in span.split("-"))
    else:
        start = number(span, index)
        end = high if step_text else start
    if index == 4 and step_text and "-" not in span:
        start %= 7
    if index == 4 and (start, end) == (7, 0):
        return {0}
    # A clock face: walk on from the start until the end is reached or passed.
    size = high - low + 1
    distance = end - start if end >= start else end - start + size
    return {(start + walked - low) % size + low for walked in range(0, distance + 1, step)}


def number(text: str, index: int) -> int:
    if text.isdigit():
        return int(text)
    return MONTHS.index(text) + 1 if index == 3 else WEEKDAYS.index(text)


def last_day(day: date) -> int:
    return ((day.replace(day=28) + 4 * DAY).replace(day=1) - DAY).day


def matches_day(item: str, day: date) -> bool:
    if item == "l":
        return day.day == last_day(day)
    if "w" in item:
        wanted = day.replace(day=min(int(item.replace("w", "")), last_day(day)))
        workdays = [day.replace(day=n) for n in range(1, last_day(day) + 1)]
        workdays = [workday for workday in workdays if workday.isoweekday() <= 5]
        # The nearest one; between Friday and Monday of equal distance there is no tie: a Saturday is nearer
        # to Friday, a Sunday to Monday.
        return day == min(workdays, key=lambda workday: abs(workday - wanted))
    return day.day in item_values(item, 2)


def matches_weekday(item: str, day: date) -> bool:
    weekday = day.isoweekday() % 7
    if "#" in item:
        name, _, nth = item.partition("#")
        return weekday == number(name, 4) % 7 and (day.day - 1) // 7 + 1 == int(nth)
    if "l" in item:
        return weekday == number(item.replace("l", ""), 4) % 7 and day.day + 7 > last_day(day)
    return weekday in {value % 7 for value in item_values(item, 4)}
