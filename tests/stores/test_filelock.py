from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tickwork.stores.filelock import FileLock
from tickwork.stores.presence import Presence

FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


def test_one_open_file_at_a_time_holds_the_lock(tmp_path: Path) -> None:
    one, two = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert one.try_acquire()
    assert not two.try_acquire()
    one.release()
    assert two.try_acquire()
    two.close()
    two.close()
    assert one.try_acquire()
    one.close()


@FORKS
@pytest.mark.parametrize("way", ["fork", "start"])
def test_a_child_does_not_keep_the_lock_of_a_dead_parent(tmp_path: Path, way: str) -> None:
    program = f"""
import os, subprocess, sys, time
from pathlib import Path
from tickwork.stores.filelock import FileLock
lock = FileLock(Path({str(tmp_path / "lock")!r}))
assert lock.try_acquire()
if {way!r} == "start":
    subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=0, close_fds=False)
    os.write(1, b"ready")
elif not os.fork():
    os.write(1, b"ready")  # the child says so: a parent may die before it has run at all
    sys.stdin.readline()
    os._exit(0)
os.kill(os.getpid(), 9)
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdin is not None
    assert parent.stdout is not None
    assert parent.stdout.read(5) == b"ready"
    assert parent.wait(10) == -9
    lock = FileLock(tmp_path / "lock")
    try:
        assert lock.try_acquire()
    finally:
        lock.close()
        parent.stdin.close()  # ends the child
        parent.stdout.close()


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_what_stands_beside_a_database_has_its_permissions(tmp_path: Path) -> None:
    database = tmp_path / "jobs.db"
    database.touch()
    database.chmod(0o660)
    if os.geteuid() == 0:
        os.chown(database, 12345, 23456)
    FileLock(tmp_path / "lock", like=database).close()
    presence = Presence(tmp_path / "workers", "w", database)
    assert presence.announce()

    found = {path.name: path.stat() for path in (tmp_path / "lock", tmp_path / "workers", tmp_path / "workers" / "w")}
    assert {name: stat.S_IMODE(status.st_mode) for name, status in found.items()} == {
        "lock": 0o660,
        "workers": 0o770,
        "w": 0o660,
    }
    owner = (12345, 23456) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    assert {(status.st_uid, status.st_gid) for status in found.values()} == {owner}
    presence.leave()
    assert list((tmp_path / "workers").iterdir()) == []


def test_a_worker_is_alive_while_it_holds_its_file(tmp_path: Path) -> None:
    database = tmp_path / "jobs.db"
    one, two, namesake = (Presence(tmp_path / "workers", name, database) for name in ("one", "two", "one"))
    assert one.announce()
    assert two.announce()

    assert not namesake.announce()
    assert two.dead(["one", "two", "never"]) == ["never"]
    one.leave()
    assert two.dead(["one", "two"]) == ["one"]
    (tmp_path / "workers" / "killed").touch()
    assert two.dead(["killed"]) == ["killed"]
    two.forget("killed")
    two.leave()
    assert list((tmp_path / "workers").iterdir()) == []
