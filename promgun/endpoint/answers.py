"""Everything the endpoint can say, fixed beforehand but for the page of metrics and the status."""

from __future__ import annotations

from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING

import h11

if TYPE_CHECKING:
    from collections.abc import Mapping

    from promgun.endpoint.negotiation import Form

METHODS = (b"GET", b"HEAD")

_TEXT = (b"Content-Type", b"text/plain; charset=utf-8")
# A browser must neither guess another type, nor keep or embed what is here.
ALWAYS = ((b"X-Content-Type-Options", b"nosniff"), (b"Cache-Control", b"no-store"))
_ALLOW = ((b"Allow", b", ".join(METHODS)),)
_RETRY = ((b"Retry-After", b"1"),)


@dataclass(frozen=True, slots=True)
class Answer:
    """A response but for the headers that depend on the connection."""

    status: HTTPStatus
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = (_TEXT, *ALWAYS)

    def response(self, *, is_last: bool) -> h11.Response:
        """Return its head, dated now."""
        headers = [
            (b"Date", formatdate(usegmt=True).encode()),
            *self.headers,
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
        (HTTPStatus.NOT_FOUND, ()),
        (HTTPStatus.METHOD_NOT_ALLOWED, _ALLOW),
        (HTTPStatus.REQUEST_TIMEOUT, ()),
        (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, ()),
        (HTTPStatus.REQUEST_URI_TOO_LONG, ()),
        (HTTPStatus.EXPECTATION_FAILED, ()),
        (HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, ()),
        (HTTPStatus.NOT_IMPLEMENTED, ()),
        (HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, ()),
    )
}


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
