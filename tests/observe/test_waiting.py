"""What waits in a store, against the tasks of today."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tickwork import App
from tickwork.conformance import HandClock, ending, new_job
from tickwork.jobs import JobState
from tickwork.observe.findings import Finding
from tickwork.observe.waiting import check_waiting
from tickwork.stores.memory import MemoryStore

CLOCK = HandClock()


@pytest.fixture
async def store() -> AsyncIterator[MemoryStore]:
    store = MemoryStore(CLOCK)
    yield store
    await store.close()


def tasks_of(fn: Callable[..., Any], **options: Any) -> dict[str, Any]:
    app = App()
    app.task(name="send", **options)(fn)
    return app._names


async def test_what_fits_is_no_finding(store: MemoryStore) -> None:
    async def send(to: str, copies: int = 1) -> None: ...

    await store.enqueue([new_job(CLOCK, "send", payload='{"to":"ann"}'), new_job(CLOCK, "old", payload='{"to":"ann"}')])
    assert await check_waiting(store, tasks_of(send, aliases=["old"])) == []


async def test_jobs_of_a_task_that_is_gone_are_one_finding_with_the_name_it_may_have_now(store: MemoryStore) -> None:
    async def send(to: str) -> None: ...

    jobs = [new_job(CLOCK, task, delay=number * 60) for number, task in enumerate(("sent", "sent", "zebra"))]
    await store.enqueue(jobs)

    assert await check_waiting(store, tasks_of(send)) == [
        Finding(
            "waiting-unknown",
            "zebra",
            f"1 job waits, the oldest is {jobs[2].id}, and the app has no such task",
            "cancel them with `tickwork jobs cancel`, or keep the task until they have run",
        ),
        Finding(
            "waiting-unknown",
            "sent",
            f"2 jobs wait, the oldest is {jobs[0].id}, and the app has no such task",
            "if 'send' is its new name, give that aliases=[\"sent\"]; else cancel them with `tickwork jobs cancel`, or "
            "keep the task until they have run",
        ),
    ]


async def test_jobs_that_do_not_fit_are_one_finding_with_the_argument(store: MemoryStore) -> None:
    async def send(to: str, name: str) -> None: ...

    jobs = [new_job(CLOCK, "send", payload='{"to":"ann"}') for _ in range(1_001)]
    await store.enqueue(jobs)
    done, parked = await store.claim(worker="w", tasks={"send"}, limit=2)
    await store.finish([ending(done), ending(parked, JobState.PARKED)])

    assert await check_waiting(store, tasks_of(send)) == [
        Finding(
            "waiting-misfit",
            "send",
            f"1,000 jobs wait (1 parked), the oldest is {jobs[1].id}; its arguments do not fit: send(name): is missing "
            "in the payload; the signature is (to: str, name: str)",
            "give what is new a default, take what is gone by **kwargs, or let them run before the deployment",
        )
    ]


class Picky:
    """A type of the user's own that refuses in its own way."""

    @classmethod
    def model_validate_json(cls, text: str) -> Any:
        raise SystemError("no")

    def model_dump(self) -> Any: ...

    model_fields = ("a",)


async def test_whatever_a_type_of_the_users_own_raises_is_a_misfit(store: MemoryStore) -> None:
    async def send(to: Picky) -> None: ...

    await store.enqueue([new_job(CLOCK, "send", payload='{"to":{}}')])
    (finding,) = await check_waiting(store, tasks_of(send))
    assert "send(to): SystemError: no" in finding.message
