"""What processes of one schedule leave for each other where no store does it: a note in a file, as JSON.

It holds what a row of a store and its ledger would: since when the schedule is known, which fire time was answered
last, who runs, who waits. Whoever reads or writes it holds the lock beside it; see `turns`.
"""

from __future__ import annotations

import json
import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ..stores.base import ScheduleRow

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Holder", "Note", "read_note", "write_note"]

logger: logging.Logger = logging.getLogger("tickwork.trigger")


@dataclass(slots=True)
class Holder:
    """A process that runs, waits to run, or has run.

    Attributes:
        pid: Its process id.
        place: Where that id means something: the host, and the container on it.
        since: Since when (UTC).
        fire_time: The fire time that it was started for (UTC).
        is_told: Whether it was asked to end.
    """

    pid: int
    place: str
    since: datetime
    fire_time: datetime
    is_told: bool = False


@dataclass(slots=True)
class Note:
    """What is known of a schedule.

    Attributes:
        schedule: Its name.
        fingerprint: Of its trigger.
        declared_at: Since when it is known with that trigger (UTC).
        answered: The newest fire time that is answered (UTC); None: none is.
        said: What became of that one.
        runs: How many runs there were.
        last: Who answered that one.
        running: Who runs, if the lock for that is held.
        waiting: Who waits, likewise.
    """

    schedule: str
    fingerprint: str
    declared_at: datetime
    answered: datetime | None = None
    said: str = ""
    runs: int = 0
    last: Holder | None = None
    running: Holder | None = None
    waiting: Holder | None = None

    def row(self) -> ScheduleRow:
        """Return it as the row of a store, to decide on."""
        return ScheduleRow(
            name=self.schedule,
            task="",
            trigger="",
            fingerprint=self.fingerprint,
            version=1,
            watermark=max(self.declared_at, self.answered or self.declared_at),
            declared_at=self.declared_at,
            runs=self.runs,
        )

    def is_answered(self, fire_time: datetime) -> bool:
        """Return whether a fire time, or one after it, is answered."""
        return self.answered is not None and fire_time <= self.answered

    def to_json(self) -> str:
        """Return it as it is written."""
        data = {field: getattr(self, field) for field in self.__slots__}
        return json.dumps(data, default=_plain, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Note:
        """Return what `to_json` has written.

        Raises:
            ValueError, TypeError, KeyError, AttributeError: It is something else.
        """
        data = json.loads(text)
        for field in ("declared_at", "answered"):
            data[field] = _instant(data[field])
        if data["declared_at"] is None:
            raise ValueError("declared_at is missing")
        for field in ("last", "running", "waiting"):
            data[field] = _holder(data[field])
        for field, kind in (("schedule", str), ("fingerprint", str), ("said", str), ("runs", int)):
            if not isinstance(data[field], kind):
                raise TypeError(f"{field} is {data[field]!r}")
        return cls(**data)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return {field: getattr(value, field) for field in value.__slots__}


def _instant(text: str | None) -> datetime | None:
    if text is None:
        return None
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError("a time without a zone")
    return at


def _holder(data: dict[str, Any] | None) -> Holder | None:
    if data is None:
        return None
    since, fire_time = _instant(data["since"]), _instant(data["fire_time"])
    pid = data["pid"]
    if not isinstance(pid, int) or pid < 1 or since is None or fire_time is None:
        raise ValueError("no process")
    return Holder(pid, str(data["place"]), since, fire_time, bool(data["is_told"]))


def read_note(path: Path) -> Note | None:
    """Return the note in a file; None: there is none, or nobody can read it any more."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        logger.warning("what earlier runs have left in %s cannot be read: %s", path, error)
        return None
    try:
        return Note.from_json(text)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        logger.warning("what earlier runs have left in %s cannot be read: %r", path, error)
        return None


def write_note(path: Path, note: Note) -> None:
    """Write a note in place of the last one. When that fails, as on a full disk, there is none at all afterwards.

    An old one would name processes that are gone, and somebody else may have the id of one by now.
    """
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(note.to_json())
        os.replace(fresh, path)
    except OSError as error:
        for leftover in (fresh, path):
            with suppress(OSError):
                leftover.unlink()
        logger.warning(
            "no note of this run can be left in %s (%s): if it is started twice for %s, it runs twice",
            path,
            error.strerror or error,
            "a fire time" if note.answered is None else note.answered.isoformat(),
        )
