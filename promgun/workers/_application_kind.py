"""Tells by an exception that the application is of the other kind, WSGI or ASGI, than its worker class calls.

The master refuses an application where there is no doubt about that (``master.application_kind``). Where there was
some, the first request tells that fails because of it: the call itself raises, or what it returned is no answer. A
request that fails for another reason tells nothing, so the exception is asked where it was raised and what it says; the
texts are those of CPython 3.10 to 3.14.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any

#: Packages that call the application: an exception of theirs is about the call.
_SERVERS = frozenset({"gunicorn", "promgun", "uvicorn"})
_NO_ANSWER = re.compile(r"'(coroutine|async_generator)' object is not iterable")
_NOT_AWAITABLE = re.compile(r"(?!.*NoneType)(object \w+ can't be used in 'await'|'\w+' object can't be awaited)")
_WANTS_SEND = re.compile(r"missing \d required positional arguments?: .*'send'$")
#: A middleware has passed on what a server of ASGI gave it, or took that for WSGI's arguments.
_WANTS_START_RESPONSE = re.compile(
    r"missing \d required positional arguments?: .*'start_response'$"
    r"|(__call__|wsgi\w*)\(\) takes 3 positional arguments but 4 were given$"
    r"|receive\(\) takes [01] positional arguments? but \d were given$"
)
_ONE_TOO_MANY = re.compile(r"takes (2 positional arguments but 3|3 positional arguments but 4) were given$")
_BODY_CALLED = re.compile(r"'(list|tuple|generator)' object is not callable$")
_COROUTINE_CALLED = re.compile(r"'coroutine' object is not callable$")
_ENVIRON = frozenset({"REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "SCRIPT_NAME", "SERVER_NAME", "wsgi.input"})


class Seen(Enum):
    """What an application seems to be, said of it; ``{}`` is the worker type."""

    ASGI = "seems to be an ASGI application, which worker type {} cannot call"
    ASGI_2 = "seems to be an application of ASGI 2, which worker type {} cannot call"
    ASGI_3 = "is no coroutine function, so worker type {} calls it as an application of ASGI 2, which it is not"
    WSGI = "seems to be a WSGI application, which worker type {} cannot call"
    FACTORY = "takes no arguments, so it seems to make the application, for which worker type {} does not ask"


#: What to do, under ``promgun run`` and under plain Gunicorn.
ADVICE: Mapping[Seen, tuple[str, str]] = MappingProxyType(
    {
        Seen.ASGI: (
            "Serve it with --worker-type asgi or --worker-type uvicorn",
            "Serve it with promgun.PrometheusASGIWorker or promgun.PrometheusUvicornWorker",
        ),
        Seen.ASGI_2: ("Serve it with --worker-type uvicorn", "Serve it with promgun.PrometheusUvicornWorker"),
        Seen.ASGI_3: ("Serve it with --worker-type asgi", "Serve it with promgun.PrometheusASGIWorker"),
        Seen.WSGI: (
            "Serve it with --worker-type gthread or --worker-type sync",
            "Serve it with promgun.PrometheusThreadWorker or promgun.PrometheusWorker",
        ),
        Seen.FACTORY: (
            "Name it with parentheses, or serve it with --worker-type uvicorn if what it makes is ASGI",
            "Name it with parentheses, or serve it with promgun.PrometheusUvicornWorker if what it makes is ASGI",
        ),
    }
)


def seen_by_wsgi(application: Any, error: BaseException) -> Seen | None:
    """Return what an application is that raised ``error`` when it was called by WSGI; ``None`` if that says nothing."""
    if not isinstance(error, TypeError):
        return None
    if _WANTS_SEND.search(str(error)) or (_NO_ANSWER.search(str(error)) and _raised_by_a_server(error)):
        return Seen.ASGI
    if not _raised_by_a_server(error) or _takes(application, 2):
        return None
    if _takes(application, 3) or _takes(application, 1):
        return Seen.ASGI
    return Seen.FACTORY if _takes(application, 0) else None


def seen_by_asgi(application: Any, error: BaseException) -> Seen | None:
    """Return what an application is that raised ``error`` when it was called by ASGI; ``None`` if that says nothing."""
    text = str(error)
    if isinstance(error, KeyError):
        return Seen.WSGI if error.args[:1] and error.args[0] in _ENVIRON and not _is_coroutine(application) else None
    ours = _raised_by_a_server(error)
    if _WANTS_SEND.search(text) or (ours and _COROUTINE_CALLED.search(text)):
        # uvicorn calls with one argument what is no coroutine function.
        return Seen.ASGI_3
    if _is_coroutine(application):
        return None
    if _WANTS_START_RESPONSE.search(text) or (ours and (_NOT_AWAITABLE.search(text) or _BODY_CALLED.search(text))):
        return Seen.WSGI
    return _seen_by_arguments(application, text, ours=ours)


def _seen_by_arguments(application: Any, text: str, *, ours: bool) -> Seen | None:
    by_three, by_two, by_one = _takes(application, 3), _takes(application, 2), _takes(application, 1)
    if by_three:
        # It takes any number, and passes them on.
        return Seen.WSGI if by_two and by_one and _ONE_TOO_MANY.search(text) else None
    if not ours:
        return None
    if by_one:
        return Seen.ASGI_2 if text.endswith("were given") else None
    return Seen.WSGI if by_two else Seen.FACTORY if _takes(application, 0) else None


def _is_coroutine(application: Any) -> bool:
    """Whether a call of ``application`` gives a coroutine for sure."""
    if inspect.isclass(application):
        return False
    return inspect.iscoroutinefunction(application) or inspect.iscoroutinefunction(type(application).__call__)


def _takes(application: Any, count: int) -> bool:
    """Whether a call with so many positional arguments can succeed; False where that cannot be told."""
    try:
        inspect.signature(application).bind(*(None,) * count)
    except (TypeError, ValueError):
        return False
    return True


def _raised_by_a_server(error: BaseException) -> bool:
    """Whether the exception was raised where the application is called, or its answer is used; not by its own code."""
    entry = error.__traceback__
    while entry is not None and entry.tb_next is not None:
        entry = entry.tb_next
    return entry is None or str(entry.tb_frame.f_globals.get("__name__")).partition(".")[0] in _SERVERS
