"""What a client shows to an endpoint that asks for it: a password, a token, a certificate."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from promgun.errors import UsageError
from promgun.system.secrets import read_password


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """For one endpoint: ``ca_file`` verifies it, in place of the system's authorities; the others authenticate us."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    user: str = ""
    password: str = field(default="", repr=False)
    bearer_token: str = field(default="", repr=False)

    @property
    def is_empty(self) -> bool:
        """Whether none was given."""
        return self == Credentials()

    def headers(self) -> Mapping[str, str]:
        """Return the request headers that authenticate the client."""
        if self.user:
            text = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
            return {"Authorization": f"Basic {text}"}
        return {"Authorization": f"Bearer {self.bearer_token}"} if self.bearer_token else {}

    def context(self) -> ssl.SSLContext:
        """Return the TLS context of connections; raises ``UsageError`` for files that cannot be used."""
        context = ssl.create_default_context()
        if self.ca_file is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            try:
                context.load_verify_locations(self.ca_file)
            except OSError as error:
                raise _unusable("--ca-file", self.ca_file, error, "It must be a PEM file of certificates") from error
        if self.cert_file is not None:
            try:
                context.load_cert_chain(self.cert_file, self.key_file)
            except OSError as error:
                hint = "It must be a PEM file with a certificate, and the key of --key-file must belong to it"
                raise _unusable("--cert-file", self.cert_file, error, hint) from error
        return context


def _unusable(flag: str, path: Path, error: OSError, hint: str) -> UsageError:
    """Return the error for a file: ``hint`` is on its content, so it is for files that could be read."""
    reason = getattr(error, "reason", None)
    why = reason or error.strerror or error
    return UsageError(f"{flag} {path} cannot be used: {why}", hint if reason else "Check the path, and who may read it")


def read_secret(flag: str, path: Path) -> str:
    """Return the first line of a regular file; raises ``UsageError`` if it cannot be read or is empty."""
    try:
        return read_password(path)
    except OSError as error:
        hint = "Check the path, and who may read it"
        raise UsageError(f"{flag} {path} cannot be read: {error.strerror or error}", hint) from error
    except ValueError as error:
        raise UsageError(
            f"{flag} {path} cannot be used: its first line is empty", "Write the secret into it"
        ) from error


def credentials(
    *,
    ca_file: Path | None = None,
    cert_file: Path | None = None,
    key_file: Path | None = None,
    user: str = "",
    password: str = "",
    password_file: Path | None = None,
    bearer_token_file: Path | None = None,
) -> Credentials:
    """Return what the options name, with the files read; raises ``UsageError`` for options that exclude each other."""
    if user and bearer_token_file is not None:
        raise UsageError(
            "--user and --bearer-token-file cannot be given together", "Give the one that the endpoint asks for"
        )
    if password_file is not None and not user:
        raise UsageError("--password-file was given without --user", "Give both")
    if ":" in user:
        raise UsageError(
            f"--user {user.partition(':')[0]}:… is not a user's name, which has no colon",
            "Give the password with --password-file FILE",
        )
    if key_file is not None and cert_file is None:
        raise UsageError("--key-file was given without --cert-file", "Give both")
    return Credentials(
        ca_file=ca_file,
        cert_file=cert_file,
        key_file=key_file,
        user=user,
        password=read_secret("--password-file", password_file) if password_file is not None else password,
        bearer_token=(read_secret("--bearer-token-file", bearer_token_file) if bearer_token_file is not None else ""),
    )
