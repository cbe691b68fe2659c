"""The README's first example prints what the README says."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

from .command import Running, tickwork

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```$", README, re.M | re.S)
    return found


def normalized(line: str) -> str:
    """Return a log line without what changes from run to run."""
    line = re.sub(r"^[\d-]+ [\d:]+[+-]\d{4}", "TIME", line)
    return re.sub(r"took=[\d.]+s", "took=", re.sub(r"job=\w+", "job=", line))


def test_the_first_example_prints_what_the_readme_shows(tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text(blocks("python")[0])
    (_, result, _, *shown) = blocks("console")[0].splitlines()
    shown.remove("^C")

    triggered = tickwork("trigger", "hello.py", "square", "--args", "[12]", cwd=tmp_path)
    assert (triggered.status, triggered.out) == (0, f"{result}\n")

    terminal = {"PYTHONUNBUFFERED": "1"}  # lines come in their order, as on a terminal
    with Running(
        "-m",
        "tickwork",
        "run",
        "hello.py",
        cwd=tmp_path,
        env=terminal,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as run:
        assert run.process.stdout is not None
        printed = []
        for line in run.process.stdout:
            printed.append(normalized(line.decode().rstrip("\n")))
            if printed[-1].endswith("succeeded took=") and printed.count(printed[-1]) == 1:  # a second is a hurry
                run.process.send_signal(signal.SIGINT)
        run.process.stdout.close()
        assert run.process.wait(10) == 0

    # A slow machine may be hit by one more fire time before the signal is heard.
    assert printed[: len(shown) - 2] + printed[-2:] == [normalized(line) for line in shown]
