"""The web configuration file of prometheus/exporter-toolkit (docs/web-configuration.md there): parsed, or refused.

What Python's TLS cannot do is refused with the reason; a key that the toolkit does not know is refused too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from promgun.config.cipher_suites import CIPHER_SUITES, CURVES
from promgun.errors import ConfigurationError

#: Which policies ask for a client's certificate. Python's ssl module asks for no certificate without verifying it.
CLIENT_AUTH = {
    "": "none",
    "NoClientCert": "none",
    "VerifyClientCertIfGiven": "optional",
    "RequireAndVerifyClientCert": "required",
}
_UNVERIFIED = ("RequestClientCert", "RequireAnyClientCert", "RequireClientCert")
#: What to do when a library of the extra is missing.
INSTALL = 'Install it: pip install "promgun[web]"'
_VERSIONS = ("TLS12", "TLS13")
_OLD_VERSIONS = ("TLS10", "TLS11")
#: The toolkit lets these be set; for two of them it checks the value.
_HEADERS: Mapping[str, tuple[str, ...]] = {
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
    "Content-Security-Policy": (),
}
_BCRYPT = re.compile(r"\$2[abxy]\$(\d\d)\$[./A-Za-z0-9]{53}", re.ASCII)
#: A password of cost 15 takes some 3 s of CPU; a page has 10 s.
_COSTS = range(4, 16)
_DURATION = re.compile(r"(?:(\d+)y)?(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?(?:(\d+)ms)?", re.ASCII)
_UNITS = (31_536_000.0, 604_800.0, 86_400.0, 3600.0, 60.0, 1.0, 0.001)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """``tls_server_config``: a certificate and its key, each a path or PEM text, and what is asked of clients.

    ``client_auth`` is ``none``, ``optional`` or ``required``; ``ciphers`` are OpenSSL's names.
    """

    cert_file: str = ""
    key_file: str = ""
    cert: str = ""
    key: str = field(default="", repr=False)
    client_ca_file: str = ""
    client_ca: str = ""
    client_auth: str = "none"
    client_allowed_sans: tuple[str, ...] = ()
    min_version: str = "TLS12"
    max_version: str = "TLS13"
    ciphers: tuple[str, ...] = ()
    prefer_server_ciphers: bool = True
    curve: str = ""

    @property
    def files(self) -> tuple[str, ...]:
        """The files to open."""
        return tuple(path for path in (self.cert_file, self.key_file, self.client_ca_file) if path)


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most ``burst`` requests at once, and one more every ``interval`` seconds."""

    interval: float
    burst: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WebConfig:
    """A whole file; ``users`` maps names to bcrypt hashes."""

    tls: TlsSettings | None = None
    users: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    headers: tuple[tuple[bytes, bytes], ...] = ()
    rate_limit: RateLimit | None = None
    asks_for_http2: bool = False


def read_web_config(path: Path) -> WebConfig:
    """Read a file; raises :class:`ConfigurationError` for what cannot be used, and ``OSError`` if it cannot be read."""
    try:
        import yaml  # noqa: PLC0415 - an extra, and needed by nobody else
    except ImportError as error:
        raise ConfigurationError("A web configuration needs PyYAML", INSTALL) from error
    text = path.read_bytes()
    try:
        content = yaml.load(text, Loader=_strict_loader(yaml))  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ConfigurationError(f"{path}: {' '.join(str(error).split())}") from error
    try:
        return _read_all(content, path.parent)
    except ValueError as error:
        raise ConfigurationError(f"{path}: {error}", "The keys are exporter-toolkit's") from error


def _strict_loader(yaml: Any) -> Any:
    """Return a ``SafeLoader`` that refuses a key that stands twice, of which PyYAML (6.0) takes the last."""

    class Loader(yaml.SafeLoader):  # type: ignore[misc] # handed in
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:  # noqa: FBT001, FBT002 - PyYAML's signature
            found = super().construct_mapping(node, deep)
            if len(found) < len(node.value):
                raise ValueError(f"a key stands twice, in the mapping at line {node.start_mark.line + 1}")
            return found

    return Loader


def _read_all(content: Any, folder: Path) -> WebConfig:
    sections = _Section("the file", content)
    tls = sections.part("tls_server_config")
    http = sections.part("http_server_config")
    users = sections.part("basic_auth_users")
    rate = sections.part("rate_limit")
    sections.end()
    http2 = http.flag("http2", default=False)
    headers = _headers(http.part("headers"))
    http.end()
    return WebConfig(
        tls=_tls(tls, folder) if tls.content else None,
        users=_users(users.content),
        headers=headers,
        rate_limit=_rate_limit(rate),
        asks_for_http2=http2,
    )


class _Section:
    """A mapping of the file, taken apart key by key; :meth:`end` refuses what is left."""

    def __init__(self, name: str, content: Any) -> None:
        if content is not None and not isinstance(content, dict):
            raise ValueError(f"{name} must be a mapping")
        self.name = name
        self.content: dict[Any, Any] = dict(content or {})

    def part(self, key: str) -> _Section:
        return _Section(key, self.content.pop(key, None))

    def text(self, key: str, default: str = "") -> str:
        value = self.content.pop(key, None)
        if value is None:
            return default
        if not isinstance(value, str):
            raise ValueError(f"{key} must be text")  # noqa: TRY004 - of the file, not of a call
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.content.pop(key, None)
        if value is not None and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            raise ValueError(f"{key} must be a list of texts")
        return tuple(value or ())

    def flag(self, key: str, *, default: bool) -> bool:
        value = self.content.pop(key, None)
        if value is not None and not isinstance(value, bool):
            raise ValueError(f"{key} must be true or false")
        return default if value is None else value

    def end(self) -> None:
        for key in self.content:
            raise ValueError(f"unknown key {str(key)!r} in {self.name}")


def _tls(section: _Section, folder: Path) -> TlsSettings:
    def file(key: str) -> str:
        name = section.text(key)
        return str(folder / name) if name else ""

    policy = section.text("client_auth_type")
    if policy in _UNVERIFIED:
        raise ValueError(
            f"client_auth_type {policy} asks for certificates without verifying them, which Python's ssl cannot do; "
            "use RequireAndVerifyClientCert or VerifyClientCertIfGiven"
        )
    suites = section.texts("cipher_suites")
    curves = section.texts("curve_preferences")
    if len(curves) > 1:
        raise ValueError("curve_preferences names several curves, and Python's ssl can be told one")
    settings = TlsSettings(
        cert_file=file("cert_file"),
        key_file=file("key_file"),
        cert=section.text("cert"),
        key=section.text("key"),
        client_ca_file=file("client_ca_file"),
        client_ca=section.text("client_ca"),
        client_auth=_known("client_auth_type", policy, CLIENT_AUTH),
        client_allowed_sans=section.texts("client_allowed_sans"),
        min_version=_version("min_version", section.text("min_version", "TLS12")),
        max_version=_version("max_version", section.text("max_version", "TLS13")),
        ciphers=tuple(name for suite in suites if (name := _known("cipher suite", suite, CIPHER_SUITES))),
        prefer_server_ciphers=section.flag("prefer_server_cipher_suites", default=True),
        curve=_known("curve", curves[0], CURVES) if curves else "",
    )
    section.end()
    _check(settings)
    return settings


def _check(tls: TlsSettings) -> None:
    for one, other, names in ((tls.cert_file, tls.cert, "cert"), (tls.key_file, tls.key, "key")):
        if bool(one) == bool(other):
            raise ValueError(f"tls_server_config needs one of {names}_file and {names}")
    if tls.client_ca_file and tls.client_ca:
        raise ValueError("client_ca_file and client_ca cannot be given together")
    has_ca = bool(tls.client_ca_file or tls.client_ca)
    if has_ca != (tls.client_auth != "none"):
        raise ValueError(
            "client_ca_file without a client_auth_type verifies nobody"
            if has_ca
            else "client_auth_type needs a client_ca_file to verify certificates by"
        )
    if tls.client_allowed_sans and not has_ca:
        raise ValueError("client_allowed_sans needs a client_ca_file and a client_auth_type")
    if tls.min_version > tls.max_version:
        raise ValueError("min_version is above max_version")


def _version(key: str, version: str) -> str:
    if version in _OLD_VERSIONS:
        raise ValueError(f"{key} {version} is not offered: RFC 8996 forbids what is older than TLS 1.2")
    return _known(key, version, {name: name for name in _VERSIONS})


def _known(what: str, value: str, values: Mapping[str, str]) -> str:
    if value not in values:
        raise ValueError(f"{what} {value!r} is not known; choose {', '.join(filter(None, values))}")
    return values[value]


def _headers(section: _Section) -> tuple[tuple[bytes, bytes], ...]:
    found = {name: section.text(name) for name in tuple(section.content) if name in _HEADERS}
    section.end()
    for name, value in found.items():
        if _HEADERS[name] and value.lower() not in _HEADERS[name]:
            raise ValueError(f"{name} must be {' or '.join(_HEADERS[name])}")
        if not value.isascii() or not value.isprintable():
            raise ValueError(f"the value of {name} cannot be sent in a header")
    return tuple((name.encode(), value.strip().encode()) for name, value in found.items() if value.strip())


def _users(content: Mapping[Any, Any]) -> dict[str, bytes]:
    for user, digest in content.items():
        if not isinstance(user, str) or not user or ":" in user:
            raise ValueError(f"the user {user!r} of basic_auth_users must be text without a colon")
        match = _BCRYPT.fullmatch(digest) if isinstance(digest, str) else None
        if match is None:
            raise ValueError(f"the password of user {user!r} must be a bcrypt hash, as htpasswd -nB makes it")
        if int(match[1]) not in _COSTS:
            raise ValueError(f"the bcrypt cost of user {user!r} is {match[1]}; use 4 to {_COSTS[-1]}, best 10 to 12")
    return {user: digest.encode() for user, digest in content.items()}


def _rate_limit(section: _Section) -> RateLimit | None:
    interval = section.text("interval", "0s")
    burst = section.content.pop("burst", 20)
    section.end()
    match = _DURATION.fullmatch(interval)
    if match is None or not interval:
        if interval != "0":
            raise ValueError(f"the interval {interval!r} of rate_limit is not a duration, such as 1s or 500ms")
        return None
    if not isinstance(burst, int) or isinstance(burst, bool) or burst < 1:
        raise ValueError("the burst of rate_limit must be a number of at least 1")
    seconds = sum(int(count) * unit for count, unit in zip(match.groups(), _UNITS, strict=True) if count)
    return RateLimit(seconds, burst) if seconds else None


def watched_files(path: Path, config: WebConfig) -> Iterable[str]:
    """Return the file itself and those that it names."""
    return (str(path), *(config.tls.files if config.tls else ()))
