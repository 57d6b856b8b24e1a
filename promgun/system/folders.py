"""Folders for files that live as long as the server: shared memory, and the folder for temporary files."""

from __future__ import annotations

import tempfile
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - shared memory is wanted here; directories made in it are private


def temporary_folder() -> Path:
    """Return the folder for temporary files, or shared memory if there is none, as on a read-only root file system."""
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        return SHARED_MEMORY
