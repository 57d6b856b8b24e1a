"""Imported by an interpreter at its start, where a sandbox records stores: writes down each directory that is made.

``tempfile.mkdtemp`` is audited under that name. Shared memory is the whole machine's, so what lies in it does not tell
who made it.
"""

from __future__ import annotations

import os
import runpy
import sys

RECORD = os.environ["TEST_STORES_MADE"]


def write_down(event: str, arguments: tuple[object, ...]) -> None:
    """Append the path of a directory that is about to be made."""
    if event == "tempfile.mkdtemp":
        record = os.open(RECORD, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        os.write(record, f"{arguments[0]}\n".encode())
        os.close(record)


sys.addaudithook(write_down)
# A test may have a module of that name too.
for folder in sys.path:
    own = os.path.join(folder, "sitecustomize.py")
    if os.path.exists(own) and not os.path.samefile(own, __file__):
        runpy.run_path(own)
        break
