"""Refuses an application of the wrong kind, WSGI or ASGI, for the worker class; only where there is no doubt.

A call tells what it wants: a coroutine function answers nothing under WSGI, and what takes exactly two arguments cannot
be called by ASGI, which gives three (or one, then three). So factories, ``functools.partial``, plain functions that
return a coroutine, and classes, whose call makes an instance, are never refused.
"""

from __future__ import annotations

import inspect
from types import FunctionType, MethodType
from typing import Any

from gunicorn import util

from promgun.master.load_errors import ApplicationRefusedError
from promgun.workers._server_kinds import is_async, is_sync, is_threaded

_WSGI_ARGUMENTS = 2
#: Methods from which the application is loaded or called, and the packages whose own are known.
_CALLERS = ("load_wsgi", "init_process", "_serve", "handle", "handle_request", "run")
_SERVERS = frozenset({"gunicorn", "promgun", "uvicorn", "uvicorn_worker"})


def check_kind(application: Any, name: str, worker_type: str, cfg: Any) -> Any:
    """Return ``application``; raise :class:`ApplicationRefusedError` if the worker class certainly cannot call it.

    A hook or a class that may put something in front of it leaves room for doubt.
    """
    hook = cfg.settings["post_worker_init"]
    loaded = util.load_class(cfg.instrumented) if isinstance(cfg.instrumented, str) else cfg.instrumented
    if hook.get() is not type(hook).default or _loads_its_own_way(loaded):
        return application
    if is_sync(loaded) or is_async(loaded) or is_threaded(loaded):
        if is_certainly_asgi(application):
            raise ApplicationRefusedError(
                f"{name} is an ASGI application, which worker type {worker_type} cannot call. "
                "Serve it with --worker-type asgi or --worker-type uvicorn"
            )
    elif loaded.has_loop and is_certainly_wsgi(application):
        raise ApplicationRefusedError(
            f"{name} is a WSGI application, which worker type {worker_type} cannot call. "
            "Serve it with --worker-type gthread or --worker-type sync"
        )
    return application


def _loads_its_own_way(worker_class: type) -> bool:
    """Whether a class from elsewhere may wrap the application, or has uvicorn call it in another way."""
    wanted = getattr(worker_class, "CONFIG_KWARGS", {})
    if wanted.get("interface", "auto") not in {"auto", "asgi3"} or wanted.get("factory"):
        return True
    return any(
        name in vars(base)
        for base in worker_class.__mro__
        for name in _CALLERS
        if base.__module__.partition(".")[0] not in _SERVERS
    )


def is_certainly_asgi(application: object) -> bool:
    """Whether calling ``application`` gives a coroutine for sure."""
    function, _ = _called(application)
    return function is not None and bool(function.__code__.co_flags & inspect.CO_COROUTINE)


def is_certainly_wsgi(application: object) -> bool:
    """Whether ``application`` takes exactly two positional arguments for sure, and gives no coroutine."""
    function, bound = _called(application)
    if function is None or function.__defaults__ or function.__kwdefaults__:
        return False
    code = function.__code__
    variable = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS | inspect.CO_COROUTINE
    if code.co_flags & variable or code.co_kwonlyargcount:
        return False
    return code.co_argcount - bound == _WSGI_ARGUMENTS


def _called(application: object) -> tuple[FunctionType | None, int]:
    """Return the function that a call of ``application`` runs, and how many arguments are bound to it already; ``None``
    where that is not a function of Python's.
    """
    if isinstance(application, FunctionType):
        return application, 0
    if isinstance(application, MethodType):
        function = application.__func__
        return (function, 1) if isinstance(function, FunctionType) else (None, 0)
    if isinstance(application, type):
        return None, 0
    function = inspect.getattr_static(type(application), "__call__", None)
    return (function, 1) if isinstance(function, FunctionType) else (None, 0)
