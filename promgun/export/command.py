"""The command line of ``promgun run`` that units and containers start."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from promgun.errors import UsageError
from promgun.export.options import option
from promgun.export.text import port
from promgun.metrics.defaults import METRICS_ADDRESS

ANYWHERE = "0.0.0.0"  # noqa: S104 - in a container, whose network decides who reaches it


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """A server: the application, its addresses (``HOST:PORT`` or ``unix:PATH``), its workers, further arguments."""

    app: str = "app:wsgi"
    bind: str = option("127.0.0.1:8000", "Where the application listens.", "ADDRESS")
    metrics_bind: str = option(METRICS_ADDRESS, "Where the metrics endpoint listens.", "ADDRESS")
    workers: int = option(2, "The number of workers.")
    worker_type: str = option("sync", "The worker type, as in promgun run.", "TYPE")
    threads: int = option(1, "Threads of each worker.")
    arguments: tuple[str, ...] = ()

    def ports(self) -> Iterator[int]:
        """Yield the TCP ports that it listens on; raises ``UsageError`` for anything that is not an address."""
        for address in (self.bind, self.metrics_bind):
            if not address.startswith("unix:"):
                yield port(address)


def arguments(server: ServerOptions) -> list[str]:
    """Return what follows ``promgun run``; raises ``UsageError`` for a name that could be taken for an option."""
    if not server.app or server.app.startswith("-"):
        raise UsageError(f"{server.app!r} is not an application", "Write MODULE:NAME, e.g. app:wsgi")
    list(server.ports())
    threads = ("--threads", str(server.threads)) if server.threads > 1 else ()
    return [
        *("--bind", server.bind),
        *("--metrics-bind", server.metrics_bind),
        *("--workers", str(server.workers)),
        *("--worker-type", server.worker_type),
        *threads,
        *server.arguments,
        server.app,
    ]
