"""The counters, histograms and recorder of one process, made from its configuration."""

from __future__ import annotations

from typing import Any

from promgun.metrics.counters import Counters
from promgun.metrics.defaults import DURATION_BUCKETS, MAX_LABEL_SETS, SIZE_BUCKETS
from promgun.metrics.histograms import Histograms
from promgun.metrics.recorder import Recorder
from promgun.metrics.stream_recorder import StreamRecorder
from promgun.store.process import ProcessStore

#: Used if Gunicorn does not know our options: plain ``gunicorn -k promgun.PrometheusWorker``.
_DEFAULTS = {
    "metrics_duration_buckets": DURATION_BUCKETS,
    "metrics_size_buckets": SIZE_BUCKETS,
    "metrics_max_label_sets": MAX_LABEL_SETS,
    "metrics_request_cpu": True,
}


def option(cfg: Any, name: str) -> Any:
    """Return one of our options from a Gunicorn configuration, or its default where Gunicorn does not know it."""
    setting = cfg.settings.get(name)
    return _DEFAULTS[name] if setting is None else setting.get()


class Instruments:
    """Counters and recorder of a process; ``cpu`` says whether a thread serves one request at a time in it."""

    def __init__(self, store: ProcessStore, cfg: Any, *, cpu: bool = False) -> None:
        self.store = store
        self.counters = Counters(store, option(cfg, "metrics_max_label_sets"))
        self.histograms = Histograms(store, self.counters, option(cfg, "metrics_duration_buckets"))
        durations, sizes = option(cfg, "metrics_duration_buckets"), option(cfg, "metrics_size_buckets")
        cpu = cpu and option(cfg, "metrics_request_cpu")
        self.recorder = Recorder(store, self.counters, durations, sizes, cpu=cpu)
        self.streams = StreamRecorder(store, self.counters, durations, sizes, self.recorder.cpu_cells)

    def retry(self) -> None:
        """Move values that found no space into the store, and store the current state of the application's metrics."""
        self.store.retry()
        self.store.app.tick()
