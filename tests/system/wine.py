"""Wine's schtasks.exe in the place of the real one: python wine.py PREFIX -- /create /tn NAME /xml FILE ...

Wine makes, replaces and deletes tasks as files, with the real arguments, encodings and exit statuses. What it lacks is
supplied here: it knows no `/hresult`, and answers no `/query`, which is read from those files. It keeps the description
and the settings of a task, and drops its triggers and its program.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

TASKS = Path("drive_c/windows/system32/tasks")
MISSING = 2  # what POSIX leaves of 0x80070002


def environment(prefix: Path) -> dict[str, str]:
    """Return the environment of a Wine that keeps to its own folder and shows no window."""
    rest = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
    return {**rest, "WINEPREFIX": str(prefix), "WINEDEBUG": "-all", "HOME": str(prefix.parent)}


def task_file(prefix: Path, name: str) -> Path:
    """Return the file in which Wine keeps a task."""
    return prefix / TASKS / name.strip("\\").replace("\\", "/")


def run(prefix: Path, argv: list[str]) -> int:
    """Pass a call on, without what Wine does not know."""
    if argv[0] == "/query" and "/tn" not in argv:
        return answer_all(task_file(prefix, "tickwork"))
    if argv[0] == "/query":
        return answer(task_file(prefix, argv[argv.index("/tn") + 1]))
    passed = [part for part in argv if part != "/hresult"]
    if "/xml" in passed:
        passed[passed.index("/xml") + 1] = "Z:" + passed[passed.index("/xml") + 1].replace("/", "\\")
    return subprocess.run(
        ["wine", r"C:\windows\system32\schtasks.exe", *passed], env=environment(prefix), check=False
    ).returncode


def answer(file: Path) -> int:
    """Print a task as Windows would."""
    if not file.exists():
        return MISSING
    sys.stdout.buffer.write(file.read_bytes())
    return 0


def answer_all(folder: Path) -> int:
    """Print the tasks in a folder as Windows would print all."""
    found = []
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        text = re.sub(r"<\?xml[^>]*\?>|<!--.*?-->", "", decode(file.read_bytes()))  # Wine adds a word of its own
        name = "\\".join(("", folder.name, *file.relative_to(folder).parts))
        found.append(f"<!-- {name} -->\n{text}")
    text = '<?xml version="1.0" encoding="UTF-16"?>\n<Tasks>\n' + "\n".join(found) + "\n</Tasks>\n"
    sys.stdout.buffer.write(b"\xff\xfe" + text.encode("utf-16-le"))
    return 0


def decode(data: bytes) -> str:
    return data.decode("utf-16") if data.startswith((b"\xff\xfe", b"\xfe\xff")) else data.decode("utf-8-sig")


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]), sys.argv[3:]))
