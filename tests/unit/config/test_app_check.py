"""Whether an application can be there, judged from the source."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from promgun.config.app_check import AppReference, check_application
from promgun.errors import AppLoadError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Give a folder with modules of every kind."""
    sources = {
        "plain": "def wsgi(e, s): ...\napplication = wsgi\nclass App: ...\nif True:\n    inner = 1\n",
        "star": "from plain import *\n",
        "lazy": "def __getattr__(name): ...\nx = 1\n",
        "dynamic": "globals()['app'] = 1\nx = 1\n",
        "broken": "x = = 1\n",
        "importing": "import nothing_of_that_name\n",
        "raising": "x = 1\nraise RuntimeError\n",
        "unpacked": "a, (b, *c) = 1, (2, 3)\nfor d in (): ...\nwith open('x') as e: ...\n"
        "try: ...\nexcept OSError as f: ...\n",
    }
    for name, source in sources.items():
        (tmp_path / f"{name}.py").write_text(source)
    package = tmp_path / "pkg" / "sub"
    package.mkdir(parents=True)
    (tmp_path / "pkg" / "__init__.py").write_text("raise AssertionError('imported')\n")
    (package / "__init__.py").write_text("app = 1\n")
    (package / "web.py").write_text("app = object()\n")
    return tmp_path


@pytest.mark.parametrize(
    "app",
    [
        "plain",
        "plain:wsgi",
        "plain:App()",
        "plain:inner",
        "star:anything",
        "lazy:anything",
        "dynamic:app",
        "broken:app",
        "importing:app",
        "raising:app",
        "unpacked:c",
        "unpacked:d",
        "unpacked:e",
        "unpacked:f",
        "pkg.sub:app",
        "pkg.sub.web:app",
        "wsgiref.simple_server:demo_app",
        "math:sin",
    ],
)
def test_what_may_be_there_passes_and_nothing_is_imported(place: Path, app: str) -> None:
    before = set(sys.modules)
    check_application(app, [str(place)])
    assert not {name for name in set(sys.modules) - before if name.split(".")[0] in {"plain", "pkg", "star"}}


@pytest.mark.parametrize(
    ("app", "words"),
    [
        ("plane:wsgi", ["No module named 'plane'", "'plain:wsgi'"]),
        ("zzz:wsgi", ["No module named 'zzz'", "--chdir"]),
        ("pkg.nothing:app", ["No module named 'pkg.nothing'"]),
        ("plain:wsg", ["no attribute 'wsg'", "'plain:wsgi'", "wsgi, App"]),
        ("plain:app", ["no attribute 'app'"]),
        ("plain:1+", ["neither a name nor a call"]),
        ("plain.py", ["is a file name", "e.g. plain:app for the object app in it"]),
        ("./plain.py:wsgi", ["is a file name", "'plain:wsgi'"]),
        (":app", ["does not name an application"]),
        ("plain:", ["does not name an application"]),
    ],
)
def test_what_cannot_be_there_is_told_with_the_next_step(place: Path, app: str, words: list[str]) -> None:
    with pytest.raises(AppLoadError) as raised:
        check_application(app, [str(place)])
    assert all(word in str(raised.value) for word in words), str(raised.value)
    assert raised.value.exit_code == 4


def test_the_name_at_the_start_of_an_expression() -> None:
    assert AppReference.parse("m").name == "application"
    assert AppReference.parse("m:create('x', y=1)").name == "create"
    assert not AppReference.parse("m:a.b").name
