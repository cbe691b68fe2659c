"""A job to be put into a crontab: an id, a schedule, a program with its arguments, and where its output goes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import InvalidEntry
from ..triggers import Trigger
from .cron_quote import check_length, check_text, quote, quote_all
from .cron_schedule import cron_fields
from .crontab_text import check_id

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CronEntry"]


@dataclass(frozen=True, slots=True)
class CronEntry:
    """A job to be put into a crontab.

    Args:
        id: 1 to 64 of a-z, 0-9, ".", "_" and "-".
        schedule: The text of five fields, read on the wall clock of the machine; or a `Cron` or an `Every`.
        argv: The program with its absolute path, and its arguments. There is no shell between: `*`, `$` and quotes
            mean nothing, and each arrives as it is.
        log: An absolute path that standard output and error are appended to; None: cron mails them.

    Semantics:
        The line shows up in the system log and in `ps`: no passwords.

    Raises:
        InvalidEntry: A part that no line can carry exactly, or more than 998 bytes of command.
        InvalidCron, UnsupportedSchedule: As for `cron_fields`.
    """

    id: str
    schedule: str | Trigger
    argv: tuple[str, ...]
    log: str | None = None

    def __init__(
        self,
        id: str,
        schedule: str | Trigger,
        argv: Sequence[str | os.PathLike[str]],
        log: str | os.PathLike[str] | None = None,
    ) -> None:
        object.__setattr__(self, "id", check_id(id))
        object.__setattr__(self, "schedule", schedule)
        object.__setattr__(self, "argv", _words(argv))
        object.__setattr__(self, "log", None if log is None else _absolute(log, "log"))
        check_length(os.fsencode(self.command))
        if not isinstance(schedule, Trigger):
            cron_fields(schedule)

    @property
    def command(self) -> str:
        """What stands in the line after the schedule."""
        command = quote_all(self.argv)
        return command if self.log is None else f"{command} >>{quote(self.log, 'log')} 2>&1"

    def line(self, zone: str | None = None) -> bytes:
        """Return the line, without LF.

        Args:
            zone: The zone of the machine, for a trigger.

        Raises:
            UnsupportedSchedule: The trigger cannot be said in it.
        """
        return os.fsencode(f"{cron_fields(self.schedule, zone)} {self.command}")


def _words(argv: Sequence[str | os.PathLike[str]]) -> tuple[str, ...]:
    if isinstance(argv, str | bytes) or not argv:
        raise InvalidEntry("argv", argv, "it must be a list: the program, and its arguments one by one")
    words = tuple(os.fspath(word) if isinstance(word, os.PathLike) else word for word in argv)
    for word in words:
        check_text(word, "argument")
    _absolute(words[0], "program")
    return words


def _absolute(path: str | os.PathLike[str], part: str) -> str:
    text = os.fspath(path) if isinstance(path, os.PathLike) else path
    check_text(text, part)
    if not text.startswith("/"):
        raise InvalidEntry(part, text, "it must be an absolute path: cron starts in another folder, with another PATH")
    return text
