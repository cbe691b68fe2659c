"""Cron expressions: text -> plan -> the next fire time in a zone.

    text ──► normalise ──► croniter ──► Plan ──► first match on wall time ──► instant
             (one field      (values      (tables,    (no zone, no gap,         (windows of constant
              at a time)      of fields)   immutable)  no repeat)                offset, see zones.py)

croniter reads the values of the fields; it never sees a zone or a start time. Given zone-aware times it
invents fire times in gaps, repeats daily jobs in the repeated hour, loses fire times where clocks move by 30
minutes or two hours, and walks a gap cell by cell, which takes seconds to minutes. On its own ground, the
fields, a handful of readings need to be corrected before it sees the text; each correction says so below.

The fire times of (expression, zone) are one fixed set S of instants; the next one after t is the smallest
element of S above t, whenever and wherever it is asked for. Clock changes follow Debian's cron(8):
- an edge that moves clocks forward by less than three hours swallows wall times: a fixed-time job that had
  any of them runs once, at the edge;
- an edge that moves them back by up to three hours repeats wall times: a fixed-time job has only the first;
- a job whose minute, hour or second field begins with `*` follows the wall clock through both.

Every search is bounded: day patterns depend only on the kind of year (leap or not, weekday of 1 January), a
leap kind comes again within 40 years and a common one within 12, so 50 years without a match prove "never".
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

from .errors import InvalidCron, InvalidOption, nearest
from .zones import CORRECTION, FIRST, LAST, Window, Zone

__all__ = ["Parts", "Plan", "fire_after", "parse"]

_HORIZON_YEARS = 50  # proves "never", see above
_MAX_WINDOWS = 400  # two centuries of clock changes; only what each of them swallows searches longer
_MAX_CHARACTERS = 1_000
_MAX_MONTHS_KEPT = 1_200  # of one plan: a century
_FAR = timedelta(days=31)
_REPEAT = timedelta(days=2)  # more than any clock was ever put back; less than the shortest window, 4 days
_SECOND = timedelta(seconds=1)
_ZERO = timedelta(0)

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_LENGTHS = (0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


class _Field(NamedTuple):
    name: str
    low: int
    high: int
    names: dict[str, int]


_MINUTE = _Field("minute", 0, 59, {})
_HOUR = _Field("hour", 0, 23, {})
_DAY = _Field("day", 1, 31, {})
_MONTH = _Field("month", 1, 12, {name: number for number, name in enumerate(_MONTHS, 1)})
_WEEKDAY = _Field("weekday", 0, 6, {name: number for number, name in enumerate(_WEEKDAYS)})
_SECONDS = _Field("second", 0, 59, {})
_YEAR = _Field("year", 1970, 2099, {})
_FIELDS = (_MINUTE, _HOUR, _DAY, _MONTH, _WEEKDAY, _SECONDS, _YEAR)  # croniter's order

_ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

# Patterns stay texts: `re` compiles and keeps each at its first use, which an import need not pay.
_HASH = r"h(?:\(([0-9]+)-([0-9]+)\))?(?:/([0-9]+))?"
_RANGE = r"([0-9]+|[a-z]+)(?:-([0-9]+|[a-z]+))?(?:/([0-9]+))?"
_STAR = r"\*(?:/([0-9]+))?"
_NEAREST = r"([0-9]+)w|w([0-9]+)"
_NTH = r"([0-9]+|[a-z]+)#([0-9]+)"
_LAST_WEEKDAY = r"l([0-9]+|[a-z]{3})|([0-9]+|[a-z]{3})l"


# --- text -> plan -----------------------------------------------------------------------------------------


def parse(expression: object, seconds: str | None = None, name: str | None = None) -> Plan:
    """Return the plan of a cron expression; plans are immutable and shared.

    Args:
        expression: Five fields (minute hour day month weekday), an alias such as "@daily", or with `seconds`
            six or seven. ASCII, case does not matter, at most 1,000 characters.
        seconds: Where the second stands when there are six or seven fields: "first" (second minute hour day
            month weekday [year], the order of Quartz and Spring) or "last" (minute hour day month weekday
            second [year], the order of croniter). Weekdays are 0-7 with 0 = 7 = Sunday in both.
        name: Seeds `H`, "some fixed value, another one for each name".

    Semantics:
        Values, lists and steps are those of crontab(5). Beyond it: wrapping ranges ("22-2") count their steps
        along the wrap, as Quartz does, where Debian accepts and never fires and cronsim refuses; "a/n" runs
        to the end of its field; "L", "15W" (day), "5#2", "L5" or "5L" (weekday); "?" is "*" in a day field.
        Where both day fields are restricted, either matches. A day field that begins with `*`, "*/2" too,
        does not restrict, so that both must match: so do Vixie cron, Debian, cronie and cronsim; Kubernetes
        and croniter's default take either.

    Raises:
        InvalidCron: The expression is refused, with the field and the reason; also when its dates never come.
        InvalidOption: `seconds` is neither "first", "last" nor None, or `name` is no text.
    """
    if seconds not in (None, "first", "last"):
        raise InvalidOption("seconds", '"first", "last" or None', seconds)
    if name is not None and not isinstance(name, str):
        raise InvalidOption("name", "a text or None", name)
    if not isinstance(expression, str):
        raise InvalidCron(expression, None, f"it must be a text, not {type(expression).__name__}")
    if len(expression) > _MAX_CHARACTERS:
        raise InvalidCron(expression, None, f"it is longer than {_MAX_CHARACTERS:,} characters")
    if not expression.isascii():
        strange = next(character for character in expression if not character.isascii())
        raise InvalidCron(expression, None, f"{strange!r} is not an ASCII character")
    return _parse(expression, seconds, name if "h" in expression.lower() else None)


@lru_cache(maxsize=1_024)
def _parse(expression: str, seconds: str | None, name: str | None) -> Plan:
    texts = _split(expression, seconds)
    warnings: list[str] = []
    normal = [
        _Reader(expression, field, name, warnings).read(text) for field, text in zip(_FIELDS, texts, strict=False)
    ]
    from croniter import croniter  # 50 ms that only the first expression has to pay

    try:
        parsed = croniter(" ".join(normal), 0.0, hash_id=name)
    except Exception as error:  # whatever slips through our own checks: still one kind of error
        raise InvalidCron(expression, None, str(error) or type(error).__name__) from error
    plan = Plan(texts, parsed.expanded, parsed.nth_weekday_of_month, parsed.nearest_weekday, tuple(warnings))
    if plan.first_date(1999 if plan.years is None else 1970, 1, 1)[0] is None:
        raise InvalidCron(expression, "day", "no such date ever comes: " + _describe_dates(plan, texts))
    return plan


def _describe_dates(plan: Plan, texts: list[str]) -> str:
    years = f" in {texts[6]}" if plan.years is not None else ""
    return f"day {texts[2]!r}, month {texts[3]!r}, weekday {texts[4]!r}{years}"


def _split(expression: str, seconds: str | None) -> list[str]:
    """Return the texts of the fields in croniter's order."""
    text = expression.strip(" \t\r\n").lower()
    if not text:
        raise InvalidCron(expression, None, "it is empty")
    # Expanded here, because croniter turns "@daily" into "some time of the day" as soon as there is a name.
    if text.startswith("@"):
        return _expand_alias(expression, text).split()
    for character in text:
        if not (character.isalnum() or character in " \t*,/-#?()@"):
            raise InvalidCron(expression, None, _explain_character(character, text))
    texts = re.split(r"[ \t]+", text)
    if len(texts) == 5 and seconds is None:
        return texts
    if any(item.startswith("#") for item in texts):
        raise InvalidCron(expression, None, "comments are not part of an expression")
    if len(texts) in (6, 7) and seconds is None:
        raise InvalidCron(
            expression,
            None,
            f'{len(texts)} fields: say where the second stands, seconds="first" (Quartz, Spring) or'
            ' seconds="last" (croniter)',
        )
    if len(texts) not in (6, 7) and seconds is not None:
        raise InvalidCron(expression, None, f"seconds={seconds!r} needs 6 or 7 fields, got {len(texts)}")
    if len(texts) not in (6, 7):
        raise InvalidCron(
            expression,
            None,
            f"it needs 5 fields (minute hour day month weekday), got {len(texts)}",
        )
    return texts if seconds == "last" else [*texts[1:6], texts[0], *texts[6:]]


def _expand_alias(expression: str, text: str) -> str:
    if text in _ALIASES:
        return _ALIASES[text]
    if text == "@reboot":
        reason = '"@reboot" is not a time; use first="now" or the app\'s on_start'
    elif text.split()[0] == "@every":
        reason = 'use Every("5m") or @every("5m") for elapsed time'
    else:
        near = nearest(text, list(_ALIASES))
        reason = f"unknown alias; did you mean {near!r}?" if near else "unknown alias; known: " + ", ".join(_ALIASES)
    raise InvalidCron(expression, None, reason)


def _explain_character(character: str, text: str) -> str:
    if character == "~":
        return '"~" draws anew in each process; use H(a-b), which is fixed by the name'
    if character in "\"'":
        return "quotes are not part of an expression"
    if "=" in text:
        return "settings such as CRON_TZ= are not part of an expression; use timezone="
    if character == "." and re.search(r"/[0-9]*\.", text):
        return "a step must be a whole number"
    return f"{character!r} is not part of cron's syntax"


class _Reader:
    """Rewrites one field into what croniter reads as it is meant here, or refuses it with the reason."""

    def __init__(self, expression: str, field: _Field, name: str | None, warnings: list[str]) -> None:
        self.expression, self.field, self.name, self.warnings = expression, field, name, warnings

    def refuse(self, reason: str) -> InvalidCron:
        return InvalidCron(self.expression, self.field.name, reason)

    def read(self, text: str) -> str:
        is_day = self.field in (_DAY, _WEEKDAY)
        if text == "?":
            if not is_day:
                raise self.refuse('"?" has a meaning in the day and weekday fields only')
            return "*"
        if text.startswith("h") and (hashed := re.fullmatch(_HASH, text)):
            return self.read_hash(text, hashed)
        if self.field is _WEEKDAY and ("#" in text or "l" in text.replace("jul", "")):
            return ",".join(self.read_special_weekday(item, text) for item in text.split(","))
        read = [self.read_item(item, text) for item in text.split(",")]
        # croniter counts the L of "2-31,L" as a 31st day and takes the list for the whole month.
        return ",".join([item for item in read if item != "l"] or ["l"])

    def read_item(self, item: str, text: str) -> str:
        if star := re.fullmatch(_STAR, item):
            if star[1]:
                self.read_step(star[1], self.field.low, self.field.high, item)
            return item
        if self.field is _DAY and item == "l":
            return item
        if self.field is _DAY and (near := re.fullmatch(_NEAREST, item)):
            if item != text:
                raise self.refuse(f"{item!r} must stand alone, not in a list")
            return f"{self.read_value(near[1] or near[2])}w"
        parts = re.fullmatch(_RANGE, item)
        if parts is None or (self.field is _DAY and "l" in item):
            raise self.refuse(self.explain(item))
        return self.read_range(item, parts)

    def read_range(self, item: str, parts: re.Match[str]) -> str:
        low = self.read_value(parts[1])
        if parts[2] is None:
            if parts[3] is None:
                return str(low)
            low = low % 7 if self.field is _WEEKDAY else low
            return f"{low}/{self.read_step(parts[3], low, self.field.high, item)}"
        high = self.read_value(parts[2])
        # croniter reads "5-5" and "7-0" (Sunday to Sunday) as the whole field; they are one value.
        if low == high or (self.field is _WEEKDAY and (low, high) == (7, 0)):
            if parts[3] is not None:
                self.read_step(parts[3], low, low, item)
            return str(low % 7 if self.field is _WEEKDAY else low)
        if low > high and self.field is _YEAR:
            raise self.refuse(f"the range {item!r} runs backwards")  # croniter: every year
        if low < high and not (self.field is _WEEKDAY and high == 7):
            step = self.read_step(parts[3], low, high, item) if parts[3] else 1
            return f"{low}-{high}/{step}"
        # A wrap, or a range to Sunday as 7. croniter starts the second half of a stepped wrap at the wrong
        # value ("22-6/3" as 22 2 5 instead of 22 1 4), so it is given the values.
        size = self.field.high - self.field.low + 1
        end = high if high > low else high + size
        step = self.read_step(parts[3], low, end, item) if parts[3] else 1
        values = {(value - self.field.low) % size + self.field.low for value in range(low, end + 1, step)}
        return ",".join(map(str, sorted(values)))

    def read_special_weekday(self, item: str, text: str) -> str:
        """Read "5#2" (the second Friday) and "L5" or "5L" (the last)."""
        if nth := re.fullmatch(_NTH, item):
            if nth[2] not in ("1", "2", "3", "4", "5"):
                raise self.refuse(f"in {item!r} the number after # must be 1 to 5")
            return f"{self.read_value(nth[1]) % 7}#{nth[2]}"
        if last := re.fullmatch(_LAST_WEEKDAY, item):
            return f"l{self.read_value(last[1] or last[2]) % 7}"
        if item == "l":
            raise self.refuse('"L" needs a weekday here: "L5" is the last Friday')
        if re.fullmatch(_RANGE, item) or re.fullmatch(_STAR, item):
            raise self.refuse(f"{text!r} mixes plain weekdays with # or L; use two expressions")
        raise self.refuse(self.explain(item))

    def read_hash(self, text: str, parts: re.Match[str]) -> str:
        if self.field is _YEAR:
            raise self.refuse("H draws no year")
        if self.name is None:
            raise self.refuse('H needs a seed: pass name="..."')
        low, high = self.field.low, self.field.high
        if parts[1] is not None:
            low, high = (self.read_value(part, zero_sunday=True) for part in (parts[1], parts[2]))
            if low >= high:
                raise self.refuse(f"in {text!r} the range must ascend")
        if parts[3] is not None:
            return f"h({low}-{high})/{self.read_step(parts[3], low, high, text)}"
        # A day that most months have; croniter would put one name in ten on the 29th to the 31st.
        return f"h({low}-{28 if self.field is _DAY and parts[1] is None else high})"

    def read_value(self, text: str, *, zero_sunday: bool = False) -> int:
        field = self.field
        if not text.isdigit():
            if text in field.names:
                return field.names[text]
            raise self.refuse(self.explain(text))
        if len(text) > 6:
            raise self.refuse(f"{text[:20]!r} has more than 6 digits")
        value = int(text)
        high = 7 if field is _WEEKDAY and not zero_sunday else field.high
        if not field.low <= value <= high:
            raise self.refuse(f"{value} is not in {field.low}-{high}")
        return value

    def read_step(self, text: str, low: int, high: int, item: str) -> int:
        if len(text) > 6:
            raise self.refuse(f"the step {text[:20]!r} has more than 6 digits")
        step = int(text)
        if step == 0:
            raise self.refuse(f"in {item!r} the step is 0; it must be at least 1")
        if step > high - low and step > 1:
            means = f"only {low}" if not item.startswith("h") else "only one value"
            self.warnings.append(
                f"{item!r} in the {self.field.name} field means {means}: the step is larger than the range"
            )
        return step

    def explain(self, item: str) -> str:
        """Say why an item that fits no form does not."""
        name = self.field.name
        if not item:
            return "an item of the list is empty"
        if item.startswith("-") or "--" in item:
            return f"{item!r} is no range; negative numbers do not exist here"
        if item.count("/") > 1 or item.endswith("/"):
            return f"{item!r} needs one whole number after the /"
        if item.endswith("-") or "-/" in item:
            return f"{item!r} is a range without an end"
        if "?" in item:
            return '"?" must stand alone'
        if "#" in item and self.field is _WEEKDAY:
            return f'{item!r} is malformed; write one weekday and 1 to 5, as in "5#2", or a list of such'
        if "#" in item:
            return '"#" has a meaning in the weekday field only, as in "5#2"'
        if "*" in item:
            return f'{item!r} is malformed; write "*" or "*/n"'
        if re.match(r"r\b", item):
            return "R draws anew in each process, so that replicas disagree; use H"
        if re.match(r"h\b", item):
            return f'{item!r} is malformed or in a list; write "H", "H/n", "H(a-b)" or "H(a-b)/n" alone'
        if self.field is _DAY and item.endswith("-l"):
            return f"{item!r} is not supported; write {item[:-1] + '31'!r}"
        if item in ("lw", "wl") or re.fullmatch(r"l-[0-9]+|l|[0-9]*w[0-9]*", item):
            return f"{item.upper()!r} is not supported in the {name} field"
        if item.isalpha():
            return self.explain_name(item)
        return f"cannot read {item!r}"

    def explain_name(self, item: str) -> str:
        known = self.field.names
        if item[:3] in known:
            return f"names have three letters: write {item[:3]!r} instead of {item!r}"
        for other in (_MONTH, _WEEKDAY):
            if item[:3] in other.names and other is not self.field:
                return f"{item!r} is a {other.name} and stands in the {self.field.name} field"
        if not known:
            return f"{item!r} is not a number"
        near = nearest(item, list(known))
        return f"unknown name {item!r}; " + (f"did you mean {near!r}?" if near else "known: " + ", ".join(known))


# --- plan -> wall time ------------------------------------------------------------------------------------


class Parts(NamedTuple):
    """The values of a plan's fields, for those who say the same in the words of another scheduler.

    Attributes:
        seconds: 0-59; {0} for five fields.
        minutes: 0-59.
        hours: 0-23.
        months: 1-12.
        month_days: 1-31, and 0 for the last day of a month.
        near_days: Days that stand for the nearest day from Monday to Friday ("15W").
        weekdays: 0-6, 0 is Sunday; without meaning where `nth_weekdays` has some.
        nth_weekdays: Pairs of a weekday and 1-5, or "l" for the last one of a month.
        is_either: Whether a day on which one of the two day fields matches is enough; else both must match.
        years: Ascending, or None for all.
    """

    seconds: frozenset[int]
    minutes: frozenset[int]
    hours: frozenset[int]
    months: frozenset[int]
    month_days: frozenset[int]
    near_days: frozenset[int]
    weekdays: frozenset[int]
    nth_weekdays: frozenset[tuple[int, int | str]]
    is_either: bool
    years: tuple[int, ...] | None


class Plan:
    """What a cron expression means, without a zone. Immutable in what it says; shared between triggers.

    Attributes:
        canonical: A text that two expressions share exactly when they name the same wall times.
        is_wildcard: Whether the minute, hour or second field begins with `*`: such a job follows the wall
            clock through clock changes.
        is_every_hour: Whether it matches in every hour of a day.
        years: The years it is limited to, ascending, or None.
        warnings: What is valid and probably not meant, such as "*/90" minutes; sentences.
    """

    __slots__ = (
        "_either",
        "_first_time",
        "_hours",
        "_kinds",
        "_minutes",
        "_month_days",
        "_monthly",
        "_months",
        "_nearest",
        "_nth",
        "_seconds",
        "_weekdays",
        "canonical",
        "is_every_hour",
        "is_wildcard",
        "warnings",
        "years",
    )

    def __init__(
        self,
        texts: list[str],
        expanded: list[Any],
        nth: dict[Any, set[Any]],
        nearest_weekdays: set[int],
        warnings: tuple[str, ...],
    ) -> None:
        values = [_values(found, field) for found, field in zip(expanded, _FIELDS, strict=False)]
        minutes, hours, self._month_days, months, self._weekdays = values[:5]
        seconds = values[5] if len(values) > 5 else frozenset({0})
        years = values[6] if len(values) > 6 and not {"*", "*/1"}.intersection(texts[6].split(",")) else None
        if "l" in texts[2].split(","):
            self._month_days |= {0}  # stands for the last day
        if nearest_weekdays:
            self._month_days = frozenset()  # croniter lists the 15 of "15W" as a plain day, too
        self._nearest = frozenset(nearest_weekdays)
        self._nth = frozenset((weekday, number) for weekday in nth for number in nth[weekday])
        # crontab(5) looks at the first character, so "1-31" restricts and "*/2" does not. croniter joins the
        # two fields by their values, and with #, L or W it always asks for both.
        self._either = texts[2][0] not in "*?" and texts[4][0] not in "*?"
        self.is_wildcard: bool = any(text[0] == "*" for text in (texts[0], texts[1], *texts[5:6]))
        self.is_every_hour: bool = len(hours) == 24
        self.years: tuple[int, ...] | None = None if years is None else tuple(sorted(years))
        self.warnings: tuple[str, ...] = warnings

        self._minutes, self._hours = _table(minutes, 59), _table(hours, 23)
        self._seconds, self._months = _table(seconds, 59), _table(months, 12)
        self._first_time = (min(hours), min(minutes), min(seconds))
        self._monthly: dict[int, tuple[int, ...]] = {}
        self._kinds: dict[tuple[int, int], tuple[int, ...]] = {}
        times = f"{_show(hours, _HOUR)}:{_show(minutes, _MINUTE)}:{_show(seconds, _SECONDS)}"
        limits = "" if len(months) == 12 else f" month {_show(months)}"
        limits += "" if self.years is None else f" year {_show(frozenset(self.years))}"
        self.canonical: str = f"{self._show_days()}{limits} at {times}"

    @property
    def parts(self) -> Parts:
        """The values of its fields."""
        return Parts(
            _listed(self._seconds),
            _listed(self._minutes),
            _listed(self._hours),
            _listed(self._months),
            self._month_days,
            self._nearest,
            self._weekdays,
            self._nth,
            self._either,
            self.years,
        )

    def _show_days(self) -> str:
        all_days = self._month_days.issuperset(range(1, 32))
        all_weekdays = len(self._weekdays) == 7 and not self._nth
        if (all_days and all_weekdays) or (self._either and (all_days or all_weekdays)):
            return "every day"
        month_days = [
            *(str(day or "L") for day in sorted(self._month_days)),
            *(f"{day}W" for day in self._nearest),
        ]
        weekdays = [f"{day}#{number}" for day, number in sorted(self._nth, key=str)]
        weekdays = weekdays or [str(day) for day in sorted(self._weekdays)]
        if all_days:
            return f"weekday {','.join(weekdays)}"
        if all_weekdays:
            return f"day {','.join(month_days)}"
        return f"day {','.join(month_days)} {'or' if self._either else 'and'} weekday {','.join(weekdays)}"

    def first_after(self, wall: datetime) -> datetime | None:
        """Return the first matching wall time later than `wall`, to the second; both labelled UTC."""
        hour, minute = wall.hour, wall.minute
        year, month, day = wall.year, wall.month, wall.day
        days = self._monthly.get(year * 16 + month) or self._find_days(year, month)
        if days[day] == day:
            if self._hours[hour] == hour:
                if self._minutes[minute] == minute:
                    second = self._seconds[wall.second + 1]
                    if second >= 0:
                        return datetime(year, month, day, hour, minute, second, 0, UTC)
                minute = self._minutes[minute + 1]
                if minute >= 0:
                    return datetime(year, month, day, hour, minute, self._first_time[2], 0, UTC)
            hour = self._hours[hour + 1]
            if hour >= 0:
                return datetime(year, month, day, hour, self._first_time[1], self._first_time[2], 0, UTC)
        day = days[day + 1]
        if day < 0:
            found, _ = self.first_date(year + month // 12, month % 12 + 1, 1)
            if found is None:
                return None
            year, month, day = found
        hour, minute, second = self._first_time
        return datetime(year, month, day, hour, minute, second, 0, UTC)

    def first_date(self, year: int, month: int, day: int) -> tuple[tuple[int, int, int] | None, int]:
        """Return the first matching date not before a date, or None when there is none, and the steps taken.

        A step is one month or one year looked at; there are at most 13 for each of 51 years, or of the years
        the plan is limited to.
        """
        steps = 0
        end = year + _HORIZON_YEARS if self.years is None else self.years[-1]
        while year <= end and year < LAST.year:
            steps += 1
            if self.years is not None and year not in self.years:
                year, month, day = next(listed for listed in self.years if listed > year), 1, 1
            month_found = self._months[month]
            if month_found < 0:
                year, month, day = year + 1, 1, 1
                continue
            if month_found > month:
                month, day = month_found, 1
            found = (self._monthly.get(year * 16 + month) or self._find_days(year, month))[day]
            if found > 0:
                return (year, month, found), steps
            year, month, day = year + month // 12, month % 12 + 1, 1
        return None, steps

    def _find_days(self, year: int, month: int) -> tuple[int, ...]:
        if self._months[month] != month or (self.years is not None and year not in self.years):
            days = _NO_DAYS
        else:
            length = _LENGTHS[month]
            if month == 2 and year % 4 == 0 and (year % 100 != 0 or year % 400 == 0):
                length = 29
            kind = ((date(year, month, 1).weekday() + 1) % 7, length)
            days = self._kinds.get(kind) or self._kinds.setdefault(kind, self._match_days(*kind))
        if len(self._monthly) >= _MAX_MONTHS_KEPT:
            self._monthly = {}
        self._monthly[year * 16 + month] = days
        return days

    def _match_days(self, first: int, length: int) -> tuple[int, ...]:
        """Return the table of the days of a month that begins on weekday `first` (0 = Sunday)."""
        days = {day or length for day in self._month_days if day <= length}
        days |= {_nearest_weekday(day, first, length) for day in self._nearest}
        if self._nth:
            named = {_nth_weekday(weekday, number, first, length) for weekday, number in self._nth}
        else:
            named = {day for day in range(1, length + 1) if (first + day - 1) % 7 in self._weekdays}
        matched = days | named if self._either else days & named
        return _table(frozenset(matched - {0}), 31)


def _values(found: list[Any], field: _Field) -> frozenset[int]:
    if "*" in found:
        return frozenset(range(field.low, field.high + 1))
    return frozenset(value for value in found if value != "l")


def _table(values: frozenset[int], high: int) -> tuple[int, ...]:
    """Return, for each index from 0 to high + 1, the smallest value not below it, or -1."""
    table = [-1] * (high + 2)
    following = -1
    for index in range(high, -1, -1):
        if index in values:
            following = index
        table[index] = following
    return tuple(table)


def _listed(table: tuple[int, ...]) -> frozenset[int]:
    """Return the values that a table was made of."""
    return frozenset(table) - {-1}


_NO_DAYS = _table(frozenset(), 31)


def _show(values: frozenset[int], field: _Field | None = None) -> str:
    if field is not None and len(values) == field.high - field.low + 1:
        return "*"
    return ",".join(map(str, sorted(values)))


def _nearest_weekday(day: int, first: int, length: int) -> int:
    """Return the Monday-to-Friday day nearest to `day`, or to the month's end, within the month."""
    day = min(day, length)
    weekday = (first + day - 1) % 7
    if weekday == 6:
        return day - 1 if day > 1 else day + 2
    if weekday == 0:
        return day + 1 if day < length else day - 2
    return day


def _nth_weekday(weekday: int, number: int | str, first: int, length: int) -> int:
    """Return the day that is the nth (or "l", the last) such weekday, or 0."""
    day = 1 + (weekday - first) % 7
    if number == "l":
        return day + (length - day) // 7 * 7
    day += (int(number) - 1) * 7
    return day if day <= length else 0


# --- wall time -> instants --------------------------------------------------------------------------------


def fire_after(plan: Plan, zone: Zone, after: datetime, dst: str = "cron") -> datetime | None:
    """Return the first fire time later than `after` (aware, tzinfo UTC), or None when there is none.

    Args:
        plan: The expression.
        zone: Whose wall clock it is read on.
        after: From any year; fire times lie in the years 3 to 9989.
        dst: "cron": as the module says. "skip": for any job, nothing for times in a gap and only the first
            pass of a repeated hour. "both": for any job, once after a gap, and both passes.
    """
    window = zone.last
    if not window.lo <= after < window.hi:
        if after >= LAST:
            return None
        after = max(after, FIRST)
        window = zone.at(after)
    wall = after + window.offset
    if wall < window.repeat_end and _has_first_pass_only(plan, dst):
        wall = window.repeat_end - _SECOND
    found = plan.first_after(wall)
    if found is not None:
        instant = found - window.offset
        if instant < window.hi:
            return instant
    return _cross(plan, zone, window, wall, found, dst)


def _cross(plan: Plan, zone: Zone, window: Window, wall: datetime, found: datetime | None, dst: str) -> datetime | None:
    """Go on in later windows: `found`, the first match after `wall`, is not in this one, or there is none."""
    replays = dst == "both" or (dst == "cron" and not plan.is_wildcard)
    first_pass_only = _has_first_pass_only(plan, dst)
    for _ in range(_MAX_WINDOWS):
        edge = window.hi
        if edge >= LAST:
            return None
        # The wall clock may go back at the edge, at most by a day, and show again what lies before `wall`.
        is_behind = wall < edge + window.offset - _REPEAT
        if found is None and is_behind:
            return None
        if found is not None and is_behind and found - window.offset - edge > _FAR:
            # Nothing matches for a month and more: straight to the window of some days before the match.
            window = zone.at(found - window.offset - _REPEAT)
            wall = found - _REPEAT
        else:
            following = zone.at(edge)
            is_swallowed = found is not None and found < edge + following.offset
            if replays and is_swallowed and _ZERO < following.shift < CORRECTION:
                return edge
            window = following
            wall = edge + window.offset - _SECOND
            if first_pass_only and wall < window.repeat_end:
                wall = window.repeat_end - _SECOND
            found = plan.first_after(wall)
        if found is not None and found - window.offset < window.hi:
            return found - window.offset
    return None


def _has_first_pass_only(plan: Plan, dst: str) -> bool:
    return dst == "skip" or (dst == "cron" and not plan.is_wildcard)
