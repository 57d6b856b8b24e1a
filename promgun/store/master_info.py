"""The facts of a master besides its board: a small JSON file in the store, one a master."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from promgun.store.run_directory import MASTER, RunDirectory
from promgun.system.atomic_file import replace_in_folder
from promgun.system.safe_open import opened_folder, read_regular

_LIMIT = 1 << 18
_MODE = 0o640


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class MasterFacts:
    """The facts of one master.

    ``slot`` is its number among masters, ``started`` is Unix seconds, addresses are as Gunicorn and promgun print them.
    ``max_label_sets`` is 0 where the file does not say it. ``exclude_routes`` (globs), ``group_status`` and ``labels``
    (``NAME=VALUE``) say how our series are shown.
    """

    slot: int
    pid: int
    started: float
    name: str
    application: str
    worker_type: str
    gunicorn: str
    promgun: str
    addresses: tuple[str, ...] = ()
    metrics_addresses: tuple[str, ...] = ()
    python: str = platform.python_version()
    max_label_sets: int = 0
    exclude_routes: tuple[str, ...] = ()
    group_status: bool = False
    labels: tuple[str, ...] = ()


def write_facts(run: RunDirectory, facts: MasterFacts) -> Path:
    """Write or replace the facts of a master; return the file. Raises ``OSError``."""
    gid = run.owner.gid
    owner = (-1, gid) if gid is not None and os.geteuid() == 0 else None
    name = f"m{facts.slot}.json"
    folder_fd = run.open_master()
    try:
        replace_in_folder(folder_fd, name, json.dumps(asdict(facts)).encode(), mode=_MODE, owner=owner)
    finally:
        os.close(folder_fd)
    return run.master / name


def read_facts(run: Path) -> Iterator[MasterFacts]:
    """Yield the readable facts of every master that ever ran on the store."""
    with suppress(OSError), opened_folder(run / MASTER) as directory_fd:
        for name in sorted(os.listdir(directory_fd)):
            if name.startswith("m") and name.endswith(".json"):
                facts = _parse(read_regular(directory_fd, name, _LIMIT) or b"")
                if facts is not None:
                    yield facts


def _parse(data: bytes) -> MasterFacts | None:
    try:
        raw: dict[str, Any] = json.loads(data)
        known: dict[str, Any] = {key: _frozen(value) for key, value in raw.items() if key in _CHECKS}
        facts = MasterFacts(**known)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    return facts if all(check(getattr(facts, name)) for name, check in _CHECKS.items()) else None


def _frozen(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _is_text(value: object) -> bool:
    # JSON can express halves of surrogate pairs; a page in UTF-8 cannot.
    return isinstance(value, str) and value == value.encode("utf-8", "replace").decode()


def _are_texts(value: object) -> bool:
    return isinstance(value, tuple) and all(map(_is_text, value))


#: By annotation: a check of each value, because the page shows them and a number in place of a text would break it.
_KINDS: dict[str, Callable[[object], bool]] = {
    "int": lambda value: isinstance(value, int),
    "bool": lambda value: isinstance(value, bool),
    "float": lambda value: isinstance(value, (int, float)),
    "str": _is_text,
    "tuple[str, ...]": _are_texts,
}
_CHECKS = {field.name: _KINDS[str(field.type)] for field in fields(MasterFacts)}
