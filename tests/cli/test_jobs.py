"""`tickwork jobs`, `why ID`, `queues`, `pause` and `resume`: on the file that a run has left, and beside a run."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tickwork.stores.sqlite_schema import migrate

from .command import Running, tickwork

APP = """
from typing import Annotated

from tickwork import App, Context, Retry, Secret

app = App("sqlite:///jobs.db", timezone="Asia/Seoul")

@app.task(name="mail.send", queue="mail", retry=Retry(2, delay="1ms"))
async def send(to: str, code: Annotated[str, Secret] = "", password: str = "") -> None:
    raise OSError(f"no route to {to} with {code}")

@app.task(name="later")
async def later(number: int = 1) -> int:
    return number
"""

ENQUEUE = """
import asyncio
from jobs import app, send, later

async def main() -> None:
    async with app.client():
        await send.enqueue("ann", "s3cr3t-code", "sesame")
        await later.options(delay="2h").enqueue()
        await later.enqueue(7)

asyncio.run(main())
"""
ID = r"[0-9a-z]{20}"
AT = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \+0900"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An app with a failed job, a done one, and one for later."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "jobs.py").write_text(APP)
    with Running("-c", ENQUEUE, cwd=folder) as running:
        assert running.ended().status == 0
    assert tickwork("run", "jobs.py", "--until-idle", cwd=folder).status == 1
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of it, for one test."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path


def asked(folder: Path, *words: str) -> Any:
    """Return what a command prints as JSON."""
    ended = tickwork(*words, "--json", cwd=folder)
    assert (ended.status, ended.err) == (0, "")
    return json.loads(ended.out)


def the(folder: Path, state: str) -> str:
    """Return the id of the one job in a state."""
    (job,) = asked(folder, "jobs", "jobs.py", "--state", state)["jobs"]
    return str(job["id"])


def test_jobs_are_listed_the_newest_first(folder: Path) -> None:
    ended = tickwork("jobs", "jobs.py", cwd=folder)

    assert (ended.status, ended.err) == (0, "")
    head, *rows = ended.out.splitlines()
    assert head.split() == ["job", "task", "state", "queue", "enqueued", "tries", "what", "is", "known"]
    wanted = [
        rf"{ID}  later      succeeded  default  \S+ ago   1      \S+ ago, took \S+",
        rf"{ID}  later      scheduled  default  \S+ ago   0      in 1h5\dm",
        rf"{ID}  mail.send  failed     mail     \S+ ago   2      \S+ ago, took \S+: OSError: no route to ann.*",
    ]
    assert len(rows) == 3
    for row, pattern in zip(rows, wanted, strict=True):
        assert re.fullmatch(pattern.replace("   ", " +"), row)


def test_a_page_says_where_the_next_begins(folder: Path) -> None:
    first = asked(folder, "jobs", "jobs.py", "-n", "2")
    second = asked(folder, "jobs", "jobs.py", "--limit", "2", "--after", first["next"])
    table = tickwork("jobs", "jobs.py", "-n", "2", cwd=folder)

    assert [len(page["jobs"]) for page in (first, second)] == [2, 1]
    assert second["next"] is None
    assert table.err == f"tickwork: there are more: --after {first['next']}\n"


def test_jobs_can_be_picked_by_state_task_and_queue(folder: Path) -> None:
    def count(*words: str) -> int:
        return len(asked(folder, "jobs", "jobs.py", *words)["jobs"])

    assert count("--state", "failed", "--state", "succeeded") == 2
    assert count("--task", "send") == count("--queue", "mail") == count("--task", "mail.send", "--state", "failed") == 1
    assert count("--queue", "mail", "--state", "queued") == count("--task", "later", "--state", "failed") == 0


NAMES = """
import asyncio
from tickwork import App

app = App("sqlite:///jobs.db")
before = App("sqlite:///jobs.db")

async def work() -> None: ...

app.task(name="one.clean", aliases=["one.wipe"])(work)
app.task(name="two.clean")(work)
app.task(name="mail.send")(work)
app.every("1d", name="nightly")(app.task(name="report")(work))
gone = before.task(name="send")(work)

async def main() -> None:
    async with before.client():
        await gone.enqueue()

if __name__ == "__main__":
    asyncio.run(main())
"""
HAVE = "the app has one.clean, two.clean, mail.send, report"


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An app with names that are alike, and a job of a task that it does not have."""
    folder = tmp_path_factory.mktemp("names")
    (folder / "jobs.py").write_text(NAMES)
    with Running("jobs.py", cwd=folder) as running:
        assert running.ended().status == 0
    return folder


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        ("clean", "several end so: one.clean, two.clean"),
        ("claen", "did you mean 'clean'?"),
        ("one.wip", "did you mean 'one.wipe'?"),
        ("nightly", HAVE),  # a schedule, for which there is --schedule
        ("xyzzy", HAVE),
    ],
)
def test_a_task_that_nobody_has_is_refused_with_a_near_name(names: Path, task: str, reason: str) -> None:
    command = ("jobs", "retry", "--failed") if task == "clean" else ("jobs",)
    ended = tickwork(*command, "jobs.py:app", "--task", task, cwd=names)

    assert (ended.status, ended.out) == (2, "")
    assert ended.err == f"tickwork: no task named {task!r} is registered; {reason}\n"


def test_the_whole_name_of_a_task_that_is_gone_stands_for_itself(names: Path) -> None:
    def count(task: str) -> int:
        return len(asked(names, "jobs", "jobs.py:app", "--task", task)["jobs"])

    assert (count("send"), count("mail.send"), count("one.wipe"), count("report")) == (1, 0, 0, 0)


def test_a_job_as_json_has_what_the_documentation_says(folder: Path) -> None:
    shown = asked(folder, "jobs", "show", "jobs.py", the(folder, "failed"))

    job, attempts, why = shown["job"], shown["attempts"], shown["why"]
    assert list(job) == [
        "id",
        "task",
        "state",
        "queue",
        "priority",
        "key",
        "schedule",
        "fire_time",
        "batch",
        "batch_index",
        "arguments",
        "enqueued_at",
        "run_at",
        "started_at",
        "finished_at",
        "attempt",
        "deaths",
        "worker",
        "lease_expires_at",
        "cancel_requested",
        "progress",
        "error",
    ]
    assert job["arguments"] == {"to": "ann", "code": "***", "password": "***"}
    assert (job["error"]["type"], job["error"]["message"]) == ("OSError", "no route to ann with ***")
    assert [(attempt["number"], attempt["outcome"]) for attempt in attempts] == [(1, "failed"), (2, "failed")]
    assert all("raise OSError" in attempt["error"]["traceback"] for attempt in attempts)
    assert (why["reason"], why["job_id"], why["until"]) == ("failed", job["id"], None)


def test_a_job_is_shown_with_its_attempts_and_without_its_secrets(folder: Path) -> None:
    job_id = the(folder, "failed")
    ended = tickwork("jobs", "show", "jobs.py", job_id, cwd=folder)
    more = tickwork("jobs", "show", "jobs.py", job_id, "--show-args", "--tz", "UTC", cwd=folder)

    facts, _, attempts = ended.out.partition("\n\n")
    failed_at = rf"job {job_id} of mail.send failed at {AT} after \S+, in its 2nd attempt: OSError: no route to ann"
    wanted = [
        ("job", job_id),
        ("task", "mail.send"),
        ("state", "failed"),
        ("queue", "mail"),
        ("arguments", 'to = "ann"'),
        ("", r'code = "\*\*\*"'),
        ("", r'password = "\*\*\*"'),
        *((word, AT) for word in ("enqueued", "to start", "started", "ended")),
        ("attempts", "2"),
        ("why", rf"{failed_at} with \*\*\*; it runs again when it is retried"),
    ]
    for line, (word, pattern) in zip(facts.splitlines(), wanted, strict=True):
        assert re.fullmatch(rf"{word:9}  {pattern}", line)
    assert re.match(rf"attempt 1, {AT}, on worker \S+: failed, after \S+\n    Traceback \(most recent", attempts)
    assert '           password = "sesame"\n' in more.out
    assert "+0000" in more.out
    assert "s3cr3t-code" not in ended.out + more.out


def said(folder: Path, *words: str) -> tuple[int, str, str]:
    """Return what a command ends with and says."""
    ended = tickwork(*words, cwd=folder)
    return ended.status, ended.out, ended.err


def test_a_failed_job_is_retried_once(folder: Path) -> None:
    failed, later = the(folder, "failed"), the(folder, "scheduled")

    assert said(folder, "jobs", "retry", "jobs.py", failed) == (0, f"job {failed} of mail.send is queued again\n", "")
    status, out, err = said(folder, "jobs", "retry", "jobs.py", failed, later)
    assert (status, out) == (2, "")
    assert err == (
        f"tickwork: job {failed} is queued and cannot be retried: it waits for a worker; wait for that, or ask why it "
        "has not run\n"
        f"tickwork: job {later} is scheduled and cannot be retried: it has its next attempt before it; wait for that, "
        "or ask why it has not run\n"
    )


def test_all_that_have_failed_are_retried(folder: Path) -> None:
    retry = "jobs", "retry", "jobs.py", "--failed"
    assert said(folder, *retry, "--task", "later") == (0, "0 jobs are queued again\n", "")
    assert asked(folder, *retry, "--task", "send") == {"retried": 1}
    assert said(folder, *retry) == (0, "0 jobs are queued again\n", "")


def test_jobs_are_cancelled_and_deleted_each_by_itself(folder: Path) -> None:
    failed, later = the(folder, "failed"), the(folder, "scheduled")

    status, out, err = said(folder, "jobs", "cancel", "jobs.py", later, "nobody", failed)
    assert (status, out) == (2, f"job {later} of later is cancelled\n")
    assert err == (
        "tickwork: no job 'nobody' in the store; it never existed or its retention has passed\n"
        f"tickwork: job {failed} is failed and cannot be cancelled: it has ended; delete it to forget it\n"
    )
    assert said(folder, "jobs", "delete", "jobs.py", later) == (0, f"job {later} of later is deleted\n", "")
    assert said(folder, "jobs", "show", "jobs.py", later)[0] == 2


def test_why_answers_for_a_job(folder: Path) -> None:
    job_id = the(folder, "scheduled")
    ended = tickwork("why", "jobs.py", job_id, cwd=folder)

    assert (ended.status, ended.err) == (0, "")
    assert re.fullmatch(rf"job {job_id} of later is delayed until {AT}, for 1h5\dm\S* more\n", ended.out)
    assert asked(folder, "why", "jobs.py", job_id)["reason"] == "delayed"


def test_queues_are_listed_paused_and_resumed(folder: Path) -> None:
    assert said(folder, "pause", "jobs.py", "mail") == (0, "queue 'mail' is paused: 0 jobs wait in it\n", "")
    tickwork("jobs", "retry", "jobs.py", "--failed", cwd=folder)
    head, default, mail = said(folder, "queues", "jobs.py")[1].splitlines()
    assert head == "queue    queued  oldest waits  scheduled  running  ended a minute  paused"
    # What has ended may have done so more than a minute ago, on a busy machine.
    assert re.fullmatch(r"default  0       -             1          0        \d               -", default)
    assert re.fullmatch(r"mail     1       \d+s            0          0        0               for \d+s", mail)
    assert "its queue is paused" in said(folder, "jobs", "jobs.py", "--queue", "mail")[1]
    assert said(folder, "resume", "jobs.py", "mail") == (0, "queue 'mail' is resumed: 1 job waits in it\n", "")
    assert said(folder, "resume", "jobs.py", "mail") == (0, "queue 'mail' was not paused\n", "")


def test_queues_as_json_have_the_attributes_of_a_row(folder: Path) -> None:
    _, mail = asked(folder, "queues", "jobs.py")
    assert list(mail) == ["name", "queued", "scheduled", "running", "oldest_due_at", "paused_at", "per_minute"]


MAP = """
import asyncio
from jobs import app, later, send

async def main() -> None:
    async with app.client():
        await send.map(["ann", "bob"], id="mails of \u00fc")
        await later.options(delay="2h").map(range(3), id="numbers")

asyncio.run(main())
"""


def test_batches_are_counted_cancelled_and_tried_again(tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text(APP)
    with Running("-c", MAP, cwd=tmp_path) as running:
        assert running.ended().status == 0
    assert tickwork("run", "jobs.py", "--until-idle", cwd=tmp_path).status == 1
    words = "jobs", "batch", "jobs.py"

    lines = tickwork(*words, cwd=tmp_path).out.splitlines()
    assert [re.sub(r" +", " ", re.sub(r"\S+ ago", "AGO", line)) for line in lines] == [
        "batch task enqueued how far",
        "numbers later AGO 0 of 3 have ended: 3 scheduled",
        "mails of \u00fc mail.send AGO 2 of 2 have ended: 2 failed",
    ]
    assert [batch["id"] for batch in asked(tmp_path, *words)] == ["numbers", "mails of \u00fc"]
    assert tickwork(*words, "numbers", cwd=tmp_path).out == "batch numbers of later: 0 of 3 have ended: 3 scheduled\n"
    counts = asked(tmp_path, *words, "mails of \u00fc")
    assert list(counts) == [
        "id",
        "task",
        "created_at",
        "total",
        "scheduled",
        "queued",
        "running",
        "succeeded",
        "failed",
        "cancelled",
        "parked",
        "gone",
        "is_complete",
        "is_cancelled",
        "is_over",
    ]
    assert (counts["total"], counts["failed"], counts["is_complete"], counts["is_over"]) == (2, 2, True, True)

    page = asked(tmp_path, "jobs", "jobs.py", "--batch", "numbers", "-n", "2")
    assert [(job["batch"], job["batch_index"]) for job in page["jobs"]] == [("numbers", 2), ("numbers", 1)]
    shown = tickwork("jobs", "show", "jobs.py", page["jobs"][0]["id"], cwd=tmp_path).out
    assert "\nbatch      numbers, item 2\n" in shown
    assert tickwork(*words, "numbers", "--cancel", cwd=tmp_path).out == (
        "3 jobs are cancelled, or told to end\nbatch numbers of later: 3 of 3 have ended: 3 cancelled\n"
    )
    again = asked(tmp_path, *words, "mails of \u00fc", "--retry-failed")
    assert (again["retried"], again["batch"]["queued"]) == (2, 2)
    assert asked(tmp_path, *words, "numbers", "--cancel")["cancelled"] == 0

    none = tickwork(*words, "numbres", cwd=tmp_path)
    assert (none.status, none.out) == (2, "")
    assert none.err == (
        "tickwork: no batch 'numbres' in the store; it never existed or the retention of its jobs has passed\n"
    )
    refused = tickwork(*words, "--cancel", cwd=tmp_path)
    assert (refused.status, refused.err) == (2, "tickwork: ID must be given with --cancel, got None\n")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("pause", "jobs.py", "mial"), "QUEUE must be one of default, mail, got 'mial'; did you mean 'mail'?"),
        (
            ("jobs", "jobs.py", "--state", "runing"),
            (
                "state must be one of scheduled, queued, running, succeeded, failed, cancelled, parked, got 'runing'; "
                "did you mean 'running'?"
            ),
        ),
        (("jobs", "jobs.py", "--after", "zz"), "after must be the `next` of another page, got 'zz'"),
        (("jobs", "retry", "jobs.py"), "ID must be given, or --failed for all that have failed, got ''"),
        (("jobs", "retry", "jobs.py", "x", "--failed"), "ID must be left out with --failed, got 'x'"),
        (("jobs", "retry", "jobs.py", "x", "--task", "t"), "--task must be given with --failed, got 't'"),
        (("why", "jobs.py", "x"), "no job 'x' in the store; it never existed or its retention has passed"),
    ],
)
def test_what_cannot_be_done_is_said(folder: Path, words: tuple[str, ...], error: str) -> None:
    ended = tickwork(*words, cwd=folder)

    assert (ended.status, ended.out, ended.err) == (2, "", f"tickwork: {error}\n")


@pytest.mark.parametrize(
    ("words", "instead"),
    [
        (("jobs",), "await app.jobs.list(), .get(id) or .why(id)"),
        (("jobs", "retry", "x"), "await app.jobs.list(), .get(id) or .why(id)"),
        (("queues",), "await app.jobs.queues()"),
        (("pause", "mail"), "await app.jobs.pause_queue(name) or .resume_queue(name)"),
        (("why", "x"), 'await app.jobs.why("x")'),
    ],
)
def test_jobs_in_the_memory_of_another_process_are_asked_for_there(
    tmp_path: Path, words: tuple[str, ...], instead: str
) -> None:
    (tmp_path / "jobs.py").write_text(APP.replace('"sqlite:///jobs.db", ', ""))
    at = 2 if words[:2] == ("jobs", "retry") else 1
    ended = tickwork(*words[:at], "jobs.py", *words[at:], cwd=tmp_path)

    assert (ended.status, ended.out) == (2, "")
    assert ended.err == (
        "tickwork: this app keeps its jobs and its ledger in memory, inside of the process that runs it: ask there, "
        f'with {instead}, or let the app keep them: App("sqlite:///jobs.db")\n'
    )


def test_a_running_app_hears_what_people_do(tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text(
        APP
        + """
@app.every("1000d", first="now", name="long")
async def long(ctx: Context) -> None:
    import asyncio
    ctx.progress(3, 10, "third")
    print("begun", flush=True)
    await asyncio.Event().wait()
"""
    )
    with Running("-m", "tickwork", "run", "jobs.py", cwd=tmp_path) as running:
        running.wait_for("begun")
        job_id = the(tmp_path, "running")
        shown: dict[str, Any] = {}

        def is_told() -> bool:
            shown.update(asked(tmp_path, "jobs", "show", "jobs.py", job_id))
            return shown["job"]["progress"] is not None

        running.wait_until(is_told, "progress")
        assert shown["job"]["progress"]["message"] == "third"
        assert shown["job"]["worker"].startswith(f"{running.pid}-")
        assert f"(pid {running.pid} on " in shown["why"]["sentence"]
        refused = tickwork("jobs", "delete", "jobs.py", job_id, cwd=tmp_path)
        assert refused.err == (
            f"tickwork: job {job_id} is running and cannot be deleted: it is in the hands of a worker; "
            "cancel it first\n"
        )
        ended = tickwork("jobs", "cancel", "jobs.py", job_id, cwd=tmp_path)
        assert ended.out == (
            f"job {job_id} of long runs on worker {shown['job']['worker']}, which is told to cancel it\n"
        )
        running.wait_until(lambda: asked(tmp_path, "jobs", "jobs.py", "--state", "cancelled")["jobs"], "the cancel")
        (attempt,) = asked(tmp_path, "jobs", "show", "jobs.py", job_id)["attempts"]
        assert attempt["outcome"] == "cancelled"


def test_a_file_with_many_jobs_answers_as_well(tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text(APP)
    db = sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)
    db.execute("PRAGMA synchronous = OFF")
    db.execute("BEGIN")
    migrate(db, "jobs.db")
    db.execute(
        """
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000)
        INSERT INTO jobs (id, task, payload, run_at, queue, priority, state, enqueued_at, attempt, finished_at)
        SELECT 'job' || i, iif(i % 100, 'later', 'mail.send'), '{}', i, iif(i % 100, 'default', 'mail'), 0,
            CASE WHEN i % 1000 = 0 THEN 'failed' WHEN i > 199000 THEN 'queued' ELSE 'succeeded' END, i, 1,
            iif(i > 199000 AND i % 1000, NULL, i)
        FROM n
        """
    )
    db.execute("COMMIT")
    db.close()

    assert len(asked(tmp_path, "jobs", "jobs.py")["jobs"]) == 50
    page = asked(tmp_path, "jobs", "jobs.py", "--task", "send", "--state", "failed", "-n", "150")
    assert [job["id"] for job in page["jobs"][:2]] == ["job200000", "job199000"]
    rest = asked(tmp_path, "jobs", "jobs.py", "--task", "send", "--state", "failed", "--after", page["next"])
    assert [len(page["jobs"]), len(rest["jobs"])] == [150, 50]
    assert asked(tmp_path, "why", "jobs.py", "job199999")["reason"] == "no_worker"
    assert [queue["queued"] for queue in asked(tmp_path, "queues", "jobs.py")] == [990, 9]
    assert asked(tmp_path, "jobs", "retry", "jobs.py", "--failed") == {"retried": 200}
    assert asked(tmp_path, "jobs", "jobs.py", "--state", "failed")["jobs"] == []
