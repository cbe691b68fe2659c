"""`tickwork map`: a function over many items from the shell, with a line of JSON for each result."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import InvalidOption, TickworkError
from ..program import JOB_FAILED, OK, USAGE, leave, woken_by_signals

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Iterable, Iterator

    from ..batch.options import BatchOptions
    from ..batch.progress import BatchProgress
    from ..batch.stream import Outcomes
    from ..errors import ItemError
    from .map_items import FoundFiles
    from .map_lines import Lines, Sink

EPILOG = """\
TARGET is module:function or path/file.py:function; the function takes one item. Items come from one of --files,
--items, --lines and --dead-items; "-" is standard input. Quote patterns, or let the shell find the files.

Each item gets a line of JSON, in the order of the items:
    {"index": 0, "item": "data/a.csv", "result": 17}
    {"index": 1, "item": "data/b.csv", "error": {"type": "ValueError", "message": "no header"}}
--out FILE is written as FILE.part, for you to look at meanwhile, and becomes FILE when all items have ended; an older
FILE stays until then. With --checkpoint the same command goes on after Ctrl-C, a kill or a crash: what has ended well
does not run again, what failed does, and FILE gets the lines of all items. Without --out the lines go to stdout, and
what functions print goes to stderr.

exit status: 0 all items ended well, 1 an item failed or a file could not be written, 2 usage or import error,
130 after Ctrl-C (143 after SIGTERM)
"""

SIGNALS = (signal.SIGINT, signal.SIGTERM)

FLAGS = {
    "fn": "TARGET",
    "workers": "--workers",
    "run_in": "--run-in",
    "chunk_size": "--chunk-size",
    "timeout": "--timeout",
    "retry": "--retry",
    "max_deaths": "--max-deaths",
    "checkpoint": "--checkpoint",
    "version": "--results-version",
    "dead": "--dead",
}
"""The options of `map` by the names that they have here."""

WORDS = (
    ('results="discard"', "--discard-results"),
    ('version="1"', "--results-version 1"),
    ("the others with strict=False", "the others without this line"),
    ('run_in="process"', "--run-in process"),
    ('run_in="thread"', "--run-in thread"),
)
"""What errors say to programs, and what that is here."""


def add_map(add: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    command = add("map", "Call a function with each of many items, in parallel, and write the results as JSON lines.")
    command.epilog = EPILOG
    for action in command._actions:
        if action.dest == "target":
            action.help = "module:function, or path/file.py:function"
    items = command.add_argument_group("items, one of").add_mutually_exclusive_group(required=True)
    items.add_argument("--files", nargs="+", metavar="PATTERN", help='files, as "data/**/*.csv"; the item is the path')
    items.add_argument("--items", metavar="FILE", help="a JSON value in each line, read by the function's first hint")
    items.add_argument("--lines", metavar="FILE", help="a text in each line")
    items.add_argument("--dead-items", metavar="FILE", help="those that an earlier call has listed with --dead")
    command.add_argument(
        "--read", choices=("bytes", "text"), help="items are paths: give the function what the files hold"
    )
    command.add_argument("--workers", type=_number, metavar="N", help="how many items run at a time")
    command.add_argument(
        "--run-in",
        choices=("loop", "thread", "process"),
        help="where (coroutine functions on the loop, others in threads)",
    )
    command.add_argument(
        "--chunk-size", type=_number_or_auto, metavar="N", help="how many go to a worker together (auto: by time)"
    )
    command.add_argument("--timeout", metavar="LENGTH", help="for one item, such as 30s (none)")
    command.add_argument("--retry", type=_number, metavar="N", help="how often an item is tried (once)")
    command.add_argument("--max-deaths", type=_number, metavar="N", help="processes that may die under an item (3)")
    command.add_argument(
        "--on-error",
        choices=("collect", "skip", "raise"),
        default="collect",
        help="an item that fails gets a line with its error; or none; or ends the command (collect)",
    )
    command.add_argument("--checkpoint", metavar="FILE", help="remember what is done there, and go on from there")
    command.add_argument(
        "--results-version", metavar="TEXT", help="refuse results of the checkpoint of another version"
    )
    command.add_argument("--discard-results", action="store_true", help="keep no results; each is null")
    command.add_argument("--dead", metavar="FILE", help="list the items that fail, with tracebacks")
    command.add_argument("--out", default="-", metavar="FILE", help='where the lines go ("-", which is stdout)')
    command.add_argument("--as-completed", action="store_true", help="lines as items end, not in their order")
    command.add_argument("-q", "--quiet", action="store_true", help="no progress on stderr")


def _number(word: str) -> int:
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {word!r}")
    return int(word)


def _number_or_auto(word: str) -> int | str:
    return word if word == "auto" else _number(word)


def run_map(options: argparse.Namespace) -> int:
    """Run the function over the items."""
    from .map_lines import STDOUT, stdout_kept
    from .output import log_to_stderr
    from .target import load_function

    with ExitStack() as stack:
        fd = stack.enter_context(stdout_kept()) if options.out == STDOUT else None
        log_to_stderr(verbose=options.verbose)
        fn = load_function(options.target, show_traceback=options.verbose)
        try:
            return _Command(options, fn, fd).run()
        except TickworkError as error:
            raise _as_flags(error) from error


def _as_flags(error: TickworkError) -> TickworkError:
    """Return an error of `map` in the words of the command."""
    said = str(error)
    if isinstance(error, InvalidOption) and error.option in FLAGS and said.startswith(f"{error.option} must be "):
        said = FLAGS[error.option] + said.removeprefix(error.option)
    for word, here in WORDS:
        said = said.replace(word, here)
    return TickworkError(said)


class _Command:
    """One run of the command.

    Args:
        options: From the command line.
        fn: The function.
        fd: Where the lines go, if not into a file.
    """

    def __init__(self, options: argparse.Namespace, fn: Callable[..., Any], fd: int | None) -> None:
        self._options, self._fn, self._fd = options, fn, fd
        self._signal: signal.Signals | None = None
        self._failed = 0
        self._first: ItemError | None = None

    def run(self) -> int:
        """Run it, and return the exit status.

        Raises:
            TickworkError: An option or an item is wrong, or the checkpoint.
        """
        from ..batch.identity import identity_of
        from ..batch.options import plan_of
        from .map_items import FoundFiles

        options = self._options
        _check_apart(options)
        plan = plan_of(self._fn, "collect", self._batch_options())  # what is wrong is said before anything is read
        if plan.checkpoint is not None:
            identity_of(plan.fn, plan.version)
        outs = () if self._fd is not None else (options.out, f"{options.out}.part")
        files = FoundFiles(
            options.files or (),
            [*outs, *_with(options.checkpoint, "-wal", "-shm", "-journal"), *_with(options.dead, ".old")],
        )
        return asyncio.run(self._main(files))

    def _batch_options(self) -> BatchOptions:
        options = self._options
        made: BatchOptions = {"progress": not options.quiet}
        for name in ("workers", "run_in", "chunk_size", "timeout", "retry", "max_deaths", "checkpoint", "dead"):
            if (value := getattr(options, name)) is not None:
                made[name] = value
        if options.results_version is not None:
            made["version"] = options.results_version
        if options.discard_results and options.checkpoint is not None:
            made["results"] = "discard"
        return made

    async def _main(self, files: FoundFiles) -> int:
        from ..batch.file_place import FilePlace
        from ..batch.run import Batch
        from ..batch.stream import Outcomes
        from .map_lines import Lines, Sink

        options = self._options
        with self._heard():
            lines = Lines(self._fn, keeps_results=not options.discard_results)
            try:
                items = await self._items(files)
            except asyncio.CancelledError:
                return self._stopped(None, None)
            wrap = partial(FilePlace, files=files, read=options.read) if options.files or options.read else None
            batch = Batch(self._fn, items, "collect", self._batch_options(), wrap=wrap, read=options.read)
            outcomes = Outcomes[Any, Any](batch, ordered=not options.as_completed)
            sink = Sink(options.out, self._fd)
            try:
                async with sink, outcomes:
                    await self._write(outcomes, lines, sink)
            except asyncio.CancelledError:
                if (failure := sink.failure) is None:
                    return self._stopped(batch.progress, sink)
                return self._unwritten(failure, batch.progress)
            except OSError as error:
                return self._unwritten(error, batch.progress)
            except TickworkError as error:
                _say(str(_as_flags(error)))
                if batch.progress.done:
                    _say(self._how_far(batch.progress, sink, is_mended=False))
                return USAGE
        return self._ended(batch.progress, files, sink)

    async def _items(self, files: FoundFiles) -> Iterable[Any] | AsyncIterable[Any]:
        from .map_items import failed_items, items_in_lines, plan_to_read

        options = self._options
        if options.files is not None:
            return files.paths()
        if options.dead_items is not None:
            return await failed_items(options.dead_items, self._fn, are_paths=options.read is not None)
        plan = plan_to_read(self._fn, are_paths=options.read is not None)
        option, path = ("--items", options.items) if options.items is not None else ("--lines", options.lines)
        return await items_in_lines(path, option, plan)

    async def _write(self, outcomes: Outcomes[Any, Any], lines: Lines, sink: Sink) -> None:
        async for outcome in outcomes:
            error = outcome.error
            if error is not None:
                self._failed += 1
                self._first = self._first or error
                if self._options.on_error == "raise":
                    return
                if self._options.on_error == "skip":
                    continue
            await sink.put(lines.line(outcome))
        await sink.finish()

    # -- signals ----------------------------------------------------------------------------------------------------

    @contextmanager
    def _heard(self) -> Iterator[None]:
        """Let the first signal end the batch, and the second end the process at once."""
        loop, main = asyncio.get_running_loop(), asyncio.current_task()
        assert main is not None

        def on_signal(number: int, _frame: object) -> None:
            if self._signal is not None:
                leave(128 + number)
            self._signal = signal.Signals(number)
            loop.call_soon_threadsafe(main.cancel)

        for number in SIGNALS:
            signal.signal(number, on_signal)  # to the end of the process: the exit may have to wait for something
        with woken_by_signals(loop):
            yield

    # -- the end ----------------------------------------------------------------------------------------------------

    def _ended(self, progress: BatchProgress, files: FoundFiles, sink: Sink) -> int:
        for word in files.barren:
            _say(f"no file matches {word!r}")
        if self._first is None:
            if not progress.done and not files.barren:
                _say("there are no items")
            return OK
        if self._options.on_error == "raise":
            _say(str(self._first))
            _say(self._how_far(progress, sink))
            return JOB_FAILED
        rest = ""
        if self._options.dead is not None:
            rest = f"; run those again with --dead-items {self._options.dead}"
        elif self._options.checkpoint is not None:
            rest = "; the same command runs those again"
        _say(f"{self._failed:,} of {progress.done:,} items failed{rest}; the first: {self._first}")
        return JOB_FAILED

    def _stopped(self, progress: BatchProgress | None, sink: Sink | None) -> int:
        assert self._signal is not None
        if progress is None:
            _say(f"{self._signal.name}: nothing has begun")
        else:
            _say(f"{self._signal.name}: {self._how_far(progress, sink)}")
        return 128 + self._signal

    def _unwritten(self, error: OSError, progress: BatchProgress) -> int:
        if isinstance(error, BrokenPipeError) and self._fd is not None:
            return OK  # the reader has enough: `| head`
        name = error.filename or (self._options.out if self._fd is None else "stdout")
        _say(f"{name}: {error.strerror or error}")
        if progress.done:
            _say(self._how_far(progress, None))
        return JOB_FAILED

    def _how_far(self, progress: BatchProgress, sink: Sink | None, *, is_mended: bool = True) -> str:
        """Return how many items are done, and where; `is_mended`: the same command may do better now."""
        total = "" if progress.total is None else f" of {progress.total:,}"
        failed = f", {progress.failed:,} failed" if progress.failed else ""
        parts = [f"{progress.done:,}{total} items are done{failed}"]
        if sink is not None and sink.part is not None and progress.done:
            parts.append(f"the lines so far are in {sink.part}")
        if self._options.checkpoint is not None:
            parts.append(f"the same command goes on from there ({self._options.checkpoint})")
        elif is_mended:
            parts.append("with --checkpoint FILE the same command would go on from there")
        return "; ".join(parts)


def _check_apart(options: argparse.Namespace) -> None:
    """Refuse one file for two purposes.

    Raises:
        InvalidOption: Two options name the same file.
    """
    seen: dict[str, str] = {}
    for flag in ("--checkpoint", "--dead", "--out"):
        path = getattr(options, flag[2:])
        if path is None or path == "-":
            continue
        other = seen.setdefault(os.path.realpath(path), flag)
        if other != flag:
            raise InvalidOption(flag, f"another file than that of {other}", path)


def _with(path: str | None, *endings: str) -> list[str]:
    return [] if path is None else [path, *(f"{path}{ending}" for ending in endings)]


def _say(text: str) -> None:
    print(f"tickwork: {text}", file=sys.stderr)
