"""Where the console script and ``python -m promgun`` begin, so that Ctrl-C during the imports ends quietly too."""

from __future__ import annotations

import sys
from typing import NoReturn

from promgun.errors import ExitCode
from promgun.system.imports import collection_waits


def start() -> NoReturn:
    """Run the command line of this process and exit with its code, 130 after Ctrl-C."""
    try:
        with collection_waits():
            from promgun.cli.main import main  # noqa: PLC0415 - 60 ms in which Ctrl-C would show a traceback

        main()
    except KeyboardInterrupt:
        sys.stderr.write("\npromgun: interrupted\n")
    sys.exit(ExitCode.INTERRUPTED)
