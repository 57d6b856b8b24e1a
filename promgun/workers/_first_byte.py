"""Notes when the first byte of a WSGI answer is sent, where that is not when it ends.

A body in one short piece is written in some microseconds: no clock is read for it. Streams, files and long bodies are
noted as they send their head, and so is an application that calls the ``write`` that ``start_response`` returned.
"""

from __future__ import annotations

from types import FunctionType
from typing import Any

from promgun.store.request_table import PHASE, STATUS_SHIFT, Phase
from promgun.workers._accounting import RequestAccounting
from promgun.workers._request_state import RequestState

_WRITING = int(Phase.WRITING)
_WRITE = "promgun_write"


def note_head(accounting: RequestAccounting, state: RequestState, response: Any) -> None:
    """Have it noted when ``response`` sends its head. The status is written to the request's region: if the worker is
    killed while it streams the body, the client was answered.

    ``send_headers`` (gunicorn 25.3 to 27.0 ``Response``) is called by each write, and replaced until the first. Writing
    comes before sending, because a kill is likely while the client already has the head.
    """
    send = getattr(response, "send_headers", None)
    if send is None or getattr(response, "headers_sent", False):
        return

    def send_headers() -> None:
        vars(response).pop("send_headers", None)
        head_sent(accounting, state, response)
        send()

    try:
        response.send_headers = send_headers
    except AttributeError:
        # A response class with slots: its streams are lost when they are cut off.
        return


def head_sent(accounting: RequestAccounting, state: RequestState, response: Any) -> None:
    """Note that ``response`` is sending its head now."""
    if state.recorded:
        return
    state.head = accounting.clock()
    state.has_more = True
    if state.region >= 0 and isinstance(response.status_code, int):
        accounting.running.cells[state.region + PHASE] = _WRITING | response.status_code << STATUS_SHIFT


def note_writes(accounting: RequestAccounting, response_class: Any) -> None:
    """Have responses of this class note the head that an application's own ``write`` sends, in this process.

    ``start_response`` gets another name to return ``self.write`` by, which costs nothing where it is not called. A
    method whose code does not name it once (gunicorn 25.3 to 27.0 does) stays as it is.
    """
    start = vars(response_class).get("start_response")
    code = getattr(start, "__code__", None)
    if not isinstance(start, FunctionType) or code is None or code.co_names.count("write") != 1:
        return

    def promgun_write(response: Any, data: Any) -> None:
        if not response.headers_sent:
            state = getattr(response.req, "promgun", None)
            if state is not None:
                head_sent(accounting, state, response)
        response.write(data)

    names = tuple(_WRITE if name == "write" else name for name in code.co_names)
    changed = FunctionType(
        code.replace(co_names=names), start.__globals__, start.__name__, start.__defaults__, start.__closure__
    )
    changed.__dict__.update(vars(start))
    changed.__kwdefaults__ = start.__kwdefaults__
    setattr(response_class, _WRITE, promgun_write)
    response_class.start_response = changed
