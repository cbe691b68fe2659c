"""A connection to PostgreSQL, and transactions on it that are done wholly or not at all, whatever becomes of it.

One thread uses a link. It connects when it must, and again when the connection is lost. A transaction that did not come
to its end is run again, for a while; nothing of it is left. When the answer to a COMMIT was lost, nobody knows what
became of it, and it must not be run twice. So each transaction that writes leaves its mark in a row of `shards` that
is this link's alone: a new connection looks whether the mark is there. If it is not, it leaves it itself: a server that
has not come to the lost COMMIT yet finds it taken, and refuses.

Locks between processes are advisory ones, held until the end of the transaction. Those that it asks for first are taken
in the order of their numbers. When it needs more later and one is not free, it does not wait, for two that wait for
each other wait for ever: it is rolled back, and run again with all of them taken first.
"""

from __future__ import annotations

import logging
import random
import re
import socket
import threading
import time
from collections import Counter
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.numeric import Int8Dumper

from ..errors import StoreMoved, StoreUnavailable
from .postgres_errors import MOVED, Kind, is_clash, kind_of, remedy_for, text_of
from .postgres_pooler import REASON, REMEDY, is_lent
from .postgres_schema import quoted
from .sql_batches import STATES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from ..clock import Clock
    from .postgres_target import Target

    Params = Sequence[object] | Mapping[str, object]

logger: logging.Logger = logging.getLogger("tickwork.stores")

T = TypeVar("T")
Row = tuple[Any, ...]

LOCKS = 128
"""All gates of a store share so many locks, and so do its keys, schedules and batches: a transaction may be about ten
thousand of them, and a server has not so many locks."""
PATIENCE_SECONDS = 10.0
"""For how long a transaction is tried again while the server cannot be reached: a restart or a failover is over by
then, mostly, and who waits for an `enqueue` wants to know."""
DOUBT_SECONDS = 60.0
"""For how long a new connection is tried to learn whether a transaction was committed: a wrong answer costs more."""
MAX_PAUSE_SECONDS = 1.0
MOST_CLASHES = 5
"""So often a transaction that was in another's way is tried again, without any patience, too: that one is through."""
IDLE_MILLISECONDS = 10_000
"""After this, the server rolls a transaction back in which nothing comes: its process is stopped, or the network is
gone. Ours take milliseconds."""
DEFAULTS = {
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
}
"""What libpq is told unless the URL says otherwise: a link that is half open is noticed within half a minute."""

_SERVER_TIME = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_COLUMNS = ("rescued", "changes", *STATES)
_COUNT = f"""
    INSERT INTO shards AS s (name, mark, touched_at, {", ".join(_COLUMNS)})
    VALUES (%s, %s, %s, {", ".join(["%s"] * len(_COLUMNS))})
    ON CONFLICT (name) DO UPDATE SET touched_at = excluded.touched_at,
        mark = {{mark}},
        {", ".join(f"{name} = s.{name} + excluded.{name}" for name in _COLUMNS)}
    RETURNING {_SERVER_TIME}, (SELECT coalesce(sum(queued + scheduled), 0)::bigint FROM shards WHERE name <> s.name)
        + s.queued + s.scheduled
"""
_MARK = _COUNT.format(mark="excluded.mark / (s.mark < excluded.mark)::int")
"""A mark that is taken already, see `_is_marked`, is a division by zero, and the end of the transaction."""
ANY_MARK = _COUNT.format(mark="s.mark + 1")
"""For a row that others write as well, and of which nobody asks whether it was committed."""


_NAMED = re.compile(r"(?<![:\w]):([a-z_]+)")


class LockOrder(BaseException):
    """A lock that another process has is needed after others: the transaction must begin anew with all of them.

    No `Exception`, so that nobody who takes errors takes it for one.
    """

    def __init__(self, names: set[str]) -> None:
        self.names = names


class Link:
    """One connection at a time to one schema of a database.

    Args:
        target: Which.
        name: What the connection is called in `pg_stat_activity`.
        clock: Tells how long something takes.
        now_us: Returns the time that is written down, in microseconds since the Unix epoch.
        patience_seconds: For how long a transaction is tried again while the server cannot be reached.
        is_over: Returns whether nobody has the patience any more.
        on_time: Called with the server's time in microseconds, and the monotonic times between which that was read.
    """

    def __init__(
        self,
        target: Target,
        *,
        name: str,
        clock: Clock,
        now_us: Callable[[], int],
        patience_seconds: float = PATIENCE_SECONDS,
        is_over: Callable[[], bool] = lambda: False,
        on_time: Callable[[int, float, float], None] = lambda us, sent, heard: None,
    ) -> None:
        self._target = target
        self.schema: str = target.schema
        self._name = name
        self.shard: str | None = None
        """The name of its row in `shards`; None: it has none, for it only reads."""
        self._clock = clock
        self._now_us = now_us
        self._patience_seconds = patience_seconds
        self._is_over = is_over
        self._on_time = on_time
        self._connection: psycopg.Connection[Row] | None = None
        self.pid: int = 0
        """The process of the server that the connection is to, where it is always the same."""
        self._begin = "BEGIN"
        self._together: Callable[[], AbstractContextManager[object]] = nullcontext
        """Begins a block whose statements go to the server at once: one way there and back for all of them."""
        self._locks: set[str] = set()
        self._mark = 0
        self._has_begun = False
        """Whether the server has been told of the transaction: with its first statement."""
        self._has_written = False
        """Whether the transaction has changed anything."""
        self._waiting: tuple[int, float] | None = None
        self._asked_mono: float | None = None
        """Since when the server is being asked for something; None: it is not."""
        self._close_lock = threading.Lock()
        self._doubted: tuple[str | None, int] | None = None
        """Shard and mark of a transaction of which it was given up to learn whether it was committed."""
        self.on_settled: Callable[[bool], None] = lambda is_committed: None
        """Called when that is known after all: before any other transaction of this link."""
        self.tally: Counter[str] = Counter()
        """What the transaction adds to the counts of its shard: by state, "rescued" and "changes"."""
        self.batches: dict[str, Counter[str]] = {}
        """What it adds to the counts of batches, by state; see `postgres_batches.flush`."""
        self.on_flush: Callable[[Link], None] = lambda link: None
        """Called before the end of each transaction."""

    _mark_query: ClassVar[str] = _MARK

    # -- statements -------------------------------------------------------------------------------------------------

    def execute(self, query: str, params: Params = ()) -> psycopg.Cursor[Row]:
        """Run a statement, whose parameters are marked `%s`, or `?` and `:name` as in SQLite."""
        done = self._run(marked(query), params)
        self._has_written |= done.rowcount > 0 and not query.lstrip().startswith("SELECT")
        return done

    def _run(self, query: str, params: Params) -> psycopg.Cursor[Row]:
        assert self._connection is not None
        if self._has_begun:
            return self._connection.execute(query, params or None)
        with self._together():
            self._has_begun = True
            self._connection.execute(self._begin)
            return self._connection.execute(query, params or None)

    def seek(self, query: str, params: Params = ()) -> list[Row]:
        """Return all rows of a statement that changes something or not; its caller sees that in them: see `wrote`."""
        return self._run(marked(query), params).fetchall()

    def wrote(self) -> None:
        """Hear that the statement sought with has changed something."""
        self._has_written = True

    def executemany(self, query: str, rows: Iterable[Sequence[object]]) -> None:
        """Run a statement for each of these parameters."""
        for params in rows:
            self.execute(query, params)

    def all(self, query: str, params: Params = ()) -> list[Row]:
        """Return all rows of a statement."""
        return self.execute(query, params).fetchall()

    def one(self, query: str, params: Params = ()) -> Row | None:
        """Return the first row of a statement, or None."""
        return self.execute(query, params).fetchone()

    def waiting(self, seconds: float) -> int | None:
        """Return how many jobs wait, as the server said at most so many seconds ago; None: it did not."""
        if self._waiting is None or self._clock.monotonic() - self._waiting[1] > seconds:
            return None
        return self._waiting[0]

    # -- locks ------------------------------------------------------------------------------------------------------

    def lock(self, names: Iterable[str]) -> None:
        """Hold these locks until the end of the transaction."""
        wanted = set(names) - self._locks
        if not wanted:
            return
        if not self._locks and not self._has_written:
            self._wait(wanted)
        elif not self._try(wanted):
            raise LockOrder(self._locks | wanted)

    def try_lock(self, name: str) -> bool:
        """Hold a lock unless another process does, and return whether that is so."""
        return name in self._locks or self._try({name})

    def _wait(self, names: set[str]) -> None:
        keys = sorted(key_of(self._target.schema, name) for name in names)
        self.all("SELECT pg_advisory_xact_lock(key) FROM unnest(%b::bigint[]) AS key", (keys,))
        self._locks |= names

    def _try(self, names: set[str]) -> bool:
        """Take locks that nobody holds; False: somebody holds one of them."""
        keys = [key_of(self._target.schema, name) for name in names]
        found = self.all("SELECT pg_try_advisory_xact_lock(key) FROM unnest(%b::bigint[]) AS key", (keys,))
        are_taken = all(is_taken for (is_taken,) in found)
        if are_taken:
            self._locks |= names
        return are_taken

    # -- transactions -----------------------------------------------------------------------------------------------

    def transact(self, work: Callable[[Link], T]) -> T:
        """Run a function in a transaction, as often as it takes, and return its value when that is committed.

        Raises:
            StoreUnavailable: The server cannot be reached, or cannot do it. Nothing was done, unless the error says
                that this is not known.
            Exception: What the function raises, or the server says of what it was asked; nothing was done.
        """
        until: float | None = None
        first: set[str] = set()
        pauses, clashes = _pauses(), 0
        while True:
            try:
                return self._try_once(work, first)
            except LockOrder as order:
                # The second time with all locks of these kinds, or it might take as many times as there are locks.
                first |= {name for kind in map(_kind, order.names) for name in kind} if first else order.names
            except psycopg.Error as error:
                kind = kind_of(error)
                if kind is Kind.ASKED:
                    if error.sqlstate == MOVED:
                        raise StoreMoved(self._target.where, error.diag.message_detail or "") from error
                    raise
                now = self._clock.monotonic()
                until = now + self._patience_seconds if until is None else until
                if error.sqlstate == "25006":  # a standby: another connection may find the primary
                    self.disconnect()
                clashes += is_clash(error)
                is_late = now >= until and not (is_clash(error) and clashes <= MOST_CLASHES)
                if kind is Kind.FINAL or is_late or self._is_over():
                    raise self.unavailable(error) from error
                time.sleep(next(pauses))

    def _try_once(self, work: Callable[[Link], T], locks: set[str]) -> T:
        with self.asking():
            return self._try_it(work, locks)

    def _try_it(self, work: Callable[[Link], T], locks: set[str]) -> T:
        self.connect()
        assert self._connection is not None
        if self._doubted is not None:
            is_committed = self._is_marked(*self._doubted)
            self._doubted = None
            self.on_settled(is_committed)
        self._locks.clear()
        self.tally.clear()
        self.batches.clear()
        self._has_begun = self._has_written = False
        try:
            if locks:
                self._wait(locks)
            value = work(self)
            self.on_flush(self)
        except BaseException:
            self._roll_back()
            raise
        try:
            self._commit()
        except psycopg.Error as error:
            # A server that stops says so, perhaps after it has committed, and closes a moment later.
            is_refused = error.diag.severity_nonlocalized == "ERROR"
            is_lost = self._connection.broken or self._connection.closed or not is_refused
            self._roll_back()
            if self._has_written and not (is_lost and self._was_committed(error)):
                raise
        return value

    def _commit(self) -> None:
        """End the transaction, and count what it has changed; when the answer is lost, nobody knows of either."""
        assert self._connection is not None
        if not self._has_begun:
            return
        sent = self._clock.monotonic()
        with self._together():
            left = self._leave_mark()
            self._connection.execute("COMMIT")
        if left is not None and (told := left.fetchone()) is not None:
            heard = self._clock.monotonic()
            self._on_time(told[0], sent, heard)
            self._waiting = told[1], heard

    def _leave_mark(self) -> psycopg.Cursor[Row] | None:
        """Count what the transaction has changed; the rows of the statement may not have come yet."""
        if not self._has_written or self.shard is None:
            return None
        self._mark += 1
        counts = [self.tally[name] for name in _COLUMNS]
        return self.execute(self._mark_query, (self.shard, self._mark, self._now_us(), *counts))

    def _roll_back(self) -> None:
        """Leave no transaction open: one that cannot be rolled back goes with its connection."""
        if self._connection is None:
            return
        try:
            if self._has_begun and not self._connection.closed:
                self._connection.execute("ROLLBACK")
        except psycopg.Error:
            self.disconnect()
        else:
            if self._connection.closed:
                self.disconnect()

    def _was_committed(self, lost: psycopg.Error) -> bool:
        """Return whether the last transaction was committed, whose answer was lost."""
        until = self._clock.monotonic() + DOUBT_SECONDS
        pauses = _pauses()
        while True:
            try:
                with self.asking():
                    self.connect()
                    is_committed = self._is_marked(self.shard, self._mark)
                logger.warning(
                    "a commit was cut off, and was %s", "done" if is_committed else "not done: doing it again"
                )
                return is_committed
            except psycopg.Error as error:
                self.disconnect()
                if self._clock.monotonic() >= until or self._is_over():
                    reason = (
                        f"the connection was lost during a commit ({text_of(lost)}); whether that was done is not known"
                    )
                    self._doubted = self.shard, self._mark
                    raise StoreUnavailable(self._target.where, reason) from error
                time.sleep(next(pauses))

    def _is_marked(self, shard: str | None, mark: int) -> bool:
        """Return whether a transaction was committed; if it was not, it cannot be any more.

        What came over a lost connection may lie there, and be done later. So its mark is taken from it. Where the
        transaction has left it and not ended yet, this waits for its end.
        """
        assert self._connection is not None
        query = f"""
            INSERT INTO {quoted(self._target.schema)}.shards AS s (name, mark, touched_at) VALUES (%s, %s, %s)
            ON CONFLICT (name) DO UPDATE SET mark = excluded.mark WHERE s.mark <> excluded.mark
        """
        try:
            return self._connection.execute(query, (shard, mark, self._now_us())).rowcount == 0
        except psycopg.errors.UndefinedTable:
            return False  # it was to make the tables

    # -- the connection ---------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Connect, where there is no connection."""
        if self._connection is not None:
            if not self._connection.closed:
                return
            self.disconnect()
        connection = self._open()
        try:
            connection.adapters.register_dumper(int, Int8Dumper)  # one type for all, or each is another statement
            self._connection = connection
            self._set_up(connection)
        except BaseException:
            self.disconnect()
            raise

    def _open(self) -> psycopg.Connection[Row]:
        given = conninfo_to_dict(self._target.url)
        settings: dict[str, Any] = {**DEFAULTS, "application_name": self._name, **given}
        return psycopg.connect(autocommit=True, prepare_threshold=5 if self._target.notifies else None, **settings)

    def _set_up(self, connection: psycopg.Connection[Row]) -> None:
        sent = self._clock.monotonic()
        told, self.pid = connection.execute(f"SELECT {_SERVER_TIME}, pg_backend_pid()").fetchone() or (0, 0)
        self._on_time(told, sent, self._clock.monotonic())
        settings = {
            "search_path": quoted(self._target.schema),
            "idle_in_transaction_session_timeout": str(IDLE_MILLISECONDS),
            "jit": "off",  # it costs more than our statements do
            # The server keeps the plans that it made when the tables were empty, until it has counted their rows: for
            # a minute it would read all that has ended at each enqueue. There is an index for whatever is asked.
            "enable_seqscan": "off",
        }
        if self._target.notifies:
            if is_lent(connection, self.pid, self._open):
                raise StoreUnavailable(self._target.where, REASON, REMEDY)
            connection.execute("; ".join(f"SET {name} = {value}" for name, value in settings.items()))
            if psycopg.Pipeline.is_supported():
                self._together = connection.pipeline
        else:  # each transaction may have another connection
            self._begin = "; ".join(["BEGIN", *(f"SET LOCAL {name} = {value}" for name, value in settings.items())])

    def disconnect(self) -> None:
        """Close the connection, if there is one."""
        with self._close_lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                with suppress(psycopg.Error, OSError):
                    connection.close()

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Let `give_up` know how long it takes to do what is in the block."""
        before, self._asked_mono = self._asked_mono, self._clock.monotonic()
        try:
            yield
        finally:
            self._asked_mono = before

    def give_up(self, seconds: float) -> None:
        """End the connection if the server has been asked for something for so long; for other threads.

        Whoever asked hears that the connection is lost.
        """
        with self._close_lock:
            connection, since = self._connection, self._asked_mono
            if connection is None or since is None or self._clock.monotonic() - since < seconds:
                return
            logger.error("the server has not answered for %d s; its connection is given up", seconds)
            with suppress(psycopg.Error, OSError):
                end = socket.socket(fileno=connection.fileno())
                try:
                    end.shutdown(socket.SHUT_RDWR)
                finally:
                    end.detach()  # libpq closes it

    @property
    def is_in_doubt(self) -> bool:
        """Whether nobody knows what became of the last transaction."""
        return self._doubted is not None

    @property
    def has_written(self) -> bool:
        """Whether the last transaction has changed anything."""
        return self._has_written

    @property
    def mark(self) -> int:
        """How many transactions of this link have changed anything, or tried to."""
        return self._mark

    @property
    def connection(self) -> psycopg.Connection[Row] | None:
        """The connection, for what needs it itself."""
        return self._connection

    def unavailable(self, error: psycopg.Error) -> StoreUnavailable:
        """Return what to tell of an error of the server or of the connection."""
        return StoreUnavailable(self._target.where, text_of(error), remedy_for(error))


def spread(name: str, columns: Mapping[str, tuple[str, Sequence[object]]]) -> tuple[str, list[object]]:
    """Return a query for rows that are given by columns, each with its type, and its parameters.

    A column that has one value only is sent once. The first one is always sent in full.
    """
    first = next(iter(columns))
    shown, arrays, kinds, constants, lists = [], [], [], [], []
    for column, (kind, values) in columns.items():
        if column != first and values.count(values[0]) == len(values):
            shown.append(f"%s::{kind} AS {column}")
            constants.append(values[0])
        else:
            shown.append(column)
            arrays.append(column)
            kinds.append(f"%b::{kind}[]")
            lists.append(values)
    query = f"SELECT {', '.join(shown)} FROM unnest({', '.join(kinds)}) AS {name} ({', '.join(arrays)})"
    return query, [*constants, *lists]


def key_of(schema: str, name: str) -> int:
    """Return the number of a lock: they are the database's, so it depends on the schema, too."""
    return int.from_bytes(blake2b(f"{schema}\0{name}".encode(), digest_size=8).digest(), "big", signed=True)


@lru_cache(maxsize=1_000)
def marked(query: str) -> str:
    """Return a statement with its parameters marked as psycopg takes them."""
    return _NAMED.sub(r"%(\1)s", query.replace("?", "%s"))


def _kind(name: str) -> list[str]:
    """Return all locks of the kind of one."""
    kind, colon, _ = name.partition(":")
    return [f"{kind}:{number}" for number in range(LOCKS)] if colon else [name]


def _pauses() -> Iterator[float]:
    """Return how long to wait before each attempt: longer and longer, and not all at once."""
    pause = 0.02
    while True:
        yield pause * random.uniform(0.5, 1.0)
        pause = min(2 * pause, MAX_PAUSE_SECONDS)
