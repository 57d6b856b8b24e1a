"""A Pushgateway: its URL, and the credentials that came with it. Most servers have none, and do not import this."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

from promgun.system.secrets import MASK

_EXPECTED = "must be a URL such as http://pushgateway.example:9091"


class Gateway(NamedTuple):
    """A Pushgateway: ``url`` may be logged, the credentials it came with are kept apart."""

    url: str
    username: str | None = None
    password: str = ""

    def __repr__(self) -> str:
        return f"Gateway({self.url!r})"

    @classmethod
    def at(cls, url: str) -> Gateway:
        """Read a URL that may carry user and password.

        Raises ``ValueError`` for anything else, in words that do not repeat it.
        """
        try:
            parts = urlsplit(url)
            parts.port  # noqa: B018 - read to have it checked
        except ValueError:
            raise ValueError(_EXPECTED) from None
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(_EXPECTED)
        if "@" in parts.path + parts.query + parts.fragment:
            raise ValueError(f"{_EXPECTED}; what is special in a password is written as %40 (@), %2F (/), %3F (?)")
        plain = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
        return cls(plain, parts.username and unquote(parts.username), unquote(parts.password or ""))

    def __str__(self) -> str:
        """Give the URL with the password masked: what ``--print-config`` and Gunicorn's debug log print."""
        if self.username is None:
            return self.url
        scheme, _, rest = self.url.partition("://")
        return f"{scheme}://{self.username}{self.password and f':{MASK}'}@{rest}"
