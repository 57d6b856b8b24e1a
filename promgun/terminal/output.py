"""Fits text to standard output: to a terminal's width and colours, or unchanged into a pipe.

Labels, paths and reason phrases were written by applications and clients. A terminal would obey control characters in
them (ECMA-48: ESC, and U+0080 to U+009F alone), so they are shown escaped there; in a pipe or a file they stay as they
are.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO

#: Surrogates, which no encoding can write.
_SURROGATES = re.compile("[\ud800-\udfff]")
#: Wide enough that no row in a pipe is ever wrapped.
PIPE_WIDTH = 10_000


@dataclass(frozen=True, slots=True, repr=False)
class Output:
    """The terminal or pipe that text is laid out for; without arguments, a pipe."""

    interactive: bool = False
    width: int = PIPE_WIDTH
    color: bool = False

    @classmethod
    def of(cls, stream: IO[str] | None = None, environ: Mapping[str, str] | None = None) -> Output:
        """Describe ``stream``, by default standard output.

        A terminal is in colour unless NO_COLOR is set (no-color.org) or TERM is dumb.
        """
        stream, environ = stream or sys.stdout, os.environ if environ is None else environ
        if not stream.isatty():
            return cls()
        plain = bool(environ.get("NO_COLOR")) or environ.get("TERM") == "dumb"
        return cls(interactive=True, width=shutil.get_terminal_size().columns, color=not plain)

    def text(self, text: str, keep: str = "\n\t") -> str:
        """Return ``text`` for this output: for a terminal, what is not printable is escaped, except ``keep``."""
        return printable(text, keep) if self.interactive else text

    def json(self, text: str) -> str:
        """Return the JSON in ``text`` for this output: what cannot be sent or encoded becomes an escape of JSON's."""
        if self.interactive:
            return _escape(text, "\n", lambda char: json.dumps(char)[1:-1])
        return _SURROGATES.sub(lambda found: json.dumps(found[0])[1:-1], text)


def printable(text: str, keep: str = "") -> str:
    """Return ``text`` with what is not printable escaped as in a Python string, except the characters of ``keep``."""
    return _escape(text, keep, lambda char: char.encode("unicode_escape").decode())


def _escape(text: str, keep: str, escaped: Callable[[str], str]) -> str:
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in keep else escaped(char) for char in text)
