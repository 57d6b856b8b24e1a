"""The names of links to the application's files in client directories."""

from __future__ import annotations

_AGGREGATIONS = ("all", "sum", "min", "max", "mostrecent")
#: prometheus_client 0.26 (values.py) puts the kind before the pid in a file's name.
_KINDS = (
    *("counter", "histogram", "summary"),
    *(f"gauge_{live}{aggregation}" for live in ("", "live") for aggregation in _AGGREGATIONS),
)
#: The kinds of value files, as a pattern.
KINDS = f"(?:{'|'.join(_KINDS)})"
#: Names in a client directory that are ours, as a pattern: files of slots, of masters, and folded files of ended
#: children.
LINK = rf"{KINDS}_(?:slot\d+|m\d+|folded)\.db"
#: The most digits of a slot's number, and of a master's.
_SLOT, _MASTER = 6, 3


def link_name(owner: str, kind: str) -> str:
    """Return the link's name in a client directory; ``owner`` is a slot's number, a master's name or ``folded``."""
    return f"{kind}_slot{owner}.db" if owner.isdigit() else f"{kind}_{owner}.db"


def owner_and_kind(name: str) -> tuple[str, str]:
    """Return the owner, as in :func:`link_name`, and the kind of a value file by its name in the store.

    Both are empty for other files.
    """
    owner, _, kind = name.partition(".")
    if kind not in _KINDS or not owner.isascii():
        return "", ""
    if owner == "folded" or (owner.isdecimal() and len(owner) <= _SLOT):
        return owner, kind
    number = owner.removeprefix("m")
    return (owner, kind) if number != owner and number.isdecimal() and len(number) <= _MASTER else ("", "")
