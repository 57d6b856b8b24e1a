"""Finds CPython interpreters, and makes an environment for each in which promgun and every worker type can be run."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: ``requires-python``, and the newest that is looked for.
_OLDEST, _NEWEST = (3, 10), (3, 14)
_EXTRAS = ("gevent", "eventlet")
_ABOUT = """\
import json, platform, sys
free = not getattr(sys, "_is_gil_enabled", lambda: True)()
print(json.dumps([platform.python_implementation(), platform.python_version() + "t" * free, sys.version_info[:2],
                  sys.executable]))
"""
_ANSWER_TIME = 20.0
_LAST_LINES = 3


@dataclass(slots=True)
class Interpreter:
    """One Python, and the environment made for it: ``python`` is empty when there is none, for that ``reason``.

    ``missing`` are the worker types whose library could not be installed, with what pip said.
    """

    version: str
    path: str
    python: str = ""
    reason: str = ""
    missing: dict[str, str] = field(default_factory=dict)


def default_cache() -> Path:
    """Return where environments are kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "promgun-benchmarks"


def interpreters(paths: Sequence[str]) -> list[Interpreter]:
    """Return these interpreters, or every one that is found: the first of each version, by version.

    One that was asked for and cannot be used has a ``reason``.
    """
    found: dict[str, Interpreter] = {}
    for path in paths or _found_paths():
        interpreter = _ask(path)
        if paths or not interpreter.reason:
            found.setdefault(interpreter.version, interpreter)
    return sorted(found.values(), key=lambda each: [int(part) for part in each.version.split(".") if part.isdigit()])


def _found_paths() -> Iterator[str]:
    names = [f"python{_OLDEST[0]}.{minor}" for minor in range(_OLDEST[1], _NEWEST[1] + 1)]
    versions = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for name in names:
        # first pyenv's own: its shim on PATH refuses a version that is not selected
        yield from map(str, sorted(versions.glob(f"*/bin/{name}")))
        for folder in os.get_exec_path():
            if found := shutil.which(name, path=folder):
                yield found


def _ask(path: str) -> Interpreter:
    """Return what an interpreter says about itself."""
    try:
        answer = subprocess.run([path, "-c", _ABOUT], capture_output=True, text=True, timeout=_ANSWER_TIME, check=True)
        implementation, version, short, executable = json.loads(answer.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return Interpreter(Path(path).name, path, reason=f"does not run: {error}")
    if implementation != "CPython" or tuple(short) < _OLDEST:
        return Interpreter(version, path, reason=f"{implementation} {version} is not supported")
    return Interpreter(version, executable)


def make_environment(interpreter: Interpreter, cache: Path) -> None:
    """Make the interpreter's environment in ``cache``, or take the one that is there for the same requirements.

    promgun is installed from this folder, editable: what is measured is the code as it stands.
    """
    if interpreter.reason:
        return
    requirements = f"{ROOT} {interpreter.path}".encode() + (ROOT / "pyproject.toml").read_bytes()
    folder = cache / f"{interpreter.version}-{hashlib.sha256(requirements).hexdigest()[:12]}"
    done = folder / "installed.json"
    python = str(folder / "bin" / "python")
    try:
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            print(f"Making an environment of Python {interpreter.version} in {folder}", flush=True)
            _run([interpreter.path, "-m", "venv", str(folder)])
            _run([python, "-m", "pip", "install", "--quiet", "-e", str(ROOT)])
            done.write_text(json.dumps(_install_extras(python)))
        interpreter.missing = json.loads(done.read_text())
        interpreter.python = python
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        interpreter.reason = f"cannot be installed: {_last_lines(error)}"


def _install_extras(python: str) -> dict[str, str]:
    """Return what went wrong, by extra: not every library can be had for the newest Python."""
    return {extra: reason for extra in _EXTRAS if (reason := _install_extra(python, extra))}


def _install_extra(python: str, extra: str) -> str:
    try:
        _run([python, "-m", "pip", "install", "--quiet", "-e", f"{ROOT}[{extra}]"])
        _run([python, "-c", f"import {extra}"])
    except subprocess.SubprocessError as error:
        return _last_lines(error)
    return ""


def _run(argv: Sequence[str]) -> None:
    subprocess.run(argv, capture_output=True, text=True, check=True)


def _last_lines(error: Exception) -> str:
    """Return the end of what a program wrote before it failed, on one line."""
    written = error.stderr or error.stdout if isinstance(error, subprocess.CalledProcessError) else None
    return "; ".join(line.strip() for line in str(written or error).strip().splitlines()[-_LAST_LINES:])
