"""What Gunicorn's ``handle_error`` sends is read for the status and the bytes of body."""

from __future__ import annotations

import pytest

from promgun.workers._request_state import StatusTap

HEAD = b"HTTP/1.1 500 Internal Server Error\r\nConnection: close\r\nContent-Length: 9\r\n"


class Sink:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def sendall(self, data: bytes) -> None:
        self.sent.append(data)


@pytest.mark.parametrize(
    ("data", "answers"),
    [
        (HEAD + b"\r\n<p>\r\n</p>", [(500, 9)]),
        # textwrap.dedent of CPython 3.14 takes \r from Gunicorn's empty line.
        (HEAD + b"\n<p>\r\n</p>", [(500, 9)]),
        (HEAD + b"\n<p>\r\n\r\n", [(500, 7)]),
        (HEAD + b"\r\n", [(500, 0)]),
        (HEAD, []),
        (b"0\r\n\r\n", []),
    ],
)
def test_the_status_and_the_bytes_of_the_body_are_told_before_they_are_sent(
    data: bytes, answers: list[tuple[int, int]]
) -> None:
    sink, told = Sink(), []

    def answer(status: int, sent: int) -> None:
        assert not sink.sent
        told.append((status, sent))

    StatusTap(sink, answer).sendall(data)
    assert told == answers
    assert sink.sent == [data]
