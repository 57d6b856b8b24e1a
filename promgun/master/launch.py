"""The composition root of ``promgun run``: configuration → checks → store → listeners → arbiter."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import Any

from promgun.config.listeners import bind, close_and_unlink, parse_address
from promgun.config.reexec import GUNICORN_PID, Handover
from promgun.config.run_settings import RunSettings
from promgun.errors import AppLoadError
from promgun.master.interrupts import interrupts_wait
from promgun.master.socket_activation import take_metrics_sockets
from promgun.store.directory import StoreDirectory, attach, create_private, take_over
from promgun.store.files import Owner
from promgun.store.process import STORE


def launch(settings: RunSettings) -> None:
    """Run the server until it ends (by ``SystemExit``); raises :class:`PromgunError` for what can be told before the
    first fork.

    The order matters: prometheus_client chooses its value class at import, so ours is published before a
    configuration file can import it; the
    metrics listeners are bound before ``--daemon`` forks, so that an address in use is told to whoever typed the
    command.
    """
    environment_at_start = dict(os.environ)
    handover = Handover.from_environment(os.environ)
    environment_at_start.pop("PROMGUN_HANDOVER", None)
    STORE.publish()

    with interrupts_wait():
        from gunicorn.errors import AppImportError  # noqa: PLC0415 - after the value class is published

        from promgun.config.preflight import check_configuration, inherits_sockets  # noqa: PLC0415 - same
        from promgun.master.application import PromgunApplication  # noqa: PLC0415 - same
        from promgun.master.context import RunContext  # noqa: PLC0415 - same
        from promgun.master.tracebacks import own_traceback  # noqa: PLC0415 - same

    activated = take_metrics_sockets(os.environ, os.getpid()) if handover is None else []
    application = PromgunApplication(settings, environment_at_start)
    cfg = application.cfg
    if cfg.check_config or cfg.print_config:
        application.run()
    if cfg.paste is None:
        _check_application(application)
    check_configuration(cfg, inherited=inherits_sockets(os.environ, os.getpid()))
    owner = Owner(cfg.uid, cfg.gid) if os.geteuid() == 0 else Owner()
    with contextlib.ExitStack() as undo:
        directory = _open_directory(cfg, owner, handover)
        undo.callback(directory.close)
        listeners = _listen(cfg, handover, activated)
        for listener in listeners:
            undo.callback(close_and_unlink, listener)
        STORE.open(directory)
        application.control_socket = str(directory.path / f"gunicorn-{os.getpid()}.ctl")
        application.use_control_socket()
        undo.pop_all()
    context = RunContext(STORE, directory, listeners, tuple(cfg.metrics_bind) if cfg.metrics_server else ())
    application.context = context
    try:
        application.run()
    except AppImportError as error:
        cause = error.__cause__
        raise AppLoadError(
            "The application cannot be loaded",
            traceback=own_traceback(cause)
            if cause is not None and not isinstance(cause, AppImportError)
            else str(error),
        ) from error
    finally:
        context.close()


def _check_application(application: Any) -> None:
    from promgun.config.app_check import check_application  # noqa: PLC0415 - not needed by those who only check the configuration

    check_application(application.app_uri, application.search_paths())


def _open_directory(cfg: Any, owner: Owner, handover: Handover | None) -> StoreDirectory:
    if handover is not None:
        return attach(handover.path, owner, private=handover.private)
    named = cfg.metrics_dir
    if named is None and GUNICORN_PID not in os.environ:
        # An inherited variable is the user's wish only in a master that no other master executed.
        named = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    return take_over(Path(named).absolute(), owner) if named else create_private(owner)


def _listen(cfg: Any, handover: Handover | None, activated: list[socket.socket]) -> list[socket.socket]:
    if not cfg.metrics_server:
        return []
    if activated:
        return activated
    if handover is not None and handover.listeners:
        inherited = [socket.socket(fileno=fd) for fd in handover.listeners]
        for listener in inherited:
            listener.set_inheritable(False)
            listener.settimeout(0)
        return inherited
    listeners: list[socket.socket] = []
    try:
        for text in cfg.metrics_bind:
            listeners.append(bind(parse_address(text), uid=cfg.uid, gid=cfg.gid))  # noqa: PERF401 - undone one by one
    except BaseException:
        for listener in listeners:
            close_and_unlink(listener)
        raise
    return listeners
