"""Which form of the page a request asks for: format, compression, names.

What goes back to the client comes from the tables here, never from the request.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from collections.abc import Iterator


class Format(Enum):
    """The two expositions, by media type and version; https://prometheus.io/docs/instrumenting/content_negotiation."""

    TEXT = ("text/plain", "0.0.4")
    OPENMETRICS = ("application/openmetrics-text", "1.0.0")

    @property
    def content_type(self) -> str:
        """The value of the Content-Type header."""
        media_type, version = self.value
        return f"{media_type}; version={version}; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Form:
    """One form of the page; ``names`` are the families or samples to keep, none of them for all."""

    format: Format = Format.TEXT
    gzip: bool = False
    names: frozenset[str] = frozenset()


def choose_form(accept: str, accept_encoding: str, query: str, most_names: int) -> Form:
    """Read the three places where a client says what it wants.

    Raises ``ValueError`` if it asks for more than ``most_names`` names.
    """
    return Form(choose_format(accept), accepts_gzip(accept_encoding), read_names(query, most_names))


def choose_format(accept: str) -> Format:
    """Return the format an Accept header prefers (RFC 9110 12.5.1), text when it leaves the choice.

    A client that accepts neither gets text too: every Prometheus reads it, and the RFC allows it. Of two
    formats with one weight the one that was named more precisely wins.
    """
    ranges = list(_weighted(accept))
    best = max(Format, key=lambda offer: (*_weigh(offer, ranges), offer is Format.TEXT))
    return best if _weigh(best, ranges)[0] > 0 else Format.TEXT


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether an Accept-Encoding header allows gzip and does not prefer the plain form (RFC 9110 12.5.3)."""
    weights = {coding: weight for coding, _, weight in _weighted(accept_encoding)}
    gzip = weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0)))
    return gzip > 0 and gzip >= weights.get("identity", 0.0)


def read_names(query: str, most: int) -> frozenset[str]:
    """Return the values of ``name[]`` in a query; raises ``ValueError`` for more than ``most`` fields."""
    return frozenset(parse_qs(query, max_num_fields=most).get("name[]", ()))


def _weigh(offer: Format, ranges: list[tuple[str, dict[str, str], float]]) -> tuple[float, int]:
    """Return the weight of a format, and how precise the range that gave it is: ``*/*`` 0, with a version 3."""
    media_type, version = offer.value
    fits = [(-1, 0.0)]
    for name, parameters, weight in ranges:
        asked = parameters.get("version", version)
        if name == media_type and asked == version:
            fits.append((3 if "version" in parameters else 2, weight))
        elif name == f"{media_type.partition('/')[0]}/*":
            fits.append((1, weight))
        elif name == "*/*":
            fits.append((0, weight))
    precision, weight = max(fits)
    return weight, precision


def _weighted(header: str) -> Iterator[tuple[str, dict[str, str], float]]:
    """Yield the elements of an Accept-like header: name, parameters, weight (1 if not given, 0 if not a number)."""
    for element in header.lower().split(","):
        name, *rest = (part.strip() for part in element.split(";"))
        pairs = (part.partition("=") for part in rest)
        parameters = {key.strip(): value.strip().strip('"') for key, _, value in pairs}
        if name:
            yield name, parameters, _weight(parameters.pop("q", "1"))


def _weight(text: str) -> float:
    """Read a weight of RFC 9110 12.4.2: 0 to 1 with at most three digits after the point."""
    digits = text.replace(".", "", 1)
    if not (digits.isascii() and digits.isdecimal()) or len(text) > len("0.000"):
        return 0.0
    return min(float(text), 1.0)
