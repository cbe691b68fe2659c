"""The suite that every store runs, run by ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tickwork.stores.base import Store
from tickwork.stores.memory import MemoryStore
from tickwork.stores.postgres import PostgresStore
from tickwork.stores.postgres_target import Target
from tickwork.stores.sqlite import SQLiteStore
from tickwork.testing import HandClock, StoreConformance

MakeStore = Callable[[HandClock, int], Store]


class OurLoop(StoreConformance):
    @pytest.fixture
    def anyio_backend(self, real_backend: Any) -> Any:
        return real_backend


class TestMemory(OurLoop):
    @pytest.fixture
    def make_store(self) -> MakeStore:
        return lambda clock, max_queued: MemoryStore(clock, max_queued=max_queued)


class TestSQLite(OurLoop):
    forget_seconds = 31 * 86_400.0

    @pytest.fixture
    def make_store(self, tmp_path: Path) -> MakeStore:
        return lambda clock, max_queued: SQLiteStore(
            tmp_path / "jobs.db", clock, worker=self.worker, max_queued=max_queued, keeps_house=False
        )


class TestPostgres(OurLoop):
    forget_seconds = 31 * 86_400.0

    @pytest.fixture
    def make_store(self, target: Target) -> MakeStore:
        return lambda clock, max_queued: PostgresStore(
            target, clock, worker=self.worker, max_queued=max_queued, keeps_house=False
        )
