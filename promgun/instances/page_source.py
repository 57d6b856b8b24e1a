"""Where a page of metrics comes from: the store of a running instance, a directory, or an address that serves one."""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import SplitResult, urlsplit

from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from promgun.errors import InstanceError, StoreError, UsageError
from promgun.instances.credentials import Credentials
from promgun.instances.reading_child import ask_once
from promgun.instances.registry import find
from promgun.metrics.defaults import METRICS_ADDRESS

TIMEOUT = 10.0
PAGE_LIMIT = 256 * 1024 * 1024
METRICS_PATH = "/metrics"
_CHUNK = 1024 * 1024
#: Prometheus text format 0.0.4, the one that ``prometheus_client.parser`` reads.
_HEADERS = {"Accept": "text/plain;version=0.0.4", "User-Agent": "promgun"}


class Source(Protocol):
    """Something that the whole page can be read from."""

    def families(self) -> list[Metric]:
        """The metric families of the page, in its order; raises a ``PromgunError`` when it cannot be had."""


@dataclass(frozen=True, slots=True)
class _PlainFamily:
    """A metric family in plain types, which a child process can pass on."""

    name: str
    help: str
    kind: str
    unit: str
    samples: tuple[tuple[str, Mapping[str, str], float], ...]

    @classmethod
    def of(cls, family: Metric) -> _PlainFamily:
        samples = tuple([(sample.name, sample.labels, sample.value) for sample in family.samples])
        return cls(family.name, family.documentation, family.type, family.unit, samples)

    def metric(self) -> Metric:
        metric = Metric(self.name, self.help, self.kind, self.unit)
        metric.samples = [Sample(name, dict(labels), value) for name, labels, value in self.samples]
        return metric


@dataclass(frozen=True, slots=True)
class StoreSource:
    """The page as read from a store directory, by this process or by a child with the rights of the store's owner."""

    path: Path

    def families(self) -> list[Metric]:
        """Raises ``StoreError`` if there is no such directory or it may not be read."""
        import promgun.collect.page  # noqa: F401, PLC0415 - the child may not be allowed to read the package's files

        families = ask_once(self.path, tuple[_PlainFamily, ...], self._plain_families)
        return [family.metric() for family in families]

    def _plain_families(self) -> tuple[_PlainFamily, ...]:
        return tuple(map(_PlainFamily.of, self._collect()))

    def _collect(self) -> list[Metric]:
        from promgun.collect.page import Collector  # noqa: PLC0415 - the reader is not needed for --url
        from promgun.store.run_places import find_run  # noqa: PLC0415 - same

        try:
            run = find_run(self.path)
        except OSError as error:
            raise StoreError(
                f"cannot read the store {self.path}: {error.strerror or error}",
                "Is the instance still running? See: promgun ps",
            ) from error
        if run is None:
            raise StoreError(f"{self.path} holds no metrics", "Name the directory that was given to --metrics-dir")
        return list(Collector(run).collect())


@dataclass(frozen=True, slots=True)
class UrlSource:
    """The page as served at ``url``: http://, https://, HOST:PORT, or unix:PATH; /metrics if it names no path."""

    url: str
    timeout: float = TIMEOUT
    credentials: Credentials = field(default_factory=Credentials)

    def families(self) -> list[Metric]:
        """Raises ``InstanceError`` if nothing answers in ``timeout`` seconds, or what answers is not a metrics page."""
        try:
            status, reason, body = self._fetch()
        except (OSError, http.client.HTTPException) as error:
            raise InstanceError(f"{self.url} does not answer: {_why(error)}", _hint(error)) from error
        if status == http.client.UNAUTHORIZED:
            shown = "another password or token" if self.credentials.headers() else "a password or a token"
            raise InstanceError(f"{self.url} wants {shown}", "Give --user NAME or --bearer-token-file FILE")
        if status != http.client.OK:
            raise InstanceError(
                f"{self.url} answered {status} {reason}",
                f"Name the address of the metrics page, e.g. http://{METRICS_ADDRESS}{METRICS_PATH}",
            )
        return self._parse(body)

    def _parse(self, body: bytes) -> list[Metric]:
        try:
            return list(text_string_to_metric_families(body.decode()))
        except (ValueError, IndexError, KeyError) as error:
            raise InstanceError(
                f"{self.url} did not answer with metrics",
                f"Name the address of the metrics page, e.g. http://{METRICS_ADDRESS}{METRICS_PATH}",
            ) from error

    def _fetch(self) -> tuple[int, str, bytes]:
        deadline = time.monotonic() + self.timeout
        connection, path = _connect(self.url, self.timeout, self.credentials)
        with closing(connection):
            connection.request("GET", path, headers={**_HEADERS, **self.credentials.headers()})
            response = connection.getresponse()
            body = bytearray()
            # The socket's time-out restarts with every byte: a deadline for the whole is kept here.
            while chunk := response.read1(_CHUNK):
                body += chunk
                if time.monotonic() > deadline:
                    raise TimeoutError(None, f"not finished after {self.timeout:g} s")
                if len(body) > PAGE_LIMIT:
                    raise OSError(None, f"the page is larger than {PAGE_LIMIT // 1024**2} MiB")
            if response.length:
                # read1() does not report an early end (3.10 to 3.13), and half a page must not pass for a whole one.
                raise OSError(None, f"the page ends {response.length} bytes early")
            return response.status, response.reason, bytes(body)


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate cannot be verified ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason or error})"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _hint(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return "Name the authority that signed it with --ca-file"
    if isinstance(error, ssl.SSLError):
        # 3.10 to 3.14 with OpenSSL 3: a plain answer where a TLS record was expected.
        if error.reason in {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"}:
            return "It seems to speak plain HTTP: name it with http://"
        return "If it asks for a client certificate, give --cert-file and --key-file"
    if isinstance(error, http.client.HTTPException):
        return "Is it a metrics endpoint? If it speaks TLS, name it with https://"
    return "Is it running? See: promgun ps"


def source_for(
    instance: str | None, directory: Path | None, url: str | None, credentials: Credentials | None = None
) -> StoreSource | UrlSource:
    """The source that the options name; with none of them the only running instance.

    Raises ``UsageError`` if more than one is given, or ``credentials`` without a URL, and ``InstanceError`` if the
    instance cannot be found.
    """
    given = [
        flag for flag, value in (("--instance", instance), ("--dir", directory), ("--url", url)) if value is not None
    ]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} cannot be given together", "Name one source")
    if url is not None:
        return UrlSource(url, credentials=credentials or Credentials())
    if credentials is not None and not credentials.is_empty:
        raise UsageError("Passwords, tokens and certificates are for --url", "Add --url https://HOST:PORT")
    return StoreSource(find(instance).store if directory is None else directory)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _connect(url: str, timeout: float, credentials: Credentials) -> tuple[http.client.HTTPConnection, str]:
    if url.startswith("unix:"):
        return _UnixConnection(url.removeprefix("unix:").replace("//", "/", 1), timeout), METRICS_PATH
    with _url_errors(url):
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port
    if parts.scheme not in {"http", "https"} or not host:
        raise UsageError(
            f"{url!r} is not an address of metrics", "Use http://HOST:PORT, https://HOST:PORT or unix:PATH"
        )
    if parts.username is not None:
        raise UsageError(
            "--url may not have a user or password in it: every user of this host can read the command line",
            "Give --user NAME and --password-file FILE",
        )
    if parts.scheme == "https":
        context = credentials.context()
        return http.client.HTTPSConnection(host, port, timeout=timeout, context=context), _path(parts)
    if credentials.ca_file is not None or credentials.cert_file is not None:
        raise UsageError(f"--ca-file and --cert-file are for TLS, but {url} is plain HTTP", "Name it with https://")
    return http.client.HTTPConnection(host, port, timeout=timeout), _path(parts)


@contextmanager
def _url_errors(url: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise UsageError(
            f"{url!r} is not an address: {error}", "Use http://HOST:PORT, https://HOST:PORT or unix:PATH"
        ) from error


def _path(parts: SplitResult) -> str:
    path = parts.path if parts.path not in {"", "/"} else METRICS_PATH
    return f"{path}?{parts.query}" if parts.query else path
