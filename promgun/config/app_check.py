"""Checks from source, before the first fork and without importing it, whether an application can be loaded."""

from __future__ import annotations

import ast
import importlib.machinery
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from promgun.errors import AppLoadError


class AppReference:
    """``module:expression`` as Gunicorn reads it (27.0 ``util.import_app``); without an expression, ``application``."""

    __slots__ = ("expression", "module")

    def __init__(self, module: str, expression: str) -> None:
        self.module = module
        self.expression = expression

    @classmethod
    def parse(cls, text: str) -> AppReference:
        """Read a reference; raises :class:`AppLoadError` when it can name nothing."""
        module, colon, expression = text.partition(":")
        if not module or (colon and not expression):
            raise AppLoadError(
                f"{text!r} does not name an application",
                "Write module:name, e.g. app:wsgi for the object wsgi in app.py",
            )
        if module.endswith(".py") or "/" in module:
            guess = module.removesuffix(".py").strip("./").replace("/", ".")
            hint = f"Did you mean '{guess}:{expression}'?"
            if not expression:
                hint = f"Write module:name, e.g. {guess}:app for the object app in it"
            raise AppLoadError(f"{text!r} is a file name, not a module", hint)
        return cls(module, expression or "application")

    @property
    def name(self) -> str:
        """The name at the start of the expression, as ``create_app`` in ``create_app("prod")``; empty without one."""
        try:
            node = ast.parse(self.expression, mode="eval").body
        except SyntaxError:
            return ""
        if isinstance(node, ast.Call):
            node = node.func
        return node.id if isinstance(node, ast.Name) else ""


def check_application(text: str, paths: Sequence[str]) -> None:
    """Raise :class:`AppLoadError` when the application certainly cannot be loaded: no such module, no such name in it.

    ``paths`` are searched before ``sys.path``. Nothing is imported: an application may rely on being loaded in a
    worker, after monkey patching. What
    cannot be judged from the source passes; the worker that imports it reports the error.
    """
    reference = AppReference.parse(text)
    origin = _find(reference.module, [*paths, *sys.path])
    if origin is None:
        raise _no_module(reference, paths)
    name = reference.name
    if not name:
        raise AppLoadError(
            f"{reference.expression!r} is neither a name nor a call of one",
            "Write module:name or module:factory()",
        )
    if not origin.endswith(".py"):
        return
    try:
        source = Path(origin).read_bytes()
        if _plainly_defines(source, name):
            return
        tree = ast.parse(source)
    except (OSError, SyntaxError, ValueError):
        # Importing it will fail in the worker, with the user's own traceback.
        return
    bound = set(bound_names(tree.body))
    if name not in bound and _defines_something(tree) and not _is_dynamic(tree):
        raise AppLoadError(
            f"Module {reference.module!r} ({origin}) has no attribute {name!r}",
            suggest(name, callables(tree.body), reference.module),
        )


#: What stands before a name that is defined at the margin, and how far behind it the next sign is looked for.
_DEFINES = frozenset({b"def ", b"class ", b"async def "})
_NEAR = 16


def _plainly_defines(source: bytes, name: str) -> bool:
    """Whether a line at the margin defines or assigns the name: enough for most, and found without a parser."""
    word = name.encode()
    place = source.find(word)
    while place >= 0:
        margin = source.rfind(b"\n", 0, place) + 1
        before, after = source[margin:place], source[place + len(word) : place + len(word) + _NEAR].lstrip(b" ")
        if before in _DEFINES and after[:1] in {b"(", b":"}:
            return True
        if not before and after[:1] == b"=" != after[1:2]:
            return True
        place = source.find(word, place + 1)
    return False


def _close_matches(name: str, candidates: Sequence[str]) -> list[str]:
    from difflib import get_close_matches  # noqa: PLC0415 - for a mistake only

    return get_close_matches(name, candidates, n=1)


def suggest(name: str, candidates: Iterable[str], module: str) -> str:
    """Return a hint: the callable whose name is closest to ``name``, and the module's other callables."""
    found = [item for item in candidates if not item.startswith("_")]
    close = _close_matches(name, found)
    if close:
        return f"Did you mean '{module}:{close[0]}'? Its callables are: {', '.join(found)}"
    if not found:
        return "It defines nothing that can be called"
    return f"Its callables are: {', '.join(found)}. Name one, e.g. '{module}:{found[0]}'"


def _find(module: str, paths: list[str]) -> str | None:
    """Return the file of a module without importing its packages; empty for one that has no file."""
    search: Sequence[str] | None = paths
    spec: importlib.machinery.ModuleSpec | None = None
    if module in sys.modules or module in sys.builtin_module_names:
        return getattr(sys.modules.get(module), "__file__", None) or ""
    for part in module.split("."):
        if search is None or not part:
            return None
        spec = importlib.machinery.PathFinder.find_spec(part, list(search))
        if spec is None:
            return None
        search = spec.submodule_search_locations
    if spec is None:
        return None
    if spec.origin is None or not spec.has_location:
        return ""
    return spec.origin


def _no_module(reference: AppReference, paths: Sequence[str]) -> AppLoadError:
    where = paths[0] if paths else os.getcwd()
    near = _close_matches(reference.module, [path.stem for path in Path(where).glob("*.py")])
    if near:
        hint = f"Did you mean '{near[0]}:{reference.expression}'?"
    else:
        hint = f"It is not in {where} nor in Python's path: run in the folder that holds it, or give --chdir"
    return AppLoadError(f"No module named {reference.module!r}", hint)


def bound_names(body: Iterable[ast.stmt]) -> Iterator[str]:
    """Yield the names that statements bind at the top level of a module, inside ``if``, ``try``, ``with`` and loops
    as well.
    """
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield statement.name
            continue
        if isinstance(statement, ast.Import | ast.ImportFrom):
            for alias in statement.names:
                yield alias.asname or alias.name.split(".")[0]
            continue
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield node.name
            elif isinstance(node, ast.Import | ast.ImportFrom):
                yield from (alias.asname or alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
                yield node.name


def callables(body: Iterable[ast.stmt]) -> list[str]:
    """Return the top-level names that look callable: functions, classes, and what a call was assigned to."""
    found = []
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            found.append(statement.name)
        elif isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Call):
            found.extend(target.id for target in statement.targets if isinstance(target, ast.Name))
    return found


def _defines_something(tree: ast.Module) -> bool:
    """Whether a module defines names of its own and raises nothing at its top level. For any other module the error of
    its import says more than we could.
    """
    if any(isinstance(statement, ast.Raise) for statement in tree.body):
        return False
    imports = (ast.Import, ast.ImportFrom, ast.Expr, ast.Pass)
    return any(not isinstance(statement, imports) for statement in tree.body)


_DYNAMIC = frozenset({"globals", "exec", "setattr", "vars", "locals", "eval", "__import__"})


def _is_dynamic(tree: ast.Module) -> bool:
    """Whether a module may get names in ways that its source does not show."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            return True
        if isinstance(node, ast.FunctionDef) and node.name == "__getattr__":
            return True
        if isinstance(node, ast.Name) and node.id in _DYNAMIC:
            return True
        if isinstance(node, ast.Global):
            return True
        if isinstance(node, ast.Attribute) and node.attr in {"modules", "__dict__"}:
            return True
    return False
