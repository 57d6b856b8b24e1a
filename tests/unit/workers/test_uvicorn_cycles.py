"""What is known of a request that uvicorn serves."""

from __future__ import annotations

from typing import Any

import pytest

from promgun.workers._uvicorn_cycles import MeasuredCycle


@pytest.mark.parametrize(
    ("method", "headers", "received", "expected"),
    [
        ("GET", [], 0, False),
        ("GET", [(b"host", b"t"), (b"content-length", b"3")], 0, True),
        ("GET", [(b"transfer-encoding", b"chunked")], 0, True),
        ("GET", [], 1, True),
        ("DELETE", [], 0, False),
        ("POST", [], 0, True),
    ],
)
def test_a_request_is_an_upload_where_a_body_may_come(
    method: str, headers: list[Any], received: int, *, expected: bool
) -> None:
    """HTTP/2 needs no header for a body, and a protocol may not tell that there is none."""
    cycle = MeasuredCycle()
    cycle.scope, cycle.received = {"method": method, "headers": headers}, received
    assert cycle._sends_body() is expected
