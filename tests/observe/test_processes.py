"""Whether a real child process finds the tasks of real modules, and what is said when it does not."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from tickwork import App
from tickwork.observe.findings import Finding
from tickwork.observe.processes import check_processes

Made = Callable[[str], App]
FRESH = "its module must be importable in a fresh interpreter"


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Made]:
    """Import the app of a module "jobs" with this text."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def make(text: str) -> App:
        path = tmp_path / "jobs.py"
        path.write_text("from tickwork import App, Context\n\napp = App()\n" + dedent(text))
        importlib.invalidate_caches()
        app = importlib.import_module("jobs").app
        assert isinstance(app, App)
        return app

    yield make
    sys.modules.pop("jobs", None)


async def found(app: App, **settings: float) -> list[Finding]:
    return await check_processes(app.tasks.values(), **settings)


async def test_tasks_that_a_child_finds_are_no_findings_and_are_not_called(made: Made, tmp_path: Path) -> None:
    app = made("""
        from dataclasses import dataclass
        from pathlib import Path

        @dataclass
        class Order:
            path: Path
            lines: list["Order"]

        @app.task(run_in="process")
        def plain(ctx: Context, order: Order, *orders: Order | None, sizes: dict[str, tuple[int, ...]]) -> Order:
            Path("called").touch()

        @app.every("1h", run_in="process")
        def scheduled() -> "Unknown": ...

        @app.task()
        async def elsewhere(lock: "Lock") -> None: ...
    """)

    assert await found(app) == []
    assert not (tmp_path / "called").exists()
    assert not Path("called").exists()


async def test_what_the_static_rules_refuse_is_left_to_them(made: Made) -> None:
    app = made("""
        @app.task(run_in="process")
        async def asynchronous() -> None: ...
    """)

    assert await found(app) == []


async def test_a_module_that_a_fresh_interpreter_cannot_import_is_found(made: Made, tmp_path: Path) -> None:
    app = made("""
        @app.task(run_in="process")
        def job() -> None: ...
    """)
    (tmp_path / "jobs.py").write_text("import absent\n")

    message = "a child process that imports 'jobs' gets ModuleNotFoundError: No module named 'absent'"
    assert await found(app) == [Finding("process-import", "jobs.job", message, FRESH)]


async def test_a_function_that_is_another_in_the_child_is_found(made: Made) -> None:
    app = made("""
        import sys

        if "pytest" in sys.modules:
            @app.task(run_in="process")
            def job() -> None: ...
    """)

    assert await found(app) == [
        Finding(
            "process-import",
            "jobs.job",
            "function 'jobs:job' cannot be imported by name: module 'jobs' has no attribute 'job'",
            "define it at the top level of a module",
        )
    ]


@pytest.mark.parametrize(
    ("ending", "message", "remedy"),
    [
        ("sys.exit(3)", "a child process that imports 'jobs' gets SystemExit: 3", FRESH),
        (
            "os._exit(3)",
            "a child process that imports 'jobs' ends with exit status 3",
            "an import must not end its process",
        ),
    ],
)
async def test_an_import_that_ends_its_process_is_found(made: Made, ending: str, message: str, remedy: str) -> None:
    app = made(f"""
        import os, sys

        @app.task(run_in="process")
        def job() -> None: ...

        if "pytest" not in sys.modules:
            {ending}
    """)

    assert await found(app) == [Finding("process-import", "jobs.job", message, remedy)]


async def test_an_import_that_does_not_end_is_waited_for_once(made: Made) -> None:
    app = made("""
        import sys, threading

        @app.task(run_in="process")
        def first() -> None: ...

        @app.task(run_in="process")
        def second() -> None: ...

        if "pytest" not in sys.modules:
            threading.Event().wait()
    """)

    message = "a child process had not imported 'jobs' after 1 s"
    assert await found(app, limit_seconds=1) == [
        Finding("process-import", f"jobs.{name}", message, "keep work and waiting out of the import")
        for name in ("first", "second")
    ]


async def test_a_class_that_cannot_be_pickled_is_found(made: Made) -> None:
    app = made("""
        def make():
            class Hidden: ...
            return Hidden

        Hidden = make()

        @app.task(run_in="process")
        def taking(ctx: Context, hidden: list[Hidden]) -> None: ...

        @app.task(run_in="process")
        def giving() -> Hidden | None: ...
    """)

    pattern = "its hints name the class 'make.<locals>.Hidden', which does not get there: "
    findings = await found(app)
    assert [(entry.rule, entry.about, entry.remedy) for entry in findings] == [
        ("process-pickle", "jobs.taking", "define it at the top level of a module"),
        ("process-pickle", "jobs.giving", "define it at the top level of a module"),
    ]
    assert all(entry.message.startswith(pattern) for entry in findings)  # the rest is Python's, and its version's


async def test_a_class_that_is_not_there_in_the_child_is_found(made: Made) -> None:
    app = made("""
        import sys

        if "pytest" in sys.modules:
            class Order: ...

        @app.task(run_in="process")
        def job(order: "Order") -> None: ...
    """)

    (finding,) = await found(app)

    assert (finding.rule, finding.about) == ("process-pickle", "jobs.job")
    assert finding.message.startswith(
        "its hints name the class 'Order', which does not get there: AttributeError: Can't get attribute 'Order' on"
    )
