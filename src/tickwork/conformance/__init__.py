"""What every store must do, as tests: a class whose subclass names a store, and pytest does the rest.

    from tickwork.testing import StoreConformance

    class TestMyStore(StoreConformance):
        @pytest.fixture
        def make_store(self, tmp_path):
            return lambda clock, max_queued: MyStore(tmp_path / "jobs", clock, max_queued=max_queued)

Time is a clock that the tests move by hand, so a store must ask it and no other, and whatever it does unasked (renew
leases, rescue, prune) must be off. The loop is a real one: threads and sockets are welcome. The tests use only the
verbs of `tickwork.stores.base`; how a store survives a crash of its process, and what it says when its disk is full,
only the store itself can test.
"""

from __future__ import annotations

from .batches import BatchChecks
from .claims import ClaimChecks
from .firing import FiringChecks
from .kit import START, HandClock, declare, ending, firing, ids, lease, new_job
from .leases import LeaseChecks
from .limits import LimitChecks
from .looking import LookChecks
from .room import RoomChecks
from .schedules import ScheduleChecks

__all__ = ["START", "HandClock", "StoreConformance", "declare", "ending", "firing", "ids", "lease", "new_job"]


class StoreConformance(
    ClaimChecks, RoomChecks, LimitChecks, LeaseChecks, LookChecks, BatchChecks, FiringChecks, ScheduleChecks
):
    """Tests that any store must pass; a subclass gives the fixture `make_store`.

    Attributes:
        worker: The name under which the tests claim; the store must take that worker for a living one.
        forget_seconds: After how long `prune` forgets what is finished; None: not by age.
    """
