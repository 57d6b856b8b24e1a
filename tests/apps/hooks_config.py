"""A configuration with every hook of Gunicorn's: each writes its name into ``hooks.log`` of the working directory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

LOG = Path.cwd() / "hooks.log"


def note(name: str) -> None:
    """Append the hook's name and the process it ran in."""
    with LOG.open("a") as file:
        file.write(f"{name} {os.getpid()}\n")


def on_starting(_server: Any) -> None:
    """Before the master is initialised."""
    note("on_starting")


def on_reload(_server: Any) -> None:
    """On SIGHUP."""
    note("on_reload")


def when_ready(_server: Any) -> None:
    """When the server is started."""
    note("when_ready")


def pre_fork(_server: Any, _worker: Any) -> None:
    """Before a worker is forked."""
    note("pre_fork")


def post_fork(_server: Any, _worker: Any) -> None:
    """In a worker that was forked."""
    note("post_fork")


def post_worker_init(_worker: Any) -> None:
    """In a worker that has loaded the application."""
    note("post_worker_init")


def worker_int(_worker: Any) -> None:
    """On SIGINT or SIGQUIT in a worker."""
    note("worker_int")


def worker_abort(_worker: Any) -> None:
    """On SIGABRT in a worker."""
    note("worker_abort")


def pre_exec(_server: Any) -> None:
    """Before a new master is executed."""
    note("pre_exec")


def pre_request(_worker: Any, _req: Any) -> None:
    """Before a request is served."""
    note("pre_request")


def post_request(_worker: Any, _req: Any, _environ: Any, _resp: Any) -> None:
    """After a request was served."""
    note("post_request")


def child_exit(_server: Any, _worker: Any) -> None:
    """In the master, after a worker ended."""
    note("child_exit")


def worker_exit(_server: Any, _worker: Any) -> None:
    """In a worker that ends."""
    note("worker_exit")


def nworkers_changed(_server: Any, _new_value: Any, _old_value: Any) -> None:
    """When the number of workers changed."""
    note("nworkers_changed")


def on_exit(_server: Any) -> None:
    """Before the master ends."""
    note("on_exit")
