"""What the URL of a PostgreSQL store means, and what is refused before anything is opened."""

from __future__ import annotations

import traceback

import psycopg
import pytest

from tickwork import App
from tickwork.errors import InvalidOption
from tickwork.stores.postgres_errors import Kind, kind_of, remedy_for, text_of
from tickwork.stores.postgres_target import target_of

ENCODE = "a port is a number; in a user's name or password, :, /, @, ?, # and % are %3A, %2F, %40, %3F, %23 and %25"
SCHEMA_RULE = "schema must be a name of at most 63 bytes, without ?, % and :"


@pytest.mark.parametrize(
    ("url", "plain", "where", "schema", "notifies"),
    [
        ("postgresql://h/d", "postgresql://h/d", "postgresql://h/d", "tickwork", True),
        ("postgres://u:p@h:1/d", "postgresql://u:p@h:1/d", "postgres://u@h:1/d", "tickwork", True),
        ("postgresql://h/d?schema=a%20b&notify=off", "postgresql://h/d", "postgresql://h/d", "a b", False),
        (
            "postgresql://u@/d?host=/tmp/a%20b&schema=s&sslmode=require",
            "postgresql://u@/d?host=%2Ftmp%2Fa%20b&sslmode=require",
            "postgresql://u@/d",
            "s",
            True,
        ),
        ("postgresql:///d", "postgresql:///d", "postgresql:///d", "tickwork", True),
    ],
)
def test_a_url_names_database_schema_and_use(url: str, plain: str, where: str, schema: str, notifies: bool) -> None:
    target = target_of(url)

    assert (target.where, target.schema, target.notifies) == (where, schema, notifies)
    assert psycopg.conninfo.conninfo_to_dict(target.url) == psycopg.conninfo.conninfo_to_dict(plain)
    assert ":p@" not in repr(target)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://h/d?schema=", f"{SCHEMA_RULE}, got ''"),
        ("postgresql://h/d?schema=a%3F", f"{SCHEMA_RULE}, got 'a?'"),
        (f"postgresql://h/d?schema={'x' * 64}", f"{SCHEMA_RULE}, got {'x' * 64!r}"),
        ("postgresql://h/d?notify=maybe", 'notify must be "on" or "off", got \'maybe\''),
        (
            "postgresql://u:secret@h:port/d",
            (
                'url must be "postgresql://user@host/database", with "?schema=NAME" or "?notify=off" where wanted, got '
                f"'postgresql://...'; {ENCODE}"
            ),
        ),
        (
            "postgresql://u:s3cr%zzet@h/d",
            (
                "url must be one that libpq takes, got 'postgresql://u@h/d'; it has an option that libpq does not "
                f"know, or one mark too many: {ENCODE}"
            ),
        ),
    ],
)
def test_a_url_that_cannot_be_is_refused_when_the_app_is_made(url: str, message: str) -> None:
    with pytest.raises(InvalidOption) as refused:
        App(url)

    assert str(refused.value) == message


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:s3cret/x@h/d",
        "PostgreSQL://u:s3cret@h/d",
        " postgresql://u:s3cret@h/d",
        "'postgresql://u:s3cret@h/d'",
        "mysql://u:s3cret@h/d",
    ],
)
def test_no_error_shows_a_password(url: str) -> None:
    with pytest.raises(InvalidOption) as refused:
        App(url)

    assert "s3cr" not in "".join(traceback.format_exception(refused.value, chain=True)).partition("InvalidOption")[2]


def test_an_app_in_a_database_is_durable_and_has_no_file() -> None:
    app = App("postgresql://h/d", keep_jobs="1d", role="worker")

    assert (app.is_durable, app.path) == (True, None)


@pytest.fixture
def refused_connection() -> psycopg.Error:
    with pytest.raises(psycopg.OperationalError) as refused:
        psycopg.connect("postgresql://u@127.0.0.1:1/d")
    return refused.value


def test_what_libpq_says_is_told_in_one_line_with_a_remedy(refused_connection: psycopg.Error) -> None:
    assert kind_of(refused_connection) is Kind.AGAIN
    assert "\n" not in text_of(refused_connection)
    assert remedy_for(refused_connection).startswith("see that PostgreSQL runs there")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (psycopg.errors.DeadlockDetected(), Kind.AGAIN),
        (psycopg.errors.SerializationFailure(), Kind.AGAIN),
        (psycopg.errors.AdminShutdown(), Kind.AGAIN),
        (psycopg.errors.CannotConnectNow(), Kind.AGAIN),
        (psycopg.errors.TooManyConnections(), Kind.AGAIN),
        (psycopg.errors.ReadOnlySqlTransaction(), Kind.AGAIN),
        (psycopg.errors.IdleInTransactionSessionTimeout(), Kind.AGAIN),
        (psycopg.OperationalError("server closed the connection unexpectedly"), Kind.AGAIN),
        (psycopg.OperationalError('FATAL:  password authentication failed for user "u"'), Kind.FINAL),
        (psycopg.errors.DiskFull(), Kind.FINAL),
        (psycopg.errors.InsufficientPrivilege(), Kind.FINAL),
        (psycopg.errors.InvalidPassword(), Kind.FINAL),
        (psycopg.errors.UniqueViolation(), Kind.ASKED),
        (psycopg.errors.UntranslatableCharacter(), Kind.ASKED),
        (psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes"), Kind.ASKED),
    ],
)
def test_an_error_is_tried_again_told_or_the_callers_own(error: psycopg.Error, kind: Kind) -> None:
    assert kind_of(error) is kind


@pytest.mark.parametrize(
    ("url", "address", "dump"),
    [
        (
            "postgresql://u:secret@h:5432/d",
            "postgresql://u@h:5432/d",
            "postgresql://u@h:5432/d '--schema=\"tickwork\"'",
        ),
        (
            "postgresql:///d?host=/run/pg&password=secret&schema=My%20jobs",
            "postgresql:///d?host=%2Frun%2Fpg&schema=My%20jobs",
            "'postgresql:///d?host=%2Frun%2Fpg' '--schema=\"My jobs\"'",
        ),
    ],
)
def test_what_others_are_told_of_a_target_has_no_password(url: str, address: str, dump: str) -> None:
    target = target_of(url)
    assert target.address == address
    assert target_of(target.address).schema == target.schema
    assert target.dump_command == f"pg_dump -Fc --file=jobs.dump -d {dump}"
