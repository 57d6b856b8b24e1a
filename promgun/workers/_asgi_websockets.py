"""Follows websockets of ASGI applications: from the handshake, which is a request of HTTP, to the close.

A handshake is refused by an answer of HTTP, which is counted among the requests; an accepted one leaves them, and the
connection goes on in families of its own. ``MeasuredWebSocket`` makes the calls for Gunicorn's server.
"""

from __future__ import annotations

import struct
from collections.abc import Awaitable
from typing import Any

from gunicorn.asgi.websocket import WebSocketProtocol

from promgun.metrics.families.websockets import (
    WEBSOCKET_CLOSES,
    WEBSOCKET_CONNECTIONS,
    WEBSOCKET_DURATION_SECONDS,
    WEBSOCKET_MESSAGES,
    close_label,
)
from promgun.metrics.label_values import MessageDirection, WebsocketResult
from promgun.store.board import Cell
from promgun.workers._accounting import RequestAccounting
from promgun.workers._asgi_follower import AsgiRequest
from promgun.workers._loop_lag import LoopLag

_SECOND = 1_000_000_000
_OPEN = int(Cell.WEBSOCKETS)
_SERVER_ERROR = 500
#: RFC 6455, section 7.4.1: no close frame came, or none with a code.
ABNORMAL, NO_STATUS = 1006, 1005
_DATA = frozenset({1, 2})


class FollowedWebsocket:
    """One connection, from its handshake on, which ``request`` is.

    ``code`` is the first close code that was sent or received, 0 before.
    """

    __slots__ = ("accounting", "code", "is_open", "lag", "over", "request")

    def __init__(self, request: AsgiRequest) -> None:
        self.accounting: RequestAccounting = request.accounting
        #: measures the loop while a message is at work; None where the server does that all the time
        self.lag: LoopLag | None = getattr(request.accounting, "lag", None)
        self.request = request
        self.code = 0
        self.is_open = self.over = False

    @property
    def route(self) -> str:
        """The route of the handshake."""
        return self.request.route

    def accepted(self) -> None:
        """Count the handshake as accepted, just before 101 is sent; it is no request any longer."""
        if self.is_open or self.over:
            return
        self.is_open = True
        request, accounting = self.request, self.accounting
        request.is_over = True
        accounting.named_route(request)
        accounting.board.cells[_OPEN] += 1
        accounting.inc(WEBSOCKET_CONNECTIONS, (self.route, WebsocketResult.ACCEPTED))
        accounting.closed(request)

    def refused(self, status: int, sent: int = 0) -> None:
        """Count the handshake as refused by an answer of HTTP, just before that is sent."""
        if self.is_open or self.over:
            return
        self.over = True
        self.request.sent = sent
        self.request.finish(status)
        result = WebsocketResult.FAILED if status == _SERVER_ERROR else WebsocketResult.REFUSED
        self.accounting.inc(WEBSOCKET_CONNECTIONS, (self.route, result))

    def received(self) -> None:
        """Count a message from the client."""
        if self.lag is not None:
            self.lag.touch()
        self.accounting.inc(WEBSOCKET_MESSAGES, (MessageDirection.RECEIVED,))

    def sent(self) -> None:
        """Count a message to the client."""
        if self.lag is not None:
            self.lag.touch()
        self.accounting.inc(WEBSOCKET_MESSAGES, (MessageDirection.SENT,))

    def closing(self, code: int) -> None:
        """Note the code of a close frame that was sent or received; the first is the websocket's."""
        self.code = self.code or code

    def application_ended(self, error: BaseException | None, *, left: bool) -> None:
        """Count an exception that leaves the application instead of an answer to the handshake."""
        if not self.is_open and not self.over:
            self.request.application_ended(error, left=left)

    def ended(self) -> None:
        """Count the end of the connection."""
        if self.over:
            return
        self.over = True
        accounting, request = self.accounting, self.request
        if not self.is_open:
            # Nobody answered the handshake.
            request.over()
            accounting.inc(WEBSOCKET_CONNECTIONS, (self.route, WebsocketResult.FAILED))
            return
        accounting.board.cells[_OPEN] -= 1
        seconds = (accounting.clock() - request.start) / _SECOND
        accounting.observe(WEBSOCKET_DURATION_SECONDS, (self.route,), seconds)
        accounting.inc(WEBSOCKET_CLOSES, (close_label(self.code or ABNORMAL),))


def show_families(accounting: RequestAccounting) -> None:
    """Show the families of websockets from now on, with zeros where no label is free."""
    accounting.board.cells[_OPEN] = max(1, accounting.board.cells[_OPEN])
    for direction in MessageDirection:
        accounting.inc(WEBSOCKET_MESSAGES, (direction,), 0.0)


class MeasuredWebSocket(WebSocketProtocol):  # type: ignore[misc] # gunicorn is untyped
    """A websocket of Gunicorn's ASGI worker (25.3 to 27.0)."""

    promgun: FollowedWebsocket | None
    # Gunicorn's own since 27.0.1
    _denied = False
    _close_sent = False

    def __init__(self, transport: Any, scope: Any, app: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(transport, scope, app, *args, **kwargs)
        self.promgun = getattr(getattr(app, "__self__", None), "promgun_websocket", None)

    async def run(self) -> None:
        """Serve the handshake, then the websocket."""
        try:
            await super().run()
        finally:
            if self.promgun is not None:
                self.promgun.ended()

    def _deny(self, status: int, reason: str) -> None:
        if self.promgun is not None and not self._denied and not self._eof:
            self.promgun.refused(status)
        super()._deny(status, reason)

    async def _send_accept(self, message: Any) -> None:
        # It raises for a header that is not valid, and then sends nothing.
        await super()._send_accept(message)
        if self.promgun is not None:
            self.promgun.accepted()

    if hasattr(WebSocketProtocol, "_put_message"):

        def _put_message(self, message: Any) -> Awaitable[None]:
            if self.promgun is not None and not self._close_sent:
                self.promgun.received()
            return super()._put_message(message)  # type: ignore[no-any-return] # gunicorn is untyped

    else:
        # Before 27.0.1 only the application's own call tells of a message.
        async def _receive(self) -> Any:
            message = await super()._receive()
            if self.promgun is not None and message["type"] == "websocket.receive":
                self.promgun.received()
            return message

    def _send_frame(self, opcode: int, payload: Any) -> Awaitable[None]:
        if self.promgun is not None and opcode in _DATA:
            self.promgun.sent()
        return super()._send_frame(opcode, payload)  # type: ignore[no-any-return] # same

    def _send_close(self, code: int, *args: Any, **kwargs: Any) -> Awaitable[None]:
        if self.promgun is not None and not self._close_sent:
            self.promgun.closing(code)
        return super()._send_close(code, *args, **kwargs)  # type: ignore[no-any-return] # same

    def _handle_close(self, payload: bytes) -> Awaitable[None]:
        if self.promgun is not None:
            self.promgun.closing(struct.unpack("!H", payload[:2])[0] if len(payload) > 1 else NO_STATUS)
        return super()._handle_close(payload)  # type: ignore[no-any-return] # same

    async def _read_frames(self) -> None:
        await super()._read_frames()
        if self.promgun is not None and self.accepted:
            # The client has closed it or is gone, whether or not the application has noticed.
            self.promgun.ended()
