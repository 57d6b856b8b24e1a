"""The metric contract, as a table, as JSON, or as Markdown for the docs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from promgun.terminal.output import Output

if TYPE_CHECKING:
    from promgun.metrics.spec import MetricSpec

FORMATS = ("table", "json", "markdown")


def render_catalog(catalog: Iterable[MetricSpec], form: str = "table", output: Output | None = None) -> str:
    """Return the families of ``catalog``, in its order, in one of ``FORMATS``: name, type, labels, meaning.

    JSON is a list of ``{name, type, labels, values, group, help}``; ``values`` has the values of each label that has a
    closed set of them.
    """
    if form == "json":
        return json.dumps([_object(spec) for spec in catalog], indent=2, ensure_ascii=False) + "\n"
    if form == "markdown":
        return _markdown(catalog)
    from promgun.terminal.tables import draw  # noqa: PLC0415 - rich is for tables only

    rows = ((spec.name, spec.kind, _labels(spec), spec.help) for spec in catalog)
    return draw(("FAMILY", "TYPE", "LABELS", "MEANING"), rows, output)


def _markdown(catalog: Iterable[MetricSpec]) -> str:
    lines = ["| family | type | labels | meaning |", "|---|---|---|---|"]
    group = ""
    for spec in catalog:
        if spec.group != group:
            group = spec.group
            lines.append(f"| **{group}** | | | |")
        lines.append(f"| `{spec.name}` | {spec.kind} | {_labels(spec) or '–'} | {spec.help} |")  # noqa: RUF001 - a dash
    return "\n".join(lines) + "\n"


def _object(spec: MetricSpec) -> dict[str, object]:
    return {
        "name": spec.name,
        "type": spec.kind,
        "labels": list(spec.labels),
        "values": {label: list(values) for label, values in spec.closed.items()},
        "group": spec.group,
        "help": spec.help,
    }


def _labels(spec: MetricSpec) -> str:
    closed = spec.closed
    return ", ".join(f"{label} ({', '.join(closed[label])})" if label in closed else label for label in spec.labels)
