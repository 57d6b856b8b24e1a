"""``--metrics-route``: templates that promgun matches itself, for an application whose framework names no route.

A pattern is a path with parameters: ``/users/{id}``, ``/items/{id:int}``, ``/files/{path:path}``. The types are those
of Starlette: ``str`` (the default, up to the next slash), ``int``, ``float``, ``uuid`` and ``path`` (anything). Text
that follows a parameter in its segment ends it at the first character: ``/{name}.{kind}``. Text behind a path ends it
where it stands last: ``/{path:path}-{a}.{b}``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from typing import Any

_PARAMETER = re.compile(r"\{([^{}:]*)(?::([^{}]*))?\}")
_TYPES = {
    "str": "[^/{end}]+",
    "int": "[0-9]+",
    "float": r"[0-9]+(?:\.[0-9]+)?",
    "uuid": "[0-9a-fA-F]{{8}}(?:-?[0-9a-fA-F]{{4}}){{3}}-?[0-9a-fA-F]{{12}}",
    "path": ".*",
}
#: No longer path is matched, so that no client can make it costly.
LONGEST_PATH = 1024


class RoutePatterns:
    """Patterns, compiled into one expression: the first that matches a path whole is its route."""

    def __init__(self, patterns: Sequence[str]) -> None:
        """Raise ``ValueError``, with the pattern, for one that cannot be used."""
        self._patterns = tuple(patterns)
        self._match = re.compile("|".join(f"({expression(pattern)})" for pattern in patterns), re.DOTALL).fullmatch

    def match(self, path: str) -> str:
        """Return the first pattern that matches ``path``, text as a client sees it, or the empty string."""
        found = self._match(path) if len(path) <= LONGEST_PATH else None
        return self._patterns[found.lastindex - 1] if found is not None and found.lastindex else ""


def expression(pattern: str) -> str:
    """Return a pattern as a regular expression without groups that capture; raise ``ValueError`` if it is none."""
    if not pattern.startswith("/"):
        raise ValueError(f"the route {pattern!r} does not begin with a slash")
    if not pattern.isprintable():
        raise ValueError(f"the route {pattern!r} has characters that cannot be printed")
    # The text before the first parameter, its name and type, the text up to the next one, and so on.
    texts, names, kinds = (_PARAMETER.split(pattern)[first::3] for first in range(3))
    kinds = [kind if kind is not None else "str" for kind in kinds]
    wrong = _fault(texts, names, kinds)
    if wrong:
        raise ValueError(f"the route {pattern!r} has {wrong}")
    written = [re.escape(texts[0])]
    # The text that ends a path, as long as its segment goes on.
    ends_path = ""
    for before, kind, previous, text in zip(texts, kinds, ["", *kinds], texts[1:], strict=False):
        # Ended by the first character that follows, a parameter matches in one way only.
        one = _TYPES[kind].format(end=re.escape(text[:1]) if text[:1] != "/" else "")
        ends_path = "" if "/" in before else before if previous == "path" else ends_path
        if ends_path and kind == "str":
            # It ends the path where it stands last in the segment: each place where it stands would be tried up to the
            # end of the segment.
            one = f"(?:(?!{re.escape(ends_path)}){one[:-1]})+"
        written += [one, re.escape(text)]
    return "".join(written)


def _fault(texts: Sequence[str], names: Sequence[str], kinds: Sequence[str]) -> str:
    """Return what is wrong with the parts of a pattern, empty if nothing is."""
    faults = {
        "a brace without its other": any("{" in text or "}" in text for text in texts),
        "a parameter whose name is none": not all(name.isidentifier() for name in names),
        "two parameters of one name": len(set(names)) < len(names),
        f"a type other than {', '.join(_TYPES)}": not set(kinds) <= _TYPES.keys(),
        "two parameters without text between them": "" in texts[1:-1],
        "angle brackets; parameters are written {name}": any("<" in text or ">" in text for text in texts),
        "a number before a digit, which may be part of it": any(
            kind in {"int", "float"} and text[:1].isdigit() for kind, text in zip(kinds, texts[1:], strict=True)
        ),
        "a number behind a path and a digit, which may be part of either": any(
            previous == "path" and kind in {"int", "float"} and text.isdigit()
            for previous, text, kind in zip(kinds, texts[1:], kinds[1:], strict=False)
        ),
        "more than one parameter of the type path": kinds.count("path") > 1,
    }
    return next((fault for fault, is_there in faults.items() if is_there), "")


def read_patterns(value: Any) -> tuple[str, ...]:
    """Return the patterns that ``--metrics-route`` or ``metrics_route`` gives: one, or many; ``@FILE`` stands for the
    lines of a file, without blank ones and those that begin with ``#``. Raise ``ValueError`` for what cannot be used.
    """
    given: Iterable[Any] = () if value is None else value if isinstance(value, (list, tuple, set)) else [value]
    patterns: list[str] = []
    for text in given:
        if not isinstance(text, str):
            raise ValueError(f"a route is text, not {text!r}")  # noqa: TRY004 - Gunicorn shows ValueError's text
        patterns += _lines(text[1:]) if text.startswith("@") else [text.strip()]
    RoutePatterns(patterns)
    return tuple(patterns)


def _lines(path: str) -> list[str]:
    try:
        with open(os.path.expanduser(path), encoding="utf-8") as file:
            lines = [line.strip() for line in file]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read routes from {path}: {error}") from error
    return [line for line in lines if line and not line.startswith("#")]
