"""Completes APP from the source files of a directory; the application is not imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from promgun.config.app_check import callables

#: What an application is usually called.
_USUAL = frozenset({"app", "application", "wsgi"})
#: Modules that are never an application.
_NOT_APPS = frozenset({"conftest", "gunicorn", "gunicorn.conf", "setup", "noxfile", "fabfile"})


def candidates(incomplete: str, directory: str = ".") -> list[str]:
    """``module`` and ``package.module`` names under ``directory`` that begin with ``incomplete``.

    After a colon, and when only one module is left, also its names that look like applications: ``module:name``.
    """
    root = Path(directory)
    module, colon, _ = incomplete.partition(":")
    if colon:
        return list(_callables(root, module))
    found = sorted(name for name in _modules(root, module.rpartition(".")[0]) if name.startswith(module))
    if len(found) == 1:
        found += [*_callables(root, found[0]), *sorted(_modules(root, found[0]))]
    return found


def _modules(root: Path, package: str) -> Iterator[str]:
    folder = root.joinpath(*package.split(".")) if package else root
    prefix = f"{package}." if package else ""
    try:
        entries = list(folder.iterdir())
    except OSError:
        return
    for entry in entries:
        name = entry.name.removesuffix(".py")
        is_module = entry.suffix == ".py" or (entry / "__init__.py").is_file()
        if is_module and name.isidentifier() and not name.startswith("__") and name not in _NOT_APPS:
            yield prefix + name


def _callables(root: Path, module: str) -> Iterator[str]:
    path = root.joinpath(*module.split("."))
    source = path / "__init__.py" if path.is_dir() else path.with_name(f"{path.name}.py")
    try:
        tree = ast.parse(source.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    for name in dict.fromkeys(_likely(tree.body)) or callables(tree.body):
        if not name.startswith("_"):
            yield f"{module}:{name}"


def _likely(body: list[ast.stmt]) -> Iterator[str]:
    """Names that may be a WSGI application: the result of a call, a function of two arguments, an imported ``app``."""
    for statement in body:
        match statement:
            case ast.Assign(targets=targets, value=ast.Call()):
                yield from (target.id for target in targets if isinstance(target, ast.Name) and target.id.islower())
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.Call()):
                yield name
            case ast.FunctionDef(name=name, args=ast.arguments(args=[_, _])) if not name.startswith("test_"):
                yield name
            case ast.ImportFrom(names=names):
                bound = (alias.asname or alias.name for alias in names)
                yield from (name for name in bound if name in _USUAL)
