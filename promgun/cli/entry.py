"""Where the console script and ``python -m promgun`` begin, so that Ctrl-C during the imports ends quietly too."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NoReturn

from promgun.cli import COMPLETE_VARIABLE
from promgun.errors import ExitCode, PromgunError
from promgun.system.collector import collection_waits

if TYPE_CHECKING:
    from promgun.config.run_settings import RunSettings


def start() -> NoReturn:
    """Run the command line of this process and exit with its code, 130 after Ctrl-C."""
    try:
        settings = _plain_run()
        if settings is not None:
            _run(settings)
        with collection_waits():
            from promgun.cli.main import main  # noqa: PLC0415 - 60 ms in which Ctrl-C would show a traceback

        main()
    except KeyboardInterrupt:
        sys.stderr.write("\npromgun: interrupted\n")
    sys.exit(ExitCode.INTERRUPTED)


def _plain_run() -> RunSettings | None:
    """Return what ``promgun run`` was given, if that can be read without Click."""
    if sys.argv[1:2] != ["run"] or COMPLETE_VARIABLE in os.environ:
        return None
    from promgun.master.interrupts import interrupts_wait  # noqa: PLC0415 - only for run

    with interrupts_wait(), collection_waits():
        from promgun.cli.plain_run import read_plain  # noqa: PLC0415 - only for run

        return read_plain(sys.argv[1:], os.environ)


def _run(settings: RunSettings) -> NoReturn:
    with collection_waits():
        from promgun.master.launch import launch  # noqa: PLC0415 - only for run

    try:
        launch(settings)
    except PromgunError as error:
        from promgun.cli.main import fail  # noqa: PLC0415 - only for an error

        fail(error)
    sys.exit(ExitCode.OK)
