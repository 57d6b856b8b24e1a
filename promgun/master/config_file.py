"""Executes a user's configuration file."""

from __future__ import annotations

import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from gunicorn import util

from promgun.errors import ConfigurationError
from promgun.master.load_errors import own_traceback
from promgun.system.secrets import mask_passwords

_MODULE = "__config__"


def execute(filename: str) -> dict[str, Any]:
    """Execute a file as the module ``__config__`` (Gunicorn's name for it) and return what it defines.

    It is compiled anew each time. The import system's bytecode cache compares size and modification time in seconds, so
    a change from 50 to 60 within the same second would go unnoticed.

    Raises :class:`ConfigurationError`; where the file itself fails, its own traceback has been printed before.
    """
    try:
        source = Path(filename).read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"Configuration file {filename} cannot be read: {error.strerror}", "Check the path given with --config"
        ) from error
    if not filename.endswith(".py"):
        util.warn("configuration file should have a valid Python extension.\n")
    loader = SourceFileLoader(_MODULE, filename)
    spec = spec_from_file_location(_MODULE, filename, loader=loader)
    assert spec is not None  # noqa: S101 - never None when a loader is passed
    module = sys.modules[_MODULE] = module_from_spec(spec)
    try:
        exec(loader.source_to_code(source, filename), vars(module))  # noqa: S102 - a program of the user's own
    except Exception as error:
        # Its lines are source code, such as the one that sets push_gateway.
        lines = map(mask_passwords, own_traceback(error).splitlines())
        print(*lines, sep="\n", file=sys.stderr, flush=True)  # noqa: T201 - on standard error, as Gunicorn does
        raise ConfigurationError(f"Configuration file {filename} failed", "Its own error is above") from error
    return vars(module)
