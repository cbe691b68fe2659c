"""What a user may say of the process pool, checked where it is written and not when the first child is started."""

from __future__ import annotations

import inspect
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InvalidOption
from ..options import positive
from .reference import reference
from .variables import checked

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextvars import ContextVar

    from .process import ProcessRunner

__all__ = ["Processes", "processes_of"]

MIN_MEMORY = 1_000_000
"""Bytes. An interpreter that has done nothing takes ten times as much: who writes less has meant another unit."""

_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_FACTORS = {unit.lower(): factor for unit, factor in _UNITS.items()}
_SIZE = re.compile(r"\s*([0-9]{1,15})(?:\.([0-9]{1,15}))?\s*([a-z]{1,3})\s*", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True, init=False)
class Processes:
    """The process pool of an `App` or a `Pool`: how many child processes, and when one is replaced.

        App(processes=Processes(4, initializer=load_model, max_jobs=1_000, max_memory="2GB"))

    Attributes:
        max_processes: The most child processes at a time, from 1. Given as None: as many as there are processors that
            this process may use.
        initializer: A function without arguments, found by import name, that each child calls once before its first
            job: for what is dear to make and used by each job. When it raises, the jobs that wait for the child fail
            with `ProcessNotStarted`.
        max_jobs: A child is replaced after so many jobs, from 1; None: never.
        max_memory: Bytes. A child that has more memory resident when a job ends is replaced; none is killed in the
            middle of a job. Given as bytes from 1,000,000 on, or as text: "512MB" (10**6), "2GiB" (2**30). None: never.
        contextvars: Context variables, at the top level of modules, that each job has in the child with the values that
            it has here; what is not set here is not set there. The values must pickle.

    Raises:
        InvalidOption: An option of the wrong type or out of its range.
        NotImportable: The initializer cannot be found by name.
    """

    max_processes: int
    initializer: Callable[[], object] | None
    max_jobs: int | None
    max_memory: int | None
    contextvars: tuple[ContextVar[Any], ...]

    def __init__(
        self,
        max_processes: int | None = None,
        *,
        initializer: Callable[[], object] | None = None,
        max_jobs: int | None = None,
        max_memory: int | str | None = None,
        contextvars: Sequence[ContextVar[Any]] = (),
    ) -> None:
        count = usable_processors() if max_processes is None else positive("max_processes", max_processes)
        object.__setattr__(self, "max_processes", count)
        object.__setattr__(self, "initializer", None if initializer is None else _initializer(initializer))
        object.__setattr__(self, "max_jobs", None if max_jobs is None else positive("max_jobs", max_jobs))
        object.__setattr__(self, "max_memory", None if max_memory is None else _bytes(max_memory))
        object.__setattr__(self, "contextvars", checked(contextvars) if contextvars != () else ())

    def runner(self) -> ProcessRunner:
        """Return a process runner with these options, which has not started anything."""
        from .process import ProcessRunner  # many programs never start a process

        return ProcessRunner(
            self.max_processes,
            initializer=self.initializer,
            max_jobs=self.max_jobs,
            max_memory=self.max_memory,
            contextvars=self.contextvars,
        )


def processes_of(value: int | Processes | None) -> Processes:
    """Return the options that `processes=` was given: their number, all of them, or None for the defaults."""
    if isinstance(value, Processes):
        return value
    if value is not None and (type(value) is not int or value < 1):
        raise InvalidOption("processes", "a whole number of at least 1 or Processes(...)", value)
    return Processes(value)


def usable_processors() -> int:
    """Return the number of processors that this process may use, which in a container may be few of many."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _initializer(fn: Callable[[], object]) -> Callable[[], object]:
    reference(fn)
    if inspect.iscoroutinefunction(getattr(fn, "fn", fn)):
        raise InvalidOption("initializer", "a plain function", getattr(fn, "__qualname__", fn))
    return fn


def _bytes(value: object) -> int:
    """Return a size in bytes."""
    size = _parsed(value) if isinstance(value, str) else value
    if isinstance(size, bool) or not isinstance(size, int) or size < MIN_MEMORY:
        raise InvalidOption("max_memory", 'bytes from 1,000,000 on, or text such as "512MB" or "2GiB"', value)
    return size


def _parsed(text: str) -> int | None:
    found = _SIZE.fullmatch(text)
    if found is None or found[3].lower() not in _FACTORS:
        return None
    fraction = found[2] or ""
    return int(found[1] + fraction) * _FACTORS[found[3].lower()] // int(10 ** len(fraction))
