"""Tasks made, replaced and deleted by Wine's schtasks.exe: `make test-wine`, which installs it.

Not part of the other runs: it is a large package, and each call of it takes a tenth of a second.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tickwork import App
from tickwork.errors import EntryExists, EntryNotFound, ForeignEntry, SchedulerCommandFailed
from tickwork.system import ScheduledTask, Schtasks
from tickwork.system.task_xml import encode, render

from .wine import environment, task_file

if not os.environ.get("TICKWORK_TEST_WINE"):
    pytest.skip("`make test-wine` runs it", allow_module_level=True)

pytestmark = [pytest.mark.wine, pytest.mark.timeout(180)]

PROGRAM = Path(__file__).parent / "wine.py"
NIGHTLY = ScheduledTask("report", [r"C:\Python\python.exe", "-m", "report", "Köln"], when="*/20 9-17 * * 1-5")


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Wine of its own, kept warm: a cold one starts its services with each call."""
    assert shutil.which("wine"), "Wine is not installed: `make test-wine` does that"
    prefix = tmp_path_factory.mktemp("wine") / "prefix"
    env = environment(prefix)
    quiet = {"env": env, "stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run(["wineboot", "-i"], check=True, timeout=150, **quiet)  # type: ignore[call-overload]
    # It goes on in the background, and until it has ended the service of Task Scheduler does not start.
    subprocess.run(["wineserver", "-w"], check=True, timeout=150, **quiet)  # type: ignore[call-overload]
    warm = subprocess.Popen(["wine", "cmd", "/c", "ping -n 600 127.0.0.1 >nul"], **quiet)  # type: ignore[call-overload]
    try:
        yield prefix
    finally:
        subprocess.run(["wineserver", "-k"], check=False, timeout=60, **quiet)  # type: ignore[call-overload]
        warm.kill()
        warm.wait(30)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def st(prefix: Path, temporary: Path) -> Iterator[Schtasks]:
    yield Schtasks(command=[sys.executable, str(PROGRAM), str(prefix), "--"], timeout=60)
    for file in task_file(prefix, "tickwork").rglob("*"):
        if file.is_file():
            file.unlink()


async def test_a_task_is_made_and_deleted(st: Schtasks, prefix: Path, temporary: Path) -> None:
    assert not await st.exists("report")

    made = await st.create(NIGHTLY)

    assert task_file(prefix, r"tickwork\report").exists()
    assert made.is_managed
    assert made.description.startswith("tickwork v1 id=report sha=")
    assert await st.exists("report")
    assert not list(temporary.iterdir())
    await st.delete("report")
    assert not task_file(prefix, r"tickwork\report").exists()
    with pytest.raises(EntryNotFound):
        await st.delete("report")


async def test_a_task_in_folders_is_made_and_deleted(st: Schtasks, prefix: Path) -> None:
    await st.create(ScheduledTask("billing\\report", NIGHTLY.argv, when="@daily", app="billing"))
    assert task_file(prefix, r"tickwork\billing\report").exists()
    await st.delete("billing\\report")
    assert not await st.exists("billing\\report")


async def test_a_task_that_is_there_is_replaced_only_when_asked(st: Schtasks) -> None:
    await st.create(NIGHTLY)
    with pytest.raises(EntryExists):
        await st.create(NIGHTLY)
    with pytest.raises(ForeignEntry, match="was changed by somebody"):
        await st.create(NIGHTLY, replace=True)  # true: Wine has dropped what it starts
    again = await st.create(ScheduledTask("report", NIGHTLY.argv, when="@daily"), force=True)
    assert again.is_managed


async def test_a_task_of_somebody_else_is_left_alone(st: Schtasks, prefix: Path, temporary: Path) -> None:
    file = temporary / "theirs.xml"
    file.write_bytes(encode(render(NIGHTLY.define(), description="theirs")))
    assert call(prefix, "/create", "/tn", r"\tickwork\report", "/xml", "Z:" + str(file).replace("/", "\\")) == 0
    for change in (st.create(NIGHTLY, force=True), st.delete("report")):
        with pytest.raises(ForeignEntry):
            await change
    assert task_file(prefix, r"tickwork\report").exists()


async def test_the_schedules_of_an_app_are_made_and_removed(st: Schtasks, prefix: Path, temporary: Path) -> None:
    folder = temporary / "a folder, Köln \u2603"
    folder.mkdir()
    app = App()
    app.cron("30 3 * * *", name="report")(lambda: None)
    app.cron("*/5 * * * *", name="Mail")(lambda: None)
    zoned = Schtasks(command=st._command, timeout=60, timezone="UTC")

    plan = await zoned.plan(app, "jobs:app", dir=folder, log=False, python=NIGHTLY.argv[0])
    await zoned.apply(plan)

    made = await zoned.list()
    assert [(entry.app, entry.dir, entry.target) for entry in made] == [("jobs", str(folder), "jobs:app")] * 2
    after = await zoned.plan(app, "jobs:app", dir=folder, log=False, python=NIGHTLY.argv[0])
    assert (after.counts["edited"], after.foreign) == (2, "")  # true: Wine has dropped what they start
    await zoned.apply(await zoned.plan_removal("jobs", dir=folder, force=True))
    assert await zoned.list() == ()


def call(prefix: Path, *argv: str) -> int:
    program = ["wine", r"C:\windows\system32\schtasks.exe", *argv]
    return subprocess.run(
        program, env=environment(prefix), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False
    ).returncode


def test_exit_statuses_are_those_that_schtasks_is_known_for(prefix: Path, st: Schtasks, temporary: Path) -> None:
    good, cut, text = temporary / "good.xml", temporary / "cut.xml", temporary / "text.xml"
    good.write_bytes(encode(render(NIGHTLY.define(), description="x")))
    cut.write_bytes(encode('<?xml version="1.0" encoding="UTF-16"?>\r\n<Task>'))
    text.write_text("no XML", "utf-8")
    name = r"\tickwork\status"

    def create(file: Path, *options: str) -> int:
        return call(prefix, "/create", "/tn", name, "/xml", "Z:" + str(file).replace("/", "\\"), *options)

    assert create(good) == 0
    assert create(good) == 1
    assert create(good, "/f") == 0
    assert create(good, "/f", "/hresult") == 1  # unknown to Wine: what the stand-in is for
    assert [create(file, "/f") for file in (cut, text, temporary / "missing.xml")] == [1, 1, 1]
    assert call(prefix, "/delete", "/tn", name, "/f") == 0
    assert call(prefix, "/delete", "/tn", name, "/f") == 1


async def test_an_answer_without_xml_is_no_answer(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(prefix).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SchedulerCommandFailed, match="it printed no XML of a task"):
        await Schtasks(command=["wine", "schtasks"], timeout=60).exists("report")
