"""What every test of the store gives back: the variable that a store sets for prometheus_client."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.support.store_fixtures import VARIABLE


@pytest.fixture(autouse=True)
def _variable() -> Iterator[None]:
    before = os.environ.get(VARIABLE)
    yield
    os.environ.pop(VARIABLE, None)
    if before is not None:
        os.environ[VARIABLE] = before
