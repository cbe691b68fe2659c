"""Names, paths and arguments: carried exactly, or refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickwork.errors import InvalidEntry
from tickwork.system.task_words import check_directory, check_folder, check_name, command_line

PYTHON = r"C:\Python\python.exe"


@pytest.mark.parametrize("name", ["a", "report", "billing\\report", "0.x_y-z", "con1", "a" * 64, "conx\\nul-1"])
def test_plain_names_are_names(name: str) -> None:
    assert check_name(name) == name


ODD = "it must begin with a-z or 0-9 and go on, up to 64 characters, with these and . _ -"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", ODD),
        ("*", ODD),
        ("..", ODD),
        ("..\\x", ODD),
        ("a\\..\\b", ODD),
        ("/f", ODD),
        ("-r", ODD),
        ("\\a", ODD),
        ("a\\", ODD),
        ("a\\\\b", ODD),
        ("a/b", ODD),
        ("a:b", ODD),
        ("a b", ODD),
        ("A", ODD),
        ("ä", ODD),
        ("a\n", ODD),
        ("a\0", ODD),
        ("a" * 65, ODD),
        (None, ODD),
        (3, ODD),
        ("a.", "Windows drops a dot or a space at the end of a name"),
        ("a.\\b", "Windows drops a dot or a space at the end of a name"),
        ("nul", "'nul' is a device of Windows"),
        ("com1.x", "'com1.x' is a device of Windows"),
        ("a\\aux\\b", "'aux' is a device of Windows"),
        ("\\".join(["a" * 60] * 4), "it has 243 characters, and Windows takes 238"),
    ],
)
def test_other_names_are_refused(name: Any, reason: str) -> None:
    with pytest.raises(InvalidEntry) as caught:
        check_name(name)
    assert (caught.value.part, caught.value.reason) == ("id", reason)


@pytest.mark.parametrize("folder", ["", "tickwork", "\\", "\\a\\", "\\..", "\\*", "\\nul", "\\a ", "/a", None])
def test_other_folders_are_refused(folder: Any) -> None:
    with pytest.raises(InvalidEntry):
        check_folder(folder)
    assert check_folder("\\My Tasks\\tickwork") == "\\My Tasks\\tickwork"


# --- command lines ----------------------------------------------------------------------------------------


def take_apart(line: str) -> list[str]:
    """Return the arguments that Microsoft's C runtime makes of a command line (the rules of 2008), program excluded."""
    found: list[str] = []
    current, is_begun, is_quoted, at = "", False, False, 0
    while at < len(line):
        slashes = len(line[at:]) - len(line[at:].lstrip("\\"))
        at += slashes
        letter = line[at : at + 1]
        if letter == '"':
            current += "\\" * (slashes // 2)
            is_begun = True
            if slashes % 2:
                current += '"'
            elif is_quoted and line[at + 1 : at + 2] == '"':
                current += '"'
                at += 1
            else:
                is_quoted = not is_quoted
        else:
            current += "\\" * slashes
            is_begun = is_begun or slashes > 0
            if letter in (" ", "\t") and not is_quoted:
                if is_begun:
                    found.append(current)
                current, is_begun = "", False
            elif letter:
                current, is_begun = current + letter, True
        at += 1
    return [*found, current] if is_begun else found


LETTERS = st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp"), exclude_characters="%$\ufffe\uffff")


@given(st.lists(st.one_of(st.text(LETTERS), st.text('\\" ab&|<>^()!;,=', max_size=12)), max_size=6))
def test_arguments_arrive_as_they_are(arguments: list[str]) -> None:
    program, line = command_line([PYTHON, *arguments])
    assert program == PYTHON
    assert take_apart(line) == arguments


EXPANDED = "Task Scheduler replaces what stands between two %, and there is no way around"


@pytest.mark.parametrize(
    ("argv", "part", "reason"),
    [
        ([], "command", "it must be a list: the full path of a program, and its arguments"),
        (PYTHON, "command", "it must be a list: the full path of a program, and its arguments"),
        (["python"], "program", r"it must be a full path, such as C:\Python\python.exe"),
        (["\\python.exe"], "program", r"it must be a full path, such as C:\Python\python.exe"),
        (["/usr/bin/python"], "program", r"it must be a full path, such as C:\Python\python.exe"),
        (['C:\\"a"\\b.exe'], "program", "it must not hold quotes; Task Scheduler adds those that are needed"),
        (["C:\\" + "a" * 258], "program", "it has 261 characters, and Task Scheduler takes 260"),
        (["C:\\a.BAT. ."], "program", "cmd.exe reads arguments by rules of its own; start a program itself"),
        (
            ["C:\\Windows\\System32\\CMD.exe", "/c", "x"],
            "program",
            "cmd.exe reads arguments by rules of its own; start a program itself",
        ),
        (["%SystemRoot%\\a.exe"], "program", EXPANDED),
        ([PYTHON, "%PATH%"], "argument", EXPANDED),
        ([PYTHON, "50%", "60%"], "argument", EXPANDED),
        (
            [PYTHON, "$(Arg0)"],
            "argument",
            "Task Scheduler replaces what stands in $(...), and there is no way around",
        ),
        ([PYTHON, "a\nb"], "argument", "it holds the character '\\n', which cannot be carried"),
        ([PYTHON, "a\0b"], "argument", "it holds the character '\\x00', which cannot be carried"),
        ([PYTHON, "a\rb"], "argument", "it holds the character '\\r', which cannot be carried"),
        ([PYTHON, "\ud800"], "argument", "it holds the character '\\ud800', which cannot be carried"),
        ([PYTHON, "\uffff"], "argument", "it holds the character '\\uffff', which cannot be carried"),
        ([PYTHON, 3], "argument", "it must be a text, not int"),
        (
            [PYTHON, "a" * 32_000],
            "argument",
            "the command line has 32,023 characters, and 32,000 are allowed",
        ),
    ],
)
def test_what_cannot_be_carried_is_refused(argv: Any, part: str, reason: str) -> None:
    with pytest.raises(InvalidEntry) as caught:
        command_line(argv)
    assert (caught.value.part, caught.value.reason) == (part, reason)


def test_one_percent_sign_and_unc_paths_are_carried() -> None:
    assert command_line([PYTHON, "50%", "$x"]) == (PYTHON, "50% $x")
    assert command_line(["\\\\server\\share\\a.exe"]) == ("\\\\server\\share\\a.exe", "")
    assert check_directory("C:\\Program Files\\Ümläut 😀") == "C:\\Program Files\\Ümläut 😀"


@pytest.mark.parametrize("directory", ["srv", 'C:\\"x"', "C:\\a\nb", "%TEMP%\\%X%", 3, ""])
def test_other_directories_are_refused(directory: Any) -> None:
    with pytest.raises(InvalidEntry) as caught:
        check_directory(directory)
    assert caught.value.part == "directory"
