"""What PostgreSQL and the network say, and what it means: try again, give up, or mend what was asked."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psycopg


MOVED = "TWMOV"
"""What our own triggers say in a schema whose jobs were moved; the detail is where to. See `postgres_moving`."""


class Kind(Enum):
    """What to do about an error."""

    AGAIN = "the next attempt may succeed: the connection was lost, or two transactions were in each other's way"
    FINAL = "the server cannot do its work, and will not soon"
    ASKED = "the fault of what was asked"


_AGAIN = ("08", "57P", "40", "55P03", "25006", "25P03", "53300")
"""Connection lost, server stopping or starting, deadlock or serialization, lock not available, a standby, a transaction
that was idle for too long, no connection free."""
_FINAL = ("28", "3D", "42501", "53", "58", "XX", "25P02", "42P01", "3F000")
"""Wrong password or user, no such database, no right, no room on disk or in memory, trouble of its system, damage;
tables that have gone."""

_REMEDIES = (
    ("28P01", "set the right password, in the URL or in ~/.pgpass"),
    ("28", "see which users pg_hba.conf lets in, and how"),
    ("3D", "create the database: createdb NAME"),
    ("42501", 'let this user create the schema (GRANT CREATE ON DATABASE ...), or make one for it: "?schema=..."'),
    ("53100", "make room on the server's disk; what was asked for is not done"),
    ("55P03", "a transaction that is open has the tables: see in pg_stat_activity whose, end it, and try again"),
    ("53300", "let the server take more connections (max_connections), or put pgbouncer before it"),
    ("53", "see what the server lacks; what was asked for is not done"),
    ("25006", "it is a standby, or read-only: name the primary, or add target_session_attrs=read-write to the URL"),
    ("42P01", "start the app anew: it makes its tables where there are none"),
    ("3F000", "start the app anew: it makes its tables where there are none"),
)
"""What to do, by the beginning of SQLSTATE."""

_DENIED = (
    ("for schema", "let this user make tables in it (GRANT CREATE ON SCHEMA ...), or let its owner start once"),
    ("for table", "let this user read and change all tables and sequences of the schema (GRANT ... ON ALL ...)"),
    ("for sequence", "let this user draw numbers (GRANT USAGE ON ALL SEQUENCES IN SCHEMA ...)"),
    ("must be owner", "migrate the tables as their owner: tickwork store migrate"),
)
"""What to do about a right that is missing, by what a server says that speaks English."""

_WITHOUT_STATE = (
    ("password authentication failed", "set the right password, in the URL or in ~/.pgpass"),
    ("no password supplied", "set the password, in the URL or in ~/.pgpass"),
    ("no pg_hba.conf entry", "see which users pg_hba.conf lets in, and how"),
    ("does not exist", "create it, or name another in the URL"),
    ("too many clients", "let the server take more connections (max_connections), or put pgbouncer before it"),
    ("could not translate host name", "see that the host in the URL is right"),
    ("failed to resolve host", "see that the host in the URL is right"),
    ("connection refused", "see that PostgreSQL runs there, and takes connections (listen_addresses, port)"),
    ("no such file or directory", "see that PostgreSQL runs there, and takes connections (listen_addresses, port)"),
    ("timeout", "see that host and port are right, and no firewall is between"),
)
"""The same, by what libpq says when a connection is refused: it gives no SQLSTATE."""
_POOLERS = (
    ("statement pooling mode", "let pgbouncer lend a connection for a transaction (pool_mode = transaction)"),
    ("query_wait_timeout", "let pgbouncer make more connections to the server (default_pool_size)"),
)
"""The same, by what pgbouncer says: its SQLSTATE is always the same."""
_REFUSALS = ("password authentication failed", "no password supplied", "no pg_hba.conf entry", "does not exist")


def kind_of(error: psycopg.Error) -> Kind:
    """Return what to do about an error."""
    import psycopg

    state = error.sqlstate
    if state is None:
        if any(sign in str(error) for sign in _REFUSALS):
            return Kind.FINAL
        return Kind.AGAIN if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError) else Kind.ASKED
    if state.startswith(_AGAIN):
        return Kind.AGAIN
    return Kind.FINAL if state.startswith(_FINAL) else Kind.ASKED


def is_clash(error: psycopg.Error) -> bool:
    """Tell whether two transactions were in each other's way: a deadlock, say, of which the server has ended one."""
    return (error.sqlstate or "").startswith("40")


def text_of(error: psycopg.Error) -> str:
    """Return what an error says, in one line."""
    lines = [line.strip() for line in str(error).splitlines()]
    return "; ".join(line for line in lines if line) or type(error).__name__


def remedy_for(error: psycopg.Error) -> str:
    """Return what a person can do about an error; "" where nothing is known."""
    if error.sqlstate == "08P01":
        return next((remedy for sign, remedy in _POOLERS if sign in str(error)), "")
    if error.sqlstate is not None:
        if error.sqlstate == "42501":
            found = next((remedy for sign, remedy in _DENIED if sign in str(error).lower()), "")
            if found:
                return found
        return next((remedy for sign, remedy in _REMEDIES if error.sqlstate.startswith(sign)), "")
    text = str(error).lower()
    return next((remedy for sign, remedy in _WITHOUT_STATE if sign in text), "")
