"""Follows the requests of HTTP/2 in Gunicorn's ASGI worker (gunicorn 27.0): each is a stream.

``Http2Stream.send_headers``, ``send_data`` and ``send_trailers`` are called with each frame, before it is written; they
are replaced on the one object.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from promgun.workers._asgi_follower import AsgiRequest


class StreamObserver:
    """Observes one stream for ``request``; ``answered`` is called when its last frame is about to be written."""

    def __init__(self, stream: Any, request: AsgiRequest, answered: Callable[[], None]) -> None:
        self._stream = stream
        self._request = request
        self._answered = answered
        self._cut_in_upload = False
        self._reset = stream.reset
        self._send_headers = stream.send_headers
        self._send_data = stream.send_data
        self._send_trailers = stream.send_trailers
        stream.reset = self.reset
        stream.send_headers = self.send_headers
        stream.send_data = self.send_data
        stream.send_trailers = self.send_trailers

    @property
    def left(self) -> bool:
        """Whether the client has left: it has reset the stream, or the connection is lost."""
        return bool(self._stream.disconnected)

    @property
    def uploading(self) -> bool:
        """Whether the request's body is not complete, or was not when the stream was reset."""
        return self._cut_in_upload or not self._stream.request_complete

    @property
    def received(self) -> int:
        """How many bytes of the request's body were received."""
        return int(self._stream.body_size)

    def reset(self, *args: Any, **kwargs: Any) -> Any:
        """Note whether the body was complete: from now on the stream says so in any case."""
        self._cut_in_upload = not self._stream.request_complete
        return self._reset(*args, **kwargs)

    def send_headers(self, headers: Any, end_stream: bool = False) -> Any:  # noqa: FBT001, FBT002 - Gunicorn's signature
        """Note the status of the final head."""
        result = self._send_headers(headers, end_stream)
        status = int(next((value for name, value in headers if name == ":status"), 0))
        if status >= _FINAL and not self._request.is_over:
            self._request.head_sent(status)
            if end_stream:
                self._end()
        return result

    def send_data(self, data: bytes, end_stream: bool = False) -> Any:  # noqa: FBT001, FBT002 - same
        """Count bytes of the response's body."""
        result = self._send_data(data, end_stream)
        if not self._request.is_over:
            self._request.sent += len(data)
            if end_stream:
                self._end()
        return result

    def send_trailers(self, trailers: Any) -> Any:
        """Note the end of the response."""
        result = self._send_trailers(trailers)
        self._end()
        return result

    def _end(self) -> None:
        if not self._request.is_over and self._request.status:
            self._request.received = self.received
            self._request.finish(self._request.status)
            self._answered()


#: The lowest status that is not informational.
_FINAL = 200
