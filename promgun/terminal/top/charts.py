"""Small bar charts of characters, and the characters that a terminal can show."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from promgun.status.history import Point
from promgun.status.texts import NOTHING


@dataclass(frozen=True, slots=True)
class Glyphs:
    """The characters of charts and marks: blocks by default."""

    bars: str = "▁▂▃▄▅▆▇█"
    cut: str = "…"
    nothing: str = NOTHING
    times: str = "×"  # noqa: RUF001 - a multiplication sign

    @classmethod
    def of(cls, encoding: str | None) -> Glyphs:
        """Return those that a stream of this encoding can show: ASCII unless it is UTF-8, UTF-16 or UTF-32."""
        unicode = (encoding or "").lower().replace("-", "").startswith("utf")
        return cls() if unicode else cls(bars="_.-=+*#%", cut="~", nothing="-", times="x")


def bars(values: Sequence[float | None], ceiling: float, glyphs: Glyphs) -> str:
    """Return one character for each value: the lowest bar for 0, a higher one for anything above, a blank for None."""
    steps = len(glyphs.bars) - 1
    text = ""
    for value in values:
        if value is None:
            text += " "
        elif value <= 0 or ceiling <= 0:
            text += glyphs.bars[0]
        else:
            text += glyphs.bars[max(1, min(steps, round(steps * value / ceiling)))]
    return text


def pieces(
    points: Iterable[Point], value: Callable[[Point], float | None], width: int, seconds: float, now: float
) -> list[float | None]:
    """Cut the ``seconds`` before ``now`` (Unix time) into ``width`` pieces of equal length: the largest value in each.

    A point's value holds for its whole interval. Pieces begin at multiples of their length, so a chart moves by whole
    pieces and does not flicker.
    """
    length = seconds / width
    last = math.floor(now / length)
    found: list[float | None] = [None] * width
    for point in points:
        read = value(point)
        if read is None:
            continue
        first_piece = math.floor((point.at - point.seconds) / length) + 1
        last_piece = math.floor(point.at / length)
        for piece in range(min(first_piece, last_piece), last_piece + 1):
            index = width - 1 - (last - piece)
            if 0 <= index < width:
                before = found[index]
                found[index] = read if before is None else max(before, read)
    return found
