"""How an application's metric is defined, as a row of the slot's own file; stock readers never see these rows.

The only label of a row is the definition as JSON: ``[kind, family, help, labels, detail]``. Its cells are ``DEFINED``
(when the process made the metric), ``CHANGED`` (when it was last set), ``STATE`` (the index of an enum's state) and
``OWNER`` (the pid of the process). Both times are seconds of the monotonic clock, which all processes share.

* The kinds of value files (``counter``, ``gauge_all`` …): ``labels`` are label names, or ``None`` where one process
  uses one family with several sets of names; ``detail`` has a histogram's upper bounds. Values stand in value files.
* ``info``: ``labels`` are labels with values, ``detail`` the info's content. Each content it ever had is a row.
* ``stateset`` (``prometheus_client.Enum``): ``labels`` are labels with values, ``detail`` the states.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from promgun.store.row_format import LONGEST_VALUE, CellGroup, RowSchema, checked_text, is_label, is_metric

_CELLS = ("promgun_app_defined", "promgun_app_changed", "promgun_app_state", "promgun_app_owner")
DEFINED, CHANGED, STATE, OWNER = range(len(_CELLS))
#: The schema of these rows, one row for each definition.
SCHEMA = RowSchema(("definition",), tuple(CellGroup(name, ("definition",)) for name in _CELLS))
INFO, ENUM = "info", "stateset"

Pairs = tuple[tuple[str, str], ...]


class Definition(NamedTuple):
    """One definition.

    ``names`` are the label names (``None``: any), ``labels`` the label values of infos and enums. ``content`` is
    that of an info, ``states`` are those of an enum, ``bounds`` those of a histogram.
    """

    kind: str
    family: str
    documentation: str
    names: tuple[str, ...] | None = ()
    labels: Pairs = ()
    content: Pairs = ()
    states: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


def spell(
    kind: str,
    family: str,
    documentation: str,
    labels: Sequence[str] | Mapping[str, str] | None,
    detail: Mapping[str, str] | Sequence[str] | Sequence[float] = (),
) -> str | None:
    """Return the text of a definition; ``None`` when it is too long to be stored."""
    text = json.dumps([kind, family, documentation, labels, detail], separators=(",", ":"))
    return text if len(text) <= LONGEST_VALUE else None


@lru_cache(maxsize=4096)
def parse_definition(text: str) -> Definition | None:
    """Return the definition in a row's text; ``None`` when the text is not a valid definition."""
    try:
        kind, family, documentation, labels, detail = json.loads(text)
        head = checked_text(kind), checked_text(family), checked_text(documentation)
        if not is_metric(family):
            return None
        if kind == INFO:
            return Definition(*head, tuple(sorted(labels)), _pairs(labels), content=_pairs(detail))
        if kind == ENUM:
            return Definition(*head, tuple(sorted(labels)), _pairs(labels), states=tuple(map(checked_text, detail)))
        names = None if labels is None else tuple(sorted(map(checked_text, labels)))
        return Definition(*head, names, bounds=tuple(sorted(map(float, detail))))
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None


def _pairs(value: Mapping[str, str]) -> Pairs:
    if not all(is_label(name) for name in value):
        raise ValueError(value)
    return tuple((checked_text(name), checked_text(text)) for name, text in value.items())
