"""Directories that have stayed as they were."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from promgun.store.folder_states import FolderStates

_LONG_AGO = time.time() - 60


def settled(folder: Path) -> Path:
    """Have a folder look as if it had last changed a minute ago."""
    os.utime(folder, (_LONG_AGO, _LONG_AGO))
    return folder


def test_a_name_that_comes_or_goes_is_a_change(tmp_path: Path) -> None:
    file = tmp_path / "counter_1.db"
    states = FolderStates()
    assert not states.unchanged([settled(tmp_path)])
    assert states.unchanged([tmp_path])
    for change in (file.touch, file.unlink):
        change()
        assert not states.unchanged([tmp_path])
        assert not states.unchanged([settled(tmp_path)])
        assert states.unchanged([tmp_path])


def test_a_folder_that_has_just_changed_is_looked_at_again(tmp_path: Path) -> None:
    states = FolderStates()
    states.unchanged([tmp_path])
    os.utime(tmp_path)
    assert [states.unchanged([tmp_path]) for _ in range(3)] == [False, False, False]


def test_a_change_in_the_same_tick_as_the_last_look_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It leaves the time that the change before the look had; the next look may come much later."""
    states = FolderStates()
    changed_at = tmp_path.stat().st_mtime_ns
    monkeypatch.setattr(time, "time_ns", lambda: changed_at + 1_000_000)
    states.unchanged([tmp_path])
    (tmp_path / "counter_1.db").touch()
    os.utime(tmp_path, ns=(changed_at, changed_at))
    monkeypatch.setattr(time, "time_ns", lambda: changed_at + 60_000_000_000)
    assert [states.unchanged([tmp_path]) for _ in range(2)] == [False, True]


def test_a_folder_that_is_missing_or_replaced_is_a_change(tmp_path: Path) -> None:
    folder, states = tmp_path / "client", FolderStates()
    folder.mkdir()
    states.unchanged([settled(folder)])
    folder.rename(tmp_path / "old")
    assert not states.unchanged([folder])
    assert not states.unchanged([folder])
    folder.mkdir()
    assert not states.unchanged([settled(folder)])
    assert states.unchanged([folder])
