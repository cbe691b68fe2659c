"""`app.jobs`: look at jobs, run them again, cancel and delete them, pause their queues; and why one does not run."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest

from tickwork import App, Context, JobState, Retry, Secret, WrongState, events
from tickwork.conformance import ending, new_job
from tickwork.errors import InvalidOption, UnknownJob
from tickwork.jobs import NewJob, Outcome


class Work:
    """An app whose jobs do what a test lets them."""

    def __init__(self, url: str | None) -> None:
        self.app = app = App(url, workers=2, timezone="Asia/Seoul")
        self.fails = True
        self.go = asyncio.Event()
        self.begun: list[str] = []

        @app.task(name="mail.send", aliases=["mail.old"], queue="mail", retry=Retry(2, delay="1ms"))
        async def send(ctx: Context, to: str, password: str = "") -> str:
            self.begun.append(ctx.job_id)
            if self.fails:
                raise OSError(f"no route to {to}")
            return to

        @app.task(name="wait")
        async def wait(ctx: Context) -> None:
            self.begun.append(ctx.job_id)
            ctx.progress(3, 10, "third")
            await self.go.wait()

        self.send, self.wait = send, wait

    async def ended(self, job: Any) -> None:
        await asyncio.gather(job.result(timeout=30), return_exceptions=True)

    async def has_begun(self, *jobs: Any) -> None:
        await until(lambda: all(job.id in self.begun for job in jobs))

    async def failed(self) -> str:
        """Return the id of a job that has failed."""
        job = await self.send.enqueue("ann")
        with pytest.raises(Exception, match="no route to ann"):
            await job.result(timeout=30)
        return job.id


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while True:
            if condition():
                return
            await asyncio.sleep(0.002)


async def comes_into(app: App, job_id: str, state: JobState) -> None:
    async with asyncio.timeout(30):
        while True:
            if (await app.jobs.get(job_id)).state is state:
                return
            await asyncio.sleep(0.002)


@pytest.fixture(params=["memory", "sqlite"])
async def work(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Work]:
    work = Work(None if request.param == "memory" else f"sqlite:///{tmp_path}/jobs.db")
    async with work.app:
        yield work
        work.go.set()


async def refusal(awaitable: Any) -> str:
    with pytest.raises(WrongState) as refused:
        await awaitable
    return str(refused.value)


async def test_jobs_are_listed_in_pages_with_what_people_may_see(work: Work) -> None:
    jobs = await work.send.options(delay="1h").enqueue_many([(f"to {number}", "sesame!") for number in range(5)])
    waiting = await work.wait.options(delay="1h").enqueue()

    first = await work.app.jobs.list(limit=2, task=work.send)
    second = await work.app.jobs.list(limit=2, task="mail.old", after=first.next)
    third = await work.app.jobs.list(limit=2, queue="mail", state=["scheduled", "failed"], after=second.next)

    assert [job.id for page in (first, second, third) for job in page.jobs] == [job.id for job in reversed(jobs)]
    assert third.next is None
    assert first.jobs[0].arguments == {"to": "to 4", "password": "***"}
    assert first.jobs[0].state is JobState.SCHEDULED
    assert "sesame!" not in repr(first) + str(await jobs[0].record())
    assert (await work.app.jobs.get(jobs[0].id, shows_names=True)).arguments == {"to": "to 0", "password": "sesame!"}
    assert [job.id for job in (await work.app.jobs.list(limit=1)).jobs] == [waiting.id]
    assert (await work.app.jobs.list(task="nobody")).jobs == []
    counts = await work.app.jobs.counts()
    assert counts[JobState.SCHEDULED] == 6


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (
            {"state": "failled"},
            (
                "state must be one of scheduled, queued, running, succeeded, failed, cancelled, parked, got 'failled'; "
                "did you mean 'failed'?"
            ),
        ),
        ({"limit": 0}, "limit must be a whole number of at least 1, got 0"),
        ({"limit": 1001}, "limit must be at most 1,000, got 1001; page through them with after=page.next"),
        ({"after": "zz"}, "after must be the `next` of another page, got 'zz'"),
        ({"task": " "}, "task must be a printable, non-empty text, got ' '"),
        ({"queue": "\udcff"}, "queue must be a printable, non-empty text, got '\\udcff'"),
        ({"schedule": 7}, "schedule must be a printable, non-empty text, got 7"),
        (
            {"state": 7},
            "state must be one of scheduled, queued, running, succeeded, failed, cancelled, parked, got 7",
        ),
    ],
)
async def test_what_cannot_be_listed_is_refused(work: Work, options: dict[str, Any], error: str) -> None:
    with pytest.raises(InvalidOption) as refused:
        await work.app.jobs.list(**options)

    assert str(refused.value) == error


async def test_a_failed_job_is_tried_anew_with_all_its_attempts(work: Work) -> None:
    job_id = await work.failed()
    attempts = await work.app.jobs.attempts(job_id)
    assert [(attempt.number, attempt.outcome) for attempt in attempts] == [(1, Outcome.FAILED), (2, Outcome.FAILED)]
    assert attempts[0].error_info is not None
    assert "raise OSError" in attempts[0].error_info.traceback

    again = await work.app.jobs.retry(job_id)
    assert (again.state, again.attempt) == (JobState.QUEUED, 0)
    with pytest.raises(Exception, match="no route"):
        await (await work.app.job(job_id)).result(timeout=30)
    assert [attempt.number for attempt in await work.app.jobs.attempts(job_id)] == [1, 2, 1, 2]
    work.fails = False
    await work.app.jobs.retry(job_id)
    assert await (await work.app.job(job_id)).result(timeout=30) == "ann"
    assert len(await work.app.jobs.attempts(job_id)) == 4
    assert work.begun == [job_id] * 5


async def test_all_failed_jobs_of_a_task_are_tried_anew(work: Work) -> None:
    failed = [await work.failed() for _ in range(3)]
    work.fails = False

    assert await work.app.jobs.retry_failed("wait") == 0
    assert await work.app.jobs.retry_failed(work.send) == 3
    for job_id in failed:
        assert await (await work.app.job(job_id)).result(timeout=30) == "ann"
    assert await work.app.jobs.retry_failed() == 0


async def test_what_a_job_in_its_state_cannot_do_is_refused_with_the_remedy(work: Work) -> None:
    work.fails = False
    done, later = await work.send.enqueue("ann"), await work.wait.options(delay="1h").enqueue()
    await done.result(timeout=30)
    running = await work.wait.enqueue()
    await work.app.jobs.pause_queue("mail")
    queued = await work.send.enqueue("bob")
    await work.has_begun(running)
    jobs = work.app.jobs

    assert await refusal(jobs.retry(done.id)) == (
        f"job {done.id} is succeeded and cannot be retried: its work is done; enqueue another job to have it done once "
        "more"
    )
    assert await refusal(jobs.retry(later.id)) == (
        f"job {later.id} is scheduled and cannot be retried: it has its next attempt before it; wait for that, or "
        "ask why it has not run"
    )
    assert await refusal(jobs.retry(queued.id)) == (
        f"job {queued.id} is queued and cannot be retried: it waits for a worker; wait for that, or ask why it has "
        "not run"
    )
    assert await refusal(jobs.retry(running.id)) == (
        f"job {running.id} is running and cannot be retried: it runs; wait for its end, or cancel it first"
    )
    assert await refusal(jobs.delete(running.id)) == (
        f"job {running.id} is running and cannot be deleted: it is in the hands of a worker; cancel it first"
    )
    assert await refusal(jobs.cancel(done.id)) == (
        f"job {done.id} is succeeded and cannot be cancelled: its work is done; delete it to forget it"
    )
    await jobs.cancel(later.id)
    assert await refusal(jobs.cancel(later.id)) == (
        f"job {later.id} is cancelled and cannot be cancelled: it has ended; delete it to forget it"
    )
    for ask in (jobs.get, jobs.retry, jobs.cancel, jobs.delete, jobs.why, jobs.attempts):
        with pytest.raises(UnknownJob) as unknown:
            await ask("nobody")
        assert str(unknown.value) == "no job 'nobody' in the store; it never existed or its retention has passed"
        odds: list[Any] = ["\udcff", "", "a\0b", 7, None, "x" * 100_000]
        for odd in odds:
            with pytest.raises(UnknownJob):
                await ask(odd)


async def test_a_running_job_is_cancelled_and_then_deleted(work: Work) -> None:
    job = await work.wait.enqueue()
    await work.has_begun(job)
    asked = await work.app.jobs.cancel(job.id)
    await work.ended(job)

    assert (asked.state, asked.cancel_requested) == (JobState.RUNNING, True)
    assert [attempt.outcome for attempt in await work.app.jobs.attempts(job.id)] == [Outcome.CANCELLED]
    gone = await work.app.jobs.delete(job.id)
    assert gone.state is JobState.CANCELLED
    with pytest.raises(UnknownJob):
        await work.app.jobs.get(job.id)


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.PARKED, JobState.QUEUED, JobState.CANCELLED])
async def test_of_two_people_who_retry_and_cancel_at_once_one_wins(tmp_path: Path, state: JobState) -> None:
    url = f"sqlite:///{tmp_path}/jobs.db"
    one, two = Work(url).app, Work(url).app
    async with one.client(), two.looking():
        store = one._store_now()
        for _ in range(10):
            (job,) = await store.enqueue([new_job(one._clock, "mail.send", payload='{"to":"ann"}')])
            if state is not JobState.QUEUED:
                (claimed,) = await store.claim(worker="w", tasks={"mail.send"}, limit=1)
                await store.finish([ending(claimed, state)])
            people = await asyncio.gather(one.jobs.retry(job.id), two.jobs.cancel(job.id), return_exceptions=True)
            winners = [told for told in people if not isinstance(told, BaseException)]
            losers = [str(told) for told in people if isinstance(told, WrongState)]

            # One who looks when the other is done already acts on what the other did: that is no race.
            assert len(winners) + len(losers) == 2
            assert (await one.jobs.get(job.id)).state in [job.state for job in winners]
            assert all(told.startswith(f"job {job.id} is ") for told in losers)
            await store.delete([job.id])


@pytest.mark.parametrize("way", ["retry", "cancel"])
async def test_of_two_who_do_the_same_to_a_job_one_does(tmp_path: Path, way: str) -> None:
    url = f"sqlite:///{tmp_path}/jobs.db"
    one, two = Work(url).app, Work(url).app
    async with one.client(), two.looking():
        store = one._store_now()
        await store.enqueue([new_job(one._clock, "mail.send")])
        (job,) = await store.claim(worker="w", tasks={"mail.send"}, limit=1)
        await store.finish([ending(job, JobState.PARKED)])
        people = await asyncio.gather(
            *[getattr(app.jobs, way)(job.id) for app in (one, two, one, two)], return_exceptions=True
        )

    losers = [str(told) for told in people if isinstance(told, WrongState)]
    assert len(losers) == 3
    if way == "retry":
        refused, late = (
            f"job {job.id} is queued and cannot be retried",
            "it waits for a worker; wait for that, or ask why",
        )
    else:
        refused, late = f"job {job.id} is cancelled and cannot be cancelled", "it has ended; delete it to forget it"
    for told in losers:
        assert told.startswith((f"{refused}: it was parked a moment ago; look at it again", f"{refused}: {late}"))


async def test_a_change_that_the_store_refused_tells_only_what_is_known(work: Work) -> None:
    job_id = await work.failed()
    seen = await work.app.jobs._job(job_id)
    assert str(await work.app.jobs._too_late(seen, "retried")) == (
        f"job {job_id} is failed and cannot be retried: something was in its way a moment ago, and no longer is; "
        "try again"
    )
    await work.app.jobs.pause_queue("mail")
    await work.app.jobs.retry(job_id)
    assert str(await work.app.jobs._too_late(seen, "retried")) == (
        f"job {job_id} is queued and cannot be retried: it was failed a moment ago; look at it again"
    )


async def test_a_paused_queue_keeps_its_jobs_until_it_is_resumed(work: Work) -> None:
    work.fails = False
    assert await work.app.jobs.pause_queue("mail")
    assert not await work.app.jobs.pause_queue("mail")
    job = await work.send.enqueue("ann")
    other = await work.wait.enqueue()
    await work.has_begun(other)

    default, mail = await work.app.jobs.queues()
    assert (default.name, default.running, default.paused_at) == ("default", 1, None)
    assert (mail.name, mail.queued, mail.running) == ("mail", 1, 0)
    assert mail.paused_at is not None
    assert re.fullmatch(
        rf"job {job.id} of mail.send has been due for \S+ and waits: its queue 'mail' is paused since "
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \+0900; resume the queue",
        str(await work.app.jobs.why(job.id)),
    )
    assert await work.app.jobs.resume_queue("mail")
    assert await job.result(timeout=30) == "ann"


async def test_why_tells_what_a_job_waits_for_and_how_it_ended(work: Work) -> None:
    jobs = work.app.jobs
    running = [await work.wait.enqueue() for _ in range(2)]
    await work.has_begun(*running)
    later = await work.wait.options(delay="1h").enqueue()
    unknown = NewJob(id="u" * 20, task="gone.task", payload="{}", run_at=work.app._clock.now())
    await work.app._store_now().enqueue([unknown])
    at = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \+0900"

    why = await jobs.why(running[0].id)
    assert re.fullmatch(
        rf"job {running[0].id} of wait runs on worker \S+ \(pid \d+( on \S+)?\) for \S+, in its 1st attempt; it has "
        rf"told of 3 of 10 \(third\)(; its lease holds until {at})?",
        str(why),
    )
    assert (why.reason, why.by) == ("running", work.app._worker)
    why = await jobs.why(later.id)
    assert re.fullmatch(rf"job {later.id} of wait is delayed until {at}, for (1h|59m\S+) more", str(why))
    assert (why.reason, why.until) == ("delayed", (await later.record()).run_at)
    why = await jobs.why(unknown.id)
    assert re.fullmatch(
        rf"job {unknown.id} of gone.task has been due for \S+ and waits: no live worker knows its task "
        r"\(\S+ \(pid \d+( on \S+)?\)\); start one whose app includes 'gone.task'",
        str(why),
    )
    assert (why.reason, why.by) == ("unknown_task", "gone.task")
    await jobs.cancel(later.id)
    assert re.fullmatch(
        rf"job {later.id} of wait was cancelled at {at} before it began; it runs again when it is retried",
        str(await jobs.why(later.id)),
    )
    work.go.set()
    await work.ended(running[0])
    assert re.fullmatch(rf"job {running[0].id} of wait succeeded at {at} after \S+", str(await jobs.why(running[0].id)))
    failed = await work.failed()
    assert re.fullmatch(
        rf"job {failed} of mail.send failed at {at} after \S+, in its 2nd attempt: OSError: no route to ann; "
        "it runs again when it is retried",
        str(await jobs.why(failed)),
    )


async def test_why_names_the_job_that_an_overlap_waits_for(tmp_path: Path) -> None:
    app, go = App(f"sqlite:///{tmp_path}/jobs.db"), asyncio.Event()

    @app.every("1000d", first="now", overlap="queue", name="import")
    async def load() -> None:
        await go.wait()

    async with app:
        (first,) = (await app.jobs.list(schedule="import")).jobs
        second = await app.schedules["import"].run_now()
        assert second is not None
        await comes_into(app, first.id, JobState.RUNNING)

        why = await app.jobs.why(second.id)
        assert re.fullmatch(
            rf"job {second.id} of import has been due for \S+ and waits behind job {first.id}, which is running: the "
            "overlap of schedule import lets it begin when that has ended",
            str(why),
        )
        assert (why.reason, why.by) == ("behind", first.id)
        go.set()


# -- other processes, other versions --------------------------------------------------------------------------------


async def test_an_app_that_only_looks_can_do_all_of_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/jobs.db"
    work = Work(url)
    async with work.app:
        job_id = await work.failed()
    other = Work(url)
    async with other.app.looking():
        assert (await other.app.jobs.get(job_id)).state is JobState.FAILED
        await other.app.jobs.retry(job_id)
        assert re.fullmatch(
            rf"job {job_id} of mail.send has been due for \S+ and waits: no worker process is alive; "
            "start one, as with `tickwork run`",
            str(await other.app.jobs.why(job_id)),
        )
        await other.app.jobs.pause_queue("mail")
        assert await other.app.jobs.workers() == []
    work = Work(url)
    async with work.app, other.app.looking():
        (worker,) = await other.app.jobs.workers()
        assert set(worker.tasks) == {"mail.send", "mail.old", "wait"}
        assert (await other.app.jobs.why(job_id)).reason == "queue_paused"
        work.fails = False
        await other.app.jobs.resume_queue("mail")
        assert await (await work.app.job(job_id)).result(timeout=30) == "ann"


async def test_a_job_that_no_signature_has_taken_waits_for_one_that_does(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/jobs.db"
    old, new = App(url), App(url)

    @old.task(name="order")
    async def by_number(number: int) -> str:
        return f"number {number}"

    @new.task(name="order")
    async def by_name(name: str) -> str:
        return f"name {name}"

    async with new:
        job = await by_name.options(delay="1h").enqueue("ann")
        await new.jobs.cancel(job.id)
    async with old:
        await old.jobs.retry(job.id)
        parked = (await old.job(job.id)).result(timeout=30)
        with pytest.raises(Exception, match="is in the payload, but not in the signature"):
            await parked
        why = await old.jobs.why(job.id)
        assert str(why) == (
            f"job {job.id} of order is parked: order(name): is in the payload, but not in the signature (number: int); "
            "it runs again when a worker comes whose task takes these arguments, or when it is retried"
        )
        assert await old.jobs.attempts(job.id) == []
        async with new:  # both live, as in a deployment: whoever claims it, the new one gets it in the end
            await comes_into(new, job.id, JobState.SUCCEEDED)
    async with old:
        assert (await old.jobs.get(job.id)).state is JobState.SUCCEEDED


async def test_a_job_whose_key_another_has_by_now_is_not_retried(work: Work) -> None:
    await work.app.jobs.pause_queue("mail")
    first = await work.send.options(key="ann").enqueue("ann")
    await work.app.jobs.cancel(first.id)
    second = await work.send.options(key="ann").enqueue("ann")
    assert second.id != first.id
    assert await refusal(work.app.jobs.retry(first.id)) == (
        f"job {first.id} is cancelled and cannot be retried: job {second.id}, which is unfinished, has its key 'ann'; "
        "wait for the end of that one, or cancel it"
    )
    await work.app.jobs.cancel(second.id)
    assert (await work.app.jobs.retry(first.id)).key == "ann"
    assert (await work.send.options(key="ann").enqueue("ann")).id == first.id


async def test_a_secret_in_a_key_that_a_caller_gives_is_hidden() -> None:
    app, go = App(), asyncio.Event()

    @app.task(name="call")
    async def call(code: Annotated[str, Secret], number: int) -> None:
        await go.wait()

    async with app:
        jobs = [await call.options(key=f"{number} s3cr3t-code").enqueue("s3cr3t-code", number) for number in range(2)]
        await until(lambda: app.running)
        assert (await app.jobs.get(jobs[1].id)).key == "1 ***"
        assert "s3cr3t" not in repr([await job.record() for job in jobs])
        go.set()


# -- secrets --------------------------------------------------------------------------------------------------------


@dataclass
class Login:
    user: str
    key: Annotated[str, Secret]


async def test_a_secret_argument_is_seen_by_nobody_but_the_job(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    app = App(f"sqlite:///{tmp_path}/jobs.db")
    got: list[str] = []
    heard: list[events.Event] = []
    app.on(events.JobParked)(heard.append)

    @app.task(name="call", retry=Retry(2, delay="1ms"))
    async def call(login: Login, code: Annotated[str, Secret], where: str) -> None:
        got.extend((login.key, code))
        raise ValueError(f"{where} refused {code} of {login!r}")

    async with app:
        job = await call.enqueue(Login("ann", "hunter-22"), "s3cr3t-code", where="there")
        await comes_into(app, job.id, JobState.FAILED)
        info, attempts, why = await app.jobs.get(job.id), await app.jobs.attempts(job.id), await app.jobs.why(job.id)
        misfit = NewJob(
            id="m" * 20,
            task="call",
            payload='{"login":{"user":"ann","key":["hunter-22"]},"code":"s3cr3t-code"}',
            run_at=app._clock.now(),
        )
        await app._store_now().enqueue([misfit])
        await comes_into(app, misfit.id, JobState.PARKED)
        parked = await app.jobs.get(misfit.id, shows_names=True)

    assert got == ["hunter-22", "s3cr3t-code"] * 2
    assert info.arguments == {"login": {"user": "ann", "key": "***"}, "code": "***", "where": "there"}
    assert info.error is not None
    assert info.error.message == "there refused *** of Login(user='ann', key='***')"
    assert parked.arguments == {"login": {"user": "ann", "key": "***"}, "code": "***"}
    seen = " ".join(map(repr, (info, attempts, why, parked, heard, caplog.text, job)))
    assert "hunter-22" not in seen
    assert "s3cr3t-code" not in seen
    assert "call(login.key): expected str, got ***, which is secret" in caplog.text
