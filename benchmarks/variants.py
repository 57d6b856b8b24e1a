"""The ways to run the same application that the overhead benchmark compares."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from servers import Command, gunicorn, promgun

_PEER_PACKAGES = ("gunicorn==23.0.0", "gunicorn-prometheus-exporter==0.2.4", "gevent", "eventlet", "packaging")
_PEER_CLASSES = {
    "sync": "PrometheusWorker",
    "gthread": "PrometheusThreadWorker",
    "gevent": "PrometheusGeventWorker",
    "eventlet": "PrometheusEventletWorker",
}
_PEER_CONFIG = """\
from gunicorn_prometheus_exporter.hooks import (  # as its documentation has it
    default_on_exit as on_exit, default_on_starting as on_starting, default_post_fork as post_fork,
    default_when_ready as when_ready, default_worker_int as worker_int)
"""


@dataclass(frozen=True, slots=True)
class Ground:
    """What the servers of one benchmark share."""

    folder: Path
    statsd_port: int
    peers_python: str


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to run the application: ``against`` is what its figures are compared with."""

    name: str
    command: Callable[[str, Ground], Command]
    against: str = "plain"


#: Types for ASGI; those that Gunicorn does not know by name, with their plain class.
_ASGI = {"asgi": "asgi", "uvicorn": "uvicorn_worker.UvicornWorker"}


def _options(worker_class: str, worker_type: str, app: str = "") -> list[str]:
    threads = ["--threads", "4"] if worker_type == "gthread" else []
    return [
        "--bind",
        "127.0.0.1:0",
        "--workers",
        "1",
        "--worker-class",
        worker_class,
        *threads,
        app or app_of(worker_type),
    ]


def app_of(worker_type: str) -> str:
    """Return the application that all variants of a worker type serve."""
    return "asgi_app:app" if worker_type in _ASGI else "apps:plain"


def plain_class(worker_type: str) -> str:
    """Return the worker class of a type without promgun's measuring."""
    if worker_type in _ASGI:
        return _ASGI[worker_type]
    # Gunicorn has had no eventlet worker since 26.0: ours, unmeasured
    return "promgun.workers._eventlet_server.EventletWorker" if worker_type == "eventlet" else worker_type


def _plain(worker_type: str, _: Ground) -> Command:
    return gunicorn(sys.executable, _options(plain_class(worker_type), worker_type))


def _promgun(worker_type: str, _: Ground) -> Command:
    return promgun(_options(worker_type, worker_type))


def _naive(worker_type: str, ground: Ground) -> Command:
    store = tempfile.mkdtemp(dir=ground.folder)
    options = _options(plain_class(worker_type), worker_type, "apps:naive()")
    return gunicorn(sys.executable, options, {"PROMETHEUS_MULTIPROC_DIR": store})


def _statsd(worker_type: str, ground: Ground) -> Command:
    options = ["--statsd-host", f"127.0.0.1:{ground.statsd_port}", *_options(plain_class(worker_type), worker_type)]
    return gunicorn(sys.executable, options)


def _plain23(worker_type: str, ground: Ground) -> Command:
    return gunicorn(ground.peers_python, _options(worker_type, worker_type))


def _exporter(worker_type: str, ground: Ground) -> Command:
    store = Path(tempfile.mkdtemp(dir=ground.folder))
    config = store / "exporter_conf.py"
    config.write_text(_PEER_CONFIG)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    env = {
        "PROMETHEUS_MULTIPROC_DIR": str(store),
        "PROMETHEUS_METRICS_PORT": str(port),
        "PROMETHEUS_BIND_ADDRESS": "127.0.0.1",
        "GUNICORN_WORKERS": "1",
    }
    worker_class = f"gunicorn_prometheus_exporter.{_PEER_CLASSES[worker_type]}"
    return gunicorn(ground.peers_python, ["-c", str(config), *_options(worker_class, worker_type)], env)


VARIANTS = (
    Variant("plain", _plain),
    Variant("plain-again", _plain),  # what differs from plain is noise
    Variant("promgun", _promgun),
    Variant("naive", _naive),
    Variant("statsd", _statsd),
)
PEERS = (
    Variant("plain, gunicorn 23", _plain23, against="plain, gunicorn 23"),
    Variant("gunicorn-prometheus-exporter", _exporter, against="plain, gunicorn 23"),
)


def peers_python(folder: Path) -> str:
    """Return the interpreter of an environment with the peer, made in ``folder`` unless it is there."""
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"Installing {', '.join(_PEER_PACKAGES)} into {folder}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *_PEER_PACKAGES], check=True)
    return str(python)
