"""What a master says of itself, and what a reader believes of it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from promgun.store.master_info import MasterFacts, read_facts, write_facts
from tests.support.store_fixtures import OBSTACLES

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


def test_facts_are_read_back_as_they_were(tmp_path: Path) -> None:
    write_facts(tmp_path, FACTS, None, None)
    assert list(read_facts(tmp_path)) == [FACTS]
    assert os.listdir(tmp_path) == ["master-slot0.json"]


def test_new_facts_of_a_master_replace_the_old(tmp_path: Path) -> None:
    for name in ("shop", "market"):
        write_facts(tmp_path, replace(FACTS, name=name), None, None)
    assert [facts.name for facts in read_facts(tmp_path)] == ["market"]


def test_each_master_has_facts_of_its_own(tmp_path: Path) -> None:
    both = [FACTS, replace(FACTS, slot=3, pid=4712)]
    for facts in both:
        write_facts(tmp_path, facts, None, None)
    assert list(read_facts(tmp_path)) == both


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
def test_what_is_no_facts_is_passed_by(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "master-slot1.json").write_bytes(content)
    write_facts(tmp_path, FACTS, None, None)
    assert list(read_facts(tmp_path)) == [FACTS]


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
def test_facts_of_other_types_are_passed_by(tmp_path: Path, change: dict[str, Any]) -> None:
    """A page is made of them: a number for a text would be the end of it."""
    (tmp_path / "master-slot1.json").write_text(json.dumps(asdict(FACTS) | change))
    assert list(read_facts(tmp_path)) == []


def test_facts_of_another_version_are_believed_as_far_as_they_are_known(tmp_path: Path) -> None:
    (tmp_path / "master-slot0.json").write_text(json.dumps(asdict(FACTS) | {"invented_later": {"a": 1}}))
    assert list(read_facts(tmp_path)) == [FACTS]


@pytest.mark.parametrize("kind", OBSTACLES)
def test_what_is_no_file_is_passed_by(tmp_path: Path, kind: str) -> None:
    OBSTACLES[kind](tmp_path / "master-slot0.json")
    assert list(read_facts(tmp_path)) == []


def test_without_space_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_facts(tmp_path, FACTS, None, None)

    def full(descriptor: int, _mode: int) -> None:
        os.ftruncate(descriptor, 20)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fchmod", full)
    with pytest.raises(OSError, match="No space"):
        write_facts(tmp_path, replace(FACTS, name="market"), None, None)
    assert list(read_facts(tmp_path)) == [FACTS]
    assert os.listdir(tmp_path) == ["master-slot0.json"]


@pytest.mark.needs_root("give files to another user")
def test_facts_belong_to_the_workers_user(tmp_path: Path) -> None:
    write_facts(tmp_path, FACTS, 65534, 65534)
    status = (tmp_path / "master-slot0.json").stat()
    assert (status.st_uid, status.st_gid) == (65534, 65534)
