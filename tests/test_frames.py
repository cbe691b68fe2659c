from __future__ import annotations

import json
import os
import sys
import types
from collections.abc import Generator
from pathlib import Path
from types import FrameType

import pytest

import tickwork
from tickwork.frames import MAX_FRAMES, Place, chain, deepest_own, depth, format_stack, places, suspended

OURS = str(Path(tickwork.__file__).parent / "workers.py")
STANDARD = json.__file__
INSTALLED = pytest.__file__


def place(filename: str) -> Place:
    return Place(filename, 1, "f")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([STANDARD, __file__, OURS], __file__),
        ([__file__, "/srv/jobs.py", INSTALLED, STANDARD], "/srv/jobs.py"),
        (["/srv/jobs.py", "/usr/lib/python3/dist-packages/requests/api.py"], "/srv/jobs.py"),
        (["/srv/jobs.py", "<string>"], "/srv/jobs.py"),
        ([OURS, STANDARD, INSTALLED], INSTALLED),
        ([OURS, "<string>"], None),
        ([], None),
    ],
)
def test_the_deepest_line_in_code_of_the_users_is_chosen(files: list[str], expected: str | None) -> None:
    found = deepest_own([place(name) for name in files])

    assert (None if found is None else found.filename) == expected


def test_a_place_is_told_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "jobs" / "größe.py"
    path.parent.mkdir()
    path.write_text("def f():\n    work()  # für alle\n", encoding="utf-8")

    line = Place(str(path), 2, "f")

    assert str(line) == f"{os.path.join('jobs', 'größe.py')}:2 in f"
    assert line.source == "work()  # für alle"
    assert format_stack([line]) == f'  File "{path}", line 2, in f\n    work()  # für alle'
    assert str(Place("/elsewhere/x.py", 7, "g")) == "/elsewhere/x.py:7 in g"
    assert Place("/elsewhere/x.py", 7, "g").source == ""


def test_the_frames_of_a_stack_come_outermost_first() -> None:
    def inner() -> FrameType:
        return sys._getframe()

    frames = chain(inner())

    assert [line.function for line in places(frames)][-2:] == [
        "test_the_frames_of_a_stack_come_outermost_first",
        "test_the_frames_of_a_stack_come_outermost_first.<locals>.inner",
    ]
    assert depth(frames[-1]) == len(frames)
    assert (chain(None), depth(None)) == ([], 0)


def test_where_a_coroutine_waits_is_told_down_to_the_deepest() -> None:
    @types.coroutine
    def bare() -> Generator[None]:
        yield

    async def inner() -> None:
        await bare()

    async def outer() -> list[FrameType]:
        found = suspended(coroutine)
        await inner()
        return found

    coroutine = outer()
    before = [line.function for line in places(suspended(coroutine))]
    coroutine.send(None)
    during = [line.function.rpartition(".")[2] for line in places(suspended(coroutine))]
    with pytest.raises(StopIteration) as ended:
        coroutine.send(None)

    assert before == [outer.__qualname__]
    assert during == ["outer", "inner", "bare"]
    assert ended.value.value == [], "it was running"
    assert suspended(coroutine) == suspended(None) == suspended(7) == []


def test_a_long_stack_is_cut_at_its_beginning() -> None:
    lines = [Place("<x>", number, "f" * 1000) for number in range(MAX_FRAMES + 5)]

    text = format_stack(lines).splitlines()

    assert text[0] == "  ... 5 more"
    assert len(text) == MAX_FRAMES + 1
    assert text[-1] == f'  File "<x>", line {MAX_FRAMES + 4}, in {"f" * 200}'
