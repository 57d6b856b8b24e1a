"""One fact, one place: families by their handle, causes by their enum, one reader of /proc/PID/stat, one writer."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from promgun.metrics.catalog import CATALOG
from promgun.metrics.label_values import ExitCause

PACKAGE = Path(__file__).parents[2] / "promgun"
SOURCES = {path.relative_to(PACKAGE).as_posix(): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}
#: These count or read what is counted, and name it by a handle. (Queries have a test of their own.)
COUNTING = ("workers/", "master/", "store/", "instances/", "endpoint/", "collect/", "status/")
SERIES = {name for spec in CATALOG for name in (spec.name, spec.family)} | {
    f"{spec.name}_{suffix}" for spec in CATALOG if spec.kind == "histogram" for suffix in ("bucket", "sum", "count")
}
#: Causes whose word means nothing else in the package ("timeout" and "reload" are options and commands as well).
CAUSES = {str(cause) for cause in ExitCause} - {"timeout", "graceful_timeout", "max_requests", "reload", "shutdown"}


def texts(source: str) -> Iterator[tuple[int, str]]:
    """Give the strings of a module but its docstrings, with their lines; of an f-string its fixed parts."""
    tree = ast.parse(source)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


def offenders(wrong: re.Pattern[str], *, inside: tuple[str, ...] = ("",), but: tuple[str, ...] = ()) -> list[str]:
    """Give the places of strings in the package in which a pattern is found."""
    return [
        f"promgun/{name}:{line}: {text!r}"
        for name, source in SOURCES.items()
        if name.startswith(inside) and not name.startswith(but or ("\0",))
        for line, text in texts(source)
        if wrong.search(text)
    ]


def test_who_counts_names_a_family_by_its_handle() -> None:
    # The last: a name that is cut in pieces, "gunicorn_worker_" + ...
    names = re.compile("|".join((*(rf"^{name}$" for name in SERIES), r"^(gunicorn|promgun)_(\w+_)?$")))
    assert offenders(names, inside=COUNTING, but=("endpoint/push",)) == []


def test_a_cause_is_named_by_its_enum() -> None:
    assert offenders(re.compile("|".join(rf"^{cause}$" for cause in CAUSES)), but=("metrics/label_values",)) == []


def test_one_module_reads_the_stat_file_of_processes() -> None:
    assert offenders(re.compile(r"^/stat$|/proc/\w+/stat$"), but=("system/procfs",)) == []


def test_one_module_opens_what_others_may_have_put_there() -> None:
    found = [
        f"promgun/{name}:{line}"
        for name, source in SOURCES.items()
        if name != "system/safe_open.py"
        for line, text in enumerate(source.splitlines(), 1)
        if "O_RDONLY" in text and "O_NOFOLLOW" in text
    ]
    assert found == []


def test_one_module_writes_temporary_files_to_put_them_in_place() -> None:
    found = [
        f"promgun/{name}:{line}"
        for name, source in SOURCES.items()
        if name != "system/atomic_file.py"
        for line, text in enumerate(source.splitlines(), 1)
        if "mkstemp" in text or "NamedTemporaryFile" in text
    ]
    assert found == []
