"""Run a command line on a terminal of its own, and give what the terminal was sent."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from contextlib import suppress

from tests.support.sandbox import Sandbox

#: Bytes after which a command is not read any further.
_MOST = 1 << 20
#: What terminals obey: C0 without the line ends that the terminal driver itself makes, DEL, C1, marks of direction.
CONTROL = re.compile(
    "[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x9f\\u200e\\u200f\\u202a-\\u202e\\u2066-\\u2069]|\\r(?!\\n)"
)


def on_terminal(sandbox: Sandbox, *args: str, **environ: str) -> str:
    """Run a Python program to its end, without colours, on a wide terminal; return all that it wrote there."""
    master, terminal = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, *args],
            cwd=sandbox.directory,
            env=sandbox.environment({"TERM": "dumb", "NO_COLOR": "1", "COLUMNS": "300", "LANG": "C.UTF-8", **environ}),
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
        )
        os.close(terminal)
        output = b""
        # reading fails with EIO when nobody has the terminal open any more
        with suppress(OSError):
            while len(output) < _MOST and (data := os.read(master, 65536)):
                output += data
        process.kill()
        process.wait()
    finally:
        os.close(master)
    return output.decode()


def controls(text: str) -> list[str]:
    """Return what a terminal would obey in a text, each with what stands around it."""
    return [text[max(0, found.start() - 20) : found.end() + 20] for found in CONTROL.finditer(text)]
