"""An HTTP client on raw sockets that counts exactly what it got.

It never retries and never follows: what a test sent is what was sent. Bodies are read as RFC 9112 section 6.3
says: by Content-Length, by chunks, or to the end of the connection.
"""

from __future__ import annotations

import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType

    from typing_extensions import Self

Address: TypeAlias = tuple[str, int] | str
"""Host and port, or the path of a Unix socket."""

NO_ANSWER = 0
"""What :func:`load` counts a request under that got no whole answer."""

TIMEOUT = 20.0


class NoAnswer(ConnectionError):  # noqa: N818 - it names what happened
    """The connection ended before a whole answer arrived."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to send; ``body`` goes with its Content-Length, ``chunks`` one by one with chunked encoding."""

    path: str = "/"
    method: str = "GET"
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = b""
    chunks: Sequence[bytes] = ()

    def encode(self, version: str, *, keepalive: bool) -> bytes:
        """Return the bytes of this request; the Connection header stands where it is no default."""
        lines = [f"{self.method} {self.path} HTTP/{version}", "Host: localhost"]
        if keepalive != (version == "1.1"):
            lines.append(f"Connection: {'keep-alive' if keepalive else 'close'}")
        if self.body:
            lines.append(f"Content-Length: {len(self.body)}")
        if self.chunks:
            lines.append("Transfer-Encoding: chunked")
        lines += [f"{name}: {value}" for name, value in self.headers]
        head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
        if not self.chunks:
            return head + self.body
        return head + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in self.chunks) + b"0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Response:
    """An answer as it came; header names are in lower case."""

    status: int
    version: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    @property
    def keeps_alive(self) -> bool:
        """Tell whether the server will take another request on this connection."""
        connection = self.headers.get("connection", "").lower()
        delimited = "content-length" in self.headers or "transfer-encoding" in self.headers or not self.body
        return delimited and (connection != "close" if self.version == "1.1" else connection == "keep-alive")


class Connection:
    """One connection to a server; usable as a context manager."""

    def __init__(self, address: Address, source_address: str | None = None, timeout: float = TIMEOUT) -> None:
        if isinstance(address, str):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(timeout)
            self.socket.connect(address)
        else:
            source = None if source_address is None else (source_address, 0)
            self.socket = socket.create_connection(address, timeout, source)
        self._reader = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._reader.close()
        self.socket.close()

    def reset(self) -> None:
        """Leave without a word: the peer gets RST, as from a client that was killed."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        self.close()

    def request(self, request: Request, *, version: str = "1.1", keepalive: bool = False) -> Response:
        """Send one request and return its whole answer; raises :class:`NoAnswer`."""
        # A server may answer and close before it has read all (RFC 9112 section 9.6): it may be there.
        with suppress(ConnectionError):
            self.socket.sendall(request.encode(version, keepalive=keepalive))
        return self.read_response(request.method)

    def read_response(self, method: str = "GET") -> Response:
        """Read one whole answer; raises :class:`NoAnswer`."""
        try:
            version, status = self._status_line()
            headers = self._headers()
            bodiless = method == "HEAD" or status in {204, 304} or status < 200
            body = b"" if bodiless else self._body(headers)
        except ConnectionError as error:
            raise NoAnswer(str(error)) from error
        return Response(status, version, headers, body)

    def _status_line(self) -> tuple[str, int]:
        words = self._line().split(b" ", 2)
        return words[0].removeprefix(b"HTTP/").decode(), int(words[1])

    def _headers(self) -> dict[str, str]:
        headers = {}
        while line := self._line():
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        return headers

    def _body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return b"".join(self._chunks())
        if "content-length" in headers:
            return self._exactly(int(headers["content-length"]))
        return self._reader.read()

    def _chunks(self) -> Iterable[bytes]:
        while size := int(self._line().split(b";")[0], 16):
            yield self._exactly(size)
            self._line()
        while self._line():
            pass

    def _line(self) -> bytes:
        line = self._reader.readline()
        if not line.endswith(b"\n"):
            raise NoAnswer("the connection ended within a line")
        return line.rstrip(b"\r\n")

    def _exactly(self, size: int) -> bytes:
        data = self._reader.read(size)
        if len(data) != size:
            raise NoAnswer(f"the connection ended after {len(data)} of {size} bytes")
        return data


def send(
    address: Address,
    method: str = "GET",
    path: str = "/",
    *,
    version: str = "1.1",
    keepalive: bool = False,
    headers: Sequence[tuple[str, str]] = (),
    body: bytes = b"",
    source_address: str | None = None,
    timeout: float = TIMEOUT,
) -> Response:
    """Send one request on a connection of its own and return the answer.

    Raises :class:`NoAnswer`, or ``OSError`` where no connection can be had.
    """
    with Connection(address, source_address, timeout) as connection:
        return connection.request(Request(path, method, headers, body), version=version, keepalive=keepalive)


def load(
    address: Address,
    requests: Sequence[Request] | int,
    *,
    concurrency: int = 4,
    keepalive: bool = True,
    version: str = "1.1",
    path: str = "/",
) -> Counter[int]:
    """Send every request once over ``concurrency`` connections at a time; count the answers by status.

    The sum of the result is the number of requests; those without a whole answer count as :data:`NO_ANSWER`.
    """
    todo = [Request(path)] * requests if isinstance(requests, int) else requests
    shares = [islice(todo, start, None, concurrency) for start in range(concurrency)]
    with ThreadPoolExecutor(concurrency) as pool:
        answers = [pool.submit(_send_share, address, share, version, keepalive=keepalive) for share in shares]
        return sum((answer.result() for answer in answers), Counter())


def _send_share(address: Address, share: Iterable[Request], version: str, *, keepalive: bool) -> Counter[int]:
    statuses: Counter[int] = Counter()
    connection: Connection | None = None
    for request in share:
        try:
            connection = connection or Connection(address)
            response = connection.request(request, version=version, keepalive=keepalive)
        except OSError:
            response = Response(NO_ANSWER, version, {"connection": "close"})
        statuses[response.status] += 1
        if connection and not (keepalive and response.keeps_alive):
            connection.close()
            connection = None
    if connection:
        connection.close()
    return statuses
