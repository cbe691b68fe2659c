from __future__ import annotations

import sys
from time import thread_time

import pytest

from tickwork.batch.pace import WORK_SECONDS, Pace


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts what only Linux counts by thread")
def test_a_thread_that_computes_stops_often() -> None:
    import resource

    def stops() -> int:
        return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw

    pace, before = Pace(), stops()
    until = thread_time() + 40 * WORK_SECONDS
    while thread_time() < until:
        pace.keep()
    assert stops() - before >= 20
