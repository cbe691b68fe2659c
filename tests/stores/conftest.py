"""What the tests of stores share: a PostgreSQL server, and a schema of its own for each test."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import pytest

from postgres_server import QUICK, running
from tickwork.stores.postgres_target import Target, target_of

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a database in which the tests may make schemas."""
    given = os.environ.get("TICKWORK_TEST_POSTGRES")
    if given:
        yield given
        return
    with running(**QUICK) as server:
        yield server.url


@pytest.fixture
def schema(postgres_url: str) -> Iterator[str]:
    """The URL of a schema that does not exist yet; it goes with the test."""
    import psycopg

    name = f"tickwork_test_{os.getpid()}_{next(_numbers)}"
    yield f"{postgres_url}{'&' if '?' in postgres_url else '?'}schema={name}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"DROP SCHEMA IF EXISTS {name} CASCADE")


@pytest.fixture
def target(schema: str) -> Target:
    """The same, as a store takes it."""
    return target_of(schema)
