"""A year of schedules in seconds: twenty of them, hourly or rarer, on virtual time.

    python bench/year.py
    python bench/year.py --days 30

Every fire time becomes a job that runs. Afterwards each schedule must have fired exactly when its trigger says,
and each job must have started at its fire time. The status is 1 when one has not, or when the year took longer
than it may.
"""

import argparse
import asyncio
import logging
import sys
import time
from datetime import UTC, datetime, timedelta

from inproc import hardware

from tickwork import App, Context, Cron, Every, Trigger
from tickwork.testing import virtual_loop_factory

KEY = "Europe/Berlin"
START = datetime(2026, 1, 1, tzinfo=UTC)
LIMIT_SECONDS = 60.0  # for a year: what a test may take at the most to be run at all

TRIGGERS: dict[str, Trigger] = {
    "every hour": Every("1h"),
    "every hour, off the grid": Every("1h", anchor=datetime(2026, 1, 1, 0, 17, 30, tzinfo=UTC)),
    "at 5 past": Cron("5 * * * *"),
    "at 35 past": Cron("35 * * * *", dst="skip"),
    "@hourly": Cron("@hourly"),
    "every 2 hours": Cron("0 */2 * * *"),
    "every 90 minutes": Every("90m"),
    "office hours": Cron("0 9-17 * * mon-fri"),
    "every 6 hours": Every("6h"),
    "twice a day": Cron("0 8,20 * * *"),
    "in the gap": Cron("30 2 * * *"),
    "in the gap, both passes": Cron("30 2 * * *", dst="both"),
    "midnight": Cron("@daily"),
    "midnight in New York": Cron("0 0 * * *", timezone="America/New_York"),
    "weekdays but holidays": Cron("30 7 * * mon-fri").exclude(["2026-01-01", "2026-04-03", "2026-12-25"]),
    "on Mondays": Cron("30 9 * * mon"),
    "second Tuesday": Cron("0 10 * * 2#2"),
    "last of the month": Cron("0 18 L * *"),
    "every 12 hours or at 12:30": Every("12h") | Cron("30 12 * * *"),
    "each year": Cron("@yearly"),
}


def expected(trigger: Trigger, until: datetime) -> list[datetime]:
    """Return what the trigger says when it is asked on its own."""
    found = []
    at = trigger.next(START)
    while at is not None and at <= until:
        found.append(at)
        at = trigger.next(at)
    return found


async def run(days: int) -> tuple[float, dict[str, int], list[str]]:
    """Return the seconds needed, the number of fires of each schedule, and what is wrong."""
    app = App(timezone=KEY, workers=len(TRIGGERS))
    ran: dict[str, list[datetime]] = {name: [] for name in TRIGGERS}
    wrong: list[str] = []

    async def job(ctx: Context) -> None:
        assert ctx.schedule is not None
        assert ctx.fire_time is not None
        ran[ctx.schedule].append(ctx.fire_time)
        if t.now != ctx.fire_time:
            wrong.append(f"{ctx.schedule}: due at {ctx.fire_time}, started at {t.now}")

    task = app.task(name="job")(job)
    for name, trigger in TRIGGERS.items():
        await app.schedules.add(task, trigger, name=name)

    begun = time.perf_counter()
    async with app.testing(start=START, tz="UTC") as t:
        await t.advance(timedelta(days=days))
        fires = {name: t.fires(name) for name in TRIGGERS}
    seconds = time.perf_counter() - begun

    for name, trigger in TRIGGERS.items():
        wanted = expected(trigger.in_timezone(KEY), START + timedelta(days=days))
        for what, found in (("fired", fires[name]), ("ran", ran[name])):
            if found != wanted:
                wrong.append(f"{name}: {what} {len(found)} times, its trigger says {len(wanted)}")
    return seconds, {name: len(found) for name, found in fires.items()}, wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--days", type=int, default=365)
    days = parser.parse_args().days

    logging.disable(logging.WARNING)
    with asyncio.Runner(loop_factory=virtual_loop_factory) as runner:
        seconds, fires, wrong = runner.run(run(days))

    print(f"### {days} days of {len(TRIGGERS)} schedules on virtual time\n")
    print("| schedule | trigger | fires |\n|---|---|--:|")
    for name, count in fires.items():
        print(f"| {name} | `{TRIGGERS[name]!r}` | {count:,} |")
    total = sum(fires.values())
    rate = total / seconds
    print(f"| **all** | | **{total:,}** |\n")
    print(f"{seconds:.1f} s, {rate:,.0f} fires a second, each at its instant: {'no' if wrong else 'yes'}\n")
    print(f"{hardware()}\n")
    for sentence in wrong[:20]:
        print(sentence, file=sys.stderr)
    limit = LIMIT_SECONDS * max(1.0, days / 365)
    if seconds > limit:
        print(f"it took longer than {limit:g} s", file=sys.stderr)
    return 1 if wrong or seconds > limit else 0


if __name__ == "__main__":
    sys.exit(main())
