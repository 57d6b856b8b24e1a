"""Root's ``promgun ps`` over the list of a hostile user: it ends, in bounded memory, and says what is true."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.harness import Sandbox

pytestmark = pytest.mark.needs_root("read the list of another user")

UID = 12345
MEMORY = 1 << 30


def endless(place: Path) -> None:
    (place / "2.json").symlink_to("/dev/zero")


def pipe(place: Path) -> None:
    os.mkfifo(place / "2.json")


def large(place: Path) -> None:
    with (place / "2.json").open("wb") as file:
        file.truncate(1 << 40)


def nested(place: Path) -> None:
    (place / "2.json").write_text("[" * 60_000)


def folder(place: Path) -> None:
    (place / "2.json").mkdir()


def forged(**changes: Any) -> Callable[[Path], None]:
    """Return what writes an entry of a live process, pid 1, with these changes."""

    def write(place: Path) -> None:
        entry = {
            "name": "x",
            "pid": 1,
            "started": 1.0,
            "application": "a:b",
            "worker_type": "sync",
            "addresses": [],
            "metrics_addresses": [],
            "store": "/nonexistent",
            "process": process(),
        }
        (place / "1.json").write_text(json.dumps(entry | changes).replace('"HUGE"', "1e400"))

    return write


def process() -> str:
    from promgun.instances.registry import process_identity  # noqa: PLC0415 - read when it is asked for

    return process_identity(1)


HOSTILE = {
    "a pipe": pipe,
    "an endless device": endless,
    "a tebibyte": large,
    "a nest": nested,
    "a folder": folder,
    "an infinite time": forged(started="HUGE"),
    "a time as text": forged(started="yesterday"),
    "a store with NUL": forged(store="/a\0b"),
    "an application that is a list": forged(application=[1]),
    "addresses that are numbers": forged(addresses=[1]),
    "no process": forged(process="", pid=4_194_304),
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("arguments", [("ps",), ("metrics", "dump")])
def test_a_hostile_list(sandbox: Sandbox, make: Callable[[Path], None], arguments: tuple[str, ...]) -> None:
    place = sandbox.directory / "theirs"
    place.mkdir(mode=0o755)
    make(place)
    before = sorted(place.iterdir())
    for path in (place, *before):
        os.chown(path, UID, UID, follow_symlinks=False)
    kept = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, kept[1]))
    try:
        result = sandbox.run("-m", "promgun", *arguments, env={"PROMGUN_RUNTIME_DIR": str(place)}, deadline=30)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, kept)
    assert "Traceback" not in result.stderr
    assert "no running" in result.stderr, result.stderr + result.stdout
    assert sorted(place.iterdir()) == before, "nothing of theirs is removed"
