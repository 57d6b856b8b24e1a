"""The garbage collector during imports."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collection_waits() -> Iterator[None]:
    """Look for no cyclic garbage until the block ends: imports make objects by the thousand and next to none of it."""
    collected = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collected:
            gc.enable()
