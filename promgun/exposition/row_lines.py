"""Writes the lines of our own families from their numbers, as prometheus_client's encoders would write their samples.

Between two pages only the numbers change, so the rest of the lines of a label set is one template, which is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client.utils import floatToGoString

from promgun.store.own_families import bucket_texts

if TYPE_CHECKING:
    from promgun.collect.row_family import RowFamily

_format_value: Callable[[float], str] = floatToGoString
#: Counts repeat, in most buckets of a histogram: their texts are kept, this many of them.
_MOST_TEXTS = 10_000


class _Texts(dict[float, str]):
    """The text of each number."""

    def __missing__(self, number: float) -> str:
        text = _format_value(number)
        # NaN equals nothing: it would be kept each time.
        if number.is_integer() and len(self) < _MOST_TEXTS:
            self[number] = text
        return text


@dataclass(slots=True)
class _Template:
    """The lines of a label set with ``%s`` for each number, and as they were written last, with which numbers."""

    bounds: tuple[float, ...]
    lines: str
    numbers: tuple[float, ...] = ()
    written: bytes = b""


class RowLines:
    """Writes the lines of one family; use one for many pages, from one thread at a time."""

    __slots__ = ("_constant", "_templates", "_text")

    def __init__(self) -> None:
        self._templates: dict[tuple[str, ...], _Template] = {}
        self._constant: dict[str, str] = {}
        # -0.0 equals 0.0, and is written as 0.0 here.
        self._text = _Texts({0.0: _format_value(0.0)}).__getitem__

    def write(self, family: RowFamily) -> list[bytes]:
        """Return the lines of each label set, in UTF-8."""
        text, templates = self._text, self._templates
        if len(templates) > 2 * len(family.rows) + _SPARE or family.constant != self._constant:
            templates.clear()
            self._constant = family.constant
        lines = []
        for values, (bounds, numbers) in family.rows.items():
            template = templates.get(values)
            if template is None or template.bounds != bounds:
                template = templates[values] = _Template(bounds, _template(family, values, bounds))
            # -0.0 equals 0.0, and is written as 0.0. NaN equals nothing, unless it is the same object.
            if numbers is not template.numbers and numbers != template.numbers:
                if bounds:
                    counts = list(map(text, accumulate(numbers[:-1])))
                    template.written = (template.lines % (*counts, counts[-1], text(numbers[-1]))).encode()
                else:
                    template.written = (template.lines % text(numbers[0])).encode()
                template.numbers = numbers
            lines.append(template.written)
        return lines


#: How many templates are kept beyond twice those of the last page: some are of label sets that are gone.
_SPARE = 100


def _template(family: RowFamily, values: tuple[str, ...], bounds: tuple[float, ...]) -> str:
    """Return the lines of a label set with ``%s`` for each number."""
    # Both formats sort labels and escape three characters in a value (prometheus_client 0.21 to 0.26).
    labels = sorted(family.labels_of(values).items())
    pairs = [(name, f'{name}="{_escaped(value)}"'.replace("%", "%%")) for name, value in labels]
    every = ",".join([pair for _, pair in pairs])
    end = f"{{{every}}} %s\n" if every else " %s\n"
    if not bounds:
        return family.sample + end
    before = "".join([f"{pair}," for name, pair in pairs if name < "le"])
    after = "".join([f",{pair}" for name, pair in pairs if name > "le"])
    head, tail = f'{family.name}_bucket{{{before}le="', f'"{after}}} %s\n'
    buckets = [f"{head}{text}{tail}" for text in bucket_texts(bounds)]
    return "".join([*buckets, f"{family.name}_count{end}", f"{family.name}_sum{end}"])


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
