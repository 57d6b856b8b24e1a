"""``python -m tests``: style, types and every test.

``--lowest`` also tries the lowest supported versions; ``--coverage`` also shows which modules the tests cover least.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import venv
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from tests.support.measuring import place_for_data, summary

ROOT = Path(__file__).parent.parent
LOWEST = ROOT / ".venv-lowest"
CONSTRAINTS = ROOT / "tests" / "lowest.txt"
#: More at a time than there are processors: the tests wait for processes more than they compute.
PYTEST = ("-m", "pytest", "-q", "-n", "4")
#: What a master, a store and a page do differs by the version of a library, not by the worker's type.
OF_ONE_TYPE = "test_exits or test_lifecycle or test_app_metrics or test_upgrade"
SEAMS = ("-m", "seam", "-k", f"not (({OF_ONE_TYPE}) and (gthread or eventlet or gevent))")


@dataclass(frozen=True, slots=True)
class Step:
    """One command of the run."""

    name: str
    command: tuple[str, ...]
    measured: bool = False


def steps(arguments: argparse.Namespace) -> list[Step]:
    """Return what to run, quick checks first, so that a slip is told early."""
    python = sys.executable
    plan = [
        Step("ruff check", (python, "-m", "ruff", "check", ".")),
        Step("ruff format", (python, "-m", "ruff", "format", "--check", ".")),
        Step("mypy", (python, "-m", "mypy")),
        # The tests start hundreds of interpreters, which would compile it all each time with PYTHONDONTWRITEBYTECODE.
        Step("compile", (python, "-m", "compileall", "-q", "promgun", "tests")),
    ]
    if arguments.coverage:
        measured = (python, "-m", "coverage", "run", *PYTEST, "-m", "not unmeasured")
        plan += [
            Step("tests, measured", measured, measured=True),
            Step("tests that are not measured", (python, *PYTEST, "-m", "unmeasured")),
        ]
    else:
        plan.append(Step("tests", (python, *PYTEST)))
    if arguments.lowest:
        lowest = str(LOWEST / "bin" / "python")
        install = ("-m", "pip", "install", "-q", "-c", str(CONSTRAINTS), "-e", f"{ROOT}[test]")
        plan += [
            Step("install the lowest versions", (lowest, *install)),
            Step("tests of the seams on the lowest versions", (lowest, *PYTEST, *SEAMS)),
        ]
    return plan


def run(step: Step, measuring: Mapping[str, str]) -> tuple[int, float]:
    """Run a step with its output shown; return exit code and seconds."""
    print(f"\n=== {step.name}", flush=True)
    start = time.monotonic()
    environment = measuring if step.measured else os.environ
    code = subprocess.run(step.command, cwd=ROOT, env=environment, check=False).returncode
    return code, time.monotonic() - start


def main() -> int:
    """Run every step, also after one that failed; return 1 if any did."""
    parser = argparse.ArgumentParser(prog="python -m tests", description=__doc__)
    parser.add_argument("--lowest", action="store_true", help=f"also try the versions of {CONSTRAINTS.name}")
    parser.add_argument("--coverage", action="store_true", help="measure what the tests run, in every process")
    arguments = parser.parse_args()
    if arguments.lowest:
        venv.create(LOWEST, with_pip=True)
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
