"""Lists that somebody else made: what is read of them, what is believed, and that nothing of theirs is touched."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from promgun.errors import InstanceError
from promgun.instances import entries, registry
from promgun.instances.entries import parse_entry
from promgun.instances.registry import find, live_runs, process_identity, register, withdraw
from promgun.instances.runtime_directory import open_list
from promgun.system.safe_open import read_regular
from tests.unit.instances.test_registry import a_run

DEAD = "another-boot/pid:[1] 77"
UID = 12345


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A list with one entry of a live process: of this one."""
    place = tmp_path / "runtime"
    monkeypatch.setenv("PROMGUN_RUNTIME_DIR", str(place))
    register(a_run())
    return place


def good() -> dict[str, Any]:
    return {
        "name": "shop",
        "pid": os.getpid(),
        "started": 1000.0,
        "application": "shop:app",
        "worker_type": "sync",
        "addresses": ["http://127.0.0.1:8000"],
        "metrics_addresses": [],
        "store": "/run/promgun-1",
        "process": process_identity(os.getpid()),
    }


def test_an_entry_of_a_later_version_is_read() -> None:
    found = parse_entry(json.dumps(good() | {"colour": "green"}).encode())
    assert found is not None
    assert found.run.name == "shop"


FORGED: dict[str, Any] = {
    "no number for a pid": {"pid": "1"},
    "a truth for a pid": {"pid": True},
    "half a pid": {"pid": 1.5},
    "a pid below 1": {"pid": 0},
    "a pid that cannot be": {"pid": 10**400},
    "a text for a time": {"started": "now"},
    "a time that JSON does not know": {"started": float("nan")},
    "a time without end": {"started": float("inf")},
    "a time of 401 digits": {"started": 10**400},
    "a number for a name": {"name": 5},
    "a name that is not allowed": {"name": "shop\x1b[2J"},
    "no name": {"name": ""},
    "a list for an application": {"application": ["shop:app"]},
    "addresses that are no list": {"addresses": "http://127.0.0.1:8000"},
    "addresses that are no text": {"addresses": [1]},
    "addresses by name": {"metrics_addresses": {"a": 1}},
    "a store with NUL": {"store": "/run/\0"},
    "a store from somewhere": {"store": "promgun-1"},
    "half a character": {"application": "\ud800"},
    "no process": {"process": ""},
    "a number for a process": {"process": 5},
}


@pytest.mark.parametrize("changes", FORGED.values(), ids=FORGED)
def test_forged_entry_is_none(changes: dict[str, Any]) -> None:
    assert parse_entry(json.dumps(good()).encode()) is not None
    assert parse_entry(json.dumps(good() | changes).encode()) is None


@pytest.mark.parametrize("field", good())
def test_entry_without_a_field_is_none(field: str) -> None:
    assert parse_entry(json.dumps({name: value for name, value in good().items() if name != field}).encode()) is None


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff", b"[" * 60_000, b'{"a":' * 10_000, b"1" * 60_000, b"null", b'"a"', b'{"started": 1e400}', b"\0" * 9],
    ids=["nothing", "bytes", "lists", "objects", "number", "null", "text", "infinite", "NUL"],
)
def test_what_is_no_entry(data: bytes) -> None:
    assert parse_entry(data) is None


def test_an_infinite_time_is_none() -> None:
    text = json.dumps(good()).replace("1000.0", "1e400")
    assert "1e400" in text
    assert parse_entry(text.encode()) is None


def test_a_dead_pid_without_a_process_is_not_alive(runtime: Path) -> None:
    pid = 4_194_304
    (runtime / f"{pid}.json").write_text(json.dumps(good() | {"pid": pid, "process": ""}))
    assert [run.pid for run in live_runs()] == [os.getpid()]


def test_one_process_is_one_entry(runtime: Path) -> None:
    for pid in range(2, 9):
        (runtime / f"{pid}.json").write_text(json.dumps(good()))
    assert len(live_runs()) == 1


def test_a_large_list_is_read_in_part(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "LIST_LIMIT", 100_000)
    for pid in range(100, 200):
        (runtime / f"{pid}.json").write_text(" " * 5_000)
    asked: list[int] = []

    def counting(fd: int, name: str, limit: int) -> bytes | None:
        data = read_regular(fd, name, limit)
        asked.append(len(data or b""))
        return data

    monkeypatch.setattr(entries, "read_regular", counting)
    live_runs()
    assert sum(asked) <= 100_000


def test_many_names_are_not_all_looked_at(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "MOST_NAMES", 10)
    for pid in range(100, 200):
        (runtime / f"{pid}.json").touch()
    seen: list[str] = []
    monkeypatch.setattr(entries, "read_regular", lambda _fd, name, _limit: seen.append(name))
    live_runs()
    assert 1 <= len(seen) <= 10


def test_an_entry_that_cannot_be_removed_is_passed_over(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a /run that is mounted read-only."""
    (runtime / "1.json").write_text(json.dumps(good() | {"pid": 1, "process": DEAD}))

    def refuse(name: str, **_where: int) -> None:
        raise OSError(30, "Read-only file system", name)

    monkeypatch.setattr(os, "unlink", refuse)
    assert [run.name for run in live_runs()] == ["shop"]
    monkeypatch.undo()
    assert (runtime / "1.json").exists()


def swap(runtime: Path, other: Path) -> None:
    runtime.rename(runtime.with_name("moved"))
    runtime.symlink_to(other)


def test_a_folder_that_is_swapped_takes_nothing_elsewhere_with_it(runtime: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for place in (runtime, other):
        (place / "1.json").write_text(json.dumps(good() | {"pid": 1, "process": DEAD}))
    with open_list(runtime) as directory:
        swap(runtime, other)
        assert [run.name for run in registry._live_entries(directory)] == ["shop"]
    assert not (tmp_path / "moved" / "1.json").exists(), "it was looked at"
    assert (other / "1.json").exists()


def test_withdrawing_follows_no_link(runtime: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    name = f"{os.getpid()}.json"
    shutil.copytree(runtime, other)
    swap(runtime, other)
    with pytest.raises(NotADirectoryError):
        withdraw(runtime / name)
    assert (other / name).exists()


def test_the_lock_is_no_link(runtime: Path, tmp_path: Path) -> None:
    (runtime / "lock").unlink()
    (runtime / "lock").symlink_to(tmp_path / "made")
    with pytest.raises(OSError, match="symbolic links"):
        register(a_run())
    assert not (tmp_path / "made").exists()


@pytest.mark.needs_root("give a directory away")
def test_a_list_of_another_user_is_never_cleaned_up(runtime: Path) -> None:
    (runtime / "1.json").write_text(json.dumps(good() | {"pid": 1, "process": DEAD}))
    os.chown(runtime, UID, -1)
    assert [run.name for run in live_runs()] == ["shop"]
    assert (runtime / "1.json").exists()
    os.chown(runtime, os.geteuid(), -1)
    live_runs()
    assert not (runtime / "1.json").exists(), "that it is this user's own makes the difference"


# -- a place that somebody else made before --------------------------------------------------------------------------


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place for the list: below the folder for temporary files, made by nobody yet."""
    monkeypatch.delenv("PROMGUN_RUNTIME_DIR", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    place = tmp_path / f"promgun-{os.geteuid()}"
    monkeypatch.setattr("promgun.instances.runtime_directory.candidates", lambda _environ: [place])
    return place


def of_another(place: Path) -> None:
    place.mkdir(mode=0o700)
    os.chown(place, UID, -1)


def open_to_all(place: Path) -> None:
    place.mkdir()
    place.chmod(0o777)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        pytest.param(of_another, f"it belongs to uid {UID}", marks=pytest.mark.needs_root("give a directory away")),
        (open_to_all, "others may write to it"),
        (Path.touch, "Not a directory"),
        (lambda place: place.symlink_to("/"), "Not a directory"),
    ],
    ids=["another user's", "open to all", "a file", "a link"],
)
def test_why_no_list_is_known(temporary: Path, make: Callable[[Path], None], reason: str) -> None:
    make(temporary)
    with pytest.raises(InstanceError, match="no running promgun instance is known") as caught:
        find(None)
    assert f"{temporary}: {reason}" in str(caught.value)
    assert "Set PROMGUN_RUNTIME_DIR to a directory of your own" in str(caught.value)


def test_a_place_that_is_not_there_is_no_reason(temporary: Path) -> None:
    with pytest.raises(InstanceError, match=r"^no running promgun instance\."):
        find(None)
    assert not temporary.exists()
