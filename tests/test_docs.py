"""The documentation is true: its code compiles, what is marked runs and prints what stands below it, its links lead.

A comment before a block says what becomes of it:

    <!-- run -->            python: runs in a fresh namespace, `await` allowed, on virtual time that goes on by itself;
                            console: every line after "$ " runs in the folder of the page, and must end with status 0
    <!-- run: name.py -->   is saved in the folder of the page and runs as a program
    <!-- file: name.py -->  is saved in the folder of the page, for the blocks after it

A `text` block right after a python block, and the lines of a console block without "$ ", are what it prints; "..."
stands for anything.
"""

from __future__ import annotations

import ast
import asyncio
import doctest
import inspect
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Coroutine
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import CodeType, ModuleType

import pytest

from tickwork.testing import virtual_loop_factory

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"(?:<!-- (?P<mark>(?:run|file)(?:: [\w.]+)?) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)^```$", re.M | re.S
)
LINK = re.compile(r"\[[^\]]+\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)")
LINE_SECONDS = 60


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        where: File and line, for messages.
        mark: "run", "run: name.py", "file: name.py", or "".
        language: After the fence.
        text: What it holds.
        prints: The `text` block right after it, or "".
    """

    where: str
    mark: str
    language: str
    text: str
    prints: str


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    matches = list(BLOCK.finditer(text))
    found = []
    for number, match in enumerate(matches):
        following = matches[number + 1] if number + 1 < len(matches) else None
        prints = ""
        if following and following["language"] == "text" and not text[match.end() : following.start()].strip():
            prints = following["text"]
        where = f"{page.name}, line {text[: match.start('text')].count(chr(10)) + 1}"
        found.append(Block(where, match["mark"] or "", match["language"], match["text"], prints))
    return found


def compiled(block: Block) -> CodeType:
    source = block.text
    if source.rstrip().splitlines()[-1].startswith("@"):
        source += "def _(): ...\n"  # a list of decorators, with nothing to decorate
    code: CodeType = compile(source, f"<{block.where}>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    return code


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_python_block_compiles(page: Path) -> None:
    for block in blocks(page):
        if block.language == "python":
            compiled(block)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_marked_runs_and_prints_what_it_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    modules = set(sys.modules)
    for block in blocks(page):
        kind, _, name = block.mark.partition(": ")
        if name:
            (tmp_path / name).write_text(block.text, encoding="utf-8")
        if kind != "run":
            continue
        if block.language == "console":
            run_console(block, tmp_path)
        elif name:
            expect(block, run_command(block, ["python", name], tmp_path), block.prints)
        else:
            expect(block, run_here(block), block.prints)
    for module in set(sys.modules) - modules:
        if getattr(sys.modules[module], "__file__", None) == str(tmp_path / f"{module}.py"):
            del sys.modules[module]


def run_here(block: Block) -> str:
    module = ModuleType("example")
    printed = io.StringIO()
    with redirect_stdout(printed), asyncio.Runner(loop_factory=partial(virtual_loop_factory, autojump=True)) as runner:
        runner.run(execute(compiled(block), module))
    return printed.getvalue()


async def execute(code: CodeType, module: ModuleType) -> None:
    made = eval(code, vars(module))
    if code.co_flags & inspect.CO_COROUTINE:
        assert isinstance(made, Coroutine)
        await made


def run_console(block: Block, folder: Path) -> None:
    commands = re.split(r"^\$ ", block.text, flags=re.M)
    assert not commands[0].strip(), f"{block.where}: it begins without a command"
    for command in commands[1:]:
        words, _, prints = command.partition("\n")
        expect(block, run_command(block, shlex.split(words, comments=True), folder), prints)


def run_command(block: Block, words: list[str], folder: Path) -> str:
    program, *arguments = words
    python = [sys.executable, "-B"]
    start = {"python": python, "tickwork": [*python, "-m", "tickwork"], "pytest": [*python, "-m", "pytest"]}[program]
    done = subprocess.run(
        [*start, *arguments],
        cwd=folder,
        env={**os.environ, "PYTEST_ADDOPTS": "-p no:randomly -p no:cacheprovider -p no:hypothesispytest"},
        capture_output=True,
        encoding="utf-8",
        stdin=subprocess.DEVNULL,
        timeout=LINE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{block.where}: {words} ended with {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def expect(block: Block, printed: str, wanted: str) -> None:
    if wanted:
        options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        found = doctest.OutputChecker().check_output(wanted, printed, options)
        assert found, f"{block.where} prints\n{printed}\nand not\n{wanted}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for path, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        there = page.parent / path if path else page
        assert there.exists(), f"{page.name} links to {path}"
        if anchor:
            heads = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), re.M)
            assert anchor in {re.sub(r"[^\w -]", "", head).lower().replace(" ", "-") for head in heads}


def test_every_page_is_listed_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for page in PAGES[1:]:
        assert page.name == "index.md" or f"]({page.name})" in index


def test_every_command_is_in_the_readme() -> None:
    done = subprocess.run([sys.executable, "-m", "tickwork", "--help"], capture_output=True, text=True, check=True)
    commands = re.findall(r"^    (\w+) ", done.stdout, re.M)
    readme = PAGES[0].read_text(encoding="utf-8")

    assert "run" in commands
    assert [name for name in commands if f"`tickwork {name} " not in readme] == []


@pytest.mark.skipif(not (ROOT / "bench").is_dir(), reason="without the benchmarks")
def test_the_measured_table_of_clock_changes_tells_what_tickwork_does() -> None:
    bench = ROOT / "bench" / "dst.py"
    done = subprocess.run([sys.executable, str(bench), "--no-peers"], capture_output=True, text=True, check=False)
    page = (ROOT / "docs" / "time.md").read_text(encoding="utf-8")

    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line not in page] == []


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.skipif(not (ROOT / "bench").is_dir(), reason="without the benchmarks")
def test_the_measured_table_of_cases_tells_what_tickwork_does() -> None:
    bench = ROOT / "bench" / "cases.py"
    done = subprocess.run([sys.executable, str(bench), "--no-peers"], capture_output=True, text=True, check=False)
    page = (ROOT / "docs" / "peers.md").read_text(encoding="utf-8").splitlines()

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("| right |") == 12
    assert [line for line in done.stdout.splitlines() if not any(row.startswith(line) for row in page)] == []
