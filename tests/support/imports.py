"""Who imports whom in a package, read from its source: nothing is imported to find out."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_DOTTED: Final = re.compile(r"(\w+(?:\.\w+)+)(?::\w+)?")


@dataclass(frozen=True, slots=True, order=True)
class Arrow:
    """One module that names another; ``by_name`` if a string does, which is imported when it is needed."""

    source: str
    target: str
    by_name: bool = False

    def __str__(self) -> str:
        return f"{self.source} -> {self.target}{' (by name)' if self.by_name else ''}"


def modules_of(package: Path) -> dict[str, Path]:
    """Return the files of a package by dotted name; a package's own name stands for its ``__init__``."""
    names = {path: path.relative_to(package.parent).with_suffix("").parts for path in package.rglob("*.py")}
    return {".".join(parts).removesuffix(".__init__"): path for path, parts in names.items()}


def arrows_of(modules: Mapping[str, Path]) -> list[Arrow]:
    """Return every arrow among the modules, sorted.

    Imports inside functions and under ``TYPE_CHECKING`` count like all others. So does a string that is the name of a
    module (``package.module`` or ``package.module:attribute``), wherever it stands, docstrings excepted.
    """
    found = {arrow for name, path in modules.items() for arrow in _arrows(name, path, modules)}
    return sorted(arrow for arrow in found if arrow.source != arrow.target)


def _arrows(name: str, path: Path, modules: Mapping[str, Path]) -> Iterator[Arrow]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (Arrow(name, alias.name) for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom):
            parent = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            origin = ".".join(filter(None, (parent, node.module)))
            submodules = {f"{origin}.{alias.name}" for alias in node.names} & modules.keys()
            # A name that is no submodule is defined by the package's own ``__init__``.
            whole = {origin} & modules.keys() if len(submodules) < len(node.names) else set()
            yield from (Arrow(name, target) for target in submodules | whole)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            match = _DOTTED.fullmatch(node.value)
            if match and match[1] in modules:
                yield Arrow(name, match[1], by_name=True)


def circles(arrows: Iterable[Arrow]) -> list[list[str]]:
    """Return each group of modules in which every one leads to every other, sorted.

    What is named by a string is left out: by such a table a group of commands knows members that know the group.
    """
    graph: dict[str, set[str]] = {}
    for arrow in arrows:
        if not arrow.by_name:
            graph.setdefault(arrow.source, set()).add(arrow.target)
    reached = {module: _reached(graph, module) for module in graph}
    returning = [module for module in graph if module in reached[module]]
    groups = {frozenset(other for other in reached[module] if module in reached.get(other, ())) for module in returning}
    return sorted(sorted(group) for group in groups)


def _reached(graph: Mapping[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    ahead = [*graph[start]]
    while ahead:
        module = ahead.pop()
        if module not in found:
            found.add(module)
            ahead += graph.get(module, ())
    return found
