"""Races, kills and cancellations against the real `crontab`, in a box: nothing is lost, nothing is left half done."""

from __future__ import annotations

from pathlib import Path

import pytest

from .box import need_box, run_in_box


@pytest.fixture(autouse=True)
def _box() -> None:
    need_box("crontab")


@pytest.mark.one_python
@pytest.mark.timeout(300)
def test_four_programs_that_add_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    told = run_in_box(tmp_path, "race")

    assert (told["statuses"], told["lost"], told["kept"]) == ([0, 0, 0, 0], [], True)


@pytest.mark.one_python
@pytest.mark.timeout(300)
def test_a_killed_writer_leaves_the_old_crontab_or_the_new_one(tmp_path: Path) -> None:
    told = run_in_box(tmp_path, "storm", "kill", "6")

    assert (told["whole"], told["lost"], told["spool"]) == (6, 0, ["root"])


@pytest.mark.slow
@pytest.mark.one_python
@pytest.mark.timeout(300)
def test_two_hundred_killed_writers_leave_the_old_crontab_or_the_new_one(tmp_path: Path) -> None:
    told = run_in_box(tmp_path, "storm", "kill", "200", timeout=280)

    assert (told["whole"], told["lost"], told["spool"]) == (200, 0, ["root"])


@pytest.mark.one_python
@pytest.mark.timeout(300)
def test_cancelled_changes_are_made_as_a_whole_or_not_at_all_and_leave_no_litter(tmp_path: Path) -> None:
    told = run_in_box(tmp_path, "storm", "cancel", "60")

    assert (told["old"] + told["new"], told["other"]) == (60, 0)
    assert told["new"] > 0
    assert told["old"] > 0
    assert (told["spool"], told["backups"], told["files"], told["modes"]) == (["root"], 5, 6, ["0o600", "0o700"])
