"""What is put into a crontab runs: under Debian's own daemon, in a box."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from parts import lacking

from .box import need_box, run_in_box

NASTY = [
    *("plain", "", "two words", "it's", 'say "hi"', "$HOME", "`id`", "$(id)", "a;b", "a&b", "a|b", "a>b", "#x", "# x"),
    *(
        "50%",
        "%",
        "%%",
        "a\\%b",
        "\\%",
        "\\\\%",
        "\\",
        "back\\",
        "\\n",
        "*",
        "~",
        "!x",
        "{a,b}",
        "[a]",
        "--opt=x y",
        "-",
    ),
    *("tab\there", "\u2603 \u00e9", "@reboot", "'", "''", '"', "a'%'b", "%Y-%m-%d", "x" * 300, "=", "A=b", "\u00a0"),
    *(
        "\\\\server\\share",
        "a\\\\\\b",
        "\\\\'",
        "~#%\\\\%'\"$`",
        "\udcff\udc80",
        " lead",
        "trail ",
        "\u2028",
        "\\045",
        "a\\",
    ),
]


GROUPS = [NASTY[start : start + 5] for start in range(0, len(NASTY), 5)]


@pytest.fixture(scope="module")
def fired(tmp_path_factory: pytest.TempPathFactory) -> Any:
    need_box("crontab", "cron", "faketime")
    return run_in_box(tmp_path_factory.mktemp("fire"), "fire", json.dumps(GROUPS), "fast")


pytestmark = [pytest.mark.timeout(300), pytest.mark.one_python]


def test_every_nasty_argument_arrives_as_it_is(fired: Any) -> None:
    assert fired["got"] == [[words, ""] for words in GROUPS]  # and standard input is empty


def test_what_a_script_prints_reaches_its_log_with_the_interpreter_of_this_environment(fired: Any) -> None:
    lines = fired["log"].splitlines()

    assert lines[0].startswith("out /") or lines[0] == "err"
    assert {lines[0].split()[0], lines[1].split()[0]} == {"out", "err"}
    assert fired["prefix"] in fired["log"]


def test_a_log_is_readable_by_its_owner_only(fired: Any) -> None:
    assert fired["mode"] == "0o600"


def test_the_lines_of_others_stay_and_their_variables_do_not_reach_ours(fired: Any) -> None:
    assert fired["kept"]  # and the jobs ran, although SHELL=/bin/false stands there


def test_a_running_daemon_takes_notice_of_what_is_added_and_removed(fired: Any) -> None:
    assert (fired["late"], fired["stopped"]) == (True, True)


# --- the true clock, where a minute is a minute -------------------------------------------------------------------


def need(kind: str) -> None:
    need_box("crontab", {"cronie": "crontab"}.get(kind, kind))
    if kind == "busybox" and "crond" not in said("busybox", "--list").split():
        lacking("the busybox that is installed has no crond: it is in busybox-static")
    is_cronie = "cronie" in said("crontab", "-V")
    if is_cronie != (kind == "cronie"):  # they are in each other's way, and Debian 12 has no package of cronie
        pytest.skip(f"the crontab that is installed is {'' if is_cronie else 'not '}cronie's")


def said(*words: str) -> str:
    return subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False).stdout


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["cron", "cronie", "busybox"])
def test_an_entry_fires_on_the_next_minute_of_the_true_clock(kind: str, tmp_path: Path) -> None:
    need(kind)

    told = run_in_box(tmp_path, "fire", json.dumps(GROUPS), kind, timeout=280)

    assert told["got"] == [[words, ""] for words in GROUPS]
    assert (told["kept"], told["mode"], sorted(line[:4] for line in told["log"].splitlines())) == (
        True,
        "0o600",
        ["err", "out "],
    )
