"""Has Gunicorn's ASGI server do less for each request; ``--no-server-shortcuts`` turns this off.

The server wakes the task of a connection for each request, which starts a task for the application, which wakes the
task of the connection again. Here the request's own task is started when its head has been read, and does itself what
the other would do after it; that one is woken for everything that is unusual: websockets, h2c, pipelined requests, and
the end of the connection. This saves two of the four rounds of the event loop that a request takes, each of which is a
system call. Besides, the timer of an idle connection is not set and cancelled for each request: it is set once, and
looks when it goes off.

An application, a hook and a client see the same: each request has a task and a context of its own, the next request is
served while a background task runs, and what ends a connection ends it. The server is recognised by the names in its
code (gunicorn 27.0.1); another one serves in its own way.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any

from gunicorn.asgi.protocol import ASGIProtocol

from promgun.workers._asgi_heads import AnswerLines
from promgun.workers._known_code import has_methods

#: The methods that are repeated or replaced here, or on which that rests, and the checksums of the names in them.
SERVER = {
    "_start_http1": 0xDB830C3F,
    "_handle_connection": 0x9577EC37,
    "_serve_http_request": 0x61419FC2,
    "_handle_http_request": 0xF482D41B,
    "_on_headers_complete": 0x9FD8E494,
    "_h2c_arm_upgrade": 0x52CFD141,
    "_arm_keepalive_timer": 0x7DAC3193,
    "_cancel_keepalive_timer": 0x3AFA583E,
    "_keepalive_timeout": 0x727B3ABF,
    "_finishing_call_done": 0xC9C73F1D,
    "_finish_app_calls": 0xB814B9FF,
    "connection_lost": 0xA1F5ED97,
    "data_received": 0xB6A3796A,
    "_send_response_start": 0x85B9F889,
}
_data_received = ASGIProtocol.data_received
_set = asyncio.Event.set


def is_known(server: type) -> bool:
    """Whether a class of Gunicorn's is the one that all this was written for."""
    return has_methods(server, SERVER)


class RequestReady(asyncio.Event):
    """Set when the head of a request was read: starts the request if it can, or else wakes the connection's task."""

    def __init__(self, starts: Callable[[], bool]) -> None:
        super().__init__()
        self._starts = starts

    def set(self) -> None:
        """Start the request, or wake the task."""
        if not self._starts():
            _set(self)


class QuickProtocol(ASGIProtocol):  # type: ignore[misc] # gunicorn is untyped
    """A connection whose usual requests of HTTP/1 do not pass its own task."""

    #: the request whose task goes on with the connection when it is done, and that task
    _quick_request: Any = None
    _quick_task: asyncio.Task[None] | None = None
    #: whether the connection may be kept, once the answer to that request is complete
    _answer: bool | None = None
    #: whether the next request may begin while that task still runs
    _may_go_on = False
    #: when the connection has been idle for too long, in seconds of the loop's clock; 0 while it is not idle
    _idle_ends = 0.0
    #: what the connection was made in, if it is one of HTTP/1
    _context: Context | None = None
    #: the lines of answers that were written before, of all connections
    answer_lines: AnswerLines | None = None

    # Gunicorn's own
    _current_request: Any
    _body_receiver: Any
    _awaiting_request: bool
    _keepalive_handle: Any
    _response_buffer: bytes | None

    # ---- from the head of a request to the next one

    def _start_http1(self, buffered: bytes = b"") -> None:
        super()._start_http1()
        self._context = copy_context()
        get = self.transport.get_extra_info
        self._addresses = get("sockname"), get("peername")
        if self._proxy_protocol == "off":
            self._request_ready = RequestReady(self._start_quickly)
        if buffered:
            self._feed_callback_parser(buffered)

    def _start_quickly(self) -> bool:
        """Start the request whose head was read, if the connection's task is waiting for it and it is a usual one."""
        request = self._current_request
        if (
            not self._awaiting_request
            or request is None
            or self._closed
            or self._finishing_calls
            or self._h2c_upgrade_settings is not None
            or request.may_upgrade()
        ):
            return False
        self._awaiting_request = False
        self._idle_ends = 0.0
        self._answer = None
        self._quick_request = request
        self._quick_task = self.worker.loop.create_task(self._serve_quickly(request))
        return True

    async def _serve_quickly(self, request: Any) -> None:
        """Serve a request, then prepare the connection for the next one."""
        try:
            if self._closed:
                # A bad chunk came with the head.
                self._quick_request = self._quick_task = None
                self._end_connection()
                return
            sockname, peername = self._addresses
            keepalive = await self._handle_http_request(request, sockname, peername, self)
        except Exception as error:
            self.log.exception("Error handling connection: %s", error)  # noqa: TRY401 - as the connection's task does
            if self._quick_request is request:
                self._quick_request = self._quick_task = None
                self._end_connection()
            return
        except BaseException:
            task = self._quick_task
            if task is not None and self._quick_request is request:
                self._quick_request = self._quick_task = None
                task.add_done_callback(_retrieve)
                self._end_connection()
            raise
        if self._quick_request is request:
            self._quick_request = self._quick_task = None
            self._request_over(keepalive)

    def _request_over(self, keepalive: bool) -> None:  # noqa: FBT001 - one of Gunicorn's variables
        """Do what the connection's task does when an answer is complete."""
        self._may_go_on = False
        worker = self.worker
        worker.nr = served = worker.nr + 1
        if served >= worker.max_requests:
            self.log.info("Autorestarting worker after current request.")
            worker.alive = keepalive = False
        receiver, parser = self._body_receiver, self._callback_parser
        if (
            not keepalive
            or not worker.alive
            or not self._keepalive
            or (receiver is not None and not receiver._complete)  # noqa: SLF001 - Gunicorn has no other way
        ):
            self._end_connection()
            return
        if self._reading_paused:
            self._resume_reading()
        if getattr(parser, "remaining_truncated", False):
            self._end_connection()
            return
        pipelined = parser.remaining()
        parser.reset()
        self._current_request = self._body_receiver = None
        if (pipelined and not self._feed_callback_parser(pipelined)) or self._closed:
            self._end_connection()
            return
        self.req_count += 1
        if not self._request_ready.is_set():
            if not self._finishing_calls:
                self._arm_keepalive_timer()
            self._awaiting_request = True

    def _end_connection(self) -> None:
        """Wake the connection's task, which ends because there is no request."""
        self._current_request = None
        _set(self._request_ready)

    async def _finish_app_calls(self, cancel: bool) -> None:  # noqa: FBT001 - Gunicorn's signature
        task, self._quick_request, self._quick_task = self._quick_task, None, None
        if task is not None:
            self._finishing_calls[task] = None
        await super()._finish_app_calls(cancel)

    # ---- the answer is complete while the application still runs: ``self`` is what Gunicorn calls ``complete``

    def done(self) -> bool:
        """Whether the answer to the request is complete."""
        return self._answer is not None

    def set_result(self, keepalive: bool) -> None:  # noqa: FBT001 - as a future's
        """Note that the answer is complete. The task usually ends now; if it does not, the next request need not wait
        for it.
        """
        self._answer = keepalive
        receiver = self._body_receiver
        if (
            keepalive
            and self._post_request is None
            and (receiver is None or (receiver._complete and not receiver._buffered))  # noqa: SLF001 - Gunicorn has no other way
        ):
            self._may_go_on = True
            if self._reading_paused or self.worker.max_requests != sys.maxsize or self._callback_parser.remaining():
                # What goes on with it is there already.
                self.worker.loop.call_soon(self._go_on, self._quick_request)

    def data_received(self, data: bytes) -> None:
        """Take what the client sent, which may be the next request."""
        if self._may_go_on:
            self._go_on(self._quick_request)
        _data_received(self, data)

    def _go_on(self, request: Any) -> None:
        """Let an application finish beside the next request."""
        task = self._quick_task
        if task is None or request is not self._quick_request or task.done():
            return
        self._finishing_calls[task] = self._body_receiver
        task.add_done_callback(self._finishing_call_done)
        self._quick_request = self._quick_task = None
        self._request_over(bool(self._answer))

    def _resume_reading(self) -> None:
        # The event loop calls data_received in the context of whoever resumes, and the next request's task has it then:
        # a request must not find the context variables of the one that read its body before it.
        if self._context is None:
            super()._resume_reading()
        else:
            self._context.run(super()._resume_reading)

    # ---- the head of an answer

    def _send_response_start(self, status: int, headers: Any, request: Any, close: bool = False) -> None:  # noqa: FBT001, FBT002 - Gunicorn's signature
        lines = self.answer_lines
        head = None if lines is None else lines.head(status, headers, request, close=close)
        if head is None:
            super()._send_response_start(status, headers, request, close=close)
        else:
            self._response_buffer = head

    # ---- an idle connection

    def _arm_keepalive_timer(self) -> None:
        timeout = self._keepalive
        if timeout > 0:
            loop = self.worker.loop
            self._idle_ends = ends = loop.time() + timeout
            if self._keepalive_handle is None:
                self._keepalive_handle = loop.call_at(ends, self._look_if_idle)

    def _cancel_keepalive_timer(self) -> None:
        self._idle_ends = 0.0
        if self._closed and self._keepalive_handle is not None:
            self._keepalive_handle.cancel()
            self._keepalive_handle = None

    def _look_if_idle(self) -> None:
        self._keepalive_handle = None
        ends = self._idle_ends
        if not ends:
            return
        loop = self.worker.loop
        if loop.time() < ends:
            self._keepalive_handle = loop.call_at(ends, self._look_if_idle)
        else:
            self._keepalive_timeout()


def _retrieve(task: asyncio.Task[None]) -> None:
    """Take the exception off a task that nobody awaits: it has ended the loop already."""
    if not task.cancelled():
        task.exception()
