"""One client's connection: h11 reads the requests, deadlines bound every step."""

from __future__ import annotations

import asyncio
from enum import Enum, auto
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

import h11

from promgun.endpoint.answers import REFUSALS, UNAVAILABLE, Answer
from promgun.endpoint.deadline import Deadline
from promgun.endpoint.pages import has_body, is_last
from promgun.endpoint.send_queues import drop_unsent, not_yet_sent, unsent_bytes

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from promgun.endpoint.access import Peer
    from promgun.endpoint.connection_limit import ConnectionTable
    from promgun.endpoint.limits import Limits
    from promgun.endpoint.pages import Site
    from promgun.endpoint.send_queues import SendQueues

#: How many bytes of an answer are handed to asyncio at a time. Up to Python 3.11 a transport copies what the kernel
#: does not take at once; the rest of a body is shared by all connections that it goes to.
CHUNK = 32 * 1024
# How long to wait before asking again whether an answer has left: twice as long each time.
_FIRST_LOOK = 0.001
_LONGEST_LOOK = 0.05
_NO_ROOM_PAUSE = 0.02


class _Phase(Enum):
    HEAD = auto()  # waiting for a request
    ANSWER = auto()  # waiting for the page, writing it, or waiting for it to leave
    LINGER = auto()  # our end is closed; what still arrives is thrown away


class HttpConnection(asyncio.BufferedProtocol):
    """Answers the requests of one connection in turn, HTTP/1.0 and 1.1, until either side has enough.

    While a request is answered nothing is read, so pipelined requests stay in the kernel, except for one buffer. A
    connection ends by closing our direction and reading on for a while: closing both at once, with bytes unread, makes
    the kernel send RST, and the client may lose the answer (RFC 9112 9.6).
    """

    def __init__(
        self,
        peer: Peer,
        site: Site,
        connections: ConnectionTable,
        queues: SendQueues,
        limits: Limits,
        buffer: memoryview,
    ) -> None:
        self.peer = peer
        self.address = peer.address
        self._site = site
        self._connections = connections
        self._queues = queues
        self._limits = limits
        # Shared by all connections: what is read into it is copied out before the loop reads again.
        self._buffer = buffer
        self._loop = asyncio.get_running_loop()
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.head_bytes)
        self._phase = _Phase.HEAD
        self._room = limits.head_bytes
        self._method = b""
        self._has_begun = False
        self._has_answered = False
        self._is_last = False
        self._page: asyncio.Future[Answer] | None = None
        self._head = b""
        self._unsent = memoryview(b"")
        self._is_stalled = False
        #: Whether the client's certificate names nobody who may ask.
        self.is_barred = False
        self._drained = 0
        self._deadline = Deadline(self._loop)
        self._look: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport
        self._socket: socket.socket

    # What asyncio and the table of connections call

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin with a deadline for the first head."""
        self._transport = cast("asyncio.Transport", transport)
        self._socket = cast("socket.socket", transport.get_extra_info("socket"))
        # pause_writing then tells of every byte that the kernel did not take.
        self._transport.set_write_buffer_limits(high=0)
        self._deadline.set(self._limits.head_seconds, self._give_up_on_head)
        self._connections.start_waiting(self)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature; its hint is -1
        """Offer as much as a head may still grow."""
        return self._buffer[: self._room]

    def buffer_updated(self, nbytes: int) -> None:
        """Take in what was read."""
        if self._phase is _Phase.LINGER:
            self._drained += nbytes
            if self._drained > self._limits.linger_bytes:
                self._transport.abort()
        else:
            self._http.receive_data(bytes(self._buffer[:nbytes]))
            self._read_request()

    def pause_writing(self) -> None:
        """Stop: the client does not read as fast as we write."""
        self._is_stalled = True
        self._connections.start_waiting(self)

    def resume_writing(self) -> None:
        """Go on: the kernel has taken what asyncio held."""
        self._is_stalled = False
        self._connections.stop_waiting(self)
        # In a turn of its own: had we ended our direction from here, asyncio would end it once more, and that
        # raises when the client has closed meanwhile (Python 3.10 to 3.13).
        self._loop.call_soon(self._write)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Forget everything, whoever ended it."""
        self._deadline.cancel()
        if self._look is not None:
            self._look.cancel()
        self._unsent = memoryview(b"")
        self._forget_page()
        self._queues.forget(self)
        self._connections.leave(self)

    def unsent(self) -> int:
        """Return how many bytes of answers the client's side does not have yet."""
        return self._transport.get_write_buffer_size() + unsent_bytes(self._socket)

    def evict(self) -> None:
        """End at once. What is unsent is dropped: a closed socket would keep it in the kernel for minutes."""
        if self.unsent():
            drop_unsent(self._socket)
        self._transport.abort()

    def retire(self) -> None:
        """Finish the request that is being answered, or the first one; between requests, close."""
        self._is_last = True
        if self._phase is _Phase.HEAD and self._has_answered and not self._has_begun:
            self._transport.close()

    # Reading

    def _read_request(self) -> None:
        if self._transport.is_closing():
            return
        try:
            event = self._http.next_event()
            if isinstance(event, h11.Request):
                self._answer(event)
            else:
                self._await_more()
        except h11.RemoteProtocolError as error:
            self._refuse(self._status_of(error))

    def _await_more(self) -> None:
        unread = len(self._http.trailing_data[0])
        # One byte more than may come is read, for h11 to see that it is too much.
        self._room = self._limits.head_bytes - unread + 1
        if unread and not self._has_begun:
            self._has_begun = True
            if self._has_answered:
                self._deadline.set(self._limits.head_seconds, self._give_up_on_head)
        self._transport.resume_reading()

    def _status_of(self, error: h11.RemoteProtocolError) -> HTTPStatus:
        status = HTTPStatus(error.error_status_hint)
        is_request_line = b"\n" not in self._http.trailing_data[0]
        if status is HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE and is_request_line:
            return HTTPStatus.REQUEST_URI_TOO_LONG
        return status if status in REFUSALS else HTTPStatus.BAD_REQUEST

    def _give_up_on_head(self) -> None:
        if self._has_begun:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)
        else:
            self._transport.close()

    def _refuse(self, status: HTTPStatus) -> None:
        """Answer bytes that are not a request, and end, because nobody knows where the next request would begin."""
        self._is_last = True
        self._send(REFUSALS[status])

    # Answering

    def _answer(self, request: h11.Request) -> None:
        self._begin_answer()
        self._method = request.method
        self._is_last = self._is_last or is_last(request)
        if not has_body(request):
            self._http.next_event()  # the end of a request without a body
        reply = self._site.reply(request, self.peer, is_barred=self.is_barred)
        if isinstance(reply, Answer):
            self._send(reply)
        else:
            self._page = reply
            self._deadline.set(self._limits.collect_seconds, self._give_up_on_page)
            reply.add_done_callback(self._page_is_ready)

    def _begin_answer(self) -> None:
        self._phase = _Phase.ANSWER
        self._transport.pause_reading()
        self._connections.stop_waiting(self)

    def _page_is_ready(self, page: asyncio.Future[Answer]) -> None:
        self._page = None
        self._send(page.result())

    def _give_up_on_page(self) -> None:
        self._forget_page()
        self._send(UNAVAILABLE)

    def _forget_page(self) -> None:
        if self._page is not None:
            self._page.remove_done_callback(self._page_is_ready)
            self._page = None

    def _send(self, answer: Answer) -> None:
        self._begin_answer()
        self._deadline.set(self._limits.write_seconds, self.evict)
        is_head = self._method == b"HEAD"
        is_last = self._is_last or self._connections.is_crowded
        head = self._http.send(answer.response(is_last=is_last, extra=self._site.headers))
        if not is_head:
            # The state of h11 has to follow, the bytes are the same.
            self._http.send(h11.Data(data=answer.body))
        self._http.send(h11.EndOfMessage())
        body = memoryview(b"" if is_head else answer.body)
        # The head goes out with the beginning of the body: small answers take one packet.
        self._head = bytes(head)
        self._unsent = body
        self._write()

    def _write(self) -> None:
        while not (self._is_stalled or self._transport.is_closing()):
            piece = self._unsent[:CHUNK]
            if self._head:
                piece = memoryview(self._head + piece)
            if not piece:
                self._connections.start_waiting(self)
                self._await_departure(_FIRST_LOOK)
                return
            if not self._queues.add(self, len(piece)):
                self._look_again(_NO_ROOM_PAUSE, self._write)
                return
            self._head = b""
            self._unsent = self._unsent[CHUNK:]
            self._transport.write(piece)

    def _await_departure(self, pause: float) -> None:
        """End the answer when it has left this machine, so that unread ones do not pile up here."""
        if self._transport.is_closing():
            return
        if not self._transport.get_write_buffer_size() and not not_yet_sent(self._socket):
            self._end_answer()
            return
        self._look_again(pause, lambda: self._await_departure(min(2 * pause, _LONGEST_LOOK)))

    def _look_again(self, pause: float, then: Callable[[], None]) -> None:
        self._look = self._loop.call_later(pause, then)

    def _end_answer(self) -> None:
        is_over = self._is_last or not (self._http.our_state is h11.DONE and self._http.their_state is h11.DONE)
        if is_over:
            self._linger()
        else:
            self._http.start_next_cycle()
            self._phase = _Phase.HEAD
            self._method = b""
            self._has_begun = False
            self._has_answered = True
            self._deadline.set(self._limits.idle_seconds, self._give_up_on_head)
            self._connections.start_waiting(self)
            # In a turn of its own, so that a client that pipelines cannot keep the loop to itself.
            self._loop.call_soon(self._read_request)

    def _linger(self) -> None:
        self._phase = _Phase.LINGER
        self._room = len(self._buffer)
        self._deadline.set(self._limits.linger_seconds, self._transport.abort)
        self._connections.start_waiting(self)
        try:
            self._transport.write_eof()
        except OSError:
            # The client has reset the connection; asyncio lets the error of shutdown(2) through.
            self._transport.abort()
        self._transport.resume_reading()
