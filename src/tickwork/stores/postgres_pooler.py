"""Whether a pooler stands before the server that gives each transaction another connection, as pgbouncer mostly does.

Then nothing that is set for a session holds: a statement that was prepared is not there, LISTEN hears nothing, and
`search_path` is set for whoever has that connection next. None of this is told. So a store that counts on its session
looks first: a pooler gives itself away because the process of the server is not the one that it was told when it
connected. Whether that pooler lends its connections for a session or for a transaction is seen by what a second
connection gets meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

    Connection = psycopg.Connection[Any]

REASON = "a pooler is between, and gives each transaction another connection"
REMEDY = 'add "notify=off" to the options of the URL, or name the server itself'
LOOKS = 3
"""Other clients of the pooler may have taken a connection in the very moment, or have given it back."""


def is_lent(connection: Connection, pid: int, connect: Callable[[], Connection]) -> bool:
    """Return whether each transaction on a connection may be in another process of the server.

    Args:
        connection: One on which no transaction is open.
        pid: The process of the server that it was in just now.
        connect: Makes another one, of the same kind.
    """
    if pid == connection.info.backend_pid:
        return False
    other = connect()
    try:
        other.execute("BEGIN")
        # In this order: where the pooler has one connection only, the other has it, and the first would wait.
        return process_of(other) == pid or any(process_of(connection) != pid for _ in range(LOOKS))
    finally:
        other.close()


def process_of(connection: Connection) -> int:
    """Return the process of the server that a statement runs in."""
    (pid,) = connection.execute("SELECT pg_backend_pid()", prepare=False).fetchone() or (0,)
    return int(pid)
