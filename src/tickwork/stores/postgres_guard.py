"""A thread that gives up connections on which the server does not answer any more.

A network that is gone is noticed by the system, see `postgres_link.DEFAULTS`. A server that hangs (its disk does, or
its machine is stopped) is not: its system goes on to say that all has arrived. Whoever waits for it would wait for
ever, and so would whoever closes the store. Nothing but a thread of its own can tell, for all others may wait there.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .postgres_link import Link

ANSWER_SECONDS = 60.0
"""So long a transaction may take, of which each takes milliseconds: most of it would be waiting for locks, behind
a migration, say."""
CLOSING_SECONDS = 10.0
"""The same while the store closes: the program is about to end."""
LOOK_SECONDS = 1.0


class Guard:
    """Looks after links.

    Args:
        links: Which.
    """

    def __init__(self, links: Sequence[Link]) -> None:
        self._links = links
        self._over = threading.Event()
        self._is_closing = False

    def open(self) -> None:
        """Start the thread."""
        self._over = threading.Event()
        self._is_closing = False
        threading.Thread(target=self._work, args=(self._over,), name="tickwork-postgres-guard", daemon=True).start()

    def hasten(self) -> None:
        """Have less patience from now on."""
        self._is_closing = True

    def close(self) -> None:
        """End the thread; it is gone soon."""
        self._over.set()

    def _work(self, over: threading.Event) -> None:
        while not over.wait(LOOK_SECONDS):
            for link in self._links:
                link.give_up(CLOSING_SECONDS if self._is_closing else ANSWER_SECONDS)
