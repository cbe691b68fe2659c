"""Who waits in this process for the ends of jobs."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from ..errors import NotRunning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..jobs import JobRecord


class Ends:
    """The futures of those who wait, by job. Iterating gives the ids, and another thread may list them."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[asyncio.Future[JobRecord]]] = {}

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._waiting

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._waiting))

    def wait(self, job_id: str) -> asyncio.Future[JobRecord]:
        """Return a future of a job's end; it is forgotten when it is done, whoever has set or cancelled it."""
        ended: asyncio.Future[JobRecord] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(job_id, []).append(ended)
        ended.add_done_callback(partial(self._forget, job_id))
        return ended

    def _forget(self, job_id: str, ended: asyncio.Future[JobRecord]) -> None:
        waiting = self._waiting.get(job_id, [])
        if ended in waiting:
            waiting.remove(ended)
            if not waiting:
                del self._waiting[job_id]

    def tell(self, record: JobRecord) -> None:
        """Give who waits for a job its record after the end."""
        for ended in self._waiting.pop(record.id, ()):
            if not ended.done():
                ended.set_result(record)

    def fail(self, job_id: str, error: BaseException) -> None:
        """Raise an error in who waits for a job."""
        for ended in self._waiting.pop(job_id, ()):
            if not ended.done():
                ended.set_exception(error)

    def close(self) -> None:
        """Tell everybody who still waits that the store is closed."""
        for job_id in self:
            self.fail(job_id, NotRunning(f"the app stopped before job {job_id} had ended"))
