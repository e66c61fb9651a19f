"""Distributes new connections evenly among the gateway processes.

They share the supervisor's listening socket, so that no connection is lost while a process is
started again. But whichever process runs at the moment takes all that wait: of 16 connections that
were opened together, one of two processes took 15. Clients keep their connections, so it would stay
like that. Here a process accepts one connection at a time, and leaves it to the others while it has
more than one of them.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Any

from serving.gateways.peers import CONNECTIONS, Peers

log = logging.getLogger("visionloop")

PAUSE = 0.002  # seconds for which a connection is left to the others
LONGEST = 10  # such pauses in a row; then the others are busy, and it is accepted
NO_FILES = 1.0  # seconds to wait when no file can be opened


class FairListener:
    """Accepts the connections of a listening socket; an `asyncio.Server` as far as uvicorn uses it.

    Args:
        loop: The running event loop.
        factory: Makes the protocol of a connection.
        listening: The socket; its owner closes it.
        peers: The other processes that accept from it.
        tls: For encrypted connections.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        factory: Callable[[], asyncio.Protocol],
        listening: socket.socket,
        peers: Peers,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.sockets = (listening,)
        self._loop = loop
        self._factory = factory
        self._listening = listening
        self._peers = peers
        self._tls = tls
        self._left = 0  # pauses in a row
        self._timer: asyncio.TimerHandle | None = None
        self._opening: set[asyncio.Task[None]] = set()
        listening.setblocking(False)
        peers.set(CONNECTIONS, 0)
        self._resume()

    def close(self) -> None:
        """Accept no further connection; those that are open stay."""
        self._loop.remove_reader(self._listening)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self._peers.set(CONNECTIONS, float("inf"))

    async def wait_closed(self) -> None:
        await asyncio.gather(*self._opening, return_exceptions=True)

    def _resume(self) -> None:
        self._timer = None
        self._loop.add_reader(self._listening, self._accept)

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._listening)
        self._timer = self._loop.call_later(seconds, self._resume)

    def _accept(self) -> None:
        if self._peers.has_more_than_others(CONNECTIONS) and self._left < LONGEST:
            self._left += 1
            self._pause(PAUSE)
            return
        self._left = 0
        try:
            connection, _ = self._listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another process has accepted it, or it was closed
        except OSError as error:
            log.error("No connection can be accepted now: %s", error)
            self._pause(NO_FILES)
            return
        connection.setblocking(False)
        self._peers.add(CONNECTIONS, 1)  # of those that wait, the next may be another process's
        opening = self._loop.create_task(self._open(connection))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)

    async def _open(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(
                self._counted, connection, ssl=self._tls or None
            )
        except Exception as error:  # closed already, or no TLS
            log.debug("A connection was not opened: %s", error)
            self._peers.add(CONNECTIONS, -1)
            connection.close()

    def _counted(self) -> asyncio.Protocol:
        """A protocol whose connection counts until it is lost."""
        protocol: Any = self._factory()

        def connection_lost(error: Exception | None) -> None:
            self._peers.add(CONNECTIONS, -1)
            del protocol.connection_lost  # else the two would refer to each other
            protocol.connection_lost(error)

        protocol.connection_lost = connection_lost
        return protocol


def accept_fairly(loop: asyncio.AbstractEventLoop, peers: Peers) -> None:
    """Have servers that `loop` creates from now on, on a given socket, be FairListeners."""
    if peers.alone:
        return

    async def create_server(
        factory: Callable[[], asyncio.Protocol],
        *,
        sock: socket.socket,
        ssl: ssl.SSLContext | None = None,
        **_: Any,
    ) -> FairListener:
        return FairListener(loop, factory, sock, peers, ssl)

    changed: Any = loop
    changed.create_server = create_server
