"""Names, paths and arguments that Task Scheduler carries exactly; what it would change is refused with the reason.

It expands `%VAR%` and `$(Arg0)` in whatever it starts and knows no way around, its paths are short, and a name is a
file in a folder: `*` would stand for every task there is, and `..` leaves the folder.
"""

from __future__ import annotations

import re
from pathlib import PureWindowsPath
from subprocess import list2cmdline
from typing import TYPE_CHECKING, Final

from ..errors import InvalidEntry

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["check_directory", "check_folder", "check_name", "command_line"]

MAX_NAME: Final = 238  # characters of a task's path
MAX_PATH: Final = 260  # of a program and of a working directory, by the schema
MAX_LINE: Final = 32_000  # of a command line; Windows itself has room for 32,767

_NAME: Final = r"[a-z0-9][a-z0-9._-]{0,63}"
_FOLDER: Final = r"(\\[A-Za-z0-9][A-Za-z0-9 ._-]{0,63})+"
_RESERVED: Final = r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?"
_FORBIDDEN: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")
_BATCH: Final = (".bat", ".cmd")


def check_name(name: object) -> str:
    """Return the name of a task below its folder: one or several parts joined by a backslash.

    Raises:
        InvalidEntry: A part has other characters than a-z, 0-9, `.`, `_` and `-`, or means something to Windows.
    """
    if not isinstance(name, str) or not re.fullmatch(rf"{_NAME}(\\{_NAME})*", name):
        reason = "it must begin with a-z or 0-9 and go on, up to 64 characters, with these and . _ -"
        raise InvalidEntry("id", name, reason)
    _check_parts("id", name)
    return name


def check_folder(folder: object) -> str:
    r"""Return the folder of tasks, such as `\tickwork`.

    Raises:
        InvalidEntry: It does not begin with a backslash, or a part of it means something to Windows.
    """
    if not isinstance(folder, str) or not re.fullmatch(_FOLDER, folder):
        reason = r"it must begin with a backslash, as in \tickwork, and hold letters, digits, spaces and . _ - only"
        raise InvalidEntry("folder", folder, reason)
    _check_parts("folder", folder)
    return folder


def _check_parts(part: str, path: str) -> None:
    for name in path.split("\\"):
        if name.endswith((".", " ")):
            raise InvalidEntry(part, path, "Windows drops a dot or a space at the end of a name")
        if re.fullmatch(_RESERVED, name.lower()):
            raise InvalidEntry(part, path, f"{name!r} is a device of Windows")
    if len(path) > MAX_NAME:
        raise InvalidEntry(part, path, f"it has {len(path)} characters, and Windows takes {MAX_NAME}")


def command_line(argv: Sequence[str]) -> tuple[str, str]:
    """Return the program and the line of its arguments that a program of Windows takes apart into the same ones.

    Args:
        argv: The full path of a program, and its arguments.

    Raises:
        InvalidEntry: One of them cannot be carried exactly.
    """
    if isinstance(argv, str) or not argv:
        raise InvalidEntry("command", argv, "it must be a list: the full path of a program, and its arguments")
    program, *arguments = argv
    _check_path("program", program)
    # cmd.exe reads a line by other rules, and whoever fills an argument would write commands.
    name = PureWindowsPath(program).name.lower().rstrip(". ")  # Windows drops these
    if name.endswith(_BATCH) or name in ("cmd", "cmd.exe"):
        raise InvalidEntry("program", program, "cmd.exe reads arguments by rules of its own; start a program itself")
    for argument in arguments:
        _check_text("argument", argument)
    line = list2cmdline(arguments)
    _check_expansion("argument", line)
    if len(program) + len(line) + 3 > MAX_LINE:
        reason = f"the command line has {len(program) + len(line) + 3:,} characters, and {MAX_LINE:,} are allowed"
        raise InvalidEntry("argument", max(arguments, key=len), reason)
    return program, line


def check_directory(directory: object) -> str:
    """Return a working directory.

    Raises:
        InvalidEntry: It is no full path, or cannot be carried exactly.
    """
    return _check_path("directory", directory)


def _check_path(part: str, path: object) -> str:
    text = _check_text(part, path)
    _check_expansion(part, text)
    if not PureWindowsPath(text).is_absolute():
        raise InvalidEntry(part, path, r"it must be a full path, such as C:\Python\python.exe")
    if '"' in text:
        raise InvalidEntry(part, path, "it must not hold quotes; Task Scheduler adds those that are needed")
    if len(text) > MAX_PATH:
        raise InvalidEntry(part, path, f"it has {len(text)} characters, and Task Scheduler takes {MAX_PATH}")
    return text


def _check_text(part: str, text: object) -> str:
    if not isinstance(text, str):
        raise InvalidEntry(part, text, f"it must be a text, not {type(text).__name__}")
    if found := _FORBIDDEN.search(text):
        raise InvalidEntry(part, text, f"it holds the character {found[0]!a}, which cannot be carried")
    return text


def _check_expansion(part: str, text: str) -> None:
    # Also across arguments: "50%" and "60%" on one line hold a variable between them.
    if text.count("%") > 1:
        raise InvalidEntry(part, text, "Task Scheduler replaces what stands between two %, and there is no way around")
    if "$(" in text:
        raise InvalidEntry(part, text, "Task Scheduler replaces what stands in $(...), and there is no way around")
