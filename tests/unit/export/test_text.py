"""Values for templates: what is taken, what is refused and how that is told."""

from __future__ import annotations

import pytest

from promgun.errors import UsageError
from promgun.export.text import fill, host_port, labels, object_labels, port, quote, seconds, window


@pytest.mark.parametrize(
    ("duration", "value"),
    [
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("500ms", 0.5),
        ("0s", 0.0),
        ("1d", 86400.0),
        ("1w", 604800.0),
        ("1y", 31536000.0),
    ],
)
def test_seconds(duration: str, value: float) -> None:
    assert seconds(duration) == value


@pytest.mark.parametrize("duration", ["", "5", "5x", "m", "-5m", "30m1h", "1.5h", " 5m", "5m ", "5m5m", "\u0665m"])
def test_what_is_no_duration(duration: str) -> None:
    with pytest.raises(UsageError, match="is not a duration"):
        seconds(duration)


def test_window() -> None:
    assert window("5m") == "5m"
    with pytest.raises(UsageError, match="longer than 0s"):
        window("0s")


def test_quote() -> None:
    assert quote('a"b\\c\nd é') == '"a\\"b\\\\c\\nd é"'


def test_fill() -> None:
    assert fill("a <b> <c_d> < e", {"b": "1", "c_d": "<b>"}) == "a 1 <b> < e"
    with pytest.raises(KeyError):
        fill("<unknown>", {})


def test_labels() -> None:
    assert labels(["a=1", "b=c=d", "e="]) == {"a": "1", "b": "c=d", "e": ""}
    assert object_labels(["app.kubernetes.io/name=web", "a="]) == {"app.kubernetes.io/name": "web", "a": ""}


@pytest.mark.parametrize("pair", ["a", "=b", "1a=b", "a-b=c", "__a=b", "a b=c"])
def test_what_is_no_label(pair: str) -> None:
    with pytest.raises(UsageError, match="is not a label"):
        labels([pair])


@pytest.mark.parametrize("pair", ["a", "a=b c", "-a=b", "a/b/c=d", "a=-", "a=" + "x" * 64])
def test_what_is_no_label_of_kubernetes(pair: str) -> None:
    with pytest.raises(UsageError, match="is not a label"):
        object_labels([pair])


@pytest.mark.parametrize(
    ("address", "number"),
    [("web-1.example:9164", 9164), ("127.0.0.1:1", 1), ("[::1]:65535", 65535), ("[fe80::1%eth0]:80", 80)],
)
def test_addresses(address: str, number: int) -> None:
    assert host_port(address) == address
    assert port(address) == number


@pytest.mark.parametrize(
    "address",
    ["web", "web:", ":80", "web:0", "web:65536", "::1:80", "unix:/a", "http://web:80", "web:80/metrics", "a b:1"],
)
def test_what_prometheus_cannot_scrape(address: str) -> None:
    with pytest.raises(UsageError, match="is not an address with a port"):
        host_port(address)
