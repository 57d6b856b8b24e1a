"""An application that loads in the process that first looks at it, and fails in its workers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def create_app() -> Callable[..., object]:
    """Fail, as a factory does that finds no database."""
    raise RuntimeError(f"no database in process {os.getpid()}")
