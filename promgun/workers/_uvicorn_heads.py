"""Writes the heads of answers as uvicorn on httptools does (0.54), with less work for what was written before.

uvicorn searches each name and value for characters that are not allowed, by regular expressions, for each answer: its
own two headers, which change once a second, and those of the application, most of which are the same each time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from re import Pattern
from typing import Any

_Header = tuple[bytes, bytes]
#: What these say is more than a line of the head; content-length is known below.
_SPECIAL = frozenset({b"connection", b"content-length", b"transfer-encoding"})
#: Headers with few values, in lower case: lines of these are remembered.
FEW_VALUES = frozenset({
    b"access-control-allow-credentials", b"access-control-allow-headers", b"access-control-allow-methods",
    b"access-control-allow-origin", b"access-control-expose-headers", b"access-control-max-age", b"allow",
    b"cache-control", b"content-encoding", b"content-language", b"content-security-policy", b"content-type",
    b"cross-origin-embedder-policy", b"cross-origin-opener-policy", b"cross-origin-resource-policy", b"expires",
    b"permissions-policy", b"pragma", b"referrer-policy", b"server", b"strict-transport-security", b"vary",
    b"x-content-type-options", b"x-frame-options", b"x-powered-by", b"x-xss-protection",
})  # fmt: skip
_MOST_LINES = 500
#: As applications write it.
_LENGTH = frozenset({b"content-length", b"Content-Length"})
#: More digits than any length has: Python refuses some numbers of that kind.
_MOST_DIGITS = 18
_WITHOUT_LENGTH = frozenset({204, 304})


class UnusualError(Exception):
    """A head that is left to uvicorn."""


class AnswerHeads:
    """The heads of one worker's answers; ``status_lines`` and the patterns are uvicorn's."""

    def __init__(
        self, status_lines: Mapping[int, bytes], bad_in_name: Pattern[bytes], bad_in_value: Pattern[bytes]
    ) -> None:
        self._status_lines = status_lines
        self._bad_in_name = bad_in_name
        self._bad_in_value = bad_in_value
        self._lines: dict[Any, bytes] = {}
        self._defaults: Sequence[_Header] | None = None
        self._default_lines: bytes | None = None

    def write(self, cycle: Any, message: Any) -> bytes | None:
        """Return the head that ``message`` begins an answer with, and note in a cycle of uvicorn's what it says;
        ``None``, and nothing is changed, where it is not a usual one.
        """
        status, headers, defaults = message.get("status"), message.get("headers"), cycle.default_headers
        if defaults is not self._defaults:
            self._look_at(defaults)
        status_line = self._status_lines.get(status) if isinstance(status, int) else None
        if headers.__class__ is not list or status_line is None or self._default_lines is None:
            return None
        content, lines = [status_line, self._default_lines], self._lines
        length = -1
        try:
            for header in headers:
                line = lines.get(header)
                if line is None:
                    if length < 0 and header[0] in _LENGTH:
                        length = _declared(header)
                        line = b"content-length: %d\r\n" % length
                    else:
                        line = self._new_line(header)
                content.append(line)
        except (TypeError, ValueError, LookupError, UnusualError):
            return None
        if not cycle.keep_alive:
            content.append(b"connection: close\r\n")
        if length >= 0:
            cycle.expected_content_length = length
            cycle.chunked_encoding = False
        elif cycle.scope["method"] != "HEAD" and status not in _WITHOUT_LENGTH:
            cycle.chunked_encoding = True
            content.append(b"transfer-encoding: chunked\r\n")
        content.append(b"\r\n")
        return b"".join(content)

    def _look_at(self, defaults: Sequence[_Header]) -> None:
        """Make the lines of the server's own headers, a list that is replaced when they change."""
        self._defaults = defaults
        try:
            self._default_lines = b"".join(map(self._new_line, defaults))
        except (TypeError, ValueError, UnusualError):
            self._default_lines = None

    def _new_line(self, header: _Header) -> bytes:
        name, value = header
        if name.__class__ is not bytes or value.__class__ is not bytes:
            raise UnusualError
        lowered = name.lower()
        if lowered in _SPECIAL or self._bad_in_name.search(name) or self._bad_in_value.search(value):
            raise UnusualError
        line = b"%b: %b\r\n" % (lowered, value)
        if lowered in FEW_VALUES and len(self._lines) < _MOST_LINES:
            self._lines[header] = line
        return line


def _declared(header: _Header) -> int:
    """Return a length that is written as decimal digits."""
    _, value = header
    if value.__class__ is not bytes or not value.isdigit() or len(value) > _MOST_DIGITS or value[:1] == b"0" != value:
        raise UnusualError
    return int(value)
