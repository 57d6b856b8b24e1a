"""What a master says of itself, and what a reader believes of it."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from promgun.store.master_info import MasterFacts, read_facts, write_facts
from promgun.store.new_file import Owner
from promgun.store.run_directory import RunDirectory
from tests.support.store_fixtures import OBSTACLES, open_directory

FACTS = MasterFacts(
    slot=0,
    pid=4711,
    started=1000.5,
    name="shop",
    application="shop:app",
    worker_type="sync",
    gunicorn="27.0.1",
    promgun="0.1.0",
    addresses=("http://127.0.0.1:8000", "unix:/run/shop.sock"),
    metrics_addresses=("http://127.0.0.1:9164/metrics",),
    max_label_sets=50,
)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunDirectory]:
    directory = open_directory(tmp_path)
    yield directory
    directory.close()


def test_facts_are_read_back_as_they_were(run: RunDirectory) -> None:
    write_facts(run, FACTS)
    assert list(read_facts(run.path)) == [FACTS]
    assert os.listdir(run.master) == ["m0.json"]


def test_new_facts_of_a_master_replace_the_old(run: RunDirectory) -> None:
    for name in ("shop", "market"):
        write_facts(run, replace(FACTS, name=name))
    assert [facts.name for facts in read_facts(run.path)] == ["market"]


def test_each_master_has_facts_of_its_own(run: RunDirectory) -> None:
    both = [FACTS, replace(FACTS, slot=3, pid=4712)]
    for facts in both:
        write_facts(run, facts)
    assert list(read_facts(run.path)) == both


def test_a_store_that_is_gone_has_no_facts(tmp_path: Path) -> None:
    assert list(read_facts(tmp_path / "gone")) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"{}",
        b"[" * 60_000,
        b"\xff\xfe",
        bytes(5000),
        b" " * (1 << 17),
    ],
)
def test_what_is_no_facts_is_passed_by(run: RunDirectory, content: bytes) -> None:
    (run.master / "m1.json").write_bytes(content)
    write_facts(run, FACTS)
    assert list(read_facts(run.path)) == [FACTS]


@pytest.mark.parametrize(
    "change",
    [
        {"gunicorn": 27},
        {"slot": "0"},
        {"slot": {}},
        {"pid": None},
        {"started": "yesterday"},
        {"addresses": "http://127.0.0.1"},
        {"addresses": [1, 2]},
        {"name": "\ud800"},
        {"max_label_sets": [1]},
        {"application": ["shop:app"]},
    ],
)
def test_facts_of_other_types_are_passed_by(run: RunDirectory, change: dict[str, Any]) -> None:
    """A page is made of them: a number for a text would be the end of it."""
    (run.master / "m1.json").write_text(json.dumps(asdict(FACTS) | change))
    assert list(read_facts(run.path)) == []


def test_facts_of_another_version_are_believed_as_far_as_they_are_known(run: RunDirectory) -> None:
    (run.master / "m0.json").write_text(json.dumps(asdict(FACTS) | {"invented_later": {"a": 1}}))
    assert list(read_facts(run.path)) == [FACTS]


@pytest.mark.parametrize("kind", OBSTACLES)
def test_what_is_no_file_is_passed_by(run: RunDirectory, kind: str) -> None:
    OBSTACLES[kind](run.master / "m0.json")
    assert list(read_facts(run.path)) == []


def test_without_space_nothing_is_left_behind(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    write_facts(run, FACTS)

    def full(descriptor: int, _mode: int) -> None:
        os.ftruncate(descriptor, 20)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fchmod", full)
    with pytest.raises(OSError, match="No space"):
        write_facts(run, replace(FACTS, name="market"))
    assert list(read_facts(run.path)) == [FACTS]
    assert os.listdir(run.master) == ["m0.json"]


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_the_workers_group_may_read_the_facts(run: RunDirectory, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_facts(run, FACTS)
    finally:
        os.umask(before)
    assert stat.S_IMODE((run.master / "m0.json").stat().st_mode) == 0o640


@pytest.mark.needs_root("give files to another user")
def test_facts_are_the_master_s_and_the_workers_group_s(tmp_path: Path) -> None:
    run = open_directory(tmp_path, Owner(65534, 65534))
    write_facts(run, FACTS)
    status = (run.master / "m0.json").stat()
    assert (status.st_uid, status.st_gid) == (0, 65534)
    run.close()


@pytest.mark.needs_root("give files to another user")
def test_facts_are_written_into_the_run_and_not_where_its_path_leads_by_now(tmp_path: Path) -> None:
    """The folder that the user named may be the workers' own: they can put another directory in the run's place."""
    path, victim = tmp_path / "run", tmp_path / "victim"
    (victim / "master").mkdir(parents=True)
    run = open_directory(path)
    path.rename(tmp_path / "moved")
    path.symlink_to(victim)
    write_facts(run, FACTS)
    assert os.listdir(victim / "master") == []
    assert list(read_facts(tmp_path / "moved")) == [FACTS]
    run.close()
