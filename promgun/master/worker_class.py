"""Chooses the worker class: promgun's own for a known type, else the named class with a mixin in front."""

from __future__ import annotations

from gunicorn import util
from gunicorn.workers import SUPPORTED_WORKERS
from gunicorn.workers.base import Worker

from promgun.config.worker_types import check_available, resolve, suggest
from promgun.errors import ConfigurationError
from promgun.workers._lifecycle import WorkerLifecycle
from promgun.workers._server_kinds import is_async, is_sync, is_threaded


def choose_worker_class(wanted: str | type, threads: int) -> tuple[str | type, str]:
    """Return the instrumented class (or its dotted path) and the name of its type.

    Raises :class:`ConfigurationError` when the name is unknown, cannot be loaded, or is not a worker class.
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
            f"{name!r} is not a Gunicorn worker class", "Choose one with --worker-type, e.g. gthread"
        )
    return instrument(loaded), name


def _load(wanted: str | type) -> object:
    try:
        return util.load_class(wanted)
    except (RuntimeError, AttributeError, ImportError) as error:
        raise ConfigurationError(f"Worker class {wanted!r} cannot be loaded: {last_line(error)}") from error


def last_line(error: BaseException) -> str:
    """Return the last line of an error of Gunicorn's ``load_class``, which holds a whole traceback (25.3 to 27.0)."""
    return [line for line in str(error).splitlines() if line.strip("[] ")][-1].strip("[] ")


def instrument(worker_class: type) -> type:
    """Return ``worker_class`` with a measuring mixin in front, unless it has one already.

    A class that does not serve WSGI and is neither Gunicorn's for ASGI nor uvicorn's gets :class:`UnmeasuredMixin`,
    which shows the worker but does not measure its requests.
    """
    if issubclass(worker_class, WorkerLifecycle):
        return worker_class
    from promgun.workers._mixin import PrometheusConnectionMixin, PrometheusMixin  # noqa: PLC0415 - only for such a class
    from promgun.workers._unmeasured import event_loop_mixins, serves_wsgi  # noqa: PLC0415 - same
    from promgun.workers._wsgi_fallback import ApplicationMixin  # noqa: PLC0415 - same

    named = {"__module__": worker_class.__module__, "__doc__": worker_class.__doc__}
    if not serves_wsgi(worker_class):
        named["__qualname__"] = worker_class.__qualname__
        return type(worker_class.__name__, (*event_loop_mixins(worker_class), worker_class), named)
    by_connection = is_sync(worker_class) or is_async(worker_class)
    bases = (ApplicationMixin, PrometheusConnectionMixin if by_connection else PrometheusMixin, worker_class)
    namespace = {
        **named,
        "request_at": 0 if is_threaded(worker_class) else 1,
        "has_loop": is_async(worker_class),
        "gives_requests": by_connection or is_threaded(worker_class),
    }
    return type(f"Prometheus{worker_class.__name__}", bases, namespace)
