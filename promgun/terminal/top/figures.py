"""Numbers and small charts as the terminal view shows them: short, and of one width for one magnitude."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from promgun.status.history import Point
from promgun.terminal.instances import duration

#: What stands where there is nothing to tell.
NOTHING = "–"  # noqa: RUF001 - a dash
#: Digits behind the point of what is below a bound: three in all, after rounding.
_DIGITS = ((9.995, 2), (99.95, 1))
#: Bounds below which a text would round up to the next unit.
_SECOND = 0.9995
_LONG = 99.95
_YOUNG = 9.95
_FULL = 999.5


@dataclass(frozen=True, slots=True)
class Glyphs:
    """The characters of charts and marks: blocks, or what any terminal has."""

    bars: str = "▁▂▃▄▅▆▇█"
    cut: str = "…"
    nothing: str = NOTHING
    times: str = "×"  # noqa: RUF001 - a multiplication sign

    @classmethod
    def of(cls, encoding: str | None) -> Glyphs:
        """What a stream of that encoding can carry."""
        unicode = (encoding or "").lower().replace("-", "").startswith("utf")
        return cls() if unicode else cls(bars="_.-=+*#%", cut="~", nothing="-", times="x")


def bars(values: Sequence[float | None], ceiling: float, glyphs: Glyphs) -> str:
    """One character a value: the lowest for 0, at least the second for anything more, a blank for nothing."""
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
    """Cut the last ``seconds`` before ``now`` (Unix time) into ``width`` pieces: the largest value in each.

    An interval speaks for all the time it took. Pieces begin at multiples of their length, so a chart moves by whole
    pieces and does not shimmer.
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


def three(value: float) -> str:
    """A number in three digits, or all that stand before the point: ``0.04``, ``12.5``, ``1234``."""
    return f"{value:.{next((digits for bound, digits in _DIGITS if value < bound), 0)}f}"


def rate(per_second: float | None) -> str:
    """Requests a second."""
    return NOTHING if per_second is None else three(per_second) if per_second else "0"


def share(part: float | None) -> str:
    """A share in percent: ``0 %``, ``0.02 %``, ``37.5 %``, ``100 %``."""
    if part is None:
        return NOTHING
    return f"{three(100 * part) if part else 0} %"


def seconds_text(value: float | None) -> str:
    """A short time: ``0.40 ms``, ``12.5 ms``, ``1.25 s``, ``2m 10s``."""
    if value is None:
        return NOTHING
    if value < _SECOND:
        return f"{three(1000 * value)} ms"
    return f"{three(value)} s" if value < _LONG else duration(value)


def age(seconds: float | None) -> str:
    """An age in few characters: ``0.4s``, ``12s``, ``5m3s``; empty when there is none."""
    if seconds is None:
        return ""
    return f"{seconds:.1f}s" if seconds < _YOUNG else duration(seconds).replace(" ", "")


def memory(size: float | None) -> str:
    """Bytes in three digits: ``24.7M``, ``1.20G``."""
    if size is None:
        return NOTHING
    units = iter("BKMGT")
    unit = next(units)
    while size >= _FULL and unit != "T":
        size /= 1024
        unit = next(units)
    return f"{three(size) if unit != 'B' else round(size)}{unit}"


def cpu(part: float | None) -> str:
    """The CPU a process uses: ``3%``, ``140%``."""
    return NOTHING if part is None else f"{100 * part:.0f}%"
