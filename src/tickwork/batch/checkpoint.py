"""What of a batch is done, in a file: so that the same call goes on where it was stopped, by whatever stopped it.

One SQLite file for one batch: which function, and a row for each item that has ended well, with its fingerprint and its
result. Items are known by their index; the fingerprint tells whether the items of a later call are the same ones. An
item that failed has no row, so the next call runs it again.

The file is open in one process at a time. SQLite's own lock sees to that: in its exclusive mode the connection holds it
until it is closed, and the kernel lets it go in the moment in which the process is gone. The thread, its transactions
and what becomes of a caller that is cancelled are those of the store (`stores.committer`).
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..elapsed import elapsed
from ..errors import CheckpointMismatch, CheckpointUnavailable, InvalidOption, InvalidPayload
from ..options import text
from ..payloads import Codec
from ..payloads.plan import brief
from ..runners.reference import task_name
from ..stores.committer import Committer
from .fingerprint import fingerprints
from .pace import Pace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["Checkpoint", "ResultCodec", "Stored", "result_codec"]

APPLICATION_ID = 0x7469636D
"""`PRAGMA application_id`: "ticm" in ASCII, next to the "tick" of a store."""
VERSION = 1
"""`PRAGMA user_version`: of the tables below."""
LOCK_SECONDS = 0.5
"""How long an open waits for the lock: two that come at once get out of each other's way, and one of them has it."""
REST_SECONDS = 3_600.0
"""The thread has nothing to look after between two calls."""
LOOK_SECONDS = 0.05
"""How long fingerprints are taken for one look-up: whoever is cancelled waits for it, and so do others who record."""
LOOK_ITEMS = 16
"""So many fingerprints are taken between two looks at the time."""

TABLES: tuple[str, ...] = (
    # One row. `total` is null while nobody knows how many items there are.
    "CREATE TABLE batch (function TEXT NOT NULL, version TEXT, keeps_results INTEGER NOT NULL, total INTEGER) STRICT",
    "CREATE TABLE items (place INTEGER PRIMARY KEY, fingerprint BLOB NOT NULL, result TEXT) STRICT",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {VERSION}",
)


@dataclass(frozen=True, slots=True)
class Stored:
    """An item that has ended well.

    Attributes:
        result: The result, decoded, or as JSON text where no way to decode it was given; None: results are not kept.
    """

    result: Any


class Checkpoint:
    """The file of one batch. Make it with `open`, and close it with `aclose`.

    Every call may be cancelled: what it asks for is then done wholly or not at all. Nothing that takes long is done on
    the loop: its thread takes fingerprints, encodes and decodes.
    """

    def __init__(
        self, path: str, *, function: str, version: str | None, keeps_results: bool, total: int | None
    ) -> None:
        self.path: str = path
        self._function = function
        self._version = version
        self._keeps_results = keeps_results
        self._total = total
        self._identity = (-1, -1)
        self._committer = Committer(
            connect=self._connect,
            transaction=self._transact,
            idle=lambda _connection: REST_SECONDS,
            disconnect=lambda connection: connection.close(),
            name="tickwork-checkpoint",
        )

    @classmethod
    async def open(
        cls,
        path: str | os.PathLike[str],
        *,
        function: str,
        version: str | None,
        keeps_results: bool,
        total: int | None,
    ) -> Checkpoint:
        """Open the file of a batch, or make it where there is none.

        Args:
            path: The file, on a local disk.
            function: Which function it is, as `identity_of` says it.
            version: Whose results these are; another text refuses those of an older version.
            keeps_results: Whether results are kept, and not only that an item is done.
            total: How many items there are; None: not known.

        Raises:
            CheckpointMismatch: The file is that of another batch, and was not changed.
            CheckpointUnavailable: It is no checkpoint, another process has it open, or the disk fails.
            InvalidOption: `path` is no path, or `version` no text.
        """
        try:
            name: object = os.fspath(path)
            if not isinstance(name, str) or "\0" in name or not name:
                raise TypeError
        except TypeError:
            raise InvalidOption("checkpoint", "the path of a file", path) from None
        if version is not None:
            text("version", version)
        made = cls(name, function=function, version=version, keeps_results=keeps_results, total=total)
        try:
            await made._committer.open()
        except asyncio.CancelledError:
            await made._committer.aclose()
            raise
        return made

    async def look_up(
        self, start: int, items: Sequence[object], decode: Callable[[str], Any] | None = None
    ) -> list[Stored | bytes]:
        """Return what is known of some items, as many as a short time is enough for, and at least of one.

        Everything that takes long is done in the thread, once: fingerprints are taken, results are decoded.

        Args:
            start: The index of the first of them.
            items: The items, in their order.
            decode: Turns JSON text into a result.

        Returns:
            What is stored of an item, or its `fingerprint` when it is to be run.

        Raises:
            CheckpointMismatch: An item is another one than that which was recorded at its index.
            InvalidPayload: An item cannot be told from others, or a result does not fit any more.
            CheckpointUnavailable: The file cannot be read.
        """
        return await self._committer.run(lambda db: self._look_up(db, start, items, decode))

    async def record(
        self, finished: Iterable[tuple[int, bytes, Any]], encode: Callable[[Any], str] | None = None
    ) -> None:
        """Record items that have ended well: all or none. What is recorded when this returns survives a power cut.

        Args:
            finished: For each its index, its `fingerprint`, taken before it was run, and its result; None when results
                are not kept. Iterated over in the thread.
            encode: Turns a result into JSON text, in the thread; None: it is such a text.

        Raises:
            InvalidPayload: A result cannot be encoded; all others are recorded, so that they do not run again.
            CheckpointUnavailable: The file cannot be written: the disk is full, say. What was recorded before is kept.
        """
        given: list[tuple[int, bytes, Any]] = []

        def insert(db: sqlite3.Connection) -> InvalidPayload | None:
            given.extend(finished)  # an iterator: nothing is left of it when this is run again
            rows, refusal = (given, None) if encode is None else _encoded(given, encode)
            # Closed at once: the next one in this transaction runs the same statement, which one cursor can have.
            db.executemany("INSERT OR REPLACE INTO items VALUES (?, ?, ?)", rows).close()
            return refusal

        finished = iter(finished)
        refusal = await self._committer.run(insert)
        if refusal is not None:
            raise refusal

    async def finish(self, total: int) -> None:
        """Note that there are no more items than these.

        Raises:
            CheckpointMismatch: An earlier call had more, or another number.
            CheckpointUnavailable: The file cannot be written.
        """
        await self._committer.run(lambda db: self._expect_total(db, total))

    async def aclose(self) -> None:
        """Do what was asked for, and close the file. A second call does nothing."""
        await self._committer.aclose()

    # -- in the thread ----------------------------------------------------------------------------------------------

    def _connect(self) -> sqlite3.Connection:
        self.path = os.path.abspath(self.path)
        try:
            connection = sqlite3.connect(self.path, timeout=LOCK_SECONDS, isolation_level=None)
            try:
                self._prepare(connection)
            except BaseException:
                connection.close()
                raise
        except (sqlite3.Error, OSError) as error:
            raise self._unavailable(error) from error
        return connection

    def _prepare(self, db: sqlite3.Connection) -> None:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("BEGIN EXCLUSIVE")  # from here on the lock is held
        if self._is_new(db):
            for statement in TABLES:
                db.execute(statement)
            batch = (self._function, self._version, self._keeps_results, self._total)
            db.execute("INSERT INTO batch VALUES (?, ?, ?, ?)", batch)
        else:
            self._expect_same(db)
        db.execute("COMMIT")
        db.execute("PRAGMA journal_mode = WAL")  # a commit is one flush, not three
        db.execute("PRAGMA synchronous = FULL")
        self._identity = self._identify()

    def _is_new(self, db: sqlite3.Connection) -> bool:
        """Return whether the file is empty; refuse one of something else."""
        (application,) = db.execute("PRAGMA application_id").fetchone()
        (version,) = db.execute("PRAGMA user_version").fetchone()
        (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if not application and not tables:
            return True
        if application != APPLICATION_ID:
            raise CheckpointUnavailable(self.path, "it is a database of something else", "name another file")
        if version > VERSION:
            reason = f"it was written by a later tickwork (format {version}, this one knows {VERSION})"
            raise CheckpointUnavailable(self.path, reason, "go on with that one, or name another file")
        return False

    def _expect_same(self, db: sqlite3.Connection) -> None:
        function, version, keeps_results, _ = db.execute("SELECT * FROM batch").fetchone()
        ways = ("are not kept", "are kept")
        if function != self._function:
            self._refuse(f"its function is {function!r}, and not {self._function!r}")
        if version != self._version:
            self._refuse(f"its version is {version!r}, and not {self._version!r}")
        if bool(keeps_results) != self._keeps_results:
            self._refuse(f"its results {ways[keeps_results]}, and those of this call {ways[self._keeps_results]}")
        if self._total is not None:
            self._expect_total(db, self._total)

    def _expect_total(self, db: sqlite3.Connection, total: int) -> None:
        (known,) = db.execute("SELECT total FROM batch").fetchone()
        if known is not None and known != total:
            self._refuse(f"it has {known:,} items, and not {total:,}")
        (last,) = db.execute("SELECT max(place) FROM items").fetchone()
        if last is not None and last >= total:
            self._refuse(f"it has at least {last + 1:,} items, and not {total:,}")
        if known is None:
            db.execute("UPDATE batch SET total = ?", (total,))

    def _look_up(
        self, db: sqlite3.Connection, start: int, items: Sequence[object], decode: Callable[[str], Any] | None
    ) -> list[Stored | bytes]:
        (total,) = db.execute("SELECT total FROM batch").fetchone()
        if total is not None and start + len(items) > total:
            self._refuse(f"it has {total:,} items, and this call has more")
        keys: list[bytes] = []
        pace, until = Pace(), elapsed() + LOOK_SECONDS
        while len(keys) < len(items) and (not keys or elapsed() < until):
            keys += fingerprints(items[len(keys) : len(keys) + LOOK_ITEMS], start + len(keys))
            pace.keep()
        found: list[Stored | bytes] = [*keys]
        rows = db.execute(
            "SELECT place - ?, fingerprint, result FROM items WHERE place >= ? AND place < ?",
            (start, start, start + len(keys)),
        ).fetchall()  # a cursor that is not exhausted, and that a traceback keeps, holds the lock beyond the close
        for place, key, result in rows:
            if key != keys[place]:
                self._refuse(f"its item {start + place} is another one than {brief(items[place])}")
            found[place] = Stored(result if decode is None or result is None else decode(result))
            pace.keep()
        return found

    def _refuse(self, difference: str) -> None:
        raise CheckpointMismatch(self.path, difference)

    def _transact(self, db: sqlite3.Connection, works: list[Callable[[sqlite3.Connection], Any]]) -> list[Any]:
        try:
            if self._identify() != self._identity:
                reason = "it was removed or replaced while it was open"
                raise CheckpointUnavailable(self.path, reason, "put it back, or call again to start from nothing")
            db.execute("BEGIN IMMEDIATE")
            try:
                values = [work(db) for work in works]
                db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # it has rolled back by itself, or fails as a whole
                    if db.in_transaction:
                        db.execute("ROLLBACK")
                raise
        except (sqlite3.Error, OSError) as error:
            raise self._unavailable(error) from error
        return values

    def _identify(self) -> tuple[int, int]:
        """Return which file lies there."""
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            return (0, 0)
        return (status.st_dev, status.st_ino)

    def _unavailable(self, error: Exception) -> CheckpointUnavailable:
        remedy = next((remedy for sign, remedy in _REMEDIES if sign in str(error).lower()), "")
        return CheckpointUnavailable(self.path, str(error), remedy)


def _encoded(
    finished: Sequence[tuple[int, bytes, Any]], encode: Callable[[Any], str]
) -> tuple[list[tuple[int, bytes, Any]], InvalidPayload | None]:
    """Return rows with results as JSON text, without those that cannot be, and the first refusal."""
    rows: list[tuple[int, bytes, Any]] = []
    refusal: InvalidPayload | None = None
    pace = Pace()
    for index, key, result in finished:
        try:
            rows.append((index, key, encode(result)))
        except InvalidPayload as error:
            refusal = refusal or error
        pace.keep()
    return rows, refusal


_REMEDIES = (
    ("disk is full", "make room and call again: what was recorded is kept"),
    ("locked", "another process works on it: wait for its end, or name another file"),
    ("readonly", "let this user write the file and its folder"),
    ("unable to open", "make its folder, or let this user write there"),
    ("not a database", "it is something else: name another file"),
    ("malformed", "it is damaged: remove it to start from nothing"),
    ("i/o error", "see what the system says of the disk, and call again: what was recorded is kept"),
)
"""What to do, by what SQLite or the system says, in lower case."""


class ResultCodec:
    """The results of one function as JSON text, by its return hint."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    def encode(self, value: object) -> str:
        """Return a result as JSON text.

        Raises:
            InvalidPayload: It does not fit the hint, or JSON cannot carry it.
        """
        try:
            return self._codec.encode_result(value)
        except InvalidPayload as error:
            reason = f'{error.reason}; or keep no results in the checkpoint: results="discard"'
            raise InvalidPayload(error.where, reason) from error.__cause__

    def decode(self, text: str) -> Any:
        """Return what `encode` was given.

        Raises:
            InvalidPayload: It does not fit the return hint of today.
        """
        try:
            return self._codec.decode_result(text)
        except InvalidPayload as error:
            reason = f"{error.reason}; the checkpoint is from before the hint was changed: remove it, or name another"
            raise InvalidPayload(error.where, reason) from error.__cause__


def result_codec(fn: Callable[..., Any]) -> ResultCodec:
    """Return the codec of the results of a function or task. Building it reads nothing yet."""
    plain: Any = fn.fn if getattr(type(fn), "__tickwork_task__", False) else fn  # type: ignore[attr-defined]
    return ResultCodec(Codec(plain, name=task_name(fn)))
