"""Whether a child process finds what is to run in it. Told by one: a fresh interpreter imports it and calls nothing."""

from __future__ import annotations

import asyncio
import dataclasses
import pickle
import typing
from typing import TYPE_CHECKING, Any

from ..errors import NotImportable, ProcessDied, RemoteError
from ..runners.calls import look_up
from ..runners.child import find
from ..runners.process import ProcessRunner
from .check import runs_in_process, unfit_for_process
from .findings import Finding, in_two

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..tasks import AnyTask

LIMIT_SECONDS = 30.0
"""How long the import of one module may take: what imports a large library on a cold disk needs ten."""

MAX_CLASSES = 100
"""Of the hints of one task: more than anybody's, and an end for hints that lead on and on."""

_TOP_LEVEL = "define it at the top level of a module"


async def check_processes(tasks: Iterable[AnyTask], *, limit_seconds: float = LIMIT_SECONDS) -> list[Finding]:
    """Return which tasks for processes do not arrive in one, in their order. What `check` refuses is left to it.

    Args:
        tasks: The tasks; those that run elsewhere are passed over.
        limit_seconds: How long the import of one module may take.
    """
    found: list[Finding] = []
    stuck: set[str] = set()
    runner = ProcessRunner(1)
    try:
        for task in tasks:
            if not runs_in_process(task) or unfit_for_process(task) is not None:
                continue
            probe = _Probe(runner, task, limit_seconds, stuck)
            if (finding := await probe.function() or await probe.classes()) is not None:
                found.append(finding)
    finally:
        await runner.aclose()
    return found


class _Probe:
    """What a child process makes of one task."""

    def __init__(self, runner: ProcessRunner, task: AnyTask, limit_seconds: float, stuck: set[str]) -> None:
        self._runner, self._task, self._limit, self._stuck = runner, task, limit_seconds, stuck
        self._where, self._name = look_up(task)
        self._module: str = self._where[0]

    async def function(self) -> Finding | None:
        """Let it import the function."""
        rule = "process-import"
        try:
            if self._module in self._stuck:  # it would be so again, and take as long
                raise TimeoutError
            await self._ask(None)
        except TimeoutError:
            self._stuck.add(self._module)
            message = f"a child process had not imported {self._module!r} after {self._limit:g} s"
            return Finding(rule, self._task.name, message, "keep work and waiting out of the import")
        except NotImportable as error:
            return Finding(rule, self._task.name, *in_two(error))
        except ProcessDied as error:
            message = f"a child process that imports {self._module!r} ends with exit status {error.exit_code}"
            return Finding(rule, self._task.name, message, "an import must not end its process")
        except Exception as error:
            message = f"a child process that imports {self._module!r} gets {_said(error)}"
            return Finding(rule, self._task.name, message, "its module must be importable in a fresh interpreter")
        return None

    async def classes(self) -> Finding | None:
        """Let it unpickle the classes that the hints name."""
        for kind in _classes(self._task):
            try:
                await self._ask(pickle.dumps(kind))
            except Exception as error:
                message = f"its hints name the class {kind.__qualname__!r}, which does not get there: {_said(error)}"
                return Finding("process-pickle", self._task.name, message, _TOP_LEVEL)
        return None

    async def _ask(self, pickled: bytes | None) -> None:
        async with asyncio.timeout(self._limit):
            await self._runner.run(find, (self._where, pickled), describe=self._name)


def _said(error: Exception) -> str:
    kind, text = type(error).__name__, str(error)
    if isinstance(error, RemoteError):
        kind, text = error.error_type, error.error_message
    return " ".join(f"{kind}: {text}".split())


# --- classes of parameters and results --------------------------------------------------------------------


def _classes(task: AnyTask) -> Iterator[type]:
    """Yield the classes that the hints of a task name, as far as they can be read."""
    hints = _hints(task.fn)
    if task.wants_context and hints:
        hints.pop(next(iter(hints)))  # what is injected knows how to travel
    waiting, seen = list(hints.values()), set[int]()
    while waiting and len(seen) < MAX_CLASSES:
        hint = waiting.pop(0)
        if id(hint) in seen:
            continue
        seen.add(id(hint))
        waiting += typing.get_args(hint)
        if isinstance(hint, type) and typing.get_origin(hint) is None:
            yield hint
            if dataclasses.is_dataclass(hint):
                waiting += _hints(hint).values()


def _hints(owner: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(owner)
    except Exception:  # names that exist for type checkers only
        return {}
