"""The documentation says what the program does."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner

from promgun.cli.main import main
from promgun.terminal import instances, requests
from promgun.terminal.top.table import COLUMNS

ROOT = Path(__file__).parents[2]
MARKDOWN = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
WIDTH = 120


def test_reference_pages_are_what_the_code_says() -> None:
    # In an interpreter of its own: what other tests did to Click or the environment is not the program's doing.
    command = [sys.executable, str(ROOT / "tools" / "generate_docs.py"), "--check"]
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


def prose(page: Path) -> Iterator[tuple[int, str]]:
    """Give the numbered lines of a page that are neither table, code, picture nor an indented block."""
    fenced = False
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced and not line.startswith(("|", "    ", "![")):
            yield number, line


def test_lines_of_prose_fit_a_screen() -> None:
    pages = [*MARKDOWN, ROOT / "benchmarks" / "README.md"]
    # A link cannot be broken: what stands on a line beside it counts.
    found = [
        f"{page.relative_to(ROOT)}:{number}"
        for page in pages
        for number, line in prose(page)
        if len(re.sub(r"\]\([^)]*\)", "]", line)) > WIDTH
    ]
    assert found == []
    assert len(pages) > 20


#: A file of the repository, and a class, function or method in it, as the papers for contributors name them.
STOP = re.compile(r"`((?:promgun|tests|tools|docs|benchmarks|completions)/[\w./-]*)(?::([\w.]+))?`")
PAPERS = (ROOT / "CONTRIBUTING.md", ROOT / "docs" / "explanation" / "architecture.md")


def names_in(tree: ast.AST, prefix: str = "") -> Iterator[str]:
    """Give the names that a module or class defines, those of its classes with the class in front."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + node.name
            if isinstance(node, ast.ClassDef):
                yield from names_in(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (prefix + target.id for target in targets if isinstance(target, ast.Name))


def test_files_and_functions_that_the_papers_name_exist() -> None:
    wrong, seen = [], 0
    for page in PAPERS:
        for path, name in STOP.findall(page.read_text()):
            seen += 1
            file = ROOT / path
            if not file.exists() or (name and name not in names_in(ast.parse(file.read_text()))):
                wrong.append(f"{page.name}: {path}:{name}")
    assert wrong == []
    assert seen > 50


def test_every_room_has_its_line_on_the_map() -> None:
    rows = re.findall(r"^\| (`[^|]*`) \|", PAPERS[1].read_text(), re.MULTILINE)
    mapped = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert {path.name for path in (ROOT / "promgun").iterdir() if (path / "__init__.py").exists()} <= mapped


def commands() -> Iterator[tuple[str, str]]:
    """Give every promgun command that a page tells to type, with the page's name."""
    for page in MARKDOWN:
        if page.parent.name != "reference":
            blocks = re.findall(r"```(?:sh|console)\n(.*?)```", page.read_text(), re.DOTALL)
            for line in "".join(blocks).replace("\\\n", " ").splitlines():
                for part in re.split(r"&&|\||\$\(|;", line.split(" #")[0]):
                    if match := re.search(r"(?:^|[\s/])promgun (?=[a-z])(.*)", part):
                        yield page.name, re.split(r"[>&)…]", match[1])[0].strip()


@pytest.mark.parametrize(("page", "command"), tuple(dict.fromkeys(commands())))
def test_commands_in_the_documentation_are_ones_that_the_program_takes(page: str, command: str) -> None:
    words = shlex.split(command)
    # With --help nothing is done, but every option before it must exist. What follows a lone -- is not looked at.
    result = CliRunner().invoke(main, [*words, "--help"])
    assert result.exit_code == 0, (page, result.output)
    assert result.output.startswith(f"Usage: promgun {words[0]}")


PICTURES = sorted((ROOT / "docs" / "pictures").iterdir())
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.name)
def test_every_picture_is_shown_with_a_text_for_those_who_do_not_see_it(picture: Path) -> None:
    shown = [
        text
        for page in MARKDOWN
        for text, target in re.findall(r"!\[([^]]*)\]\(([^)#\s]+)\)", page.read_text())
        if (page.parent / target).resolve() == picture
    ]
    assert shown
    assert all(len(text) > 10 for text in shown)


#: The pictures are of gthread workers, which have no loop.
WORKERS = tuple(column.heading for column in COLUMNS if column.heading != "LAG")
DRAWN = {
    "ps.svg": instances._COLUMNS,
    "requests.svg": requests._COLUMNS,
    "dump.svg": ("METRIC", "LABELS", "VALUE"),
    "top.svg": WORKERS,
    "top-once.svg": WORKERS,
}


def test_every_drawing_is_known() -> None:
    assert {picture.name for picture in PICTURES if picture.suffix == ".svg"} == set(DRAWN)


@pytest.mark.parametrize(("name", "headings"), DRAWN.items(), ids=DRAWN)
def test_drawings_need_nothing_from_elsewhere_and_show_what_the_program_prints(
    name: str, headings: tuple[str, ...]
) -> None:
    text = (ROOT / "docs" / "pictures" / name).read_text()
    tree = ET.fromstring(text)  # noqa: S314 - our own file
    references = re.findall(r"url\(([^)]*)\)|href=\"([^\"]*)\"|@import|@font-face|<script|<image", text)
    assert all(url.startswith("#") for url, _ in references), references
    assert set(re.findall(r"https?://[^\s\"<&]+", text)) <= {
        "http://www.w3.org/2000/svg",
        *re.findall(r"http://127\.0\.0\.1:\d+(?:/metrics)?", text),
    }
    words = " ".join("".join(element.itertext()) for element in tree.iter(f"{SVG}text")).replace("\xa0", " ").split()
    assert set(" ".join(headings).split()) <= set(words)
