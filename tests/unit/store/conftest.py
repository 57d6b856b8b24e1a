"""What tests of the store share: a store with values in use, and the variable that it sets, which is given back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from promgun.store import values
from tests.support.store_fixtures import VARIABLE, Opened, opened, use


@pytest.fixture(autouse=True)
def _variable() -> Iterator[None]:
    before = os.environ.get(VARIABLE)
    yield
    os.environ.pop(VARIABLE, None)
    if before is not None:
        os.environ[VARIABLE] = before


@pytest.fixture(params=["with the GIL", "free-threaded"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opened]:
    """A store whose values prometheus_client uses, with and without the lock of a free-threaded build."""
    with opened(tmp_path) as found:
        monkeypatch.setattr(values, "has_gil", lambda: request.param == "with the GIL")
        use(found.store, monkeypatch)
        yield found
