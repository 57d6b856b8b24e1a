"""The Pushgateway of ``--push-gateway``: its URL, who pushes, and the password, which is shown nowhere."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from promgun.errors import ConfigurationError
from promgun.system.secrets import MASK, read_password

if TYPE_CHECKING:
    from promgun.config.gateway import Gateway

#: Settings whose values are repeated in no message.
SECRET_SETTINGS = frozenset({"push_gateway"})
#: Variables that may carry a password; one that does is not passed on to workers.
SECRET_VARIABLES = ("PROMGUN_PUSH_GATEWAY", "GUNICORN_CMD_ARGS")


def validate_push_gateway(value: Any) -> Gateway | None:
    """Return what ``--push-gateway`` names; raises ``ValueError`` for anything but the URL of one."""
    if value is None or value == "":
        return None
    from promgun.config.gateway import Gateway  # noqa: PLC0415 - most servers have none

    return value if isinstance(value, Gateway) else Gateway.at(str(value))


def gateway_of(cfg: Any) -> Gateway | None:
    """Return the gateway of a Gunicorn ``Config``, its password read from the file if one is named.

    Raises :class:`ConfigurationError` for a file that cannot be read, and for a URL without a user or with a password.
    """
    gateway: Gateway | None = cfg.push_gateway
    path = cfg.push_gateway_password_file
    if not path:
        return gateway
    flag = "--push-gateway-password-file"
    if gateway is None or not gateway.username:
        raise ConfigurationError(
            f"{flag} was given without a user", "Name the user in the URL: --push-gateway http://USER@HOST:PORT"
        )
    if gateway.password:
        raise ConfigurationError(
            f"{flag} was given, and --push-gateway has a password too", "Take the password out of the URL"
        )
    try:
        return gateway._replace(password=read_password(path))
    except OSError as error:
        raise ConfigurationError(
            f"{flag} {path} cannot be read: {error.strerror or error}", "Check the path"
        ) from error
    except ValueError as error:
        raise ConfigurationError(f"{flag} {path} cannot be used: {error}", "Write the password into it") from error


def passwords_among(arguments: Iterable[str]) -> list[str]:
    """Return the arguments, or values of ``--flag=value`` among them, that are a gateway's URL with a password."""
    values = (value for argument in arguments for value in (argument, argument.partition("=")[2]))
    return [value for value in values if _has_password(value)]


def mask_gateway(url: str) -> str:
    """Return a gateway's URL with its password masked; all of what is none is masked."""
    from promgun.config.gateway import Gateway  # noqa: PLC0415 - most servers have none

    try:
        return str(Gateway.at(url))
    except ValueError:
        return MASK


def _has_password(value: str) -> bool:
    if "@" not in value:
        return False
    from promgun.config.gateway import Gateway  # noqa: PLC0415 - most servers have none

    try:
        return bool(Gateway.at(value).password)
    except ValueError:
        return False


def warn_of_visible_password(cfg: Any, arguments: Iterable[str], log: Any) -> None:
    """Log a warning if the password stands in one of the ``arguments`` of this process."""
    if cfg.push_gateway and cfg.push_gateway in map(type(cfg.push_gateway).at, passwords_among(arguments)):
        log.warning(
            "The password of --push-gateway stands on the command line, which every user of this host can read: "
            "keep it in a file and name that with --push-gateway-password-file"
        )
