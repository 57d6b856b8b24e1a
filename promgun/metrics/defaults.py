"""Defaults that several parts of promgun share; each is defined only here."""

from __future__ import annotations

#: Port of the metrics endpoint when an address has none.
METRICS_PORT = 9164
#: Where the metrics endpoint listens without ``--metrics-bind``: reachable from this host only.
METRICS_ADDRESS = f"127.0.0.1:{METRICS_PORT}"
#: ``--metrics-max-label-sets``: the most label sets of a family before routes and error types are folded.
MAX_LABEL_SETS = 1000
#: ``--metrics-unique-memory``: each worker's unique memory is read once in this many seconds.
UNIQUE_MEMORY_SECONDS = 60
