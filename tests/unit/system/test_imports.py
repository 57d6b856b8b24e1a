"""The garbage collector during imports."""

from __future__ import annotations

import gc

import pytest

from promgun.system.imports import collection_waits


def fail_to_import() -> None:
    with collection_waits():
        assert not gc.isenabled()
        with collection_waits():
            pass
        assert not gc.isenabled()
        raise ImportError


@pytest.mark.parametrize("collected", [True, False])
def test_the_collector_is_as_it_was_when_the_block_ends(*, collected: bool) -> None:
    if not collected:
        gc.disable()
    try:
        with pytest.raises(ImportError):
            fail_to_import()
        assert gc.isenabled() is collected
    finally:
        gc.enable()
