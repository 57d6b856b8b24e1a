"""Every process is measured, and the summary says which module is covered least."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.measuring import SHOWN, place_for_data, summary, told

ROOT = Path(__file__).parents[2]
#: Imports a module, ends by ``os._exit`` in a forked child that imports another, and starts an interpreter for a third.
PROCESSES = """
import os, subprocess, sys
import promgun.errors
if os.fork() == 0:
    import promgun.store.format
    os._exit(0)
os.wait()
subprocess.run([sys.executable, "-c", "import promgun.store.board"], check=True, cwd="/")
"""


def test_total_and_lowest_are_told() -> None:
    files = {f"promgun/m{number}.py": {"summary": {"percent_covered": 100.0 - number}} for number in range(20)}
    lines = told({"files": files, "totals": {"percent_covered": 93.25}}).splitlines()
    assert lines[0] == " 93.2 %  lines and branches of all 20 modules"
    assert lines[1] == " 81.0 %  promgun/m19.py"
    assert len(lines) == 1 + SHOWN


@pytest.mark.unmeasured("it measures by itself")
def test_children_and_other_interpreters_are_measured(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROCESSES)
    with place_for_data() as environment:
        measured = {**environment, "COVERAGE_RCFILE": str(ROOT / "pyproject.toml")}
        subprocess.run([sys.executable, "-m", "coverage", "run", str(program)], env=measured, cwd=ROOT, check=True)
        folder = Path(environment["COVERAGE_FILE"]).parent
        assert len([*folder.iterdir()]) == 3
        text = summary(ROOT, measured)
        report = (folder / "report.json").read_text()
    assert "lines and branches of all" in text
    for name in ("errors", "store/format", "store/board"):
        assert f"promgun/{name}.py" in report
    assert not folder.exists()
