"""A WSGI application that does on request what the process tests want to see measured."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

PATIENCE = 30.0


class CustomError(Exception):
    """What ``/fail/CustomError`` raises."""


ERRORS: dict[str, type[BaseException]] = {
    "ValueError": ValueError,
    "CustomError": CustomError,
    "SystemExit": SystemExit,
    "StopIteration": StopIteration,
    "BrokenPipeError": BrokenPipeError,
}


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Call the function that the first part of the path names with the other parts."""
    name, *rest = environ["PATH_INFO"].strip("/").split("/")
    return ROUTES[name](environ, start_response, *rest)


def ok(_environ: WSGIEnvironment, start_response: StartResponse, *_: str) -> Iterable[bytes]:
    """Answer with two bytes."""
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


def status(_environ: WSGIEnvironment, start_response: StartResponse, code: str) -> Iterable[bytes]:
    """Answer with that status and no body."""
    start_response(f"{code} Probe", [("Content-Length", "0")])
    return []


def size(_environ: WSGIEnvironment, start_response: StartResponse, number: str) -> Iterable[bytes]:
    """Answer with so many bytes."""
    start_response("200 OK", [("Content-Length", number)])
    return [b"x" * int(number)]


def stream(_environ: WSGIEnvironment, start_response: StartResponse, count: str, number: str) -> Iterable[bytes]:
    """Answer with so many pieces of so many bytes, with no Content-Length."""
    start_response("200 OK", [])
    return (b"x" * int(number) for _ in range(int(count)))


def written(_environ: WSGIEnvironment, start_response: StartResponse, number: str) -> Iterable[bytes]:
    """Answer through the write callable of PEP 3333."""
    write = start_response("200 OK", [("Content-Length", str(2 * int(number)))])
    write(b"x" * int(number))
    return [b"x" * int(number)]


def paused(_environ: WSGIEnvironment, start_response: StartResponse, way: str, seconds: str) -> Iterable[bytes]:
    """Send a byte, wait, and send another one: through ``write``, or from a generator."""
    write = start_response("200 OK", [("Content-Length", "2")])
    if way == "write":
        write(b"x")
        time.sleep(float(seconds))
        return [b"x"]

    def pieces() -> Iterator[bytes]:
        yield b"x"
        time.sleep(float(seconds))
        yield b"x"

    return pieces()


def file(environ: WSGIEnvironment, start_response: StartResponse, name: str) -> Iterable[bytes]:
    """Answer with a file of the working directory through ``wsgi.file_wrapper``."""
    wrap = cast("Callable[[IO[bytes]], Iterable[bytes]]", environ["wsgi.file_wrapper"])
    start_response("200 OK", [("Content-Length", str(Path(name).stat().st_size))])
    return wrap(Path(name).open("rb"))


def echo(environ: WSGIEnvironment, start_response: StartResponse, *_: str) -> Iterable[bytes]:
    """Answer with the size of the request body, after reading it."""
    answer = str(len(environ["wsgi.input"].read())).encode()
    start_response("200 OK", [("Content-Length", str(len(answer)))])
    return [answer]


def whole(environ: WSGIEnvironment, start_response: StartResponse, *_: str) -> Iterable[bytes]:
    """Answer when the whole request body has come; raise when the client left before."""
    if len(environ["wsgi.input"].read()) < int(environ["CONTENT_LENGTH"]):
        raise ValueError("the body is not whole")
    return ok(environ, start_response)


def fail(_environ: WSGIEnvironment, _start_response: StartResponse, name: str) -> Iterable[bytes]:
    """Raise before anything was answered."""
    raise ERRORS[name]("asked for")


def failing_stream(_environ: WSGIEnvironment, start_response: StartResponse, name: str) -> Iterator[bytes]:
    """Raise after the first piece was sent."""
    start_response("200 OK", [])
    yield b"first"
    raise ERRORS[name]("asked for")


def sleep(environ: WSGIEnvironment, start_response: StartResponse, seconds: str) -> Iterable[bytes]:
    """Answer after that time."""
    time.sleep(float(seconds))
    return ok(environ, start_response)


def burn(environ: WSGIEnvironment, start_response: StartResponse, seconds: str) -> Iterable[bytes]:
    """Answer after that much time of the CPU."""
    end = time.thread_time() + float(seconds)
    while time.thread_time() < end:
        pass
    return ok(environ, start_response)


def named(environ: WSGIEnvironment, start_response: StartResponse, name: str) -> Iterable[bytes]:
    """Answer after having named the route, the first part of which is ``name``."""
    environ["promgun.route"] = f"/{name}/{{id}}"
    return ok(environ, start_response)


def timed(_environ: WSGIEnvironment, start_response: StartResponse, seconds: str) -> Iterable[bytes]:
    """Answer after that time with when the call began and ended, on the monotonic clock that all processes share."""
    begin = time.monotonic()
    time.sleep(float(seconds))
    answer = f"{begin} {time.monotonic()}".encode()
    start_response("200 OK", [("Content-Length", str(len(answer)))])
    return [answer]


def gate(environ: WSGIEnvironment, start_response: StartResponse, name: str) -> Iterable[bytes]:
    """Leave a file ``name.waiting``, and answer when the test has written a file ``name``."""
    Path(f"{name}.waiting").touch()
    end = time.monotonic() + PATIENCE
    while not Path(name).exists() and time.monotonic() < end:
        time.sleep(0.02)
    return ok(environ, start_response)


def stuck(environ: WSGIEnvironment, start_response: StartResponse, name: str) -> Iterable[bytes]:
    """Leave a file ``name.waiting``, then stop every thread of the worker: no other runs while an expression matches.

    It would take for ever; a signal's handler can end it where it runs in the main thread.
    """
    Path(f"{name}.waiting").touch()
    re.fullmatch("(a+)+b", "a" * 60)
    return ok(environ, start_response)


def endless(_environ: WSGIEnvironment, start_response: StartResponse, *_: str) -> Iterator[bytes]:
    """Send pieces until the client is gone."""
    start_response("200 OK", [])
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        yield b"x" * 65_536


def facts(environ: WSGIEnvironment, start_response: StartResponse, *_: str) -> Iterable[bytes]:
    """Tell pid, parent, user, group, working directory, and the environment variables asked for."""
    names = environ.get("QUERY_STRING", "").split("&")
    values: list[Any] = [os.getpid(), os.getppid(), os.getuid(), os.getgid(), Path.cwd()]
    values += [os.environ.get(name, "") for name in names if name]
    answer = " ".join(map(str, values)).encode()
    start_response("200 OK", [("Content-Length", str(len(answer)))])
    return [answer]


def leave(_environ: WSGIEnvironment, _start_response: StartResponse, code: str) -> Iterable[bytes]:
    """End the worker without another word."""
    sys.stdout.flush()
    os._exit(int(code))


ROUTES: dict[str, Callable[..., Iterable[bytes]]] = {
    function.__name__: function
    for function in (
        ok,
        status,
        size,
        stream,
        written,
        paused,
        file,
        echo,
        whole,
        fail,
        failing_stream,
        burn,
        named,
        sleep,
        timed,
        gate,
        stuck,
        endless,
        facts,
        leave,
    )
}
