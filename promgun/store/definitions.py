"""How an application's metric is defined, as a row of the slot's own file; stock readers see nothing of it.

A row's one label is the definition as JSON: ``[kind, family, help, labels, detail]``. Its cells say when it was made in
the process (``DEFINED``), when it was set last (``CHANGED``, both seconds of the monotonic clock, which all processes
share), which state it has (``STATE``), and whose it is (``OWNER``, a pid).

* The kinds of value files (``counter``, ``gauge_all`` …) have the names of their labels, ``None`` where one process has
  several sets of names under one family, and for histograms the upper bounds. Their values stand in value files.
* ``info`` has its labels with values, and what it tells. Each text that it ever told is a row.
* ``stateset`` (``prometheus_client.Enum``) has its labels with values, and its states.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from promgun.store.row_format import LONGEST_VALUE, CellGroup, RowSchema

_CELLS = ("promgun_app_defined", "promgun_app_changed", "promgun_app_state", "promgun_app_owner")
DEFINED, CHANGED, STATE, OWNER = range(len(_CELLS))
#: A row for each definition.
SCHEMA = RowSchema(("definition",), tuple(CellGroup(name, ("definition",)) for name in _CELLS))
INFO, ENUM = "info", "stateset"

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Definition:
    """One definition. ``names`` are those of the labels (``None``: any), ``labels`` has their values where there is
    one for each; ``told`` are the pairs of an info, ``states`` those of an enum, ``bounds`` a histogram's.
    """

    kind: str
    family: str
    documentation: str
    names: tuple[str, ...] | None = ()
    labels: Pairs = ()
    told: Pairs = ()
    states: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


def spell(
    kind: str,
    family: str,
    documentation: str,
    labels: Sequence[str] | Mapping[str, str] | None,
    detail: Mapping[str, str] | Sequence[str] | Sequence[float] = (),
) -> str | None:
    """Return the text of a definition; ``None`` for one that is too long to be kept."""
    text = json.dumps([kind, family, documentation, labels, detail], separators=(",", ":"))
    return text if len(text) <= LONGEST_VALUE else None


@lru_cache(maxsize=4096)
def parse_definition(text: str) -> Definition | None:
    """Return what a row says, ``None`` when it says nothing that could be right."""
    try:
        kind, family, documentation, labels, detail = json.loads(text)
        head = _text(kind), _text(family), _text(documentation)
        if not _NAME.fullmatch(family):
            return None
        if kind == INFO:
            return Definition(*head, tuple(sorted(labels)), _pairs(labels), told=_pairs(detail))
        if kind == ENUM:
            return Definition(*head, tuple(sorted(labels)), _pairs(labels), states=tuple(map(_text, detail)))
        names = None if labels is None else tuple(sorted(map(_text, labels)))
        return Definition(*head, names, bounds=tuple(sorted(map(float, detail))))
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None


def is_label(name: str) -> bool:
    """Whether every reader takes a label of this name: one that it cannot parse costs the whole page."""
    return bool(_LABEL.fullmatch(name)) and not name.startswith("__")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value if value.isascii() else value.encode("utf-8", "replace").decode()


def _pairs(value: Mapping[str, str]) -> Pairs:
    if not all(is_label(name) for name in value):
        raise ValueError(value)
    return tuple((_text(name), _text(told)) for name, told in value.items())
