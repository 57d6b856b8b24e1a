"""Tracebacks cut down to the user's own code."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from importlib.util import find_spec
from types import TracebackType

_OURS = tuple(
    folder + os.sep
    for name in ("gunicorn", "promgun")
    if (spec := find_spec(name)) is not None
    for folder in spec.submodule_search_locations or ()
)


def own_traceback(error: BaseException) -> str:
    """Format an exception without the frames of promgun, Gunicorn and the import system above the user's own."""
    shown = error.with_traceback(next(_own_frames(error), None))
    return "".join(traceback.format_exception(type(error), shown, shown.__traceback__)).rstrip()


def is_own_exit(error: SystemExit) -> bool:
    """Tell whether the user's code raised ``error``, and not a signal handler of the server that interrupted it."""
    own = [frame.tb_frame.f_code.co_filename for frame in _own_frames(error)]
    return bool(own) and not any(filename.startswith(_OURS) for filename in own)


def _own_frames(error: BaseException) -> Iterator[TracebackType]:
    frame = error.__traceback__
    while frame is not None and _is_foreign(frame.tb_frame.f_code.co_filename):
        frame = frame.tb_next
    while frame is not None:
        yield frame
        frame = frame.tb_next


def _is_foreign(filename: str) -> bool:
    return filename.startswith(_OURS) or "importlib" in filename
