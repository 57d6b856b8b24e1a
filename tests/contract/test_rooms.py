"""The rooms of the package: which there are, which may import which, how large a module gets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.support.imports import Arrow, arrows_of, circles, modules_of

PACKAGE = Path(__file__).parents[2] / "promgun"
#: Lowest first: a room may import what stands above it here, never a room of its own line.
LEVELS = (
    ("errors", "demo"),
    ("system",),
    ("store",),
    ("metrics",),
    ("export", "routes"),
    ("collect", "config"),
    ("instances",),
    ("status",),
    ("terminal",),
    ("exposition",),
    ("endpoint",),
    ("workers", "hooks"),
    ("master",),
    ("cli",),
    ("__main__",),
)
#: Room to the rooms that it may import; the package itself, which holds the version, is for all.
MAY_IMPORT = {
    room: frozenset(lower for level in LEVELS[:height] for lower in level)
    for height, rooms in enumerate(LEVELS)
    for room in rooms
}
#: Lines of a module; most have 40 to 250.
CEILING = 300
MODULES = modules_of(PACKAGE)


def room_of(module: str) -> str:
    """Return the room that a module is in, empty for the package itself."""
    return [*module.split("."), ""][1]


def forbidden(arrows: list[Arrow]) -> list[str]:
    """Return the arrows that run upwards or sideways, as text."""
    judged = [(arrow, room_of(arrow.source), room_of(arrow.target)) for arrow in arrows]
    return [
        f"{arrow}: {source} may not import {target}"
        for arrow, source, target in judged
        # The package's own names are those of its worker classes, loaded when one is asked for.
        if source and target and source != target and target not in MAY_IMPORT.get(source, ())
    ]


def test_top_level_has_the_rooms_and_the_public_names_alone() -> None:
    entries = {path.stem for path in PACKAGE.iterdir() if path.name not in {"__pycache__", "py.typed"}}
    assert entries - {"__init__"} == MAY_IMPORT.keys()
    assert (PACKAGE / "py.typed").is_file()
    assert len(entries) <= 22


def test_a_room_imports_lower_rooms_alone() -> None:
    assert forbidden(arrows_of(MODULES)) == []


def test_package_itself_imports_nothing_and_names_workers_alone() -> None:
    arrows = [arrow for arrow in arrows_of(MODULES) if not room_of(arrow.source)]
    assert arrows
    assert all(arrow.by_name and room_of(arrow.target) == "workers" for arrow in arrows), list(map(str, arrows))


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles(arrows_of(MODULES)) == []


def test_no_module_is_longer_than_one_can_keep_in_mind() -> None:
    lengths = {name: path.read_text().count("\n") for name, path in MODULES.items()}
    assert {name: lines for name, lines in lengths.items() if lines > CEILING} == {}


# -- the rules find what they forbid ----------------------------------------------------------------------------------


def package_of(folder: Path, sources: Mapping[str, str]) -> list[Arrow]:
    """Write a package and return its arrows."""
    for name, text in sources.items():
        path = folder / "promgun" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return arrows_of(modules_of(folder / "promgun"))


def test_each_way_to_import_is_seen(tmp_path: Path) -> None:
    sources = {
        "__init__.py": "__version__ = '1'\n",
        "cli/__init__.py": "",
        "cli/run.py": "",
        "store/__init__.py": "",
        "store/module.py": "import promgun.cli.run\n",
        "store/name.py": "from promgun.cli.run import go\n",
        "store/member.py": "from promgun.cli import run\n",
        "store/relative.py": "from ..cli import run\n",
        "store/inside.py": "def late():\n    from promgun.cli import run\n",
        "store/types.py": "if TYPE_CHECKING:\n    from promgun.cli import run\n",
        "store/string.py": "TABLE = {'run': 'promgun.cli.run:go'}\n",
        "store/fine.py": "'promgun.cli.run in a sentence'\nfrom promgun import __version__\nimport promgun.errors\n",
        "errors.py": "",
    }
    found = forbidden(package_of(tmp_path, sources))
    ways = ["inside", "member", "module", "name", "relative", "string", "types"]
    assert [text.partition(" -> ")[0] for text in found] == [f"promgun.store.{way}" for way in ways]
    assert found[0] == "promgun.store.inside -> promgun.cli.run: store may not import cli"


def test_sideways_is_forbidden_and_an_unknown_room_imports_nothing(tmp_path: Path) -> None:
    sources = {
        "collect/page.py": "import promgun.config.listeners\n",
        "config/listeners.py": "import promgun.store.reader\n",
        "store/reader.py": "",
        "attic/old.py": "import promgun.store.reader\n",
    }
    assert forbidden(package_of(tmp_path, sources)) == [
        "promgun.attic.old -> promgun.store.reader: attic may not import store",
        "promgun.collect.page -> promgun.config.listeners: collect may not import config",
    ]


def test_circles_are_found_with_types_and_without_names(tmp_path: Path) -> None:
    sources = {
        "cli/a.py": "from promgun.cli.b import B\n",
        "cli/b.py": "from promgun.cli.c import C\n",
        "cli/c.py": "if TYPE_CHECKING:\n    from promgun.cli.a import A\n",
        "cli/d.py": "from promgun.cli.a import A\n",
        "cli/group.py": "COMMANDS = {'e': 'promgun.cli.e:e'}\n",
        "cli/e.py": "from promgun.cli.group import COMMANDS\n",
    }
    assert circles(package_of(tmp_path, sources)) == [["promgun.cli.a", "promgun.cli.b", "promgun.cli.c"]]
