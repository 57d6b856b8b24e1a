"""When a worker may rest: nothing waits, and nobody has touched the files of its slot."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Info

from promgun.store.board import Role
from promgun.store.run_directory import SLOTS
from tests.support.sandbox import wait_until
from tests.support.store_fixtures import Opened


def _count() -> None:
    Counter("jobs", "Done.", registry=CollectorRegistry()).inc()


def _replace(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(file.read_bytes())
    other.replace(file)


def _cut(file: Path) -> None:
    os.truncate(file, 4096)


@pytest.mark.parametrize("harm", [Path.unlink, _replace, _cut], ids=["removed", "replaced", "cut"])
@pytest.mark.parametrize("pattern", ["*.counter", "[0-9]"], ids=["value file", "slot"])
def test_a_touched_file_ends_the_rest_until_it_is_healed(
    place: Opened, tmp_path: Path, pattern: str, harm: Callable[[Path], None]
) -> None:
    _count()
    assert not place.store.is_at_rest()
    wait_until(place.store.is_at_rest)
    (file,) = next(tmp_path.rglob(SLOTS)).glob(pattern)
    harm(file)
    assert not place.store.is_at_rest()
    place.retry()
    wait_until(place.store.is_at_rest)
    _count()


def test_what_another_process_left_ends_the_rest(place: Opened, tmp_path: Path) -> None:
    _count()
    wait_until(place.store.is_at_rest)
    assert place.store.directory is not None
    place.store.directory.wake_upkeep()
    assert not place.store.is_at_rest()
    wait_until(place.store.is_at_rest)
    (next(tmp_path.rglob(SLOTS)) / "900.counter").touch()
    assert not place.store.is_at_rest()


def test_only_gauges_with_a_function_are_asked_at_rest(place: Opened) -> None:
    place.store.own_slot(Role.WORKER)
    registry = CollectorRegistry()
    Info("build", "Kept.", registry=registry).info({"version": "1"})
    gauge = Gauge("depth", "Kept.", registry=registry)
    place.store.app.tick()
    assert place.store.app.is_stored()
    assert not place.store.app.asks_functions()
    gauge.set_function(lambda: 1.0)
    place.store.app.watch(gauge)
    assert place.store.app.asks_functions()
