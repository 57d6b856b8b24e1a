"""Everything the endpoint can say, fixed beforehand but for the page of metrics and the status."""

from __future__ import annotations

from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeAlias

import h11

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from promgun.endpoint.negotiation import Form

Headers: TypeAlias = tuple[tuple[bytes, bytes], ...]

METHODS = (b"GET", b"HEAD")

_TEXT = (b"Content-Type", b"text/plain; charset=utf-8")
# A browser must neither guess another type nor cache the answer.
ALWAYS = ((b"X-Content-Type-Options", b"nosniff"), (b"Cache-Control", b"no-store"))
#: On every answer that has no header of that name. Pages of other origins may neither load nor embed the answer, are
#: sent no Referer with an address of ours, and no text is run as a script.
_PROTECTION = (
    *ALWAYS,
    (b"Cross-Origin-Resource-Policy", b"same-origin"),
    (b"Referrer-Policy", b"no-referrer"),
    (b"Content-Security-Policy", b"default-src 'none'; frame-ancestors 'none'"),
)
_ALLOW = ((b"Allow", b", ".join(METHODS)),)
_RETRY = ((b"Retry-After", b"1"),)


@dataclass(frozen=True, slots=True)
class Answer:
    """A response but for the headers that depend on the connection."""

    status: HTTPStatus
    body: bytes
    headers: Headers = (_TEXT, *ALWAYS)

    def response(self, *, is_last: bool, extra: Headers = ()) -> h11.Response:
        """Return its head, dated now; a header in ``extra`` takes the place of ours of the same name."""
        named = {name.lower(): (name, value) for name, value in (*_PROTECTION, *self.headers, *extra)}
        headers = [
            (b"Date", formatdate(usegmt=True).encode()),
            *named.values(),
            (b"Content-Length", str(len(self.body)).encode()),
        ]
        if is_last:
            headers.append((b"Connection", b"close"))
        return h11.Response(status_code=self.status, headers=headers, reason=self.status.phrase.encode())


def _plain(status: HTTPStatus, text: str, *headers: tuple[bytes, bytes]) -> Answer:
    return Answer(status, f"{text}\n".encode(), (_TEXT, *ALWAYS, *headers))


HEALTHY = _plain(HTTPStatus.OK, "promgun: the server runs.")
UNHEALTHY = _plain(HTTPStatus.SERVICE_UNAVAILABLE, "promgun: the server does not run.", *_RETRY)
READY = _plain(HTTPStatus.OK, "promgun: the server is ready.")
NOT_READY = _plain(HTTPStatus.SERVICE_UNAVAILABLE, "promgun: no worker is ready yet.", *_RETRY)
UNAVAILABLE = _plain(HTTPStatus.SERVICE_UNAVAILABLE, "promgun: the metrics cannot be collected now.", *_RETRY)

REFUSALS: Mapping[HTTPStatus, Answer] = {
    status: _plain(status, f"{status.value} {status.phrase}", *headers)
    for status, headers in (
        (HTTPStatus.BAD_REQUEST, ()),
        (HTTPStatus.FORBIDDEN, ()),
        (HTTPStatus.NOT_FOUND, ()),
        (HTTPStatus.METHOD_NOT_ALLOWED, _ALLOW),
        (HTTPStatus.REQUEST_TIMEOUT, ()),
        (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, ()),
        (HTTPStatus.REQUEST_URI_TOO_LONG, ()),
        (HTTPStatus.EXPECTATION_FAILED, ()),
        (HTTPStatus.TOO_MANY_REQUESTS, _RETRY),
        (HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, ()),
        (HTTPStatus.NOT_IMPLEMENTED, ()),
        (HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, ()),
    )
}


FOREIGN_HOST = _plain(
    HTTPStatus.MISDIRECTED_REQUEST,
    "421 Misdirected Request: this name is not one of the endpoint's; see --metrics-allowed-host",
)
CROSS_SITE = _plain(HTTPStatus.FORBIDDEN, "403 Forbidden: pages of other sites may not ask")
WRONG_CERTIFICATE = _plain(HTTPStatus.FORBIDDEN, "403 Forbidden: the client certificate names nobody who may ask")
UNCONFIGURED = _plain(HTTPStatus.SERVICE_UNAVAILABLE, "promgun: the web configuration cannot be used now.", *_RETRY)

#: A whole answer, for clients whose connection cannot be served.
OUT_OF_DESCRIPTORS = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 39\r\n"
    b"Retry-After: 1\r\nConnection: close\r\n"
    + b"".join(b"%s: %s\r\n" % header for header in _PROTECTION)
    + b"\r\npromgun: no file descriptor is left now"
)


def unauthorized(schemes: Iterable[bytes]) -> Answer:
    """Return the answer to a request without valid credentials; ``schemes`` are challenges (RFC 9110 11.6.1)."""
    challenges = ((b"WWW-Authenticate", b", ".join(schemes)),)
    return _plain(HTTPStatus.UNAUTHORIZED, "401 Unauthorized", *challenges)


def metrics(body: bytes, form: Form) -> Answer:
    """Return the page of metrics, rendered in this form."""
    encoding = ((b"Content-Encoding", b"gzip"),) if form.gzip else ()
    return Answer(
        HTTPStatus.OK,
        body,
        (
            (b"Content-Type", form.format.content_type.encode()),
            *encoding,
            (b"Vary", b"Accept, Accept-Encoding"),
            *ALWAYS,
        ),
    )
