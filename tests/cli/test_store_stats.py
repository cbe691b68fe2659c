"""`tickwork store stats` of PostgreSQL."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from tickwork.clock import SystemClock
from tickwork.conformance import declare, new_job
from tickwork.stores.postgres import PostgresStore
from tickwork.stores.postgres_schema import VERSIONS

from .command import tickwork

if TYPE_CHECKING:
    from pathlib import Path

    from tickwork.stores.postgres_target import Target


async def test_stats_show_what_is_in_a_schema(schema: str, target: Target, tmp_path: Path) -> None:
    store, clock = PostgresStore(target, SystemClock(), worker="w"), SystemClock()
    await store.open()
    await store.enqueue([new_job(clock), new_job(clock, delay=3_600)])
    await store.set_schedule([declare()])
    ended = tickwork("store", "stats", schema, "--json", cwd=tmp_path)
    assert (ended.status, ended.err) == (0, "")
    shown = tickwork("store", "stats", schema, cwd=tmp_path).out
    await store.close()

    found = json.loads(ended.out)
    assert {state: count for state, count in found["jobs"].items() if count} == {"queued": 1, "scheduled": 1}
    assert (found["schedules"], found["ledger"], found["workers"], found["version"]) == (1, 0, ["w"], len(VERSIONS))
    assert found["bytes"] == sum(found["tables"].values())
    assert found["tables"]["jobs"] > found["tables"]["batches"] > 0
    assert re.search(r"^jobs queued +1$", shown, re.MULTILINE)
    assert re.search(r"^oldest queued +due \S+ ago$", shown, re.MULTILINE)
    assert re.search(r"^size of jobs +\d\.\d MB$", shown, re.MULTILINE)


def test_stats_of_no_tables_are_refused_and_make_none(schema: str, target: Target, tmp_path: Path) -> None:
    for _ in range(2):
        ended = tickwork("store", "stats", schema, cwd=tmp_path)
        assert (ended.status, ended.out) == (2, "")
        assert ended.err.startswith(f'tickwork: store {target.where}: relation "schedules" does not exist')
