"""The command `tickwork`: run an app, look at it, trigger its tasks.

Tables go to stdout, logs and errors to stderr. A mistake of the user ends in one line, never in a traceback.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from typing import TYPE_CHECKING

from .. import __version__
from ..errors import TickworkError
from ..program import OK, USAGE
from .crontab import add_crontab
from .fleet import add_fleet
from .map import add_map
from .preview import add_preview
from .schtasks import add_schtasks
from .store import add_store
from .system_sync import VERBS
from .trigger import add_trigger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_SECOND_WORDS = {
    "jobs": ("show", "retry", "cancel", "delete", "batch"),
    "crontab": (*VERBS, "doctor"),
    "schtasks": VERBS,
}

EPILOG = """\
TARGET is module:app, module, or path/file.py (imported by its stem, its folder first on sys.path);
the name of the app may be left out where there is one.

exit status: 0 clean, 1 a job failed or `check` found something, 2 usage or import error, 3 start failed,
4 jobs had to be cut
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    Args:
        arguments: The words after the command's name; None: those of this process.
    """
    parser = _parser()
    try:
        options = parser.parse_args(_joined(sys.argv[1:] if arguments is None else arguments))
    except SystemExit as ended:  # argparse has said what is wrong, or has helped
        return ended.code if isinstance(ended.code, int) else USAGE
    from . import commands

    status = OK
    try:
        status = getattr(commands, f"run_{options.command.replace(' ', '_')}")(options)
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where a failure can still be said
    except TickworkError as error:
        print(f"tickwork: {error}", file=sys.stderr)
        return USAGE
    except BrokenPipeError:  # the reader of a table has gone: `tickwork list | head -1`
        _give_up_stdout()
    except OSError as error:
        _give_up_stdout()
        print(f"tickwork: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # while the target was imported: nothing has begun
        return 128 + signal.SIGINT
    return status


def _give_up_stdout() -> None:
    """Let what is still unwritten go nowhere: the interpreter would try again when it ends, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tickwork",
        description="Scheduled and background work inside an asyncio program.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"tickwork {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, summary: str, *, needs_target: bool = True) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name, help=summary, description=summary, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        if needs_target:
            command.add_argument("target", metavar="TARGET", help="module:app, module, or path/file.py")
        command.add_argument("-v", "--verbose", action="store_true", help="more in the log, tracebacks of imports too")
        return command

    run = add("run", "Run the app until SIGINT or SIGTERM, then drain.")
    run.add_argument("--until-idle", action="store_true", help="end when no job is queued or running")
    run.add_argument("--role", metavar="ROLE", help="all, worker (no schedules), scheduler (no jobs), client")
    run.add_argument("--queues", metavar="A,B", help="claim jobs of these queues only")
    run.add_argument("--workers", type=_count, metavar="N", help="how many jobs run at the same time (the app's)")
    run.add_argument("--reload", action="store_true", help="start anew when a Python file below the folder changes")
    run.add_argument("--supervised", action="store_true", help=argparse.SUPPRESS)  # what --reload starts
    run.add_argument("--uvloop", action="store_true", help="run on uvloop (extra 'uvloop')")

    listing = add("list", "List tasks and schedules.")
    listing.add_argument("--json", action="store_true", help="as JSON")

    upcoming = add(
        "next", "Show the next fire times of an app's schedules, or of a cron expression.", needs_target=False
    )
    what = upcoming.add_mutually_exclusive_group(required=True)
    what.add_argument("target", metavar="TARGET", nargs="?", help="module:app, module, or path/file.py")
    what.add_argument("--cron", metavar="EXPRESSION", help="an expression instead: --cron '0 5 * * mon-fri'")
    upcoming.add_argument("-n", type=_count, default=5, metavar="N", help="how many of each schedule (5)")
    upcoming.add_argument("--tz", metavar="ZONE", help="the zone to show them in, and of --cron (the app's; UTC)")
    upcoming.add_argument("--json", action="store_true", help="as JSON")

    check = add("check", "Find what is valid and will not do what was meant; for continuous integration.")
    check.add_argument("--json", action="store_true", help="as JSON")
    check.add_argument("--ignore", metavar="RULE", action="extend", nargs="+", default=[], help="rules to leave out")
    check.add_argument("--as-of", metavar="WHEN", help="look ahead from then, ISO 8601, in the app's zone (now)")

    add_preview(add)

    history = add("history", "Show what became of the fire times of a schedule, the newest first.")
    history.add_argument("name", metavar="NAME", help="a schedule; its last part will do where it is unique")
    history.add_argument("-n", type=_count, default=20, metavar="N", help="how many rows (20)")
    history.add_argument("--tz", metavar="ZONE", help="the zone to show them in (the schedule's)")
    history.add_argument("--json", action="store_true", help="as JSON")

    why = add("why", "Say why a fire time ran, or did not; or why a job does not run.")
    why.add_argument("name", metavar="NAME", help="a job's id; or a schedule: its last part will do where it is unique")
    why.add_argument(
        "time", metavar="TIME", nargs="?", help='of a schedule: "03:00" (the last one), or ISO 8601, in its zone'
    )
    why.add_argument("--json", action="store_true", help="as JSON")

    _add_jobs(add)
    add_store(add)
    add_crontab(add)
    add_fleet(add)
    add_schtasks(add)
    add_map(add)

    add_trigger(add)
    return parser


def _add_jobs(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add what people do with jobs and queues. `jobs show` is one word here: see `_joined`."""
    listing = add("jobs", "List jobs, the newest first; `jobs show`, `retry`, `cancel`, `delete` and `batch` take ids.")
    listing.add_argument("--state", action="append", metavar="S", help="in this state; several may be given")
    listing.add_argument("--task", metavar="T", help="of this task; its last part will do where it is unique")
    listing.add_argument("--queue", metavar="Q", help="in this queue")
    listing.add_argument("--schedule", metavar="NAME", help="made by this schedule")
    listing.add_argument("--batch", metavar="ID", help="of this batch")
    listing.add_argument("-n", "--limit", type=_count, default=50, metavar="N", help="how many, up to 1,000 (50)")
    listing.add_argument("--after", metavar="CURSOR", help="those behind a page that said so")
    show = add("jobs show", "Show a job: its arguments, its attempts with tracebacks, its progress and its lease.")
    show.add_argument("id", metavar="ID", help="the job's id")
    show.add_argument("--tz", metavar="ZONE", help="the zone to show times in (the app's)")
    show.add_argument(
        "--show-args", action="store_true", help="also those that only their name makes a secret, such as password"
    )
    retry = add("jobs retry", "Have jobs run again that have failed, were cancelled, or are parked.")
    retry.add_argument("--failed", action="store_true", help="all that have failed")
    retry.add_argument("--task", metavar="T", help="with --failed: those of this task")
    cancel = add("jobs cancel", "Cancel jobs that wait, run, or are parked.")
    delete = add("jobs delete", "Forget jobs that do not run.")
    for command, least in ((retry, "*"), (cancel, "+"), (delete, "+")):
        command.add_argument("ids", metavar="ID", nargs=least, help="the ids of the jobs")
    batch = add("jobs batch", "Show how far a batch is that `task.map` has enqueued, or the newest batches.")
    batch.add_argument("id", metavar="ID", nargs="?", help="the batch's id; left out: the newest batches")
    batch.add_argument("-n", "--limit", type=_count, default=20, metavar="N", help="how many batches, up to 1,000 (20)")
    action = batch.add_mutually_exclusive_group()
    action.add_argument("--cancel", action="store_true", help="cancel all of its jobs that have not ended")
    action.add_argument("--retry-failed", action="store_true", help="have all of its jobs run again that have failed")
    queues = add("queues", "List queues: what waits and runs, since when, how much ends a minute, what is paused.")
    for command in (listing, show, retry, cancel, delete, batch, queues):
        command.add_argument("--json", action="store_true", help="as JSON")
    for name, summary in (
        ("pause", "Let no process claim jobs of a queue, or fire a schedule, until it is resumed."),
        ("resume", "Let jobs of a queue be claimed again, or a schedule fire."),
    ):
        what = add(name, summary).add_mutually_exclusive_group(required=True)
        what.add_argument("queue", metavar="QUEUE", nargs="?", help="the queue's name")
        what.add_argument("--schedule", metavar="NAME", help="a schedule instead, by its name")


def _joined(words: Sequence[str]) -> list[str]:
    """Return the words with `jobs show` and its like as one: argparse knows a command by one word."""
    if len(words) > 1 and words[1] in _SECOND_WORDS.get(words[0], ()):
        return [f"{words[0]} {words[1]}", *words[2:]]
    return list(words)


def _count(word: str) -> int:
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {word!r}")
    return int(word)
