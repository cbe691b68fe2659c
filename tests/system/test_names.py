"""The names of `tickwork.system` are loaded when they are used, and its errors are of the kinds they say."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

from tickwork import errors, system
from tickwork.errors import SystemSchedulerError, TickworkError


def test_every_name_is_there() -> None:
    assert set(system.__all__) == {name for names in system._HOMES.values() for name in names}
    for name in system.__all__:
        assert getattr(system, name).__name__ == name
        assert name in dir(system)
    with pytest.raises(AttributeError, match="module 'tickwork.system' has no attribute 'Cron'"):
        system.Cron  # noqa: B018


def test_an_import_loads_none_of_them() -> None:
    code = "import sys, tickwork.system; print([name for name in sys.modules if name.startswith('tickwork.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "['tickwork._version', 'tickwork.system']\n"


ERRORS = [
    (errors.SchedulerNotFound("crontab", "install it"), FileNotFoundError, "there is no program 'crontab'; install it"),
    (
        errors.SchedulerDenied("to read it", "no", "ask"),
        PermissionError,
        "not allowed: to read it: no; ask",
    ),
    (errors.SchedulerTimedOut("'crontab -l'", 10, "wait"), TimeoutError, "'crontab -l' took longer than 10 s; wait"),
    (errors.SchedulerConflict("it was changed", "see"), RuntimeError, "it was changed; see"),
    (
        errors.SchedulerCommandFailed(("crontab", "-"), 1, b"", b"bad \xff minute\n"),
        RuntimeError,
        "'crontab -' ended with exit status 1: bad \ufffd minute",
    ),
    (
        errors.SchedulerCommandFailed(("crontab",), None, note="Exec format error"),
        RuntimeError,
        "'crontab' did not start: Exec format error",
    ),
    (errors.EntryNotFound("a", ["b", "ab"], "it"), LookupError, "there is no entry 'a' in it; did you mean 'ab'?"),
    (errors.EntryExists("a", "it"), ValueError, "there is an entry 'a' in it already; pass replace=True to replace it"),
    (errors.ForeignEntry("a", "is not ours", "leave it"), ValueError, "entry 'a' is not ours; leave it"),
    (errors.InvalidEntry("id", "*", "no"), ValueError, "id '*' cannot be part of an entry: no"),
    (errors.UnsupportedSchedule("x", "a crontab", "no"), ValueError, "a crontab cannot say 'x' exactly: no"),
    (
        errors.CrontabCorrupt(3, "no end"),
        ValueError,
        "line 3 of the crontab: no end; put it right with `crontab -e`, nothing was changed",
    ),
]


@pytest.mark.parametrize(("error", "kind", "message"), ERRORS, ids=lambda value: type(value).__name__)
def test_an_error_is_of_its_kind_says_what_happened_and_travels(
    error: SystemSchedulerError, kind: type[Exception], message: str
) -> None:
    again = pickle.loads(pickle.dumps(error))

    assert isinstance(error, TickworkError)
    assert isinstance(error, kind)
    assert (str(error), str(again), type(again), vars(again)) == (message, message, type(error), vars(error))
