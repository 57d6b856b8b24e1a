"""YAML, as far as configuration files need it: block style, with comments.

What is written reads the same under YAML 1.1 (Prometheus, Kubernetes) and 1.2: a string that either could take for
something else is quoted.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, Union

WIDTH = 100
#: Words with inner colons, and durations.
_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*(:[A-Za-z0-9_./-]+)*|(\d+(ms|[smhdwy]))+")
_RESERVED = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
#: Characters that JSON leaves as they are and YAML does not allow, or takes for line breaks (YAML 1.1, chapter 5).
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")

Scalar: TypeAlias = str | int | float | bool
Node: TypeAlias = Union[Scalar, Mapping[str, "Node"], Sequence["Node"], "Commented"]


@dataclass(frozen=True, slots=True)
class Commented:
    """A value, and what a reader should know about it: one line or several, above it."""

    value: Node
    comment: str


def to_yaml(*documents: Node) -> str:
    """Return the documents as text, one after another."""
    return "---\n".join("".join(f"{line}\n" for line in _document(document)) for document in documents)


def _document(node: Node) -> Iterator[str]:
    if isinstance(node, Commented):
        yield from comment(node.comment)
        node = node.value
    yield from _lines(node)


def comment(text: str) -> Iterator[str]:
    """Yield the lines of a comment."""
    for line in text.splitlines():
        yield f"# {line}".rstrip()


def _lines(node: Node) -> Iterator[str]:
    """Yield a mapping's or a sequence's lines; what is empty, and a scalar, is one line."""
    if isinstance(node, Mapping) and node:
        for key, value in node.items():
            yield from _entry(f"{_string(key)}:", value)
    elif isinstance(node, Sequence) and not isinstance(node, str) and node:
        for item in node:
            yield from _item(item)
    else:
        yield from _scalar(node)


def _entry(key: str, value: Node) -> Iterator[str]:
    if isinstance(value, Commented):
        yield from comment(value.comment)
        value = value.value
    first, *rest = _lines(value)
    if isinstance(value, Mapping | list | tuple) and value:
        yield key
        yield from _indented([first, *rest])
    else:
        yield f"{key} {first}"
        yield from _indented(rest)


def _item(item: Node) -> Iterator[str]:
    if isinstance(item, Commented):
        yield from comment(item.comment)
        item = item.value
    head = list(_lines(item))
    # A comment at the head of a mapping stands above the dash.
    while head[0].startswith("#"):
        yield head.pop(0)
    yield f"- {head[0]}"
    yield from _indented(head[1:])


def _indented(lines: Sequence[str]) -> Iterator[str]:
    return (f"  {line}" for line in lines)


def _scalar(value: Node) -> Iterator[str]:
    if isinstance(value, str) and _can_fold(value):
        yield ">-"
        yield from textwrap.wrap(value, WIDTH, break_long_words=False, break_on_hyphens=False)
    elif isinstance(value, str):
        yield _string(value)
    else:
        # Empty collections, numbers and truth values are written as in JSON, but YAML 1.1 wants a point in 1e-05.
        yield re.sub(r"^(-?\d+)e", r"\1.0e", json.dumps(value))


def _can_fold(text: str) -> bool:
    """Tell whether a text is long, and comes back as it was when its spaces become line breaks."""
    return len(text) > WIDTH and text.split() == text.split(" ") and text.isprintable()


def _string(text: str) -> str:
    if _PLAIN.fullmatch(text) and text.lower() not in _RESERVED:
        return text
    if '"' in text and text.isprintable():
        # PromQL is full of double quotes.
        return "'" + text.replace("'", "''") + "'"
    quoted = json.dumps(text, ensure_ascii=False)
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", quoted)
