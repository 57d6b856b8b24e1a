"""Tracebacks as plain Gunicorn logs them: without the frames that measure."""

from __future__ import annotations

_OURS = "promgun.workers."


def hide_own_frames(error: BaseException) -> None:
    """Take our frames out of an exception's traceback, but for the first entry, which belongs to whoever caught it, and
    the last, which says where it was raised.
    """
    entry = error.__traceback__
    while entry is not None:
        following = entry.tb_next
        while following is not None and str(following.tb_frame.f_globals.get("__name__")).startswith(_OURS):
            following = following.tb_next
        if following is not None:
            entry.tb_next = following
        entry = following
