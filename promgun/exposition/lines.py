"""Writes pages as prometheus_client's encoders do, but keeps the head of each line (name and labels) between pages.

Between two pages only the values change; writing names, labels and escapes is two thirds of an encoder's work. The head
of a line is cut from what the encoder itself wrote for that sample, so the two cannot differ; a family with a sample
that has more than a name, labels and a value goes through the encoder each time. Our own stored families have no
samples, only numbers, and lines of their own (``exposition.row_lines``). Those that are computed for a page, and most
of the application's, are numbers too: all lines of one are a template, and the same again if no number has changed.
"""

from __future__ import annotations

import copy
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

from promgun.collect.row_family import RowFamily
from promgun.collect.series_family import Layout, SeriesFamily
from promgun.exposition.formats import Page
from promgun.exposition.row_lines import RowLines

if TYPE_CHECKING:
    from prometheus_client.core import Metric

_format_value: Callable[[float], str] = floatToGoString
#: The fields of a sample after its value, when it has no time stamp, exemplar or native histogram.
_NOTHING_MORE = Sample("", {}, 0.0)[3:]
_ZERO = "0.0"
_MOST_TEXTS = 10_000
#: How many heads are kept beyond twice the lines of the largest page: some are of series that are gone.
_SPARE = 1000


class _Texts(dict[float, str]):
    """The text of each number; whole ones repeat, and are kept."""

    def __missing__(self, number: float) -> str:
        text = _format_value(number)
        # -0.0 equals 0.0, and has a text of its own.
        if number and number.is_integer() and len(self) < _MOST_TEXTS:
            self[number] = text
        return text


class Registry(Protocol):
    """The part of a registry that an encoder uses."""

    def collect(self) -> Sequence[Metric]:
        """Return the families, in order."""
        ...


@dataclass(slots=True)
class _Known:
    """What a family has on every page: ``top``, its lines HELP and TYPE, and by sample the head of a line."""

    top: str
    heads: dict[tuple[object, ...], str] = field(default_factory=dict)
    rows: RowLines = field(default_factory=RowLines)
    #: the layout of a family of numbers, and its lines with ``%s`` for each value, empty if they are no such lines
    layout: Layout | None = None
    template: str = ""
    #: the numbers of the last page, bit by bit, and its lines
    numbers: bytes = b""
    written: bytes = b""


class LineWriter:
    """Writes pages as ``encode``, one of prometheus_client's encoders, would; use one writer for many pages.

    It keeps at most about twice as many heads as the largest page had lines. Use it from one thread at a time.
    """

    def __init__(self, encode: Callable[[Registry], bytes]) -> None:
        self._encode = encode
        self._end = encode(Page([]))
        self._families: dict[tuple[str, ...], _Known] = {}
        self._heads = 0
        self._most = 0
        self._text = _Texts().__getitem__

    def write(self, families: Iterable[Metric]) -> bytes:
        """Return the page; raises what the encoder raises for a family it cannot write."""
        # In bytes: a page of some megabytes would be copied once more.
        parts: list[bytes] = []
        lines = 0
        for family in families:
            identity = (family.name, family.type, family.documentation, family.unit)
            known = self._families.get(identity)
            if known is None:
                known = self._families[identity] = _Known(self._encoded(_with(family, [])))
            if isinstance(family, RowFamily) and family.rows:
                parts.append(known.top.encode())
                parts += known.rows.write(family)
                continue
            if isinstance(family, SeriesFamily) and family.layout is not None and self._has_template(family, known):
                parts.append(known.top.encode())
                # Not by equality: -0.0 equals 0.0, and has a text of its own.
                numbers = array("d", family.values).tobytes()
                if numbers != known.numbers:
                    known.written = (known.template % tuple(map(self._text, family.values))).encode()
                    known.numbers = numbers
                parts.append(known.written)
                lines += len(family.values)
                continue
            parts.append("".join(self._lines(family, known) or [self._encoded(family)]).encode())
            lines += len(family.samples)
        self._most = max(self._most, lines)
        if self._heads > 2 * self._most + _SPARE:
            self._families.clear()
            self._heads = 0
        return b"".join([*parts, self._end])

    def _encoded(self, family: Metric) -> str:
        return self._encode(Page([family])).removesuffix(self._end).decode()

    def _has_template(self, family: SeriesFamily, known: _Known) -> bool:
        """Whether the encoder writes one line for each value."""
        if known.layout is not family.layout:
            known.layout, known.numbers, known.written = family.layout, b"", b""
            heads = self._heads_of(family, known, family.samples)
            known.template = "".join([f"{head.replace('%', '%%')}%s\n" for head in heads or ()])
            self._heads += len(heads or ())
        return bool(known.template)

    def _lines(self, family: Metric, known: _Known) -> list[str] | None:
        """Return the family's lines; ``None`` when any is of a kind that only the encoder can write."""
        heads = known.heads
        lines = [known.top]
        missing = []
        for sample in family.samples:
            if sample[3:] != _NOTHING_MORE:
                return None
            head = heads.get((sample.name, *sample.labels.items()))
            if head is None:
                missing.append(sample)
            else:
                lines.append(f"{head}{_format_value(sample.value)}\n")
        if not missing:
            return lines
        return self._lines(family, known) if self._learn(family, known, missing) else None

    def _learn(self, family: Metric, known: _Known, missing: list[Sample]) -> bool:
        """Keep the heads of these samples' lines; return false when the encoder does not write one line for each."""
        heads = self._heads_of(family, known, missing)
        if heads is None:
            return False
        for sample, head in zip(missing, heads, strict=True):
            key = (sample.name, *sample.labels.items())
            known.heads[key] = head
        self._heads += len(heads)
        return True

    def _heads_of(self, family: Metric, known: _Known, samples: Sequence[Sample]) -> list[str] | None:
        """Return the lines of these samples without their values; ``None`` when there is not one for each.

        The text format moves ``_created`` behind the others, under a heading of its own (prometheus_client 0.26).
        """
        text = self._encoded(_with(family, [sample._replace(value=0.0) for sample in samples]))
        *lines, _ = text[len(known.top) :].split("\n")
        if len(lines) != len(samples) or not all(line.endswith(f" {_ZERO}") for line in lines):
            return None
        return [line.removesuffix(_ZERO) for line in lines]


def _with(family: Metric, samples: list[Sample]) -> Metric:
    part = copy.copy(family)
    part.samples = samples
    return part
