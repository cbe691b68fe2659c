"""Each rule of `tickwork check` that needs no process: what it finds, in which words, and what it lets pass."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tickwork
from tickwork import App, At, Cron, Every
from tickwork.errors import DuplicateName, InvalidCron, InvalidDuration, InvalidOption, NotImportable, UnknownTimezone
from tickwork.observe.check import MAX_FIRE_TIMES, apart, check, no_executor
from tickwork.observe.clock_changes import clock_changes
from tickwork.observe.findings import RULES, Finding, in_two, refusal
from tickwork.triggers import Trigger

NOW = datetime(2026, 11, 26, 8, 2, tzinfo=UTC)
DST = 'choose another hour or timezone="UTC", or decide with dst="skip" or dst="both"'


def found(trigger: Trigger, *, timeout: float | str | None = None, **policies: Any) -> list[Finding]:
    """Return what is found in an app with one schedule, "job"."""
    app = App(timezone="Europe/Berlin")

    @app.schedule(trigger, name="job", timeout=timeout, **policies)
    async def job() -> None: ...

    return check(app.tasks.values(), app.schedules.values(), NOW)


# --- triggers ----------------------------------------------------------------------------------------------


class Custom(Trigger):
    """A trigger of the user's own, which answers or raises what it is given."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    @property
    def fingerprint(self) -> str:
        return "custom"

    def next(self, after: datetime) -> datetime | None:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer  # type: ignore[no-any-return]


class Unspeakable(Exception):
    def __repr__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (ValueError("two\nlines"), "ValueError('two\\nlines')"),
        (Unspeakable(), "a Unspeakable whose text cannot be had"),
        (NOW, "ValueError('2026-11-26 08:02:00+00:00 comes after 2026-11-26 08:02:00+00:00')"),
        (datetime(2027, 1, 1), "TypeError('datetime.datetime(2027, 1, 1, 0, 0) is no aware datetime')"),  # noqa: DTZ001
        ("tomorrow", "TypeError(\"'tomorrow' is no aware datetime\")"),
    ],
)
def test_a_trigger_that_raises_or_answers_nonsense_is_found(answer: Any, said: str) -> None:
    assert found(Custom(answer)) == [
        Finding("broken-trigger", "job", f"its trigger raised {said}", "correct its `next`; the schedule cannot run")
    ]


def test_a_broken_trigger_spoils_no_other_schedule() -> None:
    app = App()

    @app.schedule(Custom(ValueError("x")), name="first")
    @app.schedule(At("2020-01-01T00:00Z"), name="second")
    async def job() -> None: ...

    rules = {entry.about: entry.rule for entry in check(app.tasks.values(), app.schedules.values(), NOW)}

    assert rules == {"first": "broken-trigger", "second": "never-fires"}


def test_a_trigger_of_the_users_own_that_works_is_no_finding() -> None:
    class Hourly(Custom):
        def next(self, after: datetime) -> datetime | None:
            return Every("1h").next(after)

    assert found(Hourly(None)) == []


@pytest.mark.parametrize(
    ("trigger", "shown"),
    [
        (At("2026-11-26T09:00+01:00"), "At('2026-11-26T08:00:00+00:00')"),
        (
            Cron("0 0 9 1 1 * 2026", seconds="first"),
            "Cron('0 0 9 1 1 * 2026', timezone='Europe/Berlin', seconds='first')",
        ),
    ],
)
def test_a_trigger_without_a_fire_time_to_come_is_found(trigger: Trigger, shown: str) -> None:
    message = f"{shown} has no fire time after 2026-11-26 08:02:00 UTC"

    assert found(trigger) == [Finding("never-fires", "job", message, "remove the schedule, or give it a time to come")]


def test_a_fire_time_to_come_or_the_start_of_the_app_is_no_finding() -> None:
    assert found(At("2026-11-26T08:03Z")) == []
    assert found(At("2050-01-01T00:00Z")) == []
    assert found(At("2026-11-26T08:00Z"), first="now") == []


def test_the_text_of_a_huge_trigger_is_shortened() -> None:
    union = At("2001-01-01T00:00Z")
    for year in range(2002, 2026):
        union |= At(f"{year}-01-01T00:00Z")  # type: ignore[assignment]

    (finding,) = found(union)

    assert len(finding.message) < 260
    assert "... has no fire time after" in finding.message


def test_what_a_trigger_warns_of_is_found() -> None:
    assert found(Cron("*/90 * * * *")) == [
        Finding(
            "trigger-warning",
            "job",
            "'*/90' in the minute field means only 0: the step is larger than the range",
            'write out the values that are meant, or use every("...") for elapsed time',
        )
    ]
    assert found(Cron("*/30 * * * *")) == []


# --- clock changes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trigger", "spring", "autumn"),
    [
        pytest.param(
            Cron("30 2 * * *"),
            "02:30 does not exist in Europe/Berlin, runs once at 03:00",
            "02:30 comes twice in Europe/Berlin, runs in the first pass only",
            id="fixed",
        ),
        pytest.param(
            Cron("15 30 2 * * *", seconds="first"),
            "02:30:15 does not exist in Europe/Berlin, runs once at 03:00",
            "02:30:15 comes twice in Europe/Berlin, runs in the first pass only",
            id="seconds",
        ),
        pytest.param(
            Cron("0,30 2 * * *") | Cron("15,20 2 * * *"),
            "02:00, 02:15, 02:20 and 1 more do not exist in Europe/Berlin, run once at 03:00",
            "02:00, 02:15, 02:20 and 1 more come twice in Europe/Berlin, run in the first pass only",
            id="union",
        ),
        pytest.param(
            Cron("*/30 2 * * *"),
            "02:00, 02:30 do not exist in Europe/Berlin, are left out",
            "02:00, 02:30 come twice in Europe/Berlin, run in both passes",
            id="wildcard at an hour",
        ),
        pytest.param(
            Cron("* * 2 * * *", seconds="first"),
            "02:00, 02:00:01, 02:00:02 and many more do not exist in Europe/Berlin, are left out",
            "02:00, 02:00:01, 02:00:02 and many more come twice in Europe/Berlin, run in both passes",
            id="every second of an hour",
        ),
        pytest.param(
            Cron("0 */2 * * *"),
            "02:00 does not exist in Europe/Berlin, is left out",
            "02:00 comes twice in Europe/Berlin, runs in both passes",
            id="every other hour",
        ),
        pytest.param(
            Cron("30 0-23 * * *"),
            "02:30 does not exist in Europe/Berlin, runs once at 03:00",
            "02:30 comes twice in Europe/Berlin, runs in the first pass only",
            id="every hour, named",
        ),
    ],
)
def test_times_of_day_that_a_clock_change_touches_are_found(trigger: Trigger, spring: str, autumn: str) -> None:
    message = f"2027-03-28: {spring}; 2027-10-31: {autumn}"

    assert found(trigger) == [Finding("clock-change", "job", message, DST)]


@pytest.mark.parametrize(
    "trigger",
    [
        Cron("30 4 * * *"),
        Cron("0 3 * * *"),
        Cron("* * * * *"),
        Cron("30 * * * *"),
        Cron("*/20 * * * *", timezone="Australia/Lord_Howe"),
        Cron("*/15 0-5 * * *"),
        Cron("30 2 * * *", timezone="UTC"),
        Cron("30 2 * * *", timezone="Asia/Seoul"),
        Cron("30 2 * * *", dst="skip"),
        Cron("30 2 * * *", dst="both"),
        Cron("30 2 1 * *"),
        Cron("30 2 * * *").exclude(["2027-03-28", "2027-10-31"]),
        Cron("30 2 * * *").exclude(Cron("* * * * sun")),
        (Cron("30 2 * * *").exclude(Cron("30 2 * 10 *") | Every("1h"))).exclude("2027-03-28"),
        Every("1h"),
        At("2027-03-28T03:00", timezone="Europe/Berlin"),
    ],
    ids=repr,
)
def test_what_no_clock_change_touches_or_is_decided_on_is_no_finding(trigger: Trigger) -> None:
    assert found(trigger) == []


def test_a_day_that_is_not_excluded_is_found() -> None:
    changes = clock_changes(Cron("30 2 * * *", timezone="Europe/Berlin").exclude(["2027-03-28"]), NOW)

    assert changes == ["2027-10-31: 02:30 comes twice in Europe/Berlin, runs in the first pass only"]


@pytest.mark.parametrize(
    ("key", "expression", "since", "changes"),
    [
        # The clocks of Chile go from midnight to one.
        (
            "America/Santiago",
            "30 0 * * *",
            "2026-05-01",
            [
                "2026-09-06: 00:30 does not exist in America/Santiago, runs once at 01:00",
            ],
        ),
        # Half an hour at two.
        (
            "Australia/Lord_Howe",
            "15 2 * * *",
            "2026-05-01",
            ["2026-10-04: 02:15 does not exist in Australia/Lord_Howe, runs once at 02:30"],
        ),
        # A day that never was: a correction, and no daylight saving, replays nothing.
        (
            "Pacific/Apia",
            "0 12 * * *",
            "2011-12-01",
            ["2011-12-30: 12:00 does not exist in Pacific/Apia, is left out"],
        ),
        # Into the first moment of the next day.
        (
            "America/Scoresbysund",
            "30 23 * * *",
            "2026-12-01",
            ["2027-03-27: 23:30 does not exist in America/Scoresbysund, runs once at 2027-03-28 00:00"],
        ),
    ],
)
def test_any_zone_is_looked_at(key: str, expression: str, since: str, changes: list[str]) -> None:
    assert clock_changes(Cron(expression, timezone=key), datetime.fromisoformat(f"{since}T00:00Z"))[:1] == changes


@pytest.mark.parametrize("year", [1, 9999])
def test_no_year_is_too_early_or_late_to_look_ahead(year: int) -> None:
    assert clock_changes(Cron("30 2 * * *", timezone="Europe/Berlin"), datetime(year, 6, 1, tzinfo=UTC)) == []


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(
        ["Europe/Berlin", "America/Santiago", "Australia/Lord_Howe", "Africa/Casablanca", "Antarctica/Troll"]
    ),
    st.integers(0, 4),
    st.integers(0, 59),
    st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
)
def test_a_daily_job_is_found_exactly_when_a_day_of_the_year_shows_its_time_never_or_twice(
    key: str, hour: int, minute: int, now: datetime
) -> None:
    zone = ZoneInfo(key)
    cron = Cron(f"{minute} {hour} * * *", timezone=key)

    changes = clock_changes(cron, now)

    touched = set()
    for number in range(-1, 367):
        wall = datetime.combine(now.astimezone(zone).date() + timedelta(days=number), time(hour, minute))
        first, second = (wall.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
        if first.utcoffset() != second.utcoffset() and now < _edge(first, second) <= now + timedelta(days=365):
            touched.add(f"{wall:%Y-%m-%d}")
    assert {change[:10] for change in changes} == touched


def _edge(first: datetime, second: datetime) -> datetime:
    """Return the instant of the clock change around a wall time, by asking for the offset second by second."""
    low, high = sorted((first.astimezone(UTC), second.astimezone(UTC)))
    low, high = low - timedelta(hours=3), high + timedelta(hours=3)
    zone = first.tzinfo
    before = low.astimezone(zone).utcoffset()
    while high - low > timedelta(seconds=1):
        middle = low + (high - low) / 2
        low, high = (middle, high) if middle.astimezone(zone).utcoffset() == before else (low, middle)
    return high.replace(microsecond=0)


# --- gaps --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overlap", "late"),
    [
        ("skip", "that is then skipped"),
        ("queue", "that then waits"),
        ("replace", "that cancels the run before its timeout"),
    ],
)
def test_a_timeout_longer_than_the_gap_is_found(overlap: str, late: str) -> None:
    gap = "5m later (2026-11-26 08:05:00 and 08:10:00 UTC)"

    assert found(Every("5m"), timeout="10m", overlap=overlap) == [
        Finding(
            "long-timeout",
            "job",
            f"a run may take 10m, and {gap} the next is due, {late}",
            'timeout="5m" at the most, a longer period, or overlap="allow"',
        )
    ]


def test_the_shortest_of_the_gaps_counts() -> None:
    # 23:30 and 00:10 of the next day in Berlin: the same day of UTC.
    (finding,) = found(Cron("30 23 * * *") | Cron("10 0 * * *"), timeout="1h")
    assert "40m later (2026-11-26 22:30:00 and 23:10:00 UTC)" in finding.message

    (finding,) = found(Cron("50 23 * * *", timezone="UTC") | Cron("10 0 * * *", timezone="UTC"), timeout="1h")
    assert "20m later (2026-11-26 23:50:00 and 2026-11-27 00:10:00 UTC)" in finding.message


def test_a_timeout_that_ends_in_time_or_may_overlap_is_no_finding() -> None:
    assert found(Every("5m"), timeout="5m") == []
    assert found(Every("5m"), timeout="10m", overlap="allow") == []
    assert found(Every("5m")) == []
    assert found(At("2027-01-01T00:00Z"), timeout="10m") == []
    assert found(Every("500d"), timeout="600d") == []  # its second fire time is beyond the year


def test_a_jitter_longer_than_the_gap_is_found() -> None:
    assert found(Every("5m"), jitter="10m") == [
        Finding(
            "long-jitter",
            "job",
            "a start may be put off by 10m, and 5m later (2026-11-26 08:05:00 and 08:10:00 UTC) the next is due: "
            "it is cut to that",
            'jitter="5m" at the most, or a longer period',
        )
    ]
    assert found(Every("5m"), jitter="5m") == []


def test_a_grace_that_an_idle_loop_misses_is_found() -> None:
    assert found(Every("5m"), grace=0) == [
        Finding(
            "short-grace",
            "job",
            "a start later than 0s is missed, and an idle loop may be later than that",
            'grace="1s" at the least, or none',
        )
    ]
    assert found(Every("5m"), grace="1s", jitter="1m") == []  # it counts from the jitter on


def test_few_fire_times_are_looked_at() -> None:
    asked = 0

    class Counting(Custom):
        def next(self, after: datetime) -> datetime | None:
            nonlocal asked
            asked += 1
            return Every("1ms").next(after)

    assert found(Counting(None), timeout=0.0005) == []
    assert asked <= MAX_FIRE_TIMES + 1


# --- tasks in processes ------------------------------------------------------------------------------------


def test_a_coroutine_function_for_a_process_is_found() -> None:
    app = App()
    app.task(name="wrong", run_in="process")(asynchronous)
    app.task(name="right", run_in="process")(plain)
    app.task(name="elsewhere")(asynchronous)

    assert check(app.tasks.values(), [], NOW) == [
        Finding(
            "process-coroutine",
            "wrong",
            'it is a coroutine function, and run_in="process" takes plain ones',
            "write `def`, or leave out run_in",
        )
    ]


def test_a_coroutine_function_for_an_executor_is_found() -> None:
    app = App()
    app.task(name="wrong", run_in="executor")(asynchronous)
    app.task(name="right", run_in="executor")(plain)

    assert check(app.tasks.values(), [], NOW) == [
        Finding(
            "executor-coroutine",
            "wrong",
            'it is a coroutine function, and run_in="executor" takes plain ones',
            "write `def`, or leave out run_in",
        )
    ]


def test_tasks_for_an_executor_that_is_missing_are_found() -> None:
    app = App()
    app.task(name="second", run_in="executor")(plain)
    app.task(name="first", run_in="executor")(plain)
    app.task(name="elsewhere")(plain)

    assert no_executor(app.tasks.values(), "jobs.py") == Finding(
        "executor-missing",
        "jobs.py",
        'it has no executor for run_in="executor" of first, second, and does not start',
        "use App(executor=...), or set app.executor in the lifespan",
    )
    assert no_executor([], "jobs.py") is None


def test_a_function_whose_name_leads_to_another_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    app = App()
    app.task(name="hidden", run_in="process")(plain)
    monkeypatch.setitem(globals(), "plain", print)

    assert check(app.tasks.values(), [], NOW) == [
        Finding(
            "process-import",
            "hidden",
            f"function 'plain' cannot be imported by name: {__name__}.plain is another object",
            "define it at the top level of a module",
        )
    ]


def plain() -> None: ...


async def asynchronous() -> None: ...


# --- what stopped the import, and what stands beside the app -----------------------------------------------


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            DuplicateName("task", "a; b", "rename it"),
            Finding("duplicate-name", "a; b", "two tasks are named 'a; b' (jobs.py, line 3)", "rename it"),
        ),
        (
            UnknownTimezone("Europe/Berlni", "Europe/Berlin"),
            Finding(
                "unknown-timezone",
                "jobs.py, line 3",
                "timezone must be an IANA key such as \"Asia/Seoul\", got 'Europe/Berlni'",
                "did you mean 'Europe/Berlin'?",
            ),
        ),
        (
            UnknownTimezone("?"),
            Finding(
                "unknown-timezone",
                "jobs.py, line 3",
                "timezone must be an IANA key such as \"Asia/Seoul\", got '?'",
                'use a key such as "Asia/Seoul"',
            ),
        ),
        (
            InvalidCron("61 * * * *", "minute", "61 is out of range"),
            Finding(
                "invalid-cron",
                "jobs.py, line 3",
                "invalid cron expression '61 * * * *' (field 'minute'): 61 is out of range",
                "try it with `tickwork next --cron`",
            ),
        ),
        (
            NotImportable("f", "it is a lambda"),
            Finding(
                "process-import",
                "jobs.py, line 3",
                "function 'f' cannot be imported by name: it is a lambda",
                "define it at the top level of a module",
            ),
        ),
        (
            InvalidDuration("period", "5 parsecs", "no such unit"),
            Finding(
                "invalid-option",
                "jobs.py, line 3",
                'period must be a duration such as "30s", "1h30m", a number of seconds or a timedelta, '
                "got '5 parsecs'",
                "no such unit",
            ),
        ),
        (
            InvalidOption("workers", "a whole number of at least 1", 0),
            Finding(
                "invalid-option",
                "jobs.py, line 3",
                "workers must be a whole number of at least 1, got 0",
                "correct it",
            ),
        ),
    ],
)  # fmt: skip
def test_an_option_that_is_refused_is_a_finding(error: InvalidOption, expected: Finding) -> None:
    assert refusal(error, "jobs.py, line 3") == expected


def test_a_semicolon_in_a_value_divides_nothing() -> None:
    assert in_two(InvalidOption("cron", "five fields", "0 5; * *", remedy="count")) == (
        "cron must be five fields, got '0 5; * *'",
        "count",
    )


def test_signs_of_several_workers_are_said() -> None:
    assert apart("WEB_CONCURRENCY=4", "jobs:app") == Finding(
        "several-workers",
        "jobs:app",
        "it keeps its jobs in memory, and WEB_CONCURRENCY=4: each worker fires every schedule and knows its own jobs "
        "only",
        "give the schedules to one process, `tickwork run` say",
    )


def test_an_empty_app_is_clean() -> None:
    assert check([], [], NOW) == []


def test_every_rule_is_listed_and_every_listed_rule_is_used() -> None:
    package = Path(tickwork.__file__).parent / "observe"
    source = "".join((package / name).read_text() for name in ("check.py", "processes.py", "waiting.py"))
    refusals = (package / "findings.py").read_text().partition("_REFUSALS")[2]
    used = set(re.findall(r'Finding\(\s*"([\w-]+)"', source)) | set(re.findall(r'rule = "([\w-]+)"', source))
    used |= set(re.findall(r'^    \(\w+, "([\w-]+)"', refusals, re.M))

    assert used == set(RULES)


def test_the_documentation_lists_the_rules_of_the_code() -> None:
    page = (Path(__file__).parents[2] / "docs" / "apps.md").read_text(encoding="utf-8")
    section = page.partition("\n## Checked before it runs\n")[2].partition("\n## ")[0]

    assert re.findall(r"^\| `([\w-]+)` \|", section, re.M) == list(RULES)


def test_a_run_after_the_last_one_has_ended_cannot_be_longer_than_its_period() -> None:
    app = App()

    @app.every("10s", after="end", timeout="1m", jitter="20s")
    async def poll() -> None: ...

    assert check(app.tasks.values(), app.schedules.values(), datetime(2026, 1, 1, tzinfo=UTC)) == []


def test_what_a_clock_change_does_is_found_within_bounds_too() -> None:
    app = App(timezone="Europe/Berlin")

    @app.cron("30 2 * * *", start_at="2026-01-01T00:00Z", name="nightly")
    async def nightly() -> None: ...

    found = check(app.tasks.values(), app.schedules.values(), datetime(2026, 1, 1, tzinfo=UTC))
    assert [(finding.rule, finding.about) for finding in found] == [("clock-change", "nightly")]
