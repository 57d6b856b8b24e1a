"""Checks values that go into templates, and fills the templates."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

from promgun.errors import UsageError

_PLACEHOLDER = re.compile(r"<([a-z_]+)>")
_UNITS = (("y", 31_536_000.0), ("w", 604_800.0), ("d", 86_400.0), ("h", 3600.0), ("m", 60.0), ("s", 1.0), ("ms", 0.001))
_DURATION = re.compile("".join(rf"(?:(\d+){unit})?" for unit, _ in _UNITS), re.ASCII)
_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_LABEL_KEY = re.compile(r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+(%[\w.-]+)?\]|[\w.-]+):(\d{1,5})", re.ASCII)
_HIGHEST_PORT = 65535


def fill(template: str, values: Mapping[str, str]) -> str:
    """Replace each ``<name>`` of a template by its value; a name without a value is a ``KeyError``."""
    return _PLACEHOLDER.sub(lambda match: values[match[1]], template)


def seconds(duration: str) -> float:
    """Return a duration as Prometheus writes it (``1h30m``, ``500ms``, ``0s``) in seconds.

    Raises ``UsageError`` for anything else, and where the units do not fall from large to small.
    """
    match = _DURATION.fullmatch(duration)
    if not duration or match is None:
        raise UsageError(f"{duration!r} is not a duration", "Write it as Prometheus does: 30s, 5m, 1h30m")
    return sum(int(count) * size for count, (_, size) in zip(match.groups(), _UNITS, strict=True) if count)


def window(duration: str) -> str:
    """Return a duration that can be the range of a query: longer than zero."""
    if not seconds(duration):
        raise UsageError(f"{duration!r} is too short for the range of a query", "Give one that is longer than 0s")
    return duration


def quote(value: str) -> str:
    """Return a string as PromQL writes it (the escapes of Go, of which JSON's are a part)."""
    return json.dumps(value, ensure_ascii=False)


def label_name(name: str) -> str:
    """Return the name of a Prometheus label; names with two leading underscores are Prometheus' own."""
    if not _LABEL_NAME.fullmatch(name) or name.startswith("__"):
        raise UsageError(f"{name!r} is not a label name", "Use letters, digits and underscores, e.g. team")
    return name


def labels(pairs: Iterable[str]) -> dict[str, str]:
    """Read ``NAME=VALUE`` labels of Prometheus, in the order given."""
    return {label_name(name): value for name, value in map(_split, pairs)}


def object_labels(pairs: Iterable[str]) -> dict[str, str]:
    """Read ``NAME=VALUE`` labels of Kubernetes, whose names may have a prefix (``app.kubernetes.io/name``)."""
    read = dict(map(_split, pairs))
    for name, value in read.items():
        if not _LABEL_KEY.fullmatch(name) or not _LABEL_VALUE.fullmatch(value):
            raise UsageError(f"{name}={value} is not a label of Kubernetes", "E.g. release=prometheus")
    return read


def _split(pair: str) -> tuple[str, str]:
    name, equals, value = pair.partition("=")
    if not equals:
        raise UsageError(f"{pair!r} is not a label", "Write it as NAME=VALUE, e.g. team=web")
    return name, value


def host_port(address: str) -> str:
    """Return ``HOST:PORT`` or ``[IPV6]:PORT``: what Prometheus can reach."""
    match = _HOST_PORT.fullmatch(address)
    if match is None or not 0 < int(match[3]) <= _HIGHEST_PORT:
        hint = "Write it as HOST:PORT or [IPV6]:PORT, e.g. web-1.example:9164"
        raise UsageError(f"{address!r} is not an address with a port", hint)
    return address


def port(address: str) -> int:
    """Return the port of :func:`host_port`."""
    return int(host_port(address).rpartition(":")[2])
