"""Limits, rates and keys hold for several processes on one file, also when they are killed."""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from fleet import Fleet
from tickwork.clock import SystemClock
from tickwork.jobs import JobRecord, NewJob, new_id
from tickwork.stores.base import Store
from tickwork.stores.postgres_target import Target
from tickwork.stores.sqlite import SQLiteStore

pytestmark = [pytest.mark.skipif(sys.platform == "win32", reason="needs signals"), pytest.mark.one_python]

LIMITED = """
from tickwork import Limit, Rate

app = App("sqlite:///jobs.db", workers=8, max_deaths=100)  # the next to run are those whose process was killed

@app.task(name="visit", limit=Limit(2, key="{host}"))
async def visit(ctx: Context, host: str):
    say("begun", host, ctx.job_id)
    await asyncio.sleep(0.02)
    say("ended", host, ctx.job_id)

@app.task(name="call", rate=Rate(5, per="2s", key="{host}"))
async def call(ctx: Context, host: str):
    say("called", host)
"""


def enqueue(fleet: Fleet, task: str, gate: str, hosts: list[str]) -> list[str]:
    """Enqueue a job for each of these hosts."""

    async def put(store: Store) -> list[JobRecord]:
        now = SystemClock().now()
        return await store.enqueue(
            [
                NewJob(id=new_id(now), task=task, payload=f'{{"host":"{host}"}}', run_at=now, gates=(f"{gate}:{host}",))
                for host in hosts
            ]
        )

    return [record.id for record in fleet.ask(put)]


@pytest.mark.timeout(120)
def test_four_processes_that_are_killed_never_run_more_than_the_limit_and_no_key_starves(
    tmp_path: Path, home: Target | None
) -> None:
    with Fleet(tmp_path, LIMITED, home) as fleet:
        hosts = [f"h{number}" for number in range(20)]
        jobs = enqueue(fleet, "visit", "limit", ["h0"] * 60 + hosts * 15)
        workers = [fleet.start() for _ in range(4)]
        killed_at: dict[int, float] = {}
        for kill in range(1, 5):
            fleet.wait_said("ended", times=60 * kill)
            victim = workers.pop(0)
            killed_at[victim.pid] = fleet.kill(victim)
            workers.append(fleet.start())
        fleet.wait_states(succeeded=len(jobs))

        assert set(fleet.said("ended")) == set(jobs)
        assert {line.words[1] for line in fleet.lines("ended")[:150]} == set(hosts)
        # Of a run that a kill has ended, its process knows no end.
        begun = {(line.pid, line.words[2]): (line.at, line.words[1]) for line in fleet.lines("begun")}
        ended = {(line.pid, line.words[2]): line.at for line in fleet.lines("ended")}
        moments: dict[str, list[tuple[float, int]]] = defaultdict(list)
        for run, (at, host) in begun.items():
            end = ended.get(run) or killed_at[run[0]]
            moments[host] += [(at, 1), (max(at, end), -1)]
        for host, changes in moments.items():
            running = most = 0
            for _, change in sorted(changes):
                running += change
                most = max(most, running)
            assert most <= 2, host
        assert len(moments["h0"]) >= 2 * 75


@pytest.mark.timeout(120)
def test_four_processes_together_keep_a_rate(tmp_path: Path, home: Target | None) -> None:
    with Fleet(tmp_path, LIMITED, home) as fleet:
        enqueue(fleet, "call", "rate", ["a"] * 15 + ["b"] * 10)
        for _ in range(4):
            fleet.start()
        fleet.wait_said("called", "a")
        fleet.wait_states(succeeded=25)

        for host, count in (("a", 15), ("b", 10)):
            starts = sorted(line.at for line in fleet.lines("called", host))
            assert len(starts) == count
            # The claim counts, and the start comes some milliseconds after it, or many on a busy machine.
            assert min(later - at for at, later in zip(starts, starts[5:], strict=False)) > 1.0


@pytest.mark.timeout(120)
def test_one_key_is_one_job_for_processes_that_enqueue_at_once(tmp_path: Path, home: Target | None) -> None:
    program = """
app = App("sqlite:///jobs.db", workers=2)

@app.task(name="report", key="report:{number}")
async def report(ctx: Context, number: int):
    say("ran", ctx.job_id)
    await wait_for("go")

async def main():
    async with app.client():
        say("ready")
        await wait_for("start")
        for number in range(20):
            job = await report.enqueue(number)
            say("new" if job.is_new else "found", number, job.id)

if __name__ == "__main__":
    asyncio.run(main())
"""
    with Fleet(tmp_path, program, home) as fleet:
        producers = [fleet.start("jobs.py") for _ in range(3)]
        fleet.wait_said("ready", times=3)
        fleet.touch("start")
        for producer in producers:
            assert producer.ended().status == 0, producer.err

        assert len(fleet.lines("new")) == 20
        assert len(fleet.lines("found")) == 40
        by_number: dict[str, set[str]] = defaultdict(set)
        for line in fleet.lines("new") + fleet.lines("found"):
            by_number[line.words[1]].add(line.words[2])
        assert {len(ids) for ids in by_number.values()} == {1}
        assert fleet.states() == {"queued": 20}


@pytest.mark.timeout(120)
def test_a_cancelled_enqueue_takes_no_job_away_that_another_one_was_given(tmp_path: Path) -> None:
    async def main() -> None:
        clock = SystemClock()
        for turns in range(8):
            store, other = (SQLiteStore(tmp_path / f"{turns}.db", clock) for _ in range(2))
            await store.open()
            await other.open()
            now = clock.now()
            first = asyncio.ensure_future(
                store.enqueue([NewJob(id=new_id(now), task="t", payload="{}", run_at=now, key="k")])
            )
            for _ in range(turns):
                await asyncio.sleep(0)
            second = asyncio.ensure_future(
                other.enqueue([NewJob(id=new_id(now), task="t", payload="{}", run_at=now, key="k")])
            )
            await asyncio.sleep(0)
            first.cancel()
            (record,) = await second
            await asyncio.wait([first])
            assert (await other.job(record.id)).key == "k"
            await store.close()
            await other.close()

    asyncio.run(main())
