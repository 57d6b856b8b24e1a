"""The directory that ``PROMETHEUS_MULTIPROC_DIR`` names where ``--metrics-dir`` names another: one of them is used."""

from __future__ import annotations

import os
from typing import Any

from promgun.store.run_directory import MULTIPROC_VARIABLE


def warn_of_unused_directory(cfg: Any, log: Any) -> None:
    """Warn once, at the start, when the variable (in ``raw_env``, or inherited) names another directory than
    ``--metrics-dir``: whoever reads that one finds nothing.
    """
    entries = (entry.partition("=") for entry in cfg.raw_env or ())
    named = {name: value for name, _, value in entries}.get(MULTIPROC_VARIABLE) or cfg.env_orig.get(MULTIPROC_VARIABLE)
    if cfg.metrics_dir and named and os.path.realpath(named) != os.path.realpath(cfg.metrics_dir):
        log.warning(
            "%s names %s, which is not used, because --metrics-dir is given: prometheus_client's files are in %s. "
            "Name that one in both, or leave one of them out",
            MULTIPROC_VARIABLE,
            named,
            os.path.abspath(cfg.metrics_dir),
        )
