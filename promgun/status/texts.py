"""How numbers read: the only place where bytes, seconds and shares become text, for the terminal and the browser."""

from __future__ import annotations

from itertools import pairwise

#: What stands for a figure that is not known.
NOTHING = "–"  # noqa: RUF001 - a dash
_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
#: Bounds from which a text would round up to the next unit, or to one digit more than three.
_TWO_DECIMALS = 9.995
_ONE_DECIMAL = 99.95
_SECOND = 0.9995
_LONG = 99.95
_YOUNG = 9.95
_FULL = 999.5


def three(value: float) -> str:
    """A number in three digits, or all that stand before the point: ``0.04``, ``12.5``, ``1234``."""
    if value < _TWO_DECIMALS:
        return f"{value:.2f}"
    return f"{value:.1f}" if value < _ONE_DECIMAL else f"{value:.0f}"


def count(value: float | None) -> str:
    """A whole number."""
    return NOTHING if value is None else f"{value:.0f}"


def rate(per_second: float | None) -> str:
    """Events a second: ``0``, ``0.04``, ``12.5``, ``1234``."""
    return NOTHING if per_second is None else three(per_second) if per_second else "0"


def share(part: float | None) -> str:
    """A share in percent: ``0 %``, ``0.02 %``, ``37.5 %``, ``100 %``."""
    if part is None:
        return NOTHING
    return f"{three(100 * part) if part else 0} %"


def cpu(part: float | None) -> str:
    """The CPU time that a process uses, 1 being one CPU in full: ``3%``, ``140%``."""
    return NOTHING if part is None else f"{100 * part:.0f}%"


def duration(seconds: float) -> str:
    """A length of time in its two largest units: ``3d 4h``, ``2m 10s``, ``7s``."""
    whole = int(seconds)
    for (unit, size), (smaller, part) in pairwise(_UNITS):
        if whole >= size:
            return f"{whole // size}{unit} {whole % size // part}{smaller}"
    return f"{whole}s"


def latency(seconds: float | None) -> str:
    """The duration of a request: ``0.40 ms``, ``12.5 ms``, ``1.25 s``, ``2m 10s``."""
    if seconds is None:
        return NOTHING
    if seconds < _SECOND:
        return f"{three(1000 * seconds)} ms"
    return f"{three(seconds)} s" if seconds < _LONG else duration(seconds)


def between(low: float, high: float) -> str:
    """A duration that is known by two bounds only: ``1–2.5 s``."""  # noqa: RUF002 - a dash
    return f"{low:g}–{high:g} s"  # noqa: RUF001 - a dash


def age(seconds: float | None) -> str:
    """How long something has been going on, in few characters: ``0.4s``, ``12s``, ``5m3s``; empty for ``None``."""
    if seconds is None:
        return ""
    return f"{seconds:.1f}s" if seconds < _YOUNG else duration(seconds).replace(" ", "")


def memory(size: float | None) -> str:
    """Bytes in three digits and a binary unit: ``500B``, ``24.7M``, ``1.20G``."""
    if size is None:
        return NOTHING
    if size < _FULL:
        return f"{round(size)}B"
    for unit in "KMG":
        size /= 1024
        if size < _FULL:
            return f"{three(size)}{unit}"
    return f"{three(size / 1024)}T"
