"""Removes promgun's frames from tracebacks, so that they look as in plain Gunicorn."""

from __future__ import annotations

_OURS = ("promgun.workers.", "promgun.routes.")


def hide_own_frames(error: BaseException) -> None:
    """Remove promgun's frames from an exception's traceback, except the first entry (where it was caught) and the last
    (where it was raised).
    """
    entry = error.__traceback__
    while entry is not None:
        following = entry.tb_next
        while following is not None and str(following.tb_frame.f_globals.get("__name__")).startswith(_OURS):
            following = following.tb_next
        if following is not None:
            entry.tb_next = following
        entry = following
