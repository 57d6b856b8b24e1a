"""Defaults that several rooms share: each stands here and nowhere else."""

from __future__ import annotations

#: Port of the metrics endpoint where an address names none.
METRICS_PORT = 9164
#: Where the metrics endpoint listens without ``--metrics-bind``: only this host can reach it.
METRICS_ADDRESS = f"127.0.0.1:{METRICS_PORT}"
#: ``--metrics-max-label-sets``: label sets that a family of ours may have before routes and error types are folded.
MAX_LABEL_SETS = 1000
