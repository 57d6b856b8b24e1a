"""The first lines of the program: an interrupt while it is still being imported ends it as quietly as a later one."""

from __future__ import annotations

import sys
from typing import NoReturn

#: What a shell reports for a program that an interrupt ended: 128 + SIGINT.
INTERRUPTED = 130


def start() -> NoReturn:
    """Run the command line of this process; the console script and ``python -m promgun`` begin here."""
    try:
        from promgun.cli.main import main  # noqa: PLC0415 - 60 ms in which Ctrl-C would show a traceback

        main()
    except KeyboardInterrupt:
        sys.stderr.write("\npromgun: interrupted\n")
    sys.exit(INTERRUPTED)
