"""Checks a configuration before the first fork and before a reload: each error is one line."""

from __future__ import annotations

import errno
import os
import ssl
from collections.abc import Container, Mapping
from typing import Any, NoReturn

from gunicorn.glogging import Logger

from promgun.config.app_addresses import check_addresses, check_free
from promgun.config.metrics_addresses import check_addresses as check_metrics_addresses
from promgun.config.metrics_addresses import parse_address
from promgun.config.push_gateway import gateway_of
from promgun.config.run_settings import GUNICORN_PID
from promgun.errors import ConfigurationError


def inherits_sockets(environment: Mapping[str, str], pid: int) -> bool:
    """Tell whether the application's sockets come from another master or from systemd."""
    return GUNICORN_PID in environment or environment.get("LISTEN_PID") == str(pid)


def check_configuration(cfg: Any, *, inherited: bool = False, metrics: bool = True) -> None:
    """Raise a :class:`PromgunError` when a server of this configuration could not start, whoever else runs.

    Nothing is bound and no file is made. With ``inherited`` sockets the application binds none, without ``metrics``
    the metrics endpoint binds none.
    """
    check_certificates(cfg)
    gateway_of(cfg)
    _check_folders(cfg)
    _check_logs(cfg)
    try:
        addresses = cfg.address
    except RuntimeError as error:
        raise ConfigurationError(f"Invalid address in --bind: {str(error).rstrip('.')}") from error
    if not inherited:
        check_addresses(addresses)
    if metrics and cfg.metrics_server:
        check_metrics_addresses(map(parse_address, cfg.metrics_bind), application=() if inherited else addresses)


def check_in_use(cfg: Any, held: Container[Any] = ()) -> None:
    """Raise :class:`ConfigurationError` when somebody else listens on an address of the application's.

    ``held`` are addresses that are ours already.
    """
    if cfg.reuse_port:
        return
    for address in cfg.address:
        if address not in held:
            check_free(address)


def _check_folders(cfg: Any) -> None:
    heartbeats = cfg.worker_tmp_dir
    if heartbeats and not os.path.isdir(heartbeats):
        raise ConfigurationError(f"The folder of --worker-tmp-dir, {heartbeats}, does not exist", "Create it")
    folder = os.path.dirname(cfg.pidfile) if cfg.pidfile else ""
    if folder and not os.path.isdir(folder):
        raise ConfigurationError(f"The folder of --pid, {folder}, does not exist", "Create it")


def _check_logs(cfg: Any) -> None:
    """Check that Gunicorn's own logger could write its files; a logger with a ``setup`` of its own is not judged."""
    if cfg.logger_class.setup is not Logger.setup:
        return
    for option, path in (("--error-logfile", cfg.errorlog), ("--access-logfile", cfg.accesslog)):
        if path and path != "-" and (reason := _why_not_writable(path)):
            raise ConfigurationError(f"The file of {option}, {path}, cannot be written: {reason}", "Check the path")
    if cfg.logconfig and not cfg.logconfig_dict and not cfg.logconfig_json and not os.path.exists(cfg.logconfig):
        raise ConfigurationError(f"The file of --log-config, {cfg.logconfig}, does not exist", "Check the path")


def _why_not_writable(path: str) -> str:
    folder = os.path.dirname(path) or "."
    if not os.path.exists(path) and os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK):
        return ""
    try:
        # Without O_CREAT no file is made. ENXIO is a named pipe that has no reader yet, which is fine.
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        return "" if error.errno == errno.ENXIO else os.strerror(error.errno or 0)
    return ""


class _LockedError(Exception):
    """The key is encrypted: only Gunicorn's ``ssl_context`` hook can know the password."""


def check_certificates(cfg: Any) -> None:
    """Raise :class:`ConfigurationError` when TLS is wanted and its files are not there or not what they should be."""
    for option, path in (("--certfile", cfg.certfile), ("--keyfile", cfg.keyfile), ("--ca-certs", cfg.ca_certs)):
        if path and not os.path.exists(path):
            raise ConfigurationError(f"The file of {option}, {path}, does not exist", "Check the path")
    hook = cfg.settings["ssl_context"]
    if not cfg.is_ssl or hook.get() is not type(hook).default:
        return
    if not cfg.certfile:
        raise ConfigurationError("--keyfile was given without --certfile", "Give both")

    def password() -> NoReturn:
        raise _LockedError

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    files = " and ".join(path for path in (cfg.certfile, cfg.keyfile) if path)
    try:
        context.load_cert_chain(cfg.certfile, cfg.keyfile, password)
    except _LockedError:
        return
    except OSError as error:
        raise ConfigurationError(
            f"{files} cannot be read as a certificate and its key: {error.strerror or error}",
            "Both must be PEM files, and belong together",
        ) from error
