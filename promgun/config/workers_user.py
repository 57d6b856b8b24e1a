"""What the workers' user keeps of root's rights."""

from __future__ import annotations

import os
import pwd
from typing import Any


def warn_of_left_over_groups(cfg: Any, log: Any) -> None:
    """Warn once, in a master of root's, when its workers keep supplementary groups that their user is not in.

    ``gunicorn.util.set_owner_process`` (25.3 to 27.0) replaces them only with ``--initgroups``, and only together with
    a ``--group``.
    """
    if os.geteuid() != 0 or not cfg.uid or (cfg.initgroups and cfg.gid):
        return
    left = sorted({*os.getgroups()} - {cfg.gid, *_groups_of(cfg.uid, cfg.gid)})
    if left:
        log.warning(
            "Workers keep supplementary groups of root (%s) and may open what these may: add --initgroups%s",
            ", ".join(map(str, left)),
            "" if cfg.gid else " and --group",
        )


def _groups_of(uid: int, gid: int) -> list[int]:
    try:
        return os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)
    except KeyError:
        return []
