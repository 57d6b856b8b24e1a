"""Coverage of the package by all processes that the tests start, and what is shown of it at the end of a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

#: Tests of whole servers that are measured where coverage is shown: forked workers of every type are in them, and
#: measuring doubles what each interpreter costs, so the others, which start hundreds, run beside.
MEASURED_SERVERS = frozenset({"test_overridden_methods", "test_plain_gunicorn"})
#: How many of the least covered modules are shown.
SHOWN = 10


@contextmanager
def place_for_data() -> Iterator[dict[str, str]]:
    """Give the environment of a measured command: each process writes a file into a folder that lives as long.

    Every user may write there, since some servers under test change theirs.
    """
    with tempfile.TemporaryDirectory(prefix="coverage-") as folder:
        os.chmod(folder, 0o1777)  # noqa: S103 - as /tmp itself
        yield {**os.environ, "COVERAGE_FILE": str(Path(folder, "data"))}


def summary(root: Path, environment: Mapping[str, str]) -> str:
    """Join what the processes wrote and return the text that is shown; raises ``CalledProcessError``."""
    coverage = (sys.executable, "-m", "coverage")
    subprocess.run([*coverage, "combine", "--quiet"], cwd=root, env=environment, check=True)
    report = Path(environment["COVERAGE_FILE"]).with_name("report.json")
    subprocess.run([*coverage, "json", "--quiet", "-o", str(report)], cwd=root, env=environment, check=True)
    return told(json.loads(report.read_text()))


def told(report: Mapping[str, Any]) -> str:
    """Return the share of lines and branches that ran, in all and in the least covered modules, a line each."""
    shares = {name: float(entry["summary"]["percent_covered"]) for name, entry in report["files"].items()}
    lowest = sorted(shares, key=lambda name: (shares[name], name))[:SHOWN]
    total = f"{report['totals']['percent_covered']:5.1f} %  lines and branches of all {len(shares)} modules"
    return "\n".join([total, *(f"{shares[name]:5.1f} %  {name}" for name in lowest)])
