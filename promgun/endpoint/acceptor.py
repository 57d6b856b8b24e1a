"""Taking connections off a listening socket, no faster than there is room for them."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from promgun.endpoint.connection_limit import address_of

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from promgun.endpoint.connection import HttpConnection
    from promgun.endpoint.connection_limit import Gate

logger = logging.getLogger("promgun.endpoint")

# Closing an evicted connection takes a turn of the loop: a turn must not open more files than RESERVED_FILES
# covers.
_AT_A_TURN = 8
_FULL_PAUSE = 0.02
_NO_RESOURCES_PAUSE = 1.0


class Acceptor:
    """Accepts on one listening socket, and pauses while the gate is full or the system is out of resources.

    asyncio's own accept loop is not used: it goes on accepting when a server has enough, and on EMFILE it
    calls ``accept`` another ``backlog`` times and schedules as many restarts (Python 3.10 to 3.13).
    """

    def __init__(self, listener: socket.socket, gate: Gate, connection: Callable[[str], HttpConnection]) -> None:
        self._listener = listener
        self._gate = gate
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._has_complained = False

    def start(self) -> None:
        """Begin, or go on after a pause."""
        self._loop.add_reader(self._listener, self._accept)

    async def stop(self) -> None:
        """Accept nothing more; what stands in the kernel's queue stays there for whoever shares the listener."""
        self._loop.remove_reader(self._listener)
        if self._pause is not None:
            self._pause.cancel()
        await asyncio.gather(*self._opening)

    def _accept(self) -> None:
        for _ in range(_AT_A_TURN):
            if not self._gate.has_room():
                self._rest(_FULL_PAUSE)
                return
            try:
                sock, peer = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._complain(error)
                self._rest(_NO_RESOURCES_PAUSE)
                return
            self._open(sock, peer)

    def _open(self, sock: socket.socket, peer: Any) -> None:
        sock.settimeout(0)
        connection = self._connection(address_of(sock.family, peer))
        self._gate.enter(connection)
        task = self._loop.create_task(self._connect(connection, sock))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _connect(self, connection: HttpConnection, sock: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: connection, sock)
        except OSError:
            # The client has gone meanwhile.
            self._gate.leave(connection)
            sock.close()

    def _rest(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener)
        self._pause = self._loop.call_later(seconds, self.start)

    def _complain(self, error: OSError) -> None:
        if not self._has_complained:
            logger.warning("Cannot take connections for metrics for now: %s", error.strerror)
        self._has_complained = True
