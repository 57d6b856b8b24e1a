"""How the metrics endpoint is protected, as flags and variables say: names of files and hosts, nothing opened yet."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from promgun.errors import ConfigurationError

_FLAGS = {
    "web_config": "--metrics-web-config",
    "certfile": "--metrics-certfile",
    "keyfile": "--metrics-keyfile",
    "bearer_token_file": "--metrics-bearer-token-file",
}


class WebOptions(NamedTuple):
    """Absolute paths, ``""`` for none; ``allowed_hosts`` are names that ``Host`` may have on loopback addresses."""

    web_config: str = ""
    certfile: str = ""
    keyfile: str = ""
    bearer_token_file: str = ""
    allowed_hosts: tuple[str, ...] = ()

    @property
    def names_files(self) -> bool:
        """Whether there is anything to open."""
        return any(getattr(self, name) for name in _FLAGS)


def web_options(
    *,
    web_config: str | None = None,
    certfile: str | None = None,
    keyfile: str | None = None,
    bearer_token_file: str | None = None,
    allowed_hosts: Iterable[str] = (),
    prefix: str = "--metrics-",
) -> WebOptions:
    """Return the options, with relative paths resolved from the present working directory.

    Raises :class:`ConfigurationError` for a key without a certificate, and for a web configuration together with flags
    that it would overrule. Messages put ``prefix`` before the flags' names.
    """
    given = {
        name: value
        for name, value in (
            ("web_config", web_config),
            ("certfile", certfile),
            ("keyfile", keyfile),
            ("bearer_token_file", bearer_token_file),
        )
        if value
    }
    flags = [_FLAGS[name].replace("--metrics-", prefix) for name in given]
    if "web_config" in given and len(given) > 1:
        raise ConfigurationError(
            f"{flags[0]} cannot be given together with {' and '.join(flags[1:])}",
            "Name certificate and key in the file, or do without it",
        )
    if "keyfile" in given and "certfile" not in given:
        raise ConfigurationError(f"{prefix}keyfile was given without {prefix}certfile", "Give both")
    return WebOptions(
        **{name: os.path.abspath(value) for name, value in given.items()},
        allowed_hosts=tuple(host.strip().rstrip(".").lower() for host in allowed_hosts if host.strip()),
    )


def web_options_of(cfg: Any) -> WebOptions:
    """Return those of a Gunicorn ``Config``, whose names are :mod:`promgun.config.gunicorn_settings`'."""
    return web_options(
        web_config=cfg.metrics_web_config,
        certfile=cfg.metrics_certfile,
        keyfile=cfg.metrics_keyfile,
        bearer_token_file=cfg.metrics_bearer_token_file,
        allowed_hosts=cfg.metrics_allowed_host,
    )


def web_options_from(environment: Mapping[str, str]) -> WebOptions:
    """Return those of the ``PROMGUN_`` variables; spaces separate host names."""
    return web_options(
        web_config=environment.get("PROMGUN_METRICS_WEB_CONFIG"),
        certfile=environment.get("PROMGUN_METRICS_CERTFILE"),
        keyfile=environment.get("PROMGUN_METRICS_KEYFILE"),
        bearer_token_file=environment.get("PROMGUN_METRICS_BEARER_TOKEN_FILE"),
        allowed_hosts=environment.get("PROMGUN_METRICS_ALLOWED_HOST", "").split(),
    )
