"""What a wheel holds, and that the version is told once."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import promgun

ROOT = Path(__file__).parents[2]


@pytest.mark.unmeasured("it starts many interpreters, and measuring doubles what each costs")
def test_the_wheel(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert finished.returncode == 0, finished.stderr
    (wheel,) = tmp_path.glob("promgun-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    data = f"promgun-{promgun.__version__}.data/data/share"
    assert f"{data}/bash-completion/completions/promgun" in names
    assert f"{data}/zsh/site-functions/_promgun" in names
    assert f"{data}/fish/vendor_completions.d/promgun.fish" in names
    assert "promgun/py.typed" in names
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / "promgun").rglob("*.py")} <= set(names)
    assert not [name for name in names if name.startswith(("tests/", "docs/", "benchmarks/"))]


def test_the_changelog_begins_with_this_version() -> None:
    headings = [line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("## ")]
    assert headings[0].split()[1] == promgun.__version__


#: Those whose routes are known (``promgun/routes``).
FRAMEWORKS = {
    *("bottle", "django", "djangorestframework", "falcon", "fastapi", "flask", "litestar", "pyramid", "quart"),
    *("starlette", "werkzeug"),
}


def test_the_lowest_versions_are_those_that_are_tried() -> None:
    """What an installation needs has a lowest version, which ``tests/lowest.txt`` tries; so has each framework that the
    tests install.
    """
    wanted = [Requirement(text) for text in requires("promgun") or ()]
    stated = {
        each.name: Version(clause.version)
        for each in wanted
        if ("extra == 'test'" not in str(each.marker).replace('"', "'") or each.name in FRAMEWORKS)
        and each.name != "packaging"
        for clause in each.specifier
        if clause.operator == ">="
    }
    lines = (ROOT / "tests" / "lowest.txt").read_text().splitlines()
    tried = {name: Version(version) for name, version in (line.split("==") for line in lines if "==" in line)}
    assert tried == stated
