"""The names by which another process finds a function."""

from __future__ import annotations

import functools
import operator
import os
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tickwork.errors import NotImportable
from tickwork.runners.process import ProcessRunner
from tickwork.runners.reference import Reference, reference, resolve, task_name

from . import functions

if TYPE_CHECKING:
    from collections.abc import Callable


def test_a_function_is_named_by_its_module_and_path() -> None:
    found = reference(functions.echo)

    assert found == Reference(functions.__name__, "echo")
    assert str(found) == f"{functions.__name__}:echo"
    assert resolve(found) is functions.echo


@pytest.mark.parametrize(
    "fn",
    [
        functions.Machine,
        functions.Machine.fixed,
        functions.Machine.built,
        functions.Machine.method,
        len,
        operator.add,
        os.path.join,
        textwrap.dedent,
        functools.reduce,
    ],
)
def test_what_has_a_name_comes_back(fn: Callable[..., Any]) -> None:
    assert resolve(reference(fn)) == fn


async def test_a_task_stands_for_its_function(runner: ProcessRunner) -> None:
    task: Any = functions.tasked

    assert reference(task) == reference(task.fn) == Reference(functions.__name__, "tasked", None, ("fn",))
    assert resolve(reference(task)) is task.fn
    assert resolve(Reference(functions.__name__, "tasked")) is task.fn
    assert task_name(task) == task_name(task.fn) == f"{functions.__name__}.tasked"
    assert await runner.run(task, (1,)) == await runner.run(task.fn, (1,)) == 2


async def test_a_decorator_is_kept_and_what_it_wraps_can_be_named(runner: ProcessRunner) -> None:
    wrapped = functions.decorated.__wrapped__  # type: ignore[attr-defined]
    task = functions.decorated_task.__wrapped__

    assert await runner.run(functions.decorated, (1,)) == 4
    assert await runner.run(wrapped, (1,)) == 2
    assert reference(task.fn).steps == ("__wrapped__", "fn")
    assert await runner.run(task.fn, (1,)) == 2


def nested() -> Callable[[], None]:
    def inner() -> None: ...

    return inner


moved = functions.Task(functions.same).fn
renamed: Any = functools.wraps(functions.same)(functools.partial(functions.echo))
impostor: Any = type("impostor", (), {"__module__": __name__, "__qualname__": "moved"})


@pytest.mark.parametrize(
    ("fn", "reason"),
    [
        (lambda: None, "it is a lambda"),
        (nested(), "it is defined inside another function"),
        (functions.Machine().method, "it is a method of an instance of Machine"),
        (functions.SubMachine.built, f"{functions.__name__}.Machine.built is another object"),
        (functools.partial(functions.same, 1), "it is a partial; pass its arguments with the call"),
        (functions.Machine(), "it is an instance of Machine, not a function"),
        ("text".upper, "it is a method of an instance of str"),
        (str.upper, "it names no module"),
        (impostor, f"{__name__}.moved is another object"),
    ],
)
def test_what_has_no_name_is_refused(fn: Callable[..., Any], reason: str) -> None:
    with pytest.raises(NotImportable) as caught:
        reference(fn)

    assert caught.value.reason == reason


def test_a_module_that_is_not_loaded_is_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    def fn() -> None: ...

    fn.__qualname__ = "fn"
    fn.__module__ = "never_heard_of"
    with pytest.raises(NotImportable, match="its module 'never_heard_of' is not loaded"):
        reference(fn)

    fn.__module__ = functions.__name__
    with pytest.raises(NotImportable, match=f"module '{functions.__name__}' has no 'fn'"):
        reference(fn)


def test_a_reference_that_leads_nowhere_is_told() -> None:
    with pytest.raises(NotImportable, match="has no attribute 'missing'"):
        resolve(Reference(functions.__name__, "missing"))
    with pytest.raises(NotImportable, match="it is a list, which cannot be called"):
        resolve(Reference(functions.__name__, "kept"))
    with pytest.raises(ModuleNotFoundError):
        resolve(Reference("never_heard_of", "fn"))


def test_a_script_hidden_by_another_module_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])

    with pytest.raises(ImportError, match="is hidden by another module named 'textwrap'"):
        resolve(Reference("textwrap", "dedent", str(tmp_path / "textwrap.py")))


def test_names_for_messages_never_refuse() -> None:
    assert task_name(functools.partial(functools.partial(functions.same, 1))) == f"{functions.__name__}.same"
    assert task_name(functions.Machine()) == f"{functions.__name__}.Machine"  # type: ignore[arg-type]
    assert task_name(nested()) == f"{__name__}.nested.<locals>.inner"
