"""Checks and writes the heads of answers as Gunicorn's ASGI server does (27.0.1), with less work for what was written
before: it checks each name and value of the application by regular expressions, for each answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gunicorn.asgi import protocol as server

from promgun.workers._known_code import has_methods
from promgun.workers._uvicorn_heads import FEW_VALUES

#: The functions that are repeated or replaced here, or on which that rests, and the checksums of the names in them.
FUNCTIONS = {
    "_scan_response_headers": 0x4710BA22,
    "_get_cached_status_line": 0xDED2E853,
    "_get_cached_date_header": 0xBD609C44,
}
#: Gunicorn writes a header "server" of its own where the application has none.
_REMEMBERED = FEW_VALUES - {b"server"}
_MOST_LINES = 500
#: As applications write it.
_LENGTH = frozenset({b"content-length", b"Content-Length"})
_CHUNKED = b"transfer-encoding", b"chunked"

Scanned = tuple[bool, Any, bool]


class AnswerLines:
    """The lines of headers that are valid, and say nothing to the server, by the pair that an application gives."""

    def __init__(self, scan: Callable[[Any], Scanned]) -> None:
        self._scan = scan
        self._lines: dict[Any, bytes] = {}

    def scan(self, headers: Any) -> Scanned:
        """Return what ``_scan_response_headers`` returns, or raise what it raises."""
        if headers.__class__ is not list:
            return self._scan(headers)
        lines, length = self._lines, None
        try:
            for header in headers:
                if header not in lines:
                    name, value = header
                    if name not in _LENGTH or value.__class__ is not bytes or not value.isdigit():
                        return self._scan_and_remember(headers)
                    length = value
        except (TypeError, ValueError):
            return self._scan(headers)
        return length is not None, length, False

    def _scan_and_remember(self, headers: list[Any]) -> Scanned:
        scanned = self._scan(headers)
        for header in headers:
            if header.__class__ is tuple and len(self._lines) < _MOST_LINES:
                name, value = header
                if name.__class__ is value.__class__ is bytes and name.lower() in _REMEMBERED:
                    self._lines[header] = b"%b: %b\r\n" % (name, value)
        return scanned

    def head(self, status: int, headers: Any, request: Any, *, close: bool) -> bytes | None:
        """Return the head that ``_send_response_start`` makes of headers that were scanned; ``None`` where it is not
        a usual one.
        """
        lines = self._lines
        parts = [server._get_cached_status_line(request.version, status)]  # noqa: SLF001 - Gunicorn has no other way
        try:
            for header in headers:
                line = lines.get(header)
                if line is None:
                    name, value = header
                    if header == _CHUNKED or (name in _LENGTH and value.__class__ is bytes):
                        line = b"%b: %b\r\n" % (name, value)
                    else:
                        return None
                parts.append(line)
        except (TypeError, ValueError):
            return None
        parts += server._CACHED_SERVER_HEADER, server._get_cached_date_header()  # noqa: SLF001 - same
        if close:
            parts.append(b"Connection: close\r\n")
        parts.append(b"\r\n")
        return b"".join(parts)


def remember_lines() -> AnswerLines | None:
    """Have Gunicorn's server check headers by lines that were written before, in this process, for good, and return
    these lines; ``None``, and nothing is changed, where it is another server.
    """
    if not has_methods(server, FUNCTIONS):
        return None
    lines = AnswerLines(server._scan_response_headers)  # noqa: SLF001 - same
    server._scan_response_headers = lines.scan  # noqa: SLF001 - same
    return lines
