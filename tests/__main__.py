"""``python -m tests``: style, types and every test.

``--lowest`` also tries the lowest supported versions; ``--coverage`` also shows which modules the tests cover least.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
import venv
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import requires
from pathlib import Path

from tests.support.measuring import MEASURED_SERVERS, place_for_data, summary

ROOT = Path(__file__).parent.parent
LOWEST = ROOT / ".venv-lowest"
CONSTRAINTS = ROOT / "tests" / "lowest.txt"
#: What is installed for the style and the figures, and what no test of a seam imports.
TOOLS = re.compile(r"(build|coverage|mkdocs|mypy|ruff|types-\w+)\b")
#: More at a time than there are processors: these tests wait for processes more than they compute.
WAITING = ("-m", "pytest", "-q", "-n", "5")
COMPUTING = ("-m", "pytest", "-q", "-n", "3")
#: What a master, a store and a page do differs by the version of a library, not by the worker's type.
OF_ONE_TYPE = (
    "test_exits or test_lifecycle or test_app_metrics or test_upgrade or test_configuration or test_metrics_bind_reload"
)
#: Another program's requests, ab's, are counted there as well.
SEAMS = ("-m", "seam", "-k", f"not wrk and not (({OF_ONE_TYPE}) and (gthread or eventlet or gevent))")


@dataclass(frozen=True, slots=True)
class Step:
    """One command of the run."""

    name: str
    command: tuple[str, ...]
    measured: bool = False
    writes_bytecode: bool = False


def steps(arguments: argparse.Namespace) -> list[Step]:
    """Return what to run, quick checks first, so that a slip is told early."""
    python = sys.executable
    plan = [
        Step("ruff check", (python, "-m", "ruff", "check", ".")),
        Step("ruff format", (python, "-m", "ruff", "format", "--check", ".")),
        Step("mypy", (python, "-m", "mypy")),
        # The tests start hundreds of interpreters, which would compile it all each time with PYTHONDONTWRITEBYTECODE;
        # so would each of pytest's processes, which writes its own, with asserts that explain themselves.
        Step("compile", (python, "-m", "compileall", "-q", "promgun", "tests")),
        Step("collect", (python, "-m", "pytest", "--collect-only", "-qqq", "--no-summary"), writes_bytecode=True),
    ]
    if arguments.coverage:
        measured = (python, "-m", "coverage", "run", *COMPUTING, "-m", "not unmeasured")
        servers = (f"tests/process/{name}.py" for name in sorted(MEASURED_SERVERS))
        beside = ("tests/process", "tests/support", *naming("unmeasured", "tests/unit", "tests/contract"))
        plan += [
            Step("tests, measured", (*measured, "tests/unit", "tests/contract", *servers), measured=True),
            Step("tests that are not measured", (python, *WAITING, "-m", "unmeasured", *beside)),
        ]
    else:
        plan.append(Step("tests", (python, *WAITING)))
    if arguments.lowest:
        lowest = str(LOWEST / "bin" / "python")
        install = ("pip", "--python", lowest, "install", "-q", "-c", str(CONSTRAINTS), "-e", f"{ROOT}[all]")
        plan += [
            Step("install the lowest versions", (python, "-m", *install, *libraries_of_tests())),
            Step("tests of the seams on the lowest versions", (lowest, *WAITING, *SEAMS, *naming("seam", "tests"))),
        ]
    return plan


def naming(marker: str, *folders: str) -> tuple[str, ...]:
    """Return the files that may hold tests with a marker: pytest imports all that it is given, in each process."""
    files = (path for folder in folders for path in sorted((ROOT / folder).rglob("test_*.py")))
    return tuple(str(path.relative_to(ROOT)) for path in files if f"mark.{marker}" in path.read_text())


def libraries_of_tests() -> list[str]:
    """Return what the tests themselves import, as pip's requirements: the extra ``test`` without promgun and tools."""
    named = [text.partition(";") for text in requires("promgun") or []]
    return [name.strip() for name, _, when in named if re.search("extra == .test", when) and not TOOLS.match(name)]


def run(step: Step, measuring: Mapping[str, str]) -> tuple[int, float]:
    """Run a step with its output shown; return exit code and seconds."""
    print(f"\n=== {step.name}", flush=True)
    start = time.monotonic()
    environment = dict(measuring if step.measured else os.environ)
    if step.writes_bytecode:
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
    code = subprocess.run(step.command, cwd=ROOT, env=environment, check=False).returncode
    return code, time.monotonic() - start


def main() -> int:
    """Run every step, also after one that failed; return 1 if any did."""
    parser = argparse.ArgumentParser(prog="python -m tests", description=__doc__)
    parser.add_argument("--lowest", action="store_true", help=f"also try the versions of {CONSTRAINTS.name}")
    parser.add_argument("--coverage", action="store_true", help="measure what the tests run, in every process")
    arguments = parser.parse_args()
    if arguments.lowest:
        venv.create(LOWEST)
    with place_for_data() if arguments.coverage else nullcontext(dict(os.environ)) as measuring:
        results = [(step, *run(step, measuring)) for step in steps(arguments)]
        if arguments.coverage:
            print(f"\n=== coverage\n{summary(ROOT, measuring)}")
    print("\n=== summary")
    for step, code, seconds in results:
        print(f"{'FAILED' if code else 'ok':7}{seconds:7.1f} s  {step.name}")
    return int(any(code for _, code, _ in results))


if __name__ == "__main__":
    sys.exit(main())
