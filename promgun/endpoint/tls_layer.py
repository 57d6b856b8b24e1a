"""TLS between a socket and a connection, which takes it for its transport."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from promgun.metrics.late_label_values import EndpointRefusal

if TYPE_CHECKING:
    from promgun.endpoint.connection import HttpConnection
    from promgun.endpoint.counts import EndpointCounts
    from promgun.endpoint.tls import Tls

_PLAIN_HTTP = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 39\r\n"
    b"Connection: close\r\n\r\n400 Bad Request: this address wants TLS"
)


class TlsLayer(asyncio.BufferedProtocol, asyncio.Transport):
    """Decrypts what a client sends and encrypts what the connection writes.

    asyncio's own TLS (3.10 to 3.13) makes the connection known only after the handshake, so that no deadline or limit
    of ours could end a stalled handshake. It also cannot close one direction alone, and it buffers without our limits.
    Here the connection lives from the start, and its deadlines bound the handshake too.
    """

    def __init__(self, connection: HttpConnection, tls: Tls, counts: EndpointCounts, buffer: memoryview) -> None:
        super().__init__()
        self._connection = connection
        self._tls = tls
        self._counts = counts
        # Shared by all connections, as the plain one is.
        self._buffer = buffer
        self._received = ssl.MemoryBIO()
        self._to_send = ssl.MemoryBIO()
        self._object = tls.context.wrap_bio(self._received, self._to_send, server_side=True)
        self._loop = asyncio.get_running_loop()
        self._is_established = False
        self._is_paused = False
        self._has_ended = False
        self._transport: asyncio.Transport

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, and wait for the client to start the handshake."""
        self._transport = cast("asyncio.Transport", transport)
        self._connection.connection_made(self)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature; its hint is -1
        """Offer room for a record."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Decrypt what was read; after our end, let the connection count and forget it."""
        if self._has_ended:
            self._connection.buffer_updated(nbytes)
            return
        self._received.write(self._buffer[:nbytes])
        self._advance()

    def pause_writing(self) -> None:
        """Pass it on."""
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        self._connection.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass it on."""
        self._connection.connection_lost(exc)

    # What the connection calls

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the socket's transport knows."""
        return self._transport.get_extra_info(name, default)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Bound what waits for the kernel."""
        self._transport.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        """Return how many bytes wait for the kernel."""
        return self._transport.get_write_buffer_size()

    def is_closing(self) -> bool:
        """Whether it is over."""
        return self._transport.is_closing()

    def pause_reading(self) -> None:
        """Read nothing; at most one buffer, which has been read already, waits to be decrypted."""
        self._is_paused = True
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on, first with what has been read already."""
        if self._is_paused:
            self._is_paused = False
            self._transport.resume_reading()
            self._loop.call_soon(self._advance)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send; a memory BIO takes any number of bytes."""
        if data and not self.is_closing():
            self._object.write(data)
            self._flush()

    def write_eof(self) -> None:
        """End our direction: close_notify, then FIN."""
        self._send_close_notify()
        self._transport.write_eof()

    def close(self) -> None:
        """End when what was written has left."""
        self._send_close_notify()
        self._transport.close()

    def abort(self) -> None:
        """End now."""
        self._transport.abort()

    # The records

    def _advance(self) -> None:
        if self.is_closing() or self._has_ended:
            return
        try:
            if not self._is_established:
                self._object.do_handshake()
                self._establish()
            self._deliver()
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError as error:
            self._fail(error)

    def _establish(self) -> None:
        self._is_established = True
        self._flush()
        self._connection.is_barred = not self._tls.admits(self._object.getpeercert())

    def _deliver(self) -> None:
        while not (self._is_paused or self._has_ended or self.is_closing()):
            buffer = self._connection.get_buffer(-1)
            # A memoryview is a buffer, which the annotation of 3.10 to 3.13 does not say.
            size = self._object.read(len(buffer), cast("bytearray", buffer))
            if not size:
                self.close()
                return
            self._connection.buffer_updated(cast("int", size))
        self._flush()

    def _fail(self, error: ssl.SSLError) -> None:
        """End what is no TLS that we speak; the alert that says so goes first."""
        if not self._is_established:
            self._counts.refuse(EndpointRefusal.TLS_HANDSHAKE)
        if error.reason == "HTTP_REQUEST":
            self._transport.write(_PLAIN_HTTP)
        else:
            self._flush()
        self._has_ended = True
        self._transport.close()

    def _flush(self) -> None:
        if self._to_send.pending and not self.is_closing():
            self._transport.write(self._to_send.read())

    def _send_close_notify(self) -> None:
        if self._is_established and not self._has_ended:
            self._has_ended = True
            # OpenSSL wants the client's close_notify, which nobody needs, or no handshake has been completed.
            with suppress(ssl.SSLError):
                self._object.unwrap()
            self._flush()
