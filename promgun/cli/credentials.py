"""Options that say who asks an endpoint: the same for every command with ``--url``."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

_FILE = click.Path(dir_okay=False, path_type=Path)
_OPTIONS = (
    click.option("--ca-file", type=_FILE, metavar="FILE", help="Verify https:// by these authorities (PEM)."),
    click.option("--cert-file", type=_FILE, metavar="FILE", help="Show this client certificate (PEM)."),
    click.option("--key-file", type=_FILE, metavar="FILE", help="Its key, if it is not in the same file."),
    click.option("--user", default="", metavar="NAME", help="Log in as this user; the password is asked for."),
    click.option("--password-file", type=_FILE, metavar="FILE", help="The user's password: the first line of FILE."),
    click.option("--bearer-token-file", type=_FILE, metavar="FILE", help="Send the token in FILE's first line."),
)


def with_credentials(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command these options, and hand it their meaning as ``credentials``."""

    @wraps(command)
    def call(*args: Any, **options: Any) -> None:
        from promgun.instances.credentials import credentials  # noqa: PLC0415 - imports ssl

        names = ("ca_file", "cert_file", "key_file", "user", "password_file", "bearer_token_file")
        given = {name: options.pop(name) for name in names}
        if given["user"] and given["password_file"] is None and options.get("url") is not None:
            given["password"] = click.prompt(f"Password of {given['user']}", hide_input=True, err=True)
        command(*args, credentials=credentials(**given), **options)

    for option in reversed(_OPTIONS):
        call = option(call)
    return call
