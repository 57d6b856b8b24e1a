"""The class that serves: ours for a type that we name, else the one that was asked for with ours mixed in."""

from __future__ import annotations

from gunicorn import util
from gunicorn.workers import SUPPORTED_WORKERS
from gunicorn.workers.base import Worker
from gunicorn.workers.base_async import AsyncWorker
from gunicorn.workers.gthread import ThreadWorker
from gunicorn.workers.sync import SyncWorker

from promgun.config.worker_types import check_available, resolve, suggest
from promgun.errors import ConfigurationError
from promgun.workers._instrumentation import ConnectionFollower
from promgun.workers._mixin import PrometheusMixin
from promgun.workers._wsgi_fallback import ForeignServer

#: Gunicorn's own worker that calls the application otherwise than WSGI says (25.0 and newer).
_ASGI = "gunicorn.workers.gasgi"


def choose_worker_class(wanted: str | type, threads: int) -> tuple[str | type, str]:
    """Return the instrumented class (or its dotted path) and the name of its type.

    Raises :class:`ConfigurationError` where nothing stands behind the name, or not a worker for WSGI.
    """
    known = resolve(wanted, threads)
    if known is not None:
        check_available(known)
        return known.target, known.name
    name = wanted if isinstance(wanted, str) else f"{wanted.__module__}.{wanted.__qualname__}"
    if "." not in name and ":" not in name and name not in SUPPORTED_WORKERS:
        close = suggest(name)
        hint = f"Did you mean {close!r}? " if close else ""
        raise ConfigurationError(f"Unknown worker type {name!r}", f"{hint}promgun run --help lists them")
    loaded = _load(wanted)
    if not isinstance(loaded, type) or not issubclass(loaded, Worker):
        raise ConfigurationError(
            f"{name!r} is no worker class of Gunicorn's", "Choose one with --worker-type, e.g. gthread"
        )
    if any(base.__module__ == _ASGI for base in loaded.__mro__):
        raise ConfigurationError(
            f"The worker type {name!r} serves ASGI applications, and promgun measures WSGI",
            "Choose another with --worker-type, e.g. gthread",
        )
    return instrument(loaded), name


def _load(wanted: str | type) -> object:
    try:
        return util.load_class(wanted)
    except (RuntimeError, AttributeError, ImportError) as error:
        raise ConfigurationError(f"Worker class {wanted!r} cannot be loaded: {last_line(error)}") from error


def last_line(error: BaseException) -> str:
    """Return what an error of Gunicorn's ``load_class`` says in the end: it holds a whole traceback (25.3 to 27.0)."""
    return [line for line in str(error).splitlines() if line.strip("[] ")][-1].strip("[] ")


def instrument(worker_class: type) -> type:
    """Return ``worker_class`` with :class:`PrometheusMixin` in front, unless it has it already."""
    if issubclass(worker_class, PrometheusMixin):
        return worker_class
    bases: tuple[type, ...] = (ForeignServer, PrometheusMixin, worker_class)
    if issubclass(worker_class, SyncWorker | AsyncWorker):
        bases = (ForeignServer, PrometheusMixin, ConnectionFollower, worker_class)
    namespace = {
        "__module__": worker_class.__module__,
        "__doc__": worker_class.__doc__,
        "request_at": 0 if issubclass(worker_class, ThreadWorker) else 1,
        "gives_requests": issubclass(worker_class, SyncWorker | AsyncWorker | ThreadWorker),
    }
    return type(f"Prometheus{worker_class.__name__}", bases, namespace)
