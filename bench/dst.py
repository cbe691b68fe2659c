"""What schedulers do when clocks change: the fire times of six libraries beside tickwork's, in words.

    python bench/dst.py                 # a Markdown table; peers in environments of their own
    python bench/dst.py --no-peers      # tickwork's rows only
    python bench/dst.py --instants      # the fire times behind the words, as JSON

Every library is asked for its fire times inside a window around a clock change, in the way its own scheduler asks.
The answers come back as instants in UTC, and the words of a cell are made from nothing else. The status is 1 when
tickwork answers otherwise than docs/time.md says.
"""

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import peers

MOST = 2_000  # answers to one question; a library that stands still must end, too
SECONDS = 120  # for all answers of one library; Celery is asked minute by minute
MINUTE = timedelta(minutes=1)


# --- the questions ---


@dataclass(frozen=True)
class Case:
    """An expression in a zone, and the window in which its fire times are asked for.

    Attributes:
        title: The head of the column.
        expression: Five fields.
        key: The zone.
        start: No fire time up to here counts.
        end: None after it does.
        tell: Makes the words from the fire times.
    """

    title: str
    expression: str
    key: str
    start: datetime
    end: datetime
    tell: "Callable[[Case, list[datetime]], str]"

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.key)

    def on_the_wall(self) -> list[datetime]:
        """Return the minutes at which the zone's clocks show a time that the expression names."""
        minutes, hours = (named(field, size) for field, size in zip(self.expression.split(), (60, 24), strict=False))
        found, at = [], self.start + MINUTE
        while at <= self.end:
            wall = at.astimezone(self.zone)
            if wall.minute in minutes and wall.hour in hours:
                found.append(at)
            at += MINUTE
        return found


def named(field: str, size: int) -> set[int]:
    """Return the values of a minute or hour field, as far as the questions need it."""
    if field.startswith("*"):
        return set(range(0, size, int(field.partition("/")[2] or 1)))
    return {int(value) for value in field.split(",")}


def tell_gap(case: Case, fires: list[datetime]) -> str:
    """Say when a job ran whose time the clocks left out."""
    if not fires:
        return "skipped that day"
    times = " and ".join(f"{at.astimezone(case.zone):%H:%M}" for at in fires)
    return f"{times}, {'once' if len(fires) == 1 else f'{len(fires)} times'}"


def tell_fold(case: Case, fires: list[datetime]) -> str:
    """Say in which pass a job ran whose time the clocks showed twice."""
    passes = [("second" if at.astimezone(case.zone).fold else "first") for at in fires]
    if not passes:
        return "not at all"
    return f"once, {passes[0]} pass" if len(passes) == 1 else "**twice**"


def tell_wall(case: Case, fires: list[datetime]) -> str:
    """Say what is missing from the times that the clocks show, and what is too much."""
    wanted = case.on_the_wall()
    missing = [at for at in wanted if at not in fires]
    second = [at for at in wanted if at.astimezone(case.zone).fold]
    extra = [at for at in fires if at not in wanted]
    parts = []
    if missing and missing == second:
        parts.append(f"**second pass lost** ({len(missing)} of {len(wanted)})")
    elif missing:
        parts.append(f"**{len(missing)} of {len(wanted)} lost**")
    if extra:
        parts.append(f"**{len(extra)} too many**")
    return ", ".join(parts) or "right: both passes"


def tell_days(case: Case, fires: list[datetime]) -> str:
    """Say which days a job at midnight left out."""
    lost = sorted(days(case, case.on_the_wall()) - days(case, fires))
    if lost:
        return "**" + ", ".join(f"{day.day} {day:%B}" for day in lost) + " lost**"
    extra = len(fires) - len(case.on_the_wall())
    return f"**{extra} too many**" if extra else "right"


def days(case: Case, fires: list[datetime]) -> set[date]:
    return {at.astimezone(case.zone).date() for at in fires}


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


BERLIN, LORD_HOWE, TROLL, NEW_YORK = "Europe/Berlin", "Australia/Lord_Howe", "Antarctica/Troll", "America/New_York"
# Berlin 2025: 30 March, 02:00 -> 03:00 at 01:00 UTC; 26 October, 03:00 -> 02:00 at 01:00 UTC. Lord Howe moves by half
# an hour, Troll by two hours.
CASES = [
    Case(
        "`30 2 * * *` in the gap",
        "30 2 * * *",
        BERLIN,
        utc("2025-03-29T12:00"),
        utc("2025-03-30T22:00"),
        tell_gap,
    ),
    Case(
        "`30 2 * * *` in the fold",
        "30 2 * * *",
        BERLIN,
        utc("2025-10-25T12:00"),
        utc("2025-10-26T22:00"),
        tell_fold,
    ),
    Case(
        "`30 * * * *` in the fold",
        "30 * * * *",
        BERLIN,
        utc("2025-10-25T21:00"),
        utc("2025-10-26T06:00"),
        tell_wall,
    ),
    Case(
        "`0 0 * * *` around the gap",
        "0 0 * * *",
        BERLIN,
        utc("2025-03-28T12:00"),
        utc("2025-04-02T12:00"),
        tell_days,
    ),
    Case(
        "the same in New York, March 2026",
        "0 0 * * *",
        NEW_YORK,
        utc("2026-03-06T12:00"),
        utc("2026-03-11T12:00"),
        tell_days,
    ),
    Case(
        "`*/7 * * * *` in the half-hour fold of Lord Howe, 2026",
        "*/7 * * * *",
        LORD_HOWE,
        utc("2026-04-04T13:59"),
        utc("2026-04-04T16:31"),
        tell_wall,
    ),
    Case(
        "`* 0,1 * * *` in the two-hour fold of Troll, 2025",
        "* 0,1 * * *",
        TROLL,
        utc("2025-10-25T12:00"),
        utc("2025-10-26T12:00"),
        tell_wall,
    ),
]


# --- the libraries: each yields its fire times after the start of a case, for ever ---


def ask_tickwork(case: Case, dst: Any = "cron") -> Iterator[datetime]:
    from tickwork import Cron

    trigger = Cron(case.expression, timezone=case.key, dst=dst)
    found = trigger.next(case.start)
    while found is not None:
        yield found
        found = trigger.next(found)


def ask_tickwork_skip(case: Case) -> Iterator[datetime]:
    return ask_tickwork(case, "skip")


def ask_tickwork_both(case: Case) -> Iterator[datetime]:
    return ask_tickwork(case, "both")


def ask_croniter(case: Case) -> Iterator[datetime]:
    from croniter import croniter

    live = croniter(case.expression, case.start.astimezone(case.zone))
    while True:
        yield live.get_next(datetime)


def ask_cronsim(case: Case) -> Iterator[datetime]:
    from cronsim import CronSim  # type: ignore[import-not-found,unused-ignore]

    yield from CronSim(case.expression, case.start.astimezone(case.zone))


def ask_apscheduler3(case: Case) -> Iterator[datetime]:
    from apscheduler.triggers.cron import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
        CronTrigger,
    )

    trigger = CronTrigger.from_crontab(case.expression, timezone=case.zone)
    previous, now = None, case.start.astimezone(case.zone)
    while (previous := trigger.get_next_fire_time(previous, now)) is not None:
        yield previous
        now = previous.astimezone(UTC).astimezone(case.zone)  # its scheduler asks again when the job is due


def ask_apscheduler4(case: Case) -> Iterator[datetime]:
    from apscheduler.triggers.cron import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
        CronTrigger,
    )

    trigger = CronTrigger.from_crontab(case.expression, timezone=case.zone, start_time=case.start.astimezone(case.zone))
    while (found := trigger.next()) is not None:
        yield found


def ask_asyncz(case: Case) -> Iterator[datetime]:
    from asyncz.triggers import CronTrigger  # type: ignore[import-not-found,unused-ignore]

    trigger = CronTrigger.from_crontab(case.expression, timezone=case.zone)
    previous, now = None, case.start.astimezone(case.zone)
    while (previous := trigger.get_next_trigger_time(case.zone, previous, now)) is not None:
        yield previous
        now = previous.astimezone(UTC).astimezone(case.zone)


def ask_celery(case: Case) -> Iterator[datetime]:
    from celery import Celery  # type: ignore[import-not-found,unused-ignore]
    from celery.schedules import crontab  # type: ignore[import-not-found,unused-ignore]

    app = Celery(set_as_current=False)
    app.conf.timezone = case.key
    at = case.start
    schedule = crontab.from_string(case.expression)
    schedule.app, schedule.nowfun = app, lambda: at.astimezone(case.zone)
    last_run_at = schedule.now()
    while True:
        at += MINUTE
        if schedule.is_due(last_run_at)[0]:  # what beat asks, as often as the minute can matter
            last_run_at = schedule.now()
            yield at


@dataclass(frozen=True)
class Contestant:
    name: str
    distribution: str
    ask: Callable[[Case], Iterator[datetime]]
    is_peer: bool = True


CONTESTANTS = {
    "tickwork": Contestant("tickwork", "tickwork", ask_tickwork, is_peer=False),
    "tickwork-skip": Contestant('tickwork, `dst="skip"`', "tickwork", ask_tickwork_skip, is_peer=False),
    "tickwork-both": Contestant('tickwork, `dst="both"`', "tickwork", ask_tickwork_both, is_peer=False),
    "croniter": Contestant("croniter", "croniter", ask_croniter),
    "cronsim": Contestant("cronsim", "cronsim", ask_cronsim),
    "apscheduler3": Contestant("APScheduler", "apscheduler", ask_apscheduler3),
    "apscheduler4": Contestant("APScheduler", "apscheduler", ask_apscheduler4),
    "asyncz": Contestant("asyncz", "asyncz", ask_asyncz),
    "celery": Contestant("Celery", "celery", ask_celery),
}

# What docs/time.md promises. Anything else in tickwork's rows is a fault of tickwork or of its documentation.
PROMISED = {
    "tickwork": [
        "03:00, once",
        "once, first pass",
        "right: both passes",
        "right",
        "right",
        "right: both passes",
        "right: both passes",
    ],
    "tickwork-skip": [
        "skipped that day",
        "once, first pass",
        "**second pass lost** (1 of 9)",
        "right",
        "right",
        "**second pass lost** (4 of 23)",
        "**second pass lost** (60 of 180)",
    ],
    "tickwork-both": [
        "03:00, once",
        "**twice**",
        "right: both passes",
        "right",
        "right",
        "right: both passes",
        "right: both passes",
    ],
}


# --- asking, in a process of the library's own ---


def answer(case: Case, ask: Callable[[Case], Iterator[datetime]]) -> list[str]:
    """Return the fire times inside the window of a case, in UTC."""
    found: list[datetime] = []
    for count, at in enumerate(ask(case)):
        instant = at.astimezone(UTC)
        if instant > case.end:
            break
        if count >= MOST:
            raise RuntimeError(f"{case.title}: no end after {MOST} fire times, the last one {instant}")
        if instant > case.start:
            found.append(instant)
    return [instant.isoformat() for instant in found]


def child(key: str) -> None:
    contestant = CONTESTANTS[key]
    version = importlib.metadata.version(contestant.distribution)
    print(json.dumps({"version": version, "answers": [answer(case, contestant.ask) for case in CASES]}))


@dataclass(frozen=True)
class Answers:
    version: str
    fires: list[list[datetime]]

    def words(self) -> list[str]:
        return [case.tell(case, fires) for case, fires in zip(CASES, self.fires, strict=True)]


def fetch(key: str) -> Answers | peers.Missing:
    """Return what a library answers, or why there is nothing."""
    python = Path(sys.executable)
    if CONTESTANTS[key].is_peer:
        made = peers.environment(key)
        if isinstance(made, peers.Missing):
            return made
        python = made.python
    command = [str(python), __file__, "--child", key]
    environment = {**os.environ, "TZ": "UTC"}  # the zone of this machine is nobody's business
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=SECONDS, env=environment
        )
    except subprocess.TimeoutExpired:
        return peers.Missing(f"no answer in {SECONDS} s")
    if done.returncode != 0:
        return peers.Missing(peers.last_line(done.stderr))
    told = json.loads(done.stdout)
    return Answers(told["version"], [[datetime.fromisoformat(at) for at in fires] for fires in told["answers"]])


# --- the table ---


def row(key: str, found: Answers | peers.Missing) -> list[str]:
    contestant = CONTESTANTS[key]
    if isinstance(found, peers.Missing):
        return [contestant.name, f"not measured: {found.reason}", *("-" for _ in CASES[1:])]
    name = f"{contestant.name} {found.version}" if contestant.is_peer else contestant.name
    return [name, *found.words()]


def line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--instants", action="store_true", help="print the fire times as JSON")
    parser.add_argument("--child", choices=CONTESTANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child)
        return 0

    found = {key: fetch(key) for key, entry in CONTESTANTS.items() if not (entry.is_peer and options.no_peers)}
    if options.instants:
        print(json.dumps({key: readable(answers) for key, answers in found.items()}, indent=2))
    else:
        print(line(["", *(case.title for case in CASES)]))
        print("|---" * (len(CASES) + 1) + "|")
        for key, answers in found.items():
            print(line(row(key, answers)))

    status = 0
    for key, promised in PROMISED.items():
        answers = found[key]
        words = answers.words() if isinstance(answers, Answers) else [answers.reason] * len(CASES)
        for case, said, wanted in zip(CASES, words, promised, strict=True):
            if said != wanted:
                print(f"{CONTESTANTS[key].name}, {case.title}: promised {wanted!r}, got {said!r}", file=sys.stderr)
                status = 1
    return status


def readable(answers: Answers | peers.Missing) -> dict[str, list[str]] | str:
    if isinstance(answers, peers.Missing):
        return answers.reason
    pairs = zip(CASES, answers.fires, strict=True)
    return {case.title: [at.astimezone(case.zone).isoformat() for at in fires] for case, fires in pairs}


if __name__ == "__main__":
    sys.exit(main())
