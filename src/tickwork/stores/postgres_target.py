"""Which database a URL means, and how it is to be used: "postgresql://user@host/name?schema=jobs&notify=off"."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from importlib.util import find_spec
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from ..errors import InvalidOption

SCHEMES = ("postgresql", "postgres")
EXPECTED = '"postgresql://user@host/database", with "?schema=NAME" or "?notify=off" where wanted'
SCHEMA = "tickwork"
ENCODE = "a port is a number; in a user's name or password, :, /, @, ?, # and % are %3A, %2F, %40, %3F, %23 and %25"
MAX_NAME = 63
"""Bytes of a name in PostgreSQL: it cuts longer ones, so that two could be one."""


@dataclass(frozen=True, slots=True)
class Target:
    """A database, and the schema in it that holds the tables.

    Attributes:
        url: What libpq connects to; it may hold a password.
        where: The same for people, without the password.
        schema: The schema; it is made where there is none.
        notifies: Whether processes tell each other of new jobs with LISTEN and NOTIFY, and prepare statements. False:
            behind a pgbouncer that gives each transaction another connection, nothing of a session lasts.
    """

    url: str = field(repr=False)
    where: str
    schema: str = SCHEMA
    notifies: bool = True

    @property
    def address(self) -> str:
        """The URL of the schema, as an app takes it, but without a password."""
        plain = self.plain
        return plain if self.schema == SCHEMA else f"{plain}{'&' if '?' in plain else '?'}schema={quote(self.schema)}"

    @property
    def plain(self) -> str:
        """What libpq connects to, without a password; it asks for one, or finds it in ~/.pgpass or PGPASSWORD."""
        parts = urlsplit(self.url)
        options = [(name, value) for name, value in parse_qsl(parts.query) if name not in ("password", "sslpassword")]
        query = urlencode(options, quote_via=quote)
        return f"{self.where}?{query}" if query else self.where

    @property
    def dump_command(self) -> str:
        """What copies the schema as it stands at one moment, for a shell."""
        pattern = '"' + self.schema.replace('"', '""') + '"'  # as it stands: without quotes it is a pattern
        return shlex.join(["pg_dump", "-Fc", "--file=jobs.dump", "-d", self.plain, f"--schema={pattern}"])


def is_postgres(url: object) -> bool:
    """Return whether a URL means a PostgreSQL database."""
    return str(url).partition("://")[0] in SCHEMES


def target_of(url: str) -> Target:
    """Return what a URL means.

    Raises:
        InvalidOption: It is no such URL, has an option that cannot be, or psycopg is not installed.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # which may show a part of the password
        raise InvalidOption("url", EXPECTED, "postgresql://...", remedy=ENCODE) from None
    if parts.scheme not in SCHEMES or parts.fragment:
        raise InvalidOption("url", EXPECTED, where_of(url))
    ours = {"schema": SCHEMA, "notify": "on"}
    theirs = []
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name in ours:
            ours[name] = value
        else:
            theirs.append((name, value))
    schema = ours["schema"]
    if not schema or set(schema) & set("\0?%:") or len(schema.encode("utf-8", "replace")) > MAX_NAME:
        raise InvalidOption("schema", f"a name of at most {MAX_NAME} bytes, without ?, % and :", schema)
    if ours["notify"] not in ("on", "off"):
        raise InvalidOption("notify", '"on" or "off"', ours["notify"])
    if find_spec("psycopg") is None:
        remedy = "pip install 'tickwork[postgres]'"
        raise InvalidOption("url", "used with psycopg installed", where_of(url), remedy=remedy)
    query = urlencode(theirs, quote_via=quote)
    plain = f"postgresql://{parts.netloc}{parts.path}"  # `urlunsplit` leaves out the slashes where no host is named
    plain = f"{plain}?{query}" if query else plain
    _check(plain, where_of(url))
    return Target(url=plain, where=where_of(url), schema=schema, notifies=ours["notify"] == "on")


def _check(url: str, where: str) -> None:
    """Refuse what libpq does not take, now and without its words, in which a part of a password may stand."""
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    try:
        conninfo_to_dict(url)
    except ProgrammingError:
        remedy = f"it has an option that libpq does not know, or one mark too many: {ENCODE}"
        raise InvalidOption("url", "one that libpq takes", where, remedy=remedy) from None


def where_of(url: str) -> str:
    """Return a URL without its password and options, for people."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    return f"{parts.scheme}://{user.partition(':')[0]}{at}{host}{parts.path}"
