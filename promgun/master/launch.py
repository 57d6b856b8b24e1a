"""Composition root of ``promgun run``: configuration → checks → store → listeners → arbiter."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promgun.config.listeners import NO_LISTENERS, Listeners, close_and_unlink
from promgun.config.push_gateway import SECRET_VARIABLES
from promgun.config.run_settings import GUNICORN_PID, HANDOVER, RunSettings
from promgun.errors import AppLoadError
from promgun.store.new_file import Owner
from promgun.store.process import STORE
from promgun.store.run_directory import MULTIPROC_VARIABLE, RunDirectory
from promgun.store.run_places import attach, check_named, create_private, take_over
from promgun.system.imports import collection_waits, interrupts_wait
from promgun.system.secrets import hide_passwords

if TYPE_CHECKING:
    from promgun.config.reexec import Handover
    from promgun.master.application import PromgunApplication
    from promgun.master.context import RunContext


def launch(settings: RunSettings) -> None:
    """Run the server until it ends (by ``SystemExit``), or only check its configuration (``--check-config``).

    Raises :class:`PromgunError` for what can be found before the first fork.

    The order matters: prometheus_client chooses its value class at import, so ours is published before a
    configuration file can import it; the metrics listeners are bound before ``--daemon`` forks, so that an address in
    use is reported on the terminal.
    """
    environment_at_start = dict(os.environ)
    handover = _take_handover()
    environment_at_start.pop(HANDOVER, None)
    # A reload and SIGUSR2 use the environment at start; workers inherit the one changed here.
    hide_passwords(os.environ, SECRET_VARIABLES)
    STORE.app.publish()

    with interrupts_wait(), collection_waits():
        from promgun.config.preflight import check_configuration, check_in_use, inherits_sockets  # noqa: PLC0415 - after the value class is published
        from promgun.master.application import PromgunApplication  # noqa: PLC0415 - same
        from promgun.master.context import RunContext  # noqa: PLC0415 - same
        from promgun.master.load_errors import ApplicationRefusedError  # noqa: PLC0415 - same

    activated = _take_activated() if handover is None else NO_LISTENERS
    context = RunContext(STORE)
    application = PromgunApplication(settings, context, environment_at_start)
    cfg = application.cfg
    if cfg.print_config:
        from promgun.terminal.output import Output  # noqa: PLC0415 - for this only

        print(Output.of().text(str(cfg)), flush=True)  # noqa: T201 - what was asked for
    if cfg.paste is None:
        _check_application(application)
    inherited = inherits_sockets(os.environ, os.getpid())
    check_configuration(cfg, inherited=inherited, metrics=not activated)
    context.tls = context.check_web(cfg)
    try:
        if cfg.check_config or cfg.print_config:
            _check_without_serving(application)
            return
        if not inherited:
            check_in_use(cfg)
        _open(context, cfg, handover, activated)
        application.use_control_socket()
        try:
            application.run()
        finally:
            context.close()
    except ApplicationRefusedError as error:
        raise AppLoadError(error.message, traceback=error.traceback) from error


def _take_handover() -> Handover | None:
    """Take what the old master left for this one, if one executed it."""
    if HANDOVER not in os.environ:
        return None
    from promgun.config.reexec import Handover  # noqa: PLC0415 - for an upgrade only

    return Handover.from_environment(os.environ)


def _take_activated() -> Listeners:
    """Take the metrics listeners that systemd passed, if it passed any."""
    if "LISTEN_FDNAMES" not in os.environ:
        return NO_LISTENERS
    from promgun.master.socket_activation import take_metrics_sockets  # noqa: PLC0415 - for systemd only

    return take_metrics_sockets(os.environ, os.getpid())


def _check_application(application: PromgunApplication) -> None:
    from promgun.config.app_check import check_application  # noqa: PLC0415 - not needed with --paste

    check_application(str(application.app_uri), application.search_paths())


def _check_without_serving(application: PromgunApplication) -> None:
    """Check the store's directory and import the application, as a server would later; no file is made."""
    cfg = application.cfg
    if cfg.metrics_dir:
        check_named(Path(cfg.metrics_dir).absolute(), _owner(cfg))
    application.check_load()


def _owner(cfg: Any) -> Owner:
    return Owner(cfg.uid, cfg.gid) if os.geteuid() == 0 else Owner()


def _open(context: RunContext, cfg: Any, handover: Handover | None, activated: Listeners) -> None:
    """Open the store and the listeners; if either fails, raise with nothing left behind."""
    with contextlib.ExitStack() as undo:
        directory = _open_directory(context, cfg, _owner(cfg), handover)
        undo.callback(directory.close)
        listeners, is_activated = _listen(cfg, handover, activated)
        for listener in listeners.values():
            undo.callback(close_and_unlink, listener)
        context.open(directory, listeners, activated=is_activated)
        undo.pop_all()


def _open_directory(context: RunContext, cfg: Any, owner: Owner, handover: Handover | None) -> RunDirectory:
    if handover is not None and handover.is_readable:
        return attach(
            handover.store,
            owner,
            handover.identity,
            private=handover.private,
            second_client=handover.second_client,
        )
    if handover is not None:
        # The old master uses the directory that was named; this one's metrics begin anew in a private directory.
        context.succession.supersede(handover)
        return create_private(owner)
    if cfg.metrics_dir:
        return take_over(Path(cfg.metrics_dir).absolute(), owner)
    return create_private(owner, second_client=_inherited_client(cfg))


def _inherited_client(cfg: Any) -> Path | None:
    """Return the directory that the user set up for stock readers; the store is never placed in it."""
    named = cfg.env.get(MULTIPROC_VARIABLE)
    if named is None and GUNICORN_PID not in os.environ:
        # An inherited variable was set by the user only if no other master has executed this one.
        named = os.environ.get(MULTIPROC_VARIABLE)
    return Path(named).absolute() if named else None


def _listen(cfg: Any, handover: Handover | None, activated: Listeners) -> tuple[Listeners, bool]:
    """Return the metrics listeners, and whether systemd made them, in which case ``metrics_bind`` is not used."""
    from promgun.master.context import listen  # noqa: PLC0415 - after the value class is published

    if handover is not None and handover.activated:
        activated = handover.listeners
    inherited = handover.listeners if handover is not None else activated
    if activated and cfg.metrics_server:
        return activated, True
    listeners = listen(cfg, inherited)
    for listener in inherited.values():
        if listener not in listeners.values():
            # The old master, or systemd, still uses it: its socket file stays.
            listener.close()
    return listeners, False
