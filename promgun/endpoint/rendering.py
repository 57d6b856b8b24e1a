"""Metric families to bytes, as prometheus_client's own encoders write them."""

from __future__ import annotations

import copy
import gzip
from typing import TYPE_CHECKING

from prometheus_client.exposition import generate_latest as generate_text
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from promgun.endpoint.negotiation import Form, Format
from promgun.exposition.lines import LineWriter
from promgun.exposition.openmetrics import allowed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prometheus_client.core import Metric

# On a page of 2.3 MB: level 9 takes 144 ms, 6 takes 52 ms, 1 takes 23 ms; the result differs by 16 %.
_GZIP_LEVEL = 4


class Renderer:
    """Renders pages; keep it between them, and use it from one thread at a time."""

    def __init__(self) -> None:
        self._writers = {
            Format.TEXT: LineWriter(generate_text),
            Format.OPENMETRICS: LineWriter(generate_openmetrics),
        }

    def render(self, families: Sequence[Metric], form: Form) -> bytes:
        """Return the page in one form; raises what prometheus_client raises for a family it cannot write."""
        if form.names:
            families = list(restrict(families, form.names))
        if form.format is Format.OPENMETRICS:
            families = list(allowed(families))
        page = self._writers[form.format].write(families)
        return gzip.compress(page, compresslevel=_GZIP_LEVEL, mtime=0) if form.gzip else page


def restrict(families: Sequence[Metric], names: frozenset[str]) -> Iterator[Metric]:
    """Yield the families with one of these names, whole; of the others the samples with one of these names.

    The second half is what prometheus_client's ``restricted_registry`` does; the first is for people, who
    know a histogram by its family's name.
    """
    for family in families:
        if family.name in names:
            yield family
        elif samples := [sample for sample in family.samples if sample.name in names]:
            part = copy.copy(family)
            part.samples = samples
            yield part
