"""Has a request of uvicorn's on httptools (0.54) take less work; ``--no-server-shortcuts`` turns this off.

The head of an answer that the application sends without waiting for anything between head and body is written with
the first piece of body: one system call and one segment less, as Gunicorn's own server does. To know that it waits, the
application's coroutine is driven here step by step: what is left of the head at the end of a step is written there. So
no other code of the event loop ever runs between the two. What is unusual is left to uvicorn's own ``send``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from types import CoroutineType, coroutine
from typing import Any

from uvicorn.protocols.utils import get_client_addr, get_path_with_query_string

from promgun.workers._asgi_follower import AsgiRequest, begin_request
from promgun.workers._uvicorn_heads import AnswerHeads

#: A larger first piece of body, in bytes, is not copied behind the head.
_COPIED = 65_536


class QuickEvent(asyncio.Event):
    """An event that makes room for those who wait for it when somebody does."""

    _value = False
    _waiters: Any = ()

    __init__ = object.__init__

    async def wait(self) -> Any:
        """Wait until it is set."""
        if not self._value and not self._waiters:
            asyncio.Event.__init__(self)
        return await super().wait()


class QuickCycle:
    """Goes before ``MeasuredCycle`` and uvicorn's cycle on httptools; ``QuickProtocol`` makes it and sets all this."""

    __slots__ = (
        "_application", "_worker", "access_log", "access_logger", "body", "chunked_encoding", "default_headers",
        "disconnected", "expected_content_length", "flow", "keep_alive", "logger", "message_event", "more_body",
        "on_response", "promgun", "promgun_head", "promgun_heads", "promgun_refused", "promgun_steps", "promgun_task",
        "promgun_tasks", "received", "response_complete", "response_started", "scope", "transport",
        "waiting_for_100_continue",
    )  # fmt: skip

    promgun: AsgiRequest | None
    #: the head that waits for the first piece of body, and its status
    promgun_head: tuple[bytes, int] | None
    #: whether the application's coroutine is running, in its own task
    promgun_steps: bool
    promgun_heads: AnswerHeads
    promgun_refused: bool
    promgun_task: Any
    promgun_tasks: Any
    received: int
    _worker: Any
    _application: Any

    _application_ended: Any
    _next_run: Any
    access_log: bool
    access_logger: Any
    chunked_encoding: bool | None
    disconnected: bool
    expected_content_length: int
    flow: Any
    keep_alive: bool
    message_event: Any
    on_response: Any
    response_complete: bool
    response_started: bool
    scope: Any
    transport: Any
    waiting_for_100_continue: bool

    def running(self, worker: Any, application: Any) -> Any:
        """Return uvicorn's coroutine that serves the request, which the ``worker`` counts."""
        self._worker = worker
        self._application = application
        return self._next_run(self._call_application)

    @coroutine
    def _call_application(  # noqa: C901 - what ``yield from`` does is written out
        self, scope: Any, receive: Any, send: Any
    ) -> Generator[Any, Any, Any]:
        """Call the application in place of uvicorn's call: the first thing that ``run_asgi`` does."""
        request = self.promgun = begin_request(
            self._worker.accounting, scope["method"], scope["path"], scope["client"], scope["headers"], scope
        )
        if self.promgun_refused:
            request.discard()
        step: Any = None
        given: Any = None
        result: Any = None
        try:
            driven = self._application(scope, receive, send)
            if driven.__class__ is CoroutineType:
                # What ``yield from`` does.
                step = driven.send
                while True:
                    self.promgun_steps = True
                    try:
                        awaited = step(given)
                    except StopIteration as ended:
                        result = ended.value
                        break
                    self.promgun_steps = False
                    if self.promgun_head is not None:
                        self._write_head()
                    try:
                        given = yield awaited
                        step = driven.send
                    except GeneratorExit:
                        driven.close()
                        raise
                    except BaseException as error:  # noqa: BLE001 - handed to whom it is for
                        given, step = _without_this_frame(error), driven.throw
            else:
                result = yield from _awaited(driven)
        except BaseException as error:
            # An exception that was handed on refers to this frame.
            given = None
            self._step_ended()
            self._application_ended(request, error)
            raise
        self._step_ended()
        if not request.is_over or result is not None:
            self._application_ended(request, None)
        elif self.promgun_task is not None:
            # Nothing more is done in it.
            self.promgun_tasks.discard(self.promgun_task)
        return result

    def _step_ended(self) -> None:
        self.promgun_steps = False
        if self.promgun_head is not None:
            self._write_head()

    def _write_head(self) -> None:
        """Write the head that waits."""
        assert self.promgun is not None  # noqa: S101 - a head waits only after it began
        assert self.promgun_head is not None  # noqa: S101 - asked by the caller
        head, status = self.promgun_head
        self.promgun_head = None
        self.transport.write(head)
        self.promgun.head_sent(status)

    async def send(self, message: Any) -> None:
        """Send a message of the application's, or of the server's own answer."""
        request, waiting = self.promgun, self.promgun_head
        if request is not None and not request.is_over and not self.disconnected and not self.flow.write_paused:
            kind = message.get("type")
            if kind == "http.response.body":
                if (waiting is not None or request.status) and self._send_body(request, waiting, message):
                    return
            elif kind == "http.response.start" and not self.response_started:
                head = self.promgun_heads.write(self, message)
                if head is not None:
                    self._send_head(request, head, message["status"])
                    return
        if waiting is not None:
            self._write_head()
        await super().send(message)  # type: ignore[misc] # the next class in the MRO

    def _send_head(self, request: AsgiRequest, head: bytes, status: int) -> None:
        self.response_started = True
        self.waiting_for_100_continue = False
        if self.access_log:
            self._log_access(status)
        if self.promgun_steps:
            self.promgun_head = head, status
        else:
            self.transport.write(head)
            request.head_sent(status)

    def _log_access(self, status: int) -> None:
        scope = self.scope
        self.access_logger.info(
            '%s - "%s %s HTTP/%s" %d',
            get_client_addr(scope),
            scope["method"],
            get_path_with_query_string(scope),
            scope["http_version"],
            status,
        )

    def _send_body(  # noqa: C901, PLR0912 - a step of each request, in one frame
        self, request: AsgiRequest, waiting: tuple[bytes, int] | None, message: Any
    ) -> bool:
        """Write a piece of body as uvicorn does, behind the head that is ``waiting``; do nothing, and return False, if
        it is not for this method.
        """
        data, last = message.get("body", b""), not message.get("more_body", False)
        if data.__class__ is not bytes:
            return False
        size = len(data)
        if self.scope["method"] == "HEAD":
            self.expected_content_length = size = 0
            data = b""
        elif self.chunked_encoding:
            if size:
                data = b"%x\r\n%b\r\n" % (size, data)
            if last:
                data += b"0\r\n\r\n"
        else:
            left = self.expected_content_length - size
            if left if last else left < 0:
                # uvicorn refuses it.
                return False
            self.expected_content_length = left
        transport = self.transport
        if waiting is not None:
            head, request.status = waiting
            self.promgun_head = None
            if size <= _COPIED:
                data = head + data
            else:
                transport.write(head)
        request.sent += size
        if last:
            if self._worker.is_replaced:
                self._worker.count_served()
            request.received = self.received
            request.finish(request.status)
        if data:
            transport.write(data)
        if not last:
            if waiting is not None:
                request.head_sent(request.status)
            return True
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            transport.close()
        self.on_response()
        return True


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


def _without_this_frame(error: BaseException) -> BaseException:
    """Return an exception as it was before it was caught here: it goes on to where it is for."""
    return error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)
