"""Heads of Gunicorn's ASGI server by lines that were written before are, and are refused, as Gunicorn's own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gunicorn
import pytest
from gunicorn.asgi import protocol as server

from promgun.workers._asgi_heads import FUNCTIONS, AnswerLines
from promgun.workers._known_code import has_methods

NEWEST = (27, 0, 1)
pytestmark = pytest.mark.skipif(gunicorn.version_info < NEWEST, reason="written for one version of Gunicorn's server")

TYPE = (b"content-type", b"text/plain")
HEADS: dict[str, Any] = {
    "none": [],
    "usual": [(b"content-length", b"2"), TYPE],
    "another case": [(b"Content-Length", b"2"), (b"Content-Type", b"text/plain")],
    "chunked": [TYPE, (b"transfer-encoding", b"chunked")],
    "date, server": [TYPE, (b"date", b"today"), (b"Server", b"mine")],
    "server": [(b"server", b"mine")],
    "connection": [TYPE, (b"connection", b"close")],
    "text": [("content-type", "text/plain"), ("content-length", "2")],
    "lists": [[b"content-type", b"text/plain"], [b"content-length", b"2"]],
    "a tuple": ((b"content-length", b"2"), TYPE),
    "two lengths": [(b"content-length", b"2"), (b"content-length", b"3")],
    "no number": [(b"content-length", b"two")],
    "a length of nothing": [(b"content-length", b"")],
    "a bytearray": [(bytearray(b"content-type"), b"text/plain")],
    "a value of another kind": [(b"content-type", bytearray(b"text/plain"))],
    "any value": [(b"x-any", b"1"), (b"set-cookie", b"a=b")],
    "three of a pair": [(b"a", b"b", b"c")],
    "no pairs": [7],
    "a bad name": [TYPE, (b"bad name", b"1")],
    "a bad value": [(b"content-type", b"text/plain\r\nx: y")],
    "a bad length": [(b"content-length", b"2\r\nx: y")],
    "latin": [(b"content-language", b"\xe9")],
    "not latin": [("content-language", "€")],
    "nothing to iterate": None,
}


def said(scan: Any, headers: Any) -> Any:
    """Return what a scan returns or raises."""
    try:
        return scan(headers)
    except Exception as error:  # noqa: BLE001 - compared
        return type(error), str(error)


def test_functions_are_known() -> None:
    assert has_methods(server, FUNCTIONS)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("close", [False, True])
def test_heads_are_the_same(name: str, *, close: bool) -> None:
    headers = HEADS[name]
    scan = server._scan_response_headers
    lines = AnswerLines(scan)
    expected = said(scan, headers)
    request: Any = SimpleNamespace(version=(1, 1))
    for before in (HEADS["usual"], headers, headers):
        said(lines.scan, before)
        assert said(lines.scan, headers) == expected
        if isinstance(expected[0], type):
            continue
        own = SimpleNamespace(_response_buffer=None)
        said(lambda given, own=own: server.ASGIProtocol._send_response_start(own, 200, given, request, close), headers)
        head = lines.head(200, headers, request, close=close)
        assert head in {None, own._response_buffer}
        assert head is not None or name not in {"none", "usual", "another case", "a tuple"}


def test_what_has_many_values_is_not_remembered() -> None:
    lines = AnswerLines(server._scan_response_headers)
    for number in range(1_000):
        lines.scan([TYPE, (b"x-request-id", b"%d" % number), (b"vary", b"%d" % number)])
    assert len(lines._lines) == 500
