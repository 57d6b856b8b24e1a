"""What standard output is: a terminal of some width, in colour or not, or a pipe."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO

#: Wide enough that a row in a pipe is never folded.
PIPE_WIDTH = 10_000


@dataclass(frozen=True, slots=True)
class Output:
    """What text is laid out for; without arguments, a pipe."""

    interactive: bool = False
    width: int = PIPE_WIDTH
    color: bool = False

    @classmethod
    def of(cls, stream: IO[str] | None = None, environ: Mapping[str, str] | None = None) -> Output:
        """What ``stream`` (standard output) is; colour unless NO_COLOR is set (no-color.org) or TERM is dumb."""
        stream, environ = stream or sys.stdout, os.environ if environ is None else environ
        if not stream.isatty():
            return cls()
        plain = bool(environ.get("NO_COLOR")) or environ.get("TERM") == "dumb"
        return cls(interactive=True, width=shutil.get_terminal_size().columns, color=not plain)
