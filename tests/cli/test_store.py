"""`tickwork store`, on files that real runs have left, and while one works."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from .command import DEADLINE, SAVES_A_POOL, Running, tickwork

if TYPE_CHECKING:
    from pathlib import Path
from typing import Any

APP = """
import asyncio
from pathlib import Path
from tickwork import App

app = App("sqlite:///a.db", workers=2)
other = App("sqlite:///b.db", workers=2)

@app.task(name="add")
async def add(a: int, b: int) -> int:
    return a + b

@app.task(name="slow")
async def slow() -> None:
    Path("began").touch()
    while not Path("go").exists():
        await asyncio.sleep(0.01)

other.include(add, slow)

@app.every("1000d", first="now", name="hourly")
async def hourly() -> None: ...

async def main():
    async with app:
        for job in await add.enqueue_many([(number, number) for number in range(50)]):
            await job
    async with app.client():
        await add.enqueue_many([(number, 0) for number in range(7)])

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "jobs.py").write_text(APP)
    with Running("jobs.py", cwd=tmp_path) as made:
        assert made.ended().status == 0, made.err
    return tmp_path


def as_json(folder: Path, *words: str) -> dict[str, Any]:
    ended = tickwork("store", *words, "--json", cwd=folder)
    assert (ended.status, ended.err) == (0, "")
    return dict(json.loads(ended.out))


def stats(folder: Path, store: str) -> dict[str, Any]:
    return as_json(folder, "stats", store)


def test_stats_show_what_is_in_the_store(folder: Path) -> None:
    found = stats(folder, "jobs.py:app")
    assert found["jobs"] == {
        "cancelled": 0,
        "failed": 0,
        "parked": 0,
        "queued": 7,
        "running": 0,
        "scheduled": 0,
        "succeeded": 51,
    }
    assert (found["schedules"], found["ledger"], found["workers"], found["moved_to"]) == (1, 1, [], None)

    shown = tickwork("store", "stats", "sqlite:///a.db", cwd=folder).out
    assert re.search(r"^jobs queued +7$", shown, re.MULTILINE)
    assert re.search(r"^oldest queued +due \S+ ago$", shown, re.MULTILINE)


def test_check_finds_what_should_not_be_and_repairs_what_needs_no_person(folder: Path) -> None:
    assert tickwork("store", "check", "sqlite:///a.db", cwd=folder).out == "the store is sound\n"
    db = sqlite3.connect(folder / "a.db")
    (job_id,) = db.execute("SELECT id FROM jobs WHERE state = 'queued' ORDER BY seq").fetchone()
    (lost_id,) = db.execute("SELECT id FROM jobs WHERE state = 'queued' ORDER BY seq DESC").fetchone()
    db.execute("UPDATE counts SET count = 70 WHERE state = 'succeeded'")
    db.execute("INSERT INTO behind VALUES (?, 'gone')", (job_id,))
    db.execute("UPDATE jobs SET held = 1 WHERE id = ?", (job_id,))
    db.execute(
        "UPDATE jobs SET state = 'running', worker = 'w', lease_expires_at = 1, token = 1 WHERE id = ?", (lost_id,)
    )
    db.commit()
    db.close()

    ended = tickwork("store", "check", "sqlite:///a.db", "--json", cwd=folder)
    assert ended.status == 1
    assert [(row["rule"], row["text"]) for row in json.loads(ended.out)] == [
        ("stuck lease", f"job {lost_id} (add) is running in worker w, whose lease is over"),
        ("orphaned", "1 waiting rows for jobs that have ended"),
        ("miscounted", "70 jobs are said to be succeeded, and 51 are"),
    ]

    ended = tickwork("store", "check", "sqlite:///a.db", "--repair", cwd=folder)
    assert ended.status == 1
    assert "stuck lease" in ended.out
    assert "miscounted" not in ended.out
    assert tickwork("run", "jobs.py:app", "--until-idle", cwd=folder).status == 0
    assert tickwork("store", "check", "sqlite:///a.db", cwd=folder).status == 0
    assert stats(folder, "sqlite:///a.db")["jobs"]["queued"] == 0


def test_check_finds_damage(folder: Path) -> None:
    with (folder / "a.db").open("r+b") as file:
        file.seek(3 * 4096)
        file.write(b"\xff" * 4096)
    ended = tickwork("store", "check", "sqlite:///a.db", cwd=folder)
    assert ended.status != 0
    assert "Traceback" not in ended.err
    assert "restore a backup" in ended.out + ended.err


def test_prune_forgets_what_is_old(folder: Path) -> None:
    assert tickwork("store", "prune", "jobs.py:app", cwd=folder).out == "forgot 0 jobs and rows of ledgers\n"
    db = sqlite3.connect(folder / "a.db")
    db.execute("UPDATE jobs SET finished_at = 1 WHERE state = 'succeeded' AND schedule IS NULL")
    db.commit()
    db.close()
    assert tickwork("store", "prune", "jobs.py:app", cwd=folder).out == "forgot 50 jobs and rows of ledgers\n"
    assert as_json(folder, "prune", "jobs.py:app") == {"forgotten": 0}


def test_backup_of_a_store_at_work_is_a_whole_store(folder: Path) -> None:
    with Running("-m", "tickwork", "run", "jobs.py:app", cwd=folder) as running:
        running.wait_for("started:")
        ended = tickwork("store", "backup", "jobs.py:app", "copy.db", cwd=folder)
        assert ended.status == 0, ended.err
        again = tickwork("store", "backup", "jobs.py:app", "copy.db", cwd=folder)
        assert again.status == 2
        assert "there is a file already; name another, or move it away" in again.err

    assert sorted(path.name for path in folder.glob("*copy*")) == ["copy.db"]
    assert tickwork("store", "check", "sqlite:///copy.db", cwd=folder).status == 0
    found = stats(folder, "sqlite:///copy.db")
    assert (sum(found["jobs"].values()), found["schedules"], found["workers"]) == (58, 1, [])


def test_move_takes_everything_along_and_closes_the_old_store(folder: Path) -> None:
    ended = tickwork("store", "move", "sqlite:///a.db", "sqlite:///b.db", cwd=folder)
    assert (ended.status, ended.out) == (0, "moved 58 rows of jobs, 1 rows of ledger, 1 rows of schedules\n")
    old, new = (sqlite3.connect(folder / name) for name in ("a.db", "b.db"))
    columns = "id, task, payload, run_at, state, schedule, fire_time, result, finished_at"
    moved = [db.execute(f"SELECT {columns} FROM jobs ORDER BY seq").fetchall() for db in (old, new)]
    assert moved[0] == moved[1]
    old.close()
    new.close()

    ended = tickwork("run", "jobs.py:app", "--until-idle", cwd=folder)
    assert ended.status == 3
    assert re.search(r"store \S+a.db: its jobs were moved to sqlite:///\S+b.db; let the app open that", ended.err)
    assert str(stats(folder, "sqlite:///a.db")["moved_to"]).endswith("b.db")
    assert tickwork("run", "jobs.py:other", "--until-idle", cwd=folder).status == 0
    assert stats(folder, "sqlite:///b.db")["jobs"]["succeeded"] == 58
    again = tickwork("store", "move", "sqlite:///a.db", "sqlite:///b.db", cwd=folder)
    assert (again.status, again.out) == (0, "moved nothing\n")


def test_what_a_move_and_a_backup_did_is_told_as_json(folder: Path) -> None:
    found = as_json(folder, "move", "sqlite:///a.db", "sqlite:///b.db")
    assert {name: count for name, count in found["moved"].items() if count} == {"jobs": 58, "ledger": 1, "schedules": 1}
    assert found["left"] == []
    copied = as_json(folder, "backup", "sqlite:///b.db", "copy.db")
    assert copied == {"file": "copy.db", "bytes": (folder / "copy.db").stat().st_size}


def test_move_waits_for_what_runs_and_undoes_its_closing_when_that_takes_too_long(folder: Path) -> None:
    with Running(
        "-c",
        "import asyncio, jobs\nasync def main():\n    async with jobs.app:\n        await (await jobs.slow.enqueue())\n"
        "asyncio.run(main())",
        cwd=folder,
    ) as running:
        running.wait_until(lambda: (folder / "began").exists(), "began")
        ended = tickwork("store", "move", "sqlite:///a.db", "sqlite:///b.db", "--wait", "0.2s", cwd=folder)
        assert ended.status == 2
        assert re.search(r"1 jobs still run: \w{20} in worker \S+; stop those workers, or wait for longer", ended.err)
        assert stats(folder, "sqlite:///a.db")["moved_to"] is None

        with Running("-m", "tickwork", "store", "move", "sqlite:///a.db", "sqlite:///b.db", cwd=folder) as moving:
            moving.wait_until(lambda: stats(folder, "sqlite:///a.db")["moved_to"], "the move begins")
            (folder / "go").touch()
            assert moving.ended(DEADLINE).status == 0, moving.err
    assert stats(folder, "sqlite:///b.db")["jobs"]["succeeded"] >= 52


def test_a_saved_pool_becomes_jobs(folder: Path) -> None:
    subprocess.run([sys.executable, "-c", SAVES_A_POOL], cwd=folder, check=True, timeout=30)
    before = stats(folder, "sqlite:///a.db")["jobs"]["queued"]
    count = len(json.loads((folder / "pool.json").read_text())["entries"])
    assert count > 0

    assert as_json(folder, "load", "jobs.py:app", "pool.json") == {"enqueued": count}
    assert stats(folder, "sqlite:///a.db")["jobs"]["queued"] == before + count
    assert list(folder.glob("pool.json*")) == []


def test_mistakes_are_told(folder: Path) -> None:
    def error(*words: str) -> str:
        ended = tickwork("store", *words, cwd=folder)
        assert ended.status == 2
        return ended.err.removeprefix("tickwork: ").strip()

    (folder / "memory.py").write_text("from tickwork import App\napp = App()\n")
    assert error("stats", "memory.py").endswith("this app keeps its jobs in memory, which no other process can reach")
    assert error("stats", "sqlite:///nope.db").endswith("there is no such file; see where the app was started")
    assert error("move", "sqlite:///a.db", "sqlite:///./a.db").endswith("moved into itself; name another store")
    assert "redis" in error("stats", "redis://localhost")


SAVED = """
import asyncio, jobs, tickwork

async def main():
    async with tickwork.Pool(workers=1) as pool:
        for number in range(30):
            await pool.submit(jobs.add if number % 3 else jobs.slow, *((number, number) if number % 3 else ()))
        await pool.save("pool.json")

asyncio.run(main())
"""


def test_a_load_that_is_cut_off_enqueues_nothing_twice(folder: Path) -> None:
    (folder / "jobs.py").write_text(APP.replace('"sqlite:///a.db", workers=2', '"sqlite:///c.db", max_queued=8'))
    (folder / "go").touch()
    subprocess.run([sys.executable, "-c", SAVED], cwd=folder, check=True, timeout=30)
    count = len(json.loads((folder / "pool.json").read_text())["entries"])
    with Running("-m", "tickwork", "store", "load", "jobs.py:app", "pool.json", cwd=folder) as loading:
        loading.wait_until(lambda: (folder / "c.db").exists() and states(folder / "c.db") == {"queued": 8}, "a part")
        loading.send(signal.SIGINT)  # the rest waits for room
        loading.ended()

    left = len(json.loads((folder / "pool.json").read_text())["entries"])
    assert (left, [path.name for path in folder.glob("pool.json*")]) == (count - 8, ["pool.json"])
    with (
        Running("-m", "tickwork", "run", "jobs.py:app", cwd=folder) as running,
        Running("-m", "tickwork", "store", "load", "jobs.py:app", "pool.json", cwd=folder) as loading,
    ):
        assert loading.ended().status == 0, loading.err
        running.wait_until(lambda: states(folder / "c.db") == {"succeeded": count + 1}, "all")  # and the schedule's


def states(path: Path) -> dict[str, int]:
    db = sqlite3.connect(path)
    try:
        return dict(db.execute("SELECT state, count(*) FROM jobs GROUP BY state"))
    except sqlite3.OperationalError:  # it is being made
        return {}
    finally:
        db.close()
