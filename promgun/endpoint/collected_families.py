"""Checks the families of the application's collectors: one that a reader could not parse would cost the whole page.

The rules are those of OpenMetrics 1.0 as prometheus_client's parser applies them (0.26 ``openmetrics/parser.py``), the
strictest reader that is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

from prometheus_client.core import Metric
from prometheus_client.samples import Sample

from promgun.collect.page_names import SUFFIXES, PageNames
from promgun.store.format import go_string
from promgun.store.row_format import checked_text, is_label, is_metric

#: A sample's name, labels and value.
Parts = Sequence[Any]
_COUNTS = frozenset({"_total", "_sum", "_count", "_bucket", "_gcount"})
_WHOLE = frozenset({"_count", "_gcount", "_bucket"})
_HISTOGRAMS = frozenset({"histogram", "gaugehistogram"})
#: The label that tells the samples of one group apart, by type and suffix; an empty one stands for the family's name.
_INNER = {
    ("histogram", "_bucket"): "le",
    ("gaugehistogram", "_bucket"): "le",
    ("summary", ""): "quantile",
    ("stateset", ""): "",
}
_LARGEST_QUANTILE = 1.0


def checked_family(name: str, kind: str, documentation: str, unit: str, samples: Iterable[Parts]) -> Metric:
    """Return a family that every reader can parse, samples of a group together, each once.

    Raises ``ValueError`` or ``TypeError`` for one that cannot be on a page.
    """
    kind = "unknown" if kind == "untyped" else kind
    name = name.removesuffix("_total") if kind == "counter" else name
    if unit and (kind in ("info", "stateset") or not name.endswith(f"_{unit}")):
        raise ValueError(f"its name does not end in its unit {unit!r}")
    if not is_metric(name):
        raise ValueError("a metric cannot have that name")
    family = Metric(name, checked_text(documentation), kind, unit)
    groups: dict[tuple[tuple[str, str], ...], dict[tuple[str, tuple[tuple[str, str], ...]], Sample]] = {}
    for sample_name, labels, value in samples:
        texts = {checked_text(label): checked_text(text) for label, text in dict(labels).items()}
        sample, group = _sample(name, kind, sample_name, texts, float(value))
        groups.setdefault(group, {}).setdefault((sample.name, tuple(sorted(sample.labels.items()))), sample)
    for members in groups.values():
        family.samples += _histogram(name, members.values()) if kind in _HISTOGRAMS else members.values()
    return family


def _sample(
    name: str, kind: str, sample_name: str, labels: dict[str, str], value: float
) -> tuple[Sample, tuple[tuple[str, str], ...]]:
    """Return a sample and its group: its labels without the one that tells samples of a group apart."""
    suffix = sample_name.removeprefix(name)
    if not sample_name.startswith(name) or suffix not in SUFFIXES[kind]:
        raise ValueError(f"a {kind} has no sample {sample_name!r}")
    bad = [label for label in labels if not is_label(label)]
    if bad:
        raise ValueError(f"a label cannot have the name {bad[0]!r}")
    _check_value(kind, suffix, value)
    inner = _INNER.get((kind, suffix))
    if inner is not None:
        inner = inner or name
        if inner not in labels:
            raise ValueError(f"{sample_name!r} has no label {inner!r}")
        if kind != "stateset":
            labels[inner] = _bound(inner, labels[inner])
    group = tuple(sorted(pair for pair in labels.items() if pair[0] != inner)) if kind != "info" else ()
    return Sample(sample_name, labels, value), group


def _check_value(kind: str, suffix: str, value: float) -> None:
    is_right = (
        (suffix not in _COUNTS or value >= 0)
        and (suffix not in _WHOLE or value.is_integer())
        and (suffix != "_gsum" or not math.isnan(value))
        and (kind != "info" or value == 1)
        and (kind != "stateset" or value in (0, 1))
        and (kind != "summary" or suffix or not value < 0)
    )
    if not is_right:
        raise ValueError(f"a {kind} cannot have the value {value:g}")


def _bound(label: str, text: str) -> str:
    """Return the bound in a label as other bounds are spelled."""
    bound = float(text)
    if math.isnan(bound) or (label == "quantile" and not 0 <= bound <= _LARGEST_QUANTILE):
        raise ValueError(f"{label!r} cannot have the value {text!r}")
    return go_string(bound)


def _histogram(name: str, group: Iterable[Sample]) -> list[Sample]:
    """Return the samples of one histogram, buckets first and in order."""
    bucket_name = f"{name}_bucket"
    rest = {sample.name.removeprefix(name): sample for sample in group if sample.name != bucket_name}
    buckets = sorted(
        (sample for sample in group if sample.name == bucket_name), key=lambda sample: float(sample.labels["le"])
    )
    if not buckets or buckets[-1].labels["le"] != "+Inf":
        raise ValueError("its bucket of +Inf is missing")
    if any(low.value > high.value for low, high in pairwise(buckets)):
        raise ValueError("its buckets are not cumulative")
    is_negative = float(buckets[0].labels["le"]) < 0
    for count, total in (("_count", "_sum"), ("_gcount", "_gsum")):
        if (count in rest) != (total in rest):
            raise ValueError(f"{count} and {total} must be there together")
        if count in rest and rest[count].value != buckets[-1].value:
            raise ValueError(f"{count} differs from its bucket of +Inf")
    if ("_sum" in rest and is_negative) or ("_gsum" in rest and rest["_gsum"].value < 0 and not is_negative):
        raise ValueError("its sum cannot be with these buckets")
    return [*buckets, *rest.values()]


def without_shown(
    shown: Iterable[Metric], families: Iterable[Metric], refuse: Callable[[str, str], None]
) -> list[Metric]:
    """Return those of ``families`` that share no name of a sample with the page or with the catalogue."""
    names = PageNames(shown)
    kept: list[Metric] = []
    for family in families:
        other = names.take(family.name, family.type)
        if other:
            refuse(family.name, f"the page's family {other!r} has a sample of the same name")
        else:
            kept.append(family)
    return kept


def checked_families(raw: Iterable[Any], refuse: Callable[[str, str], None]) -> list[Metric]:
    """Return the families in a collectors' answer that can be on a page; ``refuse`` gets name and reason of others."""
    families: list[Metric] = []
    for parts in raw:
        try:
            families.append(checked_family(*parts))
        except (ValueError, TypeError, OverflowError) as error:  # noqa: PERF203 - the others are still shown
            name = parts[0] if isinstance(parts, (list, tuple)) and parts else "?"
            refuse(str(name), str(error))
    return families
