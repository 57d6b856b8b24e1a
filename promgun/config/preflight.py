"""What would stop the server later, told in one line before the first fork, and before a reload gives up what runs."""

from __future__ import annotations

import os
import ssl
from collections.abc import Container, Mapping
from typing import Any, NoReturn

from promgun.config.app_addresses import check_address, check_free
from promgun.config.reexec import GUNICORN_PID
from promgun.errors import ConfigurationError


def inherits_sockets(environment: Mapping[str, str], pid: int) -> bool:
    """Tell whether the application's sockets come from another master or from systemd."""
    return GUNICORN_PID in environment or environment.get("LISTEN_PID") == str(pid)


def check_configuration(cfg: Any, held: Container[Any] = (), *, inherited: bool = False) -> None:
    """Raise :class:`ConfigurationError` when a server of this configuration could not start.

    ``held`` are addresses that are ours already. With ``inherited`` ones none is to be bound.
    """
    check_certificates(cfg)
    folder = cfg.worker_tmp_dir
    if folder and not os.path.isdir(folder):
        raise ConfigurationError(f"The folder of --worker-tmp-dir, {folder}, does not exist", "Create it")
    try:
        addresses = cfg.address
    except RuntimeError as error:
        raise ConfigurationError(f"Invalid address in --bind: {str(error).rstrip('.')}") from error
    if inherited:
        return
    for address in addresses:
        if address not in held:
            check_address(address)
            if not cfg.reuse_port:
                check_free(address)


class _LockedError(Exception):
    """The key asks for a password: whether that is known is the hook's affair."""


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
