"""A TCP proxy before a server: it cuts links at a chosen moment, lets nothing through for a while, or is gone."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

Judge = Callable[[bytes], str | None]
"""Told what a client sends; returns "before" or "after" to cut its link before the server gets it or after it has
answered, "at once" to cut it before that, and "freeze before" or "freeze after" to let nothing through from then on."""


class Proxy:
    """A port of this host that leads to another; leaving the block ends all links."""

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.judge: Judge = lambda sent: None
        self.cuts = 0
        self._links: list[tuple[socket.socket, socket.socket]] = []
        self._passes = threading.Event()
        self._passes.set()
        self._is_refusing = False
        self._lock = threading.Lock()
        self._judging = threading.Lock()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._listener.close()
        self.thaw()
        self.cut()

    def cut(self) -> None:
        """End all links that there are."""
        with self._lock:
            links, self._links = self._links, []
        for pair in links:
            for end in pair:
                _end(end)

    def freeze(self) -> None:
        """Let nothing through, and say nothing: as a network that has gone."""
        self._passes.clear()

    @property
    def is_frozen(self) -> bool:
        """Whether nothing comes through."""
        return not self._passes.is_set()

    def thaw(self) -> None:
        """Let through what has come meanwhile."""
        self._passes.set()

    def lead_to(self, port: int) -> None:
        """Lead new links to another port of this host, and end those that there are."""
        self._server_port = port
        self.cut()

    def refuse(self, *, is_refusing: bool = True) -> None:
        """End each new link at once, or no longer."""
        self._is_refusing = is_refusing

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._is_refusing:
                _end(client)
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._server_port))
            except OSError:
                _end(client)
                continue
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._links.append((client, server))
            threading.Thread(target=self._carry, args=(client, server), daemon=True).start()

    def _judged(self, data: bytes) -> str | None:
        """Judge what a client sends, one link at a time: the judge of the next knows of this cut."""
        with self._judging:
            verdict = self.judge(data)
            self.cuts += verdict in ("before", "at once", "after")
            return verdict

    def _carry(self, client: socket.socket, server: socket.socket) -> None:
        is_doomed = False
        try:
            while True:
                ready, _, _ = select.select([client, server], [], [])
                self._passes.wait()
                for source in ready:
                    data = source.recv(65536)
                    if not data:
                        return
                    if is_doomed and source is server:
                        return  # it has answered, so it has done it
                    verdict = self._judged(data) if source is client and not is_doomed else None
                    if verdict == "before":
                        return
                    if verdict == "freeze before":
                        self.freeze()
                        self._passes.wait()
                    (server if source is client else client).sendall(data)
                    if verdict == "at once":
                        return
                    if verdict == "freeze after":
                        self.freeze()
                    if verdict == "after":
                        is_doomed = True  # the client may send more before the server answers
        except (OSError, ValueError):
            return
        finally:
            _end(client)
            _end(server)


def _end(end: socket.socket) -> None:
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    end.close()
