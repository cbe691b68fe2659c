"""The ready-made tasks: recording the system's state, removing old files."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tickwork.clock import SystemClock
from tickwork.errors import InvalidDuration, InvalidOption
from tickwork.recipes import record_system_status, remove_old_files

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)


class Clock(SystemClock):
    """Stands still."""

    def now(self) -> datetime:
        return NOW


CLOCK = Clock()


def make(path: Path, *, days: float = 30, size: int = 10) -> Path:
    """Make a file that was last changed so many days before now."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    changed = (NOW - timedelta(days=days)).timestamp()
    os.utime(path, (NOW.timestamp(), changed))  # read just now: only the change counts
    return path


# -- the state of the system ------------------------------------------------------------------------------------------


async def test_status_is_appended_as_one_json_line_each(tmp_path: Path) -> None:
    path = tmp_path / "made" / "here" / "status.log"

    first = await record_system_status(path, clock=CLOCK)
    second = await record_system_status(os.fspath(path), disk=tmp_path, clock=CLOCK)

    assert [json.loads(line) for line in path.read_text().splitlines()] == [first, second]
    assert first["at"] == "2026-03-10T12:00:00.000+00:00"


async def test_status_holds_plausible_numbers(tmp_path: Path) -> None:
    status = await record_system_status(tmp_path / "status.log")

    assert sorted(status) == [
        "at",
        "cpu_percent",
        "disk_free_gb",
        "disk_percent",
        "load",
        "memory_available_mb",
        "memory_percent",
    ]
    assert 0 <= status["cpu_percent"] <= 100
    assert 0 < status["memory_percent"] < 100
    assert status["memory_available_mb"] > 0
    assert 0 <= status["disk_percent"] <= 100
    assert abs(datetime.fromisoformat(status["at"]) - datetime.now(UTC)) < timedelta(minutes=1)


async def test_status_of_a_disk_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await record_system_status(tmp_path / "status.log", disk=tmp_path / "nowhere")


# -- old files --------------------------------------------------------------------------------------------------------


async def test_old_files_with_the_prefix_are_removed_and_no_others(tmp_path: Path) -> None:
    old = [make(tmp_path / "temp_b", size=5), make(tmp_path / "temp_a", size=6)]
    kept = [make(tmp_path / "other_a"), make(tmp_path / "a_temp_"), make(tmp_path / "temp_new", days=6.9)]

    removed = await remove_old_files(tmp_path, prefix="temp_", older_than="7d", clock=CLOCK)

    assert removed.files == sorted(map(str, old))
    assert (removed.size, removed.failed, removed.dry_run) == (11, [], False)
    assert sorted(tmp_path.iterdir()) == sorted(kept)


async def test_dry_run_says_the_same_and_removes_nothing(tmp_path: Path) -> None:
    old = make(tmp_path / "temp_a")

    said = await remove_old_files(tmp_path, prefix="temp_", dry_run=True, clock=CLOCK)
    assert old.exists()
    done = await remove_old_files(tmp_path, prefix="temp_", clock=CLOCK)

    assert (said.files, said.size, said.dry_run) == (done.files, done.size, True)
    assert not old.exists()


@pytest.mark.parametrize(
    ("age", "is_removed"), [(timedelta(days=7), True), (timedelta(days=7) - timedelta(seconds=1), False)]
)
async def test_age_limit_counts_from_the_last_change(tmp_path: Path, age: timedelta, is_removed: bool) -> None:
    path = make(tmp_path / "temp_a", days=age / timedelta(days=1))

    await remove_old_files(tmp_path, prefix="temp_", older_than=timedelta(days=7), clock=CLOCK)

    assert path.exists() is not is_removed


async def test_age_of_zero_takes_every_file_with_the_prefix(tmp_path: Path) -> None:
    make(tmp_path / "temp_a", days=0)

    assert len((await remove_old_files(tmp_path, prefix="temp_", older_than=0, clock=CLOCK)).files) == 1


async def test_folders_links_and_other_things_stay(tmp_path: Path) -> None:
    target = make(tmp_path / "target" / "file")
    folder = tmp_path / "temp_folder"
    make(folder / "file")
    (tmp_path / "temp_link").symlink_to(target)
    (tmp_path / "temp_dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "temp_folder_link").symlink_to(folder, target_is_directory=True)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "temp_pipe")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "temp_socket"))
    before = sorted(tmp_path.rglob("*"))

    removed = await remove_old_files(tmp_path, prefix="temp_", older_than=0, recursive=True)

    assert (removed.files, removed.failed) == ([], [])
    assert sorted(tmp_path.rglob("*")) == before


async def test_folders_below_are_looked_into_when_asked_and_links_to_folders_are_not(tmp_path: Path) -> None:
    top = make(tmp_path / "top" / "temp_a")
    deep = make(tmp_path / "top" / "one" / "two" / "temp_b")
    outside = make(tmp_path / "outside" / "temp_c")
    (tmp_path / "top" / "link").symlink_to(outside.parent, target_is_directory=True)
    (tmp_path / "top" / "loop").symlink_to(tmp_path / "top", target_is_directory=True)

    flat = await remove_old_files(tmp_path / "top", prefix="temp_", dry_run=True, clock=CLOCK)
    all_below = await remove_old_files(tmp_path / "top", prefix="temp_", recursive=True, clock=CLOCK)

    assert flat.files == [str(top)]
    assert all_below.files == sorted([str(top), str(deep)])
    assert outside.exists()
    assert deep.parent.exists()


@pytest.mark.parametrize("prefix", ["", "a/b", "/"])
async def test_prefix_that_is_none_is_refused(tmp_path: Path, prefix: str) -> None:
    path = make(tmp_path / "temp_a")

    with pytest.raises(InvalidOption) as caught:
        await remove_old_files(tmp_path, prefix=prefix, clock=CLOCK)

    assert str(caught.value) == f"prefix must be the beginning of file names, at least one character, got {prefix!r}"
    assert path.exists()


async def test_wrong_age_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidDuration):
        await remove_old_files(tmp_path, prefix="temp_", older_than="7 parsecs")
    with pytest.raises(InvalidDuration):
        await remove_old_files(tmp_path, prefix="temp_", older_than=-1)


async def test_missing_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await remove_old_files(tmp_path / "nowhere", prefix="temp_")
    with pytest.raises(NotADirectoryError):
        await remove_old_files(make(tmp_path / "file"), prefix="temp_")


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """Give a folder to a user whom permissions bind, and be that user: root may read and remove everything."""
    if sys.platform == "win32":
        pytest.skip("permissions of POSIX")
    folder = Path(tempfile.mkdtemp())  # tmp_path lies in folders that only their owner may enter
    is_root = os.geteuid() == 0
    if is_root:
        os.chown(folder, 65_534, 65_534)
        os.seteuid(65_534)
    try:
        yield folder
    finally:
        if is_root:
            os.seteuid(0)
        for path in folder.rglob("*"):
            if path.is_dir():
                path.chmod(0o700)
        shutil.rmtree(folder)


async def test_what_cannot_be_read_or_removed_is_reported_and_the_rest_goes_on(
    as_nobody: Path, caplog: pytest.LogCaptureFixture
) -> None:
    locked, fixed = as_nobody / "a_locked", as_nobody / "b_fixed"
    make(locked / "temp_hidden")
    immovable = make(fixed / "temp_fixed")
    removable = [make(as_nobody / "temp_a"), make(as_nobody / "c_free" / "temp_c")]
    locked.chmod(0o000)
    fixed.chmod(0o500)

    removed = await remove_old_files(as_nobody, prefix="temp_", recursive=True, clock=CLOCK)

    assert removed.files == sorted(map(str, removable))
    assert removed.failed == [(str(locked), "Permission denied"), (str(immovable), "Permission denied")]
    assert f"left alone: {locked}: Permission denied" in caplog.messages


async def test_directory_that_cannot_be_read_is_an_error(as_nobody: Path) -> None:
    (as_nobody / "locked").mkdir(mode=0o000)

    with pytest.raises(PermissionError):
        await remove_old_files(as_nobody / "locked", prefix="temp_")


async def test_file_that_somebody_else_removes_meanwhile_is_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "temp_a")
    unlink = os.unlink

    def removed_by_another(path: Any) -> None:
        unlink(path)
        unlink(path)

    monkeypatch.setattr(os, "unlink", removed_by_another)
    removed = await remove_old_files(tmp_path, prefix="temp_", clock=CLOCK)
    monkeypatch.undo()

    assert (removed.files, removed.size, removed.failed) == ([], 0, [])


async def test_summary_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make(tmp_path / "temp_a", size=7)
    caplog.set_level("INFO")

    await remove_old_files(tmp_path, prefix="temp_", older_than="7d", dry_run=True, clock=CLOCK)

    assert caplog.messages == [f"would remove 1 files (7 bytes) older than 7d in {tmp_path}"]
