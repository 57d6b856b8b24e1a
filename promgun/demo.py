"""A small WSGI application to try promgun with: ``promgun run promgun.demo:app``.

It needs nothing but the standard library, except ``/order``, which counts with prometheus_client as any
application might.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cache
from http import HTTPStatus
from pathlib import Path
from threading import Lock
from typing import IO, TYPE_CHECKING, cast
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from prometheus_client import Counter

INDEX = b"""promgun demo

/fast                  answers at once
/slow?seconds=0.5      answers after that time, 10 s at most
/fail                  raises an exception
/status/404            answers with that status
/stream?chunks=5       answers piece by piece
/echo                  reads the request body and tells its size
/file                  sends a file through the server's own file wrapper
/order/book            counts an order in a metric of the application: book or pen
"""
LONGEST_SLEEP = 10.0
MOST_CHUNKS = 10_000
BLOCK = 65_536
KINDS = ("book", "pen")
TEXT = ("Content-Type", "text/plain; charset=utf-8")

_orders_lock = Lock()


@dataclass(frozen=True, slots=True)
class Request:
    """What the routes look at: the path after the route's name, the query, the raw environment."""

    rest: str
    query: dict[str, list[str]]
    environ: WSGIEnvironment

    def number(self, name: str, default: float) -> float:
        """Return the query's first value of this name; raises ``ValueError`` if it is not a number."""
        return float(self.query.get(name, [str(default)])[0])


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, body, and headers beside the content type; a body of bytes gets its length."""

    body: bytes | Iterable[bytes] = b""
    status: int = HTTPStatus.OK
    headers: tuple[tuple[str, str], ...] = field(default=())


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Serve the routes that ``/`` lists; what a client got wrong is answered with 400 or 404."""
    name, _, rest = environ.get("PATH_INFO", "/").lstrip("/").partition("/")
    if name in ROUTES:
        # An application of no framework names its routes itself.
        environ["promgun.route"] = TEMPLATES.get(name, f"/{name}")
    request = Request(rest, parse_qs(environ.get("QUERY_STRING", "")), environ)
    answer = answer_to(ROUTES.get(name, not_found), request)
    headers = [TEXT, *answer.headers]
    if not isinstance(answer.body, bytes):
        start_response(status_line(answer.status), headers)
        return answer.body
    if may_have_body(answer.status):
        headers.append(("Content-Length", str(len(answer.body))))
    start_response(status_line(answer.status), headers)
    return [answer.body]


def answer_to(route: Callable[[Request], Answer], request: Request) -> Answer:
    """Call the route; a value that it could not read from the URL becomes a 400."""
    try:
        return route(request)
    except ValueError as error:
        return Answer(f"{error}\n".encode(), HTTPStatus.BAD_REQUEST)


def may_have_body(status: int) -> bool:
    """Tell whether RFC 9110 section 6.4.1 lets an answer of this status carry content."""
    return status not in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}


def status_line(status: int) -> str:
    """Return the status with its phrase, also for codes that have no name."""
    phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Unnamed"
    return f"{int(status)} {phrase}"


def index(_request: Request) -> Answer:
    """List the routes."""
    return Answer(INDEX)


def not_found(_request: Request) -> Answer:
    """Answer for any other path."""
    return Answer(b"no such route, / lists them\n", HTTPStatus.NOT_FOUND)


def fast(_request: Request) -> Answer:
    """Answer at once."""
    return Answer(b"fast\n")


def slow(request: Request) -> Answer:
    """Answer after ``seconds``."""
    seconds = request.number("seconds", 0.5)
    if not 0 <= seconds <= LONGEST_SLEEP:
        raise ValueError(f"seconds must be between 0 and {LONGEST_SLEEP:g}")
    time.sleep(seconds)
    return Answer(f"slept {seconds:g} s\n".encode())


def fail(_request: Request) -> Answer:
    """Raise, so that the server answers with 500."""
    raise RuntimeError("the demo's /fail always fails")


def status(request: Request) -> Answer:
    """Answer with the status that the path names; 1xx is refused, as it is not a final answer."""
    code = int(request.rest)
    if not HTTPStatus.OK <= code < 600:  # noqa: PLR2004 - RFC 9110 section 15: codes have three digits, up to 599
        raise ValueError("the status must be between 200 and 599")
    return Answer(f"{code}\n".encode() if may_have_body(code) else b"", code)


def stream(request: Request) -> Answer:
    """Answer with ``chunks`` pieces of unknown total length."""
    chunks = int(request.number("chunks", 5))
    if not 0 <= chunks <= MOST_CHUNKS:
        raise ValueError(f"chunks must be between 0 and {MOST_CHUNKS}")
    return Answer(f"chunk {number}\n".encode() for number in range(chunks))


def echo(request: Request) -> Answer:
    """Read the whole body and answer with its size in bytes."""
    return Answer(f"{sum(map(len, blocks(request.environ['wsgi.input'])))}\n".encode())


def blocks(source: IO[bytes]) -> Iterator[bytes]:
    """Read to the end, a block at a time, so that a large body takes no memory."""
    while block := source.read(BLOCK):
        yield block


def file(request: Request) -> Answer:
    """Send this module's source through ``wsgi.file_wrapper`` (PEP 3333): sendfile under Gunicorn."""
    source = Path(__file__)
    wrap = cast("Callable[[IO[bytes]], Iterable[bytes]]", request.environ["wsgi.file_wrapper"])
    return Answer(wrap(source.open("rb")), headers=(("Content-Length", str(source.stat().st_size)),))


def order(request: Request) -> Answer:
    """Count an order in a metric of the application's own."""
    if request.rest not in KINDS:
        raise ValueError(f"order one of: {', '.join(KINDS)}")
    with _orders_lock:
        counter = orders()
    counter.labels(kind=request.rest).inc()
    return Answer(f"ordered a {request.rest}\n".encode(), HTTPStatus.CREATED)


@cache
def orders() -> Counter:
    """Make the counter when it is first needed, so that the other routes do without prometheus_client."""
    from prometheus_client import Counter  # noqa: PLC0415 - see above

    return Counter("demo_orders", "Orders of the demo application, by kind.", ["kind"])


ROUTES: dict[str, Callable[[Request], Answer]] = {
    "": index,
    "fast": fast,
    "slow": slow,
    "fail": fail,
    "status": status,
    "stream": stream,
    "echo": echo,
    "file": file,
    "order": order,
}
#: The templates of the routes whose path has a value in it.
TEMPLATES = {"status": "/status/{status}", "order": "/order/{kind}"}
