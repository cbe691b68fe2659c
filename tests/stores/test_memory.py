from __future__ import annotations

from datetime import timedelta

import pytest

from tickwork.conformance import START, HandClock, ending, new_job
from tickwork.errors import IllegalMove
from tickwork.jobs import MOVES, JobRecord, JobState, new_id
from tickwork.stores.memory import KEEP, MemoryStore


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


async def test_finished_jobs_are_kept_up_to_a_bound(clock: HandClock) -> None:
    store = MemoryStore(clock, max_queued=2 * KEEP)
    await store.enqueue([new_job(clock) for _ in range(KEEP + 5)])
    await store.finish([ending(record) for record in await store.claim(worker="w", tasks={"t"}, limit=2 * KEEP)])

    assert (await store.counts())[JobState.SUCCEEDED] == KEEP
    assert len(await store.jobs(limit=2 * KEEP)) == KEEP


@pytest.mark.parametrize("state", JobState)
def test_only_the_moves_of_the_table_are_possible(state: JobState) -> None:
    record = JobRecord(id="x", task="t", payload="{}", run_at=START, state=state, enqueued_at=START)
    for wanted in JobState:
        if wanted in MOVES[state]:
            assert record.moved(wanted).state is wanted
        else:
            with pytest.raises(IllegalMove, match=f"^job x is {state} and cannot become {wanted}$"):
                record.moved(wanted)


def test_ids_sort_by_time_and_do_not_repeat() -> None:
    ids = [new_id(START + timedelta(milliseconds=number // 10)) for number in range(1000)]

    assert len(set(ids)) == 1000
    assert [entry[:9] for entry in ids] == sorted(entry[:9] for entry in ids)
    assert {len(entry) for entry in ids} == {20}


async def test_cancelled_delays_leave_nothing_behind(clock: HandClock) -> None:
    store = MemoryStore(clock, max_queued=1000, keep=10)
    for _ in range(10):
        jobs = [new_job(clock, run_at=clock.now() + timedelta(days=1)) for _ in range(100)]
        await store.enqueue(jobs)
        await store.cancel([entry.id for entry in jobs])

    assert len(store._later) <= 130
    assert len(store._jobs) <= 11
