"""Functions that the tests run in child processes, and in threads."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NoReturn

import tickwork


def same(value: Any) -> Any:
    return value


def double(number: int) -> int:
    return 2 * number


def process_id(_item: object) -> int:
    return os.getpid()


unpickled: list[str] = []


def _note() -> None:
    unpickled.append("unpacked")


class Noting:
    """Notes, in the process where it is unpickled, that it was."""

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return _note, ()


def noting(_item: object) -> Noting:
    return Noting()


_name = ""


def name_this() -> None:
    global _name
    _name = "named"


def process_and_name(_item: object) -> tuple[int, str]:
    return os.getpid(), _name


def tenth_fails(number: int) -> int:
    if number % 10 == 7:
        raise ValueError(f"no {number}")
    return number


def work_10_ms(number: int) -> int:
    time.sleep(0.01)
    return number


def count_run(folder: str, name: object) -> int:
    """Note one run of an item, and return how many there have been."""
    for number in range(1, 1_000):
        try:
            (Path(folder) / f"{name}-{number}").touch(exist_ok=False)
        except FileExistsError:
            continue
        return number
    raise AssertionError("too many runs")


def runs_of(folder: object, name: object) -> int:
    return len([entry for entry in os.listdir(str(folder)) if entry.startswith(f"{name}-")])


def fails_twice(item: tuple[str, int]) -> int:
    folder, number = item
    if count_run(folder, number) < 3:
        raise ValueError(f"not yet {number}")
    return number


def later(item: tuple[str, int]) -> int:
    folder, number = item
    if count_run(folder, number) == 1:
        raise tickwork.RetryAfter(0.01)
    return number


def gives_up(item: tuple[str, int]) -> int:
    folder, number = item
    count_run(folder, number)
    raise tickwork.GiveUp(f"never {number}")


# -- what takes too long


def hangs_at_7(item: tuple[str, int]) -> int:
    folder, number = item
    count_run(folder, number)
    if number == 7:
        hang()
    return number


def hangs_once_at_7(item: tuple[str, int]) -> int:
    folder, number = item
    if count_run(folder, number) == 1 and number == 7:
        hang()
    return number


def hang() -> NoReturn:
    while True:
        threading.Event().wait()


def holds_the_interpreter_at_7(number: int) -> int:
    """A regular expression that never ends, and never gives the interpreter away."""
    if number == 7:
        re.match(r"(a+)+$", "a" * 60 + "b")
    return number


def until_told(item: tuple[str, int]) -> int:
    """Wait until there is a file "go"; tell of the beginning by a file with the process id."""
    folder, number = item
    (Path(folder) / f"began-{number}").write_text(str(os.getpid()))
    while not (Path(folder) / "go").exists():
        time.sleep(0.002)
    return number


# -- ways to end


def exits_at_7(number: int) -> int:
    if number == 7:
        os._exit(3)
    return number


def kills_itself_at_7(number: int) -> int:
    if number == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def crashes_at_7(number: int) -> int:
    if number == 7:
        ctypes.string_at(0)
    return number


def exits_twice(item: tuple[str, int]) -> int:
    folder, number = item
    if count_run(folder, number) < 3 and number == 7:
        os._exit(3)
    return number


# -- what does not pickle


class NoPickle:
    def __reduce__(self) -> NoReturn:
        raise TypeError("not today")


class NoUnpickle:
    """It pickles, and raises where it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return refuse, ("unreadable",)


def refuse(text: str) -> NoReturn:
    raise ValueError(text)


class DeadlyUnpickle:
    """It pickles, and ends the process that unpickles it."""

    def __reduce__(self) -> tuple[Any, tuple[int]]:
        return os._exit, (5,)


class Stubborn(Exception):
    """It pickles and does not unpickle: pickle calls the class with `args`, one too few."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}")


def no_pickle_at_7(number: int) -> Any:
    return NoPickle() if number == 7 else number


def no_unpickle_at_7(number: int) -> Any:
    return NoUnpickle() if number == 7 else number


def counted_no_unpickle_at_7(item: tuple[str, int]) -> Any:
    folder, number = item
    count_run(folder, number)
    return [NoUnpickle()] if number == 7 else [number]


def stubborn_at_7(number: int) -> int:
    if number == 7:
        raise Stubborn(7, "does not come back")
    return number


def local_error_at_7(number: int) -> int:
    class Local(Exception):
        pass

    if number == 7:
        raise Local("nobody else knows this class")
    return number


def raise_named(name: str) -> NoReturn:
    kinds: dict[str, BaseException] = {
        "SystemExit": SystemExit(3),
        "KeyboardInterrupt": KeyboardInterrupt(),
        "GeneratorExit": GeneratorExit(),
        "StopIteration": StopIteration(1),
        "StopAsyncIteration": StopAsyncIteration(),
        "CancelledError": asyncio.CancelledError(),
    }
    raise kinds[name]


# -- the rest


def speak(number: int) -> int:
    sys.stdout.write(f"item {number}\n")
    return number


def nested(number: int) -> list[int]:
    return asyncio.run(tickwork.map(double, range(number), run_in="process", workers=1))


def nested_that_waits(folder: str) -> None:
    items = [(folder, 0), (folder, 1)]
    asyncio.run(tickwork.map(until_told, items, run_in="process", workers=2))


def pause_at_random(item: tuple[int, float]) -> int:
    number, seconds = item
    if seconds:
        time.sleep(seconds)
    return number


def tell_pid(item: tuple[str, int]) -> int:
    """Leave the own process id where a test can find it, and work for a moment."""
    folder, number = item
    with contextlib.suppress(FileExistsError):
        (Path(folder) / f"pid-{os.getpid()}").touch(exist_ok=False)
    end = time.perf_counter() + 0.0002
    while time.perf_counter() < end:
        pass
    return number


def gives_up_or_not(item: tuple[str, int]) -> int:
    folder, number = item
    count_run(folder, number)
    return tenth_fails(number)


_variable: ContextVar[str] = ContextVar("set_by_functions", default="unset")


def set_variable(item: int) -> str:
    """Return what the variable was, and set it."""
    found = _variable.get()
    _variable.set(f"set by {item}")
    return found
