"""Follows how a connection of uvicorn's ends: a client may have left before it was answered, though no write fails."""

from __future__ import annotations

from typing import Any

_NOTHING = object()


class EndObserver:
    """Goes before an HTTP protocol of uvicorn's."""

    transport: Any
    #: the cycle that began last
    promgun_running: Any = None
    #: once the client has ended its side: the request that had been answered last, or ``_NOTHING``
    promgun_ended: object = None

    def eof_received(self) -> Any:
        """Note that the client has left: the loop tells of the lost connection a moment later."""
        stays_open = super().eof_received()  # type: ignore[misc] # the next class in the MRO
        if not stays_open and not self.transport.get_write_buffer_size():
            request = None if self.promgun_running is None else self.promgun_running.promgun
            self.promgun_ended = _NOTHING if request is None or not request.is_over else request
        return stays_open

    def connection_lost(self, exc: Exception | None) -> None:
        """End a connection."""
        super().connection_lost(exc)  # type: ignore[misc] # the next class in the MRO
        request = None if self.promgun_running is None else self.promgun_running.promgun
        if self.promgun_ended is not None and request is not None and request is not self.promgun_ended:
            request.answered_nobody()
