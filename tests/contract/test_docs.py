"""The documentation says what the program does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MARKDOWN = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_reference_pages_are_what_the_code_says() -> None:
    # In an interpreter of its own: what other tests did to Click or the environment is not the program's doing.
    command = [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{target} in {page.name}"


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        assert page.relative_to(ROOT / "docs").as_posix() in navigation


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert finished.returncode == 0, finished.stderr


def test_metric_names_in_the_documentation_exist() -> None:
    from promgun.metrics.catalog import CATALOG  # noqa: PLC0415 - after the site was built

    known = {spec.name for spec in CATALOG}
    known |= {f"{spec.name}{suffix}" for spec in CATALOG for suffix in ("_bucket", "_count", "_sum")}
    for page in MARKDOWN:
        if page.name in {"migrating.md", "README.md"}:
            # These name the metrics of another exporter as well.
            continue
        for name in re.findall(
            r"\b(?:gunicorn|promgun)_[a-z_]+_(?:total|seconds|bytes|info|left|connections)\b", page.read_text()
        ):
            assert name in known, f"{name} in {page.name}"
