"""Follows uvicorn's requests: each is a ``RequestResponseCycle``, and each HTTP protocol has a class of that name.

The protocol takes it from its module's globals when a head has been read, so a derived class is put there. Another
uvicorn server in the process finds that as well: a cycle is followed only if its protocol belongs to the worker's
configuration. The class of the protocol itself is derived in the configuration only, for the answers to what is no
request (400). All that is used here is the same in uvicorn 0.30 to 0.54, in h11_impl, httptools_impl, zttp_impl and
zttp_h2_impl.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable
from time import monotonic_ns
from typing import Any

from promgun.workers._asgi_follower import AsgiRequest, begin_request, count_refused
from promgun.workers._uvicorn_ends import EndObserver
from promgun.workers._uvicorn_shortcuts import QuickProtocol, is_known, quick_protocol
from promgun.workers._uvicorn_websockets import measured_websocket

_CYCLE = "RequestResponseCycle"
#: Attribute of a ``uvicorn.Config``: the worker that serves it.
_WORKER = "promgun_worker"
#: The modules whose protocol has ``on_body``, which is called with each piece of body.
_TELLS_BODY = frozenset({"uvicorn.protocols.http.httptools_impl"})


def follow_protocols(config: Any, worker: Any) -> None:
    """Measure the HTTP protocol that a loaded ``uvicorn.Config`` names, for ``worker``."""
    setattr(config, _WORKER, worker)
    named = config.http_protocol_class
    module: Any = sys.modules.get(named.__module__)
    quick = worker.takes_shortcuts and is_known(named, module)
    config.ws_protocol_class = measured_websocket(config.ws_protocol_class, worker)
    for base in named.__mro__:
        follow_cycles(base.__module__)
    if hasattr(named, "alpn_protocols"):
        # AutoZttpProtocol makes one of these two for each connection.
        for name in ("uvicorn.protocols.http.zttp_impl", "uvicorn.protocols.http.zttp_h2_impl"):
            follow_cycles(name)
    bases: tuple[Any, ...] = (MeasuredProtocol, named)
    namespace = {"__module__": named.__module__}
    if quick:
        bases = (QuickProtocol, *bases)
        namespace.update(quick_protocol(module, worker))
    config.http_protocol_class = type(named.__name__, bases, namespace)


def follow_cycles(module_name: str) -> None:
    """Put a followed class into the place of a module's ``RequestResponseCycle``, once."""
    module: Any = sys.modules.get(module_name)
    cycle = vars(module).get(_CYCLE) if module is not None else None
    if isinstance(cycle, type) and not issubclass(cycle, MeasuredCycle):
        base = MeasuredCycle if module_name in _TELLS_BODY else BodyCountingCycle
        # A call of these costs 80 ns less than one through super() (CPython 3.11).
        following = {"_next_run": cycle.run_asgi, "_next_send": cycle.send}  # type: ignore[attr-defined] # uvicorn's
        setattr(module, _CYCLE, type(_CYCLE, (base, cycle), {"__module__": cycle.__module__, **following}))


class MeasuredProtocol(EndObserver):
    """Goes before an HTTP protocol of uvicorn's."""

    config: Any
    cycle: Any

    def connection_made(self, transport: Any) -> None:
        """Begin a connection, and observe how long it waited for that."""
        sock = transport.get_extra_info("socket")
        if sock is not None and isinstance(transport.get_extra_info("peername"), tuple):
            getattr(self.config, _WORKER).observe_arrival(sock, monotonic_ns())
        super().connection_made(transport)  # type: ignore[misc] # the next class in the MRO

    def on_body(self, body: bytes) -> None:
        """Take a piece of a request's body; called where the parser calls back (httptools)."""
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.received += len(body)
        super().on_body(body)  # type: ignore[misc] # the next class in the MRO

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
#: Methods whose requests have no body, unless a header tells of one.
_WITHOUT_BODY = frozenset({"GET", "HEAD", "OPTIONS", "DELETE", "TRACE"})


class MeasuredCycle:
    """Goes before a ``RequestResponseCycle``."""

    promgun: AsgiRequest | None = None
    #: whether the server has answered it with 400 before it began
    promgun_refused = False
    #: its task, and the set of tasks that it leaves (``_uvicorn_shortcuts``)
    promgun_task: Any = None
    promgun_tasks: Any = None
    #: bytes of the request's body
    received = 0

    _worker: Any
    _application: Any
    _next_run: Any
    _next_send: Any

    scope: Any
    on_response: Any
    flow: Any
    disconnected: bool
    more_body: bool
    response_started: bool
    response_complete: bool
    # What some of the protocols have.
    bodyless = False
    trailers_expected = False
    chunked_encoding: bool | None = None
    expected_content_length: int | None = None

    def run_asgi(self, app: Any) -> Any:
        """Return the coroutine that serves one request, followed if the server is a worker's."""
        try:
            protocol = self.on_response.__self__
            self._worker = protocol.config.promgun_worker
        except AttributeError:
            return self._next_run(app)
        self._application = app
        protocol.promgun_running = self
        return self._next_run(self._call_application)

    async def _call_application(self, scope: Any, receive: Any, send: Any) -> Any:
        # The first thing that run_asgi does: the request begins here, whenever it was read.
        request = self.promgun = begin_request(
            self._worker.accounting, scope["method"], scope["path"], scope["client"], scope["headers"], scope
        )
        if self.promgun_refused:
            request.discard()
        try:
            result = await self._application(scope, receive, send)
        except BaseException as error:
            self._application_ended(request, error)
            raise
        if not request.is_over or result is not None:
            self._application_ended(request, None)
        elif self.promgun_task is not None:
            # Nothing more is done in it.
            self.promgun_tasks.discard(self.promgun_task)
        return result

    def _application_ended(self, request: AsgiRequest, error: BaseException | None) -> None:
        if self.promgun_task is not None:
            self.promgun_task.add_done_callback(self.promgun_tasks.discard)
        if not request.is_over:
            # The server may answer yet, in the task that ends with that.
            task = asyncio.current_task()
            if task is not None:
                task.add_done_callback(lambda _: self._over(request))
        request.application_ended(error, left=self.disconnected, uploading=self.more_body and self._sends_body())

    def _sends_body(self) -> bool:
        """Whether the request has a body, as far as that is known: of HTTP/2, zttp (0.0.35) does not tell the end of a
        request without one.
        """
        if self.received or self.scope["method"] not in _WITHOUT_BODY:
            return True
        return any(name in {b"content-length", b"transfer-encoding"} for name, _ in self.scope["headers"])

    def _over(self, request: AsgiRequest) -> None:
        request.received = self.received
        request.over()

    # ---- what is sent

    def send(self, message: Any) -> Awaitable[None]:
        """Send a message of the application's, or of the server's own answer."""
        request = self.promgun
        if request is None or request.is_over:
            return self._next_send(message)  # type: ignore[no-any-return] # uvicorn's
        kind = message.get("type")
        if self.disconnected:
            if kind == "http.response.start" and not request.application_done and not request.given:
                request.given = message.get("status", 0)
            return self._next_send(message)  # type: ignore[no-any-return] # same
        if kind != "http.response.body" or not request.status or self.flow.write_paused:
            return self._send_and_look(message, request)
        body, last = message.get("body", b""), not message.get("more_body", False)
        if body.__class__ is not bytes:
            # The server may refuse it.
            return self._send_and_look(message, request)
        if self.scope["method"] == "HEAD" or self.bodyless:
            size, left = 0, None
        else:
            size, left = len(body), None if self.chunked_encoding else self._length_left()
        if self.trailers_expected or (left is not None and (size > left or (last and size != left))):
            # The server may refuse it for the Content-Length that was declared, or ends the answer with trailers.
            return self._send_and_look(message, request)
        request.sent += size
        if last:
            self._finish(request)
        return self._next_send(message)  # type: ignore[no-any-return] # same

    async def _send_and_look(self, message: Any, request: AsgiRequest) -> None:
        """Send a message that may fail or wait, and count what became of it: a body that is too short is sent, and
        refused after that.
        """
        left = self._length_left() if request.status else None
        try:
            await self._next_send(message)
        except Exception:
            body = message.get("body")
            if left is not None and isinstance(body, bytes) and len(body) <= left and not self.disconnected:
                request.sent += len(body)
            raise
        if self.disconnected or request.is_over:
            return
        kind = message.get("type")
        if kind == "http.response.start":
            if self.response_started and not request.status:
                request.head_sent(message["status"])
        elif kind == "http.response.body" and self.scope["method"] != "HEAD" and not self.bodyless:
            # Chunked encoding takes anything that is false for no bytes.
            request.sent += len(message.get("body", b"") or b"")
        if self.response_complete:
            self._finish(request)

    def _finish(self, request: AsgiRequest) -> None:
        if self._worker.is_replaced:
            self._worker.count_served()
        request.received = self.received
        request.finish(request.status)

    def _length_left(self) -> int | None:
        """Return how many bytes of the declared length have not been sent; ``None`` without one."""
        left = self.expected_content_length
        if left is None:
            # h11 keeps it (0.14 to 0.16)
            left = getattr(getattr(getattr(self, "conn", None), "_writer", None), "_length", None)
        return left


class BodyCountingCycle(MeasuredCycle):
    """A cycle of a protocol that extends ``body`` without being asked (h11, zttp)."""

    _body: Any = b""
    #: bytes of body that the application was given; the rest is in ``_body``
    _given = 0

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
    def received(self) -> int:  # type: ignore[override] # counted here
        """How many bytes of the request's body were received."""
        return self._given + len(self._body)
