"""Follows uvicorn's websockets, whichever library speaks their protocol.

The three implementations (uvicorn 0.30 to 0.54: ``websockets_sansio_impl``, ``websockets_impl``, ``wsproto_impl``) have
in common that ``run_asgi`` serves the connection with ``app``, that the answer to the handshake is the first thing
written to ``transport``, and that ``connection_lost`` is called once. Close codes are where the library keeps them.
"""

from __future__ import annotations

from typing import Any

from promgun.metrics.families.websockets import WEBSOCKET_CONNECTIONS
from promgun.metrics.label_values import WebsocketResult
from promgun.workers._asgi_follower import begin_request, count_refused
from promgun.workers._asgi_websockets import NO_STATUS, FollowedWebsocket

_SWITCHING = 101


def measured_websocket(named: Any, worker: Any) -> Any:
    """Return a class derived from ``named``, a protocol of uvicorn's for websockets, followed for ``worker``."""
    if not isinstance(named, type):
        return named
    namespace = {"__module__": named.__module__, "_worker": worker}
    return type(named.__name__, (MeasuredWebsocketProtocol, named), namespace)


class MeasuredWebsocketProtocol:
    """Goes before a protocol of uvicorn's for websockets."""

    promgun: FollowedWebsocket | None = None
    _worker: Any
    _lost = False

    app: Any
    scope: Any
    transport: Any

    def connection_made(self, transport: Any) -> None:
        """Begin with a connection that asks for a websocket."""
        super().connection_made(HandshakeTransport(transport, self._answering))  # type: ignore[misc] # the next class
        conn: Any = getattr(self, "conn", None)
        if type(conn).__module__.partition(".")[0] == "wsproto":
            conn.send = _followed_send(conn.send, self._closing)

    def _answering(self, status: int, sent: int) -> None:
        """Count the answer to the handshake, which is being written."""
        followed = self.promgun
        if followed is None:
            # The library refuses what is no handshake, before the application is called.
            count_refused(self._worker.accounting, None, "GET", status, sent)
            self._worker.accounting.inc(WEBSOCKET_CONNECTIONS, ("", WebsocketResult.REFUSED))
        elif status == _SWITCHING:
            followed.accepted()
        else:
            followed.refused(status, sent)

    async def run_asgi(self) -> None:
        """Serve the handshake, then the websocket."""
        scope, application = self.scope, self.app
        accounting, headers = self._worker.accounting, scope["headers"]
        request = begin_request(accounting, "GET", scope["path"], scope["client"], headers, scope)
        followed = self.promgun = FollowedWebsocket(request)
        self.app = _followed_application(application, followed, lambda: self._lost)
        try:
            await super().run_asgi()  # type: ignore[misc] # the next class in the MRO
        finally:
            self.app = application
            # The library may write the answer to the handshake after this (websockets_impl of uvicorn 0.30).
            if self._lost:
                followed.ended()

    def handle_close(self, event: Any) -> None:
        """Note a close frame; wsproto's has the code in the event, ``websockets`` keeps it."""
        code = getattr(event, "code", None)
        if code is not None:
            self._closing(code)
        super().handle_close(event)  # type: ignore[misc] # the next class in the MRO

    def _closing(self, code: int) -> None:
        if self.promgun is not None:
            self.promgun.closing(code)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the websocket, whatever the application still does."""
        self._lost = True
        followed = self.promgun
        if followed is not None:
            if followed.is_open and not followed.code:
                followed.closing(_close_code(getattr(self, "conn", self)))
            followed.ended()
        super().connection_lost(exc)  # type: ignore[misc] # the next class in the MRO


class HandshakeTransport:
    """A transport that tells the status of the answer to the handshake and its bytes of body, before it is written.

    It stands in for the real one in the protocol until then; everything else is the real one's.
    """

    def __init__(self, transport: Any, answering: Any) -> None:
        self._transport = transport
        self._answering = answering

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._transport, name)
        # Kept: the next look-up does not come here.
        self.__dict__[name] = found
        return found

    def write(self, data: bytes) -> None:
        """Tell the status if the data begins with it, then write."""
        answering = self._answering
        if answering is not None:
            head, _, body = bytes(data).partition(b"\r\n\r\n")
            fields = head.split(b" ", 2)
            if head.startswith(b"HTTP/") and len(fields) > 1 and fields[1].isdigit():
                # Then every write is the real transport's.
                self._answering = None
                self.__dict__["write"] = self._transport.write
                answering(int(fields[1]), len(body))
        self._transport.write(data)


def _followed_application(application: Any, followed: FollowedWebsocket, is_lost: Any) -> Any:
    async def call_application(scope: Any, receive: Any, send: Any) -> Any:
        async def receive_followed() -> Any:
            message = await receive()
            if message["type"] == "websocket.receive":
                followed.received()
            return message

        def send_followed(message: Any) -> Any:
            if message["type"] == "websocket.send" and followed.is_open and not followed.over:
                followed.sent()
            return send(message)

        try:
            result = await application(scope, receive_followed, send_followed)
        except BaseException as error:
            followed.application_ended(error, left=is_lost())
            raise
        followed.application_ended(None, left=is_lost())
        return result

    return call_application


def _followed_send(send: Any, closing: Any) -> Any:
    """Return wsproto's ``Connection.send``, telling the codes of close frames."""

    def send_followed(event: Any) -> Any:
        if type(event).__name__ == "CloseConnection":
            closing(event.code)
        return send(event)

    return send_followed


def _close_code(connection: Any) -> int:
    """Return the code of the first close frame of a connection of ``websockets`` (10 to 17), 0 if there was none."""
    received, sent = getattr(connection, "close_rcvd", None), getattr(connection, "close_sent", None)
    received_first = sent is None or getattr(connection, "close_rcvd_then_sent", False)
    first = received if received is not None and received_first else sent
    return 0 if first is None else int(getattr(first, "code", 0)) or NO_STATUS
