"""Who waits in this process for the ends of jobs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ..errors import NotRunning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..jobs import JobRecord


class _End(asyncio.Future["JobRecord"]):
    """The end of a job, for one who waits for it. A callback that cleans up would cost as much as all the rest."""

    def __init__(self, ends: Ends, job_id: str) -> None:
        super().__init__(loop=asyncio.get_running_loop())
        self.ends = ends
        self.job_id = job_id

    def cancel(self, msg: Any = None) -> bool:
        """Wait no more; once it is done, be forgotten all the same."""
        self.ends.forget(self)
        return super().cancel(msg)


class Ends:
    """The futures of those who wait, by job. Iterating gives the ids, and another thread may list them."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[_End]] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._waiting

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._waiting))

    def wait(self, job_id: str) -> asyncio.Future[JobRecord]:
        """Return a future of a job's end. Who waits no more, or has set it, cancels it, and it is forgotten."""
        ended = _End(self, job_id)
        waiting = self._waiting.get(job_id)
        if waiting is None:
            self._waiting[job_id] = [ended]
        else:
            waiting.append(ended)
        return ended

    def forget(self, ended: _End) -> None:
        """Forget one who waits no more."""
        waiting = self._waiting.get(ended.job_id)
        if waiting is not None and ended in waiting:
            waiting.remove(ended)
            if not waiting:
                del self._waiting[ended.job_id]

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
