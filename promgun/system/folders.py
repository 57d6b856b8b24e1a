"""Where files may go that live as long as the server: shared memory, and the folder for temporary files."""

from __future__ import annotations

import tempfile
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - shared memory is the point; what is made in it is private


def temporary_folder() -> Path:
    """The folder for temporary files; shared memory where there is none, as on a read-only root file system."""
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        return SHARED_MEMORY
