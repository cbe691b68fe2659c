"""`tickwork crontab doctor` tells the truth about a daemon that runs, and one that does not."""

from __future__ import annotations

import re
from typing import Any

import pytest

from .box import need_box, run_in_box

pytestmark = [pytest.mark.timeout(300), pytest.mark.one_python]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Any:
    need_box("crontab", "cron", "faketime")
    return run_in_box(tmp_path_factory.mktemp("doctor"), "examine", timeout=280)


def lines(answer: Any) -> list[str]:
    return [re.sub(r"pid \d+|after [\d.]+m?s", "N", line) for line in answer[1].splitlines() if "mail" not in line]


def test_without_a_daemon_it_says_how_to_start_one(told: Any) -> None:
    start = "start it: `systemctl enable --now cron` (or crond), `service cron start`; in a container, run `cron -f`"
    assert told["without"][0] == 1
    assert lines(told["without"]) == [
        "ok       crontab: the crontab of root: 0 of tickwork, 1 of others",
        f"problem  daemon: no cron daemon runs, so that no entry will; {start}",
    ]


def test_with_a_daemon_it_proves_that_an_entry_runs(told: Any) -> None:
    assert told["fine"][0] == 0
    assert lines(told["fine"]) == [
        "ok       crontab: the crontab of root: 0 of tickwork, 1 of others",
        "ok       daemon: cron (Vixie's, as in Debian), N, as root",
        "ok       probe: an entry ran N, as root",
    ]


def test_the_entry_of_another_user_runs_as_that_user(told: Any) -> None:
    assert (told["nobody"][0], lines(told["nobody"])[-1]) == (0, "ok       probe: an entry ran N, as nobody")


def test_an_entry_that_does_not_run_in_time_is_a_problem(told: Any) -> None:
    hint = "the log of the daemon (`journalctl -t CRON`, syslog) may say why"
    assert told["late"][0] == 1
    assert lines(told["late"])[-1] == f"problem  probe: an entry did not run within 1ms; {hint}"


def test_it_leaves_nothing_in_the_crontab(told: Any) -> None:
    assert told["left"] == "0 0 * * * true\n"


def test_one_that_is_interrupted_takes_its_entry_with_it(told: Any) -> None:
    assert told["interrupted"] == "0 0 * * * true\n"


def test_the_entry_of_one_that_was_killed_is_removed_by_the_next(told: Any) -> None:
    assert "tickwork-doctor-" in told["killed"]
    assert told["after"] == "0 0 * * * true\n"
