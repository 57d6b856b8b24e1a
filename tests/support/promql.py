"""PromQL read as the contract allows it: which series a query asks for, and which labels its answer has.

A query about a name or a label that does not exist is no error to Prometheus: it answers with nothing, for ever. This
reader raises :class:`Mismatch` for it, and for operands whose label sets can never match. It knows the part of the
language that promgun exports use.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\]|\\.)*")|(?P<range>\[[^\]]+\])|(?P<number>\d+(?:\.\d+)?(?:e[+-]?\d+)?)"""
    r"""|(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)|(?P<sign>=~|!~|!=|==|>=|<=|[-+*/%^<>=(){},]))"""
)
_RANGE = re.compile(r"\[(\d+(ms|[smhdwy])|\$__rate_interval|\$__range)\]")
_LEVELS = (("or",), ("and", "unless"), ("==", "!=", ">", "<", ">=", "<="), ("+", "-"), ("*", "/", "%"))
_AGGREGATES = {"sum", "max", "min", "avg", "count", "topk"}
_SETS = {"and", "or", "unless"}
#: Functions of a range, and the kinds of series that they make sense of.
_OVER_TIME = {
    "rate": {"counter"},
    "increase": {"counter"},
    "deriv": {"gauge"},
    "avg_over_time": {"gauge"},
    "max_over_time": {"gauge"},
    "resets": {"counter", "gauge"},
}
_ALTERNATIVES = re.compile(r"[\w|]+")


class Mismatch(AssertionError):  # noqa: N818 - it names what was found
    """The query asks for what does not exist, or its sides never match."""


@dataclass(frozen=True, slots=True)
class Series:
    """What a name stands for: its own labels, its kind, the values of closed labels.

    What is ``scraped`` also has the labels of its target; what a rule records has its own only.
    """

    labels: frozenset[str]
    kind: str
    closed: Mapping[str, Iterable[str]] = field(default_factory=dict)
    scraped: bool = True


@dataclass(frozen=True, slots=True)
class Shape:
    """What an expression gives: a scalar has no labels at all (``None``); ``kind`` is that of a bare selector."""

    labels: frozenset[str] | None
    kind: str = ""
    ranged: bool = False
    names: frozenset[str] = frozenset()

    def of(self, labels: Iterable[str] | None) -> Shape:
        """Return an instant vector with these labels, of the same series."""
        return Shape(None if labels is None else frozenset(labels), names=self.names)


def check(query: str, series: Mapping[str, Series], target: Iterable[str]) -> Shape:
    """Return the shape of a query over ``series`` whose targets carry the labels ``target``; raises ``Mismatch``."""
    return _Reader(query, series, frozenset(target)).whole()


class _Reader:
    """Recursive descent, one method for each kind of expression."""

    def __init__(self, query: str, series: Mapping[str, Series], target: frozenset[str]) -> None:
        self.query, self.series, self.target = query, series, target
        self.tokens: list[tuple[str, str]] = []
        position = 0
        while position < len(query.rstrip()):
            match = _TOKEN.match(query, position)
            if match is None or match.lastgroup is None:
                raise self.error(f"unreadable at {query[position:]!r}")
            self.tokens.append((match.lastgroup, match[match.lastgroup]))
            position = match.end()
        self.tokens.reverse()

    def error(self, text: str) -> Mismatch:
        return Mismatch(f"{text} in {self.query}")

    def peek(self) -> str:
        return self.tokens[-1][1] if self.tokens else ""

    def take(self, *expected: str) -> str:
        if not self.tokens or (expected and self.peek() not in expected):
            raise self.error(f"{self.peek()!r} in place of {expected}")
        return self.tokens.pop()[1]

    def whole(self) -> Shape:
        shape = self.binary()
        if self.tokens:
            raise self.error(f"nothing is known of {self.peek()!r}")
        if shape.ranged:
            raise self.error("a range is no answer")
        return shape

    def binary(self, level: int = 0) -> Shape:
        if level == len(_LEVELS):
            return self.operand()
        left = self.binary(level + 1)
        while self.peek() in _LEVELS[level]:
            operator = self.take()
            matching = (self.take(), self.names()) if self.peek() in {"on", "ignoring"} else ("", frozenset[str]())
            left = self.combine(operator, left, self.binary(level + 1), matching)
        return left

    def combine(self, operator: str, left: Shape, right: Shape, matching: tuple[str, frozenset[str]]) -> Shape:
        both = replace(left, names=left.names | right.names)
        if left.labels is None or right.labels is None:
            if operator in _SETS:
                raise self.error(f"{operator} with a number")
            return both.of(left.labels if right.labels is None else right.labels)
        if operator == "or":
            return both.of(left.labels & right.labels)
        how, names = matching
        if not names <= left.labels | right.labels or (how == "on" and not names <= left.labels & right.labels):
            raise self.error(f"{how} {sorted(names)} of {sorted(left.labels)} and {sorted(right.labels)}")
        pair = (names, names) if how == "on" else (left.labels - names, right.labels - names)
        if pair[0] != pair[1]:
            raise self.error(f"{sorted(pair[0])} never match {sorted(pair[1])}")
        return both.of(left.labels if operator in _SETS else pair[0])

    def operand(self) -> Shape:
        kind, text = self.tokens[-1] if self.tokens else ("end", "")
        if kind == "number":
            self.take()
            return Shape(None)
        if text == "(":
            self.take()
            shape = self.binary()
            self.take(")")
            return shape
        if kind != "name":
            raise self.error(f"{text!r} is no operand")
        self.take()
        if text in _AGGREGATES:
            return self.aggregate(text)
        return self.call(text) if self.peek() == "(" else self.selector(text)

    def names(self) -> frozenset[str]:
        self.take("(")
        found = set()
        while self.peek() != ")":
            found.add(self.take())
            if self.peek() != ")":
                self.take(",")
        self.take(")")
        return frozenset(found)

    def arguments(self) -> list[Shape]:
        self.take("(")
        found = [self.binary()]
        while self.peek() == ",":
            self.take()
            found.append(self.binary())
        self.take(")")
        return found

    def aggregate(self, name: str) -> Shape:
        by: frozenset[str] | None = None
        if self.peek() == "by":
            self.take()
            by = self.names()
        *_, shape = self.arguments()
        if shape.labels is None or shape.ranged:
            raise self.error(f"{name} of what is no vector")
        if by is not None and not by <= shape.labels:
            raise self.error(f"no labels {sorted(by - shape.labels)}")
        return shape if name == "topk" else shape.of(by or ())

    def call(self, name: str) -> Shape:
        arguments = self.arguments()
        shape = arguments[-1]
        if name in _OVER_TIME:
            if not shape.ranged or shape.kind not in _OVER_TIME[name]:
                raise self.error(f"{name} of {shape}")
            return shape.of(shape.labels)
        if name == "histogram_quantile":
            if shape.labels is None or "le" not in shape.labels:
                raise self.error("a quantile without le")
            return shape.of(shape.labels - {"le"})
        if name == "vector" and shape.labels is None:
            return Shape(frozenset())
        if name == "absent" and shape.labels is not None:
            return shape.of({"job"})
        raise self.error(f"nothing is known of {name}")

    def selector(self, name: str) -> Shape:
        known = self.series.get(name)
        if known is None:
            raise self.error(f"no series {name}")
        labels = known.labels | (self.target if known.scraped else set())
        if self.peek() == "{":
            self.take()
            while self.peek() != "}":
                self.matcher(name, labels, known.closed)
                if self.peek() != "}":
                    self.take(",")
            self.take()
        ranged = bool(self.tokens) and self.tokens[-1][0] == "range"
        if ranged and not _RANGE.fullmatch(self.take()):
            raise self.error("an unknown range")
        return Shape(labels, known.kind, ranged, frozenset({name}))

    def matcher(self, name: str, labels: frozenset[str], closed: Mapping[str, Iterable[str]]) -> None:
        label, operator, value = self.take(), self.take("=", "!=", "=~", "!~"), self.take().strip('"')
        if label not in labels:
            raise self.error(f"{name} has no label {label}")
        if label in closed and _ALTERNATIVES.fullmatch(value):
            values = value.split("|") if operator.endswith("~") else [value]
            if unknown := set(values) - set(closed[label]):
                raise self.error(f"{label} is never {sorted(unknown)}")
