"""Records, and changed copies of them."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from tickwork.errors import IllegalMove
from tickwork.jobs import JobRecord, JobState, NewJob, new_id, taken
from tickwork.records import changed, copier, record

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RECORD = JobRecord(
    id="a", task="t", payload="{}", run_at=NOW, state=JobState.QUEUED, enqueued_at=NOW, schedule="s", fire_time=NOW
)


@record
class Base:
    first: int
    second: str = "two"


@record
class More(Base):
    third: float = 3.0


@pytest.mark.parametrize("original", [Base(first=1), More(first=1, second="b", third=0.5), RECORD])
def test_a_copy_without_changes_is_equal_and_another_object(original: object) -> None:
    copy = changed(original)

    assert copy == original
    assert hash(copy) == hash(original)
    assert type(copy) is type(original)
    assert copy is not original


def test_changes_are_those_of_replace_and_leave_the_original_alone() -> None:
    copy = changed(RECORD, state=JobState.RUNNING, token=7, fire_time=None)

    assert copy == replace(RECORD, state=JobState.RUNNING, token=7, fire_time=None)
    assert (RECORD.state, RECORD.token, RECORD.fire_time) == (JobState.QUEUED, 0, NOW)
    assert changed(More(first=1), third=4.0) == More(first=1, third=4.0)


def test_a_copier_copies_as_changed_does_and_adds_what_a_base_lacks() -> None:
    assert copier(JobRecord, "token", "state")(RECORD, 7, JobState.RUNNING) == changed(
        RECORD, token=7, state=JobState.RUNNING
    )
    assert copier(More, "third")(Base(first=1), 4.0) == More(first=1, third=4.0)


def test_a_job_that_is_taken_in_keeps_all_that_it_was_made_with() -> None:
    job = NewJob(id="a", task="t", payload="{}", run_at=NOW, priority=3, key="k", batch="b", batch_index=1)

    assert taken(job, NOW) == JobRecord(
        id="a",
        task="t",
        payload="{}",
        run_at=NOW,
        priority=3,
        key="k",
        batch="b",
        batch_index=1,
        state=JobState.QUEUED,
        enqueued_at=NOW,
    )
    assert taken(changed(job, run_at=NOW.replace(year=2027)), NOW).state is JobState.SCHEDULED


if TYPE_CHECKING:
    RECORD.token = 3  # type: ignore[misc]  # an error to mypy, and an unused comment where it is none


def test_a_field_that_does_not_exist_is_refused() -> None:
    with pytest.raises(AttributeError, match="fourth"):
        changed(More(first=1), fourth=4)


def test_a_move_that_does_not_follow_is_refused_and_one_that_does_changes_what_it_says() -> None:
    with pytest.raises(IllegalMove):
        RECORD.moved(JobState.SUCCEEDED)
    assert RECORD.moved(JobState.RUNNING, token=2) == replace(RECORD, state=JobState.RUNNING, token=2)


def test_ids_sort_by_time_and_never_repeat() -> None:
    later = datetime(2026, 1, 1, 0, 0, 0, 1000, tzinfo=UTC)
    ids = [new_id(NOW) for _ in range(1000)]

    assert len(set(ids)) == 1000
    assert max(ids) < new_id(later)
    assert {len(made) for made in ids} == {20}
    assert {character for made in ids for character in made} <= set("0123456789abcdefghjkmnpqrstvwxyz")
    assert min(ids)[:10] == max(ids)[:10] == new_id(NOW)[:10]  # the milliseconds; the rest is random


FORK = """
import os
from datetime import UTC, datetime
from tickwork.jobs import new_id

child = os.fork()
os.write(1, f"{new_id(datetime(2026, 1, 1, tzinfo=UTC))} ".encode())  # in one piece: both write here
if child:
    os.waitpid(child, 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="without fork")
def test_a_forked_process_makes_other_ids() -> None:
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, check=True)

    assert len(set(done.stdout.split())) == 2
