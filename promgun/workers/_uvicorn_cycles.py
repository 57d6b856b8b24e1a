"""Follows uvicorn's requests: each is a ``RequestResponseCycle``, and each HTTP protocol has a class of that name.

The protocol takes it from its module's globals when a head has been read, so a derived class is put there. Another
uvicorn server in the process finds that as well: a cycle is followed only if its protocol belongs to the worker's
configuration. The class of the protocol itself is derived in the configuration only, for the answers to what is no
request (400). All that is used here is the same in uvicorn 0.30 to 0.54, in h11_impl, httptools_impl, zttp_impl and
zttp_h2_impl.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable
from time import monotonic_ns
from typing import Any

from promgun.workers._asgi_follower import AsgiRequest, count_refused
from promgun.workers._uvicorn_websockets import measured_websocket

_CYCLE = "RequestResponseCycle"
#: Attribute of a ``uvicorn.Config``: the worker that serves it.
_WORKER = "promgun_worker"


def follow_protocols(config: Any, worker: Any) -> None:
    """Measure the HTTP protocol that a loaded ``uvicorn.Config`` names, for ``worker``."""
    setattr(config, _WORKER, worker)
    named = config.http_protocol_class
    config.http_protocol_class = type(named.__name__, (MeasuredProtocol, named), {"__module__": named.__module__})
    config.ws_protocol_class = measured_websocket(config.ws_protocol_class, worker)
    for base in named.__mro__:
        follow_cycles(base.__module__)
    if hasattr(named, "alpn_protocols"):
        # AutoZttpProtocol makes one of these two for each connection.
        for name in ("uvicorn.protocols.http.zttp_impl", "uvicorn.protocols.http.zttp_h2_impl"):
            follow_cycles(name)


def follow_cycles(module_name: str) -> None:
    """Put a followed class into the place of a module's ``RequestResponseCycle``, once."""
    module: Any = sys.modules.get(module_name)
    cycle = vars(module).get(_CYCLE) if module is not None else None
    if isinstance(cycle, type) and not issubclass(cycle, MeasuredCycle):
        setattr(module, _CYCLE, type(_CYCLE, (MeasuredCycle, cycle), {"__module__": cycle.__module__}))


class MeasuredProtocol:
    """Goes before an HTTP protocol of uvicorn's."""

    config: Any
    cycle: Any
    #: the cycle that began last
    promgun_running: Any = None

    def connection_made(self, transport: Any) -> None:
        """Begin a connection, and observe how long it waited for that."""
        sock = transport.get_extra_info("socket")
        if sock is not None and isinstance(transport.get_extra_info("peername"), tuple):
            getattr(self.config, _WORKER).observe_arrival(sock, monotonic_ns())
        super().connection_made(transport)  # type: ignore[misc] # the next class in the MRO

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request of HTTP, and count that: as the answer of the request that runs, or whose body it
        is, or else as a refused one.
        """
        error = sys.exc_info()[1]
        super().send_400_response(msg)  # type: ignore[misc] # the next class in the MRO
        running, last = self.promgun_running, self.cycle
        method = ""
        if last is not None and last.promgun is None and not last.response_complete:
            # It was read and has not begun: it will answer into nothing.
            last.promgun_refused = True
            method = last.scope["method"]
        if running is None or running.promgun is None or running.promgun.is_over:
            count_refused(getattr(self.config, _WORKER).accounting, error, method, _BAD_REQUEST, len(msg))
            return
        request = running.promgun
        request.received = running.received
        if request.status:
            # The client takes this for a part of the answer that it is reading.
            request.finish(request.status)
        else:
            request.sent = len(msg)
            request.finish(_BAD_REQUEST)


_BAD_REQUEST = 400


class MeasuredCycle:
    """Goes before a ``RequestResponseCycle``."""

    promgun: AsgiRequest | None = None
    #: whether the server has answered it with 400 before it began
    promgun_refused = False
    _worker: Any = None
    _body: Any = b""
    #: bytes of body that the application was given; the rest is in ``_body``
    _given = 0

    scope: Any
    on_response: Any
    flow: Any
    disconnected: bool
    more_body: bool
    response_started: bool
    response_complete: bool

    async def run_asgi(self, app: Any) -> None:
        """Serve one request; it begins here, whenever it was read."""
        run = super().run_asgi  # type: ignore[misc] # the next class in the MRO
        protocol: Any = getattr(self.on_response, "__self__", None)
        worker = getattr(getattr(protocol, "config", None), _WORKER, None)
        if worker is None:
            await run(app)
            return
        scope = self.scope
        request = AsgiRequest(worker.accounting, scope["method"], scope["path"], scope["client"], scope["headers"])
        request.application_called(scope)
        self._worker = worker
        self.promgun = request
        protocol.promgun_running = self
        if self.promgun_refused:
            request.discard()
        try:
            await run(self._followed(app, request))
        finally:
            self.promgun = None
            if protocol.promgun_running is self:
                protocol.promgun_running = None
            request.received = self.received
            request.over()

    @property
    def body(self) -> Any:
        """The part of the request's body that waits for the application."""
        return self._body

    @body.setter
    def body(self, waiting: Any) -> None:
        """Extend the part, or begin a new one: the application was given the old one."""
        if waiting is not self._body:
            self._given += len(self._body)
            self._body = waiting

    @property
    def received(self) -> int:
        """How many bytes of the request's body were received."""
        return self._given + len(self._body)

    def _followed(self, app: Any, request: AsgiRequest) -> Any:
        async def call_application(scope: Any, receive: Any, send: Any) -> Any:
            try:
                result = await app(scope, receive, send)
            except BaseException as error:
                self._application_ended(request, error)
                raise
            self._application_ended(request, None)
            return result

        return call_application

    def _application_ended(self, request: AsgiRequest, error: BaseException | None) -> None:
        request.application_ended(error, left=self.disconnected, uploading=self.more_body)

    # ---- what is sent

    def send(self, message: Any) -> Awaitable[None]:
        """Send a message of the application's, or of the server's own answer."""
        request = self.promgun
        if request is None or request.is_over:
            return super().send(message)  # type: ignore[misc, no-any-return] # the next class in the MRO
        kind = message["type"]
        if self.disconnected:
            if kind == "http.response.start" and not request.application_done and not request.given:
                request.given = message["status"]
            return super().send(message)  # type: ignore[misc, no-any-return] # same
        if kind != "http.response.body" or not request.status or self.flow.write_paused:
            return self._send_and_look(message, request)
        size, last = self._size(message), not message.get("more_body", False)
        if self._breaks_length(size, last):
            return self._send_and_look(message, request)
        request.sent += size
        if last:
            self._finish(request)
        return super().send(message)  # type: ignore[misc, no-any-return] # same

    async def _send_and_look(self, message: Any, request: AsgiRequest) -> None:
        """Send a message that may fail or wait, and count what became of it."""
        await super().send(message)  # type: ignore[misc] # the next class in the MRO
        if self.disconnected or request.is_over:
            return
        kind = message["type"]
        if kind == "http.response.start":
            if self.response_started and not request.status:
                request.head_sent(message["status"])
        elif kind == "http.response.body":
            request.sent += self._size(message)
        if self.response_complete:
            self._finish(request)

    def _finish(self, request: AsgiRequest) -> None:
        self._worker.count_served()
        request.received = self.received
        request.finish(request.status)

    def _size(self, message: Any) -> int:
        """Return how many bytes of body a message adds to the answer."""
        return (
            0 if self.scope["method"] == "HEAD" or getattr(self, "bodyless", False) else len(message.get("body", b""))
        )

    def _breaks_length(self, size: int, last: bool) -> bool:  # noqa: FBT001 - the one caller's second variable
        """Whether the server may refuse a piece of body for the Content-Length that was declared, or ends the answer
        with trailers.
        """
        if getattr(self, "trailers_expected", False):
            return True
        left = self._length_left()
        return left is not None and (size > left or (last and size != left))

    def _length_left(self) -> int | None:
        """Return how many bytes of the declared length have not been sent; ``None`` without one."""
        if (
            self.scope["method"] == "HEAD"
            or getattr(self, "bodyless", False)
            or getattr(self, "chunked_encoding", False)
        ):
            return None
        left: int | None
        if hasattr(self, "expected_content_length"):
            left = self.expected_content_length
        else:
            # h11 keeps it (0.14 to 0.16)
            left = getattr(getattr(getattr(self, "conn", None), "_writer", None), "_length", None)
        return left
