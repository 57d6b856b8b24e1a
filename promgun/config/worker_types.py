"""The worker types that ``--worker-type`` names, as data: nothing heavy is imported to choose one."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from promgun.errors import WorkerUnavailableError


class WorkerType:
    """One worker type.

    ``target`` is the dotted path of our class, ``aliases`` are other paths of the same worker (Gunicorn's own, ours as
    the package exports it), ``requires`` are modules that must be importable, ``extra`` is the extra of the package
    that installs them.
    """

    __slots__ = ("aliases", "extra", "name", "requires", "summary", "target")

    def __init__(
        self,
        *,
        name: str,
        target: str,
        summary: str,
        aliases: tuple[str, ...] = (),
        requires: tuple[str, ...] = (),
        extra: str = "",
    ) -> None:
        self.name = name
        self.target = target
        self.summary = summary
        self.aliases = aliases
        self.requires = requires
        self.extra = extra


WORKER_TYPES: tuple[WorkerType, ...] = (
    WorkerType(
        name="sync",
        target="promgun.workers.sync.PrometheusWorker",
        aliases=("promgun.PrometheusWorker", "gunicorn.workers.sync.SyncWorker"),
        summary="one request at a time in each worker; for CPU-bound work behind a buffering proxy",
    ),
    WorkerType(
        name="gthread",
        target="promgun.workers.gthread.PrometheusThreadWorker",
        aliases=("promgun.PrometheusThreadWorker", "gunicorn.workers.gthread.ThreadWorker"),
        summary="a pool of threads in each worker (--threads), with keep-alive",
    ),
    WorkerType(
        name="gevent",
        target="promgun.workers.gevent.PrometheusGeventWorker",
        aliases=("promgun.PrometheusGeventWorker", "gunicorn.workers.ggevent.GeventWorker"),
        requires=("gevent", "packaging"),
        extra="gevent",
        summary="greenlets on gevent (--worker-connections at once)",
    ),
    WorkerType(
        name="eventlet",
        target="promgun.workers.eventlet.PrometheusEventletWorker",
        aliases=("promgun.PrometheusEventletWorker", "gunicorn.workers.geventlet.EventletWorker"),
        requires=("eventlet",),
        extra="eventlet",
        summary="greenlets on eventlet (--worker-connections at once)",
    ),
    WorkerType(
        name="asgi",
        target="promgun.workers.asgi.PrometheusASGIWorker",
        aliases=("promgun.PrometheusASGIWorker", "gunicorn.workers.gasgi.ASGIWorker"),
        summary="ASGI applications on Gunicorn's own server and an event loop",
    ),
    WorkerType(
        name="uvicorn",
        target="promgun.workers.uvicorn.PrometheusUvicornWorker",
        aliases=("promgun.PrometheusUvicornWorker", "uvicorn_worker.UvicornWorker"),
        requires=("uvicorn", "uvicorn_worker"),
        extra="uvicorn",
        summary="ASGI applications on uvicorn, with its uvloop and httptools where they are installed",
    ),
)

_BY_NAME = {worker_type.name: worker_type for worker_type in WORKER_TYPES}
_BY_PATH = {path: kind for kind in WORKER_TYPES for path in (kind.target, *kind.aliases)}


def resolve(worker_class: str | type, threads: int = 1) -> WorkerType | None:
    """The worker type that ``worker_class`` (a name, a dotted path, ``egg:gunicorn#NAME``, or a class) stands for.

    ``None`` for a class that is not in the table: the caller adds the instrumentation as a mixin. With ``threads`` > 1
    sync becomes gthread, and so does any path that ends in ``SyncWorker``, as in Gunicorn (``Config.worker_class``,
    25.3 to 27.0).
    """
    if isinstance(worker_class, type):
        return _BY_PATH.get(f"{worker_class.__module__}.{worker_class.__qualname__}")
    name = worker_class.removeprefix("egg:gunicorn").removeprefix("#")
    found = _BY_NAME.get(name) or _BY_PATH.get(worker_class)
    if threads > 1 and (found is _BY_NAME["sync"] or worker_class.endswith("SyncWorker")):
        return _BY_NAME["gthread"]
    return found


def check_available(worker_type: WorkerType) -> None:
    """Raise ``WorkerUnavailableError``, naming the extra to install, if a library is missing; imports none of them."""
    missing = [name for name in worker_type.requires if find_spec(name) is None]
    if missing:
        raise WorkerUnavailableError(
            f"the {worker_type.name} worker needs {' and '.join(missing)}, which is not installed",
            f"Install it: pip install 'promgun[{worker_type.extra}]'",
        )


def suggest(name: str) -> str | None:
    """The worker type whose name is closest to a misspelt one, or ``None`` if none is near."""
    from difflib import get_close_matches  # noqa: PLC0415 - for a mistake only

    close = get_close_matches(name.lower(), _BY_NAME, n=1, cutoff=0.5)
    return close[0] if close else None


def warn_of_preloaded_locks(cfg: Any, worker_type: str, log: Any) -> None:
    """Warn of ``--preload`` with a type whose locks are green only if they are made in the worker."""
    if cfg.preload_app and worker_type in {"gevent", "eventlet"}:
        log.warning(
            "--preload with %s: locks created at import are not cooperative and can deadlock workers", worker_type
        )
