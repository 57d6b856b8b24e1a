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
#: Upper bounds in seconds, as OpenTelemetry advises for http.server.request.duration (semantic conventions 1.44).
DURATION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
#: Upper bounds in bytes.
SIZE_BUCKETS = (256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 4194304.0, 16777216.0)
