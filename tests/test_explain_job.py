"""Why a job does not run, or how it ended: one sentence for each state of affairs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tickwork.explain_job import JobFacts, why_job
from tickwork.jobs import JobRecord, JobState, Progress
from tickwork.payloads import ErrorInfo
from tickwork.stores.blockers import Blocker
from tickwork.stores.views import MAX_AHEAD, Standing, WorkerRow

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
WORKER = WorkerRow(name="7-ab", host="", pid=7, started_at=NOW, beat_at=NOW, tasks={"t": ""})
ERROR = ErrorInfo("OSError", "no route\nsecond line").to_json()


def job(state: JobState, **options: Any) -> JobRecord:
    options.setdefault("run_at", NOW - timedelta(seconds=5))
    return JobRecord(id="j1", task="t", payload="{}", state=state, enqueued_at=NOW - timedelta(hours=1), **options)


def told(record: JobRecord, *, workers: list[WorkerRow] | None = None, **options: Any) -> tuple[str, str, Any, Any]:
    before = options.pop("before", None)
    facts = JobFacts(
        standing=Standing(job=record, **options),
        before=before,
        workers=[WORKER] if workers is None else workers,
        zone="Asia/Seoul",
        now=NOW,
    )
    why = why_job(facts)
    assert (str(why), why.job_id) == (why.sentence, "j1")
    assert why.sentence.startswith("job j1 of t ")
    return why.sentence.removeprefix("job j1 of t "), why.reason, why.until, why.by


def test_a_job_for_later_is_delayed() -> None:
    at = NOW + timedelta(minutes=90)
    until = "is delayed until 2026-05-01 22:30:00 +0900, for 1h30m more"
    assert told(job(JobState.SCHEDULED, run_at=at)) == (until, "delayed", at, None)
    paused = told(job(JobState.SCHEDULED, run_at=at), queue_paused_at=NOW)
    assert paused[0] == f"{until}; its queue 'default' is paused besides"


def test_a_job_between_two_attempts_waits_for_the_next() -> None:
    at = NOW + timedelta(seconds=0.25)
    sentence, reason, until, by = told(job(JobState.SCHEDULED, run_at=at, attempt=2, error=ERROR))
    assert (reason, until, by) == ("retry", at, None)
    assert sentence == (
        "waits until 2026-05-01 21:00:00 +0900, for 0.25s more, for its next attempt after the 2nd, which ended with "
        "OSError: no route ..."
    )
    assert "after the 3rd" in told(job(JobState.SCHEDULED, run_at=at, attempt=3))[0]


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.SCHEDULED])
def test_a_job_that_is_due_tells_the_first_thing_in_its_way(state: JobState) -> None:
    record, due = job(state, schedule="s"), "has been due for 5s and waits"
    before = job(JobState.RUNNING)

    assert told(record, behind=("j0",), before=before, queue_paused_at=NOW, workers=[]) == (
        f"{due} behind job j0, which is running: the overlap of schedule s lets it begin when that has ended",
        "behind",
        None,
        "j0",
    )
    assert told(record, behind=("j0", "j9"))[0] == (
        f"{due} behind job j0 and 1 more: the overlap of schedule s lets it begin when that has ended"
    )
    assert told(record, queue_paused_at=NOW, workers=[]) == (
        f"{due}: its queue 'default' is paused since 2026-05-01 21:00:00 +0900; resume the queue",
        "queue_paused",
        None,
        "default",
    )
    assert told(record, workers=[]) == (
        f"{due}: no worker process is alive; start one, as with `tickwork run`",
        "no_worker",
        None,
        None,
    )
    assert told(record, gate=Blocker("limit", "a.org", ("j1", "j2"))) == (
        f"{due} for the limit of key 'a.org', which job j1 and 1 more hold",
        "limit",
        None,
        "j1",
    )
    assert told(record, gate=Blocker("limit", "", ("j1",)))[0] == f"{due} for the limit of its task, which job j1 holds"
    assert told(record, gate=Blocker("rate", "a.org", (), NOW)) == (
        f"{due}: the rate of key 'a.org' lets the next job start at 2026-05-01 21:00:00 +0900",
        "limit",
        NOW,
        None,
    )
    assert told(record) == (f"{due} for a free worker: no job is before it", "in_line", None, None)
    assert told(record, ahead=1)[0] == f"{due} for a free worker: 1 job is before it"
    assert told(record, ahead=12)[0] == f"{due} for a free worker: 12 jobs are before it"
    assert told(record, ahead=MAX_AHEAD)[0] == f"{due} for a free worker: 1,000 jobs or more are before it"


def test_workers_that_do_not_know_the_task_are_named() -> None:
    others = [
        WorkerRow(name=f"{pid}-ab", host="den", pid=pid, started_at=NOW, beat_at=NOW, tasks={}) for pid in range(5)
    ]
    due = "has been due for 5s and waits: no live worker knows its task"
    remedy = "start one whose app includes 't'"
    assert told(job(JobState.QUEUED), workers=others[:1]) == (
        f"{due} (0-ab (pid 0 on den)); {remedy}",
        "unknown_task",
        None,
        "t",
    )
    assert told(job(JobState.QUEUED), workers=others)[0] == (
        f"{due} (0-ab (pid 0 on den), 1-ab (pid 1 on den), 2-ab (pid 2 on den) and 2 more); {remedy}"
    )


def test_a_job_in_the_hands_of_a_worker_tells_of_it() -> None:
    until = NOW + timedelta(seconds=60)
    lease = "its lease holds until 2026-05-01 21:01:00 +0900"
    assert told(job(JobState.RUNNING, worker="7-ab", lease_expires_at=until)) == (
        f"is claimed by worker 7-ab (pid 7), and has begun there just now or waits for a free place; {lease}",
        "claimed",
        until,
        "7-ab",
    )
    running: dict[str, Any] = {"worker": "7-ab", "started_at": NOW - timedelta(seconds=12.3), "attempt": 11}
    assert told(job(JobState.RUNNING, **running)) == (
        "runs on worker 7-ab (pid 7) for 12s, in its 12th attempt",
        "running",
        None,
        "7-ab",
    )
    far = Progress(done=0.5, total=3, message="half", updated_at=NOW)
    sentence = told(job(JobState.RUNNING, progress=far, cancel_requested=True, lease_expires_at=until, **running))[0]
    assert sentence == (
        "runs on worker 7-ab (pid 7) for 12s, in its 12th attempt; it has told of 0.5 of 3 (half); "
        f"{lease}; its cancellation was asked for"
    )
    some = Progress(done=7, updated_at=NOW)
    assert told(job(JobState.RUNNING, progress=some, **running))[0].endswith("; it has told of 7")


def test_a_job_whose_worker_is_gone_says_who_takes_it_over() -> None:
    assert told(job(JobState.RUNNING, worker="8-ab")) == (
        "was in the hands of worker 8-ab, which is gone; another takes it over within seconds",
        "lost",
        None,
        "8-ab",
    )
    assert told(job(JobState.RUNNING, worker="8-ab"), workers=[])[0] == (
        "was in the hands of worker 8-ab, which is gone; the next one to start takes it over"
    )


def test_a_job_that_has_ended_says_how() -> None:
    times: dict[str, Any] = {"started_at": NOW - timedelta(seconds=1.5), "finished_at": NOW}
    at = "at 2026-05-01 21:00:00 +0900"
    again = "it runs again when it is retried"

    assert told(job(JobState.SUCCEEDED, **times))[:2] == (f"succeeded {at} after 1.5s", "succeeded")
    assert told(job(JobState.FAILED, attempt=1, error=ERROR, **times))[:2] == (
        f"failed {at} after 1.5s, in its 1st attempt: OSError: no route ...; {again}",
        "failed",
    )
    assert told(job(JobState.FAILED, finished_at=NOW))[0] == f"failed {at}; {again}"
    silent = ErrorInfo("KeyError", "").to_json()
    assert told(job(JobState.FAILED, finished_at=NOW, error=silent))[0] == f"failed {at}: KeyError; {again}"
    assert told(job(JobState.CANCELLED, finished_at=NOW))[:2] == (
        f"was cancelled {at} before it began; {again}",
        "cancelled",
    )
    assert told(job(JobState.CANCELLED, attempt=1, **times))[0] == f"was cancelled {at} after 1.5s; {again}"
    assert told(job(JobState.SUCCEEDED))[0] == "succeeded at a time that is not known"


def test_a_parked_job_says_what_it_waits_for() -> None:
    misfit = ErrorInfo("tickwork.errors.InvalidPayload", "t(a): is missing").to_json()
    poison = ErrorInfo("tickwork.errors.WorkerDied", "3 worker processes died while it ran").to_json()

    sentence, reason, *_ = told(job(JobState.PARKED, error=misfit))
    assert reason == "parked"
    assert sentence == (
        "is parked: t(a): is missing; it runs again when a worker comes whose task takes these arguments, or when it "
        "is retried"
    )
    assert told(job(JobState.PARKED, error=poison))[0] == (
        "is parked: 3 worker processes died while it ran; it runs again when it is retried"
    )
    assert told(job(JobState.PARKED))[0] == "is parked: nobody knows why; it runs again when it is retried"
