"""A page of metric families as text: Prometheus text 0.0.4, OpenMetrics, JSON, or a table for people."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from promgun.terminal.output import Output

Format = Literal["text", "openmetrics", "json", "table"]
FORMATS: tuple[Format, ...] = get_args(Format)


class Page:
    """Families in the shape that prometheus_client's encoders read: an object with ``collect()``."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> list[Metric]:
        """Return the families, in order."""
        return self._families


def render(
    families: Iterable[Metric],
    form: Format = "text",
    match: Sequence[str] = (),
    output: Output | None = None,
) -> str:
    """Return the page in ``form``, restricted to ``match`` (see :func:`select`); tables are laid out for ``output``."""
    chosen = select(families, match)
    if form == "json":
        return to_json(chosen)
    if form == "table":
        return _tables(chosen, output)
    if form == "openmetrics":
        from prometheus_client.openmetrics import exposition as openmetrics  # noqa: PLC0415 - the one that is asked for

        from promgun.exposition.openmetrics import allowed  # noqa: PLC0415 - imports prometheus_client

        text: str = openmetrics.generate_latest(Page(allowed(chosen))).decode()  # type: ignore[no-untyped-call] # upstream
        return text
    from prometheus_client.exposition import generate_latest  # noqa: PLC0415 - imports an HTTP server

    return generate_latest(Page(chosen)).decode()


def _tables(families: Sequence[Metric], output: Output | None) -> str:
    """Return the samples, then the routes: they end on the screen where one looks first."""
    from promgun.status.from_page import routes_of  # noqa: PLC0415 - rich is for tables only
    from promgun.status.routes import routes_between  # noqa: PLC0415 - same
    from promgun.terminal.tables import metrics_table, routes_table  # noqa: PLC0415 - same

    # All that was counted is an interval that began with nothing. It is taken to be a second long: a CPU share is then
    # the seconds of CPU.
    routes = routes_between({}, routes_of(families), 1.0)
    return "\n".join(filter(None, (metrics_table(families, output), routes_table(routes, output))))


def select(families: Iterable[Metric], match: Sequence[str]) -> list[Metric]:
    """Return the families whose name matches a glob of ``match``, and of the others the samples whose name does.

    A counter matches by its name with and without ``_total``. Without globs, everything is returned.
    """
    if not match:
        return list(families)
    return [chosen for family in families if (chosen := _restrict(family, match)).samples or _fits(family, match)]


def _fits(family: Metric, match: Sequence[str]) -> bool:
    names = {family.name, f"{family.name}_total"} if family.type == "counter" else {family.name}
    return any(fnmatchcase(name, glob) for name in names for glob in match)


def _restrict(family: Metric, match: Sequence[str]) -> Metric:
    from prometheus_client.core import Metric  # noqa: PLC0415 - the CLI imports this module at start

    if _fits(family, match):
        return family
    part = Metric(family.name, family.documentation, family.type, family.unit)
    part.samples = [s for s in family.samples if any(fnmatchcase(s.name, glob) for glob in match)]
    return part


def to_json(families: Iterable[Metric]) -> str:
    """Return the families as a list of ``{name, type, help, samples: [{name, labels, value}]}``.

    Values are numbers; what JSON has no number for is a string, as in the text format: ``"NaN"``, ``"+Inf"``,
    ``"-Inf"``.
    """
    page = [
        {
            "name": family.name,
            "type": family.type,
            "help": family.documentation,
            "samples": [
                {"name": sample.name, "labels": sample.labels, "value": _json_number(sample.value)}
                for sample in family.samples
            ],
        }
        for family in families
    ]
    return json.dumps(page, indent=2, ensure_ascii=False) + "\n"


def _json_number(value: float) -> float | str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return value
