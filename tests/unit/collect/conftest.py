"""What tests of the page share: the store of a worker, and what counts its requests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from promgun.metrics.counters import Counters
from promgun.metrics.defaults import DURATION_BUCKETS, SIZE_BUCKETS
from promgun.metrics.recorder import Recorder
from tests.support.store_fixtures import Opened, worker


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Opened]:
    """The store of a worker in slot 1, which this process is."""
    with worker(tmp_path) as found:
        yield found


@pytest.fixture
def heirs() -> Iterator[contextlib.ExitStack]:
    """What is opened in the middle of a test."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def recorder(place: Opened) -> Recorder:
    return Recorder(place.store, Counters(place.store, 1000), DURATION_BUCKETS, SIZE_BUCKETS)
