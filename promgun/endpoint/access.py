"""Who may ask what: the checks that every request passes before its path is looked at, in their order."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from promgun.endpoint import answers
from promgun.endpoint.answers import REFUSALS, Answer
from promgun.endpoint.authentication import Passwords, Verdict, is_one_of, read_basic
from promgun.metrics.late_label_values import EndpointRefusal

if TYPE_CHECKING:
    from collections.abc import Callable

    import h11

    from promgun.config.web_config import RateLimit
    from promgun.endpoint.counts import EndpointCounts
    from promgun.endpoint.security import Security

#: Paths that need no password, for load balancers and the kubelet. They say only whether a server runs.
PUBLIC_PATHS = frozenset({b"/-/healthy", b"/-/ready"})


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a connection: whom it counts for (``address_of``), and how it came in."""

    address: str
    on_loopback: bool = False
    on_unix: bool = False


class Access:
    """Checks requests against what protects the endpoint now; used from one event loop."""

    def __init__(
        self,
        security: Callable[[], Security],
        allowed_hosts: tuple[str, ...],
        counts: EndpointCounts,
        now: Callable[[], float],
    ) -> None:
        self._security = security
        self._allowed_hosts = frozenset(allowed_hosts)
        self._counts = counts
        self._bucket = _Bucket(now)
        self._passwords = Passwords(_check_password)

    def close(self) -> None:
        """Check no more passwords."""
        self._passwords.close()

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """What the configuration adds to every answer."""
        return self._security().headers

    def refuse(self, request: h11.Request, path: bytes, peer: Peer, *, is_barred: bool = False) -> Answer | None:
        """Return why a request may not be answered whatever credentials it has, ``None`` if it may."""
        if is_barred:
            return self._refused(EndpointRefusal.CLIENT_CERTIFICATE, answers.WRONG_CERTIFICATE)
        if peer.on_loopback and not all(map(self._is_ours, hosts_of(request))):
            return self._refused(EndpointRefusal.HOST, answers.FOREIGN_HOST)
        fetch = {name: value for name, value in request.headers if name.startswith(b"sec-fetch-")}
        if fetch.get(b"sec-fetch-site") == b"cross-site" and fetch.get(b"sec-fetch-mode") != b"navigate":
            return self._refused(EndpointRefusal.CROSS_SITE, answers.CROSS_SITE)
        return None if peer.on_unix or path in PUBLIC_PATHS else self._closed()

    def _closed(self) -> Answer | None:
        security = self._security()
        if not security.is_usable:
            return self._refused(EndpointRefusal.WEB_CONFIG, answers.UNCONFIGURED)
        if security.rate_limit is not None and not self._bucket.take(security.rate_limit):
            return self._refused(EndpointRefusal.RATE_LIMIT, REFUSALS[HTTPStatus.TOO_MANY_REQUESTS])
        return None

    def needs_credentials(self, path: bytes, peer: Peer) -> bool:
        """Whether :meth:`authenticate` has to be asked too."""
        security = self._security()
        return bool(security.users or security.tokens) and not (peer.on_unix or path in PUBLIC_PATHS)

    async def authenticate(self, request: h11.Request) -> Answer | None:
        """Return why the sender of a request may not ask, ``None`` if it may."""
        security = self._security()
        given = [value for name, value in request.headers if name == b"authorization"]
        scheme, _, credentials = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        if scheme.lower() == b"bearer" and security.tokens:
            verdict = Verdict.RIGHT if is_one_of(credentials.strip(), security.tokens) else Verdict.WRONG
        elif scheme.lower() == b"basic" and security.users and (basic := read_basic(credentials.decode("latin-1"))):
            verdict = await self._passwords.verify(security.users, *basic)
        else:
            verdict = Verdict.WRONG
        if verdict is Verdict.RIGHT:
            return None
        if verdict is Verdict.BUSY:
            return self._refused(EndpointRefusal.PASSWORDS_WAITING, REFUSALS[HTTPStatus.TOO_MANY_REQUESTS])
        schemes = [b'Basic realm="promgun", charset="UTF-8"'] if security.users else []
        return self._refused(
            EndpointRefusal.CREDENTIALS, answers.unauthorized([*schemes, *([b"Bearer"] if security.tokens else [])])
        )

    def _refused(self, reason: EndpointRefusal, answer: Answer) -> Answer:
        self._counts.refuse(reason)
        return answer

    def _is_ours(self, host: str) -> bool:
        """Whether no other site's page can have this name (it could make a name of its own resolve to a loopback
        address).

        Browsers take ``localhost`` and what ends in it for this machine, without asking anybody (RFC 6761 6.3).
        """
        name = _without_port(host).rstrip(".").lower()
        if not name or name == "localhost" or name.endswith(".localhost") or name in self._allowed_hosts:
            return True
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return True


class _Bucket:
    """Requests that may still come; it fills as time goes by."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._left = float("inf")
        self._at = now()

    def take(self, limit: RateLimit) -> bool:
        now = self._now()
        self._left = min(limit.burst, self._left + (now - self._at) / limit.interval)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


def hosts_of(request: h11.Request) -> list[str]:
    """Return where a request says that it goes: its Host header, and the target if that is in absolute form."""
    hosts = [value for name, value in request.headers if name == b"host"]
    _, scheme, rest = request.target.partition(b"://")
    if scheme and not request.target.startswith(b"/"):
        hosts.append(rest.partition(b"/")[0].rpartition(b"@")[2])
    return [host.decode("latin-1") for host in hosts]


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and (port.isdecimal() or not port) and not name.endswith(":") else host


def _check_password(password: bytes, stored: bytes) -> bool:
    import bcrypt  # noqa: PLC0415 - an extra; that it is there was checked when the hashes were read

    return bcrypt.checkpw(password, stored)
