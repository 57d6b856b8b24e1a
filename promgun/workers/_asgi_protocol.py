"""Follows the requests of a connection of Gunicorn's ASGI worker.

The seams are those of gunicorn 27.0.1. An HTTP/1 request begins with ``_build_http_scope``, which
``_handle_http_request`` calls first, and its application is ``app``. Its answer leaves by ``_send_body``, by
``_safe_write`` (the last write of an answer whose last message has no body), or by ``_send_error_response``; all three
hand bytes to the transport and do not wait. HTTP/2 and websockets have their own, see ``_asgi_http2`` and
``_asgi_websockets``.
"""

from __future__ import annotations

import asyncio
import sys
from inspect import signature
from time import monotonic_ns
from typing import Any

from gunicorn.asgi.protocol import ASGIProtocol

from promgun.workers._asgi_follower import AsgiRequest, begin_request, count_refused
from promgun.workers._asgi_http2 import StreamObserver
from promgun.workers._asgi_websockets import FollowedWebsocket

#: Whether ``_send_body`` is told that a piece is the last one: since gunicorn 27.0.1. Before, it calls ``_safe_write``,
#: and nothing is written at the end of a body of known length.
_LAST_PIECE_IS_TOLD = [*signature(ASGIProtocol._send_body).parameters] == ["self", "body", "chunked", "last", "size"]  # noqa: SLF001 - Gunicorn has no other way
# A call of these costs 80 ns less than one through super() (CPython 3.11).
_build_http_scope, _send_body = ASGIProtocol._build_http_scope, ASGIProtocol._send_body  # noqa: SLF001 - same

_NOTHING = object()


class MeasuredProtocol(ASGIProtocol):  # type: ignore[misc] # gunicorn is untyped
    """A connection of HTTP/1 or HTTP/2, whose requests are followed one after the other."""

    #: the last request that began on this connection; of HTTP/2, the one whose application is about to be called
    _promgun: AsgiRequest | None = None
    #: bytes of body that were received since the last answer
    _received = 0
    promgun_websocket: FollowedWebsocket | None = None
    _stream: StreamObserver | None = None
    #: whether the connection was lost; Gunicorn's own since 27.0.1
    _conn_lost_handled = False
    #: whether a piece of body is being written (before 27.0.1)
    _writes_piece = False
    #: once the client has ended its side: the request that had been answered last, or ``_NOTHING``
    _ended: object = None
    #: whether the server answered while reading, and closes the connection for that
    _refused = False

    def __init__(self, worker: Any) -> None:
        super().__init__(worker)
        self._application: Any = worker.asgi
        self.app = self._call_application

    # ---- what is received

    def connection_made(self, transport: Any) -> None:
        """Begin a connection, and observe how long it waited for that."""
        sock = transport.get_extra_info("socket")
        if sock is not None and isinstance(transport.get_extra_info("peername"), tuple):
            self.worker.observe_arrival(sock, monotonic_ns())
        super().connection_made(transport)

    def eof_received(self) -> bool | None:
        """Note that the client has left: the loop tells of the lost connection a moment later."""
        stays_open: bool | None = super().eof_received()
        if not stays_open and self._stream is None and not self.transport.get_write_buffer_size():
            followed = self._promgun
            self._ended = _NOTHING if followed is None or not followed.is_over else followed
        return stays_open

    def connection_lost(self, exc: Exception | None) -> None:
        """End a connection."""
        super().connection_lost(exc)
        self._conn_lost_handled = True
        followed = self._promgun
        if self._ended is not None and followed is not None and followed is not self._ended:
            followed.answered_nobody()

    def _on_body(self, chunk: bytes) -> None:
        self._received += len(chunk)
        super()._on_body(chunk)

    # ---- one request of HTTP/1

    def _build_http_scope(self, request: Any, sockname: Any, peername: Any) -> Any:
        # The first thing that _handle_http_request does.
        scope = _build_http_scope(self, request, sockname, peername)
        self._promgun = followed = begin_request(
            self.worker.accounting, request.method, request.path, peername, scope["headers"], scope
        )
        if self._refused:
            # A bad chunk that came with the head: the answer is out, and the application answers into nothing.
            followed.discard()
        return scope

    async def _call_application(self, scope: Any, receive: Any, send: Any) -> None:
        followed, stream = self._promgun, self._stream
        if followed is None or stream is not None or self.promgun_websocket is not None:
            await self._call_application_of(followed, stream, scope, receive, send)
            return

        def send_followed(message: Any) -> Any:
            if message["type"] == "http.response.start":
                if not self._closed:
                    # The server heeds the first one, unless it had a header that is not valid.
                    if not followed.pending or not self._has_begun(followed):
                        followed.pending = message["status"]
                elif not followed.given:
                    followed.given = message["status"]
            return send(message)

        try:
            sends = send_followed if _LAST_PIECE_IS_TOLD else self._until_the_last(send_followed, followed)
            await self._application(scope, receive, sends)
        except BaseException as error:
            self._application_ended(followed, error)
            raise
        if not followed.is_over:
            self._application_ended(followed, None)

    def _until_the_last(self, send: Any, followed: AsgiRequest) -> Any:
        """Return a ``send`` that counts the answer when its last message was sent (before gunicorn 27.0.1)."""

        async def send_and_look(message: Any) -> None:
            await send(message)
            is_last = message["type"] == "http.response.body" and not message.get("more_body")
            if is_last and followed.status and not followed.is_over and not self._closed:
                self._finish(followed)

        return send_and_look

    def _application_ended(self, followed: AsgiRequest, error: BaseException | None) -> None:
        worker = self.worker
        if not followed.is_over:
            self._take_received(followed)
            # The server may answer yet, and does not wait for anything in between.
            worker.loop.call_soon(lambda: followed.over(by_master=worker.cuts_off))
        if worker.cuts_off and isinstance(error, asyncio.CancelledError):
            return
        left = self._conn_lost_handled and not followed.is_over
        receiver = self._body_receiver
        uploading = left and receiver is not None and not receiver._complete  # noqa: SLF001 - Gunicorn has no other way
        followed.application_ended(error, left=left, uploading=uploading)

    # ---- a websocket, a stream of HTTP/2

    async def _handle_websocket(self, request: Any, sockname: Any, peername: Any) -> None:
        headers = getattr(request, "headers_bytes", ())
        followed = begin_request(self.worker.accounting, request.method, request.path, peername, headers)
        self._promgun = followed
        # The server's MeasuredWebSocket finds it by its application, which is a method of this object.
        self.promgun_websocket = FollowedWebsocket(followed)
        try:
            await super()._handle_websocket(request, sockname, peername)
        finally:
            self.promgun_websocket.ended()

    async def _handle_http2_request(self, request: Any, h2_conn: Any, *args: Any, **kwargs: Any) -> Any:
        peername = self.transport.get_extra_info("peername")
        headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in request.headers]
        followed = begin_request(self.worker.accounting, request.method, request.path, peername, headers)
        self._promgun = followed
        stream = h2_conn.streams.get(request.stream.stream_id)
        observer = self._stream = None if stream is None else StreamObserver(stream, followed, self.worker.count_served)
        try:
            return await super()._handle_http2_request(request, h2_conn, *args, **kwargs)
        finally:
            if observer is not None:
                followed.received = observer.received
            followed.over(by_master=self.worker.cuts_off)

    async def _call_application_of(
        self, followed: AsgiRequest | None, stream: StreamObserver | None, scope: Any, receive: Any, send: Any
    ) -> None:
        # Of HTTP/2, these are of the stream whose application is called in this step of the loop.
        if followed is None:
            await self._application(scope, receive, send)
            return
        followed.application_called(scope)

        def send_followed(message: Any) -> Any:
            if message["type"] == "http.response.start" and stream is not None and stream.left and not followed.given:
                followed.given = message["status"]
            return send(message)

        try:
            await self._application(scope, receive, send if stream is None else send_followed)
        except BaseException as error:
            self._tell_end(followed, stream, error)
            raise
        self._tell_end(followed, stream, None)

    def _tell_end(self, followed: AsgiRequest, stream: StreamObserver | None, error: BaseException | None) -> None:
        if self.promgun_websocket is not None:
            self.promgun_websocket.application_ended(error, left=self._conn_lost_handled)
        elif stream is not None and not (self.worker.cuts_off and isinstance(error, asyncio.CancelledError)):
            followed.application_ended(error, left=stream.left, uploading=stream.uploading)

    # ---- what is sent

    if _LAST_PIECE_IS_TOLD:

        def _send_body(self, body: bytes, chunked: bool = False, last: bool = False, size: Any = None) -> None:  # noqa: FBT001, FBT002 - Gunicorn's signature
            followed = self._promgun
            if followed is not None and not followed.is_over:
                followed.sent += len(body)
                if last:
                    self._finish(followed)
                elif not followed.status:
                    followed.head_sent(followed.pending)
            _send_body(self, body, chunked, last, size)

    else:

        def _send_body(self, body: bytes, *args: Any, **kwargs: Any) -> None:  # type: ignore[misc] # see above
            followed = self._promgun
            if followed is not None and not followed.is_over:
                followed.sent += len(body)
                if not followed.status:
                    followed.head_sent(followed.pending)
            self._writes_piece = True
            try:
                super()._send_body(body, *args, **kwargs)
            finally:
                self._writes_piece = False

    def _safe_write(self, data: bytes) -> None:
        followed = self._promgun
        if (
            followed is not None
            and followed.pending
            and not followed.is_over
            and not self._writes_piece
            and self._has_begun(followed)
        ):
            # Only its end is written here.
            self._finish(followed)
        super()._safe_write(data)

    def _finish(self, followed: AsgiRequest) -> None:
        if self._received:
            self._take_received(followed)
        followed.finish(followed.pending)
        if self.worker.is_replaced:
            self.worker.count_served()

    def _has_begun(self, followed: AsgiRequest) -> bool:
        """Whether the head of an answer is out, or waits for the first bytes of its body."""
        return bool(followed.status) or self._response_buffer is not None

    def _take_received(self, followed: AsgiRequest) -> None:
        followed.received += self._received
        self._received = 0

    def _send_error_response(self, status: int, message: str, *args: Any, **kwargs: Any) -> None:
        followed, error = self._promgun, sys.exc_info()[1]
        sent = len(message.encode("utf-8", "replace"))
        if self.promgun_websocket is not None:
            self.promgun_websocket.refused(status, sent)
        elif followed is None or (followed.is_over and not followed.left and not self._closed):
            self._refused = True
            count_refused(self.worker.accounting, error, self._method_read(), status, sent)
        elif not followed.is_over and not followed.left:
            self._take_received(followed)
            if followed.status:
                # The client takes this for a part of the answer that it is reading.
                followed.finish(followed.status)
            else:
                followed.sent = sent
                followed.finish(status)
        super()._send_error_response(status, message, *args, **kwargs)

    def _method_read(self) -> str:
        """Return the method of the request that is being refused; empty if it was not read."""
        method = getattr(self._current_request or self._callback_parser, "method", None)
        return method.decode("latin-1") if isinstance(method, bytes) else method or ""
