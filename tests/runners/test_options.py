"""`Processes`: what is said of the process pool is checked where it is said."""

from __future__ import annotations

import os
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from tickwork import App, Pool, Processes
from tickwork.errors import InvalidOption, NotImportable
from tickwork.runners.options import processes_of

from . import functions

SIZE = 'bytes from 1,000,000 on, or text such as "512MB" or "2GiB"'


def test_by_default_there_is_one_process_for_each_processor_that_may_be_used() -> None:
    options = Processes()

    assert options.max_processes == len(os.sched_getaffinity(0))
    assert (options.initializer, options.max_jobs, options.max_memory) == (None, None, None)
    assert processes_of(None) == options


@pytest.mark.parametrize(
    ("given", "size"),
    [
        ("2GB", 2 * 10**9),
        ("512MB", 512 * 10**6),
        (" 1.5 gib ", 3 * 2**29),
        ("2048KiB", 2 * 2**20),
        ("1000kB", 1_000_000),
        ("1000000b", 1_000_000),
        ("0.1TB", 10**11),
        (1_000_000, 1_000_000),
    ],
)
def test_memory_is_given_as_bytes_or_as_text(given: Any, size: int) -> None:
    assert Processes(max_memory=given).max_memory == size


@pytest.mark.parametrize(
    "given",
    [
        "2",
        "2G",
        "GB",
        "",
        "-1GB",
        "2 parsecs",
        "1e3MB",
        "\u0662GB",
        "2GB2GB",
        "999kB",
        512,
        0,
        -1,
        True,
        2e9,
        "9" * 400 + "GB",
    ],
)
def test_what_is_no_size_or_less_than_an_interpreter_takes_is_refused(given: Any) -> None:
    with pytest.raises(InvalidOption) as caught:
        Processes(max_memory=given)

    assert str(caught.value) == f"max_memory must be {SIZE}, got {given!r}"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_processes": 0}, "max_processes must be a whole number of at least 1, got 0"),
        ({"max_processes": True}, "max_processes must be a whole number of at least 1, got True"),
        ({"max_jobs": 1.5}, "max_jobs must be a whole number of at least 1, got 1.5"),
        (
            {"initializer": functions.coroutine_function},
            "initializer must be a plain function, got 'coroutine_function'",
        ),
    ],
)
def test_options_out_of_range_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        Processes(**given)

    assert str(caught.value) == message


def test_an_initializer_that_no_child_could_find_is_refused() -> None:
    with pytest.raises(NotImportable, match="it is a lambda"):
        Processes(initializer=lambda: None)


@pytest.mark.parametrize("given", [0, -1, True, 1.5, "2", [2]])
@pytest.mark.parametrize("make", [App, Pool])
def test_app_and_pool_take_a_number_or_all_options(make: Any, given: Any) -> None:
    assert make(processes=3).process_options == Processes(3)
    assert make(processes=Processes(2, max_jobs=5)).process_options.max_jobs == 5
    with pytest.raises(InvalidOption) as caught:
        make(processes=given)

    assert str(caught.value) == (f"processes must be a whole number of at least 1 or Processes(...), got {given!r}")


def test_the_options_are_a_value() -> None:
    options = Processes(2, initializer=functions.initialize, max_jobs=3, max_memory="1GB")

    assert options == Processes(2, initializer=functions.initialize, max_jobs=3, max_memory=10**9)
    assert hash(options) == hash(Processes(2, initializer=functions.initialize, max_jobs=3, max_memory=10**9))
    with pytest.raises(FrozenInstanceError):
        options.max_jobs = 4  # type: ignore[misc]
