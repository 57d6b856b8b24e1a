"""The server's side of TLS: contexts from settings, and whether a client's certificate names somebody allowed."""

from __future__ import annotations

import os
import ssl
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from promgun.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from promgun.config.web_config import TlsSettings

_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_CLIENT_AUTH = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}


@dataclass(frozen=True, slots=True)
class Tls:
    """What connections are made with; ``allowed_sans`` is empty where any verified certificate will do."""

    context: ssl.SSLContext
    allowed_sans: frozenset[str] = frozenset()

    def admits(self, certificate: Mapping[str, Any] | None) -> bool:
        """Whether a client may ask, by the certificate that ``getpeercert`` returned.

        A name of its subjectAltName must be one of those allowed, letter by letter, as in exporter-toolkit.
        """
        return not self.allowed_sans or not self.allowed_sans.isdisjoint(_names(certificate or {}))


def _names(certificate: Mapping[str, Any]) -> Iterable[str]:
    for kind, name in certificate.get("subjectAltName", ()):
        if kind in {"DNS", "IP Address", "email", "URI"}:
            yield str(name)


def make_tls(settings: TlsSettings) -> Tls:
    """Open the files and return what they make.

    Raises ``OSError`` for a file that cannot be opened and :class:`ConfigurationError` for one that is not what it
    should be.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.minimum_version = _VERSIONS[settings.min_version]
    context.maximum_version = _VERSIONS[settings.max_version]
    context.verify_mode = _CLIENT_AUTH[settings.client_auth]
    if settings.prefer_server_ciphers:
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    try:
        if settings.ciphers:
            context.set_ciphers(":".join(settings.ciphers))
        if settings.curve:
            context.set_ecdh_curve(settings.curve)
    except (ssl.SSLError, ValueError) as error:
        wanted = settings.ciphers or settings.curve
        raise ConfigurationError(f"This system's OpenSSL does not offer {wanted}") from error
    # ssl reports a file that cannot be opened without its name.
    for path in settings.files:
        open(path, "rb").close()
    _load_certificate(context, settings)
    _load_authorities(context, settings)
    return Tls(context, frozenset(settings.client_allowed_sans))


def _load_certificate(context: ssl.SSLContext, settings: TlsSettings) -> None:
    with ExitStack() as files:
        certificate = settings.cert_file or _in_memory(settings.cert, files)
        key = settings.key_file or _in_memory(settings.key, files)
        names = " and ".join(dict.fromkeys((settings.cert_file or "cert", settings.key_file or "key")))
        try:
            context.load_cert_chain(certificate, key, password=_no_password)
        except _LockedError as error:
            raise ConfigurationError(
                f"The key {settings.key_file or 'key'} is encrypted", "Decrypt it, e.g. with openssl pkey"
            ) from error
        except ssl.SSLError as error:
            raise ConfigurationError(
                f"{names} cannot be read as a certificate and its key: {error.reason or error}",
                "Both must be PEM files, and belong together",
            ) from error


def _load_authorities(context: ssl.SSLContext, settings: TlsSettings) -> None:
    if settings.client_auth == "none":
        return
    name = settings.client_ca_file or "client_ca"
    try:
        context.load_verify_locations(settings.client_ca_file or None, cadata=settings.client_ca or None)
    except ssl.SSLError as error:
        raise ConfigurationError(
            f"{name} cannot be read as certificates of authorities: {error.reason or error}", "It must be in PEM"
        ) from error


class _LockedError(Exception):
    """OpenSSL asks for a password."""


def _no_password() -> str:
    raise _LockedError


def _in_memory(text: str, files: ExitStack) -> str:
    """Return a path under which OpenSSL finds ``text``, which is never written to a disk."""
    if not hasattr(os, "memfd_create"):
        raise ConfigurationError("Certificates within the file need Linux", "Use cert_file and key_file")
    file = files.enter_context(os.fdopen(os.memfd_create("promgun-pem", os.MFD_CLOEXEC), "wb"))
    file.write(text.encode())
    file.flush()
    return f"/proc/self/fd/{file.fileno()}"
